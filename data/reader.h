/* SPDX-License-Identifier: MIT */
/* reader.h - the documents of text files: a plain text file is one document, a JSONL file has one
 * in a field of each line. Both may be gzip or zstd (data/stream.h). */
#ifndef DM_DATA_READER_H
#define DM_DATA_READER_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

enum dm_reader_format {
    DM_READER_AUTO, /* JSONL when the name ends in .jsonl, .jsonl.gz or .jsonl.zst, else text */
    DM_READER_TEXT,
    DM_READER_JSONL
};

struct dm_reader_opt {
    const char *field; /* of JSONL; NULL = "text" */
    enum dm_reader_format format;
    size_t max_line; /* bytes of a JSONL line; 0 = 256 MiB */
};

struct dm_reader;

/* path "-" is standard input; opt may be NULL. Release with dm_reader_close(), which accepts NULL.
 */
enum dm_status dm_reader_open(struct dm_reader **r, const char *path,
                              const struct dm_reader_opt *opt, struct dm_err *e);
void dm_reader_close(struct dm_reader *r);

/* The next document: n bytes that stay valid until the next call; *text = NULL at the end. A JSONL
 * file is held one line at a time; blank lines are skipped, and an error names the line. A text
 * file is held whole. */
enum dm_status dm_reader_next(struct dm_reader *r, const char **text, size_t *n, struct dm_err *e);

/* Bytes taken from the file so far, for progress. */
uint64_t dm_reader_consumed(const struct dm_reader *r);

/* Sizes of the files added up, for progress; 0 as soon as one is not a regular file. */
uint64_t dm_reader_total(const char *const *paths, size_t n);

#endif
