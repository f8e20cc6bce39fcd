/* SPDX-License-Identifier: MIT */
/* cal_plot.c - the report as an SVG: two panels over one axis of speed. */
#include <math.h>
#include <stdlib.h>

#include "eval/cal_report.h"
#include "src/base/file.h"

enum { WIDTH = 760, LEFT = 80, RIGHT = 20, TOP = 70, PANEL = 250, GAP = 30, BOTTOM = 60 };
enum { HEIGHT = TOP + 2 * PANEL + GAP + BOTTOM };

static const char *const colours[] = {"#1f77b4", "#2ca02c", "#9467bd"}; /* by policy */

/* One panel: a value with its bound against the speed-up. */
struct panel {
    const char *title;
    double margin;
    bool rise;             /* repeats instead of log-likelihood */
    int top;               /* pixels */
    double x0, x1, y0, y1; /* ranges of the axes */
};

static double value(const struct panel *a, const struct dm_cal_point *p)
{
    return a->rise ? p->rise : p->loss;
}

static double upper(const struct panel *a, const struct dm_cal_point *p)
{
    return a->rise ? p->rise_bound : p->loss_bound;
}

static double px(const struct panel *a, double x)
{
    return LEFT + (x - a->x0) / (a->x1 - a->x0) * (WIDTH - LEFT - RIGHT);
}

static double py(const struct panel *a, double y)
{
    return a->top + PANEL - (y - a->y0) / (a->y1 - a->y0) * PANEL;
}

/* Ranges that hold every finite point, the base (1, 0) and the margin, never empty. */
static void find_ranges(struct panel *a, const struct dm_cal_report *r)
{
    double x0 = 1.0, x1 = 1.0, y0 = 0.0, y1 = a->margin;
    for (size_t i = 0; i < r->n_points; i++) {
        const struct dm_cal_point *p = &r->points[i];
        const double y = value(a, p), half = upper(a, p) - y;
        if (!isfinite(p->speedup) || !isfinite(half))
            continue;
        x0 = fmin(x0, p->speedup);
        x1 = fmax(x1, p->speedup);
        y0 = fmin(y0, y - half);
        y1 = fmax(y1, y + half);
    }
    const double dx = 0.05 * (x1 - x0) + 0.01, dy = 0.05 * (y1 - y0) + 0.002;
    a->x0 = x0 - dx;
    a->x1 = x1 + dx;
    a->y0 = y0 - dy;
    a->y1 = y1 + dy;
}

/* A step of 1, 2 or 5 times a power of ten that cuts the range into 4 to 10 parts. */
static double tick_step(double range)
{
    const double power = pow(10.0, floor(log10(range / 4.0))), rest = range / 4.0 / power;
    return power * (rest >= 5.0 ? 5.0 : rest >= 2.0 ? 2.0 : 1.0);
}

static void draw_axes(const struct panel *a, bool last, FILE *f)
{
    const double sx = tick_step(a->x1 - a->x0), sy = tick_step(a->y1 - a->y0);
    for (double i = ceil(a->x0 / sx); i * sx <= a->x1; i++) {
        fprintf(f, "<path d=\"M%.1f %dv%d\" stroke=\"#ddd\"/>\n", px(a, i * sx), a->top, PANEL);
        if (last)
            fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.6g</text>\n",
                    px(a, i * sx), a->top + PANEL + 18, i * sx + 0.0);
    }
    for (double i = ceil(a->y0 / sy); i * sy <= a->y1; i++)
        fprintf(f,
                "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>\n"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n",
                LEFT, py(a, i * sy), WIDTH - RIGHT, LEFT - 6, py(a, i * sy) + 4.0, i * sy + 0.0);
    fprintf(f,
            "<path d=\"M%d %.1fH%d\" stroke=\"#c00\" stroke-dasharray=\"6 4\"/>\n"
            "<text x=\"%d\" y=\"%.1f\" fill=\"#c00\" text-anchor=\"end\">margin %g</text>\n"
            "<text transform=\"translate(16 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
            LEFT, py(a, a->margin), WIDTH - RIGHT, WIDTH - RIGHT - 4, py(a, a->margin) - 5.0,
            a->margin, a->top + PANEL / 2, a->title);
}

static void draw_point(const struct panel *a, const struct dm_cal_report *r, size_t i, FILE *f)
{
    const struct dm_cal_point *p = &r->points[i];
    const char *colour = colours[p->unseen];
    const double x = px(a, p->speedup), y = value(a, p), half = upper(a, p) - y;
    if (!isfinite(x) || !isfinite(half))
        return;
    fprintf(f,
            "<path d=\"M%.1f %.1fV%.1f\" stroke=\"%s\"/>\n"
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\" stroke=\"%s\"/>\n"
            "<text x=\"%.1f\" y=\"%.1f\" fill=\"%s\">%g%s</text>\n",
            x, py(a, y - half), py(a, y + half), colour, x, py(a, y), i == r->chosen ? 7 : 4,
            p->passes ? colour : "white", colour, x + 8.0, py(a, y) - 6.0, colour, p->eps_b,
            i == r->chosen ? " chosen" : "");
}

static void draw_panel(struct panel *a, const struct dm_cal_report *r, bool last, FILE *f)
{
    find_ranges(a, r);
    draw_axes(a, last, f);
    for (size_t i = 0; i < r->n_points; i++)
        draw_point(a, r, i, f);
}

static void draw_head(const struct dm_cal_report *r, FILE *f)
{
    const struct dm_cal_opt *o = &r->opt;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "<text x=\"%d\" y=\"20\" font-size=\"14\">What eps_b costs and what it gains</text>\n"
            "<text x=\"%d\" y=\"38\" fill=\"#555\">%zu prompts x %zu texts of %zu tokens; bars end "
            "at the bounds of confidence %g; filled: passes both tests</text>\n"
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">wall-clock speed-up over the base "
            "alone</text>\n",
            WIDTH, HEIGHT, LEFT, LEFT, o->prompts, o->samples, o->tokens, o->confidence,
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14);
    fprintf(f, "<text x=\"%d\" y=\"56\">policy for unseen n-grams:", LEFT);
    for (size_t u = 0; u < o->n_unseen; u++)
        fprintf(f, " <tspan fill=\"%s\">%s</tspan>", colours[o->unseen[u]],
                dm_unseen_names[o->unseen[u]]);
    fprintf(f, "</text>\n");
}

enum dm_status dm_cal_write_svg(const struct dm_cal_report *r, const char *path, struct dm_err *e)
{
    struct panel loss = {.title = "loss, nats per token", .margin = r->opt.margin, .top = TOP};
    struct panel rise = {.title = "rise of repeated trigrams",
                         .margin = r->opt.repeat_margin,
                         .rise = true,
                         .top = TOP + PANEL + GAP};
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    draw_head(r, f);
    draw_panel(&loss, r, false, f);
    draw_panel(&rise, r, true, f);
    fprintf(f, "</svg>\n");
    if (fclose(f)) {
        free(text);
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    }
    enum dm_status st = dm_file_write(path, text, n, e);
    free(text);
    return st;
}
