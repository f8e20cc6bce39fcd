/* SPDX-License-Identifier: MIT */
#include "train/schedule.h"

#include <math.h>

size_t dm_schedule_part(double x, size_t steps, size_t most)
{
    const double n = x < 1.0 ? ceil(x * (double)steps) : floor(x);
    return n < (double)most ? (size_t)n : most;
}

/* How much of lr - min_lr is left `done` steps after the warm-up of n steps that follow it. */
static double height(const struct dm_schedule *s, size_t done, size_t n)
{
    const double x = (double)done / (double)n;
    switch (s->shape) {
    case DM_LR_LINEAR:
        return 1.0 - x;
    case DM_LR_CONSTANT:
        return 1.0;
    case DM_LR_WSD:
        if (done < n - s->decay)
            return 1.0;
        return 1.0 - sqrt((double)(done - (n - s->decay)) / (double)s->decay);
    default:
        return 0.5 * (1.0 + cos(M_PI * x));
    }
}

double dm_schedule_lr(const struct dm_schedule *s, size_t step)
{
    if (step < s->warmup)
        return s->lr * (double)(step + 1) / (double)s->warmup;
    if (step >= s->steps)
        return s->min_lr;
    return s->min_lr + (s->lr - s->min_lr) * height(s, step - s->warmup, s->steps - s->warmup);
}
