/* SPDX-License-Identifier: MIT */
#include "src/decode/joint.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/decode/lookup.h"

/* Heavier than this, a cell can be more than 0 in the 8-bit image; see threshold.c. */
#define HEAVY (DM_LEVEL_HALF * (1 - 1e-9))

/* One pair of candidates i, m of heads 1 and 2 that the table holds. */
struct pair {
    uint16_t i, m;
    uint32_t n;            /* triplets that begin with it */
    size_t at;             /* the first of them in the table */
    double r3_max;         /* their largest ratio */
    int top;               /* exponent: no cell of it weighs 2^(top+1) or more */
    double p;              /* p1(i) p2(m) */
    double seen, replaced; /* what its triplets weigh, and would without them in the table */
};

/* type, field, elements; k = candidates per head, rows = rows of the grid, cells of the grid */
#define DM_JOINT_ARRAYS(X)                                                              \
    X(struct pair, pair, k *k)                                                          \
    X(uint32_t, first, k + 1)      /* the pairs of candidate i of head 1 */             \
    X(size_t, found, k *k)         /* scratch: indices in the table */                  \
    X(uint32_t, turn, k *k)        /* the pairs, those with likely triplets first */    \
    X(double, w12, k *k)           /* weight of the ratio of (i,j), heads 1 and 2 */    \
    X(double, w23, k *k)           /* of heads 2 and 3: only for backoff */             \
    X(double, A, rows)             /* (d0,d1) weight of a row; all weights are Z * J */ \
    X(double, A_sum, k)            /* (d1) over d0 */                                   \
    X(double, A_max, k)            /* largest over d0 */                                \
    X(double, B, k *k)             /* (d1,d2), or (d2) for all j */                     \
    X(double, B_sum, k)            /* per row of B */                                   \
    X(double, B_max, k)            /*               */                                  \
    X(uint32_t, seen, rows)        /* row r's seen n-grams begin there, */              \
    X(uint16_t, n_seen, rows)      /* so many */                                        \
    X(double, seen_max, rows)      /* and no more than this is their weight */          \
    X(uint16_t, seen_k, cells + 1) /* their last position */                            \
    X(double, seen_w, cells)       /* their weight */                                   \
    X(double, J, cells)            /* rows with filled[r], others are anything */       \
    X(bool, filled, rows)          /*                             */                    \
    X(uint16_t, ext, rows)         /* as in threshold.h */                              \
    X(uint16_t, reach, rows)       /*                  */                               \
    X(uint8_t, level, cells)       /*                   */                              \
    X(double, row, k + 2)          /* scratch */                                        \
    X(uint32_t, out_cell, cells)   /* what collect and threshold return */              \
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
    void *block;                /* of the arrays: */
#define X(type, field, n) type *field;
    DM_JOINT_ARRAYS(X)
#undef X
};

/* Bytes of all arrays; gives them their places where there is a block. */
static size_t place(struct dm_joint *j, size_t k, size_t n_max)
{
    const size_t rows = n_max > 2 ? k * k : k, cells = rows * k;
    size_t used = 0;
#define X(type, field, n)                                                    \
    j->field = j->block ? (void *)((unsigned char *)j->block + used) : NULL; \
    used += ((n) * sizeof(type) + DM_ALIGN - 1) / DM_ALIGN * DM_ALIGN;
    DM_JOINT_ARRAYS(X)
#undef X
    return used;
}

enum dm_status dm_joint_new(struct dm_joint **out, size_t V, size_t top_k, size_t n_max,
                            struct dm_err *e)
{
    enum { SMALL = 16 << 20 }; // of a larger one most pages are never touched
    assert(top_k > 0 && top_k <= DM_TOP_K_MAX && n_max > 0 && n_max <= DM_ORDER_MAX);
    struct dm_joint *j = *out = dm_alloc(1, sizeof(*j));
    if (!j)
        return dm_fail(e, DM_ENOMEM, "out of memory for the joint distribution");
    j->top_k = top_k;
    j->n_max = n_max;
    enum dm_status st = DM_OK;
    for (size_t i = 0; i + 1 < n_max && !st; i++)
        st = dm_lookup_init(&j->lookup[i], V, e);
    const size_t k = n_max > 1 ? top_k : 0, bytes = place(j, k, n_max);
    j->block = bytes < SMALL ? dm_alloc_huge(bytes, 1) : dm_alloc(bytes, 1);
    place(j, k, n_max);
    if (!st && !j->block)
        st = dm_fail(e, DM_ENOMEM, "out of memory for a joint of %zu candidates", k);
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
    free(j->block);
    free(j);
}

struct dm_grid dm_joint_grid(const struct dm_joint *j)
{
    return j->g;
}

/* Weight of an n-gram that the table holds, r^alpha. Rises with r. */
static double weight(const struct dm_mask *m, double r)
{
    if (m->unseen == DM_UNSEEN_MIX)
        r = m->lambda * r + (1 - m->lambda);
    return m->alpha == 1 ? r : m->alpha == 0.5 ? sqrt(r) : pow(r, m->alpha);
}

/* Asks for what find_pairs() will read: every row lies somewhere else. */
static void prefetch_rows(const struct dm_cand *a, const struct dm_cooc *c)
{
    enum { LINE = 64, LINES = 16 };
    for (size_t i = 0; i < a->n; i++)
        if ((size_t)a->id[i] < c->V)
            __builtin_prefetch(c->rows + a->id[i]);
    for (size_t i = 0; i < a->n; i++) {
        const struct dm_cooc_row *r = c->rows + a->id[i];
        if ((size_t)a->id[i] >= c->V || r->map)
            continue;
        const unsigned char *at = c->x2_ids + r[0].pair * c->id_bytes;
        const size_t bytes = (r[1].pair - r[0].pair) * c->id_bytes;
        for (size_t line = 0; line < bytes && line < LINES * LINE; line += LINE)
            __builtin_prefetch(at + line);
        __builtin_prefetch(at + (bytes < LINES * LINE ? bytes : LINES * LINE));
    }
}

/* Lists the table's pairs of a's candidates and those of l: those of a's i-th are found[first[i]..
 * first[i+1]), and pair[p] says which they are. */
static void find_pairs(size_t *found, uint32_t *first, struct pair *pair, const struct dm_cand *a,
                       struct dm_lookup *l, const struct dm_cooc *c)
{
    uint16_t pos[DM_TOP_K_MAX + 1];
    uint32_t at[DM_TOP_K_MAX + 1], n = 0;
    for (size_t i = 0; i < a->n; i++) {
        first[i] = n;
        if ((size_t)a->id[i] >= c->V)
            continue;
        const size_t begin = c->rows[a->id[i]].pair;
        const size_t m = dm_lookup_pairs(l, c, (uint32_t)a->id[i], pos, at);
        for (size_t s = 0; s < m; s++, n++) {
            pair[n].i = (uint16_t)i;
            pair[n].m = pos[s];
            found[n] = begin + at[s];
            __builtin_prefetch(c->pair + found[n]);
        }
    }
    first[a->n] = n;
}

/* w (a->n,nb) of the n pairs found, and of what is unseen. */
static void weigh_pairs(struct dm_joint *j, double *w, const struct dm_cand *a, size_t nb, size_t n)
{
    const struct dm_cooc *c = j->mask.cooc;
    for (size_t i = 0; i < a->n * nb; i++)
        w[i] = j->unseen;
    for (size_t p = 0; p < n; p++) {
        const struct dm_cooc_pair *t = &c->pair[j->found[p]];
        struct pair *q = &j->pair[p];
        w[q->i * nb + q->m] = weight(&j->mask, (double)dm_cooc_ratio(t->r2));
        q->at = dm_cooc_triplet(c, (size_t)a->id[q->i], j->found[p]);
        q->n = (uint32_t)dm_cooc_triplets(c, j->found[p]);
        q->r3_max = (double)dm_cooc_ratio(t->r3_max);
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
    const struct dm_cooc *c = j->mask.cooc;
    j->unseen = !c ? 1 : mask->unseen == DM_UNSEEN_ZERO ? 0 : pow(1 - mask->lambda, mask->alpha);
    for (size_t i = 0; i < n; i++)
        assert(cand[i].n > 0 && cand[i].n <= j->top_k);
    if (!c || n < 2)
        return;
    const bool chain = n > 2 && mask->unseen == DM_UNSEEN_BACKOFF;
    prefetch_rows(&cand[0], c);
    if (chain)
        prefetch_rows(&cand[1], c);
    for (size_t i = 0; i + 1 < n; i++)
        dm_lookup_set(&j->lookup[i], &cand[i + 1]);
    if (chain) { // first, because the lists that stay are those of heads 1 and 2
        find_pairs(j->found, j->first, j->pair, &cand[1], &j->lookup[1], c);
        weigh_pairs(j, j->w23, &cand[1], cand[2].n, j->first[cand[1].n]);
    }
    find_pairs(j->found, j->first, j->pair, &cand[0], &j->lookup[0], c);
    weigh_pairs(j, j->w12, &cand[0], cand[1].n, j->first[cand[0].n]);
}

/* e of 2^e <= x < 2^(e+1), for any x >= 0 of normal size; lower for smaller ones. */
static int exponent(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return (int)(bits >> 52) - 1023;
}

/* In four chains, because one would wait for itself. */
static double sum_of(const double *x, size_t n)
{
    double s[4] = {0};
    for (size_t i = 0; i + 4 <= n; i += 4)
        for (size_t l = 0; l < 4; l++)
            s[l] += x[i + l];
    for (size_t i = n / 4 * 4; i < n; i++)
        s[0] += x[i];
    return s[0] + s[1] + (s[2] + s[3]);
}

static double max_of(const double *x, size_t n)
{
    double m[4] = {0};
    for (size_t i = 0; i + 4 <= n; i += 4)
        for (size_t l = 0; l < 4; l++)
            m[l] = x[i + l] > m[l] ? x[i + l] : m[l];
    for (size_t i = n / 4 * 4; i < n; i++)
        m[0] = x[i] > m[0] ? x[i] : m[0];
    m[0] = m[0] > m[1] ? m[0] : m[1];
    m[2] = m[2] > m[3] ? m[2] : m[3];
    return m[0] > m[2] ? m[0] : m[2];
}

/* A and B: what every cell would weigh if its n-gram were not in the table. */
static void make_factors(struct dm_joint *j, size_t n)
{
    const struct dm_cand *c = j->cand, *last = &c[n - 1];
    const struct dm_grid g = j->g;
    const bool chain = n == 3 && j->mask.cooc && j->mask.unseen == DM_UNSEEN_BACKOFF;
    memset(j->A_sum, 0, g.d1 * sizeof(*j->A_sum));
    memset(j->A_max, 0, g.d1 * sizeof(*j->A_max));
    for (size_t i = 0; i < g.d0; i++) {
        double *restrict A = j->A + i * g.d1, *restrict sum = j->A_sum, *restrict max = j->A_max;
        const double *restrict w = j->w12 + i * g.d1, *restrict p = c[n == 2 ? 0 : 1].p;
        const double p0 = n == 2 ? 1 : c[0].p[i], unseen = j->unseen;
        for (size_t m = 0; m < g.d1; m++) {
            A[m] = p0 * p[m] * (chain ? w[m] : unseen);
            sum[m] += A[m];
            max[m] = A[m] > max[m] ? A[m] : max[m];
        }
    }
    j->B_stride = chain ? g.d2 : 0;
    for (size_t i = 0; i < (chain ? g.d1 : 1); i++) {
        double *B = j->B + i * g.d2;
        const double *w = j->w23 + i * g.d2;
        for (size_t k = 0; k < g.d2; k++)
            B[k] = last->p[k] * (chain ? w[k] : 1);
        j->B_sum[i] = sum_of(B, g.d2);
        j->B_max[i] = max_of(B, g.d2);
    }
}

/* Index of B's row for rows (.,m) of the grid. */
static size_t B_index(const struct dm_joint *j, size_t m)
{
    return j->B_stride ? m : 0;
}

/* What the rows weigh as products, and the largest such cell. */
static double product_total(const struct dm_joint *j, double *max)
{
    double total = 0, most = 0;
    for (size_t m = 0; m < j->g.d1; m++) {
        const size_t b = B_index(j, m);
        const double w = j->A_max[m] * j->B_max[b];
        total += j->A_sum[m] * j->B_sum[b];
        most = w > most ? w : most;
    }
    *max = most;
    return total;
}

/* Takes over the pairs of candidate i as the seen n-grams of order 2. */
static size_t list_pairs(struct dm_joint *j, size_t i, size_t n)
{
    for (size_t p = j->first[i]; p < j->first[i + 1]; p++, n++) {
        j->seen_k[n] = j->pair[p].m;
        j->seen_w[n] = j->w12[i * j->g.d2 + j->pair[p].m];
    }
    return n;
}

/* Finds the candidates among the triplets of pair p and their ratios' weights. */
static size_t list_triplets(struct dm_joint *j, const struct pair *p, size_t n)
{
    uint32_t at[DM_TOP_K_MAX + 1];
    const struct dm_cooc *c = j->mask.cooc;
    const unsigned char *ids = c->next + p->at * (c->id_bytes + sizeof(uint16_t));
    const unsigned char *ratios = ids + p->n * c->id_bytes;
    const size_t m = dm_lookup_row(&j->lookup[1], ids, c->id_bytes, p->n, j->seen_k + n, at);
    for (size_t s = 0; s < m; s++) {
        uint16_t r;
        memcpy(&r, ratios + at[s] * sizeof(r), sizeof(r));
        j->seen_w[n + s] = weight(&j->mask, (double)dm_cooc_ratio(r));
    }
    return n + m;
}

/* Asks for what list_triplets() will read. */
static void prefetch_triplets(const struct dm_joint *j, const struct pair *p)
{
    enum { LINE = 64, LINES = 8 };
    const size_t size = j->mask.cooc->id_bytes + sizeof(uint16_t);
    const unsigned char *at = j->mask.cooc->next + p->at * size;
    for (size_t i = 0; i < p->n * size && i < LINES * LINE; i += LINE)
        __builtin_prefetch(at + i);
    if (p->n)
        __builtin_prefetch(at + p->n * size - 1);
}

/* Multiplies the ratios [n, end) listed for row (i,m) by p and the last factor of their cells. Adds
 * up what they weigh and what the product gave them. */
static void weigh_row(struct dm_joint *j, size_t i, size_t m, double p, size_t n, size_t end,
                      double *seen, double *replaced)
{
    const double *B = j->B + B_index(j, m) * j->B_stride, *last = j->cand[j->pairs ? 1 : 2].p;
    const size_t r = i * j->g.d1 + m;
    double s = 0, b = 0, max = 0;
    j->seen[r] = (uint32_t)n;
    j->n_seen[r] = (uint16_t)(end - n);
    for (; n < end; n++) {
        const size_t k = j->seen_k[n];
        const double w = p * last[k] * j->seen_w[n];
        j->seen_w[n] = w;
        s += w;
        b += B[k];
        max = w > max ? w : max;
    }
    j->seen_max[r] = max;
    *seen = s;
    *replaced = j->A[r] * b;
}

/* Takes the pairs in the order of what their triplets can weigh at most, to a power of two. */
static void sort_pairs(struct dm_joint *j, size_t n)
{
    enum { BINS = 64 };
    uint32_t bin[BINS + 1] = {0};
    const double last = j->cand[2].p[0];
    int top = INT_MIN;
    for (size_t p = 0; p < n; p++) {
        struct pair *q = &j->pair[p];
        const double w = q->n ? q->p * last * weight(&j->mask, q->r3_max) : 0;
        q->top = exponent(w);
        top = q->top > top ? q->top : top;
    }
    for (size_t p = 0; p < n; p++) {
        struct pair *q = &j->pair[p];
        q->top = top - q->top < BINS ? q->top : top - BINS + 1;
        bin[top - q->top + 1]++;
    }
    for (size_t b = 0; b < BINS; b++)
        bin[b + 1] += bin[b];
    for (size_t p = 0; p < n; p++)
        j->turn[bin[top - j->pair[p].top]++] = (uint32_t)p;
}

/* Lists and weighs the triplets of the pair, the `n` before are there; returns how many then. */
static size_t take_pair(struct dm_joint *j, struct pair *q, size_t n)
{
    const size_t end = list_triplets(j, q, n);
    weigh_row(j, q->i, q->m, q->p, n, end, &q->seen, &q->replaced);
    return end;
}

/* False if it is certain that no cell exceeds `cut`: neither a product nor a triplet of the pairs
 * so far or of those to come, while Z is at least what is certain of it. Otherwise all pairs are
 * done. */
static bool make_triplets(struct dm_joint *j, double cut, double product, double max)
{
    enum { AHEAD = 16, CHECK = 8 };
    const size_t n_pairs = j->first[j->g.d0];
    double sure = product; // without the rows that are still to come
    size_t n = 0;
    for (size_t p = 0; p < n_pairs; p++) {
        struct pair *q = &j->pair[p];
        q->p = j->cand[0].p[q->i] * j->cand[1].p[q->m];
        j->turn[p] = (uint32_t)p;
        sure -= j->A[q->i * j->g.d1 + q->m] * j->B_sum[B_index(j, q->m)];
    }
    if (cut > 0)
        sort_pairs(j, n_pairs);
    for (size_t t = 0; t < AHEAD && t < n_pairs; t++)
        prefetch_triplets(j, &j->pair[j->turn[t]]);
    for (size_t t = 0; t < n_pairs; t++) {
        struct pair *q = &j->pair[j->turn[t]];
        if (cut > 0 && t % CHECK == 0) {
            const double rest = ldexp(1, q->top + 1);
            if ((max > rest ? max : rest) * (1 + 1e-9) <= cut * sure)
                return false;
        }
        if (t + AHEAD < n_pairs)
            prefetch_triplets(j, &j->pair[j->turn[t + AHEAD]]);
        n = take_pair(j, q, n);
        const size_t r = q->i * j->g.d1 + q->m;
        max = j->seen_max[r] > max ? j->seen_max[r] : max;
        sure += q->seen + j->A[r] * j->B_sum[B_index(j, q->m)] - q->replaced;
    }
    return true;
}

/* Lists and weighs what the table holds of the joint; false as make_triplets(). In whatever order
 * that was done, Z is added up in the pairs' own. */
static bool make_seen(struct dm_joint *j, double cut, double product, double max)
{
    double seen = 0, replaced = 0;
    if (j->pairs) {
        size_t n = 0;
        for (size_t i = 0; i < j->g.d1; i++) {
            const size_t end = list_pairs(j, i, n);
            double s, b;
            weigh_row(j, 0, i, j->cand[0].p[i], n, end, &s, &b);
            seen += s;
            replaced += b;
            n = end;
        }
    } else {
        if (!make_triplets(j, cut, product, max))
            return false;
        for (size_t p = 0; p < j->first[j->g.d0]; p++) {
            seen += j->pair[p].seen;
            replaced += j->pair[p].replaced;
        }
    }
    j->Z = seen + (product > replaced ? product - replaced : 0);
    return true;
}

bool dm_joint_order(struct dm_joint *j, size_t n, double cut)
{
    assert(n >= 2 && n <= j->n_max);
    const struct dm_cand *c = j->cand;
    double max;
    j->g = n == 2 ? (struct dm_grid){1, c[0].n, c[1].n} : (struct dm_grid){c[0].n, c[1].n, c[2].n};
    j->pairs = n == 2;
    const size_t rows = j->g.d0 * j->g.d1;
    make_factors(j, n);
    j->Z = product_total(j, &max);
    memset(j->n_seen, 0, rows * sizeof(*j->n_seen));
    memset(j->seen_max, 0, rows * sizeof(*j->seen_max));
    memset(j->filled, 0, rows * sizeof(*j->filled));
    if (j->mask.cooc && !make_seen(j, cut, j->Z, max))
        return false;
    if (!(j->Z > 0 && isfinite(1 / j->Z)))
        return false;
    const double seen = max_of(j->seen_max, rows);
    return cut == 0 || (seen > max ? seen : max) * (1 + 1e-9) > cut * j->Z;
}

/* Row (i,m), in numbers. */
static const double *fill_row(struct dm_joint *j, size_t i, size_t m)
{
    const size_t r = i * j->g.d1 + m;
    double *x = j->J + r * j->g.d2;
    if (j->filled[r])
        return x;
    const double a = j->A[r] / j->Z, *B = j->B + B_index(j, m) * j->B_stride;
    for (size_t k = 0; k < j->g.d2; k++)
        x[k] = a * B[k];
    for (size_t s = j->seen[r]; s < j->seen[r] + (size_t)j->n_seen[r]; s++)
        x[j->seen_k[s]] = j->seen_w[s] / j->Z;
    j->filled[r] = true;
    return x;
}

/* No cell of row (i,m) is above this, but for rounding. */
static double row_bound(const struct dm_joint *j, size_t i, size_t m)
{
    const size_t r = i * j->g.d1 + m;
    const double w = j->A[r] * j->B_max[B_index(j, m)];
    return (w > j->seen_max[r] ? w : j->seen_max[r]) / j->Z * (1 + 1e-12);
}

double dm_joint_max(struct dm_joint *j)
{
    double max = 0;
    for (size_t i = 0; i < j->g.d0; i++)
        for (size_t m = 0; m < j->g.d1; m++) {
            if (row_bound(j, i, m) <= max)
                continue;
            const double *x = fill_row(j, i, m);
            for (size_t k = 0; k < j->g.d2; k++)
                max = x[k] > max ? x[k] : max;
        }
    return max;
}

/* Adds the cells of row r that are not 0 and at least `cut`. */
static void collect_row(const double *x, size_t r, size_t d2, double cut, struct dm_cells *out)
{
    for (size_t k = 0; k < d2; k++) {
        if (x[k] < cut || x[k] == 0)
            continue;
        out->cell[out->n] = (uint32_t)(r * d2 + k);
        out->J[out->n++] = x[k];
    }
}

void dm_joint_collect(struct dm_joint *j, double cut, struct dm_cells *out)
{
    *out = (struct dm_cells){0, j->out_cell, j->out_J};
    for (size_t i = 0; i < j->g.d0; i++)
        for (size_t m = 0; m < j->g.d1; m++) {
            const double bound = row_bound(j, i, m);
            if (bound != 0 && bound >= cut)
                collect_row(fill_row(j, i, m), i * j->g.d1 + m, j->g.d2, cut, out);
        }
}

/* Extents without filling rows: of the product as if nothing were seen, and of what is seen. */
static void bound_extents(struct dm_joint *j)
{
    const double heavy = HEAVY * j->Z;
    size_t r = 0;
    for (size_t i = 0; i < j->g.d0; i++)
        for (size_t m = 0; m < j->g.d1; m++, r++) {
            const size_t b = B_index(j, m);
            const double a = j->A[r], *B = j->B + b * j->B_stride;
            size_t n = a * j->B_max[b] < heavy ? 0 : j->g.d2;
            while (n > 0 && a * B[n - 1] < heavy)
                n--;
            if (j->seen_max[r] >= heavy)
                for (size_t s = j->seen[r]; s < j->seen[r] + (size_t)j->n_seen[r]; s++)
                    if (j->seen_w[s] >= heavy && j->seen_k[s] >= n)
                        n = j->seen_k[s] + 1u;
            j->ext[r] = (uint16_t)n;
        }
}

/* Fills row (i,m) and its neighbours. */
static void fill_around(struct dm_joint *j, size_t i, size_t m)
{
    for (size_t y = i ? i - 1 : 0; y <= i + 1 && y < j->g.d0; y++)
        for (size_t x = m ? m - 1 : 0; x <= m + 1 && x < j->g.d1; x++)
            fill_row(j, y, x);
}

int dm_joint_threshold(struct dm_joint *j, bool blur, struct dm_cells *out)
{
    const struct dm_grid g = j->g;
    const size_t rows = g.d0 * g.d1;
    uint32_t hist[256];
    bound_extents(j);
    dm_threshold_reach(j->reach, j->ext, g, blur);
    for (size_t i = 0; i < g.d0; i++)
        for (size_t m = 0; m < g.d1; m++)
            if (j->reach[i * g.d1 + m])
                fill_around(j, i, m);
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
