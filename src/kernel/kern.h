/* SPDX-License-Identifier: MIT */
/* kern.h - the inner loops, compiled once per instruction set and chosen at run time.
 *
 * DM_ISA=ref|avx2|avx512|avx512bf16|amx in the environment forces a table (for tests); otherwise,
 * and for a name that this processor lacks, the widest one that it has. Bits may differ between
 * tables, never between thread counts. */
#ifndef DM_KERNEL_KERN_H
#define DM_KERNEL_KERN_H

#include <stdbool.h>
#include <stddef.h>

#include "src/kernel/format.h"
#include "src/kernel/kern_int.h"
#include "src/kernel/kern_select.h"

/* Few rows of a packed A, which lie along k in blocks of DM_KC words, are DM_A_STRIDE words apart,
 * which is no multiple of a page, so that they spread over L1, and a constant, so that addresses
 * are. */
enum { DM_KC = 512, DM_A_STRIDE = DM_KC + 16 };

/* What a full tile fetches on the way: lines of the next panel, into L2; and of the next tile of c,
 * mr rows of nr sums, ldc apart. `past`: c is not added to, and so large that it is better written
 * past the caches; its rows are whole cache lines. */
struct dm_ahead {
    const float *c;
    const char *panel;
    size_t lines;
    bool past;
};

/* Products C = A B in one number format; driver: gemm.h. k is counted in words of 4 bytes: `unit`
 * values of k in each, one float32 or two bf16, the last one zero-padded. A and B come packed:
 *   A: panels of mr rows, W rounded up to `step` words each, in an order that only `tile` knows;
 *     few rows: word w of row i at i*DM_A_STRIDE + w (w < DM_KC)
 *   B: panels of nr columns, word w of column j at (j/nr*W + w)*nr + j%nr
 * Every element of C is one chain of sums in the order of k (inside `step` words the instruction's
 * order), so its bits depend neither on m, n nor on its place, nor on the function. */
struct dm_kern_mm {
    size_t mr, nr, unit, step;
    size_t few_rows; /* that `few` takes */
    size_t few_best; /* of them, up to which one call is faster than two */
    /* Blocks that suit the caches: kc words of k, a multiple of step; mc rows; nc columns that are
     * packed in every call, or of a pack. by_rows: a panel of A stays in L1 and a block of B in L2
     * while the tiles go along the rows of C; else a panel of B and a block of A. */
    size_t kc, mc, nc, nc_pack;
    bool by_rows;

    /* Element (i,k) is src[i*is + k*ks], i < n, k < K; ks = 1 for pack_rows. Missing rows of the
     * last panel are zero; `stride` is from panel to panel in words. pack_rows may write a single
     * row to where it lies. */
    void (*pack_rows)(void *dst, const float *src, size_t is, size_t n, size_t K);
    void (*pack_a)(void *dst, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                   size_t K);
    void (*pack_b)(void *dst, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                   size_t K);
    /* The same of values that are bf16 already, unaligned if need be; NULL in f32. */
    void (*pack_a_raw)(void *dst, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                       size_t K);
    void (*pack_b_raw)(void *dst, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                       size_t K);

    /* What a thread calls before its first tile and after its last one, when all of c is there;
     * NULL: nothing. */
    void (*begin)(void);
    void (*end)(void);
    /* One micro-tile: c (m <= mr, n <= nr; leading dimension ldc) = start + A B over W words. Rows
     * of start are ld apart: c itself, one row for all (ld = 0), or NULL for 0. */
    void (*tile)(float *c, size_t ldc, const float *start, size_t ld, const void *a, const void *b,
                 size_t m, size_t n, size_t W, const struct dm_ahead *ahead);
    /* m <= few_rows rows against n columns in panels W*nr words apart, streamed in order. A by
     * rows, in blocks of DM_KC words: m*DM_A_STRIDE words, then the next block. */
    void (*few)(float *c, size_t ldc, const float *start, size_t ld, const void *a, const void *b,
                size_t m, size_t n, size_t W);
};

/* One AdamW update as train/adamw.h has it. */
struct dm_adamw_rates {
    float scale;                      /* of the gradient */
    float beta1, beta2, rest1, rest2; /* rest = 1 - beta */
    float keep;                       /* 1 - lr * decay */
    float rate, inv_root2, eps;       /* lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */
};

struct dm_kern_train {
    /* One row of LayerNorm, y = (x - mean) * rstd * w + b; mean and rstd = 1/sqrt(var + eps) are
     * written; y may be x. */
    void (*layernorm)(float *y, float *mean, float *rstd, const float *x, const float *w,
                      const float *b, double eps, size_t n);
    /* Its adjoint: dx += ... */
    void (*layernorm_grad)(float *dx, const float *dy, const float *x, const float *w, float mean,
                           float rstd, size_t n);
    /* dw[i] += sum over rows of dy * (x - mean) * rstd, db[i] += sum of dy; rows `stride` apart,
     * in order. */
    void (*layernorm_sums)(float *dw, float *db, const float *dy, const float *x, size_t stride,
                           const float *mean, const float *rstd, size_t rows, size_t n);
    /* p, m and v are updated, g becomes 0. */
    void (*adamw)(float *p, float *m, float *v, float *g, const struct dm_adamw_rates *u, size_t n);
};

struct dm_kern {
    const char *name; /* as DM_ISA */
    const struct dm_kern_mm *f32, *bf16;
    const struct dm_kern_train *train;
    size_t mr, nr; /* those of f32 */

    /* For attention: c (m <= mr, n <= nr; leading dimension ldc) = or += sum over k < K of
     * a[k*mr + i] * b[k*nr + j]; a and b are packed panels, zero-padded to mr and nr. Every element
     * is one chain of fused multiply-adds in the order of k, as in f32->tile. */
    void (*gemm_tile)(float *c, size_t ldc, bool add, const float *a, const float *b, size_t m,
                      size_t n, size_t K);
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

    /* Few query rows (1 <= m <= 4) against one head of a KV cache (attention.h), bf16 if `half`:
     * s[i*lds + j] = sum over d < HS of q[i*ldq + d] * k[j][d] for n keys in panels of DM_PANEL,
     * and y[i*ldy + d] += sum over j < n of p[i*ldp + j] * v[j][d], v in rows of HS. Same bits as
     * gemm_tile. Memory is fetched ahead; `next` is what will be read afterwards. */
    void (*kv_scores)(float *s, size_t lds, const float *q, size_t ldq, const void *k, bool half,
                      size_t m, size_t n, size_t HS, const void *next);
    void (*kv_mix)(float *y, size_t ldy, const float *p, size_t ldp, const void *v, bool half,
                   size_t m, size_t n, size_t HS, const void *next);

    /* x[i] = exp(x[i] - max); returns the sum in a fixed order. max = -inf is not allowed. */
    float (*exp_sum)(float *x, float max, size_t n);
    float (*max)(const float *x, size_t n); /* n >= 1 */

    /* Exact (erf) GELU: y = x * Phi(x); d *= Phi(x) + x * phi(x). */
    void (*gelu)(float *y, const float *x, size_t n);
    void (*gelu_grad)(float *d, const float *x, size_t n);

    const struct dm_int_kern *ints;      /* kern_int.h */
    const struct dm_kern_select *select; /* kern_select.h */
};

/* The table in use; resolved on the first call. */
const struct dm_kern *dm_kern(void);

/* NULL-terminated list of the tables that this processor can run, "ref" first; for tests. */
const struct dm_kern *const *dm_kern_all(void);

/* Makes `k` the table in use; for tests. NULL goes back to the choice by processor and DM_ISA. */
void dm_kern_force(const struct dm_kern *k);

#endif
