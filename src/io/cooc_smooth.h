/* SPDX-License-Identifier: MIT */
/* cooc_smooth.h - ratios for n-grams that a co-occurrence table does not hold, by discounting.
 *
 * Every count gives up D_n = n1 / (n1 + 2 n2) (n1, n2: n-grams that occur once, twice), and what is
 * given up, by pruning too, goes to the next shorter history:
 *
 *   P(x2|x1)    = max(c(x1,x2) - D_2, 0) / c(x1) + g(x1) p(x2)
 *   P(x3|x1,x2) = max(c(x1,x2,x3) - D_3, 0) / c(x1,x2) + g(x1,x2) P(x3|x2)
 *
 * with g such that each adds up to 1 over all tokens (interpolated absolute discounting). Then
 * r_2 = P(x2|x1) / p(x2) and r_3 = P(x2|x1) P(x3|x1,x2) / (p(x2) p(x3)), so that
 *
 *   an unseen pair has     r_2 = g(x1)
 *   an unseen triplet has  r_3 = r_2(x1,x2) g(x1,x2) r_2(x2,x3), with g = 1 if (x1,x2) is unseen */
#ifndef DM_IO_COOC_SMOOTH_H
#define DM_IO_COOC_SMOOTH_H

#include "src/io/cooc.h"

struct dm_cooc_smooth {
    double discount[2]; /* of pairs, triplets; 0 where counts of counts are not known */
    float *g1;          /* (V) */
    float *g2;          /* (n_pairs) */
    float *r2;          /* (n_pairs) */
    float *r3;          /* (n_triplets) */
};

/* Smooths a table that is loaded. DM_ENOMEM; release with dm_cooc_smooth_release(), after a failure
 * too. The result does not depend on the number of threads. */
enum dm_status dm_cooc_smooth(struct dm_cooc_smooth *s, const struct dm_cooc *c, struct dm_err *e);
void dm_cooc_smooth_release(struct dm_cooc_smooth *s);

/* r_2 and r_3 of any tokens, by look-up and back-off. */
float dm_cooc_smooth_r2(const struct dm_cooc_smooth *s, const struct dm_cooc *c, uint32_t x1,
                        uint32_t x2);
float dm_cooc_smooth_r3(const struct dm_cooc_smooth *s, const struct dm_cooc *c, uint32_t x1,
                        uint32_t x2, uint32_t x3);

#endif
