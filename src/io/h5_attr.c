/* SPDX-License-Identifier: MIT */
/* Attributes. Short strings are fixed-length attributes; longer ones would go to storage without
 * checksums, so they become compressed datasets of bytes below TEXT_GROUP. */
#include "src/io/h5.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "src/base/arena.h"
#include "src/io/h5_priv.h"

static const char *object(const char *obj)
{
    return obj + (*obj == '/' && obj[1]);
}

/* Where a string too long for an attribute lives. */
static bool text_name(char out[NAME_MAX_LEN], const char *obj, const char *name)
{
    obj += *obj == '/';
    const int n = snprintf(out, NAME_MAX_LEN, TEXT_GROUP "/%s%s%s", obj, *obj ? "/" : "", name);
    return n < NAME_MAX_LEN;
}

bool dm_h5_plain_attr(struct dm_h5 *f, const char *obj, const char *name)
{
    const htri_t there = dm_h5_has(f, obj)
                             ? H5Aexists_by_name(f->file, object(obj), name, H5P_DEFAULT)
                             : 0;
    H5Eclear2(H5E_DEFAULT);
    return there > 0;
}

bool dm_h5_has_attr(struct dm_h5 *f, const char *obj, const char *name)
{
    char text[NAME_MAX_LEN];
    return dm_h5_plain_attr(f, obj, name) || (text_name(text, obj, name) && dm_h5_has(f, text));
}

static enum dm_status set_attr(struct dm_h5 *f, const char *obj, const char *name, hid_t type,
                               const void *value, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    if (dm_h5_plain_attr(f, obj, name))
        H5Adelete_by_name(f->file, object(obj), name, H5P_DEFAULT);
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate_by_name(f->file, object(obj), name, type, space, H5P_DEFAULT, H5P_DEFAULT,
                                H5P_DEFAULT);
    if (a < 0 || H5Awrite(a, type, value) < 0)
        st = dm_h5_fail(f, e, "cannot write attribute %s of %s", name, obj);
    if (a >= 0 && H5Aclose(a) < 0 && !st)
        st = dm_h5_fail(f, e, "cannot write attribute %s of %s", name, obj);
    H5Sclose(space);
    return st;
}

enum dm_status dm_h5_set_f64(struct dm_h5 *f, const char *obj, const char *name, double v,
                             struct dm_err *e)
{
    return set_attr(f, obj, name, H5T_IEEE_F64LE, &v, e);
}

enum dm_status dm_h5_set_u64(struct dm_h5 *f, const char *obj, const char *name, uint64_t v,
                             struct dm_err *e)
{
    return set_attr(f, obj, name, H5T_STD_U64LE, &v, e);
}

enum dm_status dm_h5_set_string(struct dm_h5 *f, const char *obj, const char *name,
                                const char *text, struct dm_err *e)
{
    const size_t n = strlen(text);
    char where[NAME_MAX_LEN];
    if (!text_name(where, obj, name)) {
        f->failed = true;
        return dm_fail(e, DM_ERANGE, "%s: attribute name %.80s is too long", f->path, name);
    }
    if (dm_h5_has(f, where) && H5Ldelete(f->file, where, H5P_DEFAULT) < 0)
        return dm_h5_fail(f, e, "cannot replace %s", where);
    if (n > ATTR_MAX)
        return dm_h5_write(f, where, DM_H5_U8, text, n, 0, 6, e);
    hid_t type = H5Tcopy(H5T_C_S1);
    enum dm_status st = DM_OK;
    if (type < 0 || H5Tset_size(type, n ? n : 1) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0 ||
        H5Tset_strpad(type, H5T_STR_NULLPAD) < 0)
        st = dm_h5_fail(f, e, "cannot write attribute %s of %s", name, obj);
    else
        st = set_attr(f, obj, name, type, text, e);
    H5Tclose(type);
    return st;
}

/* Opens an attribute that must be one value. */
static enum dm_status open_attr(struct dm_h5 *f, const char *obj, const char *name, hid_t *a,
                                hid_t *type, struct dm_err *e)
{
    *a = *type = H5I_INVALID_HID;
    if (!dm_h5_plain_attr(f, obj, name))
        return dm_fail(e, DM_EFORMAT, "%s: %s has no attribute %s", f->path, obj, name);
    hid_t space = H5I_INVALID_HID;
    enum dm_status st = DM_OK;
    *a = H5Aopen_by_name(f->file, object(obj), name, H5P_DEFAULT, H5P_DEFAULT);
    if (*a < 0 || (space = H5Aget_space(*a)) < 0 || (*type = H5Aget_type(*a)) < 0)
        st = dm_h5_fail(f, e, "cannot read attribute %s of %s", name, obj);
    else if (H5Sget_simple_extent_npoints(space) != 1)
        st = dm_fail(e, DM_EFORMAT, "%s: attribute %s of %s has %lld values, want 1", f->path, name,
                     obj, (long long)H5Sget_simple_extent_npoints(space));
    H5Sclose(space);
    if (st) {
        H5Aclose(*a);
        H5Tclose(*type);
    }
    return st;
}

static enum dm_status get_attr(struct dm_h5 *f, const char *obj, const char *name, hid_t want,
                               void *value, struct dm_err *e)
{
    hid_t a, type;
    DM_TRY(open_attr(f, obj, name, &a, &type, e));
    enum dm_status st = DM_OK;
    if (H5Tequal(type, want) <= 0)
        st = dm_fail(e, DM_EFORMAT, "%s: attribute %s of %s has the wrong type", f->path, name,
                     obj);
    else if (H5Aread(a, want, value) < 0)
        st = dm_h5_fail(f, e, "cannot read attribute %s of %s", name, obj);
    H5Aclose(a);
    H5Tclose(type);
    return st;
}

enum dm_status dm_h5_get_f64(struct dm_h5 *f, const char *obj, const char *name, double *v,
                             struct dm_err *e)
{
    return get_attr(f, obj, name, H5T_IEEE_F64LE, v, e);
}

enum dm_status dm_h5_get_u64(struct dm_h5 *f, const char *obj, const char *name, uint64_t *v,
                             struct dm_err *e)
{
    return get_attr(f, obj, name, H5T_STD_U64LE, v, e);
}

/* A text's bytes: no NUL inside (padding at the end is fine) and valid UTF-8. */
static bool valid_text(const char *s, size_t size)
{
    const size_t n = strnlen(s, size);
    for (size_t i = n; i < size; i++)
        if (s[i])
            return false;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s + i,
                                                    (utf8proc_ssize_t)(n - i), &c);
        if (k <= 0)
            return false;
        i += (size_t)k;
    }
    return true;
}

static enum dm_status text_alloc(struct dm_h5 *f, const char *name, size_t n, size_t limit,
                                 char **out, struct dm_err *e)
{
    if (n > STRING_MAX || n > limit)
        return dm_fail(e, DM_ERANGE, "%s: text %s claims %zu bytes", f->path, name, n);
    *out = dm_alloc(n + 1, 1);
    return *out ? DM_OK : dm_h5_no_memory(f, e, n);
}

static enum dm_status read_text(struct dm_h5 *f, const char *where, char **text, size_t *n,
                                struct dm_err *e)
{
    enum dm_h5_type t;
    size_t cols;
    DM_TRY(dm_h5_shape(f, where, &t, n, &cols, e));
    if (cols)
        return dm_fail(e, DM_ESHAPE, "%s: %s is a matrix, want a text", f->path, where);
    DM_TRY(text_alloc(f, where, *n, SIZE_MAX, text, e));
    return dm_h5_read(f, where, DM_H5_U8, *text, *n, 0, e);
}

static enum dm_status read_string(struct dm_h5 *f, const char *obj, const char *name, char **text,
                                  size_t *n, struct dm_err *e)
{
    hid_t a, type;
    DM_TRY(open_attr(f, obj, name, &a, &type, e));
    enum dm_status st = DM_OK;
    *n = H5Tget_size(type);
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type))
        st = dm_fail(e, DM_EFORMAT, "%s: attribute %s of %s is not a fixed-length string", f->path,
                     name, obj);
    else
        st = text_alloc(f, name, *n, f->tmp ? SIZE_MAX : f->size, text, e);
    if (!st && H5Aread(a, type, *text) < 0)
        st = dm_h5_fail(f, e, "cannot read attribute %s of %s", name, obj);
    H5Aclose(a);
    H5Tclose(type);
    return st;
}

enum dm_status dm_h5_get_string(struct dm_h5 *f, const char *obj, const char *name, char **text,
                                struct dm_err *e)
{
    char where[NAME_MAX_LEN];
    size_t n = 0;
    *text = NULL;
    const bool is_long = !dm_h5_plain_attr(f, obj, name) && text_name(where, obj, name) &&
                         dm_h5_has(f, where);
    enum dm_status st = is_long ? read_text(f, where, text, &n, e)
                                : read_string(f, obj, name, text, &n, e);
    if (!st && !valid_text(*text, n))
        st = dm_fail(e, DM_EFORMAT, "%s: attribute %s of %s is not valid UTF-8", f->path, name,
                     obj);
    if (st) {
        free(*text);
        *text = NULL;
    }
    return st;
}
