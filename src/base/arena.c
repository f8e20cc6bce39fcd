/* SPDX-License-Identifier: MIT */
#include "src/base/arena.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/base/par.h"

static atomic_size_t fail_at; /* test hook: calls until the failing one, 0 = off */

static bool must_fail(void)
{
    size_t n = atomic_load(&fail_at);
    while (n && !atomic_compare_exchange_weak(&fail_at, &n, n - 1))
        ;
    return n == 1;
}

size_t dm_alloc_fail_at(size_t n)
{
    return atomic_exchange(&fail_at, n);
}

bool dm_mul(size_t x, size_t y, size_t *out)
{
    return !__builtin_mul_overflow(x, y, out);
}

bool dm_add(size_t x, size_t y, size_t *out)
{
    return !__builtin_add_overflow(x, y, out);
}

void *dm_alloc(size_t n, size_t size)
{
    return must_fail() ? NULL : calloc(n ? n : 1, size ? size : 1);
}

/* Memory comes with its first touch: in all threads that goes as many times faster. */
static void clear(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    memset((char *)ctx + begin, 0, end - begin);
}

static void *alloc_huge(size_t n, size_t size, bool zeros)
{
    const size_t page = (size_t)2 << 20;
    size_t bytes;
    if (!dm_mul(n, size, &bytes) || bytes < page || bytes > SIZE_MAX - page)
        return dm_alloc(n, size);
    bytes += (page - bytes % page) % page;
    void *p = must_fail() ? NULL : aligned_alloc(page, bytes);
    if (!p)
        return NULL;
    madvise(p, bytes, MADV_HUGEPAGE); // only a hint
    if (zeros)
        dm_par_for(bytes, page, clear, p);
    return p;
}

void *dm_alloc_huge(size_t n, size_t size)
{
    return alloc_huge(n, size, true);
}

void *dm_alloc_huge_raw(size_t n, size_t size)
{
    return alloc_huge(n, size, false);
}

void *dm_realloc(void *p, size_t n, size_t size)
{
    size_t bytes;
    if (!dm_mul(n, size, &bytes) || must_fail())
        return NULL;
    return realloc(p, bytes ? bytes : 1);
}

enum dm_status dm_arena_init(struct dm_arena *a, size_t size, struct dm_err *e)
{
    size_t bytes;
    *a = (struct dm_arena){0};
    // calloc, not aligned_alloc and memset: untouched pages of a large block cost nothing, and a KV
    // cache is mostly that.
    if (!dm_add(size, DM_ALIGN, &bytes) || must_fail() || !(a->block = calloc(bytes, 1)))
        return dm_fail(e, DM_ENOMEM, "out of memory: %zu bytes asked for", size);
    a->base = (char *)a->block + (DM_ALIGN - (uintptr_t)a->block % DM_ALIGN) % DM_ALIGN;
    a->size = size;
    return DM_OK;
}

void dm_arena_huge(struct dm_arena *a)
{
    const uintptr_t page = 2u << 20, begin = ((uintptr_t)a->base + page - 1) & ~(page - 1);
    const uintptr_t end = ((uintptr_t)a->base + a->size) & ~(page - 1);
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_HUGEPAGE); // a hint: failure changes nothing
}

void dm_arena_release(struct dm_arena *a)
{
    free(a->block);
    *a = (struct dm_arena){0};
}

void *dm_arena_alloc(struct dm_arena *a, size_t n, size_t size)
{
    size_t bytes, end;
    if (!dm_mul(n, size, &bytes) || !dm_add(bytes, DM_ALIGN - 1, &bytes) ||
        !dm_add(a->used, bytes - bytes % DM_ALIGN, &end)) {
        a->overflow = true;
        return NULL;
    }
    void *p = a->base ? a->base + a->used : NULL;
    assert(!a->base || end <= a->size);
    a->used = end;
    return p;
}

float *dm_arena_floats(struct dm_arena *a, size_t rows, size_t cols)
{
    size_t n;
    if (!dm_mul(rows, cols, &n)) {
        a->overflow = true;
        return NULL;
    }
    return dm_arena_alloc(a, n, sizeof(float));
}

bool dm_arena_overflowed(const struct dm_arena *a)
{
    return a->overflow;
}
