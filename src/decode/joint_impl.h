/* SPDX-License-Identifier: MIT */
/* joint_impl.h - the joint's memory, shared by joint.c and joint_table.c.
 *
 * What takes long is cut in two for two threads, always at the same places, so that the results do
 * not depend on how many there are. */
#ifndef DM_DECODE_JOINT_IMPL_H
#define DM_DECODE_JOINT_IMPL_H

#include <assert.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/decode/joint.h"
#include "src/decode/lookup.h"

/* One pair of candidates i, m of heads 1 and 2 that the table holds: a cache line, so that two
 * threads can work on neighbours. */
struct pair {
    uint16_t i, m;
    uint32_t n;            /* triplets that begin with it */
    size_t at;             /* the first of them in the table */
    double p, A;           /* p1(i) p2(m), and A of its row */
    double seen, replaced; /* what its triplets weigh, and would without them in the table */
    double max;            /* the heaviest of them */
    uint32_t first;        /* where the candidates among them are listed, */
    uint16_t n_seen;       /* and how many they are */
    uint16_t unused;
};
static_assert(sizeof(struct pair) == DM_ALIGN, "a pair is a cache line");

/* type, field, elements; k = candidates per head, rows = rows of the grid, cells of the grid */
#define DM_JOINT_ARRAYS(X)                                                                         \
    X(struct pair, pair, k *k)                                                                     \
    X(uint32_t, first, k + 1)   /* the pairs of candidate i of head 1 */                           \
    X(int16_t, top, k *k)       /* exponent: no cell of pair p weighs 2^(top+1) or more */         \
    X(size_t, found, 2 * k * k) /* scratch: pairs' indices in the table, */                        \
    X(uint32_t, cell, k *k)     /* and cells of w23 */                                             \
    X(uint32_t, scratch, 2 * DM_LOOKUP_SCRATCH) /* of the look-ups of two threads */               \
    X(uint32_t, turn, k *k)                     /* the pairs, those with likely triplets first */  \
    X(double, unseen, k)                        /* weight of an unseen pair of head 1's i */       \
    X(double, w12, k *k)                        /* weight of the ratio of (i,j), heads 1 and 2 */  \
    X(double, w123, k *k)                       /* what it weighs in a chain: only for discount */ \
    X(double, w23, k *k)                        /* of heads 2 and 3: only for chains */            \
    X(double, A, rows)        /* (d0,d1) weight of a row; all weights are Z * J */                 \
    X(double, A_sum, k)       /* (d1) over d0 */                                                   \
    X(double, A_max, k)       /* largest over d0 */                                                \
    X(double, B, (k + 1) * k) /* (top_k+1,top_k): row j for j in a chain, the last row for all */  \
    X(double, B_sum, k + 1)   /* per row of B */                                                   \
    X(double, B_max, k + 1)   /*               */                                                  \
    X(uint32_t, seen, rows)   /* row r's seen n-grams begin there, */                              \
    X(uint16_t, n_seen, rows) /* so many */                                                        \
    X(double, seen_max, rows) /* and no more than this is their weight */                          \
    X(uint16_t, seen_k, 2 * cells + 1)  /* their last position: lists of two threads */            \
    X(uint32_t, seen_at, 2 * cells + 1) /* scratch: their place in the table's list */             \
    X(double, seen_w, 2 * cells)        /* their weight */                                         \
    X(double, J, cells)                 /* rows with filled[r], others are anything */             \
    X(bool, filled, rows)               /*                             */                          \
    X(uint16_t, ext, rows)              /* as in threshold.h */                                    \
    X(uint16_t, reach, rows)            /*                  */                                     \
    X(uint8_t, level, cells)            /*                   */                                    \
    X(double, row, k + 2)               /* scratch */                                              \
    X(uint32_t, out_cell, cells)        /* what collect and threshold return */                    \
    X(double, out_J, cells)             /*                                */

struct dm_joint {
    size_t top_k, n_max;
    const struct dm_cand *cand;
    struct dm_mask mask;
    bool pairs; /* order 2 */
    struct dm_grid g;
    double Z;                   /* sum of all weights */
    size_t n;                   /* heads of the step */
    bool chain;                 /* B has a row for each j */
    struct dm_lookup lookup[2]; /* the candidates of heads 2 and 3 */
    void *block;                /* of the arrays: */
#define X(type, field, n) type *field;
    DM_JOINT_ARRAYS(X)
#undef X
};

/* Nothing is seen and no row filled. */
static inline void dm_joint_clear_rows(struct dm_joint *j)
{
    const size_t rows = j->g.d0 * j->g.d1;
    memset(j->n_seen, 0, rows * sizeof(*j->n_seen));
    memset(j->seen_max, 0, rows * sizeof(*j->seen_max));
    memset(j->filled, 0, rows * sizeof(*j->filled));
}

/* Whether an unseen triplet weighs what its pairs do. */
static inline bool dm_joint_chains(const struct dm_joint *j)
{
    return j->mask.cooc && j->mask.unseen >= DM_UNSEEN_BACKOFF;
}

/* B's row for rows (.,m) of the grid, and its index. */
static inline size_t dm_joint_B_index(const struct dm_joint *j, size_t m)
{
    return j->chain ? m : j->top_k;
}

static inline double *dm_joint_B_row(const struct dm_joint *j, size_t m)
{
    return j->B + dm_joint_B_index(j, m) * j->top_k;
}

/* r^alpha of an unseen pair that begins with x1; any unseen n-gram's without chains. */
double dm_joint_unseen(const struct dm_joint *j, int32_t x1);

/* B's row b, which is w (n) times p (n), and its sum and maximum; w NULL: ones. */
void dm_joint_make_B(struct dm_joint *j, size_t b, const double *p, const double *w, size_t n);

/* The pairs of j->cand's n heads that the mask's table holds, and the weights of their ratios; B's
 * rows of a chain. */
void dm_joint_find_pairs(struct dm_joint *j, size_t n);

/* Lists and weighs what the table holds of the joint whose factors are made, which weigh `product`
 * in all and at most *max in a cell, sets Z and raises *max to the heaviest cell. False if it is
 * certain that no cell exceeds `cut`; not all is done then. */
bool dm_joint_make_seen(struct dm_joint *j, double cut, double product, double *max);

#endif
