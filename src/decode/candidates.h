/* SPDX-License-Identifier: MIT */
/* candidates.h - the top_k tokens of one head's logits, as a distribution. */
#ifndef DM_DECODE_CANDIDATES_H
#define DM_DECODE_CANDIDATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DM_TOP_K_MAX 256 /* a cut of 50 is usual; an order-3 joint has top_k^3 cells */

struct dm_cand {
    size_t n;                 /* min(top_k, V) */
    int32_t id[DM_TOP_K_MAX]; /* by falling probability, ties by rising id */
    double p[DM_TOP_K_MAX];   /* softmax(logits / temperature) over these n, sums to 1 */
};

/* Selects among ids < V only: rows of logits beyond the vocabulary are padding, which is never
 * sampled. 1 <= top_k <= DM_TOP_K_MAX, V >= 1, temperature > 0. NaN counts as impossible. False
 * when the largest logit is not finite, c is then undefined. */
bool dm_cand_select(struct dm_cand *c, const float *logits, size_t V, size_t top_k,
                    double temperature);

#endif
