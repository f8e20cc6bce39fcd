/* SPDX-License-Identifier: MIT */
/* plan.h - what a run will need, from its options and the sizes in its files' headers: no weights
 * and no tokens are read. */
#ifndef DM_TRAIN_PLAN_H
#define DM_TRAIN_PLAN_H

#include <jansson.h>

#include "train/options.h"

struct dm_plan {
    size_t n_trained, n_params; /* parameters */
    size_t steps, tokens;       /* of the whole run */
    /* Memory, bytes. */
    size_t weights, gradients, moments, activations, data, program;
    size_t memory; /* the sum: the peak while training */
    /* Disk, bytes. */
    size_t checkpoint, n_checkpoints; /* one file, and how many there are at most at once */
    size_t model, logs;
    size_t disk, disk_free; /* the sum, and what the output's file system has */
    /* Time. */
    double flops;       /* per token */
    double peak_gflops; /* measured now */
    double mfu;         /* assumed */
    double seconds;     /* of steps and validations */
};

/* cfg, tokenizer_hash ("" = none): of the model with its heads. Takes some milliseconds for the
 * peak. DM_ERANGE when a size overflows, DM_EIO when the output's folder cannot be written to, what
 * dm_loader_check() says of a shard, and what the shards' and the base's headers give. */
enum dm_status dm_plan(struct dm_plan *p, const struct dm_train_opt *o, const struct dm_config *cfg,
                       const char *tokenizer_hash, struct dm_err *e);

json_t *dm_plan_json(const struct dm_plan *p); /* new reference */

#endif
