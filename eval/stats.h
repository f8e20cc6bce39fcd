/* SPDX-License-Identifier: MIT */
/* stats.h - means with their uncertainty. */
#ifndef DM_EVAL_STATS_H
#define DM_EVAL_STATS_H

#include <stddef.h>

double dm_mean(const double *x, size_t n); /* NaN for n = 0 */

/* Standard error of the mean of n independent values; infinite for n < 2. */
double dm_standard_error(const double *x, size_t n);

/* Rising; no NaN among numbers. */
void dm_sort(double *x, size_t n);

/* The middle value (mean of the middle two); NaN for n = 0. Reorders x. */
double dm_median(double *x, size_t n);

/* Student's t: P(t <= dm_t_quantile(p, df)) = p, for 0.5 <= p < 1 and df >= 1, to about 1e-9. */
double dm_t_quantile(double p, size_t df);

#endif
