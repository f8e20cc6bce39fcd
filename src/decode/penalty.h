/* SPDX-License-Identifier: MIT */
/* penalty.h - the repetition penalty on probabilities, for one token and for a block alike.
 *
 * Token i of a block (x1..xn) is a repetition if it occurs in the context (prompt and everything
 * generated before) or among x1..x(i-1). The block's probability is divided by the penalty once
 * per repetition, so the penalty of a block is the product of what its tokens would have got one
 * by one. For n = 1: p(x) / penalty if x is in the context, before renormalising. */
#ifndef DM_DECODE_PENALTY_H
#define DM_DECODE_PENALTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What to divide by. seen[id] is true for the tokens of the context. */
double dm_penalty_divisor(const int32_t *block, size_t n, const bool *seen, double penalty);

#endif
