/* SPDX-License-Identifier: MIT */
/* accum.h - the gradient of a batch as the sum over its micro-batches, in a fixed order.
 *
 * Micro-batches [lo, hi) are summed as a binary tree that halves the range, the left half first and
 * never the smaller one:
 *
 *   sum(lo, hi) = sum(lo, mid) + sum(mid, hi),  mid = lo + ceil((hi - lo) / 2)
 *
 * The tree depends on the number of micro-batches alone. When R = 2^k divides that number, the top
 * k levels cut it into R equal ranges, so that R machines can compute one subtree each and join
 * their results in pairs: the bits are those of one machine. */
#ifndef DM_TRAIN_ACCUM_H
#define DM_TRAIN_ACCUM_H

#include "src/model/params.h"

struct dm_accum {
    struct dm_params *level; /* (depth); level 0 is the caller's gradient */
    struct dm_arena *mem;    /* (depth); none for level 0 */
    struct dm_tensor *list;  /* (depth, n_tensors) */
    size_t depth, n_tensors;
};

/* Gradients held at once for n >= 1 micro-batches: 1 + ceil(log2 n). */
size_t dm_accum_depth(size_t n);

/* For at most n micro-batches; `grads` of `scope` is borrowed and must be zero before each
 * dm_accum_run(). Release with dm_accum_release(). DM_ENOMEM. */
enum dm_status dm_accum_init(struct dm_accum *a, const struct dm_params *grads,
                             const struct dm_config *c, enum dm_scope scope, size_t n,
                             struct dm_err *e);
void dm_accum_release(struct dm_accum *a);

/* Adds the gradient of micro-batch i to `grads`, which is zero. */
typedef void dm_accum_leaf(void *ctx, struct dm_params *grads, size_t i);

/* sum(lo, hi) into the gradient of level 0, lo < hi; the leaves are called in order. */
void dm_accum_run(struct dm_accum *a, size_t lo, size_t hi, dm_accum_leaf *leaf, void *ctx);

#endif
