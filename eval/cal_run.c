/* SPDX-License-Identifier: MIT */
/* cal_run.c - the trials of a calibration: base and control on the prompts of the margins, then
 * base, control and all settings on the others. */
#include <stdlib.h>
#include <string.h>

#include "eval/calibrate.h"

enum { MARGINS, TEST, N_TRIALS };
/* The control's texts, and those of the margins' prompts, have seeds of their own. */
#define CONTROL_SEED ((uint64_t)1 << 40)
#define MARGINS_SEED ((uint64_t)1 << 41)
#define FIT_SEED ((uint64_t)1 << 42)

struct job {
    const struct dm_cal_opt *o;
    struct dm_trial_setting *settings; /* (2 + points) */
    int32_t *ids[N_TRIALS];            /* (prompts,prompt_tokens) */
    size_t *start;                     /* of the larger trial */
    struct dm_trial trial[N_TRIALS];
    double before, share; /* what is done, and what the running trial is of the whole */
    dm_trial_fn *fn;
    void *ctx;
};

static void list_settings(struct job *j)
{
    const struct dm_cal_opt *o = j->o;
    for (size_t i = 0; i < 2; i++) {
        j->settings[i].gen = o->gen;
        j->settings[i].gen.mode = DM_GEN_AR;
    }
    j->settings[1].seed = CONTROL_SEED;
    for (size_t i = 0; i < o->n_eps * dm_cal_sequences(o); i++)
        j->settings[2 + i] = (struct dm_trial_setting){.gen = dm_cal_setting(o, i), .table = true};
}

/* Deals the prompts: as many as the margins need, at equal distances, the others to the test. */
static void deal(struct job *j, const int32_t *prompts)
{
    const struct dm_cal_opt *o = j->o;
    const size_t n = o->control_prompts + o->prompts, bytes = o->prompt_tokens * sizeof(*prompts);
    size_t dealt[N_TRIALS] = {0, 0};
    for (size_t i = 0; i < n; i++) {
        const size_t to = (i + 1) * o->control_prompts / n > i * o->control_prompts / n ? MARGINS
                                                                                        : TEST;
        memcpy(j->ids[to] + dealt[to]++ * o->prompt_tokens, prompts + i * o->prompt_tokens, bytes);
    }
}

static bool report_share(void *ctx, double share)
{
    const struct job *j = ctx;
    return !j->fn || j->fn(j->ctx, j->before + j->share * share);
}

/* With what all settings have in common, or the first of each list. */
static enum dm_status make_fit(struct job *j, struct dm_fit_report *fit, const struct dm_model *m,
                               const struct dm_cooc *cooc, struct dm_err *e)
{
    const struct dm_cal_opt *o = j->o;
    const struct dm_gen_opt g = dm_cal_setting(o, 0);
    return dm_fit_make(fit, m, cooc, &g, j->ids[MARGINS], o->control_prompts, o->prompt_tokens,
                       o->tokens, o->seed + FIT_SEED, report_share, j, e);
}

static enum dm_status job_init(struct job *j, struct dm_err *e)
{
    const struct dm_cal_opt *o = j->o;
    const size_t most = o->prompts > o->control_prompts ? o->prompts : o->control_prompts;
    j->settings = dm_alloc(2 + o->n_eps * dm_cal_sequences(o), sizeof(*j->settings));
    j->ids[MARGINS] = dm_alloc(o->control_prompts, o->prompt_tokens * sizeof(**j->ids));
    j->ids[TEST] = dm_alloc(o->prompts, o->prompt_tokens * sizeof(**j->ids));
    j->start = dm_alloc(most + 1, sizeof(*j->start));
    if (!j->settings || !j->ids[MARGINS] || !j->ids[TEST] || !j->start)
        return dm_fail(e, DM_ENOMEM, "out of memory for the settings and prompts");
    for (size_t i = 0; i <= most; i++)
        j->start[i] = i * o->prompt_tokens;
    return DM_OK;
}

static void job_release(struct job *j)
{
    for (size_t i = 0; i < N_TRIALS; i++) {
        dm_trial_release(&j->trial[i]);
        free(j->ids[i]);
    }
    free(j->settings);
    free(j->start);
}

enum dm_status dm_cal_run(struct dm_cal_report *r, const struct dm_model *m,
                          const struct dm_model *judge, const struct dm_cooc *cooc,
                          const struct dm_cal_opt *o, const int32_t *prompts, dm_trial_fn *fn,
                          void *ctx, struct dm_err *e)
{
    struct dm_cal_opt fitted = *o;
    struct dm_fit_report fit = {.fit = {.known = false}};
    struct job j = {.o = &fitted, .fn = fn, .ctx = ctx};
    const size_t points = o->n_eps * dm_cal_sequences(o), n[N_TRIALS] = {2, 2 + points};
    const size_t prompts_of[N_TRIALS] = {o->control_prompts, o->prompts};
    const double all = (double)(n[MARGINS] * o->control_prompts + n[TEST] * o->prompts);
    *r = (struct dm_cal_report){0};
    if (m->cfg.K < 2)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "the model has no heads beyond the base's: nothing to calibrate, train "
                       "heads first");
    enum dm_status st = job_init(&j, e);
    if (!st)
        deal(&j, prompts);
    if (!st && o->gen.fitted && !o->gen.fit.known && o->gen.temperature > 0) {
        st = make_fit(&j, &fit, m, cooc, e);
        fitted.gen.fit = fit.fit;
    }
    if (!st)
        list_settings(&j);
    for (size_t i = 0; i < N_TRIALS && !st; i++) {
        j.share = (double)(n[i] * prompts_of[i]) / all;
        st = dm_trial_run(&j.trial[i],
                          &(struct dm_trial_opt){.model = m,
                                                 .judge = judge,
                                                 .cooc = cooc,
                                                 .settings = j.settings,
                                                 .n_settings = n[i],
                                                 .prompts = {j.ids[i], j.start, prompts_of[i]},
                                                 .samples = o->samples,
                                                 .tokens = o->tokens,
                                                 .seed = o->seed + (i ? 0 : MARGINS_SEED)},
                          report_share, &j, e);
        j.before += j.share;
    }
    if (!st)
        st = dm_cal_decide(r, &fitted, &j.trial[MARGINS], &j.trial[TEST], e);
    r->fit = fit;
    job_release(&j);
    return st;
}
