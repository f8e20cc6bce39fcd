/* SPDX-License-Identifier: MIT */
/* judge.c - one pass over the text, then its rows of logits in all threads: a row is summed in one
 * order, so its bits are its own. */
#include "eval/judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/kern.h"

enum { BLOCK = 1024, CHAINS = 4 };

struct dm_judge {
    const struct dm_model *m;
    struct dm_pass *pass;
    size_t T;
    float *logits;           /* (T,Vp) */
    size_t *since;           /* (Vp) position of an id's first occurrence, NEVER if it has none */
    int32_t *seen;           /* (T) distinct ids in the order of their first occurrence */
    size_t *n_seen;          /* (T) how many of them occur before a position */
    struct dm_verdict *rows; /* (T) one token each */
};
#define NEVER SIZE_MAX

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
        j->since = dm_alloc(Vp, sizeof(*j->since));
        j->seen = dm_alloc(T, sizeof(*j->seen));
        j->n_seen = dm_alloc(T, sizeof(*j->n_seen));
        j->rows = dm_alloc(T, sizeof(*j->rows));
        if (!j->logits || !j->since || !j->seen || !j->n_seen || !j->rows)
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
    free(j->since);
    free(j->seen);
    free(j->n_seen);
    free(j->rows);
    free(j);
}

/* Sum over n ids of exp((x - max) * scale): the kernel's exponentials, which are right to 1e-7, not
 * its sum. Four chains, because one would wait for itself. */
static double exp_sum(const float *x, float max, float scale, size_t n)
{
    const struct dm_kern *k = dm_kern();
    float work[BLOCK];
    double sum[CHAINS] = {0.0};
    for (size_t i = 0; i < n; i += BLOCK) {
        const size_t len = n - i < BLOCK ? n - i : BLOCK;
        size_t v = 0;
        for (size_t w = 0; w < len; w++)
            work[w] = (x[i + w] - max) * scale;
        k->exp_sum(work, 0.0f, len);
        for (; v + CHAINS <= len; v += CHAINS)
            for (size_t c = 0; c < CHAINS; c++)
                sum[c] += (double)work[v + c];
        for (; v < len; v++)
            sum[0] += (double)work[v];
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

double dm_judge_sampler_logp(const float *x, size_t n, int32_t id, const int32_t *seen,
                             size_t n_seen, const struct dm_gen_opt *o)
{
    const float max = dm_kern()->max(x, n);
    const double scale = 1.0 / o->temperature;
    double sum = exp_sum(x, max, (float)scale, n);
    bool again = false;
    for (size_t s = 0; s < n_seen; s++) {
        if ((size_t)seen[s] < n)
            sum -= exp(((double)x[seen[s]] - (double)max) * scale) * (1.0 - 1.0 / o->penalty);
        again |= seen[s] == id;
    }
    return ((double)x[id] - (double)max) * scale - (again ? log(o->penalty) : 0.0) - log(sum);
}

/* Whether greedy decoding writes id: log p less the penalty's logarithm is the largest, the
 * smallest id of equals. Candidates are cut to top_k before the penalty, as in decoding. */
static bool is_first(const struct dm_judge *j, const float *x, size_t n, size_t pos, int32_t id,
                     const struct dm_gen_opt *o)
{
    const float cut = (float)log(o->penalty);
    const float mine = x[id] - (j->since[id] < pos ? cut : 0.0f);
    for (size_t v = 0; v < n; v++) {
        if (x[v] < mine)
            continue;
        const float other = x[v] - (j->since[v] < pos ? cut : 0.0f);
        if (other > mine || (other == mine && v < (size_t)id))
            return false;
    }
    return true;
}

/* How many of n ids come before `id` in the order of candidates.h. */
static size_t rank(const float *x, size_t n, int32_t id)
{
    const float mine = x[id];
    size_t r = 0;
    for (size_t v = 0; v < n; v++)
        r += x[v] > mine || (x[v] == mine && v < (size_t)id);
    return r;
}

/* What every row needs. */
struct text {
    struct dm_judge *j;
    const int32_t *ids;
    size_t n_prompt;
    const struct dm_gen_opt *o;
};

static void judge_rows(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct text *t = ctx;
    const struct dm_judge *j = t->j;
    const struct dm_config *c = &j->m->cfg;
    (void)part;
    for (size_t i = begin; i < end; i++) {
        const size_t pos = t->n_prompt + i;
        const int32_t id = t->ids[pos];
        const float *x = j->logits + (pos - 1) * c->Vp, max = dm_kern()->max(x, c->Vp);
        struct dm_verdict *v = &j->rows[i];
        const bool outside = (size_t)id >= c->V || rank(x, c->V, id) >= t->o->top_k;
        v->logp = (double)x[id] - (double)max - log(exp_sum(x, max, 1.0f, c->Vp));
        v->sampler_logp = t->o->temperature > 0.0
                              ? dm_judge_sampler_logp(x, c->V, id, j->seen, j->n_seen[pos], t->o)
                              : (double)NAN;
        v->outside = outside;
        v->first = !outside && is_first(j, x, c->V, pos, id, t->o);
    }
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

/* What every position has seen before it. */
static void look_back(struct dm_judge *j, const int32_t *ids, size_t n)
{
    size_t seen = 0;
    for (size_t v = 0; v < j->m->cfg.Vp; v++)
        j->since[v] = NEVER;
    for (size_t i = 0; i < n; i++) {
        j->n_seen[i] = seen;
        if (j->since[ids[i]] == NEVER) {
            j->since[ids[i]] = i;
            j->seen[seen++] = ids[i];
        }
    }
}

enum dm_status dm_judge_text(struct dm_judge *j, const int32_t *ids, size_t n_prompt, size_t n,
                             const struct dm_gen_opt *o, struct dm_verdict *out, struct dm_err *e)
{
    struct text t = {j, ids, n_prompt, o};
    const size_t rows = n > n_prompt ? n - n_prompt : 0;
    DM_TRY(check(j, ids, n_prompt, n, e));
    dm_pass_logits(j->pass, j->m, ids, 1, n - 1, 1, j->logits);
    look_back(j, ids, n);
    dm_par_for(rows, 1, judge_rows, &t);
    *out = (struct dm_verdict){0};
    for (size_t i = 0; i < rows; i++) {
        out->logp += j->rows[i].logp / (double)rows;
        out->sampler_logp += j->rows[i].sampler_logp / (double)rows;
        out->outside += j->rows[i].outside / (double)rows;
        out->first += j->rows[i].first / (double)rows;
    }
    if (!isfinite(out->logp))
        return dm_fail(e, DM_ENAN, "the judge's log-likelihood is not a number");
    return DM_OK;
}
