/* SPDX-License-Identifier: MIT */
/* bench_plot.c - shares of a limit as horizontal bars in an SVG. */
#include <stdlib.h>
#include <string.h>

#include "eval/bench_impl.h"
#include "src/base/file.h"

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

static void draw_bar(const struct dm_bench_row *r, int y, FILE *f)
{
    const struct dm_bench_spread *s = share_of(r);
    const char *fmt = r->fmt < 0 ? "" : dm_bench_formats[r->fmt];
    fprintf(f,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s %s, %zu thread%s</text>\n"
            "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n"
            "<path d=\"M%.1f %dH%.1f\" stroke=\"black\"/>\n"
            "<text x=\"%d\" y=\"%d\">%.0f %%</text>\n",
            LEFT - 8, y + BAR - 3, r->name, fmt, r->threads, r->threads > 1 ? "s" : "", LEFT, y,
            px(s->median) - LEFT, BAR, r->fmt < 0 ? "#777" : colours[r->fmt], px(s->min),
            y + BAR / 2, px(s->max), WIDTH - RIGHT + 8, y + BAR - 3, 100.0 * s->median);
}

static void draw(const struct dm_bench *b, int height, FILE *f)
{
    int y = TOP;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "<text x=\"20\" y=\"24\" font-size=\"14\">Share of the limit that was measured beside "
            "it</text>\n<text x=\"20\" y=\"42\" fill=\"#555\">medians of %zu runs; lines from "
            "minimum to maximum</text>\n",
            WIDTH, height, b->opt.runs);
    for (double at = 0.25; at <= 1.0; at += 0.25)
        fprintf(f, "<path d=\"M%.1f %dV%d\" stroke=\"%s\"/>\n", px(at), TOP, height - 10,
                at < 1.0 ? "#ddd" : "#c00");
    for (int what = 0; what < DM_BENCH_N; what++) {
        bool first = true;
        for (size_t i = 0; i < b->n_rows; i++) {
            const struct dm_bench_row *r = &b->rows[i];
            if (r->what != (enum dm_bench_what)what || !share_of(r))
                continue;
            if (first)
                fprintf(f, "<text x=\"20\" y=\"%d\" font-weight=\"bold\">%s</text>\n",
                        y + TITLE - 12, dm_bench_titles[what]);
            y += first ? TITLE : 0;
            first = false;
            draw_bar(r, y, f);
            y += STEP;
        }
    }
    fprintf(f, "</svg>\n");
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
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    draw(b, height_of(b), f);
    if (fclose(f)) {
        free(text);
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    }
    const enum dm_status st = dm_file_write(path, text, n, e);
    free(text);
    return st;
}
