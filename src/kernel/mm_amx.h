/* SPDX-License-Identifier: MIT */
/* mm_amx.h - the functions of mm.h on tile registers; only for kern_bf16_tmpl.c.
 *
 * tdpbf16ps multiplies 16 rows of A by 16 columns of B over STEP words of k. For each element the
 * even and the odd products are two chains of fused multiply-adds from zero, and the sum of both is
 * added to C; subnormals are zero, as operands and as results. So an element is a chain over blocks
 * of STEP words, whose last one is filled up with zeros, which change nothing; how many rows and
 * columns there are does not show.
 *
 * Registers: 0 to 3 hold 2 x 2 tiles of C, 4 and 5 of A, 6 and 7 of B. */
#ifndef DM_KERNEL_MM_AMX_H
#define DM_KERNEL_MM_AMX_H

#include <assert.h>
#include <stdbool.h>

#include "src/kernel/kern.h"
#include "src/kernel/simd.h"

#define WORD ((size_t)4)
#define STEP ((size_t)16)
#define FEW ((size_t)16)
#define TILE (16 * STEP * WORD)  /* bytes */
#define FEW_AHEAD ((size_t)1536) /* bytes that B is fetched ahead of few rows */
#define PAST_LINES (MR * NR / 16)
/* 256 words: a panel of A takes 32 KiB of L1, a block of B 1 MiB of an L2 of 2 MiB. */
#define MM_BLOCKS                                                                              \
    .mr = MR, .nr = NR, .step = STEP, .few_rows = FEW, .few_best = FEW, .kc = 256, .mc = 1024, \
    .nc = 1024, .nc_pack = 2048, .by_rows = true, .begin = mm_begin, .end = mm_end

/* Bytes from a panel of A to word w of its row i: tiles of 16 rows of STEP words, two of them with
 * the same words one after the other. */
INLINE size_t mm_a_offset(size_t i, size_t w)
{
    return w / STEP * 2 * TILE + i * STEP * WORD + w % STEP * WORD;
}

/* gcc's intrinsics do not say that tile loads read memory: what was stored before must be there. */
INLINE void mm_stored(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

/* C and A have `rows` rows. */
INLINE void mm_configure(size_t rows)
{
    struct {
        uint8_t palette, start, zero[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape __attribute__((aligned(64))) = {.palette = 1};
    for (size_t t = 0; t < 8; t++) {
        shape.row_bytes[t] = 64;
        shape.rows[t] = (uint8_t)(t < 6 ? rows : 16);
    }
    mm_stored(&shape);
    _tile_loadconfig(&shape);
}

/* A tile of C that is written past the caches while the next one is computed, 4 lines a step,
 * so that they do not hold up the loads. */
struct mm_past {
    float *c; /* where to, NULL: there is none */
    size_t ldc, line;
    float sums[MR * NR];
};
static _Thread_local struct mm_past mm_past __attribute__((aligned(64)));

INLINE void mm_write(struct mm_past *t, size_t lines)
{
    for (size_t end = t->line + lines; t->line < end; t->line++)
        _mm512_stream_ps(t->c + t->line / 2 * t->ldc + t->line % 2 * 16,
                         _mm512_load_ps(t->sums + t->line * 16));
}

static void mm_begin(void)
{
    mm_configure(16);
}

static void mm_end(void)
{
    struct mm_past *t = &mm_past;
    if (t->c) {
        mm_write(t, PAST_LINES - t->line);
        _mm_sfence();
    }
    t->c = NULL;
    _tile_release();
}

INLINE void mm_zero(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* 16 rows of 32 columns, and what the second pair of tiles holds: the 16 rows below or 32 columns
 * further on; NULL: none. */
INLINE void mm_load(const float *c, size_t ld, const float *second)
{
    _tile_loadd(0, c, ld * WORD);
    _tile_loadd(1, c + 16, ld * WORD);
    if (second) {
        _tile_loadd(2, second, ld * WORD);
        _tile_loadd(3, second + 16, ld * WORD);
    }
}

INLINE void mm_store(float *c, size_t ld, float *second)
{
    _tile_stored(0, c, ld * WORD);
    _tile_stored(1, c + 16, ld * WORD);
    if (second) {
        _tile_stored(2, second, ld * WORD);
        _tile_stored(3, second + 16, ld * WORD);
    }
}

/* STEP words. B passes by L1, where it would drive out A's panel. */
INLINE void mm_step(const char *a, size_t a_stride, const char *b, bool both)
{
    _tile_stream_loadd(6, b, NR * WORD);
    _tile_loadd(4, a, a_stride);
    _tile_stream_loadd(7, b + 16 * WORD, NR * WORD);
    if (both)
        _tile_loadd(5, a + TILE, a_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (both) {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

/* Fetches half a step of B: two bursts of lines hold up the loads less than one. */
INLINE void mm_fetch(const char *b)
{
    for (size_t i = 0; i < STEP * NR * WORD / 2; i += 64)
        __builtin_prefetch(b + FEW_AHEAD + i);
}

/* mm_step() for few rows, which nothing but the stream of B keeps waiting: it may pass through all
 * caches, and stays in L3 from one pass over a small model's weights to the next. A is in its
 * register. `fetch`: b is in the stream; `second`: the sums are those of the second panel. */
INLINE void mm_step_few(const char *b, bool fetch, bool second)
{
    if (fetch)
        mm_fetch(b);
    _tile_loadd(6, b, NR * WORD);
    if (fetch)
        mm_fetch(b + STEP * NR * WORD / 2);
    _tile_loadd(7, b + 16 * WORD, NR * WORD);
    if (second) {
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 7);
    } else {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
}

/* Words of B, less than STEP, and zeros. */
INLINE void mm_last_words(char *to, const char *b, size_t words)
{
    memcpy(to, b, words * NR * WORD);
    memset(to + words * NR * WORD, 0, (STEP - words) * NR * WORD);
    mm_stored(to);
}

/* Adds W words. On the way it fetches lines of another panel and writes the last tile. */
INLINE void mm_sum(const char *a, const char *b, size_t W, bool both, const char *panel,
                   size_t lines, struct mm_past *past)
{
    const size_t per_step = W < STEP ? 0 : (lines + W / STEP - 1) / (W / STEP);
    for (; W >= STEP; W -= STEP, a += 2 * TILE, b += STEP * NR * WORD) {
        for (size_t i = 0; i < per_step; i++, panel += 64)
            __builtin_prefetch(panel, 0, 2);
        if (past && past->line < PAST_LINES)
            mm_write(past, 4);
        mm_step(a, STEP * WORD, b, both);
    }
    if (W) {
        char last[STEP * NR * WORD] __attribute__((aligned(64)));
        mm_last_words(last, b, W);
        mm_step(a, STEP * WORD, last, both);
    }
}

static void mm_tile_past(float *c, size_t ldc, const float *start, size_t ld, const void *a,
                         const void *b, size_t W, const struct dm_ahead *ahead)
{
    struct mm_past *t = &mm_past;
    if (start)
        mm_load(start, ld, start + 16 * ld);
    else
        mm_zero();
    mm_sum(a, b, W, true, ahead->panel, ahead->lines, t->c ? t : NULL);
    if (t->c)
        mm_write(t, PAST_LINES - t->line);
    mm_store(t->sums, NR, t->sums + 16 * NR);
    t->c = c;
    t->ldc = ldc;
    t->line = 0;
}

/* Rows and columns of a partial tile; the rest of `to` is not written. */
INLINE void mm_copy(float *to, size_t to_ld, const float *from, size_t ld, size_t m, size_t n)
{
    for (size_t i = 0; i < m; i++)
        memcpy(to + i * to_ld, from + i * ld, n * sizeof(*to));
    mm_stored(to);
}

static void mm_tile(float *c, size_t ldc, const float *start, size_t ld, const void *a,
                    const void *b, size_t m, size_t n, size_t W, const struct dm_ahead *ahead)
{
    assert(m >= 1 && m <= MR && n >= 1 && n <= NR);
    if (m == MR && n == NR && ahead->past) {
        mm_tile_past(c, ldc, start, ld, a, b, W, ahead);
        return;
    }
    if (m == MR && n == NR) {
        if (start)
            mm_load(start, ld, start + 16 * ld);
        else
            mm_zero();
        mm_sum(a, b, W, true, ahead->panel, ahead->lines, NULL);
        mm_store(c, ldc, c + 16 * ldc);
        return;
    }
    float edge[MR * NR] __attribute__((aligned(64))) = {0};
    mm_copy(edge, NR, start, ld, start ? m : 0, n);
    mm_load(edge, NR, edge + 16 * NR);
    if (m > 16)
        mm_sum(a, b, W, true, NULL, 0, NULL);
    else
        mm_sum(a, b, W, false, NULL, 0, NULL);
    mm_store(edge, NR, edge + 16 * NR);
    mm_copy(c, ldc, edge, NR, m, n);
}

/* All words of `panels` panels of B, 1 or 2, `far` bytes apart, against rows that lie along k. */
INLINE void mm_stream(const char *a, const char *b, size_t far, size_t panels, size_t m, size_t W)
{
    const size_t stride = DM_A_STRIDE * WORD;
    for (size_t w0 = 0; w0 < W; w0 += DM_KC, a += m * stride) {
        const size_t end = W - w0 < DM_KC ? W - w0 : DM_KC;
        size_t w = 0;
        for (; w + STEP <= end; w += STEP, b += STEP * NR * WORD) {
            _tile_loadd(4, a + w * WORD, stride);
            mm_step_few(b, true, false);
            if (panels > 1)
                mm_step_few(b + far, true, true);
        }
        if (w == end)
            continue;
        char last[STEP * NR * WORD] __attribute__((aligned(64)));
        char rows[TILE] __attribute__((aligned(64))) = {0};
        for (size_t i = 0; i < m; i++)
            memcpy(rows + i * STEP * WORD, a + i * stride + w * WORD, (end - w) * WORD);
        mm_stored(rows);
        _tile_loadd(4, rows, STEP * WORD);
        mm_last_words(last, b, end - w);
        mm_step_few(last, false, false);
        if (panels > 1) {
            mm_last_words(last, b + far, end - w);
            mm_step_few(last, false, true);
        }
    }
}

/* The whole panel of column p and, with two of them, the one `gap` columns further. */
INLINE void mm_panels(float *c, size_t ldc, const float *start, size_t ld, const char *a,
                      const char *b, size_t gap, size_t panels, size_t m, size_t W)
{
    if (start)
        mm_load(start, ld, panels > 1 ? start + gap : NULL);
    else
        mm_zero();
    mm_stream(a, b, gap * W * WORD, panels, m, W);
    mm_store(c, ldc, panels > 1 ? c + gap : NULL);
}

/* The instruction takes as long for 1 row as for 8; what counts is the stream of B, which is two:
 * the panels of the first and of the second half of the columns in turns. */
static void mm_few(float *c, size_t ldc, const float *start, size_t ld, const void *a,
                   const void *b, size_t m, size_t n, size_t W)
{
    assert(m >= 1 && m <= FEW);
    const char *panels = b;
    const size_t panel = W * WORD, gap = n / NR / 2 * NR; // bytes of a column
    mm_configure(m);
    for (size_t p = 0; p < gap; p += NR)
        mm_panels(c + p, ldc, start ? start + p : NULL, ld, a, panels + p * panel, gap, 2, m, W);
    for (size_t p = 2 * gap; p < n; p += NR) {
        float edge[FEW * NR] __attribute__((aligned(64))) = {0};
        const bool whole = n - p >= NR;
        const float *from = start ? start + p : NULL;
        if (start && !whole) {
            mm_copy(edge, NR, start + p, ld, m, n - p);
            from = edge;
        }
        mm_panels(whole ? c + p : edge, whole ? ldc : NR, from, whole ? ld : NR, a,
                  panels + p * panel, 0, 1, m, W);
        if (!whole)
            mm_copy(c + p, ldc, edge, NR, m, n - p);
    }
    _tile_release();
}

#endif
