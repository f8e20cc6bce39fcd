/* SPDX-License-Identifier: MIT */
/* fit_make.h - makes a fit (src/decode/fit.h) on texts of the base.
 *
 * At each position of such a text the joint of each order gives a block, drawn as decoding would
 * draw it, whether it would pass or not; the base then says log p of it. The weights are the least
 * squares over all positions for log q - log p. How much a fit can be believed is told by
 * cross-validation: texts with an even number get the weights of those with an odd one, and vice
 * versa. */
#ifndef DM_EVAL_FIT_MAKE_H
#define DM_EVAL_FIT_MAKE_H

#include "eval/trial.h"

/* A text gives DM_FIT_TEXT positions at most, and there are DM_FIT_TEXTS texts at most: 2,000
 * positions, three passes each. Fewer than DM_FIT_LEAST of an order are too few for a fit. */
enum { DM_FIT_TEXTS = 40, DM_FIT_TEXT = 50, DM_FIT_LEAST = 90, DM_FIT_BINS = 10 };

/* Equal numbers of positions by what was claimed, rising: means in nats of the block. */
struct dm_fit_bin {
    size_t n;
    double claimed, found;
};

struct dm_fit_curve {
    size_t n_bins;
    double error; /* mean over positions of their bin's |claimed - found| */
    struct dm_fit_bin bin[DM_FIT_BINS];
};

enum dm_fit_claim { DM_FIT_JOINT, DM_FIT_FITTED, DM_FIT_CLAIMS };
extern const char *const dm_fit_claim_names[]; /* "joint": -log J; "fit": d_n */

struct dm_fit_order {
    size_t positions;
    double explained; /* share of the variance, with weights of other texts */
    struct dm_fit_curve curve[DM_FIT_CLAIMS];
};

struct dm_fit_report {
    struct dm_fit fit; /* not known: there were too few positions */
    struct dm_fit_order order[DM_ORDER_MAX + 1];
};

/* Texts of `tokens` tokens behind prompts from among these, at equal distances, with the heads of
 * m (K >= 2), the table (NULL: none) and o, whose temperature is > 0; seed: of texts and blocks. fn
 * may be NULL and gets the share that is done. Texts end where the context does. DM_ENAN,
 * DM_ENOMEM, DM_ESTOPPED. */
enum dm_status dm_fit_make(struct dm_fit_report *out, const struct dm_model *m,
                           const struct dm_cooc *cooc, const struct dm_gen_opt *o,
                           const int32_t *prompts, size_t n_prompts, size_t prompt_tokens,
                           size_t tokens, uint64_t seed, dm_trial_fn *fn, void *ctx,
                           struct dm_err *e);

/* {"2": {positions, explained, curves: {"joint": {error, bins: [{n, claimed, found}]}, "fit":
 * ..}}, "3": ..}; orders without positions are absent. New reference, NULL when out of memory. */
json_t *dm_fit_report_to_json(const struct dm_fit_report *r);

/* One block. */
struct dm_fit_sample {
    size_t text;
    double J;    /* the largest */
    double nats; /* log q - log p */
    double term[DM_FIT_TERMS];
};

/* The weights (n_terms) that predict nats best, of the samples whose text % 2 is not `but` (2: all
 * of them). */
void dm_fit_solve(double *w, size_t n_terms, const struct dm_fit_sample *s, size_t n, size_t but);

#endif
