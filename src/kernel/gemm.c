/* SPDX-License-Identifier: MIT */
/* Loop order per thread, for its block of C: columns by NC, k by KC (pack B), rows by MC (pack A),
 * then panels of B by panels of A. A block of A stays in L2 (1 MiB) while the panels of B pass
 * through; a panel of B serves all the rows of the block. K is never split between threads, and a
 * later KC block continues the sums from C, so blocking does not show in the bits.
 * Lengths along k are in words of 4 bytes: one float32 or two bf16. */
#include "src/kernel/gemm.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "src/base/par.h"
#include "src/kernel/kern.h"

#define WORD sizeof(float)
#define LINE ((size_t)64)            /* bytes of a cache line */
#define MC ((size_t)252)             /* a multiple of every mr */
#define A_BYTES (MC * DM_KC * WORD)  /* half of L2 */
#define B_BYTES (DM_KC * 768 * WORD) /* 1.5 MiB */
#define FEW_ROWS ((size_t)252)       /* blocks of DM_KC words of few rows, in the place of B */
#define NC_PACKED ((size_t)2048)
#define SMALL ((size_t)1 << 18) /* multiply-adds below which waking a thread costs more */

struct product {
    struct dm_gemm g;
    const struct dm_kern_mm *mm;
    size_t W;     /* K in words */
    bool by_rows; /* threads split the rows of C, else its columns */
};

/* Packed operands of the calling thread, never passed to another: one huge page somewhere in 4 MiB
 * that come out of a thread's stack (8 MiB unless OMP_STACKSIZE says less). With pages of 4 KiB a
 * product takes 3 % longer. */
#define HUGE_PAGE ((size_t)2 << 20)
_Static_assert(A_BYTES + B_BYTES <= HUGE_PAGE && FEW_ROWS * DM_A_STRIDE * WORD <= B_BYTES,
               "packed operands fit one huge page");
static char *buffers(void)
{
    static _Thread_local char room[2 * HUGE_PAGE];
    static _Thread_local char *page;
    if (!page) {
        page = room + (HUGE_PAGE - (uintptr_t)room % HUGE_PAGE) % HUGE_PAGE;
        madvise(page, HUGE_PAGE, MADV_HUGEPAGE); // only a hint
    }
    return page;
}

static char *a_buf(void)
{
    return buffers();
}

static char *b_buf(void)
{
    return buffers() + A_BYTES;
}

static const struct dm_kern_mm *kernels(enum dm_format fmt)
{
    assert(fmt == DM_FMT_F32 || fmt == DM_FMT_BF16);
    return fmt == DM_FMT_F32 ? dm_kern()->f32 : dm_kern()->bf16;
}

static size_t min_size(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* n in equal steps of at most max, each a multiple of unit (as max is). */
static size_t even_step(size_t n, size_t max, size_t unit)
{
    const size_t steps = (n + max - 1) / max, step = (n + steps - 1) / steps;
    return (step + unit - 1) / unit * unit;
}

/* Values of k in the `w` words from word w0. */
static size_t values(const struct product *p, size_t w0, size_t w)
{
    return min_size(w * p->mm->unit, p->g.K - w0 * p->mm->unit);
}

static void pack_a(const struct product *p, size_t m0, size_t m, size_t w0, size_t w)
{
    const struct dm_mat a = p->g.a;
    p->mm->pack_panels(a_buf(), p->mm->mr * w, p->mm->mr, a.p + m0 * a.rs + w0 * p->mm->unit * a.cs,
                       a.rs, a.cs, m, values(p, w0, w));
}

static void pack_b(const struct product *p, size_t n0, size_t n, size_t w0, size_t w)
{
    const struct dm_mat b = p->g.b;
    p->mm->pack_panels(b_buf(), p->mm->nr * w, p->mm->nr, b.p + n0 * b.cs + w0 * p->mm->unit * b.rs,
                       b.cs, b.rs, n, values(p, w0, w));
}

static void start_rows(const struct dm_gemm *g, size_t m0, size_t m, size_t n0, size_t n)
{
    for (size_t i = m0; i < m0 + m; i++)
        memcpy(g->c + i * g->ldc + n0, g->bias + n0, n * sizeof(float));
}

/* Panels of b lie `stride` bytes apart; a_buf holds the m rows from m0. While the tiles of one
 * panel run, each fetches its share of the next panel, which comes from L3 or memory, and the part
 * of C that the next tile works on. */
static void tiles(const struct product *p, bool add, size_t m0, size_t m, size_t n0, size_t n,
                  const char *b, size_t stride, size_t w)
{
    const struct dm_gemm *g = &p->g;
    const size_t mr = p->mm->mr, nr = p->mm->nr, count = (m + mr - 1) / mr;
    const size_t lines = (nr * w * WORD + LINE - 1) / LINE, share = (lines + count - 1) / count;
    float *c = g->c + m0 * g->ldc + n0;
    const char *a = a_buf();
    for (size_t j = 0; j < n; j += nr, b += stride) {
        struct dm_ahead ahead = {.b = b + stride, .b_lines = j + nr < n ? share : 0};
        for (size_t i = 0; i < m; i += mr, ahead.b += share * LINE) {
            ahead.c = i + mr < m ? c + (i + mr) * g->ldc + j : c + j + nr;
            p->mm->tile(c + i * g->ldc + j, g->ldc, add, a + i * w * WORD, b, min_size(mr, m - i),
                        min_size(nr, n - j), w, &ahead);
        }
    }
}

/* The block of C from (m0, n0), m rows and n columns; n0 is a multiple of nr. */
static void block(const struct product *p, size_t m0, size_t m, size_t n0, size_t n)
{
    const struct dm_gemm *g = &p->g;
    const size_t mr = p->mm->mr, nr = p->mm->nr;
    const size_t kc = even_step(p->W, DM_KC, 4), mc = even_step(m, MC, mr);
    const size_t nc = even_step(n, g->pack ? NC_PACKED : B_BYTES / WORD / kc / nr * nr, nr);
    for (size_t j = 0; j < n; j += nc) {
        const size_t nj = min_size(nc, n - j);
        for (size_t w = 0; w < p->W; w += kc) {
            const size_t ww = min_size(kc, p->W - w);
            const char *b = b_buf();
            if (g->pack)
                b = (const char *)g->pack + ((n0 + j) * p->W + w * nr) * WORD;
            else
                pack_b(p, n0 + j, nj, w, ww);
            for (size_t i = 0; i < m; i += mc) {
                const size_t mi = min_size(mc, m - i);
                pack_a(p, m0 + i, mi, w, ww);
                if (w == 0 && g->bias)
                    start_rows(g, m0 + i, mi, n0 + j, nj);
                tiles(p, g->add || g->bias || w, m0 + i, mi, n0 + j, nj, b,
                      (g->pack ? p->W : ww) * nr * WORD, ww);
            }
        }
    }
}

static void part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *p = ctx;
    if (p->by_rows)
        block(p, begin, end - begin, 0, p->g.N);
    else
        block(p, 0, p->g.M, begin, end - begin);
}

/* Few rows against whole panels: a pack is read as one stream. */
static void few_part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *p = ctx;
    const struct dm_gemm *g = &p->g;
    for (size_t w = 0; w < p->W; w += DM_KC)
        p->mm->pack_rows(b_buf() + w / DM_KC * g->M * DM_A_STRIDE * WORD, g->a.p + w * p->mm->unit,
                         g->a.rs, g->M, values(p, w, min_size(DM_KC, p->W - w)));
    if (g->bias)
        start_rows(g, 0, g->M, begin, end - begin);
    p->mm->few(g->c + begin, g->ldc, g->add || g->bias, b_buf(),
               (const char *)g->pack + begin * p->W * WORD, g->M, end - begin, p->W);
}

static bool is_few(const struct product *p)
{
    return p->g.pack && p->g.M <= p->mm->mr && (p->g.a.cs == 1 || p->g.K == 1) &&
           (p->W + DM_KC - 1) / DM_KC * p->g.M <= FEW_ROWS;
}

static void start_all(const struct dm_gemm *g)
{
    for (size_t i = 0; i < g->M && !g->add; i++) {
        if (g->bias)
            memcpy(g->c + i * g->ldc, g->bias, g->N * sizeof(float));
        else
            memset(g->c + i * g->ldc, 0, g->N * sizeof(float));
    }
}

void dm_gemm(const struct dm_gemm *g)
{
    assert((g->ldc >= g->N || g->M <= 1) && !(g->add && g->bias));
    if (g->M == 0 || g->N == 0)
        return;
    if (g->K == 0) {
        start_all(g);
        return;
    }
    struct product p = {*g, kernels(g->fmt), 0, false};
    p.W = (g->K + p.mm->unit - 1) / p.mm->unit;
    const bool few = is_few(&p);
    // reading B is what few rows cost, hence at least 4 of them
    const size_t rows = g->M < 4 ? 4 : g->M;
    const bool small = g->N <= SMALL && g->K <= SMALL && rows <= SMALL && rows * g->K < SMALL &&
                       rows * g->K * g->N < SMALL;
    p.by_rows = g->M >= g->N && !few;
    const size_t n = p.by_rows ? g->M : g->N, grain = p.by_rows ? p.mm->mr : p.mm->nr;
    dm_par_for(n, small ? n : grain, few ? few_part : part, &p);
}

void dm_gemm_few(const struct dm_gemm *g, size_t n0, size_t n1)
{
    struct product p = {*g, kernels(g->fmt), 0, false};
    p.W = (g->K + p.mm->unit - 1) / p.mm->unit;
    assert(g->M >= 1 && g->M <= 4 && g->K > 0 && n0 % DM_PANEL == 0 && is_few(&p));
    few_part(&p, 0, n0, n1);
}

size_t dm_gemm_pack_bytes(enum dm_format fmt, size_t N, size_t K)
{
    const struct dm_kern_mm *mm = kernels(fmt);
    return (N + mm->nr - 1) / mm->nr * mm->nr * ((K + mm->unit - 1) / mm->unit) * WORD;
}

struct packing {
    const struct dm_kern_mm *mm;
    char *pack; /* of the first column */
    struct dm_mat b;
    const char *raw;
    enum dm_dtype dtype;
    size_t K, W;
};

static void pack_part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct packing *p = ctx;
    p->mm->pack_panels(p->pack + begin * p->W * WORD, p->W * p->mm->nr, p->mm->nr,
                       p->b.p + begin * p->b.cs, p->b.cs, p->b.rs, end - begin, p->K);
}

static struct packing packing(enum dm_format fmt, void *pack, size_t n0, size_t K)
{
    const struct dm_kern_mm *mm = kernels(fmt);
    const size_t W = (K + mm->unit - 1) / mm->unit;
    return (struct packing){.mm = mm, .pack = (char *)pack + n0 * W * WORD, .K = K, .W = W};
}

void dm_gemm_pack(enum dm_format fmt, void *pack, struct dm_mat b, size_t N, size_t K)
{
    struct packing p = packing(fmt, pack, 0, K);
    p.b = b;
    dm_par_for(N, p.mm->nr, pack_part, &p);
}

/* Other types pass through float32, a block of a panel at a time. */
static void raw_part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct packing *p = ctx;
    const size_t nr = p->mm->nr, size = dm_dtype_size(p->dtype), step = DM_KC * p->mm->unit;
    char *pack = p->pack + begin * p->W * WORD;
    const char *raw = p->raw + begin * p->K * size;
    if (p->mm->pack_raw && p->dtype == DM_BF16) {
        p->mm->pack_raw(pack, p->W * nr, raw, p->K, end - begin, p->K);
        return;
    }
    float *block_of = (float *)(void *)b_buf();
    for (size_t n = begin; n < end; n += nr, pack += p->W * nr * WORD, raw += nr * p->K * size)
        for (size_t k = 0; k < p->K; k += step) {
            const size_t rows = min_size(nr, end - n), kk = min_size(step, p->K - k);
            for (size_t i = 0; i < rows; i++)
                dm_dtype_to_f32(block_of + i * step, raw + (i * p->K + k) * size, p->dtype, kk);
            p->mm->pack_panels(pack + k / p->mm->unit * nr * WORD, p->W * nr, nr, block_of, step, 1,
                               rows, kk);
        }
}

void dm_gemm_pack_raw(enum dm_format fmt, void *pack, const void *raw, enum dm_dtype dtype,
                      size_t n0, size_t n, size_t K)
{
    struct packing p = packing(fmt, pack, n0, K);
    assert(n0 % DM_PANEL == 0 && DM_PANEL % p.mm->nr == 0);
    p.raw = raw;
    p.dtype = dtype;
    dm_par_for(n, p.mm->nr, raw_part, &p);
}
