/* SPDX-License-Identifier: MIT */
#include "src/decode/joint.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/decode/lookup.h"

/* Heavier than this, a cell can be more than 0 in the 8-bit image; see threshold.c. */
#define HEAVY (DM_LEVEL_HALF * (1 - 1e-9))
#define NO_PAIR SIZE_MAX

/* type, field, elements; k = candidates per head, rows = rows of the grid, cells of the grid */
#define DM_JOINT_ARRAYS(X)                                                                  \
    X(size_t, pair12, k *k)        /* the table's pair of candidates (j,k) of heads 1, 2 */ \
    X(size_t, pair23, k *k)        /* of heads 2, 3: only for backoff */                    \
    X(double, A, rows)             /* (d0,d1) weight of a row; all weights are Z * J */     \
    X(double, B, k *k)             /* (d1,d2), or (d2) for all j */                         \
    X(double, B_sum, k)            /* per row of B */                                       \
    X(double, B_max, k)            /*               */                                      \
    X(uint32_t, seen, rows + 1)    /* the seen n-grams of row r: [seen[r], seen[r+1]) */    \
    X(uint16_t, seen_k, cells + 1) /* their last position */                                \
    X(size_t, seen_at, cells + 1)  /* their index in the table */                           \
    X(double, seen_w, cells)       /* their weight */                                       \
    X(double, seen_max, rows)      /* the largest of a row */                               \
    X(double, J, cells)            /* rows with filled[r], others are anything */           \
    X(bool, filled, rows)          /*                             */                        \
    X(uint16_t, ext, rows)         /* as in threshold.h */                                  \
    X(uint16_t, reach, rows)       /*                  */                                   \
    X(uint8_t, level, cells)       /*                   */                                  \
    X(double, row, k + 2)          /* scratch */                                            \
    X(uint32_t, out_cell, cells)   /* what collect and threshold return */                  \
    X(double, out_J, cells)        /*                                */

struct dm_joint {
    size_t top_k, n_max;
    const struct dm_cand *cand;
    struct dm_mask mask;
    double unseen; /* weight of an unseen n-gram, r^alpha */
    bool pairs;    /* order 2 */
    struct dm_grid g;
    double Z;                   /* sum of all weights */
    size_t B_stride;            /* 0: one row of B for all j */
    struct dm_lookup lookup[2]; /* the candidates of heads 2 and 3 */
#define X(type, field, n) type *field;
    DM_JOINT_ARRAYS(X)
#undef X
};

enum dm_status dm_joint_new(struct dm_joint **out, size_t V, size_t top_k, size_t n_max,
                            struct dm_err *e)
{
    assert(top_k > 0 && top_k <= DM_TOP_K_MAX && n_max > 0 && n_max <= DM_ORDER_MAX);
    struct dm_joint *j = *out = dm_alloc(1, sizeof(*j));
    if (!j)
        return dm_fail(e, DM_ENOMEM, "out of memory for the joint distribution");
    const size_t k = n_max > 1 ? top_k : 0, rows = n_max > 2 ? k * k : k, cells = rows * k;
    j->top_k = top_k;
    j->n_max = n_max;
    enum dm_status st = DM_OK;
    for (size_t i = 0; i + 1 < n_max && !st; i++)
        st = dm_lookup_init(&j->lookup[i], V, e);
    bool short_of = false;
#define X(type, field, n) short_of |= !(j->field = dm_alloc(n, sizeof(type)));
    DM_JOINT_ARRAYS(X)
#undef X
    if (!st && short_of)
        st = dm_fail(e, DM_ENOMEM, "out of memory for a joint of %zu cells", cells);
    if (st) {
        dm_joint_free(j);
        *out = NULL;
    }
    return st;
}

void dm_joint_free(struct dm_joint *j)
{
    if (!j)
        return;
    for (size_t i = 0; i < DM_ORDER_MAX - 1; i++)
        dm_lookup_release(&j->lookup[i]);
#define X(type, field, n) free(j->field);
    DM_JOINT_ARRAYS(X)
#undef X
    free(j);
}

struct dm_grid dm_joint_grid(const struct dm_joint *j)
{
    return j->g;
}

/* pair (a->n, nb) = the table's pairs, NO_PAIR for unseen ones; l holds the second head. */
static void find_pairs(size_t *pair, const struct dm_cand *a, size_t nb, struct dm_lookup *l,
                       const struct dm_cooc *c)
{
    uint16_t pos[DM_TOP_K_MAX];
    uint32_t at[DM_TOP_K_MAX + 1];
    for (size_t i = 0; i < a->n; i++)
        if ((size_t)a->id[i] < c->V)
            __builtin_prefetch(c->x2 + c->row[a->id[i]]);
    for (size_t i = 0; i < a->n; i++, pair += nb) {
        for (size_t j = 0; j < nb; j++)
            pair[j] = NO_PAIR;
        if ((size_t)a->id[i] >= c->V)
            continue;
        const size_t begin = c->row[a->id[i]];
        const size_t m = dm_lookup_row(l, c->x2 + begin, c->row[a->id[i] + 1] - begin, pos, at);
        for (size_t s = 0; s < m; s++) {
            pair[pos[s]] = begin + at[s];
            __builtin_prefetch(c->sub + begin + at[s]);
        }
    }
}

void dm_joint_begin(struct dm_joint *j, const struct dm_cand *cand, size_t n,
                    const struct dm_mask *mask)
{
    assert(n <= j->n_max);
    j->cand = cand;
    j->mask = *mask;
    if (mask->alpha == 0)
        j->mask.cooc = NULL;
    j->unseen = !j->mask.cooc                    ? 1
                : mask->unseen == DM_UNSEEN_ZERO ? 0
                                                 : pow(1 - mask->lambda, mask->alpha);
    for (size_t i = 0; i < n; i++)
        assert(cand[i].n > 0 && cand[i].n <= j->top_k);
    if (!j->mask.cooc || n < 2)
        return;
    dm_lookup_set(&j->lookup[0], &cand[1]);
    find_pairs(j->pair12, &cand[0], cand[1].n, &j->lookup[0], j->mask.cooc);
    if (n < 3)
        return;
    dm_lookup_set(&j->lookup[1], &cand[2]);
    if (mask->unseen == DM_UNSEEN_BACKOFF)
        find_pairs(j->pair23, &cand[1], cand[2].n, &j->lookup[1], j->mask.cooc);
}

/* Weight of an n-gram that the table holds, r^alpha. */
static double weight(const struct dm_mask *m, double r)
{
    if (m->unseen == DM_UNSEEN_MIX)
        r = m->lambda * r + (1 - m->lambda);
    return m->alpha == 1 ? r : m->alpha == 0.5 ? sqrt(r) : pow(r, m->alpha);
}

static double pair_weight(const struct dm_joint *j, size_t pair)
{
    return pair == NO_PAIR ? j->unseen : weight(&j->mask, (double)j->mask.cooc->r2[pair]);
}

/* A and B: what every cell would weigh if its n-gram were not in the table. */
static void make_factors(struct dm_joint *j, size_t n)
{
    const struct dm_cand *c = j->cand, *last = &c[n - 1];
    const struct dm_grid g = j->g;
    const bool chain = n == 3 && j->mask.cooc && j->mask.unseen == DM_UNSEEN_BACKOFF;
    for (size_t r = 0; r < g.d0 * g.d1; r++) {
        if (n == 2)
            j->A[r] = c[0].p[r] * j->unseen;
        else
            j->A[r] = c[0].p[r / g.d1] * c[1].p[r % g.d1] *
                      (chain ? pair_weight(j, j->pair12[r]) : j->unseen);
    }
    j->B_stride = chain ? g.d2 : 0;
    for (size_t i = 0; i < (chain ? g.d1 : 1); i++) {
        double *B = j->B + i * g.d2, sum = 0, max = 0;
        for (size_t k = 0; k < g.d2; k++) {
            B[k] = last->p[k] * (chain ? pair_weight(j, j->pair23[i * g.d2 + k]) : 1);
            sum += B[k];
            max = B[k] > max ? B[k] : max;
        }
        j->B_sum[i] = sum;
        j->B_max[i] = max;
    }
}

/* B's row for row r of the grid, and its index. */
static size_t B_index(const struct dm_joint *j, size_t r)
{
    return j->B_stride ? r % j->g.d1 : 0;
}

/* Lists the pairs of row r after the n n-grams of the rows before; returns how many there are now.
 */
static size_t list_pairs(struct dm_joint *j, size_t r, size_t n)
{
    const size_t *pair = j->pair12 + r * j->g.d2;
    for (size_t k = 0; k < j->g.d2; k++) {
        j->seen_k[n] = (uint16_t)k;
        j->seen_at[n] = pair[k];
        n += pair[k] != NO_PAIR;
    }
    return n;
}

/* The same for triplets. Each r3 is a cache miss, so it is asked for here and read later. */
static size_t list_triplets(struct dm_joint *j, size_t r, size_t n)
{
    uint32_t at[DM_TOP_K_MAX + 1];
    const struct dm_cooc *c = j->mask.cooc;
    const size_t p = j->pair12[r];
    if (p == NO_PAIR)
        return n;
    const size_t begin = c->sub[p];
    const size_t m = dm_lookup_row(&j->lookup[1], c->x3 + begin, c->sub[p + 1] - begin,
                                   j->seen_k + n, at);
    for (size_t s = 0; s < m; s++) {
        j->seen_at[n + s] = begin + at[s];
        __builtin_prefetch(c->r3 + begin + at[s]);
    }
    return n + m;
}

/* Asks for what list_triplets(r) will read: it lies anywhere in the table. */
static void prefetch_triplets(const struct dm_joint *j, size_t r)
{
    enum { LINE = 64 / sizeof(uint32_t), LINES = 8 };
    const struct dm_cooc *c = j->mask.cooc;
    if (r >= j->g.d0 * j->g.d1 || j->pair12[r] == NO_PAIR)
        return;
    const uint64_t begin = c->sub[j->pair12[r]], end = c->sub[j->pair12[r] + 1];
    for (uint64_t at = begin; at < end && at < begin + LINES * LINE; at += LINE)
        __builtin_prefetch(c->x3 + at);
    if (end > begin)
        __builtin_prefetch(c->x3 + end - 1);
}

/* Weighs the n-grams of row r and adds to Z: the total of the product A B with the seen cells
 * exchanged. z = {product, seen, replaced}. */
static void weigh_row(struct dm_joint *j, size_t r, double *z)
{
    const size_t b = B_index(j, r);
    const double a = j->A[r], *B = j->B + b * j->B_stride;
    const struct dm_cand *c = j->cand;
    const bool pairs = j->pairs;
    const double p = pairs ? c[0].p[r] : c[0].p[r / j->g.d1] * c[1].p[r % j->g.d1];
    const double *last = c[pairs ? 1 : 2].p;
    const float *ratio = !j->mask.cooc ? NULL : pairs ? j->mask.cooc->r2 : j->mask.cooc->r3;
    double seen = 0, replaced = 0, max = 0;
    for (size_t s = j->seen[r]; s < j->seen[r + 1]; s++) {
        const size_t k = j->seen_k[s];
        const double w = p * last[k] * weight(&j->mask, (double)ratio[j->seen_at[s]]);
        seen += j->seen_w[s] = w;
        replaced += a * B[k];
        max = w > max ? w : max;
    }
    j->seen_max[r] = max;
    z[0] += a * j->B_sum[b];
    z[1] += seen;
    z[2] += replaced;
}

/* Lists and weighs what the table holds. Rows are asked for, listed and weighed AHEAD rows apart,
 * so that the cache misses of many rows overlap. */
static void make_seen(struct dm_joint *j)
{
    enum { AHEAD = 12 };
    const size_t rows = j->g.d0 * j->g.d1;
    double z[3] = {0};
    j->seen[0] = 0;
    for (size_t r = 0; r < rows + AHEAD; r++) {
        if (r < rows) {
            size_t n = j->seen[r];
            if (j->mask.cooc && j->pairs) {
                n = list_pairs(j, r, n);
            } else if (j->mask.cooc) {
                prefetch_triplets(j, r + AHEAD);
                n = list_triplets(j, r, n);
            }
            j->seen[r + 1] = (uint32_t)n;
        }
        if (r >= AHEAD)
            weigh_row(j, r - AHEAD, z);
    }
    j->Z = z[1] + (z[0] > z[2] ? z[0] - z[2] : 0);
}

bool dm_joint_order(struct dm_joint *j, size_t n)
{
    assert(n >= 2 && n <= j->n_max);
    const struct dm_cand *c = j->cand;
    j->g = n == 2 ? (struct dm_grid){1, c[0].n, c[1].n} : (struct dm_grid){c[0].n, c[1].n, c[2].n};
    j->pairs = n == 2;
    make_factors(j, n);
    make_seen(j);
    memset(j->filled, 0, j->g.d0 * j->g.d1 * sizeof(*j->filled));
    return j->Z > 0 && isfinite(1 / j->Z);
}

static const double *fill_row(struct dm_joint *j, size_t r)
{
    double *x = j->J + r * j->g.d2;
    if (j->filled[r])
        return x;
    const double a = j->A[r] / j->Z, *B = j->B + B_index(j, r) * j->B_stride;
    for (size_t k = 0; k < j->g.d2; k++)
        x[k] = a * B[k];
    for (size_t s = j->seen[r]; s < j->seen[r + 1]; s++)
        x[j->seen_k[s]] = j->seen_w[s] / j->Z;
    j->filled[r] = true;
    return x;
}

/* No cell of row r is above this, but for rounding. */
static double row_bound(const struct dm_joint *j, size_t r)
{
    const double w = j->A[r] * j->B_max[B_index(j, r)];
    return (w > j->seen_max[r] ? w : j->seen_max[r]) / j->Z * (1 + 1e-12);
}

double dm_joint_max(struct dm_joint *j)
{
    double max = 0;
    for (size_t r = 0; r < j->g.d0 * j->g.d1; r++) {
        if (row_bound(j, r) <= max)
            continue;
        const double *x = fill_row(j, r);
        for (size_t k = 0; k < j->g.d2; k++)
            max = x[k] > max ? x[k] : max;
    }
    return max;
}

void dm_joint_collect(struct dm_joint *j, double cut, struct dm_cells *out)
{
    *out = (struct dm_cells){0, j->out_cell, j->out_J};
    for (size_t r = 0; r < j->g.d0 * j->g.d1; r++) {
        const double bound = row_bound(j, r);
        if (bound == 0 || bound < cut)
            continue;
        const double *x = fill_row(j, r);
        for (size_t k = 0; k < j->g.d2; k++) {
            if (x[k] < cut || x[k] == 0)
                continue;
            out->cell[out->n] = (uint32_t)(r * j->g.d2 + k);
            out->J[out->n++] = x[k];
        }
    }
}

/* Extents without filling rows: of the product as if nothing were seen, and of what is seen. */
static void bound_extents(struct dm_joint *j)
{
    const double heavy = HEAVY * j->Z;
    for (size_t r = 0; r < j->g.d0 * j->g.d1; r++) {
        const size_t b = B_index(j, r);
        const double a = j->A[r], *B = j->B + b * j->B_stride;
        size_t n = a * j->B_max[b] < heavy ? 0 : j->g.d2;
        while (n > 0 && a * B[n - 1] < heavy)
            n--;
        if (j->seen_max[r] >= heavy)
            for (size_t s = j->seen[r]; s < j->seen[r + 1]; s++)
                if (j->seen_w[s] >= heavy && j->seen_k[s] >= n)
                    n = j->seen_k[s] + 1u;
        j->ext[r] = (uint16_t)n;
    }
}

/* Fills row (i,j) and its neighbours. */
static void fill_around(struct dm_joint *jt, size_t i, size_t j)
{
    const struct dm_grid g = jt->g;
    for (size_t y = i ? i - 1 : 0; y <= i + 1 && y < g.d0; y++)
        for (size_t x = j ? j - 1 : 0; x <= j + 1 && x < g.d1; x++)
            fill_row(jt, y * g.d1 + x);
}

int dm_joint_threshold(struct dm_joint *j, bool blur, struct dm_cells *out)
{
    const struct dm_grid g = j->g;
    const size_t rows = g.d0 * g.d1;
    uint32_t hist[256];
    bound_extents(j);
    dm_threshold_reach(j->reach, j->ext, g, blur);
    for (size_t r = 0; r < rows; r++)
        if (j->reach[r])
            fill_around(j, r / g.d1, r % g.d1);
    dm_threshold_image(j->level, hist, j->J, j->reach, g, blur, j->row);
    const int t = dm_threshold_otsu(hist);
    *out = (struct dm_cells){0, j->out_cell, j->out_J};
    for (size_t r = 0; t >= 0 && r < rows; r++)
        for (size_t k = 0; k < j->reach[r]; k++) {
            const size_t cell = r * g.d2 + k;
            if (j->level[cell] <= t || j->J[cell] == 0)
                continue;
            out->cell[out->n] = (uint32_t)cell;
            out->J[out->n++] = j->J[cell];
        }
    return t;
}
