/* SPDX-License-Identifier: MIT */
/* tokenizer.h - byte-level BPE from a Hugging Face tokenizer.json, exactly as `tokenizers` does it
 * for GPT-NeoX-20B: special added tokens on the raw text, NFC, other added tokens, GPT-2 split,
 * byte map, merges by rank. */
#ifndef DM_IO_TOKENIZER_H
#define DM_IO_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

struct dm_tokenizer;

/* From JSON text (n bytes; `where` names it in errors). Unknown models, normalizers and
 * pre-tokenizers are refused by name. Release with dm_tokenizer_free(). */
enum dm_status dm_tokenizer_parse(struct dm_tokenizer **out, const char *json, size_t n,
                                  const char *where, struct dm_err *e);
/* From a tokenizer.json, or from any file of ours that carries one (model, shard). */
enum dm_status dm_tokenizer_load(struct dm_tokenizer **out, const char *path, struct dm_err *e);
void dm_tokenizer_free(struct dm_tokenizer *t);

size_t dm_tokenizer_size(const struct dm_tokenizer *t);                 /* ids are < this */
const char *dm_tokenizer_json(const struct dm_tokenizer *t, size_t *n); /* as it was parsed */
const char *dm_tokenizer_hash(const struct dm_tokenizer *t); /* SHA-256 hex of that text */
int32_t dm_tokenizer_id(const struct dm_tokenizer *t, const char *token, size_t n); /* or -1 */
int32_t dm_tokenizer_eos(const struct dm_tokenizer *t); /* <|endoftext|>, or -1 */

/* Growing array of ids, owned by the caller; zero it first, release with dm_ids_release(). */
struct dm_ids {
    int32_t *id;
    size_t n, cap;
};
void dm_ids_release(struct dm_ids *ids);
enum dm_status dm_ids_push(struct dm_ids *ids, int32_t id, struct dm_err *e);

/* Appends the ids of n bytes of text. Invalid UTF-8: see the .c's header. Thread-safe for a const
 * tokenizer. */
enum dm_status dm_tokenizer_encode(const struct dm_tokenizer *t, const char *text, size_t n,
                                   struct dm_ids *out, struct dm_err *e);

/* The same, faster for many texts: remembers words and keeps its buffers. One per thread; the
 * tokenizer must outlive it. */
struct dm_encoder;
enum dm_status dm_encoder_new(struct dm_encoder **out, const struct dm_tokenizer *t,
                              struct dm_err *e);
void dm_encoder_free(struct dm_encoder *c);
enum dm_status dm_encoder_encode(struct dm_encoder *c, const char *text, size_t n,
                                 struct dm_ids *out, struct dm_err *e);

/* A place where text may be cut without changing its ids: the largest p < n with 0 < p such that
 * encode(text + rest) = encode(text[0..p)) + encode(text[p..n) + rest) for every rest; 0 when
 * there is none. It lies before ASCII white space that follows something else, so prose has one
 * every few bytes. Looks at the end of the text first. */
size_t dm_tokenizer_cut(const struct dm_tokenizer *t, const char *text, size_t n);

/* The bytes of one token (borrowed, may be any bytes, an incomplete UTF-8 sequence too); ids out
 * of range or without a token give n = 0. */
const char *dm_tokenizer_bytes(const struct dm_tokenizer *t, int32_t id, size_t *n);

/* The bytes of n ids as one heap string of *len bytes plus a NUL; release with free(). */
enum dm_status dm_tokenizer_decode(const struct dm_tokenizer *t, const int32_t *ids, size_t n,
                                   char **text, size_t *len, struct dm_err *e);

#endif
