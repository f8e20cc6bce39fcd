/* SPDX-License-Identifier: MIT */
#include "src/decode/penalty.h"

double dm_penalty_divisor(const int32_t *block, size_t n, const bool *seen, double penalty)
{
    double d = 1;
    for (size_t i = 0; i < n; i++) {
        bool again = seen[block[i]];
        for (size_t j = 0; j < i && !again; j++)
            again = block[i] == block[j];
        if (again)
            d *= penalty;
    }
    return d;
}
