/* SPDX-License-Identifier: MIT */
#include "src/model/quantize.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/qblock.h"

bool dm_quantize_converts(const struct dm_tensor *t, enum dm_scope scope)
{
    return t->cols && t->part != DM_PART_EMBED &&
           (scope == DM_SCOPE_ALL || t->part == DM_PART_HEAD);
}

/* One tensor on its way; the rows are converted in parallel. */
struct change {
    const struct dm_tensor *t;
    enum dm_dtype from, to;
    size_t from_row, to_row; /* bytes */
    const char *raw;
    char *out;
    double *changed, *size; /* (rows): sums of squares */
    float *x, *y;           /* (threads, cols) */
};

static void change_rows(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct change *c = ctx;
    const size_t cols = c->t->cols;
    float *x = c->x + part * cols, *y = c->y + part * cols;
    for (size_t r = begin; r < end; r++) {
        dm_dtype_to_f32(x, c->raw + r * c->from_row, c->from, cols);
        dm_dtype_from_f32(c->out + r * c->to_row, c->to, x, cols);
        dm_dtype_to_f32(y, c->out + r * c->to_row, c->to, cols);
        for (size_t i = 0; i < cols; i++) {
            const double d = (double)y[i] - (double)x[i];
            c->changed[r] += d * d;
            c->size[r] += (double)x[i] * (double)x[i];
        }
    }
}

/* A number that is not finite shows in its row's sum. */
static enum dm_status run_change(struct change *c, double sums[2], const char *path,
                                 struct dm_err *e)
{
    dm_par_for(c->t->rows, 1, change_rows, c);
    for (size_t r = 0; r < c->t->rows; r++) {
        if (!isfinite(c->changed[r]))
            return dm_fail(e, DM_ENAN,
                           "%s: row %zu of %s has a weight that is not finite or too large for %s",
                           path, r, c->t->name, dm_dtype_name(c->to));
        sums[0] += c->changed[r];
        sums[1] += c->size[r];
    }
    return DM_OK;
}

static enum dm_status convert(void **out, const struct dm_tensor *t, const void *raw,
                              enum dm_dtype from, enum dm_dtype to, double sums[2],
                              const char *path, struct dm_err *e)
{
    struct change c = {.t = t, .from = from, .to = to, .raw = raw};
    size_t bytes, floats;
    enum dm_status st = DM_OK;
    if (!dm_dtype_row_bytes(from, t->cols, &c.from_row) ||
        !dm_dtype_row_bytes(to, t->cols, &c.to_row) || !dm_mul(t->rows, c.to_row, &bytes) ||
        !dm_mul(dm_par_threads(), t->cols, &floats))
        return dm_fail(e, DM_ERANGE, "%s: %s is too large", path, t->name);
    c.out = dm_alloc(bytes, 1);
    c.changed = dm_alloc(t->rows, sizeof(double));
    c.size = dm_alloc(t->rows, sizeof(double));
    c.x = dm_alloc(floats, sizeof(float));
    c.y = dm_alloc(floats, sizeof(float));
    if (!c.out || !c.changed || !c.size || !c.x || !c.y)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory for %s", path, t->name);
    else
        st = run_change(&c, sums, path, e);
    free(c.changed);
    free(c.size);
    free(c.x);
    free(c.y);
    if (st)
        free(c.out);
    else
        *out = c.out;
    return st;
}

struct request {
    enum dm_dtype type;
    enum dm_scope scope;
    const char *provenance;
};

static enum dm_status copy_tensor(struct dm_h5 *to, struct dm_h5 *from, const struct dm_tensor *t,
                                  const struct request *r, struct dm_quantize_stats *stats,
                                  double sums[2], struct dm_err *e)
{
    const bool converts = dm_quantize_converts(t, r->scope);
    char path[128];
    void *raw, *out = NULL;
    enum dm_dtype dtype;
    size_t before, after;
    DM_TRY(dm_model_read_raw(from, t, &raw, &dtype, e));
    const enum dm_dtype want = converts ? r->type : dtype;
    enum dm_status st = DM_OK;
    if (want != dtype)
        st = convert(&out, t, raw, dtype, want, sums, dm_h5_path(from), e);
    dm_model_tensor_path(path, t);
    if (!st)
        st = dm_h5_write_tensor(to, path, want, out ? out : raw, t->rows, t->cols, e);
    free(raw);
    free(out);
    DM_TRY(st);
    const bool fits = dm_dtype_bytes(dtype, t->rows, t->cols, &before) &&
                      dm_dtype_bytes(want, t->rows, t->cols, &after);
    assert(fits); // both were in memory
    if (converts) {
        stats->weights += t->n;
        stats->before += before;
        stats->after += after;
    } else {
        stats->rest += after;
    }
    return DM_OK;
}

static enum dm_status copy_all(struct dm_h5 *to, struct dm_h5 *from, const struct request *r,
                               struct dm_quantize_stats *stats, struct dm_err *e)
{
    struct dm_config cfg;
    struct dm_model_meta meta, own;
    struct dm_tensor *list = NULL;
    double sums[2] = {0};
    size_t n = 0;
    DM_TRY(dm_model_read_meta(from, &cfg, &meta, e));
    own = meta;
    own.provenance = (char *)(uintptr_t)r->provenance; // only read
    if (!dm_dtype_is_block(r->type) && r->scope == DM_SCOPE_ALL)
        cfg.dtype = r->type;
    enum dm_status st = DM_OK;
    if (r->scope == DM_SCOPE_HEADS && cfg.K == 1)
        st = dm_fail(e, DM_EUNSUPPORTED, "%s: has no token heads", dm_h5_path(from));
    if (!st)
        st = dm_model_write_meta(to, &cfg, &own, e);
    dm_model_meta_release(&meta);
    if (!st)
        st = dm_model_tensors(&cfg, &list, &n, e);
    if (!st)
        st = dm_model_check_tensors(from, list, n, e);
    for (size_t i = 0; !st && i < n; i++)
        st = copy_tensor(to, from, list + i, r, stats, sums, e);
    free(list);
    stats->error = sums[1] > 0.0 ? sqrt(sums[0] / sums[1]) : 0.0;
    return st;
}

enum dm_status dm_quantize(const char *from, const char *to, enum dm_dtype type,
                           enum dm_scope scope, const char *provenance,
                           struct dm_quantize_stats *stats, struct dm_err *e)
{
    const struct request r = {type, scope, provenance};
    struct dm_h5 *f = NULL, *source;
    assert((dm_dtype_is_block(type) || type == DM_BF16) && scope != DM_SCOPE_BASE);
    *stats = (struct dm_quantize_stats){0};
    DM_TRY(dm_h5_open(&source, from, DM_MODEL_FORMAT, DM_MODEL_VERSION, e));
    enum dm_status st = dm_h5_create(&f, to, DM_MODEL_FORMAT, DM_MODEL_VERSION, e);
    if (!st)
        st = copy_all(f, source, &r, stats, e);
    dm_h5_close(source);
    if (!st)
        return dm_h5_commit(f, e);
    dm_h5_close(f);
    return st;
}
