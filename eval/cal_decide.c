/* SPDX-License-Identifier: MIT */
/* cal_decide.c - the rule that turns texts into a choice. */
#include <math.h>
#include <stdlib.h>

#include "eval/calibrate.h"
#include "eval/stats.h"
#include "src/base/binomial.h"

enum { BASE, CONTROL, FIRST_POINT }; /* settings of the trials */

void dm_cal_report_release(struct dm_cal_report *r)
{
    free(r->points);
    r->points = NULL;
}

double dm_cal_speed(const struct dm_cal_opt *o, const struct dm_cal_point *p)
{
    return o->wall_clock ? p->sum.speedup : p->sum.per_forward;
}

/* Values of every prompt, (losses, prompts); scratch (prompts). */
static void values(double *v, const struct dm_trial *t, size_t setting, double *scratch)
{
    const enum dm_trial_measure of[DM_CERT_LOSSES] = {DM_TRIAL_DIVERGENCE, DM_TRIAL_LOGP,
                                                      DM_TRIAL_REPEATS_4};
    const double sign[DM_CERT_LOSSES] = {1.0, -1.0, 1.0};
    for (size_t l = 0; l < DM_CERT_LOSSES; l++, v += t->prompts) {
        dm_trial_by_prompt(v, t, setting, of[l]);
        if (l == DM_CERT_DIVERGENCE)
            continue;
        dm_trial_by_prompt(scratch, t, BASE, of[l]);
        for (size_t i = 0; i < t->prompts; i++)
            v[i] = sign[l] * (v[i] - scratch[i]);
    }
}

/* Margins from the control's values: the ceil(q n)-th smallest of n, plus the slack. */
static void set_margins(struct dm_cal_report *r, const struct dm_trial *t, double *v,
                        double *scratch)
{
    const size_t n = t->prompts;
    size_t at = (size_t)ceil(r->opt.quantile * (double)n);
    at = at < 1 ? 0 : at > n ? n - 1 : at - 1;
    values(v, t, CONTROL, scratch);
    for (size_t l = 0; l < DM_CERT_LOSSES; l++, v += n) {
        dm_sort(v, n);
        // Greedy text has no divergence: NaN, which no value exceeds.
        r->quantile[l] = isnan(v[0]) ? (double)NAN : v[at];
        r->margin[l] = r->quantile[l] + r->opt.slack[l];
    }
}

/* v: the values of this setting. */
static void judge_point(struct dm_cal_point *p, const struct dm_cal_report *r, const double *v,
                        size_t n, double t)
{
    for (size_t l = 0; l < DM_CERT_LOSSES; l++) {
        p->mean[l] = dm_mean(v + l * n, n);
        p->se[l] = dm_standard_error(v + l * n, n);
    }
    p->bound = p->mean[DM_CERT_DIVERGENCE] + t * p->se[DM_CERT_DIVERGENCE];
    for (size_t i = 0; i < n; i++) {
        bool failed = false;
        for (size_t l = 0; l < DM_CERT_LOSSES; l++) {
            const bool over = v[l * n + i] > r->margin[l];
            p->failed_by[l] += over;
            failed |= over;
        }
        p->test.failures += failed;
    }
}

/* Goal quality: fixed-sequence testing with the bound of the mean divergence. */
static void test_bounds(struct dm_ltt *x, const struct dm_cal_report *r)
{
    for (size_t i = 0; i < r->n_points; i++) {
        x[i].tested = i == 0 || x[i].sequence != x[i - 1].sequence || x[i - 1].certified;
        x[i].certified = x[i].tested && r->points[i].bound <= r->opt.target;
    }
}

static enum dm_status test_points(struct dm_cal_report *r, struct dm_err *e)
{
    const struct dm_cal_opt *o = &r->opt;
    struct dm_ltt *x = dm_alloc(r->n_points, sizeof(*x));
    if (!x)
        return dm_fail(e, DM_ENOMEM, "out of memory for the tests");
    for (size_t i = 0; i < r->n_points; i++)
        x[i] = r->points[i].test;
    dm_ltt_test(x, r->n_points, dm_cal_sequences(o), o->prompts, o->risk, 1.0 - o->confidence);
    if (o->goal == DM_CAL_QUALITY)
        test_bounds(x, r);
    for (size_t i = 0; i < r->n_points; i++)
        r->points[i].test = x[i];
    free(x);
    return DM_OK;
}

/* Whether a may be chosen, and whether it is better than b. */
static bool eligible(const struct dm_cal_opt *o, const struct dm_cal_point *a)
{
    return o->goal == DM_CAL_SPEEDUP ? dm_cal_speed(o, a) >= o->target
                                     : a->test.certified && dm_cal_speed(o, a) > 1.0;
}

static bool better(const struct dm_cal_opt *o, const struct dm_cal_point *a,
                   const struct dm_cal_point *b)
{
    return o->goal == DM_CAL_SPEEDUP ? a->mean[DM_CERT_DIVERGENCE] < b->mean[DM_CERT_DIVERGENCE]
                                     : dm_cal_speed(o, a) > dm_cal_speed(o, b);
}

static size_t choose(const struct dm_cal_report *r)
{
    size_t best = r->n_points;
    for (size_t i = 0; i < r->n_points; i++)
        if (eligible(&r->opt, &r->points[i]) &&
            (best == r->n_points || better(&r->opt, &r->points[i], &r->points[best])))
            best = i;
    return best;
}

/* All points from their texts. v and scratch as in values(). */
static enum dm_status all_points(struct dm_cal_report *r, const struct dm_trial *test, double *v,
                                 double *scratch, struct dm_err *e)
{
    const struct dm_cal_opt *o = &r->opt;
    const double level = dm_cal_level(o);
    const double t = dm_t_quantile(1.0 - level, o->prompts - 1);
    for (size_t i = 0; i < FIRST_POINT + r->n_points; i++) {
        struct dm_cal_point *p = i == BASE      ? &r->base
                                 : i == CONTROL ? &r->control
                                                : &r->points[i - FIRST_POINT];
        p->gen = o->gen;
        p->gen.mode = DM_GEN_AR;
        if (i >= FIRST_POINT) {
            p->gen = dm_cal_setting(o, i - FIRST_POINT);
            p->test.sequence = (i - FIRST_POINT) / o->n_eps;
        }
        DM_TRY(dm_trial_summarise(&p->sum, test, i, BASE, e));
        values(v, test, i, scratch);
        judge_point(p, r, v, test->prompts, t);
    }
    return test_points(r, e);
}

enum dm_status dm_cal_decide(struct dm_cal_report *r, const struct dm_cal_opt *o,
                             const struct dm_trial *margins, const struct dm_trial *test,
                             struct dm_err *e)
{
    const size_t most = margins->prompts > test->prompts ? margins->prompts : test->prompts;
    *r = (struct dm_cal_report){.opt = *o, .n_points = o->n_eps * dm_cal_sequences(o)};
    r->points = dm_alloc(r->n_points, sizeof(*r->points));
    double *v = dm_alloc(most, (DM_CERT_LOSSES + 1) * sizeof(*v));
    double *scratch = v ? v + DM_CERT_LOSSES * most : NULL;
    enum dm_status st = DM_OK;
    if (!r->points || !v)
        st = dm_fail(e, DM_ENOMEM, "out of memory for the evidence");
    if (!st) {
        set_margins(r, margins, v, scratch);
        st = all_points(r, test, v, scratch, e);
    }
    if (!st) {
        r->allowed = dm_binomial_allowed(o->prompts, o->risk, dm_cal_level(o));
        r->chosen = choose(r);
    }
    free(v);
    return st;
}
