/* SPDX-License-Identifier: MIT */
#include "train/cmd_common.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/par.h"
#include "src/base/stop.h"
#include "train/heads.h"
#include "train/keep.h"
#include "train/log.h"
#include "train/plan.h"
#include "train/pretrain.h"
#include "train/resume.h"

static const char *const joint_only[] = {"base-lr", "stem-scale"};
static const char *const of_from[] = {"tokenizer", "vocab-rows", "dtype"};
static const char *const of_file[] = {"heads", "head-depth", "head-input"};

static void refuse(const struct dm_train_opt *o, struct argp_state *s, const char *const *names,
                   size_t n, const char *why)
{
    for (size_t i = 0; i < n; i++)
        if (dm_train_opt_given(o, names[i]))
            argp_error(s, "--%s %s", names[i], why);
}
#define REFUSE(o, s, names, why) refuse(o, s, names, sizeof(names) / sizeof(names[0]), why)

static void refuse_folder(struct argp_state *s, const char *name, const char *prefix)
{
    if (prefix && (!*prefix || prefix[strlen(prefix) - 1] == '/'))
        argp_error(s, "%s: \"%s\" is a folder, want the beginning of names", name, prefix);
}

/* What is still missing or contradictory once everything has been read. */
static void check_usage(struct dm_train_opt *o, struct argp_state *s)
{
    if (o->resume && o->replay)
        argp_error(s, "--replay and --resume exclude each other");
    if (o->replay)
        o->resume = o->replay;
    refuse_folder(s, "--log", o->log);
    refuse_folder(s, "--checkpoint", o->checkpoint);
    if (o->resume && strcmp(o->resume, "auto"))
        return; // the rest is in the checkpoint
    if (o->kind == DM_TRAIN_HEADS && !o->base)
        argp_error(s, "the base model's file is missing");
    if (o->kind == DM_TRAIN_BASE && !o->config == !o->from)
        argp_error(s, o->from ? "--config and --from exclude each other" : "--config is missing");
    if (!o->data.n)
        argp_error(s, "--data is missing: a token shard made by dynamo tokenize");
    for (size_t i = 0; i < o->data.n; i++)
        if ((o->data.weight[i] > 0.0) != (o->data.weight[0] > 0.0))
            argp_error(s, "--data: either all shards have a weight, or none");
    for (size_t i = 0; i < o->val.n; i++)
        if (o->val.weight[i] > 0.0)
            argp_error(s, "--val %s takes no weight", o->val.path[i]);
    if (!o->output)
        argp_error(s, "-o is missing: the model file to write");
    if (o->kind == DM_TRAIN_HEADS && !dm_train_opt_joint(o))
        REFUSE(o, s, joint_only, "needs --recipe joint: a frozen base does not learn");
    if (o->from)
        REFUSE(o, s, of_from, "is that of the model with --from");
    if (o->kind == DM_TRAIN_HEADS && !strcmp(o->init, "file"))
        REFUSE(o, s, of_file, "is that of the model with --init file");
    if (o->lr > 0.0 && o->min_lr > o->lr)
        argp_error(s, "--min-lr %g is above --lr %g", o->min_lr, o->lr);
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct dm_train_opt *o = s->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (o->kind == DM_TRAIN_HEADS && !o->base)
            o->base = arg;
        else
            return dm_train_opt_parse(o, 'd', arg, s);
        return 0;
    case ARGP_KEY_END:
        check_usage(o, s);
        return 0;
    default:
        return dm_train_opt_parse(o, key, arg, s);
    }
}

static void print_report(const struct dm_train_opt *o, const struct dm_train_report *r)
{
    printf("%s\t%zu steps of %zu, %zu tokens, %zu parameters trained\n",
           dm_train_kind_name(o->kind), r->steps, r->total_steps, r->tokens, r->n_params);
    printf("time\t%.1f s, %.0f tokens/s", r->seconds, r->tokens_per_s);
    if (isfinite(r->mfu))
        printf(", %.1f %% of the peak's %.0f GFLOP/s", 100.0 * r->mfu, r->peak_gflops);
    putchar('\n');
    if (r->processes > 1)
        printf("processes\t%zu, each sent %.3g MB a step, which took %.1f %% of the time\n",
               r->processes, 1e-6 * (double)r->sent_per_step, 100.0 * r->exchange);
    printf("memory\t%.0f MB at most\n", (double)r->memory * 1e-6);
    for (size_t n = 1; n <= r->val.K; n++)
        printf("PPL_%zu\t%.3f\n", n, dm_ppl_head(&r->val, n));
    for (size_t n = 2; n <= r->val.K; n++)
        printf("PPL_1:%zu\t%.3f\n", n, dm_ppl_joint(&r->val, n));
    if (r->saved_step && r->saved_step != r->steps)
        printf("weights\tof step %zu, the best validation\n", r->saved_step);
    if (r->steps == r->total_steps)
        printf("output\t%s\n", o->output);
    else
        printf("go on with\tdynamo %s --resume %s\n", dm_train_kind_name(o->kind), r->checkpoint);
}

static void print_number(const char *what, const json_t *x)
{
    if (json_is_number(x))
        printf("%s\t%.9g\n", what, json_number_value(x));
}

static void print_replay(const json_t *r)
{
    const json_t *loss = json_object_get(r, "loss"), *t;
    const char *head;
    size_t i;
    json_t *x;
    printf("step\t%lld\n", (long long)json_integer_value(json_object_get(r, "step")));
    json_object_foreach((json_t *)(uintptr_t)loss, head, x)
    {
        char what[40];
        snprintf(what, sizeof(what), "loss %s", head);
        print_number(what, x);
    }
    print_number("norm", json_object_get(r, "norm"));
    printf("bits\t%s\n", json_is_true(json_object_get(r, "same")) ? "as stored" : "differ");
    json_array_foreach(json_object_get(r, "tensors"), i, t)
    {
        const json_t *norm = json_object_get(t, "norm");
        printf("%s\t", json_string_value(json_object_get(t, "name")));
        if (json_is_number(norm))
            printf("norm %.6g, max %.6g\n", json_number_value(norm),
                   json_number_value(json_object_get(t, "max")));
        else
            puts("not finite");
    }
}

static void show(const struct dm_train_opt *o, struct dm_train_report *r)
{
    const bool complete = r->steps == r->total_steps;
    if (r->replay) {
        if (o->json)
            dm_json_print(json_incref(r->replay));
        else
            print_replay(r->replay);
        return;
    }
    if (!o->json) {
        print_report(o, r);
        return;
    }
    json_t *j = dm_train_report_json(r);
    json_object_set_new(j, "complete", json_boolean(complete));
    json_object_set_new(j, complete ? "output" : "checkpoint",
                        json_string(complete ? o->output : r->checkpoint));
    dm_json_print(j);
}

static double mb(size_t bytes)
{
    return (double)bytes * 1e-6;
}

static void print_plan(const struct dm_plan *p)
{
    const long s = (long)p->seconds;
    printf("model\t%zu parameters, %zu trained\n", p->n_params, p->n_trained);
    printf("run\t%zu steps, %zu tokens\n", p->steps, p->tokens);
    printf("memory\t%.0f MB: weights %.0f, gradients %.0f, moments %.0f, activations %.0f, tokens "
           "%.0f, program %.0f\n",
           mb(p->memory), mb(p->weights), mb(p->gradients), mb(p->moments), mb(p->activations),
           mb(p->data), mb(p->program));
    printf("disk\t%.0f MB: %zu checkpoints of %.0f, model %.0f, logs %.0f; %.0f free%s\n",
           mb(p->disk), p->n_checkpoints, mb(p->checkpoint), mb(p->model), mb(p->logs),
           mb(p->disk_free), p->disk > p->disk_free ? ": NOT ENOUGH" : "");
    printf("time\t%ld:%02ld:%02ld at %.0f %% of the %.0f GFLOP/s that this machine has now: %.0f "
           "tokens/s, %.4g FLOP per token\n",
           s / 3600, s / 60 % 60, s % 60, 100.0 * p->mfu, p->peak_gflops,
           p->mfu * p->peak_gflops * 1e9 / p->flops, p->flops);
}

static enum dm_status show_plan(const struct dm_train_opt *o, struct dm_err *e)
{
    struct dm_config c;
    struct dm_plan p;
    char hash[DM_HASH_LEN + 1];
    DM_TRY(o->kind == DM_TRAIN_BASE ? dm_pretrain_config(&c, hash, o, e)
                                    : dm_heads_config(&c, hash, o, e));
    DM_TRY(dm_plan(&p, o, &c, hash, e));
    if (o->json)
        dm_json_print(dm_plan_json(&p));
    else
        print_plan(&p);
    return DM_OK;
}

/* ---- Names ----------------------------------------------------------------------------------- */

#define N_OUT (2 + DM_LOG_NAMES) /* model, best checkpoint, logs */
#define NAME_BYTES (PATH_MAX + 32)

/* Checkpoints come and go, and so would a file that has the name of one. */
static enum dm_status check_kept(const char *prefix, const char *const *path, size_t n,
                                 struct dm_err *e)
{
    for (size_t i = 0; i < n; i++) {
        char *real = path[i] ? realpath(path[i], NULL) : NULL;
        const bool kept = path[i] &&
                          (dm_keep_is(prefix, path[i]) || (real && dm_keep_is(prefix, real)));
        free(real);
        if (kept)
            return dm_fail(e, DM_EMISMATCH,
                           "%s: has the name of a checkpoint that this run may write or remove "
                           "(%s-<step>.h5, %s-best.h5)",
                           path[i], prefix, prefix);
    }
    return DM_OK;
}

/* The names of a run's outputs but for numbered checkpoints, into name (N_OUT). */
static enum dm_status name_outputs(char (*name)[NAME_BYTES], const struct dm_train_opt *o,
                                   const char *checkpoint, struct dm_err *e)
{
    char log[PATH_MAX];
    snprintf(name[0], NAME_BYTES, "%s", o->output);
    DM_TRY(dm_keep_path(name[1], NAME_BYTES, checkpoint, DM_KEEP_BEST, e));
    DM_TRY(dm_train_opt_log(log, sizeof(log), o, e));
    for (size_t i = 0; i < DM_LOG_NAMES; i++)
        snprintf(name[2 + i], NAME_BYTES, "%s%s", log, dm_log_suffix[i]);
    return DM_OK;
}

/* None of the files that a run writes may take the place of one that it reads, of another, or of an
 * earlier run's checkpoint. */
static enum dm_status check_outputs(const struct dm_train_opt *o, struct dm_err *e)
{
    const char *const in[] = {o->base, o->from, o->config, o->tokenizer};
    const struct {
        const char *const *path;
        size_t n;
    } read[] = {{in, 4}, {o->data.path, o->data.n}, {o->val.path, o->val.n}};
    char kept[2][PATH_MAX], name[N_OUT][NAME_BYTES];
    const char *out[N_OUT];
    struct stat s;
    DM_TRY(dm_resume_prefix(kept[0], PATH_MAX, o, e));
    DM_TRY(dm_train_opt_path(kept[1], PATH_MAX, o->output, ".refused", e));
    DM_TRY(name_outputs(name, o, kept[0], e));
    for (size_t i = 0; i < N_OUT; i++)
        out[i] = name[i];
    if (!stat(name[N_OUT - 1], &s) && S_ISDIR(s.st_mode))
        out[N_OUT - 1] = NULL; // the logs' directory of an earlier run
    DM_TRY(dm_file_check_output(o->output, &o->resume, 1, e));
    for (size_t i = 0; i < 3; i++) {
        if (i) // of the others some are names, and all are opened at once
            DM_TRY(dm_file_check_inputs(read[i].path, read[i].n, e));
        DM_TRY(dm_file_check_outputs(out, N_OUT, read[i].path, read[i].n, e));
        for (size_t k = 0; k < 2; k++)
            DM_TRY(check_kept(kept[k], read[i].path, read[i].n, e));
    }
    DM_TRY(check_kept(kept[0], &o->output, 1, e));
    return o->resume || o->dry_run ? DM_OK : dm_resume_none(kept[0], e);
}

int dm_train_command(int argc, char **argv, enum dm_train_kind kind, const char *args_doc,
                     const char *doc, dm_train_fn *run)
{
    struct dm_train_opt o;
    struct dm_train_report r = {0};
    struct dm_ranks ranks;
    struct dm_err e = {""};
    struct argp_option options[DM_TRAIN_ARGP_MAX];
    char text[DM_TRAIN_TEXT_MAX];
    dm_train_opt_init(&o, kind);
    dm_train_opt_argp(&o, options, text);
    const struct argp argp = {options, parse, args_doc, doc, NULL, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &o))
        return 2;
    dm_par_set_threads(o.threads);
    dm_stop_install();
    dm_stop_install_save();
    enum dm_status st = dm_ranks_open(&ranks, &e);
    o.ranks = &ranks;
    if (!st && o.resume)
        st = dm_resume_options(&o, &e);
    if (!st && !o.replay && dm_ranks_first(&ranks))
        st = check_outputs(&o, &e);
    st = dm_ranks_agree(&ranks, st, &e);
    if (!st)
        st = !o.dry_run               ? run(&o, &r, dm_ranks_first(&ranks) ? stderr : NULL, &e)
             : dm_ranks_first(&ranks) ? show_plan(&o, &e)
                                      : DM_OK;
    st = dm_ranks_agree(&ranks, st, &e);
    const int code = dm_ranks_exit(&ranks, st);
    if (code)
        fprintf(stderr, "dynamo %s: %s\n", dm_train_kind_name(kind), e.msg);
    else if (!st && !o.dry_run && dm_ranks_first(&ranks))
        show(&o, &r);
    dm_ranks_close(&ranks);
    dm_train_report_release(&r);
    dm_train_opt_release(&o);
    return code;
}
