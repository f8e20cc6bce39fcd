/* SPDX-License-Identifier: MIT */
/* Every layer but linear at Pythia 70m's shapes: one JSON line per layer with the least, median and
 * largest of 5 runs, in GB/s of the arrays touched once, or GFLOP/s of causal attention.
 *
 *   bench_nn [THREADS [NAME]]      all cores and all layers by default */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/kernel/kern.h"
#include "src/nn/attention.h"
#include "src/nn/embedding.h"
#include "src/nn/gelu.h"
#include "src/nn/layernorm.h"
#include "src/nn/rotary.h"
#include "src/nn/xent.h"

enum { N = 2048, C = 512, F = 4 * C, NH = 8, HS = C / NH, ROT = 16, VP = 50304, N_XENT = 256 };
enum { RUNS = 5 };

/* x, y, z: N_XENT * VP floats each, which is more than N * 3C and N * F. */
static struct {
    float *x, *y, *z, *w, *b, *mean, *rstd, *table, *scratch;
    int32_t *ids;
} a;

static void layernorm_forward(void)
{
    dm_layernorm_forward(a.y, a.mean, a.rstd, a.x, a.w, a.b, 1e-5f, N, C);
}

static void layernorm_backward(void)
{
    dm_layernorm_backward(a.z, a.w, a.b, a.y, a.x, a.w + C, a.mean, a.rstd, N, C);
}

static void gelu_forward(void)
{
    dm_gelu_forward(a.y, a.x, (size_t)N * F);
}

static void gelu_backward(void)
{
    dm_gelu_backward(a.y, a.x, (size_t)N * F);
}

static void vec_add(void)
{
    dm_vec_add(a.y, a.x, (size_t)N * F);
}

static void embedding_forward(void)
{
    dm_embedding_forward(a.y, a.ids, a.x, DM_F32, N, C, N_XENT * VP / C);
}

static void embedding_backward(void)
{
    dm_embedding_backward(a.z, a.ids, a.y, N, C, N_XENT * VP / C);
}

static void rotary(void)
{
    dm_rotary_forward(a.x, 3 * C, 3 * HS, a.table, 0, N, N, NH, ROT);
}

static void xent_forward(void)
{
    dm_xent_forward(a.mean, NULL, a.x, a.ids, N_XENT, VP);
}

static void xent_forward_rank(void)
{
    dm_xent_forward(a.mean, (int32_t *)a.rstd, a.x, a.ids, N_XENT, VP);
}

static void xent_backward(void)
{
    dm_xent_backward(a.mean, a.x, DM_F32, a.ids, 1.0f, N_XENT, VP);
}

/* q, k or v (part 0, 1, 2) inside qkv rows. */
static struct dm_heads part(float *qkv, size_t i, size_t T)
{
    const struct dm_heads h = {qkv + i * HS, T * 3 * C, 3 * C, 3 * HS};
    return h;
}

static void attention(size_t T, size_t pos)
{
    const size_t B = pos ? 1 : N / T, S = pos + T;
    const struct dm_heads out = {a.y, T * C, C, HS};
    dm_attention_forward(out, a.mean, part(a.x, 0, S), part(a.x, 1, S), part(a.x, 2, S), B, T, pos,
                         NH, HS, a.scratch);
}

static void attention_grad(size_t T)
{
    const struct dm_heads out = {a.y, T * C, C, HS};
    dm_attention_backward(part(a.z, 0, T), part(a.z, 1, T), part(a.z, 2, T), out, out, a.mean,
                          part(a.x, 0, T), part(a.x, 1, T), part(a.x, 2, T), N / T, T, NH, HS,
                          a.scratch);
}

static void attention_256(void)
{
    attention(256, 0);
}

static void attention_2048(void)
{
    attention(2048, 0);
}

static void attention_decode(void)
{
    attention(1, 1023);
}

static void attention_backward_256(void)
{
    attention_grad(256);
}

static void attention_backward_2048(void)
{
    attention_grad(2048);
}

#define PAIRS(T) (0.5 * N * ((T) + 1.0) * NH) /* query-key pairs of N rows in sequences of T */

static const struct {
    const char *name, *unit;
    void (*fn)(void);
    double work;         /* bytes or operations */
    void (*setup)(void); /* the forward whose statistics it reads */
} cases[] = {
    {"layernorm_forward", "GB/s", layernorm_forward, 8.0 * N *C},
    {"layernorm_backward", "GB/s", layernorm_backward, 16.0 * N *C},
    {"gelu_forward", "GB/s", gelu_forward, 8.0 * N *F},
    {"gelu_backward", "GB/s", gelu_backward, 16.0 * N *F},
    {"vec_add", "GB/s", vec_add, 12.0 * N *F},
    {"embedding_forward", "GB/s", embedding_forward, 8.0 * N *C},
    {"embedding_backward", "GB/s", embedding_backward, 12.0 * N *C},
    {"rotary", "GB/s", rotary, 8.0 * N *NH *ROT},
    {"xent_forward", "GB/s", xent_forward, 4.0 * N_XENT *VP},
    {"xent_forward_rank", "GB/s", xent_forward_rank, 4.0 * N_XENT *VP},
    {"xent_backward", "GB/s", xent_backward, 8.0 * N_XENT *VP},
    {"attention_forward_T256", "GFLOP/s", attention_256, 4.0 * HS *PAIRS(256)},
    {"attention_forward_T2048", "GFLOP/s", attention_2048, 4.0 * HS *PAIRS(2048)},
    {"attention_decode_pos1023", "GFLOP/s", attention_decode, 4.0 * HS *NH * 1024},
    {"attention_backward_T256", "GFLOP/s", attention_backward_256, 10.0 * HS *PAIRS(256)},
    {"attention_backward_T2048", "GFLOP/s", attention_backward_2048, 10.0 * HS *PAIRS(2048)},
};

static int by_size(const void *x, const void *y)
{
    const double p = *(const double *)x, q = *(const double *)y;
    return (p > q) - (p < q);
}

static void fill(float *x, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(dm_mix64(stream * 0x1000000007u + i) >> 40) * 0x1p-23f - 1.0f;
}

static void bench(size_t i)
{
    double rate[RUNS];
    fill(a.x, (size_t)N_XENT * VP, 1); // some cases write over their input
    if (cases[i].setup)
        cases[i].setup();
    cases[i].fn();
    for (size_t r = 0; r < RUNS; r++) {
        const double start = dm_now();
        double n = 0.0, t;
        do { // at least 5 ms, or the clock and the wake-up of threads would show
            cases[i].fn();
            n += 1.0;
            t = dm_now() - start;
        } while (t < 5e-3);
        rate[r] = n * cases[i].work / t * 1e-9;
    }
    qsort(rate, RUNS, sizeof(*rate), by_size);
    printf("{\"bench\": \"nn\", \"isa\": \"%s\", \"threads\": %zu, \"layer\": \"%s\", "
           "\"unit\": \"%s\", \"rate\": [%.2f, %.2f, %.2f], \"ms\": %.4f}\n",
           dm_kern()->name, dm_par_threads(), cases[i].name, cases[i].unit, rate[0], rate[RUNS / 2],
           rate[RUNS - 1], cases[i].work / rate[RUNS / 2] * 1e-6);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        dm_par_set_threads(strtoul(argv[1], NULL, 10));
    float **f[] = {&a.x, &a.y, &a.z};
    for (size_t i = 0; i < 3; i++) {
        *f[i] = dm_alloc((size_t)N_XENT * VP, sizeof(float));
        assert(*f[i]);
        fill(*f[i], (size_t)N_XENT * VP, i);
    }
    a.w = dm_alloc(2 * C, sizeof(float));
    a.b = dm_alloc(C, sizeof(float));
    a.mean = dm_alloc(N * NH, sizeof(float));
    a.rstd = dm_alloc(N * NH, sizeof(float));
    a.table = dm_alloc(N * ROT, sizeof(float));
    a.scratch = dm_alloc(dm_attention_scratch(N, HS), sizeof(float));
    a.ids = dm_alloc(N, sizeof(*a.ids));
    assert(a.w && a.b && a.mean && a.rstd && a.table && a.scratch && a.ids);
    for (size_t n = 0; n < N; n++)
        a.ids[n] = (int32_t)(n * 7919 % (N_XENT * VP / C));
    dm_rotary_table(a.table, 10000.0, ROT, N);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        if (argc < 3 || strcmp(argv[2], cases[i].name) == 0)
            bench(i);
    float *all[] = {a.x, a.y, a.z, a.w, a.b, a.mean, a.rstd, a.table, a.scratch};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free(all[i]);
    free(a.ids);
    return 0;
}
