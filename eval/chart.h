/* SPDX-License-Identifier: MIT */
/* chart.h - lines with intervals and stacked areas in a page (page.h): colours follow the page's
 * theme, and nothing is said by colour alone. */
#ifndef DM_EVAL_CHART_H
#define DM_EVAL_CHART_H

#include <stddef.h>

#include "eval/page.h"

enum dm_mark { DM_MARK_NONE, DM_MARK_OPEN, DM_MARK_FULL, DM_MARK_CHOSEN };

struct dm_point {
    double x, y, lo,
        hi; /* lo, hi: the interval, NaN = none. Points that are not finite are left out */
    enum dm_mark mark;
    char note[96]; /* what else the tip says */
};

struct dm_series {
    char name[120]; /* for the legend */
    char tag[24];   /* at the line's end */
    int colour;     /* 1.. */
    int dash;       /* 0.. */
    struct dm_point *point;
    size_t n, cap;
};

/* One point more; NULL when out of memory. Release with free(s->point). */
struct dm_point *dm_series_add(struct dm_series *s, double x, double y);

struct dm_chart {
    const char *title, *x, *y;
    const char *summary; /* for those who do not see it */
    bool log_y;
    const char *chosen; /* the word beside DM_MARK_CHOSEN; NULL: chosen */
    double limit;       /* a dashed line at y = limit with its name, unless NULL */
    const char *limit_name;
    struct dm_series *series;
    size_t n;
};

/* <figure> with caption and drawing; nothing and false if no point can be shown. */
bool dm_chart_draw(struct dm_page *p, const struct dm_chart *c);
/* Shares that sum to 1, band by band from below: series i's y is the share of band i, and all
 * have the same x. */
bool dm_chart_areas(struct dm_page *p, const struct dm_chart *c);

/* <ul> of the series' names. */
void dm_chart_legend(struct dm_page *p, const struct dm_series *series, size_t n);

#endif
