/* SPDX-License-Identifier: MIT */
#include "train/split.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/base/rng.h"

#define KEY 0x64796e616d6f2031u /* any constant: the choice is the same for every seed */
enum { SCAN = 1 << 18 };        /* tokens looked at at once: a chunk of a shard */

/* A Feistel network on the next even number of bits, walked until it lands inside. Fewer than 4
 * rounds on average, since the domain is less than 4 n. */
uint64_t dm_permute(uint64_t i, uint64_t n, uint64_t key)
{
    unsigned half = 1;
    while (half < 32 && ((uint64_t)1 << (2 * half)) < n)
        half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    assert(i < n);
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            const uint64_t next = left ^ (dm_mix64(key ^ dm_mix64(right + (round << 40))) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

void dm_pieces_release(struct dm_pieces *s)
{
    free(s->piece);
    *s = (struct dm_pieces){0};
}

static enum dm_status append(struct dm_pieces *s, size_t begin, size_t n, struct dm_err *e)
{
    if (!(s->n & (s->n - 1))) { // a power of two: full
        struct dm_piece *more = dm_realloc(s->piece, s->n ? 2 * s->n : 1, sizeof(*more));
        if (!more)
            return dm_fail(e, DM_ENOMEM, "out of memory for %zu pieces of a shard", s->n);
        s->piece = more;
    }
    s->piece[s->n++] = (struct dm_piece){begin, s->tokens};
    s->tokens += n;
    return DM_OK;
}

enum dm_status dm_pieces_whole(struct dm_pieces *s, size_t tokens, struct dm_err *e)
{
    *s = (struct dm_pieces){0};
    return append(s, 0, tokens, e);
}

/* Ends of the documents. */
struct docs {
    size_t *end, n, cap;
};

static enum dm_status push_end(struct docs *d, size_t end, struct dm_err *e)
{
    if (d->n == d->cap) {
        const size_t cap = d->cap ? 2 * d->cap : 1024;
        size_t *more = dm_realloc(d->end, cap, sizeof(*more));
        if (!more)
            return dm_fail(e, DM_ENOMEM, "out of memory for %zu documents", cap);
        d->end = more;
        d->cap = cap;
    }
    d->end[d->n++] = end;
    return DM_OK;
}

static enum dm_status find_documents(struct docs *d, size_t tokens, int32_t separator,
                                     dm_split_read *read, void *ctx, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    int32_t *ids = dm_alloc(SCAN, sizeof(*ids));
    if (!ids)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    for (size_t at = 0; at < tokens; at += SCAN) {
        const size_t n = tokens - at < SCAN ? tokens - at : SCAN;
        DM_TRY_GOTO(read(ctx, ids, at, n, e));
        for (size_t i = 0; i < n; i++)
            if (ids[i] == separator || ids[i] == ~separator) // ~: no target
                DM_TRY_GOTO(push_end(d, at + i + 1, e));
    }
    if (tokens && (!d->n || d->end[d->n - 1] < tokens))
        st = push_end(d, tokens, e);
done:
    free(ids);
    return st;
}

static size_t doc_begin(const struct docs *d, size_t i)
{
    return i ? d->end[i - 1] : 0;
}

static void hold_out(bool *held, const struct docs *d, size_t tokens, double share)
{
    size_t taken = 0;
    for (size_t i = 0; i < d->n && (double)taken < share * (double)tokens; i++) {
        const size_t doc = (size_t)dm_permute(i, d->n, KEY), n = d->end[doc] - doc_begin(d, doc);
        held[doc] = n <= tokens / 5;
        taken += held[doc] ? n : 0;
    }
}

/* The end of a shard whose documents are too long to be held out. */
static enum dm_status cut_end(struct dm_pieces *train, struct dm_pieces *val, size_t tokens,
                              size_t held, struct dm_err *e)
{
    dm_pieces_release(train);
    dm_pieces_release(val);
    DM_TRY(append(train, 0, tokens - held, e));
    return append(val, tokens - held, held, e);
}

enum dm_status dm_split(struct dm_pieces *train, struct dm_pieces *val, size_t tokens,
                        int32_t separator, double share, size_t least, dm_split_read *read,
                        void *ctx, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    struct docs d = {0};
    bool *held = NULL;
    *train = *val = (struct dm_pieces){0};
    DM_TRY_GOTO(find_documents(&d, tokens, separator, read, ctx, e));
    held = dm_alloc(d.n, sizeof(*held));
    if (!held) {
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu documents", d.n);
        goto done;
    }
    hold_out(held, &d, tokens, share);
    for (size_t i = 0, j; i < d.n; i = j) { // neighbours that go the same way are one piece
        for (j = i + 1; j < d.n && held[j] == held[i];)
            j++;
        const size_t begin = doc_begin(&d, i);
        DM_TRY_GOTO(append(held[i] ? val : train, begin, d.end[j - 1] - begin, e));
    }
    const size_t part = (size_t)(share * (double)tokens), end = part < least ? least : part;
    if (val->tokens < least && end < tokens && tokens - end >= least)
        st = cut_end(train, val, tokens, end, e);
done:
    free(held);
    free(d.end);
    return st;
}

enum dm_status dm_pieces_read(const struct dm_pieces *s, int32_t *ids, size_t start, size_t n,
                              dm_split_read *read, void *ctx, struct dm_err *e)
{
    size_t lo = 0, hi = s->n;
    assert(start + n <= s->tokens);
    while (hi - lo > 1) { // the last piece that begins at or before start
        const size_t mid = lo + (hi - lo) / 2;
        if (s->piece[mid].at <= start)
            lo = mid;
        else
            hi = mid;
    }
    while (n) {
        const struct dm_piece *p = &s->piece[lo];
        const size_t end = lo + 1 < s->n ? s->piece[lo + 1].at : s->tokens, left = end - start;
        const size_t k = left < n ? left : n;
        DM_TRY(read(ctx, ids, p->begin + (start - p->at), k, e));
        ids += k;
        start += k;
        n -= k;
        lo++;
    }
    return DM_OK;
}
