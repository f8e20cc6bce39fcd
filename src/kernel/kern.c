/* SPDX-License-Identifier: MIT */
#include "src/kernel/kern.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "src/kernel/kern_tables.h"

/* Each set of instructions contains the one before, so that the lists are constant data. */
static const struct dm_kern *const lists[][6] = {
    {&dm_kern_ref},
#ifdef __x86_64__
    {&dm_kern_ref, &dm_kern_avx2},
    {&dm_kern_ref, &dm_kern_avx2, &dm_kern_avx512},
    {&dm_kern_ref, &dm_kern_avx2, &dm_kern_avx512, &dm_kern_avx512bf16},
    {&dm_kern_ref, &dm_kern_avx2, &dm_kern_avx512, &dm_kern_avx512bf16, &dm_kern_amx},
#endif
};

/* Only dm_kern_force() and the first dm_kern() write it; both write one pointer. */
static const struct dm_kern *_Atomic in_use;

#ifdef __x86_64__
/* Linux 5.16 and later save tile registers only for processes that have asked for it. */
static bool tiles_allowed(void)
{
    enum { XCOMP_PERM = 0x1023, TILE_DATA = 18, BF16 = 1 << 22, TILE = 1 << 24 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (BF16 | TILE)) != (BF16 | TILE))
        return false;
    return syscall(SYS_arch_prctl, XCOMP_PERM, TILE_DATA) == 0;
}
#endif

const struct dm_kern *const *dm_kern_all(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        const bool dots = __builtin_cpu_supports("avx512bf16") &&
                          __builtin_cpu_supports("avx512vnni");
        return lists[wide && dots && tiles_allowed() ? 4 : wide && dots ? 3 : wide ? 2 : 1];
    }
#endif
    return lists[0];
}

static const struct dm_kern *choose(void)
{
    const char *name = getenv("DM_ISA");
    const struct dm_kern *widest = NULL;
    for (const struct dm_kern *const *k = dm_kern_all(); *k; k++) {
        if (name && strcmp(name, (*k)->name) == 0)
            return *k;
        widest = *k;
    }
    return widest;
}

const struct dm_kern *dm_kern(void)
{
    const struct dm_kern *k = atomic_load_explicit(&in_use, memory_order_relaxed);
    if (!k) {
        k = choose();
        atomic_store_explicit(&in_use, k, memory_order_relaxed);
    }
    return k;
}

void dm_kern_force(const struct dm_kern *k)
{
    atomic_store_explicit(&in_use, k, memory_order_relaxed);
}
