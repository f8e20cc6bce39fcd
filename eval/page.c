/* SPDX-License-Identifier: MIT */
#include "eval/page.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/utf8.h"

void dm_page_begin(struct dm_page *p)
{
    *p = (struct dm_page){0};
    p->f = open_memstream(&p->text, &p->n);
    p->failed = !p->f;
}

enum dm_status dm_page_end(struct dm_page *p, char **text, size_t *n, struct dm_err *e)
{
    if (p->f && (ferror(p->f) | fclose(p->f)))
        p->failed = true;
    p->f = NULL;
    *text = p->text;
    *n = p->n;
    p->text = NULL;
    if (!p->failed)
        return DM_OK;
    free(*text);
    *text = NULL;
    return dm_fail(e, DM_ENOMEM, "out of memory for the page");
}

void dm_page_raw(struct dm_page *p, const char *markup)
{
    if (p->f)
        fputs(markup, p->f);
}

static void put_escaped(struct dm_page *p, const char *format, va_list args)
{
    char *text;
    if (!p->f)
        return;
    if (vasprintf(&text, format, args) < 0) {
        p->failed = true;
        return;
    }
    if (!dm_utf8_escape(p->f, text))
        p->failed = true;
    free(text);
}

void dm_page_text(struct dm_page *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_escaped(p, format, args);
    va_end(args);
}

void dm_page_element(struct dm_page *p, const char *tag, const char *format, ...)
{
    va_list args;
    if (!p->f)
        return;
    fprintf(p->f, "<%s>", tag);
    va_start(args, format);
    put_escaped(p, format, args);
    va_end(args);
    fprintf(p->f, "</%.*s>", (int)strcspn(tag, " "), tag);
}

/* Thousands in groups: 1234567 -> 1,234,567. */
static void put_grouped(char out[40], double x)
{
    char plain[32];
    const int n = snprintf(plain, sizeof(plain), "%.0f", fabs(x));
    int o = 0;
    if (x < 0)
        out[o++] = '-';
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            out[o++] = ',';
        out[o++] = plain[i];
    }
    out[o] = '\0';
}

void dm_page_figure(char out[40], double x, int digits)
{
    if (!isfinite(x))
        snprintf(out, 40, "\xe2\x80\x93"); // en dash
    else if (fabs(x) >= 1e4 && fabs(x) < 1e15)
        put_grouped(out, x);
    else
        snprintf(out, 40, "%.*g", digits, x == 0 ? 0.0 : x);
}

void dm_page_number(struct dm_page *p, double x, int digits)
{
    char text[40];
    dm_page_figure(text, x, digits);
    dm_page_element(p, "td class=\"n\"", "%s", text);
}

void dm_page_svg(struct dm_page *p, struct dm_svg *s)
{
    if (!p->f || dm_svg_put(s, p->f))
        p->failed = true;
}
