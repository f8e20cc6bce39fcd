/* SPDX-License-Identifier: MIT */
#include "eval/ltt.h"

#include "src/base/binomial.h"

double dm_ltt_level(double delta, size_t sequences)
{
    return delta / (double)sequences;
}

void dm_ltt_test(struct dm_ltt *s, size_t n_settings, size_t sequences, size_t n, double risk,
                 double delta)
{
    const double level = dm_ltt_level(delta, sequences);
    for (size_t i = 0; i < n_settings; i++) {
        const bool first = i == 0 || s[i].sequence != s[i - 1].sequence;
        s[i].p = dm_binomial_cdf(s[i].failures, n, risk);
        s[i].tested = first || s[i - 1].certified;
        s[i].certified = s[i].tested && s[i].p <= level;
    }
}
