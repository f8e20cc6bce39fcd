/* SPDX-License-Identifier: MIT */
/* Loop order per thread, for its block of C: columns by NC, k by KC (pack B), rows by MC (pack A),
 * then panels of B by panels of A. A block of A stays in L2 (1 MiB) while the panels of B pass
 * through; a panel of B serves all the rows of the block. K is never split between threads, and a
 * later KC block continues the sums from C, so blocking does not show in the bits. */
#include "src/kernel/gemm.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/kern.h"

#define KC ((size_t)512)
#define A_FLOATS (KC * 252) /* 504 KiB: half of L2; 252 is a multiple of every mr */
#define B_FLOATS (KC * 768) /* 1.5 MiB */
#define NC_PACKED ((size_t)2048)
#define SMALL ((size_t)1 << 18) /* multiply-adds below which waking a thread costs more */

struct product {
    const struct dm_kern *k;
    float *c;
    size_t ldc;
    bool add;
    const float *bias;
    struct dm_mat a, b;
    const float *pack;
    size_t M, N, K;
    bool by_rows; /* threads split the rows of C, else its columns */
};

/* Packed operands of the calling thread; never passed to another. These 2 MiB come out of a
 * thread's stack (8 MiB unless OMP_STACKSIZE says less). */
static _Thread_local _Alignas(64) float a_buf[A_FLOATS];
static _Thread_local _Alignas(64) float b_buf[B_FLOATS];

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

static void pack_a(const struct product *p, size_t m0, size_t m, size_t k0, size_t kc)
{
    p->k->pack(a_buf, p->k->mr, p->a.p + m0 * p->a.rs + k0 * p->a.cs, p->a.rs, p->a.cs, m, kc);
}

static void pack_b(const struct product *p, size_t n0, size_t n, size_t k0, size_t kc)
{
    p->k->pack(b_buf, p->k->nr, p->b.p + n0 * p->b.cs + k0 * p->b.rs, p->b.cs, p->b.rs, n, kc);
}

static void start_rows(const struct product *p, size_t m0, size_t m, size_t n0, size_t n)
{
    for (size_t i = m0; i < m0 + m; i++)
        memcpy(p->c + i * p->ldc + n0, p->bias + n0, n * sizeof(float));
}

/* Panels of b lie `stride` floats apart; a_buf holds the m rows from m0. While the tiles of one
 * panel run, each prefetches its share of the next panel, which comes from L3 or memory. */
static void tiles(const struct product *p, bool add, size_t m0, size_t m, size_t n0, size_t n,
                  const float *b, size_t stride, size_t kc)
{
    const size_t mr = p->k->mr, nr = p->k->nr, count = (m + mr - 1) / mr;
    const size_t step = (nr + count - 1) / count;
    for (size_t j = 0; j < n; j += nr, b += stride) {
        const float *next = j + nr < n ? b + stride : b;
        for (size_t i = 0; i < m; i += mr, next += j + nr < n ? step * kc : 0)
            p->k->gemm_tile_next(p->c + (m0 + i) * p->ldc + n0 + j, p->ldc, add, a_buf + i * kc, b,
                                 min_size(mr, m - i), min_size(nr, n - j), kc, next, step);
    }
}

/* The block of C from (m0, n0), m rows and n columns; n0 is a multiple of nr. */
static void block(const struct product *p, size_t m0, size_t m, size_t n0, size_t n)
{
    const size_t mr = p->k->mr, nr = p->k->nr;
    // few rows: the whole of K at once, so that a pack is read as one stream
    const size_t kc = m <= mr && p->K <= A_FLOATS / mr && p->pack ? p->K : even_step(p->K, KC, 8);
    const size_t mc = even_step(m, A_FLOATS / kc / mr * mr, mr);
    const size_t nc = even_step(n, p->pack ? NC_PACKED : B_FLOATS / kc / nr * nr, nr);
    for (size_t j = 0; j < n; j += nc) {
        const size_t nj = min_size(nc, n - j);
        for (size_t k = 0; k < p->K; k += kc) {
            const size_t kk = min_size(kc, p->K - k);
            const float *b = b_buf;
            if (p->pack)
                b = p->pack + (n0 + j) * p->K + k * nr;
            else
                pack_b(p, n0 + j, nj, k, kk);
            for (size_t i = 0; i < m; i += mc) {
                const size_t mi = min_size(mc, m - i);
                pack_a(p, m0 + i, mi, k, kk);
                if (k == 0 && p->bias)
                    start_rows(p, m0 + i, mi, n0 + j, nj);
                tiles(p, p->add || p->bias || k, m0 + i, mi, n0 + j, nj, b,
                      (p->pack ? p->K : kk) * nr, kk);
            }
        }
    }
}

static void part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *p = ctx;
    if (p->by_rows)
        block(p, begin, end - begin, 0, p->N);
    else
        block(p, 0, p->M, begin, end - begin);
}

/* Few rows as they lie, against whole panels. */
static void few_part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct product *p = ctx;
    if (p->bias)
        start_rows(p, 0, p->M, begin, end - begin);
    p->k->gemm_few(p->c + begin, p->ldc, p->add || p->bias, p->a.p, p->a.rs, p->pack + begin * p->K,
                   p->M, end - begin, p->K);
}

static void start_all(const struct product *p)
{
    for (size_t i = 0; i < p->M && !p->add; i++) {
        if (p->bias)
            memcpy(p->c + i * p->ldc, p->bias, p->N * sizeof(float));
        else
            memset(p->c + i * p->ldc, 0, p->N * sizeof(float));
    }
}

static void run(struct product *p)
{
    assert(p->ldc >= p->N || p->M <= 1);
    if (p->M == 0 || p->N == 0)
        return;
    if (p->K == 0) {
        start_all(p);
        return;
    }
    const bool few = p->pack && p->M <= 4 && (p->a.cs == 1 || p->K == 1);
    // reading B is what few rows cost, hence at least 4 of them
    const size_t rows = p->M < 4 ? 4 : p->M;
    const bool small = p->N <= SMALL && p->K <= SMALL && rows <= SMALL && rows * p->K < SMALL &&
                       rows * p->K * p->N < SMALL;
    p->by_rows = p->M >= p->N && !few;
    const size_t n = p->by_rows ? p->M : p->N, grain = p->by_rows ? p->k->mr : p->k->nr;
    dm_par_for(n, small ? n : grain, few ? few_part : part, p);
}

void dm_gemm(float *c, size_t ldc, bool add, struct dm_mat a, struct dm_mat b, size_t M, size_t N,
             size_t K)
{
    struct product p = {dm_kern(), c, ldc, add, NULL, a, b, NULL, M, N, K, false};
    run(&p);
}

size_t dm_gemm_pack_floats(size_t N, size_t K)
{
    const size_t nr = dm_kern()->nr;
    return (N + nr - 1) / nr * nr * K;
}

struct packing {
    float *pack;
    struct dm_mat b;
    size_t K;
};

static void pack_part(void *ctx, size_t id, size_t begin, size_t end)
{
    (void)id;
    const struct packing *p = ctx;
    const struct dm_kern *k = dm_kern();
    k->pack(p->pack + begin * p->K, k->nr, p->b.p + begin * p->b.cs, p->b.cs, p->b.rs, end - begin,
            p->K);
}

void dm_gemm_pack(float *pack, struct dm_mat b, size_t N, size_t K)
{
    struct packing p = {pack, b, K};
    dm_par_for(N, dm_kern()->nr, pack_part, &p);
}

void dm_gemm_packed(float *c, size_t ldc, bool add, struct dm_mat a, const float *pack, size_t M,
                    size_t N, size_t K)
{
    struct product p = {dm_kern(), c, ldc, add, NULL, a, {0}, pack, M, N, K, false};
    run(&p);
}

void dm_gemm_affine(float *c, size_t ldc, const float *bias, struct dm_mat a, struct dm_mat b,
                    const float *pack, size_t M, size_t N, size_t K)
{
    struct product p = {dm_kern(), c, ldc, false, bias, a, b, pack, M, N, K, false};
    run(&p);
}
