/* SPDX-License-Identifier: MIT */
/* heldout.h - perplexities and hit rates over the positions of a held-out text (positions.h). */
#ifndef DM_EVAL_HELDOUT_H
#define DM_EVAL_HELDOUT_H

#include <jansson.h>

#include "eval/positions.h"

/* Index n - 1: head n, or a block of n tokens. All over the same positions. */
struct dm_ppl {
    size_t positions, n_heads;
    double head[DM_ORDER_MAX];          /* PPL_n = exp(mean of -log p_n) */
    double joint[DM_ORDER_MAX];         /* PPL_1:n of the heads: geometric mean of PPL_1..PPL_n */
    double masked[DM_ORDER_MAX];        /* PPL_1:n of the masked probability; [0] is PPL_1 */
    double outside[DM_ORDER_MAX];       /* share of targets that are no candidates of their head */
    double outside_joint[DM_ORDER_MAX]; /* share of blocks with such a target */
    double zero[DM_ORDER_MAX];          /* share of blocks inside to which the mask gives 0 */
};

/* NaN everywhere for n = 0. */
void dm_ppl_sum(struct dm_ppl *out, const struct dm_pos *p, size_t n, size_t n_heads);

/* PPL_d = exp(mean over positions of -log probability per token of the block that the back-off rule
 * chooses there, with o's eps_b and powers). eps_b = 0 gives PPL_1:K where the mask leaves
 * something everywhere, eps_b = 1 gives PPL_1. With kind MASKED both choice and probability are the
 * mask's. */
struct dm_ppl_dynamic {
    double eps_b;
    int kind; /* DM_POS_PLAIN, .. */
    double ppl;
    double tokens;              /* mean n */
    double share[DM_ORDER_MAX]; /* of positions with n = index + 1 */
};
void dm_ppl_dynamic(struct dm_ppl_dynamic *out, const struct dm_pos *p, size_t n, size_t n_heads,
                    int kind, const struct dm_gen_opt *o);

/* Shares of positions. */
struct dm_accuracy {
    size_t positions, n_heads;
    double top1[DM_ORDER_MAX], top5[DM_ORDER_MAX]; /* of head n at [n-1] */
    double heads[DM_ORDER_MAX + 1];                /* by n: all of heads 1..n are right */
    double joint[DM_POS_KINDS][DM_ORDER_MAX + 1];  /* the best block that decoding tests is */
};
void dm_accuracy_sum(struct dm_accuracy *out, const struct dm_pos *p, size_t n, size_t n_heads);

/* As in docs/evaluation.md; new references, NULL when out of memory. `dynamic` (n_dynamic). */
json_t *dm_ppl_to_json(const struct dm_ppl *p, const struct dm_ppl_dynamic *dynamic,
                       size_t n_dynamic);
json_t *dm_accuracy_to_json(const struct dm_accuracy *a);

#endif
