/* SPDX-License-Identifier: MIT */
/* quality.h - settings of a trial (trial.h) beside the base: a pairwise judge, speed, divergence
 * and diversity with bootstrap intervals; and the speed-up at which the judge is indifferent.
 *
 * A text wins when the judge's mean log p of it is higher than of the base's text of the same
 * prompt and sample, and ties when they are equal (mostly: the same text). The win rate is
 *
 *   (wins + ties / 2) / (losses + ties / 2)
 *
 * so that 1 is indifferent, as in the paper; infinite when nothing is lost or tied.
 *
 * Same-quality speed-up (the paper regresses the win rate against the speed-up and does not say
 * how; ours): a straight line by least squares through log((wins + ties/2 + 1/2) / (losses + ties/2
 * + 1/2)) of the settings against their speed-up. The answer is the largest speed-up within [1, the
 * largest measured] at which the line is not below 0, and 1 if there is none. The halves keep the
 * logarithm finite.
 *
 * Intervals: prompts are drawn with replacement, `bootstrap` times, everything is computed again
 * (the line too), and the middle `confidence` of the values is the interval. Texts of a prompt stay
 * together. distinct-n has none: a prompt drawn twice would repeat its own n-grams. */
#ifndef DM_EVAL_QUALITY_H
#define DM_EVAL_QUALITY_H

#include "eval/trial.h"

/* What is reported of a setting, and its key in JSON. */
#define DM_QUALITY_LIST(X)                                                                \
    X(PER_FORWARD, "tokens_per_forward")                                                  \
    X(RATE, "tokens_per_second") /* median over texts */                                  \
    X(WALL, "wall_clock")        /* median ratio to the base's text of the same prompt */ \
    X(WIN_RATE, "win_rate")                                                               \
    X(JUDGE, "judge")           /* the judge's mean log p per token */                    \
    X(DIVERGENCE, "divergence") /* trial.h */                                             \
    X(OUTSIDE, "outside")                                                                 \
    X(REPEATS_3, "repeats_3")                                                             \
    X(REPEATS_4, "repeats_4")                                                             \
    X(DISTINCT_1, "distinct_1") /* of all texts together */                               \
    X(DISTINCT_2, "distinct_2")                                                           \
    X(DISTINCT_3, "distinct_3")
enum dm_quality_measure {
#define X(name, key) DM_QUALITY_##name,
    DM_QUALITY_LIST(X)
#undef X
        DM_QUALITY_MEASURES
};
extern const char *const dm_quality_keys[DM_QUALITY_MEASURES];

struct dm_interval {
    double value, low, high; /* NaN: not to be had; null in JSON, as what is infinite */
};

struct dm_quality_point {
    struct dm_interval value[DM_QUALITY_MEASURES];
    size_t wins, losses, ties;
    double share[DM_ORDER_MAX]; /* of blocks of n = index + 1 tokens */
};

/* The line against one kind of speed-up. */
struct dm_quality_fit {
    struct dm_interval speedup;     /* the answer */
    double intercept, slope;        /* of log win rate at a speed-up of 0, and per 1 */
    double at[DM_QUALITY_MEASURES]; /* other measures there, interpolated between settings */
};

struct dm_quality_opt {
    size_t n_line;    /* settings 1..n_line are on the line; those behind, such as a control, not */
    size_t bootstrap; /* 1 to 1e6 */
    double confidence;
    uint64_t seed;
};

/* points (t->n_settings); setting 0 is the base, to which all are compared. fit (2): against tokens
 * per forward and wall clock; NULL for none. DM_ERANGE (an option), DM_ENOMEM. */
enum dm_status dm_quality_make(struct dm_quality_point *points, struct dm_quality_fit *fit,
                               const struct dm_trial *t, const struct dm_quality_opt *o,
                               struct dm_err *e);

/* As in docs/evaluation.md, without name, settings and paper; new references, NULL when out of
 * memory. */
json_t *dm_quality_point_to_json(const struct dm_quality_point *p);
json_t *dm_quality_fit_to_json(const struct dm_quality_fit *f);

#endif
