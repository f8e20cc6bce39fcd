/* SPDX-License-Identifier: MIT */
/* calibrate.h - choose how to decode by measurement, with a guarantee.
 *
 * A setting is an eps_b together with an alpha_c, a policy for unseen n-grams and a top_k. All
 * settings continue the same held-out prompts from the same seeds as the base alone (trial.h), and
 * so does the control: the base with other seeds. A prompt's values, means over its samples, are
 *
 *   divergence   nats per token by which the sampler differs from the base's (judge.h); NaN for
 *                greedy text, and then not tested
 *   logp         the judge's mean log p per token of the base's text minus that of the setting's
 *   repeats_4    repeated 4-grams of the setting's text minus those of the base's
 *
 * A prompt fails when one of them exceeds its margin: the quantile of the control's values over
 * prompts of their own, plus a slack. A setting's risk is the probability that a prompt fails.
 *
 * Goal risk: settings of one alpha_c, policy and top_k form a sequence from eps_b = 1 down, which
 * ltt.h tests. With probability `confidence` no certified setting has a risk above `risk`; the
 * fastest of them is chosen.
 * Goal quality: the same sequences, but a setting passes when the upper confidence bound (Student's
 * t over prompts) of its mean divergence is within the target; the fastest that passed.
 * Goal speedup: of the settings that reach the target, the one with the smallest mean divergence.
 */
#ifndef DM_EVAL_CALIBRATE_H
#define DM_EVAL_CALIBRATE_H

#include "eval/fit_make.h"
#include "eval/ltt.h"
#include "eval/trial.h"
#include "src/decode/certificate.h"
#include "src/io/shard.h"

enum { DM_CAL_EPS = 64, DM_CAL_LIST = 8, DM_CAL_UNSEEN = 4 };

enum dm_cal_goal { DM_CAL_RISK, DM_CAL_SPEEDUP, DM_CAL_QUALITY };
extern const char *const dm_cal_goal_names[]; /* "risk", "speedup", "quality" */

struct dm_cal_opt {
    struct dm_gen_opt gen; /* what the lists below do not say; the base decodes with its top_k */
    double eps[DM_CAL_EPS], alpha_c[DM_CAL_LIST];
    enum dm_unseen unseen[DM_CAL_UNSEEN];
    size_t top_k[DM_CAL_LIST];
    size_t n_eps, n_alpha_c, n_unseen, n_top_k;
    size_t prompts, control_prompts, prompt_tokens, tokens, samples; /* samples: texts per prompt */
    uint64_t seed;
    enum dm_cal_goal goal;
    double target;   /* of goals speedup and quality */
    bool wall_clock; /* "fast" is the clock against the base's; else tokens per forward */
    double risk, confidence;
    double quantile, slack[DM_CERT_LOSSES]; /* of the margins */
};

/* eps 0.35, 0.4 .. 0.7, 0.8, 0.9; alpha_c, unseen and top_k as dm_gen_opt_default(). 200 prompts
 * and 100 for the margins, of 32 tokens; 2 texts of 100 tokens each; seed 1; goal risk: 0.05 at
 * confidence 0.95; quantile 0.99; slacks 0.2 nats, 0.1 nats and 0.05. */
struct dm_cal_opt dm_cal_opt_default(void);

/* Ranges; sorts eps from 1 down and drops doubles. DM_ERANGE names the field, or says how many
 * prompts the risk would take. */
enum dm_status dm_cal_opt_check(struct dm_cal_opt *o, struct dm_err *e);

size_t dm_cal_sequences(const struct dm_cal_opt *o);
double dm_cal_level(const struct dm_cal_opt *o); /* of each test, ltt.h */

/* The options of setting i < n_eps * sequences: by sequence, then falling eps_b. */
struct dm_gen_opt dm_cal_setting(const struct dm_cal_opt *o, size_t i);

/* A setting's evidence. */
struct dm_cal_point {
    struct dm_gen_opt gen;
    struct dm_trial_sum sum;
    double mean[DM_CERT_LOSSES], se[DM_CERT_LOSSES]; /* of the values above */
    double bound;                     /* upper confidence bound of the mean divergence */
    size_t failed_by[DM_CERT_LOSSES]; /* prompts over this margin */
    struct dm_ltt test;               /* goal quality: p is not used */
};

struct dm_cal_report {
    struct dm_cal_opt opt;
    double quantile[DM_CERT_LOSSES], margin[DM_CERT_LOSSES];
    struct dm_cal_point base, control; /* their tests are not made */
    struct dm_cal_point *points;       /* (n_points) */
    size_t n_points;
    size_t allowed;           /* failures with which a setting is certified; SIZE_MAX: none */
    size_t chosen;            /* index of the setting, or n_points = none */
    struct dm_fit_report fit; /* where the options want one; it is in opt.gen, too */
};
void dm_cal_report_release(struct dm_cal_report *r);

/* Trials of settings base, control, then (test only) the points in order -> the whole report.
 * `margins` has the control's prompts. No model needed. o was checked. Release *r in any case.
 * DM_ENOMEM. */
enum dm_status dm_cal_decide(struct dm_cal_report *r, const struct dm_cal_opt *o,
                             const struct dm_trial *margins, const struct dm_trial *test,
                             struct dm_err *e);

/* What a setting gains by the option's clock. */
double dm_cal_speed(const struct dm_cal_opt *o, const struct dm_cal_point *p);

/* n prompts of `tokens` ids without a separator, one from each of n equal parts of the shard, at a
 * place that the seed chooses. out (n, tokens). DM_ERANGE when a part has none. */
enum dm_status dm_cal_prompts(int32_t *out, size_t n, size_t tokens, uint64_t seed,
                              struct dm_shard *shard, struct dm_err *e);

/* Makes the fit with the first of all lists on the control's prompts, if o->gen.fitted, there
 * is none in o->gen and text is not greedy; then generates and judges everything. prompts
 * (control_prompts + prompts, prompt_tokens): the control's are taken from among them at equal
 * distances. judge NULL: the base. cooc and fn may be NULL; o was checked. Release *r in any case.
 */
enum dm_status dm_cal_run(struct dm_cal_report *r, const struct dm_model *m,
                          const struct dm_model *judge, const struct dm_cooc *cooc,
                          const struct dm_cal_opt *o, const int32_t *prompts, dm_trial_fn *fn,
                          void *ctx, struct dm_err *e);

#endif
