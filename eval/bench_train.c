/* SPDX-License-Identifier: MIT */
/* bench_train.c - optimiser steps on random tokens: heads on a frozen base, and everything. */
#include <stdlib.h>

#include "eval/bench_impl.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"

struct train {
    enum dm_pass_kind kind;
    enum dm_format fmt;
    size_t B, T;
    struct dm_model m;
    void *trainer;
    int32_t *ids;
};

static enum dm_status train_new(struct train *t, struct dm_bench *b, struct dm_err *e)
{
    const struct dm_config *c = &b->opt.cfg;
    DM_TRY(dm_model_init(&t->m, c, e));
    dm_params_init_random(&t->m.params, c, DM_SCOPE_ALL, 1);
    dm_model_set_format(&t->m, t->fmt);
    if (t->kind == DM_PASS_HEADS)
        DM_TRY(dm_model_pack(&t->m, DM_SCOPE_BASE, e));
    t->ids = dm_alloc(t->B * t->T, sizeof(*t->ids));
    if (!t->ids)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_bench_ids(t->ids, t->B * t->T, c->V, 5);
    return b->trainer->begin(&t->trainer, &t->m, t->kind, t->B, t->T, e);
}

static void train_free(struct train *t, const struct dm_bench *b)
{
    if (t->trainer)
        b->trainer->end(t->trainer);
    dm_model_release(&t->m);
    free(t->ids);
}

static enum dm_status time_steps(struct dm_bench *b, struct train *t, const char *name,
                                 struct dm_err *e)
{
    double rate[DM_BENCH_RUNS_MAX], limit[DM_BENCH_RUNS_MAX];
    const double flops = dm_pass_flops(&t->m.cfg, t->kind, t->T), tokens = (double)(t->B * t->T);
    DM_TRY(dm_bench_next(b, DM_BENCH_TRAIN, name, e));
    DM_TRY(b->trainer->step(t->trainer, t->ids, t->B, e)); // faults the pages in
    for (size_t i = 0; i < b->opt.runs; i++) {
        DM_TRY(dm_bench_next(b, DM_BENCH_TRAIN, name, e));
        const double before = dm_peak_flops(t->fmt), start = dm_now();
        DM_TRY(b->trainer->step(t->trainer, t->ids, t->B, e));
        rate[i] = tokens / (dm_now() - start);
        limit[i] = 0.5 * (before + dm_peak_flops(t->fmt)) * 1e9 / flops;
    }
    const double mb = 1e-6 * (double)dm_bench_peak_memory();
    struct dm_bench_row *r = dm_bench_row_new(b, DM_BENCH_TRAIN, name, (int)t->fmt);
    if (!r)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_bench_row_add(r, "peak_mb", &mb, 1);
    dm_bench_row_add_share(r, "tokens_per_s", rate, "limit_tokens_per_s", limit, b->opt.runs);
    return DM_OK;
}

static enum dm_status bench_kind(struct dm_bench *b, enum dm_pass_kind kind, enum dm_format fmt,
                                 struct dm_err *e)
{
    struct train t = {.kind = kind, .fmt = fmt, .B = 4, .T = 512};
    char name[80];
    if (b->opt.quick || b->opt.cfg.T_max < t.T) {
        t.B = 1;
        t.T = b->opt.cfg.T_max < 64 ? b->opt.cfg.T_max : 64;
    }
    snprintf(name, sizeof(name), "%s, batch %zux%zu",
             kind == DM_PASS_HEADS ? "heads, frozen base" : "whole model", t.B, t.T);
    dm_bench_drop_mem(b); // the peak shall be the training's
    dm_bench_reset_peak_memory();
    enum dm_status st = dm_bench_next(b, DM_BENCH_TRAIN, name, e);
    if (!st)
        st = train_new(&t, b, e);
    for (size_t i = 0; i < b->opt.n_threads && !st; i++) {
        dm_bench_use_threads(b, i);
        st = time_steps(b, &t, name, e);
    }
    train_free(&t, b);
    return st;
}

enum dm_status dm_bench_train(struct dm_bench *b, struct dm_err *e)
{
    if (!b->trainer)
        return DM_OK;
    for (int fmt = DM_FMT_F32; fmt <= DM_FMT_BF16; fmt++) {
        if (!b->opt.fmt[fmt])
            continue;
        if (b->opt.cfg.K > 1)
            DM_TRY(bench_kind(b, DM_PASS_HEADS, (enum dm_format)fmt, e));
        DM_TRY(bench_kind(b, DM_PASS_BASE, (enum dm_format)fmt, e));
    }
    return DM_OK;
}
