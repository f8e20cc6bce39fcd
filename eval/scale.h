/* SPDX-License-Identifier: MIT */
/* scale.h - the axes of drawings: ranges, places on them, round numbers to mark. */
#ifndef DM_EVAL_SCALE_H
#define DM_EVAL_SCALE_H

#include <stdbool.h>
#include <stddef.h>

struct dm_scale {
    double lo, hi; /* lo > hi: nothing was added yet */
    bool log;
};
struct dm_scale dm_scale_new(bool log);
/* Widens the range to x; what is not finite, or not positive on a logarithmic scale, is left
 * out. */
void dm_scale_add(struct dm_scale *s, double x);
/* Adds `share` of the range on both sides; afterwards lo < hi in any case. */
void dm_scale_pad(struct dm_scale *s, double share);
/* 0 at lo, 1 at hi; NaN for what has no place on the scale. */
double dm_scale_at(const struct dm_scale *s, double x);
/* Round numbers within the range, rising: about `want`, at most max. Returns how many. */
size_t dm_scale_ticks(const struct dm_scale *s, size_t want, double *out, size_t max);

#endif
