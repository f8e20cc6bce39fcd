/* SPDX-License-Identifier: MIT */
/* GPT-NeoX rotary embedding: pairs are (j, j + rot/2), not neighbours as in GPT-J. */
#include "src/nn/rotary.h"

#include <assert.h>
#include <math.h>

enum { FORK_FLOATS = 16384 };

void dm_rotary_table(float *cos_sin, double base, size_t rot, size_t T)
{
    const size_t half = rot / 2;
    assert(rot % 2 == 0);
    for (size_t t = 0; t < T; t++)
        for (size_t j = 0; j < half; j++) {
            const double angle = (double)t * pow(base, -2.0 * (double)j / (double)rot);
            cos_sin[t * rot + j] = (float)cos(angle);
            cos_sin[t * rot + half + j] = (float)sin(angle);
        }
}

/* Heads of one row at the position of cs. */
static void rotate_row(float *x, size_t head_stride, const float *cs, size_t n_heads, size_t rot,
                       float sign)
{
    const size_t half = rot / 2;
    for (size_t h = 0; h < n_heads; h++) {
        float *a = x + h * head_stride, *b = a + half;
        for (size_t j = 0; j < half; j++) {
            const float c = cs[j], s = sign * cs[half + j];
            const float a1 = a[j] * c - b[j] * s;
            b[j] = b[j] * c + a[j] * s;
            a[j] = a1;
        }
    }
}

/* Rotates every pair by sign * angle; the transpose of a rotation is the one by the negative. */
static void rotate(float *x, size_t row_stride, size_t head_stride, const float *cos_sin,
                   size_t pos, size_t N, size_t T, size_t n_heads, size_t rot, float sign)
{
    assert(rot % 2 == 0 && (T > 0 || N == 0));
    if (N * n_heads * rot < FORK_FLOATS) { // a region costs time even when it does not fork
        for (size_t n = 0; n < N; n++)
            rotate_row(x + n * row_stride, head_stride, cos_sin + (pos + n % T) * rot, n_heads, rot,
                       sign);
        return;
    }
#pragma omp parallel for schedule(static) default(none) \
    shared(x, row_stride, head_stride, cos_sin, pos, N, T, n_heads, rot, sign)
    for (size_t n = 0; n < N; n++)
        rotate_row(x + n * row_stride, head_stride, cos_sin + (pos + n % T) * rot, n_heads, rot,
                   sign);
}

void dm_rotary_forward(float *x, size_t row_stride, size_t head_stride, const float *cos_sin,
                       size_t pos, size_t N, size_t T, size_t n_heads, size_t rot)
{
    rotate(x, row_stride, head_stride, cos_sin, pos, N, T, n_heads, rot, 1.0f);
}

void dm_rotary_backward(float *dx, size_t row_stride, size_t head_stride, const float *cos_sin,
                        size_t pos, size_t N, size_t T, size_t n_heads, size_t rot)
{
    // forward: a' = a cos - b sin, b' = b cos + a sin
    rotate(dx, row_stride, head_stride, cos_sin, pos, N, T, n_heads, rot, -1.0f);
}
