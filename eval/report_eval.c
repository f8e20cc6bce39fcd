/* SPDX-License-Identifier: MIT */
/* report_eval.c - the sections of eval: perplexity, hits, reliability, ablation, tasks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report_impl.h"

enum { ORDERS = 3, MAX_CURVES = 16 };

static double item(const json_t *o, const char *key, size_t i)
{
    const json_t *v = json_array_get(json_object_get(o, key), i);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* {"value", "low", "high"} as a cell; where it is narrow, the interval is below the value. */
static void put_measure(struct dm_page *p, const json_t *o, const char *key)
{
    char path[64], text[3][40];
    static const char *const part[] = {"value", "low", "high"};
    bool interval = true;
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s.%s", key, part[i]);
        const double x = dm_rep_number(o, path);
        dm_page_figure(text[i], x, 3);
        interval = interval && (!i || isfinite(x));
    }
    dm_page_raw(p, "<td class=\"n of\">");
    dm_page_text(p, "%s ", text[0]);
    if (interval)
        dm_page_element(p, "span", "[%s, %s]", text[1], text[2]);
    dm_page_raw(p, "</td>");
}

/* ---- Perplexity ---------------------------------------------------------------------------------
 */

static void put_perplexities(struct dm_page *p, const json_t *o)
{
    static const char *const head[] = {"", "#1", "#2", "#3", NULL};
    static const struct {
        const char *key, *name;
    } rows[] = {{"ppl", "head n alone"},
                {"ppl_joint", "heads 1 to n together"},
                {"ppl_joint_masked", "the same with the co-occurrence mask"},
                {"outside", "share of targets outside head n's candidates"},
                {"outside_joint", "share of blocks with such a target"},
                {"zero", "share of blocks to which the mask gives 0"}};
    dm_rep_table(p, "Perplexity on held-out text, for n tokens", head);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!json_is_array(json_object_get(o, rows[i].key)))
            continue;
        dm_page_raw(p, "<tr>");
        dm_page_element(p, "th scope=\"row\"", "%s", rows[i].name);
        for (size_t n = 0; n < ORDERS; n++)
            dm_page_number(p, item(o, rows[i].key, n), 4);
        dm_page_raw(p, "</tr>\n");
    }
    dm_rep_table_end(p);
}

static void draw_dynamic(struct dm_page *p, const json_t *dynamic)
{
    struct dm_series s[2] = {{.name = "without the mask", .tag = "no mask", .colour = 1},
                             {.name = "with the mask", .tag = "mask", .colour = 2, .dash = 1}};
    size_t i;
    json_t *o;
    json_array_foreach(dynamic, i, o)
    {
        struct dm_point *point = dm_series_add(&s[json_is_true(json_object_get(o, "masked"))],
                                               dm_rep_number(o, "eps_b"), dm_rep_number(o, "ppl"));
        if (point)
            point->mark = DM_MARK_FULL;
        else
            p->failed = true;
    }
    const struct dm_chart chart = {
        .title = "Perplexity of the block that the back-off rule chooses (PPL_d)",
        .x = "threshold eps_b",
        .y = "perplexity per token",
        .summary = "PPL_d against eps_b; the numbers are in the table.",
        .log_y = true,
        .series = s,
        .n = 2};
    dm_page_raw(p, "<div class=\"charts two\">\n");
    dm_chart_draw(p, &chart);
    dm_page_raw(p, "</div>\n");
    free(s[0].point);
    free(s[1].point);
    dm_page_raw(p, "<details><summary>PPL_d in numbers</summary>\n");
    dm_rep_value(p, dynamic, NULL);
    dm_page_raw(p, "</details>\n");
}

static void put_perplexity(struct dm_page *p, const json_t *o)
{
    put_perplexities(p, o);
    if (json_array_size(json_object_get(o, "dynamic")))
        draw_dynamic(p, json_object_get(o, "dynamic"));
}

static void put_accuracy(struct dm_page *p, const json_t *o)
{
    dm_rep_value(p, json_object_get(o, "heads"),
                 "How often a head's first and first five hold the "
                 "target");
    dm_rep_value(p, json_object_get(o, "blocks"),
                 "How often the likeliest block is the target: of the heads, their joint, the "
                 "masked joint");
}

/* ---- Reliability --------------------------------------------------------------------------------
 */

static void draw_reliability(struct dm_page *p, const json_t *curve)
{
    struct dm_series s[2] = {{.name = "measured", .colour = 1},
                             {.name = "perfect", .colour = 7, .dash = 1}};
    char title[160], ece[40];
    const char *name = dm_rep_string(curve, "name");
    size_t i;
    json_t *bin;
    json_array_foreach(json_object_get(curve, "bins"), i, bin)
    {
        struct dm_point *point = dm_series_add(&s[0], dm_rep_number(bin, "confidence"),
                                               dm_rep_number(bin, "correct"));
        if (!point)
            p->failed = true;
        else
            point->mark = DM_MARK_FULL;
        if (point)
            snprintf(point->note, sizeof(point->note), "%.0f positions", dm_rep_number(bin, "n"));
    }
    if (!dm_series_add(&s[1], 0, 0) || !dm_series_add(&s[1], 1, 1))
        p->failed = true;
    dm_page_figure(ece, dm_rep_number(curve, "ece"), 3);
    snprintf(title, sizeof(title), "%.80s: calibration error %s over %.0f positions",
             name ? name : "", ece, dm_rep_number(curve, "positions"));
    const struct dm_chart chart = {.title = title,
                                   .x = "confidence",
                                   .y = "share that is right",
                                   .summary = title,
                                   .series = s,
                                   .n = 2};
    dm_chart_draw(p, &chart);
    free(s[0].point);
    free(s[1].point);
}

static void put_reliability(struct dm_page *p, const json_t *o)
{
    static const char *const head[] = {"confidence of", "#positions", "#mean confidence",
                                       "#right",        "#error",     NULL};
    const json_t *curves = json_object_get(o, "curves");
    size_t i;
    json_t *c;
    dm_page_raw(p, "<p>On the dashed line a confidence is as often right as it says.</p>\n"
                   "<div class=\"charts\">\n");
    json_array_foreach(curves, i, c) if (i < MAX_CURVES && dm_rep_number(c, "positions") > 0)
        draw_reliability(p, c);
    dm_page_raw(p, "</div>\n");
    dm_rep_table(p, "Reliability", head);
    json_array_foreach(curves, i, c)
    {
        const char *name = dm_rep_string(c, "name");
        dm_page_raw(p, "<tr>");
        dm_page_element(p, "th scope=\"row\"", "%s", name ? name : "");
        dm_page_number(p, dm_rep_number(c, "positions"), 9);
        dm_page_number(p, dm_rep_number(c, "confidence"), 4);
        dm_page_number(p, dm_rep_number(c, "correct"), 4);
        dm_page_number(p, dm_rep_number(c, "ece"), 3);
        dm_page_raw(p, "</tr>\n");
    }
    dm_rep_table_end(p);
}

/* ---- Quality and ablation -----------------------------------------------------------------------
 */

static const struct {
    const char *key, *title;
} measures[] = {{"tokens_per_forward", "#tokens per forward"},
                {"wall_clock", "#wall clock"},
                {"win_rate", "#win rate"},
                {"judge", "#judge, log p"},
                {"divergence", "#divergence"},
                {"repeats_3", "#repeated trigrams"},
                {"repeats_4", "#repeated 4-grams"},
                {"distinct_2", "#distinct pairs"}};
enum { MEASURES = sizeof(measures) / sizeof(measures[0]) };

static void put_setting(struct dm_page *p, const json_t *point, bool paper)
{
    const char *name = dm_rep_string(point, "name");
    if (!json_is_object(point))
        return;
    dm_page_raw(p, "<tr>");
    dm_page_element(p, "th scope=\"row\"", "%s", name ? name : "?");
    const bool all_won = dm_rep_number(point, "wins") > 0 && dm_rep_number(point, "losses") == 0 &&
                         dm_rep_number(point, "ties") == 0;
    for (size_t m = 0; m < MEASURES; m++)
        if (all_won && !strcmp(measures[m].key, "win_rate"))
            dm_page_element(p, "td class=\"n\"", "no loss");
        else
            put_measure(p, point, measures[m].key);
    if (paper) {
        dm_page_number(p, dm_rep_number(point, "paper.speedup"), 3);
        dm_page_number(p, dm_rep_number(point, "paper.win_rate"), 3);
    }
    dm_page_raw(p, "</tr>\n");
}

static void put_settings(struct dm_page *p, const json_t *o, const char *caption, bool paper)
{
    const char *head[MEASURES + 4] = {"setting"};
    size_t n = 1, i;
    json_t *point;
    for (size_t m = 0; m < MEASURES; m++)
        head[n++] = measures[m].title;
    if (paper) {
        head[n++] = "#paper: speed-up";
        head[n++] = "#paper: win rate";
    }
    head[n] = NULL;
    dm_rep_table(p, caption, head);
    put_setting(p, json_object_get(o, "base"), paper);
    put_setting(p, json_object_get(o, "control"), paper);
    json_array_foreach(json_object_get(o, "points"), i, point) put_setting(p, point, paper);
    dm_rep_table_end(p);
}

static void put_same_quality(struct dm_page *p, const json_t *o)
{
    static const char *const head[] = {"as", "#speed-up at the base's quality", NULL};
    static const char *const keys[] = {"tokens_per_forward", "wall_clock"};
    if (!json_is_object(o))
        return;
    dm_rep_table(p, "Where the judge is indifferent", head);
    for (size_t i = 0; i < 2; i++) {
        dm_page_raw(p, "<tr>");
        dm_page_element(p, "th scope=\"row\"", "%s", i ? "wall clock" : "tokens per forward pass");
        put_measure(p, json_object_get(o, keys[i]), "speedup");
        dm_page_raw(p, "</tr>\n");
    }
    dm_rep_table_end(p);
}

static void put_quality(struct dm_page *p, const json_t *o)
{
    put_same_quality(p, json_object_get(o, "same_quality"));
    dm_page_raw(p, "<details><summary>All settings</summary>\n");
    put_settings(p, o, NULL, false);
    dm_page_raw(p, "</details>\n");
}

static void put_ablation(struct dm_page *p, const json_t *o)
{
    put_settings(p, o, "Ablation, with the paper's figures where it has them", true);
}

static void put_any(struct dm_page *p, const json_t *o)
{
    dm_rep_value(p, o, NULL);
}

static const struct {
    const char *key, *title;
    void (*put)(struct dm_page *p, const json_t *o);
} parts[] = {{"perplexity", "Perplexity", put_perplexity},
             {"accuracy", "Hits", put_accuracy},
             {"reliability", "Reliability", put_reliability},
             {"quality", "Quality over the thresholds", put_quality},
             {"ablation", "Ablation", put_ablation},
             {"diversity", "Diversity of texts", put_any},
             {"tasks", "Zero-shot tasks", put_any}};

bool dm_rep_eval(struct dm_page *p, const struct dm_runs *r)
{
    bool any = false;
    for (size_t i = 0; i < r->n; i++) {
        const struct dm_run *run = &r->run[i];
        if (run->kind != DM_RUN_EVAL)
            continue;
        any = true;
        for (size_t k = 0; k < sizeof(parts) / sizeof(parts[0]); k++) {
            const json_t *o = json_object_get(run->root, parts[k].key);
            if (!json_object_size(o) && !json_array_size(o))
                continue;
            dm_page_element(p, "h3", "%s (%s)", parts[k].title, run->label);
            parts[k].put(p, o);
        }
    }
    return any;
}
