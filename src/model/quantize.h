/* SPDX-License-Identifier: MIT */
/* quantize.h - a model file with its matrices in another number format. */
#ifndef DM_MODEL_QUANTIZE_H
#define DM_MODEL_QUANTIZE_H

#include "src/model/file.h"

struct dm_quantize_stats {
    size_t weights;       /* in the matrices of the scope: layers, heads and output embedding */
    size_t before, after; /* their bytes */
    size_t rest;          /* bytes of the other tensors, which stay as they are */
    double error;         /* root of the mean square of the change over that of the weights */
};

/* Writes the model file `from` as `to`, by rename, with those matrices of `scope` (ALL or HEADS,
 * which are heads 2 and up) as `type` (DM_BF16, DM_INT8 or DM_INT4); matrices that have it already
 * and all other tensors are copied byte for byte, and so are tokenizer, calibration and config.
 * provenance is JSON text. DM_ENAN for a weight that is not finite or too large for the type,
 * DM_EUNSUPPORTED where there are no such heads. The bytes do not depend on the thread count. */
enum dm_status dm_quantize(const char *from, const char *to, enum dm_dtype type,
                           enum dm_scope scope, const char *provenance,
                           struct dm_quantize_stats *stats, struct dm_err *e);

/* True for the tensors that dm_quantize() converts. */
bool dm_quantize_converts(const struct dm_tensor *t, enum dm_scope scope);

#endif
