/* SPDX-License-Identifier: MIT */
/* reliability.h - how often a predicted confidence is right: bins of equal numbers of positions,
 * and the expected calibration error. */
#ifndef DM_EVAL_RELIABILITY_H
#define DM_EVAL_RELIABILITY_H

#include <jansson.h>

#include "eval/positions.h"

enum { DM_CURVE_BINS = 50 };

/* What a confidence is of. */
enum dm_curve_kind {
    DM_CURVE_HEAD,    /* a head's largest probability: its token is the target */
    DM_CURVE_JOINT,   /* the largest J tested without the mask: its n tokens are the targets */
    DM_CURVE_MASKED,  /* with it */
    DM_CURVE_ACCEPTED /* the same where this order passes at eps_b (and no higher one does) */
};
extern const char *const dm_curve_kinds[]; /* "head", "joint", "masked", "accepted" */

struct dm_curve_bin {
    size_t n;
    double confidence, correct; /* means */
};

struct dm_curve {
    enum dm_curve_kind kind;
    size_t tokens; /* the head, or the order */
    double eps_b;  /* accepted, else NaN */
    size_t n;      /* positions */
    double ece;    /* sum over bins of n_bin / n * |confidence - correct|; NaN for n = 0 */
    double confidence, correct;
    size_t n_bins;
    struct dm_curve_bin bin[DM_CURVE_BINS]; /* by rising confidence */
};

/* Fills the numbers of a curve from n confidences and whether each was right: 1 <= n_bins <=
 * DM_CURVE_BINS bins whose sizes differ by one at most, fewer if n is less. DM_ENOMEM. */
enum dm_status dm_curve_make(struct dm_curve *c, const double *confidence, const bool *right,
                             size_t n, size_t n_bins, struct dm_err *e);

/* Heads 1..n_heads, then joint, masked and accepted (at o's eps_b and powers) of order 2.. as far
 * as there are heads: *n_curves <= DM_CURVES of them. */
enum { DM_CURVES = DM_ORDER_MAX + 3 * (DM_ORDER_MAX - 1) };
enum dm_status dm_curves(struct dm_curve *out, size_t *n_curves, const struct dm_pos *p, size_t n,
                         size_t n_heads, const struct dm_gen_opt *o, size_t n_bins,
                         struct dm_err *e);

/* "head 2", "3 tokens, masked", .. */
void dm_curve_name(const struct dm_curve *c, char *text, size_t n);

/* As in docs/evaluation.md; new reference, NULL when out of memory. */
json_t *dm_curves_to_json(const struct dm_curve *c, size_t n);

/* An SVG with a panel per curve. By rename. */
enum dm_status dm_curves_plot(const struct dm_curve *c, size_t n, const char *path,
                              struct dm_err *e);

#endif
