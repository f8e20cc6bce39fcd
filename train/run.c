/* SPDX-License-Identifier: MIT */
#include "train/run.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/provenance.h"
#include "src/base/stop.h"
#include "src/kernel/peak.h"
#include "train/checkpoint.h"
#include "train/guard.h"
#include "train/keep.h"
#include "train/log.h"
#include "train/replay.h"
#include "train/resume.h"
#include "train/schedule.h"

/* Everything that a run holds. */
struct state {
    const struct dm_run *run;
    const struct dm_train_opt *opt;
    struct dm_loader *loader;
    struct dm_schedule schedule;
    struct dm_step step;
    struct dm_guard guard;
    struct dm_checkpoint at; /* where the run is; at.run is stored with it */
    struct dm_log *log;
    struct dm_arena scratch;
    int32_t *ids; /* (batch,T) */
    float *logp;  /* (K,micro,T) */
    size_t val_windows, val_every;
    size_t begun; /* step at which this run began */
    double started, step_seconds;
    bool improved; /* the last validation was the best so far */
    size_t saved;  /* step of the newest checkpoint, 0 = none */
    struct dm_console console;
    struct dm_train_report *out;
};

/* ---- Setting up ------------------------------------------------------------------------------ */

static enum dm_status hash_files(struct state *s, json_t *inputs, const char *key,
                                 const struct dm_paths *p, struct dm_err *e)
{
    json_t *list = json_array();
    char(*hex)[DM_HASH_LEN + 1] = dm_alloc(p->n, sizeof(*hex));
    json_object_set_new(inputs, key, list);
    if (!hex)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu shards", p->n);
    enum dm_status st = dm_ranks_hash(s->opt->ranks, p->path, p->n, hex, e);
    for (size_t i = 0; i < p->n && !st; i++)
        st = dm_provenance_hashed(list, p->path[i], hex[i], e);
    free(hex);
    for (size_t i = 0; i < p->n && !st; i++)
        if (p->weight[i] > 0.0)
            json_object_set_new(json_array_get(list, i), "weight", json_real(p->weight[i]));
    return st;
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
    DM_TRY(hash_files(s, inputs, "data", &s->opt->data, e));
    return hash_files(s, inputs, "val", &s->opt->val, e);
}

static enum dm_status open_data(struct state *s, struct dm_err *e)
{
    const struct dm_train_opt *o = s->opt;
    const struct dm_loader_opt lo = {.data = o->data.path,
                                     .weight = *o->data.weight > 0.0 ? o->data.weight : NULL,
                                     .n_data = o->data.n,
                                     .val = o->val.path,
                                     .n_val = o->val.n,
                                     .val_fraction = o->val_fraction,
                                     .T = o->context,
                                     .seed = o->seed,
                                     .V = s->run->model->cfg.V,
                                     .tokenizer_hash = s->run->tokenizer_hash,
                                     .cache_bytes = DM_RUN_CACHE_BYTES};
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
    s->val_every = dm_train_opt_val_every(o, steps);
    return DM_OK;
}

static void bind_scratch(struct state *s, struct dm_arena *a)
{
    const struct dm_train_opt *o = s->opt;
    const size_t most = o->batch > o->micro ? o->batch : o->micro;
    s->ids = (int32_t *)dm_arena_floats(a, most, o->context);
    const size_t sets = dm_ranks_count(o->ranks) > 1 ? 2 : 1; // dm_ppl_measure()
    s->logp = dm_arena_floats(a, sets * s->run->model->cfg.K * o->micro, o->context);
}

static enum dm_status open_step(struct state *s, struct dm_err *e)
{
    const struct dm_train_opt *o = s->opt;
    const struct dm_step_opt so = {
        .kind = s->run->kind,
        .micro = o->micro,
        .T = o->context,
        .batch = o->batch,
        .recompute = o->recompute,
        .decay_mask = dm_train_opt_decay_mask(o),
        .clip = o->clip,
        .adam = {.beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps, .decay = o->decay},
        .head_weight = s->run->head_weight,
        .base_rate = o->base_lr / o->lr, // JOINT; both are above 0 then
        .stem_scale = o->stem_scale,
        .ranks = o->ranks};
    struct dm_arena measure = {0};
    bind_scratch(s, &measure);
    DM_TRY(dm_arena_init(&s->scratch, measure.used, e));
    bind_scratch(s, &s->scratch);
    return dm_step_init(&s->step, s->run->model, &so, e);
}

/* Something else on the machine can only make the loop slower: the best of all measurements. */
static void measure_peak(struct state *s)
{
    for (int i = 0; i < 3; i++) {
        const double peak = (double)dm_ranks_count(s->opt->ranks) *
                            dm_peak_flops(dm_train_opt_format(s->opt));
        if (peak > s->out->peak_gflops)
            s->out->peak_gflops = peak;
    }
}

/* The state to begin with: a checkpoint's, or that of step 0. */
static enum dm_status enter(struct state *s, struct dm_err *e)
{
    s->at.best = INFINITY;
    s->guard = dm_train_opt_guard(s->opt);
    if (dm_ranks_first(s->opt->ranks))
        dm_file_sweep(s->out->checkpoint);
    if (!s->opt->resume)
        return dm_resume_none(s->out->checkpoint, e);
    DM_TRY(dm_resume_load(&s->at, &s->step.adam, s->opt, s->run->console, e));
    s->saved = (size_t)s->at.step;
    DM_TRY(dm_guard_restore(&s->guard, s->at.guard, s->opt->resume, e));
    if (s->at.step > s->schedule.steps || s->at.drawn != s->at.step * s->opt->batch)
        return dm_fail(e, DM_EFORMAT, "%s: step %llu of %zu, %llu sequences drawn", s->opt->resume,
                       (unsigned long long)s->at.step, s->schedule.steps,
                       (unsigned long long)s->at.drawn);
    return DM_OK;
}

static void fill_report(struct state *s)
{
    struct dm_train_report *out = s->out;
    out->flops = dm_pass_flops(&s->run->model->cfg, s->step.opt.kind, s->opt->context);
    out->total_steps = s->schedule.steps;
    out->n_params = s->step.adam.n_total;
    out->train_windows = dm_loader_train_windows(s->loader);
    out->val_windows = s->val_windows;
    out->processes = dm_ranks_count(s->opt->ranks);
    measure_peak(s);
}

static enum dm_status set_up(struct state *s, struct dm_err *e)
{
    struct dm_train_report *out = s->out;
    const struct dm_train_opt *o = s->opt;
    char log[sizeof(out->checkpoint)];
    if (o->replay && dm_ranks_count(o->ranks) > 1)
        return dm_fail(e, DM_EUNSUPPORTED, "--replay is the work of one process");
    DM_TRY(dm_resume_prefix(out->checkpoint, sizeof(log), o, e));
    DM_TRY(dm_train_opt_log(log, sizeof(log), o, e));
    if (dm_ranks_first(o->ranks))
        dm_file_sweep(log);
    DM_TRY(open_data(s, e));
    DM_TRY(describe(s, e));
    DM_TRY(open_step(s, e));
    DM_TRY(dm_ranks_agree(o->ranks, enter(s, e), e));
    if (o->replay)
        return DM_OK;
    DM_TRY(dm_resume_alike(o->ranks, &s->at, e));
    const enum dm_status opened = dm_ranks_first(o->ranks)
                                      ? dm_log_open(&s->log, log, s->run->model->cfg.K,
                                                    (size_t)s->at.step, e)
                                      : DM_OK;
    DM_TRY(dm_ranks_agree(o->ranks, opened, e));
    s->begun = (size_t)s->at.step;
    s->started = dm_now();
    s->console = (struct dm_console){.f = s->run->console,
                                     .begun = s->begun,
                                     .steps = s->schedule.steps,
                                     .per_step = o->batch * o->context,
                                     .K = s->run->model->cfg.K,
                                     .every = o->log_every};
    fill_report(s);
    return DM_OK;
}

/* ---- Running --------------------------------------------------------------------------------- */

static enum dm_status validate(struct state *s, struct dm_err *e)
{
    const size_t step = (size_t)s->at.step;
    struct dm_train_report *out = s->out;
    measure_peak(s);
    const struct dm_ppl_job job = {.pass = s->step.pass,
                                   .m = s->run->model,
                                   .loader = s->loader,
                                   .windows = s->val_windows,
                                   .micro = s->opt->micro,
                                   .T = s->opt->context,
                                   .ids = s->ids,
                                   .logp = s->logp,
                                   .ranks = s->opt->ranks};
    DM_TRY(dm_ppl_measure(&out->val, &job, e));
    const double loss = dm_ppl_loss(&out->val, dm_step_first_head(s->step.opt.kind));
    s->improved = loss < s->at.best;
    if (s->improved) {
        s->at.best = loss;
        s->at.best_step = step;
    }
    return DM_OK;
}

/* Model FLOP utilisation. */
static double mfu(const struct dm_train_report *r, double tokens_per_s)
{
    return r->peak_gflops > 0.0 ? r->flops * tokens_per_s / (r->peak_gflops * 1e9) : NAN;
}

/* ---- Checkpoints ----------------------------------------------------------------------------- */

static void remember_guard(struct state *s)
{
    json_decref(s->at.guard);
    s->at.guard = dm_guard_json(&s->guard);
    dm_loader_quiet(s->loader);
}

static enum dm_status write_checkpoint(struct state *s, struct dm_err *e)
{
    const size_t step = (size_t)s->at.step;
    char path[sizeof(s->out->checkpoint) + 32];
    DM_TRY(dm_keep_path(path, sizeof(path), s->out->checkpoint, step, e));
    if (s->saved == step && !access(path, F_OK))
        return DM_OK;
    const struct dm_adamw_slot *bad = dm_guard_bad_parameter(&s->step.adam, NULL);
    if (bad) // the older ones are better
        return dm_fail(e, DM_ENAN, "%s: not written, parameter %s is not finite", path, bad->name);
    remember_guard(s);
    DM_TRY(dm_checkpoint_save(path, &s->at, &s->step.adam, e));
    s->saved = step;
    dm_keep_prune(s->out->checkpoint, s->opt->keep_last, step);
    return DM_OK;
}

/* The checkpoint of this step under the name of the best. */
static enum dm_status write_best(struct state *s, struct dm_err *e)
{
    char path[sizeof(s->out->checkpoint) + 32];
    DM_TRY(write_checkpoint(s, e));
    enum dm_status st = dm_keep_best(s->out->checkpoint, (size_t)s->at.step, e);
    if (st != DM_EUNSUPPORTED)
        return st;
    DM_TRY(dm_keep_path(path, sizeof(path), s->out->checkpoint, DM_KEEP_BEST, e));
    return dm_checkpoint_save(path, &s->at, &s->step.adam, e);
}

/* Of several processes, which are all in the same state, the first one writes. What it came to is
 * not agreed on: a failure need not end the run. */
static enum dm_status save(struct state *s, bool best, struct dm_err *e)
{
    if (!dm_ranks_first(s->opt->ranks))
        return DM_OK;
    return best ? write_best(s, e) : write_checkpoint(s, e);
}

static bool keeps_best(const struct state *s)
{
    return s->opt->checkpoint_every || !strcmp(s->opt->save, "best");
}

/* Saves what is due after a step. A full disk need not end a run that may find room later: hours of
 * work are in memory. */
static void save_due(struct state *s)
{
    const size_t every = s->opt->checkpoint_every;
    const bool asked = dm_stop_take_save();
    struct dm_err e;
    enum dm_status st = DM_OK;
    if (s->improved && keeps_best(s))
        st = save(s, true, &e);
    else if (asked || (every && (s->at.step % every == 0 || s->at.step == s->schedule.steps)))
        st = save(s, false, &e);
    if (st)
        dm_console_warn(&s->console, e.msg);
    else if (asked)
        dm_console_note(&s->console, "saved", s->out->checkpoint, (size_t)s->at.step);
    s->improved = false;
}

/* Gives the model the weights that --save asks for. */
static enum dm_status choose_weights(struct state *s, struct dm_err *e)
{
    char path[sizeof(s->out->checkpoint) + 32];
    struct dm_checkpoint best;
    struct dm_err why;
    s->out->saved_step = (size_t)s->at.step;
    if (strcmp(s->opt->save, "best") || !s->at.best_step || s->at.best_step == s->at.step)
        return DM_OK;
    if (save(s, false, &why)) // the best is about to be loaded over it
        dm_console_warn(&s->console, why.msg);
    DM_TRY(dm_keep_path(path, sizeof(path), s->out->checkpoint, DM_KEEP_BEST, e));
    DM_TRY(dm_checkpoint_peek(&best, path, e));
    const size_t step = (size_t)best.step;
    dm_checkpoint_release(&best);
    if (step != s->at.best_step)
        return dm_fail(e, DM_EMISMATCH,
                       "%s: is of step %zu, but the best validation was at step %llu; --save last "
                       "does without it",
                       path, step, (unsigned long long)s->at.best_step);
    DM_TRY(dm_ranks_agree(s->opt->ranks, dm_checkpoint_load(&s->step.adam, path, e), e));
    s->out->saved_step = step;
    return validate(s, e);
}

/* ---- The loop -------------------------------------------------------------------------------- */

/* A step that is not done: what it is made of goes to a file, which the sentence in `why` then
 * names. */
static void keep_refused(struct state *s, struct dm_err *why)
{
    char prefix[sizeof(s->out->checkpoint)], path[sizeof(prefix) + 32];
    const size_t step = (size_t)s->at.step + 1, n = strlen(why->msg), room = sizeof(why->msg) - n;
    struct dm_err e;
    if (!dm_ranks_first(s->opt->ranks))
        return;
    enum dm_status st = dm_train_opt_path(prefix, sizeof(prefix), s->opt->output, ".refused", &e);
    if (!st)
        st = dm_keep_path(path, sizeof(path), prefix, step, &e);
    remember_guard(s);
    if (!st)
        st = dm_checkpoint_save_replay(path, &s->at, &s->step.adam, s->ids, s->opt->batch,
                                       s->opt->context, &e);
    if (st) {
        snprintf(why->msg + n, room, "; batch and gradients are lost: %s", e.msg);
        return;
    }
    dm_keep_prune(prefix, 4, step);
    snprintf(why->msg + n, room, "; again: dynamo %s --replay %s", dm_train_kind_name(s->opt->kind),
             path);
}

/* Ends the run at a step that is not done; the state before it is saved. */
static enum dm_status refuse(struct state *s, enum dm_status st, struct dm_err *why,
                             struct dm_err *e)
{
    struct dm_err lost;
    const struct dm_ranks *r = s->opt->ranks;
    if (!r || !r->broken) // else the gradients are those of a part
        keep_refused(s, why);
    dm_step_drop(&s->step);
    if (save(s, false, &lost))
        dm_console_warn(&s->console, lost.msg);
    return dm_fail(e, st, "step %llu: %s", (unsigned long long)s->at.step + 1, why->msg);
}

/* Gradients, the guard, and the update. */
static enum dm_status do_step(struct state *s, double lr, bool *skipped, struct dm_err *e)
{
    struct dm_err why, line;
    enum dm_status st = dm_step_gradients(&s->step, s->ids, s->opt->batch, &why);
    *skipped = false;
    if (st)
        return refuse(s, st, &why, e);
    const double loss = dm_report_mean_loss(s->step.loss, s->run->model->cfg.K);
    *skipped = dm_guard_spike(&s->guard, loss, s->step.norm, why.msg, sizeof(why.msg));
    if (!*skipped) {
        dm_guard_accept(&s->guard, loss, s->step.norm);
        dm_step_update(&s->step, lr);
        return DM_OK;
    }
    if (s->guard.on == DM_SPIKE_STOP)
        return refuse(s, DM_ERANGE, &why, e);
    keep_refused(s, &why);
    dm_step_drop(&s->step);
    dm_fail(&line, DM_OK, "step %llu is skipped: %s", (unsigned long long)s->at.step + 1, why.msg);
    dm_console_warn(&s->console, line.msg);
    return DM_OK;
}

/* A log that cannot be written, on a full disk for instance, ends; the run does not. */
static void log_row(struct state *s, const struct dm_log_row *row)
{
    struct dm_err why;
    if (!s->log || !dm_log_row(s->log, row, &why))
        return;
    dm_console_warn(&s->console, why.msg);
    dm_log_close(s->log);
    s->log = NULL;
}

/* One optimiser step, its validation and its row of the log. */
static enum dm_status advance(struct state *s, struct dm_err *e)
{
    const struct dm_train_opt *o = s->opt;
    const double lr = dm_schedule_lr(&s->schedule, (size_t)s->at.step), t0 = dm_now();
    bool skipped;
    DM_TRY(
        dm_ranks_agree(o->ranks, dm_loader_read(s->loader, s->at.drawn, o->batch, s->ids, e), e));
    if (s->at.step + 1 < s->schedule.steps)
        dm_loader_prefetch(s->loader, s->at.drawn + o->batch, o->batch);
    DM_TRY(do_step(s, lr, &skipped, e));
    s->at.drawn += o->batch;
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
                                   .skipped = skipped,
                                   .loss = s->step.loss,
                                   .tokens_per_s = rate,
                                   .mfu = mfu(s->out, rate),
                                   .seconds = dm_now() - s->started,
                                   .val = val ? &s->out->val : NULL};
    dm_console_step(&s->console, &row);
    log_row(s, &row);
    return DM_OK;
}

/* Saves, then says how to go on. */
static enum dm_status stopped(struct state *s, struct dm_err *e)
{
    const char *name = dm_train_kind_name(s->opt->kind);
    struct dm_err why;
    const enum dm_status st = save(s, false, &why);
    if (!st)
        return dm_fail(e, DM_ESTOPPED,
                       "stopped after step %llu of %zu; go on with: dynamo %s --resume %s",
                       (unsigned long long)s->at.step, s->schedule.steps, name, s->out->checkpoint);
    if (!s->saved)
        return dm_fail(e, st, "stopped, but %s", why.msg);
    return dm_fail(e, st, "stopped, but %s; go on from step %zu with: dynamo %s --resume %s",
                   why.msg, s->saved, name, s->out->checkpoint);
}

static enum dm_status run_steps(struct state *s, struct dm_err *e)
{
    const size_t steps = s->schedule.steps, limit = s->opt->stop_after;
    s->improved = s->at.best_step && s->at.best_step == s->at.step;
    if (s->improved) // killed before this checkpoint had become the best?
        save_due(s);
    while (s->at.step < steps) {
        bool stop = dm_stop_requested(); // by one process of several, perhaps
        DM_TRY(dm_ranks_any(s->opt->ranks, &stop, e));
        if (stop)
            return stopped(s, e);
        if (limit && s->at.step - s->begun >= limit)
            return save(s, false, e);
        DM_TRY(advance(s, e));
        save_due(s);
    }
    if (s->val_windows && !s->out->val.K) // a checkpoint of the last step was resumed
        DM_TRY(validate(s, e));
    return choose_weights(s, e);
}

/* The sentence of a model that could not be written, and what became of the last step. */
static enum dm_status not_written(struct state *s, enum dm_status st, const struct dm_err *why,
                                  struct dm_err *e)
{
    struct dm_err lost;
    json_decref(s->out->provenance);
    s->out->provenance = NULL;
    // Else choose_weights() has saved the last step, if it could.
    if (s->out->saved_step == s->at.step && save(s, false, &lost))
        dm_console_warn(&s->console, lost.msg);
    if (s->saved != s->at.step)
        return dm_fail(e, st, "%s; the last step is lost", why->msg);
    return dm_fail(e, st, "%s; the last step is saved, go on with: dynamo %s --resume %s", why->msg,
                   dm_train_kind_name(s->opt->kind), s->out->checkpoint);
}

/* The model of a complete run; then its checkpoints go, but for a best one with other weights. */
static enum dm_status write_model(struct state *s, struct dm_err *e)
{
    struct dm_train_report *out = s->out;
    const struct dm_run *r = s->run;
    char best[sizeof(out->checkpoint) + 32];
    struct dm_err why;
    if (!r->write || out->steps != out->total_steps || !dm_ranks_first(s->opt->ranks))
        return DM_OK;
    const enum dm_status st = r->write(r, out->provenance, &why);
    if (st)
        return not_written(s, st, &why, e);
    dm_keep_prune(out->checkpoint, 0, out->total_steps);
    if (out->saved_step == out->best_step &&
        !dm_keep_path(best, sizeof(best), out->checkpoint, DM_KEEP_BEST, NULL))
        unlink(best);
    return DM_OK;
}

/* "command" has no arguments: they would tell threads and interruptions apart. */
static enum dm_status report(struct state *s, struct dm_err *e)
{
    struct dm_train_report *out = s->out;
    const struct dm_train_opt *o = s->opt;
    const size_t per_step = o->batch * o->context;
    out->steps = (size_t)s->at.step;
    out->tokens = out->steps * per_step;
    out->seconds = dm_now() - s->started;
    if (s->step_seconds > 0.0)
        out->tokens_per_s = (double)((out->steps - s->begun) * per_step) / s->step_seconds;
    out->mfu = s->step_seconds > 0.0 ? mfu(out, out->tokens_per_s) : NAN;
    if (o->ranks && out->steps > s->begun) {
        out->sent_per_step = o->ranks->sent / (out->steps - s->begun);
        out->exchange = o->ranks->seconds / s->step_seconds;
    }
    for (size_t n = 0; n < DM_PPL_MAX_HEADS; n++)
        out->loss[n] = n < s->run->model->cfg.K && out->steps > s->begun ? s->step.loss[n] : NAN;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    out->memory = (size_t)used.ru_maxrss << 10;
    out->best = s->at.best;
    out->best_step = (size_t)s->at.best_step;
    out->provenance = json_pack(
        "{s:s, s:[ss], s:o, s:O, s:I, s:I, s:I, s:I}", "program", "dynamo " DM_VERSION, "command",
        "dynamo", dm_train_kind_name(s->opt->kind), "options", dm_train_opt_json(s->opt, false),
        "inputs", json_object_get(s->at.run, "inputs"), "steps", (json_int_t)out->steps,
        "weights_of_step", (json_int_t)out->saved_step, "skipped_steps",
        (json_int_t)(s->at.step - s->step.adam.t), "tokens", (json_int_t)out->tokens);
    if (out->provenance && (!out->val.K || !json_object_set_new(out->provenance, "validation",
                                                                dm_ppl_json(&out->val))))
        return DM_OK;
    json_decref(out->provenance);
    out->provenance = NULL;
    return dm_fail(e, DM_ENOMEM, "out of memory");
}

enum dm_status dm_run_train(const struct dm_run *r, struct dm_train_report *out, struct dm_err *e)
{
    struct state s = {.run = r, .opt = r->opt, .out = out};
    enum dm_status st;
    *out = (struct dm_train_report){0};
    assert(r->model->cfg.K <= DM_PPL_MAX_HEADS);
    DM_TRY_GOTO(set_up(&s, e));
    if (r->opt->replay) {
        st = dm_replay(&out->replay, &s.step, r->opt->resume, (size_t)s.at.step + 1, s.ids,
                       r->opt->batch, e);
        goto done;
    }
    dm_console_begin(&s.console, dm_train_kind_name(r->opt->kind));
    st = run_steps(&s, e);
    dm_console_end(&s.console);
    if (!st)
        st = report(&s, e);
    if (!st)
        st = write_model(&s, e);
done:
    dm_log_close(s.log);
    dm_checkpoint_release(&s.at);
    dm_step_release(&s.step);
    dm_arena_release(&s.scratch);
    dm_loader_free(s.loader);
    return st;
}
