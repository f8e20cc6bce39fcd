/* SPDX-License-Identifier: MIT */
#include "src/model/info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/model/file.h"

/* ---- Parameters ---------------------------------------------------------------------------- */

static const char *part_name(const struct dm_tensor *t, const struct dm_config *c, char buf[32])
{
    switch (t->part) {
    case DM_PART_EMBED:
        return "embedding";
    case DM_PART_LAYER:
        return t->index + 1 < c->L ? "stem" : "head_1";
    case DM_PART_FINAL:
        return "final_layer_norm";
    case DM_PART_UNEMBED:
        return "unembedding";
    case DM_PART_HEAD:
        break;
    }
    snprintf(buf, 32, "head_%zu", t->index);
    return buf;
}

static int add(json_t *obj, const char *key, size_t n)
{
    const json_t *v = json_object_get(obj, key);
    return json_object_set_new(obj, key, json_integer(json_integer_value(v) + (json_int_t)n));
}

/* One number for each part, then the sums. */
static json_t *parameters(const struct dm_config *c)
{
    static const char *const order[] = {"embedding", "stem", "head_1", "final_layer_norm",
                                        "unembedding"};
    const size_t base = dm_params_count(c, DM_SCOPE_BASE),
                 heads = dm_params_count(c, DM_SCOPE_HEADS);
    struct dm_tensor *list;
    size_t n;
    if (dm_model_tensors(c, &list, &n, NULL))
        return NULL;
    json_t *obj = json_object();
    int bad = 0;
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        bad |= add(obj, order[i], 0);
    bad |= add(obj, "base", base);
    for (size_t i = 0; i < n; i++) {
        char buf[32];
        bad |= add(obj, part_name(list + i, c, buf), list[i].n);
    }
    free(list);
    bad |= add(obj, "heads", heads) | add(obj, "total", base + heads);
    if (bad) {
        json_decref(obj);
        return NULL;
    }
    return obj;
}

json_t *dm_info_config(const struct dm_config *c)
{
    const double base = (double)dm_params_count(c, DM_SCOPE_BASE);
    const double heads = (double)dm_params_count(c, DM_SCOPE_HEADS);
    return json_pack("{s:o, s:o, s:f}", "config", dm_config_to_json(c), "parameters", parameters(c),
                     "overhead_percent", 100.0 * heads / base);
}

/* ---- Models -------------------------------------------------------------------------------- */

/* JSON text as a value; text that is none stays a string. */
static json_t *parsed(const char *text)
{
    json_t *v = NULL;
    if (!text)
        return json_null();
    return dm_json_parse(text, strlen(text), "", &v, NULL) ? json_string(text) : v;
}

static json_t *digest(const char *text)
{
    char hex[DM_HASH_LEN + 1];
    dm_sha256(text, strlen(text), hex);
    return json_pack("{s:I, s:s}", "bytes", (json_int_t)strlen(text), "sha256", hex);
}

/* {"f16": 100, "f32": 24}: tensors of each dtype. */
static enum dm_status dtypes(struct dm_h5 *f, const struct dm_tensor *list, size_t n, json_t *obj,
                             struct dm_err *e)
{
    for (size_t i = 0; i < n; i++) {
        char path[128];
        enum dm_dtype t;
        size_t rows, cols;
        dm_model_tensor_path(path, list + i);
        DM_TRY(dm_h5_tensor_shape(f, path, &t, &rows, &cols, e));
        if (add(obj, dm_dtype_name(t), 1))
            return dm_fail(e, DM_ENOMEM, "%s: out of memory", dm_h5_path(f));
    }
    return DM_OK;
}

static enum dm_status model_info(struct dm_h5 *f, json_t *out, struct dm_err *e)
{
    struct dm_config cfg;
    struct dm_model_meta meta;
    struct dm_tensor *list = NULL;
    char hex[DM_HASH_LEN + 1];
    size_t n = 0;
    DM_TRY(dm_model_read_meta(f, &cfg, &meta, e));
    json_t *types = json_object();
    enum dm_status st = dm_model_tensors(&cfg, &list, &n, e);
    if (!st)
        st = dm_model_check_tensors(f, list, n, e);
    if (!st)
        st = dtypes(f, list, n, types, e);
    if (!st)
        st = dm_model_hash(dm_h5_path(f), hex, e);
    if (!st) {
        int bad = json_object_update_new(out, dm_info_config(&cfg));
        bad |= json_object_set(out, "dtypes", types);
        bad |= json_object_set_new(out, "hash", json_string(hex));
        bad |= json_object_set_new(out, "tokenizer",
                                   meta.tokenizer ? digest(meta.tokenizer) : json_null());
        bad |= json_object_set_new(out, "calibration", parsed(meta.calibration));
        bad |= json_object_set_new(out, "template", parsed(meta.template));
        bad |= json_object_set_new(out, "provenance", parsed(meta.provenance));
        if (bad)
            st = dm_fail(e, DM_ENOMEM, "%s: out of memory", dm_h5_path(f));
    }
    free(list);
    json_decref(types);
    dm_model_meta_release(&meta);
    return st;
}

/* ---- Everything else ----------------------------------------------------------------------- */

static json_t *attribute(struct dm_h5 *f, const char *name)
{
    char *text;
    uint64_t u;
    double x;
    if (!dm_h5_get_u64(f, "/", name, &u, NULL))
        return json_integer((json_int_t)u);
    if (!dm_h5_get_f64(f, "/", name, &x, NULL))
        return json_real(x);
    if (dm_h5_get_string(f, "/", name, &text, NULL))
        return json_string("(not readable)");
    // A tokenizer is longer than everything else together.
    json_t *v = !strcmp(name, "tokenizer")         ? digest(text)
                : text[0] == '{' || text[0] == '[' ? parsed(text)
                                                   : json_string(text);
    free(text);
    return v;
}

static enum dm_status datasets(struct dm_h5 *f, json_t *out, struct dm_err *e)
{
    static const char *const type[] = {"f32", "f64", "u8", "u16", "u32", "u64", "i32"};
    char **names;
    size_t n, rows, cols;
    enum dm_h5_type t;
    DM_TRY(dm_h5_names(f, "", &names, &n, e));
    enum dm_status st = DM_OK;
    json_t *sets = json_object();
    int bad = 0;
    for (size_t i = 0; !st && i < n; i++) {
        st = dm_h5_shape(f, names[i], &t, &rows, &cols, e);
        if (st)
            break;
        json_t *shape = cols ? json_pack("[I, I]", (json_int_t)rows, (json_int_t)cols)
                             : json_pack("[I]", (json_int_t)rows);
        bad |= json_object_set_new(sets, names[i],
                                   json_pack("{s:s, s:o}", "type", type[t], "shape", shape));
    }
    dm_h5_free_names(names);
    bad |= json_object_set_new(out, "datasets", sets);
    return st ? st : bad ? dm_fail(e, DM_ENOMEM, "%s: out of memory", dm_h5_path(f)) : DM_OK;
}

static enum dm_status other_info(struct dm_h5 *f, json_t *out, struct dm_err *e)
{
    char **names;
    size_t n;
    int bad = 0;
    DM_TRY(dm_h5_attr_names(f, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        if (!json_object_get(out, names[i]))
            bad |= json_object_set_new(out, names[i], attribute(f, names[i]));
    dm_h5_free_names(names);
    if (bad)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dm_h5_path(f));
    return datasets(f, out, e);
}

enum dm_status dm_info_file(const char *path, json_t **out, struct dm_err *e)
{
    struct dm_h5 *f;
    uint64_t version;
    char *made_by;
    *out = NULL;
    DM_TRY(dm_h5_open(&f, path, NULL, SIZE_MAX, e));
    json_t *root = json_pack("{s:s}", "format", dm_h5_format(f));
    enum dm_status st = dm_h5_get_u64(f, "/", "version", &version, e);
    if (!st)
        st = dm_h5_get_string(f, "/", "made_by", &made_by, e);
    if (!st) {
        if (json_object_set_new(root, "version", json_integer((json_int_t)version)) |
            json_object_set_new(root, "made_by", json_string(made_by)))
            st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
        free(made_by);
    }
    if (!st)
        st = !strcmp(dm_h5_format(f), DM_MODEL_FORMAT) ? model_info(f, root, e)
                                                       : other_info(f, root, e);
    dm_h5_close(f);
    if (st)
        json_decref(root);
    else
        *out = root;
    return st;
}
