/* SPDX-License-Identifier: MIT */
/* score.h - log p and rank of every token of a text under every head, and the perplexities.
 *
 * A text longer than the context is cut into windows that overlap by half: the first window scores
 * all its tokens, each later one only those that no earlier window held. So every token after the
 * first window is seen with at least half a context before it, and each is scored once. */
#ifndef DM_EVAL_SCORE_H
#define DM_EVAL_SCORE_H

#include <jansson.h>

#include "src/model/model.h"

enum { DM_SCORE_HEADS = 16 };

struct dm_scorer; /* the model's pass for one window */

/* Windows of `context` tokens (0 = the model's), the first n_heads heads (0 = all). DM_ERANGE
 * unless 2 * n_heads <= context <= T_max and n_heads <= K; DM_ENOMEM. m is borrowed. */
enum dm_status dm_scorer_new(struct dm_scorer **out, const struct dm_model *m, size_t context,
                             size_t n_heads, struct dm_err *e);
void dm_scorer_free(struct dm_scorer *s);
size_t dm_scorer_heads(const struct dm_scorer *s);
size_t dm_scorer_context(const struct dm_scorer *s);

/* ids (N). logp[(n-1)*N + i] = log p(ids[i] | ids[..i-n]) from head n, in nats, and its rank among
 * all ids (0 = the most likely; NULL skips it). The first n tokens have nothing to be predicted
 * from by head n: logp 0, rank -1. DM_ERANGE for an id >= Vp. */
enum dm_status dm_scorer_run(struct dm_scorer *s, const int32_t *ids, size_t N, float *logp,
                             int32_t *rank, struct dm_err *e);

/* Sums over texts; zero it first. */
struct dm_score_sum {
    double nll[DM_SCORE_HEADS]; /* nats */
    size_t n[DM_SCORE_HEADS];   /* tokens scored */
};
void dm_score_add(struct dm_score_sum *sum, const float *logp, size_t N, size_t n_heads);

/* PPL_n = exp(mean of -log p) of head n >= 1; NaN when it scored nothing. */
double dm_score_ppl(const struct dm_score_sum *sum, size_t n);
/* PPL_1:n of the joint of the first n heads without a mask: the geometric mean of PPL_1..PPL_n. */
double dm_score_ppl_joint(const struct dm_score_sum *sum, size_t n);

/* {"tokens": [..], "ppl": [PPL_1..], "ppl_joint": [PPL_1:1, PPL_1:2, ..]}; new reference. NULL when
 * out of memory; null for NaN. */
json_t *dm_score_to_json(const struct dm_score_sum *sum, size_t n_heads);

#endif
