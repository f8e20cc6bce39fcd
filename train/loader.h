/* SPDX-License-Identifier: MIT */
/* loader.h - sequences of T tokens from token shards, in an order that only the seed decides.
 *
 * Every shard is cut into consecutive windows of T tokens (the rest is dropped): documents are
 * packed, nothing is masked. A fixed permutation of all windows gives the first `val_fraction` of
 * them to validation; it does not depend on the seed, so that heads trained on the shards of their
 * base keep the base's held-out windows when T and the fraction are the same. The order of the
 * others is another permutation, keyed by seed and epoch, that is computed and not stored: any
 * position (epoch, index) can be entered directly.
 *
 * Tokens that are no targets of training (the prompts of instructions) come as ~id (shard.h). */
#ifndef DM_TRAIN_LOADER_H
#define DM_TRAIN_LOADER_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

struct dm_loader;

struct dm_loader_opt {
    const char *const *data; /* (n_data) shards */
    size_t n_data;
    const char *const *val; /* (n_val) held-out shards; with these val_fraction is not used */
    size_t n_val;
    double val_fraction; /* at least one window when > 0; 0 = no validation */
    size_t T;
    uint64_t seed;
    size_t V;                   /* ids must be below */
    const char *tokenizer_hash; /* every shard must have it; NULL = not checked */
    size_t cache_bytes;         /* shards that fit are kept in memory, 4 bytes a token */
};

struct dm_loader_pos {
    uint64_t epoch, index;
};

/* Opens the shards and checks that they belong together. DM_EMISMATCH for another tokenizer,
 * DM_ERANGE for a vocabulary above V or too few tokens, and what dm_shard_open returns. Release
 * with dm_loader_free(). The strings of opt are only used here. */
enum dm_status dm_loader_new(struct dm_loader **out, const struct dm_loader_opt *opt,
                             struct dm_err *e);
void dm_loader_free(struct dm_loader *l); /* NULL is fine */

size_t dm_loader_train_windows(const struct dm_loader *l); /* per epoch, >= 1 */
size_t dm_loader_val_windows(const struct dm_loader *l);

/* The next B training windows into ids (B,T); pos moves on and over the ends of epochs. */
enum dm_status dm_loader_next(struct dm_loader *l, struct dm_loader_pos *pos, int32_t *ids,
                              size_t B, struct dm_err *e);

/* Validation windows [start, start+n), start+n <= dm_loader_val_windows(), into ids (n,T). */
enum dm_status dm_loader_val(struct dm_loader *l, size_t start, size_t n, int32_t *ids,
                             struct dm_err *e);

#endif
