/* SPDX-License-Identifier: MIT */
/* cal_report.c - the table and the sentence. */
#include "eval/cal_report.h"

#include <math.h>

static double share(const struct dm_cal_point *p, size_t n)
{
    return p->sum.forwards ? (double)p->sum.blocks[n] / (double)p->sum.forwards : 0.0;
}

const char *dm_cal_verdict(const struct dm_cal_report *r, size_t point)
{
    const struct dm_ltt *t = &r->points[point].test;
    return point == r->chosen              ? "chosen"
           : r->opt.goal == DM_CAL_SPEEDUP ? "-"
           : t->certified                  ? "certified"
           : t->tested                     ? "fails"
                                           : "-";
}

/* Settings, speed, quality, verdict. */
static void print_point(const struct dm_cal_point *p, const char *name, const char *verdict,
                        FILE *out)
{
    const double *v = p->sum.value, *d = p->sum.distinct;
    fprintf(out, "%s\t%g\t%zu\t%s\t%.3f\t%.2f\t%.2f\t%.2f\t%.1f\t%.3f",
            p->gen.mode == DM_GEN_AR ? "-" : dm_unseen_names[p->gen.unseen], p->gen.alpha_c,
            p->gen.top_k, name, p->sum.per_forward, share(p, 1), share(p, 2), share(p, 3),
            p->sum.rate, p->sum.speedup);
    fprintf(out, "\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f",
            v[DM_TRIAL_LOGP], p->mean[DM_CERT_LOGP], p->se[DM_CERT_LOGP], v[DM_TRIAL_DIVERGENCE],
            p->se[DM_CERT_DIVERGENCE], v[DM_TRIAL_OUTSIDE], v[DM_TRIAL_REPEATS_3],
            v[DM_TRIAL_REPEATS_4], d[1], d[2], d[3], d[4]);
    fprintf(out, "\t%.4f\t%zu\t%zu\t%zu\t%zu\t%s\n", p->sum.agree, p->test.failures,
            p->failed_by[DM_CERT_DIVERGENCE], p->failed_by[DM_CERT_LOGP],
            p->failed_by[DM_CERT_REPEATS], verdict);
}

void dm_cal_print_table(const struct dm_cal_report *r, FILE *out)
{
    fprintf(out,
            "unseen\talpha_c\ttop_k\teps_b\ttok/fwd\tone\ttwo\tthree\ttok/s\tspeedup\tlogp\tloss\t"
            "loss_se\tdivergence\tdiv_se\toutside\trepeats_3\trepeats_4\tdistinct_1\tdistinct_2\t"
            "distinct_3\tdistinct_4\tagree\tfailed\tby_div\tby_logp\tby_rep\tverdict\n");
    print_point(&r->base, "base", "-", out);
    print_point(&r->control, "control", "-", out);
    for (size_t i = 0; i < r->n_points; i++) {
        const struct dm_cal_point *p = &r->points[i];
        char eps[32];
        snprintf(eps, sizeof(eps), "%g", p->gen.eps_b);
        print_point(p, eps, dm_cal_verdict(r, i), out);
    }
}

/* "eps_b 0.6, unseen backoff", and what else was searched. */
static void name_setting(const struct dm_cal_report *r, const struct dm_cal_point *p, char *text,
                         size_t n)
{
    char alpha_c[48] = "", top_k[48] = "";
    if (r->opt.n_alpha_c > 1)
        snprintf(alpha_c, sizeof(alpha_c), ", alpha_c %g", p->gen.alpha_c);
    if (r->opt.n_top_k > 1)
        snprintf(top_k, sizeof(top_k), ", top_k %zu", p->gen.top_k);
    snprintf(text, n, "eps_b %g, unseen %s%s%s", p->gen.eps_b, dm_unseen_names[p->gen.unseen],
             alpha_c, top_k);
}

static void name_speed(const struct dm_cal_point *p, char *text, size_t n)
{
    snprintf(text, n, "%.3f tokens per forward, %.2f times the base's speed%s", p->sum.per_forward,
             p->sum.speedup,
             p->sum.speedup < 1.0 ? " (slower here: a step's extra work outweighs its tokens)"
                                  : "");
}

static void chosen_sentence(const struct dm_cal_report *r, char *text, size_t n)
{
    const struct dm_cal_opt *o = &r->opt;
    const struct dm_cal_point *p = &r->points[r->chosen];
    char name[160], speed[160];
    name_setting(r, p, name, sizeof(name));
    name_speed(p, speed, sizeof(speed));
    if (o->goal == DM_CAL_RISK)
        snprintf(text, n,
                 "certified: %s: with confidence %g at most %g %% of prompts fail (%zu of %zu did, "
                 "p = %.2g; the base itself with other seeds %zu); %s",
                 name, o->confidence, 100.0 * o->risk, p->test.failures, o->prompts, p->test.p,
                 r->control.test.failures, speed);
    else if (o->goal == DM_CAL_SPEEDUP)
        snprintf(text, n,
                 "chosen: %s: the smallest divergence of the settings that reach %g, %.4f nats per "
                 "token (bound %.4f); %zu of %zu prompts fail; %s",
                 name, o->target, p->mean[DM_CERT_DIVERGENCE], p->bound, p->test.failures,
                 o->prompts, speed);
    else
        snprintf(text, n,
                 "chosen: %s: with confidence %g its divergence is at most %.4f nats per token "
                 "(target %g, measured %.4f); %zu of %zu prompts fail; %s",
                 name, o->confidence, p->bound, o->target, p->mean[DM_CERT_DIVERGENCE],
                 p->test.failures, o->prompts, speed);
}

/* The best first setting of a sequence, the fastest setting, and whether any is certified. */
static void look_for(const struct dm_cal_report *r, const struct dm_cal_point **first,
                     const struct dm_cal_point **fastest, bool *any)
{
    *first = *fastest = &r->points[0];
    *any = false;
    for (size_t i = 0; i < r->n_points; i++) {
        const struct dm_cal_point *p = &r->points[i];
        if (i % r->opt.n_eps == 0 && p->test.failures < (*first)->test.failures)
            *first = p;
        if (dm_cal_speed(&r->opt, p) > dm_cal_speed(&r->opt, *fastest))
            *fastest = p;
        *any |= p->test.certified;
    }
}

static void infeasible_sentence(const struct dm_cal_report *r, char *text, size_t n)
{
    const struct dm_cal_opt *o = &r->opt;
    const struct dm_cal_point *first, *fastest;
    bool any;
    char name[160];
    look_for(r, &first, &fastest, &any);
    name_setting(r, first, name, sizeof(name));
    if (o->goal == DM_CAL_SPEEDUP)
        snprintf(text, n, "infeasible: no setting reaches %g %s; the fastest has %.3f", o->target,
                 o->wall_clock ? "times the base's speed" : "tokens per forward",
                 dm_cal_speed(o, fastest));
    else if (any)
        snprintf(text, n, "infeasible: no setting that %s is faster than the base alone%s",
                 o->goal == DM_CAL_RISK ? "is certified" : "keeps the divergence",
                 o->wall_clock ? " by the clock" : "");
    else if (o->goal == DM_CAL_QUALITY)
        snprintf(
            text, n,
            "infeasible: the safest setting, %s, has a divergence of %.4f nats per token, with "
            "confidence %g at most %.4f, and the target is %g; the base's own is %.4f",
            name, first->mean[DM_CERT_DIVERGENCE], o->confidence, first->bound, o->target,
            r->base.mean[DM_CERT_DIVERGENCE]);
    else
        snprintf(text, n,
                 "infeasible: of the safest setting, %s, %zu of %zu prompts fail (divergence %zu, "
                 "log-likelihood %zu, repetition %zu), at most %zu may for a risk of %g with "
                 "confidence %g; of the base itself with other seeds %zu fail",
                 name, first->test.failures, o->prompts, first->failed_by[DM_CERT_DIVERGENCE],
                 first->failed_by[DM_CERT_LOGP], first->failed_by[DM_CERT_REPEATS], r->allowed,
                 o->risk, o->confidence, r->control.test.failures);
}

void dm_cal_sentence(const struct dm_cal_report *r, char *text, size_t n)
{
    if (r->chosen < r->n_points)
        chosen_sentence(r, text, n);
    else
        infeasible_sentence(r, text, n);
}
