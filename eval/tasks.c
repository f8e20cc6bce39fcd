/* SPDX-License-Identifier: MIT */
#include "eval/tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/stats.h"
#include "src/base/arena.h"

struct runner {
    const struct dm_task *t;
    const struct dm_model *m;
    const struct dm_tokenizer *tokenizer;
    struct dm_encoder *encoder;
    struct dm_pass *pass;
    struct dm_ids ids;   /* context and choice */
    size_t n_choice;     /* tokens of the choice, the last of ids */
    struct dm_ids whole; /* scratch */
    char *joined;        /* scratch */
    float *logp;         /* (K,T_max) */
    int32_t *rank;       /* the same */
};

static bool blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

/* The ids of a context and of what follows it, parted as lm-evaluation-harness does: blanks at the
 * end of the context belong to the choice, whose ids are what the text of both has beyond the
 * number of ids of the context. Without a context, the end-of-text token is one. */
static enum dm_status encode(struct runner *r, const char *context, const char *choice,
                             struct dm_err *e)
{
    size_t n = strlen(context);
    r->ids.n = r->whole.n = 0;
    free(r->joined);
    r->joined = NULL;
    const int all = asprintf(&r->joined, "%s %s", context, choice);
    if (all < 0) {
        r->joined = NULL;
        return dm_fail(e, DM_ENOMEM, "out of memory for a text");
    }
    while (n && blank(context[n - 1]))
        n--;
    DM_TRY(dm_encoder_encode(r->encoder, r->joined, (size_t)all, &r->whole, e));
    DM_TRY(dm_encoder_encode(r->encoder, context, n, &r->ids, e));
    const size_t skip = r->ids.n;
    if (r->whole.n <= skip)
        return dm_fail(e, DM_ERANGE, "\"%s\" adds no token to its context", choice);
    if (!skip && r->m->cfg.eos < 0)
        return dm_fail(e, DM_ERANGE, "an empty context needs a model with an end-of-text token");
    if (!skip)
        DM_TRY(dm_ids_push(&r->ids, r->m->cfg.eos, e));
    for (size_t i = skip; i < r->whole.n; i++)
        DM_TRY(dm_ids_push(&r->ids, r->whole.id[i], e));
    r->n_choice = r->whole.n - skip;
    return DM_OK;
}

/* log p of the choice; *greedy: each of its tokens is the likeliest. */
static enum dm_status score(struct runner *r, double *logp, bool *greedy, struct dm_err *e)
{
    const size_t T_max = r->m->cfg.T_max;
    if (r->n_choice >= T_max)
        return dm_fail(e, DM_ERANGE, "a choice of %zu tokens; the model's context holds %zu",
                       r->n_choice, T_max);
    const size_t T = r->ids.n < T_max ? r->ids.n : T_max;
    dm_pass_score(r->pass, r->m, r->ids.id + r->ids.n - T, 1, T, 1, r->logp, r->rank);
    *logp = 0;
    *greedy = true;
    for (size_t i = T - r->n_choice - 1; i + 1 < T; i++) {
        *logp += (double)r->logp[i];
        *greedy = *greedy && r->rank[i] == 0;
    }
    return isfinite(*logp) ? DM_OK : dm_fail(e, DM_ENAN, "log p is not a number");
}

static double characters(const char *s)
{
    double n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static enum dm_status answer(struct runner *r, const struct dm_task_item *item,
                             struct dm_task_answer *a, struct dm_err *e)
{
    double norm[DM_TASK_CHOICES];
    *a = (struct dm_task_answer){0};
    for (size_t i = 0; i < item->n; i++) {
        bool greedy = false;
        DM_TRY(encode(r, item->context[i], item->choice[i], e));
        DM_TRY(score(r, &a->logp[i], &greedy, e));
        norm[i] = a->logp[i] / characters(item->choice[i]);
        a->best = a->logp[i] > a->logp[a->best] ? i : a->best;
        a->best_norm = norm[i] > norm[a->best_norm] ? i : a->best_norm;
        a->greedy = i == item->answer ? greedy : a->greedy;
    }
    a->right = item->n > 1 ? a->best == item->answer : a->greedy;
    a->right_norm = a->best_norm == item->answer;
    return DM_OK;
}

static enum dm_status run(struct runner *r, struct dm_task_answer *answers, dm_task_fn *fn,
                          void *ctx, struct dm_err *e)
{
    const struct dm_config *c = &r->m->cfg;
    r->logp = dm_alloc(c->K * sizeof(*r->logp), c->T_max);
    r->rank = dm_alloc(c->K * sizeof(*r->rank), c->T_max);
    if (!r->logp || !r->rank)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu tokens", c->T_max);
    DM_TRY(dm_encoder_new(&r->encoder, r->tokenizer, e));
    DM_TRY(dm_pass_new(&r->pass, c, DM_PASS_SCORE, 1, c->T_max, e));
    for (size_t i = 0; i < r->t->n; i++) {
        struct dm_err why;
        const enum dm_status st = answer(r, &r->t->item[i], &answers[i], &why);
        if (st)
            return dm_fail(e, st, "item %zu: %s", i + 1, why.msg);
        if (fn && !fn(ctx, i + 1))
            return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
    }
    return DM_OK;
}

enum dm_status dm_task_run(const struct dm_task *t, const struct dm_model *m,
                           const struct dm_tokenizer *tokenizer, struct dm_task_answer *answers,
                           dm_task_fn *fn, void *ctx, struct dm_err *e)
{
    struct runner r = {.t = t, .m = m, .tokenizer = tokenizer};
    const enum dm_status st = run(&r, answers, fn, ctx, e);
    dm_pass_free(r.pass);
    dm_encoder_free(r.encoder);
    dm_ids_release(&r.ids);
    dm_ids_release(&r.whole);
    free(r.joined);
    free(r.logp);
    free(r.rank);
    return st;
}

enum dm_status dm_task_summarise(struct dm_task_result *r, const struct dm_task *t,
                                 const struct dm_task_answer *answers, struct dm_err *e)
{
    const bool word = t->kind == DM_TASK_LAMBADA,
               by_length = !word && t->kind != DM_TASK_WINOGRANDE;
    double *x = dm_alloc(t->n, sizeof(*x)), sum = 0;
    if (!x)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu answers", t->n);
    *r = (struct dm_task_result){.n = t->n, .acc_norm = NAN, .acc_norm_se = NAN, .ppl = NAN};
    for (size_t i = 0; i < t->n; i++)
        x[i] = answers[i].right;
    r->acc = dm_mean(x, t->n);
    r->acc_se = dm_standard_error(x, t->n);
    for (size_t i = 0; i < t->n; i++) {
        x[i] = answers[i].right_norm;
        sum += answers[i].logp[0];
    }
    if (by_length) {
        r->acc_norm = dm_mean(x, t->n);
        r->acc_norm_se = dm_standard_error(x, t->n);
    }
    if (word)
        r->ppl = exp(-sum / (double)t->n);
    free(x);
    return DM_OK;
}
