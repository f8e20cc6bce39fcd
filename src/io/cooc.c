/* SPDX-License-Identifier: MIT */
/* The table indexes itself (row -> x2, sub -> x3, ids -> c1), so nothing of a file is used before
 * all of it has been checked. */
#include "src/io/cooc.h"

#include <float.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/hash.h"
#include "src/base/par.h"
#include "src/io/h5.h"

#define V_MAX ((size_t)1 << 32) /* ids are uint32 */

/* One line per array: field, type on disk, items. Drives reading and release. */
#define DM_COOC_ARRAYS(T)             \
    T(c1, DM_H5_U64, c->V)            \
    T(row, DM_H5_U64, c->V + 1)       \
    T(x2, DM_H5_U32, c->n_pairs)      \
    T(c2, DM_H5_U32, c->n_pairs)      \
    T(sub, DM_H5_U64, c->n_pairs + 1) \
    T(x3, DM_H5_U32, c->n_triplets)   \
    T(c3, DM_H5_U32, c->n_triplets)

void dm_cooc_release(struct dm_cooc *c)
{
#define T(name, type, n) free(c->name);
    DM_COOC_ARRAYS(T)
#undef T
    free(c->r2);
    free(c->r3);
    free(c->tokenizer_hash);
    free(c->provenance);
    free(c->path);
    *c = (struct dm_cooc){0};
}

static enum dm_status read_attributes(struct dm_cooc *c, struct dm_h5 *f, struct dm_err *e)
{
    uint64_t V, order;
    DM_TRY(dm_h5_get_u64(f, "/", "vocab", &V, e));
    DM_TRY(dm_h5_get_u64(f, "/", "order", &order, e));
    DM_TRY(dm_h5_get_u64(f, "/", "n1", &c->N[0], e));
    DM_TRY(dm_h5_get_u64(f, "/", "n2", &c->N[1], e));
    DM_TRY(dm_h5_get_u64(f, "/", "n3", &c->N[2], e));
    DM_TRY(dm_h5_get_u64(f, "/", "min_count2", &c->min_count[0], e));
    DM_TRY(dm_h5_get_u64(f, "/", "min_count3", &c->min_count[1], e));
    DM_TRY(dm_h5_get_string(f, "/", "tokenizer_hash", &c->tokenizer_hash, e));
    DM_TRY(dm_h5_get_string(f, "/", "provenance", &c->provenance, e));
    if (!V || V > V_MAX)
        return dm_fail(e, DM_EFORMAT, "%s: vocab is %llu, want 1 to 2^32", c->path,
                       (unsigned long long)V);
    if (order < 2 || order > 3)
        return dm_fail(e, DM_EFORMAT, "%s: order is %llu, want 2 or 3", c->path,
                       (unsigned long long)order);
    if (strlen(c->tokenizer_hash) != DM_HASH_LEN)
        return dm_fail(e, DM_EFORMAT, "%s: tokenizer_hash has %zu digits, want %d", c->path,
                       strlen(c->tokenizer_hash), DM_HASH_LEN);
    c->V = (size_t)V;
    c->order = (size_t)order;
    return DM_OK;
}

/* Number of items of a 1-D dataset; h5 has compared it with the size of the file. */
static enum dm_status length_of(struct dm_cooc *c, struct dm_h5 *f, const char *name, size_t *n,
                                struct dm_err *e)
{
    enum dm_h5_type type;
    size_t cols;
    DM_TRY(dm_h5_shape(f, name, &type, n, &cols, e));
    if (cols || type != DM_H5_U32)
        return dm_fail(e, DM_ESHAPE, "%s: %s is not a list of u32", c->path, name);
    return DM_OK;
}

static enum dm_status read_array(struct dm_cooc *c, struct dm_h5 *f, const char *name,
                                 enum dm_h5_type type, void **out, size_t n, struct dm_err *e)
{
    enum dm_h5_type found;
    size_t rows, cols;
    DM_TRY(dm_h5_shape(f, name, &found, &rows, &cols, e));
    if (rows != n || cols || found != type)
        return dm_fail(e, DM_ESHAPE, "%s: %s has %zu rows, want %zu of its type", c->path, name,
                       rows, n);
    // n + 1: an empty table has arrays too
    *out = dm_alloc(n + 1, type == DM_H5_U64 ? sizeof(uint64_t) : sizeof(uint32_t));
    if (!*out)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for %zu items of %s", c->path, n, name);
    return n ? dm_h5_read(f, name, type, *out, n, 0, e) : DM_OK;
}

static enum dm_status read_arrays(struct dm_cooc *c, struct dm_h5 *f, struct dm_err *e)
{
    DM_TRY(length_of(c, f, "x2", &c->n_pairs, e));
    DM_TRY(length_of(c, f, "x3", &c->n_triplets, e));
    void *p = NULL;
    enum dm_status st;
#define T(name, type, n)                            \
    st = read_array(c, f, #name, type, &p, (n), e); \
    c->name = p;                                    \
    p = NULL;                                       \
    if (st)                                         \
        return st;
    DM_COOC_ARRAYS(T)
#undef T
    return DM_OK;
}

static enum dm_status check_pointers(const struct dm_cooc *c, const char *name, const uint64_t *at,
                                     size_t n, size_t end, struct dm_err *e)
{
    if (at[0] || at[n] != end)
        return dm_fail(e, DM_EFORMAT, "%s: %s runs from %llu to %llu, want 0 to %zu", c->path, name,
                       (unsigned long long)at[0], (unsigned long long)at[n], end);
    for (size_t i = 0; i < n; i++)
        if (at[i] > at[i + 1])
            return dm_fail(e, DM_EFORMAT, "%s: %s[%zu] is smaller than the one before it", c->path,
                           name, i + 1);
    return DM_OK;
}

static enum dm_status check_totals(const struct dm_cooc *c, struct dm_err *e)
{
    uint64_t sum = 0;
    bool over = false;
    for (size_t i = 0; i < c->V; i++)
        over |= __builtin_add_overflow(sum, c->c1[i], &sum);
    if (over || sum != c->N[0])
        return dm_fail(e, DM_EFORMAT, "%s: unigram counts add up to %llu%s, want n1 = %llu",
                       c->path, (unsigned long long)sum, over ? " and more" : "",
                       (unsigned long long)c->N[0]);
    if (c->c1[0])
        return dm_fail(e, DM_EFORMAT, "%s: the document separator (id 0) was counted", c->path);
    if (c->N[1] > c->N[0] || c->N[2] > c->N[1])
        return dm_fail(e, DM_EFORMAT, "%s: more n-grams of a higher than of a lower order",
                       c->path);
    if (c->order == 2 && (c->n_triplets || c->N[2]))
        return dm_fail(e, DM_EFORMAT, "%s: triplets in a table of order 2", c->path);
    return DM_OK;
}

/* The n continuations of one n-gram with `most` occurrences: adds their counts to *total. */
static enum dm_status check_list(const struct dm_cooc *c, const char *name, size_t at,
                                 const uint32_t *x, const uint32_t *count, size_t n, uint64_t most,
                                 uint64_t *total, struct dm_err *e)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (x[i] >= c->V)
            return dm_fail(e, DM_EFORMAT, "%s: %s[%zu] is %u, want less than %zu", c->path, name,
                           at + i, x[i], c->V);
        if (i && x[i] <= x[i - 1])
            return dm_fail(e, DM_EFORMAT, "%s: %s[%zu] is %u after %u, want ascending ids", c->path,
                           name, at + i, x[i], x[i - 1]);
        if (!count[i] || count[i] > c->c1[x[i]])
            return dm_fail(e, DM_EFORMAT, "%s: %s[%zu] is counted %u times, want 1 to %llu",
                           c->path, name, at + i, count[i], (unsigned long long)c->c1[x[i]]);
        sum += count[i]; // at most V < 2^33 times 2^32: no overflow
    }
    if (sum > most)
        return dm_fail(e, DM_EFORMAT,
                       "%s: counts of the list %s[%zu..] add up to %llu, want at most %llu",
                       c->path, name, at, (unsigned long long)sum, (unsigned long long)most);
    *total += sum;
    return DM_OK;
}

static enum dm_status check(const struct dm_cooc *c, struct dm_err *e)
{
    DM_TRY(check_totals(c, e));
    DM_TRY(check_pointers(c, "row", c->row, c->V, c->n_pairs, e));
    DM_TRY(check_pointers(c, "sub", c->sub, c->n_pairs, c->n_triplets, e));
    uint64_t total2 = 0, total3 = 0;
    for (size_t x1 = 0; x1 < c->V; x1++) {
        const size_t at = c->row[x1];
        DM_TRY(check_list(c, "x2", at, c->x2 + at, c->c2 + at, c->row[x1 + 1] - at, c->c1[x1],
                          &total2, e));
    }
    for (size_t p = 0; p < c->n_pairs; p++) {
        const size_t at = c->sub[p];
        DM_TRY(check_list(c, "x3", at, c->x3 + at, c->c3 + at, c->sub[p + 1] - at, c->c2[p],
                          &total3, e));
    }
    if (total2 > c->N[1] || total3 > c->N[2])
        return dm_fail(e, DM_EFORMAT,
                       "%s: %llu pairs and %llu triplets, want at most n2 = %llu and n3 = %llu",
                       c->path, (unsigned long long)total2, (unsigned long long)total3,
                       (unsigned long long)c->N[1], (unsigned long long)c->N[2]);
    return DM_OK;
}

static float to_float(double r)
{
    return r < (double)FLT_MAX ? (float)r : FLT_MAX;
}

/* DynaMo eq. 3 for the rows [begin, end) of x1; the frequencies are formed in double, as written.
 */
static void fill_ratios(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct dm_cooc *c = ctx;
    const double n1 = (double)c->N[0], n2 = (double)c->N[1], n3 = (double)c->N[2];
    for (size_t x1 = begin; x1 < end; x1++) {
        const double p1 = (double)c->c1[x1] / n1;
        for (size_t p = c->row[x1]; p < c->row[x1 + 1]; p++) {
            const double p12 = p1 * ((double)c->c1[c->x2[p]] / n1);
            c->r2[p] = to_float((double)c->c2[p] / n2 / p12);
            for (size_t t = c->sub[p]; t < c->sub[p + 1]; t++)
                c->r3[t] = to_float((double)c->c3[t] / n3 / (p12 * ((double)c->c1[c->x3[t]] / n1)));
        }
    }
}

static enum dm_status load(struct dm_cooc *c, struct dm_h5 *f, struct dm_err *e)
{
    DM_TRY(read_attributes(c, f, e));
    DM_TRY(read_arrays(c, f, e));
    DM_TRY(check(c, e));
    c->r2 = dm_alloc(c->n_pairs + 1, sizeof(*c->r2));
    c->r3 = dm_alloc(c->n_triplets + 1, sizeof(*c->r3));
    if (!c->r2 || !c->r3)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for the ratios", c->path);
    dm_par_for(c->V, 64, fill_ratios, c);
    return DM_OK;
}

enum dm_status dm_cooc_load(struct dm_cooc *c, const char *path, struct dm_err *e)
{
    struct dm_h5 *f;
    *c = (struct dm_cooc){.path = strdup(path)};
    if (!c->path)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    DM_TRY(dm_h5_open(&f, path, DM_COOC_FORMAT, DM_COOC_VERSION, e));
    const enum dm_status st = load(c, f, e);
    dm_h5_close(f);
    return st;
}

/* Index of v in the ascending x[begin..end) or SIZE_MAX. */
static size_t search(const uint32_t *x, size_t begin, size_t end, uint32_t v)
{
    const size_t stop = end;
    while (begin < end) {
        const size_t mid = begin + (end - begin) / 2;
        if (x[mid] < v)
            begin = mid + 1;
        else
            end = mid;
    }
    return begin < stop && x[begin] == v ? begin : SIZE_MAX;
}

size_t dm_cooc_find(const struct dm_cooc *c, uint32_t x1, uint32_t x2)
{
    return x1 < c->V ? search(c->x2, c->row[x1], c->row[x1 + 1], x2) : SIZE_MAX;
}

size_t dm_cooc_find3(const struct dm_cooc *c, size_t pair, uint32_t x3)
{
    return pair < c->n_pairs ? search(c->x3, c->sub[pair], c->sub[pair + 1], x3) : SIZE_MAX;
}

float dm_cooc_r2(const struct dm_cooc *c, uint32_t x1, uint32_t x2)
{
    const size_t p = dm_cooc_find(c, x1, x2);
    return p == SIZE_MAX ? 0.0f : c->r2[p];
}

float dm_cooc_r3(const struct dm_cooc *c, uint32_t x1, uint32_t x2, uint32_t x3)
{
    const size_t t = dm_cooc_find3(c, dm_cooc_find(c, x1, x2), x3);
    return t == SIZE_MAX ? 0.0f : c->r3[t];
}
