/* SPDX-License-Identifier: MIT */
/* simd.h - vectors of DM_VW floats under one set of names; only for kern_*_tmpl.c.
 *
 * DM_VW is 1 (plain C), 8 (AVX2 and FMA) or 16 (AVX-512). The _n forms touch only the first
 * min(n, DM_VW) elements of memory. */
#ifndef DM_KERNEL_SIMD_H
#define DM_KERNEL_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if DM_VW > 1
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

/* CALL(m) for m = 1 .. most <= 14 with the number as a constant, so that sums of m rows live in
 * registers and fewer rows cost less. */
#define ROWS_CASE(rows, most, CALL) \
    case rows:                      \
        if (rows <= (most)) {       \
            CALL(rows);             \
        }                           \
        break;
#define FOR_ROWS(m, most, CALL)   \
    switch (m) {                  \
        ROWS_CASE(1, most, CALL)  \
        ROWS_CASE(2, most, CALL)  \
        ROWS_CASE(3, most, CALL)  \
        ROWS_CASE(4, most, CALL)  \
        ROWS_CASE(5, most, CALL)  \
        ROWS_CASE(6, most, CALL)  \
        ROWS_CASE(7, most, CALL)  \
        ROWS_CASE(8, most, CALL)  \
        ROWS_CASE(9, most, CALL)  \
        ROWS_CASE(10, most, CALL) \
        ROWS_CASE(11, most, CALL) \
        ROWS_CASE(12, most, CALL) \
        ROWS_CASE(13, most, CALL) \
        ROWS_CASE(14, most, CALL) \
    }

/* For the _n forms: what is left of n elements from `at` on. */
INLINE size_t lanes_left(size_t n, size_t at)
{
    return n > at ? n - at : 0;
}

#if DM_VW == 16
typedef __m512 vf;
INLINE __mmask16 vf_mask(size_t n)
{
    const unsigned mask = n >= 16 ? 0xffffu : (1u << n) - 1u;
    return (__mmask16)mask;
}
INLINE vf vf_set1(float x)
{
    return _mm512_set1_ps(x);
}
INLINE vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE vf vf_load_bf16(const void *p)
{
    const __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
INLINE vf vf_load_n(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(vf_mask(n), p);
}
INLINE void vf_store(float *p, vf x)
{
    _mm512_storeu_ps(p, x);
}
INLINE void vf_store_n(float *p, vf x, size_t n)
{
    _mm512_mask_storeu_ps(p, vf_mask(n), x);
}
INLINE vf vf_first(vf x, vf other, size_t n) /* lanes below n from x */
{
    return _mm512_mask_blend_ps(vf_mask(n), other, x);
}
INLINE vf vf_if_neg(vf x, vf neg, vf pos) /* x < 0 ? neg : pos */
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), pos, neg);
}
INLINE vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
INLINE vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
INLINE vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
INLINE vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
INLINE vf vf_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}
INLINE vf vf_fma(vf a, vf b, vf c) /* a*b + c */
{
    return _mm512_fmadd_ps(a, b, c);
}
INLINE vf vf_min(vf a, vf b) /* b when either is NaN */
{
    return _mm512_min_ps(a, b);
}
INLINE vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
INLINE vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}
INLINE vf vf_scale(vf x, vf n) /* x * 2^n, n integral, |n| <= 250 */
{
    return _mm512_scalef_ps(x, n);
}
/* In-lane transpose of 4 x 4 blocks: lane q of x[j] becomes column 4q + j of the four rows. */
INLINE void vf_quads(vf x[4])
{
    const __m512d lo01 = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1]));
    const __m512d hi01 = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
    const __m512d lo23 = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3]));
    const __m512d hi23 = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));
    x[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo01, lo23));
    x[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo01, lo23));
    x[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(hi01, hi23));
    x[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(hi01, hi23));
}
/* out[k] lane r = x[r] lane k; x is lost. */
INLINE void vf_transpose(vf out[16], vf x[16])
{
#pragma GCC unroll 4
    for (size_t g = 0; g < 4; g++)
        vf_quads(x + 4 * g);
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        const vf even01 = _mm512_shuffle_f32x4(x[j], x[4 + j], 0x88);
        const vf odd01 = _mm512_shuffle_f32x4(x[j], x[4 + j], 0xdd);
        const vf even23 = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0x88);
        const vf odd23 = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0xdd);
        out[j] = _mm512_shuffle_f32x4(even01, even23, 0x88);
        out[4 + j] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
        out[8 + j] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
        out[12 + j] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
}
#endif

#if DM_VW == 8
typedef __m256 vf;
INLINE __m256i vf_mask(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n >= 8 ? 8 : (int)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vf vf_set1(float x)
{
    return _mm256_set1_ps(x);
}
INLINE vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
INLINE vf vf_load_bf16(const void *p)
{
    const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
INLINE vf vf_load_n(const float *p, size_t n)
{
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, vf_mask(n));
}
INLINE void vf_store(float *p, vf x)
{
    _mm256_storeu_ps(p, x);
}
INLINE void vf_store_n(float *p, vf x, size_t n)
{
    if (n >= 8)
        _mm256_storeu_ps(p, x);
    else
        _mm256_maskstore_ps(p, vf_mask(n), x);
}
INLINE vf vf_first(vf x, vf other, size_t n)
{
    return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(vf_mask(n)));
}
INLINE vf vf_if_neg(vf x, vf neg, vf pos)
{
    return _mm256_blendv_ps(pos, neg, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
}
INLINE vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
INLINE vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
INLINE vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
INLINE vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
INLINE vf vf_sqrt(vf a)
{
    return _mm256_sqrt_ps(a);
}
INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
INLINE vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
INLINE vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
INLINE vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
/* In two factors, so that a subnormal result is rounded once and 2^128 does not overflow early. */
INLINE vf vf_scale(vf x, vf n)
{
    const __m256i e = _mm256_cvtps_epi32(n), e1 = _mm256_srai_epi32(e, 1);
    const __m256i e2 = _mm256_sub_epi32(e, e1), bias = _mm256_set1_epi32(127);
    const vf f1 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e1, bias), 23));
    const vf f2 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e2, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(x, f1), f2);
}
INLINE void vf_quads(vf x[4])
{
    const __m256d lo01 = _mm256_castps_pd(_mm256_unpacklo_ps(x[0], x[1]));
    const __m256d hi01 = _mm256_castps_pd(_mm256_unpackhi_ps(x[0], x[1]));
    const __m256d lo23 = _mm256_castps_pd(_mm256_unpacklo_ps(x[2], x[3]));
    const __m256d hi23 = _mm256_castps_pd(_mm256_unpackhi_ps(x[2], x[3]));
    x[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(lo01, lo23));
    x[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(lo01, lo23));
    x[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(hi01, hi23));
    x[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(hi01, hi23));
}
INLINE void vf_transpose(vf out[8], vf x[8])
{
    vf_quads(x);
    vf_quads(x + 4);
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        out[j] = _mm256_permute2f128_ps(x[j], x[4 + j], 0x20);
        out[4 + j] = _mm256_permute2f128_ps(x[j], x[4 + j], 0x31);
    }
}
#endif

#if DM_VW == 1
typedef float vf;
INLINE vf vf_set1(float x)
{
    return x;
}
INLINE vf vf_load(const float *p)
{
    return *p;
}
INLINE vf vf_load_bf16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof(h));
    const uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}
INLINE vf vf_load_n(const float *p, size_t n)
{
    return n ? *p : 0.0f;
}
INLINE void vf_store(float *p, vf x)
{
    *p = x;
}
INLINE void vf_store_n(float *p, vf x, size_t n)
{
    if (n)
        *p = x;
}
INLINE vf vf_first(vf x, vf other, size_t n)
{
    return n ? x : other;
}
INLINE vf vf_if_neg(vf x, vf neg, vf pos)
{
    return x < 0.0f ? neg : pos;
}
INLINE vf vf_add(vf a, vf b)
{
    return a + b;
}
INLINE vf vf_sub(vf a, vf b)
{
    return a - b;
}
INLINE vf vf_mul(vf a, vf b)
{
    return a * b;
}
INLINE vf vf_div(vf a, vf b)
{
    return a / b;
}
INLINE vf vf_sqrt(vf a)
{
    return sqrtf(a);
}
INLINE vf vf_fma(vf a, vf b, vf c)
{
    return fmaf(a, b, c);
}
INLINE vf vf_min(vf a, vf b)
{
    return a < b ? a : b;
}
INLINE vf vf_max(vf a, vf b)
{
    return a > b ? a : b;
}
INLINE vf vf_abs(vf a)
{
    return fabsf(a);
}
INLINE vf vf_scale(vf x, vf n)
{
    if (!(n > -250.0f && n < 250.0f))
        return n; // only NaN comes here
    const int32_t e = (int32_t)n, e1 = e / 2;
    const uint32_t b1 = (uint32_t)(e1 + 127) << 23, b2 = (uint32_t)(e - e1 + 127) << 23;
    float f1, f2;
    memcpy(&f1, &b1, sizeof(f1));
    memcpy(&f2, &b2, sizeof(f2));
    return x * f1 * f2;
}
INLINE void vf_transpose(vf out[1], vf x[1])
{
    out[0] = x[0];
}
#endif

/* out[k] lane r = row[r][k]: a transpose in registers. */
INLINE void vf_columns(vf out[DM_VW], const float *const row[DM_VW], size_t k)
{
    vf x[DM_VW];
#pragma GCC unroll 16
    for (size_t r = 0; r < DM_VW; r++)
        x[r] = vf_load(row[r] + k);
    vf_transpose(out, x);
}

/* Sum of the lanes: halves added until one is left, the same order at every width. */
#if DM_VW == 1
INLINE float vf_sum(vf x)
{
    return x;
}
#else
INLINE float vf_sum(vf x)
{
#if DM_VW == 16
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
#else
    const __m256 h = x;
#endif
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
#endif

/* The largest lane. */
INLINE float vf_top(vf x)
{
    float l[DM_VW];
    memcpy(l, &x, sizeof(l));
    for (size_t i = 1; i < DM_VW; i++)
        l[0] = l[i] > l[0] ? l[i] : l[0];
    return l[0];
}

#endif
