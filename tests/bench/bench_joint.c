/* SPDX-License-Identifier: MIT */
/* Time of one decoding step's arithmetic for 50,304 tokens, three heads and top_k 50: one JSON line
 * per policy for unseen n-grams, medians over steps in microseconds.
 *
 * The table comes from a synthetic text whose unigrams follow Zipf's law and whose next token
 * depends on the last one; each head's logits are noisy log frequencies with a bonus for the token
 * that follows in the text and for frequent successors, so that head n's candidates include
 * frequent words, whose table rows are long, as with real heads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/decode/decoder.h"
#include "tests/tablet.h"

enum { V = 50304, TEXT = 4000000, STEPS = 200, TOP_K = 50 };

/* P(rank < x) grows like log x: Zipf's law with exponent 1. */
static int32_t zipf(struct dm_rng *rng)
{
    return (int32_t)(exp(dm_rng_uniform(rng) * log(V + 1.0)) - 1);
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

static void make_logits(float *x, const int32_t *text, size_t step)
{
    struct dm_rng rng;
    dm_rng_init(&rng, 2, step);
    const int32_t *at = text + 10 + dm_rng_below(&rng, TEXT - 20);
    for (size_t h = 0; h < 3; h++, x += V) {
        for (size_t v = 0; v < V; v++)
            x[v] = (float)(-log((double)v + 2) + 0.8 * dm_rng_normal(&rng));
        for (int32_t r = 0; r < 40; r++)
            x[successor(at[h], r)] += 3;
        x[at[h + 1]] += (float)(4.0 * dm_rng_uniform(&rng));
    }
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x)
{
    qsort(x, STEPS, sizeof(*x), by_value);
    return x[STEPS / 2] * 1e6;
}

struct times {
    double cand[STEPS], joint[STEPS], threshold[STEPS], step[STEPS];
};

static void time_step(struct dm_decoder *d, const struct dm_gen_opt *o, const struct dm_cooc *table,
                      const float *logits, struct times *t, size_t i, size_t *tokens)
{
    struct dm_block b;
    struct dm_cells out;
    double t0 = dm_now();
    for (size_t h = 0; h < 3; h++)
        dm_cand_select(&d->cand[h], logits + h * V, V, TOP_K, 0.7);
    t->cand[i] = dm_now() - t0;
    const struct dm_mask mask = {table, o->alpha_c, o->unseen, o->lambda};
    t0 = dm_now();
    dm_joint_begin(d->joint, d->cand, 3, &mask);
    const bool any = dm_joint_order(d->joint, 3);
    t->joint[i] = dm_now() - t0;
    t0 = dm_now();
    if (any)
        dm_joint_threshold(d->joint, true, &out);
    t->threshold[i] = dm_now() - t0;
    t0 = dm_now();
    if (dm_decoder_step(d, o, table, logits, V, 3, i, &b, NULL))
        abort();
    t->step[i] = dm_now() - t0;
    *tokens += b.n;
}

static void bench(struct dm_decoder *d, const struct dm_cooc *table, const int32_t *text,
                  enum dm_unseen unseen, float *logits)
{
    static struct times t;
    struct dm_gen_opt o = dm_gen_opt_default();
    o.unseen = unseen;
    size_t tokens = 0;
    for (size_t i = 0; i < STEPS; i++) {
        make_logits(logits, text, i);
        time_step(d, &o, table, logits, &t, i, &tokens);
    }
    printf(
        "{\"bench\": \"joint\", \"mask\": \"%s\", \"order\": 3, \"top_k\": %d, \"pairs\": %zu, "
        "\"triplets\": %zu, \"candidates_us\": %.1f, \"joint_us\": %.1f, \"threshold_us\": %.1f, "
        "\"step_us\": %.1f, \"tokens_per_step\": %.2f}\n",
        table ? dm_unseen_names[unseen] : "none", TOP_K, table ? table->n_pairs : 0,
        table ? table->n_triplets : 0, median(t.cand), median(t.joint), median(t.threshold),
        median(t.step), (double)tokens / STEPS);
}

int main(void)
{
    int32_t *text = make_text();
    float *logits = malloc(3 * V * sizeof(*logits));
    struct dm_cooc table;
    struct dm_decoder d = {0};
    tablet_count(&table, text, TEXT, V);
    if (!logits || dm_decoder_init(&d, V, TOP_K, 3, NULL))
        return 1;
    for (int u = 0; u < 3; u++)
        bench(&d, &table, text, (enum dm_unseen)u, logits);
    bench(&d, NULL, text, DM_UNSEEN_ZERO, logits);
    dm_decoder_release(&d);
    tablet_free(&table);
    free(logits);
    free(text);
    return 0;
}
