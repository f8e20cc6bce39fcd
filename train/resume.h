/* SPDX-License-Identifier: MIT */
/* resume.h - finding the checkpoint that --resume means, and going on from it.
 *
 * --resume FILE is that file. --resume PREFIX is the newest whole one of PREFIX-<step>.h5: a
 * damaged one is passed over with a warning. --resume auto is the prefix that this command line
 * would write to, and a new run when there is none: the command can be given again and again. */
#ifndef DM_TRAIN_RESUME_H
#define DM_TRAIN_RESUME_H

#include <stdio.h>

#include "train/checkpoint.h"
#include "train/options.h"

/* The prefix of a run's checkpoints into out (n): --checkpoint, or the output's name with .ckpt. */
enum dm_status dm_resume_prefix(char *out, size_t n, const struct dm_train_opt *o,
                                struct dm_err *e);

/* Reads the options of the checkpoint that o->resume means into o. Those that were given must not
 * differ where they shape the weights (DM_EMISMATCH). o->resume becomes NULL when it is "auto" and
 * there is no checkpoint. */
enum dm_status dm_resume_options(struct dm_train_opt *o, struct dm_err *e);

/* Loads the newest whole checkpoint of o->resume into the slots of `a`. `at` gets its state;
 * at->run is the description of the present run, whose inputs and config must be the checkpoint's
 * (DM_EMISMATCH), and stays. console (may be NULL) gets the warnings. */
enum dm_status dm_resume_load(struct dm_checkpoint *at, struct dm_adamw *a,
                              const struct dm_train_opt *o, FILE *console, struct dm_err *e);

/* DM_EMISMATCH when a new run would write over the checkpoints of an earlier one. */
enum dm_status dm_resume_none(const char *prefix, struct dm_err *e);

/* DM_EMISMATCH when processes differ in what they train or in their vector instructions. */
enum dm_status dm_resume_alike(struct dm_ranks *ranks, const struct dm_checkpoint *at,
                               struct dm_err *e);

#endif
