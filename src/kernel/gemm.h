/* SPDX-License-Identifier: MIT */
/* gemm.h - matrix product, blocked, packed and threaded.
 *
 * C (M,N) = A (M,K) B (K,N), or C += A B. Element (m,k) of A is a.p[m*a.rs + k*a.cs], so a
 * transposed operand is a swap of strides; C is row-major with leading dimension ldc. Each element
 * of C is one chain of fused multiply-adds in the order of k (started from 0, or from C when
 * adding): its bits depend neither on M and N, nor on the thread count, nor on which of the
 * functions below computed it. Aliasing of C with A or B is not allowed. */
#ifndef DM_KERNEL_GEMM_H
#define DM_KERNEL_GEMM_H

#include <stdbool.h>
#include <stddef.h>

struct dm_mat {
    const float *p;
    size_t rs, cs; /* row and column stride in floats */
};

void dm_gemm(float *c, size_t ldc, bool add, struct dm_mat a, struct dm_mat b, size_t M, size_t N,
             size_t K);

/* B packed once for many products: panels of the kernel's nr columns, k-major, the layout that
 * streams at memory speed for few rows. dm_gemm_pack_floats() tells how many floats. A pack
 * belongs to the kernel table that made it. */
size_t dm_gemm_pack_floats(size_t N, size_t K);
void dm_gemm_pack(float *pack, struct dm_mat b, size_t N, size_t K);
void dm_gemm_packed(float *c, size_t ldc, bool add, struct dm_mat a, const float *pack, size_t M,
                    size_t N, size_t K);

/* C = bias + A B: row m of C starts from bias (N), or from 0 when bias is NULL. B comes from `pack`
 * or, when that is NULL, from b. */
void dm_gemm_affine(float *c, size_t ldc, const float *bias, struct dm_mat a, struct dm_mat b,
                    const float *pack, size_t M, size_t N, size_t K);

#endif
