/* SPDX-License-Identifier: MIT */
/* cooc_plot.c - rank-frequency curves of a table as an SVG. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/cooc_show.h"
#include "data/radix.h"
#include "src/base/arena.h"
#include "src/base/file.h"

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

static void draw_axes(const struct axes *a, FILE *f)
{
    for (int d = 0; d <= (int)a->x; d++)
        fprintf(f,
                "<path d=\"M%.1f %dV%d\" stroke=\"#ddd\"/>\n"
                "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">1e%d</text>\n",
                px(a, pow(10, d)), TOP, HEIGHT - BOTTOM, px(a, pow(10, d)), HEIGHT - BOTTOM + 18,
                d);
    for (int d = 0; d <= (int)a->y; d++)
        fprintf(f,
                "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>\n"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">1e%d</text>\n",
                LEFT, py(a, pow(10, d)), WIDTH - RIGHT, LEFT - 6, py(a, pow(10, d)) + 4.0, d);
    fprintf(
        f,
        "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">rank</text>\n"
        "<text transform=\"translate(20 %d) rotate(-90)\" text-anchor=\"middle\">count</text>\n",
        (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, (TOP + HEIGHT - BOTTOM) / 2);
}

/* Ranks at equal distances on the axis, each once. */
static void draw_curve(const struct axes *a, size_t order, const uint64_t *key, size_t n, FILE *f)
{
    size_t last = 0;
    if (!n)
        return;
    fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"",
            colours[order - 1]);
    for (size_t i = 0; i <= POINTS; i++) {
        size_t rank = (size_t)llround(pow((double)n, (double)i / POINTS));
        rank = rank < 1 ? 1 : rank > n ? n : rank;
        if (rank != last)
            fprintf(f, "%.1f,%.1f ", px(a, (double)rank), py(a, (double)key[n - rank]));
        last = rank;
    }
    fprintf(f, "\"/>\n<text x=\"%zu\" y=\"44\" fill=\"%s\">%s: %zu</text>\n",
            LEFT + (order - 1) * 160, colours[order - 1], names[order - 1], n);
}

static enum dm_status draw(const struct dm_cooc *c, FILE *f, struct dm_err *e)
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
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "<text x=\"%d\" y=\"22\" font-size=\"14\">Counts by rank, of what the table "
            "keeps</text>\n",
            WIDTH, HEIGHT, LEFT);
    draw_axes(&a, f);
    for (size_t k = 0; k < c->order && !st; k++)
        draw_curve(&a, k + 1, key[k], n[k], f);
    fprintf(f, "</svg>\n");
    for (size_t k = 0; k < DM_COOC_ORDER_MAX; k++)
        free(key[k]);
    return st;
}

enum dm_status dm_cooc_plot(const struct dm_cooc *c, const char *path, struct dm_err *e)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    enum dm_status st = draw(c, f, e);
    if (fclose(f) && !st)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    if (!st)
        st = dm_file_write(path, text, n, e);
    free(text);
    return st;
}
