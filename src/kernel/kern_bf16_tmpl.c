/* SPDX-License-Identifier: MIT */
/* Products in bf16: a word is a pair of values of k, the even one in its low half. Sums are
 * float32. The instructions (vdpbf16ps, tdpbf16ps) multiply pairs and add them in their own order,
 * with subnormals taken as zero; the other tables add the odd product, then the even one. */
#include "src/kernel/kern_tables.h"

#include <assert.h>

#include "src/kernel/simd.h"

#if defined(__AMX_BF16__) || defined(__AMXBF16__) // gcc and newer clang; clang 14
#define TILES
#endif

#ifdef TILES
#define MR 32
#elif defined(__AVX512BF16__)
#define MR 14
#define NV 2
#elif DM_VW == 16
#define MR 12
#define NV 2
#elif DM_VW == 8
#define MR 4
#define NV 2
#else
#define MR 4
#define NV 4
#endif
#define NR ((size_t)DM_PANEL)

/* vb: DM_VW words as integers. */
#if DM_VW == 16
typedef __m512i vb;
INLINE vb vb_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
#ifndef TILES // which take rows from memory
INLINE vb vb_set1(const void *p)
{
    int w;
    memcpy(&w, p, sizeof(w));
    return _mm512_set1_epi32(w);
}
#endif
#ifndef __AVX512BF16__  /* whose products take the words as they are */
INLINE vf vb_even(vb x) /* as float32 */
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
INLINE vf vb_odd(vb x)
{
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(-65536)));
}
#endif
#elif DM_VW == 8
typedef __m256i vb;
INLINE vb vb_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE vb vb_set1(const void *p)
{
    int w;
    memcpy(&w, p, sizeof(w));
    return _mm256_set1_epi32(w);
}
INLINE vf vb_even(vb x)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
INLINE vf vb_odd(vb x)
{
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(-65536)));
}
#else
typedef uint32_t vb;
INLINE vb vb_load(const void *p)
{
    vb x;
    memcpy(&x, p, sizeof(x));
    return x;
}
INLINE vb vb_set1(const void *p)
{
    return vb_load(p);
}
INLINE vf vb_float(uint32_t x)
{
    vf f;
    memcpy(&f, &x, sizeof(f));
    return f;
}
INLINE vf vb_even(vb x)
{
    return vb_float(x << 16);
}
INLINE vf vb_odd(vb x)
{
    return vb_float(x & 0xffff0000u);
}
#endif

#ifdef TILES
/* Tiles take the words from memory. */
#elif defined(__AVX512BF16__)
typedef __m512bh vw;
INLINE vw vw_load(const void *p)
{
    return (vw)vb_load(p);
}
INLINE vw vw_set1(const void *p)
{
    return (vw)vb_set1(p);
}
INLINE vf vw_dot(vw a, vw b, vf c)
{
    return _mm512_dpbf16_ps(c, a, b);
}
#else
typedef struct {
    vf even, odd;
} vw;
INLINE vw vw_load(const void *p)
{
    return (vw){vb_even(vb_load(p)), vb_odd(vb_load(p))};
}
INLINE vw vw_set1(const void *p)
{
    return (vw){vb_even(vb_set1(p)), vb_odd(vb_set1(p))};
}
INLINE vf vw_dot(vw a, vw b, vf c)
{
    return vf_fma(a.even, b.even, vf_fma(a.odd, b.odd, c));
}
#endif

#ifdef TILES
#include "src/kernel/mm_amx.h"
#else
#include "src/kernel/mm.h"
#endif

/* Conversion to the nearest, ties to even; NaN stays NaN, a subnormal becomes zero of its sign. The
 * result is the upper half of the lane, the lower one is 0. */
INLINE uint32_t round_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof(u));
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (u & 0xffff0000u) | 0x400000u;
    if ((u & 0x7f800000u) == 0)
        return u & 0x80000000u;
    return (u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u;
}

/* vb_pair: words of the rows k and k + 1. vb_along: words of 2 * DM_VW values in a row. */
#if defined(__AVX512BF16__)
INLINE vb vb_pair(vf even, vf odd)
{
    static const uint16_t zip[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(zip),
                                    (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}
INLINE vb vb_along(const float *p)
{
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + 16), _mm512_loadu_ps(p));
}
#elif DM_VW == 16
INLINE __m512i vb_round(vf x)
{
    const __m512i u = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
    const __m512i up = _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32(u, 16), one),
                                        _mm512_set1_epi32(0x7fff));
    __m512i r = _mm512_add_epi32(u, up);
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), u,
                             _mm512_set1_epi32(0x400000));
    r = _mm512_mask_and_epi32(r, _mm512_testn_epi32_mask(u, _mm512_set1_epi32(0x7f800000)), u,
                              _mm512_set1_epi32((int)0x80000000u));
    return _mm512_and_si512(r, _mm512_set1_epi32(-65536));
}
INLINE vb vb_pair(vf even, vf odd)
{
    return _mm512_or_si512(_mm512_srli_epi32(vb_round(even), 16), vb_round(odd));
}
INLINE vb vb_along(const float *p)
{
    const __m256i lo = _mm512_cvtepi32_epi16(_mm512_srli_epi32(vb_round(vf_load(p)), 16));
    const __m256i hi = _mm512_cvtepi32_epi16(_mm512_srli_epi32(vb_round(vf_load(p + 16)), 16));
    return _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1);
}
#elif DM_VW == 8
INLINE __m256i vb_round(vf x)
{
    const __m256i u = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
    const __m256i up = _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(u, 16), one),
                                        _mm256_set1_epi32(0x7fff));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i tiny = _mm256_cmpeq_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x7f800000)),
                                            _mm256_setzero_si256());
    __m256i r = _mm256_add_epi32(u, up);
    r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
    r = _mm256_blendv_epi8(r, _mm256_and_si256(u, _mm256_set1_epi32((int)0x80000000u)), tiny);
    return _mm256_and_si256(r, _mm256_set1_epi32(-65536));
}
INLINE vb vb_pair(vf even, vf odd)
{
    return _mm256_or_si256(_mm256_srli_epi32(vb_round(even), 16), vb_round(odd));
}
INLINE vb vb_along(const float *p)
{
    const __m256i lo = _mm256_srli_epi32(vb_round(vf_load(p)), 16);
    const __m256i hi = _mm256_srli_epi32(vb_round(vf_load(p + 8)), 16);
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8);
}
#else
INLINE vb vb_pair(vf even, vf odd)
{
    return round_bits(even) >> 16 | round_bits(odd);
}
INLINE vb vb_along(const float *p)
{
    return vb_pair(p[0], p[1]);
}
#endif

/* What is packed is float32 or, when `raw`, bf16 already; then subnormals become zero as in the
 * conversion. value_bits: one value, converted, in the upper half. load_n: min(n, DM_VW) values.
 * word_at: the word at k < K of a row whose values lie ks apart. vb_raw: DM_VW words of bf16. */
INLINE size_t value_size(bool raw)
{
    return raw ? 2 : 4;
}

INLINE uint32_t value_bits(const char *p, bool raw)
{
    float x = 0.0f;
    memcpy((char *)&x + 4 - value_size(raw), p, value_size(raw));
    return round_bits(x);
}

INLINE uint32_t word_at(const char *row, size_t ks, size_t k, size_t K, bool raw)
{
    const char *p = row + k * ks * value_size(raw);
    return value_bits(p, raw) >> 16 | (k + 1 < K ? value_bits(p + ks * value_size(raw), raw) : 0u);
}

INLINE vf load_n(const char *p, size_t n, bool raw)
{
    if (!raw)
        return vf_load_n((const float *)(const void *)p, n);
    if (n >= DM_VW)
        return vf_load_bf16(p);
    uint16_t h[DM_VW] = {0};
    memcpy(h, p, n * sizeof(*h));
    return vf_load_bf16(h);
}

#if DM_VW == 16
INLINE vb vb_raw(const char *p)
{
    const __m512i x = _mm512_loadu_si512(p);
    const __mmask32 tiny = _mm512_testn_epi16_mask(x, _mm512_set1_epi16(0x7f80));
    const __m512i zero = _mm512_and_si512(x, _mm512_set1_epi16((short)0x8000));
    return _mm512_mask_blend_epi16(tiny, x, zero);
}
#elif DM_VW == 8
INLINE vb vb_raw(const char *p)
{
    const __m256i x = _mm256_loadu_si256((const __m256i *)p);
    const __m256i exponent = _mm256_and_si256(x, _mm256_set1_epi16(0x7f80));
    const __m256i tiny = _mm256_cmpeq_epi16(exponent, _mm256_setzero_si256());
    const __m256i zero = _mm256_and_si256(x, _mm256_set1_epi16((short)0x8000));
    return _mm256_blendv_epi8(x, zero, tiny);
}
#else
INLINE vb vb_raw(const char *p)
{
    return word_at(p, 1, 0, 2, true);
}
#endif

/* DM_VW words of a row. */
INLINE vb words_along(const char *p, bool raw)
{
    return raw ? vb_raw(p) : vb_along((const float *)(const void *)p);
}

INLINE vf vb_floats(vb x) /* the same bits */
{
    vf f;
    memcpy(&f, &x, sizeof(f));
    return f;
}

static void pack_rows(void *dst, const float *src, size_t is, size_t n, size_t K)
{
    for (size_t i = 0; i < n; i++) {
        char *to = (char *)dst + i * DM_A_STRIDE * WORD;
        const float *row = src + i * is;
        size_t k = 0;
        for (; k + 2 * DM_VW <= K; k += 2 * DM_VW) {
            const vb x = vb_along(row + k);
            memcpy(to + k / 2 * WORD, &x, sizeof(x));
        }
        for (; k < K; k += 2) {
            const uint32_t x = word_at((const char *)row, 1, k, K, false);
            memcpy(to + k / 2 * WORD, &x, sizeof(x));
        }
    }
}

/* Bytes of a row that are fetched ahead: into L2, since rows that are a power of two apart have few
 * places in L1. */
#define PACK_AHEAD 512

/* One panel whose rows lie along k: blocks of DM_VW rows by DM_VW words are transposed. The values
 * are float32, or bf16 when `raw`; rows are `is` bytes apart. */
INLINE void panel_along(char *dst, size_t width, const char *src, size_t is, size_t n, size_t K,
                        bool raw)
{
    const size_t size = value_size(raw);
    for (size_t i0 = 0; i0 < width; i0 += DM_VW) {
        const char *row[DM_VW];
        const size_t w = width - i0, have = lanes_left(n, i0);
        for (size_t r = 0; r < DM_VW; r++) // rows that do not exist are read from row 0, then cut
            row[r] = src + (r < have ? i0 + r : 0) * is;
        size_t k = 0;
        for (; k + 2 * DM_VW <= K; k += 2 * DM_VW) {
            vf x[DM_VW], col[DM_VW];
#pragma GCC unroll 16
            for (size_t r = 0; r < DM_VW; r++) {
                __builtin_prefetch(row[r] + size * k + PACK_AHEAD, 0, 2);
                if (!raw && DM_VW == 16)
                    __builtin_prefetch(row[r] + size * k + PACK_AHEAD + 64, 0, 2);
                x[r] = vb_floats(words_along(row[r] + size * k, raw));
            }
            vf_transpose(col, x);
#pragma GCC unroll 16
            for (size_t j = 0; j < DM_VW; j++)
                vf_store_n((float *)(void *)(dst + ((k / 2 + j) * width + i0) * WORD),
                           vf_first(col[j], vf_set1(0.0f), have), w);
        }
        for (; k < K; k += 2)
            for (size_t r = 0; r < DM_VW && r < w; r++) {
                const uint32_t x = r < have ? word_at(row[r], 1, k, K, raw) : 0;
                memcpy(dst + (k / 2 * width + i0 + r) * WORD, &x, sizeof(x));
            }
    }
}

/* Words for all panels before the next ones, which reads whole lines of few pages. */
#define PACK_WORDS ((size_t)4)

/* The part of one panel from word w0 to w1, its rows across k. */
INLINE void panel_across(char *dst, size_t width, const char *src, size_t ks, size_t n, size_t w0,
                         size_t w1, size_t K, bool raw)
{
    const size_t size = value_size(raw), row = ks * size;
#pragma GCC unroll 4
    for (size_t w = w0; w < w1; w++) {
        const char *even = src + 2 * w * row, *ahead = even + 4 * PACK_WORDS * row;
        for (size_t i = 0; i < width * size; i += 64) {
            __builtin_prefetch(ahead + i, 0, 2);
            __builtin_prefetch(ahead + row + i, 0, 2);
        }
        for (size_t i = 0; i < width; i += DM_VW) {
            const size_t have = lanes_left(n, i);
            const vf x = load_n(even + i * size, have, raw);
            const vf y = 2 * w + 1 < K ? load_n(even + row + i * size, have, raw) : vf_set1(0.0f);
            vf_store_n((float *)(void *)(dst + (w * width + i) * WORD), vb_floats(vb_pair(x, y)),
                       width - i);
        }
    }
}

INLINE void pack_all(char *dst, size_t stride, size_t width, const char *src, size_t is, size_t ks,
                     size_t n, size_t K, bool raw)
{
    const size_t W = (K + 1) / 2, step = ks == 1 ? W : PACK_WORDS;
    for (size_t w = 0; w < W; w += step)
        for (size_t p = 0; p < n; p += width) {
            char *to = dst + p / width * stride * WORD;
            const char *from = src + p * is * value_size(raw);
            if (ks == 1)
                panel_along(to, width, from, is * value_size(raw), n - p < width ? n - p : width, K,
                            raw);
            else if (n - p >= width && 2 * (w + step) <= K)
                panel_across(to, width, from, ks, width, w, w + PACK_WORDS, K, raw);
            else
                panel_across(to, width, from, ks, n - p < width ? n - p : width, w,
                             W - w < step ? W : w + step, K, raw);
        }
}

INLINE void pack_panels(void *dst, size_t stride, size_t width, const void *src, size_t is,
                        size_t ks, size_t n, size_t K, bool raw)
{
    if (is != 1 && ks != 1) {
        for (size_t i = 0; i < (n + width - 1) / width * width; i++)
            for (size_t k = 0; k < K; k += 2) {
                const char *row = (const char *)src + i * is * value_size(raw);
                const uint32_t x = i < n ? word_at(row, ks, k, K, raw) : 0;
                memcpy((char *)dst + (i / width * stride + k / 2 * width + i % width) * WORD, &x,
                       sizeof(x));
            }
    } else {
        pack_all(dst, stride, width, src, is, ks, n, K, raw);
    }
}

static void pack_b(void *dst, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                   size_t K)
{
    pack_panels(dst, stride, NR, src, is, ks, n, K, false);
}

static void pack_b_raw(void *dst, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                       size_t K)
{
    pack_panels(dst, stride, NR, src, is, ks, n, K, true);
}

#ifdef TILES
/* STEP words of row i of a panel of A. */
INLINE void put_words(char *panel, size_t i, size_t w, vb x)
{
    _mm512_storeu_si512(panel + mm_a_offset(i, w), x);
}

/* Rows along k: words lie as they are. Rows are short and far apart, so that the processor does not
 * fetch the next ones by itself. */
INLINE void a_along(char *panel, const char *src, size_t is, size_t n, size_t K, bool raw)
{
    enum { ROWS_AHEAD = 2 };
    const size_t size = value_size(raw);
    for (size_t i = 0; i < MR; i++) {
        const char *row = src + i * is * size, *ahead = row + ROWS_AHEAD * is * size;
        size_t k = 0;
        for (; i < n && k + 2 * STEP <= K; k += 2 * STEP) {
            __builtin_prefetch(ahead + k * size);
            if (!raw)
                __builtin_prefetch(ahead + k * size + 64);
            put_words(panel, i, k / 2, words_along(row + k * size, raw));
        }
        for (; k < K; k += 2 * STEP) {
            uint32_t x[STEP] = {0};
            for (size_t w = 0; i < n && w < STEP && k + 2 * w < K; w++)
                x[w] = word_at(row, 1, k + 2 * w, K, raw);
            put_words(panel, i, k / 2, vb_load(x));
        }
    }
}

/* Rows across k: STEP words of 16 rows at a time are transposed. */
INLINE void a_across(char *panel, const char *src, size_t ks, size_t n, size_t w0, size_t K,
                     bool raw)
{
    const size_t size = value_size(raw), row_size = ks * size;
    for (size_t i = 0; i < MR; i += 16) {
        const size_t have = lanes_left(n, i);
        vf x[STEP], row[STEP];
#pragma GCC unroll 16
        for (size_t w = 0; w < STEP; w++) {
            const size_t k = 2 * (w0 + w);
            const char *even = src + k * row_size + i * size;
            __builtin_prefetch(even + 2 * STEP * row_size, 0, 2);
            __builtin_prefetch(even + (2 * STEP + 1) * row_size, 0, 2);
            x[w] = vb_floats(
                vb_pair(k < K ? load_n(even, have, raw) : vf_set1(0.0f),
                        k + 1 < K ? load_n(even + row_size, have, raw) : vf_set1(0.0f)));
        }
        vf_transpose(row, x);
#pragma GCC unroll 16
        for (size_t r = 0; r < 16; r++)
            put_words(panel, i + r, w0, _mm512_castps_si512(row[r]));
    }
}

INLINE void pack_rows_of_a(void *dst, size_t stride, const void *src, size_t is, size_t ks,
                           size_t n, size_t K, bool raw)
{
    const size_t W = (K + 1) / 2, size = value_size(raw);
    const char *from = src;
    if (ks == 1) {
        for (size_t i = 0; i < n; i += MR)
            a_along((char *)dst + i / MR * stride * WORD, from + i * is * size, is, n - i, K, raw);
    } else if (is == 1) {
        for (size_t w = 0; w < W; w += STEP)
            for (size_t i = 0; i < n; i += MR)
                a_across((char *)dst + i / MR * stride * WORD, from + i * size, ks, n - i, w, K,
                         raw);
    } else {
        for (size_t i = 0; i < (n + MR - 1) / MR * MR; i++)
            for (size_t w = 0; w < (W + STEP - 1) / STEP * STEP; w++) {
                const uint32_t x = i < n && w < W ? word_at(from + i * is * size, ks, 2 * w, K, raw)
                                                  : 0;
                memcpy((char *)dst + i / MR * stride * WORD + mm_a_offset(i % MR, w), &x, WORD);
            }
    }
}
#else
INLINE void pack_rows_of_a(void *dst, size_t stride, const void *src, size_t is, size_t ks,
                           size_t n, size_t K, bool raw)
{
    pack_panels(dst, stride, MR, src, is, ks, n, K, raw);
}
#endif

static void pack_a(void *dst, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                   size_t K)
{
    pack_rows_of_a(dst, stride, src, is, ks, n, K, false);
}

static void pack_a_raw(void *dst, size_t stride, const void *src, size_t is, size_t ks, size_t n,
                       size_t K)
{
    pack_rows_of_a(dst, stride, src, is, ks, n, K, true);
}

const struct dm_kern_mm DM_EXPORT(dm_kern_bf16) = {
    MM_BLOCKS,
    .unit = 2,
    .pack_rows = pack_rows,
    .pack_a = pack_a,
    .pack_b = pack_b,
    .pack_a_raw = pack_a_raw,
    .pack_b_raw = pack_b_raw,
    .tile = mm_tile,
    .few = mm_few,
};
