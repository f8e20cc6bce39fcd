/* SPDX-License-Identifier: MIT */
/* Time of one decoding step's decision, from three rows of logits to a block: 50,304 tokens, three
 * heads, top_k 50, all threads (OMP_NUM_THREADS). One JSON line per kind of logits, policy and
 * threshold eps_b: every figure is [min, median, max] of 5 repetitions of the median over 48 steps,
 * in microseconds. `cold` is after 64 MB of other memory were read, with the logits written
 * meanwhile, as when weights stream by; `warm` is the same step once more.
 *
 *   bench_joint [TABLE LOGITS]     LOGITS: float32 rows of the heads 1, 2, 3, 1, .. of a model
 *   bench_joint TABLE SHARD.h5     logits from the text itself, as below
 *
 * Logits from a shard are those of an n-gram model of it: what stands n tokens behind the last two
 * tokens elsewhere, interpolated with what does behind the last one, and with frequencies.
 *
 * The built-in table comes from a synthetic text whose unigrams follow Zipf's law and whose next
 * token depends on the last one. "dense" logits are noisy log frequencies with a bonus for the
 * token that follows and for frequent successors: nearly all candidates are frequent, so that
 * nearly all pairs are in the table, and heads are sure of themselves. "mixed" logits are
 * calibrated on a trained model: two fifths of the pairs, and 0.5 for the likeliest token. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/decode/decoder.h"
#include "src/io/shard.h"
#include "tests/tablet.h"

enum { V_MAX = 50304, TEXT = 4000000, STEPS = 48, REPS = 5, TOP_K = 50, HEADS = 3 };
enum { STREAM = 64 << 20, PIECES = 64 };
enum { SELECT, PAIRS, ORDER3, THRESHOLD3, ORDER2, THRESHOLD2, STEP, PHASES };
static const char *const phase_names[] = {"select", "pairs",      "order3", "threshold3",
                                          "order2", "threshold2", "step"};
static size_t V = V_MAX;

/* P(rank < x) grows like log x: Zipf's law with exponent 1. */
static int32_t zipf(struct dm_rng *rng)
{
    return (int32_t)(exp(dm_rng_uniform(rng) * log((double)V + 1.0)) - 1);
}

static int32_t successor(int32_t x, int32_t rank)
{
    // frequent tokens follow more often: low ranks map to low ids half of the time
    const uint64_t h = dm_mix64((uint64_t)x << 32 | (uint64_t)rank);
    return h & 1 ? (int32_t)((double)(h >> 40) * rank / 0x1p24) : (int32_t)((h >> 8) % V);
}

static int32_t *make_text(void)
{
    int32_t *ids = malloc(TEXT * sizeof(*ids));
    struct dm_rng rng;
    dm_rng_init(&rng, 1, 0);
    ids[0] = 0;
    for (size_t i = 1; i < TEXT; i++) {
        const int32_t z = zipf(&rng);
        ids[i] = dm_rng_uniform(&rng) < 0.6 ? successor(ids[i - 1], z) : z;
    }
    return ids;
}

static void make_logits(float *x, const int32_t *text, size_t step, bool dense)
{
    struct dm_rng rng;
    dm_rng_init(&rng, 2, step);
    const int32_t *at = text + 10 + dm_rng_below(&rng, TEXT - 20);
    for (size_t h = 0; h < HEADS; h++, x += V) {
        const double slope = dense ? 1 : 0.25, noise = dense ? 0.8 : 1.0;
        for (size_t v = 0; v < V; v++)
            x[v] = (float)(-slope * log((double)v + 2) + noise * dm_rng_normal(&rng));
        for (int32_t r = 0; r < 40; r++)
            x[successor(at[h], r)] += dense ? 3 : 1.5f;
        x[at[h + 1]] += (float)((dense ? 4.0 : 5.5 - (double)h) * dm_rng_uniform(&rng));
    }
}

/* x (V) gets log p of the token n ahead of text[at]. */
static void ngram_logits(float *x, const int32_t *text, size_t n_text, size_t at, size_t n)
{
    static const double share[3] = {0.1, 0.4, 0.5};
    double *count = calloc(3 * V, sizeof(*count)), all[3] = {0};
    for (size_t i = 1; i + n < n_text; i++) {
        const bool one = i != at && text[i] == text[at], two = one && text[i - 1] == text[at - 1];
        for (int k = 0; k <= one + two; k++) {
            count[(size_t)k * V + (size_t)text[i + n]]++;
            all[k]++;
        }
    }
    for (size_t v = 0; v < V; v++) {
        double p = 1e-9;
        for (int k = 0; k < 3; k++)
            p += all[k] > 0 ? share[k] * count[(size_t)k * V + v] / all[k] : 0;
        x[v] = (float)log(p);
    }
    free(count);
}

static int shard_logits(float *x, const char *path)
{
    struct dm_shard *s;
    struct dm_err e;
    struct dm_rng rng;
    if (dm_shard_open(&s, path, &e)) {
        fprintf(stderr, "bench_joint: %s\n", e.msg);
        return 1;
    }
    const size_t n = dm_shard_tokens(s);
    int32_t *text = malloc(n * sizeof(*text));
    int bad = n < 100 || !text || dm_shard_vocab(s) > V || dm_shard_read(s, text, 0, n, &e);
    dm_shard_close(s);
    dm_rng_init(&rng, 2, 0);
    for (size_t i = 0; i < STEPS && !bad; i++) {
        const size_t at = 1 + dm_rng_below(&rng, n - 10);
        for (size_t h = 0; h < HEADS; h++, x += V)
            ngram_logits(x, text, n, at, h + 1);
    }
    free(text);
    if (bad)
        fprintf(stderr, "bench_joint: %s: not a shard of the table's tokens\n", path);
    return bad;
}

static int file_logits(float *x, const char *path)
{
    FILE *f = fopen(path, "rb");
    const int bad = !f || fread(x, sizeof(*x) * HEADS * V, STEPS, f) < STEPS;
    if (bad)
        fprintf(stderr, "bench_joint: %s: want %d x %d x %zu floats\n", path, STEPS, HEADS, V);
    if (f)
        fclose(f);
    return bad;
}

struct bench {
    struct dm_decoder d;
    const struct dm_cooc *table;
    const float *all;  /* (STEPS,HEADS,V) */
    float *logits;     /* (HEADS,V) */
    const char *other; /* (STREAM) */
    volatile long sink[PIECES];
    double us[PHASES][STEPS];
    size_t tokens;
};

struct arrival {
    struct bench *b;
    const float *x;
};

static void arrive_part(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct arrival *a = ctx;
    const size_t n = HEADS * V;
    for (size_t p = begin; p < end; p++) {
        const size_t from = n * p / PIECES, to = n * (p + 1) / PIECES;
        long sum = 0;
        for (size_t i = p * (STREAM / PIECES); i < (p + 1) * (STREAM / PIECES); i += 64)
            sum += a->b->other[i];
        a->b->sink[p] = sum;
        memcpy(a->b->logits + from, a->x + from, (to - from) * sizeof(*a->x));
    }
}

/* As a model's last product would: all threads write the logits while other memory passes by. */
static void arrive(struct bench *b, size_t step, bool cold)
{
    struct arrival a = {b, b->all + step * HEADS * V};
    if (cold)
        dm_par_for(PIECES, 1, arrive_part, &a);
}

static double lap(double *t)
{
    const double before = *t;
    *t = dm_now();
    return (*t - before) * 1e6;
}

static void time_phases(struct bench *b, const struct dm_gen_opt *o, size_t i)
{
    const struct dm_mask mask = {b->table, o->alpha_c, o->unseen, o->lambda};
    struct dm_cells cells;
    double t = dm_now();
    for (size_t h = 0; h < HEADS; h++)
        dm_cand_select(&b->d.cand[h], b->logits + h * V, V, TOP_K, o->temperature);
    b->us[SELECT][i] = lap(&t);
    dm_joint_begin(b->d.joint, b->d.cand, HEADS, &mask);
    b->us[PAIRS][i] = lap(&t);
    for (size_t n = 3; n >= 2; n--) {
        const bool any = dm_joint_order(b->d.joint, n, pow(o->eps_b, (double)(n - 1)));
        b->us[n == 3 ? ORDER3 : ORDER2][i] = lap(&t);
        if (any)
            dm_joint_threshold(b->d.joint, true, &cells);
        b->us[n == 3 ? THRESHOLD3 : THRESHOLD2][i] = lap(&t);
    }
}

static void time_step(struct bench *b, const struct dm_gen_opt *o, size_t i)
{
    struct dm_block block;
    double t = dm_now();
    if (dm_decoder_step(&b->d, o, b->table, b->logits, V, HEADS, i, &block, NULL))
        abort();
    b->us[STEP][i] = lap(&t);
    b->tokens += block.n;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench(struct bench *b, const struct dm_gen_opt *o, const char *name, bool cold)
{
    double rep[PHASES][REPS];
    b->tokens = 0;
    for (size_t r = 0; r < REPS; r++) {
        for (size_t i = 0; i < STEPS; i++) {
            arrive(b, i, true);
            if (!cold)
                time_phases(b, o, i);
            time_phases(b, o, i);
            arrive(b, i, cold);
            if (!cold)
                time_step(b, o, i);
            time_step(b, o, i);
        }
        for (size_t p = 0; p < PHASES; p++) {
            qsort(b->us[p], STEPS, sizeof(double), by_value);
            rep[p][r] = b->us[p][STEPS / 2];
        }
    }
    printf("{\"bench\": \"joint\", \"logits\": \"%s\", \"mask\": \"%s\", \"eps_b\": %g, "
           "\"caches\": \"%s\", \"tokens_per_step\": %.2f",
           name, b->table ? dm_unseen_names[o->unseen] : "none", o->eps_b, cold ? "cold" : "warm",
           (double)b->tokens / STEPS / REPS / (cold ? 1 : 2));
    for (size_t p = 0; p < PHASES; p++) {
        qsort(rep[p], REPS, sizeof(double), by_value);
        printf(", \"%s_us\": [%.1f, %.1f, %.1f]", phase_names[p], rep[p][0], rep[p][REPS / 2],
               rep[p][REPS - 1]);
    }
    puts("}");
    fflush(stdout);
}

static void bench_all(struct bench *b, const struct dm_cooc *table, const char *name)
{
    static const double eps[] = {0, 0.1, 0.5, 0.9};
    struct dm_gen_opt o = dm_gen_opt_default();
    b->table = table;
    for (size_t i = 0; i < 4; i++)
        for (int cold = 0; cold < 2; cold++) {
            o.eps_b = eps[i];
            bench(b, &o, name, cold);
        }
    o = dm_gen_opt_default();
    o.unseen = DM_UNSEEN_ZERO;
    bench(b, &o, name, true);
    o.unseen = DM_UNSEEN_MIX;
    bench(b, &o, name, true);
    b->table = NULL;
    bench(b, &o, name, true);
}

static int bench_file(struct bench *b, const char *table, const char *logits, float *all)
{
    struct dm_cooc c;
    struct dm_err e;
    if (dm_cooc_load_ratios(&c, table, &e)) {
        fprintf(stderr, "bench_joint: %s\n", e.msg);
        return 1;
    }
    if (c.V > V_MAX) {
        fprintf(stderr, "bench_joint: %s: more than %d tokens\n", table, V_MAX);
        return 1;
    }
    V = c.V;
    const char *dot = strrchr(logits, '.');
    const bool shard = dot && !strcmp(dot, ".h5");
    if (dm_decoder_init(&b->d, V, TOP_K, HEADS, &e) ||
        (shard ? shard_logits(all, logits) : file_logits(all, logits)))
        return 1;
    bench_all(b, &c, shard ? "shard" : "file");
    dm_cooc_release(&c);
    return 0;
}

int main(int argc, char **argv)
{
    static struct bench b;
    float *all = malloc(sizeof(*all) * STEPS * HEADS * V);
    char *other = malloc(STREAM);
    b.logits = malloc(sizeof(*b.logits) * HEADS * V);
    if (!all || !other || !b.logits)
        return 1;
    memset(other, 1, STREAM);
    b.all = all;
    b.other = other;
    int rc = 0;
    if (argc == 3) {
        rc = bench_file(&b, argv[1], argv[2], all);
    } else {
        int32_t *text = make_text();
        struct dm_cooc table;
        if (dm_decoder_init(&b.d, V, TOP_K, HEADS, NULL))
            return 1;
        tablet_count(&table, text, TEXT, V);
        for (int dense = 0; dense < 2; dense++) {
            for (size_t i = 0; i < STEPS; i++)
                make_logits(all + i * HEADS * V, text, i, dense);
            bench_all(&b, &table, dense ? "dense" : "mixed");
        }
        tablet_free(&table);
        free(text);
    }
    dm_decoder_release(&b.d);
    free(b.logits);
    free(all);
    free(other);
    return rc;
}
