/* SPDX-License-Identifier: MIT */
/* layer.h - one GPT-NeoX decoder layer: the forward that training, scoring and decoding share, and
 * its adjoint. Formulas: MODEL.md. */
#ifndef DM_MODEL_LAYER_H
#define DM_MODEL_LAYER_H

#include "src/model/params.h"
#include "src/nn/attention.h"
#include "src/nn/linear.h"

/* What a layer computes on the way, N = B*T rows, and its backward reads. mid exists only for the
 * sequential residual (config.parallel = false). */
#define DM_LAYER_SAVED(X)                                                          \
    X(ln1_mean, N, 1)                                                              \
    X(ln1_rstd, N, 1)                                                              \
    X(qkv, N, 3 * c->C) /* per head q, k, v; q and k after the rotary embedding */ \
    X(att, N, c->C)     /* heads side by side, before the output projection */     \
    X(lse, N, c->NH)    /* (B,NH,T) */                                             \
    X(mid, N, (c->parallel ? 0 : c->C))                                            \
    X(ln2_mean, N, 1)                                                              \
    X(ln2_rstd, N, 1)                                                              \
    X(up, N, c->F) /* before GELU */

/* What the next layer may overwrite; the backward computes ln and act again. */
#define DM_LAYER_SCRATCH(X)                         \
    X(ln, N, c->C) /* output of LN1, then of LN2 */ \
    X(proj, N, c->C)                                \
    X(act, N, c->F) /* after GELU */

struct dm_layer_acts {
#define X(field, rows, cols) float *field;
    DM_LAYER_SAVED(X)
    DM_LAYER_SCRATCH(X)
#undef X
};

/* Scratch is that of `scratch`, or carved too when that is NULL. */
void dm_layer_acts_bind(struct dm_layer_acts *acts, const struct dm_layer_acts *scratch,
                        const struct dm_config *c, size_t N, struct dm_arena *a);

/* Gradients inside a layer, reused by every layer. */
#define DM_LAYER_GRADS(X) \
    X(dln, N, c->C)       \
    X(dqkv, N, 3 * c->C)  \
    X(datt, N, c->C)      \
    X(dact, N, c->F) /* of act, then of up */

struct dm_layer_grads {
#define X(field, rows, cols) float *field;
    DM_LAYER_GRADS(X)
#undef X
};

void dm_layer_grads_bind(struct dm_layer_grads *g, const struct dm_config *c, size_t N,
                         struct dm_arena *a);

/* The matrices of a layer as products use them. */
struct dm_layer_mats {
    struct dm_weight qkv, proj, up, down;
};

/* Where the rows stand. B sequences of T rows each, the first of them at position pos. */
struct dm_span {
    size_t B, T, pos;
    size_t n_out;      /* compute the outputs of the last n_out rows only: T, or less if B = 1 */
    const float *rope; /* dm_rotary_table() of at least pos + T rows */
    float *scratch;    /* dm_attention_scratch(pos + T, HS) floats */
    const struct dm_kv *kv; /* B = 1: cache that gets the rows' keys and values; NULL: pos = 0 */
};

/* out (B*n_out,C) = the layer's output for x (B*T,C), which is only read and must not alias out.
 * acts hold the saved values of all T rows, but att and everything after it only of the last n_out
 * rows, packed at the front. Of w only the vectors are read, the matrices come from mats. */
void dm_layer_forward(float *out, const struct dm_layer_acts *acts, const float *x,
                      const struct dm_layer *w, const struct dm_layer_mats *mats,
                      const struct dm_config *c, const struct dm_span *s);

/* d (N,C) holds the gradient of the output and becomes that of x; with want_dx = false it is left
 * half way, for callers that stop here. grads: the layer's parameters are ADDED to. acts, x, w, c,
 * s as in a forward with n_out = T and no cache. */
void dm_layer_backward(float *d, bool want_dx, struct dm_layer *grads,
                       const struct dm_layer_grads *g, const struct dm_layer_acts *acts,
                       const float *x, const struct dm_layer *w, const struct dm_layer_mats *mats,
                       const struct dm_config *c, const struct dm_span *s);

/* ---- Decoding: a few rows ------------------------------------------------------------------- */

/* One layer over the N <= DM_LAYER_ROWS rows x (N,C), of which the last n_out are computed to the
 * end: out (n_out,C). The rest is scratch: qkv (N,3C), att and proj (n_out,C), act (n_out,F).
 * Products take at least DM_LAYER_FEW rows at a time, more of them may go over the weights in
 * turns. */
enum { DM_LAYER_FEW = DM_LINEAR_FEW, DM_LAYER_ROWS = DM_TREE_ROWS };
struct dm_layer_step {
    float *out;
    const float *x;
    const struct dm_layer *w;
    const struct dm_layer_mats *mats; /* packs */
    const struct dm_kv *kv;
    size_t n_out;
    float *qkv, *att, *proj, *act;
};

/* Layers that run at once: none reads another's output. */
struct dm_layer_stage {
    const struct dm_layer_step *layers;
    size_t n;
};

/* One stage after the other, with the bits of dm_layer_forward. One parallel region in all, in
 * which the threads meet twice in a stage: each has its heads and columns. Parallel residual only.
 * tree as in dm_attention_few(); with one, n_out is N. scratch: dm_layer_step_scratch() floats. */
void dm_layers_step(const struct dm_layer_stage *stages, size_t n_stages, const struct dm_config *c,
                    size_t N, size_t pos, const struct dm_tree *tree, const float *rope,
                    float *scratch);
size_t dm_layer_step_scratch(const struct dm_config *c);

#endif
