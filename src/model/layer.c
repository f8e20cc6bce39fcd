/* SPDX-License-Identifier: MIT */
#include "src/model/layer.h"

#include <assert.h>
#include <string.h>

#include "src/nn/embedding.h"
#include "src/nn/gelu.h"
#include "src/nn/layernorm.h"
#include "src/nn/linear.h"
#include "src/nn/rotary.h"

void dm_layer_acts_bind(struct dm_layer_acts *acts, const struct dm_layer_acts *scratch,
                        const struct dm_config *c, size_t N, struct dm_arena *a)
{
#define X(field, rows, cols) acts->field = dm_arena_floats(a, rows, cols);
    DM_LAYER_SAVED(X)
#undef X
#define X(field, rows, cols) \
    acts->field = scratch ? scratch->field : dm_arena_floats(a, rows, cols);
    DM_LAYER_SCRATCH(X)
#undef X
}

void dm_layer_grads_bind(struct dm_layer_grads *g, const struct dm_config *c, size_t N,
                         struct dm_arena *a)
{
#define X(field, rows, cols) g->field = dm_arena_floats(a, rows, cols);
    DM_LAYER_GRADS(X)
#undef X
}

/* Views of the interleaved qkv rows: which = 0 q, 1 k, 2 v. */
static struct dm_heads in_qkv(float *qkv, int which, const struct dm_config *c, size_t T)
{
    const size_t row = 3 * c->C;
    return (struct dm_heads){qkv + (size_t)which * c->HS, T * row, row, 3 * c->HS};
}

static struct dm_heads in_rows(float *x, const struct dm_config *c, size_t T)
{
    return (struct dm_heads){x, T * c->C, c->C, c->HS};
}

/* A cache in bf16 must be exact, so keys and values are rounded wherever weights are narrow. */
static void attention(const struct dm_layer_acts *a, const struct dm_layer_mats *mats,
                      const struct dm_config *c, const struct dm_span *s)
{
    const size_t skip = s->T - s->n_out;
    struct dm_heads q = in_qkv(a->qkv, 0, c, s->T), k = in_qkv(a->qkv, 1, c, s->T);
    struct dm_heads v = in_qkv(a->qkv, 2, c, s->T), out = in_rows(a->att, c, s->n_out);
    dm_rotary_forward(q.p, q.ts, q.hs, s->rope, s->pos, s->B * s->T, s->T, c->NH, c->rot);
    dm_rotary_forward(k.p, k.ts, k.hs, s->rope, s->pos, s->B * s->T, s->T, c->NH, c->rot);
    if (mats->qkv.fmt != DM_FMT_F32) {
        dm_heads_round(k, s->B, s->T, c->NH, c->HS);
        dm_heads_round(v, s->B, s->T, c->NH, c->HS);
    }
    q.p += skip * q.ts;
    if (!s->kv) {
        dm_attention_forward(out, a->lse, q, k, v, s->B, s->n_out, s->pos + skip, c->NH, c->HS,
                             s->scratch);
        return;
    }
    assert(s->B == 1 && s->kv->half == (mats->qkv.fmt != DM_FMT_F32));
    dm_kv_put(s->kv, k, v, s->T, s->pos, 0, c->NH, c->HS);
    dm_attention_cached(out, q, s->kv, s->n_out, s->pos + skip, c->NH, c->HS, s->scratch);
}

void dm_layer_forward(float *out, const struct dm_layer_acts *a, const float *x,
                      const struct dm_layer *w, const struct dm_layer_mats *mats,
                      const struct dm_config *c, const struct dm_span *s)
{
    const size_t C = c->C, F = c->F, N = s->B * s->T, M = s->B * s->n_out;
    assert(s->n_out == s->T || (s->B == 1 && s->n_out < s->T));
    dm_layernorm_forward(a->ln, a->ln1_mean, a->ln1_rstd, x, w->ln1_w, w->ln1_b, c->eps, N, C);
    dm_linear_forward(a->qkv, a->ln, &mats->qkv, w->qkv_b, N);
    attention(a, mats, c, s);
    dm_linear_forward(a->proj, a->att, &mats->proj, w->proj_b, M);

    const float *x_out = x + (N - M) * C, *mlp_in = x_out;
    if (!c->parallel) {
        memcpy(a->mid, a->proj, M * C * sizeof(float));
        dm_vec_add(a->mid, x_out, M * C);
        mlp_in = a->mid;
    }
    dm_layernorm_forward(a->ln, a->ln2_mean, a->ln2_rstd, mlp_in, w->ln2_w, w->ln2_b, c->eps, M, C);
    dm_linear_forward(a->up, a->ln, &mats->up, w->up_b, M);
    dm_gelu_forward(a->act, a->up, M * F);
    dm_linear_forward(out, a->act, &mats->down, w->down_b, M);
    // The order of GPT-NeoX: (mlp + attention) + x, or mlp + (attention + x).
    if (c->parallel)
        dm_vec_add(out, a->proj, M * C);
    dm_vec_add(out, mlp_in, M * C);
}

/* One matrix: dinp is written, dw and db are added to. */
static void linear_backward(float *dinp, float *dw, float *db, const float *dout, const float *inp,
                            const struct dm_weight *w, size_t N)
{
    dm_linear_backward_input(dinp, dout, DM_F32, w, N);
    dm_linear_backward(NULL, dw, db, dout, DM_F32, inp, w, N);
}

/* From d to dln, the gradient of LN2's output. */
static void mlp_backward(const struct dm_layer_grads *g, struct dm_layer *grads, const float *d,
                         const struct dm_layer_acts *a, const float *mlp_in,
                         const struct dm_layer *w, const struct dm_layer_mats *mats,
                         const struct dm_config *c, size_t N)
{
    // forward: out = mlp_in + down(gelu(up(ln2(mlp_in)))) [+ proj(att)]
    dm_gelu_forward(a->act, a->up, N * c->F);
    linear_backward(g->dact, grads->down_w, grads->down_b, d, a->act, &mats->down, N);
    dm_gelu_backward(g->dact, a->up, N * c->F);
    dm_layernorm_forward(a->ln, NULL, NULL, mlp_in, w->ln2_w, w->ln2_b, c->eps, N, c->C);
    linear_backward(g->dln, grads->up_w, grads->up_b, g->dact, a->ln, &mats->up, N);
}

/* From datt to dln, the gradient of LN1's output. */
static void attention_backward(const struct dm_layer_grads *g, struct dm_layer *grads,
                               const struct dm_layer_acts *a, const float *x,
                               const struct dm_layer *w, const struct dm_layer_mats *mats,
                               const struct dm_config *c, const struct dm_span *s)
{
    const size_t C = c->C, N = s->B * s->T, T = s->T;
    struct dm_heads dq = in_qkv(g->dqkv, 0, c, T), dk = in_qkv(g->dqkv, 1, c, T);
    // forward: att = attention(rotary(qkv(ln1(x))))
    dm_attention_backward(dq, dk, in_qkv(g->dqkv, 2, c, T), in_rows(g->datt, c, T),
                          in_rows(a->att, c, T), a->lse, in_qkv(a->qkv, 0, c, T),
                          in_qkv(a->qkv, 1, c, T), in_qkv(a->qkv, 2, c, T), s->B, T, c->NH, c->HS,
                          s->scratch);
    dm_rotary_backward(dq.p, dq.ts, dq.hs, s->rope, 0, N, T, c->NH, c->rot);
    dm_rotary_backward(dk.p, dk.ts, dk.hs, s->rope, 0, N, T, c->NH, c->rot);
    dm_layernorm_forward(a->ln, NULL, NULL, x, w->ln1_w, w->ln1_b, c->eps, N, C);
    linear_backward(g->dln, grads->qkv_w, grads->qkv_b, g->dqkv, a->ln, &mats->qkv, N);
}

void dm_layer_backward(float *d, bool want_dx, struct dm_layer *grads,
                       const struct dm_layer_grads *g, const struct dm_layer_acts *a,
                       const float *x, const struct dm_layer *w, const struct dm_layer_mats *mats,
                       const struct dm_config *c, const struct dm_span *s)
{
    const size_t C = c->C, N = s->B * s->T;
    const float *mlp_in = c->parallel ? x : a->mid;
    assert(s->pos == 0 && s->n_out == s->T && !s->kv);
    mlp_backward(g, grads, d, a, mlp_in, w, mats, c, N);
    // The parallel form hands the output's gradient to the attention, the sequential form mid's:
    // that is d after LN2 has added to it.
    if (c->parallel)
        linear_backward(g->datt, grads->proj_w, grads->proj_b, d, a->att, &mats->proj, N);
    dm_layernorm_backward(c->parallel && !want_dx ? NULL : d, grads->ln2_w, grads->ln2_b, g->dln,
                          mlp_in, w->ln2_w, a->ln2_mean, a->ln2_rstd, N, C);
    if (!c->parallel)
        linear_backward(g->datt, grads->proj_w, grads->proj_b, d, a->att, &mats->proj, N);
    attention_backward(g, grads, a, x, w, mats, c, s);
    dm_layernorm_backward(want_dx ? d : NULL, grads->ln1_w, grads->ln1_b, g->dln, x, w->ln1_w,
                          a->ln1_mean, a->ln1_rstd, N, C);
}
