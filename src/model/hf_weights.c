/* SPDX-License-Identifier: MIT */
#include "src/model/hf_weights.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/json.h"
#include "src/base/provenance.h"
#include "src/model/hf.h"

enum { INDEX_MAX = 64 << 20, FILES_MAX = 1000 };

static const char unembed[] = "embed_out.weight", unembed_5[] = "lm_head.weight";
static const char torch_name[] = "pytorch_model.bin", index_end[] = ".index.json";

enum dm_status dm_hf_weights_name(const char **name, const char *dir, struct dm_err *e)
{
    static const char *const names[] = {DM_HF_BASE, "model.safetensors.index.json",
                                        "pytorch_model.bin", "pytorch_model.bin.index.json"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *path = dm_hf_path(dir, names[i]);
        if (!path)
            return dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
        const bool there = !access(path, F_OK);
        free(path);
        *name = names[i];
        if (there)
            return DM_OK;
    }
    return dm_fail(e, DM_EIO,
                   "%s: neither " DM_HF_BASE " nor pytorch_model.bin nor an index of either", dir);
}

/* ---- Files --------------------------------------------------------------------------------- */

static enum dm_status open_file(struct dm_hf_file *f, const char *dir, const char *name, bool torch,
                                json_t *inputs, struct dm_err *e)
{
    f->torch = torch;
    f->path = dm_hf_path(dir, name);
    if (!f->path)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
    DM_TRY(torch ? dm_torch_open(&f->pt, f->path, e) : dm_safetensors_open(&f->st, f->path, e));
    return dm_provenance_input(inputs, f->path, e);
}

static int by_name(const void *a, const void *b)
{
    const struct dm_hf_found *x = a, *y = b;
    return strcmp(x->t->name, y->t->name);
}

static const struct dm_hf_found *find_exact(const struct dm_hf_weights *w, const char *name)
{
    const struct dm_raw_tensor key = {.name = name};
    const struct dm_hf_found x = {&key, NULL};
    return w->n ? bsearch(&x, w->tensor, w->n, sizeof(x), by_name) : NULL;
}

/* The tensors of all files in one sorted list. */
static enum dm_status list_tensors(struct dm_hf_weights *w, struct dm_err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_files; i++)
        n += w->file[i].torch ? w->file[i].pt.n : w->file[i].st.n;
    w->tensor = dm_alloc(n, sizeof(*w->tensor));
    if (!w->tensor)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tensors", w->path, n);
    for (size_t i = 0; i < w->n_files; i++) {
        const struct dm_hf_file *f = w->file + i;
        const struct dm_raw_tensor *t = f->torch ? f->pt.tensor : f->st.tensor;
        for (size_t k = 0; k < (f->torch ? f->pt.n : f->st.n); k++)
            w->tensor[w->n++] = (struct dm_hf_found){t + k, f->path};
    }
    qsort(w->tensor, w->n, sizeof(*w->tensor), by_name);
    for (size_t i = 1; i < w->n; i++)
        if (!by_name(w->tensor + i - 1, w->tensor + i))
            return dm_fail(e, DM_EFORMAT, "%s: tensor %.100s is also in %s", w->tensor[i - 1].path,
                           w->tensor[i].t->name, w->tensor[i].path);
    if (find_exact(w, unembed) && find_exact(w, unembed_5))
        return dm_fail(e, DM_EFORMAT,
                       "%s: holds both %s and %s, two names of the same output embedding", w->path,
                       unembed, unembed_5);
    return DM_OK;
}

/* ---- Index --------------------------------------------------------------------------------- */

/* A plain name of a file in the same directory. */
static bool plain(const json_t *v)
{
    const char *s = json_string_value(v);
    if (!s || !*s || *s == '.' || strlen(s) != json_string_length(v) || strlen(s) > 255)
        return false;
    for (; *s; s++)
        if (*s == '/' || (unsigned char)*s < ' ')
            return false;
    return true;
}

/* Opens each file that the map names, once. */
static enum dm_status open_shards(struct dm_hf_weights *w, const char *dir, const json_t *map,
                                  bool torch, json_t *inputs, struct dm_err *e)
{
    const char *tensor, *names[FILES_MAX];
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, v)
    {
        size_t i = 0;
        if (!plain(v))
            return dm_fail(
                e, DM_EFORMAT,
                "%s: the file of %.100s is not the name of one in this directory: %.100s", w->path,
                tensor, json_is_string(v) ? json_string_value(v) : dm_json_type(v));
        while (i < w->n_files && strcmp(names[i], json_string_value(v)))
            i++;
        if (i < w->n_files)
            continue;
        if (i == FILES_MAX)
            return dm_fail(e, DM_ERANGE, "%s: names more than %d files", w->path, FILES_MAX);
        names[i] = json_string_value(v);
        w->n_files++;
        DM_TRY(open_file(w->file + i, dir, names[i], torch, inputs, e));
    }
    return DM_OK;
}

/* Every tensor of the map must be in its file, and every tensor of a file in the map. */
static enum dm_status check_map(const struct dm_hf_weights *w, const json_t *map, struct dm_err *e)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, name, v)
    {
        const struct dm_hf_found *x = find_exact(w, name);
        if (!x)
            return dm_fail(e, DM_EFORMAT, "%s: tensor %.100s is not in %s", w->path, name,
                           json_string_value(v));
        if (strcmp(strrchr(x->path, '/') + 1, json_string_value(v)))
            return dm_fail(e, DM_EFORMAT, "%s: tensor %.100s is in %s, the index says %s", w->path,
                           name, x->path, json_string_value(v));
    }
    for (size_t i = 0; i < w->n; i++)
        if (!json_object_get(map, w->tensor[i].t->name))
            return dm_fail(e, DM_EFORMAT, "%s: tensor %.100s of %s is not in the index", w->path,
                           w->tensor[i].t->name, w->tensor[i].path);
    return DM_OK;
}

static enum dm_status open_index(struct dm_hf_weights *w, const char *dir, bool torch,
                                 json_t *inputs, struct dm_err *e)
{
    json_t *root;
    DM_TRY(dm_json_read(w->path, INDEX_MAX, &root, e));
    const json_t *map = json_object_get(root, "weight_map");
    enum dm_status st = dm_provenance_input(inputs, w->path, e);
    if (!st && !json_object_size(map))
        st = dm_fail(e, DM_EFORMAT, "%s: \"weight_map\" is %s, want an object of tensors and files",
                     w->path, dm_json_type(map));
    if (!st && !(w->file = dm_alloc(FILES_MAX, sizeof(*w->file))))
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", w->path);
    if (!st)
        st = open_shards(w, dir, map, torch, inputs, e);
    if (!st)
        st = list_tensors(w, e);
    if (!st)
        st = check_map(w, map, e);
    json_decref(root);
    return st;
}

/* ---- Weights ------------------------------------------------------------------------------- */

enum dm_status dm_hf_weights_open(struct dm_hf_weights *w, const char *dir, const char *name,
                                  json_t *inputs, struct dm_err *e)
{
    const size_t n = strlen(name), n_end = strlen(index_end);
    const bool torch = !strncmp(name, torch_name, strlen(torch_name));
    *w = (struct dm_hf_weights){.path = dm_hf_path(dir, name)};
    if (!w->path)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
    if (n > n_end && !strcmp(name + n - n_end, index_end))
        return open_index(w, dir, torch, inputs, e);
    w->file = dm_alloc(1, sizeof(*w->file));
    if (!w->file)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
    w->n_files = 1;
    DM_TRY(open_file(w->file, dir, name, torch, inputs, e));
    return list_tensors(w, e);
}

void dm_hf_weights_close(struct dm_hf_weights *w)
{
    for (size_t i = 0; i < w->n_files; i++) {
        dm_safetensors_close(&w->file[i].st);
        dm_torch_close(&w->file[i].pt);
        free(w->file[i].path);
    }
    free(w->file);
    free(w->tensor);
    free(w->path);
    *w = (struct dm_hf_weights){0};
}

const char *dm_hf_weights_canonical(const char *name)
{
    return strcmp(name, unembed_5) ? name : unembed;
}

const struct dm_hf_found *dm_hf_weights_find(const struct dm_hf_weights *w, const char *name)
{
    const struct dm_hf_found *x = find_exact(w, name);
    return x || strcmp(name, unembed) ? x : find_exact(w, unembed_5);
}
