/* SPDX-License-Identifier: MIT */
/* xent.h - softmax cross-entropy on rows of logits. */
#ifndef DM_NN_XENT_H
#define DM_NN_XENT_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"

/* Per row n: logp[n] = log softmax(logits[n])[target[n]]; a negative target skips the row (logp 0,
 * rank -1, gradient 0). rank[n] (NULL skips it) is the number of ids with a larger logit, ties to
 * the smaller id, over all Vp. logits (N,Vp) are only read. */
void dm_xent_forward(float *logp, int32_t *rank, const float *logits, const int32_t *target,
                     size_t N, size_t Vp);

/* The same, and logits are overwritten by scale * (softmax - onehot), the gradient of
 * -scale * logp; rows with a negative target become 0. type: DM_F32, or DM_BF16 for the gradient
 * in bf16, rounded as for products; it fills the first half of each row's memory. */
void dm_xent_backward(float *logp, float *logits, enum dm_dtype type, const int32_t *target,
                      float scale, size_t N, size_t Vp);

#endif
