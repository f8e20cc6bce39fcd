/* SPDX-License-Identifier: MIT */
#include "src/model/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/json.h"

void dm_model_meta_release(struct dm_model_meta *meta)
{
    free(meta->tokenizer);
    free(meta->provenance);
    free(meta->calibration);
    free(meta->hf_config);
    free(meta->template);
    *meta = (struct dm_model_meta){0};
}

enum dm_status dm_model_check_tokenizer(const struct dm_model_meta *meta, const char *model,
                                        const char *hash, const char *path, struct dm_err *e)
{
    char own[DM_HASH_LEN + 1];
    if (!meta->tokenizer)
        return DM_OK;
    dm_sha256(meta->tokenizer, strlen(meta->tokenizer), own);
    if (!strcmp(own, hash))
        return DM_OK;
    return dm_fail(e, DM_EMISMATCH, "%s was made with another tokenizer (%.12s) than %s (%.12s)",
                   path, hash, model, own);
}

/* ---- Config and metadata ------------------------------------------------------------------- */

static enum dm_status read_config(struct dm_h5 *f, struct dm_config *cfg, struct dm_err *e)
{
    char *text;
    json_t *root;
    DM_TRY(dm_h5_get_string(f, "/", "config", &text, e));
    enum dm_status st = dm_json_parse(text, strlen(text), dm_h5_path(f), &root, e);
    free(text);
    DM_TRY(st);
    st = dm_config_from_json(cfg, root, dm_h5_path(f), e);
    json_decref(root);
    return st;
}

static enum dm_status optional(struct dm_h5 *f, const char *name, char **text, struct dm_err *e)
{
    *text = NULL;
    return dm_h5_has_attr(f, "/", name) ? dm_h5_get_string(f, "/", name, text, e) : DM_OK;
}

enum dm_status dm_model_read_meta(struct dm_h5 *f, struct dm_config *cfg,
                                  struct dm_model_meta *meta, struct dm_err *e)
{
    DM_TRY(read_config(f, cfg, e));
    if (!meta)
        return DM_OK;
    *meta = (struct dm_model_meta){0};
    enum dm_status st = dm_h5_get_string(f, "/", "provenance", &meta->provenance, e);
    if (!st)
        st = optional(f, "tokenizer", &meta->tokenizer, e);
    if (!st)
        st = optional(f, "calibration", &meta->calibration, e);
    if (!st)
        st = optional(f, "hf_config", &meta->hf_config, e);
    if (!st)
        st = optional(f, "template", &meta->template, e);
    if (st)
        dm_model_meta_release(meta);
    return st;
}

enum dm_status dm_model_write_meta(struct dm_h5 *f, const struct dm_config *cfg,
                                   const struct dm_model_meta *meta, struct dm_err *e)
{
    json_t *root = dm_config_to_json(cfg);
    char *text = root ? dm_json_text(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (!text)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dm_h5_path(f));
    enum dm_status st = dm_h5_set_string(f, "/", "config", text, e);
    free(text);
    DM_TRY(st);
    DM_TRY(dm_h5_set_string(f, "/", "provenance",
                            meta && meta->provenance ? meta->provenance : "{}", e));
    if (meta && meta->tokenizer)
        DM_TRY(dm_h5_set_string(f, "/", "tokenizer", meta->tokenizer, e));
    if (meta && meta->calibration)
        DM_TRY(dm_h5_set_string(f, "/", "calibration", meta->calibration, e));
    if (meta && meta->hf_config)
        DM_TRY(dm_h5_set_string(f, "/", "hf_config", meta->hf_config, e));
    if (meta && meta->template)
        DM_TRY(dm_h5_set_string(f, "/", "template", meta->template, e));
    return DM_OK;
}

static enum dm_status open_model(struct dm_h5 **f, const char *path, struct dm_err *e)
{
    return dm_h5_open(f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, e);
}

enum dm_status dm_model_peek(const char *path, struct dm_config *cfg, struct dm_model_meta *meta,
                             struct dm_err *e)
{
    struct dm_h5 *f;
    DM_TRY(open_model(&f, path, e));
    const enum dm_status st = dm_model_read_meta(f, cfg, meta, e);
    dm_h5_close(f);
    return st;
}

/* ---- Tensors ------------------------------------------------------------------------------- */

static enum dm_status list_tensors(const struct dm_params *p, const struct dm_config *cfg,
                                   struct dm_tensor **list, size_t *n, struct dm_err *e)
{
    *n = dm_params_list(p, cfg, DM_SCOPE_ALL, NULL);
    *list = dm_alloc(*n, sizeof(**list));
    if (!*list)
        return dm_fail(e, DM_ENOMEM, "out of memory for a list of %zu tensors", *n);
    dm_params_list(p, cfg, DM_SCOPE_ALL, *list);
    return DM_OK;
}

enum dm_status dm_model_tensors(const struct dm_config *cfg, struct dm_tensor **list, size_t *n,
                                struct dm_err *e)
{
    return list_tensors(NULL, cfg, list, n, e);
}

void dm_model_tensor_path(char path[128], const struct dm_tensor *t)
{
    snprintf(path, 128, "tensors/%s", t->name);
}

static enum dm_status check_shape(struct dm_h5 *f, const struct dm_tensor *t, enum dm_dtype *dtype,
                                  struct dm_err *e)
{
    char path[128];
    size_t rows, cols;
    dm_model_tensor_path(path, t);
    DM_TRY(dm_h5_tensor_shape(f, path, dtype, &rows, &cols, e));
    if (dm_dtype_is_block(*dtype) && (!t->cols || t->part == DM_PART_EMBED))
        return dm_fail(e, DM_EUNSUPPORTED, "%s: %s is %s, which only matrices of products can be",
                       dm_h5_path(f), t->name, dm_dtype_name(*dtype));
    if (rows != t->rows || cols != t->cols)
        return dm_fail(e, DM_ESHAPE, "%s: %s is (%zu,%zu), want (%zu,%zu)", dm_h5_path(f), t->name,
                       rows, cols, t->rows, t->cols);
    return DM_OK;
}

enum dm_status dm_model_check_tensors(struct dm_h5 *f, const struct dm_tensor *list, size_t n,
                                      struct dm_err *e)
{
    char **names;
    size_t n_names;
    enum dm_dtype dtype;
    for (size_t i = 0; i < n; i++)
        DM_TRY(check_shape(f, list + i, &dtype, e));
    DM_TRY(dm_h5_names(f, "tensors", &names, &n_names, e));
    dm_h5_free_names(names);
    if (n_names != n)
        return dm_fail(e, DM_EFORMAT, "%s: %zu tensors, want the %zu of its config", dm_h5_path(f),
                       n_names, n);
    return DM_OK;
}

enum dm_status dm_model_read_raw(struct dm_h5 *f, const struct dm_tensor *t, void **raw,
                                 enum dm_dtype *dtype, struct dm_err *e)
{
    char path[128];
    *raw = NULL;
    DM_TRY(check_shape(f, t, dtype, e));
    size_t bytes;
    *raw = dm_dtype_bytes(*dtype, t->rows, t->cols, &bytes) ? dm_alloc(bytes, 1) : NULL;
    if (!*raw)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %s", dm_h5_path(f), t->name);
    dm_model_tensor_path(path, t);
    const enum dm_status st = dm_h5_read_tensor(f, path, *raw, t->rows, t->cols, e);
    if (st) {
        free(*raw);
        *raw = NULL;
    }
    return st;
}

/* ---- Writing ------------------------------------------------------------------------------- */

static enum dm_status copy_tensor(struct dm_h5 *to, struct dm_h5 *from, const struct dm_tensor *t,
                                  struct dm_err *e)
{
    char path[128];
    void *raw;
    enum dm_dtype dtype;
    DM_TRY(dm_model_read_raw(from, t, &raw, &dtype, e));
    dm_model_tensor_path(path, t);
    const enum dm_status st = dm_h5_write_tensor(to, path, dtype, raw, t->rows, t->cols, e);
    free(raw);
    return st;
}

static enum dm_status save_tensor(struct dm_h5 *f, const struct dm_tensor *t, enum dm_dtype dtype,
                                  struct dm_err *e)
{
    char path[128];
    dm_model_tensor_path(path, t);
    if (dtype == DM_F32)
        return dm_h5_write_tensor(f, path, dtype, t->data, t->rows, t->cols, e);
    void *raw = dm_alloc(t->n, dm_dtype_size(dtype));
    if (!raw)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %s", dm_h5_path(f), t->name);
    dm_dtype_from_f32(raw, dtype, t->data, t->n);
    const enum dm_status st = dm_h5_write_tensor(f, path, dtype, raw, t->rows, t->cols, e);
    free(raw);
    return st;
}

static enum dm_status save_all(struct dm_h5 *f, struct dm_h5 *from, const struct dm_model *m,
                               const struct dm_model_meta *meta, enum dm_dtype base,
                               enum dm_dtype heads, struct dm_err *e)
{
    struct dm_config cfg = m->cfg, source;
    struct dm_tensor *list;
    size_t n;
    cfg.dtype = base;
    if (from) {
        DM_TRY(read_config(from, &source, e));
        cfg.dtype = source.dtype;
    }
    DM_TRY(dm_model_write_meta(f, &cfg, meta, e));
    DM_TRY(list_tensors(&m->params, &cfg, &list, &n, e));
    enum dm_status st = DM_OK;
    for (size_t i = 0; !st && i < n; i++)
        if (list[i].part == DM_PART_HEAD)
            st = save_tensor(f, list + i, heads, e);
        else if (from)
            st = copy_tensor(f, from, list + i, e);
        else
            st = save_tensor(f, list + i, base, e);
    free(list);
    return st;
}

enum dm_status dm_model_save(const struct dm_model *m, const struct dm_model_meta *meta,
                             const char *path, const char *base_file, enum dm_dtype base,
                             enum dm_dtype heads, struct dm_err *e)
{
    struct dm_h5 *f = NULL, *from = NULL;
    if (base_file)
        DM_TRY(open_model(&from, base_file, e));
    enum dm_status st = dm_h5_create(&f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, e);
    if (!st)
        st = save_all(f, from, m, meta, base, heads, e);
    dm_h5_close(from);
    if (!st)
        return dm_h5_commit(f, e);
    dm_h5_close(f);
    return st;
}

static enum dm_status copy_all(struct dm_h5 *to, struct dm_h5 *from, const char *calibration,
                               struct dm_err *e)
{
    struct dm_config cfg;
    struct dm_model_meta meta;
    struct dm_tensor *list = NULL;
    size_t n = 0;
    DM_TRY(dm_model_read_meta(from, &cfg, &meta, e));
    free(meta.calibration);
    meta.calibration = calibration ? strdup(calibration) : NULL;
    enum dm_status st = calibration && !meta.calibration
                            ? dm_fail(e, DM_ENOMEM, "%s: out of memory", dm_h5_path(to))
                            : dm_model_write_meta(to, &cfg, &meta, e);
    dm_model_meta_release(&meta);
    if (!st)
        st = list_tensors(NULL, &cfg, &list, &n, e);
    if (!st)
        st = dm_model_check_tensors(from, list, n, e);
    for (size_t i = 0; !st && i < n; i++)
        st = copy_tensor(to, from, list + i, e);
    free(list);
    return st;
}

enum dm_status dm_model_set_calibration(const char *path, const char *calibration, struct dm_err *e)
{
    struct dm_h5 *f = NULL, *from;
    DM_TRY(open_model(&from, path, e));
    enum dm_status st = dm_h5_create(&f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, e);
    if (!st)
        st = copy_all(f, from, calibration, e);
    dm_h5_close(from);
    if (!st)
        return dm_h5_commit(f, e);
    dm_h5_close(f);
    return st;
}

/* ---- Hash ---------------------------------------------------------------------------------- */

/* The text that is hashed: the config, then "name dtype hash" of each tensor, a line each. */
static enum dm_status hash_text(struct dm_h5 *f, FILE *out, struct dm_err *e)
{
    struct dm_config cfg;
    struct dm_tensor *list;
    char *text, path[128];
    size_t n, rows, cols;
    DM_TRY(read_config(f, &cfg, e));
    DM_TRY(dm_h5_get_string(f, "/", "config", &text, e));
    fprintf(out, "%s\n", text);
    free(text);
    DM_TRY(list_tensors(NULL, &cfg, &list, &n, e));
    enum dm_status st = DM_OK;
    for (size_t i = 0; !st && i < n; i++) {
        enum dm_dtype dtype;
        dm_model_tensor_path(path, list + i);
        st = dm_h5_tensor_shape(f, path, &dtype, &rows, &cols, e);
        if (!st)
            st = dm_h5_get_string(f, path, "sha256", &text, e);
        if (st)
            break;
        fprintf(out, "%s %s %s\n", list[i].name, dm_dtype_name(dtype), text);
        free(text);
    }
    free(list);
    return st;
}

enum dm_status dm_model_hash(const char *path, char hex[65], struct dm_err *e)
{
    struct dm_h5 *f;
    char *text = NULL;
    size_t n = 0;
    DM_TRY(open_model(&f, path, e));
    FILE *out = open_memstream(&text, &n);
    enum dm_status st = out ? hash_text(f, out, e) : dm_fail_errno(e, "%s", path);
    dm_h5_close(f);
    if (out && fclose(out) && !st)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    if (!st)
        dm_sha256(text, n, hex);
    free(text);
    return st;
}
