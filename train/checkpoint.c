/* SPDX-License-Identifier: MIT */
#include "train/checkpoint.h"

#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/io/h5.h"

#define FORMAT "dynamo-checkpoint"
#define VERSION 2
#define BATCH "batch"

/* The datasets of a slot. */
static const char *const groups[] = {"params", "m", "v", "grad"};
enum { N_GROUPS = 3, GRAD = 3, NAME_MAX_ = 112 };

static float *group_data(const struct dm_adamw_slot *s, int group)
{
    float *const data[] = {s->p, s->m, s->v, s->g};
    return data[group];
}

static void dataset_name(char out[NAME_MAX_], const struct dm_adamw_slot *s, int group)
{
    snprintf(out, NAME_MAX_, "%s/%s", groups[group], s->name);
}

void dm_checkpoint_release(struct dm_checkpoint *c)
{
    json_decref(c->run);
    json_decref(c->guard);
    *c = (struct dm_checkpoint){0};
}

static char *state_text(const struct dm_checkpoint *c, const struct dm_adamw *a)
{
    json_t *s = json_pack("{s:I, s:I, s:I, s:I, s:O}", "step", (json_int_t)c->step, "updates",
                          (json_int_t)a->t, "drawn", (json_int_t)c->drawn, "best_step",
                          (json_int_t)c->best_step, "run", c->run);
    if (!s)
        return NULL;
    // JSON has no infinity, which is what "none yet" looks like to the caller.
    json_object_set_new(s, "best", c->best_step ? json_real(c->best) : json_null());
    if (c->guard)
        json_object_set(s, "guard", c->guard);
    char *text = dm_json_text(s, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(s);
    return text;
}

/* Writes the tensors of a group and collects the hashes that the writer stored beside them. */
static enum dm_status write_group(struct dm_h5 *f, const struct dm_adamw *a, int g, json_t *hashes,
                                  struct dm_err *e)
{
    char name[NAME_MAX_], *hash;
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

/* What a file for replay has besides. */
struct replay {
    const int32_t *ids;
    size_t B, T;
};

static enum dm_status write_replay(struct dm_h5 *f, const struct dm_adamw *a,
                                   const struct replay *r, json_t *hashes, struct dm_err *e)
{
    char *hash;
    DM_TRY(write_group(f, a, GRAD, hashes, e));
    DM_TRY(dm_h5_write(f, BATCH, DM_H5_I32, r->ids, r->B, r->T, 0, e));
    DM_TRY(dm_h5_get_string(f, BATCH, "sha256", &hash, e));
    json_object_set_new(hashes, BATCH, json_string(hash));
    free(hash);
    return DM_OK;
}

size_t dm_checkpoint_bytes(size_t n_total)
{
    return N_GROUPS * sizeof(float) * n_total + ((size_t)64 << 10);
}

/* A write that fails half-way has filled the disk for everybody. */
static enum dm_status check_room(const char *path, const struct dm_adamw *a, struct dm_err *e)
{
    char dir[PATH_MAX];
    struct statvfs v;
    snprintf(dir, sizeof(dir), "%s", path);
    if (statvfs(dirname(dir), &v))
        return DM_OK; // the write itself says why
    const double room = (double)v.f_bavail * (double)v.f_frsize;
    const double need = (double)dm_checkpoint_bytes(a->n_total);
    if (room < need)
        return dm_fail(e, DM_EIO, "%s: needs %.1f MB, the file system has %.1f MB left", path,
                       need * 1e-6, room * 1e-6);
    return DM_OK;
}

static enum dm_status save(const char *path, const struct dm_checkpoint *c,
                           const struct dm_adamw *a, const struct replay *r, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    struct dm_h5 *f = NULL;
    char *state = state_text(c, a), *manifest = NULL, hex[DM_HASH_LEN + 1];
    json_t *hashes = json_object();
    if (!state || !hashes) {
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
        goto done;
    }
    DM_TRY_GOTO(check_room(path, a, e));
    DM_TRY_GOTO(dm_h5_create(&f, path, FORMAT, VERSION, e));
    DM_TRY_GOTO(dm_h5_set_string(f, "/", "state", state, e));
    for (int g = 0; g < N_GROUPS; g++)
        DM_TRY_GOTO(write_group(f, a, g, hashes, e));
    if (r)
        DM_TRY_GOTO(write_replay(f, a, r, hashes, e));
    dm_sha256(state, strlen(state), hex);
    json_object_set_new(hashes, "state", json_string(hex));
    manifest = dm_json_text(hashes, JSON_COMPACT | JSON_SORT_KEYS);
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

enum dm_status dm_checkpoint_save(const char *path, const struct dm_checkpoint *c,
                                  const struct dm_adamw *a, struct dm_err *e)
{
    return save(path, c, a, NULL, e);
}

enum dm_status dm_checkpoint_save_replay(const char *path, const struct dm_checkpoint *c,
                                         const struct dm_adamw *a, const int32_t *ids, size_t B,
                                         size_t T, struct dm_err *e)
{
    const struct replay r = {ids, B, T};
    return save(path, c, a, &r, e);
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

static enum dm_status parse_state(struct dm_checkpoint *c, size_t *updates, const json_t *s,
                                  const char *path, struct dm_err *e)
{
    size_t step = 0, drawn = 0, best_step = 0;
    json_t *run = json_object_get(s, "run");
    DM_TRY(dm_json_size(s, "step", 0, INT64_MAX, true, path, &step, e));
    DM_TRY(dm_json_size(s, "updates", 0, step, true, path, updates, e));
    DM_TRY(dm_json_size(s, "drawn", 0, INT64_MAX, true, path, &drawn, e));
    DM_TRY(dm_json_size(s, "best_step", 0, step, true, path, &best_step, e));
    c->best = INFINITY;
    DM_TRY(dm_json_number(s, "best", best_step > 0, path, &c->best, e));
    if (!json_is_object(run))
        return dm_fail(e, DM_EFORMAT, "%s: \"run\" is %s, want an object", path, dm_json_type(run));
    c->step = step;
    c->drawn = drawn;
    c->best_step = best_step;
    c->run = json_incref(run);
    c->guard = json_incref(json_object_get(s, "guard"));
    return DM_OK;
}

/* An open checkpoint. */
struct reading {
    struct dm_h5 *f;
    struct dm_checkpoint c;
    size_t updates;
    json_t *manifest;
};

static void end_reading(struct reading *r)
{
    dm_checkpoint_release(&r->c);
    json_decref(r->manifest);
    dm_h5_close(r->f);
}

/* Reads state and manifest; end_reading() also after a failure. */
static enum dm_status begin_reading(struct reading *r, const char *path, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    json_t *state = NULL;
    char *text = NULL, *manifest_text = NULL, hex[DM_HASH_LEN + 1];
    *r = (struct reading){0};
    DM_TRY_GOTO(dm_h5_open(&r->f, path, FORMAT, VERSION, e));
    DM_TRY_GOTO(read_json(r->f, "manifest", &r->manifest, &manifest_text, e));
    DM_TRY_GOTO(read_json(r->f, "state", &state, &text, e));
    dm_sha256(text, strlen(text), hex);
    DM_TRY_GOTO(check_hash(r->manifest, "state", hex, path, e));
    DM_TRY_GOTO(parse_state(&r->c, &r->updates, state, path, e));
done:
    json_decref(state);
    free(manifest_text);
    free(text);
    return st;
}

enum dm_status dm_checkpoint_peek(struct dm_checkpoint *c, const char *path, struct dm_err *e)
{
    struct reading r;
    const enum dm_status st = begin_reading(&r, path, e);
    *c = (struct dm_checkpoint){0};
    if (!st) {
        *c = r.c;
        json_incref(c->run);
        json_incref(c->guard);
    }
    end_reading(&r);
    return st;
}

static enum dm_status check_stored_hash(const struct reading *r, const char *name, struct dm_err *e)
{
    char *hash;
    DM_TRY(dm_h5_get_string(r->f, name, "sha256", &hash, e));
    const enum dm_status st = check_hash(r->manifest, name, hash, dm_h5_path(r->f), e);
    free(hash);
    return st;
}

static enum dm_status read_group(const struct reading *r, struct dm_adamw *a, int group,
                                 struct dm_err *e)
{
    for (size_t i = 0; i < a->n_slots; i++) {
        const struct dm_adamw_slot *s = &a->slot[i];
        char name[NAME_MAX_];
        enum dm_dtype t;
        size_t rows, cols;
        dataset_name(name, s, group);
        DM_TRY(dm_h5_tensor_shape(r->f, name, &t, &rows, &cols, e));
        if (t != DM_F32)
            return dm_fail(e, DM_EFORMAT, "%s: %s is %s, want f32", dm_h5_path(r->f), name,
                           dm_dtype_name(t));
        DM_TRY(check_stored_hash(r, name, e));
        DM_TRY(dm_h5_read_tensor(r->f, name, group_data(s, group), s->rows, s->cols, e));
    }
    return DM_OK;
}

enum dm_status dm_checkpoint_load(struct dm_adamw *a, const char *path, struct dm_err *e)
{
    struct reading r;
    enum dm_status st = begin_reading(&r, path, e);
    for (int g = 0; g < N_GROUPS && !st; g++)
        st = read_group(&r, a, g, e);
    if (!st)
        a->t = r.updates;
    end_reading(&r);
    return st;
}

enum dm_status dm_checkpoint_load_replay(struct dm_adamw *a, int32_t *ids, size_t B, size_t T,
                                         const char *path, struct dm_err *e)
{
    struct reading r;
    enum dm_status st = begin_reading(&r, path, e);
    if (!st && !dm_h5_has(r.f, BATCH))
        st = dm_fail(e, DM_EFORMAT,
                     "%s: is a checkpoint without a batch; files for replay are written when a "
                     "step is refused",
                     path);
    if (!st)
        st = check_stored_hash(&r, BATCH, e);
    if (!st)
        st = dm_h5_read(r.f, BATCH, DM_H5_I32, ids, B, T, e);
    if (!st)
        st = read_group(&r, a, GRAD, e);
    end_reading(&r);
    return st;
}
