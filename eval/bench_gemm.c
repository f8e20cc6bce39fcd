/* SPDX-License-Identifier: MIT */
/* bench_gemm.c - the linear layers alone: many rows against the peak loop, few rows against the
 * bandwidth probe. */
#include <stdlib.h>
#include <string.h>

#include "eval/bench_impl.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/nn/linear.h"

static enum dm_status limits_row(struct dm_bench *b, const char *name, const char *unit, int fmt,
                                 double (*measure)(const struct dm_bench *, int), struct dm_err *e)
{
    double x[DM_BENCH_RUNS_MAX];
    DM_TRY(dm_bench_next(b, DM_BENCH_LIMITS, name, e));
    for (size_t i = 0; i < b->opt.runs; i++)
        x[i] = measure(b, fmt);
    struct dm_bench_row *r = dm_bench_row_new(b, DM_BENCH_LIMITS, name, fmt);
    if (!r)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_bench_row_add(r, unit, x, b->opt.runs);
    return DM_OK;
}

static double peak(const struct dm_bench *b, int fmt)
{
    (void)b;
    return dm_peak_flops((enum dm_format)fmt);
}

static double bandwidth(const struct dm_bench *b, int fmt)
{
    (void)fmt;
    return dm_peak_bandwidth(&b->mem);
}

static double fork_join(const struct dm_bench *b, int fmt)
{
    (void)b;
    (void)fmt;
    return dm_peak_fork_join() * 1e6;
}

enum dm_status dm_bench_limits(struct dm_bench *b, struct dm_err *e)
{
    DM_TRY(dm_bench_need_mem(b, e));
    for (size_t t = 0; t < b->opt.n_threads; t++) {
        dm_bench_use_threads(b, t);
        for (int fmt = DM_FMT_F32; fmt <= DM_FMT_INT8; fmt++)
            if (b->opt.fmt[fmt] || (fmt == DM_FMT_INT8 && b->opt.fmt[DM_FMT_INT4]))
                DM_TRY(
                    limits_row(b, dm_peak_operation((enum dm_format)fmt), "gflops", fmt, peak, e));
        DM_TRY(limits_row(b, "memory read", "gb_per_s", -1, bandwidth, e));
        DM_TRY(limits_row(b, "empty parallel region", "us", -1, fork_join, e));
    }
    return DM_OK;
}

/* ---- Many rows ------------------------------------------------------------------------------- */

struct shape {
    const char *name;
    size_t N, O, C; /* rows, outputs, inputs */
};

/* With the packs of frozen weights, and as weights that change are used: packed in every call. */
enum form { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, FORWARD_UNPACKED, INPUT_UNPACKED, N_FORMS };
static const char *const forms[] = {"forward", "input gradient", "weight gradient",
                                    "forward, packing", "input gradient, packing"};

struct arrays {
    struct dm_weight w;
    float *inp, *out, *dinp, *dw, *values; /* out doubles as dout of the gradients */
    void *pack, *pack_t;
};

static void arrays_free(struct arrays *a)
{
    free(a->inp);
    free(a->out);
    free(a->dinp);
    free(a->dw);
    free(a->values);
    free(a->pack);
    free(a->pack_t);
}

static enum dm_status arrays_new(struct arrays *a, enum dm_format fmt, const struct shape *s,
                                 struct dm_err *e)
{
    *a = (struct arrays){.w = {.fmt = fmt, .O = s->O, .C = s->C}};
    a->inp = dm_alloc_huge(s->N * s->C, sizeof(float));
    a->out = dm_alloc_huge(s->N * s->O, sizeof(float));
    a->dinp = dm_alloc_huge(s->N * s->C, sizeof(float));
    a->dw = dm_alloc_huge(s->O * s->C, sizeof(float));
    a->values = dm_alloc_huge(s->O * s->C, sizeof(float));
    a->pack = dm_alloc_huge(dm_linear_pack_bytes(&a->w), 1);
    a->pack_t = dm_alloc_huge(dm_linear_pack_t_bytes(&a->w), 1);
    if (!a->inp || !a->out || !a->dinp || !a->dw || !a->values || !a->pack || !a->pack_t) {
        arrays_free(a);
        return dm_fail(e, DM_ENOMEM, "out of memory for a product of (%zu,%zu,%zu)", s->N, s->O,
                       s->C);
    }
    a->w.w = a->values;
    dm_bench_fill(a->inp, s->N * s->C, 1);
    dm_bench_fill(a->values, s->O * s->C, 2);
    dm_bench_fill(a->out, s->N * s->O, 3);
    dm_linear_pack(a->pack, &a->w);
    dm_linear_pack_t(a->pack_t, &a->w);
    return DM_OK;
}

static void run_form(enum form form, const struct arrays *a, size_t N)
{
    struct dm_weight w = a->w;
    if (form == FORWARD || form == INPUT_GRADIENT) {
        w.pack = a->pack;
        w.pack_t = a->pack_t;
    }
    if (form == FORWARD || form == FORWARD_UNPACKED)
        dm_linear_forward(a->out, a->inp, &w, NULL, N);
    else if (form == WEIGHT_GRADIENT)
        dm_linear_backward(NULL, a->dw, NULL, a->out, DM_F32, a->inp, &w, N);
    else
        dm_linear_backward(a->dinp, NULL, NULL, a->out, DM_F32, NULL, &w, N);
}

/* A run in slices, each between two peak loops and as long as they are together or longer. */
static void time_products(const struct dm_bench *b, enum form form, const struct arrays *a,
                          const struct shape *s, double *rate, double *limit)
{
    const double flop = 2.0 * (double)s->N * (double)s->O * (double)s->C;
    double seconds = 0.0, peaks = 0.0;
    size_t n = 0;
    for (size_t k = 0; k < DM_BENCH_SLICES; k++) {
        const double before = dm_peak_flops(a->w.fmt), t = dm_now();
        double spent;
        do {
            run_form(form, a, s->N);
            spent = dm_now() - t;
            n++;
        } while (spent < 0.008 && !b->opt.quick);
        seconds += spent;
        peaks += 0.5 * (before + dm_peak_flops(a->w.fmt)) / DM_BENCH_SLICES;
    }
    *rate = 1e-9 * flop * (double)n / seconds;
    *limit = peaks;
}

static enum dm_status time_form(struct dm_bench *b, enum form form, const struct arrays *a,
                                const struct shape *s, struct dm_err *e)
{
    double rate[DM_BENCH_RUNS_MAX], limit[DM_BENCH_RUNS_MAX];
    char name[80];
    snprintf(name, sizeof(name), "%s %zux%zux%zu %s", s->name, s->N, s->O, s->C, forms[form]);
    DM_TRY(dm_bench_next(b, DM_BENCH_GEMM, name, e));
    run_form(form, a, s->N); // faults the pages in
    for (size_t i = 0; i < b->opt.runs; i++)
        time_products(b, form, a, s, &rate[i], &limit[i]);
    struct dm_bench_row *r = dm_bench_row_new(b, DM_BENCH_GEMM, name, (int)a->w.fmt);
    if (!r)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_bench_row_add_share(r, "gflops", rate, "peak_gflops", limit, b->opt.runs);
    return DM_OK;
}

static enum dm_status bench_shape(struct dm_bench *b, enum dm_format fmt, const struct shape *s,
                                  struct dm_err *e)
{
    struct arrays a;
    enum dm_status st = arrays_new(&a, fmt, s, e);
    const int n_forms = b->opt.quick ? FORWARD_UNPACKED : N_FORMS;
    if (st)
        return st;
    for (size_t t = 0; t < b->opt.n_threads; t++) {
        dm_bench_use_threads(b, t);
        for (int form = 0; form < n_forms; form++)
            DM_TRY_GOTO(time_form(b, (enum form)form, &a, s, e));
    }
done:
    arrays_free(&a);
    return st;
}

enum dm_status dm_bench_gemm(struct dm_bench *b, struct dm_err *e)
{
    const struct dm_config *c = &b->opt.cfg;
    const size_t N = b->opt.quick ? 64 : c->C < 2048 ? 1024 : 512;
    const struct shape shapes[] = {
        {"qkv", N, 3 * c->C, c->C}, {"proj", N, c->C, c->C},    {"up", N, c->F, c->C},
        {"down", N, c->C, c->F},    {"logits", N, c->Vp, c->C},
    };
    for (int fmt = DM_FMT_F32; fmt <= DM_FMT_BF16; fmt++)
        for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes) && b->opt.fmt[fmt]; i++)
            DM_TRY(bench_shape(b, (enum dm_format)fmt, &shapes[i], e));
    return DM_OK;
}

/* ---- Few rows -------------------------------------------------------------------------------- */

/* Copies of one pack, read in turn, so that every call reads memory and no cache. */
struct packs {
    struct dm_weight w;
    struct dm_peak_mem mem; /* as a model's packs: in huge pages */
    size_t bytes, n, next;
    float *inp, *out; /* 8 rows */
};

static void packs_free(struct packs *p)
{
    dm_peak_mem_release(&p->mem);
    free(p->inp);
    free(p->out);
}

static enum dm_status packs_new(struct packs *p, struct dm_bench *b, enum dm_format fmt,
                                struct dm_err *e)
{
    const struct dm_config *c = &b->opt.cfg;
    const size_t want = (b->opt.quick ? (size_t)8 : (size_t)512) << 20;
    *p = (struct packs){.w = {.fmt = fmt, .O = c->Vp, .C = c->C}};
    p->bytes = (dm_linear_pack_bytes(&p->w) + DM_ALIGN - 1) / DM_ALIGN * DM_ALIGN;
    p->n = (want + p->bytes - 1) / p->bytes;
    DM_TRY(dm_peak_mem_init(&p->mem, p->n * p->bytes, e));
    p->inp = dm_alloc(8 * c->C, sizeof(float));
    p->out = dm_alloc(8 * c->Vp, sizeof(float));
    float *values = dm_alloc(c->Vp * c->C, sizeof(float));
    if (!p->inp || !p->out || !values) {
        packs_free(p);
        free(values);
        return dm_fail(e, DM_ENOMEM, "out of memory for weights of %zu MB", want >> 20);
    }
    dm_bench_fill(p->inp, 8 * c->C, 1);
    dm_bench_fill(values, c->Vp * c->C, 2);
    p->w.w = values;
    char *first = p->mem.p;
    dm_linear_pack(first, &p->w);
    p->w.w = NULL;
    free(values);
    for (size_t i = 1; i < p->n; i++)
        memcpy(first + i * p->bytes, first, p->bytes);
    return DM_OK;
}

/* Seconds of n products, each with the next copy. */
static double stream_packs(struct packs *p, size_t rows, size_t n)
{
    const double t = dm_now();
    for (size_t i = 0; i < n; i++, p->next = (p->next + 1) % p->n) {
        p->w.pack = (const char *)p->mem.p + p->next * p->bytes;
        dm_linear_forward(p->out, p->inp, &p->w, NULL, rows);
    }
    return dm_now() - t;
}

/* All copies once, in slices: 512 MiB or more. */
static void time_slices(struct dm_bench *b, struct packs *p, size_t rows, double *rate,
                        double *limit)
{
    const size_t n = (p->n + DM_BENCH_SLICES - 1) / DM_BENCH_SLICES;
    double seconds = 0.0, probe = 0.0;
    for (size_t k = 0; k < DM_BENCH_SLICES; k++) {
        const double before = dm_bench_probe(b);
        seconds += stream_packs(p, rows, n);
        probe += 0.5 * (before + dm_bench_probe(b)) / DM_BENCH_SLICES;
    }
    *rate = 1e-9 * (double)(DM_BENCH_SLICES * n) * (double)p->bytes / seconds;
    *limit = probe;
}

static enum dm_status time_rows(struct dm_bench *b, struct packs *p, size_t rows, struct dm_err *e)
{
    double rate[DM_BENCH_RUNS_MAX], limit[DM_BENCH_RUNS_MAX];
    char name[80];
    snprintf(name, sizeof(name), "%zu row%s x %zux%zu", rows, rows > 1 ? "s" : "", p->w.O, p->w.C);
    DM_TRY(dm_bench_next(b, DM_BENCH_FEW, name, e));
    for (size_t i = 0; i < b->opt.runs; i++)
        time_slices(b, p, rows, &rate[i], &limit[i]);
    struct dm_bench_row *r = dm_bench_row_new(b, DM_BENCH_FEW, name, (int)p->w.fmt);
    if (!r)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_bench_row_add_share(r, "gb_per_s", rate, "probe_gb_per_s", limit, b->opt.runs);
    return DM_OK;
}

enum dm_status dm_bench_few(struct dm_bench *b, struct dm_err *e)
{
    static const size_t rows[] = {1, 2, 3, 4, 8};
    DM_TRY(dm_bench_need_mem(b, e));
    for (int fmt = 0; fmt < DM_BENCH_FORMATS; fmt++) {
        struct packs p;
        enum dm_status st;
        if (!b->opt.fmt[fmt])
            continue;
        DM_TRY(packs_new(&p, b, (enum dm_format)fmt, e));
        for (size_t t = 0; t < b->opt.n_threads; t++) {
            dm_bench_use_threads(b, t);
            for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
                DM_TRY_GOTO(time_rows(b, &p, rows[i], e));
        }
    done:
        packs_free(&p);
        if (st)
            return st;
    }
    return DM_OK;
}
