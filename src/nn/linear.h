/* SPDX-License-Identifier: MIT */
/* linear.h - affine map over the last axis, and its adjoint. */
#ifndef DM_NN_LINEAR_H
#define DM_NN_LINEAR_H

#include <stddef.h>

/* out (N,O) = inp (N,C) w^T + b. w (O,C) row-major; b (O) or NULL. `pack` is w packed by
 * dm_linear_pack or NULL; with a pack, w may be NULL. out is written, must not alias inp. A row of
 * out has the same bits whatever the other rows are, packed or not. */
void dm_linear_forward(float *restrict out, const float *restrict inp, const float *w,
                       const float *pack, const float *b, size_t N, size_t C, size_t O);

/* Adds the gradients: dinp (N,C), dw (O,C), db (O); any may be NULL (a frozen weight passes NULL).
 * dout (N,O); inp and w as given to forward. */
void dm_linear_backward(float *restrict dinp, float *restrict dw, float *restrict db,
                        const float *dout, const float *inp, const float *w, size_t N, size_t C,
                        size_t O);

/* Floats of a packed w (O,C), and the packing itself. */
size_t dm_linear_pack_floats(size_t C, size_t O);
void dm_linear_pack(float *pack, const float *w, size_t C, size_t O);

#endif
