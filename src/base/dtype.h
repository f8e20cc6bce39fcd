/* SPDX-License-Identifier: MIT */
/* dtype.h - element types on disk and their conversion to and from float32.
 *
 * The block types keep a row of `cols` elements as ceil(cols / DM_QBLOCK) blocks, little-endian:
 *
 *   int8   [scale bf16][32 x q + 128]           34 bytes   w = scale * q,           |q| <= 127
 *   int4   [scale bf16][offset bf16][16 bytes]  20 bytes   w = scale * q + offset,  0 <= q <= 15
 *
 * Byte i of an int4 block holds element i in its low half and element i + 16 in its high half. What
 * the last block holds beyond the row is never read as a weight; it is q = 0. */
#ifndef DM_BASE_DTYPE_H
#define DM_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

enum dm_dtype { DM_F32, DM_F16, DM_BF16, DM_INT8, DM_INT4 };

enum { DM_QBLOCK = 32, DM_INT8_BLOCK_BYTES = 34, DM_INT4_BLOCK_BYTES = 20 };

bool dm_dtype_is_block(enum dm_dtype t); /* int8 or int4 */
size_t dm_dtype_size(enum dm_dtype t);   /* bytes per element; asserts that it is no block type */
const char *dm_dtype_name(enum dm_dtype t); /* "f32", "f16", "bf16", "int8", "int4" */

/* Accepts our names, safetensors' ("F32") and torch's ("float32", "torch.bfloat16"); block types
 * are none of them. */
enum dm_status dm_dtype_parse(const char *name, enum dm_dtype *out, struct dm_err *e);
/* Any type by exactly our name; false for another text. */
bool dm_dtype_named(const char *name, enum dm_dtype *out);

/* Bytes of a row of `cols` elements (cols = 0: of one element), and of all rows; false when that
 * overflows. */
bool dm_dtype_row_bytes(enum dm_dtype t, size_t cols, size_t *bytes);
bool dm_dtype_bytes(enum dm_dtype t, size_t rows, size_t cols, size_t *bytes);

/* n elements, exact to float32; back with round to nearest even (NaN stays NaN). src and dst must
 * not overlap and need no alignment on the raw side. Block types: the n elements are one row, or
 * its end from a multiple of DM_QBLOCK on; back is the rounding of qblock.h. */
void dm_dtype_to_f32(float *dst, const void *src, enum dm_dtype t, size_t n);
void dm_dtype_from_f32(void *dst, enum dm_dtype t, const float *src, size_t n);

/* The same for a whole tensor (cols = 0: a vector of `rows`). */
void dm_dtype_rows_to_f32(float *dst, const void *src, enum dm_dtype t, size_t rows, size_t cols);
void dm_dtype_rows_from_f32(void *dst, enum dm_dtype t, const float *src, size_t rows, size_t cols);

/* False if a scale or offset of a block type is infinite or NaN. */
bool dm_dtype_finite(const void *raw, enum dm_dtype t, size_t rows, size_t cols);

#endif
