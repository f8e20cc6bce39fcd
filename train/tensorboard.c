/* SPDX-License-Identifier: MIT */
#include "train/tensorboard.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/file.h"

enum { FRAME = 16, MOST = 1 << 16 }; /* bytes around a record's; the most in one of ours */

struct dm_tb {
    char *path;
    FILE *f;
    uint8_t summary[MOST];
    size_t n;
};

/* Bit by bit: a few hundred bytes a step are no work. */
uint32_t dm_crc32c(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
    }
    return ~c;
}

static uint32_t masked(const void *data, size_t n)
{
    const uint32_t c = dm_crc32c(data, n);
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* ---- Wire format ------------------------------------------------------------------------------
 */

static size_t put_le(uint8_t *out, uint64_t x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(x >> (8 * i));
    return n;
}

static uint64_t get_le(const uint8_t *p, size_t n)
{
    uint64_t x = 0;
    for (size_t i = n; i-- > 0;)
        x = x << 8 | p[i];
    return x;
}

static size_t put_varint(uint8_t *out, uint64_t x)
{
    size_t n = 0;
    for (; x > 127; x >>= 7)
        out[n++] = (uint8_t)(x | 128);
    out[n++] = (uint8_t)x;
    return n;
}

/* Field `number` of wire type 2. */
static size_t put_bytes(uint8_t *out, unsigned number, const void *data, size_t n)
{
    size_t at = put_varint(out, number << 3 | 2);
    at += put_varint(out + at, n);
    memcpy(out + at, data, n);
    return at + n;
}

static size_t put_double(uint8_t *out, unsigned number, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    const size_t at = put_varint(out, number << 3 | 1);
    return at + put_le(out + at, bits, 8);
}

static size_t put_float(uint8_t *out, unsigned number, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    const size_t at = put_varint(out, number << 3 | 5);
    return at + put_le(out + at, bits, 4);
}

/* ---- Records ----------------------------------------------------------------------------------
 */

static enum dm_status write_record(struct dm_tb *t, const uint8_t *data, size_t n, struct dm_err *e)
{
    uint8_t head[12], tail[4];
    put_le(head, n, 8);
    put_le(head + 8, masked(head, 8), 4);
    put_le(tail, masked(data, n), 4);
    if (fwrite(head, sizeof(head), 1, t->f) != 1 || fwrite(data, n, 1, t->f) != 1 ||
        fwrite(tail, sizeof(tail), 1, t->f) != 1 || fflush(t->f))
        return dm_fail_errno(e, "%s: cannot write", t->path);
    return DM_OK;
}

/* The step of an event of ours: field 2 follows the 9 bytes of field 1. The first event has none.
 */
static uint64_t event_step(const uint8_t *data, size_t n)
{
    uint64_t x = 0;
    if (n < 11 || data[9] != (2 << 3))
        return 0;
    for (size_t i = 10, shift = 0; i < n && shift < 64; i++, shift += 7) {
        x |= (uint64_t)(data[i] & 127) << shift;
        if (data[i] < 128)
            break;
    }
    return x;
}

/* Length of the whole records of events up to `step`. */
static size_t kept(const uint8_t *data, size_t n, size_t step)
{
    size_t at = 0;
    while (n - at >= FRAME) {
        const uint64_t len = get_le(data + at, 8);
        if (get_le(data + at + 8, 4) != masked(data + at, 8) || len > n - at - FRAME ||
            event_step(data + at + 12, (size_t)len) > step)
            break;
        at += FRAME + (size_t)len;
    }
    return at;
}

static enum dm_status trim(const char *path, size_t step, size_t *left, struct dm_err *e)
{
    char *data;
    size_t n;
    *left = 0;
    if (access(path, F_OK))
        return DM_OK;
    DM_TRY(dm_file_read(path, (size_t)1 << 30, &data, &n, e));
    *left = kept((const uint8_t *)data, n, step);
    const enum dm_status st = dm_file_write(path, data, *left, e);
    free(data);
    return st;
}

static enum dm_status begin(struct dm_tb *t, double wall, struct dm_err *e)
{
    static const char version[] = "brain.Event:2";
    uint8_t event[64];
    size_t n = put_double(event, 1, wall);
    n += put_bytes(event + n, 3, version, strlen(version));
    return write_record(t, event, n, e);
}

enum dm_status dm_tb_open(struct dm_tb **out, const char *dir, size_t step, double wall,
                          struct dm_err *e)
{
    enum dm_status st = DM_OK;
    size_t left = 0;
    struct dm_tb *t = dm_alloc(1, sizeof(*t));
    *out = NULL;
    if (!t || asprintf(&t->path, "%s/events.out.tfevents.dynamo", dir) < 0) {
        free(t);
        return dm_fail(e, DM_ENOMEM, "out of memory");
    }
    if (mkdir(dir, 0777) && errno != EEXIST) {
        st = dm_fail_errno(e, "%s: cannot make the directory", dir);
        goto done;
    }
    dm_file_sweep(t->path);
    if (step)
        DM_TRY_GOTO(trim(t->path, step, &left, e));
    t->f = fopen(t->path, left ? "ae" : "we");
    if (!t->f)
        st = dm_fail_errno(e, "%s: cannot write", t->path);
    else if (!left)
        st = begin(t, wall, e);
done:
    if (st)
        dm_tb_close(t);
    else
        *out = t;
    return st;
}

void dm_tb_close(struct dm_tb *t)
{
    if (!t)
        return;
    if (t->f)
        fclose(t->f);
    free(t->path);
    free(t);
}

void dm_tb_scalar(struct dm_tb *t, const char *tag, double x)
{
    uint8_t value[128];
    const size_t len = strlen(tag);
    if (!isfinite(x) || len > 96 || MOST - t->n < sizeof(value) + 8)
        return;
    size_t n = put_bytes(value, 1, tag, len);
    n += put_float(value + n, 2, (float)x);
    t->n += put_bytes(t->summary + t->n, 1, value, n);
}

enum dm_status dm_tb_event(struct dm_tb *t, size_t step, double wall, struct dm_err *e)
{
    uint8_t event[MOST + 64];
    size_t n = put_double(event, 1, wall);
    n += put_varint(event + n, 2 << 3);
    n += put_varint(event + n, step);
    n += put_bytes(event + n, 5, t->summary, t->n);
    t->n = 0;
    return write_record(t, event, n, e);
}
