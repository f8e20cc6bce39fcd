/* SPDX-License-Identifier: MIT */
/* qblock.h - one block of the types int8 and int4 (dtype.h): rounding to it and reading it. */
#ifndef DM_BASE_QBLOCK_H
#define DM_BASE_QBLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"

/* Block of 1 <= n <= DM_QBLOCK elements (the rest as 0). A number that is not finite, or a range
 * beyond the floats, makes a scale that is not finite.
 * int8: scale = the largest magnitude / 127, rounded up to bf16; q to nearest even.
 * int4: scale and offset by a search that lowers the squared error (qblock.c). */
void dm_qblock_from_f32(void *block, enum dm_dtype t, const float *x, size_t n);
void dm_qblock_to_f32(float *x, const void *block, enum dm_dtype t, size_t n);

/* Scale, offset (0 for int8) and the 32 numbers q of a block: 0..255 with 128 for zero in int8,
 * 0..15 in int4. */
struct dm_qblock {
    uint16_t scale, offset; /* bf16 */
    uint8_t q[DM_QBLOCK];
};
void dm_qblock_read(struct dm_qblock *out, const void *block, enum dm_dtype t);

/* True if the scales and offsets of n blocks are all finite. */
bool dm_qblock_finite(const void *blocks, enum dm_dtype t, size_t n);

#endif
