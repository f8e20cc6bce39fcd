/* SPDX-License-Identifier: MIT */
#include "eval/bench.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/bench_impl.h"
#include "eval/stats.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/model/file.h"

const char *const dm_bench_words[DM_BENCH_N] = {
#define X(id, word, title) word,
    DM_BENCH_LIST(X)
#undef X
};
const char *const dm_bench_titles[DM_BENCH_N] = {
#define X(id, word, title) title,
    DM_BENCH_LIST(X)
#undef X
};
const char *const dm_bench_formats[] = {"f32", "bf16", "int8", "int4", NULL};

struct dm_bench_opt dm_bench_opt_default(void)
{
    struct dm_bench_opt o = {.threads = {1}, .n_threads = 1, .runs = 5};
    const size_t all = dm_par_threads();
    if (all > 1)
        o.threads[o.n_threads++] = all;
    for (int i = 0; i < DM_BENCH_FORMATS; i++)
        o.fmt[i] = true;
    for (int i = 0; i < DM_BENCH_N; i++)
        o.what[i] = true;
    dm_config_named(&o.cfg, "70m", NULL);
    o.cfg.K = 3;
    o.cfg.D = 1;
    return o;
}

enum dm_status dm_bench_next(struct dm_bench *b, enum dm_bench_what what, const char *text,
                             struct dm_err *e)
{
    if (b->fn && !b->fn(b->ctx, b, what, text))
        return dm_fail(e, DM_ESTOPPED, "stopped");
    return DM_OK;
}

struct dm_bench_row *dm_bench_row_new(struct dm_bench *b, enum dm_bench_what what, const char *name,
                                      int fmt)
{
    if (b->n_rows == b->cap) {
        const size_t cap = b->cap ? 2 * b->cap : 64;
        struct dm_bench_row *rows = dm_realloc(b->rows, cap, sizeof(*rows));
        if (!rows)
            return NULL;
        b->rows = rows;
        b->cap = cap;
    }
    struct dm_bench_row *r = &b->rows[b->n_rows++];
    *r = (struct dm_bench_row){.what = what, .fmt = fmt, .threads = dm_par_threads()};
    snprintf(r->name, sizeof(r->name), "%s", name);
    return r;
}

void dm_bench_row_add(struct dm_bench_row *r, const char *name, const double *x, size_t n)
{
    double s[DM_BENCH_RUNS_MAX];
    if (!r || r->n_values == DM_BENCH_VALUES || n == 0)
        return;
    memcpy(s, x, n * sizeof(*s));
    dm_sort(s, n);
    const struct dm_bench_spread spread = {s[0], dm_median(s, n), s[n - 1]};
    r->value[r->n_values].name = name;
    r->value[r->n_values++].s = spread;
}

void dm_bench_row_add_share(struct dm_bench_row *r, const char *rate_name, const double *rate,
                            const char *limit_name, const double *limit, size_t n)
{
    double share[DM_BENCH_RUNS_MAX];
    for (size_t i = 0; i < n; i++)
        share[i] = rate[i] / limit[i];
    dm_bench_row_add(r, rate_name, rate, n);
    dm_bench_row_add(r, limit_name, limit, n);
    dm_bench_row_add(r, "share", share, n);
}

const struct dm_bench_spread *dm_bench_value(const struct dm_bench_row *r, const char *name)
{
    for (size_t i = 0; i < r->n_values; i++)
        if (strcmp(r->value[i].name, name) == 0)
            return &r->value[i].s;
    return NULL;
}

/* 2 GiB; a probe beside a measurement reads a part of it that no cache holds: each time the next
 * one, 4 times the largest cache that we know. */
enum dm_status dm_bench_need_mem(struct dm_bench *b, struct dm_err *e)
{
    if (b->mem.p)
        return DM_OK;
    const size_t before = dm_par_threads();
    dm_bench_use_threads(b, b->opt.n_threads - 1);
    const enum dm_status st = dm_peak_mem_init(
        &b->mem, b->opt.quick ? (size_t)16 << 20 : (size_t)2 << 30, e);
    dm_par_set_threads(before);
    return st;
}

void dm_bench_drop_mem(struct dm_bench *b)
{
    dm_peak_mem_release(&b->mem);
}

double dm_bench_probe(struct dm_bench *b)
{
    const size_t part = (size_t)128 << 20;
    if (b->mem.bytes < 2 * part)
        return dm_peak_bandwidth(&b->mem);
    const size_t at = b->probe_at + part <= b->mem.bytes ? b->probe_at : 0;
    b->probe_at = at + part;
    return dm_peak_bandwidth(&(struct dm_peak_mem){(char *)b->mem.p + at, part});
}

enum { CACHED_MAX = 1 << 30 };

bool dm_bench_warm(const struct dm_bench *b, size_t bytes, size_t n, double seconds)
{
    if (b->opt.quick || bytes > CACHED_MAX)
        return n < 1;
    return n < 3 || (n < 60 && seconds < 0.5);
}

double dm_bench_probe_again(struct dm_bench *b, size_t bytes)
{
    const double aim = b->opt.quick ? 0.0 : 0.01, start = dm_now();
    double seconds = 0.0, gb = 0.0;
    if (bytes > CACHED_MAX)
        return dm_bench_probe(b);
    // whole huge pages, as many for each thread
    const size_t unit = dm_par_threads() << 21, want = (bytes + unit - 1) / unit * unit;
    const struct dm_peak_mem part = {b->mem.p, want < b->mem.bytes ? want : b->mem.bytes};
    for (size_t n = 0; dm_bench_warm(b, bytes, n, dm_now() - start); n++)
        dm_peak_bandwidth(&part);
    do {
        const double rate = dm_peak_bandwidth(&part);
        gb += 1e-9 * (double)part.bytes;
        seconds += 1e-9 * (double)part.bytes / rate;
    } while (seconds < aim);
    return gb / seconds;
}

void dm_bench_use_threads(const struct dm_bench *b, size_t i)
{
    dm_par_set_threads(b->opt.threads[i]);
}

enum dm_status dm_bench_model(struct dm_bench *b, struct dm_model *m, enum dm_format fmt,
                              struct dm_err *e)
{
    if (b->opt.model)
        return dm_model_load(m, b->opt.model, &(struct dm_load_opt){.format = (int)fmt}, NULL, e);
    return dm_model_random(m, &b->opt.cfg, fmt, 1, e);
}

void dm_bench_fill(float *x, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(dm_mix64(stream * 0x1000000007u + i) >> 40) * 0x1p-23f - 1.0f;
}

void dm_bench_ids(int32_t *ids, size_t n, size_t V, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(dm_mix64(stream * 0x1000000007u + i) % V);
}

/* ---- Processor and peak memory --------------------------------------------------------------- */

static void read_cpu_name(char *out, size_t room)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    *out = '\0';
    while (f && !*out && fgets(line, sizeof(line), f)) {
        const char *colon = strncmp(line, "model name", 10) == 0 ? strstr(line, ": ") : NULL;
        if (colon)
            snprintf(out, room, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (f)
        fclose(f);
}

size_t dm_bench_peak_memory(void)
{
    char line[256];
    size_t kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    if (!f)
        return 0;
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kb = strtoul(line + 6, NULL, 10);
    fclose(f);
    return kb * 1024;
}

void dm_bench_reset_peak_memory(void)
{
    const int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    // Where the kernel refuses, the peak of the sections before stays and is reported.
    if (write(fd, "5", 1) != 1) {
    }
    close(fd);
}

/* ---- Sections -------------------------------------------------------------------------------- */

/* The published size with the same matrices, or NULL. */
static const char *size_of(const struct dm_config *c)
{
    static const char *const names[] = {"14m", "31m",  "70m",  "160m", "410m",
                                        "1b",  "1.4b", "2.8b", "6.9b", "12b"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct dm_config x;
        if (!dm_config_named(&x, names[i], NULL) && x.C == c->C && x.L == c->L && x.F == c->F &&
            x.Vp == c->Vp && x.NH == c->NH)
            return names[i];
    }
    return NULL;
}

/* By section; chunks and heads are measured beside decode's step, so one function does the three.
 */
static enum dm_status (*const sections[DM_BENCH_N])(struct dm_bench *, struct dm_err *) = {
    [DM_BENCH_LIMITS] = dm_bench_limits, [DM_BENCH_GEMM] = dm_bench_gemm,
    [DM_BENCH_FEW] = dm_bench_few,       [DM_BENCH_DECODE] = dm_bench_decode,
    [DM_BENCH_JOINT] = dm_bench_joint,   [DM_BENCH_TRAIN] = dm_bench_train,
    [DM_BENCH_LOAD] = dm_bench_load,     [DM_BENCH_SPEEDUP] = dm_bench_speedup,
};

static enum dm_status run_sections(struct dm_bench *b, struct dm_err *e)
{
    for (int i = 0; i < DM_BENCH_N; i++) {
        const enum dm_bench_what what = (enum dm_bench_what)i;
        const bool asked = b->opt.what[i] ||
                           (what == DM_BENCH_DECODE &&
                            (b->opt.what[DM_BENCH_CHUNK] || b->opt.what[DM_BENCH_HEADS]));
        if (asked && sections[i])
            DM_TRY(sections[i](b, e));
        if (b->opt.what[i])
            DM_TRY(dm_bench_next(b, what, NULL, e));
    }
    return DM_OK;
}

/* Buffers are made for the last thread count, so that must be the largest. */
static int ascending(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

enum dm_status dm_bench_run(struct dm_bench *b, const struct dm_bench_opt *opt,
                            const struct dm_bench_trainer *trainer, dm_bench_fn *fn, void *ctx,
                            struct dm_err *e)
{
    const size_t threads = dm_par_threads();
    *b = (struct dm_bench){.opt = *opt, .trainer = trainer, .fn = fn, .ctx = ctx};
    if (opt->runs < 1 || opt->runs > DM_BENCH_RUNS_MAX)
        return dm_fail(e, DM_ERANGE, "runs is %zu, want 1 to %d", opt->runs, DM_BENCH_RUNS_MAX);
    if (opt->n_threads < 1 || opt->n_threads > DM_BENCH_THREADS)
        return dm_fail(e, DM_ERANGE, "%zu thread counts, want 1 to %d", opt->n_threads,
                       DM_BENCH_THREADS);
    qsort(b->opt.threads, opt->n_threads, sizeof(*b->opt.threads), ascending);
    if (opt->model)
        DM_TRY(dm_model_peek(opt->model, &b->opt.cfg, NULL, e));
    DM_TRY(dm_config_check(&b->opt.cfg, opt->model ? opt->model : "config", e));
    b->size = size_of(&b->opt.cfg);
    read_cpu_name(b->cpu, sizeof(b->cpu));
    DM_TRY(dm_bench_read_peers(b, e));
    const enum dm_status st = run_sections(b, e);
    dm_bench_drop_mem(b);
    dm_par_set_threads(threads);
    return st;
}

void dm_bench_release(struct dm_bench *b)
{
    dm_bench_drop_mem(b);
    free(b->rows);
    free(b->peers);
    *b = (struct dm_bench){0};
}
