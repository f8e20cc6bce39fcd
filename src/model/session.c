/* SPDX-License-Identifier: MIT */
/* session.c - decoding: chunks of new tokens against a KV cache. */
#include <assert.h>
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/model/layer.h"
#include "src/model/model.h"
#include "src/nn/embedding.h"
#include "src/nn/layernorm.h"
#include "src/nn/linear.h"
#include "src/nn/rotary.h"

/* Rows run at once: long prompts are cut, so that the scratch stays small. */
#define CHUNK 128u

struct dm_session {
    const struct dm_model *m;
    size_t n_heads, pos;
    struct dm_arena mem;
    float *rope, *scratch;
    struct dm_heads *k, *v; /* caches of layers 0..L-1, then of the heads' layers; (NH,T_max,HS) */
    struct dm_layer_acts acts; /* scratch of one layer, CHUNK rows */
    float *x[3];               /* (CHUNK,C) */
    float *last;               /* (n_heads,C): every head's last row, after the final LayerNorm */
};

static size_t n_caches(const struct dm_session *s)
{
    return s->m->cfg.L + (s->n_heads - 1) * s->m->cfg.D;
}

static void bind(struct dm_session *s, struct dm_arena *a)
{
    const struct dm_config *c = &s->m->cfg;
    const size_t rows = c->NH * c->T_max;
    s->rope = dm_arena_floats(a, c->T_max, c->rot);
    s->scratch = dm_arena_floats(a, dm_attention_scratch(c->T_max, c->HS), 1);
    s->k = dm_arena_alloc(a, n_caches(s), sizeof(*s->k));
    s->v = dm_arena_alloc(a, n_caches(s), sizeof(*s->v));
    for (size_t i = 0; i < n_caches(s); i++) {
        float *k = dm_arena_floats(a, rows, c->HS), *v = dm_arena_floats(a, rows, c->HS);
        if (!s->k)
            continue;
        s->k[i] = (struct dm_heads){k, rows * c->HS, c->HS, c->T_max * c->HS};
        s->v[i] = (struct dm_heads){v, rows * c->HS, c->HS, c->T_max * c->HS};
    }
    dm_layer_acts_bind(&s->acts, NULL, c, CHUNK, a);
    for (int i = 0; i < 3; i++)
        s->x[i] = dm_arena_floats(a, CHUNK, c->C);
    s->last = dm_arena_floats(a, s->n_heads, c->C);
}

enum dm_status dm_session_new(struct dm_session **out, const struct dm_model *m, size_t n_heads,
                              struct dm_err *e)
{
    struct dm_arena measure = {0};
    struct dm_session *s = dm_alloc(1, sizeof(*s));
    assert(n_heads >= 1 && n_heads <= m->cfg.K);
    *out = NULL;
    if (!s)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    *s = (struct dm_session){.m = m, .n_heads = n_heads};
    bind(s, &measure);
    enum dm_status st = dm_arena_init(&s->mem, measure.used, e);
    if (st) {
        free(s);
        return st;
    }
    bind(s, &s->mem);
    dm_rotary_table(s->rope, m->cfg.rope_base, m->cfg.rot, m->cfg.T_max);
    *out = s;
    return DM_OK;
}

void dm_session_free(struct dm_session *s)
{
    if (!s)
        return;
    dm_arena_release(&s->mem);
    free(s);
}

size_t dm_session_pos(const struct dm_session *s)
{
    return s->pos;
}

void dm_session_reset(struct dm_session *s, size_t pos)
{
    assert(pos <= s->pos);
    s->pos = pos;
}

/* A layer with cache number i over n rows; n_out as in struct dm_span. */
static void layer(struct dm_session *s, size_t i, float *out, const float *x, size_t n,
                  size_t n_out)
{
    const struct dm_config *c = &s->m->cfg;
    const bool head = i >= c->L;
    const size_t l = head ? i - c->L : i;
    const struct dm_layer *w = head ? s->m->params.heads : s->m->params.layers;
    const struct dm_layer_mats *mats = head ? s->m->mats.heads : s->m->mats.layers;
    const struct dm_span span = {.B = 1,
                                 .T = n,
                                 .pos = s->pos,
                                 .n_out = n_out,
                                 .rope = s->rope,
                                 .scratch = s->scratch,
                                 .k = s->k + i,
                                 .v = s->v + i};
    dm_layer_forward(out, &s->acts, x, w + l, mats + l, c, &span);
}

/* The final LayerNorm of one row, into head n's row of s->last. */
static void final_norm(struct dm_session *s, size_t n, const float *row)
{
    const struct dm_params *p = &s->m->params;
    dm_layernorm_forward(s->last + (n - 1) * s->m->cfg.C, NULL, NULL, row, p->lnf_w, p->lnf_b,
                         s->m->cfg.eps, 1, s->m->cfg.C);
}

/* All layers over n <= CHUNK rows; every head's last row ends up in s->last. A head's last layer
 * stores keys and values of all rows but is computed further for the last row only. */
static void chunk(struct dm_session *s, const int32_t *ids, size_t n)
{
    const struct dm_config *c = &s->m->cfg;
    const bool all = c->from_final && s->n_heads > 1;
    dm_embedding_forward(s->x[0], ids, s->m->mats.embed, s->m->mats.embed_dtype, n, c->C, c->Vp);
    for (size_t l = 0; l + 1 < c->L; l++)
        layer(s, l, s->x[(l + 1) % 2], s->x[l % 2], n, n);
    const float *feed = s->x[(c->L - 1) % 2];
    float *final = s->x[c->L % 2];
    layer(s, c->L - 1, final, feed, n, all ? n : 1);
    final_norm(s, 1, final + (all ? n - 1 : 0) * c->C);
    float *spare = final;
    if (all) {
        spare = s->x[(c->L - 1) % 2];
        feed = final;
    }
    for (size_t h = 2; h <= s->n_heads; h++) {
        const float *x = feed;
        for (size_t d = 0; d < c->D; d++) {
            float *out = d % 2 ? spare : s->x[2];
            layer(s, c->L + (h - 2) * c->D + d, out, x, n, d + 1 < c->D ? n : 1);
            x = out;
        }
        final_norm(s, h, x);
    }
    s->pos += n;
}

void dm_session_step(struct dm_session *s, const int32_t *ids, size_t n, float *logits)
{
    const struct dm_config *c = &s->m->cfg;
    assert(n >= 1 && n <= c->T_max - s->pos);
    for (size_t i = 0; i < n; i += CHUNK)
        chunk(s, ids + i, n - i < CHUNK ? n - i : CHUNK);
    dm_linear_forward(logits, s->last, &s->m->mats.unembed, NULL, s->n_heads);
}
