/* SPDX-License-Identifier: MIT */
#include "data/objects.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"
#include "src/base/json.h"

enum { WHERE = 512 };

struct job {
    const char *name;
    dm_object_fn *fn;
    void *ctx;
};

static enum dm_status object(const struct job *j, const json_t *o, const char *unit, size_t number,
                             struct dm_err *e)
{
    char where[WHERE];
    snprintf(where, sizeof(where), "%s, %s %zu", j->name, unit, number);
    if (!json_is_object(o))
        return dm_fail(e, DM_EFORMAT, "%s: is %s, want an object", where, dm_json_type(o));
    return j->fn(j->ctx, o, where, e);
}

static enum dm_status array(const struct job *j, const char *text, size_t n, struct dm_err *e)
{
    json_t *root;
    DM_TRY(dm_json_parse(text, n, j->name, &root, e));
    enum dm_status st = DM_OK;
    for (size_t i = 0; !st && i < json_array_size(root); i++)
        st = object(j, json_array_get(root, i), "element", i + 1, e);
    json_decref(root);
    return st;
}

static enum dm_status lines(const struct job *j, const char *text, size_t n, struct dm_err *e)
{
    size_t number = 1;
    for (const char *at = text, *end = text + n, *next; at < end; at = next, number++) {
        const char *nl = memchr(at, '\n', (size_t)(end - at));
        const size_t len = nl ? (size_t)(nl - at) : (size_t)(end - at);
        char where[WHERE];
        json_t *root;
        next = nl ? nl + 1 : end;
        if (strspn(at, " \t\r") >= len) // the text ends with a NUL
            continue;
        snprintf(where, sizeof(where), "%s, line %zu", j->name, number);
        DM_TRY(dm_json_parse(at, len, where, &root, e));
        const enum dm_status st = object(j, root, "line", number, e);
        json_decref(root);
        DM_TRY(st);
    }
    return DM_OK;
}

enum dm_status dm_objects_each(const char *path, dm_object_fn *fn, void *ctx, struct dm_err *e)
{
    const struct job j = {strcmp(path, "-") ? path : "standard input", fn, ctx};
    const char *text;
    struct dm_reader *r;
    size_t n;
    DM_TRY(dm_reader_open(&r, path, &(struct dm_reader_opt){.format = DM_READER_TEXT}, e));
    enum dm_status st = dm_reader_next(r, &text, &n, e);
    char *copy = st ? NULL : strndup(text ? text : "", text ? n : 0); // with a NUL behind it
    if (!st && !copy)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu bytes", j.name, n);
    dm_reader_close(r);
    if (!st && strlen(copy) != n)
        st = dm_fail(e, DM_EFORMAT, "%s: holds a zero byte, so it is no JSON", j.name);
    if (!st) {
        const char *start = strncmp(copy, "\xef\xbb\xbf", 3) ? copy : copy + 3; // byte order mark
        n -= (size_t)(start - copy);
        st = start[strspn(start, " \t\r\n")] == '[' ? array(&j, start, n, e)
                                                    : lines(&j, start, n, e);
    }
    free(copy);
    return st;
}
