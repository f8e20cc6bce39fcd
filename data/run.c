/* SPDX-License-Identifier: MIT */
/* Packing and reading have no branch on the length of a difference: eight bytes are moved, and the
 * ones too many are overwritten or masked. */
#include "data/run.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT_MAX 30u /* larger ones follow in 4 bytes */

static uint8_t *put(uint8_t *p, uint64_t delta, uint32_t count)
{
    const unsigned len = delta ? (71u - (unsigned)__builtin_clzll(delta)) / 8u : 1u;
    const uint8_t small = (uint8_t)(count <= COUNT_MAX ? count : COUNT_MAX + 1);
    *p = (uint8_t)(small << 3 | (len - 1));
    memcpy(p + 1, &delta, sizeof(delta));
    p += 1 + len;
    if (small > COUNT_MAX) {
        memcpy(p, &count, sizeof(count));
        p += sizeof(count);
    }
    return p;
}

/* Notes where block number i / DM_RUN_BLOCK begins, when entry i does; the key that the difference
 * of entry i is taken from comes back. */
static uint64_t base_of(size_t i, uint64_t key, uint64_t last, uint64_t *first, uint64_t *at,
                        size_t offset)
{
    if (i % DM_RUN_BLOCK)
        return last;
    first[i / DM_RUN_BLOCK] = key;
    at[i / DM_RUN_BLOCK] = offset;
    return key;
}

size_t dm_run_pack(uint8_t *out, uint64_t *first, uint64_t *at, const struct dm_counts *c)
{
    uint8_t *p = out;
    uint64_t last = 0;
    for (size_t i = 0; i < c->n; i++) {
        const uint64_t base = base_of(i, c->key[i], last, first, at, (size_t)(p - out));
        p = put(p, c->key[i] - base, c->count[i]);
        last = c->key[i];
    }
    at[(c->n + DM_RUN_BLOCK - 1) / DM_RUN_BLOCK] = (size_t)(p - out);
    return (size_t)(p - out);
}

size_t dm_run_pack_keys(uint8_t *out, uint64_t *first, uint64_t *at, const uint64_t *key, size_t n,
                        size_t *distinct)
{
    uint8_t *p = out;
    uint64_t last = 0;
    size_t d = 0;
    for (size_t i = 0, next; i < n; i = next, d++) {
        for (next = i + 1; next < n && key[next] == key[i];)
            next++;
        const uint64_t base = base_of(d, key[i], last, first, at, (size_t)(p - out));
        p = put(p, key[i] - base, (uint32_t)(next - i));
        last = key[i];
    }
    at[(d + DM_RUN_BLOCK - 1) / DM_RUN_BLOCK] = (size_t)(p - out);
    *distinct = d;
    return (size_t)(p - out);
}

/* First i with first[i] >= key. */
static size_t lower_bound(const uint64_t *first, size_t n, uint64_t key)
{
    size_t lo = 0;
    while (n) {
        const size_t half = n / 2;
        if (first[lo + half] < key) {
            lo += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return lo;
}

void dm_run_blocks(const struct dm_run *r, uint64_t lo, uint64_t hi, size_t *begin, size_t *end)
{
    size_t b = lower_bound(r->first, r->blocks, lo);
    if (b && (b == r->blocks || r->first[b] > lo))
        b--; // keys from lo on may be in the block before
    *begin = b;
    *end = hi ? lower_bound(r->first, r->blocks, hi) : r->blocks;
    if (*end < b)
        *end = b;
}

static enum dm_status read_at(int fd, uint8_t *buf, size_t n, size_t at, struct dm_err *e)
{
    for (size_t done = 0; done < n;) {
        const ssize_t k = pread(fd, buf + done, n - done, (off_t)(at + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return dm_fail_errno(e, "cannot read a temporary file of counts");
        if (!k)
            return dm_fail(e, DM_EIO, "a temporary file of counts is shorter than it was");
        done += (size_t)k;
    }
    return DM_OK;
}

/* Appends what of the block p[0..end) lies in [lo, last] to c. */
static void unpack(const uint8_t *p, const uint8_t *end, uint64_t key, uint64_t lo, uint64_t last,
                   struct dm_counts *c)
{
    uint64_t *out = c->key + c->n;
    uint32_t *count = c->count + c->n;
    size_t m = 0;
    while (p < end) {
        uint64_t delta;
        const unsigned head = *p, len = (head & 7) + 1;
        memcpy(&delta, p + 1, sizeof(delta));
        key += delta & UINT64_MAX >> (64 - 8 * len);
        p += 1 + len;
        uint32_t k = head >> 3;
        if (k > COUNT_MAX) {
            memcpy(&k, p, sizeof(k));
            p += sizeof(k);
        }
        out[m] = key;
        count[m] = k;
        m += key >= lo && key <= last;
    }
    c->n += m;
}

enum dm_status dm_run_read(const struct dm_run *r, uint64_t lo, uint64_t hi, struct dm_counts *c,
                           uint8_t *scratch, size_t n_scratch, struct dm_err *e)
{
    size_t b, end;
    const uint64_t last = hi - 1; // 0 - 1: everything
    dm_run_blocks(r, lo, hi, &b, &end);
    while (b < end) {
        size_t stop = end;
        const uint8_t *data = r->fd < 0 ? r->data + r->at[b] : scratch;
        if (r->fd >= 0) { // as many blocks as scratch holds
            while (stop > b + 1 && r->at[stop] - r->at[b] + DM_RUN_PAD > n_scratch)
                stop = b + (stop - b) / 2;
            assert(r->at[stop] - r->at[b] + DM_RUN_PAD <= n_scratch);
            DM_TRY(read_at(r->fd, scratch, r->at[stop] - r->at[b], r->at[b], e));
        }
        for (const size_t begin = b; b < stop; b++)
            unpack(data + (r->at[b] - r->at[begin]), data + (r->at[b + 1] - r->at[begin]),
                   r->first[b], lo, last, c);
    }
    return DM_OK;
}

void dm_run_release(struct dm_run *r)
{
    if (r->fd >= 0)
        close(r->fd);
    free(r->data);
    free(r->first);
    free(r->at);
    *r = (struct dm_run){.fd = -1};
}

size_t dm_run_held(const struct dm_run *r)
{
    return (r->data ? r->bytes + DM_RUN_PAD : 0) + (2 * r->blocks + 1) * sizeof(uint64_t);
}
