/* SPDX-License-Identifier: MIT */
#include "train/resume.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/json.h"
#include "src/kernel/kern.h"
#include "train/keep.h"

/* The files that --resume can mean, in the order in which they are tried. */
struct candidates {
    char prefix[PATH_MAX]; /* or the only file */
    bool file;
    size_t *step, n;
};

enum dm_status dm_resume_prefix(char *out, size_t n, const struct dm_train_opt *o, struct dm_err *e)
{
    return o->checkpoint ? dm_train_opt_path(out, n, o->checkpoint, "", e)
                         : dm_train_opt_path(out, n, o->output, ".ckpt", e);
}

static enum dm_status find(struct candidates *c, const struct dm_train_opt *o, struct dm_err *e)
{
    const bool automatic = !strcmp(o->resume, "auto");
    *c = (struct candidates){.file = !automatic && !access(o->resume, F_OK)};
    if (automatic)
        DM_TRY(dm_resume_prefix(c->prefix, sizeof(c->prefix), o, e));
    else if ((size_t)snprintf(c->prefix, sizeof(c->prefix), "%s", o->resume) >= sizeof(c->prefix))
        return dm_fail(e, DM_ERANGE, "%s: the name is too long", o->resume);
    c->n = 1;
    if (c->file)
        return DM_OK;
    DM_TRY(dm_keep_list(&c->step, &c->n, c->prefix, e));
    if (!c->n && !automatic)
        return dm_fail(e, DM_EIO, "%s: no such file, and no checkpoint %s-<step>.h5", o->resume,
                       c->prefix);
    return DM_OK;
}

static enum dm_status candidate(char *out, size_t n, const struct candidates *c, size_t i,
                                struct dm_err *e)
{
    if (!c->file)
        return dm_keep_path(out, n, c->prefix, c->step[i], e);
    snprintf(out, n, "%s", c->prefix);
    return DM_OK;
}

/* What another file can mend. */
static bool damaged(enum dm_status st)
{
    return st == DM_EFORMAT || st == DM_EIO || st == DM_ESHAPE || st == DM_ERANGE;
}

static enum dm_status options_of(struct dm_train_opt *o, const char *path, struct dm_err *e)
{
    struct dm_checkpoint c;
    const char *command;
    DM_TRY(dm_checkpoint_peek(&c, path, e));
    enum dm_status st = dm_json_string(c.run, "command", true, path, &command, e);
    if (!st && strcmp(command, dm_train_kind_name(o->kind)))
        st = dm_fail(e, DM_EMISMATCH, "%s: is a checkpoint of dynamo %s, not of dynamo %s", path,
                     command, dm_train_kind_name(o->kind));
    if (!st)
        st = dm_train_opt_restore(o, json_object_get(c.run, "options"), path, e);
    dm_checkpoint_release(&c);
    return st;
}

enum dm_status dm_resume_options(struct dm_train_opt *o, struct dm_err *e)
{
    struct candidates c;
    char path[PATH_MAX];
    enum dm_status st = find(&c, o, e);
    if (!st && !c.n)
        o->resume = NULL;
    for (size_t i = 0; i < c.n && !st; i++) {
        DM_TRY_GOTO(candidate(path, sizeof(path), &c, i, e));
        st = options_of(o, path, e);
        if (!st || !damaged(st) || i + 1 == c.n)
            goto done;
        st = DM_OK;
    }
done:
    free(c.step);
    return st;
}

/* Loads one file, if it belongs to this very run. */
static enum dm_status load(struct dm_checkpoint *at, struct dm_adamw *a, const char *path,
                           struct dm_err *e)
{
    static const char *const same[] = {"inputs", "config"};
    struct dm_checkpoint c;
    enum dm_status st = DM_OK;
    DM_TRY(dm_checkpoint_peek(&c, path, e));
    for (int i = 0; i < 2 && !st; i++)
        if (!json_equal(json_object_get(c.run, same[i]), json_object_get(at->run, same[i])))
            st = dm_fail(e, DM_EMISMATCH,
                         "%s: the checkpoint's %s are not those of this run: a shard, the "
                         "tokenizer or the base has changed",
                         path, same[i]);
    if (!st)
        st = dm_checkpoint_load(a, path, e);
    if (st) {
        dm_checkpoint_release(&c);
        return st;
    }
    json_decref(c.run);
    json_decref(at->guard);
    c.run = at->run;
    *at = c;
    return DM_OK;
}

enum dm_status dm_resume_load(struct dm_checkpoint *at, struct dm_adamw *a,
                              const struct dm_train_opt *o, FILE *console, struct dm_err *e)
{
    struct candidates c;
    char path[PATH_MAX];
    enum dm_status st = find(&c, o, e);
    for (size_t i = 0; i < c.n && !st; i++) {
        DM_TRY_GOTO(candidate(path, sizeof(path), &c, i, e));
        st = load(at, a, path, e);
        if (!st || !damaged(st) || i + 1 == c.n)
            goto done;
        if (console)
            fprintf(console, "warning: %s; trying the checkpoint before it\n", e->msg);
        st = DM_OK;
    }
done:
    free(c.step);
    return st;
}

enum dm_status dm_resume_none(const char *prefix, struct dm_err *e)
{
    size_t *step, n;
    DM_TRY(dm_keep_list(&step, &n, prefix, e));
    const size_t newest = n ? *step : 0;
    free(step);
    if (n)
        return dm_fail(e, DM_EMISMATCH,
                       "%s-%08zu.h5 is left of a run that did not finish: go on with it by "
                       "--resume auto, remove it, or name another --checkpoint",
                       prefix, newest);
    return DM_OK;
}

enum dm_status dm_resume_alike(struct dm_ranks *ranks, const struct dm_checkpoint *at,
                               struct dm_err *e)
{
    if (dm_ranks_count(ranks) == 1)
        return DM_OK;
    char *text = NULL;
    json_t *all = json_pack("{s:O, s:I, s:s}", "run", at->run, "step", (json_int_t)at->step, "isa",
                            dm_kern()->name);
    if (all)
        text = json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(all);
    DM_TRY(dm_ranks_agree(ranks, text ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory"), e));
    const enum dm_status st = dm_ranks_same(
        ranks, text, "its options, its checkpoint or its processor's instructions", e);
    free(text);
    return st;
}
