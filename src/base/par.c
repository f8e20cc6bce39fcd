/* SPDX-License-Identifier: MIT */
#include "src/base/par.h"

#include <sched.h>
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

void dm_par_team(dm_par_team_fn *fn, void *ctx)
{
#ifdef _OPENMP
    const size_t threads = dm_par_threads();
    if (threads > 1) {
#pragma omp parallel num_threads(threads) default(none) shared(fn, ctx)
        fn(ctx, (size_t)omp_get_thread_num(), (size_t)omp_get_num_threads());
        return;
    }
#endif
    fn(ctx, 0, 1);
}

void dm_par_meet(struct dm_par_meeting *m, size_t n)
{
    enum { SPINS = 1000 }; // 10 to 50 us; then the others may be waiting for this core
    const unsigned round = atomic_load_explicit(&m->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&m->arrived, 1, memory_order_acq_rel) + 1 == n) {
        atomic_store_explicit(&m->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&m->round, round + 1, memory_order_release);
        return;
    }
    for (size_t i = 0; atomic_load_explicit(&m->round, memory_order_acquire) == round; i++) {
        if (i >= SPINS)
            sched_yield();
#ifdef __x86_64__
        __builtin_ia32_pause();
#endif
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
