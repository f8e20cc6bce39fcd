/* SPDX-License-Identifier: MIT */
#include "src/base/par.h"

#include <stdbool.h>

#ifdef _OPENMP
#include <omp.h>
#endif

static size_t n_threads; /* 0 until set */

void dm_par_set_threads(size_t n)
{
    n_threads = n;
#ifdef _OPENMP
    omp_set_dynamic(0);
    if (n)
        omp_set_num_threads((int)n);
#endif
}

size_t dm_par_threads(void)
{
#ifdef _OPENMP
    return n_threads ? n_threads : (size_t)omp_get_max_threads();
#else
    return 1;
#endif
}

size_t dm_par_id(void)
{
#ifdef _OPENMP
    return (size_t)omp_get_thread_num();
#else
    return 0;
#endif
}

void dm_par_for(size_t n, size_t grain, dm_par_fn *fn, void *ctx)
{
    const size_t blocks = (n + grain - 1) / grain;
    size_t parts = dm_par_threads();
    if (parts > blocks)
        parts = blocks;
    if (parts <= 1) {
        if (n)
            fn(ctx, 0, 0, n);
        return;
    }
#pragma omp parallel for schedule(static, 1) num_threads(parts) default(none) \
    shared(n, grain, fn, ctx, blocks, parts)
    for (size_t p = 0; p < parts; p++) {
        const size_t begin = blocks * p / parts * grain;
        const size_t end = p + 1 == parts ? n : blocks * (p + 1) / parts * grain;
        if (begin < end)
            fn(ctx, p, begin, end);
    }
}

#define BLOCK 4096u
#define GROUP 256u /* blocks whose partial sums are kept at a time */

static double block_sum(const float *x, size_t n, bool squares)
{
    double s = 0.0;
    if (squares) {
#pragma omp simd reduction(+ : s)
        for (size_t i = 0; i < n; i++)
            s += (double)x[i] * (double)x[i];
    } else {
#pragma omp simd reduction(+ : s)
        for (size_t i = 0; i < n; i++)
            s += (double)x[i];
    }
    return s;
}

static double par_sum(const float *x, size_t n, bool squares)
{
    double total = 0.0;
    for (size_t g = 0; g < n; g += (size_t)GROUP * BLOCK) {
        double part[GROUP];
        const size_t left = n - g,
                     blocks = left > (size_t)GROUP * BLOCK ? GROUP : (left + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) default(none) shared(part, x, n, g, blocks, squares)
        for (size_t b = 0; b < blocks; b++) {
            const size_t at = g + b * BLOCK;
            part[b] = block_sum(x + at, n - at < BLOCK ? n - at : BLOCK, squares);
        }
        for (size_t b = 0; b < blocks; b++)
            total += part[b];
    }
    return total;
}

double dm_par_sum(const float *x, size_t n)
{
    return par_sum(x, n, false);
}

double dm_par_sum_squares(const float *x, size_t n)
{
    return par_sum(x, n, true);
}
