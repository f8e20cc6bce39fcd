/* SPDX-License-Identifier: MIT */
#include "eval/scale.h"

#include <math.h>

struct dm_scale dm_scale_new(bool log)
{
    return (struct dm_scale){INFINITY, -INFINITY, log};
}

void dm_scale_add(struct dm_scale *s, double x)
{
    if (!isfinite(x) || (s->log && x <= 0))
        return;
    s->lo = fmin(s->lo, x);
    s->hi = fmax(s->hi, x);
}

void dm_scale_pad(struct dm_scale *s, double share)
{
    if (s->lo > s->hi)
        s->lo = s->hi = 1;
    if (s->log) {
        const double f = s->hi > s->lo ? pow(s->hi / s->lo, share) : 2;
        s->lo = fmax(s->lo / f, 1e-300);
        s->hi = fmin(s->hi * f, 1e300);
        return;
    }
    const double range = s->hi - s->lo;
    const double pad = range > 0 ? share * range : fmax(0.5 * fabs(s->lo), 0.5);
    s->lo = fmax(s->lo - pad, -1e300);
    s->hi = fmin(s->hi + pad, 1e300);
}

double dm_scale_at(const struct dm_scale *s, double x)
{
    if (!isfinite(x) || (s->log && x <= 0))
        return NAN;
    return s->log ? log(x / s->lo) / log(s->hi / s->lo) : (x - s->lo) / (s->hi - s->lo);
}

/* 1, 2, 5 times powers of ten; only the powers where there are many. */
static size_t log_ticks(const struct dm_scale *s, size_t want, double *out, size_t max)
{
    static const double parts[] = {1, 2, 5};
    const double decades = log10(s->hi / s->lo), step = ceil(decades / (double)want);
    size_t n = 0;
    for (double d = floor(log10(s->lo)); d <= log10(s->hi) && n < max; d += fmax(step, 1))
        for (size_t i = 0; i < (decades > 0.7 * (double)want ? 1 : 3); i++) {
            const double x = parts[i] * pow(10, d);
            if (x >= s->lo && x <= s->hi && n < max)
                out[n++] = x;
        }
    return n;
}

size_t dm_scale_ticks(const struct dm_scale *s, size_t want, double *out, size_t max)
{
    if (s->log && s->hi / s->lo >= 4)
        return log_ticks(s, want, out, max);
    const double part = (s->hi - s->lo) / (double)want, power = pow(10, floor(log10(part)));
    const double rest = part / power;
    const double step = power * (rest > 7 ? 10 : rest > 3 ? 5 : rest > 1.5 ? 2 : 1);
    size_t n = 0;
    for (double i = ceil(s->lo / step); i * step <= s->hi && n < max; i++)
        out[n++] = i * step + 0.0; // never -0
    return n;
}
