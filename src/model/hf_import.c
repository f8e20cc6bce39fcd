/* SPDX-License-Identifier: MIT */
#include "src/model/hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/provenance.h"
#include "src/io/tokenizer.h"
#include "src/model/hf_weights.h"

enum { CONFIG_MAX = 16 << 20, TOKENIZER_MAX = 256 << 20 };

/* What is read from the directory. */
struct source {
    const char *dir, *out; // the model file, which must be none of them
    struct dm_config cfg;
    struct dm_model_meta meta;
    struct dm_hf_weights base, heads;
    struct dm_tensor *list;
    size_t n;
    json_t *inputs; // names and hashes of the files read
};

char *dm_hf_path(const char *dir, const char *name)
{
    char *path = NULL;
    const char *slash = *dir && dir[strlen(dir) - 1] == '/' ? "" : "/";
    return asprintf(&path, "%s%s%s", dir, slash, name) < 0 ? NULL : path;
}

static bool exists(const char *dir, const char *name)
{
    char *path = dm_hf_path(dir, name);
    const bool there = path && !access(path, F_OK);
    free(path);
    return there;
}

/* Calls read(s, path) and notes the file's hash. */
static enum dm_status
with_file(struct source *s, const char *name,
          enum dm_status (*read)(struct source *, const char *, struct dm_err *), struct dm_err *e)
{
    char *path = dm_hf_path(s->dir, name);
    if (!path)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", s->dir);
    enum dm_status st = dm_file_check_output(s->out, (const char *const[]){path}, 1, e);
    if (!st)
        st = read(s, path, e);
    if (!st)
        st = dm_provenance_input(s->inputs, path, e);
    free(path);
    return st;
}

static enum dm_status read_config(struct source *s, const char *path, struct dm_err *e)
{
    json_t *root;
    size_t n;
    DM_TRY(dm_file_read(path, CONFIG_MAX, &s->meta.hf_config, &n, e));
    DM_TRY(dm_json_parse(s->meta.hf_config, n, path, &root, e));
    const enum dm_status st = dm_config_from_json(&s->cfg, root, path, e);
    json_decref(root);
    return st;
}

static enum dm_status read_tokenizer(struct source *s, const char *path, struct dm_err *e)
{
    struct dm_tokenizer *t;
    size_t n;
    DM_TRY(dm_file_read(path, TOKENIZER_MAX, &s->meta.tokenizer, &n, e));
    DM_TRY(dm_tokenizer_parse(&t, s->meta.tokenizer, n, path, e));
    s->cfg.V = dm_tokenizer_size(t);
    dm_tokenizer_free(t);
    if (s->cfg.V < 1 || s->cfg.V > s->cfg.Vp)
        return dm_fail(e, DM_EMISMATCH, "%s: %zu tokens, but the model's vocab_size is %zu", path,
                       s->cfg.V, s->cfg.Vp);
    return DM_OK;
}

/* Buffers that older files carry along; they follow from the config. */
static bool skipped(const char *name)
{
    static const char *const ends[] = {".attention.bias", ".attention.masked_bias",
                                       ".attention.rotary_emb.inv_freq"};
    const char *layers = "gpt_neox.layers.";
    if (strncmp(name, layers, strlen(layers)))
        return false;
    name += strlen(layers);
    name += strspn(name, "0123456789");
    for (size_t i = 0; i < 3; i++)
        if (!strcmp(name, ends[i]))
            return true;
    return false;
}

static enum dm_status check_tensor(const struct dm_hf_weights *w, const struct dm_tensor *t,
                                   struct dm_err *e)
{
    const struct dm_hf_found *found = dm_hf_weights_find(w, t->name);
    char shape[128] = "";
    if (!found)
        return dm_fail(e, DM_EFORMAT, "%s: tensor %s is missing", w->path, t->name);
    const struct dm_raw_tensor *x = found->t;
    if (!x->usable)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: %s has dtype %.20s, want F32, F16 or BF16",
                       found->path, t->name, x->type_name);
    if (x->rank == (t->cols ? 2 : 1) && x->dim[0] == t->rows && (!t->cols || x->dim[1] == t->cols))
        return DM_OK;
    for (size_t i = 0, n = 0; i < x->rank && n < sizeof(shape) - 24; i++)
        n += (size_t)snprintf(shape + n, sizeof(shape) - n, "%s%zu", i ? "," : "", x->dim[i]);
    if (t->cols)
        return dm_fail(e, DM_ESHAPE, "%s: %s is (%s), want (%zu,%zu)", found->path, t->name, shape,
                       t->rows, t->cols);
    return dm_fail(e, DM_ESHAPE, "%s: %s is (%s), want (%zu)", found->path, t->name, shape,
                   t->rows);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct dm_tensor *)a)->name, ((const struct dm_tensor *)b)->name);
}

/* The weights hold the tensors of this list, and no other. */
static enum dm_status check_weights(const struct dm_hf_weights *w, const struct dm_tensor *list,
                                    size_t n, struct dm_err *e)
{
    for (size_t i = 0; i < n; i++)
        DM_TRY(check_tensor(w, list + i, e));
    struct dm_tensor *sorted = dm_alloc(n, sizeof(*sorted)), key;
    if (!sorted)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", w->path);
    memcpy(sorted, list, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_name);
    enum dm_status st = DM_OK;
    for (size_t k = 0; !st && k < w->n; k++) {
        const char *name = w->tensor[k].t->name, *known = dm_hf_weights_canonical(name);
        snprintf(key.name, sizeof(key.name), "%s", known);
        if ((strcmp(key.name, known) || !bsearch(&key, sorted, n, sizeof(key), by_name)) &&
            !skipped(name))
            st = dm_fail(e, DM_EFORMAT, "%s: tensor %.100s is unknown", w->tensor[k].path, name);
    }
    free(sorted);
    return st;
}

static enum dm_status check_all(struct source *s, struct dm_err *e)
{
    DM_TRY(dm_model_tensors(&s->cfg, &s->list, &s->n, e));
    const size_t n_base = dm_params_list(NULL, &s->cfg, DM_SCOPE_BASE, NULL);
    DM_TRY(check_weights(&s->base, s->list, n_base, e));
    if (s->cfg.K > 1)
        DM_TRY(check_weights(&s->heads, s->list + n_base, s->n - n_base, e));
    // What config.json says may be stale.
    s->cfg.dtype = dm_hf_weights_find(&s->base, s->list[0].name)->t->dtype;
    return DM_OK;
}

static enum dm_status open_weights(struct source *s, struct dm_hf_weights *w, const char *name,
                                   struct dm_err *e)
{
    DM_TRY(dm_hf_weights_open(w, s->dir, name, s->inputs, e));
    DM_TRY(dm_file_check_output(s->out, (const char *const[]){w->path}, 1, e));
    for (size_t i = 0; i < w->n_files; i++)
        DM_TRY(dm_file_check_output(s->out, (const char *const[]){w->file[i].path}, 1, e));
    return DM_OK;
}

static enum dm_status read_source(struct source *s, bool tokenizer, struct dm_err *e)
{
    DM_TRY(with_file(s, DM_HF_CONFIG, read_config, e));
    if (tokenizer && !exists(s->dir, DM_HF_TOKENIZER))
        return dm_fail(e, DM_EIO,
                       "%s: no " DM_HF_TOKENIZER "; take it from where the model came from, or "
                       "give --no-tokenizer for a model of token ids only",
                       s->dir);
    if (tokenizer)
        DM_TRY(with_file(s, DM_HF_TOKENIZER, read_tokenizer, e));
    const char *weights = NULL;
    DM_TRY(dm_hf_weights_name(&weights, s->dir, e));
    DM_TRY(open_weights(s, &s->base, weights, e));
    if (s->cfg.K > 1)
        DM_TRY(open_weights(s, &s->heads, DM_HF_HEADS, e));
    return check_all(s, e);
}

/* One tensor is in memory at a time: its pages of the map, or a copy in order. */
static enum dm_status write_tensor(struct dm_h5 *f, const struct dm_tensor *t,
                                   const struct dm_raw_tensor *x, struct dm_err *e)
{
    char name[128];
    void *copy = NULL;
    dm_model_tensor_path(name, t);
    if (x->strided) {
        copy = dm_alloc(x->n_bytes, 1);
        if (!copy)
            return dm_fail(e, DM_ENOMEM, "%s: out of memory for %s", dm_h5_path(f), t->name);
        dm_raw_gather(copy, x);
    }
    const enum dm_status st = dm_h5_write_tensor(f, name, x->dtype, copy ? copy : x->data, t->rows,
                                                 t->cols, e);
    if (!copy)
        dm_map_drop(x->data, x->n_bytes);
    free(copy);
    return st;
}

static enum dm_status write_model(const struct source *s, const char *path, struct dm_err *e)
{
    struct dm_h5 *f;
    DM_TRY(dm_h5_create(&f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, e));
    enum dm_status st = dm_model_write_meta(f, &s->cfg, &s->meta, e);
    for (size_t i = 0; !st && i < s->n; i++) {
        const struct dm_tensor *t = s->list + i;
        const struct dm_hf_weights *w = t->part == DM_PART_HEAD ? &s->heads : &s->base;
        st = write_tensor(f, t, dm_hf_weights_find(w, t->name)->t, e);
    }
    if (!st)
        return dm_h5_commit(f, e);
    dm_h5_close(f);
    return st;
}

enum dm_status dm_hf_import(const char *dir, const char *path, bool tokenizer, int argc,
                            char *const *argv, struct dm_err *e)
{
    struct source s = {.dir = dir, .out = path, .inputs = json_array()};
    enum dm_status st = read_source(&s, tokenizer, e);
    if (!st) {
        json_t *extra = json_pack("{s:O}", "inputs", s.inputs);
        s.meta.provenance = extra ? dm_provenance(argc, argv, extra) : NULL;
        st = s.meta.provenance ? write_model(&s, path, e)
                               : dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
    }
    free(s.list);
    dm_hf_weights_close(&s.base);
    dm_hf_weights_close(&s.heads);
    dm_model_meta_release(&s.meta);
    json_decref(s.inputs);
    return st;
}
