/* SPDX-License-Identifier: MIT */
/* heads.h - DynaMo heads, on a frozen base or together with it: docs/training.md. */
#ifndef DM_TRAIN_HEADS_H
#define DM_TRAIN_HEADS_H

#include "src/base/hash.h"
#include "src/model/file.h"
#include "train/run.h"

/* "1,0.5" -> weights of heads first..K into w (K), 0 for those before. NULL text is 1 for each.
 * DM_ERANGE. */
enum dm_status dm_heads_weights(float *w, size_t first, size_t K, const char *text,
                                struct dm_err *e);

/* The paper's peak learning rate of the base (LR_B, section 2 of METHOD) for a model of this shape;
 * that of heads >= 2 is 100 times as high. Ours: 14m, 31m and what is no Pythia get 70m's rate, 12b
 * that of 6.9b. */
double dm_heads_base_lr(const struct dm_config *c);

/* Loads o->base as packs in o's precision (joint: in float32), and adds heads 2..K, which it must
 * not have, or with --init file keeps those that it must have. Release with dm_model_release() and
 * dm_model_meta_release(). */
enum dm_status dm_heads_model(struct dm_model *m, struct dm_model_meta *meta,
                              const struct dm_train_opt *o, struct dm_err *e);

/* The template that the shards' instructions were made with replaces the base's, if there is one.
 */
enum dm_status dm_heads_template(struct dm_model_meta *meta, const struct dm_train_opt *o,
                                 struct dm_err *e);

/* Text of a run's provenance with that of the model it began from, so that the file tells the whole
 * story; heap, NULL when out of memory. */
char *dm_heads_provenance(json_t *own, const struct dm_model_meta *base);

/* A model file's config and the SHA-256 of its tokenizer, "" = none. */
enum dm_status dm_heads_peek(struct dm_config *c, char tokenizer_hash[DM_HASH_LEN + 1],
                             const char *path, struct dm_err *e);

/* DM_ERANGE when o->context is more than the positions of the model `where`. */
enum dm_status dm_heads_context(const struct dm_config *c, const struct dm_train_opt *o,
                                const char *where, struct dm_err *e);

/* Those of the model that will be trained, from the base's header; refuses what dm_heads_model()
 * would refuse. */
enum dm_status dm_heads_config(struct dm_config *c, char tokenizer_hash[DM_HASH_LEN + 1],
                               const struct dm_train_opt *o, struct dm_err *e);

/* Loads o->base, trains heads and, when the last step is done, writes o->output: the base's tensors
 * as they are in its file, or with --recipe joint as they are now, and the heads. console (may be
 * NULL) gets progress lines. */
enum dm_status dm_train_heads(const struct dm_train_opt *o, struct dm_train_report *out,
                              FILE *console, struct dm_err *e);

#endif
