/* SPDX-License-Identifier: MIT */
/* cooc_plot.c - rank-frequency curves of a table as an SVG. */
#include <math.h>
#include <stdlib.h>

#include "data/cooc_show.h"
#include "data/radix.h"
#include "src/base/arena.h"
#include "src/base/svg.h"

enum { WIDTH = 760, HEIGHT = 520, LEFT = 80, RIGHT = 20, TOP = 60, BOTTOM = 60, POINTS = 400 };

static const char *const colours[] = {"#1f77b4", "#2ca02c", "#9467bd", "#d62728"};
static const char *const names[] = {"tokens", "pairs", "triplets", "quadruples"};

/* Decades that the axes span from 1 on. */
struct axes {
    double x, y;
};

static double px(const struct axes *a, double rank)
{
    return LEFT + log10(rank) / a->x * (WIDTH - LEFT - RIGHT);
}

static double py(const struct axes *a, double count)
{
    return HEIGHT - BOTTOM - log10(count) / a->y * (HEIGHT - TOP - BOTTOM);
}

/* The counts of one order, ascending, as heap memory; those of 0 are left out. */
static enum dm_status sorted_counts(const struct dm_cooc *c, size_t order, uint64_t **out,
                                    size_t *n_out, struct dm_err *e)
{
    const uint32_t *const count[] = {c->c2, c->c3, c->c4};
    const size_t items[] = {c->V, c->n_pairs, c->n_triplets, c->n_quads};
    const size_t most = items[order - 1];
    uint64_t *key = dm_alloc(most + 1, sizeof(*key)), *tmp = dm_alloc(most + 1, sizeof(*tmp));
    size_t n = 0;
    *out = NULL;
    if (!key || !tmp || most > UINT32_MAX) {
        free(key);
        free(tmp);
        return dm_fail(e, DM_ENOMEM, "%s: no memory to sort %zu counts", c->path, most);
    }
    for (size_t i = 0; i < most; i++) {
        key[n] = order == 1 ? c->c1[i] : count[order - 2][i];
        n += key[n] > 0;
    }
    *out = dm_radix_sort(key, tmp, n, 64);
    *n_out = n;
    free(tmp);
    return DM_OK;
}

static void draw_axes(const struct axes *a, struct dm_svg *g)
{
    const int bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT;
    for (int d = 0; d <= (int)a->x; d++) {
        const double x = px(a, pow(10, d));
        dm_svg_line(g, x, TOP, x, bottom, "#ddd");
        dm_svg_text(g, x, bottom + 18, (struct dm_svg_style){.anchor = DM_SVG_MIDDLE}, "1e%d", d);
    }
    for (int d = 0; d <= (int)a->y; d++) {
        const double y = py(a, pow(10, d));
        dm_svg_line(g, LEFT, y, right, y, "#ddd");
        dm_svg_text(g, LEFT - 6, y + 4, (struct dm_svg_style){.anchor = DM_SVG_END}, "1e%d", d);
    }
    dm_svg_text(g, (LEFT + right) / 2.0, HEIGHT - 14,
                (struct dm_svg_style){.anchor = DM_SVG_MIDDLE}, "rank");
    dm_svg_text(g, 20, (TOP + bottom) / 2.0,
                (struct dm_svg_style){.anchor = DM_SVG_MIDDLE, .upright = true}, "count");
}

/* key (n) ascends; ranks are spread evenly over the logarithmic axis. */
static void draw_curve(const struct axes *a, size_t order, const uint64_t *key, size_t n,
                       struct dm_svg *g)
{
    double xy[2 * (POINTS + 1)];
    size_t last = 0, points = 0;
    if (!n)
        return;
    for (size_t i = 0; i <= POINTS; i++) {
        size_t rank = (size_t)llround(pow((double)n, (double)i / POINTS));
        rank = rank < 1 ? 1 : rank > n ? n : rank;
        if (rank == last)
            continue;
        xy[2 * points] = px(a, (double)rank);
        xy[2 * points++ + 1] = py(a, (double)key[n - rank]);
        last = rank;
    }
    dm_svg_polyline(g, xy, points, colours[order - 1]);
    dm_svg_text(g, (double)(LEFT + (order - 1) * 160), 44,
                (struct dm_svg_style){.colour = colours[order - 1]}, "%s: %zu", names[order - 1],
                n);
}

static enum dm_status draw(const struct dm_cooc *c, struct dm_svg *g, struct dm_err *e)
{
    struct axes a = {1.0, 1.0};
    uint64_t *key[DM_COOC_ORDER_MAX] = {0};
    size_t n[DM_COOC_ORDER_MAX] = {0};
    enum dm_status st = DM_OK;
    for (size_t k = 0; k < c->order && !st; k++) {
        st = sorted_counts(c, k + 1, &key[k], &n[k], e);
        if (st || !n[k])
            continue;
        a.x = fmax(a.x, log10((double)n[k]));
        a.y = fmax(a.y, log10((double)key[k][n[k] - 1]));
    }
    dm_svg_text(g, LEFT, 22, (struct dm_svg_style){.size = 14},
                "Counts by rank, of what the table keeps");
    draw_axes(&a, g);
    for (size_t k = 0; k < c->order && !st; k++)
        draw_curve(&a, k + 1, key[k], n[k], g);
    for (size_t k = 0; k < DM_COOC_ORDER_MAX; k++)
        free(key[k]);
    return st;
}

enum dm_status dm_cooc_plot(const struct dm_cooc *c, const char *path, struct dm_err *e)
{
    struct dm_svg g;
    dm_svg_begin(&g, WIDTH, HEIGHT);
    const enum dm_status st = draw(c, &g, e);
    if (!st)
        return dm_svg_end(&g, path, e);
    dm_svg_drop(&g);
    return st;
}
