/* SPDX-License-Identifier: MIT */
/* kern_tables.h - what the kern_*_tmpl.c export, once per build: kern_tmpl.c puts the functions
 * into the table dm_kern_<isa>, and only kern.c picks from the tables. */
#ifndef DM_KERNEL_KERN_TABLES_H
#define DM_KERNEL_KERN_TABLES_H

#include "src/kernel/kern.h"

/* In a template: DM_EXPORT(dm_kern) is dm_kern_avx2 when DM_ISA is avx2. */
#define DM_EXPORT2(name, isa) name##_##isa
#define DM_EXPORT1(name, isa) DM_EXPORT2(name, isa)
#define DM_EXPORT(name) DM_EXPORT1(name, DM_ISA)

#define DM_DECLARE_EXPORTS(isa)                                                              \
    extern const struct dm_kern dm_kern_##isa;                                               \
    extern const struct dm_int_kern dm_int_kern_##isa;                                       \
    extern const struct dm_kern_mm dm_kern_bf16_##isa;                                       \
    extern const struct dm_kern_select dm_kern_select_##isa;                                 \
    extern const struct dm_kern_train dm_kern_train_##isa;                                   \
    void dm_kv_scores_##isa(float *s, size_t lds, const float *q, size_t ldq, const void *k, \
                            bool half, size_t m, size_t n, size_t HS, const void *next);     \
    void dm_kv_mix_##isa(float *y, size_t ldy, const float *p, size_t ldp, const void *v,    \
                         bool half, size_t m, size_t n, size_t HS, const void *next);

DM_DECLARE_EXPORTS(ref)
#ifdef __x86_64__
DM_DECLARE_EXPORTS(avx2)
DM_DECLARE_EXPORTS(avx512)
DM_DECLARE_EXPORTS(avx512bf16)
DM_DECLARE_EXPORTS(amx)
#endif

#endif
