/* SPDX-License-Identifier: MIT */
/* Statistics are taken in double over four lanes with a fixed assignment of elements to lanes: a
 * row's bits then depend neither on its alignment nor on its neighbours, and rows with a large
 * mean (Pythia's residual stream has some) lose nothing in the variance. */
#include "src/nn/layernorm.h"

#include <assert.h>
#include <math.h>

enum {
    COLS = 64,          /* columns whose dw and db one step accumulates: 1 KB of doubles */
    FORK_FLOATS = 16384 /* less work than this is done faster than threads wake up */
};

static void row_stats(const float *x, double eps, size_t C, double *mean, double *rstd)
{
    double s[4] = {0}, q[4] = {0};
    size_t i;
    for (i = 0; i + 4 <= C; i += 4)
        for (size_t l = 0; l < 4; l++)
            s[l] += (double)x[i + l];
    for (; i < C; i++)
        s[i % 4] += (double)x[i];
    const double m = ((s[0] + s[1]) + (s[2] + s[3])) / (double)C;
    for (i = 0; i + 4 <= C; i += 4)
        for (size_t l = 0; l < 4; l++) {
            const double d = (double)x[i + l] - m;
            q[l] += d * d;
        }
    for (; i < C; i++)
        q[i % 4] += ((double)x[i] - m) * ((double)x[i] - m);
    *mean = m;
    *rstd = 1.0 / sqrt(((q[0] + q[1]) + (q[2] + q[3])) / (double)C + eps);
}

void dm_layernorm_forward(float *out, float *mean, float *rstd, const float *inp, const float *w,
                          const float *b, float eps, size_t N, size_t C)
{
    assert(C > 0);
#pragma omp parallel for schedule(static) default(none) \
    shared(out, mean, rstd, inp, w, b, eps, N, C) if (N * C >= FORK_FLOATS)
    for (size_t n = 0; n < N; n++) {
        const float *x = inp + n * C;
        float *y = out + n * C;
        double m, r;
        row_stats(x, (double)eps, C, &m, &r);
        // The saved float values are the ones used, so that backward sees what forward did.
        const float mf = (float)m, rf = (float)r;
        for (size_t c = 0; c < C; c++)
            y[c] = (x[c] - mf) * rf * w[c] + b[c];
        if (mean)
            mean[n] = mf;
        if (rstd)
            rstd[n] = rf;
    }
}

/* One row of dinp. The mean and rstd depend on x, which gives the two means below. */
static void backward_row(float *restrict dx, const float *dy, const float *x, const float *w,
                         float mean, float rstd, size_t C)
{
    double s[4] = {0}, q[4] = {0};
    size_t i;
    for (i = 0; i + 4 <= C; i += 4)
        for (size_t l = 0; l < 4; l++) {
            const float g = dy[i + l] * w[i + l];
            s[l] += (double)g;
            q[l] += (double)g * (double)((x[i + l] - mean) * rstd);
        }
    for (; i < C; i++) {
        const float g = dy[i] * w[i];
        s[i % 4] += (double)g;
        q[i % 4] += (double)g * (double)((x[i] - mean) * rstd);
    }
    const float g_mean = (float)(((s[0] + s[1]) + (s[2] + s[3])) / (double)C);
    const float gx_mean = (float)(((q[0] + q[1]) + (q[2] + q[3])) / (double)C);
    // forward: out = (inp - mean) * rstd * w + b
    for (size_t c = 0; c < C; c++)
        dx[c] += rstd * (dy[c] * w[c] - g_mean - (x[c] - mean) * rstd * gx_mean);
}

/* Columns [c0, c1) of dw and db, summed over the rows in order, in double. */
static void backward_cols(float *restrict dw, float *restrict db, const float *dout,
                          const float *inp, const float *mean, const float *rstd, size_t N,
                          size_t C, size_t c0, size_t c1)
{
    double sw[COLS] = {0}, sb[COLS] = {0};
    for (size_t n = 0; n < N; n++) {
        const float *x = inp + n * C + c0;
        const float *dy = dout + n * C + c0;
        const float m = mean[n], r = rstd[n];
        for (size_t c = 0; c < c1 - c0; c++) {
            // forward: out = xhat * w + b, xhat = (inp - mean) * rstd
            sw[c] += (double)(dy[c] * ((x[c] - m) * r));
            sb[c] += (double)dy[c];
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
#pragma omp parallel for schedule(static) default(none) \
    shared(dinp, dout, inp, w, mean, rstd, N, C) if (N * C >= FORK_FLOATS)
        for (size_t n = 0; n < N; n++)
            backward_row(dinp + n * C, dout + n * C, inp + n * C, w, mean[n], rstd[n], C);
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
