/* SPDX-License-Identifier: MIT */
#include "src/base/svg.h"

#include <stdarg.h>
#include <stdlib.h>

#include "src/base/file.h"
#include "src/base/utf8.h"

void dm_svg_begin(struct dm_svg *s, int width, int height)
{
    *s = (struct dm_svg){0};
    s->f = open_memstream(&s->text, &s->n);
    if (s->f)
        fprintf(s->f,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                "font-family=\"sans-serif\" font-size=\"12\">\n"
                "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                width, height);
}

/* Ends the drawing; false when memory was short on the way. */
static bool finish(struct dm_svg *s)
{
    bool whole = s->f && fputs("</svg>\n", s->f) != EOF;
    if (s->f && fclose(s->f)) // the stream remembers earlier failures
        whole = false;
    s->f = NULL;
    return whole;
}

enum dm_status dm_svg_end(struct dm_svg *s, const char *path, struct dm_err *e)
{
    const enum dm_status st = finish(s) ? dm_file_write(path, s->text, s->n, e)
                                        : dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    free(s->text);
    s->text = NULL;
    return st;
}

enum dm_status dm_svg_put(struct dm_svg *s, FILE *out)
{
    const bool whole = finish(s);
    if (whole)
        fwrite(s->text, 1, s->n, out);
    free(s->text);
    s->text = NULL;
    return whole ? DM_OK : DM_ENOMEM;
}

void dm_svg_drop(struct dm_svg *s)
{
    if (s->f)
        fclose(s->f);
    free(s->text);
    *s = (struct dm_svg){0};
}

static void put_escaped(struct dm_svg *s, const char *text, const char *end)
{
    if (dm_utf8_escape(s->f, text))
        fputs(end, s->f);
    else
        dm_svg_drop(s);
}

void dm_svg_embed(struct dm_svg *s, int width, int height, const char *label)
{
    *s = (struct dm_svg){0};
    s->f = open_memstream(&s->text, &s->n);
    if (!s->f)
        return;
    fprintf(s->f, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", width, height);
    put_escaped(s, label, "\">\n");
}

void dm_svg_group(struct dm_svg *s, const char *class, const char *tip)
{
    if (!s->f)
        return;
    fprintf(s->f, "<g class=\"%s\">%s", class, tip ? "<title>" : "\n");
    if (tip)
        put_escaped(s, tip, "</title>\n");
}

void dm_svg_group_end(struct dm_svg *s)
{
    if (s->f)
        fputs("</g>\n", s->f);
}

void dm_svg_text(struct dm_svg *s, double x, double y, struct dm_svg_style style,
                 const char *format, ...)
{
    static const char *const anchors[] = {"start", "middle", "end"};
    char *text;
    va_list args;
    if (!s->f)
        return;
    va_start(args, format);
    const int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0) {
        dm_svg_drop(s);
        return;
    }
    if (style.upright)
        fprintf(s->f, "<text transform=\"translate(%.1f %.1f) rotate(-90)\"", x, y);
    else
        fprintf(s->f, "<text x=\"%.1f\" y=\"%.1f\"", x, y);
    if (style.anchor != DM_SVG_START)
        fprintf(s->f, " text-anchor=\"%s\"", anchors[style.anchor]);
    if (style.colour)
        fprintf(s->f, " fill=\"%s\"", style.colour);
    if (style.size)
        fprintf(s->f, " font-size=\"%d\"", style.size);
    fprintf(s->f, "%s>", style.bold ? " font-weight=\"bold\"" : "");
    put_escaped(s, text, "</text>\n");
    free(text);
}

static void line(struct dm_svg *s, double x0, double y0, double x1, double y1, const char *colour,
                 const char *more)
{
    if (s->f)
        fprintf(s->f, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"%s\"%s/>\n", x0, y0, x1, y1,
                colour, more);
}

void dm_svg_line(struct dm_svg *s, double x0, double y0, double x1, double y1, const char *colour)
{
    line(s, x0, y0, x1, y1, colour, "");
}

void dm_svg_dashed(struct dm_svg *s, double x0, double y0, double x1, double y1, const char *colour)
{
    line(s, x0, y0, x1, y1, colour, " stroke-dasharray=\"6 4\"");
}

static void put_points(struct dm_svg *s, const double *xy, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fprintf(s->f, "%.1f,%.1f ", xy[2 * i], xy[2 * i + 1]);
    fputs("\"/>\n", s->f);
}

void dm_svg_polyline(struct dm_svg *s, const double *xy, size_t n, const char *colour)
{
    if (!s->f)
        return;
    fprintf(s->f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", colour);
    put_points(s, xy, n);
}

void dm_svg_area(struct dm_svg *s, const double *xy, size_t n, const char *colour)
{
    if (!s->f)
        return;
    fprintf(s->f, "<polygon fill=\"%s\" points=\"", colour);
    put_points(s, xy, n);
}

void dm_svg_rect(struct dm_svg *s, double x, double y, double width, double height,
                 const char *colour)
{
    if (s->f)
        fprintf(s->f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n",
                x, y, width, height, colour);
}

void dm_svg_circle(struct dm_svg *s, double x, double y, double r, const char *fill,
                   const char *colour)
{
    if (s->f)
        fprintf(s->f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\" stroke=\"%s\"/>\n", x,
                y, r, fill, colour);
}
