/* SPDX-License-Identifier: MIT */
/* Searching: the largest of many floats, and which ids of a list belong to a small set. Compiled
 * once per instruction set like kern_tmpl.c. The results are the same on all of them. */
#include "src/kernel/kern_tables.h"

#include <assert.h>
#include <string.h>

#include "src/kernel/simd.h"

/* A group is lane l of GROUP consecutive vectors, so that the maxima need no step across lanes. */
#define GROUP DM_SELECT_GROUP
#define CHUNK ((size_t)GROUP * DM_VW)

static size_t peaks(float *peak, const float *x, size_t n)
{
    size_t i = 0;
    float *p = peak;
    for (; i + CHUNK <= n; i += CHUNK, p += DM_VW) {
        vf m[4];
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) // the second operand wins against NaN
            m[v] = vf_max(vf_load(x + i + v * DM_VW), vf_set1(-INFINITY));
#pragma GCC unroll 16
        for (size_t v = 4; v < GROUP; v++)
            m[v % 4] = vf_max(vf_load(x + i + v * DM_VW), m[v % 4]);
        vf_store(p, vf_max(vf_max(m[0], m[1]), vf_max(m[2], m[3])));
    }
    if (i < n) {
        vf m = vf_set1(-INFINITY);
        for (; i < n; i += DM_VW) {
            const size_t l = n - i < DM_VW ? n - i : DM_VW;
            m = vf_max(vf_first(vf_load_n(x + i, l), vf_set1(-INFINITY), l), m);
        }
        vf_store(p, m);
        p += DM_VW;
    }
    return (size_t)(p - peak);
}

/* A float's bits as an integer that orders like the float. */
INLINE int32_t ordinal(float x)
{
    int32_t i;
    memcpy(&i, &x, sizeof(i));
    return i ^ (int32_t)((uint32_t)(i >> 31) >> 1);
}

INLINE float from_ordinal(int32_t i)
{
    float x;
    i ^= (int32_t)((uint32_t)(i >> 31) >> 1);
    memcpy(&x, &i, sizeof(x));
    return x;
}

/* Bisection. It may end early at a bound that a few more values reach. */
static float bisect(const float *x, size_t n, size_t k)
{
    int32_t lo = ordinal(-INFINITY), hi = lo; // all of x are >= lo
    for (size_t i = 0; i < n; i++) {
        const int32_t o = ordinal(x[i]);
        hi = o > hi ? o : hi;
    }
    while (lo < hi) {
        const int32_t mid = (int32_t)(((int64_t)lo + hi + 1) >> 1);
        const float t = from_ordinal(mid);
        uint32_t count = 0;
        for (size_t i = 0; i < n; i++)
            count += x[i] >= t;
        if (count < k) {
            hi = mid - 1;
            continue;
        }
        lo = mid;
        if (count <= k + k / 8)
            break;
    }
    return from_ordinal(lo);
}

/* The maxima of four values each do for the many, with a bound that is hardly lower. */
static float bound(const float *x, size_t n, size_t k)
{
    enum { FOLDED = 1024 };
    assert(k > 0 && k <= n);
    const size_t q = n / 4;
    if (q < 8 * k || q > FOLDED)
        return bisect(x, n, k);
    float fold[FOLDED];
    for (size_t i = 0; i < q; i++) {
        const float a = x[i] > x[i + q] ? x[i] : x[i + q];
        const float b = x[i + 2 * q] > x[i + 3 * q] ? x[i + 2 * q] : x[i + 3 * q];
        fold[i] = a > b ? a : b;
    }
    return bisect(fold, q, k);
}

static size_t at_least(int32_t *id, float *value, size_t room, const float *x, size_t n,
                       const float *peak, float least, size_t *from)
{
    size_t m = 0, i = *from;
    for (; i < n && m + CHUNK + DM_VW <= room; i += CHUNK) {
        const float *p = peak + i / GROUP;
        uint32_t any = 0;
        for (size_t l = 0; l < DM_VW; l++)
            any |= p[l] >= least;
        if (!any)
            continue;
        const size_t end = n - i < CHUNK ? n : i + CHUNK;
#if DM_VW == 16
        const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
                                               15);
        for (size_t j = i; j < end; j += DM_VW) {
            const vf v = vf_load_n(x + j, end - j);
            const __mmask16 in = _mm512_mask_cmp_ps_mask(vf_mask(end - j), v, vf_set1(least),
                                                         _CMP_GE_OQ);
            const __m512i at = _mm512_add_epi32(lane, _mm512_set1_epi32((int)j));
            // through a register: compressing straight to memory is slow on Zen 4
            _mm512_storeu_si512(id + m, _mm512_maskz_compress_epi32(in, at));
            _mm512_storeu_ps(value + m, _mm512_maskz_compress_ps(in, v));
            m += (size_t)__builtin_popcount(in);
        }
#else
        for (size_t j = i; j < end; j++) {
            id[m] = (int32_t)j;
            value[m] = x[j];
            m += x[j] >= least;
        }
#endif
    }
    *from = i < n ? i : n;
    return m;
}

static void rank_all(uint32_t *rank, const float *value, const int32_t *id, size_t n)
{
    for (size_t i = 0; i < n; i++)
        rank[i] = 0;
    for (size_t j = 0; j < n; j++) {
        const float x = value[j];
        const int32_t at = id[j];
        for (size_t i = 0; i < n; i++)
            rank[i] += (uint32_t)((x > value[i]) | ((x == value[i]) & (at < id[i])));
    }
}

/* 1024 buckets: with 50 ids in the set, 5 % of the others pass. */
static size_t ids_in(uint32_t *at, const void *ids, size_t n, const uint16_t set[64])
{
    const unsigned char *x = ids;
    size_t m = 0;
#if DM_VW == 16
    const __m512i lo = _mm512_loadu_si512(set), hi = _mm512_loadu_si512(set + 32);
    const __m512i one = _mm512_set1_epi16(1), low4 = _mm512_set1_epi16(15);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (size_t i = 0; i < n; i += 32) {
        const __mmask32 in = n - i >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << (n - i)) - 1;
        const __m512i v = _mm512_maskz_loadu_epi16(in, x + 2 * i);
        const __m512i word = _mm512_permutex2var_epi16(lo, v, hi);
        const __m512i bit = _mm512_and_si512(_mm512_srli_epi16(v, 6), low4);
        const __mmask32 hit = _mm512_mask_test_epi16_mask(in, _mm512_srlv_epi16(word, bit), one);
        const __m512i at0 = _mm512_add_epi32(lane, _mm512_set1_epi32((int)i));
        _mm512_storeu_si512(at + m, _mm512_maskz_compress_epi32((__mmask16)hit, at0));
        m += (size_t)__builtin_popcount(hit & 0xffff);
        if (n - i > 16) {
            const __m512i at1 = _mm512_add_epi32(at0, _mm512_set1_epi32(16));
            _mm512_storeu_si512(at + m, _mm512_maskz_compress_epi32((__mmask16)(hit >> 16), at1));
            m += (size_t)__builtin_popcount(hit >> 16);
        }
    }
#else
    for (size_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, x + 2 * i, sizeof(v));
        at[m] = (uint32_t)i;
        m += set[v % 64] >> (v / 64 % 16) & 1;
    }
#endif
    return m;
}

const struct dm_kern_select DM_EXPORT(dm_kern_select) = {
    .peaks = peaks,
    .bound = bound,
    .at_least = at_least,
    .rank = rank_all,
    .in = ids_in,
};
