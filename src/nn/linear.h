/* SPDX-License-Identifier: MIT */
/* linear.h - affine map over the last axis, and its adjoint. */
#ifndef DM_NN_LINEAR_H
#define DM_NN_LINEAR_H

#include <stddef.h>

#include "src/base/dtype.h"
#include "src/kernel/format.h"

/* A weight (O,C) and how products with it are computed. All memory is borrowed. */
struct dm_weight {
    enum dm_format fmt;
    size_t O, C;
    const float *w;     /* row-major, or NULL when there are packs only */
    const void *pack;   /* for the forward, by dm_linear_pack(); NULL: w is packed in every call */
    const void *pack_t; /* for the input gradient, by dm_linear_pack_t(); NULL likewise */
};

/* out (N,O) = inp (N,C) w^T + b; b (O) or NULL. out is written, must not alias inp. A row of out
 * has the same bits whatever the other rows are, packed or not. */
void dm_linear_forward(float *restrict out, const float *restrict inp, const struct dm_weight *w,
                       const float *b, size_t N);

/* Columns o0 .. o1 of the same for a few rows and a packed w, by the calling thread alone: for
 * decoding, inside a parallel region. dm_linear_few_rows() of them, DM_LINEAR_FEW to 16 unless w
 * has very many inputs (0: none at all), read w once; more read it again, from the cache. o0 is a
 * multiple of DM_PANEL, and so is o1 unless it is O. */
enum { DM_LINEAR_FEW = 4 };
size_t dm_linear_few_rows(const struct dm_weight *w);
void dm_linear_few(float *restrict out, const float *restrict inp, const struct dm_weight *w,
                   const float *b, size_t N, size_t o0, size_t o1);

/* Adds the gradients: dinp (N,C), dw (O,C), db (O); any may be NULL (a frozen weight passes NULL).
 * dout (N,O); inp and w as given to forward, w->fmt f32 or bf16. With type DM_BF16 dout is what
 * dm_xent_backward() leaves: bf16 in the first half of each row; w->fmt bf16, db NULL. */
void dm_linear_backward(float *restrict dinp, float *restrict dw, float *restrict db,
                        const float *dout, enum dm_dtype type, const float *inp,
                        const struct dm_weight *w, size_t N);

/* Writes dinp (N,C) instead: dout w, with the bits of adding to zeros. */
void dm_linear_backward_input(float *restrict dinp, const float *dout, enum dm_dtype type,
                              const struct dm_weight *w, size_t N);

/* Bytes of a pack of w (O,C), and the packing itself from w->w. */
size_t dm_linear_pack_bytes(const struct dm_weight *w);
void dm_linear_pack(void *pack, const struct dm_weight *w);
/* The same bytes piece by piece, straight from a file: outputs o0 .. o0+n, whose rows `raw` (n,C)
 * holds as dtype, unaligned if need be. o0 is a multiple of DM_PANEL, and so is n unless the
 * outputs end there. */
void dm_linear_pack_rows(void *pack, const struct dm_weight *w, const void *raw,
                         enum dm_dtype dtype, size_t o0, size_t n);
size_t dm_linear_pack_t_bytes(const struct dm_weight *w);
void dm_linear_pack_t(void *pack, const struct dm_weight *w);

#endif
