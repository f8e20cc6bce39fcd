/* SPDX-License-Identifier: MIT */
/* Smoothed ratios in the place of the table's own, so that decoding reads as much memory with them.
 * They are made from rounded terms, when the counts are gone: at most 2 % off. */
#include <string.h>

#include "src/base/par.h"
#include "src/io/cooc_impl.h"

static double discount(const struct dm_cooc *c, size_t order)
{
    const double ones = (double)c->ones[order - 1], twos = (double)c->twos[order - 1];
    return ones > 0 ? ones / (ones + 2 * twos) : 0;
}

void dm_cooc_set_discounts(struct dm_cooc *c)
{
    c->discount[0] = discount(c, 2);
    c->discount[1] = discount(c, 3);
}

/* r_2 of any pair of a finished index. */
static double r2_of(const struct dm_cooc *c, uint32_t x1, uint32_t x2)
{
    const struct dm_cooc_row *r = c->rows + x1;
    size_t low = r[0].pair, high = r[1].pair;
    if (r->map) {
        const struct dm_cooc_map w = c->map[(size_t)(r->map - 1) * c->map_words + x2 / 32];
        low += w.before + (size_t)__builtin_popcount(w.bits & (((uint32_t)1 << x2 % 32) - 1));
        high = w.bits >> x2 % 32 & 1 ? low + 1 : low;
    }
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const uint32_t id = dm_cooc_pair_id(c, mid);
        if (id == x2)
            return (double)dm_cooc_ratio(c->pair[mid].r2);
        if (id < x2)
            low = mid + 1;
        else
            high = mid;
    }
    return (double)c->left1[x1];
}

static void add_left(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct dm_cooc *c = ctx;
    for (size_t p = c->rows[begin].pair, x1 = begin; x1 < end; x1++)
        for (; p < c->rows[x1 + 1].pair; p++)
            c->pair[p].r2 = dm_cooc_to_ratio((double)dm_cooc_ratio(c->pair[p].r2) +
                                             (double)c->left1[x1]);
}

/* The triplets that begin with pair p of x1. */
static void chain_pair(const struct dm_cooc *c, size_t x1, size_t p)
{
    const size_t n = dm_cooc_triplets(c, p);
    const uint32_t x2 = dm_cooc_pair_id(c, p);
    const double r2 = (double)dm_cooc_ratio(c->pair[p].r2),
                 left = (double)dm_cooc_ratio(c->left2[p]);
    unsigned char *ids = c->next + dm_cooc_triplet(c, x1, p) * (c->id_bytes + sizeof(uint16_t)),
                  *ratios = ids + n * c->id_bytes;
    uint16_t max = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t x3 = dm_cooc_id(ids, c->id_bytes, i);
        uint16_t r;
        memcpy(&r, ratios + i * sizeof(r), sizeof(r));
        r = dm_cooc_to_ratio(r2 * ((double)dm_cooc_ratio(r) + left * r2_of(c, x2, x3)));
        memcpy(ratios + i * sizeof(r), &r, sizeof(r));
        max = r > max ? r : max;
    }
    c->pair[p].r3_max = max;
}

static void chain_rows(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct dm_cooc *c = ctx;
    for (size_t p = c->rows[begin].pair, x1 = begin; x1 < end; x1++)
        for (; p < c->rows[x1 + 1].pair; p++)
            chain_pair(c, x1, p);
}

void dm_cooc_discount(struct dm_cooc *c, const uint64_t *pairs_of)
{
    for (size_t x1 = 0; x1 < c->V; x1++) {
        const double n = (double)(c->rows[x1 + 1].pair - c->rows[x1].pair),
                     kept = (double)pairs_of[x1] - c->discount[0] * n;
        c->left1[x1] = c->c1[x1] ? (float)(1 - kept / (double)c->c1[x1]) : 1;
    }
    dm_par_for(c->V, 64, add_left, c);
    dm_par_for(c->V, 64, chain_rows, c);
}
