/* SPDX-License-Identifier: MIT */
/* gelu.h - exact GELU, x * Phi(x) with the error function, and its adjoint. */
#ifndef DM_NN_GELU_H
#define DM_NN_GELU_H

#include <stddef.h>

/* out[i] = gelu(inp[i]), n elements; out may alias inp. */
void dm_gelu_forward(float *out, const float *inp, size_t n);

/* dinp[i] += dout[i] * gelu'(inp[i]). dinp must not alias dout. */
void dm_gelu_backward(float *restrict dinp, const float *dout, const float *inp, size_t n);

#endif
