/* SPDX-License-Identifier: MIT */
/* kern_tables.h - the tables that kern_tmpl.c defines, one per build; only kern.c picks from them.
 */
#ifndef DM_KERNEL_KERN_TABLES_H
#define DM_KERNEL_KERN_TABLES_H

#include "src/kernel/kern.h"

extern const struct dm_kern dm_kern_ref;
#ifdef __x86_64__
extern const struct dm_kern dm_kern_avx2;
extern const struct dm_kern dm_kern_avx512;
#endif

#endif
