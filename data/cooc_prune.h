/* SPDX-License-Identifier: MIT */
/* cooc_prune.h - which n-grams of a counted corpus a co-occurrence table keeps.
 *
 * An n-gram is kept when it occurs at least min_count[n-2] times and its score is at least
 * min_score, or when it begins a longer one that is kept. The score is its count, or its weight
 * |log r_n| * count: how much more or less often the corpus has it than its tokens' frequencies
 * alone say, in nats summed over its occurrences, which is what the table changes in J. */
#ifndef DM_DATA_COOC_PRUNE_H
#define DM_DATA_COOC_PRUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/ngram.h"
#include "src/base/status.h"

struct dm_cooc_rule {
    uint64_t min_count[DM_NGRAM_ORDER_MAX - 1]; /* orders from 2, >= 1 */
    bool by_weight;
    double min_score; /* 0: no limit */
};

/* Of one order. */
struct dm_cooc_tally {
    uint64_t total, distinct, ones, twos; /* before pruning; n-grams that occur once, twice */
    uint64_t kept;
};

/* An n-gram: id[0..n), n >= 2, and its count. */
struct dm_gram {
    const uint32_t *id;
    size_t n;
    uint64_t count;
};

/* Calls add for every distinct n-gram of orders 2 and up, each after those that it begins, on
 * several threads: a slot < dm_ngram_slots() gets a stretch of them, with all that a pair begins.
 * Then give(slot) is called, for one stretch at a time and in order. */
struct dm_cooc_walk {
    void *ctx;
    size_t key_bytes; /* as of struct dm_ngram_scan */
    enum dm_status (*add)(void *ctx, size_t slot, const struct dm_gram *x, struct dm_err *e);
    /* Instead of add for n-grams of the highest order, several that begin with the same ids at a
     * time: their keys and counts; id (order) holds these ids. NULL: add. */
    enum dm_status (*leaves)(void *ctx, size_t slot, const uint32_t *id, const struct dm_counts *c,
                             struct dm_err *e);
    enum dm_status (*give)(void *ctx, size_t slot, struct dm_err *e);
};
enum dm_status dm_cooc_walk(struct dm_ngram *g, const struct dm_cooc_walk *w, struct dm_err *e);

/* Scores of n-grams of one corpus. */
struct dm_cooc_scorer {
    struct dm_cooc_rule rule;
    double *log_p; /* (V) log of the ids' frequencies */
    double log_n[DM_NGRAM_ORDER_MAX];
};
enum dm_status dm_cooc_scorer_init(struct dm_cooc_scorer *s, const struct dm_ngram *g,
                                   const struct dm_cooc_rule *rule, struct dm_err *e);
void dm_cooc_scorer_release(struct dm_cooc_scorer *s);
double dm_cooc_score(const struct dm_cooc_scorer *s, const struct dm_gram *x);
bool dm_cooc_keeps(const struct dm_cooc_scorer *s, const struct dm_gram *x);

/* How many n-grams that pass the minimum counts have a score from dm_cooc_histogram_at(i) on. */
#define DM_COOC_SCORES 4096u
struct dm_cooc_histogram {
    uint64_t n[DM_COOC_SCORES];
};
double dm_cooc_histogram_at(size_t i);
enum dm_status dm_cooc_count_scores(struct dm_cooc_histogram *h, struct dm_ngram *g,
                                    const struct dm_cooc_rule *rule, struct dm_err *e);

#endif
