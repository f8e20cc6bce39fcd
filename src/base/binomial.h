/* SPDX-License-Identifier: MIT */
/* binomial.h - exact tails of the binomial distribution, for tests of a proportion. */
#ifndef DM_BASE_BINOMIAL_H
#define DM_BASE_BINOMIAL_H

#include <stddef.h>

/* P(X <= k), X ~ Bin(n, p), 0 < p < 1: the p-value of "the risk is at least p" after k failures in
 * n trials. To about 1e-11 relative for n up to 1e4, 1e-9 up to 1e6. */
double dm_binomial_cdf(size_t k, size_t n, double p);

/* The smallest n for which no failure at all gives a p-value of at most delta: (1 - p)^n <= delta.
 * 0 < delta < 1. */
size_t dm_binomial_need(double p, double delta);

/* The largest k with dm_binomial_cdf(k, n, p) <= delta; SIZE_MAX when there is none. */
size_t dm_binomial_allowed(size_t n, double p, double delta);

#endif
