/* SPDX-License-Identifier: MIT */
/* embedding.h - rows of a table by token id, and the adjoint; and plain vector sums. */
#ifndef DM_NN_EMBEDDING_H
#define DM_NN_EMBEDDING_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"

/* out (N,C) = w[ids[n], :]; every id is < Vp (asserted). w (Vp,C) of type t. */
void dm_embedding_forward(float *out, const int32_t *ids, const void *w, enum dm_dtype t, size_t N,
                          size_t C, size_t Vp);

/* dw[ids[n], :] += dout[n, :], in the order of n whatever the thread count. */
void dm_embedding_backward(float *dw, const int32_t *ids, const float *dout, size_t N, size_t C,
                           size_t Vp);

/* y[i] += x[i], n elements. */
void dm_vec_add(float *restrict y, const float *restrict x, size_t n);

#endif
