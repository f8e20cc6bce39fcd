/* SPDX-License-Identifier: MIT */
#include "src/decode/options.h"

#include <math.h>
#include <string.h>

#include "src/base/json.h"

const char *const dm_gen_mode_names[] = {"ar", "dynamo", "lossless", NULL};
const char *const dm_preset_names[] = {"paper", "best", NULL};
const char *const dm_unseen_names[] = {"zero", "mix", "backoff", "discount", NULL};

void dm_gen_opt_preset(struct dm_gen_opt *o, enum dm_preset preset)
{
    const bool paper = preset == DM_PRESET_PAPER;
    o->fitted = !paper;
    o->power2 = 1;
    o->power3 = 2;
    o->cut = paper;
    o->alpha_c = o->alpha_3 = 1;
    o->unseen = paper ? DM_UNSEEN_ZERO : DM_UNSEEN_BACKOFF;
    o->threshold = o->blur = true;
}

struct dm_gen_opt dm_gen_opt_default(void)
{
    struct dm_gen_opt o = {.mode = DM_GEN_DYNAMO,
                           .temperature = 0.7,
                           .top_k = 50,
                           .penalty = 1.1,
                           .seed = 1,
                           .eps_b = 0.5,
                           .lambda = 0.9,
                           .rows = 4,
                           .max_tokens = 100,
                           .stop_eos = true};
    dm_gen_opt_preset(&o, DM_PRESET_BEST);
    return o;
}

enum dm_status dm_gen_opt_check(const struct dm_gen_opt *o, struct dm_err *e)
{
    const struct {
        const char *name;
        double value, min, max;
    } range[] = {
        {"temperature", o->temperature, 0, 100}, {"top_k", (double)o->top_k, 1, DM_TOP_K_MAX},
        {"penalty", o->penalty, 1, 100},         {"eps_b", o->eps_b, 0, 1},
        {"alpha_c", o->alpha_c, 0, 10},          {"lambda", o->lambda, 0, 1},
        {"power2", o->power2, 0.01, 100},        {"power3", o->power3, 0.01, 100},
        {"alpha_3", o->alpha_3, 0, 10},          {"rows", (double)o->rows, 0, DM_TREE_ROWS}};
    for (size_t i = 0; i < sizeof(range) / sizeof(range[0]); i++)
        if (!(range[i].value >= range[i].min && range[i].value <= range[i].max))
            return dm_fail(e, DM_ERANGE, "%s is %g, expected %g to %g", range[i].name,
                           range[i].value, range[i].min, range[i].max);
    return DM_OK;
}

static enum dm_status unseen_from_json(struct dm_gen_opt *o, const json_t *root, const char *where,
                                       struct dm_err *e)
{
    const char *name = NULL;
    DM_TRY(dm_json_string(root, "unseen", false, where, &name, e));
    if (!name)
        return DM_OK;
    for (int i = 0; dm_unseen_names[i]; i++)
        if (!strcmp(name, dm_unseen_names[i])) {
            o->unseen = (enum dm_unseen)i;
            return DM_OK;
        }
    return dm_fail(e, DM_EFORMAT, "%s: unseen is \"%s\", expected zero, mix, backoff or discount",
                   where, name);
}

static enum dm_status fields_from_json(struct dm_gen_opt *o, const json_t *root, const char *where,
                                       struct dm_err *e)
{
    if (!json_is_object(root))
        return dm_fail(e, DM_EFORMAT, "%s: found %s, expected an object", where,
                       dm_json_type(root));
    DM_TRY(dm_json_number(root, "eps_b", false, where, &o->eps_b, e));
    DM_TRY(dm_json_number(root, "alpha_c", false, where, &o->alpha_c, e));
    DM_TRY(dm_json_bool(root, "fitted", false, where, &o->fitted, e));
    if (json_object_get(root, "fit"))
        DM_TRY(dm_fit_from_json(&o->fit, json_object_get(root, "fit"), where, e));
    DM_TRY(dm_json_number(root, "power2", false, where, &o->power2, e));
    DM_TRY(dm_json_number(root, "power3", false, where, &o->power3, e));
    DM_TRY(dm_json_bool(root, "cut", false, where, &o->cut, e));
    DM_TRY(dm_json_number(root, "alpha_3", false, where, &o->alpha_3, e));
    DM_TRY(dm_json_number(root, "lambda", false, where, &o->lambda, e));
    DM_TRY(dm_json_number(root, "temperature", false, where, &o->temperature, e));
    DM_TRY(dm_json_number(root, "penalty", false, where, &o->penalty, e));
    DM_TRY(dm_json_size(root, "top_k", 1, DM_TOP_K_MAX, false, where, &o->top_k, e));
    DM_TRY(dm_json_size(root, "rows", 0, DM_TREE_ROWS, false, where, &o->rows, e));
    DM_TRY(dm_json_bool(root, "threshold", false, where, &o->threshold, e));
    DM_TRY(dm_json_bool(root, "blur", false, where, &o->blur, e));
    DM_TRY(unseen_from_json(o, root, where, e));
    struct dm_err why;
    if (dm_gen_opt_check(o, &why))
        return dm_fail(e, DM_ERANGE, "%s: %s", where, why.msg);
    return DM_OK;
}

enum dm_status dm_gen_opt_calibrated(struct dm_gen_opt *o, const char *text, const char *where,
                                     struct dm_err *e)
{
    char name[512];
    snprintf(name, sizeof(name), "%s: calibration", where);
    json_t *root;
    struct dm_gen_opt read = *o;
    DM_TRY(dm_json_parse(text, strlen(text), name, &root, e));
    enum dm_status st = fields_from_json(&read, root, name, e);
    json_decref(root);
    if (!st)
        *o = read;
    return st;
}

double dm_gen_opt_level(const struct dm_gen_opt *o, size_t n)
{
    return pow(o->eps_b, n > 2 ? o->power3 : o->power2);
}

double dm_gen_opt_alpha(const struct dm_gen_opt *o, size_t n)
{
    return n > 2 ? o->alpha_c * o->alpha_3 : o->alpha_c;
}

bool dm_gen_opt_fitted(const struct dm_gen_opt *o)
{
    return o->fitted && o->fit.known && o->temperature > 0;
}

bool dm_gen_opt_single(const struct dm_gen_opt *o)
{
    return o->mode == DM_GEN_AR || (o->mode == DM_GEN_DYNAMO && o->eps_b >= 1);
}

json_t *dm_gen_opt_to_json(const struct dm_gen_opt *o)
{
    return json_pack(
        "{s:f, s:b, s:o, s:f, s:f, s:b, s:f, s:f, s:s, s:f, s:I, s:f, s:f, s:b, s:b, s:I}", "eps_b",
        o->eps_b, "fitted", o->fitted, "fit", dm_fit_to_json(&o->fit), "power2", o->power2,
        "power3", o->power3, "cut", o->cut, "alpha_c", o->alpha_c, "alpha_3", o->alpha_3, "unseen",
        dm_unseen_names[o->unseen], "lambda", o->lambda, "top_k", (json_int_t)o->top_k,
        "temperature", o->temperature, "penalty", o->penalty, "threshold", o->threshold, "blur",
        o->blur, "rows", (json_int_t)o->rows);
}
