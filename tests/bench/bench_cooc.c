/* SPDX-License-Identifier: MIT */
/* Counting co-occurrences, stage by stage, on made-up text with Pythia's vocabulary: one JSON line
 * per stage with the least, median and largest rate of 5 runs in million tokens per second.
 *
 *   bench_cooc [THREADS [TOKENS [MIB]]]   all cores, 16 million tokens, 1024 MiB by default
 *   bench_cooc --zipf TOKENS SHARD [SEED] only writes the text, of any length, as a shard
 *   bench_cooc --load TABLE [THREADS [discounted]]   loads ratios as decoding does, in ms
 *
 * Half of the tokens are independent draws of a Zipf law, half one of eight usual successors of the
 * token before, so pairs and triplets repeat about as often as in prose. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/cooc_build.h"
#include "data/ngram.h"
#include "data/radix.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/io/cooc.h"
#include "src/io/shard.h"

enum { V = 50277, RUNS = 5, ORDER = 3, BITS = 48, PIECE = 1 << 16 };

struct bench {
    int32_t *ids;
    size_t n;
    uint64_t *key, *tmp;
    size_t memory;
    uint64_t seed;
    char shard[64], table[64];
    size_t distinct; /* a result that can be looked at */
};

static int32_t zipf(struct dm_rng *r, double range)
{
    return (int32_t)exp(dm_rng_uniform(r) * log(range));
}

/* The next n ids of a text; last[0] is the id before them. */
static void make_text(struct dm_rng *r, int32_t *last, size_t n)
{
    for (size_t i = 1; i <= n; i++) {
        const uint64_t before = (uint64_t)last[i - 1];
        if (dm_rng_below(r, 2000) == 0)
            last[i] = 0;
        else if (dm_rng_below(r, 2))
            last[i] = 1 + zipf(r, V - 2);
        else
            last[i] = 1 + (int32_t)(dm_mix64(before * 8 + (uint64_t)zipf(r, 8.0)) % (V - 1));
    }
}

static void sort_part(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    struct bench *b = ctx;
    dm_radix_sort(b->key + begin, b->tmp + begin, end - begin, BITS);
}

static enum dm_status run_sort(struct bench *b, struct dm_err *e)
{
    (void)e;
    dm_par_for(b->n, 1, sort_part, b);
    return DM_OK;
}

static enum dm_status count_distinct(void *ctx, size_t slot, const struct dm_counts *c, bool end,
                                     struct dm_err *e)
{
    (void)end;
    (void)e;
    ((size_t *)ctx)[slot + 1] += c->n;
    return DM_OK;
}

static enum dm_status sum_distinct(void *ctx, size_t slot, struct dm_err *e)
{
    size_t *n = ctx;
    (void)e;
    n[0] += n[slot + 1];
    n[slot + 1] = 0;
    return DM_OK;
}

static enum dm_status run_count(struct bench *b, struct dm_err *e)
{
    struct dm_ngram *g;
    DM_TRY(dm_ngram_new(&g, V, ORDER, b->memory, b->table, e));
    size_t *n = dm_alloc(dm_ngram_slots(g) + 1, sizeof(*n));
    enum dm_status st = n ? dm_ngram_add(g, b->ids, b->n, 0, e)
                          : dm_fail(e, DM_ENOMEM, "no memory for sums");
    const struct dm_ngram_scan scan = {n, 0, count_distinct, sum_distinct};
    if (!st)
        st = dm_ngram_finish(g, e);
    if (!st)
        st = dm_ngram_scan(g, &scan, e);
    b->distinct = st ? 0 : n[0];
    free(n);
    dm_ngram_free(g);
    return st;
}

static enum dm_status run_build(struct bench *b, struct dm_err *e)
{
    const char *shard = b->shard;
    const struct dm_cooc_opt o = {.inputs = &shard,
                                  .n_inputs = 1,
                                  .out = b->table,
                                  .order = ORDER,
                                  .rule = {.min_count = {1, 1, 1}},
                                  .memory = b->memory};
    struct dm_cooc_stats s;
    DM_TRY(dm_cooc_build(&o, NULL, &s, e));
    b->distinct = s.tally[2].kept;
    return DM_OK;
}

static enum dm_status run_load(struct bench *b, struct dm_err *e)
{
    struct dm_cooc c;
    const enum dm_status st = dm_cooc_load_ratios(&c, b->table, e);
    b->distinct = c.n_triplets;
    dm_cooc_release(&c);
    return st;
}

static void fill_keys(struct bench *b)
{
    for (size_t i = 0; i + 2 < b->n; i++)
        b->key[i] = (uint64_t)b->ids[i] << 32 | (uint64_t)b->ids[i + 1] << 16 |
                    (uint64_t)b->ids[i + 2];
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum dm_status measure(struct bench *b, const char *name,
                              enum dm_status (*run)(struct bench *, struct dm_err *),
                              struct dm_err *e)
{
    double rate[RUNS];
    for (size_t i = 0; i < RUNS; i++) {
        fill_keys(b);
        const double start = dm_now();
        DM_TRY(run(b, e));
        rate[i] = (double)b->n / (dm_now() - start) / 1e6;
    }
    qsort(rate, RUNS, sizeof(rate[0]), ascending);
    printf("{\"stage\":\"%s\",\"threads\":%zu,\"tokens\":%zu,\"triplets\":%zu,"
           "\"mtokens_per_second\":{\"min\":%.2f,\"median\":%.2f,\"max\":%.2f}}\n",
           name, dm_par_threads(), b->n, b->distinct, rate[0], rate[RUNS / 2], rate[RUNS - 1]);
    fflush(stdout);
    return DM_OK;
}

/* Writes n ids as a shard; the first b->n of them stay in b->ids, unless that is NULL. */
static enum dm_status write_shard(struct bench *b, const char *path, size_t n, struct dm_err *e)
{
    static const char hash[] = "0000000000000000000000000000000000000000000000000000000000000000";
    struct dm_shard_writer *w;
    struct dm_rng r;
    int32_t piece[1 + PIECE] = {0};
    enum dm_status st;
    dm_rng_init(&r, b->seed, 1);
    DM_TRY(dm_shard_create(&w, path, V, NULL, hash, "{}", e));
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t k = n - at < PIECE ? n - at : PIECE;
        make_text(&r, piece, k);
        if (b->ids)
            memcpy(b->ids + at, piece + 1, k * sizeof(*piece));
        if ((st = dm_shard_append(w, piece + 1, k, e))) {
            dm_shard_abort(w);
            return st;
        }
        piece[0] = piece[k];
    }
    return dm_shard_commit(w, e);
}

static enum dm_status load_only(const char *path, bool discounted, struct dm_err *e)
{
    double ms[RUNS];
    struct dm_cooc c = {0};
    for (size_t i = 0; i < RUNS; i++) {
        const double start = dm_now();
        const enum dm_status st = dm_cooc_load_for(&c, path, !discounted, discounted, e);
        ms[i] = (dm_now() - start) * 1e3;
        if (!st && i + 1 == RUNS)
            printf("{\"pairs\":%zu,\"triplets\":%zu,", c.n_pairs, c.n_triplets);
        dm_cooc_release(&c);
        DM_TRY(st);
    }
    qsort(ms, RUNS, sizeof(ms[0]), ascending);
    printf("\"threads\":%zu,\"discounted\":%s,\"load_ms\":{\"min\":%.0f,\"median\":%.0f,\"max\":%."
           "0f}}\n",
           dm_par_threads(), discounted ? "true" : "false", ms[0], ms[RUNS / 2], ms[RUNS - 1]);
    return DM_OK;
}

static enum dm_status run_all(struct bench *b, struct dm_err *e)
{
    b->ids = dm_alloc(b->n, sizeof(*b->ids));
    b->key = dm_alloc(b->n, sizeof(*b->key));
    b->tmp = dm_alloc(b->n, sizeof(*b->tmp));
    if (!b->ids || !b->key || !b->tmp)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu tokens", b->n);
    DM_TRY(write_shard(b, b->shard, b->n, e));
    DM_TRY(measure(b, "radix_sort", run_sort, e));
    DM_TRY(measure(b, "count", run_count, e));
    DM_TRY(measure(b, "shard_to_table", run_build, e));
    return measure(b, "load_table", run_load, e);
}

int main(int argc, char **argv)
{
    struct bench b = {.n = argc > 2 ? strtoul(argv[2], NULL, 10) : 16000000};
    struct dm_err e;
    enum dm_status st;
    const bool zipf = argc >= 4 && !strcmp(argv[1], "--zipf");
    const bool load = argc >= 3 && !strcmp(argv[1], "--load");
    const char *threads = load ? argv[3] : argc > 1 ? argv[1] : NULL;
    b.memory = (argc > 3 ? strtoul(argv[3], NULL, 10) : 1024) << 20;
    dm_par_set_threads(threads ? strtoul(threads, NULL, 10) : 0);
    snprintf(b.shard, sizeof(b.shard), "/tmp/bench_cooc.%d.shard.h5", (int)getpid());
    snprintf(b.table, sizeof(b.table), "/tmp/bench_cooc.%d.table.h5", (int)getpid());
    b.seed = argc > 4 ? strtoul(argv[4], NULL, 10) : 1;
    if (zipf)
        st = write_shard(&b, argv[3], strtoul(argv[2], NULL, 10), &e);
    else
        st = load ? load_only(argv[2], argc > 4, &e) : run_all(&b, &e);
    if (st)
        fprintf(stderr, "bench_cooc: %s\n", e.msg);
    unlink(b.shard);
    unlink(b.table);
    free(b.ids);
    free(b.key);
    free(b.tmp);
    return st ? 1 : 0;
}
