/* SPDX-License-Identifier: MIT */
/* int.h - products with weights in int8 and int4, threaded.
 *
 * The inputs are rounded to 8 bits, block by block; each output is the chain that kern_int.h
 * defines, started from the bias. Its bits depend neither on the other rows, nor on the thread
 * count, nor on the table of kernels. */
#ifndef DM_KERNEL_INT_H
#define DM_KERNEL_INT_H

#include <stddef.h>

#include "src/base/dtype.h"
#include "src/kernel/format.h"

/* Bytes of a pack of a weight (O,C) in fmt, DM_FMT_INT8 or DM_FMT_INT4. */
size_t dm_int_pack_bytes(enum dm_format fmt, size_t O, size_t C);

/* The pack of w (O,C) in float32, by all threads; the rest is by the calling thread. */
void dm_int_pack(void *pack, enum dm_format fmt, size_t O, size_t C, const float *w);

/* Outputs o0 .. o0 + n of a pack of rows of C inputs, from raw (n,C) as dtype (dtype.h), rounded to
 * blocks unless it holds them already. o0 is a multiple of DM_PANEL, and so is n unless the outputs
 * end there. */
void dm_int_pack_rows(void *pack, enum dm_format fmt, size_t C, const void *raw,
                      enum dm_dtype dtype, size_t o0, size_t n);

/* One panel, by the calling thread: n <= DM_PANEL rows of C inputs, row_bytes apart. */
void dm_int_pack_panel(void *panel, enum dm_format fmt, size_t C, const void *raw,
                       enum dm_dtype dtype, size_t row_bytes, size_t n);

/* c (M,O) = bias + a (M,C) w^T; bias (O) or NULL. w is a pack, or NULL: then it is packed on the
 * way from rows (O,C), with the same bits. */
void dm_int_affine(float *c, const float *bias, const float *a, enum dm_format fmt,
                   const void *pack, const float *rows, size_t M, size_t O, size_t C);

/* Columns o0 .. o1 of the same for M <= 4 rows and a pack, by the calling thread. o0 is a multiple
 * of DM_PANEL, and so is o1 unless it is O. */
void dm_int_few(float *c, const float *bias, const float *a, enum dm_format fmt, const void *pack,
                size_t M, size_t O, size_t C, size_t o0, size_t o1);

#endif
