/* SPDX-License-Identifier: MIT */
#include "data/cooc_prune.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/arena.h"

/* ---- From keys to n-grams of all orders ---------------------------------------------------- */

/* Of one slot. */
struct walker {
    uint32_t id[DM_NGRAM_ORDER_MAX];
    uint64_t count[DM_NGRAM_ORDER_MAX]; /* of id[0..n), so far; [0] and [1] are not used */
    size_t open;                        /* ids that are open, fewer than the order */
    uint64_t prefix;                    /* the last key without its last id */
    char apart[DM_APART];
};

struct walk {
    const struct dm_cooc_walk *user;
    size_t order;
    unsigned bits;
    struct walker *slot;
};

/* Ends the n-grams longer than `keep`; each adds its count to the one it continues. */
static enum dm_status end_longer(const struct walk *k, size_t slot, size_t keep, struct dm_err *e)
{
    struct walker *w = &k->slot[slot];
    for (; w->open > keep; w->open--) {
        const struct dm_gram x = {w->id, w->open, w->count[w->open]};
        if (w->open >= 2)
            DM_TRY(k->user->add(k->user->ctx, slot, &x, e));
        w->count[w->open - 1] += x.count;
        w->count[w->open] = 0;
    }
    return DM_OK;
}

/* The n-grams whose ids but the last are open. */
static enum dm_status add_leaves(const struct walk *k, size_t slot, const struct dm_counts *c,
                                 struct dm_err *e)
{
    struct walker *w = &k->slot[slot];
    const uint64_t mask = ((uint64_t)1 << k->bits) - 1;
    if (k->user->leaves)
        return k->user->leaves(k->user->ctx, slot, w->id, c, e);
    for (size_t i = 0; i < c->n; i++) {
        const struct dm_gram x = {w->id, k->order, c->count[i]};
        w->id[k->order - 1] = (uint32_t)(c->key[i] & mask);
        DM_TRY(k->user->add(k->user->ctx, slot, &x, e));
    }
    return DM_OK;
}

/* Keys that differ in their last id only. */
static enum dm_status walk_run(const struct walk *k, size_t slot, struct dm_counts c,
                               struct dm_err *e)
{
    struct walker *w = &k->slot[slot];
    const unsigned bits = k->bits, top = (unsigned)k->order - 2; // ids below the first one
    const uint64_t mask = ((uint64_t)1 << bits) - 1, prefix = c.key[0] >> bits;
    size_t same = 0;
    while (same < w->open && !((prefix ^ w->prefix) >> bits * (top - same)))
        same++;
    if (same < w->open)
        DM_TRY(end_longer(k, slot, same, e));
    for (; w->open <= top; w->open++) {
        const uint32_t id = (uint32_t)(prefix >> bits * (top - (unsigned)w->open) & mask);
        if (!id)
            break;
        w->id[w->open] = id;
    }
    w->prefix = prefix;
    for (size_t i = 0; i < c.n; i++)
        w->count[w->open] += c.count[i];
    const size_t ends = !(c.key[0] & mask); // the document does after the open ids
    c = (struct dm_counts){c.key + ends, c.count + ends, c.n - ends};
    return c.n ? add_leaves(k, slot, &c, e) : DM_OK;
}

static enum dm_status walk_keys(void *ctx, size_t slot, const struct dm_counts *c, bool end,
                                struct dm_err *e)
{
    const struct walk *k = ctx;
    for (size_t i = 0, next; i < c->n; i = next) {
        const uint64_t prefix = c->key[i] >> k->bits;
        for (next = i + 1; next < c->n && c->key[next] >> k->bits == prefix;)
            next++;
        DM_TRY(walk_run(k, slot, (struct dm_counts){c->key + i, c->count + i, next - i}, e));
    }
    return end ? end_longer(k, slot, 0, e) : DM_OK;
}

static enum dm_status walked(void *ctx, size_t slot, struct dm_err *e)
{
    const struct walk *k = ctx;
    return k->user->give(k->user->ctx, slot, e);
}

enum dm_status dm_cooc_walk(struct dm_ngram *g, const struct dm_cooc_walk *w, struct dm_err *e)
{
    struct walk k = {.user = w, .order = dm_ngram_order(g), .bits = dm_ngram_id_bits(g)};
    const struct dm_ngram_scan scan = {&k, w->key_bytes, walk_keys, walked};
    k.slot = dm_alloc(dm_ngram_slots(g), sizeof(*k.slot));
    const enum dm_status st = k.slot ? dm_ngram_scan(g, &scan, e)
                                     : dm_fail(e, DM_ENOMEM, "no memory to walk through counts");
    free(k.slot);
    return st;
}

/* ---- Scores -------------------------------------------------------------------------------- */

enum dm_status dm_cooc_scorer_init(struct dm_cooc_scorer *s, const struct dm_ngram *g,
                                   const struct dm_cooc_rule *rule, struct dm_err *e)
{
    const uint64_t *N = dm_ngram_totals(g), *c1 = dm_ngram_c1(g);
    const size_t V = dm_ngram_vocab(g);
    *s = (struct dm_cooc_scorer){.rule = *rule};
    if (!rule->by_weight)
        return DM_OK;
    s->log_p = dm_alloc(V, sizeof(*s->log_p));
    if (!s->log_p)
        return dm_fail(e, DM_ENOMEM, "no memory for the frequencies of %zu ids", V);
    for (size_t i = 0; i < V; i++)
        s->log_p[i] = c1[i] ? log((double)c1[i] / (double)N[0]) : 0.0;
    for (size_t j = 0; j < dm_ngram_order(g); j++)
        s->log_n[j] = log((double)N[j]);
    return DM_OK;
}

void dm_cooc_scorer_release(struct dm_cooc_scorer *s)
{
    free(s->log_p);
    s->log_p = NULL;
}

double dm_cooc_score(const struct dm_cooc_scorer *s, const struct dm_gram *x)
{
    if (!s->rule.by_weight)
        return (double)x->count;
    double log_r = log((double)x->count) - s->log_n[x->n - 1];
    for (size_t i = 0; i < x->n; i++)
        log_r -= s->log_p[x->id[i]];
    return fabs(log_r) * (double)x->count;
}

bool dm_cooc_keeps(const struct dm_cooc_scorer *s, const struct dm_gram *x)
{
    return x->count >= s->rule.min_count[x->n - 2] &&
           (s->rule.min_score <= 0.0 || dm_cooc_score(s, x) >= s->rule.min_score);
}

/* Steps of 1/64 of a doubling from 2^-16 on; whole counts are steps of their own up to 92. */
#define STEPS 64.0
#define LOWEST 16.0

double dm_cooc_histogram_at(size_t i)
{
    return i ? exp2((double)i / STEPS - LOWEST) : 0.0;
}

struct counting {
    struct dm_cooc_scorer scorer;
    struct dm_cooc_histogram *h, *slot; /* the sum, and (slots) */
};

static enum dm_status count_score(void *ctx, size_t slot, const struct dm_gram *x, struct dm_err *e)
{
    struct counting *c = ctx;
    (void)e;
    if (!dm_cooc_keeps(&c->scorer, x))
        return DM_OK;
    const double score = dm_cooc_score(&c->scorer, x);
    const double at = score > 0.0 ? (log2(score) + LOWEST) * STEPS : 0.0;
    size_t i = at < 0.0 ? 0 : at > DM_COOC_SCORES - 1 ? DM_COOC_SCORES - 1 : (size_t)at;
    // rounding must not put a score into the step above or below its own
    while (i && dm_cooc_histogram_at(i) > score)
        i--;
    while (i + 1 < DM_COOC_SCORES && dm_cooc_histogram_at(i + 1) <= score)
        i++;
    c->slot[slot].n[i]++;
    return DM_OK;
}

static enum dm_status add_scores(void *ctx, size_t slot, struct dm_err *e)
{
    struct counting *c = ctx;
    (void)e;
    for (size_t i = 0; i < DM_COOC_SCORES; i++)
        c->h->n[i] += c->slot[slot].n[i];
    c->slot[slot] = (struct dm_cooc_histogram){0};
    return DM_OK;
}

enum dm_status dm_cooc_count_scores(struct dm_cooc_histogram *h, struct dm_ngram *g,
                                    const struct dm_cooc_rule *rule, struct dm_err *e)
{
    struct counting c = {.h = h};
    const struct dm_cooc_walk walk = {.ctx = &c, .add = count_score, .give = add_scores};
    *h = (struct dm_cooc_histogram){0};
    DM_TRY(dm_cooc_scorer_init(&c.scorer, g, rule, e));
    c.slot = dm_alloc(dm_ngram_slots(g), sizeof(*c.slot));
    const enum dm_status st = c.slot ? dm_cooc_walk(g, &walk, e)
                                     : dm_fail(e, DM_ENOMEM, "no memory to count scores");
    free(c.slot);
    dm_cooc_scorer_release(&c.scorer);
    for (size_t i = DM_COOC_SCORES - 1; i-- > 0;)
        h->n[i] += h->n[i + 1];
    return st;
}
