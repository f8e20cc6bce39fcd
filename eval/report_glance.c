/* SPDX-License-Identifier: MIT */
/* report_glance.c - the first figures, and benchmarks. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "eval/report_impl.h"

static void put_models(struct dm_page *p, const struct dm_runs *r)
{
    static const char *const head[] = {"model",  "#parameters", "#heads", "#heads add, %",
                                       "#eps_b", "weights",     NULL};
    bool any = false;
    for (size_t i = 0; i < r->n; i++) {
        const json_t *o = r->run[i].root;
        if (r->run[i].kind != DM_RUN_MODEL)
            continue;
        if (!any)
            dm_rep_table(p, "Models", head);
        any = true;
        const json_t *types = dm_rep_at(o, "dtypes");
        dm_page_raw(p, "<tr>");
        dm_page_element(p, "th scope=\"row\"", "%s", r->run[i].label);
        dm_page_number(p, dm_rep_number(o, "parameters.total"), 9);
        dm_page_number(p, dm_rep_number(o, "config.dynamo.heads"), 3);
        dm_page_number(p, dm_rep_number(o, "overhead_percent"), 3);
        dm_page_number(p, dm_rep_number(o, "calibration.eps_b"), 4);
        dm_page_raw(p, "<td>");
        const char *key;
        json_t *v;
        size_t n = 0;
        json_object_foreach((json_t *)(uintptr_t)types, key, v)
            dm_page_text(p, "%s%s", n++ ? ", " : "", key);
        dm_page_raw(p, "</td>");
        dm_page_raw(p, "</tr>\n");
    }
    if (any)
        dm_rep_table_end(p);
    for (size_t i = 0; i < r->n; i++) {
        const char *text = dm_rep_string(r->run[i].root, "calibration.evidence.summary");
        if (r->run[i].kind == DM_RUN_MODEL && text)
            dm_page_element(p, "p", "%s: %s.", r->run[i].label, text);
    }
}

static bool has_stats(const struct dm_run *run)
{
    return run->kind == DM_RUN_TEXT && json_is_object(json_object_get(run->root, "stats"));
}

static void put_texts(struct dm_page *p, const struct dm_runs *r)
{
    static const char *const head[] = {"text",    "mode", "#eps_b", "#tokens per forward",
                                       "#one",    "#two", "#three", "#tokens/s",
                                       "#tokens", NULL};
    bool any = false;
    for (size_t i = 0; i < r->n; i++) {
        const json_t *o = r->run[i].root;
        const char *mode = dm_rep_string(o, "options.mode");
        if (!has_stats(&r->run[i]))
            continue;
        if (!any)
            dm_rep_table(p, "Generated text", head);
        any = true;
        const double all = dm_rep_number(o, "stats.forwards");
        dm_page_raw(p, "<tr>");
        dm_page_element(p, "th scope=\"row\"", "%s", r->run[i].label);
        dm_page_element(p, "td", "%s", mode ? mode : "");
        dm_page_number(p, mode && !strcmp(mode, "ar") ? NAN : dm_rep_number(o, "options.eps_b"), 4);
        dm_page_number(p, dm_rep_number(o, "stats.tokens_per_forward"), 4);
        dm_page_number(p, dm_rep_number(o, "stats.blocks.1") / all, 2);
        dm_page_number(p, dm_rep_number(o, "stats.blocks.2") / all, 2);
        dm_page_number(p, dm_rep_number(o, "stats.blocks.3") / all, 2);
        dm_page_number(p, dm_rep_number(o, "stats.tokens_per_second"), 4);
        dm_page_number(p, dm_rep_number(o, "stats.tokens"), 9);
        dm_page_raw(p, "</tr>\n");
    }
    if (any)
        dm_rep_table_end(p);
}

bool dm_rep_glance(struct dm_page *p, const struct dm_runs *r)
{
    bool any = false;
    put_models(p, r);
    put_texts(p, r);
    for (size_t i = 0; i < r->n; i++)
        any |= r->run[i].kind == DM_RUN_MODEL || has_stats(&r->run[i]);
    return any;
}

/* ---- Benchmarks ---------------------------------------------------------------------------------
 */

static void put_goals(struct dm_page *p, const json_t *goals)
{
    static const char *const head[] = {"goal", "want", "#limit", "#reached", "met", NULL};
    size_t i;
    json_t *o;
    if (!json_array_size(goals))
        return;
    dm_rep_table(p, "Goals of the project", head);
    json_array_foreach(goals, i, o)
    {
        const json_t *met = json_object_get(o, "met");
        const char *name = dm_rep_string(o, "name"), *want = dm_rep_string(o, "want");
        dm_page_raw(p, "<tr>");
        dm_page_element(p, "th scope=\"row\"", "%s", name ? name : "");
        dm_page_element(p, "td", "%s", want ? want : "");
        dm_page_number(p, dm_rep_number(o, "goal"), 4);
        dm_page_number(p, dm_rep_number(o, "reached"), 4);
        dm_page_element(p, json_is_true(met) ? "td class=\"yes\"" : "td class=\"no\"", "%s",
                        json_is_true(met)    ? "met"
                        : json_is_false(met) ? "missed"
                                             : "not judged");
        dm_page_raw(p, "</tr>\n");
    }
    dm_rep_table_end(p);
}

bool dm_rep_bench(struct dm_page *p, const struct dm_runs *r)
{
    bool any = false;
    const char *key;
    json_t *v;
    for (size_t i = 0; i < r->n; i++) {
        const json_t *o = r->run[i].root;
        if (r->run[i].kind != DM_RUN_BENCH)
            continue;
        any = true;
        dm_page_element(p, "h3", "%s", r->run[i].label);
        dm_page_raw(p, "<p>Figures are minimum, median, maximum of the runs.</p>\n");
        put_goals(p, json_object_get(o, "goals"));
        json_object_foreach((json_t *)(uintptr_t)json_object_get(o, "sections"), key, v)
        {
            dm_page_raw(p, "<details><summary>");
            dm_page_text(p, "%s", key);
            dm_page_raw(p, "</summary>\n");
            dm_rep_value(p, v, NULL);
            dm_page_raw(p, "</details>\n");
        }
    }
    return any;
}
