/* SPDX-License-Identifier: MIT */
#include "src/model/hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/provenance.h"
#include "src/io/safetensors.h"
#include "src/io/tokenizer.h"

enum { CONFIG_MAX = 16 << 20, TOKENIZER_MAX = 256 << 20 };

/* What is read from the directory. */
struct source {
    const char *dir;
    struct dm_config cfg;
    struct dm_model_meta meta;
    struct dm_safetensors base, heads;
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
    enum dm_status st = read(s, path, e);
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

static enum dm_status read_base(struct source *s, const char *path, struct dm_err *e)
{
    return dm_safetensors_open(&s->base, path, e);
}

static enum dm_status read_heads(struct source *s, const char *path, struct dm_err *e)
{
    return dm_safetensors_open(&s->heads, path, e);
}

/* Weights in a format that is not read get a sentence of their own. */
static enum dm_status find_weights(const struct source *s, struct dm_err *e)
{
    static const struct {
        const char *name, *what;
    } others[] = {{"model.safetensors.index.json", "safetensors in several files are"},
                  {"pytorch_model.bin", "pytorch_model.bin is"},
                  {"pytorch_model.bin.index.json", "pytorch_model.bin in several files is"}};
    if (exists(s->dir, DM_HF_BASE))
        return DM_OK;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (exists(s->dir, others[i].name))
            return dm_fail(e, DM_EUNSUPPORTED,
                           "%s: no " DM_HF_BASE ", and %s not yet read; save the model with "
                           "transformers' save_pretrained() as one safetensors file",
                           s->dir, others[i].what);
    return dm_fail(e, DM_EIO, "%s: no " DM_HF_BASE, s->dir);
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

static enum dm_status check_tensor(const struct dm_safetensors *st, const struct dm_tensor *t,
                                   const char *path, struct dm_err *e)
{
    const struct dm_st_tensor *x = dm_safetensors_find(st, t->name);
    char found[128] = "";
    if (!x)
        return dm_fail(e, DM_EFORMAT, "%s: tensor %s is missing", path, t->name);
    if (!x->usable)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: %s has dtype %.20s, want F32, F16 or BF16", path,
                       t->name, x->type_name);
    if (x->rank == (t->cols ? 2 : 1) && x->dim[0] == t->rows && (!t->cols || x->dim[1] == t->cols))
        return DM_OK;
    for (size_t i = 0, n = 0; i < x->rank && n < sizeof(found) - 24; i++)
        n += (size_t)snprintf(found + n, sizeof(found) - n, "%s%zu", i ? "," : "", x->dim[i]);
    if (t->cols)
        return dm_fail(e, DM_ESHAPE, "%s: %s is (%s), want (%zu,%zu)", path, t->name, found,
                       t->rows, t->cols);
    return dm_fail(e, DM_ESHAPE, "%s: %s is (%s), want (%zu)", path, t->name, found, t->rows);
}

/* The tensors of one file: those of the list with this part, and no other. */
static enum dm_status check_file(const struct source *s, const struct dm_safetensors *st,
                                 bool heads, const char *path, struct dm_err *e)
{
    for (size_t i = 0; i < s->n; i++)
        if ((s->list[i].part == DM_PART_HEAD) == heads)
            DM_TRY(check_tensor(st, s->list + i, path, e));
    for (size_t k = 0; k < st->n; k++) {
        size_t i = 0;
        while (i < s->n && (strcmp(s->list[i].name, st->tensor[k].name) ||
                            (s->list[i].part == DM_PART_HEAD) != heads))
            i++;
        if (i == s->n && !skipped(st->tensor[k].name))
            return dm_fail(e, DM_EFORMAT, "%s: tensor %.100s is unknown", path, st->tensor[k].name);
    }
    return DM_OK;
}

static enum dm_status check_all(struct source *s, struct dm_err *e)
{
    DM_TRY(dm_model_tensors(&s->cfg, &s->list, &s->n, e));
    char *path = dm_hf_path(s->dir, DM_HF_BASE), *heads = dm_hf_path(s->dir, DM_HF_HEADS);
    enum dm_status st = DM_OK;
    if (!path || !heads)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", s->dir);
    if (!st)
        st = check_file(s, &s->base, false, path, e);
    if (!st && s->cfg.K > 1)
        st = check_file(s, &s->heads, true, heads, e);
    free(path);
    free(heads);
    if (!st) // what config.json says may be stale
        s->cfg.dtype = dm_safetensors_find(&s->base, s->list[0].name)->dtype;
    return st;
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
    DM_TRY(find_weights(s, e));
    DM_TRY(with_file(s, DM_HF_BASE, read_base, e));
    if (s->cfg.K > 1)
        DM_TRY(with_file(s, DM_HF_HEADS, read_heads, e));
    return check_all(s, e);
}

static enum dm_status write_model(const struct source *s, const char *path, struct dm_err *e)
{
    struct dm_h5 *f;
    DM_TRY(dm_h5_create(&f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, e));
    enum dm_status st = dm_model_write_meta(f, &s->cfg, &s->meta, e);
    for (size_t i = 0; !st && i < s->n; i++) {
        char name[128];
        const struct dm_tensor *t = s->list + i;
        const struct dm_st_tensor *x = dm_safetensors_find(
            t->part == DM_PART_HEAD ? &s->heads : &s->base, t->name);
        dm_model_tensor_path(name, t);
        st = dm_h5_write_tensor(f, name, x->dtype, x->data, t->rows, t->cols, e);
    }
    if (!st)
        return dm_h5_commit(f, e);
    dm_h5_close(f);
    return st;
}

enum dm_status dm_hf_import(const char *dir, const char *path, bool tokenizer, int argc,
                            char *const *argv, struct dm_err *e)
{
    struct source s = {.dir = dir, .inputs = json_array()};
    enum dm_status st = read_source(&s, tokenizer, e);
    if (!st) {
        s.meta.provenance = dm_provenance(argc, argv, json_pack("{s:O}", "inputs", s.inputs));
        st = s.meta.provenance ? write_model(&s, path, e)
                               : dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
    }
    free(s.list);
    dm_safetensors_close(&s.base);
    dm_safetensors_close(&s.heads);
    dm_model_meta_release(&s.meta);
    json_decref(s.inputs);
    return st;
}
