/* SPDX-License-Identifier: MIT */
/* Large arrays are parted by their highest digit until a part and its other half fit the L2 cache,
 * then sorted from the lowest digit up there, where a pass costs no memory traffic. Threads sort
 * arrays of their own: passes over one shared array wait for memory, and two threads are then no
 * faster than one. */
#include "data/radix.h"

#include <assert.h>
#include <string.h>

#define DIGIT 8u /* bits: 256 write streams stay inside the L1 cache */
#define BUCKETS ((size_t)1 << DIGIT)
#define IN_CACHE ((size_t)1 << 15) /* keys: twice 256 KiB */
#define FEW 24u                    /* keys sorted by insertion */

static void insertion_sort(uint64_t *key, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const uint64_t k = key[i];
        size_t j = i;
        for (; j && key[j - 1] > k; j--)
            key[j] = key[j - 1];
        key[j] = k;
    }
}

/* Moves n keys from src to dst by the digit at `shift`; at (BUCKETS): counts, then places. */
static void scatter(const uint64_t *src, uint64_t *dst, size_t n, unsigned shift, uint32_t *at)
{
    uint32_t sum = 0;
    for (size_t d = 0; d < BUCKETS; d++) {
        const uint32_t c = at[d];
        at[d] = sum;
        sum += c;
    }
    for (size_t i = 0; i < n; i++) {
        const uint64_t k = src[i];
        dst[at[k >> shift & (BUCKETS - 1)]++] = k;
    }
}

/* Sorts by the low `bits` from the lowest digit up; the histograms of all digits are made at once.
 * Returns the array that holds the result. */
static uint64_t *sort_low_first(uint64_t *src, uint64_t *dst, size_t n, unsigned bits)
{
    uint32_t at[64 / DIGIT][BUCKETS];
    const unsigned digits = (bits + DIGIT - 1) / DIGIT;
    memset(at, 0, digits * sizeof(at[0]));
    for (size_t i = 0; i < n; i++)
        for (unsigned d = 0; d < digits; d++)
            at[d][src[i] >> d * DIGIT & (BUCKETS - 1)]++;
    for (unsigned d = 0; d < digits; d++) {
        if (at[d][src[0] >> d * DIGIT & (BUCKETS - 1)] == n)
            continue; // all keys share the digit
        scatter(src, dst, n, d * DIGIT, at[d]);
        uint64_t *moved = dst;
        dst = src;
        src = moved;
    }
    return src;
}

/* Sorts src[0..n) by its low `bits`, the higher ones being equal; the result is in `want`, which is
 * src or dst. Parts of one level are left in the array where the next level finds them. */
static void sort_into(uint64_t *src, uint64_t *dst, size_t n, unsigned bits, uint64_t *want)
{
    if (n <= IN_CACHE || bits <= DIGIT) {
        uint64_t *have = src;
        if (n <= FEW)
            insertion_sort(src, n);
        else if (bits)
            have = sort_low_first(src, dst, n, bits);
        if (have != want)
            memcpy(want, have, n * sizeof(*want));
        return;
    }
    const unsigned shift = bits - DIGIT;
    uint32_t at[BUCKETS] = {0};
    for (size_t i = 0; i < n; i++)
        at[src[i] >> shift & (BUCKETS - 1)]++;
    scatter(src, dst, n, shift, at);
    size_t begin = 0;
    for (size_t d = 0; d < BUCKETS; begin = at[d++])
        if (at[d] > begin)
            sort_into(dst + begin, src + begin, at[d] - begin, shift, want + begin);
}

uint64_t *dm_radix_sort(uint64_t *key, uint64_t *tmp, size_t n, unsigned bits)
{
    assert(bits >= 1 && bits <= 64 && n <= UINT32_MAX);
    sort_into(key, tmp, n, bits, key);
    return key;
}
