/* SPDX-License-Identifier: MIT */
/* Rows go through the kernels; sums over rows are formed in blocks of rows in float32, the blocks
 * in double. */
#include "src/nn/layernorm.h"

#include <assert.h>

#include "src/kernel/kern.h"

enum {
    COLS = 64,          /* columns whose dw and db one step accumulates: 1 KB of doubles */
    ROWS = 32,          /* of a block */
    FORK_FLOATS = 16384 /* less work than this is done faster than threads wake up */
};

static void forward_row(float *out, float *mean, float *rstd, const float *x, const float *w,
                        const float *b, float eps, size_t C)
{
    float m, r;
    dm_kern()->train->layernorm(out, mean ? mean : &m, rstd ? rstd : &r, x, w, b, (double)eps, C);
}

void dm_layernorm_forward(float *out, float *mean, float *rstd, const float *inp, const float *w,
                          const float *b, float eps, size_t N, size_t C)
{
    assert(C > 0);
    if (N * C < FORK_FLOATS) { // a region costs time even when it does not fork
        for (size_t n = 0; n < N; n++)
            forward_row(out + n * C, mean ? mean + n : NULL, rstd ? rstd + n : NULL, inp + n * C, w,
                        b, eps, C);
        return;
    }
#pragma omp parallel for schedule(static) default(none) \
    shared(out, mean, rstd, inp, w, b, eps, N, C)
    for (size_t n = 0; n < N; n++)
        forward_row(out + n * C, mean ? mean + n : NULL, rstd ? rstd + n : NULL, inp + n * C, w, b,
                    eps, C);
}

/* Columns [c0, c1) of dw and db. */
static void backward_cols(float *restrict dw, float *restrict db, const float *dout,
                          const float *inp, const float *mean, const float *rstd, size_t N,
                          size_t C, size_t c0, size_t c1)
{
    const struct dm_kern_train *k = dm_kern()->train;
    double sw[COLS] = {0}, sb[COLS] = {0};
    for (size_t n = 0; n < N; n += ROWS) {
        float w[COLS] = {0}, b[COLS] = {0};
        k->layernorm_sums(w, b, dout + n * C + c0, inp + n * C + c0, C, mean + n, rstd + n,
                          N - n < ROWS ? N - n : ROWS, c1 - c0);
        for (size_t c = 0; c < c1 - c0; c++) {
            sw[c] += (double)w[c];
            sb[c] += (double)b[c];
        }
    }
    for (size_t c = c0; c < c1; c++) {
        if (dw)
            dw[c] += (float)sw[c - c0];
        if (db)
            db[c] += (float)sb[c - c0];
    }
}

/* Two passes so that every thread owns what it adds to: rows of dinp, columns of dw and db. */
void dm_layernorm_backward(float *restrict dinp, float *restrict dw, float *restrict db,
                           const float *dout, const float *inp, const float *w, const float *mean,
                           const float *rstd, size_t N, size_t C)
{
    assert(C > 0 && mean && rstd);
    if (dinp) {
        const struct dm_kern_train *k = dm_kern()->train;
#pragma omp parallel for schedule(static) default(none) \
    shared(dinp, dout, inp, w, mean, rstd, N, C, k) if (N * C >= FORK_FLOATS)
        for (size_t n = 0; n < N; n++)
            k->layernorm_grad(dinp + n * C, dout + n * C, inp + n * C, w, mean[n], rstd[n], C);
    }
    if (dw || db) {
        const size_t n_cols = (C + COLS - 1) / COLS;
#pragma omp parallel for schedule(static) default(none) \
    shared(dw, db, dout, inp, mean, rstd, N, C, n_cols) if (N * C >= FORK_FLOATS)
        for (size_t i = 0; i < n_cols; i++) {
            const size_t end = (i + 1) * COLS < C ? (i + 1) * COLS : C;
            backward_cols(dw, db, dout, inp, mean, rstd, N, C, i * COLS, end);
        }
    }
}
