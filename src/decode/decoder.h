/* SPDX-License-Identifier: MIT */
/* decoder.h - one decoding step: logits of K heads -> 1..K tokens (DynaMo Algorithm 1).
 *
 *   for n = K..2:  J = joint of the first n heads; adaptive threshold; repetition penalty
 *                  emit n tokens from J if dm_decoder_counts() > eps_b^power: max(J), or less;
 *                  with options' cut, cells below that are left out
 *   otherwise:     one token from head 1
 *
 * A joint of which the mask leaves nothing does not pass. Nothing is renormalised after the
 * threshold: J stays a share of the whole, so that a removed mass counts against the block. With a
 * mask that covers all candidates (or none), eps_b = 0 therefore always emits K tokens: the
 * adaptive threshold never removes everything, see dm_joint_threshold(). eps_b = 1 never passes,
 * and the step is the base's own sampling, with the same random number: it is drawn once per step
 * from the stream numbered by the position in the text, however often the step backs off. */
#ifndef DM_DECODE_DECODER_H
#define DM_DECODE_DECODER_H

#include "src/decode/options.h"
#include "src/nn/attention.h"

/* What became of one order. Without options' trace, an order that cannot pass is given up early,
 * and looks as if the mask had left nothing. */
struct dm_try {
    bool tried, passed;
    int otsu;                   /* threshold, -1 = none applied */
    size_t n_cells;             /* that were left to choose from before the penalty */
    double max;                 /* of J after threshold and penalty, 0 if nothing was left */
    double counts;              /* what is compared with the level: max, or what the fit says */
    int32_t best[DM_ORDER_MAX]; /* with options' trace: the tokens that have it */
    double term[DM_FIT_TERMS];  /* with options' trace or fit: what a fit reads */
};

struct dm_block {
    size_t pos;  /* tokens before the block */
    size_t n;    /* tokens sampled */
    size_t kept; /* of them used: fewer when one of them ends the text */
    int32_t id[DM_ORDER_MAX];
    double q; /* probability of the n tokens under the distribution that was sampled */
    struct dm_try order[DM_ORDER_MAX + 1]; /* by n; [0] is not used */
};

struct dm_decoder {
    size_t V, top_k, n_max;
    struct dm_joint *joint;
    bool *seen;    /* (V) tokens of the context, for the penalty */
    size_t n_cand; /* heads whose candidates the last step took */
    struct dm_cand cand[DM_ORDER_MAX];
    struct dm_cand given[DM_ORDER_MAX]; /* as cand, with a path's own tokens, for drafts */
    uint32_t one_cell[DM_TOP_K_MAX];    /* the order-1 "grid" */
    double one_J[DM_TOP_K_MAX];
};

/* Everything that steps with up to top_k candidates and n_max heads need. DM_ENOMEM; release with
 * dm_decoder_release() in any case. */
enum dm_status dm_decoder_init(struct dm_decoder *d, size_t V, size_t top_k, size_t n_max,
                               struct dm_err *e);
void dm_decoder_release(struct dm_decoder *d);

/* Forgets the context; appends to it (ids beyond V are ignored: they cannot be sampled). */
void dm_decoder_reset(struct dm_decoder *d);
void dm_decoder_add(struct dm_decoder *d, const int32_t *ids, size_t n);

/* logits (n,Vp): head 1's row first, n <= n_max; mode ar reads row 0 only. pos = tokens so far.
 * cooc may be NULL. o was checked, o->top_k <= the decoder's. DM_ENAN if a row's maximum is not
 * finite. The context is not changed. */
enum dm_status dm_decoder_step(struct dm_decoder *d, const struct dm_gen_opt *o,
                               const struct dm_cooc *cooc, const float *logits, size_t Vp, size_t n,
                               size_t pos, struct dm_block *out, struct dm_err *e);

/* What a block of order n counts whose largest J of `c` is at `best`: that J; or, where options'
 * fit counts, the fit's confidence, but not more than J: a block passes by both, and most joints
 * can be given up early. With options' trace or fit, term (DM_FIT_TERMS) gets what the fit reads.
 */
double dm_decoder_counts(const struct dm_decoder *d, const struct dm_gen_opt *o,
                         const struct dm_cells *c, size_t best, size_t n, double *term);

/* Rows for the base to verify: id[0] is its own token at position pos, the others are drafts of
 * what follows. p is the estimated probability that the base says the whole path to the row, p[0]
 * = 1. */
struct dm_draft {
    struct dm_tree tree;
    int32_t id[DM_TREE_ROWS];
    double p[DM_TREE_ROWS];
};

/* Lossless mode: w->id[0] is the base's token, already in the context. Grows the tree of its most
 * likely continuations, o->rows rows at most and never deeper than the n heads reach: a token x
 * behind a path weighs what J gives it there, divided by the penalty, and as a share of all
 * candidates that is its probability. Of all continuations of rows that are there the likeliest
 * comes next; with `chain` of those of the last row. It ends early where the mask leaves nothing or
 * a head's logits are not finite. logits (n-1,Vp): heads 2.. as dm_session_keep() has them. */
void dm_decoder_draft(struct dm_decoder *d, const struct dm_gen_opt *o, const struct dm_cooc *cooc,
                      const float *logits, size_t Vp, size_t n, bool chain, struct dm_draft *w);

#endif
