/* SPDX-License-Identifier: MIT */
/* run.h - a training run from its first step (or a checkpoint) to its last: what pretraining and
 * the training of heads have in common. */
#ifndef DM_TRAIN_RUN_H
#define DM_TRAIN_RUN_H

#include <stdio.h>

#include "train/options.h"
#include "train/ppl.h"
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

struct dm_train_report {
    size_t steps, tokens; /* done since the very first step */
    size_t total_steps;   /* planned; steps < total_steps after --stop-after */
    size_t n_params;      /* trained */
    size_t train_windows, val_windows;
    double seconds, tokens_per_s; /* of this run; the rate is that of the steps alone */
    double flops;                 /* per token: dm_pass_flops() */
    double peak_gflops; /* of the precision's multiply-adds, the best measured in this run */
    double mfu;         /* share of it that the steps reached, NaN = not known */
    double loss[DM_PPL_MAX_HEADS]; /* of the last step of this run, NaN = not trained */
    struct dm_ppl val;             /* K = 0: there was nothing to validate on */
    double best;                   /* smallest mean validation loss, at best_step (0 = none) */
    size_t best_step;
    json_t *provenance;    /* command, options, inputs' hashes, validation: no times, no threads */
    char checkpoint[4096]; /* the file's name */
};
void dm_train_report_release(struct dm_train_report *r);

/* As JSON without the provenance; new reference. */
json_t *dm_train_report_json(const struct dm_train_report *r);

/* "train", "pretrain". */
const char *dm_train_kind_name(enum dm_train_kind kind);

/* <output without .h5><suffix>; DM_ERANGE when it does not fit n bytes. */
enum dm_status dm_run_path(char *out, size_t n, const char *output, const char *suffix,
                           struct dm_err *e);

/* Reads the options of the checkpoint that o->resume names into o (those not given). */
enum dm_status dm_run_restore(struct dm_train_opt *o, struct dm_err *e);

/* Runs until the last step, or --stop-after: then the checkpoint is saved and the status DM_OK. A
 * signal (stop.h) finishes the step, saves the checkpoint and gives DM_ESTOPPED with the command
 * that resumes. DM_EMISMATCH when a checkpoint belongs to other inputs, DM_ENAN as dm_step_run().
 * Release the report with dm_train_report_release() after success. */
enum dm_status dm_run_train(const struct dm_run *r, struct dm_train_report *out, struct dm_err *e);

#endif
