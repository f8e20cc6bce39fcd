/* SPDX-License-Identifier: MIT */
/* joint.h - the joint distribution of the next n tokens, n = 2 or 3 (DynaMo eqs. 3 to 6).
 *
 *   J(x1..xn) = p1(x1) * ... * pn(xn) * r(x1..xn)^alpha / Z,   Z such that J sums to 1
 *
 * over the grid of candidates. r is r_n of the co-occurrence table where the table holds the
 * n-gram; elsewhere, by the policy, with lambda in [0, 1] = how far the table is trusted:
 *
 *   zero      0 (the paper's)
 *   mix       r = lambda * r_n + (1 - lambda) everywhere, so 1 - lambda for an unseen n-gram
 *   backoff   pairs: 1 - lambda; triplets: r2(x1,x2) * r2(x2,x3), which is what a bigram chain
 *             predicts for r3, with 1 - lambda again for an unseen pair in it
 *   discount  all ratios smoothed by absolute discounting, see src/io/cooc.h: an unseen pair has
 *             what the pairs of x1 leave, an unseen triplet the chain times what those of (x1,x2)
 *             leave
 *
 * alpha = 0 or no table: r = 1.
 *
 * The joint is kept as what it is made of: a product A[i][j] * B[j][k] for the unseen, which never
 * has to be multiplied out, and a list of the n-grams that the table holds. Only rows that can
 * matter are ever filled with numbers. The table's rows are sieved for all candidates at once, and
 * triplets are looked for only behind pairs that exist: there are no look-ups per cell. Since Z
 * only grows while triplets are found, most joints that are too flat for the caller's cut are
 * known to be so after the first few pairs. */
#ifndef DM_DECODE_JOINT_H
#define DM_DECODE_JOINT_H

#include "src/decode/candidates.h"
#include "src/decode/threshold.h"
#include "src/io/cooc.h"

#define DM_ORDER_MAX 3 /* the table has pairs and triplets */

enum dm_unseen { DM_UNSEEN_ZERO, DM_UNSEEN_MIX, DM_UNSEEN_BACKOFF, DM_UNSEEN_DISCOUNT };

struct dm_mask {
    const struct dm_cooc *cooc; /* borrowed; NULL = no mask; discount: its ratios must be smoothed,
                                   or those of its `discounted`, otherwise its own must not */
    double alpha;               /* >= 0 */
    enum dm_unseen unseen;
    double lambda;
};

/* Surviving cells in rising order: cell = (i * d1 + j) * d2 + k, positions among the candidates of
 * heads 1..n; two tokens have d0 = 1 and cell = j * d2 + k. */
struct dm_cells {
    size_t n;
    uint32_t *cell;
    double *J; /* > 0 */
};

struct dm_joint; /* one step's joint and all its memory */

/* For ids < V, at most top_k candidates and order n_max <= DM_ORDER_MAX (1 needs little). The only
 * allocation; most of it is never touched. DM_ENOMEM. Release with dm_joint_free(). */
enum dm_status dm_joint_new(struct dm_joint **out, size_t V, size_t top_k, size_t n_max,
                            struct dm_err *e);
void dm_joint_free(struct dm_joint *j);

/* A new step: the candidates of heads 1..n (borrowed until the next begin, within new's bounds) and
 * the mask. Finds the pairs, which all orders share. */
void dm_joint_begin(struct dm_joint *j, const struct dm_cand *cand, size_t n,
                    const struct dm_mask *mask);

/* Makes the joint of the first n tokens, 2 <= n <= begin's n. False if the mask leaves nothing, or
 * if it turns out before all is done that no J exceeds `cut` (0: all is done): there is then no
 * joint to ask for. True does not mean that one does. */
bool dm_joint_order(struct dm_joint *j, size_t n, double cut);
struct dm_grid dm_joint_grid(const struct dm_joint *j);

/* The cells with J >= cut (cut = 0: all with J > 0). `out` is borrowed memory of j. */
void dm_joint_collect(struct dm_joint *j, double cut, struct dm_cells *out);

/* The cells that survive the adaptive threshold, with their unblurred J; returns Otsu's threshold.
 * -1: the image has one grey level (the joint is too flat for 8 bits, or one cell), so that Otsu
 * has nothing to part and nothing is to be removed; `out` is then empty, dm_joint_collect() lists
 * the cells. */
int dm_joint_threshold(struct dm_joint *j, bool blur, struct dm_cells *out);

/* J of one cell of the grid. */
double dm_joint_cell(struct dm_joint *j, size_t cell);

/* The largest J, exactly. */
double dm_joint_max(struct dm_joint *j);

#endif
