/* SPDX-License-Identifier: MIT */
/* layernorm.h - layer normalisation over the last axis, and its adjoint. */
#ifndef DM_NN_LAYERNORM_H
#define DM_NN_LAYERNORM_H

#include <stddef.h>

/* out (N,C) = (inp - mean) * rstd * w + b per row, rstd = 1/sqrt(var + eps), var biased. w, b (C).
 * mean, rstd (N) are written; both may be NULL when no backward follows. out may alias inp. */
void dm_layernorm_forward(float *out, float *mean, float *rstd, const float *inp, const float *w,
                          const float *b, float eps, size_t N, size_t C);

/* Adds dinp (N,C), dw (C), db (C); any may be NULL. dout (N,C); inp, w, mean, rstd as in forward.
 */
void dm_layernorm_backward(float *restrict dinp, float *restrict dw, float *restrict db,
                           const float *dout, const float *inp, const float *w, const float *mean,
                           const float *rstd, size_t N, size_t C);

#endif
