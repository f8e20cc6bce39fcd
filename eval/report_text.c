/* SPDX-License-Identifier: MIT */
/* report_text.c - generated text with the tokens of each forward pass together, and the joint of a
 * step on its way. */
#include <math.h>
#include <string.h>

#include "eval/report_impl.h"

enum { MAX_BLOCKS = 4000, GRID = 10 };

/* ---- Text ---------------------------------------------------------------------------------------
 */

static double block_size(const json_t *b)
{
    const double n = dm_rep_number(b, "n");
    return n >= 1 && n <= 9 ? n : 1;
}

/* What a step decided, in words. */
static void put_decision(struct dm_page *p, const json_t *b, const char *between)
{
    char q[40], max[40], counts[40];
    size_t i;
    json_t *o;
    dm_page_figure(q, dm_rep_number(b, "q"), 3);
    dm_page_text(p, "pass %.0f: %.0f token%s, q %s", dm_rep_number(b, "step"), block_size(b),
                 block_size(b) > 1 ? "s" : "", q);
    json_array_foreach(json_object_get(b, "orders"), i, o)
    {
        const double m = dm_rep_number(o, "max_j"), c = dm_rep_number(o, "counts");
        dm_page_figure(max, m, 3);
        dm_page_figure(counts, c, 3);
        const bool fitted = isfinite(c) && c != m; // older files have no "counts"
        dm_page_text(p, "%sorder %.0f: %s%s%s%s, %s", between, dm_rep_number(o, "n"),
                     isfinite(m) ? "max J " : "given up early", isfinite(m) ? max : "",
                     fitted ? " counts " : "", fitted ? counts : "",
                     json_is_true(json_object_get(o, "passed")) ? "taken" : "not taken");
    }
}

static void put_pieces(struct dm_page *p, const json_t *b)
{
    size_t i;
    json_t *t;
    json_array_foreach(json_object_get(b, "text"), i, t) if (json_is_string(t))
        dm_page_text(p, "%s", json_string_value(t));
}

static void put_blocks(struct dm_page *p, const json_t *blocks)
{
    static const char *const open[] = {"<span class=\"b b1\" title=\"",
                                       "<span class=\"b b2\" title=\"",
                                       "<span class=\"b b3\" title=\""};
    size_t i;
    json_t *b;
    json_array_foreach(blocks, i, b)
    {
        if (i == MAX_BLOCKS)
            break;
        const double n = block_size(b);
        dm_page_raw(p, open[n < 2 ? 0 : n < 3 ? 1 : 2]);
        put_decision(p, b, "\n");
        dm_page_raw(p, "\">");
        put_pieces(p, b);
        dm_page_raw(p, "</span>");
    }
}

static void put_steps(struct dm_page *p, const json_t *blocks)
{
    static const char *const head[] = {"#pass", "#tokens", "text", "decision", NULL};
    size_t i;
    json_t *b;
    dm_page_raw(p, "<details><summary>Every pass</summary>\n");
    dm_rep_table(p, NULL, head);
    json_array_foreach(blocks, i, b)
    {
        if (i == MAX_BLOCKS)
            break;
        dm_page_raw(p, "<tr>");
        dm_page_number(p, dm_rep_number(b, "step"), 6);
        dm_page_number(p, block_size(b), 1);
        dm_page_raw(p, "<td class=\"tok wide\">");
        put_pieces(p, b);
        dm_page_raw(p, "</td><td>");
        put_decision(p, b, "; ");
        dm_page_raw(p, "</td></tr>\n");
    }
    dm_rep_table_end(p);
    dm_page_raw(p, "</details>\n");
}

static void put_figures(struct dm_page *p, const json_t *root)
{
    char per[40], rate[40], eps[40];
    const char *mode = dm_rep_string(root, "options.mode");
    dm_page_figure(per, dm_rep_number(root, "stats.tokens_per_forward"), 4);
    dm_page_figure(rate, dm_rep_number(root, "stats.tokens_per_second"), 4);
    dm_page_figure(eps, dm_rep_number(root, "options.eps_b"), 4);
    if (mode)
        dm_page_element(
            p, "p class=\"soft\"", "mode %s%s%s: %s tokens per forward pass, %s tokens/s", mode,
            strcmp(mode, "ar") ? ", eps_b " : "", strcmp(mode, "ar") ? eps : "", per, rate);
}

static void put_run(struct dm_page *p, const struct dm_run *run)
{
    const json_t *blocks = run->kind == DM_RUN_TRACE ? run->root
                                                     : json_object_get(run->root, "blocks");
    const char *prompt = dm_rep_string(run->root, "prompt"),
               *text = dm_rep_string(run->root, "text");
    dm_page_raw(p, "<div>");
    dm_page_element(p, "h3", "%s", run->label);
    put_figures(p, run->root);
    dm_page_raw(p, "<div class=\"text\">");
    if (prompt)
        dm_page_element(p, "span class=\"prompt\"", "%s", prompt);
    if (json_array_size(blocks))
        put_blocks(p, blocks);
    else
        dm_page_text(p, "%s", text ? text : "");
    dm_page_raw(p, "</div>\n");
    if (json_array_size(blocks))
        put_steps(p, blocks);
    dm_page_raw(p, "</div>\n");
}

static const char *prompt_of(const struct dm_run *run)
{
    const char *prompt = dm_rep_string(run->root, "prompt");
    return prompt ? prompt : "";
}

static bool is_text(const struct dm_run *run)
{
    return run->kind == DM_RUN_TEXT || run->kind == DM_RUN_TRACE;
}

/* Runs with the same prompt stand beside each other. */
bool dm_rep_text(struct dm_page *p, const struct dm_runs *r)
{
    bool any = false;
    dm_page_raw(
        p, "<p>The tokens of each forward pass stand together: <span class=\"b b1\">one "
           "token</span> on grey, <span class=\"b b2\">two tokens</span> dotted, <span class=\"b "
           "b3\">three tokens</span> underlined. Rest the pointer on a block for its probability "
           "q and the orders that were tried; the tables have the same.</p>\n");
    for (size_t i = 0; i < r->n; i++) {
        bool first = is_text(&r->run[i]);
        for (size_t k = 0; k < i && first; k++)
            first = !is_text(&r->run[k]) || strcmp(prompt_of(&r->run[k]), prompt_of(&r->run[i]));
        if (!first)
            continue;
        any = true;
        dm_page_raw(p, "<div class=\"texts\">\n");
        for (size_t k = i; k < r->n; k++)
            if (is_text(&r->run[k]) && !strcmp(prompt_of(&r->run[k]), prompt_of(&r->run[i])))
                put_run(p, &r->run[k]);
        dm_page_raw(p, "</div>\n");
    }
    return any;
}

/* ---- The joint ----------------------------------------------------------------------------------
 */

static const struct {
    const char *name, *title;
} stages[] = {{"product", "Product of the heads"},
              {"mask", "After the co-occurrence mask"},
              {"blur", "As the adaptive threshold sees it (blurred, 8 bits)"},
              {"threshold", "After the threshold"},
              {"penalty", "After the repetition penalty: what is sampled"}};
enum { N_STAGES = sizeof(stages) / sizeof(stages[0]) };

/* A token as a heading: blanks and line ends are made visible. */
static void put_token(struct dm_page *p, const char *tag, const json_t *token)
{
    char shown[64];
    const char *text = dm_rep_string(token, "text");
    size_t n = 0;
    for (const char *c = text ? text : ""; *c && n + 4 < sizeof(shown); c++) {
        const char *visible = *c == ' ' ? "\xc2\xb7" : *c == '\n' ? "\xe2\x86\xb5" : NULL;
        if (visible)
            n += (size_t)snprintf(shown + n, sizeof(shown) - n, "%s", visible);
        else
            shown[n++] = *c;
    }
    shown[n] = '\0';
    dm_page_element(p, tag, "%s", n ? shown : "?");
}

static double cell(const json_t *J, size_t i, size_t m)
{
    const json_t *v = json_array_get(json_array_get(J, i), m);
    const double x = json_is_number(v) ? json_number_value(v) : NAN;
    return x >= 0 && x <= 1 ? x : NAN;
}

/* Share in percent with two digits. */
static void put_cell(struct dm_page *p, double x, double top)
{
    char open[60];
    const double v = top > 0 && x > 0 ? sqrt(x / top) : 0;
    if (!(x > 0)) {
        dm_page_raw(p,
                    isfinite(x) ? "<td class=\"z\">0</td>" : "<td class=\"z\">\xe2\x80\x93</td>");
        return;
    }
    snprintf(open, sizeof(open), "<td class=\"%s%s\" style=\"--v:%.2f\">", v > 0.745 ? "h" : "",
             x == top ? " best" : "", v);
    dm_page_raw(p, open);
    if (x < 0.0005)
        dm_page_text(p, "<.1");
    else
        dm_page_text(p, "%.*f", x < 0.1 ? 1 : 0, 100 * x);
    dm_page_raw(p, "</td>");
}

static void put_grid(struct dm_page *p, const json_t *joint, const json_t *stage, const char *title)
{
    const json_t *J = json_object_get(stage, "J"), *rows = json_object_get(joint, "rows"),
                 *columns = json_object_get(joint, "columns");
    double top = 0;
    char mass[40];
    for (size_t i = 0; i < GRID * GRID; i++)
        top = fmax(top, cell(J, i / GRID, i % GRID));
    dm_page_figure(mass, 100 * dm_rep_number(stage, "mass"), 3);
    dm_page_raw(p, "<div><div class=\"scroll\" tabindex=\"0\"><table class=\"heat\">");
    dm_page_element(p, "caption", "%s. %.0f cells are not 0; those shown have %s %% of the sum.",
                    title, dm_rep_number(stage, "cells"), mass);
    dm_page_raw(p, "<thead><tr><td></td>");
    for (size_t m = 0; m < GRID && m < json_array_size(columns); m++)
        put_token(p, "th scope=\"col\"", json_array_get(columns, m));
    dm_page_raw(p, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < GRID && i < json_array_size(rows); i++) {
        dm_page_raw(p, "<tr>");
        put_token(p, "th scope=\"row\"", json_array_get(rows, i));
        for (size_t m = 0; m < GRID && m < json_array_size(columns); m++)
            put_cell(p, cell(J, i, m), top);
        dm_page_raw(p, "</tr>\n");
    }
    dm_page_raw(p, "</tbody></table></div></div>\n");
}

/* The text that the step continues. */
static void put_context(struct dm_page *p, const json_t *root, double step)
{
    const char *prompt = dm_rep_string(root, "prompt");
    size_t i;
    json_t *b;
    dm_page_raw(p, "<div class=\"text\">");
    dm_page_element(p, "span class=\"prompt\"", "%s", prompt ? prompt : "");
    json_array_foreach(json_object_get(root, "blocks"), i, b)
    {
        if (!(dm_rep_number(b, "step") < step))
            break;
        put_pieces(p, b);
    }
    dm_page_raw(p, " <b>\xe2\x80\xa6</b></div>\n");
}

static void put_joint(struct dm_page *p, const struct dm_run *run)
{
    const json_t *joint = json_object_get(run->root, "joint"), *s;
    char max[40], level[40];
    size_t i;
    json_t *each;
    dm_page_figure(max, dm_rep_number(joint, "counts"), 3);
    dm_page_figure(level, dm_rep_number(joint, "level"), 3);
    dm_page_element(p, "h3", "%s, pass %.0f", run->label, dm_rep_number(joint, "step"));
    put_context(p, run->root, dm_rep_number(joint, "step"));
    dm_page_element(p, "p", "The likeliest pair %s: it counts %s, and must exceed %s.",
                    json_is_true(json_object_get(joint, "passed")) ? "passes" : "does not pass",
                    max, level);
    dm_page_raw(p, "<div class=\"heats\">\n");
    for (size_t k = 0; k < N_STAGES; k++) {
        s = NULL;
        json_array_foreach(json_object_get(joint, "stages"), i, each)
        {
            const char *name = dm_rep_string(each, "name");
            if (name && !strcmp(name, stages[k].name))
                s = each;
        }
        if (s)
            put_grid(p, joint, s, stages[k].title);
    }
    dm_page_raw(p, "</div>\n");
}

bool dm_rep_joint(struct dm_page *p, const struct dm_runs *r)
{
    bool any = false;
    dm_page_raw(p, "<p>How likely two tokens are together, in percent, on the way through one "
                   "step: rows are the likeliest tokens of head 1, columns those of head 2; a dot "
                   "in a token is a blank. Darker is more, relative to the largest of each "
                   "grid, which is framed.</p>\n");
    for (size_t i = 0; i < r->n; i++)
        if (r->run[i].kind == DM_RUN_TEXT &&
            json_is_object(json_object_get(r->run[i].root, "joint"))) {
            put_joint(p, &r->run[i]);
            any = true;
        }
    return any;
}
