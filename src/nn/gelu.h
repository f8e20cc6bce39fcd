/* SPDX-License-Identifier: MIT */
/* gelu.h - exact GELU, x * Phi(x) with the error function, and its adjoint. */
#ifndef DM_NN_GELU_H
#define DM_NN_GELU_H

#include <stddef.h>

/* out[i] = gelu(inp[i]), n elements; out may alias inp. */
void dm_gelu_forward(float *out, const float *inp, size_t n);

/* d[i] *= gelu'(inp[i]): the gradient of out becomes that of inp in place. */
void dm_gelu_backward(float *restrict d, const float *inp, size_t n);

#endif
