/* SPDX-License-Identifier: MIT */
/* Every pass cuts the keys into one contiguous part per thread: histograms of the parts, a prefix
 * sum over (digit, part), then each part scatters to places that are its own. The order is stable,
 * so passes from the lowest digit up sort the whole key. */
#include "data/radix.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "src/base/par.h"

#define MAX_DIGIT 8u /* bits: 256 write streams stay inside the L1 cache and its TLB */
#define BUCKETS ((size_t)1 << MAX_DIGIT)

struct pass {
    const uint64_t *src;
    uint64_t *dst;
    size_t *at; /* (parts, BUCKETS): counts, then places */
    unsigned shift;
    uint64_t mask;
};

size_t dm_radix_scratch(void)
{
    return dm_par_threads() * BUCKETS;
}

static void count_part(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct pass p = *(const struct pass *)ctx;
    size_t *at = p.at + part * BUCKETS;
    for (size_t i = begin; i < end; i++)
        at[p.src[i] >> p.shift & p.mask]++;
}

static void scatter_part(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct pass p = *(const struct pass *)ctx;
    size_t *at = p.at + part * BUCKETS;
    for (size_t i = begin; i < end; i++) {
        const uint64_t k = p.src[i];
        p.dst[at[k >> p.shift & p.mask]++] = k;
    }
}

/* Counts become places. False when all n keys share the digit: there is nothing to move. */
static bool place(size_t *at, size_t parts, size_t n)
{
    size_t sum = 0;
    for (size_t d = 0; d < BUCKETS; d++) {
        const size_t before = sum;
        for (size_t p = 0; p < parts; p++) {
            const size_t c = at[p * BUCKETS + d];
            at[p * BUCKETS + d] = sum;
            sum += c;
        }
        if (sum - before == n)
            return false;
    }
    return true;
}

uint64_t *dm_radix_sort(uint64_t *key, uint64_t *tmp, size_t n, unsigned bits, size_t *scratch)
{
    assert(bits >= 1 && bits <= 64);
    const unsigned passes = (bits + MAX_DIGIT - 1) / MAX_DIGIT;
    const size_t parts = dm_par_threads();
    struct pass p = {.src = key, .dst = tmp, .at = scratch};
    for (unsigned i = 0, left = bits; i < passes; i++) {
        const unsigned digit = (left + passes - i - 1) / (passes - i);
        p.mask = ((uint64_t)1 << digit) - 1;
        memset(scratch, 0, parts * BUCKETS * sizeof(*scratch));
        dm_par_for(n, 1, count_part, &p);
        if (place(scratch, parts, n)) {
            dm_par_for(n, 1, scatter_part, &p);
            uint64_t *sorted = p.dst;
            p.dst = sorted == tmp ? key : tmp;
            p.src = sorted;
        }
        p.shift += digit;
        left -= digit;
    }
    return p.dst == tmp ? key : tmp;
}
