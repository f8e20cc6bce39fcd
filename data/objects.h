/* SPDX-License-Identifier: MIT */
/* objects.h - the JSON objects of a file, one after the other: the elements of an array, or one on
 * each line (JSONL), told by the first character; gzip and zstd as everywhere. */
#ifndef DM_DATA_OBJECTS_H
#define DM_DATA_OBJECTS_H

#include <jansson.h>

#include "src/base/status.h"

/* Called for every object, which is borrowed; `where` names file and line or element, for errors. A
 * status other than DM_OK ends the reading. */
typedef enum dm_status dm_object_fn(void *ctx, const json_t *object, const char *where,
                                    struct dm_err *e);

/* path "-" is standard input. The file is held whole. DM_EFORMAT for anything but objects. */
enum dm_status dm_objects_each(const char *path, dm_object_fn *fn, void *ctx, struct dm_err *e);

#endif
