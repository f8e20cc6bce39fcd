/* SPDX-License-Identifier: MIT */
#include "src/model/config.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"

enum { C_MAX = 1 << 16, L_MAX = 1 << 12, F_MAX = 1 << 20, T_LIMIT = 1 << 20, K_MAX = 16 };

/* ---- Reading ------------------------------------------------------------------------------- */

/* One number that has several names. Those that are given must agree. */
static enum dm_status alias_number(const json_t *root, const char *const *names, const char *where,
                                   double *out, struct dm_err *e)
{
    const char *first = NULL;
    const json_t *rope = json_object_get(root, "rope_parameters");
    for (size_t i = 0; names[i]; i++) {
        // "rope_parameters.x" lies one level down.
        const char *dot = strchr(names[i], '.');
        const json_t *obj = dot ? rope : root;
        const char *key = dot ? dot + 1 : names[i];
        double v = *out;
        if (!json_is_object(obj) || json_is_null(json_object_get(obj, key)) ||
            !json_object_get(obj, key))
            continue;
        DM_TRY(dm_json_number(obj, key, true, where, &v, e));
        if (first && v != *out)
            return dm_fail(e, DM_EFORMAT, "%s: \"%s\" is %g, but \"%s\" is %g", where, first, *out,
                           names[i], v);
        first = names[i];
        *out = v;
    }
    return DM_OK;
}

static enum dm_status must_be(const json_t *root, const char *key, const char *want,
                              const char *where, struct dm_err *e)
{
    const char *s = want;
    DM_TRY(dm_json_string(root, key, false, where, &s, e));
    if (strcmp(s, want))
        return dm_fail(e, DM_EUNSUPPORTED, "%s: \"%s\" is \"%.40s\", only \"%s\" is implemented",
                       where, key, s, want);
    return DM_OK;
}

/* Refuses what changes the computation and is not implemented. */
static enum dm_status refuse(const json_t *root, const char *where, struct dm_err *e)
{
    bool tied = false;
    const json_t *scaling = json_object_get(root, "rope_scaling");
    const json_t *rope = json_object_get(root, "rope_parameters");
    DM_TRY(must_be(root, "model_type", "gpt_neox", where, e));
    DM_TRY(must_be(root, "hidden_act", "gelu", where, e));
    DM_TRY(dm_json_bool(root, "tie_word_embeddings", false, where, &tied, e));
    if (tied)
        return dm_fail(
            e, DM_EUNSUPPORTED,
            "%s: \"tie_word_embeddings\" is true, only untied embeddings are implemented", where);
    if (scaling && !json_is_null(scaling))
        return dm_fail(e, DM_EUNSUPPORTED, "%s: \"rope_scaling\" is set, it is not implemented",
                       where);
    if (rope && !json_is_null(rope)) {
        if (!json_is_object(rope))
            return dm_fail(e, DM_EFORMAT, "%s: \"rope_parameters\" is %s, want an object", where,
                           dm_json_type(rope));
        DM_TRY(must_be(rope, "rope_type", "default", where, e));
    }
    return DM_OK;
}

static enum dm_status read_rotary(struct dm_config *c, const json_t *root, const char *where,
                                  struct dm_err *e)
{
    static const char *const fraction[] = {"rotary_pct", "partial_rotary_factor",
                                           "rope_parameters.partial_rotary_factor", NULL};
    static const char *const base[] = {"rotary_emb_base", "rope_theta",
                                       "rope_parameters.rope_theta", NULL};
    double pct = 0.25; // the defaults of Hugging Face's class
    c->rope_base = 10000.0;
    DM_TRY(alias_number(root, fraction, where, &pct, e));
    DM_TRY(alias_number(root, base, where, &c->rope_base, e));
    if (!(pct >= 0.0 && pct <= 1.0))
        return dm_fail(e, DM_ERANGE, "%s: \"rotary_pct\" is %g, want 0..1", where, pct);
    c->rot = (size_t)((double)c->HS * pct);
    return DM_OK;
}

static enum dm_status read_tail(struct dm_config *c, const json_t *root, const char *where,
                                struct dm_err *e)
{
    const char *dtype = NULL;
    const json_t *eos = json_object_get(root, "eos_token_id");
    DM_TRY(dm_json_string(root, "torch_dtype", false, where, &dtype, e));
    DM_TRY(dm_json_string(root, "dtype", false, where, &dtype, e));
    c->dtype = DM_F32;
    if (dtype && dm_dtype_parse(dtype, &c->dtype, e))
        return dm_fail(e, DM_EUNSUPPORTED, "%s: dtype \"%.40s\", want float32, float16 or bfloat16",
                       where, dtype);
    c->eos = 2; // the class default; Pythia's files say 0
    if (json_is_null(eos))
        c->eos = -1;
    else if (eos) {
        size_t id = 0;
        DM_TRY(dm_json_size(root, "eos_token_id", 0, INT_MAX, true, where, &id, e));
        c->eos = (int)id;
    }
    return DM_OK;
}

static enum dm_status read_dynamo(struct dm_config *c, const json_t *root, const char *where,
                                  struct dm_err *e)
{
    const json_t *own = json_object_get(root, "dynamo");
    const char *input = "penultimate";
    c->K = c->D = 1;
    c->V = c->Vp;
    if (!own)
        return DM_OK;
    if (!json_is_object(own))
        return dm_fail(e, DM_EFORMAT, "%s: \"dynamo\" is %s, want an object", where,
                       dm_json_type(own));
    DM_TRY(dm_json_size(own, "heads", 1, K_MAX, false, where, &c->K, e));
    DM_TRY(dm_json_size(own, "head_depth", 1, K_MAX, false, where, &c->D, e));
    DM_TRY(dm_json_size(own, "n_vocab", 1, c->Vp, false, where, &c->V, e));
    DM_TRY(dm_json_string(own, "head_input", false, where, &input, e));
    c->from_final = !strcmp(input, "final");
    if (!c->from_final && strcmp(input, "penultimate"))
        return dm_fail(e, DM_EFORMAT, "%s: \"head_input\" is \"%.40s\", want penultimate or final",
                       where, input);
    return DM_OK;
}

enum dm_status dm_config_from_json(struct dm_config *c, const json_t *root, const char *where,
                                   struct dm_err *e)
{
    double eps = 1e-5;
    *c = (struct dm_config){.parallel = true, .attn_bias = true};
    if (!json_is_object(root))
        return dm_fail(e, DM_EFORMAT, "%s: is %s, want an object", where, dm_json_type(root));
    DM_TRY(refuse(root, where, e));
    DM_TRY(dm_json_size(root, "vocab_size", 1, INT_MAX, true, where, &c->Vp, e));
    DM_TRY(dm_json_size(root, "hidden_size", 1, C_MAX, true, where, &c->C, e));
    DM_TRY(dm_json_size(root, "num_hidden_layers", 1, L_MAX, true, where, &c->L, e));
    DM_TRY(dm_json_size(root, "num_attention_heads", 1, C_MAX, true, where, &c->NH, e));
    DM_TRY(dm_json_size(root, "intermediate_size", 1, F_MAX, true, where, &c->F, e));
    DM_TRY(dm_json_size(root, "max_position_embeddings", 1, T_LIMIT, true, where, &c->T_max, e));
    DM_TRY(dm_json_number(root, "layer_norm_eps", false, where, &eps, e));
    DM_TRY(dm_json_bool(root, "use_parallel_residual", false, where, &c->parallel, e));
    DM_TRY(dm_json_bool(root, "attention_bias", false, where, &c->attn_bias, e));
    c->eps = (float)eps;
    c->HS = c->C / c->NH;
    DM_TRY(read_rotary(c, root, where, e));
    DM_TRY(read_tail(c, root, where, e));
    DM_TRY(read_dynamo(c, root, where, e));
    return dm_config_check(c, where, e);
}

size_t dm_config_head_layers(const struct dm_config *c)
{
    return (c->K - 1) * c->D;
}

enum dm_status dm_config_check(const struct dm_config *c, const char *where, struct dm_err *e)
{
    const struct {
        const char *name;
        size_t v, min, max;
    } range[] = {{"vocab_size", c->Vp, 1, INT_MAX},
                 {"n_vocab", c->V, 1, c->Vp},
                 {"hidden_size", c->C, 1, C_MAX},
                 {"num_hidden_layers", c->L, 1, L_MAX},
                 {"num_attention_heads", c->NH, 1, c->C},
                 {"intermediate_size", c->F, 1, F_MAX},
                 {"max_position_embeddings", c->T_max, 1, T_LIMIT},
                 {"rotary dimensions", c->rot, 0, c->HS},
                 {"heads", c->K, 1, K_MAX},
                 {"head_depth", c->D, 1, K_MAX}};
    for (size_t i = 0; i < sizeof(range) / sizeof(range[0]); i++)
        if (range[i].v < range[i].min || range[i].v > range[i].max)
            return dm_fail(e, DM_ERANGE, "%s: %s is %zu, want %zu..%zu", where, range[i].name,
                           range[i].v, range[i].min, range[i].max);
    if (c->C % c->NH || c->HS != c->C / c->NH)
        return dm_fail(e, DM_ERANGE, "%s: hidden_size %zu is not a multiple of the %zu heads",
                       where, c->C, c->NH);
    if (c->rot % 2)
        return dm_fail(e, DM_ERANGE,
                       "%s: %zu rotary dimensions of a head of %zu, want an even number", where,
                       c->rot, c->HS);
    if (!(c->rope_base > 0.0) || !isfinite(c->rope_base))
        return dm_fail(e, DM_ERANGE, "%s: rotary base is %g, want more than 0", where,
                       c->rope_base);
    if (!(c->eps > 0.0f) || !isfinite(c->eps))
        return dm_fail(e, DM_ERANGE, "%s: layer_norm_eps is %g, want more than 0", where,
                       (double)c->eps);
    if (c->eos < -1 || (c->eos >= 0 && (size_t)c->eos >= c->Vp))
        return dm_fail(e, DM_ERANGE, "%s: eos_token_id is %d, want 0..%zu", where, c->eos,
                       c->Vp - 1);
    return DM_OK;
}

/* ---- Writing ------------------------------------------------------------------------------- */

/* The shortest decimal that reads back as this float: 1e-05, not 9.99999974737875e-06. */
static double short_float(float x)
{
    char text[32];
    for (int digits = 1; digits < 10; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x)
            break;
    }
    return strtod(text, NULL);
}

/* A fraction that every reader turns back into `rot` by truncating HS * fraction. */
static double rotary_fraction(const struct dm_config *c)
{
    double pct = (double)c->rot / (double)c->HS;
    while ((size_t)((double)c->HS * pct) < c->rot)
        pct = nextafter(pct, 1.0);
    return pct;
}

json_t *dm_config_to_json(const struct dm_config *c)
{
    static const char *const dtype[] = {"float32", "float16", "bfloat16"};
    json_t *root = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:s, s:b, s:b, s:b, s:s}",
        "architectures", "GPTNeoXForCausalLM", "model_type", "gpt_neox", "vocab_size",
        (json_int_t)c->Vp, "hidden_size", (json_int_t)c->C, "num_hidden_layers", (json_int_t)c->L,
        "num_attention_heads", (json_int_t)c->NH, "intermediate_size", (json_int_t)c->F,
        "max_position_embeddings", (json_int_t)c->T_max, "rotary_pct", rotary_fraction(c),
        "rotary_emb_base", c->rope_base, "layer_norm_eps", short_float(c->eps), "hidden_act",
        "gelu", "use_parallel_residual", (int)c->parallel, "attention_bias", (int)c->attn_bias,
        "tie_word_embeddings", 0, "torch_dtype", dtype[c->dtype]);
    json_t *own = json_pack("{s:I, s:I, s:s, s:I}", "heads", (json_int_t)c->K, "head_depth",
                            (json_int_t)c->D, "head_input", c->from_final ? "final" : "penultimate",
                            "n_vocab", (json_int_t)c->V);
    json_t *eos = c->eos < 0 ? json_null() : json_integer(c->eos);
    const int bad = json_object_set_new(root, "bos_token_id", json_incref(eos)) |
                    json_object_set_new(root, "eos_token_id", eos) |
                    json_object_set_new(root, "dynamo", own);
    if (bad) {
        json_decref(root);
        return NULL;
    }
    return root;
}

/* ---- Published sizes ----------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t L, C, NH, Vp;
    enum dm_dtype dtype;
} sizes[] = {
    {"14m", 6, 128, 4, 50304, DM_F16},     {"31m", 6, 256, 8, 50304, DM_F16},
    {"70m", 6, 512, 8, 50304, DM_F16},     {"160m", 12, 768, 12, 50304, DM_F16},
    {"410m", 24, 1024, 16, 50304, DM_F16}, {"1b", 16, 2048, 8, 50304, DM_BF16},
    {"1.4b", 24, 2048, 16, 50304, DM_F16}, {"2.8b", 32, 2560, 32, 50304, DM_F16},
    {"6.9b", 32, 4096, 32, 50432, DM_F16}, {"12b", 36, 5120, 40, 50688, DM_F16},
};

enum dm_status dm_config_named(struct dm_config *c, const char *name, struct dm_err *e)
{
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (strcmp(name, sizes[i].name))
            continue;
        // The context is that of training; the published 14m and 31m claim 512 and 1024 positions.
        *c = (struct dm_config){.Vp = sizes[i].Vp,
                                .V = 50277,
                                .C = sizes[i].C,
                                .L = sizes[i].L,
                                .NH = sizes[i].NH,
                                .HS = sizes[i].C / sizes[i].NH,
                                .F = 4 * sizes[i].C,
                                .T_max = 2048,
                                .rot = sizes[i].C / sizes[i].NH / 4,
                                .rope_base = 10000.0,
                                .eps = 1e-5f,
                                .parallel = true,
                                .attn_bias = true,
                                .K = 1,
                                .D = 1,
                                .eos = 0,
                                .dtype = sizes[i].dtype};
        return dm_config_check(c, name, e);
    }
    return dm_fail(e, DM_ERANGE,
                   "\"%.40s\" is not a published size: want 14m, 31m, 70m, 160m, 410m, 1b, 1.4b, "
                   "2.8b, 6.9b or 12b",
                   name);
}
