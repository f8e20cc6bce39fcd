/* SPDX-License-Identifier: MIT */
#include "src/model/model.h"

#include <assert.h>

static void bind_mats(struct dm_mats *mats, const struct dm_config *c, struct dm_arena *a)
{
    mats->layers = dm_arena_alloc(a, c->L, sizeof(*mats->layers));
    mats->heads = dm_arena_alloc(a, dm_config_head_layers(c), sizeof(*mats->heads));
}

static void set_layer(struct dm_layer_mats *to, const struct dm_layer *l, const struct dm_config *c)
{
    to->qkv = (struct dm_weight){.O = 3 * c->C, .C = c->C, .w = l->qkv_w};
    to->proj = (struct dm_weight){.O = c->C, .C = c->C, .w = l->proj_w};
    to->up = (struct dm_weight){.O = c->F, .C = c->C, .w = l->up_w};
    to->down = (struct dm_weight){.O = c->C, .C = c->F, .w = l->down_w};
}

static void set_mats(struct dm_model *m)
{
    const struct dm_config *c = &m->cfg;
    for (size_t l = 0; l < c->L; l++)
        set_layer(m->mats.layers + l, m->params.layers + l, c);
    for (size_t h = 0; h < dm_config_head_layers(c); h++)
        set_layer(m->mats.heads + h, m->params.heads + h, c);
    m->mats.unembed = (struct dm_weight){.O = c->Vp, .C = c->C, .w = m->params.unembed};
    m->mats.embed = m->params.embed;
    m->mats.embed_dtype = DM_F32;
}

enum dm_status dm_model_init_held(struct dm_model *m, const struct dm_config *cfg,
                                  enum dm_held base, enum dm_held heads, struct dm_err *e)
{
    struct dm_arena measure = {0};
    *m = (struct dm_model){.cfg = *cfg};
    dm_params_bind_held(&m->params, cfg, base, heads, &measure);
    if (dm_arena_overflowed(&measure))
        return dm_fail(e, DM_ENOMEM, "out of memory: the model's size overflows");
    DM_TRY(dm_arena_init(&m->mem, measure.used, e));
    dm_arena_huge(&m->mem);
    dm_params_bind_held(&m->params, cfg, base, heads, &m->mem);
    measure = (struct dm_arena){0};
    bind_mats(&m->mats, cfg, &measure);
    enum dm_status st = dm_arena_init(&m->mats_mem, measure.used, e);
    if (st) {
        dm_model_release(m);
        return st;
    }
    bind_mats(&m->mats, cfg, &m->mats_mem);
    set_mats(m);
    return DM_OK;
}

enum dm_status dm_model_init(struct dm_model *m, const struct dm_config *cfg, struct dm_err *e)
{
    return dm_model_init_held(m, cfg, DM_HELD_ALL, DM_HELD_ALL, e);
}

struct dm_weight *dm_model_matrix(const struct dm_model *m, size_t i)
{
    const size_t l = i / 4, L = m->cfg.L;
    struct dm_layer_mats *of = l < L ? m->mats.layers + l : m->mats.heads + (l - L);
    struct dm_weight *const w[] = {&of->qkv, &of->proj, &of->up, &of->down};
    assert(l < L + dm_config_head_layers(&m->cfg));
    return w[i % 4];
}

void dm_model_release(struct dm_model *m)
{
    dm_arena_release(&m->mem);
    dm_arena_release(&m->mats_mem);
    dm_arena_release(&m->pack_mem);
    dm_arena_release(&m->file_mem);
    *m = (struct dm_model){0};
}

/* Calls fn for every matrix of a scope that is held in float32. */
static void each_matrix(struct dm_model *m, enum dm_scope scope,
                        void (*fn)(struct dm_weight *w, void *ctx), void *ctx)
{
    const size_t n_base = 4 * m->cfg.L, n = n_base + 4 * dm_config_head_layers(&m->cfg);
    const size_t begin = scope == DM_SCOPE_HEADS ? n_base : 0;
    const size_t end = scope == DM_SCOPE_BASE ? n_base : n;
    for (size_t i = begin; i < end; i++)
        if (dm_model_matrix(m, i)->w)
            fn(dm_model_matrix(m, i), ctx);
    if (scope != DM_SCOPE_HEADS && m->mats.unembed.w)
        fn(&m->mats.unembed, ctx);
}

static void set_format(struct dm_weight *w, void *fmt)
{
    w->fmt = *(enum dm_format *)fmt;
}

static void drop_pack(struct dm_weight *w, void *ctx)
{
    (void)ctx;
    w->pack = w->pack_t = NULL;
}

static void bind_pack(struct dm_weight *w, void *arena)
{
    void *pack = dm_arena_alloc(arena, dm_linear_pack_bytes(w), 1);
    w->pack = pack;
    if (pack)
        dm_linear_pack(pack, w);
}

static void drop_packs(struct dm_model *m)
{
    each_matrix(m, DM_SCOPE_ALL, drop_pack, NULL);
    dm_arena_release(&m->pack_mem);
}

void dm_model_set_format(struct dm_model *m, enum dm_format fmt)
{
    drop_packs(m);
    each_matrix(m, DM_SCOPE_ALL, set_format, &fmt);
}

/* The first pass of an arena measures, the second one packs. */
enum dm_status dm_model_pack(struct dm_model *m, enum dm_scope scope, struct dm_err *e)
{
    struct dm_arena measure = {0};
    drop_packs(m);
    each_matrix(m, scope, bind_pack, &measure);
    DM_TRY(dm_arena_init(&m->pack_mem, measure.used, e));
    dm_arena_huge(&m->pack_mem);
    each_matrix(m, scope, bind_pack, &m->pack_mem);
    return DM_OK;
}
