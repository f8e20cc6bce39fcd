/* SPDX-License-Identifier: MIT */
/* calibrate.h - choose the back-off threshold eps_b by measurement, with a guarantee.
 *
 * Every setting (an eps_b and a policy for unseen n-grams) continues the same held-out prompts from
 * the same seeds as the base alone; all of them take turns within each prompt, so that a slow
 * minute of the machine hits them alike. The base judges each text (judge.h).
 *
 * loss   = the base's mean log p per token of its own text minus that of the setting's text
 * rise   = repeated trigrams of the setting's text minus those of the base's text
 * Both are averaged over the samples of a prompt; prompts are independent, so mean, standard error
 * and a one-sided upper confidence bound (Student's t) come from the prompts' values.
 *
 * A setting passes if the bounds of loss and rise are within their margins. From the safe end
 * (eps_b = 1 is the base itself) each is tested until the first one fails, and the last one that
 * passed is chosen: testing in a fixed order needs no correction for the number of settings, so
 * with probability `confidence` the chosen eps_b loses no more than the margin on prompts like
 * these. With several policies each gets an equal share of the risk, and the one with the most
 * tokens per forward wins. If nothing below eps_b = 1 passes, none is chosen. */
#ifndef DM_EVAL_CALIBRATE_H
#define DM_EVAL_CALIBRATE_H

#include "src/decode/generate.h"
#include "src/io/shard.h"

enum { DM_CAL_EPS = 64, DM_CAL_UNSEEN = 3 };

struct dm_cal_opt {
    struct dm_gen_opt gen; /* eps_b, unseen, seed, max_tokens and stop_eos come from below */
    double eps[DM_CAL_EPS];
    size_t n_eps;
    enum dm_unseen unseen[DM_CAL_UNSEEN];
    size_t n_unseen;
    size_t prompts, prompt_tokens, tokens, samples; /* samples: texts per prompt */
    uint64_t seed;
    double margin;        /* nats per token that the text may lose */
    double repeat_margin; /* rise of the share of repeated trigrams */
    double confidence;
};

/* eps 0, .1, .. 1; unseen as dm_gen_opt_default(); 32 prompts of 32 tokens, 4 texts of 64 tokens
 * each; seed 1; margins 0.1 nats and 0.02; confidence 0.95. */
struct dm_cal_opt dm_cal_opt_default(void);

/* Ranges; sorts eps from 1 down and drops doubles. DM_ERANGE names the field. */
enum dm_status dm_cal_opt_check(struct dm_cal_opt *o, struct dm_err *e);

/* One text, as measured. */
struct dm_cal_text {
    double logp, repeats; /* judge.h */
    double fidelity;      /* (log q - log p) per token, judge.h; NaN at temperature 0 */
    struct dm_gen_stats stats;
};

/* A setting's evidence. Rates are medians over texts; speedup is the median of the ratios to the
 * base's text of the same prompt and sample. */
struct dm_cal_point {
    double eps_b;
    enum dm_unseen unseen;
    size_t tokens, forwards, blocks[DM_ORDER_MAX + 1];
    double rate, speedup;
    double logp, repeats, fidelity;
    double loss, loss_se, loss_bound;
    double rise, rise_se, rise_bound;
    bool passes;
};

struct dm_cal_report {
    struct dm_cal_opt opt;
    struct dm_cal_point base;                               /* the base alone */
    struct dm_cal_point points[DM_CAL_EPS * DM_CAL_UNSEEN]; /* by policy, then falling eps_b */
    size_t n_points;
    size_t chosen; /* index of the setting, or n_points = none */
};

/* texts[(setting * prompts + prompt) * samples + sample], setting 0 the base, then the points in
 * order -> the whole report. The rule above; no model needed. o was checked. DM_ENOMEM. */
enum dm_status dm_cal_summarise(struct dm_cal_report *r, const struct dm_cal_opt *o,
                                const struct dm_cal_text *texts, struct dm_err *e);

/* Prompts for calibration: o->prompts runs of o->prompt_tokens ids without a separator, spread
 * evenly over the shard. out (prompts, prompt_tokens). DM_ERANGE when the shard has too few. */
enum dm_status dm_cal_prompts(int32_t *out, const struct dm_cal_opt *o, struct dm_shard *shard,
                              struct dm_err *e);

/* Called after each text with the share that is done; false stops with DM_ESTOPPED. */
typedef bool dm_cal_fn(void *ctx, double share);

/* Generates and judges everything. prompts as from dm_cal_prompts; o was checked; cooc may be NULL;
 * fn may be NULL. */
enum dm_status dm_cal_run(struct dm_cal_report *r, const struct dm_model *m,
                          const struct dm_cooc *cooc, const struct dm_cal_opt *o,
                          const int32_t *prompts, dm_cal_fn *fn, void *ctx, struct dm_err *e);

#endif
