/* SPDX-License-Identifier: MIT */
/* The ratios of a table without its counts: every block is read, hashed, unpacked, checked and
 * turned into ratios by one thread while it is in the cache; nothing of the table's size is written
 * but the result. What spans blocks (a row that goes on, the totals) is checked at the end. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/par.h"
#include "src/io/cooc_impl.h"
#include "src/io/cooc_pack.h"
#include "src/io/cooc_read.h"

/* A thread's arrays, for the largest block. */
struct scratch {
    uint8_t *bytes;
    uint16_t *ratio;
    uint32_t *x1, *id[DM_COOC_ORDER_MAX + 1], *count[DM_COOC_ORDER_MAX + 1];
    uint64_t *sub[DM_COOC_ORDER_MAX + 1];
    enum dm_status st;
    struct dm_err e;
};

struct loader {
    struct dm_cooc *c;
    struct dm_cooc_reader r;
    int fd;
    uint64_t *row;
    uint64_t *pairs_of; /* (V) counts of the pairs of each row, added up */
    double *n1_over_c1;
    struct dm_cooc_token *token; /* (V) */
    struct dm_cooc_block *block;
    struct scratch *scratch; /* (n_scratch) */
    size_t n_scratch;
};

static size_t entries(const struct loader *l, size_t order, size_t b)
{
    return dm_cooc_before(&l->r, order, b + 1) - dm_cooc_before(&l->r, order, b);
}

static enum dm_status open_scratch(struct loader *l, struct dm_err *e)
{
    size_t most[DM_COOC_ORDER_MAX + 1] = {0};
    for (size_t k = 2; k <= l->r.order; k++)
        for (size_t b = 0; b < l->r.blocks; b++)
            most[k] = entries(l, k, b) > most[k] ? entries(l, k, b) : most[k];
    l->n_scratch = dm_par_threads();
    l->scratch = dm_alloc(l->n_scratch, sizeof(*l->scratch));
    bool ok = l->scratch != NULL;
    for (size_t t = 0; ok && t < l->n_scratch; t++) {
        struct scratch *s = &l->scratch[t];
        s->bytes = dm_alloc(l->r.max_bytes + DM_COOC_TAKE_PAD, 1);
        s->ratio = dm_alloc(most[3] + DM_COOC_TAKE_PAD, sizeof(*s->ratio));
        s->x1 = dm_alloc(most[2] + 1, sizeof(*s->x1));
        ok = s->bytes && s->ratio && s->x1;
        for (size_t k = 2; ok && k <= DM_COOC_ORDER_MAX; k++) {
            s->id[k] = dm_alloc(most[k] + 1, sizeof(*s->id[k]));
            s->count[k] = dm_alloc(most[k] + 1, sizeof(*s->count[k]));
            s->sub[k] = dm_alloc(most[k] + 1, sizeof(*s->sub[k]));
            ok = s->id[k] && s->count[k] && s->sub[k];
        }
    }
    return ok ? DM_OK : dm_fail(e, DM_ENOMEM, "%s: no memory to read blocks", l->c->path);
}

static void close_scratch(struct loader *l)
{
    for (size_t t = 0; l->scratch && t < l->n_scratch; t++) {
        struct scratch *s = &l->scratch[t];
        free(s->bytes);
        free(s->ratio);
        free(s->x1);
        for (size_t k = 2; k <= DM_COOC_ORDER_MAX; k++) {
            free(s->id[k]);
            free(s->count[k]);
            free(s->sub[k]);
        }
    }
    free(l->scratch);
}

/* Bytes of block b, verified. */
static enum dm_status read_block(const struct loader *l, size_t b, struct scratch *s)
{
    const struct dm_h5_extent *x = &l->block[b].x;
    char hex[DM_HASH_LEN + 1], name[DM_COOC_BLOCK_NAME];
    dm_cooc_block_name(name, b);
    DM_TRY(dm_file_read_at(l->fd, s->bytes, x->bytes, x->offset, l->c->path, name, &s->e));
    dm_sha256(s->bytes, x->bytes, hex);
    return strcmp(hex, x->sha256)
               ? dm_fail(&s->e, DM_EFORMAT, "%s: %s is damaged: its hash differs", l->c->path, name)
               : DM_OK;
}

/* The lists that continue the n-grams of one order: n of them, count most[i]. */
static enum dm_status check_lists(const struct loader *l, size_t b, struct scratch *s, size_t order,
                                  uint64_t *total)
{
    const char name[] = {'x', (char)('0' + order), 0};
    const uint64_t before = dm_cooc_before(&l->r, order, b);
    const uint64_t *sub = s->sub[order - 1];
    for (size_t i = 0; i < entries(l, order - 1, b); i++) {
        const size_t at = sub[i] - before;
        DM_TRY(dm_cooc_check_list(l->c, name, sub[i], s->id[order] + at, s->count[order] + at,
                                  sub[i + 1] - sub[i], s->count[order - 1][i], total, &s->e));
    }
    return DM_OK;
}

/* Checks the pairs of every row of the block and turns all into ratios. */
static enum dm_status take_rows(const struct loader *l, size_t b, struct scratch *s)
{
    struct dm_cooc_block *k = &l->block[b];
    const uint64_t before = dm_cooc_before(&l->r, 2, b);
    const struct dm_cooc_view v = {
        before,   dm_cooc_before(&l->r, 3, b), s->id[2], s->id[3], s->count[2], s->count[3],
        s->sub[2]};
    const size_t n = entries(l, 2, b);
    for (size_t i = 0, end; i < n; i = end) {
        const uint32_t x1 = s->x1[i];
        uint64_t sum = 0;
        for (end = i; end < n && s->x1[end] == x1;)
            end++;
        DM_TRY(dm_cooc_check_list(l->c, "x2", before + i, s->id[2] + i, s->count[2] + i, end - i,
                                  l->c->c1[x1], &sum, &s->e));
        dm_cooc_index_fill(l->c, &v, l->n1_over_c1, x1, before + i, before + end);
        k->total[0] += sum;
        k->last_sum = sum;
        k->first_sum = i ? k->first_sum : sum;
        if (i && end < n)
            l->pairs_of[x1] = sum;
    }
    if (n) {
        k->first = s->x1[0];
        k->last = s->x1[n - 1];
        k->first_id = s->id[2][0];
        k->last_id = s->id[2][n - 1];
    }
    return DM_OK;
}

/* What is not usual goes step by step, which also says what is wrong. */
static enum dm_status take_block(const struct loader *l, size_t b, struct scratch *s)
{
    struct dm_cooc_lists out = {.row = l->row, .x1 = s->x1};
    DM_TRY(read_block(l, b, s));
    if (dm_cooc_take(l->c, &l->r, b, s->bytes, l->block[b].x.bytes, l->token, s->ratio, l->row,
                     l->pairs_of, &l->block[b]))
        return DM_OK;
    for (size_t k = 2; k <= DM_COOC_ORDER_MAX; k++) {
        out.id[k] = s->id[k];
        out.count[k] = s->count[k];
        out.sub[k] = s->sub[k];
        if (k < DM_COOC_ORDER_MAX)
            s->sub[k][entries(l, k, b)] = dm_cooc_before(&l->r, k + 1, b + 1);
    }
    if (!dm_cooc_unpack(&l->r, b, s->bytes, l->block[b].x.bytes, &out))
        return dm_fail(&s->e, DM_EFORMAT, "%s: block %zu of data is malformed", l->c->path, b);
    if (l->r.order > 2)
        DM_TRY(check_lists(l, b, s, 3, &l->block[b].total[1]));
    if (l->r.order > 3) {
        uint64_t quads = 0;
        DM_TRY(check_lists(l, b, s, 4, &quads));
    }
    return take_rows(l, b, s);
}

static void take_blocks(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct loader *l = ctx;
    struct scratch *s = &l->scratch[part];
    for (size_t b = begin; b < end && !s->st; b++)
        s->st = take_block(l, b, s);
}

/* Rows that are cut by the ends of blocks, and totals. */
static enum dm_status check_across(const struct loader *l, struct dm_err *e)
{
    const struct dm_cooc *c = l->c;
    uint64_t sum = 0, total[2] = {0};
    const struct dm_cooc_block *before = NULL;
    for (size_t b = 0; b < l->r.blocks; b++) {
        const struct dm_cooc_block *k = &l->block[b];
        if (!entries(l, 2, b))
            continue;
        const bool same = before && before->last == k->first;
        if (dm_cooc_goes_on(&l->r, b) != same)
            return dm_fail(e, DM_EFORMAT, "%s: block %zu does not go on with row %u", c->path, b,
                           before ? before->last : 0);
        if (same && before->last_id >= k->first_id)
            return dm_fail(e, DM_EFORMAT, "%s: block %zu begins with x2 = %u after %u", c->path, b,
                           k->first_id, before->last_id);
        sum = same ? sum + k->first_sum : k->first_sum;
        if (sum > c->c1[k->first])
            return dm_fail(
                e, DM_EFORMAT, "%s: counts of the pairs of %u add up to %llu, want at most %llu",
                c->path, k->first, (unsigned long long)sum, (unsigned long long)c->c1[k->first]);
        sum = k->last == k->first ? sum : k->last_sum;
        l->pairs_of[k->first] += k->first_sum; // another block may have some of them
        l->pairs_of[k->last] += k->last == k->first ? 0 : k->last_sum;
        total[0] += k->total[0];
        total[1] += k->total[1];
        before = k;
    }
    for (size_t i = 0; i < 2; i++)
        if (total[i] > c->N[i + 1])
            return dm_fail(e, DM_EFORMAT,
                           "%s: x%zu is counted %llu times in all, want at most %llu", c->path,
                           i + 2, (unsigned long long)total[i], (unsigned long long)c->N[i + 1]);
    return DM_OK;
}

static enum dm_status find_blocks(struct loader *l, struct dm_err *e)
{
    l->block = dm_alloc(l->r.blocks + 1, sizeof(*l->block));
    if (!l->block)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for %zu blocks", l->c->path, l->r.blocks);
    for (size_t b = 0; b < l->r.blocks; b++) {
        char name[DM_COOC_BLOCK_NAME];
        dm_cooc_block_name(name, b);
        DM_TRY(dm_h5_tensor_extent(l->r.f, name, &l->block[b].x, e));
        if (l->block[b].x.bytes > l->r.max_bytes || !l->block[b].x.bytes)
            return dm_fail(e, DM_EFORMAT, "%s: %s is not stored in one piece", l->c->path, name);
    }
    return DM_OK;
}

static enum dm_status take_all(struct loader *l, struct dm_err *e)
{
    struct dm_cooc *c = l->c;
    DM_TRY(find_blocks(l, e));
    DM_TRY(open_scratch(l, e));
    DM_TRY(dm_cooc_index_new(c, e));
    l->row = dm_alloc(c->V + 1, sizeof(*l->row));
    l->pairs_of = dm_alloc(c->V, sizeof(*l->pairs_of));
    l->n1_over_c1 = dm_cooc_n1_over_c1(c);
    l->token = dm_alloc(c->V, sizeof(*l->token));
    if (!l->row || !l->pairs_of || !l->n1_over_c1 || !l->token)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for %zu tokens", c->path, c->V);
    for (size_t i = 0; i < c->V; i++)
        l->token[i] = (struct dm_cooc_token){l->n1_over_c1[i],
                                             c->c1[i] < UINT32_MAX ? c->c1[i] : UINT32_MAX};
    l->fd = open(c->path, O_RDONLY | O_CLOEXEC);
    if (l->fd < 0)
        return dm_fail_errno(e, "%s: cannot open", c->path);
    memset(l->row, 0xff, (c->V + 1) * sizeof(*l->row));
    dm_par_for(l->r.blocks, 1, take_blocks, l);
    for (size_t t = 0; t < l->n_scratch; t++)
        if (l->scratch[t].st) {
            *e = l->scratch[t].e;
            return l->scratch[t].st;
        }
    DM_TRY(check_across(l, e));
    dm_cooc_close_rows(c, l->row);
    return dm_cooc_index_finish(c, l->row, l->pairs_of, e);
}

static enum dm_status load_packed(struct dm_cooc *c, struct dm_h5 *f, struct dm_err *e)
{
    struct loader l = {.c = c, .fd = -1};
    enum dm_status st;
    DM_TRY_GOTO(dm_cooc_reader_init(&l.r, f, c->V, c->order, e));
    c->n_pairs = dm_cooc_before(&l.r, 2, l.r.blocks);
    c->n_triplets = dm_cooc_before(&l.r, 3, l.r.blocks);
    c->c1 = dm_alloc(c->V, sizeof(*c->c1));
    if (!c->c1) {
        st = dm_fail(e, DM_ENOMEM, "%s: no memory for %zu tokens", c->path, c->V);
        goto done;
    }
    DM_TRY_GOTO(dm_h5_read(f, "c1", DM_H5_U64, c->c1, c->V, 0, e));
    DM_TRY_GOTO(dm_cooc_check_totals(c, e));
    st = take_all(&l, e);
done:
    if (l.fd >= 0)
        close(l.fd);
    close_scratch(&l);
    free(l.block);
    free(l.row);
    free(l.pairs_of);
    free(l.n1_over_c1);
    free(l.token);
    dm_cooc_reader_release(&l.r);
    return st;
}

/* A table of version 1 by way of its counts. */
static enum dm_status load_plain(struct dm_cooc *c, const char *path, struct dm_err *e)
{
    DM_TRY(dm_cooc_load(c, path, e));
    DM_TRY(dm_cooc_index(c, e));
    dm_cooc_drop_counts(c);
    return DM_OK;
}

static enum dm_status load_ratios(struct dm_cooc *c, const char *path, bool discounting,
                                  struct dm_err *e)
{
    struct dm_h5 *f;
    *c = (struct dm_cooc){.path = strdup(path), .discounting = discounting};
    if (!c->path)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    DM_TRY(dm_h5_open(&f, path, DM_COOC_FORMAT, DM_COOC_VERSION, e));
    const bool v1 = !dm_h5_has(f, "index");
    enum dm_status st = v1 ? DM_OK : dm_cooc_read_attributes(c, f, false, e);
    if (v1 && discounting)
        st = dm_fail(e, DM_EUNSUPPORTED,
                     "%s: version 1 does not say how many n-grams occur once and twice, which "
                     "discounts are estimated from; count it again",
                     path);
    if (!st && !v1)
        st = load_packed(c, f, e);
    dm_h5_close(f);
    if (!v1 || st)
        return st;
    dm_cooc_release(c);
    return load_plain(c, path, e);
}

enum dm_status dm_cooc_load_ratios(struct dm_cooc *c, const char *path, struct dm_err *e)
{
    return load_ratios(c, path, false, e);
}

enum dm_status dm_cooc_load_for(struct dm_cooc *c, const char *path, bool plain, bool discounted,
                                struct dm_err *e)
{
    DM_TRY(load_ratios(c, path, !plain, e));
    if (!plain || !discounted)
        return DM_OK;
    c->discounted = dm_alloc(1, sizeof(*c->discounted));
    if (!c->discounted)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    return load_ratios(c->discounted, path, true, e);
}
