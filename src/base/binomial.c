/* SPDX-License-Identifier: MIT */
#include "src/base/binomial.h"

#include <math.h>
#include <stdint.h>

double dm_binomial_cdf(size_t k, size_t n, double p)
{
    if (k >= n)
        return 1.0;
    // Logarithms, for (1 - p)^n underflows; the largest term, of the k-th, comes first.
    const double ratio = (1.0 - p) / p;
    double largest = lgamma((double)n + 1.0) - lgamma((double)k + 1.0) -
                     lgamma((double)(n - k) + 1.0) + (double)k * log(p) +
                     (double)(n - k) * log1p(-p);
    double term = 1.0, sum = 1.0;
    for (size_t i = k; i > 0; i--) {
        term *= (double)i / (double)(n - i + 1) * ratio; // from P(X = i) to P(X = i - 1)
        if (sum > 1e200) {                               // k far above the mean: terms rise first
            largest += log(sum);
            term /= sum;
            sum = 1.0;
        }
        sum += term;
        if (term < sum * 1e-18 && (double)(i - 1) < p * (double)(n + 1))
            break;
    }
    return fmin(exp(largest + log(sum)), 1.0);
}

size_t dm_binomial_need(double p, double delta)
{
    size_t n = (size_t)ceil(log(delta) / log1p(-p));
    // Rounding may be off by one at the edge; the p-value decides.
    while (n > 1 && dm_binomial_cdf(0, n - 1, p) <= delta)
        n--;
    while (dm_binomial_cdf(0, n, p) > delta)
        n++;
    return n;
}

size_t dm_binomial_allowed(size_t n, double p, double delta)
{
    size_t low = 0, high = n; // the cdf rises with k, and is 1 at n
    if (!n || dm_binomial_cdf(0, n, p) > delta)
        return SIZE_MAX;
    while (high - low > 1) {
        const size_t mid = low + (high - low) / 2;
        if (dm_binomial_cdf(mid, n, p) <= delta)
            low = mid;
        else
            high = mid;
    }
    return low;
}
