/* SPDX-License-Identifier: MIT */
/* ppl.h - validation: perplexities of the heads from log p per position.
 *
 *   PPL_n   = exp(-mean of log p(x[t+n] | x[..t])) over the positions with that target
 *   PPL_1:n = exp(-mean of 1/n * sum over heads 1..n of the same) over the positions with all n
 *             targets: the geometric mean of the heads' (no co-occurrence mask is applied) */
#ifndef DM_TRAIN_PPL_H
#define DM_TRAIN_PPL_H

#include <jansson.h>

#include "src/base/ranks.h"
#include "src/model/model.h"
#include "train/loader.h"

enum { DM_PPL_MAX_HEADS = 16 };

struct dm_ppl {
    size_t K; /* heads, 0 = nothing measured */
    size_t windows;
    size_t n[DM_PPL_MAX_HEADS];       /* positions of head n+1 */
    double sum[DM_PPL_MAX_HEADS];     /* of -log p */
    size_t n_joint[DM_PPL_MAX_HEADS]; /* of PPL_1:n+1 */
    double sum_joint[DM_PPL_MAX_HEADS];
};

/* Adds the positions of logp (K,B,T) as dm_pass_score() writes it for ids (B,T). p->K is set. */
void dm_ppl_add(struct dm_ppl *p, const float *logp, const int32_t *ids, size_t K, size_t B,
                size_t T);

double dm_ppl_head(const struct dm_ppl *p, size_t n);  /* PPL_n, n = 1..K */
double dm_ppl_joint(const struct dm_ppl *p, size_t n); /* PPL_1:n; n = 1 is PPL_1 */
/* Mean loss of heads first..K in nats: what training minimises with equal weights. */
double dm_ppl_loss(const struct dm_ppl *p, size_t first);

/* {"windows": .., "ppl_1": .., "ppl_2": .., "ppl_1:2": ..}; new reference. */
json_t *dm_ppl_json(const struct dm_ppl *p);

struct dm_ppl_job {
    struct dm_pass *pass;
    const struct dm_model *m;
    struct dm_loader *loader;
    size_t windows, micro, T; /* the first windows are scored, `micro` at a time */
    int32_t *ids;             /* scratch (micro,T), for several processes twice that */
    float *logp;              /* scratch (K,micro,T), the same */
    struct dm_ranks *ranks;   /* each scores a part; NULL = one */
};

/* Scores validation windows with all heads of the model. The sums are formed in the order of the
 * windows, on all processes. */
enum dm_status dm_ppl_measure(struct dm_ppl *p, const struct dm_ppl_job *j, struct dm_err *e);

#endif
