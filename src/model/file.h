/* SPDX-License-Identifier: MIT */
/* file.h - model files: HDF5 with config, tokenizer, tensors, thresholds and provenance.
 *
 *   /            attributes format = "dynamo-model", version, made_by, provenance, config (JSON),
 *                tokenizer (JSON, may be absent), calibration (JSON, may be absent)
 *   /tensors/X   one dataset per tensor under its Hugging Face name, with dtype and sha256
 */
#ifndef DM_MODEL_FILE_H
#define DM_MODEL_FILE_H

#include "src/model/model.h"

/* What a model file holds beside the weights. Strings are heap; release with dm_model_meta_release.
 */
struct dm_model_meta {
    char *tokenizer;   /* tokenizer.json text or NULL */
    char *provenance;  /* JSON text */
    char *calibration; /* JSON text or NULL */
};
void dm_model_meta_release(struct dm_model_meta *meta);

/* Config and metadata alone. meta may be NULL. */
enum dm_status dm_model_peek(const char *path, struct dm_config *cfg, struct dm_model_meta *meta,
                             struct dm_err *e);

/* All weights as float32. Hashes and shapes are checked. meta may be NULL. */
enum dm_status dm_model_load(struct dm_model *m, const char *path, struct dm_model_meta *meta,
                             struct dm_err *e);

/* Writes a model; base tensors in dtype `base`, heads in `heads`. When `base_file` is not NULL the
 * base's tensors are copied from there byte for byte instead (a frozen base never passes through a
 * conversion). By rename. */
enum dm_status dm_model_save(const struct dm_model *m, const struct dm_model_meta *meta,
                             const char *path, const char *base_file, enum dm_dtype base,
                             enum dm_dtype heads, struct dm_err *e);

/* Rewrites the file with another calibration (JSON text); everything else is copied as it is. */
enum dm_status dm_model_set_calibration(const char *path, const char *calibration,
                                        struct dm_err *e);

/* Hash of the model: SHA-256 over config and all tensor hashes, hex. */
enum dm_status dm_model_hash(const char *path, char hex[65], struct dm_err *e);

#endif
