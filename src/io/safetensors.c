/* SPDX-License-Identifier: MIT */
#include "src/io/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/json.h"

enum { HEADER_MAX = 100000000, ALIGN = 8 };

/* Every dtype of the format; those after the first three are only measured. */
static const struct {
    const char *name;
    size_t size;
} types[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8},     {"I64", 8},
             {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
             {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
enum { N_TYPES = sizeof(types) / sizeof(types[0]) };
static const enum dm_dtype usable[] = {DM_F32, DM_F16, DM_BF16};
enum { N_USABLE = sizeof(usable) / sizeof(usable[0]) };

/* ---- Reading ------------------------------------------------------------------------------- */

static uint64_t read_u64(const uint8_t *p)
{
    uint64_t x = 0;
    for (int i = 7; i >= 0; i--)
        x = x << 8 | p[i];
    return x;
}

/* Reads entry "shape" and returns the number of elements. */
static enum dm_status read_dims(struct dm_raw_tensor *t, const json_t *v, const char *path,
                                size_t *items, struct dm_err *e)
{
    const json_t *shape = json_object_get(v, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > DM_RAW_RANK_MAX)
        return dm_fail(e, DM_EFORMAT, "%s: shape of %.100s is not an array of up to %d sizes", path,
                       t->name, DM_RAW_RANK_MAX);
    *items = 1;
    t->rank = json_array_size(shape);
    for (size_t i = 0; i < t->rank; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return dm_fail(e, DM_EFORMAT, "%s: shape of %.100s has a size that is no size", path,
                           t->name);
        t->dim[i] = (size_t)json_integer_value(d);
        if (!dm_mul(*items, t->dim[i], items))
            return dm_fail(e, DM_EFORMAT, "%s: shape of %.100s overflows", path, t->name);
    }
    return DM_OK;
}

static enum dm_status read_offsets(struct dm_raw_tensor *t, const json_t *v, const uint8_t *data,
                                   size_t n_data, const char *path, struct dm_err *e)
{
    const json_t *o = json_object_get(v, "data_offsets");
    const json_t *b = json_array_get(o, 0), *end = json_array_get(o, 1);
    if (json_array_size(o) != 2 || !json_is_integer(b) || !json_is_integer(end))
        return dm_fail(e, DM_EFORMAT, "%s: data_offsets of %.100s are not two integers", path,
                       t->name);
    const json_int_t x = json_integer_value(b), y = json_integer_value(end);
    if (x < 0 || y < x || (uint64_t)y > n_data)
        return dm_fail(e, DM_EFORMAT, "%s: data_offsets of %.100s are %lld..%lld of %zu bytes",
                       path, t->name, (long long)x, (long long)y, n_data);
    t->data = data + x;
    t->n_bytes = (size_t)(y - x);
    return DM_OK;
}

static enum dm_status read_tensor(struct dm_raw_tensor *t, const json_t *v, const uint8_t *data,
                                  size_t n_data, const char *path, struct dm_err *e)
{
    size_t items, bytes, k = 0;
    if (!json_is_object(v))
        return dm_fail(e, DM_EFORMAT, "%s: entry of %.100s is %s, want an object", path, t->name,
                       dm_json_type(v));
    DM_TRY(dm_json_string(v, "dtype", true, path, &t->type_name, e));
    DM_TRY(read_dims(t, v, path, &items, e));
    DM_TRY(read_offsets(t, v, data, n_data, path, e));
    while (k < N_TYPES && strcmp(types[k].name, t->type_name))
        k++;
    // A dtype that we do not know cannot be measured; it is not usable either.
    if (k < N_TYPES && (!dm_mul(items, types[k].size, &bytes) || bytes != t->n_bytes))
        return dm_fail(e, DM_EFORMAT, "%s: %.100s has %zu bytes for %zu elements of %s", path,
                       t->name, t->n_bytes, items, types[k].name);
    t->usable = k < N_USABLE;
    if (t->usable)
        t->dtype = usable[k];
    return DM_OK;
}

static enum dm_status check_metadata(const json_t *v, const char *path, struct dm_err *e)
{
    const char *key;
    json_t *text;
    if (!json_is_object(v))
        return dm_fail(e, DM_EFORMAT, "%s: __metadata__ is %s, want an object", path,
                       dm_json_type(v));
    json_object_foreach((json_t *)(uintptr_t)v, key, text) if (
        !json_is_string(text)) return dm_fail(e, DM_EFORMAT,
                                              "%s: __metadata__ \"%.40s\" is %s, want a string",
                                              path, key, dm_json_type(text));
    return DM_OK;
}

static int by_begin(const void *a, const void *b)
{
    const struct dm_raw_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    if (x->n_bytes != y->n_bytes)
        return x->n_bytes < y->n_bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Together the tensors must cover the data exactly. */
static enum dm_status check_cover(const struct dm_safetensors *s, const uint8_t *data,
                                  size_t n_data, const char *path, struct dm_err *e)
{
    size_t at = 0;
    for (size_t i = 0; i < s->n; i++) {
        const size_t begin = (size_t)(s->tensor[i].data - data);
        if (begin != at)
            return dm_fail(e, DM_EFORMAT,
                           "%s: %.100s begins at byte %zu, but the data before it "
                           "ends at %zu",
                           path, s->tensor[i].name, begin, at);
        at += s->tensor[i].n_bytes;
    }
    if (at != n_data)
        return dm_fail(e, DM_EFORMAT, "%s: %zu bytes of data, but the tensors take %zu", path,
                       n_data, at);
    return DM_OK;
}

static enum dm_status read_header(struct dm_safetensors *s, size_t n_head, const char *path,
                                  struct dm_err *e)
{
    const uint8_t *data = s->map.data + 8 + n_head;
    const size_t n_data = s->map.n - 8 - n_head;
    const char *key;
    json_t *v;
    DM_TRY(dm_json_parse((const char *)s->map.data + 8, n_head, path, &s->header, e));
    if (!json_is_object(s->header))
        return dm_fail(e, DM_EFORMAT, "%s: the header is %s, want an object", path,
                       dm_json_type(s->header));
    s->tensor = dm_alloc(json_object_size(s->header) + 1, sizeof(*s->tensor));
    if (!s->tensor)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    json_object_foreach(s->header, key, v)
    {
        if (!strcmp(key, "__metadata__")) {
            DM_TRY(check_metadata(v, path, e));
            continue;
        }
        struct dm_raw_tensor *t = s->tensor + s->n++;
        t->name = key;
        DM_TRY(read_tensor(t, v, data, n_data, path, e));
    }
    qsort(s->tensor, s->n, sizeof(*s->tensor), by_begin);
    return check_cover(s, data, n_data, path, e);
}

enum dm_status dm_safetensors_open(struct dm_safetensors *s, const char *path, struct dm_err *e)
{
    *s = (struct dm_safetensors){0};
    DM_TRY(dm_map_open(&s->map, path, e));
    const uint64_t n = s->map.n < 8 ? 0 : read_u64(s->map.data);
    enum dm_status st;
    if (s->map.n < 8)
        st = dm_fail(e, DM_EFORMAT, "%s: %zu bytes, too short for safetensors", path, s->map.n);
    else if (n > HEADER_MAX || n > s->map.n - 8)
        st = dm_fail(e, DM_EFORMAT,
                     "%s: header of %llu bytes in a file of %zu, want at most %d: truncated, or "
                     "not safetensors",
                     path, (unsigned long long)n, s->map.n, HEADER_MAX);
    else
        st = read_header(s, (size_t)n, path, e);
    if (st)
        dm_safetensors_close(s);
    return st;
}

void dm_safetensors_close(struct dm_safetensors *s)
{
    json_decref(s->header);
    free(s->tensor);
    dm_map_close(&s->map);
    *s = (struct dm_safetensors){0};
}

const struct dm_raw_tensor *dm_safetensors_find(const struct dm_safetensors *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->tensor[i].name, name))
            return s->tensor + i;
    return NULL;
}

/* ---- Writing ------------------------------------------------------------------------------- */

struct dm_st_writer {
    char *path, *tmp;
    FILE *fp;
    size_t *n_bytes, n, next;
    bool failed;
};

static int by_type_and_name(const void *a, const void *b)
{
    // The package sorts by its enum of dtypes, which puts F32 before BF16 before F16.
    static const int rank[] = {[DM_F32] = 0, [DM_BF16] = 1, [DM_F16] = 2};
    const struct dm_st_entry *x = a, *y = b;
    if (x->dtype != y->dtype)
        return rank[x->dtype] - rank[y->dtype];
    return strcmp(x->name, y->name);
}

static size_t type_index(enum dm_dtype t)
{
    size_t k = 0;
    while (usable[k] != t)
        k++;
    return k;
}

/* The header's text, padded with spaces so that the data are aligned. */
static char *header_text(struct dm_st_writer *w, const struct dm_st_entry *entries,
                         const char *format, size_t *len)
{
    json_t *root = json_object();
    int bad = json_object_set_new(root, "__metadata__", json_pack("{s:s}", "format", format));
    size_t at = 0;
    for (size_t i = 0; i < w->n; i++) {
        const struct dm_st_entry *t = entries + i;
        json_t *shape = json_array();
        bad |= json_array_append_new(shape, json_integer((json_int_t)t->rows));
        if (t->cols)
            bad |= json_array_append_new(shape, json_integer((json_int_t)t->cols));
        w->n_bytes[i] = t->rows * (t->cols ? t->cols : 1) * dm_dtype_size(t->dtype);
        bad |= json_object_set_new(
            root, t->name,
            json_pack("{s:s, s:o, s:[I, I]}", "dtype", types[type_index(t->dtype)].name, "shape",
                      shape, "data_offsets", (json_int_t)at, (json_int_t)(at + w->n_bytes[i])));
        at += w->n_bytes[i];
    }
    char *text = bad ? NULL : dm_json_text(root, JSON_COMPACT), *padded = NULL;
    json_decref(root);
    if (text) {
        *len = (strlen(text) + ALIGN - 1) / ALIGN * ALIGN;
        padded = dm_alloc(*len + 1, 1);
    }
    if (padded) {
        memset(padded, ' ', *len);
        memcpy(padded, text, strlen(text));
    }
    free(text);
    return padded;
}

static enum dm_status put(struct dm_st_writer *w, const void *data, size_t n, struct dm_err *e)
{
    if (n && fwrite(data, 1, n, w->fp) != n) {
        w->failed = true;
        return dm_fail_errno(e, "%s: cannot write", w->path);
    }
    return DM_OK;
}

static enum dm_status put_header(struct dm_st_writer *w, struct dm_st_entry *entries,
                                 const char *format, struct dm_err *e)
{
    size_t len = 0;
    uint8_t size[8];
    qsort(entries, w->n, sizeof(*entries), by_type_and_name);
    char *text = header_text(w, entries, format, &len);
    if (!text)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", w->path);
    w->fp = fopen(w->tmp, "wbe");
    enum dm_status st = w->fp ? DM_OK : dm_fail_errno(e, "%s: cannot write", w->path);
    for (int i = 0; i < 8; i++)
        size[i] = (uint8_t)((uint64_t)len >> 8 * i);
    if (!st)
        st = put(w, size, sizeof(size), e);
    if (!st)
        st = put(w, text, len, e);
    free(text);
    return st;
}

enum dm_status dm_st_create(struct dm_st_writer **out, const char *path,
                            struct dm_st_entry *entries, size_t n, const char *format,
                            struct dm_err *e)
{
    struct dm_st_writer *w = dm_alloc(1, sizeof(*w));
    *out = NULL;
    if (w) {
        w->n = n;
        w->path = strdup(path);
        w->tmp = dm_file_tmp_name(path);
        w->n_bytes = dm_alloc(n + 1, sizeof(*w->n_bytes));
    }
    enum dm_status st = w && w->path && w->tmp && w->n_bytes
                            ? put_header(w, entries, format, e)
                            : dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    if (st) {
        dm_st_abort(w);
        return st;
    }
    *out = w;
    return DM_OK;
}

enum dm_status dm_st_append(struct dm_st_writer *w, const void *raw, size_t n_bytes,
                            struct dm_err *e)
{
    if (w->next >= w->n || n_bytes != w->n_bytes[w->next]) {
        w->failed = true;
        return dm_fail(e, DM_ESHAPE, "%s: tensor %zu of %zu has %zu bytes, want %zu", w->path,
                       w->next, w->n, n_bytes, w->next < w->n ? w->n_bytes[w->next] : 0);
    }
    w->next++;
    return put(w, raw, n_bytes, e);
}

enum dm_status dm_st_commit(struct dm_st_writer *w, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    if (w->failed || w->next != w->n)
        st = dm_fail(e, DM_EIO, "%s: %zu of %zu tensors were written", w->path, w->next, w->n);
    FILE *fp = w->fp;
    w->fp = NULL;
    if (fclose(fp) && !st)
        st = dm_fail_errno(e, "%s: cannot write", w->path);
    if (!st)
        st = dm_file_publish(w->tmp, w->path, e);
    dm_st_abort(w); // the temporary name is gone after a success
    return st;
}

void dm_st_abort(struct dm_st_writer *w)
{
    if (!w)
        return;
    if (w->fp)
        fclose(w->fp);
    if (w->tmp)
        unlink(w->tmp);
    free(w->path);
    free(w->tmp);
    free(w->n_bytes);
    free(w);
}
