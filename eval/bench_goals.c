/* SPDX-License-Identifier: MIT */
/* bench_goals.c - what we want to reach, judged by the rows of a run. */
#include <string.h>

#include "eval/bench_impl.h"

/* Peers on random or published weights of the same shapes, tokens/s, measured on another day on the
 * same kind of machine: 2 cores of an AMD EPYC (Zen 4, avx512_bf16), 24 GB, Debian 12. Decoding:
 * llama.cpp of August 2026, native build, BF16, Q8_0 and Q4_0. Training, batch 4 x 512: the faster
 * of PyTorch 1.13's bf16 autocast and (heads) a stem kept in bf16, 2 threads. */
enum job { DECODING, HEADS, WHOLE };
static const struct peer {
    const char *size, *who;
    enum job job;
    enum dm_format fmt;
    size_t threads;
    double tokens_per_s, factor; /* we want factor times as much */
    double mb;                   /* its peak memory, of which we want less than half; 0: unknown */
} peers[] = {
#define LLAMA(size, bf16_1, bf16_2, q8_1, q8_2, q4_1, q4_2)                 \
    {size, "llama.cpp BF16", DECODING, DM_FMT_BF16, 1, bf16_1, 1.3, 0},     \
        {size, "llama.cpp BF16", DECODING, DM_FMT_BF16, 2, bf16_2, 1.3, 0}, \
        {size, "llama.cpp Q8_0", DECODING, DM_FMT_INT8, 1, q8_1, 1.3, 0},   \
        {size, "llama.cpp Q8_0", DECODING, DM_FMT_INT8, 2, q8_2, 1.3, 0},   \
        {size, "llama.cpp Q4_0", DECODING, DM_FMT_INT4, 1, q4_1, 1.3, 0},   \
        {size, "llama.cpp Q4_0", DECODING, DM_FMT_INT4, 2, q4_2, 1.3, 0},
    LLAMA("70m", 234, 374, 401, 460, 517, 697) LLAMA("160m", 91, 116, 159, 206, 220, 275)
        LLAMA("410m", 36, 52, 51, 71, 76, 111) LLAMA("1.4b", 9.4, 15.4, 13.8, 23.0, 24.5, 37.7)
#undef LLAMA
            {"70m", "PyTorch 1.13 bf16", HEADS, DM_FMT_BF16, 2, 656, 1.78, 2100},
    {"160m", "PyTorch 1.13 bf16", HEADS, DM_FMT_BF16, 2, 434, 1.33, 2700},
    {"70m", "PyTorch 1.13 bf16", WHOLE, DM_FMT_BF16, 2, 646, 1.5, 3300},
};

struct list {
    const struct dm_bench *b;
    struct dm_bench_goal *out;
    size_t n, max;
};

static void add(struct list *l, const struct dm_bench_spread *reached, bool at_most, double goal,
                const char *name)
{
    if (!reached || l->n == l->max)
        return;
    struct dm_bench_goal *g = &l->out[l->n++];
    *g = (struct dm_bench_goal){.at_most = at_most, .goal = goal, .reached = *reached};
    snprintf(g->name, sizeof(g->name), "%s", name);
}

/* Which rows a goal is about; the one with the worst median is judged. */
struct query {
    enum dm_bench_what what;
    const char *value, *in_name; /* in_name: how the row's name ends or begins, NULL = any */
    int fmt;                     /* -1 = any */
    size_t threads;
    bool at_most;
};

static bool name_fits(const char *name, const char *part)
{
    const size_t n = strlen(name), k = part ? strlen(part) : 0;
    return !part || (k <= n && (strcmp(name + n - k, part) == 0 || strncmp(name, part, k) == 0));
}

static const struct dm_bench_row *worst(const struct dm_bench *b, const struct query *q)
{
    const struct dm_bench_row *found = NULL;
    double at = 0.0;
    for (size_t i = 0; i < b->n_rows; i++) {
        const struct dm_bench_row *r = &b->rows[i];
        const struct dm_bench_spread *s = dm_bench_value(r, q->value);
        if (r->what != q->what || !s || (q->fmt >= 0 && r->fmt != q->fmt) ||
            r->threads != q->threads || !name_fits(r->name, q->in_name))
            continue;
        if (!found || (q->at_most ? s->median > at : s->median < at)) {
            found = r;
            at = s->median;
        }
    }
    return found;
}

/* One goal per format and thread count; the name tells the worst row. */
static void add_worst(struct list *l, const struct query *q, double goal, const char *text)
{
    char name[160];
    const struct dm_bench_row *r = worst(l->b, q);
    if (!r)
        return;
    snprintf(name, sizeof(name), "%s, %s, %zu thread%s (%s)", text,
             r->fmt < 0 ? "any format" : dm_bench_formats[r->fmt], r->threads,
             r->threads > 1 ? "s" : "", r->name);
    add(l, dm_bench_value(r, q->value), q->at_most, goal, name);
}

static void add_products(struct list *l, size_t threads)
{
    static const char *const forms[] = {" forward", " input gradient", " weight gradient"};
    for (int fmt = DM_FMT_F32; fmt <= DM_FMT_BF16; fmt++)
        for (int i = 0; i < 3; i++)
            add_worst(l, &(struct query){DM_BENCH_GEMM, "share", forms[i], fmt, threads, false},
                      0.9, "matrix products: share of the peak loop");
}

static void add_decoding(struct list *l, size_t threads)
{
    static const char *const rows[] = {"1 row ", "2 rows ", "3 rows ", "4 rows "};
    for (int fmt = DM_FMT_BF16; fmt <= DM_FMT_INT4; fmt++) {
        const double goal = fmt == DM_FMT_INT4 ? 0.8 : 0.9;
        for (int i = 0; i < 4; i++)
            add_worst(l, &(struct query){DM_BENCH_FEW, "share", rows[i], fmt, threads, false}, goal,
                      "few rows: share of the adjacent bandwidth probe");
        add_worst(l, &(struct query){DM_BENCH_DECODE, "share", NULL, fmt, threads, false}, goal,
                  "decoding: share of the adjacent bandwidth probe");
        add_worst(l, &(struct query){DM_BENCH_CHUNK, "ratio", NULL, fmt, threads, true}, 1.1,
                  "chunks of 2 to 4 tokens: time over one token");
        add_worst(l, &(struct query){DM_BENCH_HEADS, "ratio", NULL, fmt, threads, true}, 1.1,
                  "all heads: time over one token plus the extra bytes");
    }
}

static void scale(struct dm_bench_spread *s, double f)
{
    s->min *= f;
    s->median *= f;
    s->max *= f;
}

static void add_peers(struct list *l)
{
    for (size_t i = 0; i < sizeof(peers) / sizeof(*peers); i++) {
        const struct peer *p = &peers[i];
        char name[160];
        if (!l->b->size || strcmp(p->size, l->b->size))
            continue;
        const struct query q = {.what = p->job == DECODING ? DM_BENCH_DECODE : DM_BENCH_TRAIN,
                                .value = "tokens_per_s",
                                .in_name = p->job == DECODING ? NULL
                                           : p->job == HEADS  ? "heads, frozen base, batch 4x512"
                                                              : "whole model, batch 4x512",
                                .fmt = (int)p->fmt,
                                .threads = p->threads};
        const struct dm_bench_row *r = worst(l->b, &q);
        if (!r)
            continue;
        struct dm_bench_spread s = *dm_bench_value(r, "tokens_per_s");
        scale(&s, 1.0 / p->tokens_per_s);
        snprintf(name, sizeof(name),
                 "%s %s: tokens/s over %s's %g of another day, same kind of machine, %zu thread%s",
                 p->size, p->job == DECODING ? "decoding" : r->name, p->who, p->tokens_per_s,
                 p->threads, p->threads > 1 ? "s" : "");
        add(l, &s, false, p->factor, name);
        if (p->mb <= 0.0 || !dm_bench_value(r, "peak_mb"))
            continue;
        s = *dm_bench_value(r, "peak_mb");
        scale(&s, 1.0 / p->mb);
        snprintf(name, sizeof(name), "%s %s: peak memory over %s's %g MB", p->size, r->name, p->who,
                 p->mb);
        add(l, &s, true, 0.5, name);
    }
}

static void add_training(struct list *l, size_t threads)
{
    const struct query q = {DM_BENCH_TRAIN, "share", "heads, frozen base, batch 4x512",
                            DM_FMT_BF16,    threads, false};
    add_worst(l, &q, 0.7, "head training: share of the FLOP bound");
}

static void add_model(struct list *l, size_t threads)
{
    const struct dm_bench *b = l->b;
    const struct query joint = {DM_BENCH_JOINT, "share_of_step", NULL, -1, threads, true};
    if (b->size && strcmp(b->size, "70m") == 0)
        add_worst(l, &joint, 0.03, "joint distribution: share of a 70m one-token step");
    const struct query load = {DM_BENCH_LOAD, "seconds", NULL, -1, threads, true};
    const struct dm_bench_row *r = worst(b, &load);
    if (!r || !b->size || strcmp(b->size, "1.4b"))
        return;
    add(l, dm_bench_value(r, "seconds"), true, 2.0, "load of 1.4b from a warm page cache: seconds");
    struct dm_bench_spread over = *dm_bench_value(r, "peak_mb");
    const double held = dm_bench_value(r, "weights_and_kv_mb")->median;
    over.min -= held;
    over.median -= held;
    over.max -= held;
    add(l, &over, true, 200.0, "load of 1.4b: peak memory beyond weights and KV cache, MB");
}

size_t dm_bench_goals(const struct dm_bench *b, struct dm_bench_goal *out, size_t max)
{
    struct list l = {b, out, 0, max};
    size_t most = 0;
    for (size_t t = 0; t < b->opt.n_threads; t++) {
        add_products(&l, b->opt.threads[t]);
        add_decoding(&l, b->opt.threads[t]);
        most = b->opt.threads[t] > most ? b->opt.threads[t] : most;
    }
    add_training(&l, most);
    add_model(&l, most);
    add_peers(&l);
    return l.n;
}

bool dm_bench_goal_met(const struct dm_bench_goal *g)
{
    return g->at_most ? g->reached.median <= g->goal : g->reached.median >= g->goal;
}
