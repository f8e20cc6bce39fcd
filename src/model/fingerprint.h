/* SPDX-License-Identifier: MIT */
/* fingerprint.h - what a model computes, short enough to compare between machines: the five largest
 * logits of every head after three fixed prompts, in float32, to four digits. */
#ifndef DM_MODEL_FINGERPRINT_H
#define DM_MODEL_FINGERPRINT_H

#include <jansson.h>

#include "src/model/model.h"

/* Prompt p = 0..2 has min(T_max, 1, 8, 32) tokens; its token t is mix64(64 p + t) % V. *out is a
 * new array, one entry per prompt and head: {"tokens": n, "head": 1.., "ids": [5], "logits": [5]},
 * the largest logit first. DM_ENAN: a logit is not finite. */
enum dm_status dm_fingerprint(const struct dm_model *m, json_t **out, struct dm_err *e);

/* DM_EMISMATCH with a sentence unless two fingerprints agree: each id of `got` is among those of
 * `want` with a logit within 0.1 % of the row's largest, so that ties may change places. The last
 * id may also be a new one with such a logit. `where` names the origin of `want`, which is not
 * trusted.
 */
enum dm_status dm_fingerprint_compare(const json_t *got, const json_t *want, const char *where,
                                      struct dm_err *e);

#endif
