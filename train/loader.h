/* SPDX-License-Identifier: MIT */
/* loader.h - sequences of T tokens from token shards, in an order that only the seed decides.
 *
 * Documents (what ends with the separator) are packed: those that train, and those that validate,
 * are laid end to end in each shard and cut into windows of T tokens; the rest is dropped and
 * nothing is masked. Whole documents are held out, in a fixed random order until they have the
 * share that is asked for, or the end of a shard that has none short enough (split.h); the choice
 * depends on the shard and the share alone, so that heads trained on the shards of their base keep
 * the base's held-out text.
 *
 * Training sequences are numbered 0, 1, 2, ... without end. Any number can be entered directly: the
 * order is made of permutations, keyed by seed and round, that are computed and not stored. Without
 * weights a round is an epoch: every window once. With weights a round is 4096 sequences, of which
 * each shard has its share to the nearest; a shard goes through all its windows before it repeats
 * one.
 *
 * Tokens that are no targets of training (the prompts of instructions) come as ~id (shard.h). */
#ifndef DM_TRAIN_LOADER_H
#define DM_TRAIN_LOADER_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

struct dm_loader;
struct dm_shard;

struct dm_loader_opt {
    const char *const *data; /* (n_data) shards */
    const double *weight;    /* (n_data) shares of the sequences, any scale; NULL = by size */
    size_t n_data;
    const char *const *val; /* (n_val) held-out shards; with these val_fraction is not used */
    size_t n_val;
    double val_fraction; /* of the tokens of each shard; at least one window when > 0 */
    size_t T;
    uint64_t seed;
    size_t V;                   /* ids must be below */
    const char *tokenizer_hash; /* every shard must have it; NULL = not checked */
    size_t cache_bytes;         /* shards that fit are kept in memory, 4 bytes a token */
};

/* Whether an open shard is for a model with this tokenizer (NULL = not checked) and vocabulary:
 * DM_EMISMATCH, DM_ERANGE. */
enum dm_status dm_loader_check(const struct dm_shard *s, const char *path,
                               const char *tokenizer_hash, size_t V, struct dm_err *e);

/* Opens the shards, checks that they belong together and reads through those that are split.
 * DM_EMISMATCH for another tokenizer, DM_ERANGE for a vocabulary above V, too few tokens, or
 * nothing that can be held out, and what dm_shard_open returns. Release with dm_loader_free(). The
 * strings of opt are only used here. */
enum dm_status dm_loader_new(struct dm_loader **out, const struct dm_loader_opt *opt,
                             struct dm_err *e);
void dm_loader_free(struct dm_loader *l); /* NULL is fine */

size_t dm_loader_train_windows(const struct dm_loader *l); /* of all shards, >= 1 */
size_t dm_loader_val_windows(const struct dm_loader *l);

/* Training sequences first .. first+n-1 into ids (n,T). */
enum dm_status dm_loader_read(struct dm_loader *l, uint64_t first, size_t n, int32_t *ids,
                              struct dm_err *e);

/* Begins to read these in a thread; the dm_loader_read() that asks for the same gets them from
 * there. A hint: without a thread, or with all in memory, nothing happens. Until
 * dm_loader_quiet(), or the next call of another function here, has returned, the caller must leave
 * HDF5 alone. */
void dm_loader_prefetch(struct dm_loader *l, uint64_t first, size_t n);
void dm_loader_quiet(struct dm_loader *l); /* waits for the thread; what it has read stays */

/* Validation windows [start, start+n), start+n <= dm_loader_val_windows(), into ids (n,T). Their
 * order is random, too, but the same for every seed. */
enum dm_status dm_loader_val(struct dm_loader *l, size_t start, size_t n, int32_t *ids,
                             struct dm_err *e);

#endif
