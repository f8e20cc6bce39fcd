/* SPDX-License-Identifier: MIT */
/* verify.h - is this model whole, and does it compute? */
#ifndef DM_MODEL_VERIFY_H
#define DM_MODEL_VERIFY_H

#include <jansson.h>
#include <stdbool.h>

#include "src/base/status.h"

/* Reads all of a model file, one tensor at a time: tensors missing, unknown or of another shape,
 * hashes, elements that are not finite, the tokenizer against the vocabulary; then, if all is well
 * and it is asked for, the fingerprint (fingerprint.h), which holds the model in float32. A
 * directory is Hugging Face's: hashes in SHA256SUMS if it is there, then it is imported into a file
 * in $TMPDIR (/tmp), which is verified and removed.
 *
 * *report is a new object: file, model (hash), parameters, tensors, vocabulary, problems (array of
 * sentences, empty when all is well), fingerprint (or null). What keeps a file from being read at
 * all is a status instead. */
enum dm_status dm_verify(const char *path, bool fingerprint, json_t **report, struct dm_err *e);

#endif
