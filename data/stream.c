/* SPDX-License-Identifier: MIT */
/* stream.c - one input buffer in front of zlib or zstd. */
#include "data/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/stop.h"

enum { IN_SIZE = 1 << 18, WAIT_MS = 100 };

struct dm_stream {
    const char *name; /* for sentences; heap */
    enum { PLAIN, GZIP, ZSTD } kind;
    int fd;
    uint8_t *in; /* (IN_SIZE) bytes [at, end) are waiting */
    size_t at, end;
    bool eof;
    bool inside; /* a gzip member or zstd frame has begun and not ended */
    uint64_t consumed;
    z_stream z;
    bool z_open;
    ZSTD_DStream *zstd;
};

static const char *const kind_names[] = {"plain", "gzip", "zstd"};

/* Reads once behind what is waiting. A pipe or a terminal may be silent for long: Ctrl-C is noticed
 * within WAIT_MS there, too. */
static enum dm_status read_once(struct dm_stream *s, struct dm_err *e)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    ssize_t k;
    do {
        if (dm_stop_requested())
            return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
        k = poll(&p, 1, WAIT_MS);
        if (k > 0)
            k = read(s->fd, s->in + s->end, IN_SIZE - s->end);
        else if (!k)
            k = -(errno = EINTR);
    } while (k < 0 && errno == EINTR);
    if (k < 0)
        return dm_fail_errno(e, "%s: cannot read", s->name);
    s->end += (size_t)k;
    s->eof = !k;
    s->consumed += (uint64_t)k;
    return DM_OK;
}

/* Reads more input when none is waiting. */
static enum dm_status fill(struct dm_stream *s, struct dm_err *e)
{
    if (s->at < s->end || s->eof)
        return DM_OK;
    s->at = s->end = 0;
    return read_once(s, e);
}

/* Like fill(), but tries for at least four bytes, the length of a magic number. A pipe may give
 * fewer at a time. */
static enum dm_status fill_magic(struct dm_stream *s, struct dm_err *e)
{
    DM_TRY(fill(s, e));
    while (s->end - s->at < 4 && !s->eof && s->end < IN_SIZE)
        DM_TRY(read_once(s, e));
    return DM_OK;
}

static bool ends_with(const char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);
    return n >= m && !strcmp(name + n - m, suffix);
}

static enum dm_status detect(struct dm_stream *s, struct dm_err *e)
{
    const bool gz = ends_with(s->name, ".gz"), zst = ends_with(s->name, ".zst");
    DM_TRY(fill_magic(s, e));
    const size_t n = s->end - s->at;
    s->kind = PLAIN;
    if (n >= 2 && !memcmp(s->in + s->at, "\x1f\x8b", 2))
        s->kind = GZIP;
    if (n >= 4 && !memcmp(s->in + s->at, "\x28\xb5\x2f\xfd", 4))
        s->kind = ZSTD;
    if (n >= 8 && !memcmp(s->in + s->at, DM_HDF5_MAGIC, 8))
        return dm_fail(e, DM_EFORMAT, "%s: is an HDF5 file, want text", s->name);
    if ((gz && s->kind != GZIP) || (zst && s->kind != ZSTD))
        return dm_fail(e, DM_EFORMAT, "%s: the name says %s, but the file is not", s->name,
                       kind_names[gz ? GZIP : ZSTD]);
    if (s->kind == GZIP && inflateInit2(&s->z, 15 + 16) != Z_OK)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for gzip", s->name);
    s->z_open = s->kind == GZIP;
    if (s->kind == ZSTD && !(s->zstd = ZSTD_createDStream()))
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for zstd", s->name);
    return DM_OK;
}

enum dm_status dm_stream_open(struct dm_stream **out, const char *path, struct dm_err *e)
{
    const bool standard = !strcmp(path, "-");
    enum dm_status st = DM_OK;
    *out = NULL;
    struct dm_stream *s = dm_alloc(1, sizeof(*s));
    if (!s)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    s->fd = -1;
    s->name = strdup(standard ? "standard input" : path);
    s->in = dm_alloc(IN_SIZE, 1);
    if (!s->name || !s->in) {
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
        goto done;
    }
    s->fd = standard ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        st = dm_fail_errno(e, "%s: cannot open", s->name);
        goto done;
    }
    st = detect(s, e);
done:
    if (st)
        dm_stream_close(s);
    else
        *out = s;
    return st;
}

void dm_stream_close(struct dm_stream *s)
{
    if (!s)
        return;
    if (s->z_open)
        inflateEnd(&s->z);
    ZSTD_freeDStream(s->zstd);
    if (s->fd >= 0)
        close(s->fd);
    free(s->in);
    free((void *)(uintptr_t)s->name);
    free(s);
}

static enum dm_status cut_off(const struct dm_stream *s, struct dm_err *e)
{
    return dm_fail(e, DM_EFORMAT, "%s: the %s data is cut off", s->name, kind_names[s->kind]);
}

static enum dm_status read_plain(struct dm_stream *s, void *buf, size_t n, size_t *got,
                                 struct dm_err *e)
{
    DM_TRY(fill(s, e));
    *got = s->end - s->at < n ? s->end - s->at : n;
    memcpy(buf, s->in + s->at, *got);
    s->at += *got;
    return DM_OK;
}

static enum dm_status read_gzip(struct dm_stream *s, void *buf, size_t n, size_t *got,
                                struct dm_err *e)
{
    s->z.next_out = buf;
    s->z.avail_out = (uInt)(n < IN_SIZE ? n : IN_SIZE);
    const uInt room = s->z.avail_out;
    while (s->z.avail_out == room) {
        DM_TRY(fill(s, e));
        if (s->at == s->end) {
            *got = 0;
            return s->inside ? cut_off(s, e) : DM_OK;
        }
        s->inside = true;
        s->z.next_in = s->in + s->at;
        s->z.avail_in = (uInt)(s->end - s->at);
        const int r = inflate(&s->z, Z_NO_FLUSH);
        s->at = s->end - s->z.avail_in;
        if (r == Z_STREAM_END) {
            s->inside = false; // another member may follow
            inflateReset(&s->z);
        } else if (r != Z_OK && r != Z_BUF_ERROR) {
            return dm_fail(e, r == Z_MEM_ERROR ? DM_ENOMEM : DM_EFORMAT,
                           "%s: the gzip data is damaged: %s", s->name,
                           s->z.msg ? s->z.msg : "no reason given");
        }
    }
    *got = room - s->z.avail_out;
    return DM_OK;
}

static enum dm_status read_zstd(struct dm_stream *s, void *buf, size_t n, size_t *got,
                                struct dm_err *e)
{
    ZSTD_outBuffer out = {.dst = buf, .size = n};
    while (!out.pos) {
        DM_TRY(fill(s, e));
        // At the end of the input the decoder may still hold decompressed bytes back.
        ZSTD_inBuffer in = {.src = s->in, .size = s->end, .pos = s->at};
        const bool end = s->at == s->end;
        if (end && !s->inside)
            break;
        const size_t r = ZSTD_decompressStream(s->zstd, &out, &in);
        s->at = in.pos;
        if (ZSTD_isError(r))
            return dm_fail(e, DM_EFORMAT, "%s: the zstd data is damaged: %s", s->name,
                           ZSTD_getErrorName(r));
        s->inside = r != 0;
        if (end && !out.pos && s->inside)
            return cut_off(s, e);
    }
    *got = out.pos;
    return DM_OK;
}

enum dm_status dm_stream_read(struct dm_stream *s, void *buf, size_t n, size_t *got,
                              struct dm_err *e)
{
    *got = 0;
    if (!n)
        return DM_OK;
    if (s->kind == PLAIN)
        return read_plain(s, buf, n, got, e);
    return s->kind == GZIP ? read_gzip(s, buf, n, got, e) : read_zstd(s, buf, n, got, e);
}

uint64_t dm_stream_consumed(const struct dm_stream *s)
{
    return s->consumed;
}
