/* SPDX-License-Identifier: MIT */
/* guard.h - what watches over a run: which tensor went wrong, and losses that jump. */
#ifndef DM_TRAIN_GUARD_H
#define DM_TRAIN_GUARD_H

#include "train/adamw.h"

/* A tensor with a number that is not finite, or NULL when there is none: the last one in the
 * model's order, which is the first that the backward pass reached. *n (may be NULL) is how many
 * there are. */
const struct dm_adamw_slot *dm_guard_bad_gradient(const struct dm_adamw *a, size_t *n);
const struct dm_adamw_slot *dm_guard_bad_parameter(const struct dm_adamw *a, size_t *n);

#endif
