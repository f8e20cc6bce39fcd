/* SPDX-License-Identifier: MIT */
#include "train/ppl.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "src/base/json.h"

/* One sequence: logp points to head 1's row, heads are `stride` apart. */
static void add_sequence(struct dm_ppl *p, const float *logp, const int32_t *ids, size_t stride,
                         size_t T)
{
    for (size_t t = 0; t < T; t++) {
        double sum = 0.0;
        bool all = true; // of the targets up to n
        for (size_t n = 1; n <= p->K && t + n < T; n++) {
            const double loss = -(double)logp[(n - 1) * stride + t];
            all = all && ids[t + n] >= 0;
            if (ids[t + n] < 0)
                continue;
            sum += loss;
            p->sum[n - 1] += loss;
            p->n[n - 1]++;
            if (!all)
                continue;
            p->sum_joint[n - 1] += sum / (double)n;
            p->n_joint[n - 1]++;
        }
    }
}

void dm_ppl_add(struct dm_ppl *p, const float *logp, const int32_t *ids, size_t K, size_t B,
                size_t T)
{
    assert(K <= DM_PPL_MAX_HEADS && (!p->K || p->K == K));
    p->K = K;
    p->windows += B;
    for (size_t b = 0; b < B; b++)
        add_sequence(p, logp + b * T, ids + b * T, B * T, T);
}

static double mean(double sum, size_t n)
{
    return n ? sum / (double)n : NAN;
}

double dm_ppl_head(const struct dm_ppl *p, size_t n)
{
    assert(n >= 1 && n <= p->K);
    return exp(mean(p->sum[n - 1], p->n[n - 1]));
}

double dm_ppl_joint(const struct dm_ppl *p, size_t n)
{
    assert(n >= 1 && n <= p->K);
    return exp(mean(p->sum_joint[n - 1], p->n_joint[n - 1]));
}

double dm_ppl_loss(const struct dm_ppl *p, size_t first)
{
    double sum = 0.0;
    for (size_t n = first; n <= p->K; n++)
        sum += mean(p->sum[n - 1], p->n[n - 1]);
    return mean(sum, p->K + 1 - first);
}

json_t *dm_ppl_json(const struct dm_ppl *p)
{
    json_t *o = json_object();
    char key[32];
    int bad = json_object_set_new(o, "windows", json_integer((json_int_t)p->windows));
    for (size_t n = 1; n <= p->K; n++) {
        snprintf(key, sizeof(key), "ppl_%zu", n);
        bad |= json_object_set_new(o, key, dm_json_real(dm_ppl_head(p, n)));
    }
    for (size_t n = 2; n <= p->K; n++) {
        snprintf(key, sizeof(key), "ppl_1:%zu", n);
        bad |= json_object_set_new(o, key, dm_json_real(dm_ppl_joint(p, n)));
    }
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

static size_t rows(const struct dm_ppl_job *j, size_t at)
{
    if (at >= j->windows)
        return 0;
    return j->windows - at < j->micro ? j->windows - at : j->micro;
}

static enum dm_status score(const struct dm_ppl_job *j, size_t at, struct dm_err *e)
{
    const size_t B = rows(j, at);
    if (!B)
        return DM_OK;
    DM_TRY(dm_loader_val(j->loader, at, B, j->ids, e));
    dm_pass_score(j->pass, j->m, j->ids, B, j->T, j->m->cfg.K, j->logp, NULL);
    return DM_OK;
}

/* Adds what process r has scored, the windows from `at`, which all get in the second half of the
 * scratch. */
static enum dm_status add_scores(struct dm_ppl *p, const struct dm_ppl_job *j, size_t r, size_t at,
                                 struct dm_err *e)
{
    const size_t K = j->m->cfg.K, B = rows(j, at), T = j->T;
    const bool mine = !j->ranks || r == j->ranks->rank;
    int32_t *ids = j->ids + (mine ? 0 : j->micro * T);
    float *logp = j->logp + (mine ? 0 : K * j->micro * T);
    if (!B)
        return DM_OK;
    DM_TRY(dm_ranks_send(j->ranks, ids, B * T * sizeof(*ids), r, e));
    DM_TRY(dm_ranks_send(j->ranks, logp, K * B * T * sizeof(*logp), r, e));
    dm_ppl_add(p, logp, ids, K, B, T);
    return DM_OK;
}

enum dm_status dm_ppl_measure(struct dm_ppl *p, const struct dm_ppl_job *j, struct dm_err *e)
{
    const size_t n = dm_ranks_count(j->ranks), rank = j->ranks ? j->ranks->rank : 0;
    *p = (struct dm_ppl){0};
    for (size_t at = 0; at < j->windows; at += n * j->micro) {
        DM_TRY(dm_ranks_agree(j->ranks, score(j, at + rank * j->micro, e), e));
        for (size_t r = 0; r < n; r++)
            DM_TRY(add_scores(p, j, r, at + r * j->micro, e));
    }
    return DM_OK;
}
