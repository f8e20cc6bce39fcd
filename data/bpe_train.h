/* SPDX-License-Identifier: MIT */
/* bpe_train.h - learns a byte-level BPE: count the words of texts, then merge the most frequent
 * pair of symbols again and again. Gives the same merges as Hugging Face's BpeTrainer. */
#ifndef DM_DATA_BPE_TRAIN_H
#define DM_DATA_BPE_TRAIN_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

struct dm_bpe_train;

/* Release with dm_bpe_train_free(), which accepts NULL. */
enum dm_status dm_bpe_train_new(struct dm_bpe_train **b, struct dm_err *e);
void dm_bpe_train_free(struct dm_bpe_train *b);

/* Counts the words of one document (invalid UTF-8 as in src/io/tokenizer.c, NFC, GPT-2 split). The
 * result does not depend on the order of documents. */
enum dm_status dm_bpe_train_add(struct dm_bpe_train *b, const char *text, size_t n,
                                struct dm_err *e);

/* Where a document may be cut so that its parts, added one after the other, count the same: the
 * largest p < n with 0 < p, or 0. */
size_t dm_bpe_train_cut(const struct dm_bpe_train *b, const char *text, size_t n);

/* The smallest vocabulary: two special tokens and 256 bytes. */
#define DM_BPE_MIN_VOCAB 258

struct dm_bpe_stats {
    uint64_t words;    /* counted, with repeats */
    uint64_t distinct; /* words */
    size_t vocab;      /* tokens made; fewer than asked for when the text has no more pairs */
    size_t merges;
};

/* Merges until there are `vocab` tokens or no pair occurs `min_count` times. Among pairs of equal
 * count the one with the smaller left id, then the smaller right id, goes first. *root becomes the
 * tokenizer.json (release with json_decref): <|endoftext|> = 0, <|padding|> = 1, the 256 bytes,
 * then a token for every merge. `progress` (may be NULL) is called now and then with the tokens
 * made. Call once, after the last add. DM_ERANGE: vocab < DM_BPE_MIN_VOCAB; DM_ESTOPPED. */
enum dm_status dm_bpe_train_finish(struct dm_bpe_train *b, size_t vocab, uint64_t min_count,
                                   void (*progress)(void *ctx, size_t tokens), void *ctx,
                                   json_t **root, struct dm_bpe_stats *stats, struct dm_err *e);

#endif
