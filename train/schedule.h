/* SPDX-License-Identifier: MIT */
/* schedule.h - learning rate: linear warm-up, then a cosine to min_lr. A pure function of the step,
 * so that a checkpoint needs only the step. */
#ifndef DM_TRAIN_SCHEDULE_H
#define DM_TRAIN_SCHEDULE_H

#include <stddef.h>

struct dm_schedule {
    size_t steps, warmup; /* warmup <= steps */
    double lr, min_lr;
};

/* Warm-up steps of --warmup: below 1 a fraction of all steps (rounded up), else steps; cut to
 * `steps`. */
size_t dm_schedule_warmup(double warmup, size_t steps);

/* Rate of step `step` (0 = the first). The w-th of W warm-up steps has lr * w / W, so none is lost
 * at rate 0; the cosine runs from lr at step W to min_lr after the last step. */
double dm_schedule_lr(const struct dm_schedule *s, size_t step);

#endif
