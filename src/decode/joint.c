/* SPDX-License-Identifier: MIT */
#include "src/decode/joint.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/decode/joint_impl.h"

/* Heavier than this, a cell can be more than 0 in the 8-bit image; see threshold.c. */
#define HEAVY (DM_LEVEL_HALF * (1 - 1e-9))

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

void dm_joint_begin(struct dm_joint *j, const struct dm_cand *cand, size_t n,
                    const struct dm_mask *mask)
{
    assert(n <= j->n_max);
    j->cand = cand;
    j->n = n;
    j->mask = *mask;
    if (mask->alpha == 0)
        j->mask.cooc = NULL;
    const bool discount = mask->unseen == DM_UNSEEN_DISCOUNT;
    if (discount && j->mask.cooc && !j->mask.cooc->discounting)
        j->mask.cooc = j->mask.cooc->discounted;
    const struct dm_cooc *c = j->mask.cooc;
    assert(!c || c->discounting == discount);
    assert(c || !mask->cooc || mask->alpha == 0);
    for (size_t i = 0; i < n; i++)
        assert(cand[i].n > 0 && cand[i].n <= j->top_k);
    for (size_t i = 0; n > 1 && i < (discount ? cand[0].n : j->top_k); i++)
        j->unseen[i] = i && !discount ? j->unseen[0] : dm_joint_unseen(j, cand[0].id[i]);
    if (c && n > 1)
        dm_joint_find_pairs(j, n);
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

void dm_joint_make_B(struct dm_joint *j, size_t b, const double *p, const double *w, size_t n)
{
    double *restrict B = j->B + b * j->top_k;
    for (size_t k = 0; k < n; k++)
        B[k] = p[k] * (w ? w[k] : 1);
    j->B_sum[b] = sum_of(B, n);
    j->B_max[b] = max_of(B, n);
}

/* A and B: what every cell would weigh if its n-gram were not in the table. */
static void make_factors(struct dm_joint *j, size_t n)
{
    const struct dm_cand *c = j->cand, *last = &c[n - 1];
    const struct dm_grid g = j->g;
    const bool chain = j->chain = n == 3 && dm_joint_chains(j);
    const double *first = j->mask.unseen == DM_UNSEEN_DISCOUNT ? j->w123 : j->w12;
    memset(j->A_sum, 0, g.d1 * sizeof(*j->A_sum));
    memset(j->A_max, 0, g.d1 * sizeof(*j->A_max));
    for (size_t i = 0; i < g.d0; i++) {
        double *restrict A = j->A + i * g.d1, *restrict sum = j->A_sum, *restrict max = j->A_max;
        // without a chain all unseen triplets weigh the same, pairs by their first token
        const double *restrict w = chain ? first + i * g.d1 : j->unseen;
        const double *restrict p = c[n == 2 ? 0 : 1].p, p0 = n == 2 ? 1 : c[0].p[i];
        for (size_t m = 0; m < g.d1; m++) {
            A[m] = p0 * p[m] * w[m];
            sum[m] += A[m];
            max[m] = A[m] > max[m] ? A[m] : max[m];
        }
    }
    if (!chain)
        dm_joint_make_B(j, j->top_k, last->p, NULL, g.d2);
}

/* What the rows weigh as products, and the largest such cell. */
static double product_total(const struct dm_joint *j, double *max)
{
    double total = 0, most = 0;
    for (size_t m = 0; m < j->g.d1; m++) {
        const size_t b = dm_joint_B_index(j, m);
        const double w = j->A_max[m] * j->B_max[b];
        total += j->A_sum[m] * j->B_sum[b];
        most = w > most ? w : most;
    }
    *max = most;
    return total;
}

bool dm_joint_order(struct dm_joint *j, size_t n, double cut)
{
    assert(n >= 2 && n <= j->n_max);
    const struct dm_cand *c = j->cand;
    double max;
    j->g = n == 2 ? (struct dm_grid){1, c[0].n, c[1].n} : (struct dm_grid){c[0].n, c[1].n, c[2].n};
    j->pairs = n == 2;
    make_factors(j, n);
    j->Z = product_total(j, &max);
    if (!j->mask.cooc)
        dm_joint_clear_rows(j);
    else if (!dm_joint_make_seen(j, cut, j->Z, &max))
        return false;
    return j->Z > 0 && isfinite(1 / j->Z) && (cut == 0 || max * (1 + 1e-9) > cut * j->Z);
}

/* Row (i,m), in numbers. */
static const double *fill_row(struct dm_joint *j, size_t i, size_t m)
{
    const size_t r = i * j->g.d1 + m;
    double *x = j->J + r * j->g.d2;
    if (j->filled[r])
        return x;
    const double a = j->A[r] / j->Z, *B = dm_joint_B_row(j, m);
    for (size_t k = 0; k < j->g.d2; k++)
        x[k] = a * B[k];
    for (size_t s = j->seen[r]; s < j->seen[r] + (size_t)j->n_seen[r]; s++)
        x[j->seen_k[s]] = j->seen_w[s] / j->Z;
    j->filled[r] = true;
    return x;
}

double dm_joint_cell(struct dm_joint *j, size_t cell)
{
    const size_t r = cell / j->g.d2;
    return fill_row(j, r / j->g.d1, r % j->g.d1)[cell % j->g.d2];
}

/* No cell of row (i,m) is above this, but for rounding. */
static double row_bound(const struct dm_joint *j, size_t i, size_t m)
{
    const size_t r = i * j->g.d1 + m;
    const double w = j->A[r] * j->B_max[dm_joint_B_index(j, m)];
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
            const size_t b = dm_joint_B_index(j, m);
            const double a = j->A[r], *B = dm_joint_B_row(j, m);
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
