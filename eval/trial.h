/* SPDX-License-Identifier: MIT */
/* trial.h - settings of decoding tried on the same prompts: texts made and judged, in turns.
 *
 * A trial continues every prompt `samples` times with every setting. Settings are options of
 * decoding, whatever these hold; the base alone is a setting too (mode ar), and so is a control,
 * the base with other seeds. Text k of a prompt has the same seed in all settings (but for
 * dm_trial_setting.seed), so settings are compared in pairs: an eps_b of 1 gives the base's text
 * token for token. Within a prompt and sample the settings take turns, each time starting with
 * another one, so that a slow minute of the machine hits all alike.
 *
 *   const struct dm_trial_setting set[] = {{.gen = base}, {.gen = base, .seed = 1 << 20},
 *                                          {.gen = dynamo, .table = true}};
 *   struct dm_trial_opt o = {.model = &m, .cooc = &table, .settings = set, .n_settings = 3,
 *                            .prompts = prompts, .samples = 4, .tokens = 64, .seed = 1};
 *   struct dm_trial t;
 *   struct dm_trial_sum s;
 *   DM_TRY(dm_trial_run(&t, &o, fn, ctx, e));
 *   dm_trial_summarise(&s, &t, 2, 0, e);     // setting 2 beside setting 0, the base
 *   dm_trial_release(&t);
 *
 * What comes out, seconds excepted, depends on model, table, options and prompts alone: not on the
 * number of threads, nor on which other settings are tried. Texts have one length: end-of-text does
 * not end them. */
#ifndef DM_EVAL_TRIAL_H
#define DM_EVAL_TRIAL_H

#include <jansson.h>

#include "eval/diversity.h"
#include "src/decode/generate.h"

/* What is measured of every text, and its key in JSON. */
#define DM_TRIAL_LIST(X)                                                                  \
    X(LOGP, "logp")             /* the judge's mean log p per token, judge.h */           \
    X(BASE_LOGP, "base_logp")   /* the base's */                                          \
    X(DIVERGENCE, "divergence") /* (log q - log p) per token: of the text's sampler from  \
                                   the base's with its temperature and penalty, judge.h;  \
                                   NaN at temperature 0 */                                \
    X(OUTSIDE, "outside")       /* share of tokens outside the base's top_k */            \
    X(FIRST, "first")           /* share that greedy decoding of the base would write */  \
    X(REPEATS_3, "repeats_3")   /* share of trigrams that occurred earlier in the text */ \
    X(REPEATS_4, "repeats_4")   /* the same of 4-grams */
enum dm_trial_measure {
#define X(name, key) DM_TRIAL_##name,
    DM_TRIAL_LIST(X)
#undef X
        DM_TRIAL_MEASURES
};
extern const char *const dm_trial_keys[DM_TRIAL_MEASURES];

struct dm_trial_setting {
    struct dm_gen_opt gen; /* seed, max_tokens and stop_eos are the trial's */
    bool table;            /* decode with the trial's table; mode ar has no use for it */
    uint64_t seed;         /* added to the seeds of its texts: for a control, more than
                              prompts * samples; 0 for all that are compared */
};

/* Prompt i is ids[start[i]] to before ids[start[i + 1]]; each has its own length. Borrowed. */
struct dm_trial_prompts {
    const int32_t *ids;
    const size_t *start; /* (n + 1) */
    size_t n;
};

struct dm_trial_opt {
    const struct dm_model *model, *judge; /* judge NULL: the model's own base; another one needs the
                                             same tokenizer, which the caller checks */
    const struct dm_cooc *cooc;           /* NULL: no setting has a table */
    const struct dm_trial_setting *settings;
    size_t n_settings;
    struct dm_trial_prompts prompts;
    size_t samples, tokens; /* texts per prompt, tokens of each */
    uint64_t seed;          /* of the first text; the others follow */
};

struct dm_trial_text {
    double value[DM_TRIAL_MEASURES];
    struct dm_gen_stats stats;
};

struct dm_trial {
    size_t n_settings, prompts, samples, tokens;
    struct dm_trial_text *texts; /* (n_settings, prompts, samples) */
    int32_t *ids;                /* (n_settings, prompts, samples, tokens) */
};

/* Called after each text with the share that is done; false stops with DM_ESTOPPED. */
typedef bool dm_trial_fn(void *ctx, double share);

/* Makes and judges all texts. fn may be NULL. Release with dm_trial_release(), after a failure
 * too. DM_ERANGE (an option; a prompt and its text longer than a context), DM_ENOMEM, DM_ENAN,
 * DM_ESTOPPED. */
enum dm_status dm_trial_run(struct dm_trial *t, const struct dm_trial_opt *o, dm_trial_fn *fn,
                            void *ctx, struct dm_err *e);
void dm_trial_release(struct dm_trial *t);

/* Text `sample` of a prompt, and its ids (tokens). */
const struct dm_trial_text *dm_trial_at(const struct dm_trial *t, size_t setting, size_t prompt,
                                        size_t sample);
const int32_t *dm_trial_ids(const struct dm_trial *t, size_t setting, size_t prompt, size_t sample);

/* A measure's mean over the samples of each prompt: out (prompts). Prompts are independent, the
 * samples of one are not, so errors of means come from these. */
void dm_trial_by_prompt(double *out, const struct dm_trial *t, size_t setting,
                        enum dm_trial_measure m);

enum { DM_TRIAL_DISTINCT = 4 };

/* A setting's texts together. */
struct dm_trial_sum {
    double value[DM_TRIAL_MEASURES];        /* means */
    double se[DM_TRIAL_MEASURES];           /* their standard errors over prompts; stats.h */
    double distinct[DM_TRIAL_DISTINCT + 1]; /* distinct-n of all texts, n = 1..; [0] is not used */
    /* Tokens before the first one in which the text differs from the reference's text of the same
     * prompt and sample, as a share of all tokens. With both greedy: the agreement with the base.
     */
    double agree;
    size_t tokens, forwards, blocks[DM_ORDER_MAX + 1];
    double per_forward; /* tokens / forwards */
    double rate;        /* median tokens/s */
    double speedup;     /* median ratio to the reference's tokens/s, text by text */
};

/* `reference` is the setting that this one is compared with, mostly the base. DM_ENOMEM. */
enum dm_status dm_trial_summarise(struct dm_trial_sum *s, const struct dm_trial *t, size_t setting,
                                  size_t reference, struct dm_err *e);

/* {tokens, forwards, tokens_per_forward, blocks: {"1": ..}, tokens_per_second, speedup, a member of
 * each measure and its "<key>_se", distinct: {"1": ..}, agree}; what is not a number is null. New
 * reference, NULL when out of memory. */
json_t *dm_trial_sum_to_json(const struct dm_trial_sum *s);

#endif
