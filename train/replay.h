/* SPDX-License-Identifier: MIT */
/* replay.h - a step that was refused, once more: its file has parameters, batch and gradients. */
#ifndef DM_TRAIN_REPLAY_H
#define DM_TRAIN_REPLAY_H

#include <jansson.h>

#include "train/step.h"

/* s has the parameters of the file `path` (dm_checkpoint_load). Computes the gradients of the
 * file's batch of B sequences anew; ids (B,T) is scratch. *out, a new object: "step", "loss" by
 * head, "norm", "same" (do all gradients have the stored bits?), "finite", and "tensors", each with
 * "name", "norm", "max" (largest magnitude) and "same"; numbers that are not finite are null. A
 * batch whose loss is not finite is a result, too. */
enum dm_status dm_replay(json_t **out, struct dm_step *s, const char *path, size_t step,
                         int32_t *ids, size_t B, struct dm_err *e);

#endif
