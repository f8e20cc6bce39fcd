/* SPDX-License-Identifier: MIT */
/* Decoding looks at a thousand pairs' continuations per step, most of them in memory that the
 * weights have pushed out of the caches. So what belongs to one pair lies together, and ids take
 * two bytes. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/io/cooc.h"

/* A row with a map takes two loads per id that is looked for, however long it is; the map takes
 * V / 4 bytes, so it pays for long rows only, and at most 4 bytes per pair of theirs. */
#define MAP_FROM(V) ((V) / 16 + 1)

static float to_float(double r)
{
    return r < (double)FLT_MAX ? (float)r : FLT_MAX;
}

static void put_id(struct dm_cooc *c, unsigned char *to, uint32_t id)
{
    const uint16_t low = (uint16_t)id;
    memcpy(to, c->id_bytes == 2 ? (const void *)&low : &id, c->id_bytes);
}

static void fill_next(struct dm_cooc *c, size_t p, double p12)
{
    const double n1 = (double)c->N[0], n3 = (double)c->N[2];
    const size_t begin = c->sub[p], n = c->sub[p + 1] - begin;
    unsigned char *ids = c->next + begin * (c->id_bytes + sizeof(float));
    unsigned char *ratios = ids + n * c->id_bytes;
    struct dm_cooc_pair *pair = &c->pair[p];
    for (size_t i = 0; i < n; i++) {
        const double p3 = (double)c->c1[c->x3[begin + i]] / n1;
        const float r = to_float((double)c->c3[begin + i] / n3 / (p12 * p3));
        put_id(c, ids + i * c->id_bytes, c->x3[begin + i]);
        memcpy(ratios + i * sizeof(r), &r, sizeof(r));
        pair->r3_max = r > pair->r3_max ? r : pair->r3_max;
    }
    pair->at = begin;
}

static void fill_map(struct dm_cooc *c, size_t x1)
{
    struct dm_cooc_map *m = c->map + (size_t)(c->map_of[x1] - 1) * c->map_words;
    for (size_t p = c->row[x1]; p < c->row[x1 + 1]; p++)
        m[c->x2[p] / 32].bits |= (uint32_t)1 << c->x2[p] % 32;
    for (size_t w = 1; w < c->map_words; w++)
        m[w].before = m[w - 1].before + (uint32_t)__builtin_popcount(m[w - 1].bits);
}

/* DynaMo eq. 3 for the rows [begin, end) of x1; the frequencies are formed in double, as written.
 */
static void fill(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    struct dm_cooc *c = ctx;
    const double n1 = (double)c->N[0], n2 = (double)c->N[1];
    for (size_t x1 = begin; x1 < end; x1++) {
        const double p1 = (double)c->c1[x1] / n1;
        for (size_t p = c->row[x1]; p < c->row[x1 + 1]; p++) {
            const double p12 = p1 * ((double)c->c1[c->x2[p]] / n1);
            c->pair[p].r2 = to_float((double)c->c2[p] / n2 / p12);
            put_id(c, c->x2_ids + p * c->id_bytes, c->x2[p]);
            fill_next(c, p, p12);
        }
        if (c->map_of[x1])
            fill_map(c, x1);
    }
}

enum dm_status dm_cooc_index(struct dm_cooc *c, struct dm_err *e)
{
    size_t n_maps = 0, words;
    c->id_bytes = c->V <= 65536 ? sizeof(uint16_t) : sizeof(uint32_t);
    c->map_words = c->V / 32 + 1;
    c->map_of = dm_alloc(c->V, sizeof(*c->map_of));
    for (size_t x1 = 0; c->map_of && x1 < c->V; x1++)
        if (c->row[x1 + 1] - c->row[x1] >= MAP_FROM(c->V))
            c->map_of[x1] = (uint32_t)++n_maps;
    c->pair = dm_alloc_huge(c->n_pairs + 1, sizeof(*c->pair));
    c->x2_ids = dm_alloc_huge(c->n_pairs + 1, c->id_bytes);
    c->next = dm_alloc_huge(c->n_triplets + 1, c->id_bytes + sizeof(float));
    c->map = dm_mul(n_maps, c->map_words, &words) ? dm_alloc_huge(words + 1, sizeof(*c->map))
                                                  : NULL;
    if (!c->map_of || !c->pair || !c->x2_ids || !c->next || !c->map)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for the ratios", c->path ? c->path : "table");
    c->pair[c->n_pairs].at = c->n_triplets;
    dm_par_for(c->V, 64, fill, c);
    return DM_OK;
}

void dm_cooc_index_release(struct dm_cooc *c)
{
    free(c->pair);
    free(c->x2_ids);
    free(c->next);
    free(c->map);
    free(c->map_of);
    c->pair = NULL;
    c->x2_ids = c->next = NULL;
    c->map = NULL;
    c->map_of = NULL;
}

float dm_cooc_r3_of(const struct dm_cooc *c, size_t pair, size_t i)
{
    const size_t begin = c->sub[pair], n = c->sub[pair + 1] - begin;
    float r;
    memcpy(&r, c->next + begin * (c->id_bytes + sizeof(r)) + n * c->id_bytes + i * sizeof(r),
           sizeof(r));
    return r;
}
