/* SPDX-License-Identifier: MIT */
/* positions.h - what the heads and their joint say of a held-out text, position by position: the
 * ground of perplexity, accuracy and reliability.
 *
 * A window of `context` tokens is read up to its half; every position from there on whose next K
 * tokens (the targets) are in the window counts. A block of n tokens has three probabilities:
 *
 * heads: p1(x1) .. pn(xn), each head's full softmax at temperature 1: what the paper's tables show.
 *
 * masked: outside the candidates (any target not among its head's top_k) the same; inside
 *
 *   (1 - w) M J(x) + w p1(x1) .. pn(xn),   w = DM_POS_FLOOR
 *
 * with J the joint of heads and table over the candidates at temperature 1, before threshold and
 * penalty, and M the mass that the heads give to the candidates together. It sums to 1 over all
 * blocks: the mask moves mass inside the candidates only. w keeps blocks finite to which the table
 * gives 0. A mask that leaves nothing changes nothing.
 *
 * tested: the J that decoding compares with a power of eps_b: at the options' temperature, after
 * threshold and penalty. It only decides how many tokens a step gives. */
#ifndef DM_EVAL_POSITIONS_H
#define DM_EVAL_POSITIONS_H

#include "src/decode/options.h"
#include "src/io/shard.h"
#include "src/model/model.h"

#define DM_POS_FLOOR 0.01

enum { DM_POS_PLAIN, DM_POS_MASKED, DM_POS_KINDS };

/* Of order n >= 2, with or without the mask. */
struct dm_pos_joint {
    double max;    /* largest J tested, 0 if the mask left nothing */
    double counts; /* what of it is compared with the level: decoder.h */
    bool right;    /* its tokens are the targets */
};

struct dm_pos {
    float logp[DM_ORDER_MAX];   /* of head n's target at [n-1], nats */
    int32_t rank[DM_ORDER_MAX]; /* 0 = the likeliest */
    float top[DM_ORDER_MAX];    /* each head's largest probability */
    bool outside[DM_ORDER_MAX]; /* the target is no candidate */
    struct dm_pos_joint joint[DM_POS_KINDS][DM_ORDER_MAX + 1]; /* by n */
    double masked[DM_ORDER_MAX + 1]; /* log of the masked probability, by n >= 1 */
    bool zero[DM_ORDER_MAX + 1];     /* inside the candidates, but J = 0 */
};

/* Heads that count: the model's, at most DM_ORDER_MAX. */
size_t dm_pos_heads(const struct dm_model *m);

/* Positions of one window; 0 if the context is too short for any. */
size_t dm_pos_per_window(size_t context, size_t n_heads);

/* `windows` windows of `context` ids, spread evenly over N >= windows * context tokens: where
 * window w begins. */
size_t dm_pos_start(size_t w, size_t windows, size_t context, size_t N);

/* The windows of a shard into ids (windows,context). DM_ERANGE if it has too few tokens. */
enum dm_status dm_pos_read(int32_t *ids, struct dm_shard *shard, size_t windows, size_t context,
                           struct dm_err *e);

/* Called after each window; false stops with DM_ESTOPPED. */
typedef bool dm_pos_fn(void *ctx, size_t windows_done);

/* out (windows * per_window) from ids (windows,context). Without a table (cooc NULL) the masked
 * kind is the plain one. o was checked; of it temperature, top_k, penalty, fit, alpha_c, alpha_3,
 * unseen, lambda, threshold and blur count. fn may be NULL. DM_ERANGE (context, ids), DM_ENAN,
 * DM_ENOMEM. */
enum dm_status dm_pos_run(struct dm_pos *out, const struct dm_model *m, const struct dm_cooc *cooc,
                          const struct dm_gen_opt *o, const int32_t *ids, size_t windows,
                          size_t context, dm_pos_fn *fn, void *ctx, struct dm_err *e);

/* How many tokens a step gives there: the largest n <= n_heads that counts more than
 * dm_gen_opt_level(), else 1. Of o eps_b and its powers count. */
size_t dm_pos_tokens(const struct dm_pos *p, int kind, const struct dm_gen_opt *o, size_t n_heads);

/* -log probability per token of the next n targets: of the heads (PLAIN) or masked. */
double dm_pos_nll(const struct dm_pos *p, int kind, size_t n);

#endif
