/* SPDX-License-Identifier: MIT */
/* runs.h - whole training runs through files, for tests: a small shard, shape and base. */
#ifndef DM_TESTS_RUNS_H
#define DM_TESTS_RUNS_H

#include "train/run.h"

extern const char *const run_precisions[2]; /* "bf16", "f32" */

/* Files that run_setup() and run_make_base() make once per program. */
extern char run_shard_path[600], run_config_path[600], run_base_path[600];
int run_setup(void **state); /* for cmocka's groups */
void run_make_base(void);

/* A shard of 1500 ids with some structure and a separator every 97; `extra` makes its tokenizer
 * another one. */
const char *run_shard(const char *name, const char *extra, unsigned salt);

/* 12 steps of 5 sequences of 16 tokens. Release with dm_train_opt_release(). */
void run_options(struct dm_train_opt *o, enum dm_train_kind kind, const char *output);

/* One other shard instead. */
void run_set_data(struct dm_train_opt *o, const char *path);

enum dm_status run_go(const struct dm_train_opt *o, struct dm_train_report *r, struct dm_err *e);
/* A run to the end, its report dropped; o stays. */
void run_complete(const struct dm_train_opt *o);
/* A run that must fail with `want` and a sentence that has `part`, and leave no file; o is
 * released.
 */
void run_refused(struct dm_train_opt *o, enum dm_status want, const char *part);

/* "<prefix>-<pretrain or train>.h5" as tmp_path() has it. */
const char *run_named(const char *prefix, enum dm_train_kind kind);
/* The name without .h5, in memory that is overwritten by the next call. */
const char *run_prefix_of(const char *file);
void assert_same_file(const char *a, const char *b);

#endif
