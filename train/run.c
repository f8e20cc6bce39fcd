/* SPDX-License-Identifier: MIT */
#include "train/run.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/progress.h"
#include "src/base/provenance.h"
#include "src/base/stop.h"
#include "src/kernel/peak.h"
#include "train/checkpoint.h"
#include "train/log.h"
#include "train/schedule.h"

#define CACHE_BYTES ((size_t)1 << 30) /* of tokens: 268 M; larger corpora are read by range */

/* Everything that a run holds. */
struct state {
    const struct dm_run *run;
    const struct dm_train_opt *opt;
    struct dm_loader *loader;
    struct dm_schedule schedule;
    struct dm_step step;
    struct dm_checkpoint at; /* where the run is; at.run is stored with it */
    struct dm_log *log;
    struct dm_arena scratch;
    int32_t *ids; /* (batch,T) */
    float *logp;  /* (K,micro,T) */
    size_t val_windows, val_every;
    size_t begun; /* step at which this run began */
    double started, step_seconds;
    struct dm_progress progress;
    struct dm_train_report *out;
};

const char *dm_train_kind_name(enum dm_train_kind kind)
{
    return kind == DM_TRAIN_BASE ? "pretrain" : "train";
}

void dm_train_report_release(struct dm_train_report *r)
{
    json_decref(r->provenance);
    *r = (struct dm_train_report){0};
}

json_t *dm_train_report_json(const struct dm_train_report *r)
{
    json_t *loss = json_object();
    char key[24];
    for (size_t n = 1; n <= DM_PPL_MAX_HEADS; n++)
        if (isfinite(r->loss[n - 1])) {
            snprintf(key, sizeof(key), "%zu", n);
            json_object_set_new(loss, key, json_real(r->loss[n - 1]));
        }
    json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o}", "steps",
                          (json_int_t)r->steps, "total_steps", (json_int_t)r->total_steps, "tokens",
                          (json_int_t)r->tokens, "parameters", (json_int_t)r->n_params,
                          "train_windows", (json_int_t)r->train_windows, "val_windows",
                          (json_int_t)r->val_windows, "seconds", r->seconds, "tokens_per_second",
                          r->tokens_per_s, "loss", loss);
    json_object_set_new(o, "flops_per_token", json_real(r->flops));
    json_object_set_new(o, "peak_gflops", json_real(r->peak_gflops));
    if (isfinite(r->mfu))
        json_object_set_new(o, "mfu", json_real(r->mfu));
    if (r->val.K)
        json_object_set_new(o, "validation", dm_ppl_json(&r->val));
    if (r->best_step) {
        json_object_set_new(o, "best_val_loss", json_real(r->best));
        json_object_set_new(o, "best_step", json_integer((json_int_t)r->best_step));
    }
    return o;
}

enum dm_status dm_run_path(char *out, size_t n, const char *output, const char *suffix,
                           struct dm_err *e)
{
    const size_t len = strlen(output);
    const bool h5 = len > 3 && !strcmp(output + len - 3, ".h5");
    const int k = snprintf(out, n, "%.*s%s", (int)(h5 ? len - 3 : len), output, suffix);
    if (k < 0 || (size_t)k >= n)
        return dm_fail(e, DM_ERANGE, "%s: the name is too long", output);
    return DM_OK;
}

enum dm_status dm_run_restore(struct dm_train_opt *o, struct dm_err *e)
{
    struct dm_checkpoint c;
    const char *command;
    DM_TRY(dm_checkpoint_peek(&c, o->resume, e));
    enum dm_status st = dm_json_string(c.run, "command", true, o->resume, &command, e);
    if (!st && strcmp(command, dm_train_kind_name(o->kind)))
        st = dm_fail(e, DM_EMISMATCH, "%s: is a checkpoint of dynamo %s, not of dynamo %s",
                     o->resume, command, dm_train_kind_name(o->kind));
    if (!st)
        st = dm_train_opt_restore(o, json_object_get(c.run, "options"), o->resume, e);
    dm_checkpoint_release(&c);
    return st;
}

/* ---- Setting up ------------------------------------------------------------------------------ */

static enum dm_status hash_files(json_t *inputs, const char *key, const struct dm_paths *p,
                                 struct dm_err *e)
{
    json_t *list = json_array();
    json_object_set_new(inputs, key, list);
    for (size_t i = 0; i < p->n; i++)
        DM_TRY(dm_provenance_input(list, p->path[i], e));
    return DM_OK;
}

/* The object that a checkpoint carries and that a resumed run must reproduce. */
static enum dm_status describe(struct state *s, struct dm_err *e)
{
    const struct dm_run *r = s->run;
    json_t *inputs = json_object();
    s->at.run = json_pack("{s:s, s:o, s:o, s:o}", "command", dm_train_kind_name(s->opt->kind),
                          "options", dm_train_opt_json(s->opt, true), "inputs", inputs, "config",
                          dm_config_to_json(&r->model->cfg));
    if (!s->at.run)
        return dm_fail(e, DM_ENOMEM, "out of memory, or a file name is not UTF-8");
    if (r->tokenizer_hash)
        json_object_set_new(inputs, "tokenizer", json_string(r->tokenizer_hash));
    if (r->base_hash)
        json_object_set_new(inputs, "base", json_string(r->base_hash));
    DM_TRY(hash_files(inputs, "data", &s->opt->data, e));
    return hash_files(inputs, "val", &s->opt->val, e);
}

static enum dm_status open_data(struct state *s, struct dm_err *e)
{
    const struct dm_train_opt *o = s->opt;
    const struct dm_loader_opt lo = {.data = o->data.path,
                                     .n_data = o->data.n,
                                     .val = o->val.path,
                                     .n_val = o->val.n,
                                     .val_fraction = o->val_fraction,
                                     .T = o->context,
                                     .seed = o->seed,
                                     .V = s->run->model->cfg.V,
                                     .tokenizer_hash = s->run->tokenizer_hash,
                                     .cache_bytes = CACHE_BYTES};
    DM_TRY(dm_loader_new(&s->loader, &lo, e));
    const size_t val = dm_loader_val_windows(s->loader);
    s->val_windows = val < o->val_max ? val : o->val_max;
    const double per_epoch = (double)dm_loader_train_windows(s->loader) / (double)o->batch;
    size_t steps = o->steps ? o->steps : (size_t)floor(o->epochs * per_epoch);
    if (!steps)
        return dm_fail(e, DM_ERANGE,
                       "%s: %zu training sequences of %zu tokens, fewer than one batch of %zu",
                       o->data.path[0], dm_loader_train_windows(s->loader), o->context, o->batch);
    s->schedule = dm_train_opt_schedule(o, steps);
    s->val_every = o->val_every ? o->val_every : steps > 500 ? steps / 10 : 50;
    return DM_OK;
}

static void bind_scratch(struct state *s, struct dm_arena *a)
{
    const struct dm_train_opt *o = s->opt;
    const size_t most = o->batch > o->micro ? o->batch : o->micro;
    s->ids = (int32_t *)dm_arena_floats(a, most, o->context);
    s->logp = dm_arena_floats(a, s->run->model->cfg.K * o->micro, o->context);
}

static enum dm_status open_step(struct state *s, struct dm_err *e)
{
    const struct dm_train_opt *o = s->opt;
    const struct dm_step_opt so = {
        .kind = s->run->kind,
        .micro = o->micro,
        .T = o->context,
        .batch = o->batch,
        .decay_mask = dm_train_opt_decay_mask(o),
        .clip = o->clip,
        .adam = {.beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps, .decay = o->decay},
        .head_weight = s->run->head_weight,
        .base_rate = o->base_lr / o->lr, // JOINT; both are above 0 then
        .stem_scale = o->stem_scale};
    struct dm_arena measure = {0};
    bind_scratch(s, &measure);
    DM_TRY(dm_arena_init(&s->scratch, measure.used, e));
    bind_scratch(s, &s->scratch);
    return dm_step_init(&s->step, s->run->model, &so, e);
}

/* Goes to where the checkpoint was taken, if it belongs to this very run. */
static enum dm_status enter(struct state *s, struct dm_err *e)
{
    static const char *const same[] = {"inputs", "config"};
    const char *path = s->opt->resume;
    struct dm_checkpoint c;
    enum dm_status st = DM_OK;
    s->at.best = INFINITY;
    if (!path)
        return DM_OK;
    DM_TRY(dm_checkpoint_peek(&c, path, e));
    for (int i = 0; i < 2 && !st; i++)
        if (!json_equal(json_object_get(c.run, same[i]), json_object_get(s->at.run, same[i])))
            st = dm_fail(e, DM_EMISMATCH,
                         "%s: the checkpoint's %s are not those of this run: a shard, the "
                         "tokenizer or the base has changed",
                         path, same[i]);
    if (!st && (c.step > s->schedule.steps || c.pos.index >= dm_loader_train_windows(s->loader)))
        st = dm_fail(e, DM_EFORMAT, "%s: step %llu of %zu, sequence %llu of %zu", path,
                     (unsigned long long)c.step, s->schedule.steps, (unsigned long long)c.pos.index,
                     dm_loader_train_windows(s->loader));
    if (!st)
        st = dm_checkpoint_load(&s->step.adam, path, e);
    if (!st) {
        json_t *run = s->at.run;
        s->at = c;
        s->at.run = run;
        json_decref(c.run);
        return DM_OK;
    }
    dm_checkpoint_release(&c);
    return st;
}

/* A file that the user named, or one beside the output. */
static enum dm_status side_file(char *out, size_t n, const char *given, const char *output,
                                const char *suffix, struct dm_err *e)
{
    if (!given)
        return dm_run_path(out, n, output, suffix, e);
    if ((size_t)snprintf(out, n, "%s", given) >= n)
        return dm_fail(e, DM_ERANGE, "%s: the name is too long", given);
    return DM_OK;
}

/* Something else on the machine can only make the loop slower: the best of all measurements. */
static void measure_peak(struct state *s)
{
    for (int i = 0; i < 3; i++) {
        const double peak = dm_peak_flops(dm_train_opt_format(s->opt));
        if (peak > s->out->peak_gflops)
            s->out->peak_gflops = peak;
    }
}

static enum dm_status set_up(struct state *s, struct dm_err *e)
{
    struct dm_train_report *out = s->out;
    const struct dm_train_opt *o = s->opt;
    char log[sizeof(out->checkpoint)];
    DM_TRY(side_file(out->checkpoint, sizeof(log), o->checkpoint, o->output, ".ckpt.h5", e));
    DM_TRY(side_file(log, sizeof(log), o->log, o->output, ".log", e));
    DM_TRY(open_data(s, e));
    DM_TRY(describe(s, e));
    DM_TRY(open_step(s, e));
    DM_TRY(enter(s, e));
    DM_TRY(dm_log_open(&s->log, log, s->run->model->cfg.K, (size_t)s->at.step, e));
    s->begun = (size_t)s->at.step;
    s->started = dm_now();
    out->flops = dm_pass_flops(&s->run->model->cfg, s->step.opt.kind, o->context);
    measure_peak(s);
    out->total_steps = s->schedule.steps;
    out->n_params = s->step.adam.n_total;
    out->train_windows = dm_loader_train_windows(s->loader);
    out->val_windows = s->val_windows;
    return DM_OK;
}

/* ---- Running --------------------------------------------------------------------------------- */

static enum dm_status validate(struct state *s, struct dm_err *e)
{
    const size_t step = (size_t)s->at.step;
    struct dm_train_report *out = s->out;
    measure_peak(s);
    DM_TRY(dm_ppl_measure(&out->val, s->step.pass, s->run->model, s->loader, s->val_windows,
                          s->opt->micro, s->opt->context, s->ids, s->logp, e));
    const double loss = dm_ppl_loss(&out->val, dm_step_first_head(s->step.opt.kind));
    if (loss < s->at.best) {
        s->at.best = loss;
        s->at.best_step = step;
    }
    return DM_OK;
}

static double mean_loss(const struct state *s)
{
    double sum = 0.0;
    size_t n = 0;
    for (size_t h = 0; h < s->run->model->cfg.K; h++)
        if (isfinite(s->step.loss[h])) {
            sum += s->step.loss[h];
            n++;
        }
    return sum / (double)n;
}

static void show_validation(FILE *f, const struct dm_ppl *p)
{
    fputs(", validation", f);
    for (size_t n = 1; n <= p->K; n++)
        fprintf(f, " PPL_%zu %.2f", n, dm_ppl_head(p, n));
    for (size_t n = 2; n <= p->K; n++)
        fprintf(f, " PPL_1:%zu %.2f", n, dm_ppl_joint(p, n));
}

/* The moving line on a terminal; elsewhere a plain one every log_every steps. */
static void show(struct state *s, const struct dm_log_row *row)
{
    const size_t steps = s->schedule.steps, done = row->step - s->begun;
    char note[96];
    snprintf(note, sizeof(note), "step %zu of %zu, loss %.4f", row->step, steps, mean_loss(s));
    if (s->progress.tty) {
        dm_progress_set(&s->progress, (double)(done * s->opt->batch * s->opt->context), note);
        if (row->val)
            dm_progress_end(&s->progress);
    }
    const bool due = s->opt->log_every && (row->step % s->opt->log_every == 0 ||
                                           row->step == steps || row->step == s->begun + 1);
    if (!row->val && (s->progress.tty || !due))
        return;
    const double left = (double)(steps - row->step) * row->seconds / (double)done;
    fprintf(s->run->console, "%s, lr %.3g, norm %.3g, %.0f tokens/s", note, row->lr, row->norm,
            row->tokens_per_s);
    if (isfinite(row->mfu))
        fprintf(s->run->console, " (%.0f %% MFU)", 100.0 * row->mfu);
    fprintf(s->run->console, ", %d:%02d left", (int)(left / 60.0), (int)left % 60);
    if (row->val)
        show_validation(s->run->console, row->val);
    fputc('\n', s->run->console);
}

/* Model FLOP utilisation. */
static double mfu(const struct dm_train_report *r, double tokens_per_s)
{
    return r->peak_gflops > 0.0 ? r->flops * tokens_per_s / (r->peak_gflops * 1e9) : NAN;
}

/* One optimiser step and what is due after it. */
static enum dm_status advance(struct state *s, struct dm_err *e)
{
    const struct dm_train_opt *o = s->opt;
    struct dm_err why;
    const double lr = dm_schedule_lr(&s->schedule, (size_t)s->at.step), t0 = dm_now();
    DM_TRY(dm_loader_next(s->loader, &s->at.pos, s->ids, o->batch, e));
    enum dm_status st = dm_step_run(&s->step, s->ids, o->batch, lr, &why);
    if (st)
        return dm_fail(e, st, "step %llu: %s", (unsigned long long)s->at.step + 1, why.msg);
    const double seconds = dm_now() - t0;
    const double rate = (double)(o->batch * o->context) / seconds;
    const size_t step = (size_t)++s->at.step;
    const bool val = s->val_windows && (step % s->val_every == 0 || step == s->schedule.steps);
    s->step_seconds += seconds;
    if (val)
        DM_TRY(validate(s, e));
    const struct dm_log_row row = {.step = step,
                                   .tokens = step * o->batch * o->context,
                                   .lr = lr,
                                   .norm = s->step.norm,
                                   .loss = s->step.loss,
                                   .tokens_per_s = rate,
                                   .mfu = mfu(s->out, rate),
                                   .seconds = dm_now() - s->started,
                                   .val = val ? &s->out->val : NULL};
    DM_TRY(dm_log_row(s->log, &row, e));
    if (s->run->console)
        show(s, &row);
    if (o->checkpoint_every && step % o->checkpoint_every == 0 && step < s->schedule.steps)
        return dm_checkpoint_save(s->out->checkpoint, &s->at, &s->step.adam, e);
    return DM_OK;
}

static enum dm_status run_steps(struct state *s, struct dm_err *e)
{
    const size_t steps = s->schedule.steps, limit = s->opt->stop_after;
    while (s->at.step < steps) {
        const bool stop = dm_stop_requested();
        if (stop || (limit && s->at.step - s->begun >= limit)) {
            DM_TRY(dm_checkpoint_save(s->out->checkpoint, &s->at, &s->step.adam, e));
            if (!stop)
                return DM_OK;
            return dm_fail(
                e, DM_ESTOPPED, "stopped after step %zu of %zu; go on with: dynamo %s --resume %s",
                (size_t)s->at.step, steps, dm_train_kind_name(s->opt->kind), s->out->checkpoint);
        }
        DM_TRY(advance(s, e));
    }
    if (s->val_windows && !s->out->val.K) // a checkpoint of the last step was resumed
        DM_TRY(validate(s, e));
    return DM_OK;
}

/* "command" has no arguments: they would tell threads and interruptions apart. */
static enum dm_status report(struct state *s, struct dm_err *e)
{
    struct dm_train_report *out = s->out;
    const size_t per_step = s->opt->batch * s->opt->context;
    out->steps = (size_t)s->at.step;
    out->tokens = out->steps * per_step;
    out->seconds = dm_now() - s->started;
    if (s->step_seconds > 0.0)
        out->tokens_per_s = (double)((out->steps - s->begun) * per_step) / s->step_seconds;
    out->mfu = s->step_seconds > 0.0 ? mfu(out, out->tokens_per_s) : NAN;
    for (size_t n = 0; n < DM_PPL_MAX_HEADS; n++)
        out->loss[n] = n < s->run->model->cfg.K && out->steps > s->begun ? s->step.loss[n] : NAN;
    out->best = s->at.best;
    out->best_step = (size_t)s->at.best_step;
    out->provenance = json_pack(
        "{s:s, s:[ss], s:o, s:O, s:I, s:I, s:o*}", "program", "dynamo " DM_VERSION, "command",
        "dynamo", dm_train_kind_name(s->opt->kind), "options", dm_train_opt_json(s->opt, false),
        "inputs", json_object_get(s->at.run, "inputs"), "steps", (json_int_t)out->steps, "tokens",
        (json_int_t)out->tokens, "validation", out->val.K ? dm_ppl_json(&out->val) : NULL);
    return out->provenance ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory");
}

enum dm_status dm_run_train(const struct dm_run *r, struct dm_train_report *out, struct dm_err *e)
{
    struct state s = {.run = r, .opt = r->opt, .out = out};
    enum dm_status st;
    *out = (struct dm_train_report){0};
    assert(r->model->cfg.K <= DM_PPL_MAX_HEADS);
    DM_TRY_GOTO(set_up(&s, e));
    dm_progress_init(&s.progress, dm_train_kind_name(r->opt->kind), "tokens",
                     (double)((s.schedule.steps - s.begun) * r->opt->batch * r->opt->context));
    st = run_steps(&s, e);
    dm_progress_end(&s.progress);
    if (!st)
        st = report(&s, e);
done:
    dm_log_close(s.log);
    json_decref(s.at.run);
    dm_step_release(&s.step);
    dm_arena_release(&s.scratch);
    dm_loader_free(s.loader);
    return st;
}
