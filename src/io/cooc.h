/* SPDX-License-Identifier: MIT */
/* cooc.h - the co-occurrence table as decoding reads it: sorted compressed sparse rows.
 *
 * r_n(x1..xn) = p^(x1..xn) / (p^(x1) * ... * p^(xn)), DynaMo eq. 3, from exact counts:
 * p^(x) = c(x) / N1, p^(x1,x2) = c(x1,x2) / N2, p^(x1,x2,x3) = c(x1,x2,x3) / N3, where N_n is the
 * number of n-grams counted before pruning (none spans a document separator). The file, of version
 * 1 or 2, is described in data/FORMAT.md; data/cooc_build.h writes it. */
#ifndef DM_IO_COOC_H
#define DM_IO_COOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#define DM_COOC_FORMAT "dynamo-cooc"
#define DM_COOC_VERSION 2
#define DM_COOC_ORDER_MAX 4

/* What decoding needs of a pair; ratios are rounded to bfloat16, see dm_cooc_ratio(). */
struct dm_cooc_pair {
    uint32_t at;         /* number of its first triplet, modulo 2^32 */
    uint16_t r2, r3_max; /* its ratio; the largest of its triplets', 0 without any */
};

/* What decoding needs of a row x1. */
struct dm_cooc_row {
    uint64_t pair, triplet; /* numbers of its first ones */
    uint32_t map;           /* 0, or 1 + number of its map, if it is long */
};

/* 32 ids of a row: which of them it has, and how many of lower ids. */
struct dm_cooc_map {
    uint32_t bits, before;
};

/* Counts (row to c4) are there or not, ratios (rows to map) are there or not. The ratios are those
 * of the counts, or `discounting` was set and they are smoothed by absolute discounting: every
 * count gives up D_n = n1 / (n1 + 2 n2) (n1, n2: n-grams that occur once, twice), and what is given
 * up, by pruning too, goes to the next shorter history:
 *
 *   P(x2|x1)    = (c(x1,x2) - D_2) / c(x1) + g(x1) p(x2)                 no first term if unseen
 *   P(x3|x1,x2) = (c(x1,x2,x3) - D_3) / c(x1,x2) + g(x1,x2) P(x3|x2)     g = 1 if (x1,x2) is unseen
 *
 * with g such that each adds up to 1 over all tokens. Then r_2 = P(x2|x1) / p(x2) and
 * r_3 = P(x2|x1) P(x3|x1,x2) / (p(x2) p(x3)), so that an unseen pair has r_2 = g(x1), and an unseen
 * triplet r_3 = r_2(x1,x2) g(x1,x2) r_2(x2,x3). */
struct dm_cooc {
    size_t V;     /* token ids are < V */
    size_t order; /* 2: no triplets were counted; 3; 4 */
    size_t n_pairs, n_triplets, n_quads;
    uint64_t N[DM_COOC_ORDER_MAX];             /* n-grams counted, by order */
    uint64_t min_count[DM_COOC_ORDER_MAX - 1]; /* what pruning kept: pairs from [0], triplets from
                                                  [1], .., and what begins a longer one kept */
    uint64_t ones[DM_COOC_ORDER_MAX], twos[DM_COOC_ORDER_MAX]; /* n-grams counted once, twice,
                                                                  before pruning, by order */
    bool complete;                                             /* nothing was pruned */
    uint64_t *c1;                                              /* (V) unigram counts */
    uint64_t *row;  /* (V+1) pairs of x1 are [row[x1], row[x1+1]) */
    uint32_t *x2;   /* (n_pairs) sorted within a row */
    uint32_t *c2;   /* (n_pairs) counts, saturating at UINT32_MAX is refused at build time */
    uint64_t *sub;  /* (n_pairs+1) triplets of pair p are [sub[p], sub[p+1]) */
    uint32_t *x3;   /* (n_triplets) sorted within a pair */
    uint32_t *c3;   /* (n_triplets) */
    uint64_t *sub3; /* (n_triplets+1) quadruples of triplet t, order 4 only */
    uint32_t *x4;   /* (n_quads) sorted within a triplet */
    uint32_t *c4;   /* (n_quads) */
    /* The ratios and what finds them: */
    size_t id_bytes;           /* 2 if V <= 65536, else 4: of the ids in x2_ids and next */
    struct dm_cooc_row *rows;  /* (V+1) */
    unsigned char *x2_ids;     /* (n_pairs) */
    struct dm_cooc_pair *pair; /* (n_pairs+1) */
    unsigned char *next;       /* the pair whose first triplet is t at t * (id_bytes + 2): its n ids
                                  x3, then the n ratios r3 */
    struct dm_cooc_map *map;   /* maps of map_words entries */
    size_t map_words;
    bool discounting;
    double discount[2];         /* D of pairs, triplets; 0 unless discounting, as the next three */
    float *left1;               /* (V) g(x1) */
    uint16_t *left2;            /* (n_pairs) g(x1,x2), as ratios are stored */
    struct dm_cooc *discounted; /* the same table with smoothed ratios, or NULL; owned */
    char *tokenizer_hash;       /* of the shards counted */
    char *provenance;           /* JSON text: pruning rule, sources */
    char *path;
};

/* Loads and checks everything: pointers ascending, ids < V and sorted, counts > 0 and no larger
 * than those of the parts they consist of, sums. Every triplet's leading pair is present in the
 * table. The counts are there, the ratios are not. Release with dm_cooc_release(), after a failure
 * too. DM_EIO, DM_EFORMAT, DM_ESHAPE, DM_EUNSUPPORTED (a newer version), DM_ENOMEM. */
enum dm_status dm_cooc_load(struct dm_cooc *c, const char *path, struct dm_err *e);

/* The same checks, but what stays are the ratios: c1, rows to map, V, order and the numbers of
 * n-grams. In a fraction of the time and a third of the memory, block by block, in all threads.
 * Quadruples are checked and left out. */
enum dm_status dm_cooc_load_ratios(struct dm_cooc *c, const char *path, struct dm_err *e);

/* As above with the table's own ratios if `plain`, smoothed ones in c->discounted if `discounted`
 * too; with smoothed ones only if that alone is set. Smoothing takes six times as long again. A
 * table of version 1 has no counts of counts to estimate D from: DM_EUNSUPPORTED. */
enum dm_status dm_cooc_load_for(struct dm_cooc *c, const char *path, bool plain, bool discounted,
                                struct dm_err *e);
void dm_cooc_release(struct dm_cooc *c);

/* Adds the ratios to a table of counts, smoothed ones if c->discounting was set; same bytes as
 * loading them. DM_ENOMEM, DM_EUNSUPPORTED (2^32 triplets of one token); released by
 * dm_cooc_release(), or alone by dm_cooc_index_release(). */
enum dm_status dm_cooc_index(struct dm_cooc *c, struct dm_err *e);
void dm_cooc_index_release(struct dm_cooc *c);

/* Bytes that the ratios of a table of counts take in memory. */
uint64_t dm_cooc_index_bytes(const struct dm_cooc *c);

/* A stored ratio: bfloat16, at most 2^-8 = 0.4 % off, and the largest one where that would
 * overflow. Counts of a few are not known to that. */
static inline float dm_cooc_ratio(uint16_t r)
{
    const union {
        uint32_t bits;
        float r;
    } x = {(uint32_t)r << 16};
    return x.r;
}

/* Triplets of pair p, and the first one's number, for a pair of x1. */
static inline size_t dm_cooc_triplets(const struct dm_cooc *c, size_t p)
{
    return (uint32_t)(c->pair[p + 1].at - c->pair[p].at);
}

static inline size_t dm_cooc_triplet(const struct dm_cooc *c, size_t x1, size_t p)
{
    const uint64_t first = c->rows[x1].triplet;
    return first + (uint32_t)(c->pair[p].at - (uint32_t)first);
}

/* Index of the pair (x1,x2) or SIZE_MAX; binary search in the row. */
size_t dm_cooc_find(const struct dm_cooc *c, uint32_t x1, uint32_t x2);

/* Index of the triplet (pair,x3) or SIZE_MAX. */
size_t dm_cooc_find3(const struct dm_cooc *c, size_t pair, uint32_t x3);

#endif
