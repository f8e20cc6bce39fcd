/* SPDX-License-Identifier: MIT */
/* util.h - what every test program needs. */
#ifndef DM_TESTS_UTIL_H
#define DM_TESTS_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/status.h"

/* Fails with the library's sentence when st is not DM_OK. */
#define assert_ok(st, e)                                  \
    do {                                                  \
        enum dm_status ok_ = (st);                        \
        if (ok_)                                          \
            fail_msg("status %d: %s", (int)ok_, (e).msg); \
    } while (0)

/* Deterministic test numbers, the same in tests and scripts/golden.py: element i of a tensor is
 * scale * (2u - 1), u = (splitmix64 finaliser of (fnv1a64(name) + i) >> 40) / 2^24. */
void fill_named(float *x, size_t n, const char *name, float scale);

/* |got - want| <= tolerance. */
void assert_near(double got, double want, double tolerance);

/* |got - want| <= rtol * max(|want|, scale) for n elements, with the first offender named. */
void assert_close(const float *got, const float *want, size_t n, double rtol, double scale);

/* Gradient check: dx (n) is claimed to be dL/dx for L = loss(ctx) in double, which reads x. Central
 * differences along 8 random sign vectors. */
typedef double loss_fn(void *ctx);
void assert_grad(loss_fn *loss, void *ctx, float *x, const float *dx, size_t n, double rtol);

/* Chi-square test at 0.1 %: count (n) of `draws` draws against their probabilities p (n). A cell of
 * probability 0 must be empty; the others must be expected more than 5 times. */
void assert_frequencies(const size_t *count, const double *p, size_t n, size_t draws);

/* Path of a scratch file `name` in a directory of this process that is removed at exit. */
const char *tmp_path(const char *name);

/* Writes a scratch file; unlike dm_file_write() without waiting for the disk. */
void write_scratch(const char *path, const void *data, size_t n);

/* Path below ../shared/data (or $DM_SHARED), or NULL when it is not there. */
const char *shared_path(const char *name);

#endif
