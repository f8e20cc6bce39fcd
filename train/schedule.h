/* SPDX-License-Identifier: MIT */
/* schedule.h - learning rate: linear warm-up, then one of four shapes. A pure function of the step,
 * so that a checkpoint needs only the step. */
#ifndef DM_TRAIN_SCHEDULE_H
#define DM_TRAIN_SCHEDULE_H

#include <stddef.h>

/* With x from 0 at the end of the warm-up to 1 after the last step, lr above min_lr falls as
 *   cosine    (1 + cos(pi x)) / 2
 *   linear    1 - x
 *   constant  1
 *   wsd       1, and in the last `decay` steps 1 - sqrt(y), y from 0 to 1: warm-up, stable, decay
 *             (the shape that Haegele et al. 2024, arXiv:2405.18392, found best) */
enum dm_schedule_shape { DM_LR_COSINE, DM_LR_LINEAR, DM_LR_CONSTANT, DM_LR_WSD };

struct dm_schedule {
    enum dm_schedule_shape shape;
    size_t steps, warmup; /* warmup <= steps */
    size_t decay;         /* of wsd; <= steps - warmup */
    double lr, min_lr;
};

/* Steps of --warmup or --lr-decay: below 1 a fraction of all steps (rounded up), else steps; cut to
 * `most`. */
size_t dm_schedule_part(double x, size_t steps, size_t most);

/* Rate of step `step` (0 = the first). The w-th of W warm-up steps has lr * w / W, so none is lost
 * at rate 0; cosine, linear and wsd would reach min_lr after the last step. */
double dm_schedule_lr(const struct dm_schedule *s, size_t step);

#endif
