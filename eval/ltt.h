/* SPDX-License-Identifier: MIT */
/* ltt.h - Learn then Test (Angelopoulos et al. 2021) for losses of 0 and 1.
 *
 * Each setting fails on some of n prompts; its risk is the probability that it fails on a new one.
 * "The risk is at least `risk`" is tested with the exact binomial p-value, P(Bin(n, risk) <= k)
 * after k failures. Settings come in sequences, each from the safest on: its first one is tested at
 * level delta / (number of sequences), the next only if that was rejected, and so on
 * (fixed-sequence testing, Bonferroni over the sequences). A rejected setting is certified. The
 * probability that any setting whose risk is `risk` or more is certified is then at most delta,
 * whichever of them is chosen afterwards and for what reason. */
#ifndef DM_EVAL_LTT_H
#define DM_EVAL_LTT_H

#include <stdbool.h>
#include <stddef.h>

struct dm_ltt {
    size_t sequence;        /* settings of one sequence are neighbours, the safest first */
    size_t failures;        /* of n prompts */
    double p;               /* written: the p-value */
    bool tested, certified; /* written */
};

/* The level of each test. */
double dm_ltt_level(double delta, size_t sequences);

/* 0 < risk < 1. */
void dm_ltt_test(struct dm_ltt *s, size_t n_settings, size_t sequences, size_t n, double risk,
                 double delta);

#endif
