/* SPDX-License-Identifier: MIT */
/* shard.h - token shards: one long run of ids, documents separated by token 0 (data/FORMAT.md).
 *
 * A shard of instructions has a prompt template and marks the tokens that are no targets of
 * training (the prompts). In memory such a token is written ~id, which is negative. */
#ifndef DM_IO_SHARD_H
#define DM_IO_SHARD_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/hash.h"
#include "src/base/status.h"
#include "src/io/h5.h"

struct dm_shard; /* an open file, reading by range */

enum dm_status dm_shard_open(struct dm_shard **s, const char *path, struct dm_err *e);
void dm_shard_close(struct dm_shard *s);
size_t dm_shard_tokens(const struct dm_shard *s);
size_t dm_shard_vocab(const struct dm_shard *s); /* ids are < this, checked on read */
const char *dm_shard_tokenizer_hash(const struct dm_shard *s);
int32_t dm_shard_separator(const struct dm_shard *s); /* 0 */
/* template.h's JSON text, NULL for a shard in which every token is a target; borrowed. */
const char *dm_shard_template(const struct dm_shard *s);

/* The template of those of n shards that have one, as heap text; NULL when none has. DM_EMISMATCH
 * when they differ: a model has one. */
enum dm_status dm_shard_common_template(char **json, const char *const *paths, size_t n,
                                        struct dm_err *e);

/* ids [start, start+n) into out; DM_ERANGE beyond the end, DM_EFORMAT for an id >= vocab. */
enum dm_status dm_shard_read(struct dm_shard *s, int32_t *out, size_t start, size_t n,
                             struct dm_err *e);
/* The same, but tokens that are no targets come as ~id. */
enum dm_status dm_shard_read_targets(struct dm_shard *s, int32_t *out, size_t start, size_t n,
                                     struct dm_err *e);

/* The same in two steps, for threads: one at a time fetches parts of DM_SHARD_PART ids (fewer at
 * the end), any thread turns parts of its own into ids. A zeroed part is ready for use; free it
 * with dm_shard_part_release(). Its chunk has the name that the open shard has. */
#define DM_SHARD_PART ((size_t)DM_H5_CHUNK)
struct dm_shard_part {
    struct dm_h5_chunk chunk;
    size_t start, n, vocab;
};
enum dm_status dm_shard_fetch(struct dm_shard *s, size_t part, struct dm_shard_part *p,
                              struct dm_err *e);
enum dm_status dm_shard_unpack(struct dm_shard_part *p, int32_t *out, struct dm_err *e);
void dm_shard_part_release(struct dm_shard_part *p);

struct dm_shard_writer;
/* uint16 when vocab <= 65536, else uint32; `provenance` is JSON text; the tokenizer's JSON is
 * stored too, so that a shard explains itself. */
enum dm_status dm_shard_create(struct dm_shard_writer **w, const char *path, size_t vocab,
                               const char *tokenizer_json, const char *tokenizer_hash,
                               const char *provenance, struct dm_err *e);
/* Before the first dm_shard_append(): makes it a shard of instructions; ids may then be ~id. */
enum dm_status dm_shard_set_template(struct dm_shard_writer *w, const char *json, struct dm_err *e);
enum dm_status dm_shard_append(struct dm_shard_writer *w, const int32_t *ids, size_t n,
                               struct dm_err *e);
enum dm_status dm_shard_commit(struct dm_shard_writer *w, struct dm_err *e); /* frees w always */
void dm_shard_abort(struct dm_shard_writer *w);                              /* NULL is fine */

#endif
