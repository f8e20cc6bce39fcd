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

/* Whether the table that t describes meets the caller's size budget: *fits. */
typedef enum dm_status dm_cooc_fits_fn(void *ctx, const struct dm_cooc_tally *t, bool *fits,
                                       struct dm_err *e);

/* Fills t for the smallest minimum counts from min_count[] on that meet the budget (`fits` NULL: no
 * budget). Triplets are raised first and pairs only once no triplet is left; each by doubling, then
 * halving the interval. *met is false when even a table without pairs is too large. DM_ERANGE when
 * a pair occurs more than UINT32_MAX times, and whatever `fits` returns. */
enum dm_status dm_cooc_prune(const struct dm_ngram *g, const uint64_t min_count[2],
                             dm_cooc_fits_fn *fits, void *ctx, struct dm_cooc_tally *t, bool *met,
                             struct dm_err *e);

#endif
