/* SPDX-License-Identifier: MIT */
#include "train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/io/h5.h"

#define FORMAT "dynamo-checkpoint"
#define VERSION 1

/* The three datasets of a slot. */
static const char *const groups[] = {"params", "m", "v"};
enum { N_GROUPS = sizeof(groups) / sizeof(groups[0]), NAME_MAX_ = 112 };

static float *group_data(const struct dm_adamw_slot *s, int group)
{
    float *const data[] = {s->p, s->m, s->v};
    return data[group];
}

static void dataset_name(char out[NAME_MAX_], const struct dm_adamw_slot *s, int group)
{
    snprintf(out, NAME_MAX_, "%s/%s", groups[group], s->name);
}

void dm_checkpoint_release(struct dm_checkpoint *c)
{
    json_decref(c->run);
    *c = (struct dm_checkpoint){0};
}

static char *state_text(const struct dm_checkpoint *c)
{
    json_t *s = json_pack("{s:I, s:I, s:I, s:I, s:O}", "step", (json_int_t)c->step, "epoch",
                          (json_int_t)c->pos.epoch, "index", (json_int_t)c->pos.index, "best_step",
                          (json_int_t)c->best_step, "run", c->run);
    if (!s)
        return NULL;
    // JSON has no infinity, which is what "none yet" looks like to the caller.
    json_object_set_new(s, "best", c->best_step ? json_real(c->best) : json_null());
    char *text = json_dumps(s, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(s);
    return text;
}

/* Writes the tensors and collects the hashes that the writer stored beside them. */
static enum dm_status write_slots(struct dm_h5 *f, const struct dm_adamw *a, json_t *hashes,
                                  struct dm_err *e)
{
    char name[NAME_MAX_], *hash;
    for (int g = 0; g < N_GROUPS; g++)
        for (size_t i = 0; i < a->n_slots; i++) {
            const struct dm_adamw_slot *s = &a->slot[i];
            dataset_name(name, s, g);
            DM_TRY(dm_h5_write_tensor(f, name, DM_F32, group_data(s, g), s->rows, s->cols, e));
            DM_TRY(dm_h5_get_string(f, name, "sha256", &hash, e));
            json_object_set_new(hashes, name, json_string(hash));
            free(hash);
        }
    return DM_OK;
}

enum dm_status dm_checkpoint_save(const char *path, const struct dm_checkpoint *c,
                                  const struct dm_adamw *a, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    struct dm_h5 *f = NULL;
    char *state = state_text(c), *manifest = NULL, hex[DM_HASH_LEN + 1];
    json_t *hashes = json_object();
    if (!state || !hashes) {
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
        goto done;
    }
    DM_TRY_GOTO(dm_h5_create(&f, path, FORMAT, VERSION, e));
    DM_TRY_GOTO(dm_h5_set_string(f, "/", "state", state, e));
    DM_TRY_GOTO(write_slots(f, a, hashes, e));
    dm_sha256(state, strlen(state), hex);
    json_object_set_new(hashes, "state", json_string(hex));
    manifest = json_dumps(hashes, JSON_COMPACT | JSON_SORT_KEYS);
    if (!manifest) {
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
        goto done;
    }
    DM_TRY_GOTO(dm_h5_set_string(f, "/", "manifest", manifest, e));
    st = dm_h5_commit(f, e);
    f = NULL;
done:
    dm_h5_close(f);
    json_decref(hashes);
    free(manifest);
    free(state);
    return st;
}

/* Reads a JSON attribute of the root. */
static enum dm_status read_json(struct dm_h5 *f, const char *name, json_t **out, char **text,
                                struct dm_err *e)
{
    DM_TRY(dm_h5_get_string(f, "/", name, text, e));
    DM_TRY(dm_json_parse(*text, strlen(*text), dm_h5_path(f), out, e));
    if (!json_is_object(*out))
        return dm_fail(e, DM_EFORMAT, "%s: attribute %s is %s, want an object", dm_h5_path(f), name,
                       dm_json_type(*out));
    return DM_OK;
}

static enum dm_status check_hash(const json_t *manifest, const char *name, const char *hash,
                                 const char *path, struct dm_err *e)
{
    const char *want;
    DM_TRY(dm_json_string(manifest, name, true, path, &want, e));
    if (strcmp(want, hash))
        return dm_fail(e, DM_EFORMAT, "%s: %s has hash %.12s..., the manifest says %.12s...", path,
                       name, hash, want);
    return DM_OK;
}

static enum dm_status parse_state(struct dm_checkpoint *c, const json_t *s, const char *path,
                                  struct dm_err *e)
{
    size_t step = 0, epoch = 0, index = 0, best_step = 0;
    json_t *run = json_object_get(s, "run");
    DM_TRY(dm_json_size(s, "step", 0, INT64_MAX, true, path, &step, e));
    DM_TRY(dm_json_size(s, "epoch", 0, INT64_MAX, true, path, &epoch, e));
    DM_TRY(dm_json_size(s, "index", 0, INT64_MAX, true, path, &index, e));
    DM_TRY(dm_json_size(s, "best_step", 0, step, true, path, &best_step, e));
    c->best = INFINITY;
    DM_TRY(dm_json_number(s, "best", best_step > 0, path, &c->best, e));
    if (!json_is_object(run))
        return dm_fail(e, DM_EFORMAT, "%s: \"run\" is %s, want an object", path, dm_json_type(run));
    c->step = step;
    c->pos = (struct dm_loader_pos){.epoch = epoch, .index = index};
    c->best_step = best_step;
    c->run = json_incref(run);
    return DM_OK;
}

/* Opens the file and reads its state and manifest. */
static enum dm_status open_checked(struct dm_h5 **f, struct dm_checkpoint *c, json_t **manifest,
                                   const char *path, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    json_t *state = NULL;
    char *text = NULL, *manifest_text = NULL, hex[DM_HASH_LEN + 1];
    *manifest = NULL;
    *f = NULL;
    DM_TRY_GOTO(dm_h5_open(f, path, FORMAT, VERSION, e));
    DM_TRY_GOTO(read_json(*f, "manifest", manifest, &manifest_text, e));
    DM_TRY_GOTO(read_json(*f, "state", &state, &text, e));
    dm_sha256(text, strlen(text), hex);
    DM_TRY_GOTO(check_hash(*manifest, "state", hex, path, e));
    DM_TRY_GOTO(parse_state(c, state, path, e));
done:
    json_decref(state);
    free(manifest_text);
    free(text);
    return st;
}

enum dm_status dm_checkpoint_peek(struct dm_checkpoint *c, const char *path, struct dm_err *e)
{
    struct dm_h5 *f;
    json_t *manifest;
    *c = (struct dm_checkpoint){0};
    enum dm_status st = open_checked(&f, c, &manifest, path, e);
    if (st)
        dm_checkpoint_release(c);
    json_decref(manifest);
    dm_h5_close(f);
    return st;
}

static enum dm_status read_slot(struct dm_h5 *f, const json_t *manifest,
                                const struct dm_adamw_slot *s, int group, struct dm_err *e)
{
    char name[NAME_MAX_], *hash;
    enum dm_dtype t;
    size_t rows, cols;
    dataset_name(name, s, group);
    DM_TRY(dm_h5_tensor_shape(f, name, &t, &rows, &cols, e));
    if (t != DM_F32)
        return dm_fail(e, DM_EFORMAT, "%s: %s is %s, want f32", dm_h5_path(f), name,
                       dm_dtype_name(t));
    DM_TRY(dm_h5_get_string(f, name, "sha256", &hash, e));
    enum dm_status st = check_hash(manifest, name, hash, dm_h5_path(f), e);
    free(hash);
    DM_TRY(st);
    return dm_h5_read_tensor(f, name, group_data(s, group), s->rows, s->cols, e);
}

enum dm_status dm_checkpoint_load(struct dm_adamw *a, const char *path, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    struct dm_checkpoint c = {0};
    struct dm_h5 *f;
    json_t *manifest;
    DM_TRY_GOTO(open_checked(&f, &c, &manifest, path, e));
    for (int g = 0; g < N_GROUPS; g++)
        for (size_t i = 0; i < a->n_slots; i++)
            DM_TRY_GOTO(read_slot(f, manifest, &a->slot[i], g, e));
    a->t = c.step;
done:
    dm_checkpoint_release(&c);
    json_decref(manifest);
    dm_h5_close(f);
    return st;
}
