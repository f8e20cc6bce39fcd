/* SPDX-License-Identifier: MIT */
/* fit.h - what a block is worth, from what a step knows of it (ours).
 *
 * A block x of n tokens, drawn with probability q(x) from its joint, has a divergence log q(x) -
 * log p(x) from the base, p being the base's sampler. A fit predicts it, in nats, before the block
 * is drawn:
 *
 *   d_n = w_0 + w_1 log J + w_2 log S + sum over h <= n of w_(2+h) log p_h + w_(2+n+h) H_h
 *
 * J is the largest J after threshold and penalty, S the sum of all that are left, p_h what head h
 * gives to the largest one's token among its candidates, H_h the entropy of head h's candidates.
 * exp(-d_n) is the block's confidence; the less of it and J is compared with eps_b^(n-1). `dynamo
 * calibrate` finds the weights by least squares (eval/fit_make.h). */
#ifndef DM_DECODE_FIT_H
#define DM_DECODE_FIT_H

#include <jansson.h>
#include <stdbool.h>

#include "src/decode/joint.h"

enum { DM_FIT_TERMS = 3 + 2 * DM_ORDER_MAX };

struct dm_fit {
    bool known;
    double w[DM_ORDER_MAX + 1][DM_FIT_TERMS]; /* by n; [0] and [1] are not used */
};

/* Terms of order n: 3 + 2 n. */
size_t dm_fit_terms(size_t n);

/* Fills in what the weights of order n are multiplied with. J, S > 0; cell: where J is. cand (n).
 */
void dm_fit_read(double *term, size_t n, double J, double S, size_t cell,
                 const struct dm_cand *cand);

/* exp(-d_n) of these terms, > 0. */
double dm_fit_confidence(const struct dm_fit *f, size_t n, const double *term);

/* No block of order n with J > level has more confidence, whatever its joint: from the candidates
 * cand (n) alone. */
double dm_fit_bound(const struct dm_fit *f, size_t n, double level, const struct dm_cand *cand);

/* {"2": [weights], "3": [weights]}, or null; new reference, NULL when out of memory. */
json_t *dm_fit_to_json(const struct dm_fit *f);

/* The same back: finite numbers, as many as there are terms. DM_EFORMAT. */
enum dm_status dm_fit_from_json(struct dm_fit *f, const json_t *o, const char *where,
                                struct dm_err *e);

#endif
