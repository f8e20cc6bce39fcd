/* SPDX-License-Identifier: MIT */
/* model.h - a model in memory, and its one forward, used by training, scoring and decoding. */
#ifndef DM_MODEL_MODEL_H
#define DM_MODEL_MODEL_H

#include <stdint.h>

#include "src/model/layer.h"
#include "src/model/params.h"

/* Every matrix as products use it: the parameters themselves, or packs of them (linear.h). */
struct dm_mats {
    struct dm_layer_mats *layers, *heads; /* as in struct dm_params */
    struct dm_weight unembed;
    const void *embed; /* (Vp,C) of embed_dtype: params.embed, or the file's bytes */
    enum dm_dtype embed_dtype;
};

struct dm_model {
    struct dm_config cfg;
    struct dm_params params; /* with matrices (dm_model_init), or without (dm_model_load) */
    struct dm_arena mem;
    struct dm_mats mats;
    struct dm_arena mats_mem, pack_mem, file_mem; /* file_mem: packs made while loading */
};

/* Zeroed parameters for cfg (all of them, heads too), products in float32. Release with
 * dm_model_release(). */
enum dm_status dm_model_init(struct dm_model *m, const struct dm_config *cfg, struct dm_err *e);
/* The same, but only what `base` and `heads` say is held in float32. */
enum dm_status dm_model_init_held(struct dm_model *m, const struct dm_config *cfg,
                                  enum dm_held base, enum dm_held heads, struct dm_err *e);
/* A model of packs of fmt with cheap noise of the usual scale for weights, for benchmarks: no
 * matrix is ever in float32. */
enum dm_status dm_model_random(struct dm_model *m, const struct dm_config *cfg, enum dm_format fmt,
                               uint64_t seed, struct dm_err *e);
void dm_model_release(struct dm_model *m);

/* How products with the matrices that are held in float32 are computed from now on: f32 and bf16
 * for training, every format for passes forward. Drops what dm_model_pack() made. */
void dm_model_set_format(struct dm_model *m, enum dm_format fmt);

/* Packs those matrices of a scope once; call again after they change. The others are packs already.
 */
enum dm_status dm_model_pack(struct dm_model *m, enum dm_scope scope, struct dm_err *e);

/* All matrices that products use but the unembedding: of the layers, then of the heads' layers, in
 * the order qkv, proj, up, down. i < 4 * (L + (K-1)*D). */
struct dm_weight *dm_model_matrix(const struct dm_model *m, size_t i);

/* ---- Training and scoring: whole sequences ------------------------------------------------- */

/* Activations and scratch for batches of at most B x T; made once, reused by every step. */
struct dm_pass;
enum dm_pass_kind {
    DM_PASS_SCORE, /* forward only */
    DM_PASS_BASE,  /* backward through everything for head 1 (pretraining) */
    DM_PASS_HEADS, /* stem frozen, backward through heads >= 2 */
    DM_PASS_JOINT  /* backward through everything for all heads (DynaMo's joint recipe) */
};
enum dm_status dm_pass_new(struct dm_pass **out, const struct dm_config *cfg,
                           enum dm_pass_kind kind, size_t B, size_t T, struct dm_err *e);
/* The same with less memory: of the base's layers only the inputs are kept for the backward pass,
 * and their forward runs twice. The bits are the same. */
enum dm_status dm_pass_new_recompute(struct dm_pass **out, const struct dm_config *cfg,
                                     enum dm_pass_kind kind, size_t B, size_t T, struct dm_err *e);
/* Bytes that either would allocate; false when that overflows. */
bool dm_pass_need(size_t *bytes, const struct dm_config *cfg, enum dm_pass_kind kind,
                  bool recompute, size_t B, size_t T);
void dm_pass_free(struct dm_pass *p);
size_t dm_pass_bytes(const struct dm_pass *p);

/* Seconds that dm_pass_train() has spent since the pass was made. */
struct dm_pass_times {
    double stem;     /* forward of the stem, or of all layers but the last */
    double heads;    /* forward of the heads' layers */
    double loss;     /* final LayerNorm, logits, cross-entropy, and their backward */
    double backward; /* of the layers */
};
struct dm_pass_times dm_pass_times(const struct dm_pass *p);

/* Floating-point operations that one token of a sequence of T costs dm_pass_train(): products only,
 * a multiply-add is two, attention is causal, nothing is counted twice. docs/training.md. */
double dm_pass_flops(const struct dm_config *c, enum dm_pass_kind kind, size_t T);

/* What the losses of the heads are multiplied by before their gradients are taken. */
struct dm_loss_opt {
    float scale;
    const float *head_weight; /* (K), NULL = all 1 */
    /* JOINT: a further factor for what heads n >= 2 add to the gradients of the base, that is of
     * the layers that feed them, of the final LayerNorm and of the output embedding. The paper's
     * LR_MB / LR_B, 0.1. 1 gives the gradient of the summed loss. */
    float stem_scale;
    /* (K) what the losses of head n are divided by, for a part of a batch: dm_pass_targets() of the
     * whole. NULL: the targets of this call. */
    const size_t *n_targets;
};

/* Adds the number of head n's targets in ids (B,T) to n_targets[n-1] (K). */
void dm_pass_targets(size_t *n_targets, const int32_t *ids, size_t B, size_t T, size_t K);

/* In ids (B,T) of whole sequences ~id stands for a token that is read and is no target, such as
 * those of a prompt (shard.h). Head n's targets are x[t+n] inside the sequence that are none of
 * these. */

/* Forward of the heads that `kind` trains (BASE: head 1; HEADS: heads 2..K; JOINT: all),
 * loss of DynaMo eq. 1 (head n: mean over the positions with a target, 0 if there is none), its
 * gradient times o->scale * o->head_weight[n-1] ADDED to grads (scope BASE, HEADS or ALL).
 * loss[n-1] (K) is written for the trained heads, in nats, unscaled; the others are NaN. The bits
 * do not depend on the thread count. */
void dm_pass_train(struct dm_pass *p, const struct dm_model *m, struct dm_params *grads,
                   const int32_t *ids, size_t B, size_t T, const struct dm_loss_opt *o,
                   double *loss);

/* Any kind of pass. Per head n and position t: logp[((n-1)*B + b)*T + t] = log p(x[t+n] | x[..t])
 * and rank (NULL skips it; 0 = the most likely) of that target; positions without a target get
 * logp 0 and rank -1. logp (K,B,T). n_heads <= K: 1 scores the base alone. */
void dm_pass_score(struct dm_pass *p, const struct dm_model *m, const int32_t *ids, size_t B,
                   size_t T, size_t n_heads, float *logp, int32_t *rank);

/* All logits: (B*T,Vp) of head n; for parity tests. */
void dm_pass_logits(struct dm_pass *p, const struct dm_model *m, const int32_t *ids, size_t B,
                    size_t T, size_t n, float *logits);

/* ---- Decoding: chunks against a KV cache ---------------------------------------------------- */

/* One sequence's cache: K and V of every stem layer, of layer L-1 and of every head layer. */
struct dm_session;
enum dm_status dm_session_new(struct dm_session **out, const struct dm_model *m, size_t n_heads,
                              struct dm_err *e); /* n_heads 1..K: heads beyond cost nothing */
void dm_session_free(struct dm_session *s);
size_t dm_session_pos(const struct dm_session *s);       /* tokens so far */
void dm_session_reset(struct dm_session *s, size_t pos); /* forget all but the first pos tokens */

/* Runs n new tokens (pos + n <= T_max, asserted) through stem and heads. logits (n_heads,Vp) of the
 * last position, one row per head. Long chunks are cut inside; the result has the same bits as
 * token by token and as dm_pass_logits. */
void dm_session_step(struct dm_session *s, const int32_t *ids, size_t n, float *logits);

/* The same with logits (keep,n_heads,Vp) of each of the last `keep` positions. keep > 1 needs
 * keep <= n <= DM_LAYER_ROWS: few rows, of which DM_LAYER_FEW cost about what one costs. */
void dm_session_step_rows(struct dm_session *s, const int32_t *ids, size_t n, size_t keep,
                          float *logits);

/* Several continuations at once: ids (tree->n) are the rows of a tree (nn/attention.h) behind the
 * tokens so far, at most as many as the context has room for. logits (tree->n,h,Vp), each row with
 * the bits that its path alone would give. h = dm_session_tree_heads() is n_heads if one pass over
 * the output embedding takes so many rows, otherwise 1. The tokens so far stay what they are until
 * dm_session_keep() takes over the path from row 0 to `row`; the other rows are dropped. Where h
 * was 1 logits (n_heads - 1,Vp) gets what heads 2.. say behind that path, NULL if nobody asks. Only
 * models for which dm_session_has_trees(): packed, with the parallel residual, no wider than few
 * rows can be (dm_linear_few_rows). */
bool dm_session_has_trees(const struct dm_session *s);
size_t dm_session_tree_heads(const struct dm_session *s, size_t n);
void dm_session_tree(struct dm_session *s, const int32_t *ids, const struct dm_tree *tree,
                     float *logits);
void dm_session_keep(struct dm_session *s, size_t row, float *logits);

#endif
