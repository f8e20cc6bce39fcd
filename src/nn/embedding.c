/* SPDX-License-Identifier: MIT */
#include "src/nn/embedding.h"

#include <assert.h>

#include "src/kernel/kern.h"

enum {
    COLS = 64,     /* columns of dw that one thread owns at a time */
    BLOCK = 16384, /* floats of a vector sum per step */
    FORK_FLOATS = 65536
};

void dm_embedding_forward(float *out, const int32_t *ids, const void *w, enum dm_dtype t, size_t N,
                          size_t C, size_t Vp)
{
    const size_t row = C * dm_dtype_size(t);
#pragma omp parallel for schedule(static) default(none) \
    shared(out, ids, w, t, N, C, Vp, row) if (N * C >= FORK_FLOATS)
    for (size_t n = 0; n < N; n++) {
        assert(ids[n] >= 0 && (size_t)ids[n] < Vp);
        dm_dtype_to_f32(out + n * C, (const char *)w + (size_t)ids[n] * row, t, C);
    }
}

/* Threads own columns, because a token may occur in many rows. */
void dm_embedding_backward(float *dw, const int32_t *ids, const float *dout, size_t N, size_t C,
                           size_t Vp)
{
    const struct dm_kern *k = dm_kern();
    const size_t n_cols = (C + COLS - 1) / COLS;
#pragma omp parallel for schedule(static) default(none) \
    shared(dw, ids, dout, N, C, Vp, k, n_cols) if (N * C >= FORK_FLOATS)
    for (size_t i = 0; i < n_cols; i++) {
        const size_t c = i * COLS;
        const size_t len = C - c < COLS ? C - c : COLS;
        for (size_t n = 0; n < N; n++) {
            assert(ids[n] >= 0 && (size_t)ids[n] < Vp);
            // forward: out[n,:] = w[ids[n],:]
            k->axpy(dw + (size_t)ids[n] * C + c, 1.0f, dout + n * C + c, len);
        }
    }
}

void dm_vec_add(float *restrict y, const float *restrict x, size_t n)
{
    const struct dm_kern *k = dm_kern();
    const size_t n_blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) default(none) \
    shared(y, x, n, k, n_blocks) if (n >= FORK_FLOATS)
    for (size_t i = 0; i < n_blocks; i++) {
        const size_t len = n - i * BLOCK < BLOCK ? n - i * BLOCK : BLOCK;
        k->axpy(y + i * BLOCK, 1.0f, x + i * BLOCK, len);
    }
}
