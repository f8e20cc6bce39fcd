/* SPDX-License-Identifier: MIT */
#include "eval/reliability.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/base/json.h"
#include "src/base/svg.h"

const char *const dm_curve_kinds[] = {"head", "joint", "masked", "accepted"};

struct pair {
    double confidence;
    bool right;
    size_t at; /* keeps equal confidences in the order of the text */
};

static int by_confidence(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->confidence != y->confidence)
        return x->confidence < y->confidence ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

enum dm_status dm_curve_make(struct dm_curve *c, const double *confidence, const bool *right,
                             size_t n, size_t n_bins, struct dm_err *e)
{
    struct pair *pair = dm_alloc(n + 1, sizeof(*pair));
    if (!pair)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu confidences", n);
    for (size_t i = 0; i < n; i++)
        pair[i] = (struct pair){confidence[i], right[i], i};
    qsort(pair, n, sizeof(*pair), by_confidence);
    c->n = n;
    c->n_bins = n < n_bins ? n : n_bins;
    c->ece = c->confidence = c->correct = n ? 0.0 : (double)NAN;
    for (size_t b = 0, i = 0; b < c->n_bins; b++) {
        struct dm_curve_bin *bin = &c->bin[b];
        const size_t end = n * (b + 1) / c->n_bins;
        double sum = 0.0, hits = 0.0;
        bin->n = end - i;
        for (; i < end; i++) {
            sum += pair[i].confidence;
            hits += pair[i].right;
        }
        bin->confidence = sum / (double)bin->n;
        bin->correct = hits / (double)bin->n;
        c->confidence += sum / (double)n;
        c->correct += hits / (double)n;
        c->ece += fabs(sum - hits) / (double)n;
    }
    free(pair);
    return DM_OK;
}

/* Whether the position belongs to the curve; then what it says of it. */
static bool reading(const struct dm_curve *c, const struct dm_pos *p, size_t n_heads,
                    const struct dm_gen_opt *o, double *confidence, bool *right)
{
    if (c->kind == DM_CURVE_HEAD) {
        *confidence = (double)p->top[c->tokens - 1];
        *right = p->rank[c->tokens - 1] == 0;
        return true;
    }
    const struct dm_pos_joint *j =
        &p->joint[c->kind == DM_CURVE_JOINT ? DM_POS_PLAIN : DM_POS_MASKED][c->tokens];
    *confidence = j->max;
    *right = j->right;
    return c->kind != DM_CURVE_ACCEPTED || dm_pos_tokens(p, DM_POS_MASKED, o, n_heads) == c->tokens;
}

enum dm_status dm_curves(struct dm_curve *out, size_t *n_curves, const struct dm_pos *p, size_t n,
                         size_t n_heads, const struct dm_gen_opt *o, size_t n_bins,
                         struct dm_err *e)
{
    double *confidence = dm_alloc(n + 1, sizeof(*confidence));
    bool *right = dm_alloc(n + 1, sizeof(*right));
    enum dm_status st = DM_OK;
    *n_curves = 0;
    if (!confidence || !right)
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu confidences", n);
    for (int kind = 0; kind <= DM_CURVE_ACCEPTED; kind++)
        for (size_t t = kind == DM_CURVE_HEAD ? 1 : 2; t <= n_heads && !st; t++) {
            struct dm_curve *c = &out[(*n_curves)++];
            size_t found = 0;
            *c = (struct dm_curve){.kind = (enum dm_curve_kind)kind, .tokens = t};
            c->eps_b = kind == DM_CURVE_ACCEPTED ? o->eps_b : (double)NAN;
            for (size_t i = 0; i < n; i++)
                found += reading(c, &p[i], n_heads, o, &confidence[found], &right[found]);
            st = dm_curve_make(c, confidence, right, found, n_bins, e);
        }
    free(confidence);
    free(right);
    return st;
}

void dm_curve_name(const struct dm_curve *c, char *text, size_t n)
{
    if (c->kind == DM_CURVE_HEAD)
        snprintf(text, n, "head %zu", c->tokens);
    else if (c->kind == DM_CURVE_ACCEPTED)
        snprintf(text, n, "%zu tokens, accepted at eps_b %g", c->tokens, c->eps_b);
    else
        snprintf(text, n, "%zu tokens, %s", c->tokens,
                 c->kind == DM_CURVE_JOINT ? "no mask" : "masked");
}

json_t *dm_curves_to_json(const struct dm_curve *c, size_t n)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++) {
        char name[80];
        json_t *bins = json_array();
        dm_curve_name(&c[i], name, sizeof(name));
        for (size_t b = 0; b < c[i].n_bins; b++)
            json_array_append_new(bins, json_pack("{s:I, s:f, s:f}", "n", (json_int_t)c[i].bin[b].n,
                                                  "confidence", c[i].bin[b].confidence, "correct",
                                                  c[i].bin[b].correct));
        json_array_append_new(
            all, json_pack("{s:s, s:s, s:I, s:o, s:I, s:o, s:o, s:o, s:o}", "name", name, "kind",
                           dm_curve_kinds[c[i].kind], "tokens", (json_int_t)c[i].tokens, "eps_b",
                           dm_json_real(c[i].eps_b), "positions", (json_int_t)c[i].n, "ece",
                           dm_json_real(c[i].ece), "confidence", dm_json_real(c[i].confidence),
                           "correct", dm_json_real(c[i].correct), "bins", bins));
    }
    return json_pack("{s:o}", "curves", all);
}

/* ---- Drawing --------------------------------------------------------------------------------- */

enum { SIDE = 200, GAP_X = 70, GAP_Y = 70, LEFT = 60, TOP = 40, COLUMNS = 3 };

static void draw_frame(struct dm_svg *g, double x, double y)
{
    for (int i = 0; i <= 4; i++) {
        const double at = SIDE * i / 4.0;
        dm_svg_line(g, x + at, y, x + at, y + SIDE, "#ddd");
        dm_svg_line(g, x, y + at, x + SIDE, y + at, "#ddd");
        dm_svg_text(g, x + at, y + SIDE + 15, (struct dm_svg_style){.anchor = DM_SVG_MIDDLE}, "%g",
                    i / 4.0);
        dm_svg_text(g, x - 5, y + SIDE - at + 4, (struct dm_svg_style){.anchor = DM_SVG_END}, "%g",
                    i / 4.0);
    }
    dm_svg_dashed(g, x, y + SIDE, x + SIDE, y, "#888");
    dm_svg_text(g, x + SIDE / 2.0, y + SIDE + 30, (struct dm_svg_style){.anchor = DM_SVG_MIDDLE},
                "confidence");
    dm_svg_text(g, x - 34, y + SIDE / 2.0,
                (struct dm_svg_style){.anchor = DM_SVG_MIDDLE, .upright = true}, "share right");
}

static void draw_curve(struct dm_svg *g, const struct dm_curve *c, double x, double y)
{
    double xy[2 * DM_CURVE_BINS];
    char name[80];
    draw_frame(g, x, y);
    dm_curve_name(c, name, sizeof(name));
    dm_svg_text(g, x, y - 20, (struct dm_svg_style){.bold = true}, "%s", name);
    if (!c->n) {
        dm_svg_text(g, x, y - 6, (struct dm_svg_style){0}, "no position");
        return;
    }
    dm_svg_text(g, x, y - 6, (struct dm_svg_style){0}, "%zu positions, ECE %.3f", c->n, c->ece);
    for (size_t b = 0; b < c->n_bins; b++) {
        xy[2 * b] = x + SIDE * fmin(c->bin[b].confidence, 1.0);
        xy[2 * b + 1] = y + SIDE * (1.0 - c->bin[b].correct);
    }
    dm_svg_polyline(g, xy, c->n_bins, "#1f77b4");
    for (size_t b = 0; b < c->n_bins; b++)
        dm_svg_circle(g, xy[2 * b], xy[2 * b + 1], 3, "#1f77b4", "#1f77b4");
}

enum dm_status dm_curves_plot(const struct dm_curve *c, size_t n, const char *path,
                              struct dm_err *e)
{
    struct dm_svg g;
    double x = LEFT, y = TOP;
    size_t rows = 0;
    // the heads fill the first row, each kind of block the next
    for (size_t i = 0; i < n; i++)
        rows += !i || c[i].kind != c[i - 1].kind;
    dm_svg_begin(&g, LEFT + COLUMNS * (SIDE + GAP_X), TOP + (int)rows * (SIDE + GAP_Y));
    for (size_t i = 0; i < n; i++) {
        if (i && c[i].kind != c[i - 1].kind) {
            x = LEFT;
            y += SIDE + GAP_Y;
        }
        draw_curve(&g, &c[i], x, y);
        x += SIDE + GAP_X;
    }
    return dm_svg_end(&g, path, e);
}
