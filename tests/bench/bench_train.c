/* SPDX-License-Identifier: MIT */
/* Optimiser steps on random weights and tokens, 4 sequences of 512: heads 2 and 3 on a frozen stem
 * (heads70m, heads160m) or the whole model (base70m). One JSON line per job.
 *
 *   bench_train [THREADS [JOB [f32|bf16]]]      all cores, all jobs and bf16 by default */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "train/step.h"

enum { B = 4, T = 512, RUNS = 5 };

static const struct job {
    const char *name, *size;
    enum dm_pass_kind kind;
} jobs[] = {
    {"heads70m", "70m", DM_PASS_HEADS},
    {"heads160m", "160m", DM_PASS_HEADS},
    {"base70m", "70m", DM_PASS_BASE},
};

static void check(enum dm_status st, const struct dm_err *e)
{
    if (!st)
        return;
    fprintf(stderr, "bench_train: %s\n", e->msg);
    exit(1);
}

/* Largest resident size so far, in MB. */
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

static void run_job(const struct job *j)
{
    struct dm_config c;
    struct dm_model m;
    struct dm_step s;
    struct dm_err e;
    struct dm_rng r;
    static int32_t ids[B * T];
    double rate[RUNS];
    check(dm_config_named(&c, j->size, &e), &e);
    c.K = j->kind == DM_PASS_HEADS ? 3 : 1;
    c.D = 1;
    check(dm_model_init(&m, &c, &e), &e);
    dm_params_init_random(&m.params, &c, DM_SCOPE_ALL, 1);
    if (j->kind == DM_PASS_HEADS)
        check(dm_model_pack(&m, DM_SCOPE_BASE, &e), &e);
    const struct dm_step_opt o = {.kind = j->kind,
                                  .micro = B,
                                  .T = T,
                                  .clip = 1.0,
                                  .adam = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
    check(dm_step_init(&s, &m, &o, &e), &e);
    dm_rng_init(&r, 1, 2);
    for (size_t i = 0; i < B * T; i++)
        ids[i] = (int32_t)dm_rng_below(&r, c.V);
    check(dm_step_run(&s, ids, B, 1e-4, &e), &e); // pages and caches
    const struct dm_pass_times before = dm_pass_times(s.pass);
    double seconds = 0.0;
    for (int i = 0; i < RUNS; i++) {
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
    printf("{\"job\":\"%s\",\"threads\":%zu,\"tokens_per_second\":[%.0f,%.0f,%.0f],"
           "\"gflops\":%.1f,\"peak_mb\":%.0f,\"ms_per_step\":{\"stem\":%.1f,\"heads\":%.1f,"
           "\"loss\":%.1f,\"backward\":%.1f,\"optimiser\":%.1f}}\n",
           j->name, dm_par_threads(), rate[0], rate[RUNS / 2], rate[RUNS - 1],
           1e-9 * rate[RUNS / 2] * dm_pass_flops(&c, j->kind, T), peak_mb(), stem * 1e3 / RUNS,
           heads * 1e3 / RUNS, loss * 1e3 / RUNS, backward * 1e3 / RUNS,
           (seconds - stem - heads - loss - backward) * 1e3 / RUNS);
    fflush(stdout);
    dm_step_release(&s);
    dm_model_release(&m);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        dm_par_set_threads((size_t)strtoul(argv[1], NULL, 10));
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
        if (argc <= 2 || strcmp(argv[2], jobs[i].name) == 0)
            run_job(&jobs[i]);
    return 0;
}
