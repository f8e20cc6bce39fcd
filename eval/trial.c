/* SPDX-License-Identifier: MIT */
/* trial.c - making and judging the texts. */
#include "eval/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/judge.h"

const char *const dm_trial_keys[DM_TRIAL_MEASURES] = {
#define X(name, key) key,
    DM_TRIAL_LIST(X)
#undef X
};

/* Decoders differ in heads and table; they are made when a setting needs them. */
enum { GEN_BASE, GEN_HEADS, GEN_TABLE, N_GENS };

struct run {
    const struct dm_trial_opt *o;
    struct dm_trial *t;
    struct dm_gen *gen[N_GENS];
    struct dm_judge *base, *judge; /* judge NULL: the base */
    struct dm_ids text;            /* prompt and text */
};

/* The base alone does not pay for the heads. */
static size_t which_gen(const struct dm_trial_opt *o, const struct dm_trial_setting *s)
{
    if (dm_gen_opt_single(&s->gen))
        return GEN_BASE;
    return s->table && o->cooc ? GEN_TABLE : GEN_HEADS;
}

static enum dm_status check(const struct dm_trial_opt *o, struct dm_err *e)
{
    const size_t judge_max = o->judge ? o->judge->cfg.T_max : o->model->cfg.T_max;
    const size_t T_max = judge_max < o->model->cfg.T_max ? judge_max : o->model->cfg.T_max;
    if (!o->prompts.n || !o->samples || !o->tokens || !o->n_settings)
        return dm_fail(e, DM_ERANGE, "no settings, prompts, samples or tokens: nothing to try");
    for (size_t i = 0; i < o->n_settings; i++)
        DM_TRY(dm_gen_opt_check(&o->settings[i].gen, e));
    for (size_t i = 0; i < o->prompts.n; i++) {
        const size_t n = o->prompts.start[i + 1] - o->prompts.start[i];
        if (n + o->tokens > T_max || n + o->tokens < n)
            return dm_fail(e, DM_ERANGE,
                           "prompts of %zu and texts of %zu tokens exceed the context %zu", n,
                           o->tokens, T_max);
    }
    if (o->judge && (o->judge->cfg.Vp < o->model->cfg.V))
        return dm_fail(e, DM_EMISMATCH, "the judge has %zu tokens, the model %zu", o->judge->cfg.Vp,
                       o->model->cfg.V);
    return DM_OK;
}

static enum dm_status run_init(struct run *r, struct dm_err *e)
{
    const struct dm_trial_opt *o = r->o;
    size_t longest = 0;
    for (size_t i = 0; i < o->prompts.n; i++) {
        const size_t n = o->prompts.start[i + 1] - o->prompts.start[i];
        longest = n > longest ? n : longest;
    }
    for (size_t i = 0; i < o->n_settings; i++) {
        const size_t g = which_gen(o, &o->settings[i]);
        if (!r->gen[g])
            DM_TRY(dm_gen_new(&r->gen[g], o->model, g == GEN_TABLE ? o->cooc : NULL,
                              g == GEN_BASE ? 1 : o->model->cfg.K, e));
    }
    DM_TRY(dm_judge_new(&r->base, o->model, longest + o->tokens, e));
    return o->judge ? dm_judge_new(&r->judge, o->judge, longest + o->tokens, e) : DM_OK;
}

static void run_release(struct run *r)
{
    for (size_t g = 0; g < N_GENS; g++)
        dm_gen_free(r->gen[g]);
    dm_judge_free(r->base);
    dm_judge_free(r->judge);
    dm_ids_release(&r->text);
}

static bool add_log_q(void *ctx, const struct dm_block *b)
{
    *(double *)ctx += log(b->q);
    return true;
}

/* The measures of the text after a prompt of n_prompt tokens in r->text. */
static enum dm_status measure(struct dm_trial_text *out, struct run *r, size_t n_prompt,
                              const struct dm_gen_opt *g, double log_q, struct dm_err *e)
{
    struct dm_verdict base, judge;
    const int32_t *ids = r->text.id;
    const size_t n = r->text.n;
    DM_TRY(dm_judge_text(r->base, ids, n_prompt, n, g, &base, e));
    judge = base;
    if (r->judge)
        DM_TRY(dm_judge_text(r->judge, ids, n_prompt, n, g, &judge, e));
    out->value[DM_TRIAL_LOGP] = judge.logp;
    out->value[DM_TRIAL_BASE_LOGP] = base.logp;
    out->value[DM_TRIAL_DIVERGENCE] = log_q / (double)(n - n_prompt) - base.sampler_logp;
    out->value[DM_TRIAL_OUTSIDE] = base.outside;
    out->value[DM_TRIAL_FIRST] = base.first;
    out->value[DM_TRIAL_REPEATS_3] = dm_div_repeats(ids + n_prompt, n - n_prompt, 3);
    out->value[DM_TRIAL_REPEATS_4] = dm_div_repeats(ids + n_prompt, n - n_prompt, 4);
    return DM_OK;
}

/* `at` is the text's number in its setting. */
static enum dm_status one_text(struct run *r, size_t setting, size_t at, struct dm_err *e)
{
    const struct dm_trial_opt *o = r->o;
    const struct dm_trial_setting *s = &o->settings[setting];
    const size_t *start = o->prompts.start + at / o->samples, n_prompt = start[1] - start[0];
    const size_t place = setting * o->prompts.n * o->samples + at;
    struct dm_trial_text *out = &r->t->texts[place];
    struct dm_gen_opt g = s->gen;
    double log_q = 0.0;
    g.seed = o->seed + at + s->seed;
    g.max_tokens = o->tokens;
    g.stop_eos = false;
    r->text.n = 0;
    for (size_t i = 0; i < n_prompt; i++)
        DM_TRY(dm_ids_push(&r->text, o->prompts.ids[start[0] + i], e));
    DM_TRY(dm_gen_run(r->gen[which_gen(o, s)], &g, o->prompts.ids + start[0], n_prompt, &r->text,
                      add_log_q, &log_q, &out->stats, e));
    memcpy(r->t->ids + place * o->tokens, r->text.id + n_prompt, o->tokens * sizeof(*r->t->ids));
    return measure(out, r, n_prompt, &g, log_q, e);
}

static enum dm_status all_texts(struct run *r, dm_trial_fn *fn, void *ctx, struct dm_err *e)
{
    const struct dm_trial_opt *o = r->o;
    const size_t n = o->prompts.n * o->samples;
    for (size_t at = 0; at < n; at++)
        for (size_t i = 0; i < o->n_settings; i++) {
            DM_TRY(one_text(r, (at + i) % o->n_settings, at, e));
            const double done = (double)(at * o->n_settings + i + 1);
            if (fn && !fn(ctx, done / (double)(n * o->n_settings)))
                return dm_fail(e, DM_ESTOPPED, "stopped, nothing was stored");
        }
    return DM_OK;
}

enum dm_status dm_trial_run(struct dm_trial *t, const struct dm_trial_opt *o, dm_trial_fn *fn,
                            void *ctx, struct dm_err *e)
{
    struct run r = {.o = o, .t = t};
    size_t n, n_ids;
    *t = (struct dm_trial){.n_settings = o->n_settings,
                           .prompts = o->prompts.n,
                           .samples = o->samples,
                           .tokens = o->tokens};
    DM_TRY(check(o, e));
    if (!dm_mul(o->n_settings * o->prompts.n, o->samples, &n) || !dm_mul(n, o->tokens, &n_ids))
        return dm_fail(e, DM_ENOMEM, "out of memory for the texts");
    t->texts = dm_alloc(n, sizeof(*t->texts));
    t->ids = dm_alloc(n_ids, sizeof(*t->ids));
    if (!t->texts || !t->ids)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu texts of %zu tokens", n, o->tokens);
    enum dm_status st = run_init(&r, e);
    if (!st)
        st = all_texts(&r, fn, ctx, e);
    run_release(&r);
    return st;
}

void dm_trial_release(struct dm_trial *t)
{
    free(t->texts);
    free(t->ids);
    t->texts = NULL;
    t->ids = NULL;
}

const struct dm_trial_text *dm_trial_at(const struct dm_trial *t, size_t setting, size_t prompt,
                                        size_t sample)
{
    return &t->texts[(setting * t->prompts + prompt) * t->samples + sample];
}

const int32_t *dm_trial_ids(const struct dm_trial *t, size_t setting, size_t prompt, size_t sample)
{
    return t->ids + ((setting * t->prompts + prompt) * t->samples + sample) * t->tokens;
}
