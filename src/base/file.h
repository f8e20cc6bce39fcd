/* SPDX-License-Identifier: MIT */
/* file.h - outputs that appear by rename only, and inputs that are mapped read-only. */
#ifndef DM_BASE_FILE_H
#define DM_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

/* The name under which `path` is written before it is complete: <path>.tmp.<pid>, heap; NULL when
 * out of memory. Where `path` is a symbolic link, that of the file that it leads to, there or not.
 */
char *dm_file_tmp_name(const char *path);

/* Removes the temporary files that killed processes left: those whose name begins with `prefix` and
 * whose process is not there. */
void dm_file_sweep(const char *prefix);

/* Makes the complete file `tmp` appear as `path`: fsync, rename, fsync of the directory. A symbolic
 * link stays one. On failure `tmp` is unlinked and `path` is as it was. */
enum dm_status dm_file_publish(const char *tmp, const char *path, struct dm_err *e);

/* Writes n bytes to `path` through a temporary file and dm_file_publish(). */
enum dm_status dm_file_write(const char *path, const void *data, size_t n, struct dm_err *e);

/* Reads a whole regular file of at most max_bytes; *data is NUL-terminated heap memory of the
 * caller, release with free(). DM_EIO, DM_ENOMEM, DM_ERANGE (too large). */
enum dm_status dm_file_read(const char *path, size_t max_bytes, char **data, size_t *n,
                            struct dm_err *e);

/* Reads n bytes at `at` of an open file; path and what ("tensor x") are for the sentence. DM_EIO.
 */
enum dm_status dm_file_read_at(int fd, void *to, size_t n, uint64_t at, const char *path,
                               const char *what, struct dm_err *e);

/* Whether the regular file can be read and begins with these n <= 16 bytes. */
bool dm_file_begins(const char *path, const void *magic, size_t n);

#define DM_HDF5_MAGIC "\x89HDF\r\n\x1a\n"
bool dm_file_is_h5(const char *path); /* that begins with these 8 */

/* For a command that reads the n_in files `in` and is to write the n_out files `out` by rename,
 * before any work: DM_EMISMATCH if an output is an input, under whatever name ("-" of them is
 * standard input), or another output, or where standard output goes; DM_EIO if it is there and no
 * regular file, or its folder cannot be written; DM_ERANGE if its name is too long. Any may be
 * NULL, and outputs need not be there. */
enum dm_status dm_file_check_outputs(const char *const *out, size_t n_out, const char *const *in,
                                     size_t n_in, struct dm_err *e);
enum dm_status dm_file_check_output(const char *out, const char *const *in, size_t n,
                                    struct dm_err *e); /* of one output */

/* Before any work: DM_EIO unless each of the n files is there, no directory and may be read. NULL
 * and "-" pass. */
enum dm_status dm_file_check_inputs(const char *const *in, size_t n, struct dm_err *e);

/* Whether two names, of files that need not be there, are of one folder. */
bool dm_file_beside(const char *a, const char *b);

/* A read-only map of a regular file. n = 0 maps nothing and data is NULL. */
struct dm_map {
    const uint8_t *data;
    size_t n;
};
enum dm_status dm_map_open(struct dm_map *m, const char *path, struct dm_err *e);
/* The same for a file of text: DM_EFORMAT for an HDF5 file, a shard or a model given by mistake. */
enum dm_status dm_map_open_text(struct dm_map *m, const char *path, struct dm_err *e);
void dm_map_close(struct dm_map *m);
/* Takes these bytes of a map out of memory; reading them again reads the file again. */
void dm_map_drop(const void *data, size_t n);

#endif
