/* SPDX-License-Identifier: MIT */
/* provenance.h - how a result came to be, as the JSON text that every file of ours carries. There
 * are no times and no host names in it: the same command makes the same bytes. */
#ifndef DM_BASE_PROVENANCE_H
#define DM_BASE_PROVENANCE_H

#include <jansson.h>

#include "src/base/status.h"

/* {"program": "dynamo 0.1.0", "command": [argv...], ...extra}. `extra` (an object or NULL) is
 * released; its keys come after ours in their order: seed, options, inputs. Heap text, release with
 * free(); NULL when out of memory. Bytes of argv that are not UTF-8 become '?'. */
char *dm_provenance(int argc, char *const *argv, json_t *extra);

/* Appends {"path": the last component, "sha256": hash of the whole file} to the array inputs. */
enum dm_status dm_provenance_input(json_t *inputs, const char *path, struct dm_err *e);
/* The same with a hash that is known. */
enum dm_status dm_provenance_hashed(json_t *inputs, const char *path, const char *hex,
                                    struct dm_err *e);

#endif
