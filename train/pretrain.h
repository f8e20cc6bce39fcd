/* SPDX-License-Identifier: MIT */
/* pretrain.h - a GPT-NeoX model from scratch: all parameters, next-token loss. */
#ifndef DM_TRAIN_PRETRAIN_H
#define DM_TRAIN_PRETRAIN_H

#include "src/base/hash.h"
#include "train/run.h"

/* Builds the model that o describes (config, tokenizer, seed), trains it and, when the last step is
 * done, writes o->output. console (may be NULL) gets progress lines. */
enum dm_status dm_pretrain(const struct dm_train_opt *o, struct dm_train_report *out, FILE *console,
                           struct dm_err *e);

/* That of the model that dm_pretrain() will train, and the SHA-256 of its tokenizer, "" = none. */
enum dm_status dm_pretrain_config(struct dm_config *c, char tokenizer_hash[DM_HASH_LEN + 1],
                                  const struct dm_train_opt *o, struct dm_err *e);

#endif
