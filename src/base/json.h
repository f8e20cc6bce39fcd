/* SPDX-License-Identifier: MIT */
/* json.h - jansson with checked reading: every getter names the file, the key, what was found and
 * what was expected. `where` is the file's name for the sentence. */
#ifndef DM_BASE_JSON_H
#define DM_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

/* Parses n bytes of text / a file of at most max_bytes; duplicate keys are refused. *out is new,
 * release with json_decref(). */
enum dm_status dm_json_parse(const char *text, size_t n, const char *where, json_t **out,
                             struct dm_err *e);
enum dm_status dm_json_read(const char *path, size_t max_bytes, json_t **out, struct dm_err *e);

/* json_dumps(): heap text, release with free(); NULL when out of memory. */
char *dm_json_text(const json_t *root, size_t flags);

/* Writes `root` indented with a final newline, by rename. */
enum dm_status dm_json_write(const char *path, const json_t *root, struct dm_err *e);

/* Members of an object. A missing key (or null) leaves *out untouched when `required` is false. */
enum dm_status dm_json_size(const json_t *obj, const char *key, size_t min, size_t max,
                            bool required, const char *where, size_t *out, struct dm_err *e);
enum dm_status dm_json_number(const json_t *obj, const char *key, bool required, const char *where,
                              double *out, struct dm_err *e);
enum dm_status dm_json_bool(const json_t *obj, const char *key, bool required, const char *where,
                            bool *out, struct dm_err *e);
/* Borrowed from obj. */
enum dm_status dm_json_string(const json_t *obj, const char *key, bool required, const char *where,
                              const char **out, struct dm_err *e);

/* A number, or null for one that is not finite; new reference. */
json_t *dm_json_real(double x);

/* Adds `item`, which it takes over, to an array, or to an object as `key`. DM_ENOMEM if there is no
 * memory, and if there was none for `to` or `item` either: they may be NULL. */
enum dm_status dm_json_add(json_t *to, const char *key, json_t *item, struct dm_err *e);

/* Name of a value's type for sentences: "object", "string", ... */
const char *dm_json_type(const json_t *v);

/* Prints one line of compact JSON to stdout and releases root; the way of every --json report. */
void dm_json_print(json_t *root);

#endif
