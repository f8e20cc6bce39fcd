/* SPDX-License-Identifier: MIT */
/* info.h - what a file of ours holds, as a JSON object whose keys are in reading order. */
#ifndef DM_MODEL_INFO_H
#define DM_MODEL_INFO_H

#include <jansson.h>

#include "src/model/config.h"

/* Any HDF5 file of ours. Models: config, parameters, heads, dtypes, tokenizer, calibration, hash,
 * provenance. Others: their attributes and datasets. *out is new. */
enum dm_status dm_info_file(const char *path, json_t **out, struct dm_err *e);

/* The part that needs no weights: {"config", "parameters", "overhead_percent"}. NULL when out of
 * memory. parameters: embedding, stem (layers 0..L-2), head_1 (layer L-1), final_layer_norm,
 * unembedding, base (the sum so far), head_2.., heads (their sum), total. The overhead is that of
 * the heads over the base. */
json_t *dm_info_config(const struct dm_config *c);

#endif
