/* SPDX-License-Identifier: MIT */
/* certificate.c - the seal is no signature: it tells a damaged or edited certificate from a whole
 * one, and who recomputes it must also find failures, prompts and a p-value that fit. Numbers are
 * stored with PRECISION digits, so that what is read and written again has the same seal. */
#include "src/decode/certificate.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/binomial.h"
#include "src/base/json.h"
#include "src/model/file.h"

enum { VERSION = 1, PRECISION = 9 };

const char *const dm_cert_loss_names[DM_CERT_LOSSES] = {"divergence", "logp", "repeats_4"};

/* Members by kind: key and field. */
struct member {
    const char *key;
    size_t at, size; /* of the field */
    bool null;       /* "" is stored as null */
};
#define M(key, field, null)                                                                       \
    {                                                                                             \
        key, offsetof(struct dm_certificate, field), sizeof(((struct dm_certificate *)0)->field), \
            null                                                                                  \
    }
static const struct member strings[] = {M("program", program, false), M("model", model, false),
                                        M("table", table, true),      M("data", data, false),
                                        M("judge", judge, true),      M("format", format, false)};
static const struct member sizes[] = {M("prompts", prompts, false),
                                      M("failures", failures, false),
                                      M("sequences", sequences, false),
                                      M("control_prompts", control_prompts, false),
                                      M("control_failures", control_failures, false),
                                      M("prompt_tokens", prompt_tokens, false),
                                      M("tokens", tokens, false),
                                      M("samples", samples, false),
                                      M("seed", seed, false)};
static const struct member numbers[] = {M("risk", risk, false),
                                        M("confidence", confidence, false),
                                        M("p_value", p_value, false),
                                        M("quantile", quantile, false),
                                        M("tokens_per_forward", per_forward, false),
                                        M("speedup", speedup, false)};
#undef M

#define COUNT(x) (sizeof(x) / sizeof((x)[0]))
#define FIELD(c, type, m) ((type *)(void *)((char *)(uintptr_t)(c) + (m)->at))

void dm_certificate_release(struct dm_certificate *c)
{
    json_decref(c->settings);
    c->settings = NULL;
}

/* SHA-256 of the object without its seal, members by name. */
static bool seal(const json_t *o, char hex[DM_HASH_LEN + 1])
{
    json_t *rest = json_copy((json_t *)(uintptr_t)o);
    if (!rest)
        return false;
    json_object_del(rest, "sha256");
    char *text = dm_json_text(rest, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(PRECISION));
    json_decref(rest);
    if (!text)
        return false;
    dm_sha256(text, strlen(text), hex);
    free(text);
    return true;
}

/* NULL when out of memory: a loss that is missing would be read as one that was not tested. */
static json_t *losses_to_json(const double *x)
{
    json_t *o = json_object();
    int bad = 0;
    for (size_t i = 0; i < DM_CERT_LOSSES; i++)
        bad |= json_object_set_new(o, dm_cert_loss_names[i], dm_json_real(x[i]));
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

json_t *dm_certificate_to_json(const struct dm_certificate *c)
{
    char hex[DM_HASH_LEN + 1];
    json_t *o = json_object();
    int bad = json_object_set_new(o, "version", json_integer(VERSION));
    for (size_t i = 0; i < COUNT(strings); i++) {
        const char *s = FIELD(c, char, &strings[i]);
        bad |= json_object_set_new(o, strings[i].key,
                                   strings[i].null && !*s ? json_null() : json_string(s));
    }
    for (size_t i = 0; i < COUNT(sizes); i++)
        bad |= json_object_set_new(o, sizes[i].key,
                                   json_integer((json_int_t)*FIELD(c, size_t, &sizes[i])));
    for (size_t i = 0; i < COUNT(numbers); i++)
        bad |= json_object_set_new(o, numbers[i].key, json_real(*FIELD(c, double, &numbers[i])));
    bad |= json_object_set_new(o, "margin", losses_to_json(c->margin));
    bad |= json_object_set_new(o, "slack", losses_to_json(c->slack));
    bad |= json_object_set(o, "settings", c->settings);
    if (!bad && seal(o, hex) && !json_object_set_new(o, "sha256", json_string(hex)))
        return o;
    json_decref(o);
    return NULL;
}

/* ---- Reading ------------------------------------------------------------------------------- */

static enum dm_status read_string(struct dm_certificate *c, const struct member *m, const json_t *o,
                                  const char *where, struct dm_err *e)
{
    const char *s = NULL;
    DM_TRY(dm_json_string(o, m->key, !m->null, where, &s, e));
    const size_t n = s ? strlen(s) : 0;
    if (n >= m->size || (m->size == DM_HASH_LEN + 1 && s && n != DM_HASH_LEN))
        return dm_fail(e, DM_EFORMAT, "%s: \"%s\" has %zu bytes", where, m->key, n);
    memcpy(FIELD(c, char, m), s ? s : "", n + 1);
    return DM_OK;
}

static enum dm_status read_losses(double *x, const json_t *o, const char *key, const char *where,
                                  struct dm_err *e)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_object(v))
        return dm_fail(e, DM_EFORMAT, "%s: \"%s\" is %s, want an object", where, key,
                       dm_json_type(v));
    for (size_t i = 0; i < DM_CERT_LOSSES; i++) {
        x[i] = (double)NAN;
        DM_TRY(dm_json_number(v, dm_cert_loss_names[i], false, where, &x[i], e));
    }
    return DM_OK;
}

static enum dm_status read_members(struct dm_certificate *c, const json_t *o, const char *where,
                                   struct dm_err *e)
{
    size_t version;
    DM_TRY(dm_json_size(o, "version", 1, SIZE_MAX / 2, true, where, &version, e));
    if (version > VERSION)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: version %zu, this program knows up to %d", where,
                       version, VERSION);
    for (size_t i = 0; i < COUNT(strings); i++)
        DM_TRY(read_string(c, &strings[i], o, where, e));
    for (size_t i = 0; i < COUNT(sizes); i++)
        DM_TRY(dm_json_size(o, sizes[i].key, 0, SIZE_MAX / 2, true, where,
                            FIELD(c, size_t, &sizes[i]), e));
    for (size_t i = 0; i < COUNT(numbers); i++)
        DM_TRY(dm_json_number(o, numbers[i].key, true, where, FIELD(c, double, &numbers[i]), e));
    DM_TRY(read_losses(c->margin, o, "margin", where, e));
    DM_TRY(read_losses(c->slack, o, "slack", where, e));
    const json_t *s = json_object_get(o, "settings");
    if (!json_is_object(s))
        return dm_fail(e, DM_EFORMAT, "%s: \"settings\" is %s, want an object", where,
                       dm_json_type(s));
    c->settings = json_incref((json_t *)(uintptr_t)s);
    return DM_OK;
}

/* What the numbers say must follow from each other. */
static enum dm_status check_numbers(const struct dm_certificate *c, const char *where,
                                    struct dm_err *e)
{
    if (!(c->risk > 0.0 && c->risk < 1.0 && c->confidence > 0.0 && c->confidence < 1.0) ||
        !c->prompts || !c->sequences || c->failures > c->prompts)
        return dm_fail(
            e, DM_ERANGE,
            "%s: %zu failures of %zu prompts, risk %g, confidence %g, %zu sequences: not "
            "what a calibration can have found",
            where, c->failures, c->prompts, c->risk, c->confidence, c->sequences);
    const double p = dm_binomial_cdf(c->failures, c->prompts, c->risk);
    if (!(fabs(p - c->p_value) <= 1e-6 * p + 1e-300))
        return dm_fail(e, DM_EMISMATCH,
                       "%s: the p-value is %g, but %zu failures of %zu prompts give "
                       "%g",
                       where, c->p_value, c->failures, c->prompts, p);
    const double level = (1.0 - c->confidence) / (double)c->sequences;
    if (p > level * (1.0 + 1e-6))
        return dm_fail(e, DM_EMISMATCH,
                       "%s: a p-value of %g does not give the confidence %g, which needs %g", where,
                       p, c->confidence, level);
    return DM_OK;
}

/* Numbers as stored: PRECISION digits. */
static bool same(const json_t *a, const json_t *b)
{
    if (!json_is_number(a) || !json_is_number(b))
        return json_equal(a, b);
    const double x = json_number_value(a), y = json_number_value(b);
    return fabs(x - y) <= 1e-8 * fmax(fabs(x), fabs(y));
}

static enum dm_status from_object(struct dm_certificate *c, const json_t *calibration,
                                  const json_t *o, const char *where, struct dm_err *e)
{
    char hex[DM_HASH_LEN + 1];
    const char *key, *sealed = NULL;
    json_t *v;
    if (!json_is_object(o))
        return dm_fail(e, DM_EFORMAT, "%s: found %s, expected an object", where, dm_json_type(o));
    DM_TRY(read_members(c, o, where, e));
    DM_TRY(dm_json_string(o, "sha256", true, where, &sealed, e));
    if (!seal(o, hex))
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", where);
    if (strcmp(sealed, hex))
        return dm_fail(e, DM_EMISMATCH,
                       "%s: its seal is of other contents: it was changed after it was made; "
                       "calibrate again",
                       where);
    DM_TRY(check_numbers(c, where, e));
    json_object_foreach(c->settings, key, v)
    {
        if (!same(v, json_object_get(calibration, key)))
            return dm_fail(e, DM_EMISMATCH, "%s: \"%s\" is not that of the calibration beside it",
                           where, key);
    }
    return DM_OK;
}

enum dm_status dm_certificate_from_text(struct dm_certificate *c, bool *found,
                                        const char *calibration, const char *where,
                                        struct dm_err *e)
{
    char name[512];
    json_t *root;
    *c = (struct dm_certificate){0};
    *found = false;
    snprintf(name, sizeof(name), "%s: certificate", where);
    DM_TRY(dm_json_parse(calibration, strlen(calibration), where, &root, e));
    const json_t *o = json_object_get(root, "certificate");
    enum dm_status st = DM_OK;
    if (o && !json_is_null(o)) {
        *found = true;
        st = from_object(c, root, o, name, e);
    }
    json_decref(root);
    return st;
}

/* ---- Use ----------------------------------------------------------------------------------- */

static void value_text(const json_t *v, char text[64])
{
    if (json_is_string(v))
        snprintf(text, 64, "%s", json_string_value(v));
    else if (json_is_number(v))
        snprintf(text, 64, "%g", json_number_value(v));
    else
        snprintf(text, 64, "%s", !v ? "unknown" : json_is_true(v) ? "on" : "off");
}

static int add(json_t *list, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int add(json_t *list, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return json_array_append_new(list, json_string(text));
}

/* The options of decoding, whichever there are. */
static int compare_settings(json_t *list, const json_t *certified, const json_t *now)
{
    const char *key;
    json_t *v;
    int bad = 0;
    json_object_foreach((json_t *)(uintptr_t)now, key, v)
    {
        char a[64], b[64];
        const json_t *was = json_object_get(certified, key);
        value_text(v, a);
        value_text(was, b);
        if (!was || !same(v, was))
            bad |= add(list, "%s is %s, certified: %s", key, a, b);
    }
    return bad;
}

json_t *dm_certificate_differences(const struct dm_certificate *c,
                                   const struct dm_certificate_use *u)
{
    json_t *list = json_array(), *now = dm_gen_opt_to_json(u->gen);
    int bad = !list || !now;
    if (!bad && strcmp(c->model, u->model))
        bad |= add(list, "the weights are other ones");
    if (!bad && strcmp(c->format, u->format))
        bad |= add(list, "the format is %s, certified: %s", u->format, c->format);
    if (!bad && strcmp(c->table, u->table))
        bad |= add(list, "%s, certified: %s",
                   !*u->table   ? "there is no co-occurrence table"
                   : !*c->table ? "there is a co-occurrence table"
                                : "the co-occurrence table is another one",
                   *c->table ? "with one" : "without");
    if (!bad)
        bad |= compare_settings(list, c->settings, now);
    if (!bad && u->gen->max_tokens > c->tokens)
        bad |= add(list, "the text may get %zu tokens, certified: %zu", u->gen->max_tokens,
                   c->tokens);
    json_decref(now);
    if (!bad)
        return list;
    json_decref(list);
    return NULL;
}

void dm_certificate_sentence(const struct dm_certificate *c, char *text, size_t n)
{
    snprintf(
        text, n,
        "certified with confidence %g: at most %g %% of prompts fail (%zu of %zu did, the base "
        "itself with other seeds %zu); %.3f tokens per forward, %.2f times the base's speed",
        c->confidence, 100.0 * c->risk, c->failures, c->prompts, c->control_failures,
        c->per_forward, c->speedup);
}

enum dm_status dm_certified_check(struct dm_certified *c, const char *calibration,
                                  const char *model, const char *cooc, const char *format,
                                  const struct dm_gen_opt *gen, struct dm_err *e)
{
    char hash[DM_HASH_LEN + 1], table[DM_HASH_LEN + 1] = "";
    bool found;
    *c = (struct dm_certified){.differences = NULL};
    DM_TRY(dm_certificate_from_text(&c->certificate, &found, calibration, model, e));
    if (!found)
        return DM_OK;
    DM_TRY(dm_model_hash(model, hash, e));
    if (cooc)
        DM_TRY(dm_sha256_file(cooc, table, e));
    c->differences = dm_certificate_differences(
        &c->certificate,
        &(struct dm_certificate_use){.model = hash, .table = table, .format = format, .gen = gen});
    return c->differences ? DM_OK
                          : dm_fail(e, DM_ENOMEM, "%s: out of memory for the certificate", model);
}

void dm_certified_release(struct dm_certified *c)
{
    json_decref(c->differences);
    c->differences = NULL;
    dm_certificate_release(&c->certificate);
}

json_t *dm_certified_to_json(const struct dm_certified *c)
{
    if (!c->differences)
        return json_null();
    return json_pack("{s:b, s:O}", "holds", !json_array_size(c->differences), "differences",
                     c->differences);
}

void dm_certified_sentence(const struct dm_certified *c, char *text, size_t n)
{
    char what[512];
    *text = '\0';
    if (!c->differences)
        return;
    dm_certificate_sentence(&c->certificate, what, sizeof(what));
    snprintf(text, n, "%s%s", json_array_size(c->differences) ? "does not hold here: " : "", what);
}
