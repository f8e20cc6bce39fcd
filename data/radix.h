/* SPDX-License-Identifier: MIT */
/* radix.h - radix sort of 64-bit keys, made for the caches; one thread each. */
#ifndef DM_DATA_RADIX_H
#define DM_DATA_RADIX_H

#include <stddef.h>
#include <stdint.h>

/* Sorts n keys, all < 2^bits (bits 1..64), ascending. key and tmp (n) are both overwritten; returns
 * the one that holds the result. Different threads may sort different arrays at a time. */
uint64_t *dm_radix_sort(uint64_t *key, uint64_t *tmp, size_t n, unsigned bits);

#endif
