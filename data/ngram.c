/* SPDX-License-Identifier: MIT */
/* A third of the memory is for keys that wait and for an area of each thread, which is the other
 * half of its sort, what it packs to, and where it merges. The rest is for packed runs. */
#include "data/ngram_impl.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/radix.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/pipe.h"
#include "src/base/stop.h"

#define SLICE_MIN ((size_t)1 << 16) /* and SLICE_STEP for each thread: see dm_ngram_fan() */
#define SLICE_STEP ((size_t)12 << 10)
#define SLICE_MAX ((size_t)1 << 23)
#define KEY_BYTES (sizeof(uint64_t) + DM_RUN_ENTRY_MAX + 1) /* with the area */
#define ADD ((size_t)1 << 15)                               /* ids that a thread adds at a time */
#define FIRST_RUN ((size_t)1 << 18) /* keys; a thread's later runs are longer by a fourth each */
#define USUAL_BYTES 6u              /* of a packed entry, at most, unless keys are far apart */

enum dm_status dm_ngram_hold(struct dm_ngram *g, size_t bytes, struct dm_err *e)
{
    pthread_mutex_lock(&g->lock);
    const size_t held = g->held;
    const bool fits = bytes <= g->memory - held;
    g->held += fits ? bytes : 0;
    if (g->held > g->peak)
        g->peak = g->held;
    pthread_mutex_unlock(&g->lock);
    return fits ? DM_OK
                : dm_fail(e, DM_ERANGE,
                          "counting needs more than the %zu bytes of memory allowed: %zu are in "
                          "use, %zu more are needed",
                          g->memory, held, bytes);
}

void dm_ngram_unhold(struct dm_ngram *g, size_t bytes)
{
    pthread_mutex_lock(&g->lock);
    assert(bytes <= g->held);
    g->held -= bytes;
    pthread_mutex_unlock(&g->lock);
}

size_t dm_ngram_area_bytes(size_t slice)
{
    const size_t bytes = slice * DM_RUN_ENTRY_MAX + DM_RUN_PAD;
    return (bytes / 64 + 1) * 64 + 2 * (slice / DM_RUN_BLOCK + 2) * sizeof(uint64_t);
}

struct dm_area dm_ngram_area(const struct dm_ngram *g, size_t i, size_t of)
{
    struct dm_area a = {.blocks = g->slice * g->threads / of / DM_RUN_BLOCK + 1};
    const size_t all = dm_ngram_area_bytes(g->slice) * g->threads / of / 64 * 64;
    const size_t index = (a.blocks + 1) * sizeof(*a.first);
    a.bytes = g->work + i * all;
    a.size = all - 2 * index;
    a.first = (uint64_t *)(void *)(a.bytes + a.size);
    a.at = a.first + a.blocks + 1;
    return a;
}

static unsigned bit_width(size_t x)
{
    unsigned b = 0;
    for (; x; x >>= 1)
        b++;
    return b;
}

/* Large pages where the system has them: the sort's writes go to 256 places at a time. */
static void *alloc_large(size_t n, size_t size)
{
    char *p = dm_alloc(n, size);
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t skip = p ? (page - (uintptr_t)p % page) % page : 0;
    if (p && n * size > skip + page)
        (void)madvise(p + skip, (n * size - skip) / page * page, MADV_HUGEPAGE); // a wish only
    return p;
}

/* As many threads as the memory is enough for. */
static enum dm_status plan(struct dm_ngram *g, struct dm_err *e)
{
    const size_t fixed = g->V * sizeof(*g->c1), per_id = g->V * sizeof(*g->hist);
    g->threads = dm_par_threads() + 1;
    do {
        g->threads--;
        const size_t all = fixed + g->threads * per_id;
        g->slice = all < g->memory ? (g->memory - all) / 3 / g->threads / KEY_BYTES : 0;
    } while (g->threads > 1 && g->slice < SLICE_MIN + g->threads * SLICE_STEP);
    if (g->slice < SLICE_MIN)
        return dm_fail(e, DM_ERANGE, "memory for counting is %zu bytes, want at least %zu",
                       g->memory, DM_NGRAM_MIN_MEMORY + fixed + per_id);
    if (g->slice > SLICE_MAX)
        g->slice = SLICE_MAX;
    g->held = fixed + g->threads * (per_id + g->slice * sizeof(*g->key));
    g->held += g->threads * dm_ngram_area_bytes(g->slice);
    g->peak = g->held;
    return DM_OK;
}

enum dm_status dm_ngram_new(struct dm_ngram **out, size_t V, size_t order, size_t memory,
                            const char *beside, struct dm_err *e)
{
    *out = NULL;
    const unsigned bits = V > 2 ? bit_width(V - 1) : 1;
    if (order < 2 || order > DM_NGRAM_ORDER_MAX)
        return dm_fail(e, DM_ERANGE, "order is %zu, want 2 to 4", order);
    if (!V || bits * order > 64)
        return dm_fail(e, DM_EUNSUPPORTED, "a vocabulary of %zu ids: want 1 to 2^%zu for order %zu",
                       V, 64 / order, order);
    struct dm_ngram *g = dm_alloc(1, sizeof(*g));
    if (!g)
        return dm_fail(e, DM_ENOMEM, "no memory for an n-gram counter");
    *g = (struct dm_ngram){.V = V, .order = order, .memory = memory, .bits = bits};
    pthread_mutex_init(&g->lock, NULL);
    g->beside = beside;
    enum dm_status st = plan(g, e);
    if (!st) {
        g->key = alloc_large(g->threads * g->slice, sizeof(*g->key));
        g->work = alloc_large(g->threads, dm_ngram_area_bytes(g->slice));
        g->hist = dm_alloc(g->threads * V, sizeof(*g->hist));
        g->c1 = dm_alloc(V, sizeof(*g->c1));
        g->n = dm_alloc(g->threads, sizeof(*g->n));
        g->run_keys = dm_alloc(g->threads, sizeof(*g->run_keys));
        for (size_t t = 0; g->run_keys && t < g->threads; t++)
            g->run_keys[t] = g->slice < FIRST_RUN ? g->slice : FIRST_RUN;
        if (!g->key || !g->work || !g->hist || !g->c1 || !g->n || !g->run_keys)
            st = dm_fail(e, DM_ENOMEM, "no memory for %zu n-gram keys", g->threads * g->slice);
    }
    if (st) {
        dm_ngram_free(g);
        return st;
    }
    *out = g;
    return DM_OK;
}

void dm_ngram_free(struct dm_ngram *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n_runs; i++)
        dm_run_release(&g->run[i]);
    free(g->run);
    free(g->key);
    free(g->work);
    free(g->hist);
    free(g->c1);
    free(g->n);
    free(g->run_keys);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* Takes over a run with dm_run_held() bytes already held; released after a failure too. */
static enum dm_status push(struct dm_ngram *g, struct dm_run *r, struct dm_err *e)
{
    pthread_mutex_lock(&g->lock);
    if (g->n_runs == g->room) {
        struct dm_run *more = dm_realloc(g->run, 2 * g->room + 64, sizeof(*more));
        if (more) {
            g->run = more;
            g->room = 2 * g->room + 64;
        }
    }
    const bool ok = g->n_runs < g->room;
    if (ok)
        g->run[g->n_runs++] = *r;
    pthread_mutex_unlock(&g->lock);
    if (ok)
        return DM_OK;
    dm_ngram_unhold(g, dm_run_held(r));
    dm_run_release(r);
    return dm_fail(e, DM_ENOMEM, "no memory for another run of counts");
}

/* ---- From keys to runs --------------------------------------------------------------------- */

/* Makes what was packed in area a a run: in memory, or in a file if there is no room. */
static enum dm_status keep(struct dm_ngram *g, const struct dm_area *a, size_t bytes, size_t n,
                           struct dm_err *e)
{
    struct dm_run r = {.fd = -1, .bytes = bytes, .n = n};
    enum dm_status st = DM_OK;
    r.blocks = (n + DM_RUN_BLOCK - 1) / DM_RUN_BLOCK;
    const size_t index = dm_run_held(&r);
    size_t held = index + bytes + DM_RUN_PAD;
    const bool fits = !dm_ngram_hold(g, held, NULL);
    if (!fits)
        DM_TRY(dm_ngram_hold(g, held = index, e));
    r.data = fits ? dm_alloc(bytes + DM_RUN_PAD, 1) : NULL;
    r.first = dm_alloc(r.blocks, sizeof(*r.first));
    r.at = dm_alloc(r.blocks + 1, sizeof(*r.at));
    if (!r.first || !r.at || (fits && !r.data))
        DM_TRY_GOTO(dm_fail(e, DM_ENOMEM, "no memory for %zu counts", n));
    memcpy(r.first, a->first, r.blocks * sizeof(*r.first));
    memcpy(r.at, a->at, (r.blocks + 1) * sizeof(*r.at));
    if (fits) {
        memcpy(r.data, a->bytes, bytes);
    } else {
        DM_TRY_GOTO(dm_ngram_open_file(g, &r.fd, e));
        DM_TRY_GOTO(dm_ngram_write_file(g, r.fd, a->bytes, bytes, 0, e));
    }
    return push(g, &r, e);
done:
    dm_ngram_unhold(g, held);
    dm_run_release(&r);
    return st;
}

static void take_ids(struct dm_ngram *g, size_t thread)
{
    uint32_t *hist = g->hist + thread * g->V;
    pthread_mutex_lock(&g->lock);
    for (size_t i = 1; i < g->V; i++) // 0 is the separator
        g->c1[i] += hist[i];
    pthread_mutex_unlock(&g->lock);
    memset(hist, 0, g->V * sizeof(*hist));
}

/* Sorts the keys of a thread and keeps them as a run. */
static enum dm_status flush(struct dm_ngram *g, size_t thread, struct dm_err *e)
{
    const struct dm_area a = dm_ngram_area(g, thread, g->threads);
    const size_t n = g->n[thread];
    size_t zeros = 0, distinct; // separators have key 0
    if (!n)
        return DM_OK;
    // the sort leaves its other half free to pack into
    const uint64_t *key = dm_radix_sort(g->key + thread * g->slice, (uint64_t *)(void *)a.bytes, n,
                                        g->bits * (unsigned)g->order);
    while (zeros < n && !key[zeros])
        zeros++;
    const size_t bytes = dm_run_pack_keys(a.bytes, a.first, a.at, key + zeros, n - zeros,
                                          &distinct);
    take_ids(g, thread);
    g->n[thread] = 0;
    g->run_keys[thread] += g->run_keys[thread] / 4;
    if (g->run_keys[thread] > g->slice)
        g->run_keys[thread] = g->slice;
    return distinct ? keep(g, &a, bytes, distinct, e) : DM_OK;
}

/* How many ids more may wait or become runs before something must go to a file. */
static size_t room(const struct dm_ngram *g, size_t in_memory)
{
    const size_t fan = dm_ngram_fan(g) / 2;
    size_t reserve = 4096, waiting = 0, run = g->slice;
    for (size_t i = 0; i < g->n_runs; i++) // an index to merge by
        reserve += 5 * g->run[i].blocks * sizeof(uint64_t);
    for (size_t t = 0; t < g->threads; t++) {
        waiting += g->n[t];
        run = g->run_keys[t] < run ? g->run_keys[t] : run;
    }
    const size_t left = g->memory - g->held;
    const size_t by_bytes = left > reserve ? (left - reserve) / USUAL_BYTES : 0;
    const size_t by_runs = in_memory + g->threads < fan ? (fan - in_memory - g->threads) * run : 0;
    const size_t least = by_bytes < by_runs ? by_bytes : by_runs;
    return least > waiting ? least - waiting : 0;
}

enum dm_status dm_ngram_make_room(struct dm_ngram *g, size_t *n_ids, struct dm_err *e)
{
    if (dm_stop_requested())
        return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
    *n_ids = room(g, g->n_runs - g->n_files);
    if (*n_ids < DM_NGRAM_MIN_ROOM && g->n_runs > g->n_files) {
        DM_TRY(dm_ngram_spill(g, g->n_files, e));
        *n_ids = room(g, 0);
    }
    if (g->n_files > 1 && g->n_files + g->threads > dm_ngram_fan(g) / 2)
        DM_TRY(dm_ngram_spill(g, 0, e));
    if (*n_ids < DM_NGRAM_MIN_ROOM)
        *n_ids = DM_NGRAM_MIN_ROOM; // a run that does not fit goes to a file of its own
    return DM_OK;
}

/* ---- From ids to keys ---------------------------------------------------------------------- */

/* n_ids: readable ids, of which the first n begin keys. */
static void make_keys(struct dm_ngram *g, size_t thread, const int32_t *ids, size_t n, size_t n_ids)
{
    const unsigned bits = g->bits, order = (unsigned)g->order;
    uint64_t *out = g->key + thread * g->slice + g->n[thread];
    uint32_t *hist = g->hist + thread * g->V;
    uint64_t N[DM_NGRAM_ORDER_MAX] = {0};
    for (size_t i = 0; i < n; i++) {
        uint64_t key = 0, alive = UINT64_MAX;
        for (unsigned j = 0; j < order; j++) {
            const uint64_t id = i + j < n_ids ? (uint32_t)ids[i + j] : 0;
            alive &= -(uint64_t)(id != 0);
            N[j] -= alive;
            key = key << bits | (id & alive);
        }
        out[i] = key;
        hist[ids[i]]++;
    }
    g->n[thread] += n;
    pthread_mutex_lock(&g->lock);
    for (unsigned j = 0; j < order; j++)
        g->N[j] += N[j];
    pthread_mutex_unlock(&g->lock);
}

static enum dm_status check_ids(const struct dm_ngram *g, const int32_t *ids, size_t n,
                                struct dm_err *e)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = (uint32_t)ids[i] > most ? (uint32_t)ids[i] : most;
    for (size_t i = 0; most >= g->V && i < n; i++)
        if ((uint32_t)ids[i] >= g->V)
            return dm_fail(e, DM_ERANGE, "token id %d, want 0 to %zu", ids[i], g->V - 1);
    return DM_OK;
}

enum dm_status dm_ngram_add_part(struct dm_ngram *g, size_t thread, const int32_t *ids, size_t n,
                                 size_t look, struct dm_err *e)
{
    // a wrong id would change its neighbours in the key: look before the first key is made
    DM_TRY(check_ids(g, ids, n + look, e));
    for (size_t at = 0; at < n;) {
        const size_t left = g->run_keys[thread] - g->n[thread],
                     take = n - at < left ? n - at : left;
        make_keys(g, thread, ids + at, take, n + look - at);
        at += take;
        if (g->n[thread] == g->run_keys[thread])
            DM_TRY(flush(g, thread, e));
    }
    return DM_OK;
}

/* Pieces of a stream that threads add on their own. */
struct adding {
    struct dm_ngram *g;
    const int32_t *ids;
    size_t n_ids, at, end; /* readable ids, next one, where the room ends */
    size_t *begin;         /* (threads) slots' pieces */
};

static enum dm_status take_piece(void *ctx, size_t slot, bool *more, struct dm_err *e)
{
    struct adding *a = ctx;
    (void)e;
    *more = a->at < a->end;
    a->begin[slot] = a->at;
    a->at += ADD;
    return DM_OK;
}

static enum dm_status add_piece(void *ctx, size_t slot, size_t thread, struct dm_err *e)
{
    const struct adding *a = ctx;
    const size_t at = a->begin[slot], n = a->end - at < ADD ? a->end - at : ADD;
    return dm_ngram_add_part(a->g, thread, a->ids + at, n, a->n_ids - at - n, e);
}

enum dm_status dm_ngram_add(struct dm_ngram *g, const int32_t *ids, size_t n, size_t look,
                            struct dm_err *e)
{
    struct adding a = {.g = g, .ids = ids, .n_ids = n + look};
    const struct dm_pipe pipe = {g->threads, g->threads, &a, take_piece, add_piece, NULL};
    enum dm_status st = DM_OK;
    a.begin = dm_alloc(g->threads, sizeof(*a.begin));
    if (!a.begin)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu pieces", g->threads);
    while (a.at < n && !st) {
        size_t more;
        st = dm_ngram_make_room(g, &more, e);
        if (st)
            break;
        a.end = n - a.at < more ? n : a.at + more;
        st = dm_pipe_run(&pipe, e);
        a.at = a.end;
    }
    free(a.begin);
    return st;
}

enum dm_status dm_ngram_add_counts(struct dm_ngram *g, const struct dm_counts *c, struct dm_err *e)
{
    const struct dm_area a = dm_ngram_area(g, 0, g->threads);
    for (size_t at = 0, n, more; at < c->n; at += n) {
        n = c->n - at < g->slice ? c->n - at : g->slice;
        const struct dm_counts piece = {c->key + at, c->count + at, n};
        DM_TRY(dm_ngram_make_room(g, &more, e));
        DM_TRY(keep(g, &a, dm_run_pack(a.bytes, a.first, a.at, &piece), n, e));
    }
    return DM_OK;
}

void dm_ngram_add_totals(struct dm_ngram *g, const uint64_t *c1, const uint64_t *N)
{
    for (size_t i = 0; i < g->V; i++)
        g->c1[i] += c1[i];
    for (size_t j = 0; j < g->order; j++)
        g->N[j] += N[j];
}

static enum dm_status take_thread(void *ctx, size_t slot, bool *more, struct dm_err *e)
{
    struct adding *a = ctx;
    (void)e;
    *more = a->at < a->g->threads;
    a->begin[slot] = a->at++;
    return DM_OK;
}

static enum dm_status flush_thread(void *ctx, size_t slot, size_t thread, struct dm_err *e)
{
    const struct adding *a = ctx;
    (void)thread;
    return flush(a->g, a->begin[slot], e);
}

enum dm_status dm_ngram_finish(struct dm_ngram *g, struct dm_err *e)
{
    struct adding a = {.g = g};
    if (!g->key)
        return DM_OK;
    const struct dm_pipe pipe = {g->threads, g->threads, &a, take_thread, flush_thread, NULL};
    size_t more;
    DM_TRY(dm_ngram_make_room(g, &more, e));
    a.begin = dm_alloc(g->threads, sizeof(*a.begin));
    if (!a.begin)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu pieces", g->threads);
    const enum dm_status st = dm_pipe_run(&pipe, e);
    free(a.begin);
    free(g->key);
    g->key = NULL;
    dm_ngram_unhold(g, g->threads * g->slice * sizeof(*g->key));
    return st;
}

size_t dm_ngram_threads(const struct dm_ngram *g)
{
    return g->threads;
}

unsigned dm_ngram_id_bits(const struct dm_ngram *g)
{
    return g->bits;
}

size_t dm_ngram_order(const struct dm_ngram *g)
{
    return g->order;
}

size_t dm_ngram_vocab(const struct dm_ngram *g)
{
    return g->V;
}

const uint64_t *dm_ngram_c1(const struct dm_ngram *g)
{
    return g->c1;
}

const uint64_t *dm_ngram_totals(const struct dm_ngram *g)
{
    return g->N;
}

size_t dm_ngram_peak(const struct dm_ngram *g)
{
    return g->peak;
}

uint64_t dm_ngram_spilled(const struct dm_ngram *g)
{
    return g->spilled;
}

size_t dm_ngram_runs(const struct dm_ngram *g)
{
    return g->n_runs;
}
