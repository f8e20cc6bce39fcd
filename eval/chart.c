/* SPDX-License-Identifier: MIT */
#include "eval/chart.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "eval/scale.h"
#include "src/base/arena.h"

enum { WIDTH = 440, HEIGHT = 270, LEFT = 58, RIGHT = 46, TOP = 12, BOTTOM = 44 };
enum { TICKS = 12, X_TICKS = 5, Y_TICKS = 5, LINE = 13 };
#define INK "currentColor"

struct frame {
    const struct dm_chart *c;
    struct dm_scale x, y;
    struct dm_svg g;
};

static double px(const struct frame *f, double x)
{
    return LEFT + dm_scale_at(&f->x, x) * (WIDTH - LEFT - RIGHT);
}

static double py(const struct frame *f, double y)
{
    return HEIGHT - BOTTOM - dm_scale_at(&f->y, y) * (HEIGHT - TOP - BOTTOM);
}

struct dm_point *dm_series_add(struct dm_series *s, double x, double y)
{
    if (s->n == s->cap) {
        const size_t cap = s->cap ? 2 * s->cap : 64;
        struct dm_point *more = dm_realloc(s->point, cap, sizeof(*more));
        if (!more)
            return NULL;
        s->point = more;
        s->cap = cap;
    }
    s->point[s->n] = (struct dm_point){x, y, NAN, NAN, DM_MARK_NONE, ""};
    return &s->point[s->n++];
}

static bool shown(const struct frame *f, const struct dm_point *p)
{
    return isfinite(dm_scale_at(&f->x, p->x)) && isfinite(dm_scale_at(&f->y, p->y));
}

static bool find_ranges(struct frame *f)
{
    size_t n = 0;
    f->x = dm_scale_new(false);
    f->y = dm_scale_new(f->c->log_y);
    for (size_t s = 0; s < f->c->n; s++)
        for (size_t i = 0; i < f->c->series[s].n; i++) {
            const struct dm_point *p = &f->c->series[s].point[i];
            if (!isfinite(p->x) || !isfinite(p->y) || (f->y.log && p->y <= 0))
                continue;
            dm_scale_add(&f->x, p->x);
            dm_scale_add(&f->y, p->y);
            dm_scale_add(&f->y, p->lo);
            dm_scale_add(&f->y, p->hi);
            n++;
        }
    if (f->c->limit_name)
        dm_scale_add(&f->y, f->c->limit);
    return n > 0;
}

static void draw_axes(struct frame *f)
{
    const struct dm_chart *c = f->c;
    const int bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT;
    double x[TICKS], y[TICKS];
    char text[40];
    const size_t n_x = dm_scale_ticks(&f->x, X_TICKS, x, TICKS),
                 n_y = dm_scale_ticks(&f->y, Y_TICKS, y, TICKS);
    dm_svg_group(&f->g, "grid", NULL);
    for (size_t i = 0; i < n_x; i++)
        dm_svg_line(&f->g, px(f, x[i]), TOP, px(f, x[i]), bottom, INK);
    for (size_t i = 0; i < n_y; i++)
        dm_svg_line(&f->g, LEFT, py(f, y[i]), right, py(f, y[i]), INK);
    dm_svg_group_end(&f->g);
    dm_svg_group(&f->g, "axis", NULL);
    for (size_t i = 0; i < n_y; i++) {
        dm_page_figure(text, y[i], 6);
        dm_svg_text(&f->g, LEFT - 6, py(f, y[i]) + 4,
                    (struct dm_svg_style){.colour = INK, .anchor = DM_SVG_END}, "%s", text);
    }
    for (size_t i = 0; i < n_x; i++) {
        dm_page_figure(text, x[i], 6);
        dm_svg_text(&f->g, px(f, x[i]), bottom + 16,
                    (struct dm_svg_style){.colour = INK, .anchor = DM_SVG_MIDDLE}, "%s", text);
    }
    dm_svg_text(&f->g, (LEFT + right) / 2.0, HEIGHT - 8,
                (struct dm_svg_style){.colour = INK, .anchor = DM_SVG_MIDDLE}, "%s", c->x);
    dm_svg_text(&f->g, 13, (TOP + bottom) / 2.0,
                (struct dm_svg_style){.colour = INK, .anchor = DM_SVG_MIDDLE, .upright = true},
                "%s", c->y);
    dm_svg_group_end(&f->g);
}

static void draw_limit(struct frame *f)
{
    if (!f->c->limit_name || !isfinite(dm_scale_at(&f->y, f->c->limit)))
        return;
    const double y = py(f, f->c->limit);
    dm_svg_group(&f->g, "limit", NULL);
    dm_svg_dashed(&f->g, LEFT, y, WIDTH - RIGHT, y, INK);
    dm_svg_text(&f->g, WIDTH - RIGHT - 4, y - 4,
                (struct dm_svg_style){.colour = INK, .size = 11, .anchor = DM_SVG_END}, "%s",
                f->c->limit_name);
    dm_svg_group_end(&f->g);
}

static void draw_line(struct frame *f, const struct dm_series *s)
{
    double *xy = dm_alloc(2 * s->n, sizeof(*xy));
    size_t n = 0;
    if (!xy) {
        dm_svg_drop(&f->g);
        return;
    }
    for (size_t i = 0; i < s->n; i++)
        if (shown(f, &s->point[i])) {
            xy[2 * n] = px(f, s->point[i].x);
            xy[2 * n++ + 1] = py(f, s->point[i].y);
        }
    if (n > 1)
        dm_svg_polyline(&f->g, xy, n, INK);
    free(xy);
}

static void draw_point(struct frame *f, const struct dm_series *s, const struct dm_point *p)
{
    char tip[400], x[40], y[40], lo[40], hi[40];
    const bool bar = isfinite(dm_scale_at(&f->y, p->lo)) && isfinite(dm_scale_at(&f->y, p->hi));
    dm_page_figure(x, p->x, 4);
    dm_page_figure(y, p->y, 4);
    dm_page_figure(lo, p->lo, 4);
    dm_page_figure(hi, p->hi, 4);
    snprintf(tip, sizeof(tip), "%s%s%s\n%s: %s\n%s: %s%s%s%s%s%s", s->name, *p->note ? ", " : "",
             p->note, f->c->x, x, f->c->y, y, bar ? " [" : "", bar ? lo : "", bar ? ", " : "",
             bar ? hi : "", bar ? "]" : "");
    dm_svg_group(&f->g, "point", tip);
    if (bar)
        dm_svg_line(&f->g, px(f, p->x), py(f, p->lo), px(f, p->x), py(f, p->hi), INK);
    const double cx = px(f, p->x), cy = py(f, p->y);
    if (p->mark == DM_MARK_CHOSEN)
        dm_svg_circle(&f->g, cx, cy, 8, "none", INK);
    dm_svg_circle(&f->g, cx, cy, 3.5, p->mark == DM_MARK_OPEN ? "var(--ground)" : INK, INK);
    dm_svg_group_end(&f->g);
}

struct box {
    double left, top, right, bottom;
};

static size_t inside(const struct box *b, double x, double y)
{
    return x > b->left && x < b->right && y > b->top && y < b->bottom;
}

/* How much of points, lines, the limit and its name is in the box; very much if the box is not in
 * the frame. */
static size_t covered(const struct frame *f, const struct box *b)
{
    enum { STEPS = 16, POINT = 8, LIMIT = 6, OUT = 10000 };
    const bool out = b->left < LEFT || b->right > WIDTH || b->top < 0 ||
                     b->bottom > HEIGHT - BOTTOM;
    size_t n = out ? OUT : 0;
    for (size_t s = 0; s < f->c->n; s++) {
        const struct dm_point *p = f->c->series[s].point;
        for (size_t i = 0; i < f->c->series[s].n; i++) {
            if (!shown(f, &p[i]))
                continue;
            const double x = px(f, p[i].x), y = py(f, p[i].y);
            n += p[i].mark == DM_MARK_NONE ? 0 : POINT * inside(b, x, y);
            for (int k = 1; i && shown(f, &p[i - 1]) && k < STEPS; k++) {
                const double t = k / (double)STEPS;
                n += inside(b, x + t * (px(f, p[i - 1].x) - x), y + t * (py(f, p[i - 1].y) - y));
            }
        }
    }
    if (f->c->limit_name)
        n += LIMIT * inside(b, (b->left + b->right) / 2, py(f, f->c->limit));
    for (size_t k = 0; f->c->limit_name && k < strlen(f->c->limit_name); k++)
        n += inside(b, WIDTH - RIGHT - 7 - 6.0 * (double)k, py(f, f->c->limit) - 8);
    return n;
}

/* Above, below or beside the point, where it hides the least. */
static void draw_word(struct frame *f, double x, double y, const char *word)
{
    enum { PLACES = 8 };
    static const struct {
        double x, y; // of the text's middle; x in steps of half its width and 12
    } place[PLACES] = {{0, -17}, {0, 17}, {1, 14}, {1, -13}, {-1, 14}, {-1, -13}, {1, 1}, {-1, 1}};
    const double half = 4.0 * (double)strlen(word);
    size_t best = 0, least = SIZE_MAX;
    double at[PLACES];
    for (size_t i = 0; i < PLACES; i++) {
        at[i] = x + place[i].x * (half + 12);
        const double middle = y + place[i].y;
        const size_t n = covered(
            f, &(struct box){at[i] - half - 3, middle - 9, at[i] + half + 3, middle + 9});
        if (n < least) {
            least = n;
            best = i;
        }
    }
    dm_svg_text(&f->g, at[best], y + place[best].y + 5,
                (struct dm_svg_style){.colour = INK, .anchor = DM_SVG_MIDDLE, .bold = true}, "%s",
                word);
}

static void draw_chosen(struct frame *f)
{
    dm_svg_group(&f->g, "chosen", NULL);
    for (size_t s = 0; s < f->c->n; s++)
        for (size_t i = 0; i < f->c->series[s].n; i++) {
            const struct dm_point *p = &f->c->series[s].point[i];
            if (p->mark == DM_MARK_CHOSEN && shown(f, p))
                draw_word(f, px(f, p->x), py(f, p->y), f->c->chosen ? f->c->chosen : "chosen");
        }
    dm_svg_group_end(&f->g);
}

/* Tags at the lines' ends, moved apart where they would cover each other. */
static void draw_tags(struct frame *f)
{
    double *at = dm_alloc(f->c->n, sizeof(*at));
    if (!at) {
        dm_svg_drop(&f->g);
        return;
    }
    for (size_t s = 0; s < f->c->n; s++) {
        const struct dm_series *series = &f->c->series[s];
        const struct dm_point *end = NULL;
        for (size_t i = 0; i < series->n; i++)
            if (shown(f, &series->point[i]) && (!end || series->point[i].x > end->x))
                end = &series->point[i];
        at[s] = NAN;
        if (!end || !*series->tag)
            continue;
        double y = py(f, end->y) + 4;
        for (size_t tries = 0; tries < f->c->n; tries++)
            for (size_t o = 0; o < s; o++)
                if (fabs(at[o] - y) < LINE)
                    y = at[o] + LINE;
        at[s] = y;
        char class[16];
        snprintf(class, sizeof(class), "tag c%d", series->colour);
        dm_svg_group(&f->g, class, NULL);
        dm_svg_text(&f->g, fmin(px(f, end->x) + 9, WIDTH - RIGHT + 9), y,
                    (struct dm_svg_style){.colour = INK, .size = 12}, "%s", series->tag);
        dm_svg_group_end(&f->g);
    }
    free(at);
}

static void begin_figure(struct dm_page *p, const struct dm_chart *c)
{
    dm_page_raw(p, "<figure>\n");
    dm_page_element(p, "figcaption", "%s", c->title);
}

static void end_figure(struct dm_page *p, struct frame *f)
{
    dm_page_svg(p, &f->g);
    dm_page_raw(p, "</figure>\n");
}

bool dm_chart_draw(struct dm_page *p, const struct dm_chart *c)
{
    struct frame f = {.c = c};
    if (!find_ranges(&f))
        return false;
    dm_scale_pad(&f.x, 0.03);
    dm_scale_pad(&f.y, 0.06);
    begin_figure(p, c);
    dm_svg_embed(&f.g, WIDTH, HEIGHT, c->summary);
    draw_axes(&f);
    draw_limit(&f);
    for (size_t s = 0; s < c->n; s++) {
        const struct dm_series *series = &c->series[s];
        char class[24];
        snprintf(class, sizeof(class), "c%d d%d", series->colour, series->dash);
        dm_svg_group(&f.g, class, NULL);
        draw_line(&f, series);
        for (size_t i = 0; i < series->n; i++)
            if (series->point[i].mark != DM_MARK_NONE && shown(&f, &series->point[i]))
                draw_point(&f, series, &series->point[i]);
        dm_svg_group_end(&f.g);
    }
    draw_tags(&f);
    draw_chosen(&f);
    end_figure(p, &f);
    return true;
}

enum { MAX_BANDS = 8 };

struct label {
    double x, top, bottom;
};

/* Band s between the sums of the series below it and with it; label: where it is thickest. */
static void draw_band(struct frame *f, size_t s, double *xy, double *below, struct label *label)
{
    const struct dm_series *series = &f->c->series[s];
    const size_t n = series->n;
    size_t thick = 0;
    for (size_t i = 0; i < n; i++) {
        const double y = isfinite(series->point[i].y) ? fmax(series->point[i].y, 0) : 0;
        xy[2 * i] = xy[2 * (2 * n - 1 - i)] = px(f, series->point[i].x);
        xy[2 * (2 * n - 1 - i) + 1] = py(f, below[i]);
        xy[2 * i + 1] = py(f, fmin(below[i] + y, 1));
        if (i > 0 && i + 1 < n && series->point[i].y > series->point[thick].y)
            thick = i;
        below[i] = fmin(below[i] + y, 1);
    }
    char class[24];
    snprintf(class, sizeof(class), "band c%d", series->colour);
    dm_svg_group(&f->g, class, series->name);
    dm_svg_area(&f->g, xy, 2 * n, INK);
    dm_svg_group_end(&f->g);
    label->top = xy[2 * thick + 1];
    label->bottom = xy[2 * (2 * n - 1 - thick) + 1];
    const double half = 4.0 * (double)strlen(series->tag) + 4; // of the text's width
    label->x = fmin(fmax(xy[2 * thick], LEFT + half), WIDTH - RIGHT - half);
}

bool dm_chart_areas(struct dm_page *p, const struct dm_chart *c)
{
    struct frame f = {.c = c};
    struct label label[MAX_BANDS];
    if (!c->n || c->n > MAX_BANDS || c->series[0].n < 2 || !find_ranges(&f))
        return false;
    const size_t n = c->series[0].n;
    for (size_t s = 1; s < c->n; s++)
        if (c->series[s].n != n)
            return false; // memory was short
    double *xy = dm_alloc(4 * n, sizeof(*xy)), *below = dm_alloc(n, sizeof(*below));
    dm_scale_pad(&f.x, 0);
    f.y = (struct dm_scale){0, 1, false};
    begin_figure(p, c);
    dm_svg_embed(&f.g, WIDTH, HEIGHT, c->summary);
    for (size_t s = 0; s < c->n && xy && below; s++)
        draw_band(&f, s, xy, below, &label[s]);
    draw_axes(&f);
    dm_svg_group(&f.g, "names", NULL);
    for (size_t s = 0; s < c->n && xy && below; s++)
        if (label[s].bottom - label[s].top >= 3 * LINE)
            dm_svg_text(&f.g, label[s].x, (label[s].top + label[s].bottom) / 2 + 4,
                        (struct dm_svg_style){.colour = INK, .anchor = DM_SVG_MIDDLE, .bold = true},
                        "%s", c->series[s].tag);
    dm_svg_group_end(&f.g);
    if (!xy || !below)
        dm_svg_drop(&f.g);
    free(xy);
    free(below);
    end_figure(p, &f);
    return true;
}

void dm_chart_legend(struct dm_page *p, const struct dm_series *series, size_t n)
{
    dm_page_raw(p, "<ul class=\"legend\">\n");
    for (size_t i = 0; i < n; i++) {
        char key[80];
        snprintf(key, sizeof(key), "<li><span class=\"key c%d d%d\"></span>", series[i].colour,
                 series[i].dash);
        dm_page_raw(p, key);
        dm_page_text(p, "%s", series[i].name);
        dm_page_raw(p, "</li>\n");
    }
    dm_page_raw(p, "</ul>\n");
}
