/* SPDX-License-Identifier: MIT */
/* par.h - threads. The only file that calls the OpenMP API; works without OpenMP as one thread.
 *
 * Results never depend on the thread count: loops are split so that each thread owns what it
 * writes, and sums over rows go through dm_par_sum (fixed blocks, added in order). */
#ifndef DM_BASE_PAR_H
#define DM_BASE_PAR_H

#include <stdatomic.h>
#include <stddef.h>

/* Number of threads for every parallel region from now on; 0 = all cores (OMP_NUM_THREADS). */
void dm_par_set_threads(size_t n);
size_t dm_par_threads(void);

/* Number of the calling thread inside a parallel region, 0 outside. */
size_t dm_par_id(void);

/* Calls fn(ctx, part, begin, end) with [0, n) cut into dm_par_threads() contiguous parts whose
 * boundaries are multiples of `grain` (>= 1); empty parts are skipped. One part runs inline. */
typedef void dm_par_fn(void *ctx, size_t part, size_t begin, size_t end);
void dm_par_for(size_t n, size_t grain, dm_par_fn *fn, void *ctx);

/* Calls fn(ctx, id, n) once in each of n threads, id = 0 .. n-1: dm_par_threads(), or fewer if
 * there are no more. */
typedef void dm_par_team_fn(void *ctx, size_t id, size_t n);
void dm_par_team(dm_par_team_fn *fn, void *ctx);

/* Where the n threads of a team wait for each other, again and again, and then see what all of them
 * wrote before: a third of what a region costs. Starts as zeros. */
struct dm_par_meeting {
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint round;
};
void dm_par_meet(struct dm_par_meeting *m, size_t n);

/* Sum of x[0..n) in double: blocks of 4096 in parallel, added in order. */
double dm_par_sum(const float *x, size_t n);
double dm_par_sum_squares(const float *x, size_t n);

#endif
