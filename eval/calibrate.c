/* SPDX-License-Identifier: MIT */
/* calibrate.c - options, prompts, and the rule that turns texts into a choice. */
#include "eval/calibrate.h"

#include <math.h>
#include <stdlib.h>

#include "eval/stats.h"

struct dm_cal_opt dm_cal_opt_default(void)
{
    struct dm_cal_opt o = {.gen = dm_gen_opt_default(),
                           .n_eps = 11,
                           .n_unseen = 1,
                           .prompts = 32,
                           .prompt_tokens = 32,
                           .tokens = 64,
                           .samples = 4,
                           .seed = 1,
                           .margin = 0.1,
                           .repeat_margin = 0.02,
                           .confidence = 0.95};
    for (size_t i = 0; i < o.n_eps; i++)
        o.eps[i] = (double)i / 10.0;
    o.unseen[0] = o.gen.unseen;
    return o;
}

static int falling(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

enum dm_status dm_cal_opt_check(struct dm_cal_opt *o, struct dm_err *e)
{
    const struct {
        const char *name;
        double value, min, max;
    } range[] = {{"the number of eps_b values", (double)o->n_eps, 1, DM_CAL_EPS},
                 {"the number of policies", (double)o->n_unseen, 1, DM_CAL_UNSEEN},
                 {"the number of prompts", (double)o->prompts, 2, 1e6},
                 {"the prompts' length", (double)o->prompt_tokens, 1, 1e6},
                 {"the texts' length", (double)o->tokens, 1, 1e6},
                 {"the number of samples", (double)o->samples, 1, 1e4},
                 {"the margin", o->margin, 0, 100},
                 {"the margin of repetition", o->repeat_margin, 0, 1},
                 {"the confidence", o->confidence, 0.5, 0.9999}};
    for (size_t i = 0; i < sizeof(range) / sizeof(range[0]); i++)
        if (!(range[i].value >= range[i].min && range[i].value <= range[i].max))
            return dm_fail(e, DM_ERANGE, "%s is %g, expected %g to %g", range[i].name,
                           range[i].value, range[i].min, range[i].max);
    for (size_t i = 0; i < o->n_eps; i++)
        if (!(o->eps[i] >= 0.0 && o->eps[i] <= 1.0))
            return dm_fail(e, DM_ERANGE, "eps_b is %g, expected 0 to 1", o->eps[i]);
    qsort(o->eps, o->n_eps, sizeof(o->eps[0]), falling);
    size_t n = 1;
    for (size_t i = 1; i < o->n_eps; i++)
        if (o->eps[i] < o->eps[n - 1])
            o->eps[n++] = o->eps[i];
    o->n_eps = n;
    return dm_gen_opt_check(&o->gen, e);
}

/* Mean, standard error and upper confidence bound of n prompts' values. */
static void bound(double *mean, double *se, double *upper, const double *x, size_t n, double t)
{
    *mean = dm_mean(x, n);
    *se = dm_standard_error(x, n);
    *upper = *mean + t * *se;
}

/* Sums and medians of one setting's texts. */
static void describe(struct dm_cal_point *p, const struct dm_cal_text *x,
                     const struct dm_cal_text *base, size_t n, double *scratch)
{
    p->logp = p->repeats = p->fidelity = 0.0;
    for (size_t i = 0; i < n; i++) {
        p->tokens += x[i].stats.tokens;
        p->forwards += x[i].stats.forwards;
        for (size_t b = 1; b <= DM_ORDER_MAX; b++)
            p->blocks[b] += x[i].stats.blocks[b];
        p->logp += x[i].logp / (double)n;
        p->repeats += x[i].repeats / (double)n;
        p->fidelity += x[i].fidelity / (double)n;
    }
    for (size_t i = 0; i < n; i++)
        scratch[i] = dm_gen_rate(&x[i].stats);
    p->rate = dm_median(scratch, n);
    size_t n_ratios = 0;
    for (size_t i = 0; i < n; i++)
        if (dm_gen_rate(&base[i].stats) > 0.0)
            scratch[n_ratios++] = dm_gen_rate(&x[i].stats) / dm_gen_rate(&base[i].stats);
    p->speedup = dm_median(scratch, n_ratios);
}

static void judge_point(struct dm_cal_point *p, const struct dm_cal_opt *o,
                        const struct dm_cal_text *x, const struct dm_cal_text *base, double t,
                        double *scratch)
{
    double *loss = scratch, *rise = scratch + o->prompts;
    for (size_t i = 0; i < o->prompts; i++) {
        loss[i] = rise[i] = 0.0;
        for (size_t s = 0; s < o->samples; s++) {
            const size_t at = i * o->samples + s;
            loss[i] += (base[at].logp - x[at].logp) / (double)o->samples;
            rise[i] += (x[at].repeats - base[at].repeats) / (double)o->samples;
        }
    }
    bound(&p->loss, &p->loss_se, &p->loss_bound, loss, o->prompts, t);
    bound(&p->rise, &p->rise_se, &p->rise_bound, rise, o->prompts, t);
    p->passes = p->loss_bound <= o->margin && p->rise_bound <= o->repeat_margin;
}

static double per_forward(const struct dm_cal_point *p)
{
    return p->forwards ? (double)p->tokens / (double)p->forwards : 0.0;
}

/* Fixed-order testing from the safe end; see the header. */
static size_t choose(const struct dm_cal_report *r)
{
    const struct dm_cal_opt *o = &r->opt;
    size_t best = r->n_points;
    for (size_t u = 0; u < o->n_unseen; u++) {
        size_t last = r->n_points;
        for (size_t i = u * o->n_eps; i < (u + 1) * o->n_eps && r->points[i].passes; i++)
            last = i;
        // eps_b = 1 is the base itself: nothing was gained, and nothing needs to be chosen.
        if (last == r->n_points || r->points[last].eps_b >= 1.0)
            continue;
        if (best == r->n_points || per_forward(&r->points[last]) > per_forward(&r->points[best]))
            best = last;
    }
    return best;
}

enum dm_status dm_cal_summarise(struct dm_cal_report *r, const struct dm_cal_opt *o,
                                const struct dm_cal_text *texts, struct dm_err *e)
{
    const size_t n = o->prompts * o->samples;
    double *scratch = dm_alloc(n > 2 * o->prompts ? n : 2 * o->prompts, sizeof(*scratch));
    if (!scratch)
        return dm_fail(e, DM_ENOMEM, "out of memory for the evidence");
    *r = (struct dm_cal_report){.opt = *o, .n_points = o->n_eps * o->n_unseen};
    r->base.eps_b = 1.0;
    r->base.passes = true;
    describe(&r->base, texts, texts, n, scratch);
    const double risk = (1.0 - o->confidence) / (double)o->n_unseen;
    const double t = dm_t_quantile(1.0 - risk, o->prompts - 1);
    for (size_t i = 0; i < r->n_points; i++) {
        struct dm_cal_point *p = &r->points[i];
        p->eps_b = o->eps[i % o->n_eps];
        p->unseen = o->unseen[i / o->n_eps];
        describe(p, texts + (i + 1) * n, texts, n, scratch);
        judge_point(p, o, texts + (i + 1) * n, texts, t, scratch);
    }
    r->chosen = choose(r);
    free(scratch);
    return DM_OK;
}

/* Looks for a run of o->prompt_tokens without a separator in [begin, end) of the shard. */
static enum dm_status find_run(int32_t *out, const struct dm_cal_opt *o, struct dm_shard *shard,
                               size_t begin, size_t end, bool *found, struct dm_err *e)
{
    size_t have = 0;
    int32_t id;
    *found = false;
    for (size_t i = begin; i < end; i++) {
        DM_TRY(dm_shard_read(shard, &id, i, 1, e));
        have = id == dm_shard_separator(shard) ? 0 : have + 1;
        if (have == o->prompt_tokens) {
            *found = true;
            return dm_shard_read(shard, out, i + 1 - have, have, e);
        }
    }
    return DM_OK;
}

enum dm_status dm_cal_prompts(int32_t *out, const struct dm_cal_opt *o, struct dm_shard *shard,
                              struct dm_err *e)
{
    const size_t N = dm_shard_tokens(shard), part = N / o->prompts;
    for (size_t i = 0; i < o->prompts; i++) {
        bool found;
        DM_TRY(find_run(out + i * o->prompt_tokens, o, shard, i * part, (i + 1) * part, &found, e));
        if (!found)
            return dm_fail(e, DM_ERANGE,
                           "the held-out data's part %zu of %zu (%zu tokens) has no run of %zu "
                           "tokens within a document; use fewer or shorter prompts or more data",
                           i + 1, o->prompts, part, o->prompt_tokens);
    }
    return DM_OK;
}
