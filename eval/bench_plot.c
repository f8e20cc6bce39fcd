/* SPDX-License-Identifier: MIT */
/* bench_plot.c - shares of a limit as horizontal bars in an SVG. */
#include "eval/bench_impl.h"
#include "src/base/svg.h"

enum { WIDTH = 860, LEFT = 380, RIGHT = 70, TOP = 60, BAR = 14, STEP = 19, TITLE = 30 };

static const char *const colours[DM_BENCH_FORMATS] = {"#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e"};

static const struct dm_bench_spread *share_of(const struct dm_bench_row *r)
{
    return dm_bench_value(r, "share");
}

/* Shares beyond 1.1 (a probe that was disturbed) are cut at the edge; the number tells. */
static double px(double share)
{
    const double cut = share < 0.0 ? 0.0 : share > 1.1 ? 1.1 : share;
    return LEFT + cut / 1.1 * (WIDTH - LEFT - RIGHT);
}

static void draw_bar(const struct dm_bench_row *r, int y, struct dm_svg *g)
{
    const struct dm_bench_spread *s = share_of(r);
    const char *fmt = r->fmt < 0 ? "" : dm_bench_formats[r->fmt];
    const int base = y + BAR - 3;
    dm_svg_text(g, LEFT - 8, base, (struct dm_svg_style){.anchor = DM_SVG_END},
                "%s %s, %zu thread%s", r->name, fmt, r->threads, r->threads > 1 ? "s" : "");
    dm_svg_rect(g, LEFT, y, px(s->median) - LEFT, BAR, r->fmt < 0 ? "#777" : colours[r->fmt]);
    dm_svg_line(g, px(s->min), y + BAR / 2, px(s->max), y + BAR / 2, "black");
    dm_svg_text(g, WIDTH - RIGHT + 8, base, (struct dm_svg_style){0}, "%.0f %%", 100.0 * s->median);
}

static void draw(const struct dm_bench *b, int height, struct dm_svg *g)
{
    int y = TOP;
    dm_svg_text(g, 20, 24, (struct dm_svg_style){.size = 14},
                "Share of the limit that was measured beside it");
    dm_svg_text(g, 20, 42, (struct dm_svg_style){.colour = "#555"},
                "medians of %zu runs; lines from minimum to maximum", b->opt.runs);
    for (double at = 0.25; at <= 1.0; at += 0.25)
        dm_svg_line(g, px(at), TOP, px(at), height - 10, at < 1.0 ? "#ddd" : "#c00");
    for (int what = 0; what < DM_BENCH_N; what++) {
        bool first = true;
        for (size_t i = 0; i < b->n_rows; i++) {
            const struct dm_bench_row *r = &b->rows[i];
            if (r->what != (enum dm_bench_what)what || !share_of(r))
                continue;
            if (first)
                dm_svg_text(g, 20, y + TITLE - 12, (struct dm_svg_style){.bold = true}, "%s",
                            dm_bench_titles[what]);
            y += first ? TITLE : 0;
            first = false;
            draw_bar(r, y, g);
            y += STEP;
        }
    }
}

static int height_of(const struct dm_bench *b)
{
    bool title[DM_BENCH_N] = {false};
    int height = TOP + 20;
    for (size_t i = 0; i < b->n_rows; i++)
        if (share_of(&b->rows[i])) {
            height += STEP + (title[b->rows[i].what] ? 0 : TITLE);
            title[b->rows[i].what] = true;
        }
    return height;
}

enum dm_status dm_bench_write_svg(const struct dm_bench *b, const char *path, struct dm_err *e)
{
    struct dm_svg g;
    const int height = height_of(b);
    dm_svg_begin(&g, WIDTH, height);
    draw(b, height, &g);
    return dm_svg_end(&g, path, e);
}
