/* SPDX-License-Identifier: MIT */
/* options.h - the options of `dynamo pretrain` and `dynamo train`: one table drives the command
 * line, --help, what a checkpoint stores and what a model's provenance records. */
#ifndef DM_TRAIN_OPTIONS_H
#define DM_TRAIN_OPTIONS_H

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/base/ranks.h"
#include "src/base/status.h"
#include "src/kernel/format.h"
#include "train/guard.h"
#include "train/schedule.h"
#include "train/step.h"

enum dm_train_kind { DM_TRAIN_BASE = 1, DM_TRAIN_HEADS = 2 }; /* bits: a row can serve both */

/* "train", "pretrain". */
const char *dm_train_kind_name(enum dm_train_kind kind);

struct dm_paths {
    const char **path; /* (n), own memory; dm_paths_clear() releases it */
    double *weight;    /* (n), 0 = none given */
    size_t n;
};

struct dm_train_opt {
    enum dm_train_kind kind;
    const char *base, *config, *from, *tokenizer, *vocab_rows, *dtype; /* strings are borrowed */
    const char *precision, *recipe, *init, *head_input, *head_weights;
    const char *schedule, *decay_mask, *save, *on_spike;
    size_t heads, head_depth;
    struct dm_paths data, val;
    double val_fraction;
    size_t steps, batch, micro, context;
    double epochs, lr, base_lr, stem_scale, min_lr, warmup, lr_decay, decay, clip, beta1, beta2,
        eps;
    uint64_t seed;
    size_t val_every, val_max;
    const char *output, *checkpoint, *log;
    size_t checkpoint_every, keep_last, log_every;
    size_t spike_window;
    double spike_sigma;
    const char *resume, *replay;
    size_t stop_after, threads;
    double assume_mfu;
    bool recompute, dry_run, json;
    struct dm_ranks *ranks; /* the processes of the run, borrowed; NULL = one */
    uint64_t given;         /* bit i: row i of the table was on the command line */
    json_t *stored;         /* owns the strings that dm_train_opt_restore() set */
};

/* The defaults of a command. Release with dm_train_opt_release(). */
void dm_train_opt_init(struct dm_train_opt *o, enum dm_train_kind kind);
void dm_train_opt_release(struct dm_train_opt *o);

/* Fills `out` (DM_TRAIN_ARGP_MAX) with the argp options of o's command, docs with the defaults
 * included; their strings live in `text`, which the caller gives (DM_TRAIN_TEXT_MAX bytes). */
enum { DM_TRAIN_ARGP_MAX = 64, DM_TRAIN_TEXT_MAX = 16384 };
void dm_train_opt_argp(const struct dm_train_opt *o, struct argp_option *out, char *text);

/* Takes one option of argp's parser; ARGP_ERR_UNKNOWN when `key` is not of the table. A bad value
 * is a usage error. */
error_t dm_train_opt_parse(struct dm_train_opt *o, int key, const char *arg, struct argp_state *s);

/* Appends a copy of `text`, "PATH" or "PATH:WEIGHT" (a number above 0; the name of a file that is
 * there is a path as it stands). DM_ENOMEM. */
enum dm_status dm_paths_add(struct dm_paths *p, const char *text, struct dm_err *e);
void dm_paths_clear(struct dm_paths *p);

struct dm_schedule dm_train_opt_schedule(const struct dm_train_opt *o, size_t steps);

/* Steps between validations: --val-every, or what stands for 0. */
size_t dm_train_opt_val_every(const struct dm_train_opt *o, size_t steps);
struct dm_guard dm_train_opt_guard(const struct dm_train_opt *o); /* that remembers nothing */
enum dm_decay_mask dm_train_opt_decay_mask(const struct dm_train_opt *o);
/* Of the products: f32 or bf16. */
enum dm_format dm_train_opt_format(const struct dm_train_opt *o);

/* <output without .h5><suffix>; DM_ERANGE when it does not fit n bytes. */
enum dm_status dm_train_opt_path(char *out, size_t n, const char *output, const char *suffix,
                                 struct dm_err *e);
/* The prefix of a run's logs: --log, or the output's name with .log. */
enum dm_status dm_train_opt_log(char *out, size_t n, const struct dm_train_opt *o,
                                struct dm_err *e);

/* --recipe joint. */
bool dm_train_opt_joint(const struct dm_train_opt *o);

/* Was it on the command line? name must be in the table of o's command (asserted). */
bool dm_train_opt_given(const struct dm_train_opt *o, const char *name);

/* What a run is made of, as JSON (new reference, NULL when out of memory): the rows that shape the
 * weights; with `all` also paths and intervals, which a resumed run keeps unless given anew. */
json_t *dm_train_opt_json(const struct dm_train_opt *o, bool all);

/* Sets the rows that were not given from dm_train_opt_json(.., true) of an earlier run; `where`
 * names the file. Values are checked as on the command line. DM_EMISMATCH for a given row that
 * shapes the weights and differs. */
enum dm_status dm_train_opt_restore(struct dm_train_opt *o, json_t *stored, const char *where,
                                    struct dm_err *e);

#endif
