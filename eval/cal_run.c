/* SPDX-License-Identifier: MIT */
/* cal_run.c - the trial of a calibration. */
#include <stdlib.h>

#include "eval/calibrate.h"
#include "eval/trial.h"

/* Setting 0 is the base; the others as in dm_cal_report.points. */
static void list_settings(struct dm_trial_setting *s, const struct dm_cal_opt *o)
{
    s[0].gen = o->gen;
    s[0].gen.mode = DM_GEN_AR;
    for (size_t i = 0; i < o->n_eps * o->n_unseen; i++) {
        struct dm_trial_setting *x = &s[i + 1];
        x->gen = o->gen;
        x->gen.mode = DM_GEN_DYNAMO;
        x->gen.eps_b = o->eps[i % o->n_eps];
        x->gen.unseen = o->unseen[i / o->n_eps];
        x->table = true;
    }
}

static enum dm_status summarise(struct dm_cal_report *out, const struct dm_trial *t,
                                const struct dm_cal_opt *o, struct dm_err *e)
{
    const size_t n = t->n_settings * t->prompts * t->samples;
    struct dm_cal_text *texts = dm_alloc(n, sizeof(*texts));
    if (!texts)
        return dm_fail(e, DM_ENOMEM, "out of memory for the evidence");
    for (size_t i = 0; i < n; i++)
        texts[i] = (struct dm_cal_text){.logp = t->texts[i].value[DM_TRIAL_LOGP],
                                        .repeats = t->texts[i].value[DM_TRIAL_REPEATS_3],
                                        .fidelity = t->texts[i].value[DM_TRIAL_DIVERGENCE],
                                        .stats = t->texts[i].stats};
    const enum dm_status st = dm_cal_summarise(out, o, texts, e);
    free(texts);
    return st;
}

enum dm_status dm_cal_run(struct dm_cal_report *out, const struct dm_model *m,
                          const struct dm_cooc *cooc, const struct dm_cal_opt *o,
                          const int32_t *prompts, dm_cal_fn *fn, void *ctx, struct dm_err *e)
{
    const size_t n_settings = 1 + o->n_eps * o->n_unseen;
    struct dm_trial t = {0};
    if (m->cfg.K < 2)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "the model has no heads beyond the base's: nothing to "
                       "calibrate, train heads first");
    struct dm_trial_setting *settings = dm_alloc(n_settings, sizeof(*settings));
    size_t *start = dm_alloc(o->prompts + 1, sizeof(*start));
    enum dm_status st = DM_OK;
    if (!settings || !start)
        st = dm_fail(e, DM_ENOMEM, "out of memory for the settings");
    if (!st) {
        list_settings(settings, o);
        for (size_t i = 0; i <= o->prompts; i++)
            start[i] = i * o->prompt_tokens;
        st = dm_trial_run(&t,
                          &(struct dm_trial_opt){.model = m,
                                                 .cooc = cooc,
                                                 .settings = settings,
                                                 .n_settings = n_settings,
                                                 .prompts = {prompts, start, o->prompts},
                                                 .samples = o->samples,
                                                 .tokens = o->tokens,
                                                 .seed = o->seed},
                          fn, ctx, e);
    }
    if (!st)
        st = summarise(out, &t, o, e);
    dm_trial_release(&t);
    free(settings);
    free(start);
    return st;
}
