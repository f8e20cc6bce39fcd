/* SPDX-License-Identifier: MIT */
/* kern.h - the inner loops, compiled once per instruction set and chosen at run time.
 *
 * DM_ISA=ref|avx2|avx512|avx512bf16 in the environment forces a table (for tests); otherwise, and
 * for a name that this processor lacks, the widest one that it has. Bits may differ between tables,
 * never between thread counts. */
#ifndef DM_KERNEL_KERN_H
#define DM_KERNEL_KERN_H

#include <stdbool.h>
#include <stddef.h>

#include "src/kernel/kern_int.h"

struct dm_kern {
    const char *name; /* as DM_ISA */
    size_t mr, nr;    /* gemm micro-tile: mr rows of A by nr columns of B */

    /* Micro-tile of gemm: c (m <= mr, n <= nr; leading dimension ldc) = or += sum over k < K of
     * a[k*mr + i] * b[k*nr + j]; a and b are packed panels, zero-padded to mr and nr. Every element
     * is one chain of fused multiply-adds in the order of k, so its bits depend neither on m, n nor
     * on its place in the tile. */
    void (*gemm_tile)(float *c, size_t ldc, bool add, const float *a, const float *b, size_t m,
                      size_t n, size_t K);
    /* The same, and next + k*step, k < K, is prefetched: what the caller's later tiles read. */
    void (*gemm_tile_next)(float *c, size_t ldc, bool add, const float *a, const float *b, size_t m,
                           size_t n, size_t K, const float *next, size_t step);
    /* The same for few rows (1 <= m <= 4) of A as they lie in memory: a[i*lda + k]; several panels
     * of b, K*nr floats apart, are streamed in order. n columns in all. Same bits as gemm_tile. */
    void (*gemm_few)(float *c, size_t ldc, bool add, const float *a, size_t lda, const float *b,
                     size_t m, size_t n, size_t K);
    /* Packed panels of width = mr or nr, K*width floats apart: dst[p*K*width + k*width + i] =
     * src[(p*width + i)*is + k*ks], 0 where p*width + i >= n. */
    void (*pack)(float *dst, size_t width, const float *src, size_t is, size_t ks, size_t n,
                 size_t K);

    float (*dot)(const float *x, const float *y, size_t n);
    void (*axpy)(float *y, float a, const float *x, size_t n); /* y += a*x */
    void (*scale)(float *x, float a, size_t n);                /* x *= a */
    /* y[i] += sum over j < m of p[j] * x[j*stride + i] for i < n, one chain in the order of j. */
    void (*mix)(float *y, const float *p, const float *x, size_t stride, size_t m, size_t n);

    /* x[i] = exp(x[i] - max); returns the sum in a fixed order. max = -inf is not allowed. */
    float (*exp_sum)(float *x, float max, size_t n);
    float (*max)(const float *x, size_t n); /* n >= 1 */

    /* Exact (erf) GELU: y = x * Phi(x); d *= Phi(x) + x * phi(x). */
    void (*gelu)(float *y, const float *x, size_t n);
    void (*gelu_grad)(float *d, const float *x, size_t n);

    const struct dm_int_kern *ints; /* kern_int.h */
};

/* The table in use; resolved on the first call. */
const struct dm_kern *dm_kern(void);

/* NULL-terminated list of the tables that this processor can run, "ref" first; for tests. */
const struct dm_kern *const *dm_kern_all(void);

/* Makes `k` the table in use; for tests. NULL goes back to the choice by processor and DM_ISA. */
void dm_kern_force(const struct dm_kern *k);

#endif
