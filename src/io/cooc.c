/* SPDX-License-Identifier: MIT */
/* The table indexes itself (row -> x2, sub -> x3, ids -> c1), so nothing of a file is used before
 * all of it has been checked. */
#include "src/io/cooc.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/hash.h"
#include "src/base/par.h"
#include "src/io/cooc_impl.h"
#include "src/io/cooc_read.h"

#define V_MAX ((size_t)1 << 32) /* ids are uint32 */

/* One line per array of version 1: field, type on disk, items. */
#define DM_COOC_ARRAYS(T)             \
    T(c1, DM_H5_U64, c->V)            \
    T(row, DM_H5_U64, c->V + 1)       \
    T(x2, DM_H5_U32, c->n_pairs)      \
    T(c2, DM_H5_U32, c->n_pairs)      \
    T(sub, DM_H5_U64, c->n_pairs + 1) \
    T(x3, DM_H5_U32, c->n_triplets)   \
    T(c3, DM_H5_U32, c->n_triplets)

void dm_cooc_drop_counts(struct dm_cooc *c)
{
    void *const counts[] = {c->row, c->x2, c->c2, c->sub, c->x3, c->c3, c->sub3, c->x4, c->c4};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        free(counts[i]);
    c->row = c->sub = c->sub3 = NULL;
    c->x2 = c->c2 = c->x3 = c->c3 = c->x4 = c->c4 = NULL;
}

void dm_cooc_release(struct dm_cooc *c)
{
    dm_cooc_drop_counts(c);
    dm_cooc_index_release(c);
    if (c->discounted)
        dm_cooc_release(c->discounted);
    free(c->discounted);
    free(c->c1);
    free(c->tokenizer_hash);
    free(c->provenance);
    free(c->path);
    *c = (struct dm_cooc){0};
}

void dm_cooc_close_rows(const struct dm_cooc *c, uint64_t *row)
{
    row[c->V] = c->n_pairs;
    for (size_t i = c->V; i-- > 0;)
        if (row[i] == UINT64_MAX)
            row[i] = row[i + 1];
}

/* The attribute <name><order> of every order from `first` on. */
static enum dm_status by_order(const struct dm_cooc *c, struct dm_h5 *f, const char *name,
                               size_t first, uint64_t *v, struct dm_err *e)
{
    for (size_t n = first; n <= c->order; n++) {
        char full[32];
        snprintf(full, sizeof(full), "%s%zu", name, n);
        DM_TRY(dm_h5_get_u64(f, "/", full, &v[n - first], e));
    }
    return DM_OK;
}

enum dm_status dm_cooc_read_attributes(struct dm_cooc *c, struct dm_h5 *f, bool v1,
                                       struct dm_err *e)
{
    uint64_t V, order, complete;
    DM_TRY(dm_h5_get_u64(f, "/", "vocab", &V, e));
    DM_TRY(dm_h5_get_u64(f, "/", "order", &order, e));
    if (!V || V > V_MAX)
        return dm_fail(e, DM_EFORMAT, "%s: vocab is %llu, want 1 to 2^32", c->path,
                       (unsigned long long)V);
    if (order < 2 || order > (v1 ? 3 : DM_COOC_ORDER_MAX))
        return dm_fail(e, DM_EFORMAT, "%s: order is %llu, want 2 to %d", c->path,
                       (unsigned long long)order, v1 ? 3 : DM_COOC_ORDER_MAX);
    c->V = (size_t)V;
    c->order = (size_t)order;
    DM_TRY(by_order(c, f, "n", 1, c->N, e));
    DM_TRY(by_order(c, f, "min_count", 2, c->min_count, e));
    if (v1 && order == 2)
        DM_TRY(dm_h5_get_u64(f, "/", "n3", &c->N[2], e));
    DM_TRY(dm_h5_get_string(f, "/", "tokenizer_hash", &c->tokenizer_hash, e));
    DM_TRY(dm_h5_get_string(f, "/", "provenance", &c->provenance, e));
    if (strlen(c->tokenizer_hash) != DM_HASH_LEN)
        return dm_fail(e, DM_EFORMAT, "%s: tokenizer_hash has %zu digits, want %d", c->path,
                       strlen(c->tokenizer_hash), DM_HASH_LEN);
    if (v1)
        return DM_OK;
    DM_TRY(by_order(c, f, "ones", 1, c->ones, e));
    DM_TRY(by_order(c, f, "twos", 1, c->twos, e));
    DM_TRY(dm_h5_get_u64(f, "/", "complete", &complete, e));
    c->complete = complete == 1;
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

/* Version 1 has an array of each kind. */
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

/* Counts of counts, which version 1 does not store: exact if nothing was pruned, else 0. */
static void count_counts(struct dm_cooc *c)
{
    const uint32_t *count[] = {c->c2, c->c3};
    const size_t n[] = {c->n_pairs, c->n_triplets};
    c->complete = c->min_count[0] <= 1 && c->min_count[1] <= 1;
    for (size_t i = 0; c->complete && i < c->V; i++) {
        c->ones[0] += c->c1[i] == 1;
        c->twos[0] += c->c1[i] == 2;
    }
    for (size_t k = 0; c->complete && k < 2; k++)
        for (size_t i = 0; i < n[k]; i++) {
            c->ones[k + 1] += count[k][i] == 1;
            c->twos[k + 1] += count[k][i] == 2;
        }
}

/* ---- Version 2 ----------------------------------------------------------------------------- */

#define AT_A_TIME 8u /* blocks of a thread that are read before they are unpacked */

static enum dm_status alloc_arrays(struct dm_cooc *c, const struct dm_cooc_reader *r,
                                   struct dm_err *e)
{
    c->n_pairs = dm_cooc_before(r, 2, r->blocks);
    c->n_triplets = dm_cooc_before(r, 3, r->blocks);
    c->n_quads = dm_cooc_before(r, 4, r->blocks);
    bool ok = true;
#define ALLOC(name, n) ok &= (c->name = dm_alloc((n) + 1, sizeof(*c->name))) != NULL
    ALLOC(c1, c->V);
    ALLOC(row, c->V);
    ALLOC(x2, c->n_pairs);
    ALLOC(c2, c->n_pairs);
    ALLOC(sub, c->n_pairs);
    ALLOC(x3, c->n_triplets);
    ALLOC(c3, c->n_triplets);
    if (c->order == 4) {
        ALLOC(sub3, c->n_triplets);
        ALLOC(x4, c->n_quads);
        ALLOC(c4, c->n_quads);
    }
#undef ALLOC
    return ok ? DM_OK
              : dm_fail(e, DM_ENOMEM, "%s: no memory for %zu pairs, %zu triplets, %zu quadruples",
                        c->path, c->n_pairs, c->n_triplets, c->n_quads);
}

/* Blocks that wait to be unpacked. */
struct batch {
    const struct dm_cooc *c;
    const struct dm_cooc_reader *r;
    size_t first, n;
    uint8_t **data;
    size_t *bytes;
    bool *ok;
};

static void unpack_blocks(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct batch *a = ctx;
    const struct dm_cooc *c = a->c;
    for (size_t i = begin; i < end; i++) {
        const size_t b = a->first + i;
        const uint64_t at2 = dm_cooc_before(a->r, 2, b), at3 = dm_cooc_before(a->r, 3, b),
                       at4 = dm_cooc_before(a->r, 4, b);
        struct dm_cooc_lists out = {.id = {[2] = c->x2 + at2, [3] = c->x3 + at3},
                                    .count = {[2] = c->c2 + at2, [3] = c->c3 + at3},
                                    .sub = {[2] = c->sub + at2},
                                    .row = c->row};
        if (c->order == 4) {
            out.id[4] = c->x4 + at4;
            out.count[4] = c->c4 + at4;
            out.sub[3] = c->sub3 + at3;
        }
        a->ok[i] = dm_cooc_unpack(a->r, b, a->data[i], a->bytes[i], &out);
    }
}

static enum dm_status read_batch(struct batch *a, struct dm_cooc_reader *r, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    size_t n = 0;
    for (; n < a->n && !st; n++)
        st = dm_cooc_read_block(r, a->first + n, &a->data[n], &a->bytes[n], e);
    if (!st)
        dm_par_for(a->n, 1, unpack_blocks, a);
    for (size_t i = 0; i < n; i++)
        free(a->data[i]);
    for (size_t i = 0; i < a->n && !st; i++)
        if (!a->ok[i])
            st = dm_fail(e, DM_EFORMAT, "%s: block %zu of data is malformed", a->c->path,
                         a->first + i);
    return st;
}

static enum dm_status read_blocks(struct dm_cooc *c, struct dm_cooc_reader *r, struct dm_err *e)
{
    const size_t most = AT_A_TIME * dm_par_threads();
    struct batch a = {.c = c, .r = r};
    a.data = dm_alloc(most, sizeof(*a.data));
    a.bytes = dm_alloc(most, sizeof(*a.bytes));
    a.ok = dm_alloc(most, sizeof(*a.ok));
    enum dm_status st = a.data && a.bytes && a.ok
                            ? DM_OK
                            : dm_fail(e, DM_ENOMEM, "%s: no memory for %zu blocks", c->path, most);
    for (; a.first < r->blocks && !st; a.first += a.n) {
        a.n = r->blocks - a.first < most ? r->blocks - a.first : most;
        st = read_batch(&a, r, e);
    }
    free(a.data);
    free(a.bytes);
    free(a.ok);
    return st;
}

static enum dm_status read_packed(struct dm_cooc *c, struct dm_h5 *f, struct dm_err *e)
{
    struct dm_cooc_reader r;
    enum dm_status st;
    DM_TRY_GOTO(dm_cooc_reader_init(&r, f, c->V, c->order, e));
    DM_TRY_GOTO(alloc_arrays(c, &r, e));
    for (size_t i = 0; i <= c->V; i++)
        c->row[i] = UINT64_MAX;
    DM_TRY_GOTO(dm_h5_read(f, "c1", DM_H5_U64, c->c1, c->V, 0, e));
    DM_TRY_GOTO(read_blocks(c, &r, e));
    dm_cooc_close_rows(c, c->row);
    c->sub[c->n_pairs] = c->n_triplets;
    if (c->order == 4)
        c->sub3[c->n_triplets] = c->n_quads;
done:
    dm_cooc_reader_release(&r);
    return st;
}

/* ---- Checks -------------------------------------------------------------------------------- */

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

enum dm_status dm_cooc_check_totals(const struct dm_cooc *c, struct dm_err *e)
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
    if (c->N[1] > c->N[0] || c->N[2] > c->N[1] || c->N[3] > c->N[2])
        return dm_fail(e, DM_EFORMAT, "%s: more n-grams of a higher than of a lower order",
                       c->path);
    if (c->order == 2 && (c->n_triplets || c->N[2]))
        return dm_fail(e, DM_EFORMAT, "%s: triplets in a table of order 2", c->path);
    return DM_OK;
}

enum dm_status dm_cooc_check_list(const struct dm_cooc *c, const char *name, size_t at,
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

/* The lists of one order: list i is [at[i], at[i+1]) and continues what occurs most(i) times. Cut
 * into parts for the threads; of several bad lists the first is reported. */
struct lists {
    const struct dm_cooc *c;
    const char *name;
    const uint64_t *at;
    const uint32_t *x, *count;
    const uint64_t *most64; /* either */
    const uint32_t *most32; /* or */
    uint64_t *total;        /* (threads) */
    enum dm_status *st;     /* (threads) */
    struct dm_err *e;       /* (threads) */
};

static void check_part(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct lists *l = ctx;
    for (size_t i = begin; i < end && !l->st[part]; i++) {
        const size_t at = l->at[i];
        l->st[part] = dm_cooc_check_list(l->c, l->name, at, l->x + at, l->count + at,
                                         l->at[i + 1] - at, l->most64 ? l->most64[i] : l->most32[i],
                                         &l->total[part], &l->e[part]);
    }
}

static enum dm_status check_lists(struct lists l, size_t n, uint64_t most, struct dm_err *e)
{
    const size_t T = dm_par_threads();
    uint64_t total = 0;
    l.total = dm_alloc(T, sizeof(*l.total));
    l.st = dm_alloc(T, sizeof(*l.st));
    l.e = dm_alloc(T, sizeof(*l.e));
    enum dm_status st = l.total && l.st && l.e
                            ? DM_OK
                            : dm_fail(e, DM_ENOMEM, "%s: no memory for checking", l.c->path);
    if (!st)
        dm_par_for(n, 64, check_part, &l);
    for (size_t t = 0; t < T && !st; t++) {
        total += l.total[t];
        if (l.st[t])
            st = dm_fail(e, l.st[t], "%s", l.e[t].msg);
    }
    if (!st && total > most)
        st = dm_fail(e, DM_EFORMAT, "%s: %s is counted %llu times in all, want at most %llu",
                     l.c->path, l.name, (unsigned long long)total, (unsigned long long)most);
    free(l.total);
    free(l.st);
    free(l.e);
    return st;
}

static enum dm_status check(const struct dm_cooc *c, struct dm_err *e)
{
    DM_TRY(dm_cooc_check_totals(c, e));
    DM_TRY(check_pointers(c, "row", c->row, c->V, c->n_pairs, e));
    DM_TRY(check_pointers(c, "sub", c->sub, c->n_pairs, c->n_triplets, e));
    const struct lists two = {
        .c = c, .name = "x2", .at = c->row, .x = c->x2, .count = c->c2, .most64 = c->c1};
    const struct lists three = {
        .c = c, .name = "x3", .at = c->sub, .x = c->x3, .count = c->c3, .most32 = c->c2};
    DM_TRY(check_lists(two, c->V, c->N[1], e));
    DM_TRY(check_lists(three, c->n_pairs, c->N[2], e));
    if (c->order < 4)
        return DM_OK;
    const struct lists four = {
        .c = c, .name = "x4", .at = c->sub3, .x = c->x4, .count = c->c4, .most32 = c->c3};
    DM_TRY(check_pointers(c, "sub3", c->sub3, c->n_triplets, c->n_quads, e));
    return check_lists(four, c->n_triplets, c->N[3], e);
}

static enum dm_status load(struct dm_cooc *c, struct dm_h5 *f, struct dm_err *e)
{
    const bool v1 = !dm_h5_has(f, "index");
    DM_TRY(dm_cooc_read_attributes(c, f, v1, e));
    DM_TRY(v1 ? read_arrays(c, f, e) : read_packed(c, f, e));
    DM_TRY(check(c, e));
    if (v1)
        count_counts(c);
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
