/* SPDX-License-Identifier: MIT */
/* report_quality.c - what speed costs, and how many tokens the passes give. */
#include <math.h>
#include <stdlib.h>

#include "eval/report_sweep.h"
#include "src/base/arena.h"

enum { X_FORWARD, X_CLOCK, N_X };
enum { Y_SHORTFALL, Y_DIVERGENCE, Y_REPEATS, Y_FAILING, Y_WINS, N_Y };

static const char *const x_names[] = {"tokens per forward pass", "wall clock, times the base's"};
static const struct {
    const char *title, *axis;
} y_names[] = {{"Judge's shortfall", "nats per token"},
               {"Divergence from the base's sampler", "nats per token"},
               {"Rise of repetition", "share of n-grams"},
               {"Prompts that fail", "share of prompts"},
               {"Judge's win rate against the base", "wins / losses"}};

static struct dm_rep_estimate x_of(const struct dm_rep_setting *s, int x)
{
    return x == X_FORWARD ? s->per_forward : s->speedup;
}

static struct dm_rep_estimate y_of(const struct dm_rep_setting *s, int y)
{
    return y == Y_SHORTFALL    ? s->shortfall
           : y == Y_DIVERGENCE ? s->divergence
           : y == Y_REPEATS    ? s->repeats
           : y == Y_FAILING    ? s->failing
                               : s->wins;
}

static bool fill(struct dm_series *out, const struct dm_rep_sweep *s, size_t which, int x, int y)
{
    snprintf(out->name, sizeof(out->name), "%s", s->name);
    out->colour = (int)(which % 8) + 1;
    out->dash = (int)(which % 4);
    for (size_t i = 0; i < s->n; i++) {
        const struct dm_rep_setting *at = &s->at[i];
        const struct dm_rep_estimate e = y_of(at, y);
        struct dm_point *p = dm_series_add(out, x_of(at, x).value, e.value);
        if (!p)
            return false;
        p->lo = e.lo;
        p->hi = e.hi;
        p->mark = at->chosen                    ? DM_MARK_CHOSEN
                  : at->passes || !*at->verdict ? DM_MARK_FULL
                                                : DM_MARK_OPEN;
        snprintf(p->note, sizeof(p->note), "eps_b %.4g%s%.40s", at->eps_b, *at->verdict ? ", " : "",
                 at->verdict);
    }
    return true;
}

static bool has_certificate(const struct dm_rep_sweep *sweep, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (json_is_object(sweep[i].certificate))
            return true;
    return false;
}

static bool draw(struct dm_page *p, const struct dm_rep_sweep *sweep, size_t n, int x, int y)
{
    char title[120], summary[240], limit[60] = "";
    struct dm_series *series = dm_alloc(n, sizeof(*series));
    bool any = false;
    for (size_t i = 0; i < n && series; i++)
        if (!fill(&series[i], &sweep[i], i, x, y))
            p->failed = true;
    p->failed |= !series;
    snprintf(title, sizeof(title), "%s", y_names[y].title);
    snprintf(summary, sizeof(summary),
             "%s against %s, a point per threshold; the numbers are in the table.", title,
             x_names[x]);
    double margin = NAN;
    for (size_t i = n; i-- > 0 && y < Y_WINS;)
        margin = isfinite(sweep[i].margin[y]) ? sweep[i].margin[y] : margin;
    if (y == Y_WINS)
        margin = 1;
    if (isfinite(margin))
        snprintf(limit, sizeof(limit), "%s %.4g",
                 y == Y_WINS      ? "indifferent:"
                 : y == Y_FAILING ? "risk"
                                  : "margin",
                 margin);
    const struct dm_chart chart = {.title = title,
                                   .x = x_names[x],
                                   .y = y_names[y].axis,
                                   .summary = summary,
                                   .log_y = y == Y_WINS,
                                   .limit = margin,
                                   .limit_name = *limit ? limit : NULL,
                                   .chosen = has_certificate(sweep, n) ? "certified" : NULL,
                                   .series = series,
                                   .n = series ? n : 0};
    any = dm_chart_draw(p, &chart);
    for (size_t i = 0; i < n && series; i++)
        free(series[i].point);
    free(series);
    return any;
}

/* ---- Numbers -----------------------------------------------------------------------------------
 */

static void put_estimate(struct dm_page *p, struct dm_rep_estimate e)
{
    char value[40], lo[40], hi[40];
    dm_page_figure(value, e.value, 4);
    dm_page_figure(lo, e.lo, 3);
    dm_page_figure(hi, e.hi, 3);
    if (isfinite(e.lo) && isfinite(e.hi))
        dm_page_element(p, "td class=\"n\"", "%s [%s, %s]", value, lo, hi);
    else
        dm_page_element(p, "td class=\"n\"", "%s", value);
}

static void put_table(struct dm_page *p, const struct dm_rep_sweep *s)
{
    static const char *const head[] = {
        "#eps_b",      "#tokens per forward", "#wall clock", "#shortfall",
        "#divergence", "#rise of repetition", "#win rate",   "verdict",
        NULL};
    dm_rep_table(p, s->name, head);
    for (size_t i = 0; i < s->n; i++) {
        const struct dm_rep_setting *at = &s->at[i];
        dm_page_raw(p, at->chosen ? "<tr class=\"chosen\">" : "<tr>");
        dm_page_number(p, at->eps_b, 4);
        put_estimate(p, at->per_forward);
        put_estimate(p, at->speedup);
        for (int y = 0; y < N_Y; y++)
            put_estimate(p, y_of(at, y));
        dm_page_element(p, at->passes ? "td class=\"yes\"" : "td class=\"no\"", "%s", at->verdict);
        dm_page_raw(p, "</tr>\n");
    }
    dm_rep_table_end(p);
}

/* What is guaranteed of the settings that were chosen. */
static void put_certificates(struct dm_page *p, const struct dm_rep_sweep *sweep, size_t n)
{
    static const char *const head[] = {"run",      "#risk",    "#confidence",         "#prompts",
                                       "#failing", "#p-value", "#tokens per forward", "#wall clock",
                                       NULL};
    static const char *const keys[] = {"risk",    "confidence",         "prompts", "failures",
                                       "p_value", "tokens_per_forward", "speedup"};
    if (!has_certificate(sweep, n))
        return;
    dm_rep_table(p, "Certificates: with this confidence, at most the share risk of prompts fails",
                 head);
    for (size_t i = 0; i < n; i++) {
        const json_t *c = sweep[i].certificate;
        if (!json_is_object(c) || (i && sweep[i - 1].certificate == c))
            continue;
        dm_page_raw(p, "<tr>");
        dm_page_element(p, "th scope=\"row\"", "%s", sweep[i].label);
        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
            dm_page_number(p, dm_rep_number(c, keys[k]), 4);
        dm_page_raw(p, "</tr>\n");
    }
    dm_rep_table_end(p);
}

bool dm_rep_quality(struct dm_page *p, const struct dm_runs *r)
{
    struct dm_rep_sweep *sweep;
    size_t n;
    bool any = false;
    if (!dm_rep_sweeps(r, &sweep, &n))
        p->failed = true;
    dm_page_raw(p, "<p>Each point is a threshold. Below 0 is better than the base alone; filled "
                   "points pass the test of quality, hollow ones fail or were not tested, the ring "
                   "is the one that was chosen. Bars: the file's intervals, or two standard errors "
                   "of a mean over prompts.</p>\n<div class=\"charts two\">\n");
    for (int y = 0; y < N_Y && n; y++)
        for (int x = 0; x < N_X; x++)
            any |= draw(p, sweep, n, x, y);
    dm_page_raw(p, "</div>\n");
    struct dm_series *key = dm_alloc(n + 1, sizeof(*key));
    for (size_t i = 0; i < n && key; i++) {
        key[i].colour = (int)(i % 8) + 1;
        key[i].dash = (int)(i % 4);
        snprintf(key[i].name, sizeof(key[i].name), "%s", sweep[i].name);
    }
    if (key && n)
        dm_chart_legend(p, key, n);
    p->failed |= !key;
    free(key);
    for (size_t i = 0; i < n; i++)
        if (sweep[i].summary && (!i || sweep[i].summary != sweep[i - 1].summary))
            dm_page_element(p, "p", "%s", sweep[i].summary);
    put_certificates(p, sweep, n);
    dm_page_raw(p, "<details><summary>All thresholds</summary>\n");
    for (size_t i = 0; i < n; i++)
        put_table(p, &sweep[i]);
    dm_page_raw(p, "</details>\n");
    dm_rep_sweeps_free(sweep, n);
    return any;
}

/* ---- The mixture --------------------------------------------------------------------------------
 */

static void name_bands(struct dm_series band[3])
{
    static const char *const names[] = {"one token", "two tokens", "three tokens"};
    static const int colours[] = {7, 2, 1};
    for (size_t k = 0; k < 3; k++) {
        band[k] = (struct dm_series){.colour = colours[k]};
        snprintf(band[k].name, sizeof(band[k].name), "%s", names[k]);
        snprintf(band[k].tag, sizeof(band[k].tag), "%s", names[k]);
    }
}

static bool draw_mixture(struct dm_page *p, const struct dm_rep_sweep *s)
{
    struct dm_series band[3];
    char summary[280];
    name_bands(band);
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < s->n; i++)
            if (isfinite(s->at[i].share[1]) &&
                !dm_series_add(&band[k], s->at[i].eps_b, s->at[i].share[k + 1]))
                p->failed = true;
    }
    snprintf(summary, sizeof(summary),
             "%s: shares of forward passes that give one, two and three tokens, against eps_b; the "
             "numbers are in the table.",
             s->name);
    const struct dm_chart chart = {.title = s->name,
                                   .x = "threshold eps_b",
                                   .y = "share of forward passes",
                                   .summary = summary,
                                   .series = band,
                                   .n = 3};
    const bool any = dm_chart_areas(p, &chart);
    for (size_t k = 0; k < 3; k++)
        free(band[k].point);
    return any;
}

bool dm_rep_mixture(struct dm_page *p, const struct dm_runs *r)
{
    static const char *const head[] = {"#eps_b", "#one", "#two", "#three", "#tokens per forward",
                                       NULL};
    struct dm_rep_sweep *sweep;
    size_t n;
    bool any = false;
    if (!dm_rep_sweeps(r, &sweep, &n))
        p->failed = true;
    dm_page_raw(p, "<p>How many tokens a forward pass gives: a lower threshold trusts more of "
                   "them.</p>\n<div class=\"charts\">\n");
    for (size_t i = 0; i < n; i++)
        any |= draw_mixture(p, &sweep[i]);
    struct dm_series band[3];
    name_bands(band);
    dm_page_raw(p, "</div>\n");
    dm_chart_legend(p, band, 3);
    dm_page_raw(p, "<details><summary>Shares</summary>\n");
    for (size_t i = 0; i < n; i++) {
        dm_rep_table(p, sweep[i].name, head);
        for (size_t k = 0; k < sweep[i].n; k++) {
            const struct dm_rep_setting *at = &sweep[i].at[k];
            dm_page_raw(p, "<tr>");
            dm_page_number(p, at->eps_b, 4);
            for (size_t b = 1; b <= 3; b++)
                dm_page_number(p, at->share[b], 3);
            dm_page_number(p, at->per_forward.value, 4);
            dm_page_raw(p, "</tr>\n");
        }
        dm_rep_table_end(p);
    }
    dm_page_raw(p, "</details>\n");
    dm_rep_sweeps_free(sweep, n);
    return any;
}
