/* SPDX-License-Identifier: MIT */
#include "train/plan.h"

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "src/io/shard.h"
#include "src/kernel/peak.h"
#include "src/model/model.h"
#include "train/checkpoint.h"
#include "train/loader.h"
#include "train/run.h"

/* Code, libraries and their buffers, thread stacks: what a run of a model of no size takes. */
#define PROGRAM_BYTES ((size_t)22 << 20)
#define LOG_BYTES ((size_t)700) /* a row in all three logs */

static enum dm_pass_kind kind_of(const struct dm_train_opt *o)
{
    return o->kind == DM_TRAIN_BASE ? DM_PASS_BASE
           : dm_train_opt_joint(o)  ? DM_PASS_JOINT
                                    : DM_PASS_HEADS;
}

/* Packs of the matrices of `scope`; *vectors: the parameters that are none. */
static size_t pack_bytes(const struct dm_config *c, enum dm_scope scope, enum dm_format fmt,
                         struct dm_tensor *list, size_t *vectors)
{
    const size_t n = dm_params_list(NULL, c, scope, list);
    size_t bytes = 0;
    *vectors = 0;
    for (size_t i = 0; i < n; i++) {
        const struct dm_weight w = {.O = list[i].rows, .C = list[i].cols, .fmt = fmt};
        if (!list[i].cols)
            *vectors += list[i].n;
        else if (list[i].part == DM_PART_EMBED)
            bytes += list[i].n * dm_dtype_size(c->dtype);
        else
            bytes += dm_linear_pack_bytes(&w);
        if (list[i].part == DM_PART_UNEMBED)
            bytes += dm_linear_pack_t_bytes(&w);
    }
    return bytes;
}

/* A frozen base is packs and vectors; what is trained is float32. */
static enum dm_status plan_weights(struct dm_plan *p, const struct dm_train_opt *o,
                                   const struct dm_config *c, enum dm_scope scope, struct dm_err *e)
{
    size_t vectors;
    p->n_params = dm_params_count(c, DM_SCOPE_ALL);
    p->n_trained = dm_params_count(c, scope);
    p->weights = p->n_trained * sizeof(float);
    if (scope != DM_SCOPE_HEADS)
        return DM_OK;
    struct dm_tensor *list = dm_alloc(dm_params_list(NULL, c, DM_SCOPE_BASE, NULL), sizeof(*list));
    if (!list)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    p->weights += pack_bytes(c, DM_SCOPE_BASE, dm_train_opt_format(o), list, &vectors);
    p->weights += vectors * sizeof(float);
    free(list);
    return DM_OK;
}

/* Without the room for packs of the unembedding that is never touched: that for the wider format,
 * and all of it when the base's packs serve. */
static enum dm_status plan_activations(struct dm_plan *p, const struct dm_train_opt *o,
                                       const struct dm_config *c, enum dm_pass_kind kind,
                                       struct dm_err *e)
{
    const struct dm_weight wide = {.O = c->Vp, .C = c->C};
    const struct dm_weight used = {.O = c->Vp, .C = c->C, .fmt = dm_train_opt_format(o)};
    if (!dm_pass_need(&p->activations, c, kind, o->recompute, o->micro, o->context))
        return dm_fail(e, DM_ERANGE, "a micro-batch of %zu x %zu tokens overflows", o->micro,
                       o->context);
    p->activations -= dm_linear_pack_bytes(&wide) + dm_linear_pack_t_bytes(&wide);
    if (kind != DM_PASS_HEADS)
        p->activations += dm_linear_pack_bytes(&used) + dm_linear_pack_t_bytes(&used);
    p->activations += (o->batch + c->K * o->micro) * o->context * sizeof(float);
    return DM_OK;
}

static enum dm_status shard_tokens(size_t *tokens, const struct dm_paths *paths,
                                   const char *tokenizer_hash, size_t V, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    *tokens = 0;
    for (size_t i = 0; !st && i < paths->n; i++) {
        struct dm_shard *s;
        DM_TRY(dm_shard_open(&s, paths->path[i], e));
        *tokens += dm_shard_tokens(s);
        st = dm_loader_check(s, paths->path[i], tokenizer_hash, V, e);
        dm_shard_close(s);
    }
    return st;
}

/* Tokens in memory, and how many steps there are; *val: sequences of a validation. */
static enum dm_status plan_data(struct dm_plan *p, const struct dm_train_opt *o,
                                const char *tokenizer_hash, size_t V, size_t *val, struct dm_err *e)
{
    size_t train, held;
    DM_TRY(shard_tokens(&train, &o->data, tokenizer_hash, V, e));
    DM_TRY(shard_tokens(&held, &o->val, tokenizer_hash, V, e));
    p->data = (train + held) * sizeof(int32_t);
    if (p->data > DM_RUN_CACHE_BYTES)
        p->data = DM_RUN_CACHE_BYTES;
    const double share = o->val.n ? 0.0 : o->val_fraction;
    const double sequences = (double)train * (1.0 - share) / (double)o->context;
    p->steps = o->steps ? o->steps : (size_t)(o->epochs * sequences / (double)o->batch);
    p->tokens = p->steps * o->batch * o->context;
    *val = (o->val.n ? held : (size_t)(share * (double)train)) / o->context;
    *val = *val < o->val_max ? *val : o->val_max;
    return DM_OK;
}

static enum dm_status plan_disk(struct dm_plan *p, const struct dm_train_opt *o,
                                const struct dm_config *c, struct dm_err *e)
{
    char dir[PATH_MAX];
    struct stat base = {0};
    struct statvfs v;
    enum dm_dtype dtype = c->dtype;
    if (o->kind == DM_TRAIN_BASE || strcmp(o->dtype, "base"))
        DM_TRY(dm_dtype_parse(o->dtype, &dtype, e));
    p->checkpoint = dm_checkpoint_bytes(p->n_trained);
    // The newest is written before the oldest goes.
    p->n_checkpoints = o->keep_last + 1 + (o->checkpoint_every || !strcmp(o->save, "best"));
    p->model = p->n_trained * dm_dtype_size(dtype);
    if (p->n_trained < p->n_params && !stat(o->base, &base)) // the frozen base goes along
        p->model += (size_t)base.st_size;
    p->logs = p->steps * LOG_BYTES;
    p->disk = p->checkpoint * p->n_checkpoints + p->model + p->logs;
    snprintf(dir, sizeof(dir), "%s", o->output);
    const char *folder = dirname(dir);
    if (statvfs(folder, &v))
        return dm_fail_errno(e, "%s: cannot see how much is free in the folder %s", o->output,
                             folder);
    p->disk_free = (size_t)v.f_bavail * (size_t)v.f_frsize;
    return DM_OK;
}

/* A validation is forward only, a third of the base's operations; recomputing is another. */
static void plan_time(struct dm_plan *p, const struct dm_train_opt *o, const struct dm_config *c,
                      enum dm_pass_kind kind, size_t val)
{
    const double base = dm_pass_flops(c, DM_PASS_BASE, o->context);
    const size_t every = dm_train_opt_val_every(o, p->steps);
    const double validations = val ? (double)(p->steps / every + 1) : 0.0;
    const double again = o->recompute && kind != DM_PASS_HEADS ? base / 3.0 : 0.0;
    p->flops = dm_pass_flops(c, kind, o->context);
    for (int i = 0; i < 5; i++) {
        const double peak = dm_peak_flops(dm_train_opt_format(o));
        p->peak_gflops = peak > p->peak_gflops ? peak : p->peak_gflops;
    }
    p->mfu = o->assume_mfu;
    const double work = (double)p->tokens * (p->flops + again) +
                        validations * (double)(val * o->context) * base / 3.0;
    p->seconds = work / (p->peak_gflops * 1e9 * p->mfu);
}

enum dm_status dm_plan(struct dm_plan *p, const struct dm_train_opt *o, const struct dm_config *cfg,
                       const char *tokenizer_hash, struct dm_err *e)
{
    const enum dm_pass_kind kind = kind_of(o);
    size_t val;
    *p = (struct dm_plan){.program = PROGRAM_BYTES};
    DM_TRY(plan_weights(p, o, cfg, dm_step_scope(kind), e));
    DM_TRY(plan_activations(p, o, cfg, kind, e));
    DM_TRY(plan_data(p, o, *tokenizer_hash ? tokenizer_hash : NULL, cfg->V, &val, e));
    const size_t n_micro = (o->batch + o->micro - 1) / o->micro;
    p->gradients = p->n_trained * sizeof(float) * dm_accum_depth(n_micro);
    p->moments = 2 * p->n_trained * sizeof(float);
    p->memory = p->weights + p->gradients + p->moments + p->activations + p->data + p->program;
    DM_TRY(plan_disk(p, o, cfg, e));
    plan_time(p, o, cfg, kind, val);
    return DM_OK;
}

json_t *dm_plan_json(const struct dm_plan *p)
{
    json_t *memory = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weights",
                               (json_int_t)p->weights, "gradients", (json_int_t)p->gradients,
                               "moments", (json_int_t)p->moments, "activations",
                               (json_int_t)p->activations, "tokens", (json_int_t)p->data, "program",
                               (json_int_t)p->program, "total", (json_int_t)p->memory);
    json_t *disk = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "checkpoint",
                             (json_int_t)p->checkpoint, "checkpoints", (json_int_t)p->n_checkpoints,
                             "model", (json_int_t)p->model, "logs", (json_int_t)p->logs, "total",
                             (json_int_t)p->disk, "free", (json_int_t)p->disk_free);
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:o, s:f, s:f, s:f, s:f}", "trained",
                     (json_int_t)p->n_trained, "parameters", (json_int_t)p->n_params, "steps",
                     (json_int_t)p->steps, "tokens", (json_int_t)p->tokens, "memory", memory,
                     "disk", disk, "flops_per_token", p->flops, "peak_gflops", p->peak_gflops,
                     "assumed_mfu", p->mfu, "seconds", p->seconds);
}
