/* SPDX-License-Identifier: MIT */
/* reader.h - the documents of text files: a plain text file is one document, a JSONL file has one
 * in a field of each line. Both may be gzip or zstd (data/stream.h). Read document by document, or
 * in blocks for several threads and in constant memory. */
#ifndef DM_DATA_READER_H
#define DM_DATA_READER_H

#include <jansson.h>
#include <stdbool.h>
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

/* path "-" is standard input; opt may be NULL. path and opt->field are borrowed: they must outlive
 * the reader and its blocks. Release with dm_reader_close(), which accepts NULL. */
enum dm_status dm_reader_open(struct dm_reader **r, const char *path,
                              const struct dm_reader_opt *opt, struct dm_err *e);
void dm_reader_close(struct dm_reader *r);

/* The next document: n bytes that stay valid until the next call; *text = NULL at the end. A JSONL
 * file is held one line at a time; blank lines are skipped, and an error names the line. A text
 * file is held whole. */
enum dm_status dm_reader_next(struct dm_reader *r, const char **text, size_t *n, struct dm_err *e);

/* A part of a file that is worked on alone, by any thread: whole lines of a JSONL file, or a
 * stretch of a text file that ends where the user allows a cut. Zero it first; the buffer is used
 * again by the next call; release with dm_block_release(). */
struct dm_block {
    char *buf;
    size_t n, cap;            /* bytes of the part */
    const char *name, *field; /* of the file, borrowed; field = NULL: text */
    size_t at, line;          /* of dm_block_next(): what comes next, lines before it */
    size_t max_line;
    bool last, done;   /* text: the document ends here; it was given out */
    uint64_t consumed; /* dm_reader_consumed() after it was read */
    json_t *root;      /* of the line given out last */
};
void dm_block_release(struct dm_block *b);

/* The next block of about `size` bytes, more where a line or a stretch that cannot be cut is
 * longer; *more = false at the end of the file. cut() says where a text may end, as
 * dm_tokenizer_cut(). DM_ERANGE when a line or stretch is longer than max_line. Do not mix with
 * dm_reader_next(). */
typedef size_t dm_reader_cut(const void *ctx, const char *text, size_t n);
enum dm_status dm_reader_block(struct dm_reader *r, dm_reader_cut *cut, const void *ctx,
                               size_t size, struct dm_block *b, bool *more, struct dm_err *e);

/* The next piece of a document in a block: n bytes that stay valid until the next call; *text =
 * NULL at the end. *end: the document ends with it. Needs the reader no longer, so blocks of one
 * file may be worked on by several threads. */
enum dm_status dm_block_next(struct dm_block *b, const char **text, size_t *n, bool *end,
                             struct dm_err *e);

/* Bytes taken from the file so far, for progress. */
uint64_t dm_reader_consumed(const struct dm_reader *r);

/* Sizes of the files added up, for progress; 0 as soon as one is not a regular file. */
uint64_t dm_reader_total(const char *const *paths, size_t n);

#endif
