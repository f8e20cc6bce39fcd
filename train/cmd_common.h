/* SPDX-License-Identifier: MIT */
/* cmd_common.h - what cmd_pretrain and cmd_train share: parsing and the report. */
#ifndef DM_TRAIN_CMD_COMMON_H
#define DM_TRAIN_CMD_COMMON_H

#include "train/run.h"

typedef enum dm_status dm_train_fn(const struct dm_train_opt *o, struct dm_train_report *out,
                                   FILE *console, struct dm_err *e);

/* A whole command: 0 done, 1 failed or stopped by a signal, 2 usage. */
int dm_train_command(int argc, char **argv, enum dm_train_kind kind, const char *args_doc,
                     const char *doc, dm_train_fn *run);

#endif
