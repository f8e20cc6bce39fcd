/* SPDX-License-Identifier: MIT */
#include "src/model/model.h"

#include "src/nn/linear.h"

enum dm_status dm_model_init(struct dm_model *m, const struct dm_config *cfg, struct dm_err *e)
{
    *m = (struct dm_model){.cfg = *cfg};
    return dm_params_new(&m->params, &m->mem, cfg, DM_SCOPE_ALL, e);
}

void dm_model_release(struct dm_model *m)
{
    dm_arena_release(&m->mem);
    dm_arena_release(&m->pack_mem);
    *m = (struct dm_model){0};
}

/* The linear weights of a layer: field, inputs, outputs. */
#define LINEARS(X)           \
    X(qkv_w, c->C, 3 * c->C) \
    X(proj_w, c->C, c->C)    \
    X(up_w, c->C, c->F)      \
    X(down_w, c->F, c->C)

static void bind_layer(struct dm_layer *l, const struct dm_config *c, struct dm_arena *a)
{
#define X(field, in, out) l->field = dm_arena_floats(a, dm_linear_pack_floats(in, out), 1);
    LINEARS(X)
#undef X
}

static void pack_layer(struct dm_layer *to, const struct dm_layer *from, const struct dm_config *c)
{
#define X(field, in, out) dm_linear_pack(to->field, from->field, in, out);
    LINEARS(X)
#undef X
}

static void bind_packs(struct dm_params *p, const struct dm_config *c, enum dm_scope scope,
                       struct dm_arena *a)
{
    const size_t n_heads = (c->K - 1) * c->D;
    struct dm_layer unused; // while measuring there is no array to write to
    *p = (struct dm_params){0};
    p->layers = dm_arena_alloc(a, c->L, sizeof(*p->layers));
    p->heads = dm_arena_alloc(a, n_heads, sizeof(*p->heads));
    if (scope != DM_SCOPE_HEADS) {
        for (size_t l = 0; l < c->L; l++)
            bind_layer(p->layers ? p->layers + l : &unused, c, a);
        p->unembed = dm_arena_floats(a, dm_linear_pack_floats(c->C, c->Vp), 1);
    }
    if (scope != DM_SCOPE_BASE)
        for (size_t h = 0; h < n_heads; h++)
            bind_layer(p->heads ? p->heads + h : &unused, c, a);
}

enum dm_status dm_model_pack(struct dm_model *m, enum dm_scope scope, struct dm_err *e)
{
    const struct dm_config *c = &m->cfg;
    struct dm_arena measure = {0};
    dm_arena_release(&m->pack_mem);
    bind_packs(&m->packs, c, scope, &measure);
    DM_TRY(dm_arena_init(&m->pack_mem, measure.used, e));
    bind_packs(&m->packs, c, scope, &m->pack_mem);
    if (scope != DM_SCOPE_HEADS) {
        for (size_t l = 0; l < c->L; l++)
            pack_layer(m->packs.layers + l, m->params.layers + l, c);
        dm_linear_pack(m->packs.unembed, m->params.unembed, c->C, c->Vp);
    }
    if (scope != DM_SCOPE_BASE)
        for (size_t h = 0; h < (c->K - 1) * c->D; h++)
            pack_layer(m->packs.heads + h, m->params.heads + h, c);
    return DM_OK;
}
