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
#include "src/base/stop.h"

#define SLICE_MIN ((size_t)1 << 16) /* and SLICE_STEP for each thread: see dm_ngram_fan() */
#define SLICE_STEP ((size_t)12 << 10)
#define SLICE_MAX ((size_t)1 << 23)
#define KEY_BYTES (sizeof(uint64_t) + DM_RUN_ENTRY_MAX + 1) /* with the area */
#define USUAL_BYTES 6u /* of a packed entry, at most, unless keys are far apart */

enum dm_status dm_ngram_hold(struct dm_ngram *g, size_t bytes, struct dm_err *e)
{
    if (bytes > g->memory - g->held)
        return dm_fail(e, DM_ERANGE,
                       "counting needs more than the %zu bytes of memory allowed: %zu are in use, "
                       "%zu more are needed",
                       g->memory, g->held, bytes);
    g->held += bytes;
    if (g->held > g->peak)
        g->peak = g->held;
    return DM_OK;
}

void dm_ngram_unhold(struct dm_ngram *g, size_t bytes)
{
    assert(bytes <= g->held);
    g->held -= bytes;
}

size_t dm_ngram_area_bytes(size_t slice)
{
    const size_t bytes = slice * DM_RUN_ENTRY_MAX + DM_RUN_PAD;
    return (bytes / 64 + 1) * 64 + 2 * (slice / DM_RUN_BLOCK + 2) * sizeof(uint64_t);
}

struct dm_area dm_ngram_area(const struct dm_ngram *g, size_t thread)
{
    struct dm_area a = {.blocks = g->slice / DM_RUN_BLOCK + 1};
    const size_t all = dm_ngram_area_bytes(g->slice), index = (a.blocks + 1) * sizeof(*a.first);
    a.bytes = g->work + thread * all;
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
    g->beside = beside;
    enum dm_status st = plan(g, e);
    if (!st) {
        g->key = alloc_large(g->threads * g->slice, sizeof(*g->key));
        g->work = alloc_large(g->threads, dm_ngram_area_bytes(g->slice));
        g->hist = dm_alloc(g->threads * V, sizeof(*g->hist));
        g->c1 = dm_alloc(V, sizeof(*g->c1));
        if (!g->key || !g->work || !g->hist || !g->c1)
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
    free(g);
}

enum dm_status dm_ngram_push(struct dm_ngram *g, struct dm_run *r, struct dm_err *e)
{
    if (g->n_runs == g->room) {
        struct dm_run *more = dm_realloc(g->run, 2 * g->room + 64, sizeof(*more));
        if (!more) {
            dm_ngram_unhold(g, dm_run_held(r));
            dm_run_release(r);
            return dm_fail(e, DM_ENOMEM, "no memory for %zu runs of counts", g->n_runs + 1);
        }
        g->run = more;
        g->room = 2 * g->room + 64;
    }
    g->run[g->n_runs++] = *r;
    return DM_OK;
}

/* ---- From keys to runs --------------------------------------------------------------------- */

struct packed {
    size_t bytes, distinct;
};

struct flush {
    struct dm_ngram *g;
    struct packed *part; /* (threads) */
};

static void sort_and_pack(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct flush *f = ctx;
    const struct dm_ngram *g = f->g;
    for (size_t t = begin; t < end; t++) {
        const struct dm_area a = dm_ngram_area(g, t);
        const size_t at = g->n * t / g->threads, n = g->n * (t + 1) / g->threads - at;
        // the sort leaves its other half free to pack into
        uint64_t *key = dm_radix_sort(g->key + at, (uint64_t *)(void *)a.bytes, n,
                                      g->bits * (unsigned)g->order);
        size_t zeros = 0; // separators have key 0
        while (zeros < n && !key[zeros])
            zeros++;
        f->part[t].bytes = dm_run_pack_keys(a.bytes, a.first, a.at, key + zeros, n - zeros,
                                            &f->part[t].distinct);
    }
}

/* Makes what was packed in area a a run: in memory, or in a file if there is no room. */
static enum dm_status keep(struct dm_ngram *g, const struct dm_area *a, struct packed p,
                           struct dm_err *e)
{
    struct dm_run r = {.fd = -1, .bytes = p.bytes, .n = p.distinct};
    enum dm_status st = DM_OK;
    if (!r.n)
        return DM_OK;
    r.blocks = (r.n + DM_RUN_BLOCK - 1) / DM_RUN_BLOCK;
    const bool fits = r.bytes + DM_RUN_PAD < g->memory - g->held;
    r.data = fits ? dm_alloc(r.bytes + DM_RUN_PAD, 1) : NULL;
    r.first = dm_alloc(r.blocks, sizeof(*r.first));
    r.at = dm_alloc(r.blocks + 1, sizeof(*r.at));
    if (!r.first || !r.at || (fits && !r.data))
        DM_TRY_GOTO(dm_fail(e, DM_ENOMEM, "no memory for %zu counts", r.n));
    memcpy(r.first, a->first, r.blocks * sizeof(*r.first));
    memcpy(r.at, a->at, (r.blocks + 1) * sizeof(*r.at));
    if (fits) {
        memcpy(r.data, a->bytes, r.bytes);
    } else {
        DM_TRY_GOTO(dm_ngram_open_file(g, &r.fd, e));
        DM_TRY_GOTO(dm_ngram_write_file(g, r.fd, a->bytes, r.bytes, 0, e));
    }
    DM_TRY_GOTO(dm_ngram_hold(g, dm_run_held(&r), e));
    return dm_ngram_push(g, &r, e);
done:
    dm_run_release(&r);
    return st;
}

/* Makes room for `bytes`, an index to merge by and a run of each thread more. Needs the areas. */
static enum dm_status make_room(struct dm_ngram *g, size_t bytes, struct dm_err *e)
{
    const size_t fan = dm_ngram_fan(g), in_memory = g->n_runs - g->n_files;
    for (size_t i = 0; i < g->n_runs; i++)
        bytes += 5 * g->run[i].blocks * sizeof(uint64_t);
    bytes += 4096;
    if (in_memory && (bytes > g->memory - g->held || in_memory + g->threads > fan / 2))
        DM_TRY(dm_ngram_spill(g, g->n_files, e));
    if (g->n_files > 1 && g->n_files + g->threads > fan / 2)
        DM_TRY(dm_ngram_spill(g, 0, e));
    return DM_OK;
}

static void take_ids(struct dm_ngram *g)
{
    for (size_t t = 0; t < g->threads; t++)
        for (size_t i = 0; i < g->V; i++)
            g->c1[i] += g->hist[t * g->V + i];
    memset(g->hist, 0, g->threads * g->V * sizeof(*g->hist));
    g->c1[0] = 0; // the separator
}

static enum dm_status flush(struct dm_ngram *g, struct dm_err *e)
{
    struct flush f = {.g = g};
    enum dm_status st = DM_OK;
    if (!g->n)
        return DM_OK;
    if (dm_stop_requested())
        return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
    DM_TRY(make_room(g, g->n * USUAL_BYTES, e));
    f.part = dm_alloc(g->threads, sizeof(*f.part));
    if (!f.part)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu threads", g->threads);
    dm_par_for(g->threads, 1, sort_and_pack, &f);
    take_ids(g);
    g->n = 0;
    for (size_t t = 0; t < g->threads && !st; t++) {
        const struct dm_area a = dm_ngram_area(g, t);
        st = keep(g, &a, f.part[t], e);
    }
    free(f.part);
    return st;
}

/* ---- From ids to keys ---------------------------------------------------------------------- */

struct keying {
    struct dm_ngram *g;
    uint64_t *key;
    const int32_t *ids;
    size_t n;                          /* readable ids */
    uint64_t (*N)[DM_NGRAM_ORDER_MAX]; /* (threads) n-grams found */
};

static void make_keys(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct keying k = *(const struct keying *)ctx;
    const unsigned bits = k.g->bits, order = (unsigned)k.g->order;
    uint32_t *hist = k.g->hist + part * k.g->V;
    uint64_t N[DM_NGRAM_ORDER_MAX] = {0};
    for (size_t i = begin; i < end; i++) {
        uint64_t key = 0, alive = UINT64_MAX;
        for (unsigned j = 0; j < order; j++) {
            const uint64_t id = i + j < k.n ? (uint32_t)k.ids[i + j] : 0;
            alive &= -(uint64_t)(id != 0);
            N[j] -= alive;
            key = key << bits | (id & alive);
        }
        k.key[i] = key;
        hist[k.ids[i]]++;
    }
    for (unsigned j = 0; j < order; j++)
        k.N[part][j] += N[j];
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

enum dm_status dm_ngram_add(struct dm_ngram *g, const int32_t *ids, size_t n, size_t look,
                            struct dm_err *e)
{
    // a wrong id would change its neighbours in the key: look before the first key is made
    DM_TRY(check_ids(g, ids, n + look, e));
    uint64_t(*N)[DM_NGRAM_ORDER_MAX] = dm_alloc(dm_par_threads(), sizeof(*N));
    enum dm_status st = N ? DM_OK : dm_fail(e, DM_ENOMEM, "no memory for sums of threads");
    const size_t room = g->threads * g->slice;
    for (size_t at = 0; at < n && !st;) {
        const size_t take = n - at < room - g->n ? n - at : room - g->n;
        struct keying k = {.g = g, .key = g->key + g->n, .ids = ids + at, .n = n + look - at};
        k.N = N;
        // grain: no more parts than there are histograms
        dm_par_for(take, (take + g->threads - 1) / g->threads, make_keys, &k);
        at += take;
        g->n += take;
        if (g->n == room)
            st = flush(g, e);
    }
    for (size_t t = 0; t < dm_par_threads() && N; t++)
        for (size_t j = 0; j < g->order; j++)
            g->N[j] += N[t][j];
    free(N);
    return st;
}

enum dm_status dm_ngram_add_counts(struct dm_ngram *g, const struct dm_counts *c, struct dm_err *e)
{
    const struct dm_area a = dm_ngram_area(g, 0);
    for (size_t at = 0; at < c->n;) {
        const size_t n = c->n - at < g->slice ? c->n - at : g->slice;
        const struct dm_counts piece = {.key = c->key + at, .count = c->count + at, .n = n};
        if (dm_stop_requested())
            return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
        DM_TRY(make_room(g, n * USUAL_BYTES, e));
        const struct packed p = {dm_run_pack(a.bytes, a.first, a.at, &piece), n};
        DM_TRY(keep(g, &a, p, e));
        at += n;
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

enum dm_status dm_ngram_finish(struct dm_ngram *g, struct dm_err *e)
{
    return flush(g, e);
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
