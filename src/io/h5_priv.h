/* SPDX-License-Identifier: MIT */
/* h5_priv.h - what the three files behind h5.h share: h5.c (files, names), h5_attr.c, h5_data.c.
 * Included by no one else. HDF5's handles (hid_t) are int64_t here, so that this header needs no
 * other. */
#ifndef DM_IO_H5_PRIV_H
#define DM_IO_H5_PRIV_H

#include "src/io/h5.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "disk types are little-endian");

enum {
    NAME_MAX_LEN = 512,
    CHUNK = DM_H5_CHUNK,         // elements
    CHUNK_BYTES_MAX = 1 << 26,   // largest chunk accepted from a file
    ATTR_MAX = 16384,            // longer strings become compressed datasets below TEXT_GROUP
    STRING_MAX = 256 << 20,      // longest string read
    CACHE_BYTES = 64 << 20,      // decompressed chunks kept while reading
    DEFLATE_RATIO_MAX = 1032 + 1 // what deflate can reach
};
#define TEXT_GROUP ".text"

/* A dataset that grows: only whole chunks are written, so that no chunk is compressed twice and the
 * file does not depend on how the data was cut. */
struct appender {
    struct appender *next;
    char *name, *buf;
    unsigned char *packed; // a chunk shuffled, then room for it compressed
    enum dm_h5_type type;
    int64_t set;
    size_t fill, total;
};

struct dm_h5 {
    char *path, *tmp; // tmp: being written
    char format[64];
    int64_t file;
    bool failed; // a write failed: never publish
    size_t size; // bytes of a file that is read
    struct appender *appenders;
    char *range_name; // the dataset that dm_h5_read_range keeps open
    int64_t range_set;
    enum dm_h5_type range_type;
    size_t range_n;
    bool range_ours; // in chunks as dm_h5_append makes them
};

extern const size_t dm_h5_type_size[];      /* bytes, by enum dm_h5_type */
extern const char *const dm_h5_type_name[]; /* "f32", ... */

/* Fails with our words and HDF5's innermost cause; a file being written is marked as failed. */
enum dm_status dm_h5_fail(struct dm_h5 *f, struct dm_err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
enum dm_status dm_h5_no_memory(struct dm_h5 *f, struct dm_err *e, size_t n);

/* HDF5 prints no errors in this thread. Where it knows of threads each has a setting of its own, so
 * what is called by threads that did not open the file begins with it. */
void dm_h5_quiet(void);

/* Makes the groups above `name`, without times in them. */
enum dm_status dm_h5_make_groups(struct dm_h5 *f, const char *name, struct dm_err *e);

/* True if the attribute is a real one, not a text of TEXT_GROUP. */
bool dm_h5_plain_attr(struct dm_h5 *f, const char *obj, const char *name);

/* Writes what is left unless the file has failed, and frees the appenders in any case. */
enum dm_status dm_h5_close_appenders(struct dm_h5 *f, struct dm_err *e);

#endif
