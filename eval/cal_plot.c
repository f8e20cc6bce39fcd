/* SPDX-License-Identifier: MIT */
/* cal_plot.c - the report as an SVG: two panels over one axis of speed. */
#include <math.h>

#include "eval/cal_report.h"
#include "src/base/svg.h"

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

static void draw_axes(const struct panel *a, bool last, struct dm_svg *g)
{
    const double sx = tick_step(a->x1 - a->x0), sy = tick_step(a->y1 - a->y0);
    const int bottom = a->top + PANEL, right = WIDTH - RIGHT;
    for (double i = ceil(a->x0 / sx); i * sx <= a->x1; i++) {
        dm_svg_line(g, px(a, i * sx), a->top, px(a, i * sx), bottom, "#ddd");
        if (last)
            dm_svg_text(g, px(a, i * sx), bottom + 18,
                        (struct dm_svg_style){.anchor = DM_SVG_MIDDLE}, "%.6g", i * sx + 0.0);
    }
    for (double i = ceil(a->y0 / sy); i * sy <= a->y1; i++) {
        dm_svg_line(g, LEFT, py(a, i * sy), right, py(a, i * sy), "#ddd");
        dm_svg_text(g, LEFT - 6, py(a, i * sy) + 4, (struct dm_svg_style){.anchor = DM_SVG_END},
                    "%.6g", i * sy + 0.0);
    }
    dm_svg_dashed(g, LEFT, py(a, a->margin), right, py(a, a->margin), "#c00");
    dm_svg_text(g, right - 4, py(a, a->margin) - 5,
                (struct dm_svg_style){.colour = "#c00", .anchor = DM_SVG_END}, "margin %g",
                a->margin);
    dm_svg_text(g, 16, a->top + PANEL / 2.0,
                (struct dm_svg_style){.anchor = DM_SVG_MIDDLE, .upright = true}, "%s", a->title);
}

static void draw_point(const struct panel *a, const struct dm_cal_report *r, size_t i,
                       struct dm_svg *g)
{
    const struct dm_cal_point *p = &r->points[i];
    const char *colour = colours[p->unseen];
    const double x = px(a, p->speedup), y = value(a, p), half = upper(a, p) - y;
    const bool chosen = i == r->chosen;
    if (!isfinite(x) || !isfinite(half))
        return;
    dm_svg_line(g, x, py(a, y - half), x, py(a, y + half), colour);
    dm_svg_circle(g, x, py(a, y), chosen ? 7 : 4, p->passes ? colour : "white", colour);
    dm_svg_text(g, x + 8, py(a, y) - 6, (struct dm_svg_style){.colour = colour}, "%g%s", p->eps_b,
                chosen ? " chosen" : "");
}

static void draw_panel(struct panel *a, const struct dm_cal_report *r, bool last, struct dm_svg *g)
{
    find_ranges(a, r);
    draw_axes(a, last, g);
    for (size_t i = 0; i < r->n_points; i++)
        draw_point(a, r, i, g);
}

static void draw_head(const struct dm_cal_report *r, struct dm_svg *g)
{
    enum { NAMES = 170, NAME = 60 }; // where the policies' names begin, and how far apart
    const struct dm_cal_opt *o = &r->opt;
    dm_svg_text(g, LEFT, 20, (struct dm_svg_style){.size = 14},
                "What eps_b costs and what it gains");
    dm_svg_text(g, LEFT, 38, (struct dm_svg_style){.colour = "#555"},
                "%zu prompts x %zu texts of %zu tokens; bars end at the bounds of confidence %g; "
                "filled: passes both tests",
                o->prompts, o->samples, o->tokens, o->confidence);
    dm_svg_text(g, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14,
                (struct dm_svg_style){.anchor = DM_SVG_MIDDLE},
                "wall-clock speed-up over the base alone");
    dm_svg_text(g, LEFT, 56, (struct dm_svg_style){0}, "policy for unseen n-grams:");
    for (size_t u = 0; u < o->n_unseen; u++)
        dm_svg_text(g, LEFT + NAMES + (double)u * NAME, 56,
                    (struct dm_svg_style){.colour = colours[o->unseen[u]]}, "%s",
                    dm_unseen_names[o->unseen[u]]);
}

enum dm_status dm_cal_write_svg(const struct dm_cal_report *r, const char *path, struct dm_err *e)
{
    struct panel loss = {.title = "loss, nats per token", .margin = r->opt.margin, .top = TOP};
    struct panel rise = {.title = "rise of repeated trigrams",
                         .margin = r->opt.repeat_margin,
                         .rise = true,
                         .top = TOP + PANEL + GAP};
    struct dm_svg g;
    dm_svg_begin(&g, WIDTH, HEIGHT);
    draw_head(r, &g);
    draw_panel(&loss, r, false, &g);
    draw_panel(&rise, r, true, &g);
    return dm_svg_end(&g, path, e);
}
