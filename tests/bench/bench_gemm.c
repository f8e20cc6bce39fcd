/* SPDX-License-Identifier: MIT */
/* Matrix products of dm_linear at training shapes against the peak of the cores, and of few rows
 * against the bandwidth of memory; both limits are measured just before every product. One JSON
 * line per shape and form, [min, median, max] of 5.
 *
 *   bench_gemm [THREADS [FORMAT [few | SHAPE-NUMBER]]]      by default all cores, formats and
 * shapes
 *
 * Exits 1 only when a result is wrong. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/dtype.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/kernel/kern.h"
#include "src/kernel/peak.h"
#include "src/nn/linear.h"

#define RUNS 5
#define PROBE_BYTES ((size_t)512 << 20)

struct shape {
    size_t N, O, C; /* rows, outputs, inputs: (M,N,K) of the forward product */
};

static const struct shape shapes[] = {
    {1024, 2048, 512},  {1024, 512, 2048},  {1024, 50304, 512}, {1024, 3072, 768},
    {1024, 50304, 768}, {1024, 4096, 1024}, {512, 8192, 2048},
};
static const struct shape few_shapes[] = {{8, 50304, 512}, {8, 50304, 2048}, {8, 1536, 512}};
static const size_t few_rows[] = {1, 2, 3, 4, 8};

enum form { FORWARD, FORWARD_PACKED, INPUT, INPUT_PACKED, WEIGHT, FORMS };
static const char *const form_names[] = {"forward", "forward_packed", "input_gradient",
                                         "input_gradient_packed", "weight_gradient"};
static const char *const format_names[] = {"f32", "bf16"};

struct arrays {
    struct dm_weight w;
    void *pack, *pack_t;
    float *inp, *out; /* out doubles as dout of the gradients */
    float *dinp, *dw;
};

static void run_form(enum form form, const struct arrays *a, size_t N)
{
    struct dm_weight w = a->w;
    w.pack = form == FORWARD_PACKED ? a->pack : NULL;
    w.pack_t = form == INPUT_PACKED ? a->pack_t : NULL;
    if (form == FORWARD || form == FORWARD_PACKED)
        dm_linear_forward(a->out, a->inp, &w, NULL, N);
    else if (form == WEIGHT)
        dm_linear_backward(NULL, a->dw, NULL, a->out, DM_F32, a->inp, &w, N);
    else
        dm_linear_backward(a->dinp, NULL, NULL, a->out, DM_F32, NULL, &w, N);
}

static double as_format(float x, enum dm_format fmt)
{
    unsigned char h[2];
    if (fmt == DM_FMT_F32)
        return x;
    dm_dtype_from_f32(h, DM_BF16, &x, 1);
    dm_dtype_to_f32(&x, h, DM_BF16, 1);
    return x;
}

/* 200 elements of the result of one run on zeroed gradients against sums in double. */
static bool form_is_right(enum form form, const struct arrays *a, size_t N)
{
    const size_t O = a->w.O, C = a->w.C;
    const bool forward = form == FORWARD || form == FORWARD_PACKED;
    struct dm_rng r;
    dm_rng_init(&r, 1, (uint64_t)form);
    memset(a->dinp, 0, N * C * sizeof(float));
    if (form == WEIGHT)
        memset(a->dw, 0, O * C * sizeof(float));
    run_form(form, a, N);
    for (size_t i = 0; i < 200; i++) {
        const size_t n = dm_rng_below(&r, N), c = dm_rng_below(&r, C), o = dm_rng_below(&r, O);
        const float *x = forward ? a->inp + n * C : a->out + (form == WEIGHT ? o : n * O);
        const float *y = forward ? a->w.w + o * C : form == WEIGHT ? a->inp + c : a->w.w + c;
        const size_t xs = form == WEIGHT ? O : 1, ys = forward ? 1 : C;
        const size_t K = forward ? C : form == WEIGHT ? N : O;
        const float got = forward          ? a->out[n * O + o]
                          : form == WEIGHT ? a->dw[o * C + c]
                                           : a->dinp[n * C + c];
        double want = 0.0, size = 0.0;
        for (size_t k = 0; k < K; k++) {
            const double t = as_format(x[k * xs], a->w.fmt) * as_format(y[k * ys], a->w.fmt);
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

/* `unit`: what is counted per run, flops or bytes. With a probe the limit is its bandwidth, else
 * the peak of the cores. */
static bool bench(enum form form, const struct arrays *a, size_t N, double count,
                  const struct dm_peak_mem *probe)
{
    double speed[RUNS], share[RUNS], limits[RUNS];
    const bool right = form_is_right(form, a, N);
    for (size_t i = 0; i < RUNS; i++) {
        limits[i] = probe ? dm_peak_bandwidth(probe) : dm_peak_flops(a->w.fmt);
        const double t = dm_now();
        run_form(form, a, N);
        speed[i] = count * 1e-9 / (dm_now() - t);
        share[i] = speed[i] / limits[i];
    }
    qsort(speed, RUNS, sizeof(*speed), by_size);
    qsort(share, RUNS, sizeof(*share), by_size);
    qsort(limits, RUNS, sizeof(*limits), by_size);
    printf("{\"bench\": \"%s\", \"isa\": \"%s\", \"format\": \"%s\", \"threads\": %zu, "
           "\"form\": \"%s\", \"N\": %zu, \"O\": %zu, \"C\": %zu, \"%s\": [%.1f, %.1f, %.1f], "
           "\"limit\": [%.1f, %.1f, %.1f], \"share\": [%.3f, %.3f, %.3f], \"right\": %s}\n",
           probe ? "few_rows" : "gemm", dm_kern()->name, format_names[a->w.fmt], dm_par_threads(),
           form_names[form], N, a->w.O, a->w.C, probe ? "gb_per_s" : "gflops", speed[0],
           speed[RUNS / 2], speed[RUNS - 1], limits[0], limits[RUNS / 2], limits[RUNS - 1],
           share[0], share[RUNS / 2], share[RUNS - 1], right ? "true" : "false");
    fflush(stdout);
    return right;
}

static void fill(float *x, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(dm_mix64(stream * 0x1000000007u + i) >> 40) * 0x1p-23f - 1.0f;
}

/* With a probe: few rows against the packed weights. */
static bool bench_shape(const struct shape *s, enum dm_format fmt, const struct dm_peak_mem *probe)
{
    float *w = dm_alloc_huge(s->O * s->C, sizeof(float));
    struct arrays a = {.w = {.fmt = fmt, .O = s->O, .C = s->C, .w = w}};
    a.pack = dm_alloc_huge(dm_linear_pack_bytes(&a.w), 1);
    a.pack_t = dm_alloc_huge(dm_linear_pack_t_bytes(&a.w), 1);
    a.inp = dm_alloc_huge(s->N * s->C, sizeof(float));
    a.out = dm_alloc_huge(s->N * s->O, sizeof(float));
    a.dinp = dm_alloc_huge(s->N * s->C, sizeof(float));
    a.dw = dm_alloc_huge(s->O * s->C, sizeof(float));
    assert(w && a.pack && a.pack_t && a.inp && a.out && a.dinp && a.dw);
    fill(a.inp, s->N * s->C, 1);
    fill(w, s->O * s->C, 2);
    dm_linear_pack(a.pack, &a.w);
    dm_linear_pack_t(a.pack_t, &a.w);
    bool right = true;
    if (probe)
        for (size_t i = 0; i < sizeof(few_rows) / sizeof(*few_rows); i++)
            right = bench(FORWARD_PACKED, &a, few_rows[i], (double)dm_linear_pack_bytes(&a.w),
                          probe) &&
                    right;
    else
        for (int form = 0; form < FORMS; form++)
            right = bench((enum form)form, &a, s->N,
                          2.0 * (double)s->N * (double)s->O * (double)s->C, NULL) &&
                    right;
    free(w);
    free(a.pack);
    free(a.pack_t);
    free(a.inp);
    free(a.out);
    free(a.dinp);
    free(a.dw);
    return right;
}

static bool bench_few(enum dm_format fmt)
{
    struct dm_peak_mem probe;
    struct dm_err e;
    bool right = true;
    if (dm_peak_mem_init(&probe, PROBE_BYTES, &e)) {
        fprintf(stderr, "bench_gemm: %s\n", e.msg);
        return false;
    }
    for (size_t i = 0; i < sizeof(few_shapes) / sizeof(*few_shapes); i++)
        right = bench_shape(&few_shapes[i], fmt, &probe) && right;
    dm_peak_mem_release(&probe);
    return right;
}

int main(int argc, char **argv)
{
    bool right = true;
    if (argc > 1)
        dm_par_set_threads(strtoul(argv[1], NULL, 10));
    for (int fmt = DM_FMT_F32; fmt <= DM_FMT_BF16; fmt++) {
        if (argc > 2 && strcmp(argv[2], format_names[fmt]))
            continue;
        for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
            if (argc < 4 || (argv[3][0] != 'f' && strtoul(argv[3], NULL, 10) == i))
                right = bench_shape(&shapes[i], (enum dm_format)fmt, NULL) && right;
        if (argc < 4 || strcmp(argv[3], "few") == 0)
            right = bench_few((enum dm_format)fmt) && right;
    }
    return right ? 0 : 1;
}
