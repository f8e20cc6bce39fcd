/* SPDX-License-Identifier: MIT */
/* guard.h - what watches over a run: which tensor went wrong, and losses that jump. */
#ifndef DM_TRAIN_GUARD_H
#define DM_TRAIN_GUARD_H

#include <jansson.h>

#include "train/adamw.h"

/* A tensor with a number that is not finite, or NULL when there is none: the last one in the
 * model's order, which is the first that the backward pass reached. *n (may be NULL) is how many
 * there are. */
const struct dm_adamw_slot *dm_guard_bad_gradient(const struct dm_adamw *a, size_t *n);
const struct dm_adamw_slot *dm_guard_bad_parameter(const struct dm_adamw *a, size_t *n);

/* Losses and gradient norms that jump: x is a spike when it is above mean + sigma * sd of the last
 * `window` accepted steps, once there are so many. sd counts as 1 % of the mean at least. */
enum dm_on_spike { DM_SPIKE_OFF, DM_SPIKE_SKIP, DM_SPIKE_STOP };
enum { DM_GUARD_MAX_WINDOW = 4096 };

struct dm_guard {
    enum dm_on_spike on;
    size_t window; /* <= DM_GUARD_MAX_WINDOW */
    double sigma;
    size_t n; /* accepted steps that are remembered, at most window */
    double loss[DM_GUARD_MAX_WINDOW], norm[DM_GUARD_MAX_WINDOW]; /* oldest first */
};

/* True for a spike, with a sentence in what (n). */
bool dm_guard_spike(const struct dm_guard *g, double loss, double norm, char *what, size_t n);
void dm_guard_accept(struct dm_guard *g, double loss, double norm);

/* What is remembered, as a checkpoint carries it; new reference. NULL when the guard is off. */
json_t *dm_guard_json(const struct dm_guard *g);
/* Takes it back, the newest `window` of it; an absent one is an empty memory. DM_EFORMAT. */
enum dm_status dm_guard_restore(struct dm_guard *g, const json_t *stored, const char *where,
                                struct dm_err *e);

#endif
