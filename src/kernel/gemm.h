/* SPDX-License-Identifier: MIT */
/* gemm.h - matrix product, blocked, packed and threaded.
 *
 * C (M,N) = bias + A B, A (M,K), B (K,N), all float32 in memory; in bf16, A and B are rounded to it
 * on the way, unless A is so already. Each element of C is one chain of sums in the order of k
 * (kern.h): its bits depend neither on M and N, nor on the thread count, nor on whether B was
 * packed before. */
#ifndef DM_KERNEL_GEMM_H
#define DM_KERNEL_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/dtype.h"
#include "src/kernel/format.h"

/* Element (m,k) is p[m*rs + k*cs], so a transposed operand is a swap of strides. */
struct dm_mat {
    const float *p;
    size_t rs, cs; /* row and column stride in floats */
};

struct dm_gemm {
    enum dm_format fmt; /* f32 or bf16 */
    float *c;           /* row-major, leading dimension ldc; may not alias A or B */
    size_t ldc;
    bool add;          /* C += A B; then no bias */
    const float *bias; /* (N) or NULL: what every row of C starts from */
    struct dm_mat a, b;
    const void *pack; /* B by dm_gemm_pack(), or NULL */
    size_t M, N, K;
    enum dm_dtype a_type; /* DM_F32; in bf16 also DM_BF16: a.p and a's strides are of such values */
};
void dm_gemm(const struct dm_gemm *g);

/* Columns n0 .. n1 of the same for M <= dm_gemm_few_rows() rows that lie along k, K > 0 and a pack,
 * by the calling thread. n0 is a multiple of DM_PANEL, and so is n1 unless it is N. */
size_t dm_gemm_few_rows(enum dm_format fmt, size_t K); /* up to 16; 0 from K = 129,025 on */
void dm_gemm_few(const struct dm_gemm *g, size_t n0, size_t n1);

/* B packed once for many products: panels of nr columns, k by k, the layout that streams at memory
 * speed for few rows. Only the bf16 pack has the same bytes for every kernel table. */
size_t dm_gemm_pack_bytes(enum dm_format fmt, size_t N, size_t K);
void dm_gemm_pack(enum dm_format fmt, void *pack, struct dm_mat b, size_t N, size_t K);

/* Columns n0 .. n0+n of the same pack from `raw` (n,K), row-major: the columns of B lie along k.
 * n0 is a multiple of DM_PANEL, and so is n unless the columns end there; raw may be unaligned. */
void dm_gemm_pack_raw(enum dm_format fmt, void *pack, const void *raw, enum dm_dtype dtype,
                      size_t n0, size_t n, size_t K);

#endif
