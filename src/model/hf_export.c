/* SPDX-License-Identifier: MIT */
#include "src/model/hf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/io/safetensors.h"

/* ---- config.json --------------------------------------------------------------------------- */

/* Text with numbers as short as they can be without losing a bit. */
static char *dump(const json_t *root)
{
    char *text = dm_json_text(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    json_t *back = text ? json_loads(text, 0, NULL) : NULL;
    if (text && !json_equal(back, root)) {
        free(text);
        text = dm_json_text(root, JSON_INDENT(2));
    }
    json_decref(back);
    char *line = NULL;
    if (text && asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    return line;
}

/* Sets the number format of an imported config, under its old name or its new one, when the weights
 * are in another by now. */
static void correct_dtype(json_t *root, const json_t *own, const struct dm_config *cfg)
{
    static const char *const keys[] = {"torch_dtype", "dtype"};
    struct dm_config imported;
    if (dm_config_from_json(&imported, root, "", NULL) || imported.dtype == cfg->dtype)
        return;
    bool had = false;
    for (int i = 0; i < 2; i++)
        if (json_object_get(root, keys[i])) {
            json_object_set(root, keys[i], json_object_get(own, "torch_dtype"));
            had = true;
        }
    if (!had)
        json_object_set(root, keys[0], json_object_get(own, "torch_dtype"));
}

/* The text that was imported if it says what the model is, otherwise the same with "dynamo" set or
 * removed and the number format put right. A model that was never imported writes its own config.
 */
static enum dm_status config_text(const struct dm_config *cfg, const struct dm_model_meta *meta,
                                  const char *where, char **text, struct dm_err *e)
{
    json_t *own = dm_config_to_json(cfg), *root = NULL;
    json_t *want = json_incref(json_object_get(own, "dynamo"));
    // Without heads the key is needed only for a vocabulary that no tokenizer tells.
    if (cfg->K == 1 && (meta->tokenizer || cfg->V == cfg->Vp)) {
        json_decref(want);
        want = NULL;
        json_object_del(own, "dynamo");
    }
    enum dm_status st = DM_OK;
    *text = NULL;
    if (meta->hf_config)
        st = dm_json_parse(meta->hf_config, strlen(meta->hf_config), where, &root, e);
    else
        root = json_incref(own);
    if (!st && meta->hf_config) {
        json_t *was = json_deep_copy(root);
        if (want)
            json_object_set(root, "dynamo", want);
        else
            json_object_del(root, "dynamo");
        correct_dtype(root, own, cfg);
        if (json_equal(was, root))
            *text = strdup(meta->hf_config);
        json_decref(was);
    }
    if (!st && !*text)
        *text = dump(root);
    if (!st && !*text)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", where);
    json_decref(own);
    json_decref(root);
    json_decref(want);
    return st;
}

/* ---- Weights ------------------------------------------------------------------------------- */

static const struct dm_tensor *find(const struct dm_tensor *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i].name, name))
            return list + i;
    return NULL;
}

/* The tensors of one file, in the model file's dtypes. */
static enum dm_status make_entries(struct dm_h5 *f, const struct dm_tensor *list, size_t n,
                                   bool heads, struct dm_st_entry *entries, size_t *n_entries,
                                   struct dm_err *e)
{
    *n_entries = 0;
    for (size_t i = 0; i < n; i++) {
        char path[128];
        if ((list[i].part == DM_PART_HEAD) != heads)
            continue;
        struct dm_st_entry *t = entries + (*n_entries)++;
        dm_model_tensor_path(path, list + i);
        *t = (struct dm_st_entry){.name = list[i].name};
        DM_TRY(dm_h5_tensor_shape(f, path, &t->dtype, &t->rows, &t->cols, e));
        if (dm_dtype_is_block(t->dtype))
            return dm_fail(e, DM_EUNSUPPORTED,
                           "%s: its weights are %s, which a Hugging Face directory cannot hold; "
                           "export the model that it was made from",
                           dm_h5_path(f), dm_dtype_name(t->dtype));
    }
    return DM_OK;
}

/* A file that is complete but for its commit. */
static enum dm_status write_weights(struct dm_st_writer **w, struct dm_h5 *f,
                                    const struct dm_tensor *list, size_t n, bool heads,
                                    const char *path, struct dm_err *e)
{
    struct dm_st_entry *entries = dm_alloc(n, sizeof(*entries));
    size_t n_entries;
    if (!entries)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    enum dm_status st = make_entries(f, list, n, heads, entries, &n_entries, e);
    if (!st)
        st = dm_st_create(w, path, entries, n_entries, "pt", e);
    for (size_t i = 0; !st && i < n_entries; i++) {
        const struct dm_tensor *t = find(list, n, entries[i].name);
        enum dm_dtype dtype;
        void *raw;
        st = dm_model_read_raw(f, t, &raw, &dtype, e);
        if (!st)
            st = dm_st_append(*w, raw, t->n * dm_dtype_size(dtype), e);
        free(raw);
    }
    free(entries);
    return st;
}

/* ---- The directory ------------------------------------------------------------------------- */

enum { FILE_CONFIG, FILE_TOKENIZER, FILE_BASE, FILE_HEADS, N_FILES };
static const char *const names[N_FILES] = {DM_HF_CONFIG, DM_HF_TOKENIZER, DM_HF_BASE, DM_HF_HEADS};

static enum dm_status prepare(const char *model, const char *dir, char *paths[N_FILES],
                              const bool wanted[N_FILES], bool force, bool *made, struct dm_err *e)
{
    *made = !mkdir(dir, 0777);
    if (!*made && errno != EEXIST)
        return dm_fail_errno(e, "%s: cannot make the directory", dir);
    for (int i = 0; i < N_FILES; i++) {
        paths[i] = dm_hf_path(dir, names[i]);
        if (!paths[i])
            return dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
        if (wanted[i] && !force && !access(paths[i], F_OK))
            return dm_fail(e, DM_EIO, "%s: exists already; --force replaces it", paths[i]);
        if (wanted[i])
            DM_TRY(dm_file_check_output(paths[i], &model, 1, e));
    }
    return DM_OK;
}

static enum dm_status commit(struct dm_st_writer **w, struct dm_err *e)
{
    struct dm_st_writer *done = *w;
    *w = NULL;
    return done ? dm_st_commit(done, e) : DM_OK;
}

static enum dm_status export_to(struct dm_h5 *f, const char *dir, bool force, struct dm_err *e)
{
    struct dm_config cfg;
    struct dm_model_meta meta;
    struct dm_tensor *list = NULL;
    char *paths[N_FILES] = {0}, *text = NULL;
    struct dm_st_writer *base = NULL, *heads = NULL;
    size_t n = 0;
    bool made = false;
    DM_TRY(dm_model_read_meta(f, &cfg, &meta, e));
    const bool wanted[N_FILES] = {true, meta.tokenizer != NULL, true, cfg.K > 1};
    enum dm_status st;
    DM_TRY_GOTO(dm_model_tensors(&cfg, &list, &n, e));
    DM_TRY_GOTO(dm_model_check_tensors(f, list, n, e));
    DM_TRY_GOTO(config_text(&cfg, &meta, dm_h5_path(f), &text, e));
    DM_TRY_GOTO(prepare(dm_h5_path(f), dir, paths, wanted, force, &made, e));
    DM_TRY_GOTO(write_weights(&base, f, list, n, false, paths[FILE_BASE], e));
    if (wanted[FILE_HEADS])
        DM_TRY_GOTO(write_weights(&heads, f, list, n, true, paths[FILE_HEADS], e));
    DM_TRY_GOTO(commit(&base, e)); // nothing has failed, so nothing is replaced in part
    DM_TRY_GOTO(commit(&heads, e));
    if (wanted[FILE_TOKENIZER])
        DM_TRY_GOTO(
            dm_file_write(paths[FILE_TOKENIZER], meta.tokenizer, strlen(meta.tokenizer), e));
    DM_TRY_GOTO(dm_file_write(paths[FILE_CONFIG], text, strlen(text), e));
done:
    dm_st_abort(base);
    dm_st_abort(heads);
    if (st && made)
        rmdir(dir); // stays if there is a file in it
    for (int i = 0; i < N_FILES; i++)
        free(paths[i]);
    free(text);
    free(list);
    dm_model_meta_release(&meta);
    return st;
}

enum dm_status dm_hf_export(const char *path, const char *dir, bool force, struct dm_err *e)
{
    struct dm_h5 *f;
    DM_TRY(dm_h5_open(&f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, e));
    const enum dm_status st = export_to(f, dir, force, e);
    dm_h5_close(f);
    return st;
}
