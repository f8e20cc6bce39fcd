/* SPDX-License-Identifier: MIT */
/* Datasets: whole, growing, read by range, and tensors. */
#include "src/io/h5.h"

#include <assert.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <zlib.h>

#include "src/base/arena.h"
#include "src/base/hash.h"
#include "src/io/h5_priv.h"

enum { N_TYPES = DM_H5_I32 + 1 };

static hid_t disk_type(enum dm_h5_type t)
{
    switch (t) {
    case DM_H5_F32:
        return H5T_IEEE_F32LE;
    case DM_H5_F64:
        return H5T_IEEE_F64LE;
    case DM_H5_U8:
        return H5T_STD_U8LE;
    case DM_H5_U16:
        return H5T_STD_U16LE;
    case DM_H5_U32:
        return H5T_STD_U32LE;
    case DM_H5_U64:
        return H5T_STD_U64LE;
    case DM_H5_I32:
        return H5T_STD_I32LE;
    }
    return H5I_INVALID_HID;
}

/* ---- Datasets: reading --------------------------------------------------------------------- */

struct set_info {
    hid_t set;
    enum dm_h5_type type;
    size_t rank, dim[2], bytes;
};

/* Layout and filters that we write; anything else could read other files or run other code. */
static bool layout_ok(hid_t set, size_t *chunk_items, bool *chunked)
{
    hid_t p = H5Dget_create_plist(set);
    const H5D_layout_t layout = H5Pget_layout(p);
    bool ok = layout == H5D_COMPACT || layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED;
    ok = ok && H5Pget_external_count(p) == 0;
    *chunked = layout == H5D_CHUNKED;
    for (int i = 0, n = H5Pget_nfilters(p); ok && i < n; i++) {
        size_t n_values = 0;
        unsigned flags, config;
        const H5Z_filter_t id = H5Pget_filter2(p, i, &flags, &n_values, NULL, 0, NULL, &config);
        ok = id == H5Z_FILTER_SHUFFLE || id == H5Z_FILTER_DEFLATE || id == H5Z_FILTER_FLETCHER32;
    }
    if (ok && *chunked) {
        hsize_t c[2] = {1, 1};
        const int rank = H5Pget_chunk(p, 2, c);
        ok = (rank == 1 || rank == 2) && dm_mul((size_t)c[0], (size_t)c[1], chunk_items);
    }
    H5Pclose(p);
    return ok;
}

/* Checks that what the dataset claims to hold can be in this file. */
static enum dm_status check_storage(struct dm_h5 *f, const char *name, const struct set_info *s,
                                    struct dm_err *e)
{
    size_t chunk = 0, chunk_bytes = 0;
    bool chunked;
    if (!layout_ok(s->set, &chunk, &chunked) ||
        !dm_mul(chunk, dm_h5_type_size[s->type], &chunk_bytes) || chunk_bytes > CHUNK_BYTES_MAX)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: %s has a layout or filter that dynamo does not use",
                       f->path, name);
    const size_t stored = (size_t)H5Dget_storage_size(s->set);
    if ((f->tmp == NULL && stored > f->size) || (!chunked && stored != s->bytes) ||
        (chunked && s->bytes / DEFLATE_RATIO_MAX > stored))
        return dm_fail(e, DM_EFORMAT, "%s: %s claims %zu bytes, but %zu are stored", f->path, name,
                       s->bytes, stored);
    return DM_OK;
}

static enum dm_status check_extent(struct dm_h5 *f, const char *name, struct set_info *s,
                                   hid_t type, hid_t space, struct dm_err *e)
{
    hsize_t dim[2] = {0, 0};
    const int rank = H5Sget_simple_extent_ndims(space);
    if (H5Sget_simple_extent_type(space) != H5S_SIMPLE || rank < 1 || rank > 2)
        return dm_fail(e, DM_ESHAPE, "%s: %s has %d dimensions, want 1 or 2", f->path, name, rank);
    int t = 0;
    while (t < N_TYPES && H5Tequal(type, disk_type((enum dm_h5_type)t)) <= 0)
        t++;
    if (t == N_TYPES)
        return dm_fail(e, DM_EFORMAT, "%s: %s has an element type that dynamo does not use",
                       f->path, name);
    H5Sget_simple_extent_dims(space, dim, NULL);
    *s = (struct set_info){s->set, (enum dm_h5_type)t, (size_t)rank, {dim[0], dim[1]}, 0};
    if (!dm_mul(s->dim[0], rank == 2 ? s->dim[1] : 1, &s->bytes) ||
        !dm_mul(s->bytes, dm_h5_type_size[t], &s->bytes) || (rank == 2 && !dim[1]))
        return dm_fail(e, DM_ESHAPE, "%s: %s claims %llu x %llu elements", f->path, name,
                       (unsigned long long)dim[0], (unsigned long long)dim[1]);
    return check_storage(f, name, s, e);
}

/* Opens and checks a dataset; s->set is the caller's to close after DM_OK. */
static enum dm_status open_set(struct dm_h5 *f, const char *name, struct set_info *s,
                               struct dm_err *e)
{
    if (!dm_h5_has(f, name))
        return dm_fail(e, DM_EFORMAT, "%s: no dataset %s", f->path, name);
    hid_t space = H5I_INVALID_HID, type = H5I_INVALID_HID;
    enum dm_status st;
    s->set = H5Dopen2(f->file, name, H5P_DEFAULT);
    if (s->set < 0 || (space = H5Dget_space(s->set)) < 0 || (type = H5Dget_type(s->set)) < 0)
        st = dm_h5_fail(f, e, "cannot open dataset %s", name);
    else
        st = check_extent(f, name, s, type, space, e);
    H5Tclose(type);
    H5Sclose(space);
    if (st)
        H5Dclose(s->set);
    return st;
}

enum dm_status dm_h5_shape(struct dm_h5 *f, const char *name, enum dm_h5_type *t, size_t *rows,
                           size_t *cols, struct dm_err *e)
{
    struct set_info s;
    DM_TRY(open_set(f, name, &s, e));
    H5Dclose(s.set);
    *t = s.type;
    *rows = s.dim[0];
    *cols = s.rank == 2 ? s.dim[1] : 0;
    return DM_OK;
}

/* Fails unless the hash attribute, if there is one, is that of the bytes. */
static enum dm_status check_hash(struct dm_h5 *f, const char *name, const void *buf, size_t n,
                                 struct dm_err *e)
{
    char hex[DM_HASH_LEN + 1], *want;
    if (!dm_h5_plain_attr(f, name, "sha256"))
        return DM_OK;
    DM_TRY(dm_h5_get_string(f, name, "sha256", &want, e));
    dm_sha256(buf, n, hex);
    const bool same = !strcmp(hex, want);
    free(want);
    return same ? DM_OK
                : dm_fail(e, DM_EFORMAT, "%s: %s is damaged: its hash differs", f->path, name);
}

enum dm_status dm_h5_read(struct dm_h5 *f, const char *name, enum dm_h5_type t, void *buf,
                          size_t rows, size_t cols, struct dm_err *e)
{
    struct set_info s;
    enum dm_status st = DM_OK;
    DM_TRY(open_set(f, name, &s, e));
    if (s.type != t)
        st = dm_fail(e, DM_EFORMAT, "%s: %s is %s, want %s", f->path, name, dm_h5_type_name[s.type],
                     dm_h5_type_name[t]);
    else if (s.dim[0] != rows || s.dim[1] != cols)
        st = dm_fail(e, DM_ESHAPE, "%s: %s is (%zu,%zu), want (%zu,%zu)", f->path, name, s.dim[0],
                     s.dim[1], rows, cols);
    else if (s.bytes && H5Dread(s.set, disk_type(t), H5S_ALL, H5S_ALL, H5P_DEFAULT, buf) < 0)
        st = dm_h5_fail(f, e, "cannot read %s", name);
    H5Dclose(s.set);
    return st ? st : check_hash(f, name, buf, s.bytes, e);
}

/* Selects [start, start+n) of a 1-D dataset and moves it. */
static enum dm_status move_range(struct dm_h5 *f, const char *name, hid_t set, enum dm_h5_type t,
                                 void *buf, size_t start, size_t n, struct dm_err *e)
{
    const hsize_t at = start, count = n;
    enum dm_status st = DM_OK;
    hid_t file = H5Dget_space(set), mem = H5Screate_simple(1, &count, NULL);
    herr_t bad = H5Sselect_hyperslab(file, H5S_SELECT_SET, &at, NULL, &count, NULL);
    if (bad >= 0)
        bad = f->tmp ? H5Dwrite(set, disk_type(t), mem, file, H5P_DEFAULT, buf)
                     : H5Dread(set, disk_type(t), mem, file, H5P_DEFAULT, buf);
    if (bad < 0) // before anything is closed: that would clear the cause
        st = dm_h5_fail(f, e, "cannot %s %s [%zu, +%zu)", f->tmp ? "write" : "read", name, start,
                        n);
    H5Sclose(file);
    H5Sclose(mem);
    return st;
}

/* Whether a dataset is in chunks of CHUNK elements, shuffled (bytes are not) and deflated. */
static bool chunks_are_ours(hid_t set, enum dm_h5_type t)
{
    static const H5Z_filter_t want[] = {H5Z_FILTER_SHUFFLE, H5Z_FILTER_DEFLATE};
    const int skip = dm_h5_type_size[t] == 1, n = 2 - skip;
    hid_t p = H5Dget_create_plist(set);
    hsize_t chunk = 0;
    bool ok = H5Pget_layout(p) == H5D_CHUNKED && H5Pget_chunk(p, 1, &chunk) == 1 &&
              chunk == CHUNK && H5Pget_nfilters(p) == n;
    for (int i = 0; i < n && ok; i++) {
        size_t n_values = 0;
        unsigned flags, config;
        ok = H5Pget_filter2(p, (unsigned)i, &flags, &n_values, NULL, 0, NULL, &config) ==
             want[i + skip];
    }
    H5Pclose(p);
    return ok;
}

/* The dataset stays open: its cache of decompressed chunks lives as long. */
static enum dm_status open_range(struct dm_h5 *f, const char *name, enum dm_h5_type t, size_t start,
                                 size_t n, struct dm_err *e)
{
    struct set_info s;
    dm_h5_quiet();
    if (!f->range_name || strcmp(f->range_name, name)) {
        DM_TRY(open_set(f, name, &s, e));
        if (s.type != t || s.rank != 1) {
            H5Dclose(s.set);
            return dm_fail(e, DM_EFORMAT, "%s: %s is %s with %zu dimensions, want 1-D %s", f->path,
                           name, dm_h5_type_name[s.type], s.rank, dm_h5_type_name[t]);
        }
        if (f->range_set >= 0)
            H5Dclose(f->range_set);
        free(f->range_name);
        f->range_set = s.set;
        f->range_name = strdup(name);
        f->range_type = t;
        f->range_n = s.dim[0];
        f->range_ours = chunks_are_ours(s.set, t);
        if (!f->range_name)
            return dm_h5_no_memory(f, e, strlen(name));
    }
    if (t != f->range_type || start > f->range_n || n > f->range_n - start)
        return dm_fail(e, DM_ERANGE, "%s: %s [%zu, +%zu) of type %s is outside its %zu elements",
                       f->path, name, start, n, dm_h5_type_name[t], f->range_n);
    return DM_OK;
}

enum dm_status dm_h5_read_range(struct dm_h5 *f, const char *name, enum dm_h5_type t, void *buf,
                                size_t start, size_t n, struct dm_err *e)
{
    DM_TRY(open_range(f, name, t, start, n, e));
    return n ? move_range(f, name, f->range_set, t, buf, start, n, e) : DM_OK;
}

enum dm_status dm_h5_fetch(struct dm_h5 *f, const char *name, enum dm_h5_type t, size_t start,
                           size_t n, struct dm_h5_chunk *c, struct dm_err *e)
{
    const size_t whole = CHUNK * dm_h5_type_size[t];
    const hsize_t at = start;
    hsize_t stored = 0;
    uint32_t skipped = 0; // filters
    assert(start % CHUNK == 0 && n <= CHUNK);
    DM_TRY(open_range(f, name, t, start, n, e));
    c->name = f->path;
    c->type = t;
    c->n = n;
    c->packed = f->range_ours && n && H5Dget_chunk_storage_size(f->range_set, &at, &stored) >= 0 &&
                stored && stored <= whole;
    if (!c->data && !(c->data = dm_alloc(3, whole)))
        return dm_h5_no_memory(f, e, 3 * whole);
    if (c->packed && (H5Dread_chunk(f->range_set, H5P_DEFAULT, &at, &skipped, c->data) < 0))
        return dm_h5_fail(f, e, "cannot read %s [%zu, +%zu)", name, start, n);
    c->bytes = (size_t)stored;
    c->packed = c->packed && !skipped;
    return c->packed || !n ? DM_OK : move_range(f, name, f->range_set, t, c->data, start, n, e);
}

enum dm_status dm_h5_unpack(struct dm_h5_chunk *c, const void **items, struct dm_err *e)
{
    const size_t size = dm_h5_type_size[c->type], whole = CHUNK * size;
    unsigned char *flat = c->data + whole, *out = flat + whole;
    z_stream z = {.next_in = c->data, .avail_in = (uInt)c->bytes, .next_out = flat};
    *items = c->data;
    if (!c->packed)
        return DM_OK;
    z.avail_out = (uInt)whole;
    if (inflateInit(&z) != Z_OK)
        return dm_fail(e, DM_ENOMEM, "%s: no memory to decompress %zu bytes", c->name, c->bytes);
    const int r = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    if (r != Z_STREAM_END || z.avail_out)
        return dm_fail(e, DM_EFORMAT, "%s: a chunk of %zu bytes is damaged", c->name, c->bytes);
    for (size_t b = 0; b < size && size > 1; b++)
        for (size_t i = 0; i < CHUNK; i++)
            out[i * size + b] = flat[b * CHUNK + i];
    *items = size > 1 ? out : flat;
    return DM_OK;
}

/* ---- Datasets: writing --------------------------------------------------------------------- */

/* A full disk is found out before a long write, where HDF5 reports it well. */
static enum dm_status check_space(struct dm_h5 *f, size_t bytes, struct dm_err *e)
{
    struct statvfs v;
    if (bytes < 1 << 20 || statvfs(f->tmp, &v) || v.f_bavail > bytes / v.f_frsize)
        return DM_OK;
    f->failed = true;
    return dm_fail(e, DM_EIO, "%s: %zu bytes to write, but the disk has only %llu left", f->path,
                   bytes, (unsigned long long)v.f_bavail * v.f_frsize);
}

/* Makes a dataset; chunk (NULL = contiguous) in elements, growing without limit if `grow`. */
static enum dm_status make_set(struct dm_h5 *f, const char *name, enum dm_h5_type t, int rank,
                               const hsize_t *dim, const hsize_t *chunk, bool grow, int deflate,
                               hid_t *set, struct dm_err *e)
{
    const hsize_t limit = H5S_UNLIMITED;
    enum dm_status st = DM_OK;
    *set = H5I_INVALID_HID;
    DM_TRY(dm_h5_make_groups(f, name, e));
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(rank, dim, grow ? &limit : NULL);
    bool ok = p >= 0 && space >= 0 && H5Pset_obj_track_times(p, 0) >= 0;
    if (ok && chunk) // shuffling single bytes does nothing
        ok = H5Pset_chunk(p, rank, chunk) >= 0 &&
             (dm_h5_type_size[t] == 1 || H5Pset_shuffle(p) >= 0) &&
             H5Pset_deflate(p, (unsigned)deflate) >= 0;
    if (ok)
        *set = H5Dcreate2(f->file, name, disk_type(t), space, H5P_DEFAULT, p, H5P_DEFAULT);
    if (*set < 0)
        st = dm_h5_fail(f, e, "cannot make %s", name);
    H5Pclose(p);
    H5Sclose(space);
    return st;
}

static size_t clamp(size_t x, size_t lo, size_t hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

enum dm_status dm_h5_write(struct dm_h5 *f, const char *name, enum dm_h5_type t, const void *buf,
                           size_t rows, size_t cols, int deflate, struct dm_err *e)
{
    size_t bytes;
    char hex[DM_HASH_LEN + 1];
    dm_h5_quiet();
    if (!dm_mul(rows, cols ? cols : 1, &bytes) || !dm_mul(bytes, dm_h5_type_size[t], &bytes)) {
        f->failed = true;
        return dm_fail(e, DM_ERANGE, "%s: %s is too large", f->path, name);
    }
    DM_TRY(check_space(f, bytes, e));
    const hsize_t dim[2] = {rows, cols};
    const hsize_t chunk_cols = clamp(cols, 1, CHUNK);
    const hsize_t chunk[2] = {clamp(CHUNK / chunk_cols, 1, rows ? rows : 1), chunk_cols};
    enum dm_status st = DM_OK;
    hid_t set;
    DM_TRY(make_set(f, name, t, cols ? 2 : 1, dim, deflate > 0 && rows ? chunk : NULL, false,
                    deflate, &set, e));
    if (bytes && H5Dwrite(set, disk_type(t), H5S_ALL, H5S_ALL, H5P_DEFAULT, buf) < 0)
        st = dm_h5_fail(f, e, "cannot write %s", name);
    if (H5Dclose(set) < 0 && !st)
        st = dm_h5_fail(f, e, "cannot write %s", name);
    DM_TRY(st);
    dm_sha256(buf, bytes, hex);
    return dm_h5_set_string(f, name, "sha256", hex, e);
}

static enum dm_status new_appender(struct dm_h5 *f, const char *name, enum dm_h5_type t,
                                   struct appender **out, struct dm_err *e)
{
    const hsize_t zero = 0, chunk = CHUNK;
    struct appender *a = dm_alloc(1, sizeof(*a));
    if (!a)
        return dm_h5_no_memory(f, e, sizeof(*a));
    *a = (struct appender){.next = f->appenders, .type = t, .set = H5I_INVALID_HID};
    f->appenders = a; // closed and freed with the file from here on
    a->name = strdup(name);
    a->buf = dm_alloc(CHUNK, dm_h5_type_size[t]);
    a->packed = dm_alloc(CHUNK * dm_h5_type_size[t] + compressBound(CHUNK * dm_h5_type_size[t]), 1);
    if (!a->name || !a->buf || !a->packed)
        return dm_h5_no_memory(f, e, CHUNK * dm_h5_type_size[t]);
    *out = a;
    return make_set(f, name, t, 1, &zero, &chunk, true, 4, &a->set, e);
}

/* The first byte of every element, then the second of every one, as HDF5's shuffle does. */
static void shuffle(unsigned char *restrict out, const unsigned char *restrict in, size_t size)
{
    for (size_t b = 0; b < size; b++)
        for (size_t i = 0; i < CHUNK; i++)
            out[b * CHUNK + i] = in[i * size + b];
}

/* Writes the buffer as one chunk that has passed the filters already. HDF5's own deflate searches
 * for repeated strings, which token ids do not have: on prose it is 4 times slower than coding
 * single bytes and runs, for files that are 1.5 % smaller. A last chunk is filled up with zeros. */
static enum dm_status write_chunk(struct dm_h5 *f, struct appender *a, struct dm_err *e)
{
    const size_t size = dm_h5_type_size[a->type], bytes = CHUNK * size;
    const hsize_t at = a->total;
    z_stream z = {.next_in = size == 1 ? (unsigned char *)a->buf : a->packed,
                  .avail_in = (uInt)bytes,
                  .next_out = a->packed + bytes,
                  .avail_out = (uInt)compressBound(bytes)};
    memset(a->buf + a->fill * size, 0, bytes - a->fill * size);
    if (size > 1)
        shuffle(a->packed, (const unsigned char *)a->buf, size);
    if (deflateInit2(&z, 1, Z_DEFLATED, 15, 8, Z_RLE) != Z_OK)
        return dm_h5_no_memory(f, e, bytes);
    const int r = deflate(&z, Z_FINISH);
    const size_t n = z.total_out;
    deflateEnd(&z);
    assert(r == Z_STREAM_END); // it had compressBound() bytes of room
    if (H5Dwrite_chunk(a->set, H5P_DEFAULT, 0, &at, n, a->packed + bytes) < 0)
        return dm_h5_fail(f, e, "cannot write %s [%zu, +%zu)", a->name, a->total, a->fill);
    return DM_OK;
}

static enum dm_status flush_appender(struct dm_h5 *f, struct appender *a, struct dm_err *e)
{
    const hsize_t size = a->total + a->fill;
    if (!a->fill)
        return DM_OK;
    dm_h5_quiet();
    DM_TRY(check_space(f, a->fill * dm_h5_type_size[a->type], e));
    if (H5Dset_extent(a->set, &size) < 0)
        return dm_h5_fail(f, e, "cannot grow %s", a->name);
    DM_TRY(write_chunk(f, a, e));
    a->total += a->fill;
    a->fill = 0;
    return DM_OK;
}

enum dm_status dm_h5_append(struct dm_h5 *f, const char *name, enum dm_h5_type t, const void *buf,
                            size_t n, struct dm_err *e)
{
    struct appender *a = f->appenders;
    const char *p = buf;
    while (a && strcmp(a->name, name))
        a = a->next;
    if (!a)
        DM_TRY(new_appender(f, name, t, &a, e));
    if (a->type != t)
        return dm_fail(e, DM_EFORMAT, "%s: %s is %s, cannot append %s", f->path, name,
                       dm_h5_type_name[a->type], dm_h5_type_name[t]);
    while (n) {
        const size_t k = clamp(n, 0, CHUNK - a->fill);
        memcpy(a->buf + a->fill * dm_h5_type_size[t], p, k * dm_h5_type_size[t]);
        a->fill += k;
        p += k * dm_h5_type_size[t];
        n -= k;
        if (a->fill == CHUNK)
            DM_TRY(flush_appender(f, a, e));
    }
    return DM_OK;
}

enum dm_status dm_h5_close_appenders(struct dm_h5 *f, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    while (f->appenders) {
        struct appender *a = f->appenders;
        f->appenders = a->next;
        if (!f->failed)
            st = flush_appender(f, a, e);
        if (a->set >= 0 && H5Dclose(a->set) < 0 && !f->failed)
            st = dm_h5_fail(f, e, "cannot write %s", a->name);
        free(a->name);
        free(a->buf);
        free(a->packed);
        free(a);
    }
    return st;
}

/* ---- Tensors ------------------------------------------------------------------------------- */

/* What a tensor's dataset looks like: `cols` numbers of *disk in a row. */
static bool tensor_layout(enum dm_dtype t, size_t cols, enum dm_h5_type *disk, size_t *disk_cols)
{
    *disk = dm_dtype_is_block(t) ? DM_H5_U8 : t == DM_F32 ? DM_H5_F32 : DM_H5_U16;
    *disk_cols = cols;
    return !dm_dtype_is_block(t) || (cols && dm_dtype_row_bytes(t, cols, disk_cols));
}

enum dm_status dm_h5_write_tensor(struct dm_h5 *f, const char *name, enum dm_dtype t,
                                  const void *raw, size_t rows, size_t cols, struct dm_err *e)
{
    enum dm_h5_type disk;
    size_t disk_cols;
    if (!tensor_layout(t, cols, &disk, &disk_cols)) {
        f->failed = true;
        return dm_fail(e, DM_ERANGE, "%s: %s cannot be %s", f->path, name, dm_dtype_name(t));
    }
    DM_TRY(dm_h5_write(f, name, disk, raw, rows, disk_cols, 0, e));
    if (dm_dtype_is_block(t))
        DM_TRY(dm_h5_set_u64(f, name, "cols", cols, e));
    return dm_h5_set_string(f, name, "dtype", dm_dtype_name(t), e);
}

enum dm_status dm_h5_tensor_shape(struct dm_h5 *f, const char *name, enum dm_dtype *t, size_t *rows,
                                  size_t *cols, struct dm_err *e)
{
    enum dm_h5_type disk, want;
    size_t stored, disk_cols = 0;
    char *text;
    DM_TRY(dm_h5_shape(f, name, &disk, rows, &stored, e));
    DM_TRY(dm_h5_get_string(f, name, "dtype", &text, e));
    enum dm_status st = DM_OK;
    *cols = stored;
    if (!dm_dtype_named(text, t) || !(tensor_layout(*t, 1, &want, &disk_cols), disk == want))
        st = dm_fail(e, DM_EFORMAT, "%s: tensor %s is stored as %s, but its dtype is \"%.20s\"",
                     f->path, name, dm_h5_type_name[disk], text);
    free(text);
    if (st || !dm_dtype_is_block(*t))
        return st;
    uint64_t n;
    DM_TRY(dm_h5_get_u64(f, name, "cols", &n, e));
    *cols = (size_t)n;
    if (!tensor_layout(*t, *cols, &want, &disk_cols) || disk_cols != stored)
        return dm_fail(e, DM_EFORMAT, "%s: tensor %s has rows of %zu bytes, which are not %zu %s",
                       f->path, name, stored, *cols, dm_dtype_name(*t));
    return DM_OK;
}

static enum dm_status check_hashed(struct dm_h5 *f, const char *name, struct dm_err *e)
{
    return dm_h5_plain_attr(f, name, "sha256")
               ? DM_OK
               : dm_fail(e, DM_EFORMAT, "%s: tensor %s has no hash", f->path, name);
}

enum dm_status dm_h5_tensor_extent(struct dm_h5 *f, const char *name, struct dm_h5_extent *x,
                                   struct dm_err *e)
{
    struct set_info s;
    char *want;
    *x = (struct dm_h5_extent){0};
    DM_TRY(open_set(f, name, &s, e));
    const haddr_t at = H5Dget_offset(s.set);
    H5Dclose(s.set);
    H5Eclear2(H5E_DEFAULT);
    DM_TRY(check_hashed(f, name, e));
    DM_TRY(dm_h5_get_string(f, name, "sha256", &want, e));
    snprintf(x->sha256, sizeof(x->sha256), "%s", want);
    free(want);
    if (at == HADDR_UNDEF)
        return DM_OK;
    if (at > f->size || s.bytes > f->size - at)
        return dm_fail(e, DM_EFORMAT, "%s: %s ends beyond the end of the file", f->path, name);
    x->offset = at;
    x->bytes = s.bytes;
    return DM_OK;
}

enum dm_status dm_h5_read_tensor(struct dm_h5 *f, const char *name, void *raw, size_t rows,
                                 size_t cols, struct dm_err *e)
{
    enum dm_dtype t;
    size_t r, c;
    DM_TRY(dm_h5_tensor_shape(f, name, &t, &r, &c, e));
    DM_TRY(check_hashed(f, name, e));
    if (r != rows || c != cols)
        return dm_fail(e, DM_ESHAPE, "%s: tensor %s is (%zu,%zu), want (%zu,%zu)", f->path, name, r,
                       c, rows, cols);
    enum dm_h5_type disk;
    size_t disk_cols;
    const bool fits = tensor_layout(t, cols, &disk, &disk_cols); // as checked by the shape
    assert(fits);
    DM_TRY(dm_h5_read(f, name, disk, raw, rows, disk_cols, e));
    if (dm_dtype_is_block(t) && !dm_dtype_finite(raw, t, rows, cols))
        return dm_fail(e, DM_EFORMAT, "%s: tensor %s has a scale that is not finite", f->path,
                       name);
    return DM_OK;
}
