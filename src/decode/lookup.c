/* SPDX-License-Identifier: MIT */
#include "src/decode/lookup.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"

enum {
    PART = DM_LOOKUP_SCRATCH - 32
}; /* ids at a time, so that the scratch stays in the L1 cache */

enum dm_status dm_lookup_init(struct dm_lookup *l, size_t V, struct dm_err *e)
{
    *l = (struct dm_lookup){.room = V < 65536 ? 65536 : V}; // every 16-bit id has a place
    l->bits = dm_alloc(l->room / 64 + 1, sizeof(*l->bits));
    l->pos = dm_alloc(l->room, sizeof(*l->pos));
    if (!l->bits || !l->pos)
        return dm_fail(e, DM_ENOMEM, "out of memory for the candidates of %zu tokens", V);
    return DM_OK;
}

void dm_lookup_release(struct dm_lookup *l)
{
    free(l->bits);
    free(l->pos);
    l->bits = NULL;
    l->pos = NULL;
}

void dm_lookup_set(struct dm_lookup *l, const struct dm_cand *c)
{
    for (size_t i = 0; i < l->n; i++)
        l->bits[l->id[i] / 64] = 0;
    memset(l->set, 0, sizeof(l->set));
    l->n = c->n;
    l->kern = dm_kern()->select;
    for (size_t i = 0; i < c->n; i++) {
        const uint32_t id = (uint32_t)c->id[i];
        l->id[i] = id;
        l->pos[id] = (uint16_t)i;
        l->bits[id / 64] |= (uint64_t)1 << id % 64;
        l->set[id % 64] |= (uint16_t)(1u << id / 64 % 16);
    }
}

static uint32_t is_candidate(const struct dm_lookup *l, uint32_t id)
{
    return l->bits[id / 64] >> id % 64 & 1;
}

/* Rows of a few ids are not worth a call. */
static size_t few_of_16_bits(const struct dm_lookup *l, const unsigned char *ids, size_t n,
                             uint16_t *pos, uint32_t *at)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t id;
        memcpy(&id, ids + 2 * i, sizeof(id));
        if (!is_candidate(l, id))
            continue;
        pos[m] = l->pos[id];
        at[m++] = (uint32_t)i;
    }
    return m;
}

/* Without a branch on the hit, which could not be predicted. */
static size_t row_of_16_bits(const struct dm_lookup *l, const unsigned char *ids, size_t n,
                             uint16_t *pos, uint32_t *at, uint32_t *maybe_at)
{
    size_t m = 0;
    for (size_t from = 0; from < n; from += PART) {
        const size_t part = n - from < PART ? n - from : PART;
        const size_t maybe = l->kern->in(maybe_at, ids + 2 * from, part, l->set);
        for (size_t i = 0; i < maybe; i++) {
            uint16_t id;
            memcpy(&id, ids + 2 * (from + maybe_at[i]), sizeof(id));
            pos[m] = id;
            at[m] = (uint32_t)from + maybe_at[i];
            m += is_candidate(l, id);
        }
    }
    for (size_t i = 0; i < m; i++)
        pos[i] = l->pos[pos[i]];
    return m;
}

size_t dm_lookup_row(const struct dm_lookup *l, const void *ids, size_t id_bytes, size_t n,
                     uint16_t *pos, uint32_t *at, uint32_t *scratch)
{
    enum { FEW = 3 };
    const unsigned char *x = ids;
    size_t m = 0;
    assert(n <= UINT32_MAX && (id_bytes == 2 || id_bytes == 4));
    if (id_bytes == 2)
        return n <= FEW ? few_of_16_bits(l, x, n, pos, at)
                        : row_of_16_bits(l, x, n, pos, at, scratch);
    for (size_t i = 0; i < n; i++) {
        uint32_t id;
        memcpy(&id, x + 4 * i, sizeof(id));
        if (id >= l->room || !is_candidate(l, id)) // a table may know more tokens
            continue;
        pos[m] = l->pos[id];
        at[m++] = (uint32_t)i;
    }
    return m;
}

/* Without an instruction for it, which not every x86-64 has. */
static uint32_t ones(uint32_t x)
{
    x -= x >> 1 & 0x55555555;
    x = (x & 0x33333333) + (x >> 2 & 0x33333333);
    return ((x + (x >> 4)) & 0x0f0f0f0f) * 0x01010101 >> 24;
}

void dm_lookup_prefetch(const struct dm_lookup *l, const struct dm_cooc *c, uint32_t x1)
{
    enum { LINE = 64, LINES = 24 }; // of a row without a map; what is longer streams by itself
    const struct dm_cooc_row *r = c->rows + x1;
    if (r->map) {
        const struct dm_cooc_map *map = c->map + (size_t)(r->map - 1) * c->map_words;
        for (size_t i = 0; i < l->n; i++)
            __builtin_prefetch(map + l->id[i] / 32); // beyond the table it does no harm
        return;
    }
    const unsigned char *at = c->x2_ids + r[0].pair * c->id_bytes;
    const size_t bytes = (r[1].pair - r[0].pair) * c->id_bytes;
    for (size_t line = 0; line < bytes && line < LINES * LINE; line += LINE)
        __builtin_prefetch(at + line);
    __builtin_prefetch(at + (bytes < LINES * LINE ? bytes : LINES * LINE));
}

size_t dm_lookup_pairs(const struct dm_lookup *l, const struct dm_cooc *c, uint32_t x1,
                       uint16_t *pos, uint32_t *at, uint32_t *scratch)
{
    const size_t begin = c->rows[x1].pair, n = c->rows[x1 + 1].pair - begin;
    if (!c->rows[x1].map)
        return dm_lookup_row(l, c->x2_ids + begin * c->id_bytes, c->id_bytes, n, pos, at, scratch);
    const struct dm_cooc_map *map = c->map + (size_t)(c->rows[x1].map - 1) * c->map_words;
    size_t m = 0;
    for (size_t i = 0; i < l->n; i++) {
        const uint32_t id = l->id[i], bit = id % 32;
        if (id / 32 >= c->map_words)
            continue;
        const struct dm_cooc_map w = map[id / 32];
        pos[m] = (uint16_t)i;
        at[m] = w.before + ones(w.bits & (((uint32_t)1 << bit) - 1));
        m += w.bits >> bit & 1;
    }
    return m;
}
