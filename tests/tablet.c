/* SPDX-License-Identifier: MIT */
#include "tests/tablet.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n, size);
    assert(p);
    return p;
}

static int by_triplet(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    for (int i = 0; i < 3; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

/* The n - 2 triplets and, as the last one, the final pair with x3 = UINT32_MAX, sorted. */
static uint32_t (*sorted_triplets(const int32_t *ids, size_t n))[3]
{
    uint32_t(*t)[3] = zeroed(n, sizeof(*t));
    for (size_t i = 0; i + 1 < n; i++) {
        t[i][0] = (uint32_t)ids[i];
        t[i][1] = (uint32_t)ids[i + 1];
        t[i][2] = i + 2 < n ? (uint32_t)ids[i + 2] : UINT32_MAX;
    }
    qsort(t, n - 1, sizeof(*t), by_triplet);
    return t;
}

static void count_counts(struct dm_cooc *c)
{
    for (size_t p = 0; p < c->n_pairs; p++) {
        c->ones[1] += c->c2[p] == 1;
        c->twos[1] += c->c2[p] == 2;
    }
    for (size_t t = 0; t < c->n_triplets; t++) {
        c->ones[2] += c->c3[t] == 1;
        c->twos[2] += c->c3[t] == 2;
    }
}

void tablet_count(struct dm_cooc *c, const int32_t *ids, size_t n, size_t V)
{
    uint32_t(*t)[3] = sorted_triplets(ids, n);
    *c = (struct dm_cooc){.V = V, .order = 3, .N = {n, n - 1, n - 2}};
    c->c1 = zeroed(V, sizeof(*c->c1));
    c->row = zeroed(V + 1, sizeof(*c->row));
    c->sub = zeroed(n + 1, sizeof(*c->sub));
    c->x2 = zeroed(n, sizeof(*c->x2));
    c->c2 = zeroed(n, sizeof(*c->c2));
    c->x3 = zeroed(n, sizeof(*c->x3));
    c->c3 = zeroed(n, sizeof(*c->c3));
    for (size_t i = 0; i < n; i++)
        c->c1[ids[i]]++;
    for (size_t i = 0; i + 1 < n; i++) {
        const bool new_pair = !i || memcmp(t[i], t[i - 1], 2 * sizeof(t[0][0]));
        if (new_pair) {
            c->x2[c->n_pairs++] = t[i][1];
            c->row[t[i][0] + 1]++;
        }
        c->c2[c->n_pairs - 1]++;
        if (t[i][2] != UINT32_MAX) {
            if (new_pair || t[i][2] != t[i - 1][2])
                c->x3[c->n_triplets++] = t[i][2];
            c->c3[c->n_triplets - 1]++;
        }
        c->sub[c->n_pairs] = c->n_triplets;
    }
    for (size_t v = 0; v < V; v++)
        c->row[v + 1] += c->row[v];
    free(t);
    count_counts(c);
    const enum dm_status st = dm_cooc_index(c, NULL);
    assert(!st);
    (void)st;
}

void tablet_free(struct dm_cooc *c)
{
    free(c->c1);
    free(c->row);
    free(c->sub);
    free(c->x2);
    free(c->c2);
    free(c->x3);
    free(c->c3);
    dm_cooc_index_release(c);
}

static size_t find(const struct dm_cooc *c, int32_t x1, int32_t x2)
{
    for (uint64_t p = c->row[x1]; p < c->row[x1 + 1]; p++)
        if (c->x2[p] == (uint32_t)x2)
            return p;
    return SIZE_MAX;
}

/* Frequency of the product of n tokens. */
static double product(const struct dm_cooc *c, const int32_t *x, size_t n)
{
    double p = 1;
    for (size_t i = 0; i < n; i++)
        p *= (double)c->c1[x[i]] / (double)c->N[0];
    return p;
}

/* To 8 bits of mantissa, nearest even. */
static double rounded(double r)
{
    int e;
    const double m = frexp(r, &e);
    return ldexp(rint(m * 256), e - 8);
}

double tablet_r2(const struct dm_cooc *c, int32_t x1, int32_t x2)
{
    const size_t p = find(c, x1, x2);
    const int32_t x[] = {x1, x2};
    return p == SIZE_MAX ? 0 : rounded(c->c2[p] / (double)c->N[1] / product(c, x, 2));
}

double tablet_r3(const struct dm_cooc *c, int32_t x1, int32_t x2, int32_t x3)
{
    const size_t p = find(c, x1, x2);
    const int32_t x[] = {x1, x2, x3};
    for (uint64_t q = p == SIZE_MAX ? 0 : c->sub[p]; p != SIZE_MAX && q < c->sub[p + 1]; q++)
        if (c->x3[q] == (uint32_t)x3)
            return rounded(c->c3[q] / (double)c->N[2] / product(c, x, 3));
    return 0;
}

static uint32_t id_at(const struct dm_cooc *c, const unsigned char *ids, size_t i)
{
    uint32_t id = 0; // of 2 or 4 bytes, little-endian
    memcpy(&id, ids + i * c->id_bytes, c->id_bytes);
    return id;
}

static size_t stored_pair(const struct dm_cooc *c, uint32_t x1, uint32_t x2)
{
    for (size_t p = x1 < c->V ? c->rows[x1].pair : 0; x1 < c->V && p < c->rows[x1 + 1].pair; p++)
        if (id_at(c, c->x2_ids, p) == x2)
            return p;
    return SIZE_MAX;
}

double stored_r2(const struct dm_cooc *c, uint32_t x1, uint32_t x2)
{
    const size_t p = stored_pair(c, x1, x2);
    return p == SIZE_MAX ? 0 : (double)dm_cooc_ratio(c->pair[p].r2);
}

double stored_r3(const struct dm_cooc *c, uint32_t x1, uint32_t x2, uint32_t x3)
{
    const size_t p = stored_pair(c, x1, x2), n = p == SIZE_MAX ? 0 : dm_cooc_triplets(c, p);
    const unsigned char *ids =
        n ? c->next + dm_cooc_triplet(c, x1, p) * (c->id_bytes + sizeof(uint16_t)) : NULL;
    for (size_t i = 0; i < n; i++)
        if (id_at(c, ids, i) == x3) {
            uint16_t r;
            memcpy(&r, ids + n * c->id_bytes + i * sizeof(r), sizeof(r));
            return (double)dm_cooc_ratio(r);
        }
    return 0;
}

void tablet_discount(struct dm_cooc *c)
{
    dm_cooc_index_release(c);
    c->discounting = true;
    const enum dm_status st = dm_cooc_index(c, NULL);
    assert(!st);
    (void)st;
}

double stored_discounted(const struct dm_cooc *c, const int32_t *x, size_t n)
{
    const uint32_t x1 = (uint32_t)x[0], x2 = (uint32_t)x[1];
    const size_t p = stored_pair(c, x1, x2);
    if (n == 2)
        return p != SIZE_MAX ? (double)dm_cooc_ratio(c->pair[p].r2)
                             : (x1 < c->V ? (double)c->left1[x1] : 1);
    const double r3 = stored_r3(c, x1, x2, (uint32_t)x[2]);
    return r3 > 0 ? r3
                  : stored_discounted(c, x, 2) * stored_discounted(c, x + 1, 2) *
                        (p != SIZE_MAX ? (double)dm_cooc_ratio(c->left2[p]) : 1);
}

static double discount(const struct dm_cooc *c, size_t order)
{
    const double ones = (double)c->ones[order - 1], twos = (double)c->twos[order - 1];
    return ones / (ones + 2 * twos);
}

/* max(count of x - D, 0) / all + g * shorter, where the list [begin, end) holds what continues the
 * history and g is what its counts leave of 1. */
static double interpolated(const uint32_t *list, const uint32_t *count, uint64_t begin,
                           uint64_t end, uint32_t x, double d, double all, double shorter)
{
    double own = 0, left = all;
    for (uint64_t i = begin; i < end; i++) {
        left -= count[i] - d;
        own = list[i] == x ? count[i] - d : own;
    }
    return own / all + left / all * shorter;
}

/* P(x2 | x1) */
static double p2_of(const struct dm_cooc *c, int32_t x1, int32_t x2)
{
    const double p = (double)c->c1[x2] / (double)c->N[0];
    return c->c1[x1] ? interpolated(c->x2, c->c2, c->row[x1], c->row[x1 + 1], (uint32_t)x2,
                                    discount(c, 2), (double)c->c1[x1], p)
                     : p;
}

double tablet_discounted(const struct dm_cooc *c, const int32_t *x, size_t n)
{
    const double p2 = p2_of(c, x[0], x[1]);
    if (n == 2)
        return p2 / product(c, x + 1, 1);
    const size_t p = find(c, x[0], x[1]);
    double p3 = p2_of(c, x[1], x[2]);
    if (p != SIZE_MAX)
        p3 = interpolated(c->x3, c->c3, c->sub[p], c->sub[p + 1], (uint32_t)x[2], discount(c, 3),
                          c->c2[p], p3);
    return p2 * p3 / product(c, x + 1, 2);
}
