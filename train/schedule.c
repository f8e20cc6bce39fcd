/* SPDX-License-Identifier: MIT */
#include "train/schedule.h"

#include <math.h>

size_t dm_schedule_warmup(double warmup, size_t steps)
{
    const double n = warmup < 1.0 ? ceil(warmup * (double)steps) : floor(warmup);
    return n < (double)steps ? (size_t)n : steps;
}

double dm_schedule_lr(const struct dm_schedule *s, size_t step)
{
    if (step < s->warmup)
        return s->lr * (double)(step + 1) / (double)s->warmup;
    if (step >= s->steps)
        return s->min_lr;
    const double x = (double)(step - s->warmup) / (double)(s->steps - s->warmup);
    return s->min_lr + 0.5 * (s->lr - s->min_lr) * (1.0 + cos(M_PI * x));
}
