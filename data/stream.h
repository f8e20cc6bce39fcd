/* SPDX-License-Identifier: MIT */
/* stream.h - the bytes of a file, decompressed on the way: plain, gzip (with concatenated members)
 * and zstd (with concatenated frames), told apart by their first bytes. */
#ifndef DM_DATA_STREAM_H
#define DM_DATA_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

struct dm_stream;

/* path "-" is standard input. A name that ends in .gz or .zst must hold that format: DM_EFORMAT.
 * Release with dm_stream_close(), which accepts NULL. */
enum dm_status dm_stream_open(struct dm_stream **s, const char *path, struct dm_err *e);
void dm_stream_close(struct dm_stream *s);

/* Up to n bytes into buf; *got = 0 at the end. DM_EFORMAT when the compressed data is damaged or
 * cut off. */
enum dm_status dm_stream_read(struct dm_stream *s, void *buf, size_t n, size_t *got,
                              struct dm_err *e);

/* Bytes taken from the file so far (compressed, if it is), for progress. */
uint64_t dm_stream_consumed(const struct dm_stream *s);

#endif
