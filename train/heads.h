/* SPDX-License-Identifier: MIT */
/* heads.h - DynaMo heads on a frozen base: docs/training.md. */
#ifndef DM_TRAIN_HEADS_H
#define DM_TRAIN_HEADS_H

#include "src/model/file.h"
#include "train/run.h"

/* "1,0.5" -> weights of heads 2..K into w (K); w[0] = 0 is head 1, which is not trained. NULL text
 * is 1 for each. DM_ERANGE. */
enum dm_status dm_heads_weights(float *w, size_t K, const char *text, struct dm_err *e);

/* Loads o->base, which must not have heads, as packs in o's precision, and adds heads 2..K as
 * o->init says. Release with dm_model_release() and dm_model_meta_release(). */
enum dm_status dm_heads_model(struct dm_model *m, struct dm_model_meta *meta,
                              const struct dm_train_opt *o, struct dm_err *e);

/* Loads o->base, trains heads and, when the last step is done, writes o->output: the base's tensors
 * as they are in its file and the heads. console (may be NULL) gets progress lines. */
enum dm_status dm_train_heads(const struct dm_train_opt *o, struct dm_train_report *out,
                              FILE *console, struct dm_err *e);

#endif
