/* SPDX-License-Identifier: MIT */
#include "eval/stats.h"

#include <math.h>
#include <stdlib.h>

double dm_mean(const double *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return n ? sum / (double)n : (double)NAN;
}

double dm_standard_error(const double *x, size_t n)
{
    if (n < 2)
        return (double)INFINITY;
    const double mean = dm_mean(x, n);
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return sqrt(sum / (double)(n - 1) / (double)n);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void dm_sort(double *x, size_t n)
{
    qsort(x, n, sizeof(*x), by_size);
}

double dm_median(double *x, size_t n)
{
    if (!n)
        return (double)NAN;
    dm_sort(x, n);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

/* P(|t| <= x) by the finite trigonometric series (Abramowitz and Stegun 26.7.3 and 26.7.4). */
static double t_within(double x, size_t df)
{
    const double theta = atan(x / sqrt((double)df)), c = cos(theta), s = sin(theta);
    double term = df % 2 ? c : 1.0, sum = df == 1 ? 0.0 : term;
    for (size_t k = df % 2 ? 3 : 2; k + 1 < df; k += 2) {
        term *= c * c * (double)(k - 1) / (double)k;
        sum += term;
    }
    return df % 2 ? 2.0 / M_PI * (theta + s * sum) : s * sum;
}

double dm_t_quantile(double p, size_t df)
{
    double low = 0.0, high = 1.0;
    while (0.5 + 0.5 * t_within(high, df) < p && high < 1e12)
        high *= 2.0;
    for (int i = 0; i < 200; i++) {
        const double mid = 0.5 * (low + high);
        if (0.5 + 0.5 * t_within(mid, df) < p)
            low = mid;
        else
            high = mid;
    }
    return 0.5 * (low + high);
}
