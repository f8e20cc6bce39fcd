/* SPDX-License-Identifier: MIT */
/* svg.h - drawings as SVG files: shapes are added one after the other, later ones on top. Pixels,
 * y downwards; colours as in SVG ("#1f77b4"). What goes wrong on the way is reported at the end. */
#ifndef DM_BASE_SVG_H
#define DM_BASE_SVG_H

#include <stdbool.h>
#include <stdio.h>

#include "src/base/status.h"

struct dm_svg {
    FILE *f; /* into text; NULL when out of memory */
    char *text;
    size_t n;
};

/* A white page. */
void dm_svg_begin(struct dm_svg *s, int width, int height);

/* A drawing inside a page of HTML, on the page's own ground and no wider than its place: the colour
 * "currentColor" is that of the text around it or of a group. `label` says what it shows to those
 * who do not see it. */
void dm_svg_embed(struct dm_svg *s, int width, int height, const char *label);

/* Shapes up to dm_svg_group_end() have the CSS class (a literal) and show `tip` where the pointer
 * rests; NULL: nothing. */
void dm_svg_group(struct dm_svg *s, const char *class, const char *tip);
void dm_svg_group_end(struct dm_svg *s);

/* Writes the drawing to `path` (by rename) and releases it, in any case. DM_ENOMEM, DM_EIO. */
enum dm_status dm_svg_end(struct dm_svg *s, const char *path, struct dm_err *e);
/* The same to a stream. DM_ENOMEM; the stream keeps its own errors. */
enum dm_status dm_svg_put(struct dm_svg *s, FILE *out);
/* Releases it unwritten. */
void dm_svg_drop(struct dm_svg *s);

enum dm_svg_anchor { DM_SVG_START, DM_SVG_MIDDLE, DM_SVG_END };

/* How text is set; all zero: black, 12 pixels, from x on. */
struct dm_svg_style {
    const char *colour;
    enum dm_svg_anchor anchor;
    int size;           /* pixels; 0 = 12 */
    bool bold, upright; /* upright: reads from below to above */
};

/* One line of text at (x, y). Text, labels and tips are escaped (utf8.h). */
void dm_svg_text(struct dm_svg *s, double x, double y, struct dm_svg_style style,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));

void dm_svg_line(struct dm_svg *s, double x0, double y0, double x1, double y1, const char *colour);
void dm_svg_dashed(struct dm_svg *s, double x0, double y0, double x1, double y1,
                   const char *colour);
/* Through the points (x, y), y beside x (2n numbers). */
void dm_svg_polyline(struct dm_svg *s, const double *xy, size_t n, const char *colour);
/* The inside of such a line, closed. */
void dm_svg_area(struct dm_svg *s, const double *xy, size_t n, const char *colour);
void dm_svg_rect(struct dm_svg *s, double x, double y, double width, double height,
                 const char *colour);
void dm_svg_circle(struct dm_svg *s, double x, double y, double r, const char *fill,
                   const char *colour);

#endif
