/* SPDX-License-Identifier: MIT */
/* dtype.h - element types on disk and their conversion to and from float32. */
#ifndef DM_BASE_DTYPE_H
#define DM_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

enum dm_dtype { DM_F32, DM_F16, DM_BF16 };

size_t dm_dtype_size(enum dm_dtype t);      /* bytes per element */
const char *dm_dtype_name(enum dm_dtype t); /* "f32", "f16", "bf16" */
/* Accepts our names, safetensors' ("F32") and torch's ("float32", "torch.bfloat16"). */
enum dm_status dm_dtype_parse(const char *name, enum dm_dtype *out, struct dm_err *e);

/* n elements, exact to float32; back with round to nearest even (NaN stays NaN). src and dst must
 * not overlap and need no alignment on the raw side. */
void dm_dtype_to_f32(float *dst, const void *src, enum dm_dtype t, size_t n);
void dm_dtype_from_f32(void *dst, enum dm_dtype t, const float *src, size_t n);

#endif
