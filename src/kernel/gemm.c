/* SPDX-License-Identifier: MIT */
/* Blocks of C, columns by nc and rows by mc, k by kc (kern.h): all threads pack a block of B and
 * one of A into the caller's buffers, then each takes its share of the block's columns (or rows),
 * panels of B by panels of A. A block of A stays in L2 while the panels of B pass through, or the
 * other way round; a panel of B serves all the rows of the block. K is never split between threads,
 * and a later kc block continues the sums from C, so blocking does not show in the bits.
 * Lengths along k are in words of 4 bytes: one float32 or two bf16. */
#include "src/kernel/gemm.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "src/base/par.h"
#include "src/kernel/kern.h"

#define WORD sizeof(float)
#define LINE ((size_t)64)      /* bytes of a cache line */
#define FEW_ROWS ((size_t)252) /* blocks of DM_KC words of few rows, in the place of the others */
#define PAST_CACHES ((size_t)64 << 20)  /* bytes of C */
#define OWN_ROWS ((size_t)256)          /* that a thread packs for itself at a time */
#define OWN_C_BYTES ((size_t)512 << 10) /* of L2 */
#define SMALL ((size_t)1 << 18)         /* multiply-adds below which waking a thread costs more */

struct product {
    struct dm_gemm g;
    const struct dm_kern_mm *mm;
    size_t W;   /* K in words */
    bool small; /* for one thread */
    // The block in hand, packed: m rows from m0, n columns from n0, w words from w0; panels of b
    // are `stride` bytes apart.
    size_t m0, m, n0, n, w0, w, stride;
    char *a, *own_b;
    const char *b;
    size_t mc;   /* rows of A at most */
    bool have_a; /* packed already */
    bool past;   /* C is written once and fits no cache */
};

/* Packed operands of a product of the calling thread: one huge page somewhere in 4 MiB
 * that come out of a thread's stack (8 MiB unless OMP_STACKSIZE says less). With pages of 4 KiB a
 * product takes 3 % longer. */
#define HUGE_PAGE ((size_t)2 << 20)
_Static_assert(FEW_ROWS *DM_A_STRIDE *WORD <= HUGE_PAGE, "few rows fit one huge page");
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

static const struct dm_kern_mm *kernels(enum dm_format fmt)
{
    assert(fmt == DM_FMT_F32 || fmt == DM_FMT_BF16);
    return fmt == DM_FMT_F32 ? dm_kern()->f32 : dm_kern()->bf16;
}

static size_t min_size(size_t x, size_t y)
{
    return x < y ? x : y;
}

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* n in equal steps of at most max, each a multiple of unit (as max is). */
static size_t even_step(size_t n, size_t max, size_t unit)
{
    const size_t steps = (n + max - 1) / max, step = (n + steps - 1) / steps;
    return round_up(step, unit);
}

/* Bytes of a row in the packed block of A. */
static size_t a_row(const struct product *p)
{
    return round_up(p->w, p->mm->step) * WORD;
}

/* Values of k in the `w` words from word w0. */
static size_t values(const struct product *p, size_t w0, size_t w)
{
    return min_size(w * p->mm->unit, p->g.K - w0 * p->mm->unit);
}

/* Element (m,k) of A. */
static const void *a_at(const struct dm_gemm *g, size_t m, size_t k)
{
    return (const char *)g->a.p + (m * g->a.rs + k * g->a.cs) * dm_dtype_size(g->a_type);
}

static void pack_a(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *p = ctx;
    const size_t rs = p->g.a.rs, cs = p->g.a.cs, n = end - begin;
    const size_t stride = p->mm->mr * a_row(p) / WORD, K = values(p, p->w0, p->w);
    const void *from = a_at(&p->g, p->m0 + begin, p->w0 * p->mm->unit);
    if (p->g.a_type == DM_BF16)
        p->mm->pack_a_raw(p->a + begin * a_row(p), stride, from, rs, cs, n, K);
    else
        p->mm->pack_a(p->a + begin * a_row(p), stride, from, rs, cs, n, K);
}

static void pack_b(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *p = ctx;
    const struct dm_mat b = p->g.b;
    p->mm->pack_b(p->own_b + begin * p->w * WORD, p->mm->nr * p->w,
                  b.p + (p->n0 + begin) * b.cs + p->w0 * p->mm->unit * b.rs, b.cs, b.rs,
                  end - begin, values(p, p->w0, p->w));
}

static void tile(const struct product *p, size_t i, size_t i1, size_t j, size_t j1,
                 const struct dm_ahead *ahead)
{
    const struct dm_gemm *g = &p->g;
    const bool add = g->add || p->w0;
    float *c = g->c + (p->m0 + i) * g->ldc + p->n0 + j;
    const float *bias = g->bias ? g->bias + p->n0 + j : NULL;
    p->mm->tile(c, g->ldc, add ? c : bias, add ? g->ldc : 0, p->a + i * a_row(p),
                p->b + j / p->mm->nr * p->stride, min_size(p->mm->mr, i1 - i),
                min_size(p->mm->nr, j1 - j), p->w, ahead);
}

/* A share of a panel of `words` for each of n tiles, in lines. */
static size_t share(size_t words, size_t n)
{
    const size_t lines = (words * WORD + LINE - 1) / LINE;
    return (lines + n - 1) / n;
}

/* Rows i0 .. i1 and columns j0 .. j1 of the block. While the tiles of one panel of B run, each
 * fetches its share of the next panel, which comes from L3 or memory, and the part of C that the
 * next tile works on. */
static void tiles_down(const struct product *p, size_t i0, size_t i1, size_t j0, size_t j1)
{
    const size_t mr = p->mm->mr, nr = p->mm->nr, ldc = p->g.ldc;
    const size_t lines = share(nr * p->w, (i1 - i0 + mr - 1) / mr);
    const float *c = p->g.c + p->m0 * ldc + p->n0;
    for (size_t j = j0; j < j1; j += nr) {
        struct dm_ahead ahead = {.panel = p->b + (j / nr + 1) * p->stride,
                                 .lines = j + nr < j1 ? lines : 0};
        for (size_t i = i0; i < i1; i += mr, ahead.panel += lines * LINE) {
            ahead.c = i + mr < i1 ? c + (i + mr) * ldc + j : c + i0 * ldc + j + nr;
            tile(p, i, i1, j, j1, &ahead);
        }
    }
}

/* The panel that is needed after that of column j, where L2 holds `block` columns of B: of the next
 * columns or else of the next words of a pack; NULL at the end. */
static const char *panel_after(const struct product *p, size_t j, size_t j0, size_t j1,
                               size_t block)
{
    const size_t nr = p->mm->nr;
    if (j + block < j1)
        return p->b + (j + block) / nr * p->stride;
    if (p->g.pack && p->w0 + p->w < p->W)
        return p->b + (j0 + (j - j0) % block) / nr * p->stride + p->w * nr * WORD;
    return NULL;
}

/* The same along the rows: C is written in long runs, which the processor fetches by itself. L2 has
 * two blocks of B, and tiles fetch the next one. */
static void tiles_along(const struct product *p, size_t i0, size_t i1, size_t j0, size_t j1)
{
    const size_t mr = p->mm->mr, nr = p->mm->nr;
    const size_t block = round_up(p->mm->nc * p->mm->kc / p->w / 2, nr);
    const size_t lines = share(nr * p->w, (i1 - i0 + mr - 1) / mr);
    for (size_t jb = j0; jb < j1; jb += block) {
        const size_t end = min_size(jb + block, j1);
        for (size_t i = i0; i < i1; i += mr)
            for (size_t j = jb; j < end; j += nr) {
                struct dm_ahead ahead = {.past = p->past};
                const char *panel = panel_after(p, j, j0, j1, block);
                if (panel) {
                    ahead.panel = panel + (i - i0) / mr * lines * LINE;
                    ahead.lines = lines;
                }
                tile(p, i, i1, j, j1, &ahead);
            }
    }
}

static void tiles(const struct product *p, size_t i0, size_t i1, size_t j0, size_t j1)
{
    if (p->mm->begin)
        p->mm->begin();
    (p->mm->by_rows ? tiles_along : tiles_down)(p, i0, i1, j0, j1);
    if (p->mm->end)
        p->mm->end();
}

static void tile_rows(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *p = ctx;
    tiles(p, begin, end, 0, p->n);
}

static void tile_columns(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *p = ctx;
    tiles(p, 0, p->m, begin, end);
}

static void split(struct product *p, size_t n, size_t grain, dm_par_fn *fn)
{
    dm_par_for(n, p->small ? n : grain, fn, p);
}

/* Share of their time that threads work when n, in units of `grain`, is cut between them. */
static double balance(size_t n, size_t grain)
{
    const size_t units = (n + grain - 1) / grain, threads = dm_par_threads();
    return (double)units / (double)((units + threads - 1) / threads * threads);
}

/* Between threads; else the columns are. Tiles along the rows keep what a thread has of A and B in
 * its L2, which is least when the longer side is cut. */
static bool rows_are_split(const struct product *p)
{
    const double rows = balance(p->m, p->mm->mr), columns = balance(p->n, p->mm->nr);
    return rows > columns || (rows == columns && p->mm->by_rows && p->m > p->n);
}

/* Rows of the calling thread, which packs its own A: no thread waits for another. */
static void own_rows(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    struct product p = *(const struct product *)ctx;
    p.a = buffers();
    for (p.m0 = begin; p.m0 < end; p.m0 += OWN_ROWS) {
        p.m = min_size(OWN_ROWS, end - p.m0);
        pack_a(&p, 0, 0, p.m);
        tiles(&p, 0, p.m, 0, p.n);
    }
}

/* The columns in hand: their words of B packed, if need be, then all rows. */
static void column_block(struct product *p)
{
    const struct dm_gemm *g = &p->g;
    const size_t mr = p->mm->mr, nr = p->mm->nr, mc = even_step(g->M, p->mc, mr);
    p->b = p->own_b;
    p->stride = (g->pack ? p->W : p->w) * nr * WORD;
    if (g->pack)
        p->b = (const char *)g->pack + (p->n0 * p->W + p->w0 * nr) * WORD;
    else
        split(p, p->n, nr, pack_b);
    p->m = g->M;
    if (p->mm->by_rows && rows_are_split(p)) {
        split(p, p->m, mr, own_rows);
        return;
    }
    for (p->m0 = 0; p->m0 < g->M; p->m0 += mc) {
        p->m = min_size(mc, g->M - p->m0);
        if (!p->have_a)
            split(p, p->m, mr, pack_a);
        p->have_a = mc >= g->M && p->w == p->W; // all of it, for the next columns
        if (rows_are_split(p))
            split(p, p->m, mr, tile_rows);
        else
            split(p, p->n, nr, tile_columns);
    }
}

/* Words of k and rows of A at once. C that fits no cache is best visited once, even if a panel of A
 * then leaves L1. */
static size_t choose_blocks(struct product *p)
{
    const struct dm_kern_mm *mm = p->mm;
    const bool large = p->g.N >= PAST_CACHES / WORD / p->g.M;
    const bool once = mm->by_rows && large && p->W <= 2 * mm->kc;
    const size_t kc = even_step(p->W, once ? 2 * mm->kc : mm->kc, mm->step % 4 ? 4 : mm->step);
    p->mc = kc > mm->kc ? mm->mc / 2 : mm->mc;
    p->past = large && !p->g.add && kc >= p->W && ((uintptr_t)p->g.c | p->g.ldc * WORD) % LINE == 0;
    return kc;
}

static void blocks(struct product *p)
{
    const struct dm_kern_mm *mm = p->mm;
    const size_t N = p->g.N, kc = choose_blocks(p);
    // a short kc leaves room for more columns; C that is visited once need not stay in a cache
    const size_t most = !p->g.pack                  ? mm->nc * mm->kc / kc / mm->nr * mm->nr
                        : mm->by_rows && kc >= p->W ? round_up(N, mm->nr)
                                                    : mm->nc_pack;
    const size_t nc = even_step(N, most, mm->nr);
    assert((mm->mc + mm->nc) * mm->kc * WORD <= HUGE_PAGE);
    p->a = buffers();
    p->own_b = p->a + mm->mc * mm->kc * WORD;
    for (p->n0 = 0; p->n0 < N; p->n0 += nc) {
        p->n = min_size(nc, N - p->n0);
        for (p->w0 = 0; p->w0 < p->W; p->w0 += kc) {
            p->w = min_size(kc, p->W - p->w0);
            column_block(p);
        }
    }
}

/* Rows whose part of C stays in L2 while all of a deep k passes. */
static size_t group_rows(const struct product *p)
{
    const size_t threads = dm_par_threads(), most = (p->g.M + threads - 1) / threads;
    return round_up(min_size(OWN_C_BYTES / WORD / p->g.N, most), p->mm->mr);
}

static void groups_part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *all = ctx;
    const size_t rows = group_rows(all);
    for (size_t m = begin; m < end; m += rows) {
        struct product p = *all;
        p.g.c += m * p.g.ldc;
        p.g.a.p = a_at(&all->g, m, 0);
        p.g.M = min_size(rows, end - m);
        p.small = true;
        blocks(&p);
    }
}

/* A pack with few columns and many words: groups of rows are products of their own, so that C is
 * not read from and written to L3 with every block of words. */
static bool in_groups(const struct product *p)
{
    return p->mm->by_rows && p->g.pack && p->W > p->mm->kc && p->g.N <= p->mm->nc &&
           balance(p->g.M, p->mm->mr) >= balance(p->g.N, p->mm->nr);
}

/* Few rows against whole panels: a pack is read as one stream. */
static void few_part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *p = ctx;
    const struct dm_gemm *g = &p->g;
    for (size_t w = 0; w < p->W; w += DM_KC)
        p->mm->pack_rows(buffers() + w / DM_KC * g->M * DM_A_STRIDE * WORD,
                         g->a.p + w * p->mm->unit, g->a.rs, g->M,
                         values(p, w, min_size(DM_KC, p->W - w)));
    const float *from = g->add ? g->c : g->bias;
    p->mm->few(g->c + begin, g->ldc, from ? from + begin : NULL, g->add ? g->ldc : 0, buffers(),
               (const char *)g->pack + begin * p->W * WORD, g->M, end - begin, p->W);
}

/* Few rows of W words that the buffer holds. */
static size_t room_for(size_t W)
{
    return FEW_ROWS / ((W + DM_KC - 1) / DM_KC);
}

static bool is_few(const struct product *p)
{
    return p->g.pack && p->g.a_type == DM_F32 && p->g.M <= p->mm->few_rows &&
           (p->g.a.cs == 1 || p->g.K == 1) && p->g.M <= room_for(p->W);
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
    assert(g->a_type == DM_F32 || (g->a_type == DM_BF16 && g->fmt == DM_FMT_BF16));
    if (g->M == 0 || g->N == 0)
        return;
    if (g->K == 0) {
        start_all(g);
        return;
    }
    struct product p = {.g = *g, .mm = kernels(g->fmt)};
    p.W = (g->K + p.mm->unit - 1) / p.mm->unit;
    // reading B is what few rows cost, hence at least 4 of them
    const size_t rows = g->M < 4 ? 4 : g->M;
    p.small = g->N <= SMALL && g->K <= SMALL && rows <= SMALL && rows * g->K < SMALL &&
              rows * g->K * g->N < SMALL;
    if (is_few(&p))
        split(&p, g->N, p.mm->nr, few_part);
    else if (in_groups(&p))
        split(&p, g->M, group_rows(&p), groups_part);
    else
        blocks(&p);
}

size_t dm_gemm_few_rows(enum dm_format fmt, size_t K)
{
    const struct dm_kern_mm *mm = kernels(fmt);
    return min_size(mm->few_best, room_for((K + mm->unit - 1) / mm->unit));
}

void dm_gemm_few(const struct dm_gemm *g, size_t n0, size_t n1)
{
    struct product p = {.g = *g, .mm = kernels(g->fmt)};
    p.W = (g->K + p.mm->unit - 1) / p.mm->unit;
    assert(g->M >= 1 && g->M <= dm_gemm_few_rows(g->fmt, g->K) && g->K > 0 && n0 % DM_PANEL == 0 &&
           is_few(&p));
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
    p->mm->pack_b(p->pack + begin * p->W * WORD, p->W * p->mm->nr, p->b.p + begin * p->b.cs,
                  p->b.cs, p->b.rs, end - begin, p->K);
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
    if (p->mm->pack_b_raw && p->dtype == DM_BF16) {
        p->mm->pack_b_raw(pack, p->W * nr, raw, p->K, 1, end - begin, p->K);
        return;
    }
    float *block_of = (float *)(void *)buffers();
    for (size_t n = begin; n < end; n += nr, pack += p->W * nr * WORD, raw += nr * p->K * size)
        for (size_t k = 0; k < p->K; k += step) {
            const size_t rows = min_size(nr, end - n), kk = min_size(step, p->K - k);
            for (size_t i = 0; i < rows; i++)
                dm_dtype_to_f32(block_of + i * step, raw + (i * p->K + k) * size, p->dtype, kk);
            p->mm->pack_b(pack + k / p->mm->unit * nr * WORD, p->W * nr, block_of, step, 1, rows,
                          kk);
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
