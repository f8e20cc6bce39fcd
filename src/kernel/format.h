/* SPDX-License-Identifier: MIT */
/* format.h - number formats of linear weights as products use them.
 *
 *   f32    float32 all the way
 *   bf16   weights and inputs rounded to bfloat16 (nearest even), exact products, float32 sums
 *   int8   blocks of DM_BLOCK inputs: w = scale * (q - 128), q 8 bits; inputs rounded to 8 bits per
 *          block, sums exact inside a block, float32 between blocks
 *   int4   w = scale * q + offset, q 4 bits; else as int8 */
#ifndef DM_KERNEL_FORMAT_H
#define DM_KERNEL_FORMAT_H

enum dm_format { DM_FMT_F32, DM_FMT_BF16, DM_FMT_INT8, DM_FMT_INT4 };

enum {
    DM_PANEL = 32, /* outputs side by side in a panel of the packed formats but f32 */
    DM_BLOCK = 32  /* inputs that share a scale in int8 and int4 */
};

#endif
