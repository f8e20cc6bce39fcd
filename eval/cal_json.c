/* SPDX-License-Identifier: MIT */
/* cal_json.c - the report as JSON, and the certificate in it. */
#include <stdio.h>
#include <string.h>

#include "eval/cal_report.h"
#include "src/base/json.h"

/* {"divergence": x[0], "logp": .., "repeats_4": ..} */
static json_t *by_loss(const double *x)
{
    json_t *o = json_object();
    for (size_t l = 0; l < DM_CERT_LOSSES; l++)
        json_object_set_new(o, dm_cert_loss_names[l], dm_json_real(x[l]));
    return o;
}

static json_t *by_loss_count(const size_t *x)
{
    json_t *o = json_object();
    for (size_t l = 0; l < DM_CERT_LOSSES; l++)
        json_object_set_new(o, dm_cert_loss_names[l], json_integer((json_int_t)x[l]));
    return o;
}

/* The trial's figures, and what the prompts' values were. */
static json_t *point_to_json(const struct dm_cal_point *p)
{
    json_t *o = dm_trial_sum_to_json(&p->sum);
    if (!o)
        return NULL;
    json_object_set_new(o, "excess", by_loss(p->mean));
    json_object_set_new(o, "excess_se", by_loss(p->se));
    json_object_set_new(o, "divergence_bound", dm_json_real(p->bound));
    json_object_set_new(o, "failures", json_integer((json_int_t)p->test.failures));
    json_object_set_new(o, "failed_by", by_loss_count(p->failed_by));
    return o;
}

static json_t *points_to_json(const struct dm_cal_report *r)
{
    json_t *points = json_array();
    for (size_t i = 0; i < r->n_points; i++) {
        const struct dm_cal_point *p = &r->points[i];
        json_t *o = dm_gen_opt_to_json(&p->gen), *rest = point_to_json(p);
        if (!o || !rest || json_object_update(o, rest)) {
            json_decref(o);
            json_decref(rest);
            json_decref(points);
            return NULL;
        }
        json_decref(rest);
        json_object_del(o, "fit"); // the same for all, and beside the evidence
        json_object_set_new(o, "sequence", json_integer((json_int_t)p->test.sequence));
        json_object_set_new(o, "p_value", dm_json_real(p->test.p));
        json_object_set_new(o, "tested", json_boolean(p->test.tested));
        json_object_set_new(o, "certified", json_boolean(p->test.certified));
        json_object_set_new(o, "verdict", json_string(dm_cal_verdict(r, i)));
        json_array_append_new(points, o);
    }
    return points;
}

static void add_inputs(json_t *o, const struct dm_cal_inputs *in)
{
    static const char *const key[DM_CAL_INPUTS] = {"model", "cooc", "data", "judge"};
    for (size_t i = 0; i < DM_CAL_INPUTS; i++)
        json_object_set_new(o, key[i],
                            in->path[i]
                                ? json_pack("{s:s, s:s}", "path", in->path[i], "hash", in->hash[i])
                                : json_null());
    json_object_set_new(o, "format", json_string(in->format));
    json_object_set_new(o, "threads", json_integer((json_int_t)in->threads));
}

static void add_options(json_t *o, const struct dm_cal_report *r)
{
    const struct dm_cal_opt *c = &r->opt;
    const struct {
        const char *key;
        size_t value;
    } sizes[] = {{"prompts", c->prompts}, {"control_prompts", c->control_prompts},
                 {"tokens", c->tokens},   {"prompt_tokens", c->prompt_tokens},
                 {"samples", c->samples}, {"sequences", dm_cal_sequences(c)}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        json_object_set_new(o, sizes[i].key, json_integer((json_int_t)sizes[i].value));
    json_object_set_new(o, "seed", json_integer((json_int_t)c->seed));
    json_object_set_new(o, "goal", json_string(dm_cal_goal_names[c->goal]));
    json_object_set_new(o, "speed", json_string(c->wall_clock ? "speedup" : "tokens_per_forward"));
    json_object_set_new(o, "target",
                        c->goal == DM_CAL_RISK ? json_null() : dm_json_real(c->target));
    json_object_set_new(o, "risk", dm_json_real(c->risk));
    json_object_set_new(o, "confidence", dm_json_real(c->confidence));
    json_object_set_new(o, "quantile", dm_json_real(c->quantile));
    json_object_set_new(o, "slack", by_loss(c->slack));
    json_object_set_new(o, "control_quantile", by_loss(r->quantile));
    json_object_set_new(o, "margin", by_loss(r->margin));
    json_object_set_new(o, "failures_allowed",
                        r->allowed == SIZE_MAX ? json_null()
                                               : json_integer((json_int_t)r->allowed));
}

static json_t *evidence_to_json(const struct dm_cal_report *r, const struct dm_cal_inputs *in)
{
    const bool any = r->chosen < r->n_points;
    char text[768];
    json_t *o = json_object(), *base = point_to_json(&r->base),
           *control = point_to_json(&r->control), *points = points_to_json(r);
    dm_cal_sentence(r, text, sizeof(text));
    add_options(o, r);
    add_inputs(o, in);
    int bad = json_object_set_new(o, "chosen", json_boolean(any));
    bad |= json_object_set_new(o, "chosen_point",
                               any ? json_integer((json_int_t)r->chosen) : json_null());
    bad |= json_object_set_new(o, "summary", json_string(text));
    bad |= json_object_set_new(o, "fit", dm_fit_report_to_json(&r->fit));
    bad |= json_object_set_new(o, "base", base);
    bad |= json_object_set_new(o, "control", control);
    bad |= json_object_set_new(o, "points", points);
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

static json_t *certify(const struct dm_cal_report *r, const struct dm_cal_inputs *in)
{
    const struct dm_cal_opt *o = &r->opt;
    const struct dm_cal_point *p = &r->points[r->chosen];
    struct dm_certificate c = {.program = "dynamo " DM_VERSION,
                               .settings = dm_gen_opt_to_json(&p->gen),
                               .prompts = o->prompts,
                               .failures = p->test.failures,
                               .sequences = dm_cal_sequences(o),
                               .control_prompts = o->control_prompts,
                               .control_failures = r->control.test.failures,
                               .prompt_tokens = o->prompt_tokens,
                               .tokens = o->tokens,
                               .samples = o->samples,
                               .seed = o->seed,
                               .risk = o->risk,
                               .confidence = o->confidence,
                               .p_value = p->test.p,
                               .quantile = o->quantile,
                               .per_forward = p->sum.per_forward,
                               .speedup = p->sum.speedup};
    memcpy(c.margin, r->margin, sizeof(c.margin));
    memcpy(c.slack, o->slack, sizeof(c.slack));
    snprintf(c.model, sizeof(c.model), "%s", in->hash[DM_CAL_MODEL]);
    snprintf(c.table, sizeof(c.table), "%s", in->hash[DM_CAL_TABLE]);
    snprintf(c.data, sizeof(c.data), "%s", in->hash[DM_CAL_DATA]);
    snprintf(c.judge, sizeof(c.judge), "%s", in->hash[DM_CAL_JUDGE]);
    snprintf(c.format, sizeof(c.format), "%s", in->format);
    json_t *root = c.settings ? dm_certificate_to_json(&c) : NULL;
    dm_certificate_release(&c);
    return root;
}

json_t *dm_cal_to_json(const struct dm_cal_report *r, const struct dm_cal_inputs *inputs)
{
    const bool any = r->chosen < r->n_points, certified = any && r->opt.goal == DM_CAL_RISK;
    struct dm_gen_opt g = any ? r->points[r->chosen].gen : r->opt.gen;
    g.eps_b = any ? g.eps_b : 1.0;
    json_t *root = json_pack("{s:s}", "command", "calibrate"), *options = dm_gen_opt_to_json(&g);
    int bad = !root || !options || json_object_update(root, options);
    json_decref(options);
    if (!bad)
        bad |= json_object_set_new(root, "certificate",
                                   certified ? certify(r, inputs) : json_null());
    if (!bad)
        bad |= json_object_set_new(root, "evidence", evidence_to_json(r, inputs));
    if (!bad)
        return root;
    json_decref(root);
    return NULL;
}
