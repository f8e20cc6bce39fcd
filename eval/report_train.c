/* SPDX-License-Identifier: MIT */
/* report_train.c - loss and perplexity of the heads over the steps. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report_impl.h"
#include "src/base/arena.h"

enum { HEADS = 16, MAX_POINTS = 240, MAX_SERIES = 64 };

/* One curve per run and head: what each row has at `path` with %zu for the head. */
struct curves {
    struct dm_series *series;
    size_t n;
    size_t bucket; /* steps that a point is the mean of, at most */
};

static void release(struct curves *c)
{
    for (size_t i = 0; i < c->n; i++)
        free(c->series[i].point);
    free(c->series);
}

/* Adds the numbers at `path` of the rows, the mean of each `width` neighbours. */
static bool add_curve(struct curves *c, const json_t *rows, const char *path, enum dm_mark mark)
{
    struct dm_series *s = &c->series[c->n];
    size_t count = 0, i, width, in = 0;
    double x = 0, y = 0;
    json_t *row;
    json_array_foreach(rows, i, row) count += isfinite(dm_rep_number(row, path));
    if (!count)
        return true;
    width = (count + MAX_POINTS - 1) / MAX_POINTS;
    c->bucket = width > c->bucket ? width : c->bucket;
    c->n++;
    json_array_foreach(rows, i, row)
    {
        const double value = dm_rep_number(row, path), step = dm_rep_number(row, "step");
        if (!isfinite(value) || !isfinite(step))
            continue;
        x = step;
        y += value;
        if (++in < width)
            continue;
        struct dm_point *p = dm_series_add(s, x, y / (double)in);
        if (!p)
            return false;
        p->mark = mark;
        y = 0;
        in = 0;
    }
    return true;
}

static bool add_run(struct curves *c, const struct dm_run *run, size_t which, const char *form,
                    const char *tag, size_t first, enum dm_mark mark)
{
    for (size_t h = first; h <= HEADS && c->n < MAX_SERIES; h++) {
        char path[64];
        struct dm_series *s = &c->series[c->n];
        snprintf(path, sizeof(path), form, h);
        snprintf(s->tag, sizeof(s->tag), tag, h);
        snprintf(s->name, sizeof(s->name), "%.80s, %s %zu", run->label,
                 first == 1 ? "head" : "heads 1 to", h);
        s->colour = (int)((h - 1 + (first == 1 ? 0 : 3)) % 8) + 1;
        s->dash = (int)(which % 4);
        if (!add_curve(c, run->root, path, mark))
            return false;
    }
    return true;
}

/* form and tag have one %zu, for the head. */
static bool collect(struct curves *c, const struct dm_runs *r, const char *form, const char *tag,
                    size_t first, enum dm_mark mark)
{
    size_t which = 0;
    *c = (struct curves){.series = dm_alloc(MAX_SERIES + 1, sizeof(*c->series))};
    if (!c->series)
        return false;
    for (size_t i = 0; i < r->n; i++)
        if (r->run[i].kind == DM_RUN_LOG &&
            !add_run(c, &r->run[i], which++, form, tag, first, mark))
            return false;
    return true;
}

static void put_summary(char *text, size_t n, const char *what, const struct curves *c)
{
    size_t used = 0;
    used += (size_t)snprintf(text, n, "%s over steps.", what);
    for (size_t i = 0; i < c->n && used < n; i++) {
        const struct dm_series *s = &c->series[i];
        if (s->n)
            used += (size_t)snprintf(text + used, n - used, " %s: from %.4g to %.4g.", s->name,
                                     s->point[0].y, s->point[s->n - 1].y);
    }
}

static bool draw(struct dm_page *p, const struct dm_runs *r, const char *title, const char *axis,
                 const char *form, const char *tag, size_t first, bool log, struct curves *c)
{
    char summary[1024], caption[160];
    if (!collect(c, r, form, tag, first, log ? DM_MARK_FULL : DM_MARK_NONE))
        p->failed = true;
    put_summary(summary, sizeof(summary), title, c);
    snprintf(caption, sizeof(caption), "%s", title);
    if (c->bucket > 1)
        snprintf(caption, sizeof(caption), "%s; each point is the mean of %zu steps", title,
                 c->bucket);
    const struct dm_chart chart = {.title = caption,
                                   .x = "step",
                                   .y = axis,
                                   .summary = summary,
                                   .log_y = log,
                                   .series = c->series,
                                   .n = c->n};
    return c->n && dm_chart_draw(p, &chart);
}

/* ---- Numbers -----------------------------------------------------------------------------------
 */

static const json_t *last_with(const json_t *rows, const char *key)
{
    for (size_t i = json_array_size(rows); i-- > 0;)
        if (json_object_get(json_array_get(rows, i), key))
            return json_array_get(rows, i);
    return NULL;
}

static void put_row(struct dm_page *p, const char *label, const json_t *row, size_t heads)
{
    char path[64];
    dm_page_raw(p, "<tr>");
    dm_page_element(p, "th scope=\"row\"", "%s", label);
    dm_page_number(p, dm_rep_number(row, "step"), 9);
    for (size_t h = 1; h <= heads; h++) {
        snprintf(path, sizeof(path), "validation.ppl_%zu", h);
        dm_page_number(p, dm_rep_number(row, path), 5);
    }
    for (size_t h = 2; h <= heads; h++) {
        snprintf(path, sizeof(path), "validation.ppl_1:%zu", h);
        dm_page_number(p, dm_rep_number(row, path), 5);
    }
    dm_page_raw(p, "</tr>\n");
}

/* How many heads the validations of a log have. */
static size_t heads_of(const json_t *rows)
{
    const json_t *row = last_with(rows, "validation");
    size_t heads = 0;
    char path[64];
    for (size_t h = 1; h <= HEADS; h++) {
        snprintf(path, sizeof(path), "validation.ppl_%zu", h);
        if (isfinite(dm_rep_number(row, path)))
            heads = h;
    }
    return heads;
}

static void put_header(struct dm_page *p, const char *caption, size_t heads)
{
    char name[2 * HEADS + 2][32];
    const char *head[2 * HEADS + 3] = {"run", "#step"};
    size_t n = 2;
    for (size_t h = 1; h <= heads; h++, n++) {
        snprintf(name[n], sizeof(name[n]), "#PPL %zu", h);
        head[n] = name[n];
    }
    for (size_t h = 2; h <= heads; h++, n++) {
        snprintf(name[n], sizeof(name[n]), "#PPL 1:%zu", h);
        head[n] = name[n];
    }
    head[n] = NULL;
    dm_rep_table(p, caption, head);
}

static void put_validations(struct dm_page *p, const struct dm_runs *r)
{
    enum { MAX_ROWS = 200 };
    size_t heads = 0, rows = 0, k;
    json_t *row;
    for (size_t i = 0; i < r->n; i++)
        if (r->run[i].kind == DM_RUN_LOG) {
            const size_t h = heads_of(r->run[i].root);
            heads = h > heads ? h : heads;
        }
    if (!heads)
        return;
    put_header(p, "Perplexity on held-out text at the end", heads);
    for (size_t i = 0; i < r->n; i++)
        if (r->run[i].kind == DM_RUN_LOG)
            put_row(p, r->run[i].label, last_with(r->run[i].root, "validation"), heads);
    dm_rep_table_end(p);
    dm_page_raw(p, "<details><summary>All validations</summary>\n");
    put_header(p, NULL, heads);
    for (size_t i = 0; i < r->n; i++)
        json_array_foreach(r->run[i].kind == DM_RUN_LOG ? r->run[i].root : NULL, k,
                           row) if (json_object_get(row, "validation") && rows++ < MAX_ROWS)
            put_row(p, r->run[i].label, row, heads);
    dm_rep_table_end(p);
    if (rows > MAX_ROWS)
        dm_page_element(p, "p", "%zu more are in the logs.", rows - MAX_ROWS);
    dm_page_raw(p, "</details>\n");
}

bool dm_rep_training(struct dm_page *p, const struct dm_runs *r)
{
    struct curves loss, ppl, joint;
    bool any = false;
    dm_page_raw(p, "<div class=\"charts\">\n");
    any |= draw(p, r, "Training loss", "loss, nats", "loss.%zu", "%zu", 1, false, &loss);
    any |= draw(p, r, "Perplexity on held-out text", "perplexity", "validation.ppl_%zu", "%zu", 1,
                true, &ppl);
    any |= draw(p, r, "Perplexity of several heads together", "perplexity", "validation.ppl_1:%zu",
                "1:%zu", 2, true, &joint);
    dm_page_raw(p, "</div>\n");
    const struct curves *most = loss.n >= ppl.n ? &loss : &ppl;
    dm_chart_legend(p, most->series, most->n);
    dm_chart_legend(p, joint.series, joint.n);
    put_validations(p, r);
    release(&loss);
    release(&ppl);
    release(&joint);
    return any;
}
