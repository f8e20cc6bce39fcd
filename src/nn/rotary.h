/* SPDX-License-Identifier: MIT */
/* rotary.h - GPT-NeoX rotary embedding of the first `rot` dims of each head. */
#ifndef DM_NN_ROTARY_H
#define DM_NN_ROTARY_H

#include <stddef.h>

/* cos_sin (T, rot): row t holds rot/2 cosines, then rot/2 sines of t * base^(-2j/rot), computed in
 * double. rot is even. */
void dm_rotary_table(float *cos_sin, double base, size_t rot, size_t T);

/* In place: x has N rows of n_heads vectors, at x + n*row_stride + h*head_stride; rows of one
 * sequence of T are consecutive, so row n is at position pos + n % T. Pairs (j, j + rot/2):
 * a' = a cos - b sin, b' = b cos + a sin. rot = 0 does nothing. */
void dm_rotary_forward(float *x, size_t row_stride, size_t head_stride, const float *cos_sin,
                       size_t pos, size_t N, size_t T, size_t n_heads, size_t rot);

/* In place on the gradient: the transpose, that is, the rotation by the negative angle. */
void dm_rotary_backward(float *dx, size_t row_stride, size_t head_stride, const float *cos_sin,
                        size_t pos, size_t N, size_t T, size_t n_heads, size_t rot);

#endif
