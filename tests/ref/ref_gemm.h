/* SPDX-License-Identifier: MIT */
/* ref_gemm.h - the naive product in double. */
#ifndef DM_TESTS_REF_GEMM_H
#define DM_TESTS_REF_GEMM_H

#include "src/kernel/gemm.h"

/* want (M,N) = A B, plus c (M rows, leading dimension ldc) unless NULL; size (M,N), NULL to skip,
 * is the same sum of absolute values: rounding errors are relative to it. */
void ref_gemm(double *want, double *size, const float *c, size_t ldc, struct dm_mat a,
              struct dm_mat b, size_t M, size_t N, size_t K);

#endif
