/* SPDX-License-Identifier: MIT */
#include "eval/report.h"

#include <nettle/base64.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report_assets.h"
#include "eval/report_impl.h"
#include "src/base/hash.h"
#include "src/base/json.h"

/* ---- Settings and provenance ------------------------------------------------------------------
 */

/* What other sections show. */
static bool is_bulk(const char *key)
{
    static const char *const bulk[] = {"blocks",       "joint",      "ids",         "text",
                                       "points",       "sections",   "goals",       "base",
                                       "control",      "perplexity", "accuracy",    "tasks",
                                       "same_quality", "diversity",  "reliability", "validation"};
    for (size_t i = 0; i < sizeof(bulk) / sizeof(bulk[0]); i++)
        if (!strcmp(key, bulk[i]))
            return true;
    return false;
}

static json_t *without_bulk(const json_t *o)
{
    json_t *out = json_object(), *v;
    const char *key;
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        if (is_bulk(key))
            continue;
        if (json_is_object(v))
            json_object_set_new(out, key, without_bulk(v));
        else
            json_object_set(out, key, v);
    }
    return out;
}

/* The first of the paths that is there. */
static const json_t *first_of(const json_t *o, const char *const *paths)
{
    const json_t *v = NULL;
    for (size_t i = 0; paths[i] && !v; i++)
        v = dm_rep_at(o, paths[i]);
    return v;
}

static void put_origin(struct dm_page *p, const struct dm_run *run)
{
    static const char *const program[] = {"provenance.program",  "made_by", "evidence.made_by",
                                          "certificate.program", "version", NULL};
    static const char *const seed[] = {"provenance.options.seed", "options.seed",
                                       "evidence.seed",           "quality.seed",
                                       "ablation.seed",           NULL};
    static const char *const hash[] = {"hash", "evidence.model.hash", NULL};
    const char *made_by = json_string_value(first_of(run->root, program)),
               *hex = json_string_value(first_of(run->root, hash));
    const json_t *number = first_of(run->root, seed);
    dm_page_raw(p, "<tr>");
    dm_page_element(p, "th scope=\"row\"", "%s", run->label);
    dm_page_element(p, "td", "%s", dm_run_kind_names[run->kind]);
    dm_page_element(p, "td", "%s", made_by ? made_by : "");
    if (json_is_integer(number))
        dm_page_element(p, "td class=\"n\"", "%lld", (long long)json_integer_value(number));
    else
        dm_page_raw(p, "<td></td>");
    dm_page_element(p, "td class=\"tok\"", "%.12s", hex ? hex : "");
    dm_page_raw(p, "<td class=\"tok wide\">");
    dm_rep_line(p, dm_rep_at(run->root, "provenance.command"));
    dm_page_raw(p, "</td></tr>\n");
}

bool dm_rep_settings(struct dm_page *p, const struct dm_runs *r)
{
    static const char *const head[] = {"run",     "kind", "made by", "#seed", "model's weights",
                                       "command", NULL};
    const char *file;
    size_t i;
    json_t *v;
    dm_rep_table(p, "What this page was made of", head);
    for (i = 0; i < r->n; i++)
        put_origin(p, &r->run[i]);
    dm_rep_table_end(p);
    for (i = 0; i < r->n; i++) {
        if (!json_is_object(r->run[i].root))
            continue;
        json_t *rest = without_bulk(r->run[i].root);
        dm_page_raw(p, "<details><summary>");
        dm_page_text(p, "All of %s", r->run[i].path);
        dm_page_raw(p, "</summary>\n");
        dm_rep_value(p, rest, NULL);
        dm_page_raw(p, "</details>\n");
        json_decref(rest);
    }
    if (!json_array_size(r->passed_over))
        return true;
    dm_page_raw(p, "<details><summary>Files passed over</summary><p>");
    json_array_foreach(r->passed_over, i, v) if ((file = json_string_value(v)))
        dm_page_text(p, "%s%s", i ? ", " : "", file);
    dm_page_raw(p, "</p></details>\n");
    return true;
}

/* ---- The page ----------------------------------------------------------------------------------
 */

static const struct {
    const char *id, *title;
    bool (*write)(struct dm_page *p, const struct dm_runs *r);
    const char *made_by; /* what gives it its data; NULL: always there */
} sections[] = {
    {"glance", "At a glance", dm_rep_glance, "any model file, or dynamo generate --json"},
    {"training", "Training", dm_rep_training,
     "dynamo train BASE.h5 --data SHARD.h5 --val HELDOUT.h5 -o HEADS.h5, which logs to "
     "HEADS.log.jsonl"},
    {"quality", "Speed against quality", dm_rep_quality,
     "dynamo calibrate HEADS.h5 --cooc COOC.h5 --data HELDOUT.h5 --json > calibrate.json"},
    {"mixture", "Tokens per forward pass", dm_rep_mixture,
     "dynamo calibrate HEADS.h5 --cooc COOC.h5 --data HELDOUT.h5 --json > calibrate.json"},
    {"joint", "The joint distribution", dm_rep_joint,
     "dynamo generate HEADS.h5 --cooc COOC.h5 -p TEXT --json --joint 1 > dynamo.json"},
    {"text", "Text", dm_rep_text,
     "dynamo generate HEADS.h5 -p TEXT --json > dynamo.json, and the same with --mode ar"},
    {"eval", "Evaluation", dm_rep_eval, "dynamo eval HEADS.h5 --task KIND=FILE --json > eval.json"},
    {"bench", "Benchmark", dm_rep_bench, "dynamo bench HEADS.h5 --json > bench.json"},
    {"settings", "Settings and provenance", dm_rep_settings, NULL},
};
enum { N_SECTIONS = sizeof(sections) / sizeof(sections[0]) };

/* The only script that may run, whatever else is in the page. */
static void put_policy(struct dm_page *p)
{
    char hex[DM_HASH_LEN + 1], text[BASE64_ENCODE_RAW_LENGTH(32) + 1];
    uint8_t digest[32];
    dm_sha256(report_js, sizeof(report_js) - 1, hex);
    for (size_t i = 0; i < sizeof(digest); i++) {
        const char byte[] = {hex[2 * i], hex[2 * i + 1], '\0'};
        digest[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    base64_encode_raw(text, sizeof(digest), digest);
    text[sizeof(text) - 1] = '\0';
    dm_page_raw(p, "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                   "style-src 'unsafe-inline'; script-src 'sha256-");
    dm_page_raw(p, text);
    dm_page_raw(p, "'\">\n");
}

static void put_head(struct dm_page *p, const char *title)
{
    dm_page_raw(p, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    put_policy(p);
    dm_page_raw(p, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    dm_page_element(p, "title", "%s", title);
    dm_page_raw(p, "\n<style>\n");
    dm_page_raw(p, report_css);
    dm_page_raw(p, "</style>\n</head>\n<body>\n<header>\n");
    dm_page_element(p, "h1", "%s", title);
    dm_page_raw(p, "<button type=\"button\" id=\"theme\" hidden>Theme</button>\n");
}

static void put_contents(struct dm_page *p, const struct dm_runs *r, const json_t *made)
{
    size_t i;
    json_t *v;
    dm_page_element(p, "p", "%zu run%s, dynamo %s", r->n, r->n == 1 ? "" : "s", DM_VERSION);
    dm_page_raw(p, "<nav aria-label=\"Sections\"><ul>\n");
    json_array_foreach(made, i, v)
    {
        dm_page_raw(p, "<li><a href=\"#");
        dm_page_text(p, "%s", dm_rep_string(v, "id"));
        dm_page_raw(p, "\">");
        dm_page_text(p, "%s", dm_rep_string(v, "title"));
        dm_page_raw(p, "</a></li>\n");
    }
    dm_page_raw(p, "</ul></nav>\n</header>\n<main>\n");
}

static void put_absent(struct dm_page *p, const json_t *absent)
{
    size_t i;
    json_t *v;
    if (!json_array_size(absent))
        return;
    dm_page_raw(p, "<section id=\"absent\"><h2>What is not here</h2>\n<p>These files give the "
                   "rest; add them to the command's arguments.</p>\n<ul>\n");
    json_array_foreach(absent, i, v)
    {
        dm_page_raw(p, "<li>");
        dm_page_text(p, "%s: ", dm_rep_string(v, "title"));
        dm_page_element(p, "code", "%s", dm_rep_string(v, "made_by"));
        dm_page_raw(p, "</li>\n");
    }
    dm_page_raw(p, "</ul></section>\n");
}

/* A section's body, or NULL when it has no data or memory is short (*st). */
static char *body_of(size_t i, const struct dm_runs *r, enum dm_status *st, struct dm_err *e)
{
    struct dm_page part;
    char *text;
    size_t n;
    dm_page_begin(&part);
    const bool made = sections[i].write(&part, r);
    *st = dm_page_end(&part, &text, &n, e);
    if (made)
        return text;
    free(text);
    return NULL;
}

static void put_section(struct dm_page *p, size_t i, const char *body)
{
    dm_page_raw(p, "<section id=\"");
    dm_page_raw(p, sections[i].id);
    dm_page_raw(p, "\">");
    dm_page_element(p, "h2", "%s", sections[i].title);
    dm_page_raw(p, "\n");
    dm_page_raw(p, body);
    dm_page_raw(p, "</section>\n");
}

enum dm_status dm_report_page(const struct dm_runs *r, const char *title, char **html, size_t *n,
                              json_t **list, struct dm_err *e)
{
    struct dm_page p;
    char *body[N_SECTIONS] = {NULL};
    enum dm_status st = DM_OK, end;
    json_t *made = json_array(), *absent = json_array();
    for (size_t i = 0; i < N_SECTIONS && !st; i++) {
        body[i] = body_of(i, r, &st, e);
        const char *id = sections[i].id, *name = sections[i].title;
        if (!st)
            st = body[i]
                     ? dm_json_add(made, NULL, json_pack("{s:s, s:s}", "id", id, "title", name), e)
                     : dm_json_add(absent, NULL,
                                   json_pack("{s:s, s:s, s:s}", "id", id, "title", name, "made_by",
                                             sections[i].made_by),
                                   e);
    }
    dm_page_begin(&p);
    put_head(&p, title);
    put_contents(&p, r, made);
    for (size_t i = 0; i < N_SECTIONS; i++) {
        if (body[i])
            put_section(&p, i, body[i]);
        free(body[i]);
    }
    put_absent(&p, absent);
    dm_page_raw(&p, "</main>\n<footer><p>Made by <code>dynamo report</code>; it loads nothing from "
                    "anywhere.</p></footer>\n<script>");
    dm_page_raw(&p, report_js);
    dm_page_raw(&p, "</script>\n</body>\n</html>\n");
    end = dm_page_end(&p, html, n, st ? NULL : e);
    *list = json_pack("{s:o, s:o}", "made", made, "absent", absent);
    if (!st && !end && *list)
        return DM_OK;
    free(*html);
    *html = NULL;
    json_decref(*list);
    *list = NULL;
    return st ? st : end ? end : dm_fail(e, DM_ENOMEM, "out of memory for the page");
}
