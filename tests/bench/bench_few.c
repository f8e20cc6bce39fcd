/* SPDX-License-Identifier: MIT */
/* Few rows against packed weights that no cache holds: what decoding does. The bytes of the packs
 * over the time, beside the bandwidth that dm_peak_bandwidth() finds just before and after every
 * pass. One JSON line per shape, format and number of rows.
 *
 *   bench_few [THREADS [FORMAT [ROWS]]]      by default all cores; f32, bf16, int8, int4; 1 to 8
 * rows
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
#include "src/kernel/peak.h"
#include "src/nn/linear.h"

#define RUNS 7
#define PROBE ((size_t)2 << 30)
#define TOTAL ((size_t)1 << 30) /* bytes of packs that a pass reads */
enum { COPIES = 1024, ROWS = 8 };

struct shape {
    size_t O, C;
};

static const struct shape shapes[] = {{50304, 512}, {4096, 1024}, {8192, 2048}, {2048, 8192}};
static const char *const formats[] = {"f32", "bf16", "int8", "int4"};

/* As many packs of one weight as make TOTAL bytes, and what products with them need. */
struct packs {
    struct dm_weight w;
    struct dm_peak_mem mem;
    size_t bytes, n;
    float *rows, *inp, *out;
};

static bool fill(struct packs *p, const struct shape *s, int fmt)
{
    struct dm_rng r;
    dm_rng_init(&r, 1, 0);
    *p = (struct packs){.w = {.fmt = (enum dm_format)fmt, .O = s->O, .C = s->C}};
    const size_t inputs = ROWS * s->C;
    p->rows = dm_alloc(s->O * s->C, sizeof(float));
    p->inp = dm_alloc(inputs, sizeof(float));
    p->out = dm_alloc(ROWS * s->O, sizeof(float));
    p->bytes = (dm_linear_pack_bytes(&p->w) + 63) / 64 * 64;
    p->n = TOTAL / p->bytes + 1;
    if (p->n > COPIES || !p->rows || !p->inp || !p->out ||
        dm_peak_mem_init(&p->mem, p->n * p->bytes, NULL))
        return false;
    for (size_t i = 0; i < s->O * s->C; i++)
        p->rows[i] = (float)dm_rng_normal(&r) * 0.02f;
    for (size_t i = 0; i < inputs; i++)
        p->inp[i] = (float)dm_rng_normal(&r);
    p->w.w = p->rows;
    dm_linear_pack(p->mem.p, &p->w);
    for (size_t i = 1; i < p->n; i++)
        memcpy((char *)p->mem.p + i * p->bytes, p->mem.p, p->bytes);
    return true;
}

static void drop(struct packs *p)
{
    free(p->rows);
    free(p->inp);
    free(p->out);
    if (p->mem.p)
        dm_peak_mem_release(&p->mem);
}

static void pass(struct packs *p, size_t rows)
{
    for (size_t i = 0; i < p->n; i++) {
        p->w.pack = (const char *)p->mem.p + i * p->bytes;
        dm_linear_forward(p->out, p->inp, &p->w, NULL, rows);
    }
}

/* 200 outputs against sums in double; the room is that of the format's rounding. */
static bool is_right(struct packs *p, size_t rows)
{
    static const double room[] = {1e-6, 1e-2, 2e-2, 2e-1};
    struct dm_rng r;
    dm_rng_init(&r, 2, rows);
    pass(p, rows);
    for (size_t i = 0; i < 200; i++) {
        const size_t n = dm_rng_below(&r, rows), o = dm_rng_below(&r, p->w.O);
        double want = 0.0, size = 0.0;
        for (size_t k = 0; k < p->w.C; k++) {
            const double t = (double)p->inp[n * p->w.C + k] * (double)p->rows[o * p->w.C + k];
            want += t;
            size += t * t;
        }
        if (!(fabs((double)p->out[n * p->w.O + o] - want) <= room[p->w.fmt] * 5.0 * sqrt(size)))
            return false;
    }
    return true;
}

static int by_size(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static void bench(struct packs *p, const struct dm_peak_mem *probe, size_t rows, double *one)
{
    double rate[RUNS], share[RUNS], peak[RUNS], time[RUNS];
    double before = dm_peak_bandwidth(probe);
    for (size_t r = 0; r < RUNS; r++) {
        const double start = dm_now();
        pass(p, rows);
        time[r] = dm_now() - start;
        const double after = dm_peak_bandwidth(probe);
        peak[r] = (before + after) / 2.0;
        before = after;
        rate[r] = (double)(p->n * p->bytes) / time[r] * 1e-9;
        share[r] = rate[r] / peak[r];
    }
    qsort(rate, RUNS, sizeof(*rate), by_size);
    qsort(share, RUNS, sizeof(*share), by_size);
    qsort(peak, RUNS, sizeof(*peak), by_size);
    qsort(time, RUNS, sizeof(*time), by_size);
    if (rows == 1)
        *one = time[RUNS / 2];
    printf("{\"kernel\":\"%s\",\"threads\":%zu,\"O\":%zu,\"C\":%zu,\"format\":\"%s\",\"rows\":%zu,"
           "\"gb_per_s\":[%.1f,%.1f,%.1f],\"probe\":[%.1f,%.1f,%.1f],\"share\":[%.3f,%.3f,%.3f],"
           "\"time_to_one_row\":%.3f}\n",
           dm_kern()->name, dm_par_threads(), p->w.O, p->w.C, formats[p->w.fmt], rows, rate[0],
           rate[RUNS / 2], rate[RUNS - 1], peak[0], peak[RUNS / 2], peak[RUNS - 1], share[0],
           share[RUNS / 2], share[RUNS - 1], time[RUNS / 2] / *one);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const size_t counts[] = {1, 2, 3, 4, 8};
    struct dm_peak_mem probe;
    struct dm_err e;
    bool right = true;
    dm_par_set_threads(argc > 1 ? strtoul(argv[1], NULL, 10) : 0);
    if (dm_peak_mem_init(&probe, PROBE, &e)) {
        fprintf(stderr, "bench_few: %s\n", e.msg);
        return 1;
    }
    for (int fmt = DM_FMT_F32; fmt <= DM_FMT_INT4; fmt++)
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
            struct packs p;
            double one = 0.0;
            if (argc > 2 && strcmp(argv[2], formats[fmt]))
                continue;
            if (!fill(&p, shapes + s, fmt)) {
                fprintf(stderr, "bench_few: out of memory\n");
                return 1;
            }
            for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
                if (argc > 3 && strtoul(argv[3], NULL, 10) != counts[i])
                    continue;
                right &= is_right(&p, counts[i]);
                bench(&p, &probe, counts[i], &one);
            }
            drop(&p);
        }
    dm_peak_mem_release(&probe);
    if (!right)
        fprintf(stderr, "bench_few: a result is wrong\n");
    return right ? 0 : 1;
}
