/* SPDX-License-Identifier: MIT */
#include "eval/quality.h"

#include <math.h>
#include <stdlib.h>

#include "eval/stats.h"
#include "src/base/arena.h"
#include "src/base/json.h"
#include "src/base/rng.h"

const char *const dm_quality_keys[DM_QUALITY_MEASURES] = {
#define X(name, key) key,
    DM_QUALITY_LIST(X)
#undef X
};

/* Means over texts that a trial measures as they are. */
static const struct {
    enum dm_quality_measure to;
    enum dm_trial_measure from;
} means[] = {{DM_QUALITY_JUDGE, DM_TRIAL_LOGP},
             {DM_QUALITY_DIVERGENCE, DM_TRIAL_DIVERGENCE},
             {DM_QUALITY_OUTSIDE, DM_TRIAL_OUTSIDE},
             {DM_QUALITY_REPEATS_3, DM_TRIAL_REPEATS_3},
             {DM_QUALITY_REPEATS_4, DM_TRIAL_REPEATS_4}};
enum { MEANS = sizeof(means) / sizeof(means[0]) };

/* A setting over some prompts. */
struct result {
    double value[DM_QUALITY_MEASURES]; /* distinct-n: NaN */
    double wins, losses, ties;
};

struct run {
    const struct dm_trial *t;
    size_t *draw;          /* (prompts) which ones count */
    struct result *result; /* (n_settings) of the draw */
    double *scratch;       /* (prompts * samples) */
    double *boot;          /* (n_settings, MEASURES, reps) */
    double *fit;           /* (2, reps) */
};

/* Median over the draw's texts of their tokens/s, or of its ratio to the base's. */
static double median_rate(struct run *r, size_t setting, bool ratio)
{
    const struct dm_trial *t = r->t;
    size_t n = 0;
    for (size_t i = 0; i < t->prompts; i++)
        for (size_t s = 0; s < t->samples; s++) {
            const double rate = dm_gen_rate(&dm_trial_at(t, setting, r->draw[i], s)->stats),
                         base = dm_gen_rate(&dm_trial_at(t, 0, r->draw[i], s)->stats);
            if (!ratio || base > 0)
                r->scratch[n++] = ratio ? rate / base : rate;
        }
    return dm_median(r->scratch, n);
}

static void measure(struct run *r, size_t setting)
{
    const struct dm_trial *t = r->t;
    const double texts = (double)(t->prompts * t->samples);
    struct result *out = &r->result[setting];
    double tokens = 0, forwards = 0;
    *out = (struct result){0};
    for (size_t i = 0; i < t->prompts; i++)
        for (size_t s = 0; s < t->samples; s++) {
            const struct dm_trial_text *x = dm_trial_at(t, setting, r->draw[i], s),
                                       *base = dm_trial_at(t, 0, r->draw[i], s);
            const double gain = x->value[DM_TRIAL_LOGP] - base->value[DM_TRIAL_LOGP];
            out->wins += gain > 0;
            out->losses += gain < 0;
            out->ties += gain == 0;
            tokens += (double)x->stats.tokens;
            forwards += (double)x->stats.forwards;
            for (size_t m = 0; m < MEANS; m++)
                out->value[means[m].to] += x->value[means[m].from] / texts;
        }
    out->value[DM_QUALITY_PER_FORWARD] = tokens / forwards;
    out->value[DM_QUALITY_RATE] = median_rate(r, setting, false);
    out->value[DM_QUALITY_WALL] = median_rate(r, setting, true);
    out->value[DM_QUALITY_WIN_RATE] = (out->wins + out->ties / 2) / (out->losses + out->ties / 2);
    for (int m = DM_QUALITY_DISTINCT_1; m <= DM_QUALITY_DISTINCT_3; m++)
        out->value[m] = (double)NAN;
}

static const enum dm_quality_measure speeds[2] = {DM_QUALITY_PER_FORWARD, DM_QUALITY_WALL};

static double log_win_rate(const struct result *x)
{
    return log((x->wins + x->ties / 2 + 0.5) / (x->losses + x->ties / 2 + 0.5));
}

/* The line of the draw, and the largest speed-up where it is not below 0. */
static void fit_line(struct dm_quality_fit *f, const struct run *r, size_t n,
                     enum dm_quality_measure speed)
{
    const struct result *x = r->result + 1;
    double mx = 0, my = 0, xx = 0, xy = 0, top = 1;
    for (size_t i = 0; i < n; i++) {
        mx += x[i].value[speed] / (double)n;
        my += log_win_rate(&x[i]) / (double)n;
        top = fmax(top, x[i].value[speed]);
    }
    for (size_t i = 0; i < n; i++) {
        const double dx = x[i].value[speed] - mx;
        xx += dx * dx;
        xy += dx * log_win_rate(&x[i]);
    }
    f->slope = xx > 0 ? xy / xx : (double)NAN;
    f->intercept = my - f->slope * mx;
    if (isnan(f->slope))
        f->speedup.value = (double)NAN;
    else if (f->intercept + f->slope * top >= 0)
        f->speedup.value = top;
    else // below 0 at the top: a falling line may cross before it
        f->speedup.value = f->slope < 0 ? fmax(1, -f->intercept / f->slope) : 1;
}

/* Measures at the answer: on the way from the next slower setting to the next faster one. */
static void look_up(struct dm_quality_fit *f, const struct dm_quality_point *p, size_t n,
                    enum dm_quality_measure speed)
{
    const double at = f->speedup.value;
    size_t below = n, above = n;
    for (size_t i = 0; i < n; i++) {
        const double x = p[i].value[speed].value;
        if (x <= at && (below == n || x > p[below].value[speed].value))
            below = i;
        if (x >= at && (above == n || x < p[above].value[speed].value))
            above = i;
    }
    below = below == n ? above : below; // slower than all, as the clock of every setting may be
    above = above == n ? below : above;
    for (size_t m = 0; m < DM_QUALITY_MEASURES; m++) {
        if (below == n) {
            f->at[m] = (double)NAN;
            continue;
        }
        const double a = p[below].value[speed].value, b = p[above].value[speed].value,
                     share = b > a ? (at - a) / (b - a) : 0, low = p[below].value[m].value,
                     high = p[above].value[m].value;
        f->at[m] = share > 0 ? (1 - share) * low + share * high : low;
    }
}

/* The middle share of n values, those that are not numbers left out; reorders x. */
static void interval(struct dm_interval *out, double *x, size_t n, double confidence)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i]))
            x[kept++] = x[i];
    if (!kept) {
        out->low = out->high = (double)NAN;
        return;
    }
    dm_sort(x, kept);
    const double cut = 0.5 * (1 - confidence) * (double)(kept - 1);
    out->low = x[(size_t)floor(cut)];
    out->high = x[kept - 1 - (size_t)floor(cut)];
}

static void resample(struct run *r, const struct dm_quality_opt *o, bool fits)
{
    const struct dm_trial *t = r->t;
    for (size_t b = 0; b < o->bootstrap; b++) {
        struct dm_rng rng;
        dm_rng_init(&rng, o->seed, b);
        for (size_t i = 0; i < t->prompts; i++)
            r->draw[i] = dm_rng_below(&rng, t->prompts);
        for (size_t s = 0; s < t->n_settings; s++) {
            measure(r, s);
            for (size_t m = 0; m < DM_QUALITY_MEASURES; m++)
                r->boot[(s * DM_QUALITY_MEASURES + m) * o->bootstrap + b] = r->result[s].value[m];
        }
        for (size_t i = 0; i < 2 && fits; i++) {
            struct dm_quality_fit f;
            fit_line(&f, r, o->n_line, speeds[i]);
            r->fit[i * o->bootstrap + b] = f.speedup.value;
        }
    }
}

static enum dm_status fill(struct dm_quality_point *points, struct dm_quality_fit *fit,
                           struct run *r, const struct dm_quality_opt *o, struct dm_err *e)
{
    const struct dm_trial *t = r->t;
    for (size_t i = 0; i < t->prompts; i++)
        r->draw[i] = i;
    for (size_t s = 0; s < t->n_settings; s++) {
        struct dm_quality_point *p = &points[s];
        struct dm_trial_sum sum;
        DM_TRY(dm_trial_summarise(&sum, t, s, 0, e));
        measure(r, s);
        const struct result *x = &r->result[s];
        *p = (struct dm_quality_point){
            .wins = (size_t)x->wins, .losses = (size_t)x->losses, .ties = (size_t)x->ties};
        size_t blocks = 0;
        for (size_t n = 1; n <= DM_ORDER_MAX; n++)
            blocks += sum.blocks[n];
        for (size_t n = 1; n <= DM_ORDER_MAX; n++)
            p->share[n - 1] = (double)sum.blocks[n] / (double)blocks;
        for (size_t m = 0; m < DM_QUALITY_MEASURES; m++)
            p->value[m].value = x->value[m];
        for (size_t n = 1; n <= 3; n++)
            p->value[DM_QUALITY_DISTINCT_1 + n - 1].value = sum.distinct[n];
    }
    for (size_t i = 0; i < 2 && fit; i++) {
        fit_line(&fit[i], r, o->n_line, speeds[i]);
        look_up(&fit[i], points, 1 + o->n_line, speeds[i]);
    }
    resample(r, o, fit != NULL);
    for (size_t s = 0; s < t->n_settings; s++)
        for (size_t m = 0; m < DM_QUALITY_MEASURES; m++)
            interval(&points[s].value[m], r->boot + (s * DM_QUALITY_MEASURES + m) * o->bootstrap,
                     o->bootstrap, o->confidence);
    for (size_t i = 0; i < 2 && fit; i++)
        interval(&fit[i].speedup, r->fit + i * o->bootstrap, o->bootstrap, o->confidence);
    return DM_OK;
}

enum dm_status dm_quality_make(struct dm_quality_point *points, struct dm_quality_fit *fit,
                               const struct dm_trial *t, const struct dm_quality_opt *o,
                               struct dm_err *e)
{
    if (o->bootstrap < 1 || o->bootstrap > 1000000)
        return dm_fail(e, DM_ERANGE, "bootstrap is %zu, expected 1 to 1000000", o->bootstrap);
    if (fit && (o->n_line < 1 || o->n_line >= t->n_settings))
        return dm_fail(e, DM_ERANGE, "a line through %zu settings, expected 1 to %zu", o->n_line,
                       t->n_settings - 1);
    if (!(o->confidence > 0 && o->confidence < 1))
        return dm_fail(e, DM_ERANGE, "confidence is %g, expected between 0 and 1", o->confidence);
    struct run r = {.t = t};
    r.draw = dm_alloc(t->prompts, sizeof(*r.draw));
    r.result = dm_alloc(t->n_settings, sizeof(*r.result));
    r.scratch = dm_alloc(t->prompts, t->samples * sizeof(*r.scratch));
    r.boot = dm_alloc(t->n_settings * DM_QUALITY_MEASURES, o->bootstrap * sizeof(*r.boot));
    r.fit = dm_alloc(2, o->bootstrap * sizeof(*r.fit));
    enum dm_status st;
    if (!r.draw || !r.result || !r.scratch || !r.boot || !r.fit)
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu resamples", o->bootstrap);
    else
        st = fill(points, fit, &r, o, e);
    free(r.draw);
    free(r.result);
    free(r.scratch);
    free(r.boot);
    free(r.fit);
    return st;
}

static json_t *interval_to_json(const struct dm_interval *x)
{
    return json_pack("{s:o, s:o, s:o}", "value", dm_json_real(x->value), "low",
                     dm_json_real(x->low), "high", dm_json_real(x->high));
}

json_t *dm_quality_point_to_json(const struct dm_quality_point *p)
{
    json_t *shares = json_array();
    for (size_t n = 0; n < DM_ORDER_MAX; n++)
        json_array_append_new(shares, dm_json_real(p->share[n]));
    json_t *o = json_pack("{s:o, s:I, s:I, s:I}", "shares", shares, "wins", (json_int_t)p->wins,
                          "losses", (json_int_t)p->losses, "ties", (json_int_t)p->ties);
    for (size_t m = 0; m < DM_QUALITY_MEASURES; m++)
        json_object_set_new(o, dm_quality_keys[m], interval_to_json(&p->value[m]));
    return o;
}

json_t *dm_quality_fit_to_json(const struct dm_quality_fit *f)
{
    json_t *at = json_object();
    for (size_t m = 0; m < DM_QUALITY_MEASURES; m++)
        json_object_set_new(at, dm_quality_keys[m], dm_json_real(f->at[m]));
    return json_pack("{s:o, s:o, s:o, s:o}", "speedup", interval_to_json(&f->speedup), "intercept",
                     dm_json_real(f->intercept), "slope", dm_json_real(f->slope), "at", at);
}
