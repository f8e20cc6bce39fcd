/* SPDX-License-Identifier: MIT */
/* cal_run.c - generating and judging the texts of a calibration. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/calibrate.h"
#include "eval/judge.h"

/* What every text needs. */
struct run {
    const struct dm_cal_opt *o;
    struct dm_gen *base, *heads; /* the base alone does not pay for the heads */
    struct dm_judge *judge;
    struct dm_ids text;
};

static bool add_log_q(void *ctx, const struct dm_block *b)
{
    *(double *)ctx += log(b->q);
    return true;
}

/* Setting 0 is the base; the others as in dm_cal_report.points. */
static enum dm_status one_text(struct dm_cal_text *out, struct run *r, size_t setting,
                               const int32_t *prompt, uint64_t seed, struct dm_err *e)
{
    const struct dm_cal_opt *o = r->o;
    struct dm_gen_opt g = o->gen;
    double log_q = 0.0;
    g.seed = seed;
    g.max_tokens = o->tokens;
    g.stop_eos = false; // texts of one length compare best
    g.mode = setting ? DM_GEN_DYNAMO : DM_GEN_AR;
    if (setting) {
        g.eps_b = o->eps[(setting - 1) % o->n_eps];
        g.unseen = o->unseen[(setting - 1) / o->n_eps];
    }
    r->text.n = 0;
    for (size_t i = 0; i < o->prompt_tokens; i++)
        DM_TRY(dm_ids_push(&r->text, prompt[i], e));
    DM_TRY(dm_gen_run(setting ? r->heads : r->base, &g, prompt, o->prompt_tokens, &r->text,
                      add_log_q, &log_q, &out->stats, e));
    struct dm_verdict v;
    DM_TRY(dm_judge_text(r->judge, r->text.id, o->prompt_tokens, r->text.n, g.temperature,
                         g.penalty, &v, e));
    out->logp = v.logp;
    out->repeats = v.repeats;
    out->fidelity = log_q / (double)out->stats.tokens - v.sampler_logp;
    return DM_OK;
}

/* All texts: within a prompt and sample the settings take turns, starting with another one each
 * time. */
static enum dm_status all_texts(struct dm_cal_text *texts, struct run *r, const int32_t *prompts,
                                dm_cal_fn *fn, void *ctx, struct dm_err *e)
{
    const struct dm_cal_opt *o = r->o;
    const size_t n_settings = 1 + o->n_eps * o->n_unseen, n = o->prompts * o->samples;
    for (size_t round = 0; round < n; round++) {
        const size_t prompt = round / o->samples;
        for (size_t i = 0; i < n_settings; i++) {
            const size_t setting = (round + i) % n_settings;
            DM_TRY(one_text(&texts[setting * n + round], r, setting,
                            prompts + prompt * o->prompt_tokens, o->seed + round, e));
            const double done = (double)(round * n_settings + i + 1);
            if (fn && !fn(ctx, done / (double)(n * n_settings)))
                return dm_fail(e, DM_ESTOPPED, "stopped, nothing was stored");
        }
    }
    return DM_OK;
}

enum dm_status dm_cal_run(struct dm_cal_report *out, const struct dm_model *m,
                          const struct dm_cooc *cooc, const struct dm_cal_opt *o,
                          const int32_t *prompts, dm_cal_fn *fn, void *ctx, struct dm_err *e)
{
    struct run r = {.o = o};
    const size_t T = o->prompt_tokens + o->tokens;
    if (m->cfg.K < 2)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "the model has no heads beyond the base's: nothing to "
                       "calibrate, train heads first");
    if (T > m->cfg.T_max)
        return dm_fail(e, DM_ERANGE,
                       "prompts of %zu and texts of %zu tokens exceed the context %zu",
                       o->prompt_tokens, o->tokens, m->cfg.T_max);
    struct dm_cal_text *texts = dm_alloc((1 + o->n_eps * o->n_unseen) * o->prompts,
                                         o->samples * sizeof(*texts));
    enum dm_status st = DM_OK;
    if (!texts)
        st = dm_fail(e, DM_ENOMEM, "out of memory for the evidence");
    if (!st)
        st = dm_gen_new(&r.base, m, NULL, 1, e);
    if (!st)
        st = dm_gen_new(&r.heads, m, cooc, m->cfg.K, e);
    if (!st)
        st = dm_judge_new(&r.judge, m, T, e);
    if (!st)
        st = all_texts(texts, &r, prompts, fn, ctx, e);
    if (!st)
        st = dm_cal_summarise(out, o, texts, e);
    dm_ids_release(&r.text);
    dm_judge_free(r.judge);
    dm_gen_free(r.heads);
    dm_gen_free(r.base);
    free(texts);
    return st;
}
