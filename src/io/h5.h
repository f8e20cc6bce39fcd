/* SPDX-License-Identifier: MIT */
/* h5.h - HDF5 behind a small door; the only module that includes <hdf5.h>.
 *
 * Writing: dm_h5_create() opens <path>.tmp.<pid>; dm_h5_commit() closes, syncs and renames;
 * dm_h5_close() without a commit unlinks. So a file under its own name is always whole.
 * Reading: rank, dimensions and types are checked against what the caller expects before any byte
 * is read. Every file has the root attributes `format`, `version`, `made_by` (program version) and
 * `provenance` (JSON: command line, seed, hashes of inputs). Names may contain '/': groups are made
 * as needed. All functions return 0 or a status with a sentence that names the file. The same calls
 * make the same bytes. Files written by other programs must use the format of HDF5 1.10 (h5py:
 * libver="v110") and fixed-length strings (numpy.bytes_). Not for use by two threads at once. */
#ifndef DM_IO_H5_H
#define DM_IO_H5_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/status.h"

struct dm_h5; /* an open file */

enum dm_h5_type { DM_H5_F32, DM_H5_F64, DM_H5_U8, DM_H5_U16, DM_H5_U32, DM_H5_U64, DM_H5_I32 };

/* `format` such as "dynamo-model"; `version` is bumped when a reader must know. */
enum dm_status dm_h5_create(struct dm_h5 **f, const char *path, const char *format, size_t version,
                            struct dm_err *e);
enum dm_status dm_h5_commit(struct dm_h5 *f, struct dm_err *e); /* frees f in any case */
void dm_h5_close(struct dm_h5 *f); /* NULL is fine; a file being written is dropped */

/* Opens for reading; `format` (NULL = any of ours) and version <= `version` are checked. */
enum dm_status dm_h5_open(struct dm_h5 **f, const char *path, const char *format, size_t version,
                          struct dm_err *e);
const char *dm_h5_path(const struct dm_h5 *f);
const char *dm_h5_format(const struct dm_h5 *f);

/* Attributes of an object ("/" is the root) that exists. Setting replaces. Strings read are heap
 * memory of the caller (at most 256 MB, must be valid UTF-8 without NUL). Strings over 16 KB are
 * stored as compressed datasets "/.text/<object>/<name>", which dm_h5_names() leaves out. */
enum dm_status dm_h5_set_string(struct dm_h5 *f, const char *obj, const char *name,
                                const char *text, struct dm_err *e);
enum dm_status dm_h5_get_string(struct dm_h5 *f, const char *obj, const char *name, char **text,
                                struct dm_err *e);
enum dm_status dm_h5_set_f64(struct dm_h5 *f, const char *obj, const char *name, double v,
                             struct dm_err *e);
enum dm_status dm_h5_get_f64(struct dm_h5 *f, const char *obj, const char *name, double *v,
                             struct dm_err *e);
enum dm_status dm_h5_set_u64(struct dm_h5 *f, const char *obj, const char *name, uint64_t v,
                             struct dm_err *e);
enum dm_status dm_h5_get_u64(struct dm_h5 *f, const char *obj, const char *name, uint64_t *v,
                             struct dm_err *e);
bool dm_h5_has_attr(struct dm_h5 *f, const char *obj, const char *name);
/* Names of the root's attributes, sorted; as dm_h5_names(). */
enum dm_status dm_h5_attr_names(struct dm_h5 *f, char ***names, size_t *n, struct dm_err *e);
bool dm_h5_has(struct dm_h5 *f, const char *name); /* a dataset or group */

/* Whole datasets of rows x cols (cols = 0: 1-D of `rows`). With `deflate` > 0 they are chunked,
 * shuffled and compressed at that level. The writer adds an attribute sha256 of the bytes, which
 * the reader verifies. The reader's buffer has the shape that it asks for; another shape or type in
 * the file is DM_ESHAPE or DM_EFORMAT. */
enum dm_status dm_h5_write(struct dm_h5 *f, const char *name, enum dm_h5_type t, const void *buf,
                           size_t rows, size_t cols, int deflate, struct dm_err *e);
enum dm_status dm_h5_read(struct dm_h5 *f, const char *name, enum dm_h5_type t, void *buf,
                          size_t rows, size_t cols, struct dm_err *e);
/* Shape and type; cols = 0 for 1-D. Other ranks are refused, and sizes that the file cannot hold:
 * what a caller allocates from the answer is at most about 1000 times the file. */
enum dm_status dm_h5_shape(struct dm_h5 *f, const char *name, enum dm_h5_type *t, size_t *rows,
                           size_t *cols, struct dm_err *e);

/* A growing 1-D dataset (chunk 2^18, shuffle + deflate 4) and reading a range of one. */
enum dm_status dm_h5_append(struct dm_h5 *f, const char *name, enum dm_h5_type t, const void *buf,
                            size_t n, struct dm_err *e);
enum dm_status dm_h5_read_range(struct dm_h5 *f, const char *name, enum dm_h5_type t, void *buf,
                                size_t start, size_t n, struct dm_err *e);

/* Elements [start, start+n), start being a multiple of DM_H5_CHUNK and n at most that, in two
 * steps: fetching is cheap where the dataset was made by dm_h5_append(), and any number of threads
 * may unpack chunks of their own. *items stays in the chunk's memory; a zeroed chunk is ready for
 * use; free(c->data) after the last. DM_EFORMAT when it is damaged. */
#define DM_H5_CHUNK (1 << 18)
struct dm_h5_chunk {
    const char *name; /* for sentences: that of the open file */
    unsigned char *data;
    enum dm_h5_type type;
    size_t n, bytes; /* elements, bytes if it is packed */
    bool packed;
};
enum dm_status dm_h5_fetch(struct dm_h5 *f, const char *name, enum dm_h5_type t, size_t start,
                           size_t n, struct dm_h5_chunk *c, struct dm_err *e);
enum dm_status dm_h5_unpack(struct dm_h5_chunk *c, const void **items, struct dm_err *e);

/* Full names ("tensors/x", as dm_h5_read takes them) of the datasets below group `prefix` ("" =
 * all), sorted, as a NULL-terminated heap array of heap strings; release with dm_h5_free_names().
 */
enum dm_status dm_h5_names(struct dm_h5 *f, const char *prefix, char ***names, size_t *n,
                           struct dm_err *e);
void dm_h5_free_names(char **names);

/* Tensors: f32 as IEEE F32LE, f16 and bf16 as U16LE bit patterns, block types as (rows, bytes of a
 * row) U8 with an attribute `cols`; attributes `dtype` and `sha256` (of the raw little-endian
 * bytes). Shapes are in elements. raw: rows*cols elements of t (cols = 0: 1-D, no block type). */
enum dm_status dm_h5_write_tensor(struct dm_h5 *f, const char *name, enum dm_dtype t,
                                  const void *raw, size_t rows, size_t cols, struct dm_err *e);
enum dm_status dm_h5_tensor_shape(struct dm_h5 *f, const char *name, enum dm_dtype *t, size_t *rows,
                                  size_t *cols, struct dm_err *e);
/* Where the raw bytes of a tensor lie, for those who read the file themselves and in parallel, and
 * the hash that they must have. A compressed or chunked tensor has bytes 0: use
 * dm_h5_read_tensor(). The extent lies inside the file as it was when opened. */
struct dm_h5_extent {
    uint64_t offset;
    size_t bytes;
    char sha256[65];
};
enum dm_status dm_h5_tensor_extent(struct dm_h5 *f, const char *name, struct dm_h5_extent *x,
                                   struct dm_err *e);
/* Reads the raw bytes (dm_dtype_bytes) and verifies the hash: DM_EFORMAT when it differs, and when
 * a scale of a block type is not finite. */
enum dm_status dm_h5_read_tensor(struct dm_h5 *f, const char *name, void *raw, size_t rows,
                                 size_t cols, struct dm_err *e);

#endif
