/* SPDX-License-Identifier: MIT */
/* bench_goals.c - what we want to reach, judged by the rows of a run. */
#include <string.h>

#include "eval/bench_impl.h"

struct list {
    const struct dm_bench *b;
    struct dm_bench_goal *out;
    size_t n, max;
};

/* NULL where nothing was reached or the list is full. */
static struct dm_bench_goal *add(struct list *l, const struct dm_bench_spread *reached,
                                 bool at_most, double goal, const char *name)
{
    if (!reached || l->n == l->max)
        return NULL;
    struct dm_bench_goal *g = &l->out[l->n++];
    *g = (struct dm_bench_goal){.at_most = at_most, .goal = goal, .reached = *reached};
    snprintf(g->name, sizeof(g->name), "%s", name);
    return g;
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
    char name[400];
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

/* How many times as fast as the peer we want to be. */
static double factor(const struct dm_bench_peer *p)
{
    return p->job == DM_BENCH_JOB_WHOLE                                  ? 1.5
           : p->job == DM_BENCH_JOB_HEADS && strcmp(p->size, "70m") == 0 ? 1.8
                                                                         : 1.3;
}

/* Of several figures for the same thing the best counts. */
static bool is_fastest(const struct dm_bench_peer *p, const struct dm_bench_peer *all, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct dm_bench_peer *q = &all[i];
        if (strcmp(p->size, q->size) == 0 && p->job == q->job && p->fmt == q->fmt &&
            p->threads == q->threads && q->tokens_per_s.median > p->tokens_per_s.median)
            return false;
    }
    return true;
}

/* What was reached over what the peer does. */
static void add_peer(struct list *l, const struct dm_bench_row *r, const char *value,
                     const struct dm_bench_peer *p, bool at_most, double goal, const char *what,
                     double peers)
{
    char name[400], from[160];
    const bool here = !p->machine[0] || strstr(l->b->cpu, p->machine);
    if (!dm_bench_value(r, value))
        return;
    struct dm_bench_spread s = *dm_bench_value(r, value);
    scale(&s, 1.0 / peers);
    if (p->file[0])
        snprintf(from, sizeof(from), "%s%s%s", p->file, here ? "" : ", measured on ",
                 here ? "" : p->machine);
    else
        snprintf(from, sizeof(from), "built in, another day's on %s%s",
                 here ? "the same kind of machine, " : "another machine, ", p->machine);
    snprintf(name, sizeof(name), "%s %s: %s over %s's %.4g (%s), %zu thread%s", p->size,
             p->job == DM_BENCH_JOB_DECODE ? "decoding" : r->name, what, p->who, peers, from,
             p->threads, p->threads > 1 ? "s" : "");
    struct dm_bench_goal *g = add(l, &s, at_most, goal, name);
    if (g)
        g->elsewhere = !here;
}

static void add_peers(struct list *l)
{
    size_t n;
    const struct dm_bench_peer *all = dm_bench_peers(l->b, &n);
    for (const struct dm_bench_peer *p = all; p < all + n; p++) {
        if (!l->b->size || strcmp(p->size, l->b->size) || !is_fastest(p, all, n))
            continue;
        const struct query q = {
            .what = p->job == DM_BENCH_JOB_DECODE ? DM_BENCH_DECODE : DM_BENCH_TRAIN,
            .value = "tokens_per_s",
            .in_name = p->job == DM_BENCH_JOB_DECODE  ? NULL
                       : p->job == DM_BENCH_JOB_HEADS ? "heads, frozen base, batch 4x512"
                                                      : "whole model, batch 4x512",
            .fmt = (int)p->fmt,
            .threads = p->threads};
        const struct dm_bench_row *r = worst(l->b, &q);
        if (!r)
            continue;
        add_peer(l, r, "tokens_per_s", p, false, factor(p), "tokens/s", p->tokens_per_s.median);
        if (p->job != DM_BENCH_JOB_DECODE && p->peak_mb > 0.0)
            add_peer(l, r, "peak_mb", p, true, 0.5, "peak MB", p->peak_mb);
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
