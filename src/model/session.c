/* SPDX-License-Identifier: MIT */
/* session.c - decoding: chunks of new tokens against a KV cache. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
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
    float *rope, *scratch, *step_scratch;
    struct dm_kv *kv;          /* caches of layers 0..L-1, then of the heads' layers */
    struct dm_layer_acts acts; /* scratch of one layer, CHUNK rows */
    // layers over a few rows that are to be run
    struct dm_layer_step *steps;   /* one for each cache */
    struct dm_layer_stage *stages; /* so many, too */
    size_t n_steps, n_stages;
    struct dm_layer_step *rooms; /* (n_heads): scratch of layers that run at once */
    float *x[3];                 /* (CHUNK,C) */
    float *few;                  /* (2,n_heads,DM_LAYER_ROWS,C): inputs and outputs of steps */
    float *last;                 /* (DM_LAYER_ROWS,n_heads,C): the rows that get logits */
    struct dm_tree tree;         /* the rows of dm_session_tree(), n = 0: none wait */
    size_t tree_heads;           /* that they went through */
};

static size_t n_caches(const struct dm_session *s)
{
    return s->m->cfg.L + (s->n_heads - 1) * s->m->cfg.D;
}

/* The parameters of the layer with cache number i. */
static const struct dm_layer *params(const struct dm_session *s, size_t i)
{
    const size_t L = s->m->cfg.L;
    return i < L ? s->m->params.layers + i : s->m->params.heads + (i - L);
}

static const struct dm_layer_mats *mats(const struct dm_session *s, size_t i)
{
    const size_t L = s->m->cfg.L;
    return i < L ? s->m->mats.layers + i : s->m->mats.heads + (i - L);
}

/* In huge pages all of it is soon touched; with pages of 4 KiB, of which a step at 256 tokens reads
 * 16 for every head, int8 decoding took 13 % longer. */
static void bind_cache(struct dm_session *s, struct dm_arena *a)
{
    const struct dm_config *c = &s->m->cfg;
    const size_t t_max = (c->T_max + DM_PANEL - 1) / DM_PANEL * DM_PANEL;
    s->kv = dm_arena_alloc(a, n_caches(s), sizeof(*s->kv));
    for (size_t i = 0; i < n_caches(s); i++) {
        const bool half = mats(s, i)->qkv.fmt != DM_FMT_F32;
        const size_t size = half ? sizeof(uint16_t) : sizeof(float);
        void *k = dm_arena_alloc(a, c->C * size, t_max), *v = dm_arena_alloc(a, c->C * size, t_max);
        if (s->kv)
            s->kv[i] = (struct dm_kv){k, v, half, t_max};
    }
}

static void bind_steps(struct dm_session *s, struct dm_arena *a)
{
    const struct dm_config *c = &s->m->cfg;
    s->steps = dm_arena_alloc(a, n_caches(s), sizeof(*s->steps));
    s->stages = dm_arena_alloc(a, n_caches(s), sizeof(*s->stages));
    s->rooms = dm_arena_alloc(a, s->n_heads, sizeof(*s->rooms));
    for (size_t i = 0; i < s->n_heads; i++) {
        struct dm_layer_step l = {.qkv = dm_arena_floats(a, DM_LAYER_ROWS, 3 * c->C),
                                  .att = dm_arena_floats(a, DM_LAYER_ROWS, c->C),
                                  .proj = dm_arena_floats(a, DM_LAYER_ROWS, c->C),
                                  .act = dm_arena_floats(a, DM_LAYER_ROWS, c->F)};
        if (s->rooms)
            s->rooms[i] = l;
    }
    s->few = dm_arena_floats(a, 2 * s->n_heads * DM_LAYER_ROWS, c->C);
    s->step_scratch = dm_arena_floats(a, dm_layer_step_scratch(c), 1);
}

static void bind(struct dm_session *s, struct dm_arena *a)
{
    const struct dm_config *c = &s->m->cfg;
    s->rope = dm_arena_floats(a, c->T_max, c->rot);
    s->scratch = dm_arena_floats(a, dm_attention_scratch(c->T_max, c->HS), 1);
    bind_cache(s, a);
    dm_layer_acts_bind(&s->acts, NULL, c, CHUNK, a);
    bind_steps(s, a);
    for (int i = 0; i < 3; i++)
        s->x[i] = dm_arena_floats(a, CHUNK, c->C);
    s->last = dm_arena_floats(a, DM_LAYER_ROWS * s->n_heads, c->C);
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
    dm_arena_huge(&s->mem);
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
    s->tree.n = 0;
}

/* A layer with cache number i over n rows; n_out as in struct dm_span. */
static void layer(struct dm_session *s, size_t i, float *out, const float *x, size_t n,
                  size_t n_out)
{
    const struct dm_span span = {.B = 1,
                                 .T = n,
                                 .pos = s->pos,
                                 .n_out = n_out,
                                 .rope = s->rope,
                                 .scratch = s->scratch,
                                 .kv = s->kv + i};
    dm_layer_forward(out, &s->acts, x, params(s, i), mats(s, i), &s->m->cfg, &span);
}

/* The rows (keep,C) of head h = 1.. that get logits; n_heads of them do in all. */
static void keep_rows(struct dm_session *s, size_t n_heads, size_t h, const float *rows,
                      size_t keep)
{
    const size_t C = s->m->cfg.C;
    for (size_t i = 0; i < keep; i++)
        memcpy(s->last + (i * n_heads + h - 1) * C, rows + i * C, C * sizeof(*rows));
}

/* All layers over n <= CHUNK rows; every head's last `keep` rows end up in s->last. A head's last
 * layer stores keys and values of all rows but is computed further for those only. */
static void many_rows(struct dm_session *s, size_t n, size_t keep)
{
    const struct dm_config *c = &s->m->cfg;
    const bool all = c->from_final && s->n_heads > 1;
    for (size_t l = 0; l + 1 < c->L; l++)
        layer(s, l, s->x[(l + 1) % 2], s->x[l % 2], n, n);
    const float *feed = s->x[(c->L - 1) % 2];
    float *final = s->x[c->L % 2];
    layer(s, c->L - 1, final, feed, n, all ? n : keep);
    keep_rows(s, s->n_heads, 1, final + (all ? n - keep : 0) * c->C, keep);
    float *spare = final;
    if (all) {
        spare = s->x[(c->L - 1) % 2];
        feed = final;
    }
    for (size_t h = 2; h <= s->n_heads; h++) {
        const float *x = feed;
        for (size_t d = 0; d < c->D; d++) {
            float *out = d % 2 ? spare : s->x[2];
            layer(s, c->L + (h - 2) * c->D + d, out, x, n, d + 1 < c->D ? n : keep);
            x = out;
        }
        keep_rows(s, s->n_heads, h, x, keep);
    }
}

/* ---- A few rows ----------------------------------------------------------------------------- */

/* Adds the layer with cache number i, to be run after the last stage or within it. */
static void add_step(struct dm_session *s, bool within, size_t i, float *out, const float *x,
                     size_t n_out)
{
    struct dm_layer_step *l = s->steps + s->n_steps++;
    if (!within)
        s->stages[s->n_stages++] = (struct dm_layer_stage){l, 0};
    *l = s->rooms[s->stages[s->n_stages - 1].n++];
    l->out = out;
    l->x = x;
    l->w = params(s, i);
    l->mats = mats(s, i);
    l->kv = s->kv + i;
    l->n_out = n_out;
}

/* Runs what was added. */
static void run_steps(struct dm_session *s, size_t n, const struct dm_tree *tree)
{
    dm_layers_step(s->stages, s->n_stages, &s->m->cfg, n, s->pos, tree, s->rope, s->step_scratch);
    s->n_steps = s->n_stages = 0;
}

/* Place k of generation d of the heads' rows. */
static float *few_rows_of(struct dm_session *s, size_t d, size_t k)
{
    return s->few + (d % 2 * s->n_heads + k) * DM_LAYER_ROWS * s->m->cfg.C;
}

/* Adds the layers below the last one; returns what the last one reads. */
static const float *stem_rows(struct dm_session *s, size_t n)
{
    const size_t L = s->m->cfg.L;
    for (size_t l = 0; l + 1 < L; l++)
        add_step(s, false, l, s->x[(l + 1) % 2], s->x[l % 2], n);
    return s->x[(L - 1) % 2];
}

/* Layers of the same depth run together: the first of heads 2 .. n_heads, with the last stage if
 * with_last, then the second ones. */
static void head_rows(struct dm_session *s, size_t n_heads, const float *feed, bool with_last,
                      size_t n, size_t keep)
{
    const struct dm_config *c = &s->m->cfg;
    for (size_t d = 0; d < c->D; d++)
        for (size_t k = 1; k < n_heads; k++)
            add_step(s, k > 1 || (d == 0 && with_last), c->L + (k - 1) * c->D + d,
                     few_rows_of(s, d, k), d ? few_rows_of(s, d - 1, k) : feed,
                     d + 1 < c->D ? n : keep);
}

/* As many_rows for n <= DM_LAYER_ROWS and the first n_heads heads. */
static void few_rows(struct dm_session *s, size_t n_heads, size_t n, size_t keep,
                     const struct dm_tree *tree)
{
    const struct dm_config *c = &s->m->cfg;
    const bool all = c->from_final && n_heads > 1;
    const float *feed = stem_rows(s, n);
    float *final = s->x[c->L % 2];
    add_step(s, false, c->L - 1, final, feed, all ? n : keep);
    head_rows(s, n_heads, all ? final : feed, !all, n, keep);
    run_steps(s, n, tree);
    keep_rows(s, n_heads, 1, final + (all ? n - keep : 0) * c->C, keep);
    for (size_t k = 1; k < n_heads; k++)
        keep_rows(s, n_heads, k + 1, few_rows_of(s, c->D - 1, k), keep);
}

/* Of F inputs, as down has, there can be too many; of C never. */
static bool takes_few(const struct dm_layer_mats *l)
{
    return l->qkv.pack && dm_linear_few_rows(&l->down) > 0;
}

bool dm_session_has_trees(const struct dm_session *s)
{
    const struct dm_model *m = s->m;
    return m->cfg.parallel && takes_few(m->mats.layers) &&
           (s->n_heads == 1 || takes_few(m->mats.heads));
}

static void chunk(struct dm_session *s, const int32_t *ids, size_t n, size_t keep)
{
    const struct dm_config *c = &s->m->cfg;
    dm_embedding_forward(s->x[0], ids, s->m->mats.embed, s->m->mats.embed_dtype, n, c->C, c->Vp);
    if (n <= DM_LAYER_ROWS && dm_session_has_trees(s))
        few_rows(s, s->n_heads, n, keep, NULL);
    else
        many_rows(s, n, keep);
    s->pos += n;
}

struct logits {
    struct dm_session *s;
    size_t rows;
    float *out;
};

/* Columns of the logits of all rows in one pass over the output embedding. */
static void logits_part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct logits *l = ctx;
    dm_linear_few(l->out, l->s->last, &l->s->m->mats.unembed, NULL, l->rows, begin, end);
}

/* logits (rows,Vp) of the rows in s->last. */
static void last_logits(struct dm_session *s, size_t rows, float *logits)
{
    const struct dm_config *c = &s->m->cfg;
    const struct dm_params *p = &s->m->params;
    dm_layernorm_forward(s->last, NULL, NULL, s->last, p->lnf_w, p->lnf_b, c->eps, rows, c->C);
    struct logits l = {s, rows, logits};
    if (s->m->mats.unembed.pack)
        dm_par_for(c->Vp, DM_PANEL, logits_part, &l);
    else
        dm_linear_forward(logits, s->last, &s->m->mats.unembed, NULL, rows);
}

void dm_session_step_rows(struct dm_session *s, const int32_t *ids, size_t n, size_t keep,
                          float *logits)
{
    assert(n >= 1 && n <= s->m->cfg.T_max - s->pos);
    assert(keep == 1 || (keep <= n && n <= DM_LAYER_ROWS));
    for (size_t i = 0; i < n; i += CHUNK)
        chunk(s, ids + i, n - i < CHUNK ? n - i : CHUNK, keep);
    s->tree.n = 0;
    last_logits(s, keep * s->n_heads, logits);
}

void dm_session_step(struct dm_session *s, const int32_t *ids, size_t n, float *logits)
{
    dm_session_step_rows(s, ids, n, 1, logits);
}

/* ---- Trees ---------------------------------------------------------------------------------- */

/* The heads' logits are a second pass over the output embedding if they have to wait until it is
 * known which row is kept. */
size_t dm_session_tree_heads(const struct dm_session *s, size_t n)
{
    return n * s->n_heads <= dm_linear_few_rows(&s->m->mats.unembed) ? s->n_heads : 1;
}

void dm_session_tree(struct dm_session *s, const int32_t *ids, const struct dm_tree *tree,
                     float *logits)
{
    const struct dm_config *c = &s->m->cfg;
    const size_t n = tree->n;
    assert(dm_session_has_trees(s) && n >= 1 && n <= DM_TREE_ROWS && n <= c->T_max - s->pos);
    s->tree = *tree;
    s->tree_heads = dm_session_tree_heads(s, n);
    dm_embedding_forward(s->x[0], ids, s->m->mats.embed, s->m->mats.embed_dtype, n, c->C, c->Vp);
    few_rows(s, s->tree_heads, n, n, tree);
    last_logits(s, n * s->tree_heads, logits);
}

void dm_session_keep(struct dm_session *s, size_t row, float *logits)
{
    const struct dm_config *c = &s->m->cfg;
    uint8_t path[DM_TREE_ROWS];
    const size_t n = dm_tree_path(&s->tree, row, path);
    const size_t filled = s->tree_heads < s->n_heads ? c->L : n_caches(s);
    for (size_t t = 1; t < n; t++)
        for (size_t l = 0; l < filled && path[t] != t; l++)
            dm_kv_move(s->kv + l, s->pos + path[t], s->pos + t, c->NH, c->HS);
    if (s->tree_heads < s->n_heads) { // place 0 of the heads' rows is layer L-1's, which is done
        const float *from = s->x[(c->from_final ? c->L : c->L - 1) % 2];
        float *feed = few_rows_of(s, 1, 0);
        for (size_t t = 0; t < n; t++)
            memcpy(feed + t * c->C, from + path[t] * c->C, c->C * sizeof(*feed));
        head_rows(s, s->n_heads, feed, false, n, 1);
        run_steps(s, n, NULL);
        for (size_t k = 1; k < s->n_heads; k++)
            keep_rows(s, s->n_heads - 1, k, few_rows_of(s, c->D - 1, k), 1);
        if (logits)
            last_logits(s, s->n_heads - 1, logits);
    }
    s->pos += n;
    s->tree.n = 0;
}
