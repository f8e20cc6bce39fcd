/* SPDX-License-Identifier: MIT */
/* The inner loops of int8 and int4, compiled once per instruction set like kern_tmpl.c. A vector of
 * DM_VW outputs holds one quad of inputs of each. */
#include "src/kernel/kern_tables.h"

#include <assert.h>
#include <stdbool.h>

#include "src/kernel/simd.h"

/* Rows of a call and vectors of a panel whose integer sums are in registers together. */
#if DM_VW == 16
#define ROWS_MAX 8
#define FULL_MAX 4 /* rows with all of a panel's sums in registers */
#else
#define ROWS_MAX 4
#define FULL_MAX 0
#endif
#define NV (DM_PANEL / DM_VW)

/* ---- Vectors of quads ---------------------------------------------------------------------- */

/* vi_dot8 and vi_dot4 add the products of 4 bytes w and 4 of x, |x| <= 127; w <= 15 in vi_dot4. The
 * instruction that multiplies bytes in pairs saturates at 16 bits, which w up to 255 would exceed:
 * there vi_dot8 adds (w - 128) x, x's sign changed where w < 128. */
#if DM_VW == 1 || defined(__AVX512VNNI__)
#define START(x) (x)->start
#else
#define START(x) 0
#endif

#if DM_VW == 16
typedef __m512i vi;
INLINE vi vi_set1(int32_t x)
{
    return _mm512_set1_epi32(x);
}
INLINE vi vi_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}
INLINE vi vi_low(vi x) /* the low half of every byte */
{
    return _mm512_and_si512(x, _mm512_set1_epi8(15));
}
INLINE vi vi_high(vi x)
{
    return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15));
}
INLINE vf vi_float(vi x)
{
    return _mm512_cvtepi32_ps(x);
}
INLINE vi vi_dot8(vi sum, vi w, vi x)
{
#ifdef __AVX512VNNI__
    return _mm512_dpbusd_epi32(sum, w, x);
#else
    const __m512i ones = _mm512_set1_epi16(1), top = _mm512_set1_epi8((char)0x80);
    const __m512i s = _mm512_xor_si512(w, top), zero = _mm512_setzero_si512();
    const __m512i y = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(s), zero, x);
    const __m512i t = _mm512_maddubs_epi16(_mm512_abs_epi8(s), y);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(t, ones));
#endif
}
INLINE vi vi_dot4(vi sum, vi w, vi x)
{
#ifdef __AVX512VNNI__
    return _mm512_dpbusd_epi32(sum, w, x);
#else
    const __m512i t = _mm512_maddubs_epi16(w, x);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(t, _mm512_set1_epi16(1)));
#endif
}
#endif

#if DM_VW == 8
typedef __m256i vi;
INLINE vi vi_set1(int32_t x)
{
    return _mm256_set1_epi32(x);
}
INLINE vi vi_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}
INLINE vi vi_low(vi x)
{
    return _mm256_and_si256(x, _mm256_set1_epi8(15));
}
INLINE vi vi_high(vi x)
{
    return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15));
}
INLINE vf vi_float(vi x)
{
    return _mm256_cvtepi32_ps(x);
}
INLINE vi vi_dot8(vi sum, vi w, vi x)
{
    const __m256i s = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
    const __m256i t = _mm256_maddubs_epi16(_mm256_abs_epi8(s), _mm256_sign_epi8(x, s));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(t, _mm256_set1_epi16(1)));
}
INLINE vi vi_dot4(vi sum, vi w, vi x)
{
    const __m256i t = _mm256_maddubs_epi16(w, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(t, _mm256_set1_epi16(1)));
}
#endif

#if DM_VW == 1
typedef int32_t vi;
INLINE vi vi_set1(int32_t x)
{
    return x;
}
INLINE vi vi_load(const uint8_t *p)
{
    vi x;
    memcpy(&x, p, 4);
    return x;
}
INLINE vi vi_low(vi x)
{
    return x & 0x0f0f0f0f;
}
INLINE vi vi_high(vi x)
{
    return x >> 4 & 0x0f0f0f0f;
}
INLINE vf vi_float(vi x)
{
    return (float)x;
}
INLINE vi vi_dot4(vi sum, vi w, vi x)
{
    uint8_t a[4];
    int8_t b[4];
    memcpy(a, &w, 4);
    memcpy(b, &x, 4);
    return sum + a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
}
INLINE vi vi_dot8(vi sum, vi w, vi x)
{
    return vi_dot4(sum, w, x);
}
#endif

/* ---- Blocks -------------------------------------------------------------------------------- */

INLINE vi quad(const struct dm_int_input *x, size_t i)
{
    int32_t v;
    memcpy(&v, x->q + 4 * i, 4);
    return vi_set1(v);
}

/* How many bytes ahead a block is fetched into L2, measured on Zen 4: two pages where arithmetic
 * leaves too few loads on their way; one block for one row of int8, which the processor's own
 * fetching follows at 0.83 of the memory's speed, then at 0.96; otherwise 0, since it does best
 * alone. All lines of a block or none: the missing ones would wait for memory. Processors with tile
 * registers (a Xeon with 2 MiB of L2) always fetch: 3 KiB ahead into L2, from there 10 lines ahead
 * into L1, in two streams (rows()). */
#ifdef __AMX_TILE__
#define STREAMS 2
#define NEAR ((size_t)640)
INLINE size_t ahead(size_t m, bool int4)
{
    (void)m;
    (void)int4;
    return 3072;
}
#else
#define STREAMS 1
#define NEAR ((size_t)0)
INLINE size_t ahead(size_t m, bool int4)
{
    if (m == 1 && !int4)
        return DM_INT8_PANEL_BLOCK;
    return m >= (int4 ? 4 : 5) ? 8192 : 0;
}
#endif

/* The two lines from p, once per panel: for vector 0. */
INLINE void prefetch(const uint8_t *p, size_t m, size_t j0, bool int4)
{
    if (j0 || !ahead(m, int4))
        return;
    for (size_t i = 0; i < 128; i += 64) {
        __builtin_prefetch(p + ahead(m, int4) + i, 0, 2);
        if (NEAR)
            __builtin_prefetch(p + NEAR + i);
    }
}

/* One block of a panel times m rows, vectors j0 .. j0 + nj. m and nj are constants at every call,
 * so that the sums live in registers. The loop over the quads is not unrolled: the processor tells
 * streams apart by the address of the load, and 16 loads that step from block to block each look
 * like 16 streams (20 % slower). */
INLINE void block8(vf acc[ROWS_MAX][NV], const struct dm_int_input *x, size_t ldx, const uint8_t *p,
                   size_t m, size_t j0, size_t nj)
{
    const uint8_t *w = p + 2 * DM_PANEL;
    vi sum[ROWS_MAX][NV];
#pragma GCC unroll 8
    for (size_t i = 0; i < m; i++)
#pragma GCC unroll 2
        for (size_t j = 0; j < nj; j++)
            sum[i][j] = vi_set1(START(x + i * ldx));
    prefetch(p - 64, m, j0, false); // the scales' line
#pragma GCC unroll 1
    for (size_t q = 0; q < 8; q++) {
        prefetch(w + q * 4 * DM_PANEL, m, j0, false);
#pragma GCC unroll 2
        for (size_t j = 0; j < nj; j++) {
            const vi v = vi_load(w + 4 * (q * DM_PANEL + (j0 + j) * DM_VW));
#pragma GCC unroll 8
            for (size_t i = 0; i < m; i++)
                sum[i][j] = vi_dot8(sum[i][j], v, quad(x + i * ldx, q));
        }
    }
#pragma GCC unroll 2
    for (size_t j = 0; j < nj; j++) {
        const vf scale = vf_load_bf16(p + 2 * (j0 + j) * DM_VW);
#pragma GCC unroll 8
        for (size_t i = 0; i < m; i++)
            acc[i][j0 + j] = vf_fma(vi_float(sum[i][j]), vf_mul(scale, vf_set1(x[i * ldx].scale)),
                                    acc[i][j0 + j]);
    }
}

INLINE void block4(vf acc[ROWS_MAX][NV], const struct dm_int_input *x, size_t ldx, const uint8_t *p,
                   size_t m, size_t j0, size_t nj)
{
    const uint8_t *w = p + 4 * DM_PANEL;
    vi sum[ROWS_MAX][NV];
#pragma GCC unroll 8
    for (size_t i = 0; i < m; i++)
#pragma GCC unroll 2
        for (size_t j = 0; j < nj; j++)
            sum[i][j] = vi_set1(0);
#pragma GCC unroll 1
    for (size_t q = 0; q < 8; q += 2) {
        prefetch(w + q * 2 * DM_PANEL, m, j0, true);
#pragma GCC unroll 2
        for (size_t j = 0; j < nj; j++) {
            const vi v = vi_load(w + 4 * (q / 2 * DM_PANEL + (j0 + j) * DM_VW));
            const vi low = vi_low(v), high = vi_high(v);
#pragma GCC unroll 8
            for (size_t i = 0; i < m; i++) {
                sum[i][j] = vi_dot4(sum[i][j], low, quad(x + i * ldx, q));
                sum[i][j] = vi_dot4(sum[i][j], high, quad(x + i * ldx, q + 1));
            }
        }
    }
    prefetch(p, m, j0, true);
#pragma GCC unroll 2
    for (size_t j = 0; j < nj; j++) {
        const vf scale = vf_load_bf16(p + 2 * (j0 + j) * DM_VW);
        const vf offset = vf_load_bf16(p + 2 * (DM_PANEL + (j0 + j) * DM_VW));
#pragma GCC unroll 8
        for (size_t i = 0; i < m; i++) {
            const vf t = vf_fma(vi_float(sum[i][j]), vf_mul(scale, vf_set1(x[i * ldx].scale)),
                                acc[i][j0 + j]);
            acc[i][j0 + j] = vf_fma(offset, vf_set1(x[i * ldx].sum), t);
        }
    }
}

/* ---- Panels -------------------------------------------------------------------------------- */

struct few {
    float *c;
    size_t ldc;
    const struct dm_int_input *x;
    size_t ldx;
    const uint8_t *panels;
    size_t stride, blocks, n;
};

/* n outputs of a panel; of s panels, all of them whole when s > 1, which lie `gap` outputs apart
 * and are read block by block in turns. m and s are constants. */
INLINE void panels(const struct few *f, float *c, const uint8_t *p, size_t n, size_t m, size_t s,
                   size_t gap, bool int4)
{
    const size_t bytes = int4 ? DM_INT4_PANEL_BLOCK : DM_INT8_PANEL_BLOCK;
    const size_t nj = m <= FULL_MAX ? NV : 1, far = gap / DM_PANEL * f->stride;
    vf acc[STREAMS][ROWS_MAX][NV];
#pragma GCC unroll 2
    for (size_t t = 0; t < s; t++)
#pragma GCC unroll 8
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < NV; j++)
                acc[t][i][j] = vf_load_n(c + t * gap + i * f->ldc + j * DM_VW,
                                         s > 1 ? DM_VW : lanes_left(n, j * DM_VW));
    for (size_t b = 0; b < f->blocks; b++, p += bytes)
#pragma GCC unroll 2
        for (size_t t = 0; t < s; t++)
            for (size_t j = 0; j < NV; j += nj) {
                if (int4)
                    block4(acc[t], f->x + b, f->ldx, p + t * far, m, j, nj);
                else
                    block8(acc[t], f->x + b, f->ldx, p + t * far, m, j, nj);
            }
#pragma GCC unroll 2
    for (size_t t = 0; t < s; t++)
#pragma GCC unroll 8
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < NV; j++)
                vf_store_n(c + t * gap + i * f->ldc + j * DM_VW, acc[t][i][j],
                           s > 1 ? DM_VW : lanes_left(n, j * DM_VW));
}

/* Two streams where their sums fit the registers: a page that is entered keeps only one of them
 * waiting. */
INLINE void rows(const struct few *f, size_t m, bool int4)
{
    const size_t streams = m <= FULL_MAX ? STREAMS : 1, gap = f->n / DM_PANEL / 2 * DM_PANEL;
    size_t n = 0;
    if (streams > 1) {
        for (; n < gap; n += DM_PANEL)
            panels(f, f->c + n, f->panels + n / DM_PANEL * f->stride, DM_PANEL, m, STREAMS, gap,
                   int4);
        n = STREAMS * gap;
    }
    for (; n < f->n; n += DM_PANEL)
        panels(f, f->c + n, f->panels + n / DM_PANEL * f->stride, f->n - n, m, 1, 0, int4);
}

static void int8_few(float *c, size_t ldc, const struct dm_int_input *x, size_t ldx,
                     const void *panels, size_t stride, size_t blocks, size_t m, size_t n)
{
    const struct few f = {c, ldc, x, ldx, panels, stride, blocks, n};
    assert(m >= 1 && m <= ROWS_MAX);
#define CALL(r) rows(&f, r, false)
    FOR_ROWS(m, ROWS_MAX, CALL)
#undef CALL
}

static void int4_few(float *c, size_t ldc, const struct dm_int_input *x, size_t ldx,
                     const void *panels, size_t stride, size_t blocks, size_t m, size_t n)
{
    const struct few f = {c, ldc, x, ldx, panels, stride, blocks, n};
    assert(m >= 1 && m <= ROWS_MAX);
#define CALL(r) rows(&f, r, true)
    FOR_ROWS(m, ROWS_MAX, CALL)
#undef CALL
}

/* ---- Input rows ---------------------------------------------------------------------------- */

/* largest(): the bits of the largest magnitude, compared as integers, of which NaN's are the
 * largest. round_block(): q = x * inverse to nearest even; their sum. */
#define BIG 0x1.8p23f /* added to a number, its last bit is worth 1 */
#define BIG_BITS 0x4b400000
#if DM_VW == 16
INLINE int32_t largest(const float *x)
{
    const __m512i a = _mm512_castps_si512(vf_abs(vf_load(x)));
    const __m512i b = _mm512_castps_si512(vf_abs(vf_load(x + DM_VW)));
    return _mm512_reduce_max_epi32(_mm512_max_epi32(a, b));
}
INLINE vi round_vector(int8_t *q, const float *x, float inverse)
{
    const vf r = vf_add(vf_mul(vf_load(x), vf_set1(inverse)), vf_set1(BIG));
    const vi v = _mm512_sub_epi32(_mm512_castps_si512(r), vi_set1(BIG_BITS));
    _mm_storeu_si128((void *)q, _mm512_cvtepi32_epi8(v));
    return v;
}
INLINE int32_t round_block(int8_t *q, const float *x, float inverse)
{
    const vi a = round_vector(q, x, inverse), b = round_vector(q + DM_VW, x + DM_VW, inverse);
    return _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
}
#else
INLINE int32_t largest(const float *x)
{
    int32_t bits[DM_BLOCK], top = 0;
    memcpy(bits, x, sizeof(bits));
    for (size_t i = 0; i < DM_BLOCK; i++) {
        const int32_t a = bits[i] & 0x7fffffff;
        top = a > top ? a : top;
    }
    return top;
}
INLINE int32_t round_block(int8_t *q, const float *x, float inverse)
{
    int32_t sum = 0;
    for (size_t i = 0; i < DM_BLOCK; i++) {
        const float r = x[i] * inverse + BIG;
        int32_t bits;
        memcpy(&bits, &r, sizeof(bits));
        q[i] = (int8_t)(bits - BIG_BITS);
        sum += bits - BIG_BITS;
    }
    return sum;
}
#endif

static void input_block(struct dm_int_input *to, const float *x)
{
    const int32_t top = largest(x);
    float most;
    memcpy(&most, &top, sizeof(most));
    *to = (struct dm_int_input){.scale = top >= 0x7f800000 ? NAN : 0.0f};
    if (most >= 1e-35f && top < 0x7f800000) {
        const int32_t sum = round_block(to->q, x, 127.0f / most);
        to->scale = most / 127.0f;
        to->sum = to->scale * (float)sum;
        to->start = -128 * sum;
    } else {
        to->sum = to->scale;
    }
}

static void input(struct dm_int_input *to, const float *x, size_t K)
{
    size_t k = 0;
    for (; k + DM_BLOCK <= K; k += DM_BLOCK)
        input_block(to++, x + k);
    if (k < K) {
        float last[DM_BLOCK] = {0};
        memcpy(last, x + k, (K - k) * sizeof(*x));
        input_block(to, last);
    }
}

const struct dm_int_kern DM_EXPORT(dm_int_kern) = {
    .rows = ROWS_MAX,
    .input = input,
    .int8_few = int8_few,
    .int4_few = int4_few,
};
