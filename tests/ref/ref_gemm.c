/* SPDX-License-Identifier: MIT */
#include "tests/ref/ref_gemm.h"

#include <math.h>

void ref_gemm(double *want, double *size, const float *c, size_t ldc, struct dm_mat a,
              struct dm_mat b, size_t M, size_t N, size_t K)
{
    for (size_t m = 0; m < M; m++)
        for (size_t n = 0; n < N; n++) {
            double sum = c ? (double)c[m * ldc + n] : 0.0, abs = fabs(sum);
            for (size_t k = 0; k < K; k++) {
                const double t = (double)a.p[m * a.rs + k * a.cs] *
                                 (double)b.p[k * b.rs + n * b.cs];
                sum += t;
                abs += fabs(t);
            }
            want[m * N + n] = sum;
            if (size)
                size[m * N + n] = abs;
        }
}
