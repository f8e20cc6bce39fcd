/* SPDX-License-Identifier: MIT */
#include "data/reader.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/stream.h"
#include "src/base/arena.h"
#include "src/base/json.h"

enum { DEFAULT_MAX_LINE = 256 << 20, FIRST_BUFFER = 1 << 18 };

struct dm_reader {
    struct dm_stream *stream;
    const char *name, *field;
    bool jsonl, done;
    size_t max_line, line;
    char *buf; /* bytes [at, end) are read and not yet given out */
    size_t at, end, cap;
    json_t *root; /* of the line given out last */
};

/* Longest sentence of where an error is. */
enum { WHERE = 512 };

static bool named_jsonl(const char *path)
{
    static const char *const suffix[] = {".jsonl", ".jsonl.gz", ".jsonl.zst"};
    const size_t n = strlen(path);
    for (size_t i = 0; i < sizeof(suffix) / sizeof(suffix[0]); i++)
        if (n >= strlen(suffix[i]) && !strcmp(path + n - strlen(suffix[i]), suffix[i]))
            return true;
    return false;
}

enum dm_status dm_reader_open(struct dm_reader **out, const char *path,
                              const struct dm_reader_opt *opt, struct dm_err *e)
{
    static const struct dm_reader_opt defaults = {0};
    enum dm_status st = DM_OK;
    opt = opt ? opt : &defaults;
    *out = NULL;
    struct dm_reader *r = dm_alloc(1, sizeof(*r));
    if (!r)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    r->jsonl = opt->format == DM_READER_JSONL ||
               (opt->format == DM_READER_AUTO && named_jsonl(path));
    r->max_line = opt->max_line ? opt->max_line : DEFAULT_MAX_LINE;
    r->name = strcmp(path, "-") ? path : "standard input";
    r->field = opt->field ? opt->field : "text";
    r->buf = dm_alloc(FIRST_BUFFER, 1);
    r->cap = FIRST_BUFFER;
    if (!r->buf)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    if (!st)
        st = dm_stream_open(&r->stream, path, e);
    if (st)
        dm_reader_close(r);
    else
        *out = r;
    return st;
}

void dm_reader_close(struct dm_reader *r)
{
    if (!r)
        return;
    json_decref(r->root);
    dm_stream_close(r->stream);
    free(r->buf);
    free(r);
}

/* Reads once more behind what is waiting, after moving it to the front or enlarging the buffer;
 * *got = 0 at the end. */
static enum dm_status read_more(struct dm_reader *r, size_t *got, struct dm_err *e)
{
    if (r->at && r->end == r->cap) {
        memmove(r->buf, r->buf + r->at, r->end - r->at);
        r->end -= r->at;
        r->at = 0;
    }
    if (r->end == r->cap) {
        char *p = dm_realloc(r->buf, r->cap, 2);
        if (!p)
            return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu bytes of text", r->name,
                           2 * r->cap);
        r->buf = p;
        r->cap *= 2;
    }
    DM_TRY(dm_stream_read(r->stream, r->buf + r->end, r->cap - r->end, got, e));
    r->end += *got;
    return DM_OK;
}

static enum dm_status next_text(struct dm_reader *r, const char **text, size_t *n, struct dm_err *e)
{
    size_t got;
    if (r->done)
        return DM_OK;
    do
        DM_TRY(read_more(r, &got, e));
    while (got);
    r->done = true;
    *text = r->buf;
    *n = r->end;
    return DM_OK;
}

static enum dm_status line_too_long(const char *name, size_t line, size_t max, struct dm_err *e)
{
    return dm_fail(e, DM_ERANGE, "%s, line %zu: longer than %zu bytes", name, line, max);
}

/* One line without its newline; *line = NULL at the end. */
static enum dm_status next_line(struct dm_reader *r, const char **line, size_t *n, struct dm_err *e)
{
    size_t seen = 0; // bytes behind `at` that hold no newline
    *line = NULL;
    for (;;) {
        const char *start = r->buf + r->at;
        const char *nl = memchr(start + seen, '\n', r->end - r->at - seen);
        size_t got = 1;
        seen = r->end - r->at;
        if (!nl && seen <= r->max_line)
            DM_TRY(read_more(r, &got, e));
        start = r->buf + r->at;
        *n = nl ? (size_t)(nl - start) : seen;
        if (*n > r->max_line)
            return line_too_long(r->name, r->line + 1, r->max_line, e);
        if (!nl && got)
            continue;
        if (!nl && !seen)
            return DM_OK;
        r->line++;
        r->at += *n + (nl != NULL);
        *line = start;
        return DM_OK;
    }
}

static bool blank(const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r", line[i]) || !line[i])
            return false;
    return true;
}

/* The text of one JSONL line, inside *root, which replaces that of the line before. A blank line
 * leaves *text = NULL. */
static enum dm_status parse_line(const char *line, size_t len, const char *name, size_t number,
                                 const char *field, json_t **root, const char **text, size_t *n,
                                 struct dm_err *e)
{
    char where[WHERE];
    json_decref(*root);
    *root = NULL;
    if (number == 1 && len >= 3 && !memcmp(line, "\xef\xbb\xbf", 3)) {
        line += 3; // a byte order mark is not JSON
        len -= 3;
    }
    if (blank(line, len))
        return DM_OK;
    snprintf(where, sizeof(where), "%s, line %zu", name, number);
    DM_TRY(dm_json_parse(line, len, where, root, e));
    if (!json_is_object(*root))
        return dm_fail(e, DM_EFORMAT, "%s: %s, want an object with \"%s\"", where,
                       dm_json_type(*root), field);
    const char *unused;
    DM_TRY(dm_json_string(*root, field, true, where, &unused, e));
    const json_t *v = json_object_get(*root, field);
    *text = json_string_value(v);
    *n = json_string_length(v);
    return DM_OK;
}

static enum dm_status next_record(struct dm_reader *r, const char **text, size_t *n,
                                  struct dm_err *e)
{
    const char *line;
    size_t len;
    do {
        DM_TRY(next_line(r, &line, &len, e));
        if (line)
            DM_TRY(parse_line(line, len, r->name, r->line, r->field, &r->root, text, n, e));
    } while (line && !*text);
    return DM_OK;
}

enum dm_status dm_reader_next(struct dm_reader *r, const char **text, size_t *n, struct dm_err *e)
{
    *text = NULL;
    *n = 0;
    return r->jsonl ? next_record(r, text, n, e) : next_text(r, text, n, e);
}

/* ---- Blocks -------------------------------------------------------------------------------- */

void dm_block_release(struct dm_block *b)
{
    json_decref(b->root);
    free(b->buf);
    *b = (struct dm_block){0};
}

static enum dm_status block_reserve(struct dm_block *b, const char *name, size_t cap,
                                    struct dm_err *e)
{
    if (cap <= b->cap)
        return DM_OK;
    char *p = dm_realloc(b->buf, cap, 1);
    if (!p)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu bytes of text", name, cap);
    b->buf = p;
    b->cap = cap;
    return DM_OK;
}

/* Where the block may end: behind its last line, or where the text may be cut; 0 = nowhere. */
static size_t block_end(const struct dm_reader *r, dm_reader_cut *cut, const void *ctx,
                        const char *s, size_t n)
{
    if (!r->jsonl)
        return cut(ctx, s, n);
    const char *nl = memrchr(s, '\n', n);
    return nl ? (size_t)(nl - s) + 1 : 0;
}

/* Reads until the block holds `size` bytes and may end among them, or the file does (*eof). */
static enum dm_status fill_block(struct dm_reader *r, dm_reader_cut *cut, const void *ctx,
                                 size_t size, struct dm_block *b, size_t *end, bool *eof,
                                 struct dm_err *e)
{
    for (*eof = false;; size *= 2) {
        size_t got = 1;
        DM_TRY(block_reserve(b, r->name, size, e));
        while (b->n < size && got) {
            DM_TRY(dm_stream_read(r->stream, b->buf + b->n, size - b->n, &got, e));
            b->n += got;
        }
        *eof = !got;
        *end = *eof ? b->n : block_end(r, cut, ctx, b->buf, b->n);
        if (*end)
            return DM_OK;
        if (b->n > r->max_line)
            return r->jsonl ? line_too_long(r->name, r->line + 1, r->max_line, e)
                            : dm_fail(e, DM_ERANGE, "%s: more than %zu bytes without white space",
                                      r->name, r->max_line);
        if (*eof)
            return DM_OK;
    }
}

static size_t count_lines(const char *s, size_t n)
{
    size_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += s[i] == '\n';
    return lines;
}

/* What is left behind a block's end waits in r->buf, [0, r->end). */
enum dm_status dm_reader_block(struct dm_reader *r, dm_reader_cut *cut, const void *ctx,
                               size_t size, struct dm_block *b, bool *more, struct dm_err *e)
{
    size_t end;
    bool eof;
    *more = !r->done;
    if (r->done)
        return DM_OK;
    size = size > r->end ? size : r->end + 1;
    DM_TRY(block_reserve(b, r->name, size, e));
    memcpy(b->buf, r->buf, r->end);
    b->n = r->end;
    DM_TRY(fill_block(r, cut, ctx, size, b, &end, &eof, e));
    const size_t rest = b->n - end;
    if (rest > r->cap) {
        char *p = dm_realloc(r->buf, rest, 1);
        if (!p)
            return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu bytes of text", r->name, rest);
        r->buf = p;
        r->cap = rest;
    }
    memcpy(r->buf, b->buf + end, rest);
    r->end = rest;
    r->done = eof;
    b->n = end;
    b->at = 0;
    b->name = r->name;
    b->field = r->jsonl ? r->field : NULL;
    b->line = r->line;
    b->max_line = r->max_line;
    b->last = eof;
    b->done = false;
    b->consumed = dm_stream_consumed(r->stream);
    r->line += r->jsonl ? count_lines(b->buf, b->n) : 0;
    return DM_OK;
}

enum dm_status dm_block_next(struct dm_block *b, const char **text, size_t *n, bool *end,
                             struct dm_err *e)
{
    *text = NULL;
    *n = 0;
    if (!b->field) {
        if (!b->done) {
            *text = b->buf;
            *n = b->n;
            *end = b->last;
        }
        b->done = true;
        return DM_OK;
    }
    *end = true;
    while (b->at < b->n && !*text) {
        const char *line = b->buf + b->at;
        const char *nl = memchr(line, '\n', b->n - b->at);
        const size_t len = nl ? (size_t)(nl - line) : b->n - b->at;
        b->at += len + (nl != NULL);
        b->line++;
        if (len > b->max_line)
            return line_too_long(b->name, b->line, b->max_line, e);
        DM_TRY(parse_line(line, len, b->name, b->line, b->field, &b->root, text, n, e));
    }
    return DM_OK;
}

uint64_t dm_reader_consumed(const struct dm_reader *r)
{
    return dm_stream_consumed(r->stream);
}

uint64_t dm_reader_total(const char *const *paths, size_t n)
{
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        struct stat s;
        if (stat(paths[i], &s) || !S_ISREG(s.st_mode))
            return 0;
        total += (uint64_t)s.st_size;
    }
    return total;
}
