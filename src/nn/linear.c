/* SPDX-License-Identifier: MIT */
#include "src/nn/linear.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/gemm.h"
#include "src/kernel/int.h"
#include "src/kernel/kern.h"

static bool is_int(const struct dm_weight *w)
{
    return w->fmt == DM_FMT_INT8 || w->fmt == DM_FMT_INT4;
}

void dm_linear_forward(float *restrict out, const float *restrict inp, const struct dm_weight *w,
                       const float *b, size_t N)
{
    assert(w->w || w->pack);
    if (is_int(w)) {
        dm_int_affine(out, b, inp, w->fmt, w->pack, w->w, N, w->O, w->C);
        return;
    }
    // out[n,o] = b[o] + inp[n,:] . w[o,:]
    dm_gemm(&(struct dm_gemm){.fmt = w->fmt,
                              .c = out,
                              .ldc = w->O,
                              .bias = b,
                              .a = {inp, w->C, 1},
                              .b = {w->w, 1, w->C},
                              .pack = w->pack,
                              .M = N,
                              .N = w->O,
                              .K = w->C});
}

static void few(float *out, const float *inp, const struct dm_weight *w, const float *b, size_t N,
                size_t o0, size_t o1)
{
    if (is_int(w)) {
        dm_int_few(out, b, inp, w->fmt, w->pack, N, w->O, w->C, o0, o1);
        return;
    }
    dm_gemm_few(&(struct dm_gemm){.fmt = w->fmt,
                                  .c = out,
                                  .ldc = w->O,
                                  .bias = b,
                                  .a = {inp, w->C, 1},
                                  .pack = w->pack,
                                  .M = N,
                                  .N = w->O,
                                  .K = w->C},
                o0, o1);
}

size_t dm_linear_few_rows(const struct dm_weight *w)
{
    return is_int(w) ? DM_LINEAR_FEW : dm_gemm_few_rows(w->fmt, w->C);
}

/* Where the rows are too many for one product, block by block of columns, which stay in the cache
 * for the next product. */
void dm_linear_few(float *restrict out, const float *restrict inp, const struct dm_weight *w,
                   const float *b, size_t N, size_t o0, size_t o1)
{
    const size_t rows = dm_linear_few_rows(w);
    const size_t block = N > rows ? 8 * DM_PANEL : o1 - o0;
    assert(w->pack && rows);
    for (size_t o = o0; o < o1; o += block)
        for (size_t n = 0; n < N; n += rows)
            few(out + n * w->O, inp + n * w->C, w, b, N - n < rows ? N - n : rows, o,
                o1 - o < block ? o1 : o + block);
}

struct column_sums {
    float *db;
    const float *dout;
    size_t N, O;
};

/* Columns of the calling thread, rows in order; a block of db stays in L1 while the rows pass. */
static void add_columns(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct column_sums *s = ctx;
    const struct dm_kern *k = dm_kern();
    const size_t step = 2048;
    for (size_t o = begin; o < end; o += step)
        for (size_t n = 0; n < s->N; n++)
            k->axpy(s->db + o, 1.0f, s->dout + n * s->O + o, end - o < step ? end - o : step);
}

/* Values from row to row of dout (N,O): in bf16 they are the first half of a row's memory. */
static size_t dout_stride(enum dm_dtype type, size_t O)
{
    return type == DM_BF16 ? 2 * O : O;
}

static void input_gradient(float *dinp, bool add, const float *dout, enum dm_dtype type,
                           const struct dm_weight *w, size_t N)
{
    assert(w->w || w->pack_t);
    dm_gemm(&(struct dm_gemm){.fmt = w->fmt,
                              .c = dinp,
                              .ldc = w->C,
                              .add = add,
                              .a = {dout, dout_stride(type, w->O), 1},
                              .a_type = type,
                              .b = {w->w, w->C, 1},
                              .pack = w->pack_t,
                              .M = N,
                              .N = w->C,
                              .K = w->O});
}

void dm_linear_backward_input(float *restrict dinp, const float *dout, enum dm_dtype type,
                              const struct dm_weight *w, size_t N)
{
    input_gradient(dinp, false, dout, type, w, N);
}

void dm_linear_backward(float *restrict dinp, float *restrict dw, float *restrict db,
                        const float *dout, enum dm_dtype type, const float *inp,
                        const struct dm_weight *w, size_t N)
{
    const size_t C = w->C, O = w->O;
    assert(type == DM_F32 || !db);
    // forward: out[n,o] = w[o,:] . inp[n,:] + b[o]
    if (dinp)
        input_gradient(dinp, true, dout, type, w, N);
    if (dw)
        dm_gemm(&(struct dm_gemm){.fmt = w->fmt,
                                  .c = dw,
                                  .ldc = C,
                                  .add = true,
                                  .a = {dout, 1, dout_stride(type, O)},
                                  .a_type = type,
                                  .b = {inp, C, 1},
                                  .M = O,
                                  .N = C,
                                  .K = N});
    if (db) {
        struct column_sums s = {db, dout, N, O};
        dm_par_for(O, 64, add_columns, &s);
    }
}

size_t dm_linear_pack_bytes(const struct dm_weight *w)
{
    if (is_int(w))
        return dm_int_pack_bytes(w->fmt, w->O, w->C);
    return dm_gemm_pack_bytes(w->fmt, w->O, w->C);
}

void dm_linear_pack(void *pack, const struct dm_weight *w)
{
    if (is_int(w))
        dm_int_pack(pack, w->fmt, w->O, w->C, w->w);
    else
        dm_gemm_pack(w->fmt, pack, (struct dm_mat){w->w, 1, w->C}, w->O, w->C);
}

void dm_linear_pack_rows(void *pack, const struct dm_weight *w, const void *raw,
                         enum dm_dtype dtype, size_t o0, size_t n)
{
    if (is_int(w))
        dm_int_pack_rows(pack, w->fmt, w->C, raw, dtype, o0, n);
    else
        dm_gemm_pack_raw(w->fmt, pack, raw, dtype, o0, n, w->C);
}

size_t dm_linear_pack_t_bytes(const struct dm_weight *w)
{
    return dm_gemm_pack_bytes(w->fmt, w->C, w->O);
}

void dm_linear_pack_t(void *pack, const struct dm_weight *w)
{
    dm_gemm_pack(w->fmt, pack, (struct dm_mat){w->w, w->C, 1}, w->C, w->O);
}
