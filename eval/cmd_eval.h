/* SPDX-License-Identifier: MIT */
/* cmd_eval.h - between the files of `dynamo eval`: one per group of sections. */
#ifndef DM_EVAL_CMD_EVAL_H
#define DM_EVAL_CMD_EVAL_H

#include <jansson.h>
#include <stdbool.h>

#include "eval/prompts.h"
#include "eval/tasks.h"
#include "src/base/progress.h"
#include "src/decode/options.h"
#include "src/model/file.h"

enum { EVAL_TASKS = 16, EVAL_FILES = 16, EVAL_EPS = 256 };

enum eval_what {
    EVAL_PERPLEXITY,
    EVAL_ACCURACY,
    EVAL_RELIABILITY,
    EVAL_QUALITY,
    EVAL_ABLATION,
    EVAL_N
};
extern const char *const eval_words[]; /* "perplexity", ..; NULL-terminated */

struct eval_task {
    enum dm_task_kind kind;
    char *path, *labels; /* labels may be NULL */
};

struct eval_options {
    const char *model, *judge, *cooc, *data, *text, *prompts, *items, *plot;
    struct eval_task task[EVAL_TASKS];
    const char *diversity[EVAL_FILES];
    size_t n_tasks, n_diversity, limit, threads;
    bool what[EVAL_N];
    json_t *set; /* options of decoding, as in a calibration */
    double eps[EVAL_EPS];
    size_t n_eps;
    size_t positions, context, bins;
    size_t n_prompts, prompt_tokens, samples, tokens, bootstrap;
    double confidence;
    uint64_t seed;
    int format;
    bool json;
};

/* What the sections share. */
struct eval_job {
    const struct eval_options *o;
    struct dm_model model, judge;
    struct dm_model_meta meta;
    struct dm_tokenizer *tokenizer;      /* NULL if the model has none */
    struct dm_cooc cooc;                 /* with o->cooc */
    struct dm_shard *shard;              /* with o->data */
    struct dm_task task[EVAL_TASKS];     /* of o->task */
    struct dm_ids diversity[EVAL_FILES]; /* of o->diversity */
    struct dm_prompts prompts;           /* of quality and ablation */
    struct dm_gen_opt gen;
    struct dm_progress progress;
    json_t *root; /* the report */
};

const struct dm_cooc *eval_cooc(const struct eval_job *j); /* NULL without one */

/* Fails with a sentence that says what text is needed for, if the model has no tokenizer. */
enum dm_status eval_need_tokenizer(const struct eval_job *j, const char *what, struct dm_err *e);

/* What the sections read, before anything takes long. */
enum dm_status eval_read_tasks(struct eval_job *j, struct dm_err *e);
enum dm_status eval_read_diversity(struct eval_job *j, struct dm_err *e);
enum dm_status eval_read_prompts(struct eval_job *j, struct dm_err *e);

/* A section prints its table, or with --json adds its member to j->root. */
enum dm_status eval_tasks(struct eval_job *j, struct dm_err *e);
enum dm_status eval_diversity(struct eval_job *j, struct dm_err *e);
enum dm_status eval_heldout(struct eval_job *j, struct dm_err *e);
enum dm_status eval_quality(struct eval_job *j, struct dm_err *e);

/* A number with `digits` after the point, or "-". */
void eval_print(double x, int digits);

#endif
