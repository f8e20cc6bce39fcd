/* SPDX-License-Identifier: MIT */
/* The float32 loops, and the table. This file is compiled once per instruction set: DM_ISA names
 * the table, DM_VW is the number of floats in a vector. A tail goes through the same vector code
 * under a mask, so that an element's bits do not depend on its place in the array. */
#include "src/kernel/kern_tables.h"

#include <assert.h>
#include <stdbool.h>

#include "src/kernel/simd.h"

/* Micro-tile: MR x NV vectors of sums, NV vectors of b and one of a fill the register file. */
#if DM_VW == 16
#define MR 14
#define NV 2
#elif DM_VW == 8
#define MR 6
#define NV 2
#else
#define MR 4
#define NV 4
#endif
#define NR ((size_t)NV * DM_VW)

typedef vf vw;
INLINE vw vw_load(const char *p)
{
    return vf_load((const float *)(const void *)p);
}
INLINE vw vw_set1(const char *p)
{
    return vf_set1(*(const float *)(const void *)p);
}
INLINE vf vw_dot(vw a, vw b, vf c)
{
    return vf_fma(a, b, c);
}

#include "src/kernel/mm.h"

static void gemm_tile(float *c, size_t ldc, bool add, const float *a, const float *b, size_t m,
                      size_t n, size_t K)
{
    mm_tile(c, ldc, add ? c : NULL, ldc, a, b, m, n, K, &(struct dm_ahead){c, (const char *)b, 0});
}

/* Few rows of a as they lie. */
INLINE void few(float *c, size_t ldc, bool add, const float *a, size_t lda, const float *b,
                size_t m, size_t n, size_t K)
{
    vf acc[MR][NV];
    mm_start(acc, add ? c : NULL, ldc, m, n);
    for (size_t k = 0; k < K; k++, b += NR)
        mm_step(acc, (const char *)(a + k), lda * WORD, (const char *)b, m);
    mm_end(c, ldc, acc, m, n);
}

static void gemm_few(float *c, size_t ldc, bool add, const float *a, size_t lda, const float *b,
                     size_t m, size_t n, size_t K)
{
    assert(m >= 1 && m <= 4);
    for (size_t j = 0; j < n; j += NR, b += K * NR) {
        const size_t w = n - j < NR ? n - j : NR;
#define FEW(rows) few(c + j, ldc, add, a, lda, b, rows, w, K)
        FOR_ROWS(m, 4, FEW)
#undef FEW
    }
}

/* One panel whose rows lie along k: transposes blocks of DM_VW by DM_VW, so that a cache line is
 * read once (rows a multiple of 4 KiB apart share 8 places in L1). width is a constant; `full` says
 * that n >= width. */
INLINE void pack_rows(float *dst, size_t width, const float *src, size_t is, size_t n, bool full,
                      size_t K)
{
    for (size_t i0 = 0; i0 < width; i0 += DM_VW) {
        const float *row[DM_VW];
        const size_t w = width - i0, have = full ? w : lanes_left(n, i0);
        for (size_t r = 0; r < DM_VW; r++) // rows that do not exist are read from row 0, then cut
            row[r] = src + (r < have ? i0 + r : 0) * is;
        size_t k = 0;
        for (; k + DM_VW <= K; k += DM_VW) {
            vf col[DM_VW];
            vf_columns(col, row, k);
#pragma GCC unroll 16
            for (size_t j = 0; j < DM_VW; j++)
                vf_store_n(dst + (k + j) * width + i0,
                           full ? col[j] : vf_first(col[j], vf_set1(0.0f), have), w);
        }
        for (; k < K; k++)
            for (size_t r = 0; r < DM_VW && r < w; r++)
                dst[k * width + i0 + r] = r < have ? row[r][k] : 0.0f;
    }
}

/* Values of k for all panels before the next, which reads whole lines of few pages; the next ones
 * are on their way meanwhile. */
#define PACK_K ((size_t)4)

/* The part of one panel from k0 to k1, its rows across k: dst and src at k = 0. */
INLINE void pack_columns(float *dst, size_t width, const float *src, size_t ks, size_t n, bool full,
                         size_t k0, size_t k1)
{
#pragma GCC unroll 4
    for (size_t k = k0; k < k1; k++) {
        for (size_t i = 0; i < width; i += 16)
            __builtin_prefetch(src + (k + PACK_K) * ks + i);
#pragma GCC unroll 4
        for (size_t i = 0; i < width; i += DM_VW)
            vf_store_n(dst + k * width + i,
                       vf_load_n(src + k * ks + i, full ? width - i : lanes_left(n, i)), width - i);
    }
}

/* `stride` is from panel to panel. */
INLINE void pack_all(float *dst, size_t stride, size_t width, const float *src, size_t is,
                     size_t ks, size_t n, size_t K)
{
    const size_t k_step = ks == 1 ? K : PACK_K;
    for (size_t k = 0; k < K; k += k_step)
        for (size_t p = 0; p < n; p += width) {
            float *to = dst + p / width * stride;
            const float *from = src + p * is;
            const bool full = n - p >= width;
            if (ks == 1 && full)
                pack_rows(to, width, from, is, width, true, K);
            else if (ks == 1)
                pack_rows(to, width, from, is, n - p, false, K);
            else if (full && K - k >= PACK_K)
                pack_columns(to, width, from, ks, width, true, k, k + PACK_K);
            else
                pack_columns(to, width, from, ks, n - p, false, k, K - k < PACK_K ? K : k + PACK_K);
        }
}

INLINE void pack_panels(void *to, size_t stride, size_t width, const float *src, size_t is,
                        size_t ks, size_t n, size_t K)
{
    float *dst = to;
    if (is != 1 && ks != 1) {
        for (size_t p = 0; p < n; p += width, dst += stride)
            for (size_t k = 0; k < K; k++)
                for (size_t i = 0; i < width; i++)
                    dst[k * width + i] = p + i < n ? src[(p + i) * is + k * ks] : 0.0f;
    } else {
        pack_all(dst, stride, width, src, is, ks, n, K);
    }
}

static void mm_pack_a(void *to, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                      size_t K)
{
    pack_panels(to, stride, MR, src, is, ks, n, K);
}

static void mm_pack_b(void *to, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                      size_t K)
{
    pack_panels(to, stride, NR, src, is, ks, n, K);
}

static void pack(float *dst, size_t width, const float *src, size_t is, size_t ks, size_t n,
                 size_t K)
{
    assert(width == MR || width == NR);
    (width == MR ? mm_pack_a : mm_pack_b)(dst, K * width, src, is, ks, n, K);
}

static void mm_pack_rows(void *dst, const float *src, size_t is, size_t n, size_t K)
{
    for (size_t i = 0; i < n; i++)
        memcpy((float *)dst + i * DM_A_STRIDE, src + i * is, K * sizeof(*src));
}

static float dot(const float *x, const float *y, size_t n)
{
    vf s[4] = {vf_set1(0.0f), vf_set1(0.0f), vf_set1(0.0f), vf_set1(0.0f)};
    size_t i = 0;
    for (; i + 4 * DM_VW <= n; i += 4 * DM_VW)
        for (size_t j = 0; j < 4; j++)
            s[j] = vf_fma(vf_load(x + i + j * DM_VW), vf_load(y + i + j * DM_VW), s[j]);
    for (; i < n; i += DM_VW)
        s[0] = vf_fma(vf_load_n(x + i, n - i), vf_load_n(y + i, n - i), s[0]);
    return vf_sum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

/* nv vectors of y, nv a constant, stay in registers while the rows of x pass. */
INLINE void mix_columns(float *y, const float *p, const float *x, size_t stride, size_t m, size_t n,
                        size_t nv)
{
    vf acc[4];
    for (size_t i = 0; i < nv; i++)
        acc[i] = vf_load_n(y + i * DM_VW, lanes_left(n, i * DM_VW));
    for (size_t j = 0; j < m; j++, x += stride) {
        const vf pv = vf_set1(p[j]);
        for (size_t i = 0; i < nv; i++)
            acc[i] = vf_fma(pv, vf_load_n(x + i * DM_VW, lanes_left(n, i * DM_VW)), acc[i]);
    }
    for (size_t i = 0; i < nv; i++)
        vf_store_n(y + i * DM_VW, acc[i], lanes_left(n, i * DM_VW));
}

static void mix(float *y, const float *p, const float *x, size_t stride, size_t m, size_t n)
{
    for (; n >= 4 * DM_VW; n -= 4 * DM_VW, x += 4 * DM_VW, y += 4 * DM_VW)
        mix_columns(y, p, x, stride, m, 4 * DM_VW, 4);
    for (; n >= 2 * DM_VW; n -= 2 * DM_VW, x += 2 * DM_VW, y += 2 * DM_VW)
        mix_columns(y, p, x, stride, m, 2 * DM_VW, 2);
    for (; n >= DM_VW; n -= DM_VW, x += DM_VW, y += DM_VW)
        mix_columns(y, p, x, stride, m, DM_VW, 1);
    if (n)
        mix_columns(y, p, x, stride, m, n, 1);
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    const vf av = vf_set1(a);
    size_t i = 0;
    for (; i + DM_VW <= n; i += DM_VW)
        vf_store(y + i, vf_fma(av, vf_load(x + i), vf_load(y + i)));
    if (i < n)
        vf_store_n(y + i, vf_fma(av, vf_load_n(x + i, n - i), vf_load_n(y + i, n - i)), n - i);
}

static void scale(float *x, float a, size_t n)
{
    const vf av = vf_set1(a);
    size_t i = 0;
    for (; i + DM_VW <= n; i += DM_VW)
        vf_store(x + i, vf_mul(av, vf_load(x + i)));
    if (i < n)
        vf_store_n(x + i, vf_mul(av, vf_load_n(x + i, n - i)), n - i);
}

/* exp(x + lo), lo a correction far below x. Reduced to |r| <= ln(2)/2 with ln 2 in two parts; the
 * polynomial is printed by scripts/fit_poly.py. Below -104 the result rounds to 0, above 89 it is
 * infinite: the clamp keeps the exponent in range. NaN passes: min and max return their second
 * operand then. */
INLINE vf exp_of(vf x, vf lo)
{
    x = vf_min(vf_set1(89.0f), vf_max(vf_set1(-104.0f), x));
    const vf shift = vf_set1(0x1.8p23f); // adding it rounds to an integer
    const vf n = vf_sub(vf_fma(x, vf_set1(0x1.715476p0f), shift), shift);
    vf r = vf_fma(n, vf_set1(-0x1.62e4p-1f), x);
    r = vf_add(vf_fma(n, vf_set1(-0x1.7f7d1cp-20f), r), lo);
    vf q = vf_set1(0x1.6d117cp-10f);
    q = vf_fma(q, r, vf_set1(0x1.120be2p-7f));
    q = vf_fma(q, r, vf_set1(0x1.555518p-5f));
    q = vf_fma(q, r, vf_set1(0x1.5554dcp-3f));
    q = vf_fma(q, r, vf_set1(0x1p-1f));
    return vf_scale(vf_add(vf_fma(vf_mul(r, r), q, r), vf_set1(1.0f)), n);
}

static float exp_sum(float *x, float max, size_t n)
{
    const vf mv = vf_set1(max), zero = vf_set1(0.0f);
    vf s = zero;
    size_t i = 0;
    for (; i + DM_VW <= n; i += DM_VW) {
        const vf y = exp_of(vf_sub(vf_load(x + i), mv), zero);
        vf_store(x + i, y);
        s = vf_add(s, y);
    }
    if (i < n) {
        const vf y = exp_of(vf_sub(vf_load_n(x + i, n - i), mv), zero);
        vf_store_n(x + i, y, n - i);
        s = vf_add(s, vf_first(y, zero, n - i));
    }
    return vf_sum(s);
}

static float max(const float *x, size_t n)
{
    const vf first = vf_set1(x[0]);
    vf m = first;
    size_t i = 0;
    for (; i + DM_VW <= n; i += DM_VW)
        m = vf_max(m, vf_load(x + i));
    if (i < n)
        m = vf_max(m, vf_first(vf_load_n(x + i, n - i), first, n - i));
    return vf_top(m);
}

/* The tail Q(a) = 1 - Phi(a) of the normal distribution for a >= 0 is exp(-a^2/2) times a smooth
 * function, a polynomial in u = (5/2 - a) / (5/2 + a) from scripts/fit_poly.py (degree 10). *e =
 * exp(-a^2/2): the rounding error of the square, which exp would magnify, is carried along. */
INLINE vf normal_tail(vf a, vf *e)
{
    const vf s = vf_mul(a, a), lo = vf_fma(a, a, vf_sub(vf_set1(0.0f), s));
    *e = exp_of(vf_mul(s, vf_set1(-0.5f)), vf_mul(lo, vf_set1(-0.5f)));
    const vf c = vf_set1(2.5f), u = vf_div(vf_sub(c, a), vf_add(c, a));
    vf p = vf_set1(0x1.7a48eep-16f);
    p = vf_fma(p, u, vf_set1(-0x1.20d292p-16f));
    p = vf_fma(p, u, vf_set1(-0x1.959e2ep-13f));
    p = vf_fma(p, u, vf_set1(0x1.7337a6p-12f));
    p = vf_fma(p, u, vf_set1(0x1.b01edcp-11f));
    p = vf_fma(p, u, vf_set1(-0x1.82efc2p-9f));
    p = vf_fma(p, u, vf_set1(-0x1.4fd664p-8f));
    p = vf_fma(p, u, vf_set1(0x1.923830p-6f));
    p = vf_fma(p, u, vf_set1(0x1.cf677cp-4f));
    p = vf_fma(p, u, vf_set1(0x1.d3163ep-3f));
    p = vf_fma(p, u, vf_set1(0x1.217252p-3f));
    return vf_mul(p, *e);
}

/* x Phi(x) = max(x, 0) - |x| Q(|x|): no cancellation on either side. Q is 0 from 15 on, and the
 * clamp at 20 keeps infinity times 0 out. */
INLINE vf gelu_of(vf x)
{
    const vf zero = vf_set1(0.0f), a = vf_min(vf_set1(20.0f), vf_abs(x));
    vf e;
    const vf q = normal_tail(a, &e);
    return vf_fma(vf_sub(zero, a), q, vf_max(zero, x));
}

static void gelu(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + DM_VW <= n; i += DM_VW)
        vf_store(y + i, gelu_of(vf_load(x + i)));
    if (i < n)
        vf_store_n(y + i, gelu_of(vf_load_n(x + i, n - i)), n - i);
}

/* With h = |x| phi(x) - Q(|x|) the derivative Phi(x) + x phi(x) is 1 + h for x >= 0, else -h. */
INLINE vf gelu_grad_of(vf d, vf x)
{
    const vf zero = vf_set1(0.0f), a = vf_min(vf_set1(20.0f), vf_abs(x));
    vf e;
    const vf q = normal_tail(a, &e);
    const vf h = vf_sub(vf_mul(vf_mul(a, vf_set1(0x1.988454p-2f)), e), q); // 1/sqrt(2 pi)
    return vf_mul(d, vf_if_neg(x, vf_sub(zero, h), vf_add(vf_set1(1.0f), h)));
}

static void gelu_grad(float *d, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + DM_VW <= n; i += DM_VW)
        vf_store(d + i, gelu_grad_of(vf_load(d + i), vf_load(x + i)));
    if (i < n)
        vf_store_n(d + i, gelu_grad_of(vf_load_n(d + i, n - i), vf_load_n(x + i, n - i)), n - i);
}

static const struct dm_kern_mm mm = {
    MM_BLOCKS,           .unit = 1,           .pack_rows = mm_pack_rows,
    .pack_a = mm_pack_a, .pack_b = mm_pack_b, .tile = mm_tile,
    .few = mm_few,
};

#define STR2(x) #x
#define STR(x) STR2(x)
const struct dm_kern DM_EXPORT(dm_kern) = {
    .name = STR(DM_ISA),
    .f32 = &mm,
    .bf16 = &DM_EXPORT(dm_kern_bf16),
    .train = &DM_EXPORT(dm_kern_train),
    .mr = MR,
    .nr = NR,
    .gemm_tile = gemm_tile,
    .gemm_few = gemm_few,
    .pack = pack,
    .dot = dot,
    .axpy = axpy,
    .scale = scale,
    .mix = mix,
    .kv_scores = DM_EXPORT(dm_kv_scores),
    .kv_mix = DM_EXPORT(dm_kv_mix),
    .exp_sum = exp_sum,
    .max = max,
    .gelu = gelu,
    .gelu_grad = gelu_grad,
    .ints = &DM_EXPORT(dm_int_kern),
    .select = &DM_EXPORT(dm_kern_select),
};
