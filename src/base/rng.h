/* SPDX-License-Identifier: MIT */
/* rng.h - seeded streams of random numbers; the same bytes on every machine.
 * xoshiro256** seeded by splitmix64 (Blackman and Vigna). Small enough to store in a checkpoint. */
#ifndef DM_BASE_RNG_H
#define DM_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct dm_rng {
    uint64_t s[4];
};

/* Stream number `stream` of `seed`; different streams of one seed are independent. */
void dm_rng_init(struct dm_rng *r, uint64_t seed, uint64_t stream);
uint64_t dm_rng_u64(struct dm_rng *r);
double dm_rng_uniform(struct dm_rng *r);         /* [0, 1), 53 bits */
double dm_rng_normal(struct dm_rng *r);          /* N(0, 1), Box-Muller, no state kept */
size_t dm_rng_below(struct dm_rng *r, size_t n); /* uniform in [0, n), unbiased; n > 0 */
uint64_t dm_mix64(uint64_t x);                   /* splitmix64's finaliser of x */

#endif
