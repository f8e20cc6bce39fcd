/* SPDX-License-Identifier: MIT */
/* cooc_impl.h - what the parts of the co-occurrence table's reader share. */
#ifndef DM_IO_COOC_IMPL_H
#define DM_IO_COOC_IMPL_H

#include <string.h>

#include "src/io/cooc.h"
#include "src/io/h5.h"

/* Pairs and triplets that lie next to each other: the whole table, or a block of it. */
struct dm_cooc_view {
    size_t pair, triplet; /* numbers of the first ones in the table */
    const uint32_t *x2, *x3, *c2, *c3;
    const uint64_t *sub; /* numbers in the table; one more than pairs */
};

/* Attributes of an open file; c->path is set. */
enum dm_status dm_cooc_read_attributes(struct dm_cooc *c, struct dm_h5 *f, bool v1,
                                       struct dm_err *e);

/* Unigrams and totals, once c1 is there. */
enum dm_status dm_cooc_check_totals(const struct dm_cooc *c, struct dm_err *e);

/* The n continuations of one n-gram with `most` occurrences, the first of them number `at`: ids
 * ascend and are < V, counts are at most those of the ids. Adds the counts to *total. */
enum dm_status dm_cooc_check_list(const struct dm_cooc *c, const char *name, size_t at,
                                  const uint32_t *x, const uint32_t *count, size_t n, uint64_t most,
                                  uint64_t *total, struct dm_err *e);

/* Frees what dm_cooc_load() gives beyond c1. */
void dm_cooc_drop_counts(struct dm_cooc *c);

/* Ends row (V+1) at n_pairs and points rows that are UINT64_MAX, being without pairs, at the next
 * one's begin. */
void dm_cooc_close_rows(const struct dm_cooc *c, uint64_t *row);

/* The table's arrays of ratios, for V, n_pairs and n_triplets. */
enum dm_status dm_cooc_index_new(struct dm_cooc *c, struct dm_err *e);

/* Fills in the pairs [begin, end) of x1, which the view holds, and their triplets. For different
 * pairs by different threads. n1_over_c1 (V). */
void dm_cooc_index_fill(struct dm_cooc *c, const struct dm_cooc_view *v, const double *n1_over_c1,
                        size_t x1, size_t begin, size_t end);

/* Makes the rest, once all pairs are filled in; row (V+1) as in struct dm_cooc. pairs_of (V): sums
 * of the counts of each row's pairs, only read when discounting. DM_ENOMEM, DM_EUNSUPPORTED. */
enum dm_status dm_cooc_index_finish(struct dm_cooc *c, const uint64_t *row,
                                    const uint64_t *pairs_of, struct dm_err *e);

/* c->discount from the counts of counts. */
void dm_cooc_set_discounts(struct dm_cooc *c);

/* What the rows' pairs leave of 1, and with it the ratios: until then r2 and r3 of the index hold
 * the first terms of P(x2|x1) / p(x2) and P(x3|x1,x2) / p(x3).
 * pairs_of (V). */
void dm_cooc_discount(struct dm_cooc *c, const uint64_t *pairs_of);

/* r >= 0 to a stored ratio, nearest even, straight from double: by way of float it would be rounded
 * twice. The smallest one above 0 for what would be 0. */
static inline uint16_t dm_cooc_to_ratio(double r)
{
    enum { DROPPED = 52 - 7, LARGEST = 0x7f7f, BIAS = (1023 - 127) << 7 };
    uint64_t x;
    memcpy(&x, &r, sizeof(x));
    x += ((uint64_t)1 << (DROPPED - 1)) - 1 + (x >> DROPPED & 1);
    x >>= DROPPED;
    return x <= BIAS ? 1 : x - BIAS > LARGEST ? LARGEST : (uint16_t)(x - BIAS);
}

/* Number i of ids of id_bytes each. */
static inline uint32_t dm_cooc_id(const unsigned char *ids, size_t id_bytes, size_t i)
{
    uint16_t low;
    uint32_t id;
    if (id_bytes == sizeof(id)) {
        memcpy(&id, ids + i * sizeof(id), sizeof(id));
        return id;
    }
    memcpy(&low, ids + i * sizeof(low), sizeof(low));
    return low;
}

/* The id of pair p of the index. */
static inline uint32_t dm_cooc_pair_id(const struct dm_cooc *c, size_t p)
{
    return dm_cooc_id(c->x2_ids, c->id_bytes, p);
}

/* n1 / c1 of every token (V), heap memory of the caller; NULL when out of memory. */
double *dm_cooc_n1_over_c1(const struct dm_cooc *c);

#endif
