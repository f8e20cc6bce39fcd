/* SPDX-License-Identifier: MIT */
#include "eval/cal_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/file.h"

static double share(const struct dm_cal_point *p, size_t n)
{
    return p->forwards ? (double)p->blocks[n] / (double)p->forwards : 0.0;
}

static double per_forward(const struct dm_cal_point *p)
{
    return p->forwards ? (double)p->tokens / (double)p->forwards : 0.0;
}

static void print_point(const struct dm_cal_point *p, const char *policy, const char *eps,
                        const char *verdict, FILE *out)
{
    fprintf(out, "%s\t%s\t%.3f\t%.2f\t%.2f\t%.2f\t%.1f\t%.3f", policy, eps, per_forward(p),
            share(p, 1), share(p, 2), share(p, 3), p->rate, p->speedup);
    fprintf(out, "\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%s\n", p->logp, p->loss, p->loss_se,
            p->loss_bound, p->repeats, p->rise_bound, p->fidelity, verdict);
}

void dm_cal_print_table(const struct dm_cal_report *r, FILE *out)
{
    fprintf(out, "unseen\teps_b\ttok/fwd\tone\ttwo\tthree\ttok/s\tspeedup\tlogp\tloss\tse\tbound\t"
                 "repeats\trise_bound\tfidelity\tverdict\n");
    print_point(&r->base, "-", "base", "-", out);
    for (size_t i = 0; i < r->n_points; i++) {
        const struct dm_cal_point *p = &r->points[i];
        char eps[32];
        snprintf(eps, sizeof(eps), "%g", p->eps_b);
        print_point(p, dm_unseen_names[p->unseen], eps,
                    i == r->chosen ? "chosen"
                    : p->passes    ? "passes"
                                   : "fails",
                    out);
    }
}

void dm_cal_sentence(const struct dm_cal_report *r, char *text, size_t n)
{
    if (r->chosen == r->n_points) {
        snprintf(text, n,
                 "none chosen: no eps_b below 1 keeps the loss within %g nats per token and the "
                 "rise of repeated trigrams within %g at confidence %g",
                 r->opt.margin, r->opt.repeat_margin, r->opt.confidence);
        return;
    }
    const struct dm_cal_point *p = &r->points[r->chosen];
    snprintf(text, n,
             "chosen: eps_b %g, unseen %s, %.3f tokens per forward, %.2f times the base's speed; "
             "with confidence %g the text loses at most %.3f nats per token (margin %g)",
             p->eps_b, dm_unseen_names[p->unseen], per_forward(p), p->speedup, r->opt.confidence,
             fmax(p->loss_bound, 0.0), r->opt.margin);
}

static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *point_to_json(const struct dm_cal_point *p)
{
    json_t *o = json_pack("{s:I, s:I, s:{s:I, s:I, s:I}, s:b}", "tokens", (json_int_t)p->tokens,
                          "forwards", (json_int_t)p->forwards, "blocks", "1",
                          (json_int_t)p->blocks[1], "2", (json_int_t)p->blocks[2], "3",
                          (json_int_t)p->blocks[3], "passes", p->passes);
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"eps_b", p->eps_b},
                   {"tokens_per_forward", per_forward(p)},
                   {"tokens_per_second", p->rate},
                   {"speedup", p->speedup},
                   {"logp", p->logp},
                   {"loss", p->loss},
                   {"loss_se", p->loss_se},
                   {"loss_bound", p->loss_bound},
                   {"repeats", p->repeats},
                   {"rise", p->rise},
                   {"rise_se", p->rise_se},
                   {"rise_bound", p->rise_bound},
                   {"fidelity", p->fidelity}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        json_object_set_new(o, numbers[i].key, number(numbers[i].value));
    return o;
}

static json_t *evidence_to_json(const struct dm_cal_report *r, json_t *inputs)
{
    const struct dm_cal_opt *o = &r->opt;
    char text[512];
    dm_cal_sentence(r, text, sizeof(text));
    json_t *root = json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:s}",
                             "made_by", "dynamo " DM_VERSION, "chosen", r->chosen < r->n_points,
                             "prompts", (json_int_t)o->prompts, "prompt_tokens",
                             (json_int_t)o->prompt_tokens, "tokens", (json_int_t)o->tokens,
                             "samples", (json_int_t)o->samples, "seed", (json_int_t)o->seed,
                             "margin", o->margin, "repeat_margin", o->repeat_margin, "confidence",
                             o->confidence, "base", point_to_json(&r->base), "summary", text);
    json_t *points = json_array();
    for (size_t i = 0; i < r->n_points; i++) {
        json_t *p = point_to_json(&r->points[i]);
        json_object_set_new(p, "unseen", json_string(dm_unseen_names[r->points[i].unseen]));
        json_array_append_new(points, p);
    }
    json_object_set_new(root, "points", points);
    json_object_update(root, inputs);
    return root;
}

json_t *dm_cal_to_json(const struct dm_cal_report *r, json_t *inputs)
{
    struct dm_gen_opt g = r->opt.gen;
    const bool any = r->chosen < r->n_points;
    g.eps_b = any ? r->points[r->chosen].eps_b : 1.0;
    g.unseen = any ? r->points[r->chosen].unseen : r->opt.unseen[0];
    json_t *root = dm_gen_opt_to_json(&g);
    if (root && json_object_set_new(root, "evidence", evidence_to_json(r, inputs))) {
        json_decref(root);
        return NULL;
    }
    return root;
}

/* ---- The plot -------------------------------------------------------------------------------- */

enum { WIDTH = 720, HEIGHT = 480, LEFT = 80, RIGHT = 20, TOP = 40, BOTTOM = 60, N_TICKS = 5 };

struct axes {
    double x0, x1, y0, y1;
};

static double px(const struct axes *a, double x)
{
    return LEFT + (x - a->x0) / (a->x1 - a->x0) * (WIDTH - LEFT - RIGHT);
}

static double py(const struct axes *a, double y)
{
    return HEIGHT - BOTTOM - (y - a->y0) / (a->y1 - a->y0) * (HEIGHT - TOP - BOTTOM);
}

static struct axes find_axes(const struct dm_cal_report *r)
{
    struct axes a = {1.0, 1.0, 0.0, r->opt.margin};
    for (size_t i = 0; i < r->n_points; i++) {
        const struct dm_cal_point *p = &r->points[i];
        a.x0 = fmin(a.x0, p->speedup);
        a.x1 = fmax(a.x1, p->speedup);
        a.y0 = fmin(a.y0, p->loss - (p->loss_bound - p->loss));
        a.y1 = fmax(a.y1, p->loss_bound);
    }
    // A margin all round, and never an empty range.
    const double dx = 0.05 * (a.x1 - a.x0) + 0.01, dy = 0.05 * (a.y1 - a.y0) + 0.005;
    return (struct axes){a.x0 - dx, a.x1 + dx, a.y0 - dy, a.y1 + dy};
}

static void draw_frame(const struct dm_cal_report *r, const struct axes *a, FILE *f)
{
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "<text x=\"%d\" y=\"20\">Loss of log-likelihood against wall-clock speed-up, by eps_b"
            "</text>\n"
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">speed-up over the base alone</text>\n"
            "<text transform=\"translate(16 %d) rotate(-90)\" text-anchor=\"middle\">loss, nats "
            "per token</text>\n",
            WIDTH, HEIGHT, LEFT, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14,
            (TOP + HEIGHT - BOTTOM) / 2);
    for (int i = 0; i <= N_TICKS; i++) {
        const double x = a->x0 + (a->x1 - a->x0) * i / N_TICKS;
        const double y = a->y0 + (a->y1 - a->y0) * i / N_TICKS;
        fprintf(f,
                "<path d=\"M%.1f %dV%d M%d %.1fH%d\" stroke=\"#ddd\"/>\n"
                "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.2f</text>\n"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3f</text>\n",
                px(a, x), TOP, HEIGHT - BOTTOM, LEFT, py(a, y), WIDTH - RIGHT, px(a, x),
                HEIGHT - BOTTOM + 18, x, LEFT - 6, py(a, y) + 4.0, y);
    }
    fprintf(f,
            "<path d=\"M%d %.1fH%d\" stroke=\"#c00\" stroke-dasharray=\"6 4\"/>\n"
            "<text x=\"%d\" y=\"%.1f\" fill=\"#c00\" text-anchor=\"end\">margin %g</text>\n",
            LEFT, py(a, r->opt.margin), WIDTH - RIGHT, WIDTH - RIGHT - 4,
            py(a, r->opt.margin) - 5.0, r->opt.margin);
}

static void draw_point(const struct dm_cal_report *r, size_t i, const struct axes *a, FILE *f)
{
    static const char *const colours[] = {"#1f77b4", "#2ca02c", "#9467bd"}; // by policy
    const struct dm_cal_point *p = &r->points[i];
    const char *colour = colours[p->unseen];
    const double x = px(a, p->speedup), half = p->loss_bound - p->loss;
    if (!isfinite(x) || !isfinite(half))
        return;
    fprintf(f, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"%s\"/>\n", x, py(a, p->loss - half),
            py(a, p->loss_bound), colour);
    fprintf(f,
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\" stroke=\"%s\"/>\n"
            "<text x=\"%.1f\" y=\"%.1f\">%g%s</text>\n",
            x, py(a, p->loss), i == r->chosen ? 7 : 4, p->passes ? colour : "white", colour,
            x + 8.0, py(a, p->loss) - 6.0, p->eps_b, i == r->chosen ? " chosen" : "");
}

static void draw_legend(const struct dm_cal_report *r, FILE *f)
{
    fprintf(f,
            "<text x=\"%d\" y=\"36\" fill=\"#555\">filled: passes; bars: two-sided bound at "
            "confidence %g; %zu prompts x %zu texts of %zu tokens</text>\n</svg>\n",
            LEFT, 2.0 * r->opt.confidence - 1.0, r->opt.prompts, r->opt.samples, r->opt.tokens);
}

enum dm_status dm_cal_write_svg(const struct dm_cal_report *r, const char *path, struct dm_err *e)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    const struct axes a = find_axes(r);
    draw_frame(r, &a, f);
    for (size_t i = 0; i < r->n_points; i++)
        draw_point(r, i, &a, f);
    draw_legend(r, f);
    if (fclose(f)) {
        free(text);
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    }
    enum dm_status st = dm_file_write(path, text, n, e);
    free(text);
    return st;
}
