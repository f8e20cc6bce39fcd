/* SPDX-License-Identifier: MIT */
/* The key space is cut once, at quantiles of the first chunk, into PARTS ranges with a stack of
 * runs each. Threads own whole ranges, so collapsing and merging need no locks, and the memory for
 * a merge is that of a few ranges instead of twice everything. A stack is kept like a binary
 * counter: the top run is merged down while it is at least half of the one below, so an entry is
 * copied O(log chunks) times. */
#include "data/ngram.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/radix.h"
#include "src/base/arena.h"
#include "src/base/par.h"

#define PARTS 64u
#define STACK 64u /* sizes at least double from top to bottom: never full */
#define CHUNK_MAX ((size_t)1 << 24)
#define ENTRY (sizeof(uint64_t) + sizeof(uint32_t)) /* bytes of a run per key */
#define GROUP 8u                                    /* ranges merged at a time */

struct stack {
    struct dm_run run[STACK]; /* [0] is the oldest and largest */
    size_t n;
};

struct dm_ngram {
    size_t V, order, memory, held, peak;
    unsigned bits;
    uint64_t *key, *tmp; /* (chunk) keys that wait for the sort, and its other half */
    size_t n, chunk;
    size_t *scratch;           /* of the sort */
    uint64_t bound[PARTS + 1]; /* part p holds keys >= bound[p] and < bound[p+1]; the last: all */
    bool bounded;
    struct stack part[PARTS];
};

static enum dm_status grow(struct dm_ngram *g, size_t bytes, struct dm_err *e)
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

static enum dm_status run_init(struct dm_ngram *g, struct dm_run *r, size_t n, struct dm_err *e)
{
    *r = (struct dm_run){0};
    DM_TRY(grow(g, n * ENTRY, e));
    // n + 1: an empty run has arrays too
    r->key = dm_alloc(n + 1, sizeof(*r->key));
    r->count = dm_alloc(n + 1, sizeof(*r->count));
    if (!r->key || !r->count) {
        free(r->key);
        free(r->count);
        *r = (struct dm_run){0};
        g->held -= n * ENTRY;
        return dm_fail(e, DM_ENOMEM, "no memory for %zu counts", n);
    }
    r->n = n;
    return DM_OK;
}

static void run_release(struct dm_ngram *g, struct dm_run *r)
{
    g->held -= r->n * ENTRY;
    free(r->key);
    free(r->count);
    *r = (struct dm_run){0};
}

/* Gives back what a merge did not need. */
static void run_shrink(struct dm_ngram *g, struct dm_run *r, size_t n)
{
    uint64_t *key = dm_realloc(r->key, n + 1, sizeof(*key));
    if (key)
        r->key = key;
    uint32_t *count = dm_realloc(r->count, n + 1, sizeof(*count));
    if (count)
        r->count = count;
    g->held -= (r->n - n) * ENTRY;
    r->n = n;
}

static unsigned bit_width(size_t x)
{
    unsigned b = 0;
    for (; x; x >>= 1)
        b++;
    return b;
}

enum dm_status dm_ngram_new(struct dm_ngram **out, size_t V, size_t order, size_t memory,
                            struct dm_err *e)
{
    *out = NULL;
    const unsigned bits = V > 2 ? bit_width(V - 1) : 1;
    if (order < 2 || order > 4)
        return dm_fail(e, DM_ERANGE, "order is %zu, want 2 to 4", order);
    if (!V || bits * order > 64)
        return dm_fail(e, DM_EUNSUPPORTED, "a vocabulary of %zu ids: want 1 to 2^%zu for order %zu",
                       V, 64 / order, order);
    if (memory < DM_NGRAM_MIN_MEMORY)
        return dm_fail(e, DM_ERANGE, "memory for counting is %zu bytes, want at least %zu", memory,
                       DM_NGRAM_MIN_MEMORY);
    struct dm_ngram *g = dm_alloc(1, sizeof(*g));
    if (!g)
        return dm_fail(e, DM_ENOMEM, "no memory for an n-gram counter");
    *g = (struct dm_ngram){.V = V, .order = order, .memory = memory, .bits = bits};
    // a quarter for the keys and their other half, the rest for runs
    g->chunk = memory / 4 / (2 * sizeof(*g->key));
    if (g->chunk > CHUNK_MAX)
        g->chunk = CHUNK_MAX;
    g->held = g->peak = g->chunk * 2 * sizeof(*g->key);
    g->key = dm_alloc(g->chunk, sizeof(*g->key));
    g->tmp = dm_alloc(g->chunk, sizeof(*g->tmp));
    g->scratch = dm_alloc(dm_radix_scratch(), sizeof(*g->scratch));
    if (!g->key || !g->tmp || !g->scratch) {
        const size_t n = g->chunk;
        dm_ngram_free(g);
        return dm_fail(e, DM_ENOMEM, "no memory for %zu n-gram keys", n);
    }
    *out = g;
    return DM_OK;
}

void dm_ngram_free(struct dm_ngram *g)
{
    if (!g)
        return;
    for (size_t p = 0; p < PARTS; p++)
        for (size_t i = 0; i < g->part[p].n; i++)
            run_release(g, &g->part[p].run[i]);
    free(g->key);
    free(g->tmp);
    free(g->scratch);
    free(g);
}

/* First index with key[i] >= bound. */
static size_t lower_bound(const uint64_t *key, size_t n, uint64_t bound)
{
    size_t lo = 0;
    while (n) {
        const size_t half = n / 2;
        if (key[lo + half] < bound) {
            lo += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return lo;
}

struct collapse {
    const uint64_t *key;  /* sorted */
    size_t at[PARTS + 1]; /* part p is key[at[p] .. at[p+1]) */
    size_t distinct[PARTS];
    struct dm_run run[PARTS];
};

static void count_distinct(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    struct collapse *c = ctx;
    for (size_t p = begin; p < end; p++) {
        size_t n = c->at[p] < c->at[p + 1];
        for (size_t i = c->at[p] + 1; i < c->at[p + 1]; i++)
            n += c->key[i] != c->key[i - 1];
        c->distinct[p] = n;
    }
}

static void collapse_parts(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    struct collapse *c = ctx;
    for (size_t p = begin; p < end; p++) {
        size_t n = 0;
        for (size_t i = c->at[p], next; i < c->at[p + 1]; i = next) {
            for (next = i + 1; next < c->at[p + 1] && c->key[next] == c->key[i];)
                next++;
            c->run[p].key[n] = c->key[i];
            c->run[p].count[n++] = (uint32_t)(next - i);
        }
    }
}

struct merge {
    size_t part;
    struct dm_run a, b, out;
    size_t n;
    bool overflow;
};

/* Without branches on the data, which would be mispredicted every other time. */
static void merge_runs(struct merge *m)
{
    const struct dm_run a = m->a, b = m->b, out = m->out;
    size_t i = 0, j = 0, n = 0;
    uint64_t over = 0;
    while (i < a.n && j < b.n) {
        const uint64_t ka = a.key[i], kb = b.key[j];
        const bool use_a = ka <= kb, use_b = kb <= ka;
        const uint64_t c = (a.count[i] & -(uint64_t)use_a) + (b.count[j] & -(uint64_t)use_b);
        out.key[n] = use_a ? ka : kb;
        out.count[n++] = (uint32_t)c;
        over |= c >> 32;
        i += use_a;
        j += use_b;
    }
    const struct dm_run *rest = i < a.n ? &a : &b;
    const size_t from = i < a.n ? i : j, left = rest->n - from;
    memcpy(out.key + n, rest->key + from, left * sizeof(*out.key));
    memcpy(out.count + n, rest->count + from, left * sizeof(*out.count));
    m->n = n + left;
    m->overflow = over != 0;
}

static void merge_group(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    struct merge *m = ctx;
    for (size_t i = begin; i < end; i++)
        merge_runs(&m[i]);
}

/* Merges the two top runs of the n stacks named in m. */
static enum dm_status merge_tops(struct dm_ngram *g, struct merge *m, size_t n, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    size_t made = 0;
    for (; made < n && !st; made++) {
        const struct stack *s = &g->part[m[made].part];
        m[made].a = s->run[s->n - 2];
        m[made].b = s->run[s->n - 1];
        st = run_init(g, &m[made].out, m[made].a.n + m[made].b.n, e);
    }
    if (st) {
        for (size_t i = 0; i < made; i++)
            run_release(g, &m[i].out);
        return st;
    }
    dm_par_for(n, 1, merge_group, m);
    for (size_t i = 0; i < n; i++) {
        struct stack *s = &g->part[m[i].part];
        run_shrink(g, &m[i].out, m[i].n);
        run_release(g, &s->run[--s->n]);
        run_release(g, &s->run[--s->n]);
        s->run[s->n++] = m[i].out;
        if (m[i].overflow)
            st = dm_fail(e, DM_ERANGE, "an n-gram occurs more than %lu times",
                         (unsigned long)UINT32_MAX);
    }
    return st;
}

static bool wants_merge(const struct stack *s, bool all)
{
    return s->n > 1 && (all || s->run[s->n - 1].n >= s->run[s->n - 2].n / 2);
}

static enum dm_status settle(struct dm_ngram *g, bool all, struct dm_err *e)
{
    for (bool again = true; again;) {
        again = false;
        for (size_t p = 0; p < PARTS;) {
            struct merge m[GROUP];
            size_t n = 0;
            for (; p < PARTS && n < GROUP; p++)
                if (wants_merge(&g->part[p], all))
                    m[n++] = (struct merge){.part = p};
            if (!n)
                continue;
            again = true;
            DM_TRY(merge_tops(g, m, n, e));
        }
    }
    return DM_OK;
}

/* Equal shares of the first chunk; the ids after the second are cleared so that a pair stays
 * together. */
static void choose_bounds(struct dm_ngram *g, const uint64_t *sorted, size_t n)
{
    const unsigned low = g->bits * (unsigned)(g->order - 2);
    for (size_t p = 1; p < PARTS; p++)
        g->bound[p] = sorted[n * p / PARTS] >> low << low;
    g->bounded = true;
}

/* Sorts what waits and puts one run on every stack. */
static enum dm_status flush(struct dm_ngram *g, struct dm_err *e)
{
    struct collapse c;
    uint64_t *key = dm_radix_sort(g->key, g->tmp, g->n, g->bits * (unsigned)g->order, g->scratch);
    const size_t zeros = lower_bound(key, g->n, 1), n = g->n - zeros; // separators have key 0
    c.key = key + zeros;
    if (!g->bounded && n)
        choose_bounds(g, c.key, n);
    for (size_t p = 0; p < PARTS; p++)
        c.at[p] = lower_bound(c.key, n, g->bound[p]);
    c.at[PARTS] = n;
    dm_par_for(PARTS, 1, count_distinct, &c);
    for (size_t p = 0; p < PARTS; p++) {
        struct stack *s = &g->part[p];
        DM_TRY(run_init(g, &s->run[s->n], c.distinct[p], e));
        c.run[p] = s->run[s->n++];
    }
    dm_par_for(PARTS, 1, collapse_parts, &c);
    g->n = 0;
    return settle(g, false, e);
}

struct keying {
    uint64_t *key;
    const int32_t *ids;
    size_t n; /* readable ids */
    size_t order;
    unsigned bits;
};

static uint64_t key_at(const struct keying *k, size_t i)
{
    uint64_t key = 0, alive = UINT64_MAX;
    for (size_t j = 0; j < k->order; j++) {
        const uint64_t id = i + j < k->n ? (uint32_t)k->ids[i + j] : 0;
        alive &= -(uint64_t)(id != 0);
        key = key << k->bits | (id & alive);
    }
    return key;
}

static void make_keys(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct keying k = *(const struct keying *)ctx;
    for (size_t i = begin; i < end; i++)
        k.key[i] = key_at(&k, i);
}

enum dm_status dm_ngram_add(struct dm_ngram *g, const int32_t *ids, size_t n, size_t look,
                            struct dm_err *e)
{
    // a wrong id would change its neighbours in the key: look before the first key is made
    for (size_t i = 0; i < n + look; i++)
        if ((uint32_t)ids[i] >= g->V)
            return dm_fail(e, DM_ERANGE, "token id %d, want 0 to %zu", ids[i], g->V - 1);
    for (size_t at = 0; at < n;) {
        const size_t room = g->chunk - g->n, take = n - at < room ? n - at : room;
        struct keying k = {.key = g->key + g->n, .ids = ids + at, .n = n + look - at};
        k.order = g->order;
        k.bits = g->bits;
        dm_par_for(take, 1, make_keys, &k);
        at += take;
        g->n += take;
        if (g->n == g->chunk)
            DM_TRY(flush(g, e));
    }
    return DM_OK;
}

enum dm_status dm_ngram_finish(struct dm_ngram *g, struct dm_err *e)
{
    DM_TRY(flush(g, e));
    g->held -= g->chunk * 2 * sizeof(*g->key);
    free(g->key);
    free(g->tmp);
    g->key = g->tmp = NULL;
    g->chunk = 0;
    return settle(g, true, e);
}

size_t dm_ngram_parts(const struct dm_ngram *g)
{
    (void)g;
    return PARTS;
}

const struct dm_run *dm_ngram_part(const struct dm_ngram *g, size_t part)
{
    return &g->part[part].run[0];
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

size_t dm_ngram_peak(const struct dm_ngram *g)
{
    return g->peak;
}
