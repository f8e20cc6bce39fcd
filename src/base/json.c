/* SPDX-License-Identifier: MIT */
#include "src/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/file.h"

/* When memory is short, jansson 2.14 loses bytes of tokens that it reads and of keys that it
 * writes, and may read beyond a token's end. So its allocations pass through here, and what was
 * made while one failed is not used. While it parses, the first that fails gets its memory from a
 * reserve that is larger than any token. */
static _Thread_local void *reserve;
static _Thread_local bool short_of_memory;

static void *checked_malloc(size_t n)
{
    void *p = malloc(n);
    if (p)
        return p;
    short_of_memory = true;
    if (!reserve)
        return NULL;
    free(reserve);
    reserve = NULL;
    return malloc(n);
}

char *dm_json_text(const json_t *root, size_t flags)
{
    json_set_alloc_funcs(checked_malloc, free);
    short_of_memory = false;
    char *text = json_dumps(root, flags);
    if (!short_of_memory)
        return text;
    free(text);
    return NULL;
}

enum dm_status dm_json_parse(const char *text, size_t n, const char *where, json_t **out,
                             struct dm_err *e)
{
    json_error_t je;
    *out = NULL;
    if (n > SIZE_MAX / 4 || !(reserve = malloc(2 * n + 1024)))
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for its JSON", where);
    json_set_alloc_funcs(checked_malloc, free);
    short_of_memory = false;
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    free(reserve);
    reserve = NULL;
    if (short_of_memory) {
        json_decref(*out);
        *out = NULL;
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for its JSON", where);
    }
    if (!*out)
        return dm_fail(e, DM_EFORMAT, "%s: not valid JSON, line %d column %d: %s", where, je.line,
                       je.column, je.text);
    return DM_OK;
}

enum dm_status dm_json_read(const char *path, size_t max_bytes, json_t **out, struct dm_err *e)
{
    char *text;
    size_t n;
    *out = NULL;
    DM_TRY(dm_file_read(path, max_bytes, &text, &n, e));
    enum dm_status st = dm_json_parse(text, n, path, out, e);
    free(text);
    return st;
}

enum dm_status dm_json_write(const char *path, const json_t *root, struct dm_err *e)
{
    char *text = dm_json_text(root, JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (!text)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    size_t n = strlen(text);
    text[n] = '\n'; // the NUL's place: dm_file_write takes a length
    enum dm_status st = dm_file_write(path, text, n + 1, e);
    free(text);
    return st;
}

const char *dm_json_type(const json_t *v)
{
    static const char *const names[] = {"object", "array", "string", "integer",
                                        "real",   "true",  "false",  "null"};
    return v ? names[json_typeof(v)] : "nothing";
}

static enum dm_status member(const json_t *obj, const char *key, bool required, const char *where,
                             json_t **v, struct dm_err *e)
{
    *v = json_object_get(obj, key);
    if (json_is_null(*v))
        *v = NULL;
    if (!*v && required)
        return dm_fail(e, DM_EFORMAT, "%s: key \"%s\" is missing", where, key);
    return DM_OK;
}

enum dm_status dm_json_size(const json_t *obj, const char *key, size_t min, size_t max,
                            bool required, const char *where, size_t *out, struct dm_err *e)
{
    json_t *v;
    DM_TRY(member(obj, key, required, where, &v, e));
    if (!v)
        return DM_OK;
    if (!json_is_integer(v))
        return dm_fail(e, DM_EFORMAT, "%s: \"%s\" is %s, want an integer", where, key,
                       dm_json_type(v));
    const json_int_t x = json_integer_value(v);
    if (x < 0 || (uint64_t)x < min || (uint64_t)x > max)
        return dm_fail(e, DM_ERANGE, "%s: \"%s\" is %lld, want %zu..%zu", where, key, (long long)x,
                       min, max);
    *out = (size_t)x;
    return DM_OK;
}

enum dm_status dm_json_number(const json_t *obj, const char *key, bool required, const char *where,
                              double *out, struct dm_err *e)
{
    json_t *v;
    DM_TRY(member(obj, key, required, where, &v, e));
    if (!v)
        return DM_OK;
    if (!json_is_number(v) || !isfinite(json_number_value(v)))
        return dm_fail(e, DM_EFORMAT, "%s: \"%s\" is %s, want a number", where, key,
                       dm_json_type(v));
    *out = json_number_value(v);
    return DM_OK;
}

enum dm_status dm_json_bool(const json_t *obj, const char *key, bool required, const char *where,
                            bool *out, struct dm_err *e)
{
    json_t *v;
    DM_TRY(member(obj, key, required, where, &v, e));
    if (!v)
        return DM_OK;
    if (!json_is_boolean(v))
        return dm_fail(e, DM_EFORMAT, "%s: \"%s\" is %s, want true or false", where, key,
                       dm_json_type(v));
    *out = json_is_true(v);
    return DM_OK;
}

enum dm_status dm_json_string(const json_t *obj, const char *key, bool required, const char *where,
                              const char **out, struct dm_err *e)
{
    json_t *v;
    DM_TRY(member(obj, key, required, where, &v, e));
    if (!v)
        return DM_OK;
    if (!json_is_string(v))
        return dm_fail(e, DM_EFORMAT, "%s: \"%s\" is %s, want a string", where, key,
                       dm_json_type(v));
    *out = json_string_value(v);
    return DM_OK;
}

json_t *dm_json_real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

enum dm_status dm_json_add(json_t *to, const char *key, json_t *item, struct dm_err *e)
{
    if (key ? json_object_set_new(to, key, item) : json_array_append_new(to, item))
        return dm_fail(e, DM_ENOMEM, "out of memory for JSON");
    return DM_OK;
}

void dm_json_print(json_t *root)
{
    json_dumpf(root, stdout, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(root);
}
