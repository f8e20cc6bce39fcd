/* SPDX-License-Identifier: MIT */
#include "src/kernel/peak.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/kernel/kern.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

/* One loop in registers: `lanes` multiply-adds per operation, OPERATIONS per round. */
struct loop {
    const char *operation;
    void (*run)(size_t rounds);
    double lanes;
    size_t rounds; /* a few milliseconds */
};
enum { OPERATIONS = 12 };

#ifdef __x86_64__
/* 12 independent chains hide a latency of 4 to 6 cycles on up to 3 (2) pipes. In assembly, so that
 * no compiler spills one or sees that nobody reads them. Operands are 0: no denormal slows it. */
#define TWELVE(op)                                                                           \
    op("0") op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("8") op("9") op("10") \
        op("11")
#define LOOP(name, op)                                                                            \
    static void name(size_t rounds)                                                               \
    {                                                                                             \
        __asm__ volatile("vzeroall\n\t1:\n\t" TWELVE(op) "dec %0\n\tjnz 1b\n\tvzeroupper"         \
                         : "+r"(rounds)                                                           \
                         :                                                                        \
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",  \
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"); \
    }

#define FMA_YMM(i) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" i "\n\t"
#define FMA_ZMM(i) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" i "\n\t"
#define DPBF16_ZMM(i) "vdpbf16ps %%zmm12, %%zmm13, %%zmm" i "\n\t"
#define DPBUSD_ZMM(i) "vpdpbusd %%zmm12, %%zmm13, %%zmm" i "\n\t"
// Without a dot product of bytes: products of 16 bits in pairs, then their sum.
#define MADDWD_YMM(i)                        \
    "vpmaddwd %%ymm12, %%ymm13, %%ymm14\n\t" \
    "vpaddd %%ymm14, %%ymm" i ", %%ymm" i "\n\t"
#define MADDWD_ZMM(i)                        \
    "vpmaddwd %%zmm12, %%zmm13, %%zmm14\n\t" \
    "vpaddd %%zmm14, %%zmm" i ", %%zmm" i "\n\t"

/* 6 independent chains, as many as leave registers for the operands. */
#define DPBF16_TILE(i) "tdpbf16ps %%tmm7, %%tmm6, %%tmm" i "\n\t"
#define SIX(op) op("0") op("1") op("2") op("3") op("4") op("5")
static void dpbf16_tile(size_t rounds)
{
    static const struct {
        unsigned char palette, start, zero[14];
        unsigned short row_bytes[16];
        unsigned char rows[16];
    } shape = {.palette = 1,
               .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    // Configuring makes them 0.
    __asm__ volatile("ldtilecfg %1\n\t1:\n\t" SIX(DPBF16_TILE)
                         SIX(DPBF16_TILE) "dec %0\n\tjnz 1b\n\ttilerelease"
                     : "+r"(rounds)
                     : "m"(shape)
                     : "cc");
}

LOOP(fma_ymm, FMA_YMM)
LOOP(fma_zmm, FMA_ZMM)
LOOP(dpbf16_zmm, DPBF16_ZMM)
LOOP(dpbusd_zmm, DPBUSD_ZMM)
LOOP(maddwd_ymm, MADDWD_YMM)
LOOP(maddwd_zmm, MADDWD_ZMM)
#endif

static volatile float float_sink;
static volatile uint32_t int_sink;

/* Operands come from volatile memory: the compiler can fold nothing. */
static void fma_plain(size_t rounds)
{
    float s[OPERATIONS] = {0.0f};
    const float x = float_sink, y = float_sink;
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < OPERATIONS; i++)
            s[i] = fmaf(s[i], x, y);
    for (size_t i = 1; i < OPERATIONS; i++)
        s[0] += s[i];
    float_sink = s[0];
}

static void int_plain(size_t rounds)
{
    uint32_t s[OPERATIONS] = {0};
    const uint32_t x = int_sink, y = int_sink;
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < OPERATIONS; i++)
            s[i] = s[i] * x + y;
    for (size_t i = 1; i < OPERATIONS; i++)
        s[0] += s[i];
    int_sink = s[0];
}

enum { VECTOR_ROUNDS = 1 << 20, TILE_ROUNDS = 1 << 16, PLAIN_ROUNDS = 1 << 17 };

/* bf16 without vdpbf16ps is two multiply-adds per pair, so its limit is float32's. */
static struct loop find_loop(enum dm_format fmt)
{
    const bool dot = fmt == DM_FMT_INT8 || fmt == DM_FMT_INT4;
#ifdef __x86_64__
    const char *isa = dm_kern()->name;
    const bool amx = strcmp(isa, "amx") == 0, dots = amx || strcmp(isa, "avx512bf16") == 0;
    if (amx && fmt == DM_FMT_BF16)
        return (struct loop){"tdpbf16ps", dpbf16_tile, 16.0 * 16.0 * 32.0, TILE_ROUNDS};
    if (dots && fmt == DM_FMT_BF16)
        return (struct loop){"vdpbf16ps zmm", dpbf16_zmm, 32.0, VECTOR_ROUNDS};
    if (dots && dot)
        return (struct loop){"vpdpbusd zmm", dpbusd_zmm, 64.0, VECTOR_ROUNDS};
    if (dots || strcmp(isa, "avx512") == 0) {
        if (dot)
            return (struct loop){"vpmaddwd zmm", maddwd_zmm, 32.0, VECTOR_ROUNDS};
        return (struct loop){"vfmadd231ps zmm", fma_zmm, 16.0, VECTOR_ROUNDS};
    }
    if (strncmp(isa, "avx2", 4) == 0) {
        if (dot)
            return (struct loop){"vpmaddwd ymm", maddwd_ymm, 16.0, VECTOR_ROUNDS};
        return (struct loop){"vfmadd231ps ymm", fma_ymm, 8.0, VECTOR_ROUNDS};
    }
#endif
    if (dot)
        return (struct loop){"int multiply-add", int_plain, 1.0, PLAIN_ROUNDS};
    return (struct loop){"fmaf", fma_plain, 1.0, PLAIN_ROUNDS};
}

static void loop_part(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct loop *l = ctx;
    for (size_t i = begin; i < end; i++)
        l->run(l->rounds);
}

double dm_peak_flops(enum dm_format fmt)
{
    struct loop l = find_loop(fmt), wake = l;
    const size_t threads = dm_par_threads();
    wake.rounds = 1000; // the threads of the last parallel region may be asleep
    dm_par_for(threads, 1, loop_part, &wake);
    const double t = dm_now();
    dm_par_for(threads, 1, loop_part, &l);
    const double seconds = dm_now() - t;
    return 2.0 * OPERATIONS * l.lanes * (double)l.rounds * (double)threads / seconds * 1e-9;
}

const char *dm_peak_operation(enum dm_format fmt)
{
    return find_loop(fmt).operation;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

#define HUGE_PAGE ((size_t)2 << 20)
enum { AHEAD = 4096, STRIDE = 256 }; /* bytes: prefetched ahead; per turn of the loop */

static void touch_part(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    memset((char *)ctx + begin, 1, end - begin);
}

enum dm_status dm_peak_mem_init(struct dm_peak_mem *m, size_t bytes, struct dm_err *e)
{
    *m = (struct dm_peak_mem){0};
    if (bytes > SIZE_MAX / 2)
        return dm_fail(e, DM_ENOMEM, "cannot map %zu bytes to measure the memory", bytes);
    bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return dm_fail(e, DM_ENOMEM, "cannot map %zu bytes to measure the memory", bytes);
    madvise(p, bytes, MADV_HUGEPAGE); // only a hint
    *m = (struct dm_peak_mem){p, bytes};
    dm_par_for(bytes, HUGE_PAGE, touch_part, p);
    return DM_OK;
}

void dm_peak_mem_release(struct dm_peak_mem *m)
{
    if (m->p)
        munmap(m->p, m->bytes);
    *m = (struct dm_peak_mem){0};
}

/* The sum of a stream as 64-bit words, in as few instructions as the processor can do: a baseline
 * build would read 16 bytes at a time. n is a multiple of STRIDE. */
#ifdef __x86_64__
__attribute__((target("avx512f"))) static uint64_t read_zmm(const char *p, size_t n)
{
    __m512i s[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                    _mm512_setzero_si512()};
    for (size_t i = 0; i < n; i += STRIDE)
        for (size_t j = 0; j < 4; j++) {
            _mm_prefetch(p + i + j * 64 + AHEAD, _MM_HINT_T0);
            s[j] = _mm512_add_epi64(s[j], _mm512_loadu_si512(p + i + j * 64));
        }
    uint64_t word[8], sum = 0;
    _mm512_storeu_si512(
        word, _mm512_add_epi64(_mm512_add_epi64(s[0], s[1]), _mm512_add_epi64(s[2], s[3])));
    for (size_t j = 0; j < 8; j++)
        sum += word[j];
    return sum;
}

__attribute__((target("avx2"))) static uint64_t read_ymm(const char *p, size_t n)
{
    __m256i s[8];
    uint64_t word[4];
    for (size_t j = 0; j < 8; j++)
        s[j] = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += STRIDE)
        for (size_t j = 0; j < 8; j++) {
            if (j % 2 == 0)
                _mm_prefetch(p + i + j * 32 + AHEAD, _MM_HINT_T0);
            s[j] = _mm256_add_epi64(s[j], _mm256_loadu_si256((const __m256i *)(p + i + j * 32)));
        }
    for (size_t j = 1; j < 8; j++)
        s[0] = _mm256_add_epi64(s[0], s[j]);
    _mm256_storeu_si256((__m256i *)word, s[0]);
    return word[0] + word[1] + word[2] + word[3];
}
#endif

static uint64_t read_plain(const char *p, size_t n)
{
    const uint64_t *x = (const uint64_t *)p;
    uint64_t s = 0;
    for (size_t i = 0; i < n / sizeof(*x); i += STRIDE / sizeof(*x)) {
        for (size_t j = 0; j < STRIDE; j += 64)
            __builtin_prefetch((const char *)(x + i) + j + AHEAD);
        for (size_t j = 0; j < STRIDE / sizeof(*x); j++)
            s += x[i + j];
    }
    return s;
}

static void read_part(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const char *p = (const char *)ctx + begin;
    const size_t n = end - begin;
    uint64_t s;
#ifdef __x86_64__
    if (strncmp(dm_kern()->name, "avx512", 6) == 0 || strcmp(dm_kern()->name, "amx") == 0)
        s = read_zmm(p, n);
    else if (strncmp(dm_kern()->name, "avx2", 4) == 0)
        s = read_ymm(p, n);
    else
#endif
        s = read_plain(p, n);
    __asm__ volatile("" : : "r"(s)); // somebody needs the sum
}

static void nothing(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)ctx;
    (void)part;
    (void)begin;
    (void)end;
}

double dm_peak_bandwidth(const struct dm_peak_mem *m)
{
    dm_par_for(dm_par_threads(), 1, nothing, NULL); // wakes the threads
    const double t = dm_now();
    dm_par_for(m->bytes, HUGE_PAGE, read_part, m->p);
    return (double)m->bytes / (dm_now() - t) * 1e-9;
}

double dm_peak_fork_join(void)
{
    enum { REGIONS = 1000 };
    dm_par_for(dm_par_threads(), 1, nothing, NULL);
    const double t = dm_now();
    for (int i = 0; i < REGIONS; i++)
        dm_par_for(dm_par_threads(), 1, nothing, NULL);
    return (dm_now() - t) / REGIONS;
}
