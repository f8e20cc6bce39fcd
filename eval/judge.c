/* SPDX-License-Identifier: MIT */
#include "eval/judge.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct dm_judge {
    const struct dm_model *m;
    struct dm_pass *pass;
    size_t T;
    float *logits; /* (T,Vp) */
    bool *seen;    /* (Vp) tokens of the context */
};

enum dm_status dm_judge_new(struct dm_judge **out, const struct dm_model *m, size_t T,
                            struct dm_err *e)
{
    const size_t Vp = m->cfg.Vp;
    size_t row;
    *out = NULL;
    struct dm_judge *j = dm_alloc(1, sizeof(*j));
    if (!j)
        return dm_fail(e, DM_ENOMEM, "out of memory for the judge");
    *j = (struct dm_judge){.m = m, .T = T};
    enum dm_status st = dm_pass_new(&j->pass, &m->cfg, DM_PASS_SCORE, 1, T, e);
    if (!st) {
        j->logits = dm_mul(T, Vp, &row) ? dm_alloc(row, sizeof(*j->logits)) : NULL;
        j->seen = dm_alloc(Vp, sizeof(*j->seen));
        if (!j->logits || !j->seen)
            st = dm_fail(e, DM_ENOMEM, "out of memory for %zu x %zu logits of the judge", T, Vp);
    }
    if (st) {
        dm_judge_free(j);
        return st;
    }
    *out = j;
    return DM_OK;
}

void dm_judge_free(struct dm_judge *j)
{
    if (!j)
        return;
    dm_pass_free(j->pass);
    free(j->logits);
    free(j->seen);
    free(j);
}

/* log p of id under softmax(row) over n ids. */
static double plain_logp(const float *row, size_t n, int32_t id)
{
    double max = -DBL_MAX, sum = 0.0;
    for (size_t v = 0; v < n; v++)
        max = fmax(max, (double)row[v]);
    for (size_t v = 0; v < n; v++)
        sum += exp((double)row[v] - max);
    return (double)row[id] - max - log(sum);
}

/* log p of id when p = softmax(row / temperature) is divided by the penalty for seen ids and
 * renormalised. */
static double sampler_logp(const float *row, size_t n, int32_t id, double temperature,
                           const bool *seen, double penalty)
{
    const double cut = log(penalty);
    double max = -DBL_MAX, sum = 0.0;
    for (size_t v = 0; v < n; v++)
        max = fmax(max, (double)row[v] / temperature);
    for (size_t v = 0; v < n; v++)
        sum += exp((double)row[v] / temperature - max) / (seen[v] ? penalty : 1.0);
    return (double)row[id] / temperature - max - (seen[id] ? cut : 0.0) - log(sum);
}

static enum dm_status check(const struct dm_judge *j, const int32_t *ids, size_t n_prompt, size_t n,
                            struct dm_err *e)
{
    if (!n_prompt || n <= n_prompt || n > j->T)
        return dm_fail(e, DM_ERANGE,
                       "a text of %zu tokens after a prompt of %zu cannot be judged, expected at "
                       "least one of each and at most %zu in all",
                       n > n_prompt ? n - n_prompt : 0, n_prompt, j->T);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= j->m->cfg.Vp)
            return dm_fail(e, DM_ERANGE, "token %zu is %d, the judge's vocabulary has %zu", i,
                           ids[i], j->m->cfg.Vp);
    return DM_OK;
}

enum dm_status dm_judge_text(struct dm_judge *j, const int32_t *ids, size_t n_prompt, size_t n,
                             double temperature, double penalty, struct dm_verdict *out,
                             struct dm_err *e)
{
    const struct dm_config *c = &j->m->cfg;
    DM_TRY(check(j, ids, n_prompt, n, e));
    dm_pass_logits(j->pass, j->m, ids, 1, n - 1, 1, j->logits);
    memset(j->seen, 0, c->Vp * sizeof(*j->seen));
    for (size_t i = 0; i < n_prompt; i++)
        j->seen[ids[i]] = true;
    *out = (struct dm_verdict){.repeats = dm_judge_repeats(ids + n_prompt, n - n_prompt)};
    for (size_t i = n_prompt; i < n; i++) {
        const float *row = j->logits + (i - 1) * c->Vp;
        out->logp += plain_logp(row, c->Vp, ids[i]);
        if (temperature > 0.0)
            out->sampler_logp += sampler_logp(row, c->V, ids[i], temperature, j->seen, penalty);
        j->seen[ids[i]] = true;
    }
    out->logp /= (double)(n - n_prompt);
    out->sampler_logp = temperature > 0.0 ? out->sampler_logp / (double)(n - n_prompt)
                                          : (double)NAN;
    if (!isfinite(out->logp))
        return dm_fail(e, DM_ENAN, "the judge's log-likelihood is not a number");
    return DM_OK;
}

double dm_judge_repeats(const int32_t *ids, size_t n)
{
    if (n < 3)
        return 0.0;
    size_t repeats = 0;
    // Quadratic, but a text of one context is judged in far more time than this takes.
    for (size_t i = 1; i + 2 < n; i++)
        for (size_t k = 0; k < i; k++)
            if (!memcmp(ids + k, ids + i, 3 * sizeof(*ids))) {
                repeats++;
                break;
            }
    return (double)repeats / (double)(n - 2);
}
