/* SPDX-License-Identifier: MIT */
/* cooc_prune.h - which pairs and triplets of a counted corpus a co-occurrence table keeps.
 *
 * A triplet is kept when it occurs at least min_count[1] times; a pair when it occurs at least
 * min_count[0] times or leads a kept triplet. */
#ifndef DM_DATA_COOC_PRUNE_H
#define DM_DATA_COOC_PRUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/ngram.h"
#include "src/base/status.h"

/* The keys of one run that share their first two ids: [begin, end). x2 = 0 where x1 ends its
 * document. */
struct dm_pair {
    uint32_t x1, x2;
    uint64_t count;
    size_t begin, end;
};

/* The pair after the one in *p (zeroed: the first), or false at the end of the part. */
bool dm_pair_next(const struct dm_ngram *g, size_t part, struct dm_pair *p);

/* The third id of key i of a part; 0 where there is none. */
uint32_t dm_pair_third(const struct dm_ngram *g, size_t part, size_t i);

/* Pairs [0] and triplets [1]: */
struct dm_cooc_tally {
    uint64_t min_count[2];
    uint64_t total[2];    /* n-grams, before pruning */
    uint64_t distinct[2]; /* before pruning */
    uint64_t kept[2];     /* distinct, after pruning */
    uint64_t largest[2];  /* the largest count */
};

/* Fills t for the two minimum counts. The result does not depend on the thread count. */
void dm_cooc_count(const struct dm_ngram *g, const uint64_t min_count[2], struct dm_cooc_tally *t);

/* Bytes of the arrays of a table (data/FORMAT.md) before compression. */
size_t dm_cooc_size(size_t V, uint64_t n_pairs, uint64_t n_triplets);

/* Fills t for the smallest minimum counts from min_count[] on, triplets raised first and pairs only
 * once no triplet is left, for which dm_cooc_size() is at most max_size (0 = no limit). DM_ERANGE
 * when even an empty table is larger or when a pair occurs more than UINT32_MAX times. */
enum dm_status dm_cooc_prune(const struct dm_ngram *g, const uint64_t min_count[2], size_t max_size,
                             struct dm_cooc_tally *t, struct dm_err *e);

#endif
