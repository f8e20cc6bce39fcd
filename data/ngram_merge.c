/* SPDX-License-Identifier: MIT */
/* The first keys of all runs' blocks, sorted, cut the key space into ranges of about equal work.
 * Threads merge a range each in their areas: what the runs hold of it is unpacked side by side and
 * merged in pairs, without branches on the data. Then the results are taken in order. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "data/ngram_impl.h"
#include "data/radix.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/par.h"
#include "src/base/stop.h"

#define ENTRY (sizeof(uint64_t) + sizeof(uint32_t))
#define RANGE_MIN 32u /* blocks of a range, but for the areas */
#define SCRATCH ((size_t)64 << 10)

/* Besides ENTRY bytes each, what packed entries may need: differences of 8 bytes, which make an
 * entry longer than that, are at least 2^56, so there are at most 256 of them. */
#define SLACK ((size_t)512)

/* Blocks that fit half an area; the other half is what they are merged or packed to. */
static size_t room_blocks(const struct dm_ngram *g)
{
    return (dm_ngram_area(g, 0).size - SCRATCH - 2 * SLACK) / (2 * ENTRY * DM_RUN_BLOCK);
}

/* A range of q blocks touches at most two blocks more of each run. */
size_t dm_ngram_fan(const struct dm_ngram *g)
{
    const size_t fan = (room_blocks(g) - 2) / 3;
    return fan < 6 ? 6 : fan;
}

/* ---- Files --------------------------------------------------------------------------------- */

enum dm_status dm_ngram_open_file(const struct dm_ngram *g, int *fd, struct dm_err *e)
{
    char *name = dm_file_tmp_name(g->beside);
    if (!name)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", g->beside);
    *fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (*fd < 0)
        dm_fail_errno(e, "%s: cannot write", name);
    else
        unlink(name); // so it is gone however the program ends
    free(name);
    return *fd < 0 ? DM_EIO : DM_OK;
}

enum dm_status dm_ngram_write_file(struct dm_ngram *g, int fd, const uint8_t *data, size_t n,
                                   size_t at, struct dm_err *e)
{
    struct statvfs fs;
    if (!fstatvfs(fd, &fs) && (uint64_t)fs.f_bavail * fs.f_frsize < n)
        return dm_fail(e, DM_EIO, "%s: %zu bytes of counts to keep beside it, but %llu are free",
                       g->beside, n, (unsigned long long)fs.f_bavail * fs.f_frsize);
    for (size_t done = 0; done < n;) {
        const ssize_t k = pwrite(fd, data + done, n - done, (off_t)(at + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return dm_fail_errno(e, "%s: cannot keep counts beside it", g->beside);
        done += (size_t)k;
    }
    g->spilled += n;
    return DM_OK;
}

/* ---- Ranges -------------------------------------------------------------------------------- */

/* Bounds b of ranges: range i has the keys of [b[i], b[i+1]), the last one all from b[n-1] on. */
struct ranges {
    uint64_t *bound;
    size_t n, held;
};

static enum dm_status cut(struct dm_ngram *g, size_t begin, struct ranges *r, struct dm_err *e)
{
    const size_t runs = g->n_runs - begin, most = room_blocks(g) - 2 * runs - 1;
    const size_t want = 4 * runs > RANGE_MIN ? 4 * runs : RANGE_MIN, q = want < most ? want : most;
    size_t n = 0, kept = 1;
    assert(room_blocks(g) > 2 * runs + 1);
    for (size_t i = begin; i < g->n_runs; i++)
        n += g->run[i].blocks;
    *r = (struct ranges){.held = 2 * n * sizeof(*r->bound)};
    DM_TRY(dm_ngram_hold(g, r->held, e));
    uint64_t *all = dm_alloc(n + 1, sizeof(*all)), *tmp = dm_alloc(n + 1, sizeof(*tmp));
    if (!all || !tmp) {
        free(all);
        free(tmp);
        dm_ngram_unhold(g, r->held);
        return dm_fail(e, DM_ENOMEM, "no memory for %zu ranges of counts", n / q + 1);
    }
    n = 0;
    for (size_t i = begin; i < g->n_runs; n += g->run[i++].blocks)
        memcpy(all + n, g->run[i].first, g->run[i].blocks * sizeof(*all));
    dm_radix_sort(all, tmp, n, 64);
    all[0] = 0;
    for (size_t i = q; i < n; i += q)
        if (all[i] > all[kept - 1])
            all[kept++] = all[i];
    free(tmp);
    r->bound = all;
    r->n = n ? kept : 0;
    return DM_OK;
}

static void cut_release(struct dm_ngram *g, struct ranges *r)
{
    free(r->bound);
    dm_ngram_unhold(g, r->held);
}

/* ---- Merging ------------------------------------------------------------------------------- */

/* One thread's range: entries, or the same packed to `bytes`. */
struct piece {
    struct dm_counts out;
    const uint8_t *packed;
    size_t bytes;
    bool overflow;
    enum dm_status st;
    struct dm_err e;
};

struct merge {
    struct dm_ngram *g;
    size_t begin; /* runs from here */
    const struct ranges *ranges;
    size_t first; /* range of thread 0 */
    bool pack;
    struct piece *piece; /* (threads) */
    size_t *seg;         /* (threads, runs + 1) */
};

/* Without branches on the data, which would be mispredicted every other time. Returns entries. */
static size_t merge_two(struct dm_counts out, struct dm_counts a, struct dm_counts b,
                        uint64_t *over)
{
    size_t i = 0, j = 0, n = 0;
    while (i < a.n && j < b.n) {
        const uint64_t ka = a.key[i], kb = b.key[j];
        const bool use_a = ka <= kb, use_b = kb <= ka;
        const uint64_t c = (a.count[i] & -(uint64_t)use_a) + (b.count[j] & -(uint64_t)use_b);
        out.key[n] = use_a ? ka : kb;
        out.count[n++] = (uint32_t)c;
        *over |= c >> 32;
        i += use_a;
        j += use_b;
    }
    const struct dm_counts *rest = i < a.n ? &a : &b;
    const size_t from = i < a.n ? i : j, left = rest->n - from;
    memcpy(out.key + n, rest->key + from, left * sizeof(*out.key));
    memcpy(out.count + n, rest->count + from, left * sizeof(*out.count));
    return n + left;
}

static struct dm_counts at(const struct dm_counts *c, size_t begin, size_t end)
{
    return (struct dm_counts){c->key + begin, c->count + begin, end - begin};
}

/* Merges the n segments of *from, which end at seg[1..n], until one is left. It and the other
 * buffer change places: the result is *from. */
static void merge_all(struct dm_counts *from, struct dm_counts *to, size_t *seg, size_t n,
                      uint64_t *over)
{
    while (n > 1) {
        size_t m = 0, total = 0;
        for (size_t i = 0; i < n; i += 2) {
            const struct dm_counts out = at(to, total, total);
            const struct dm_counts a = at(from, seg[i], seg[i + 1]);
            const size_t end = seg[i + 1 < n ? i + 2 : i + 1];
            total += merge_two(out, a, at(from, seg[i + 1], end), over);
            seg[++m] = total; // at most where segment i + 1 ended, which has been read
        }
        const struct dm_counts merged = *to;
        *to = *from;
        *from = merged;
        n = m;
    }
    from->n = n ? seg[1] : 0;
}

static struct dm_counts half(const struct dm_ngram *g, const struct dm_area *a, size_t i)
{
    const size_t room = room_blocks(g) * DM_RUN_BLOCK;
    uint64_t *key = (uint64_t *)(void *)(a->bytes + SCRATCH + i * (room * ENTRY + SLACK));
    return (struct dm_counts){key, (uint32_t *)(void *)(key + room), 0};
}

static void merge_range(const struct merge *m, size_t t)
{
    struct dm_ngram *g = m->g;
    const struct dm_area a = dm_ngram_area(g, t);
    const struct ranges *r = m->ranges;
    const size_t range = m->first + t;
    const uint64_t lo = r->bound[range], hi = range + 1 < r->n ? r->bound[range + 1] : 0;
    struct dm_counts from = half(g, &a, 0), to = half(g, &a, 1);
    struct piece *p = &m->piece[t];
    size_t *seg = m->seg + t * (g->n_runs - m->begin + 1), n = 0;
    uint64_t over = 0;
    *p = (struct piece){0};
    seg[0] = 0;
    for (size_t i = m->begin; i < g->n_runs && !p->st; i++) {
        p->st = dm_run_read(&g->run[i], lo, hi, &from, a.bytes, SCRATCH, &p->e);
        if (from.n > seg[n])
            seg[++n] = from.n;
    }
    assert(from.n <= room_blocks(g) * DM_RUN_BLOCK);
    merge_all(&from, &to, seg, n, &over);
    p->overflow = over != 0;
    p->out = from;
    p->packed = (const uint8_t *)to.key;
    if (m->pack)
        p->bytes = dm_run_pack((uint8_t *)to.key, a.first, a.at, &from);
}

static void merge_ranges(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    for (size_t t = begin; t < end; t++)
        merge_range(ctx, t);
}

/* Takes thread t's piece, in order. */
typedef enum dm_status take_fn(void *ctx, const struct dm_ngram *g, size_t t, const struct piece *p,
                               struct dm_err *e);

static enum dm_status merge_groups(struct merge *m, take_fn *take, void *ctx, struct dm_err *e)
{
    struct dm_ngram *g = m->g;
    for (m->first = 0; m->first < m->ranges->n; m->first += g->threads) {
        const size_t left = m->ranges->n - m->first, n = left < g->threads ? left : g->threads;
        if (dm_stop_requested())
            return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
        dm_par_for(n, 1, merge_ranges, m);
        if (g->progress && !m->pack)
            dm_progress_set(g->progress, 100.0 * (double)(m->first + n) / (double)m->ranges->n,
                            NULL);
        for (size_t t = 0; t < n; t++) {
            const struct piece *p = &m->piece[t];
            if (p->st)
                return dm_fail(e, p->st, "%s", p->e.msg);
            if (p->overflow)
                return dm_fail(e, DM_ERANGE, "an n-gram occurs more than %lu times",
                               (unsigned long)UINT32_MAX);
            if (p->out.n)
                DM_TRY(take(ctx, g, t, p, e));
        }
    }
    return DM_OK;
}

static enum dm_status merge(struct dm_ngram *g, size_t begin, bool pack, take_fn *take, void *ctx,
                            struct dm_err *e)
{
    struct ranges r;
    struct merge m = {.g = g, .begin = begin, .ranges = &r, .pack = pack};
    DM_TRY(cut(g, begin, &r, e));
    m.piece = dm_alloc(g->threads, sizeof(*m.piece));
    m.seg = dm_alloc(g->threads * (g->n_runs - begin + 1), sizeof(*m.seg));
    const enum dm_status st = m.piece && m.seg
                                  ? merge_groups(&m, take, ctx, e)
                                  : dm_fail(e, DM_ENOMEM, "no memory to merge %zu runs", g->n_runs);
    free(m.piece);
    free(m.seg);
    cut_release(g, &r);
    return st;
}

struct scan {
    dm_ngram_sink *sink;
    void *ctx;
};

static enum dm_status pass_on(void *ctx, const struct dm_ngram *g, size_t t, const struct piece *p,
                              struct dm_err *e)
{
    const struct scan *s = ctx;
    (void)g;
    (void)t;
    return s->sink(s->ctx, &p->out, e);
}

enum dm_status dm_ngram_scan(struct dm_ngram *g, dm_ngram_sink *sink, void *ctx, struct dm_err *e)
{
    struct scan s = {sink, ctx};
    return merge(g, 0, false, pass_on, &s, e);
}

void dm_ngram_show(struct dm_ngram *g, struct dm_progress *p)
{
    g->progress = p;
}

/* ---- Spilling ------------------------------------------------------------------------------ */

struct spill {
    struct dm_ngram *g;
    struct dm_run run;
    size_t room, held; /* blocks of the index, bytes held for it */
};

static enum dm_status grow_index(struct spill *s, size_t blocks, struct dm_err *e)
{
    if (blocks <= s->room)
        return DM_OK;
    const size_t room = blocks + blocks / 2 + 64, bytes = (2 * room + 1) * sizeof(uint64_t);
    DM_TRY(dm_ngram_hold(s->g, bytes - s->held, e));
    s->held = bytes;
    uint64_t *first = dm_realloc(s->run.first, room, sizeof(*first));
    if (first)
        s->run.first = first;
    uint64_t *offset = dm_realloc(s->run.at, room + 1, sizeof(*offset));
    if (offset)
        s->run.at = offset;
    if (!first || !offset)
        return dm_fail(e, DM_ENOMEM, "no memory for an index of %zu blocks", room);
    s->room = room;
    return DM_OK;
}

static enum dm_status write_piece(void *ctx, const struct dm_ngram *g, size_t t,
                                  const struct piece *p, struct dm_err *e)
{
    struct spill *s = ctx;
    struct dm_run *r = &s->run;
    const struct dm_area a = dm_ngram_area(g, t);
    const size_t blocks = (p->out.n + DM_RUN_BLOCK - 1) / DM_RUN_BLOCK;
    DM_TRY(grow_index(s, r->blocks + blocks, e));
    for (size_t b = 0; b < blocks; b++) {
        r->first[r->blocks + b] = a.first[b];
        r->at[r->blocks + b] = r->bytes + a.at[b];
    }
    DM_TRY(dm_ngram_write_file(s->g, r->fd, p->packed, p->bytes, r->bytes, e));
    r->blocks += blocks;
    r->bytes += p->bytes;
    r->at[r->blocks] = r->bytes;
    r->n += p->out.n;
    return DM_OK;
}

enum dm_status dm_ngram_spill(struct dm_ngram *g, size_t begin, struct dm_err *e)
{
    struct spill s = {.g = g, .run = {.fd = -1}};
    if (g->n_runs - begin < 1)
        return DM_OK;
    enum dm_status st = dm_ngram_open_file(g, &s.run.fd, e);
    if (!st)
        st = merge(g, begin, true, write_piece, &s, e);
    if (st) {
        dm_run_release(&s.run);
        dm_ngram_unhold(g, s.held);
        return st;
    }
    for (size_t i = begin; i < g->n_runs; i++) {
        dm_ngram_unhold(g, dm_run_held(&g->run[i]));
        dm_run_release(&g->run[i]);
    }
    dm_ngram_unhold(g, s.held - dm_run_held(&s.run));
    g->run[begin] = s.run;
    g->n_runs = g->n_files = begin + 1;
    return DM_OK;
}
