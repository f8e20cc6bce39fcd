/* SPDX-License-Identifier: MIT */
/* load.c - model files into memory: matrices as packs, vectors as float32.
 *
 * Every byte is read once: a thread preads a block of a tensor that stays in its cache, hashes it
 * and packs it. Tensors are spread over the threads, the largest first. */
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/par.h"
#include "src/model/file.h"

enum { BLOCK_BYTES = 256 << 10 }; /* with what is packed from it about half of L2 */

const char *const dm_load_formats[] = {"auto", "f32", "bf16", "int8", "int4", NULL};

/* Where a tensor of the file goes; unused destinations are NULL. */
struct target {
    struct dm_tensor t;
    enum dm_dtype dtype;
    struct dm_h5_extent x;
    size_t row;          /* bytes */
    float *f32, *copy;   /* float32: the parameter, and head 2's layer that starts as a copy */
    char *raw;           /* the input embedding as it is */
    struct dm_weight *w; /* packs, in pack and pack_t */
    void *pack, *pack_t;
    bool widen;  /* blocks of 8 or 4 bits to a wider format: by way of float32 */
    size_t part; /* which thread reads it */
};

/* What one thread has to read, and how it went. */
struct part {
    size_t bytes;
    char *buf;   /* a block as in the file */
    float *wide; /* the same in float32, if a tensor is to be widened */
    enum dm_status st;
    struct dm_err e;
};

struct loader {
    struct dm_model *m;
    struct dm_h5 *f;
    const struct dm_load_opt *o;
    enum dm_format fmt, head_fmt; /* of the base's matrices, of those of heads 2.. */
    struct target *target;
    size_t n;
    float *whole; /* the output embedding in float32 while pack_t is made */
    int fd;       /* the file again: HDF5 must not be used by two threads */
    struct part *part;
    size_t n_parts;
};

/* ---- What goes where ----------------------------------------------------------------------- */

enum dm_status dm_load_config(struct dm_config *c, const struct dm_load_opt *o, const char *path,
                              struct dm_err *e)
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

/* That of the part's first matrix, since LayerNorms may be kept in another; `none` without one. */
static enum dm_dtype matrix_dtype(const struct loader *l, enum dm_part part, enum dm_dtype none)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->target[i].t.part == part && l->target[i].t.cols)
            return l->target[i].dtype;
    return none;
}

/* Heads in blocks beside a base that is not stay in theirs: the file was made so. */
static void choose_formats(struct loader *l)
{
    static const enum dm_format of[] = {[DM_F32] = DM_FMT_F32,
                                        [DM_F16] = DM_FMT_F32,
                                        [DM_BF16] = DM_FMT_BF16,
                                        [DM_INT8] = DM_FMT_INT8,
                                        [DM_INT4] = DM_FMT_INT4};
    const enum dm_dtype base = matrix_dtype(l, DM_PART_LAYER, DM_F32);
    const enum dm_dtype heads = matrix_dtype(l, DM_PART_HEAD, base);
    const bool mixed = dm_dtype_is_block(heads) && !dm_dtype_is_block(base);
    l->fmt = l->o->format == DM_FORMAT_AUTO ? of[base] : (enum dm_format)l->o->format;
    l->head_fmt = mixed && of[heads] > l->fmt ? of[heads] : l->fmt;
}

static enum dm_status look_up(struct loader *l, struct target *to, const struct dm_tensor *t,
                              struct dm_err *e)
{
    char path[128];
    size_t rows, cols;
    to->t = *t;
    dm_model_tensor_path(path, t);
    DM_TRY(dm_h5_tensor_shape(l->f, path, &to->dtype, &rows, &cols, e));
    DM_TRY(dm_h5_tensor_extent(l->f, path, &to->x, e));
    const bool fits = dm_dtype_row_bytes(to->dtype, t->cols, &to->row);
    assert(fits && (!to->x.bytes || to->x.bytes == t->rows * to->row)); // as checked with the shape
    return DM_OK;
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
    for (size_t i = 0; !st && i < l->n; i++)
        st = look_up(l, l->target + i, list + i, e);
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
        t->w->fmt = t->t.part == DM_PART_HEAD ? l->head_fmt : l->fmt;
        t->widen = dm_dtype_is_block(t->dtype) && t->w->fmt < DM_FMT_INT8;
        t->w->pack = t->pack = dm_arena_alloc(a, dm_linear_pack_bytes(t->w), 1);
        if (l->o->gradients && t->t.part == DM_PART_UNEMBED)
            t->w->pack_t = t->pack_t = dm_arena_alloc(a, dm_linear_pack_t_bytes(t->w), 1);
    }
}

/* ---- Reading ------------------------------------------------------------------------------- */

/* Rows r .. r+n of a tensor, as in the file, to where they belong. src may be that place already.
 */
static void place(const struct target *t, const char *src, size_t r, size_t n, float *wide)
{
    const size_t cols = t->t.cols ? t->t.cols : 1;
    char *raw = t->raw ? t->raw + r * t->row : NULL;
    float *f32 = t->f32 ? t->f32 + r * cols : NULL;
    if (raw && raw != src)
        memcpy(raw, src, n * t->row);
    if (f32 && (char *)f32 != src)
        dm_dtype_rows_to_f32(f32, src, t->dtype, n, t->t.cols);
    if (t->copy)
        dm_dtype_rows_to_f32(t->copy + r * cols, src, t->dtype, n, t->t.cols);
    if (t->pack && t->widen) {
        dm_dtype_rows_to_f32(wide, src, t->dtype, n, t->t.cols);
        dm_linear_pack_rows(t->pack, t->w, wide, DM_F32, r, n);
    } else if (t->pack) {
        dm_linear_pack_rows(t->pack, t->w, src, t->dtype, r, n);
    }
}

/* Whole panels, about BLOCK_BYTES. */
static size_t block_rows(const struct target *t)
{
    const size_t rows = BLOCK_BYTES / t->row;
    return rows < DM_PANEL ? DM_PANEL : rows / DM_PANEL * DM_PANEL;
}

static enum dm_status stream(const struct loader *l, const struct target *t, struct part *p)
{
    const size_t step = block_rows(t);
    char hex[DM_HASH_LEN + 1];
    struct dm_sha256 h;
    dm_sha256_init(&h);
    for (size_t r = 0; r < t->t.rows; r += step) {
        const size_t n = t->t.rows - r < step ? t->t.rows - r : step;
        char *to = p->buf;
        if (t->raw)
            to = t->raw + r * t->row;
        else if (t->f32 && t->dtype == DM_F32)
            to = (char *)t->f32 + r * t->row;
        DM_TRY(dm_file_read_at(l->fd, to, n * t->row, t->x.offset + r * t->row, dm_h5_path(l->f),
                               t->t.name, &p->e));
        dm_sha256_update(&h, to, n * t->row);
        if (dm_dtype_is_block(t->dtype) && !dm_dtype_finite(to, t->dtype, n, t->t.cols))
            return dm_fail(&p->e, DM_EFORMAT, "%s: tensor %s has a scale that is not finite",
                           dm_h5_path(l->f), t->t.name);
        place(t, to, r, n, p->wide);
    }
    dm_sha256_hex(&h, hex);
    if (strcmp(hex, t->x.sha256))
        return dm_fail(&p->e, DM_EFORMAT, "%s: %s is damaged: its hash differs", dm_h5_path(l->f),
                       t->t.name);
    return DM_OK;
}

static void read_part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct loader *l = ctx;
    for (size_t k = begin; k < end; k++)
        for (size_t i = 0; i < l->n && !l->part[k].st; i++)
            if (l->target[i].x.bytes && l->target[i].part == k)
                l->part[k].st = stream(l, l->target + i, l->part + k);
}

static int larger_first(const void *a, const void *b)
{
    const struct target *x = *(struct target *const *)a, *y = *(struct target *const *)b;
    if (x->x.bytes != y->x.bytes)
        return x->x.bytes < y->x.bytes ? 1 : -1;
    return x < y ? -1 : 1;
}

/* Every tensor to the part that has least so far. */
static void spread(struct loader *l, struct target **order)
{
    for (size_t i = 0; i < l->n; i++)
        order[i] = l->target + i;
    qsort(order, l->n, sizeof(*order), larger_first);
    for (size_t i = 0; i < l->n; i++) {
        size_t least = 0;
        for (size_t k = 1; k < l->n_parts; k++)
            if (l->part[k].bytes < l->part[least].bytes)
                least = k;
        order[i]->part = least;
        l->part[least].bytes += order[i]->x.bytes;
    }
}

/* What a block takes at most, in bytes and in floats when it is widened. */
static void block_sizes(const struct loader *l, size_t *bytes, size_t *floats)
{
    *bytes = *floats = 0;
    for (size_t i = 0; i < l->n; i++) {
        const struct target *t = l->target + i;
        const size_t rows = block_rows(t), b = rows * t->row, n = rows * t->t.cols;
        *bytes = b > *bytes ? b : *bytes;
        *floats = t->widen && n > *floats ? n : *floats;
    }
}

static enum dm_status open_parts(struct loader *l, struct dm_err *e)
{
    size_t bytes, floats;
    enum dm_status st = DM_OK;
    block_sizes(l, &bytes, &floats);
    l->n_parts = dm_par_threads();
    l->part = dm_alloc(l->n_parts, sizeof(*l->part));
    struct target **order = dm_alloc(l->n, sizeof(*order));
    if (l->part && order)
        spread(l, order);
    else
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tensors", dm_h5_path(l->f), l->n);
    for (size_t k = 0; !st && k < l->n_parts; k++) {
        l->part[k].buf = dm_alloc(bytes, 1);
        l->part[k].wide = dm_alloc(floats, sizeof(float));
        if (!l->part[k].buf || !l->part[k].wide)
            st = dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu bytes", dm_h5_path(l->f), bytes);
    }
    free(order);
    return st;
}

/* The tensors that lie in one piece, in parallel. */
static enum dm_status read_plain(struct loader *l, struct dm_err *e)
{
    enum dm_status st = open_parts(l, e);
    if (!st && (l->fd = open(dm_h5_path(l->f), O_RDONLY | O_CLOEXEC)) < 0)
        st = dm_fail_errno(e, "%s: cannot open", dm_h5_path(l->f));
    if (!st) {
        dm_par_for(l->n_parts, 1, read_part, l);
        close(l->fd);
    }
    for (size_t k = 0; l->part && k < l->n_parts; k++) {
        if (!st && (st = l->part[k].st))
            *e = l->part[k].e;
        free(l->part[k].buf);
        free(l->part[k].wide);
    }
    free(l->part);
    return st;
}

/* A tensor in chunks, compressed perhaps: HDF5 puts it together. */
static enum dm_status read_chunked(struct loader *l, const struct target *t, struct dm_err *e)
{
    void *raw;
    enum dm_dtype dtype;
    DM_TRY(dm_model_read_raw(l->f, &t->t, &raw, &dtype, e));
    float *wide = dm_alloc(t->widen ? t->t.n : 1, sizeof(*wide));
    if (wide)
        place(t, raw, 0, t->t.rows, wide);
    const bool done = wide;
    free(wide);
    free(raw);
    return done ? DM_OK
                : dm_fail(e, DM_ENOMEM, "%s: out of memory for %s", dm_h5_path(l->f), t->t.name);
}

static enum dm_status read_all(struct loader *l, struct dm_err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        struct target *t = l->target + i;
        if (t->pack_t) {
            t->f32 = l->whole = dm_alloc(t->t.n, sizeof(*l->whole));
            if (!l->whole)
                return dm_fail(e, DM_ENOMEM, "%s: out of memory for %s", dm_h5_path(l->f),
                               t->t.name);
        }
        if (!t->x.bytes)
            DM_TRY(read_chunked(l, t, e));
    }
    DM_TRY(read_plain(l, e));
    for (size_t i = 0; i < l->n; i++)
        if (l->target[i].pack_t) {
            struct dm_weight w = *l->target[i].w;
            w.w = l->whole;
            dm_linear_pack_t(l->target[i].pack_t, &w);
        }
    return DM_OK;
}

/* The other heads' layers are those of head 2; their vectors come from the base. */
static void copy_heads(struct dm_model *m)
{
    const struct dm_config *c = &m->cfg;
    dm_params_init_copy(&m->params, c);
    for (size_t i = 4 * (c->L + c->D); i < 4 * (c->L + dm_config_head_layers(c)); i++) {
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
    DM_TRY(dm_load_config(&c, l->o, dm_h5_path(l->f), e));
    DM_TRY(list_file(l, in_file, e));
    choose_formats(l);
    if (l->o->gradients && l->fmt >= DM_FMT_INT8)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "%s: int8 and int4 weights cannot be trained through; use bf16",
                       dm_h5_path(l->f));
    DM_TRY(dm_model_init_held(m, &c, base, l->o->K || l->o->heads ? DM_HELD_ALL : base, e));
    dm_model_set_format(m, l->fmt == DM_FMT_F32 ? DM_FMT_F32 : DM_FMT_BF16);
    DM_TRY(set_targets(l, e));
    bind_packs(l, &measure);
    DM_TRY(dm_arena_init(&m->file_mem, measure.used, e));
    dm_arena_huge(&m->file_mem);
    bind_packs(l, &m->file_mem);
    DM_TRY(read_all(l, e));
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
    free(l.whole);
    dm_h5_close(l.f);
    return st;
}
