/* SPDX-License-Identifier: MIT */
#include "src/io/torch_zip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"

/* Sizes of the records and their signatures (PKWARE APPNOTE 4.3). */
enum { LOCAL = 30, CENTRAL = 46, END = 22, LOCATOR = 20, END64 = 56, COMMENT_MAX = 65535 };
static const uint32_t sig_local = 0x04034b50, sig_central = 0x02014b50, sig_end = 0x06054b50,
                      sig_locator = 0x07064b50, sig_end64 = 0x06064b50;
enum { FLAG_ENCRYPTED = 1, ZIP64_EXTRA = 1 };

/* Where the central directory lies. */
struct directory {
    uint64_t at, bytes, n;
};

static uint64_t le(const uint8_t *p, int bytes)
{
    uint64_t x = 0;
    while (bytes--)
        x = x << 8 | p[bytes];
    return x;
}

/* The end record: the last one whose comment reaches exactly to the end of the file. */
static const uint8_t *find_end(const struct dm_map *m)
{
    for (size_t back = END; back <= m->n && back <= END + COMMENT_MAX; back++) {
        const uint8_t *p = m->data + m->n - back;
        if (le(p, 4) == sig_end && le(p + 20, 2) == back - END)
            return p;
    }
    return NULL;
}

static enum dm_status read_end64(struct directory *d, const struct dm_map *m, const uint8_t *end,
                                 const char *path, struct dm_err *e)
{
    const size_t at = (size_t)(end - m->data);
    const uint8_t *locator = end - LOCATOR;
    if (at < LOCATOR + END64 || le(locator, 4) != sig_locator)
        return dm_fail(e, DM_EFORMAT, "%s: zip64 end record is missing", path);
    const uint64_t where = le(locator + 8, 8);
    if (where > at - LOCATOR - END64 || le(m->data + where, 4) != sig_end64)
        return dm_fail(e, DM_EFORMAT, "%s: zip64 end record is not where it should be", path);
    const uint8_t *p = m->data + where;
    if (le(p + 16, 4) || le(p + 20, 4) || le(p + 24, 8) != le(p + 32, 8))
        return dm_fail(e, DM_EUNSUPPORTED, "%s: a zip in several volumes", path);
    *d = (struct directory){.at = le(p + 48, 8), .bytes = le(p + 40, 8), .n = le(p + 32, 8)};
    return DM_OK;
}

static enum dm_status read_end(struct directory *d, const struct dm_map *m, const char *path,
                               struct dm_err *e)
{
    const uint8_t *end = find_end(m);
    if (!end)
        return dm_fail(e, DM_EFORMAT, "%s: no zip directory at its end: truncated, or no zip",
                       path);
    *d = (struct directory){.at = le(end + 16, 4), .bytes = le(end + 12, 4), .n = le(end + 10, 2)};
    if (d->at == UINT32_MAX || d->bytes == UINT32_MAX || d->n == UINT16_MAX)
        DM_TRY(read_end64(d, m, end, path, e));
    else if (le(end + 4, 2) || le(end + 6, 2) || le(end + 8, 2) != d->n)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: a zip in several volumes", path);
    const size_t limit = (size_t)(end - m->data);
    if (d->bytes > limit || d->at > limit - d->bytes)
        return dm_fail(e, DM_EFORMAT, "%s: the zip directory lies outside of the file", path);
    if (d->n > d->bytes / CENTRAL)
        return dm_fail(e, DM_EFORMAT, "%s: %llu zip entries in a directory of %llu bytes", path,
                       (unsigned long long)d->n, (unsigned long long)d->bytes);
    return DM_OK;
}

/* Replaces what is saturated in the record by the extra field's 64 bits. */
static bool read_zip64(const uint8_t *extra, size_t n, uint64_t *const *value)
{
    while (n >= 4) {
        const size_t tag = le(extra, 2), size = le(extra + 2, 2);
        if (size > n - 4)
            return false;
        size_t at = 4;
        for (size_t i = 0; tag == ZIP64_EXTRA && value[i]; i++) {
            if (*value[i] != UINT32_MAX)
                continue;
            if (at + 8 > size + 4)
                return false;
            *value[i] = le(extra + at, 8);
            at += 8;
        }
        extra += 4 + size;
        n -= 4 + size;
    }
    return true;
}

/* Where the data begin: only the local header knows how long it is itself. */
static enum dm_status find_data(struct dm_zip_entry *z, const struct dm_map *m, uint64_t local,
                                uint64_t bytes, uint64_t limit, const char *path, struct dm_err *e)
{
    const int len = (int)z->n_name;
    if (local > limit || limit - local < LOCAL || le(m->data + local, 4) != sig_local)
        return dm_fail(e, DM_EFORMAT, "%s: entry %.*s has no local header where it should be", path,
                       len, z->name);
    const uint8_t *p = m->data + local;
    const uint64_t n_name = le(p + 26, 2), begin = local + LOCAL + n_name + le(p + 28, 2);
    if (begin > limit || bytes > limit - begin)
        return dm_fail(e, DM_EFORMAT, "%s: entry %.*s of %llu bytes reaches beyond the file's data",
                       path, len, z->name, (unsigned long long)bytes);
    if (n_name != z->n_name || memcmp(p + LOCAL, z->name, z->n_name))
        return dm_fail(e, DM_EFORMAT, "%s: entry %.*s has another name in its local header", path,
                       len, z->name);
    z->data = m->data + begin;
    z->n = bytes;
    return DM_OK;
}

/* One record of the central directory; *at moves behind it. */
static enum dm_status read_entry(struct dm_zip_entry *z, const struct dm_map *m,
                                 const struct directory *d, uint64_t *at, const char *path,
                                 struct dm_err *e)
{
    const uint64_t left = d->at + d->bytes - *at;
    const uint8_t *p = m->data + *at;
    if (left < CENTRAL || le(p, 4) != sig_central)
        return dm_fail(e, DM_EFORMAT, "%s: the zip directory is damaged", path);
    const size_t n_name = le(p + 28, 2), n_extra = le(p + 30, 2), n_comment = le(p + 32, 2);
    if (n_name + n_extra + n_comment > left - CENTRAL)
        return dm_fail(e, DM_EFORMAT, "%s: the zip directory is damaged", path);
    z->name = (const char *)p + CENTRAL;
    z->n_name = n_name;
    *at += CENTRAL + n_name + n_extra + n_comment;
    for (size_t i = 0; i < n_name; i++)
        if (z->name[i] < ' ' || z->name[i] > '~')
            return dm_fail(e, DM_EFORMAT, "%s: a zip entry's name has the byte 0x%02x", path,
                           (unsigned char)z->name[i]);
    uint64_t full = le(p + 24, 4), packed = le(p + 20, 4), local = le(p + 42, 4);
    uint64_t *const value[] = {&full, &packed, &local, NULL};
    if (!read_zip64(p + CENTRAL + n_name, n_extra, value))
        return dm_fail(e, DM_EFORMAT, "%s: entry %.*s has a damaged extra field", path, (int)n_name,
                       z->name);
    if (le(p + 8, 2) & FLAG_ENCRYPTED)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: entry %.*s is encrypted", path, (int)n_name,
                       z->name);
    if (le(p + 10, 2) || full != packed)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "%s: entry %.*s is compressed (method %u), torch.save() stores it", path,
                       (int)n_name, z->name, (unsigned)le(p + 10, 2));
    return find_data(z, m, local, full, d->at, path, e);
}

static int compare(const char *a, size_t n_a, const char *b, size_t n_b)
{
    const int order = memcmp(a, b, n_a < n_b ? n_a : n_b);
    return order ? order : (n_a > n_b) - (n_a < n_b);
}

static int by_name(const void *a, const void *b)
{
    const struct dm_zip_entry *x = a, *y = b;
    return compare(x->name, x->n_name, y->name, y->n_name);
}

static enum dm_status read_entries(struct dm_zip *z, const struct dm_map *m,
                                   const struct directory *d, const char *path, struct dm_err *e)
{
    uint64_t at = d->at;
    for (; z->n < d->n; z->n++)
        DM_TRY(read_entry(z->entry + z->n, m, d, &at, path, e));
    qsort(z->entry, z->n, sizeof(*z->entry), by_name);
    for (size_t i = 1; i < z->n; i++)
        if (!by_name(z->entry + i - 1, z->entry + i))
            return dm_fail(e, DM_EFORMAT, "%s: entry %.*s is there twice", path,
                           (int)z->entry[i].n_name, z->entry[i].name);
    return DM_OK;
}

enum dm_status dm_zip_read(struct dm_zip *z, const struct dm_map *m, const char *path,
                           struct dm_err *e)
{
    struct directory d = {0};
    *z = (struct dm_zip){0};
    DM_TRY(read_end(&d, m, path, e));
    z->entry = dm_alloc(d.n, sizeof(*z->entry));
    if (!z->entry)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %llu zip entries", path,
                       (unsigned long long)d.n);
    const enum dm_status st = read_entries(z, m, &d, path, e);
    if (st)
        dm_zip_release(z);
    return st;
}

void dm_zip_release(struct dm_zip *z)
{
    free(z->entry);
    *z = (struct dm_zip){0};
}

const struct dm_zip_entry *dm_zip_find(const struct dm_zip *z, const char *name, size_t n_name)
{
    size_t low = 0, high = z->n;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const int order = compare(name, n_name, z->entry[mid].name, z->entry[mid].n_name);
        if (!order)
            return z->entry + mid;
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}
