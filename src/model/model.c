/* SPDX-License-Identifier: MIT */
#include "src/model/model.h"

static size_t n_head_layers(const struct dm_config *c)
{
    return (c->K - 1) * c->D;
}

static void bind_mats(struct dm_mats *mats, const struct dm_config *c, struct dm_arena *a)
{
    mats->layers = dm_arena_alloc(a, c->L, sizeof(*mats->layers));
    mats->heads = dm_arena_alloc(a, n_head_layers(c), sizeof(*mats->heads));
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
    for (size_t h = 0; h < n_head_layers(c); h++)
        set_layer(m->mats.heads + h, m->params.heads + h, c);
    m->mats.unembed = (struct dm_weight){.O = c->Vp, .C = c->C, .w = m->params.unembed};
}

enum dm_status dm_model_init(struct dm_model *m, const struct dm_config *cfg, struct dm_err *e)
{
    struct dm_arena measure = {0};
    *m = (struct dm_model){.cfg = *cfg};
    DM_TRY(dm_params_new(&m->params, &m->mem, cfg, DM_SCOPE_ALL, e));
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

void dm_model_release(struct dm_model *m)
{
    dm_arena_release(&m->mem);
    dm_arena_release(&m->mats_mem);
    dm_arena_release(&m->pack_mem);
    *m = (struct dm_model){0};
}

static void bind_pack(struct dm_weight *w, struct dm_arena *a)
{
    void *pack = dm_arena_alloc(a, dm_linear_pack_bytes(w), 1);
    w->pack = pack;
    if (pack)
        dm_linear_pack(pack, w);
}

static void bind_layers(struct dm_layer_mats *l, size_t n, struct dm_arena *a)
{
    for (size_t i = 0; i < n; i++) {
        bind_pack(&l[i].qkv, a);
        bind_pack(&l[i].proj, a);
        bind_pack(&l[i].up, a);
        bind_pack(&l[i].down, a);
    }
}

/* The first pass of an arena measures, the second one packs. */
static void bind_packs(struct dm_model *m, enum dm_scope scope, struct dm_arena *a)
{
    set_mats(m);
    if (scope != DM_SCOPE_HEADS) {
        bind_layers(m->mats.layers, m->cfg.L, a);
        bind_pack(&m->mats.unembed, a);
    }
    if (scope != DM_SCOPE_BASE)
        bind_layers(m->mats.heads, n_head_layers(&m->cfg), a);
}

enum dm_status dm_model_pack(struct dm_model *m, enum dm_scope scope, struct dm_err *e)
{
    struct dm_arena measure = {0};
    dm_arena_release(&m->pack_mem);
    bind_packs(m, scope, &measure);
    enum dm_status st = dm_arena_init(&m->pack_mem, measure.used, e);
    if (st)
        set_mats(m);
    else
        bind_packs(m, scope, &m->pack_mem);
    return st;
}
