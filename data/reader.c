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
    char *name, *field;
    bool jsonl, done;
    size_t max_line, line;
    char *buf; /* bytes [at, end) are read and not yet given out */
    size_t at, end, cap;
    json_t *root; /* of the line given out last */
};

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
    r->name = strdup(strcmp(path, "-") ? path : "standard input");
    r->field = strdup(opt->field ? opt->field : "text");
    r->buf = dm_alloc(FIRST_BUFFER, 1);
    r->cap = FIRST_BUFFER;
    if (!r->name || !r->field || !r->buf)
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
    free(r->field);
    free(r->name);
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
            return dm_fail(e, DM_ERANGE, "%s, line %zu: longer than %zu bytes", r->name,
                           r->line + 1, r->max_line);
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

static enum dm_status next_record(struct dm_reader *r, const char **text, size_t *n,
                                  struct dm_err *e)
{
    const char *line;
    char where[512];
    size_t len;
    json_decref(r->root);
    r->root = NULL;
    do {
        DM_TRY(next_line(r, &line, &len, e));
        if (line && r->line == 1 && len >= 3 && !memcmp(line, "\xef\xbb\xbf", 3)) {
            line += 3; // a byte order mark is not JSON
            len -= 3;
        }
    } while (line && blank(line, len));
    if (!line)
        return DM_OK;
    snprintf(where, sizeof(where), "%s, line %zu", r->name, r->line);
    DM_TRY(dm_json_parse(line, len, where, &r->root, e));
    if (!json_is_object(r->root))
        return dm_fail(e, DM_EFORMAT, "%s: %s, want an object with \"%s\"", where,
                       dm_json_type(r->root), r->field);
    const char *unused;
    DM_TRY(dm_json_string(r->root, r->field, true, where, &unused, e));
    const json_t *v = json_object_get(r->root, r->field);
    *text = json_string_value(v);
    *n = json_string_length(v);
    return DM_OK;
}

enum dm_status dm_reader_next(struct dm_reader *r, const char **text, size_t *n, struct dm_err *e)
{
    *text = NULL;
    *n = 0;
    return r->jsonl ? next_record(r, text, n, e) : next_text(r, text, n, e);
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
