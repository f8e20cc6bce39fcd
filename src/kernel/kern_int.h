/* SPDX-License-Identifier: MIT */
/* kern_int.h - the inner loops of int8 and int4 (format.h), part of each table of kern.h.
 *
 * A panel holds DM_PANEL outputs, block of DM_BLOCK inputs by block:
 *
 *   int8   [32 scales bf16][8 quads][32 outputs][4 x q + 128]                           1088 bytes
 *   int4   [32 scales bf16][32 offsets bf16][4 pairs of quads][32 outputs][4 bytes]      640 bytes
 *
 * A quad is 4 inputs; a byte of int4 has the even quad of its pair in the low half. Every output is
 * one chain in the order of the blocks,
 *
 *   acc = fma(sum of q x, scale * x scale, acc), and for int4 acc = fma(offset, x sum, acc),
 *
 * whose integer sums are exact: the bits are the same for every table, row count and place. */
#ifndef DM_KERNEL_KERN_INT_H
#define DM_KERNEL_KERN_INT_H

#include <stddef.h>
#include <stdint.h>

#include "src/kernel/format.h"

enum { DM_INT8_PANEL_BLOCK = 1088, DM_INT4_PANEL_BLOCK = 640 };

/* A block of an input row: x = scale * q, |q| <= 127. */
struct dm_int_input {
    float scale, sum; /* sum = scale * (sum of q) */
    int32_t start;    /* -128 * (sum of q): what the 128 in the weights' q + 128 adds up to */
    int32_t unused;
    int8_t q[DM_BLOCK];
};

struct dm_int_kern {
    size_t rows; /* most rows of a call, at least 4 */

    /* Rounds a row of K inputs to ceil(K / DM_BLOCK) blocks: scale = the largest magnitude / 127,
     * or 0 when that is below 1e-35; a block with a number that is not finite gets scale and sum
     * NaN. The same bits in every table. */
    void (*input)(struct dm_int_input *to, const float *x, size_t K);

    /* c (m <= rows, n; leading dimension ldc) += m rows of blocks, ldx apart, times n outputs of
     * consecutive panels, `stride` bytes apart, of which `blocks` blocks each are used. */
    void (*int8_few)(float *c, size_t ldc, const struct dm_int_input *x, size_t ldx,
                     const void *panels, size_t stride, size_t blocks, size_t m, size_t n);
    void (*int4_few)(float *c, size_t ldc, const struct dm_int_input *x, size_t ldx,
                     const void *panels, size_t stride, size_t blocks, size_t m, size_t n);
};

#endif
