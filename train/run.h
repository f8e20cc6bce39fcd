/* SPDX-License-Identifier: MIT */
/* run.h - a training run from its first step (or a checkpoint) to its last: what pretraining and
 * the training of heads have in common. */
#ifndef DM_TRAIN_RUN_H
#define DM_TRAIN_RUN_H

#include <stdio.h>

#include "train/options.h"
#include "train/report.h"
#include "train/step.h"

struct dm_model_meta;

struct dm_run {
    const struct dm_train_opt *opt;
    enum dm_pass_kind kind;     /* what is trained */
    struct dm_model *model;     /* with its initial weights; trained in place */
    const float *head_weight;   /* (K) or NULL */
    const char *tokenizer_hash; /* that the shards must have; NULL = not checked */
    const char *base_hash;      /* of the base's file, or NULL */
    FILE *console;              /* a line every log_every steps; NULL = none */
    /* Writes the model of a complete run, on the first process; NULL = nothing is written. */
    enum dm_status (*write)(const struct dm_run *r, json_t *provenance, struct dm_err *e);
    const struct dm_model_meta *meta; /* for write(): of the base, or what a new model carries */
};

#define DM_RUN_CACHE_BYTES \
    ((size_t)1 << 30) /* of tokens: 268 M; larger corpora are read by range */

/* Runs until the last step, or --stop-after: then the checkpoint is saved and the status DM_OK. A
 * signal (stop.h) finishes the step, saves the checkpoint and gives DM_ESTOPPED with the command
 * that resumes; one that asks for a checkpoint gets it. A checkpoint that cannot be written on the
 * way is a warning. After the last step the model has the weights that --save asks for and is
 * written; then the checkpoints go. If that fails, the last step is saved.
 * DM_EMISMATCH when a checkpoint belongs to other inputs or a new run would write over an old
 * one's, DM_ENAN as dm_step_run(). Release the report with dm_train_report_release() after success.
 */
enum dm_status dm_run_train(const struct dm_run *r, struct dm_train_report *out, struct dm_err *e);

#endif
