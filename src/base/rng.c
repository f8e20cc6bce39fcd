/* SPDX-License-Identifier: MIT */
#include "src/base/rng.h"

#include <math.h>

#define GOLDEN 0x9e3779b97f4a7c15u

uint64_t dm_mix64(uint64_t x)
{
    x += GOLDEN;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void dm_rng_init(struct dm_rng *r, uint64_t seed, uint64_t stream)
{
    uint64_t x = dm_mix64(seed) ^ dm_mix64(~stream);
    for (int i = 0; i < 4; i++, x += GOLDEN)
        r->s[i] = dm_mix64(x);
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t dm_rng_u64(struct dm_rng *r)
{
    uint64_t *s = r->s;
    const uint64_t out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

double dm_rng_uniform(struct dm_rng *r)
{
    return (double)(dm_rng_u64(r) >> 11) * 0x1p-53;
}

double dm_rng_normal(struct dm_rng *r)
{
    const double u = 1.0 - dm_rng_uniform(r), v = dm_rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

size_t dm_rng_below(struct dm_rng *r, size_t n)
{
    const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    uint64_t x;
    do
        x = dm_rng_u64(r);
    while (x >= limit);
    return (size_t)(x % n);
}
