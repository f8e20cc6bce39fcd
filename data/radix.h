/* SPDX-License-Identifier: MIT */
/* radix.h - least significant digit first radix sort of 64-bit keys on all threads. */
#ifndef DM_DATA_RADIX_H
#define DM_DATA_RADIX_H

#include <stddef.h>
#include <stdint.h>

/* Items of scratch that a sort needs with the present number of threads (src/base/par.h). */
size_t dm_radix_scratch(void);

/* Sorts n keys, all < 2^bits (bits 1..64), ascending. key and tmp (n) are both overwritten; returns
 * the one that holds the result. scratch: dm_radix_scratch() items. The result is the same for
 * every number of threads. */
uint64_t *dm_radix_sort(uint64_t *key, uint64_t *tmp, size_t n, unsigned bits, size_t *scratch);

#endif
