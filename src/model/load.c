/* SPDX-License-Identifier: MIT */
/* load.c - model files into memory: matrices as packs, vectors as float32. */
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/model/file.h"

/* Where a tensor of the file goes; unused destinations are NULL. */
struct target {
    struct dm_tensor t;
    enum dm_dtype dtype;
    float *f32, *copy;   /* float32: the parameter, and head 2's layer that starts as a copy */
    void *raw;           /* the input embedding as it is */
    struct dm_weight *w; /* packs, in pack and pack_t */
    void *pack, *pack_t;
};

struct loader {
    struct dm_model *m;
    struct dm_h5 *f;
    const struct dm_load_opt *o;
    enum dm_format fmt;
    struct target *target;
    size_t n;
};

/* ---- What goes where ----------------------------------------------------------------------- */

/* The config of the file and that of the model, which may have heads that the file lacks. */
static enum dm_status extend_config(struct dm_config *c, const struct dm_load_opt *o,
                                    const char *path, struct dm_err *e)
{
    if (!o->K)
        return DM_OK;
    if (c->K != 1)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "%s: has %zu token heads already; give the base without heads", path, c->K);
    if (o->copy && o->D > c->L)
        return dm_fail(e, DM_ERANGE, "%s: the base has %zu layers, %zu are to be copied", path,
                       c->L, o->D);
    c->K = o->K;
    c->D = o->D;
    c->from_final = o->from_final;
    return dm_config_check(c, path, e);
}

/* That of the first layer's matrices: LayerNorms may be kept in another. */
static enum dm_format auto_format(const struct loader *l)
{
    static const enum dm_format of[] = {[DM_F32] = DM_FMT_F32,
                                        [DM_F16] = DM_FMT_F32,
                                        [DM_BF16] = DM_FMT_BF16,
                                        [DM_INT8] = DM_FMT_INT8,
                                        [DM_INT4] = DM_FMT_INT4};
    size_t i = 0;
    if (l->o->format != DM_FORMAT_AUTO)
        return (enum dm_format)l->o->format;
    while (l->target[i].t.part != DM_PART_LAYER || !l->target[i].t.cols)
        i++;
    return of[l->target[i].dtype];
}

/* Checks the file's tensors before memory is taken, since a config may claim anything, and lists
 * them. */
static enum dm_status list_file(struct loader *l, const struct dm_config *cfg, struct dm_err *e)
{
    struct dm_tensor *list;
    DM_TRY(dm_model_tensors(cfg, &list, &l->n, e));
    enum dm_status st = dm_model_check_tensors(l->f, list, l->n, e);
    l->target = dm_alloc(l->n, sizeof(*l->target));
    if (!st && !l->target)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tensors", dm_h5_path(l->f), l->n);
    for (size_t i = 0; !st && i < l->n; i++) {
        char path[128];
        size_t rows, cols;
        l->target[i].t = list[i];
        dm_model_tensor_path(path, list + i);
        st = dm_h5_tensor_shape(l->f, path, &l->target[i].dtype, &rows, &cols, e);
    }
    free(list);
    return st;
}

/* Matrices come in the order of dm_model_matrix(); with extra heads the file's tensors are the
 * first of the model's list. */
static enum dm_status set_targets(struct loader *l, struct dm_err *e)
{
    struct dm_model *m = l->m;
    const size_t n = dm_params_list(&m->params, &m->cfg, DM_SCOPE_ALL, NULL);
    struct dm_tensor *list = dm_alloc(n, sizeof(*list));
    if (!list)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tensors", dm_h5_path(l->f), n);
    dm_params_list(&m->params, &m->cfg, DM_SCOPE_ALL, list);
    for (size_t i = 0, matrix = 0; i < l->n; i++) {
        struct target *t = l->target + i;
        const bool in_layer = t->t.part == DM_PART_LAYER || t->t.part == DM_PART_HEAD;
        t->f32 = list[i].data;
        if (in_layer && t->t.cols)
            t->w = dm_model_matrix(m, matrix++);
        else if (t->t.part == DM_PART_UNEMBED)
            t->w = &m->mats.unembed;
        const size_t first = m->cfg.L - (l->o->copy ? m->cfg.D : 0);
        if (l->o->copy && t->t.part == DM_PART_LAYER && t->t.cols && t->t.index >= first)
            t->copy = (float *)dm_model_matrix(m, matrix - 1 + 4 * (m->cfg.L - first))->w;
    }
    free(list);
    return DM_OK;
}

/* Two passes as for every arena; matrices held in float32 are packed by dm_model_pack(). */
static void bind_packs(struct loader *l, struct dm_arena *a)
{
    for (size_t i = 0; i < l->n; i++) {
        struct target *t = l->target + i;
        if (t->f32)
            continue;
        if (t->t.part == DM_PART_EMBED) {
            t->raw = dm_arena_alloc(a, t->t.n, dm_dtype_size(t->dtype));
            l->m->mats.embed = t->raw;
            l->m->mats.embed_dtype = t->dtype;
            continue;
        }
        t->w->fmt = l->fmt;
        t->w->pack = t->pack = dm_arena_alloc(a, dm_linear_pack_bytes(t->w), 1);
        if (l->o->gradients && t->t.part == DM_PART_UNEMBED)
            t->w->pack_t = t->pack_t = dm_arena_alloc(a, dm_linear_pack_t_bytes(t->w), 1);
    }
}

/* ---- Reading ------------------------------------------------------------------------------- */

static enum dm_status read_target(struct loader *l, struct target *t, struct dm_err *e)
{
    void *raw;
    enum dm_dtype dtype;
    float *x = t->f32;
    DM_TRY(dm_model_read_raw(l->f, &t->t, &raw, &dtype, e));
    if (t->raw)
        memcpy(t->raw, raw, t->t.n * dm_dtype_size(dtype));
    if (!x && t->w && !(x = dm_alloc(t->t.n, sizeof(*x)))) {
        free(raw);
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %s", dm_h5_path(l->f), t->t.name);
    }
    if (x)
        dm_dtype_rows_to_f32(x, raw, dtype, t->t.rows, t->t.cols);
    if (t->pack && dm_dtype_is_block(dtype) && l->fmt >= DM_FMT_INT8) {
        dm_linear_pack_rows(t->pack, t->w, raw, dtype, 0, t->t.rows);
        free(raw);
        free(x);
        return DM_OK;
    }
    free(raw);
    if (t->pack) {
        struct dm_weight w = *t->w;
        w.w = x;
        dm_linear_pack(t->pack, &w);
        if (t->pack_t)
            dm_linear_pack_t(t->pack_t, &w);
    }
    if (t->copy)
        memcpy(t->copy, x, t->t.n * sizeof(*x));
    if (x != t->f32)
        free(x);
    return DM_OK;
}

/* The other heads' layers are those of head 2; their vectors come from the base. */
static void copy_heads(struct dm_model *m)
{
    const struct dm_config *c = &m->cfg;
    dm_params_init_copy(&m->params, c);
    for (size_t i = 4 * (c->L + c->D); i < 4 * (c->L + (c->K - 1) * c->D); i++) {
        const struct dm_weight *from = dm_model_matrix(m, i - 4 * c->D),
                               *to = dm_model_matrix(m, i);
        memcpy((float *)to->w, from->w, to->O * to->C * sizeof(float));
    }
}

static enum dm_status load_all(struct loader *l, const struct dm_config *in_file, struct dm_err *e)
{
    struct dm_model *m = l->m;
    struct dm_config c = *in_file;
    struct dm_arena measure = {0};
    const enum dm_held base = l->o->masters ? DM_HELD_ALL : DM_HELD_VECTORS;
    DM_TRY(extend_config(&c, l->o, dm_h5_path(l->f), e));
    DM_TRY(list_file(l, in_file, e));
    l->fmt = auto_format(l);
    DM_TRY(dm_model_init_held(m, &c, base, l->o->K ? DM_HELD_ALL : base, e));
    dm_model_set_format(m, l->fmt == DM_FMT_F32 ? DM_FMT_F32 : DM_FMT_BF16);
    DM_TRY(set_targets(l, e));
    bind_packs(l, &measure);
    DM_TRY(dm_arena_init(&m->file_mem, measure.used, e));
    bind_packs(l, &m->file_mem);
    for (size_t i = 0; i < l->n; i++)
        DM_TRY(read_target(l, l->target + i, e));
    if (l->o->copy)
        copy_heads(m);
    return DM_OK;
}

enum dm_status dm_model_load(struct dm_model *m, const char *path, const struct dm_load_opt *o,
                             struct dm_model_meta *meta, struct dm_err *e)
{
    static const struct dm_load_opt decoding = {.format = DM_FORMAT_AUTO};
    struct loader l = {.m = m, .o = o ? o : &decoding};
    struct dm_config cfg;
    *m = (struct dm_model){0};
    DM_TRY(dm_h5_open(&l.f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, e));
    enum dm_status st = dm_model_read_meta(l.f, &cfg, meta, e);
    if (!st) {
        st = load_all(&l, &cfg, e);
        if (st)
            dm_model_release(m);
        if (st && meta)
            dm_model_meta_release(meta);
    }
    free(l.target);
    dm_h5_close(l.f);
    return st;
}
