/* SPDX-License-Identifier: MIT */
#include "eval/report_sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"

static struct dm_rep_estimate estimate(double value, double lo, double hi)
{
    return (struct dm_rep_estimate){value, lo, hi};
}

/* A value whose upper bound is known: the interval is symmetric. */
static struct dm_rep_estimate bounded(const json_t *o, const char *value, const char *bound)
{
    const double x = dm_rep_number(o, value), hi = dm_rep_number(o, bound);
    return estimate(x, 2 * x - hi, hi);
}

static struct dm_rep_estimate alone(const json_t *o, const char *key)
{
    return estimate(dm_rep_number(o, key), NAN, NAN);
}

static void read_shares(struct dm_rep_setting *s, const json_t *o)
{
    double all = 0;
    for (size_t i = 1; i <= 3; i++) {
        const char path[] = {'b', 'l', 'o', 'c', 'k', 's', '.', (char)('0' + i), '\0'};
        s->share[i] = dm_rep_number(o, path);
        all += s->share[i];
    }
    for (size_t i = 1; i <= 3; i++)
        s->share[i] = all > 0 ? s->share[i] / all : NAN;
}

/* A mean over prompts and two of its standard errors. */
static struct dm_rep_estimate mean(const json_t *o, const char *key)
{
    char path[64];
    snprintf(path, sizeof(path), "excess.%s", key);
    const double x = dm_rep_number(o, path);
    snprintf(path, sizeof(path), "excess_se.%s", key);
    const double se = dm_rep_number(o, path);
    return estimate(x, x - 2 * se, x + 2 * se);
}

/* A point of calibrate's evidence; `prompts` were tried. */
static struct dm_rep_setting read_point(const json_t *o, double prompts)
{
    const char *verdict = dm_rep_string(o, "verdict");
    struct dm_rep_setting s = {
        .eps_b = dm_rep_number(o, "eps_b"),
        .per_forward = alone(o, "tokens_per_forward"),
        .speedup = alone(o, "speedup"),
        .wins = estimate(NAN, NAN, NAN),
        .failing = estimate(dm_rep_number(o, "failures") / prompts, NAN, NAN),
        .passes = json_is_true(json_object_get(o, "passes")) ||
                  json_is_true(json_object_get(o, "certified"))};
    if (json_is_object(json_object_get(o, "excess"))) {
        s.shortfall = mean(o, "logp");
        s.divergence = mean(o, "divergence");
        s.repeats = mean(o, "repeats_4");
    } else { // of before there were certificates
        s.shortfall = bounded(o, "loss", "loss_bound");
        s.divergence = alone(o, "fidelity");
        s.repeats = bounded(o, "rise", "rise_bound");
    }
    s.verdict = !verdict               ? s.passes ? "passes" : "fails"
                : strcmp(verdict, "-") ? verdict
                                       : "not tested";
    read_shares(&s, o);
    return s;
}

static int by_eps(const void *a, const void *b)
{
    const double x = ((const struct dm_rep_setting *)a)->eps_b,
                 y = ((const struct dm_rep_setting *)b)->eps_b;
    return (x > y) - (x < y);
}

/* ---- Calibrations ------------------------------------------------------------------------------
 */

static bool same(const json_t *a, const json_t *b, const char *key)
{
    const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
    return x && y ? json_equal(x, y) : x == y;
}

/* The settings of decoding but eps_b. */
static const char *const settings[] = {"unseen", "alpha_c", "alpha_3",    "top_k",  "fitted",
                                       "power2", "power3",  "cut",        "lambda", "threshold",
                                       "blur",   "penalty", "temperature"};
enum { SETTINGS = sizeof(settings) / sizeof(settings[0]) };

/* Whether the points are of one curve: they differ in eps_b only. */
static bool same_curve(const json_t *a, const json_t *b)
{
    for (size_t k = 0; k < SETTINGS; k++)
        if (!same(a, b, settings[k]))
            return false;
    return true;
}

/* What sets the curve of point o apart among all points. */
static void name_curve(char *text, size_t n, const json_t *points, const json_t *o)
{
    size_t used = 0, i;
    json_t *other;
    text[0] = '\0';
    for (size_t k = 0; k < SETTINGS; k++) {
        const json_t *v = json_object_get(o, settings[k]);
        bool varies = false;
        json_array_foreach(points, i, other) varies = varies || !same(o, other, settings[k]);
        if (!varies || used >= n)
            continue;
        if (json_is_string(v))
            used += (size_t)snprintf(text + used, n - used, ", %.30s", json_string_value(v));
        else if (json_is_number(v))
            used += (size_t)snprintf(text + used, n - used, ", %s %.6g", settings[k],
                                     json_number_value(v));
        else
            used += (size_t)snprintf(text + used, n - used, ", %s %s", settings[k],
                                     json_is_true(v) ? "on" : "off");
    }
}

static bool is_chosen(const json_t *root, const json_t *o, const char *verdict)
{
    if (json_object_get(o, "verdict"))
        return !strcmp(verdict, "chosen");
    return json_is_true(dm_rep_at(root, "evidence.chosen")) && same(root, o, "eps_b") &&
           same(root, o, "unseen");
}

/* The points on the curve of `first`. */
static bool read_curve(struct dm_rep_sweep *s, const char *label, const json_t *root,
                       const json_t *first)
{
    const json_t *evidence = dm_rep_at(root, "evidence"), *points = dm_rep_at(evidence, "points");
    char which[80];
    size_t i;
    json_t *o;
    const bool new = json_is_object(json_object_get(evidence, "margin"));
    *s = (struct dm_rep_sweep){.source = evidence,
                               .at = dm_alloc(json_array_size(points), sizeof(*s->at)),
                               // a certificate's margins are of single prompts, not of means
                               .margin = {new ? NAN : dm_rep_number(evidence, "margin"), NAN,
                                          new ? NAN : dm_rep_number(evidence, "repeat_margin"),
                                          dm_rep_number(evidence, "risk")},
                               .label = label,
                               .certificate = dm_rep_at(root, "certificate"),
                               .summary = dm_rep_string(evidence, "summary")};
    if (!s->at)
        return false;
    name_curve(which, sizeof(which), points, first);
    snprintf(s->name, sizeof(s->name), "%.40s%s", label, which);
    json_array_foreach(points, i, o)
    {
        if (!json_is_object(o) || !same_curve(o, first))
            continue;
        struct dm_rep_setting at = read_point(o, dm_rep_number(evidence, "prompts"));
        at.chosen = is_chosen(root, o, at.verdict);
        if (at.chosen)
            at.verdict = "chosen";
        if (isfinite(at.eps_b))
            s->at[s->n++] = at;
    }
    qsort(s->at, s->n, sizeof(*s->at), by_eps);
    return true;
}

struct list {
    struct dm_rep_sweep *sweep;
    size_t n, cap;
};

static struct dm_rep_sweep *one_more(struct list *l)
{
    if (l->n == l->cap) {
        const size_t cap = l->cap ? 2 * l->cap : 8;
        struct dm_rep_sweep *more = dm_realloc(l->sweep, cap, sizeof(*more));
        if (!more)
            return NULL;
        l->sweep = more;
        l->cap = cap;
    }
    return &l->sweep[l->n];
}

/* Each curve once, in the order of its first point. */
static bool add_calibration(struct list *l, const char *label, const json_t *root)
{
    const json_t *evidence = dm_rep_at(root, "evidence"), *points = dm_rep_at(evidence, "points");
    size_t i, k;
    json_t *o, *before;
    for (size_t s = 0; s < l->n; s++) // a model holds what calibrate printed
        if (json_equal(l->sweep[s].source, evidence))
            return true;
    json_array_foreach(points, i, o)
    {
        bool first = json_is_object(o);
        json_array_foreach(points, k, before) if (k < i && json_is_object(before) &&
                                                  same_curve(o, before)) first = false;
        if (!first)
            continue;
        struct dm_rep_sweep *s = one_more(l);
        if (!s || !read_curve(s, label, root, o))
            return false;
        l->n++;
    }
    return true;
}

/* ---- Evaluations --------------------------------------------------------------------------------
 */

static struct dm_rep_estimate measure(const json_t *o, const char *key)
{
    const json_t *m = json_object_get(o, key);
    return estimate(dm_rep_number(m, "value"), dm_rep_number(m, "low"), dm_rep_number(m, "high"));
}

static struct dm_rep_estimate less(struct dm_rep_estimate e, double base)
{
    return estimate(e.value - base, e.lo - base, e.hi - base);
}

/* A point of eval's quality; the intervals are the setting's own, not of the difference. */
static struct dm_rep_setting read_quality(const json_t *o, const json_t *base)
{
    struct dm_rep_setting s = {
        .eps_b = dm_rep_number(o, "settings.eps_b"),
        .per_forward = measure(o, "tokens_per_forward"),
        .speedup = measure(o, "wall_clock"),
        .divergence = measure(o, "divergence"),
        .wins = measure(o, "win_rate"),
        .repeats = less(measure(o, "repeats_3"), dm_rep_number(base, "repeats_3.value")),
        .failing = estimate(NAN, NAN, NAN),
        .verdict = ""};
    const struct dm_rep_estimate j = less(measure(o, "judge"), dm_rep_number(base, "judge.value"));
    s.shortfall = estimate(-j.value, -j.hi, -j.lo);
    for (size_t i = 1; i <= 3; i++) {
        const json_t *share = json_array_get(json_object_get(o, "shares"), i - 1);
        s.share[i] = json_is_number(share) ? json_number_value(share) : NAN;
    }
    return s;
}

static bool add_evaluation(struct list *l, const char *label, const json_t *root)
{
    const json_t *quality = json_object_get(root, "quality"),
                 *points = json_object_get(quality, "points");
    size_t i;
    json_t *o;
    if (!json_array_size(points))
        return true;
    struct dm_rep_sweep *s = one_more(l);
    if (!s)
        return false;
    *s = (struct dm_rep_sweep){.source = quality,
                               .label = label,
                               .at = dm_alloc(json_array_size(points), sizeof(*s->at)),
                               .margin = {NAN, NAN, NAN, NAN}};
    if (!s->at)
        return false;
    l->n++;
    snprintf(s->name, sizeof(s->name), "%.80s", label);
    json_array_foreach(points, i, o)
    {
        s->at[s->n] = read_quality(o, json_object_get(quality, "base"));
        s->n += isfinite(s->at[s->n].eps_b);
    }
    qsort(s->at, s->n, sizeof(*s->at), by_eps);
    return true;
}

bool dm_rep_sweeps(const struct dm_runs *r, struct dm_rep_sweep **out, size_t *n)
{
    struct list l = {0};
    bool ok = true;
    for (int pass = 0; pass < 2; pass++) // what was asked for first, then what models hold of it
        for (size_t i = 0; i < r->n && ok; i++) {
            const struct dm_run *run = &r->run[i];
            if (!pass && run->kind == DM_RUN_CALIBRATE)
                ok = add_calibration(&l, run->label, run->root);
            else if (!pass && run->kind == DM_RUN_EVAL)
                ok = add_evaluation(&l, run->label, run->root);
            else if (pass && run->kind == DM_RUN_MODEL)
                ok = add_calibration(&l, run->label, dm_rep_at(run->root, "calibration"));
        }
    *out = l.sweep;
    *n = l.n;
    return ok;
}

void dm_rep_sweeps_free(struct dm_rep_sweep *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(s[i].at);
    free(s);
}
