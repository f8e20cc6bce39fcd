/* SPDX-License-Identifier: MIT */
#include "eval/score.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/json.h"

struct dm_scorer {
    const struct dm_model *m;
    struct dm_pass *pass;
    size_t context, n_heads;
    float *logp;   /* (n_heads,context): one window's, by position */
    int32_t *rank; /* the same */
};

static enum dm_status check(const struct dm_config *c, size_t context, size_t n_heads,
                            struct dm_err *e)
{
    const size_t most = c->K < DM_SCORE_HEADS ? c->K : DM_SCORE_HEADS;
    if (n_heads > most)
        return dm_fail(e, DM_ERANGE, "%zu heads asked for, the model has %zu", n_heads, most);
    if (context < 2 * n_heads || context > c->T_max)
        return dm_fail(e, DM_ERANGE, "a context of %zu tokens is not within %zu..%zu", context,
                       2 * n_heads, c->T_max);
    return DM_OK;
}

enum dm_status dm_scorer_new(struct dm_scorer **out, const struct dm_model *m, size_t context,
                             size_t n_heads, struct dm_err *e)
{
    *out = NULL;
    context = context ? context : m->cfg.T_max;
    n_heads = n_heads ? n_heads : m->cfg.K;
    DM_TRY(check(&m->cfg, context, n_heads, e));
    struct dm_scorer *s = dm_alloc(1, sizeof(*s));
    if (!s)
        return dm_fail(e, DM_ENOMEM, "out of memory for scoring");
    *s = (struct dm_scorer){.m = m, .context = context, .n_heads = n_heads};
    s->logp = dm_alloc(n_heads, context * sizeof(*s->logp));
    s->rank = dm_alloc(n_heads, context * sizeof(*s->rank));
    enum dm_status st = DM_OK;
    if (!s->logp || !s->rank)
        st = dm_fail(e, DM_ENOMEM, "out of memory for scoring windows of %zu tokens", context);
    if (!st)
        st = dm_pass_new(&s->pass, &m->cfg, DM_PASS_SCORE, 1, context, e);
    if (st) {
        dm_scorer_free(s);
        return st;
    }
    *out = s;
    return DM_OK;
}

void dm_scorer_free(struct dm_scorer *s)
{
    if (!s)
        return;
    dm_pass_free(s->pass);
    free(s->logp);
    free(s->rank);
    free(s);
}

size_t dm_scorer_heads(const struct dm_scorer *s)
{
    return s->n_heads;
}

size_t dm_scorer_context(const struct dm_scorer *s)
{
    return s->context;
}

/* Scores the window [start, end) and keeps the targets from `first` on. */
static void window(struct dm_scorer *s, const int32_t *ids, size_t N, size_t start, size_t end,
                   size_t first, float *logp, int32_t *rank)
{
    const size_t T = end - start;
    dm_pass_score(s->pass, s->m, ids + start, 1, T, s->n_heads, s->logp, s->rank);
    for (size_t n = 1; n <= s->n_heads; n++)
        for (size_t i = first; i < end; i++) {
            // The pass answers by the position that predicts: n before the target.
            const bool has = i >= start + n;
            const size_t from = has ? (n - 1) * T + (i - start - n) : 0, to = (n - 1) * N + i;
            logp[to] = has ? s->logp[from] : 0.0f;
            if (rank)
                rank[to] = has ? s->rank[from] : -1;
        }
}

enum dm_status dm_scorer_run(struct dm_scorer *s, const int32_t *ids, size_t N, float *logp,
                             int32_t *rank, struct dm_err *e)
{
    for (size_t i = 0; i < N; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= s->m->cfg.Vp)
            return dm_fail(e, DM_ERANGE, "token %zu is %d, expected 0 to %zu", i, ids[i],
                           s->m->cfg.Vp - 1);
    for (size_t start = 0, done = 0; done < N;) {
        const size_t end = N - start < s->context ? N : start + s->context;
        window(s, ids, N, start, end, done, logp, rank);
        done = end;
        start = end - s->context / 2;
    }
    return DM_OK;
}

void dm_score_add(struct dm_score_sum *sum, const float *logp, size_t N, size_t n_heads)
{
    for (size_t n = 1; n <= n_heads; n++)
        for (size_t i = n; i < N; i++) {
            sum->nll[n - 1] -= (double)logp[(n - 1) * N + i];
            sum->n[n - 1]++;
        }
}

double dm_score_ppl(const struct dm_score_sum *sum, size_t n)
{
    return sum->n[n - 1] ? exp(sum->nll[n - 1] / (double)sum->n[n - 1]) : (double)NAN;
}

double dm_score_ppl_joint(const struct dm_score_sum *sum, size_t n)
{
    double mean = 0.0;
    for (size_t i = 0; i < n; i++) {
        if (!sum->n[i])
            return (double)NAN;
        mean += sum->nll[i] / (double)sum->n[i] / (double)n;
    }
    return exp(mean);
}

json_t *dm_score_to_json(const struct dm_score_sum *sum, size_t n_heads)
{
    json_t *tokens = json_array(), *ppl = json_array(), *joint = json_array();
    for (size_t n = 1; n <= n_heads; n++) {
        json_array_append_new(tokens, json_integer((json_int_t)sum->n[n - 1]));
        json_array_append_new(ppl, dm_json_real(dm_score_ppl(sum, n)));
        json_array_append_new(joint, dm_json_real(dm_score_ppl_joint(sum, n)));
    }
    return json_pack("{s:o, s:o, s:o}", "tokens", tokens, "ppl", ppl, "ppl_joint", joint);
}
