/* SPDX-License-Identifier: MIT */
/* safetensors.h - Hugging Face's tensor files: u64 length, JSON header, data.
 *
 * Reading maps the file and checks all of the header first: no duplicates, holes or overlaps, every
 * size against its shape and dtype, everything inside the file. Writing makes the bytes that the
 * `safetensors` package makes. */
#ifndef DM_IO_SAFETENSORS_H
#define DM_IO_SAFETENSORS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/file.h"
#include "src/base/status.h"
#include "src/io/raw_tensor.h"

/* An open file; zero it first. Tensors are in the order of their data. */
struct dm_safetensors {
    struct dm_map map;
    json_t *header;
    struct dm_raw_tensor *tensor;
    size_t n;
};

/* DM_EFORMAT, DM_ERANGE or DM_EIO with the file's and the tensor's name. Nothing to close after a
 * failure. */
enum dm_status dm_safetensors_open(struct dm_safetensors *s, const char *path, struct dm_err *e);
void dm_safetensors_close(struct dm_safetensors *s);
const struct dm_raw_tensor *dm_safetensors_find(const struct dm_safetensors *s, const char *name);

/* ---- Writing -------------------------------------------------------------------------------- */

struct dm_st_entry {
    const char *name;
    enum dm_dtype dtype;
    size_t rows, cols; /* cols = 0: vector */
};

struct dm_st_writer;
/* Writes the header to <path>.tmp.<pid>. Sorts `entries` into the order in which their data must
 * follow: wider types first, then by name. `format` goes into the metadata ("pt"). */
enum dm_status dm_st_create(struct dm_st_writer **w, const char *path, struct dm_st_entry *entries,
                            size_t n, const char *format, struct dm_err *e);
/* The raw little-endian bytes of the next entry; another size is DM_ESHAPE. */
enum dm_status dm_st_append(struct dm_st_writer *w, const void *raw, size_t n_bytes,
                            struct dm_err *e);
enum dm_status dm_st_commit(struct dm_st_writer *w, struct dm_err *e); /* frees w in any case */
void dm_st_abort(struct dm_st_writer *w);                              /* NULL is fine */

#endif
