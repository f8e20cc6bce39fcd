/* SPDX-License-Identifier: MIT */
/* mm.h - the micro-tile of struct dm_kern_mm, whatever the number format; only for kern_*_tmpl.c.
 *
 * The includer defines MR and NV (the tile's rows, and vectors of sums in a row), NR (columns of a
 * panel, a multiple of NV * DM_VW), and for words of k: vw, the type of DM_VW of them in registers;
 * vw_load(p); vw_set1(p), one word in all lanes; vw_dot(a, b, c), which is c + a*b. */
#ifndef DM_KERNEL_MM_H
#define DM_KERNEL_MM_H

#include <assert.h>
#include <stdbool.h>

#include "src/kernel/kern.h"
#include "src/kernel/simd.h"

#define WORD ((size_t)4)
/* Half of an L2 of 1 MiB for a block of A; 1.5 MiB of B that is packed in every call. MC is a
 * multiple of every MR. */
#define MC ((size_t)252)
#define MM_BLOCKS                                                                            \
    .mr = MR, .nr = NR, .step = 1, .few_rows = MR, .few_best = MR < 8 ? MR : 8, .kc = DM_KC, \
    .mc = MC, .nc = 768, .nc_pack = 4096
_Static_assert(MC % MR == 0, "rows of a block in whole panels");
#define COLUMNS ((size_t)NV * DM_VW) /* of a panel that pass at once */
#define C_LINES ((COLUMNS + 15) / 16)
/* Words before the end of a tile at which it begins to fetch the next one's part of C: time for the
 * lines to come, and little for others to take their place in L1. */
#define C_AHEAD ((size_t)MR * C_LINES + 20)

/* One word of k: NV vectors of b times m words of a, which lie `is` bytes apart. m and is are
 * constants at every call, so that the sums live in registers. */
INLINE void mm_step(vf acc[MR][NV], const char *a, size_t is, const char *b, size_t m)
{
    vw bv[NV];
#pragma GCC unroll 4
    for (size_t j = 0; j < NV; j++)
        bv[j] = vw_load(b + j * DM_VW * WORD);
#pragma GCC unroll 16
    for (size_t i = 0; i < m; i++) {
        const vw av = vw_set1(a + i * is);
#pragma GCC unroll 4
        for (size_t j = 0; j < NV; j++)
            acc[i][j] = vw_dot(av, bv[j], acc[i][j]);
    }
}

INLINE void mm_start(vf acc[MR][NV], const float *start, size_t ld, size_t m, size_t n)
{
#pragma GCC unroll 16
    for (size_t i = 0; i < m; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < NV; j++)
            acc[i][j] = start ? vf_load_n(start + i * ld + j * DM_VW, lanes_left(n, j * DM_VW))
                              : vf_set1(0.0f);
}

INLINE void mm_end(float *c, size_t ldc, vf acc[MR][NV], size_t m, size_t n)
{
#pragma GCC unroll 16
    for (size_t i = 0; i < m; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < NV; j++)
            vf_store_n(c + i * ldc + j * DM_VW, acc[i][j], lanes_left(n, j * DM_VW));
}

INLINE void mm_columns(float *c, size_t ldc, const float *start, size_t ld, const char *a,
                       const char *b, size_t m, size_t n, size_t W)
{
    vf acc[MR][NV];
    mm_start(acc, start, ld, m, n);
    for (size_t w = 0; w < W; w++)
        mm_step(acc, a + w * MR * WORD, WORD, b + w * NR * WORD, m);
    mm_end(c, ldc, acc, m, n);
}

/* The same for MR rows and all COLUMNS: no masks. Lines are fetched one per word: a burst of them
 * would hold up the loads of a and b. */
INLINE void mm_full(float *c, size_t ldc, const float *start, size_t ld, const char *a,
                    const char *b, size_t W, const float *c_next, const char *panel, size_t lines)
{
    vf acc[MR][NV];
    size_t w = 0;
    mm_start(acc, start, ld, MR, COLUMNS);
    for (; w < lines && w < W; w++) {
        __builtin_prefetch(panel + 64 * w, 0, 2);
        mm_step(acc, a + w * MR * WORD, WORD, b + w * NR * WORD, MR);
    }
    if (w + C_AHEAD <= W) {
        for (; w < W - C_AHEAD; w++)
            mm_step(acc, a + w * MR * WORD, WORD, b + w * NR * WORD, MR);
        for (size_t i = 0; i < MR; i++, c_next += ldc)
            for (size_t j = 0; j < C_LINES; j++, w++) {
                __builtin_prefetch(c_next + 16 * j, 1);
                mm_step(acc, a + w * MR * WORD, WORD, b + w * NR * WORD, MR);
            }
    }
    for (; w < W; w++)
        mm_step(acc, a + w * MR * WORD, WORD, b + w * NR * WORD, MR);
    mm_end(c, ldc, acc, MR, COLUMNS);
}

static void mm_tile(float *c, size_t ldc, const float *start, size_t ld, const void *a,
                    const void *b, size_t m, size_t n, size_t W, const struct dm_ahead *ahead)
{
    assert(m >= 1 && m <= MR && n >= 1 && n <= NR);
    for (size_t j = 0; j < n; j += COLUMNS) {
        const char *bj = (const char *)b + j * WORD;
        if (m == MR && n - j >= COLUMNS) {
            mm_full(c + j, ldc, start ? start + j : NULL, ld, a, bj, W, ahead->c + j, ahead->panel,
                    j ? 0 : ahead->lines);
            continue;
        }
#define EDGE(rows) mm_columns(c + j, ldc, start ? start + j : NULL, ld, a, bj, rows, n - j, W)
        FOR_ROWS(m, MR, EDGE)
#undef EDGE
    }
}

/* One sequential stream, which the processor fetches best by itself: prefetching 512 bytes to 8 KiB
 * ahead took 0 to 30 % longer on Zen 4. */
INLINE void mm_stream(float *c, size_t ldc, const float *start, size_t ld, const char *a,
                      const char *b, size_t m, size_t n, size_t W)
{
    vf acc[MR][NV];
    mm_start(acc, start, ld, m, n);
    for (size_t w0 = 0; w0 < W; w0 += DM_KC, a += m * DM_A_STRIDE * WORD) {
        const size_t end = W - w0 < DM_KC ? W - w0 : DM_KC;
        for (size_t w = 0; w < end; w++, b += NR * WORD)
            mm_step(acc, a + w * WORD, DM_A_STRIDE * WORD, b, m);
    }
    mm_end(c, ldc, acc, m, n);
}

static void mm_few(float *c, size_t ldc, const float *start, size_t ld, const void *a,
                   const void *b, size_t m, size_t n, size_t W)
{
    assert(m >= 1 && m <= MR);
    const char *panel = b;
    for (size_t p = 0; p < n; p += NR, panel += W * NR * WORD)
        for (size_t j = 0; j < NR && p + j < n; j += COLUMNS) {
#define STREAM(rows)                                                                       \
    mm_stream(c + p + j, ldc, start ? start + p + j : NULL, ld, a, panel + j * WORD, rows, \
              n - p - j, W)
            FOR_ROWS(m, MR, STREAM)
#undef STREAM
        }
}

#endif
