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

/* What the check at the end must know of a block: rows and ids at both ends, sums of the counts of
 * these rows' pairs, of all pairs and of all triplets. */
struct dm_cooc_block {
    struct dm_h5_extent x;
    uint32_t first, last, first_id, last_id;
    uint64_t first_sum, last_sum, total[2];
};

/* n1 / c1 of a token, and the most that an n-gram with it can be counted. */
struct dm_cooc_token {
    double n1_over_c1;
    uint64_t most;
};

/* Fills in the pairs and triplets of block b, data (n, and DM_COOC_TAKE_PAD readable bytes more),
 * row (V+1) of the rows that begin in it, pairs_of (V) of those that lie in it but for the first
 * and last, and *out but for x. token (V); ratio: room for the block's triplets and
 * DM_COOC_TAKE_PAD more. False, with *out as it was, if the block is not of order 3 with ids of 2
 * bytes, and if anything in it is wrong or uncommon; nothing outside the block is written then
 * either. */
#define DM_COOC_TAKE_PAD 16u
struct dm_cooc_reader;
bool dm_cooc_take(struct dm_cooc *c, const struct dm_cooc_reader *r, size_t b, const uint8_t *data,
                  size_t n, const struct dm_cooc_token *token, uint16_t *ratio, uint64_t *row,
                  uint64_t *pairs_of, struct dm_cooc_block *out);

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
    const int64_t y = (int64_t)x - BIAS;
    return y < 1 ? 1 : y > LARGEST ? LARGEST : (uint16_t)y;
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
