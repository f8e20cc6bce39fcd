/* SPDX-License-Identifier: MIT */
#include "eval/cal_report.h"

#include <math.h>
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
             "chosen: eps_b %g, unseen %s, %.3f tokens per forward, %.2f times the base's speed%s; "
             "with confidence %g the text loses at most %.3f nats per token (margin %g)",
             p->eps_b, dm_unseen_names[p->unseen], per_forward(p), p->speedup,
             p->speedup < 1.0 ? " (slower here: a step's extra work outweighs its tokens)" : "",
             r->opt.confidence, fmax(p->loss_bound, 0.0), r->opt.margin);
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
