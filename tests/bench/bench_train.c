/* SPDX-License-Identifier: MIT */
/* Optimiser steps on random weights and tokens, 4 sequences of 512: heads 2 and 3 on a frozen stem
 * (heads70m, heads160m), which comes from a file as in `dynamo train`, or the whole model
 * (base70m). One JSON line per job: tokens/s as [least, median, most] of 5 steps; `bound`, the
 * tokens/s at which the model's operations alone would take all of the peak (the median of loops in
 * registers before every step); the share of it that the median step reached, which is its MFU;
 * largest memory; and where the time of a step went.
 *
 *   bench_train [THREADS [JOB [f32|bf16]]]      all cores, all jobs and bf16 by default */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/kernel/peak.h"
#include "src/model/file.h"
#include "train/step.h"

enum { B = 4, T = 512, RUNS = 5 };

static const struct job {
    const char *name, *size;
    enum dm_pass_kind kind;
} jobs[] = {
    {"heads70m", "70m", DM_PASS_HEADS},
    {"heads160m", "160m", DM_PASS_HEADS},
    {"base70m", "70m", DM_PASS_BASE},
    {"joint70m", "70m", DM_PASS_JOINT}, // heads 2 and 3 with their base
};

static void check(enum dm_status st, const struct dm_err *e)
{
    if (!st)
        return;
    fprintf(stderr, "bench_train: %s\n", e->msg);
    exit(1);
}

/* Largest resident size since the last peak_reset(), in MB; 0 where Linux does not tell. */
static void peak_reset(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f) {
        fputs("5", f);
        fclose(f);
    }
}

static double peak_mb(void)
{
    char line[256];
    unsigned long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "VmHWM: %lu", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return (double)kb * 1024e-6;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void whole_model(struct dm_model *m, const char *size, size_t K, enum dm_format fmt)
{
    struct dm_config c;
    struct dm_err e;
    check(dm_config_named(&c, size, &e), &e);
    c.K = K;
    check(dm_model_init(m, &c, &e), &e);
    dm_params_init_random(&m->params, &c, DM_SCOPE_ALL, 1);
    dm_model_set_format(m, fmt);
}

/* Through a file, so that the float32 weights are gone before anything is measured. */
static void frozen_model(struct dm_model *m, const char *size, enum dm_format fmt)
{
    struct dm_err e;
    char path[64];
    const struct dm_model_meta meta = {.provenance = (char[]){"{}"}};
    const struct dm_load_opt load = {
        .format = (int)fmt, .gradients = true, .K = 3, .D = 1, .copy = true};
    snprintf(path, sizeof(path), "/tmp/bench_train.%d.h5", (int)getpid());
    whole_model(m, size, 1, fmt);
    check(dm_model_save(m, &meta, path, NULL, DM_BF16, DM_BF16, &e), &e);
    dm_model_release(m);
    peak_reset();
    enum dm_status st = dm_model_load(m, path, &load, NULL, &e);
    unlink(path);
    check(st, &e);
}

static void run_job(const struct job *j, enum dm_format fmt)
{
    struct dm_model m;
    struct dm_step s;
    struct dm_err e;
    struct dm_rng r;
    static int32_t ids[B * T];
    double rate[RUNS], peak[RUNS];
    peak_reset();
    if (j->kind == DM_PASS_HEADS)
        frozen_model(&m, j->size, fmt);
    else
        whole_model(&m, j->size, j->kind == DM_PASS_JOINT ? 3 : 1, fmt);
    const struct dm_step_opt o = {.kind = j->kind,
                                  .micro = B,
                                  .T = T,
                                  .clip = 1.0,
                                  .adam = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
    check(dm_step_init(&s, &m, &o, &e), &e);
    dm_rng_init(&r, 1, 2);
    for (size_t i = 0; i < B * T; i++)
        ids[i] = (int32_t)dm_rng_below(&r, m.cfg.V);
    check(dm_step_run(&s, ids, B, 1e-4, &e), &e); // pages and caches
    const struct dm_pass_times before = dm_pass_times(s.pass);
    double seconds = 0.0;
    for (int i = 0; i < RUNS; i++) {
        peak[i] = dm_peak_flops(fmt);
        const double t = dm_now();
        check(dm_step_run(&s, ids, B, 1e-4, &e), &e);
        const double step = dm_now() - t;
        seconds += step;
        rate[i] = B * T / step;
    }
    const struct dm_pass_times after = dm_pass_times(s.pass);
    const double stem = after.stem - before.stem, heads = after.heads - before.heads,
                 loss = after.loss - before.loss, backward = after.backward - before.backward;
    qsort(rate, RUNS, sizeof(rate[0]), by_value);
    qsort(peak, RUNS, sizeof(peak[0]), by_value);
    const double bound = peak[RUNS / 2] * 1e9 / dm_pass_flops(&m.cfg, j->kind, T);
    printf("{\"job\":\"%s\",\"precision\":\"%s\",\"threads\":%zu,"
           "\"tokens_per_second\":[%.0f,%.0f,%.0f],\"peak_gflops\":[%.0f,%.0f,%.0f],"
           "\"bound\":%.0f,\"share\":%.3f,\"peak_mb\":%.0f,",
           j->name, fmt == DM_FMT_F32 ? "f32" : "bf16", dm_par_threads(), rate[0], rate[RUNS / 2],
           rate[RUNS - 1], peak[0], peak[RUNS / 2], peak[RUNS - 1], bound, rate[RUNS / 2] / bound,
           peak_mb());
    printf("\"ms_per_step\":{\"stem\":%.1f,\"heads\":%.1f,\"loss\":%.1f,\"backward\":%.1f,"
           "\"optimiser\":%.1f}}\n",
           stem * 1e3 / RUNS, heads * 1e3 / RUNS, loss * 1e3 / RUNS, backward * 1e3 / RUNS,
           (seconds - stem - heads - loss - backward) * 1e3 / RUNS);
    fflush(stdout);
    dm_step_release(&s);
    dm_model_release(&m);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        dm_par_set_threads((size_t)strtoul(argv[1], NULL, 10));
    const enum dm_format fmt = argc > 3 && strcmp(argv[3], "f32") == 0 ? DM_FMT_F32 : DM_FMT_BF16;
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
        if (argc <= 2 || strcmp(argv[2], jobs[i].name) == 0)
            run_job(&jobs[i], fmt);
    return 0;
}
