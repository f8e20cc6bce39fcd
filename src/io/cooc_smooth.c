/* SPDX-License-Identifier: MIT */
#include "src/io/cooc_smooth.h"

#include <float.h>
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/base/par.h"

struct smoothing {
    struct dm_cooc_smooth *s;
    const struct dm_cooc *c;
};

static float to_float(double r)
{
    return r < (double)FLT_MAX ? (float)r : FLT_MAX;
}

static double discounted(uint32_t count, double d)
{
    return (double)count > d ? (double)count - d : 0.0;
}

/* What a list leaves of 1, for a history that occurs `all` times. */
static float left_over(const uint32_t *count, uint64_t begin, uint64_t end, double d, uint64_t all)
{
    double sum = 0.0;
    for (uint64_t i = begin; i < end; i++)
        sum += discounted(count[i], d);
    return all ? (float)(1.0 - sum / (double)all) : 1.0f;
}

/* Rows of pairs: g1, g2 and r2. */
static void smooth_pairs(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct smoothing *m = ctx;
    const struct dm_cooc *c = m->c;
    struct dm_cooc_smooth *s = m->s;
    const double n1 = (double)c->N[0];
    for (size_t x1 = begin; x1 < end; x1++) {
        const uint64_t from = c->row[x1], to = c->row[x1 + 1];
        s->g1[x1] = left_over(c->c2, from, to, s->discount[0], c->c1[x1]);
        for (uint64_t p = from; p < to; p++) {
            const double own = discounted(c->c2[p], s->discount[0]) / (double)c->c1[x1];
            s->r2[p] = to_float(own / ((double)c->c1[c->x2[p]] / n1) + (double)s->g1[x1]);
            s->g2[p] = left_over(c->c3, c->sub[p], c->sub[p + 1], s->discount[1], c->c2[p]);
        }
    }
}

/* The triplets of those rows, once all r2 are known. */
static void smooth_triplets(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct smoothing *m = ctx;
    const struct dm_cooc *c = m->c;
    struct dm_cooc_smooth *s = m->s;
    const double n1 = (double)c->N[0];
    for (uint64_t p = c->row[begin]; p < c->row[end]; p++)
        for (uint64_t t = c->sub[p]; t < c->sub[p + 1]; t++) {
            const double own = discounted(c->c3[t], s->discount[1]) / (double)c->c2[p];
            const double shorter = (double)dm_cooc_smooth_r2(s, c, c->x2[p], c->x3[t]);
            const double p3 = (double)c->c1[c->x3[t]] / n1;
            s->r3[t] = to_float((double)s->r2[p] * (own / p3 + (double)s->g2[p] * shorter));
        }
}

static double discount(const struct dm_cooc *c, size_t order)
{
    const double ones = (double)c->ones[order - 1], twos = (double)c->twos[order - 1];
    return ones > 0.0 ? ones / (ones + 2.0 * twos) : 0.0;
}

enum dm_status dm_cooc_smooth(struct dm_cooc_smooth *s, const struct dm_cooc *c, struct dm_err *e)
{
    struct smoothing m = {s, c};
    *s = (struct dm_cooc_smooth){.discount = {discount(c, 2), discount(c, 3)}};
    s->g1 = dm_alloc(c->V, sizeof(*s->g1));
    s->g2 = dm_alloc(c->n_pairs + 1, sizeof(*s->g2));
    s->r2 = dm_alloc(c->n_pairs + 1, sizeof(*s->r2));
    s->r3 = dm_alloc(c->n_triplets + 1, sizeof(*s->r3));
    if (!s->g1 || !s->g2 || !s->r2 || !s->r3)
        return dm_fail(e, DM_ENOMEM, "%s: no memory to smooth %zu pairs and %zu triplets", c->path,
                       c->n_pairs, c->n_triplets);
    dm_par_for(c->V, 64, smooth_pairs, &m);
    dm_par_for(c->V, 64, smooth_triplets, &m);
    return DM_OK;
}

void dm_cooc_smooth_release(struct dm_cooc_smooth *s)
{
    free(s->g1);
    free(s->g2);
    free(s->r2);
    free(s->r3);
    *s = (struct dm_cooc_smooth){0};
}

float dm_cooc_smooth_r2(const struct dm_cooc_smooth *s, const struct dm_cooc *c, uint32_t x1,
                        uint32_t x2)
{
    const size_t p = dm_cooc_find(c, x1, x2);
    return p != SIZE_MAX ? s->r2[p] : x1 < c->V ? s->g1[x1] : 1.0f;
}

float dm_cooc_smooth_r3(const struct dm_cooc_smooth *s, const struct dm_cooc *c, uint32_t x1,
                        uint32_t x2, uint32_t x3)
{
    const size_t p = dm_cooc_find(c, x1, x2), t = dm_cooc_find3(c, p, x3);
    if (t != SIZE_MAX)
        return s->r3[t];
    const float g = p == SIZE_MAX ? 1.0f : s->g2[p];
    return to_float((double)dm_cooc_smooth_r2(s, c, x1, x2) * (double)g *
                    (double)dm_cooc_smooth_r2(s, c, x2, x3));
}
