/* SPDX-License-Identifier: MIT */
/* Matrix products of dm_linear at training shapes against the multiply-add peak of the cores,
 * which a loop in registers measures just before every product. One JSON line per shape and form.
 *
 *   bench_gemm [THREADS [SHAPE-NUMBER]]      all cores and all shapes by default
 *
 * Exits 1 only when a result is wrong. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/kernel/kern.h"
#include "src/nn/linear.h"

#define RUNS 5
#define ROUNDS ((size_t)1 << 20) /* of the peak loop: a few milliseconds */

struct shape {
    size_t N, O, C; /* rows, outputs, inputs: (M,N,K) of the forward product */
};

static const struct shape shapes[] = {
    {1024, 2048, 512},  {1024, 512, 2048},  {1024, 50304, 512}, {1024, 3072, 768},
    {1024, 50304, 768}, {1024, 4096, 1024}, {512, 8192, 2048},
};
static const char *const forms[] = {"forward", "forward_packed", "input_gradient",
                                    "weight_gradient"};

struct arrays {
    float *inp, *w, *pack, *out; /* out doubles as dout of the gradients */
    float *dinp, *dw;
};

#ifdef __x86_64__
/* 12 independent chains hide a latency of 4 cycles on up to 3 pipes. In assembly, so that no
 * compiler spills one. */
#define FMA(v, i) "vfmadd231ps %%" v "12, %%" v "13, %%" v #i "\n\t"
#define PEAK(v, rounds)                                                                      \
    __asm__ volatile("1:\n\t" FMA(v, 0) FMA(v, 1) FMA(v, 2) FMA(v, 3) FMA(v, 4) FMA(v, 5)    \
                         FMA(v, 6) FMA(v, 7) FMA(v, 8) FMA(v, 9) FMA(v, 10)                  \
                             FMA(v, 11) "dec %0\n\tjnz 1b"                                   \
                     : "+r"(rounds)                                                          \
                     :                                                                       \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
                       "xmm8", "xmm9", "xmm10", "xmm11")
#endif

static void peak_part(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    (void)begin;
    (void)end;
    (void)ctx;
#ifdef __x86_64__
    size_t rounds = ROUNDS;
    __asm__ volatile("vzeroall" ::
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                           "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    if (strncmp(ctx, "avx512", 6) == 0)
        PEAK("zmm", rounds);
    else
        PEAK("ymm", rounds);
#endif
}

/* GFLOP/s of multiply-adds in registers on all threads; 0 for a table without such a loop. */
static double peak_gflops(void)
{
    char name[16];
    snprintf(name, sizeof(name), "%s", dm_kern()->name);
    if (strcmp(name, "ref") == 0)
        return 0.0;
    const double lanes = strncmp(name, "avx512", 6) == 0 ? 16.0 : 8.0, t = dm_now();
    dm_par_for(dm_par_threads(), 1, peak_part, name);
    return 2.0 * 12.0 * lanes * (double)ROUNDS * (double)dm_par_threads() / (dm_now() - t) * 1e-9;
}

static void run_form(size_t form, const struct arrays *a, const struct shape *s)
{
    const struct dm_weight w = {
        .O = s->O, .C = s->C, .w = a->w, .pack = form == 1 ? a->pack : NULL};
    if (form < 2)
        dm_linear_forward(a->out, a->inp, &w, NULL, s->N);
    else if (form == 2)
        dm_linear_backward(a->dinp, NULL, NULL, a->out, NULL, &w, s->N);
    else
        dm_linear_backward(NULL, a->dw, NULL, a->out, a->inp, &w, s->N);
}

/* 200 elements of the result of one run on zeroed gradients against sums in double. */
static bool form_is_right(size_t form, const struct arrays *a, const struct shape *s)
{
    struct dm_rng r;
    dm_rng_init(&r, 1, form);
    memset(a->dinp, 0, s->N * s->C * sizeof(float));
    memset(a->dw, 0, s->O * s->C * sizeof(float));
    run_form(form, a, s);
    for (size_t i = 0; i < 200; i++) {
        const size_t n = dm_rng_below(&r, s->N), c = dm_rng_below(&r, s->C),
                     o = dm_rng_below(&r, s->O);
        const float *x = form < 2 ? a->inp + n * s->C : a->out + (form == 2 ? n * s->O : o);
        const float *y = form < 2 ? a->w + o * s->C : form == 2 ? a->w + c : a->inp + c;
        const size_t xs = form < 3 ? 1 : s->O, ys = form < 2 ? 1 : s->C;
        const size_t K = form < 2 ? s->C : form == 2 ? s->O : s->N;
        const float got = form < 2    ? a->out[n * s->O + o]
                          : form == 2 ? a->dinp[n * s->C + c]
                                      : a->dw[o * s->C + c];
        double want = 0.0, size = 0.0;
        for (size_t k = 0; k < K; k++) {
            const double t = (double)x[k * xs] * (double)y[k * ys];
            want += t;
            size += fabs(t);
        }
        if (!(fabs((double)got - want) <= 1e-6 * size))
            return false;
    }
    return true;
}

static int by_size(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static bool bench(size_t form, const struct arrays *a, const struct shape *s)
{
    double gflops[RUNS], share[RUNS], peaks[RUNS];
    const bool right = form_is_right(form, a, s);
    for (size_t i = 0; i < RUNS; i++) {
        peaks[i] = peak_gflops();
        const double t = dm_now();
        run_form(form, a, s);
        gflops[i] = 2e-9 * (double)s->N * (double)s->O * (double)s->C / (dm_now() - t);
        share[i] = peaks[i] > 0.0 ? gflops[i] / peaks[i] : 0.0;
    }
    qsort(gflops, RUNS, sizeof(*gflops), by_size);
    qsort(share, RUNS, sizeof(*share), by_size);
    qsort(peaks, RUNS, sizeof(*peaks), by_size);
    printf("{\"bench\": \"gemm\", \"isa\": \"%s\", \"threads\": %zu, \"form\": \"%s\", \"N\": %zu, "
           "\"O\": %zu, \"C\": %zu, \"gflops\": [%.1f, %.1f, %.1f], \"peak_gflops\": %.1f, "
           "\"share_of_peak\": [%.3f, %.3f, %.3f], \"right\": %s}\n",
           dm_kern()->name, dm_par_threads(), forms[form], s->N, s->O, s->C, gflops[0],
           gflops[RUNS / 2], gflops[RUNS - 1], peaks[RUNS / 2], share[0], share[RUNS / 2],
           share[RUNS - 1], right ? "true" : "false");
    fflush(stdout);
    return right;
}

static void fill(float *x, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(dm_mix64(stream * 0x1000000007u + i) >> 40) * 0x1p-23f - 1.0f;
}

static bool bench_shape(const struct shape *s)
{
    struct dm_weight w = {.O = s->O, .C = s->C};
    struct arrays a = {
        .inp = dm_alloc(s->N * s->C, sizeof(float)),
        .w = dm_alloc(s->O * s->C, sizeof(float)),
        .pack = dm_alloc(dm_linear_pack_bytes(&w), 1),
        .out = dm_alloc(s->N * s->O, sizeof(float)),
        .dinp = dm_alloc(s->N * s->C, sizeof(float)),
        .dw = dm_alloc(s->O * s->C, sizeof(float)),
    };
    assert(a.inp && a.w && a.pack && a.out && a.dinp && a.dw);
    fill(a.inp, s->N * s->C, 1);
    fill(a.w, s->O * s->C, 2);
    w.w = a.w;
    dm_linear_pack(a.pack, &w);
    bool right = true;
    for (size_t form = 0; form < sizeof(forms) / sizeof(*forms); form++)
        right = bench(form, &a, s) && right;
    free(a.inp);
    free(a.w);
    free(a.pack);
    free(a.out);
    free(a.dinp);
    free(a.dw);
    return right;
}

int main(int argc, char **argv)
{
    bool right = true;
    if (argc > 1)
        dm_par_set_threads(strtoul(argv[1], NULL, 10));
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        if (argc < 3 || strtoul(argv[2], NULL, 10) == i)
            right = bench_shape(&shapes[i]) && right;
    return right ? 0 : 1;
}
