/* SPDX-License-Identifier: MIT */
/* step.c - layers over a few rows, where reading the weights is all that should cost time. A layer
 * is cut into what a thread can do alone: its heads from qkv to the attention's output and its
 * columns of the MLP, then its columns of both output projections. So threads meet twice per layer,
 * all layers are one region, and weights pass as one stream per thread. */
#include <assert.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/kern.h"
#include "src/model/layer.h"
#include "src/nn/embedding.h"
#include "src/nn/layernorm.h"
#include "src/nn/rotary.h"

struct step {
    const struct dm_layer_stage *stages;
    size_t n_stages;
    const struct dm_config *c;
    size_t N, pos;
    const struct dm_tree *tree; /* NULL: rows follow each other */
    const float *rope;
    float *scratch;
    size_t n_scratch; /* of one thread */
    size_t parts;     /* one for each thread */
    size_t head_unit; /* heads whose columns of qkv fill whole panels */
    struct dm_par_meeting meeting;
};

static size_t thread_scratch(const struct dm_config *c)
{
    const size_t t_max = (c->T_max + DM_PANEL - 1) / DM_PANEL * DM_PANEL;
    return DM_LAYER_ROWS * 2 * c->C + DM_ATTENTION_FEW * t_max + 32;
}

size_t dm_layer_step_scratch(const struct dm_config *c)
{
    return dm_par_threads() * thread_scratch(c);
}

/* Begin of part p of `parts`, in whole units. */
static size_t cut(size_t n, size_t unit, size_t p, size_t parts)
{
    const size_t at = (n + unit - 1) / unit * p / parts * unit;
    return at < n ? at : n;
}

/* Turns the rows' vectors from x on, one of them for each of n heads. */
static void rotate(const struct step *s, float *x, size_t n)
{
    const struct dm_config *c = s->c;
    const size_t row = 3 * c->C, hs = 3 * c->HS;
    uint8_t path[DM_TREE_ROWS];
    if (!s->tree)
        dm_rotary_forward(x, row, hs, s->rope, s->pos, s->N, s->N, n, c->rot);
    for (size_t i = 0; i < s->N && s->tree; i++)
        dm_rotary_forward(x + i * row, row, hs, s->rope,
                          s->pos + dm_tree_path(s->tree, i, path) - 1, 1, 1, n, c->rot);
}

/* qkv, rotary, cache and attention of heads h0..h1; ln (N,C) is LN1's output. */
static void heads(const struct step *s, const struct dm_layer_step *l, const float *ln, size_t h0,
                  size_t h1, float *scores)
{
    const struct dm_config *c = s->c;
    const size_t HS = c->HS, row = 3 * c->C, skip = s->N - l->n_out;
    float *at = l->qkv + h0 * 3 * HS;
    struct dm_heads q = {l->qkv, s->N * row, row, 3 * HS}, k = q, v = q;
    const struct dm_heads out = {l->att, l->n_out * c->C, c->C, HS};
    k.p += HS;
    v.p += 2 * HS;
    dm_linear_few(l->qkv, ln, &l->mats->qkv, l->w->qkv_b, s->N, h0 * 3 * HS, h1 * 3 * HS);
    rotate(s, at, h1 - h0);
    rotate(s, at + HS, h1 - h0);
    dm_kv_put(l->kv, k, v, s->N, s->pos, h0, h1, HS);
    q.p += skip * row;
    dm_attention_few(out, q, l->kv, l->n_out, s->pos + skip, s->tree, h0, h1, HS, scores);
}

static void first_half(const struct step *s, const struct dm_layer_step *l, size_t p)
{
    const struct dm_config *c = s->c;
    const size_t C = c->C, F = c->F, parts = s->parts, skip = s->N - l->n_out;
    const size_t h0 = cut(c->NH, s->head_unit, p, parts);
    const size_t h1 = cut(c->NH, s->head_unit, p + 1, parts);
    const size_t f0 = cut(F, DM_PANEL, p, parts), f1 = cut(F, DM_PANEL, p + 1, parts);
    float *ln1 = s->scratch + p * s->n_scratch, *ln2 = ln1 + DM_LAYER_ROWS * C;
    dm_layernorm_forward(ln1, NULL, NULL, l->x, l->w->ln1_w, l->w->ln1_b, c->eps, s->N, C);
    if (h0 < h1)
        heads(s, l, ln1, h0, h1, ln2 + DM_LAYER_ROWS * C);
    if (f0 == f1)
        return;
    dm_layernorm_forward(ln2, NULL, NULL, l->x + skip * C, l->w->ln2_w, l->w->ln2_b, c->eps,
                         l->n_out, C);
    dm_linear_few(l->act, ln2, &l->mats->up, l->w->up_b, l->n_out, f0, f1);
    for (size_t n = 0; n < l->n_out; n++)
        dm_kern()->gelu(l->act + n * F + f0, l->act + n * F + f0, f1 - f0);
}

/* (mlp + attention) + x, the order of GPT-NeoX. */
static void second_half(const struct step *s, const struct dm_layer_step *l, size_t p)
{
    const size_t C = s->c->C, parts = s->parts;
    const size_t c0 = cut(C, DM_PANEL, p, parts), c1 = cut(C, DM_PANEL, p + 1, parts);
    if (c0 == c1)
        return;
    dm_linear_few(l->proj, l->att, &l->mats->proj, l->w->proj_b, l->n_out, c0, c1);
    dm_linear_few(l->out, l->act, &l->mats->down, l->w->down_b, l->n_out, c0, c1);
    for (size_t n = 0; n < l->n_out; n++) {
        float *out = l->out + n * C + c0;
        dm_kern()->axpy(out, 1.0f, l->proj + n * C + c0, c1 - c0);
        dm_kern()->axpy(out, 1.0f, l->x + (s->N - l->n_out + n) * C + c0, c1 - c0);
    }
}

static void run(void *ctx, size_t id, size_t n)
{
    struct step *s = ctx;
    for (const struct dm_layer_stage *t = s->stages; t < s->stages + s->n_stages; t++) {
        for (size_t p = id; p < s->parts; p += n)
            for (size_t i = 0; i < t->n; i++)
                first_half(s, t->layers + i, p);
        dm_par_meet(&s->meeting, n);
        for (size_t p = id; p < s->parts; p += n)
            for (size_t i = 0; i < t->n; i++)
                second_half(s, t->layers + i, p);
        dm_par_meet(&s->meeting, n);
    }
}

void dm_layers_step(const struct dm_layer_stage *stages, size_t n_stages, const struct dm_config *c,
                    size_t N, size_t pos, const struct dm_tree *tree, const float *rope,
                    float *scratch)
{
    struct step s = {.stages = stages,
                     .n_stages = n_stages,
                     .c = c,
                     .N = N,
                     .pos = pos,
                     .tree = tree,
                     .rope = rope,
                     .scratch = scratch,
                     .n_scratch = thread_scratch(c),
                     .parts = dm_par_threads(),
                     .head_unit = 1};
    assert(c->parallel && N >= 1 && N <= DM_LAYER_ROWS);
    while (s.head_unit * 3 * c->HS % DM_PANEL)
        s.head_unit++;
    dm_par_team(run, &s);
}
