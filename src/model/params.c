/* SPDX-License-Identifier: MIT */
#include "src/model/params.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/rng.h"

static void bind_layer(struct dm_layer *l, const struct dm_config *c, enum dm_held held,
                       struct dm_arena *a)
{
#define X(field, name, rows, cols, decay, bias)                                              \
    l->field = held >= ((cols) ? DM_HELD_ALL : DM_HELD_VECTORS) && (!(bias) || c->attn_bias) \
                   ? dm_arena_floats(a, rows, (cols) ? (cols) : 1)                           \
                   : NULL;
    DM_LAYER_PARAMS(X)
#undef X
}

void dm_params_bind_held(struct dm_params *p, const struct dm_config *c, enum dm_held base,
                         enum dm_held heads, struct dm_arena *a)
{
    struct dm_layer unused; // while measuring there is no array to write to
    p->layers = dm_arena_alloc(a, c->L, sizeof(*p->layers));
    p->heads = dm_arena_alloc(a, dm_config_head_layers(c), sizeof(*p->heads));
    p->embed = base == DM_HELD_ALL ? dm_arena_floats(a, c->Vp, c->C) : NULL;
    for (size_t l = 0; l < c->L; l++)
        bind_layer(p->layers ? p->layers + l : &unused, c, base, a);
    p->lnf_w = base ? dm_arena_floats(a, c->C, 1) : NULL;
    p->lnf_b = base ? dm_arena_floats(a, c->C, 1) : NULL;
    p->unembed = base == DM_HELD_ALL ? dm_arena_floats(a, c->Vp, c->C) : NULL;
    for (size_t h = 0; h < dm_config_head_layers(c); h++)
        bind_layer(p->heads ? p->heads + h : &unused, c, heads, a);
}

void dm_params_bind(struct dm_params *p, const struct dm_config *c, enum dm_scope scope,
                    struct dm_arena *a)
{
    dm_params_bind_held(p, c, scope != DM_SCOPE_HEADS ? DM_HELD_ALL : DM_HELD_NONE,
                        scope != DM_SCOPE_BASE ? DM_HELD_ALL : DM_HELD_NONE, a);
}

/* Appends tensors to an array that may be absent. */
struct list {
    struct dm_tensor *out;
    size_t n;
};

static void push(struct list *l, const char *prefix, const char *name, float *data, size_t rows,
                 size_t cols, enum dm_part part, size_t index, bool decay)
{
    if (l->out) {
        struct dm_tensor *t = l->out + l->n;
        *t = (struct dm_tensor){.data = data, .rows = rows, .cols = cols, .part = part};
        snprintf(t->name, sizeof(t->name), "%s%s", prefix, name);
        t->n = rows * (cols ? cols : 1);
        t->index = index;
        t->decay = decay;
    }
    l->n++;
}

static void push_layer(struct list *out, const char *prefix, const struct dm_layer *l,
                       const struct dm_config *c, enum dm_part part, size_t index)
{
#define X(field, name, rows, cols, decay, bias) \
    if (!(bias) || c->attn_bias)                \
        push(out, prefix, name, l ? l->field : NULL, rows, cols, part, index, decay);
    DM_LAYER_PARAMS(X)
#undef X
}

size_t dm_params_list(const struct dm_params *p, const struct dm_config *c, enum dm_scope scope,
                      struct dm_tensor *out)
{
    static const struct dm_params none;
    struct list l = {.out = out};
    char prefix[64];
    if (!p)
        p = &none;
    if (scope != DM_SCOPE_HEADS) {
        push(&l, "", "gpt_neox.embed_in.weight", p->embed, c->Vp, c->C, DM_PART_EMBED, 0, true);
        for (size_t i = 0; i < c->L; i++) {
            snprintf(prefix, sizeof(prefix), "gpt_neox.layers.%zu.", i);
            push_layer(&l, prefix, p->layers ? p->layers + i : NULL, c, DM_PART_LAYER, i);
        }
        push(&l, "gpt_neox.final_layer_norm.", "weight", p->lnf_w, c->C, 0, DM_PART_FINAL, 0,
             false);
        push(&l, "gpt_neox.final_layer_norm.", "bias", p->lnf_b, c->C, 0, DM_PART_FINAL, 0, false);
        push(&l, "", "embed_out.weight", p->unembed, c->Vp, c->C, DM_PART_UNEMBED, 0, true);
    }
    if (scope != DM_SCOPE_BASE)
        for (size_t i = 0; i < dm_config_head_layers(c); i++) {
            const size_t head = i / c->D + 2;
            snprintf(prefix, sizeof(prefix), "dynamo.heads.%zu.%zu.", head, i % c->D);
            push_layer(&l, prefix, p->heads ? p->heads + i : NULL, c, DM_PART_HEAD, head);
        }
    return l.n;
}

size_t dm_params_count(const struct dm_config *c, enum dm_scope scope)
{
    const size_t bias = c->attn_bias ? 4 * c->C : 0;
    const size_t layer = 4 * c->C + 4 * c->C * c->C + bias + 2 * c->F * c->C + c->F + c->C;
    const size_t base = 2 * c->Vp * c->C + c->L * layer + 2 * c->C;
    const size_t heads = dm_config_head_layers(c) * layer;
    return (scope != DM_SCOPE_HEADS ? base : 0) + (scope != DM_SCOPE_BASE ? heads : 0);
}

enum dm_status dm_params_new(struct dm_params *p, struct dm_arena *mem, const struct dm_config *c,
                             enum dm_scope scope, struct dm_err *e)
{
    struct dm_arena measure = {0};
    *mem = measure;
    dm_params_bind(p, c, scope, &measure);
    if (dm_arena_overflowed(&measure))
        return dm_fail(e, DM_ENOMEM, "out of memory: the model's size overflows");
    DM_TRY(dm_arena_init(mem, measure.used, e));
    dm_arena_huge(mem);
    dm_params_bind(p, c, scope, mem);
    return DM_OK;
}

static uint64_t name_hash(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    return h;
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static void init_tensor(const struct dm_tensor *t, const struct dm_config *c, uint64_t seed)
{
    const bool residual = ends_with(t->name, "attention.dense.weight") ||
                          ends_with(t->name, "mlp.dense_4h_to_h.weight");
    const double std = residual ? 0.02 / sqrt(2.0 * (double)c->L) : 0.02;
    const float fill = ends_with(t->name, "weight") ? 1.0f : 0.0f; // LayerNorm weights and biases
    struct dm_rng r;
    dm_rng_init(&r, seed, name_hash(t->name));
    for (size_t i = 0; i < t->n; i++)
        t->data[i] = t->cols ? (float)(std * dm_rng_normal(&r)) : fill;
}

void dm_params_init_random(struct dm_params *p, const struct dm_config *c, enum dm_scope scope,
                           unsigned long long seed)
{
    // One tensor at a time: a list of a deep model would not fit the stack.
    struct dm_layer *const layers[] = {p->layers, p->heads};
    const size_t count[] = {scope != DM_SCOPE_HEADS ? c->L : 0,
                            scope != DM_SCOPE_BASE ? dm_config_head_layers(c) : 0};
    struct dm_tensor t[16];
    for (int part = 0; part < 2; part++)
        for (size_t i = 0; i < count[part]; i++) {
            char prefix[64];
            struct list l = {.out = t};
            if (part)
                snprintf(prefix, sizeof(prefix), "dynamo.heads.%zu.%zu.", i / c->D + 2, i % c->D);
            else
                snprintf(prefix, sizeof(prefix), "gpt_neox.layers.%zu.", i);
            push_layer(&l, prefix, layers[part] + i, c, DM_PART_LAYER, i);
            for (size_t k = 0; k < l.n; k++)
                init_tensor(t + k, c, seed);
        }
    if (scope == DM_SCOPE_HEADS)
        return;
    struct list l = {.out = t};
    push(&l, "", "gpt_neox.embed_in.weight", p->embed, c->Vp, c->C, DM_PART_EMBED, 0, true);
    push(&l, "", "final_layer_norm.weight", p->lnf_w, c->C, 0, DM_PART_FINAL, 0, false);
    push(&l, "", "final_layer_norm.bias", p->lnf_b, c->C, 0, DM_PART_FINAL, 0, false);
    push(&l, "", "embed_out.weight", p->unembed, c->Vp, c->C, DM_PART_UNEMBED, 0, true);
    for (size_t k = 0; k < l.n; k++)
        init_tensor(t + k, c, seed);
}

static void copy_layer(struct dm_layer *to, const struct dm_layer *from, const struct dm_config *c)
{
#define X(field, name, rows, cols, decay, bias) \
    if (from->field)                            \
        memcpy(to->field, from->field, (rows) * ((cols) ? (cols) : 1) * sizeof(float));
    DM_LAYER_PARAMS(X)
#undef X
}

void dm_params_init_copy(struct dm_params *p, const struct dm_config *c)
{
    assert(c->D <= c->L);
    for (size_t i = 0; i < dm_config_head_layers(c); i++)
        copy_layer(p->heads + i, p->layers + c->L - c->D + i % c->D, c);
}
