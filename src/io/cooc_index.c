/* SPDX-License-Identifier: MIT */
/* Decoding looks at a thousand pairs' continuations per step, most of them in memory that the
 * weights have pushed out of the caches. So what belongs to one pair lies together, ids take two
 * bytes and ratios two. */
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/io/cooc_impl.h"

/* A row with a map takes one load per id that is looked for, however long it is; the map takes
 * V / 4 bytes, so it pays for long rows only: at most 16 bytes per pair of theirs. */
#define MAP_FROM(V) ((V) / 64 + 1)

static void put_ids(const struct dm_cooc *c, unsigned char *to, const uint32_t *id, size_t n)
{
    if (c->id_bytes == 4) {
        memcpy(to, id, n * sizeof(*id));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const uint16_t low = (uint16_t)id[i];
        memcpy(to + 2 * i, &low, sizeof(low));
    }
}

/* The triplets of the pair (x1,x2) numbered p: r3 = (c3 - discount) * scale * n1/c1[x3]. */
static void fill_next(struct dm_cooc *c, const struct dm_cooc_view *v, const double *n1_over_c1,
                      size_t p, double scale)
{
    const uint64_t *sub = v->sub + (p - v->pair);
    const size_t n = sub[1] - sub[0];
    const uint32_t *x3 = v->x3 + (sub[0] - v->triplet), *c3 = v->c3 + (sub[0] - v->triplet);
    unsigned char *ids = c->next + sub[0] * (c->id_bytes + sizeof(uint16_t));
    unsigned char *ratios = ids + n * c->id_bytes;
    const double discount = c->discount[1];
    uint16_t max = 0;
    put_ids(c, ids, x3, n);
    for (size_t i = 0; i < n; i++) {
        const uint16_t r = dm_cooc_to_ratio(((double)c3[i] - discount) * scale * n1_over_c1[x3[i]]);
        memcpy(ratios + i * sizeof(r), &r, sizeof(r));
        max = r > max ? r : max; // positive floats are ordered as their bits
    }
    uint64_t sum = 0;
    for (size_t i = 0; c->discounting && i < n; i++)
        sum += c3[i];
    if (c->discounting)
        c->left2[p] = dm_cooc_to_ratio(1 -
                                       ((double)sum - discount * (double)n) / v->c2[p - v->pair]);
    c->pair[p].at = (uint32_t)sub[0];
    c->pair[p].r3_max = max;
}

/* DynaMo eq. 3; or the first terms when discounting, see dm_cooc_discount(). */
void dm_cooc_index_fill(struct dm_cooc *c, const struct dm_cooc_view *v, const double *n1_over_c1,
                        size_t x1, size_t begin, size_t end)
{
    const double n2 = (double)c->N[c->discounting ? 0 : 1], n3 = (double)c->N[2];
    put_ids(c, c->x2_ids + begin * c->id_bytes, v->x2 + (begin - v->pair), end - begin);
    for (size_t p = begin; p < end; p++) {
        const double both = n1_over_c1[x1] * n1_over_c1[v->x2[p - v->pair]];
        const double c2 = (double)v->c2[p - v->pair];
        c->pair[p].r2 = dm_cooc_to_ratio((c2 - c->discount[0]) / n2 * both);
        fill_next(c, v, n1_over_c1, p, c->discounting ? 1 / c2 : both / n3);
    }
}

double *dm_cooc_n1_over_c1(const struct dm_cooc *c)
{
    double *x = dm_alloc(c->V, sizeof(*x));
    for (size_t i = 0; x && i < c->V; i++)
        x[i] = c->c1[i] ? (double)c->N[0] / (double)c->c1[i] : 0;
    return x;
}

static enum dm_status no_memory(const struct dm_cooc *c, struct dm_err *e)
{
    return dm_fail(e, DM_ENOMEM, "%s: no memory for the ratios", c->path ? c->path : "table");
}

enum dm_status dm_cooc_index_new(struct dm_cooc *c, struct dm_err *e)
{
    c->id_bytes = c->V <= 65536 ? sizeof(uint16_t) : sizeof(uint32_t);
    c->rows = dm_alloc(c->V + 1, sizeof(*c->rows));
    c->pair = dm_alloc_huge_raw(c->n_pairs + 1, sizeof(*c->pair));
    c->x2_ids = dm_alloc_huge_raw(c->n_pairs + 1, c->id_bytes);
    c->next = dm_alloc_huge_raw(c->n_triplets + 1, c->id_bytes + sizeof(uint16_t));
    if (c->discounting) {
        dm_cooc_set_discounts(c);
        c->left1 = dm_alloc(c->V, sizeof(*c->left1));
        c->left2 = dm_alloc_huge_raw(c->n_pairs + 1, sizeof(*c->left2));
    }
    return c->rows && c->pair && c->x2_ids && c->next && (!c->discounting || (c->left1 && c->left2))
               ? DM_OK
               : no_memory(c, e);
}

static void fill_maps(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct dm_cooc *c = ctx;
    for (size_t x1 = begin; x1 < end; x1++) {
        if (!c->rows[x1].map)
            continue;
        struct dm_cooc_map *m = c->map + (size_t)(c->rows[x1].map - 1) * c->map_words;
        for (size_t p = c->rows[x1].pair; p < c->rows[x1 + 1].pair; p++)
            m[dm_cooc_pair_id(c, p) / 32].bits |= (uint32_t)1 << dm_cooc_pair_id(c, p) % 32;
        for (size_t w = 1; w < c->map_words; w++)
            m[w].before = m[w - 1].before + (uint32_t)__builtin_popcount(m[w - 1].bits);
    }
}

/* The token that begins 2^32 triplets or more; there is one. */
static enum dm_status too_many(const struct dm_cooc *c, const uint64_t *row, struct dm_err *e)
{
    uint64_t n = 0;
    size_t x1 = 0;
    for (; x1 < c->V && n <= UINT32_MAX; x1++) {
        n = 0;
        for (size_t p = row[x1]; p < row[x1 + 1]; p++)
            n += dm_cooc_triplets(c, p);
    }
    return dm_fail(e, DM_EUNSUPPORTED,
                   "%s: %llu triplets begin with token %zu, want less than 2^32", c->path,
                   (unsigned long long)n, x1 - 1);
}

enum dm_status dm_cooc_index_finish(struct dm_cooc *c, const uint64_t *row,
                                    const uint64_t *pairs_of, struct dm_err *e)
{
    size_t n_maps = 0, words;
    uint64_t triplet = c->n_triplets; // where the next row's begin
    c->pair[c->n_pairs].at = (uint32_t)c->n_triplets;
    c->rows[c->V] = (struct dm_cooc_row){row[c->V], triplet, 0};
    for (size_t x1 = c->V; x1-- > 0;) {
        struct dm_cooc_row *r = &c->rows[x1];
        triplet -= (uint32_t)(c->pair[row[x1 + 1]].at - c->pair[row[x1]].at);
        *r = (struct dm_cooc_row){row[x1], triplet, 0};
        if (row[x1 + 1] - row[x1] >= MAP_FROM(c->V))
            r->map = (uint32_t)++n_maps;
    }
    if (triplet) // some row's are more than the difference can say
        return too_many(c, row, e);
    c->map_words = c->V / 32 + 1;
    c->map = dm_mul(n_maps, c->map_words, &words) ? dm_alloc_huge(words + 1, sizeof(*c->map))
                                                  : NULL;
    if (!c->map)
        return no_memory(c, e);
    dm_par_for(c->V, 64, fill_maps, c);
    if (c->discounting)
        dm_cooc_discount(c, pairs_of);
    return DM_OK;
}

struct filling {
    struct dm_cooc *c;
    struct dm_cooc_view all;
    const double *n1_over_c1;
    uint64_t *pairs_of;
};

static void fill_rows(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct filling *f = ctx;
    for (size_t x1 = begin; x1 < end; x1++) {
        dm_cooc_index_fill(f->c, &f->all, f->n1_over_c1, x1, f->c->row[x1], f->c->row[x1 + 1]);
        for (uint64_t p = f->c->row[x1]; p < f->c->row[x1 + 1]; p++)
            f->pairs_of[x1] += f->c->c2[p];
    }
}

enum dm_status dm_cooc_index(struct dm_cooc *c, struct dm_err *e)
{
    double *n1_over_c1 = dm_cooc_n1_over_c1(c);
    uint64_t *pairs_of = dm_alloc(c->V, sizeof(*pairs_of));
    struct filling f = {c, {0, 0, c->x2, c->x3, c->c2, c->c3, c->sub}, n1_over_c1, pairs_of};
    enum dm_status st = n1_over_c1 && pairs_of ? dm_cooc_index_new(c, e) : no_memory(c, e);
    if (!st) {
        dm_par_for(c->V, 64, fill_rows, &f);
        st = dm_cooc_index_finish(c, c->row, pairs_of, e);
    }
    free(pairs_of);
    free(n1_over_c1);
    return st;
}

uint64_t dm_cooc_index_bytes(const struct dm_cooc *c)
{
    const uint64_t id = c->V <= 65536 ? sizeof(uint16_t) : sizeof(uint32_t);
    uint64_t bytes = (c->V + 1) * sizeof(*c->rows) + c->n_pairs * (sizeof(*c->pair) + id) +
                     c->n_triplets * (sizeof(uint16_t) + id);
    for (size_t x1 = 0; x1 < c->V; x1++)
        if (c->row[x1 + 1] - c->row[x1] >= MAP_FROM(c->V))
            bytes += (c->V / 32 + 1) * sizeof(*c->map);
    return bytes;
}

void dm_cooc_index_release(struct dm_cooc *c)
{
    free(c->rows);
    free(c->pair);
    free(c->x2_ids);
    free(c->next);
    free(c->map);
    free(c->left1);
    free(c->left2);
    c->left1 = NULL;
    c->left2 = NULL;
    c->rows = NULL;
    c->pair = NULL;
    c->x2_ids = c->next = NULL;
    c->map = NULL;
}
