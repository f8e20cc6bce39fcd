/* SPDX-License-Identifier: MIT */
/* arena.h - one aligned block that a bind function carves into arrays.
 *
 * Bind twice with the same function: a zeroed arena has no block and only measures (`used` counts,
 * pointers come back NULL); then dm_arena_init() allocates exactly that much and the second pass
 * carves. Sizes are multiplied with overflow checks; an overflow sticks and makes init fail. */
#ifndef DM_BASE_ARENA_H
#define DM_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/status.h"

#define DM_ALIGN 64 /* bytes: a cache line and an AVX-512 register */

struct dm_arena {
    void *block; /* as allocated */
    char *base;  /* aligned */
    size_t size;
    size_t used;
    bool overflow;
};

/* Allocates a zeroed block of `size` bytes; release with dm_arena_release(). DM_ENOMEM names the
 * size. `a` is overwritten. */
enum dm_status dm_arena_init(struct dm_arena *a, size_t size, struct dm_err *e);
void dm_arena_release(struct dm_arena *a);
/* Asks for huge pages; for large blocks that will be touched all over. Right after init. */
void dm_arena_huge(struct dm_arena *a);

/* n items of `size` bytes, 64-byte aligned and zero in a fresh arena; NULL while measuring.
 * Asserts that the block is large enough, which holds when the passes do the same. */
void *dm_arena_alloc(struct dm_arena *a, size_t n, size_t size);

/* Shorthand for the common case: rows * cols floats. */
float *dm_arena_floats(struct dm_arena *a, size_t rows, size_t cols);

/* Measures with `a` itself: true if any size computed in it overflowed. */
bool dm_arena_overflowed(const struct dm_arena *a);

/* True and *out = x * y (x + y) unless it overflows. */
bool dm_mul(size_t x, size_t y, size_t *out);
bool dm_add(size_t x, size_t y, size_t *out);

/* Heap memory with checked sizes; the n-th call can be made to fail in tests (dm_alloc_fail_at).
 * free() releases. dm_alloc zeroes. Both return NULL on overflow or when memory is short. */
void *dm_alloc(size_t n, size_t size);
void *dm_realloc(void *p, size_t n, size_t size);

/* dm_alloc in huge pages where the system has them: for what is read here and there. All of it is
 * touched. */
void *dm_alloc_huge(size_t n, size_t size);

/* The same without zeros, for what is written from end to end. */
void *dm_alloc_huge_raw(size_t n, size_t size);

/* For tests: the n-th dm_alloc/dm_realloc/dm_arena_init from now fails (1 = the next); 0 = never.
 * Returns how many of the pending calls were left. */
size_t dm_alloc_fail_at(size_t n);

#endif
