/* SPDX-License-Identifier: MIT */
/* The first keys of all runs' blocks, sorted, cut the key space into ranges of about equal work.
 * Threads merge a range at a time in areas of their own: what the runs hold of it is unpacked side
 * by side and merged in pairs, without branches on the data. A segment is one range or, where that
 * would cut the keys that share their first two ids, several ones after each other. */
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
#include "src/base/pipe.h"
#include "src/base/stop.h"

#define ENTRY (sizeof(uint64_t) + sizeof(uint32_t))
#define RANGE_MIN 32u /* blocks of a range, but for the areas */
#define SCRATCH ((size_t)64 << 10)

/* Besides ENTRY bytes each, what packed entries may need: differences of 8 bytes, which make an
 * entry longer than that, are at least 2^56, so there are at most 256 of them. */
#define SLACK ((size_t)512)

/* Blocks that fit half of one of `of` areas; the other half is what they are merged or packed to.
 */
static size_t room_blocks(const struct dm_ngram *g, size_t of)
{
    const size_t size = dm_ngram_area(g, 0, of).size, used = SCRATCH + 2 * SLACK;
    return size > used ? (size - used) / (2 * ENTRY * DM_RUN_BLOCK) : 0;
}

/* A range of q blocks touches at most two blocks more of each run. */
size_t dm_ngram_fan(const struct dm_ngram *g)
{
    const size_t fan = (room_blocks(g, g->threads) - 2) / 3;
    return fan < 6 ? 6 : fan;
}

/* With more areas than threads none of them waits for its turn. */
size_t dm_ngram_slots(const struct dm_ngram *g)
{
    return g->threads > 1 ? 2 * g->threads : 1;
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
    pthread_mutex_lock(&g->lock);
    g->spilled += n;
    pthread_mutex_unlock(&g->lock);
    return DM_OK;
}

/* ---- Ranges -------------------------------------------------------------------------------- */

/* What is done with a segment that is merged: `each` on any thread with every range of it, `last`
 * with the last one, then `give`, one segment at a time and in order. */
struct piece {
    struct dm_counts out;
    uint8_t *pack; /* room to pack it into */
    struct dm_area area;
};
struct user {
    void *ctx;
    bool whole_pairs, one_thread;
    size_t key_bytes;
    enum dm_status (*each)(void *ctx, size_t slot, const struct piece *p, bool last,
                           struct dm_err *e);
    enum dm_status (*give)(void *ctx, size_t slot, const struct piece *p, struct dm_err *e);
};

/* One thing that is merged at a time. */
struct slot {
    struct piece piece;
    size_t range, end; /* of the segment */
    size_t *seg;       /* (runs + 1) */
};

struct merge {
    struct dm_ngram *g;
    size_t begin; /* runs from here */
    const struct user *user;
    uint64_t *bound; /* (ranges) range i has the keys of [bound[i], bound[i+1]), the last one all */
    size_t ranges, next;
    size_t blocks; /* of a range, at most, but for those that it touches */
    size_t room;   /* for blocks in half an area */
    size_t slots, held;
    struct slot *slot;
};

/* The part of a key that pairs share, if they must not be cut. */
static uint64_t aligned(const struct merge *m, uint64_t key)
{
    const unsigned bits = m->user->whole_pairs ? m->g->bits * ((unsigned)m->g->order - 2) : 0;
    return key >> bits << bits;
}

/* Cuts at every m->blocks-th of the n sorted first keys, or before the pair that it is in. */
static void cut_ranges(struct merge *m, uint64_t *first, size_t n)
{
    size_t kept = 1;
    first[0] = 0;
    for (size_t i = m->blocks; i < n; i += m->blocks) {
        const uint64_t last = first[kept - 1], key = first[i], before = aligned(m, key);
        if (key > last)
            first[kept++] = before > last ? before : key;
    }
    m->bound = first;
    m->ranges = n ? kept : 0;
}

/* As many slots as there is memory for, and how large ranges may be in them. */
static void plan(struct merge *m, size_t runs)
{
    const size_t want = 4 * runs > RANGE_MIN ? 4 * runs : RANGE_MIN;
    const size_t left = m->g->memory - m->g->held, spread = m->user->whole_pairs ? 2 : 1;
    m->slots = dm_ngram_slots(m->g);
    if (room_blocks(m->g, m->slots) < 2 * runs + 1 + spread * want)
        m->slots = m->g->threads;
    const size_t most = (room_blocks(m->g, m->slots) - 2 * runs - 1) / spread;
    assert(room_blocks(m->g, m->slots) > 2 * runs + spread);
    m->blocks = want < most ? want : most;
    m->room = spread * m->blocks + 2 * runs + 1;
    if (m->user->key_bytes) {
        const size_t fit = left / (m->blocks * DM_RUN_BLOCK * m->user->key_bytes);
        m->slots = m->slots < fit ? m->slots : fit ? fit : 1;
    }
}

static enum dm_status cut(struct merge *m, struct dm_err *e)
{
    struct dm_ngram *g = m->g;
    const size_t runs = g->n_runs - m->begin;
    size_t n = 0;
    for (size_t i = m->begin; i < g->n_runs; i++)
        n += g->run[i].blocks;
    DM_TRY(dm_ngram_hold(g, 2 * n * sizeof(*m->bound), e));
    m->held = 2 * n * sizeof(*m->bound);
    uint64_t *all = m->bound = dm_alloc(n + 1, sizeof(*all)), *tmp = dm_alloc(n + 1, sizeof(*tmp));
    if (!all || !tmp) {
        free(tmp);
        return dm_fail(e, DM_ENOMEM, "no memory for ranges of %zu blocks of counts", n);
    }
    n = 0;
    for (size_t i = m->begin; i < g->n_runs; n += g->run[i++].blocks)
        memcpy(all + n, g->run[i].first, g->run[i].blocks * sizeof(*all));
    dm_radix_sort(all, tmp, n, 64);
    free(tmp);
    plan(m, runs);
    cut_ranges(m, all, n);
    m->slot = dm_alloc(m->slots, sizeof(*m->slot));
    for (size_t i = 0; i < m->slots && m->slot; i++)
        if (!(m->slot[i].seg = dm_alloc(runs + 1, sizeof(*m->slot[i].seg))))
            return dm_fail(e, DM_ENOMEM, "no memory to merge %zu runs", runs);
    return m->slot ? DM_OK : dm_fail(e, DM_ENOMEM, "no memory to merge %zu runs", runs);
}

static void release(struct merge *m)
{
    for (size_t i = 0; i < m->slots && m->slot; i++)
        free(m->slot[i].seg);
    free(m->slot);
    free(m->bound);
    dm_ngram_unhold(m->g, m->held);
}

/* ---- Merging ------------------------------------------------------------------------------- */

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

/* Slots lie as close together as their ranges allow, where the threads have sorted before: memory
 * that is touched for the first time comes slowly. */
static struct dm_area slot_area(const struct merge *m, size_t i)
{
    const size_t threads = m->g->threads, index = (m->room + 2) * sizeof(uint64_t);
    const size_t packed = SCRATCH + 2 * (m->room * DM_RUN_BLOCK * ENTRY + SLACK);
    struct dm_area a = {.bytes = dm_ngram_area(m->g, i % threads, threads).bytes};
    a.bytes += i / threads * ((packed + 2 * index + 63) / 64 * 64);
    a.first = (uint64_t *)(void *)(a.bytes + packed);
    a.at = a.first + m->room + 2;
    return a;
}

static struct dm_counts half(const struct dm_area *a, size_t room, size_t i)
{
    uint64_t *key = (uint64_t *)(void *)(a->bytes + SCRATCH + i * (room * ENTRY + SLACK));
    return (struct dm_counts){key, (uint32_t *)(void *)(key + room), 0};
}

static enum dm_status merge_range(const struct merge *m, struct slot *s, size_t range,
                                  struct dm_err *e)
{
    const struct dm_ngram *g = m->g;
    const size_t room = m->room * DM_RUN_BLOCK;
    const uint64_t lo = m->bound[range], hi = range + 1 < m->ranges ? m->bound[range + 1] : 0;
    struct dm_counts from = half(&s->piece.area, room, 0), to = half(&s->piece.area, room, 1);
    size_t n = 0;
    uint64_t over = 0;
    s->seg[0] = 0;
    for (size_t i = m->begin; i < g->n_runs; i++) {
        DM_TRY(dm_run_read(&g->run[i], lo, hi, &from, s->piece.area.bytes, SCRATCH, e));
        if (from.n > s->seg[n])
            s->seg[++n] = from.n;
    }
    assert(from.n <= room);
    merge_all(&from, &to, s->seg, n, &over);
    s->piece.out = from;
    s->piece.pack = (uint8_t *)to.key;
    return over ? dm_fail(e, DM_ERANGE, "an n-gram occurs more than %lu times",
                          (unsigned long)UINT32_MAX)
                : DM_OK;
}

static enum dm_status take_segment(void *ctx, size_t slot, bool *more, struct dm_err *e)
{
    struct merge *m = ctx;
    struct slot *s = &m->slot[slot];
    if (dm_stop_requested())
        return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
    *more = m->next < m->ranges;
    s->range = m->next;
    do
        m->next++;
    while (m->next < m->ranges && m->bound[m->next] != aligned(m, m->bound[m->next]));
    s->end = m->next;
    if (m->g->progress && m->user->whole_pairs)
        dm_progress_set(m->g->progress, 100.0 * (double)s->range / (double)m->ranges, NULL);
    return DM_OK;
}

static enum dm_status merge_segment(void *ctx, size_t slot, size_t thread, struct dm_err *e)
{
    struct merge *m = ctx;
    struct slot *s = &m->slot[slot];
    (void)thread;
    for (size_t i = s->range; i < s->end; i++) {
        DM_TRY(merge_range(m, s, i, e));
        DM_TRY(m->user->each(m->user->ctx, slot, &s->piece, i + 1 == s->end, e));
    }
    return DM_OK;
}

static enum dm_status give_segment(void *ctx, size_t slot, struct dm_err *e)
{
    const struct merge *m = ctx;
    return m->user->give(m->user->ctx, slot, &m->slot[slot].piece, e);
}

static enum dm_status merge(struct dm_ngram *g, size_t begin, const struct user *user,
                            struct dm_err *e)
{
    struct merge m = {.g = g, .begin = begin, .user = user};
    enum dm_status st = cut(&m, e);
    for (size_t i = 0; i < m.slots && !st; i++)
        m.slot[i].piece.area = slot_area(&m, i);
    const struct dm_pipe pipe = {
        user->one_thread ? 1 : g->threads, m.slots, &m, take_segment, merge_segment, give_segment};
    if (!st)
        st = dm_pipe_run(&pipe, e);
    release(&m);
    return st;
}

static enum dm_status add_segment(void *ctx, size_t slot, const struct piece *p, bool last,
                                  struct dm_err *e)
{
    const struct dm_ngram_scan *s = ctx;
    return s->add(s->ctx, slot, &p->out, last, e);
}

static enum dm_status pass_on(void *ctx, size_t slot, const struct piece *p, struct dm_err *e)
{
    const struct dm_ngram_scan *s = ctx;
    (void)p;
    return s->give(s->ctx, slot, e);
}

struct list {
    dm_ngram_sink *sink;
    void *ctx;
};

static enum dm_status nothing(void *ctx, size_t slot, const struct piece *p, bool last,
                              struct dm_err *e)
{
    (void)ctx;
    (void)slot;
    (void)p;
    (void)last;
    (void)e;
    return DM_OK;
}

static enum dm_status to_sink(void *ctx, size_t slot, const struct piece *p, struct dm_err *e)
{
    const struct list *l = ctx;
    (void)slot;
    return l->sink(l->ctx, &p->out, e);
}

enum dm_status dm_ngram_list(struct dm_ngram *g, dm_ngram_sink *sink, void *ctx, struct dm_err *e)
{
    struct list l = {sink, ctx};
    const struct user user = {.ctx = &l, .one_thread = true, .each = nothing, .give = to_sink};
    return merge(g, 0, &user, e);
}

enum dm_status dm_ngram_scan(struct dm_ngram *g, const struct dm_ngram_scan *s, struct dm_err *e)
{
    struct dm_ngram_scan copy = *s;
    const struct user user = {&copy, true, false, s->key_bytes, add_segment, pass_on};
    return merge(g, 0, &user, e);
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

static enum dm_status pack_piece(void *ctx, size_t slot, const struct piece *p, bool last,
                                 struct dm_err *e)
{
    (void)ctx;
    (void)slot;
    (void)last;
    (void)e;
    dm_run_pack(p->pack, p->area.first, p->area.at, &p->out);
    return DM_OK;
}

static enum dm_status write_piece(void *ctx, size_t slot, const struct piece *p, struct dm_err *e)
{
    struct spill *s = ctx;
    struct dm_run *r = &s->run;
    const size_t blocks = (p->out.n + DM_RUN_BLOCK - 1) / DM_RUN_BLOCK, bytes = p->area.at[blocks];
    (void)slot;
    DM_TRY(grow_index(s, r->blocks + blocks, e));
    for (size_t b = 0; b < blocks; b++) {
        r->first[r->blocks + b] = p->area.first[b];
        r->at[r->blocks + b] = r->bytes + p->area.at[b];
    }
    DM_TRY(dm_ngram_write_file(s->g, r->fd, p->pack, bytes, r->bytes, e));
    r->blocks += blocks;
    r->bytes += bytes;
    r->at[r->blocks] = r->bytes;
    r->n += p->out.n;
    return DM_OK;
}

enum dm_status dm_ngram_spill(struct dm_ngram *g, size_t begin, struct dm_err *e)
{
    struct spill s = {.g = g, .run = {.fd = -1}};
    const struct user user = {.ctx = &s, .each = pack_piece, .give = write_piece};
    if (g->n_runs - begin < 1)
        return DM_OK;
    enum dm_status st = dm_ngram_open_file(g, &s.run.fd, e);
    if (!st)
        st = merge(g, begin, &user, e);
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
