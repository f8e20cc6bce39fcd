/* SPDX-License-Identifier: MIT */
/* run.h - a training run from its first step (or a checkpoint) to its last: what pretraining and
 * the training of heads have in common. */
#ifndef DM_TRAIN_RUN_H
#define DM_TRAIN_RUN_H

#include <stdio.h>

#include "train/options.h"
#include "train/report.h"
#include "train/step.h"

struct dm_run {
    const struct dm_train_opt *opt;
    enum dm_pass_kind kind;     /* what is trained */
    struct dm_model *model;     /* with its initial weights; trained in place */
    const float *head_weight;   /* (K) or NULL */
    const char *tokenizer_hash; /* that the shards must have; NULL = not checked */
    const char *base_hash;      /* of the base's file, or NULL */
    FILE *console;              /* a line every log_every steps; NULL = none */
};

/* "train", "pretrain". */
const char *dm_train_kind_name(enum dm_train_kind kind);

#define DM_RUN_CACHE_BYTES \
    ((size_t)1 << 30) /* of tokens: 268 M; larger corpora are read by range */

/* Steps between validations: --val-every, or what stands for 0. */
size_t dm_run_val_every(const struct dm_train_opt *o, size_t steps);

/* <output without .h5><suffix>; DM_ERANGE when it does not fit n bytes. */
enum dm_status dm_run_path(char *out, size_t n, const char *output, const char *suffix,
                           struct dm_err *e);

/* Runs until the last step, or --stop-after: then the checkpoint is saved and the status DM_OK. A
 * signal (stop.h) finishes the step, saves the checkpoint and gives DM_ESTOPPED with the command
 * that resumes; one that asks for a checkpoint gets it. A checkpoint that cannot be written on the
 * way is a warning. After the last step the model has the weights that --save asks for.
 * DM_EMISMATCH when a checkpoint belongs to other inputs or a new run would write over an old
 * one's, DM_ENAN as dm_step_run(). Release the report with dm_train_report_release() after success.
 */
enum dm_status dm_run_train(const struct dm_run *r, struct dm_train_report *out, struct dm_err *e);

/* The model of a complete run has been written: removes its checkpoints, and the best one if
 * the model has its weights. */
void dm_run_saved(const struct dm_train_report *r);

#endif
