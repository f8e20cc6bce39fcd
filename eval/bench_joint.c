/* SPDX-License-Identifier: MIT */
/* bench_joint.c - what the joint distribution of three heads costs beside a step of the model.
 *
 * Without a table of the user's, one is counted in a synthetic text whose unigrams follow Zipf's
 * law and whose next token depends on the last one. Each head's logits are noisy log frequencies
 * with a bonus for frequent successors and for the token that follows in the text, so that the
 * candidates include frequent words, whose rows of the table are long, as with real heads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/bench_impl.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/decode/decoder.h"

enum { TOP_K = 50, HEADS = 3, ID_BITS = 21, LOGIT_SETS = 8 };

struct joint {
    struct dm_cooc table;
    int32_t *text;
    size_t n_text, V;
    float *logits; /* (LOGIT_SETS,HEADS,V) */
    struct dm_decoder dec;
};

/* P(rank < x) grows like log x: Zipf's law with exponent 1. */
static int32_t zipf(struct dm_rng *rng, size_t V)
{
    return (int32_t)(exp(dm_rng_uniform(rng) * log((double)V + 1.0)) - 1.0);
}

static int32_t successor(int32_t x, int32_t rank, size_t V)
{
    // half of the time low ranks map to low ids: frequent tokens follow more often
    const uint64_t h = dm_mix64((uint64_t)x << 32 | (uint64_t)rank);
    return h & 1 ? (int32_t)((double)(h >> 40) * rank * 0x1p-24) : (int32_t)((h >> 8) % V);
}

static void write_text(struct joint *j)
{
    struct dm_rng rng;
    dm_rng_init(&rng, 1, 0);
    for (size_t i = 0; i < j->n_text; i++) {
        const int32_t z = zipf(&rng, j->V);
        j->text[i] = i && dm_rng_uniform(&rng) < 0.6 ? successor(j->text[i - 1], z, j->V) : z;
    }
}

static void write_logits(struct joint *j)
{
    float *x = j->logits;
    for (size_t set = 0; set < LOGIT_SETS; set++) {
        struct dm_rng rng;
        dm_rng_init(&rng, 2, set);
        const int32_t *at = j->text + dm_rng_below(&rng, j->n_text - HEADS);
        for (size_t h = 0; h < HEADS; h++, x += j->V) {
            for (size_t v = 0; v < j->V; v++)
                x[v] = (float)(-log((double)v + 2.0) + 0.8 * dm_rng_normal(&rng));
            for (int32_t r = 0; r < 40; r++)
                x[successor(at[h], r, j->V)] += 3.0f;
            x[at[h + 1]] += (float)(4.0 * dm_rng_uniform(&rng));
        }
    }
}

static int by_key(const void *x, const void *y)
{
    const uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return (a > b) - (a < b);
}

static void count_sorted(struct dm_cooc *c, const uint64_t *key, size_t n)
{
    const uint64_t mask = ((uint64_t)1 << ID_BITS) - 1;
    for (size_t i = 0; i < n; i++) {
        const bool pair = !i || key[i] >> ID_BITS != key[i - 1] >> ID_BITS;
        if (pair) {
            c->row[(key[i] >> (2 * ID_BITS)) + 1]++;
            c->x2[c->n_pairs++] = (uint32_t)(key[i] >> ID_BITS & mask);
        }
        if (pair || key[i] != key[i - 1])
            c->x3[c->n_triplets++] = (uint32_t)(key[i] & mask);
        c->c1[key[i] >> (2 * ID_BITS)]++;
        c->c2[c->n_pairs - 1]++;
        c->c3[c->n_triplets - 1]++;
        c->sub[c->n_pairs] = c->n_triplets;
    }
    for (size_t v = 0; v < c->V; v++)
        c->row[v + 1] += c->row[v];
}

/* A table of the text's triplets and their leading pairs, with the arrays of a loaded one. */
static enum dm_status count_text(struct joint *j, struct dm_err *e)
{
    struct dm_cooc *c = &j->table;
    const size_t n = j->n_text - 2;
    *c = (struct dm_cooc){.V = j->V, .order = 3, .N = {n, n, n}};
    uint64_t *key = dm_alloc(n, sizeof(*key));
    c->c1 = dm_alloc(j->V, sizeof(*c->c1));
    c->row = dm_alloc(j->V + 1, sizeof(*c->row));
    c->sub = dm_alloc(n + 1, sizeof(*c->sub));
    c->x2 = dm_alloc(n, sizeof(*c->x2));
    c->c2 = dm_alloc(n, sizeof(*c->c2));
    c->x3 = dm_alloc(n, sizeof(*c->x3));
    c->c3 = dm_alloc(n, sizeof(*c->c3));
    if (!key || !c->c1 || !c->row || !c->sub || !c->x2 || !c->c2 || !c->x3 || !c->c3) {
        free(key);
        return dm_fail(e, DM_ENOMEM, "out of memory for a table of %zu triplets", n);
    }
    for (size_t i = 0; i < n; i++)
        key[i] = ((uint64_t)j->text[i] << ID_BITS | (uint64_t)j->text[i + 1]) << ID_BITS |
                 (uint64_t)j->text[i + 2];
    qsort(key, n, sizeof(*key), by_key);
    count_sorted(c, key, n);
    for (size_t v = 0; v < c->V; v++)
        c->c1[v] += !c->c1[v]; // a token that only ends the text counts as seen once
    free(key);
    return dm_cooc_index(c, e);
}

static enum dm_status joint_new(struct joint *j, const struct dm_bench *b, struct dm_err *e)
{
    j->V = b->opt.cfg.V;
    if (j->V >> ID_BITS)
        return dm_fail(e, DM_EUNSUPPORTED, "%zu tokens are too many to measure the joint", j->V);
    j->n_text = b->opt.quick ? 20000 : 2000000;
    j->text = dm_alloc(j->n_text, sizeof(*j->text));
    j->logits = dm_alloc((size_t)LOGIT_SETS * HEADS * j->V, sizeof(*j->logits));
    if (!j->text || !j->logits)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    write_text(j);
    write_logits(j);
    if (b->opt.cooc)
        DM_TRY(dm_cooc_load_ratios(&j->table, b->opt.cooc, e));
    else
        DM_TRY(count_text(j, e));
    if (j->table.V > j->V)
        return dm_fail(e, DM_EMISMATCH, "%s has ids up to %zu, the model %zu", b->opt.cooc,
                       j->table.V, j->V);
    return dm_decoder_init(&j->dec, j->V, TOP_K, HEADS, e);
}

/* The weights of a step leave nothing else in the caches, but the logits are fresh. */
static void empty_caches(struct dm_bench *b, const float *logits, size_t n)
{
    volatile float sink = 0.0f;
    dm_bench_probe(b);
    for (size_t i = 0; i < n; i++)
        sink = logits[i];
    (void)sink;
}

/* Mean seconds over the sets of logits, as after a step of the model: [0] choosing the candidates,
 * [1] joint and threshold, [2] the decoder's whole step; [3] is [1] once more at once. */
enum { PARTS = 4 };

static double time_joint(struct joint *j, const struct dm_mask *mask)
{
    struct dm_cells cells;
    const double t = dm_now();
    dm_joint_begin(j->dec.joint, j->dec.cand, HEADS, mask);
    if (dm_joint_order(j->dec.joint, HEADS, 0))
        dm_joint_threshold(j->dec.joint, true, &cells);
    return dm_now() - t;
}

static enum dm_status time_sets(struct dm_bench *b, struct joint *j, double s[PARTS],
                                struct dm_err *e)
{
    const struct dm_gen_opt o = dm_gen_opt_default();
    const struct dm_mask mask = {&j->table, o.alpha_c, o.unseen, o.lambda};
    for (size_t k = 0; k < PARTS; k++)
        s[k] = 0.0;
    for (size_t i = 0; i < LOGIT_SETS; i++) {
        const float *logits = j->logits + i * HEADS * j->V;
        struct dm_block block;
        empty_caches(b, logits, HEADS * j->V);
        double t = dm_now();
        for (size_t h = 0; h < HEADS; h++)
            dm_cand_select(&j->dec.cand[h], logits + h * j->V, j->V, TOP_K, o.temperature);
        s[0] += (dm_now() - t) / LOGIT_SETS;
        s[1] += time_joint(j, &mask) / LOGIT_SETS;
        s[3] += time_joint(j, &mask) / LOGIT_SETS;
        empty_caches(b, logits, HEADS * j->V);
        t = dm_now();
        DM_TRY(dm_decoder_step(&j->dec, &o, &j->table, logits, j->V, HEADS, i, &block, e));
        s[2] += (dm_now() - t) / LOGIT_SETS;
    }
    return DM_OK;
}

/* The step that the joint is compared with: one token in bf16, else in the widest format that was
 * measured, with the threads in use. */
static const struct dm_bench_row *step_row(const struct dm_bench *b)
{
    const struct dm_bench_row *best = NULL;
    for (size_t i = 0; i < b->n_rows; i++) {
        const struct dm_bench_row *r = &b->rows[i];
        if (r->what == DM_BENCH_DECODE && r->threads == dm_par_threads() &&
            (!best || r->fmt == DM_FMT_BF16))
            best = r;
    }
    return best;
}

static enum dm_status joint_row(struct dm_bench *b, struct joint *j, struct dm_err *e)
{
    double us[PARTS][DM_BENCH_RUNS_MAX], share[DM_BENCH_RUNS_MAX], s[PARTS];
    const struct dm_bench_row *step = step_row(b);
    const double step_us = step ? 1e3 * dm_bench_value(step, "ms")->median : 0.0;
    const int fmt = step ? step->fmt : -1;
    DM_TRY(dm_bench_next(b, DM_BENCH_JOINT, "order 3, top_k 50", e));
    DM_TRY(time_sets(b, j, s, e)); // not counted
    for (size_t i = 0; i < b->opt.runs; i++) {
        DM_TRY(time_sets(b, j, s, e));
        for (int k = 0; k < PARTS; k++)
            us[k][i] = 1e6 * s[k];
        share[i] = us[1][i] / step_us;
    }
    struct dm_bench_row *r = dm_bench_row_new(b, DM_BENCH_JOINT, "order 3, top_k 50", fmt);
    if (!r)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_bench_row_add(r, "candidates_us", us[0], b->opt.runs);
    dm_bench_row_add(r, "decoder_us", us[2], b->opt.runs);
    dm_bench_row_add(r, "warm_joint_us", us[3], b->opt.runs);
    dm_bench_row_add(r, "joint_us", us[1], b->opt.runs);
    if (step_us > 0.0)
        dm_bench_row_add(r, "share_of_step", share, b->opt.runs);
    return DM_OK;
}

enum dm_status dm_bench_joint(struct dm_bench *b, struct dm_err *e)
{
    struct joint j = {0};
    DM_TRY(dm_bench_need_mem(b, e));
    DM_TRY(dm_bench_next(b, DM_BENCH_JOINT, "table", e));
    enum dm_status st = joint_new(&j, b, e);
    for (size_t t = 0; t < b->opt.n_threads && !st; t++) {
        dm_bench_use_threads(b, t);
        st = joint_row(b, &j, e);
    }
    dm_decoder_release(&j.dec);
    dm_cooc_release(&j.table);
    free(j.text);
    free(j.logits);
    return st;
}
