/* SPDX-License-Identifier: MIT */
#include "src/nn/linear.h"

#include <assert.h>
#include <stdbool.h>

#include "src/base/par.h"
#include "src/kernel/gemm.h"
#include "src/kernel/int.h"
#include "src/kernel/kern.h"

void dm_linear_forward(float *restrict out, const float *restrict inp, const struct dm_weight *w,
                       const float *b, size_t N)
{
    assert(w->w || w->pack);
    if (w->fmt == DM_FMT_INT8 || w->fmt == DM_FMT_INT4) {
        dm_int_affine(out, b, inp, w->fmt, w->pack, w->w, N, w->O, w->C);
        return;
    }
    assert(w->fmt == DM_FMT_F32);
    dm_gemm_affine(out, w->O, b, (struct dm_mat){inp, w->C, 1}, (struct dm_mat){w->w, 1, w->C},
                   w->pack, N, w->O, w->C);
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

static void input_gradient(float *dinp, bool add, const float *dout, const struct dm_weight *w,
                           size_t N)
{
    const size_t C = w->C, O = w->O;
    const struct dm_mat a = {dout, O, 1};
    assert(w->fmt == DM_FMT_F32);
    if (w->pack_t)
        dm_gemm_packed(dinp, C, add, a, w->pack_t, N, C, O);
    else
        dm_gemm(dinp, C, add, a, (struct dm_mat){w->w, C, 1}, N, C, O);
}

void dm_linear_backward_input(float *restrict dinp, const float *dout, const struct dm_weight *w,
                              size_t N)
{
    input_gradient(dinp, false, dout, w, N);
}

void dm_linear_backward(float *restrict dinp, float *restrict dw, float *restrict db,
                        const float *dout, const float *inp, const struct dm_weight *w, size_t N)
{
    const size_t C = w->C, O = w->O;
    assert(w->fmt == DM_FMT_F32);
    // forward: out[n,o] = w[o,:] . inp[n,:] + b[o]
    if (dinp)
        input_gradient(dinp, true, dout, w, N);
    if (dw)
        dm_gemm(dw, C, true, (struct dm_mat){dout, 1, O}, (struct dm_mat){inp, C, 1}, O, C, N);
    if (db) {
        struct column_sums s = {db, dout, N, O};
        dm_par_for(O, 64, add_columns, &s);
    }
}

size_t dm_linear_pack_bytes(const struct dm_weight *w)
{
    if (w->fmt == DM_FMT_INT8 || w->fmt == DM_FMT_INT4)
        return dm_int_pack_bytes(w->fmt, w->O, w->C);
    return dm_gemm_pack_floats(w->O, w->C) * sizeof(float);
}

void dm_linear_pack(void *pack, const struct dm_weight *w)
{
    if (w->fmt == DM_FMT_INT8 || w->fmt == DM_FMT_INT4)
        dm_int_pack_rows(pack, w->fmt, w->C, w->w, DM_F32, 0, w->O);
    else
        dm_gemm_pack(pack, (struct dm_mat){w->w, 1, w->C}, w->O, w->C);
}

size_t dm_linear_pack_t_bytes(const struct dm_weight *w)
{
    return dm_gemm_pack_floats(w->C, w->O) * sizeof(float);
}

void dm_linear_pack_t(void *pack, const struct dm_weight *w)
{
    dm_gemm_pack(pack, (struct dm_mat){w->w, w->C, 1}, w->C, w->O);
}
