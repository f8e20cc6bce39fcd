/* SPDX-License-Identifier: MIT */
/* cal_plot.c - the report as an SVG: panels over one axis of speed. */
#include <math.h>
#include <stdio.h>

#include "eval/cal_report.h"
#include "eval/scale.h"
#include "src/base/binomial.h"
#include "src/base/svg.h"

enum { WIDTH = 760, LEFT = 80, RIGHT = 20, TOP = 70, PANEL = 170, GAP = 24, BOTTOM = 60 };
enum { TICKS = 12, PANELS = 4, HEIGHT = TOP + PANELS * PANEL + (PANELS - 1) * GAP + BOTTOM };

/* by sequence */
static const char *const colours[] = {"#1f77b4", "#2ca02c", "#9467bd", "#8c564b",
                                      "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"};
enum { COLOURS = sizeof(colours) / sizeof(colours[0]) };

/* Value and interval of a setting in a panel, and the dashed line. */
struct value {
    double low, middle, high;
};
struct panel {
    const char *title, *line_name;
    struct value (*of)(const struct dm_cal_report *r, const struct dm_cal_point *p);
    double line;
    int top; /* pixels */
    struct dm_scale x, y;
};

/* The risk at which the p-value of so few failures is the level of a test: an exact bound. */
static struct value failing(const struct dm_cal_report *r, const struct dm_cal_point *p)
{
    const struct dm_cal_opt *o = &r->opt;
    const double level = dm_cal_level(o);
    const double share = (double)p->test.failures / (double)o->prompts;
    double low = share, high = 1.0;
    for (int i = 0; i < 60 && p->test.failures < o->prompts; i++) {
        const double mid = 0.5 * (low + high);
        if (mid > 0.0 && dm_binomial_cdf(p->test.failures, o->prompts, mid) <= level)
            high = mid;
        else
            low = mid;
    }
    return (struct value){100.0 * share, 100.0 * share, 100.0 * high};
}

static struct value with_error(double mean, double se)
{
    return (struct value){mean - 2.0 * se, mean, mean + 2.0 * se};
}

static struct value divergence(const struct dm_cal_report *r, const struct dm_cal_point *p)
{
    (void)r;
    return with_error(p->mean[DM_CERT_DIVERGENCE], p->se[DM_CERT_DIVERGENCE]);
}

static struct value loss(const struct dm_cal_report *r, const struct dm_cal_point *p)
{
    (void)r;
    return with_error(p->mean[DM_CERT_LOGP], p->se[DM_CERT_LOGP]);
}

static struct value rise(const struct dm_cal_report *r, const struct dm_cal_point *p)
{
    (void)r;
    return with_error(p->mean[DM_CERT_REPEATS], p->se[DM_CERT_REPEATS]);
}

static double px(const struct panel *a, double x)
{
    return LEFT + dm_scale_at(&a->x, x) * (WIDTH - LEFT - RIGHT);
}

static double py(const struct panel *a, double y)
{
    return a->top + PANEL - dm_scale_at(&a->y, y) * PANEL;
}

static bool drawable(const struct dm_cal_report *r, const struct dm_cal_point *p, struct value v)
{
    return isfinite(dm_cal_speed(&r->opt, p)) && isfinite(v.low) && isfinite(v.high);
}

/* Ranges that hold every point, 0, the base's speed and the line. */
static void find_ranges(struct panel *a, const struct dm_cal_report *r)
{
    a->x = a->y = dm_scale_new(false);
    dm_scale_add(&a->x, 1.0);
    dm_scale_add(&a->y, 0.0);
    dm_scale_add(&a->y, a->line);
    for (size_t i = 0; i < r->n_points; i++) {
        const struct dm_cal_point *p = &r->points[i];
        const struct value v = a->of(r, p);
        if (!drawable(r, p, v))
            continue;
        dm_scale_add(&a->x, dm_cal_speed(&r->opt, p));
        dm_scale_add(&a->y, v.low);
        dm_scale_add(&a->y, v.high);
    }
    dm_scale_pad(&a->x, 0.05);
    dm_scale_pad(&a->y, 0.05);
}

static void draw_axes(const struct panel *a, bool last, struct dm_svg *g)
{
    double x[TICKS], y[TICKS];
    const size_t n_x = dm_scale_ticks(&a->x, 6, x, TICKS), n_y = dm_scale_ticks(&a->y, 5, y, TICKS);
    const int bottom = a->top + PANEL, right = WIDTH - RIGHT;
    for (size_t i = 0; i < n_x; i++) {
        dm_svg_line(g, px(a, x[i]), a->top, px(a, x[i]), bottom, "#ddd");
        if (last)
            dm_svg_text(g, px(a, x[i]), bottom + 18, (struct dm_svg_style){.anchor = DM_SVG_MIDDLE},
                        "%.6g", x[i]);
    }
    for (size_t i = 0; i < n_y; i++) {
        dm_svg_line(g, LEFT, py(a, y[i]), right, py(a, y[i]), "#ddd");
        dm_svg_text(g, LEFT - 6, py(a, y[i]) + 4, (struct dm_svg_style){.anchor = DM_SVG_END},
                    "%.6g", y[i]);
    }
    dm_svg_dashed(g, LEFT, py(a, a->line), right, py(a, a->line), "#c00");
    dm_svg_text(g, right - 4, py(a, a->line) - 5,
                (struct dm_svg_style){.colour = "#c00", .anchor = DM_SVG_END}, "%s", a->line_name);
    dm_svg_text(g, 16, a->top + PANEL / 2.0,
                (struct dm_svg_style){.anchor = DM_SVG_MIDDLE, .upright = true}, "%s", a->title);
}

static void draw_point(const struct panel *a, const struct dm_cal_report *r, size_t i,
                       struct dm_svg *g)
{
    const struct dm_cal_point *p = &r->points[i];
    const char *colour = colours[p->test.sequence % COLOURS];
    const struct value v = a->of(r, p);
    const bool chosen = i == r->chosen;
    if (!drawable(r, p, v))
        return;
    const double x = px(a, dm_cal_speed(&r->opt, p));
    dm_svg_line(g, x, py(a, v.low), x, py(a, v.high), colour);
    dm_svg_circle(g, x, py(a, v.middle), chosen ? 7 : 4, p->test.certified ? colour : "white",
                  colour);
    dm_svg_text(g, x + 8, py(a, v.middle) - 6, (struct dm_svg_style){.colour = colour}, "%g%s",
                p->gen.eps_b, chosen ? " chosen" : "");
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
    enum { NAME = 165 }; // pixels from a sequence's name to the next
    const struct dm_cal_opt *o = &r->opt;
    dm_svg_text(g, LEFT, 20, (struct dm_svg_style){.size = 14},
                "What eps_b costs and what it gains");
    dm_svg_text(
        g, LEFT, 38, (struct dm_svg_style){.colour = "#555"},
        "%zu prompts x %zu texts of %zu tokens; bars: exact bound of the share at confidence "
        "%g, else 2 standard errors; filled: passes",
        o->prompts, o->samples, o->tokens, o->confidence);
    dm_svg_text(g, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14,
                (struct dm_svg_style){.anchor = DM_SVG_MIDDLE}, "%s",
                o->wall_clock ? "wall-clock speed-up over the base alone" : "tokens per forward");
    for (size_t s = 0; s < dm_cal_sequences(o) && s < (WIDTH - LEFT) / NAME; s++) {
        const struct dm_gen_opt *p = &r->points[s * o->n_eps].gen;
        dm_svg_text(g, LEFT + (double)s * NAME, 56,
                    (struct dm_svg_style){.colour = colours[s % COLOURS]},
                    "%s, alpha_c %g, top_k %zu", dm_unseen_names[p->unseen], p->alpha_c, p->top_k);
    }
}

enum dm_status dm_cal_write_svg(const struct dm_cal_report *r, const char *path, struct dm_err *e)
{
    struct panel panels[PANELS] = {
        {.title = "failing prompts, %", .of = failing, .line_name = "risk"},
        {.title = "divergence, nats", .of = divergence, .line_name = "base"},
        {.title = "loss of log p, nats", .of = loss, .line_name = "base"},
        {.title = "rise of repeated 4-grams", .of = rise, .line_name = "base"}};
    struct dm_svg g;
    panels[0].line = 100.0 * r->opt.risk;
    panels[1].line = r->base.mean[DM_CERT_DIVERGENCE];
    if (!isfinite(panels[1].line))
        panels[1].line = 0.0; // greedy: the panel stays empty
    dm_svg_begin(&g, WIDTH, HEIGHT);
    draw_head(r, &g);
    for (int i = 0; i < PANELS; i++) {
        panels[i].top = TOP + i * (PANEL + GAP);
        draw_panel(&panels[i], r, i + 1 == PANELS, &g);
    }
    return dm_svg_end(&g, path, e);
}
