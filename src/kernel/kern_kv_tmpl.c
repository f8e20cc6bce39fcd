/* SPDX-License-Identifier: MIT */
/* Few query rows against a KV cache, compiled once per instruction set as kern_tmpl.c. Each score
 * is one chain of fused multiply-adds over HS and each output one chain over the keys, so that the
 * bits are those of the tiles that long chunks go through; bf16 widens to float32 exactly. */
#include <assert.h>
#include <stdbool.h>

#include "src/kernel/format.h"
#include "src/kernel/kern_tables.h"
#include "src/kernel/simd.h"

#define PER_PANEL ((size_t)DM_PANEL / DM_VW) /* vectors of keys in a panel */
#define ROWS_MAX 4
#define VECS_MAX 4
#if DM_VW == 16
#define MIX_VECS 4
#define SCORE_VECS 4 /* of several rows */
#else
#define MIX_VECS 2
#define SCORE_VECS 2
#endif
#define AHEAD ((size_t)4096) /* bytes that values are fetched ahead; keys are a block ahead */
#define LINE ((size_t)64)

/* DM_VW elements from the i-th on; the form _n reads the first min(n, DM_VW) of them. */
INLINE vf kv_load(const void *p, size_t i, bool half)
{
    if (!half)
        return vf_load((const float *)p + i);
    return vf_load_bf16((const uint16_t *)p + i);
}

INLINE size_t kv_bytes(bool half)
{
    return half ? sizeof(uint16_t) : sizeof(float);
}

INLINE void kv_fetch(const char *p, size_t bytes)
{
    for (size_t b = 0; b < bytes; b += LINE)
        __builtin_prefetch(p + b);
}

INLINE vf kv_load_n(const void *p, size_t i, bool half, size_t n)
{
    if (n >= DM_VW)
        return kv_load(p, i, half);
    uint16_t h[DM_VW] = {0};
    float f[DM_VW] = {0};
    for (size_t l = 0; l < n; l++)
        if (half)
            h[l] = ((const uint16_t *)p)[i + l];
        else
            f[l] = ((const float *)p)[i + l];
    return kv_load(half ? (const void *)h : f, 0, half);
}

/* nv vectors of keys from lane `lane` of a panel on, over the edge of panels if need be; n keys are
 * wanted. m, nv and half are constants, so that the sums live in registers. Fetches as many panels
 * from `ahead` on. */
INLINE void scores(float *s, size_t lds, const float *q, size_t ldq, const void *k, bool half,
                   size_t lane, size_t m, size_t nv, size_t n, size_t HS, const char *ahead)
{
    const size_t row = DM_PANEL * kv_bytes(half);
    vf acc[ROWS_MAX][VECS_MAX];
    for (size_t i = 0; i < m; i++)
        for (size_t v = 0; v < nv; v++)
            acc[i][v] = vf_set1(0.0f);
    for (size_t d = 0; d < HS; d++) {
        vf kv[VECS_MAX];
        for (size_t v = 0; v < nv; v += PER_PANEL)
            kv_fetch(ahead + (v / PER_PANEL * HS + d) * row, row);
#pragma GCC unroll 4
        for (size_t v = 0; v < nv; v++)
            kv[v] = kv_load(
                k, v / PER_PANEL * HS * DM_PANEL + d * DM_PANEL + lane + v % PER_PANEL * DM_VW,
                half);
#pragma GCC unroll 4
        for (size_t i = 0; i < m; i++) {
            const vf qv = vf_set1(q[i * ldq + d]);
#pragma GCC unroll 4
            for (size_t v = 0; v < nv; v++)
                acc[i][v] = vf_fma(qv, kv[v], acc[i][v]);
        }
    }
    for (size_t i = 0; i < m; i++)
        for (size_t v = 0; v < nv && v * DM_VW < n; v++)
            vf_store_n(s + i * lds + v * DM_VW, acc[i][v], n - v * DM_VW);
}

/* All keys; one row alone takes more keys at a time, for its sums to overlap. */
INLINE void scores_rows(float *s, size_t lds, const float *q, size_t ldq, const char *k, bool half,
                        size_t m, size_t n, size_t HS, const char *next)
{
    const size_t panel = HS * DM_PANEL * kv_bytes(half);
    const size_t wide = (m == 1 ? VECS_MAX : SCORE_VECS) * DM_VW, narrow = (size_t)2 * DM_VW;
    size_t j = 0;
#define KEYS(vecs)                                                                               \
    scores(s + j, lds, q, ldq, k + j / DM_PANEL * panel, half, j % DM_PANEL, m, vecs, n - j, HS, \
           j + (vecs)*DM_VW < n ? k + (j + (vecs)*DM_VW) / DM_PANEL * panel : next)
    for (; j + wide <= n; j += wide)
        KEYS(m == 1 ? VECS_MAX : SCORE_VECS);
    for (; j < n; j += narrow)
        KEYS(2);
#undef KEYS
}

/* Columns i0 .. of nv vectors, w columns of them real; as mix_columns in kern_tmpl.c. The first
 * ones fetch whole rows, and behind the last row those of `next`. */
INLINE void mix_columns(float *y, size_t ldy, const float *p, size_t ldp, const char *x, bool half,
                        size_t m, size_t nv, size_t n, size_t HS, size_t i0, size_t w,
                        const char *next)
{
    const size_t row = HS * kv_bytes(half);
    vf acc[ROWS_MAX][MIX_VECS];
    for (size_t i = 0; i < m; i++)
        for (size_t v = 0; v < nv; v++)
            acc[i][v] = vf_load_n(y + i * ldy + i0 + v * DM_VW, w - v * DM_VW);
    for (size_t j = 0; j < n; j++) {
        vf xv[MIX_VECS];
        if (i0 == 0) {
            const size_t at = j * row + AHEAD;
            kv_fetch(at < n * row ? x + at : next + (at - n * row), row);
        }
#pragma GCC unroll 4
        for (size_t v = 0; v < nv; v++)
            xv[v] = kv_load_n(x, j * HS + i0 + v * DM_VW, half, w - v * DM_VW);
#pragma GCC unroll 4
        for (size_t i = 0; i < m; i++) {
            const vf pv = vf_set1(p[i * ldp + j]);
#pragma GCC unroll 4
            for (size_t v = 0; v < nv; v++)
                acc[i][v] = vf_fma(pv, xv[v], acc[i][v]);
        }
    }
    for (size_t i = 0; i < m; i++)
        for (size_t v = 0; v < nv; v++)
            vf_store_n(y + i * ldy + i0 + v * DM_VW, acc[i][v], w - v * DM_VW);
}

INLINE void mix_rows(float *y, size_t ldy, const float *p, size_t ldp, const char *x, bool half,
                     size_t m, size_t n, size_t HS, const char *next)
{
    size_t i = 0;
    for (; i + MIX_VECS * DM_VW <= HS; i += MIX_VECS * DM_VW)
        mix_columns(y, ldy, p, ldp, x, half, m, MIX_VECS, n, HS, i, MIX_VECS * DM_VW, next);
    for (; i + DM_VW <= HS; i += DM_VW)
        mix_columns(y, ldy, p, ldp, x, half, m, 1, n, HS, i, DM_VW, next);
    if (i < HS)
        mix_columns(y, ldy, p, ldp, x, half, m, 1, n, HS, i, HS - i, next);
}

void DM_EXPORT(dm_kv_scores)(float *s, size_t lds, const float *q, size_t ldq, const void *k,
                             bool half, size_t m, size_t n, size_t HS, const void *next)
{
    assert(m >= 1 && m <= ROWS_MAX);
#define CALL(rows)                                               \
    if (half)                                                    \
        scores_rows(s, lds, q, ldq, k, true, rows, n, HS, next); \
    else                                                         \
        scores_rows(s, lds, q, ldq, k, false, rows, n, HS, next)
    FOR_ROWS(m, ROWS_MAX, CALL)
#undef CALL
}

void DM_EXPORT(dm_kv_mix)(float *y, size_t ldy, const float *p, size_t ldp, const void *v,
                          bool half, size_t m, size_t n, size_t HS, const void *next)
{
    assert(m >= 1 && m <= ROWS_MAX);
#define CALL(rows)                                            \
    if (half)                                                 \
        mix_rows(y, ldy, p, ldp, v, true, rows, n, HS, next); \
    else                                                      \
        mix_rows(y, ldy, p, ldp, v, false, rows, n, HS, next)
    FOR_ROWS(m, ROWS_MAX, CALL)
#undef CALL
}
