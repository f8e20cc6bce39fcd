/* SPDX-License-Identifier: MIT */
/* raw_tensor.h - a tensor inside a mapped file of weights, safetensors or torch. */
#ifndef DM_IO_RAW_TENSOR_H
#define DM_IO_RAW_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"

#define DM_RAW_RANK_MAX 8

struct dm_raw_tensor {
    const char *name;      /* borrowed from the open file */
    const char *type_name; /* safetensors' names: "F16", "I64" */
    bool usable;           /* dtype is one that we compute with */
    enum dm_dtype dtype;   /* if usable */
    size_t rank, dim[DM_RAW_RANK_MAX];
    bool strided;                   /* elements do not follow each other in row-major order */
    size_t stride[DM_RAW_RANK_MAX]; /* elements; only if strided */
    const uint8_t *data;            /* first element; borrowed, not aligned */
    size_t n_bytes;                 /* of all elements in a row */
};

/* Copies a strided, usable tensor of rank 1 or 2 into dst (n_bytes) in row-major order. It walks
 * the file forward and lets go of what it has read (dm_map_drop), so that it holds dst alone. */
void dm_raw_gather(void *dst, const struct dm_raw_tensor *t);

#endif
