/* SPDX-License-Identifier: MIT */
/* page.h - a page of HTML in memory. Everything that did not come from this program's own text goes
 * through dm_page_text() and its like, which escape it: it is shown and never obeyed. */
#ifndef DM_EVAL_PAGE_H
#define DM_EVAL_PAGE_H

#include <stdbool.h>
#include <stdio.h>

#include "src/base/status.h"
#include "src/base/svg.h"

struct dm_page {
    FILE *f; /* into text; NULL when out of memory */
    char *text;
    size_t n;
    bool failed;
};

void dm_page_begin(struct dm_page *p);
/* Closes the page and hands out its text (NUL-terminated heap, release with free()). DM_ENOMEM:
 * *text is NULL. */
enum dm_status dm_page_end(struct dm_page *p, char **text, size_t *n, struct dm_err *e);

/* Markup, as it is: for literals only. */
void dm_page_raw(struct dm_page *p, const char *markup);

/* Text for between tags and in quoted attributes, escaped (utf8.h). */
void dm_page_text(struct dm_page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* <tag>text</tag>; the tag, a literal, may have attributes behind it. */
void dm_page_element(struct dm_page *p, const char *tag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* <td class=n> with up to `digits` significant digits; a dash for what is not finite. */
void dm_page_number(struct dm_page *p, double x, int digits);

/* Writes the drawing into the page and releases it. */
void dm_page_svg(struct dm_page *p, struct dm_svg *s);

/* A figure in a few characters: 1,234,567 or 0.123 or 1.2e-05, a dash when it is not finite. */
void dm_page_figure(char out[40], double x, int digits);

#endif
