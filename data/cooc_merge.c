/* SPDX-License-Identifier: MIT */
/* A table that holds every n-gram is a sorted sequence of keys again: what an n-gram occurs more
 * often than those that it begins, it occurs at the end of a document. */
#include <stdlib.h>

#include "data/cooc_impl.h"
#include "src/base/arena.h"
#include "src/base/stop.h"
#include "src/io/cooc_read.h"

struct table {
    struct dm_cooc_job *j;
    struct dm_cooc_reader r;
    struct dm_cooc_lists l;                 /* one block's */
    size_t n[DM_COOC_ORDER_MAX + 1];        /* of it, by order */
    uint64_t before[DM_COOC_ORDER_MAX + 1]; /* it */
    uint64_t *c1, *more;                    /* (V) counts; how many begin no pair */
    uint64_t N[DM_COOC_ORDER_MAX];
    struct dm_counts keys;
};

static void put(struct table *t, const uint32_t *id, size_t n, uint64_t count)
{
    const unsigned bits = dm_ngram_id_bits(t->j->g);
    uint64_t key = 0;
    for (size_t i = 0; i < t->r.order; i++)
        key = key << bits | (i < n ? id[i] : 0);
    t->keys.key[t->keys.n] = key;
    t->keys.count[t->keys.n++] = (uint32_t)count;
}

/* Where the entries below entry i of order n begin in the block. */
static uint64_t below(const struct table *t, size_t n, uint64_t i)
{
    return i < t->n[n] ? t->l.sub[n][i] - t->before[n + 1] : t->n[n + 1];
}

/* Puts entry i of order n, id[0..n) being its ids but the last, and all that it begins. False if
 * the counts do not add up. */
static bool put_entry(struct table *t, uint32_t *id, size_t n, uint64_t i)
{
    const uint64_t count = t->l.count[n][i];
    uint64_t sum = 0;
    id[n - 1] = t->l.id[n][i];
    t->N[n - 1] += count;
    if (n == t->r.order || n == DM_COOC_ORDER_MAX) { // the compiler sees an end
        put(t, id, n, count);
        return true;
    }
    const uint64_t begin = below(t, n, i), end = below(t, n, i + 1);
    for (uint64_t k = begin; k < end; k++)
        sum += t->l.count[n + 1][k];
    if (sum > count)
        return false;
    if (count > sum)
        put(t, id, n, count - sum);
    bool ok = true;
    for (uint64_t k = begin; k < end && ok; k++)
        ok = put_entry(t, id, n + 1, k);
    return ok;
}

static enum dm_status add_block(struct table *t, struct dm_err *e)
{
    const char *path = dm_h5_path(t->r.f);
    uint32_t id[DM_COOC_ORDER_MAX] = {0};
    t->keys.n = 0;
    for (uint64_t p = 0; p < t->n[2]; p++) {
        id[0] = t->l.x1[p];
        const uint64_t count = t->l.count[2][p];
        if (!id[0] || count > t->more[id[0]] || !put_entry(t, id, 2, p))
            return dm_fail(e, DM_EFORMAT, "%s: the counts below token %u do not add up", path,
                           id[0]);
        t->more[id[0]] -= count;
    }
    return dm_ngram_add_counts(t->j->g, &t->keys, e);
}

static enum dm_status read_block(struct table *t, size_t b, struct dm_err *e)
{
    size_t n, all = 0;
    uint8_t *data;
    for (size_t k = 2; k <= t->r.order; k++) {
        t->before[k] = dm_cooc_before(&t->r, k, b);
        t->n[k] = dm_cooc_before(&t->r, k, b + 1) - t->before[k];
        all += t->n[k];
    }
    DM_TRY(dm_cooc_read_block(&t->r, b, &data, &n, e));
    bool ok = all <= n, memory = true; // an entry has a byte at least
    for (size_t k = 2; k <= t->r.order && ok; k++) {
        memory &= (t->l.id[k] = dm_alloc(t->n[k] + 1, sizeof(*t->l.id[k]))) != NULL;
        memory &= (t->l.count[k] = dm_alloc(t->n[k] + 1, sizeof(*t->l.count[k]))) != NULL;
        memory &= (t->l.sub[k] = dm_alloc(t->n[k] + 1, sizeof(*t->l.sub[k]))) != NULL;
    }
    t->l.x1 = dm_alloc(t->n[2] + 1, sizeof(*t->l.x1));
    t->keys.key = dm_alloc(ok ? all + 1 : 1, sizeof(*t->keys.key));
    t->keys.count = dm_alloc(ok ? all + 1 : 1, sizeof(*t->keys.count));
    memory = memory && t->l.x1 && t->keys.key && t->keys.count;
    ok = ok && memory && dm_cooc_unpack(&t->r, b, data, n, &t->l);
    free(data);
    if (!memory)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for block %zu", dm_h5_path(t->r.f), b);
    return ok ? DM_OK
              : dm_fail(e, DM_EFORMAT, "%s: block %zu of data is malformed", dm_h5_path(t->r.f), b);
}

static void release_block(struct table *t)
{
    for (size_t k = 2; k <= DM_COOC_ORDER_MAX; k++) {
        free(t->l.id[k]);
        free(t->l.count[k]);
        free(t->l.sub[k]);
    }
    free(t->l.x1);
    free(t->keys.key);
    free(t->keys.count);
    t->l = (struct dm_cooc_lists){0};
    t->keys = (struct dm_counts){0};
}

/* Tokens that end their documents. */
static enum dm_status add_ends(struct table *t, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    t->keys.key = dm_alloc(t->r.V, sizeof(*t->keys.key));
    t->keys.count = dm_alloc(t->r.V, sizeof(*t->keys.count));
    if (!t->keys.key || !t->keys.count)
        st = dm_fail(e, DM_ENOMEM, "no memory for %zu ids", t->r.V);
    for (uint32_t x = 1; x < t->r.V && !st; x++) {
        if (t->more[x] > UINT32_MAX)
            st = dm_fail(e, DM_ERANGE, "%s: token %u ends %llu documents, want at most %lu",
                         dm_h5_path(t->r.f), x, (unsigned long long)t->more[x],
                         (unsigned long)UINT32_MAX);
        else if (t->more[x])
            put(t, &x, 1, t->more[x]);
    }
    if (!st)
        st = dm_ngram_add_counts(t->j->g, &t->keys, e);
    if (!st)
        dm_ngram_add_totals(t->j->g, t->c1, t->N);
    return st;
}

static enum dm_status read_unigrams(struct table *t, struct dm_err *e)
{
    const char *path = dm_h5_path(t->r.f);
    uint64_t n1, sum = 0;
    bool over = false;
    DM_TRY(dm_h5_get_u64(t->r.f, "/", "n1", &n1, e));
    t->c1 = dm_alloc(t->r.V, sizeof(*t->c1));
    t->more = dm_alloc(t->r.V, sizeof(*t->more));
    if (!t->c1 || !t->more)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for %zu ids", path, t->r.V);
    DM_TRY(dm_h5_read(t->r.f, "c1", DM_H5_U64, t->c1, t->r.V, 0, e));
    for (size_t i = 0; i < t->r.V; i++) {
        t->more[i] = t->c1[i];
        over |= __builtin_add_overflow(sum, t->c1[i], &sum);
    }
    if (over || sum != n1 || t->c1[0])
        return dm_fail(e, DM_EFORMAT, "%s: unigram counts are not those of n1 = %llu", path,
                       (unsigned long long)n1);
    t->N[0] = n1;
    return DM_OK;
}

static enum dm_status add_table(struct table *t, struct dm_h5 *f, struct dm_err *e)
{
    DM_TRY(dm_cooc_reader_init(&t->r, f, t->j->V, t->j->order, e));
    DM_TRY(read_unigrams(t, e));
    for (size_t b = 0; b < t->r.blocks; b++) {
        enum dm_status st = read_block(t, b, e);
        if (!st)
            st = add_block(t, e);
        release_block(t);
        DM_TRY(st);
    }
    return add_ends(t, e);
}

static enum dm_status add_all(struct dm_cooc_job *j, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    if (j->progress)
        dm_progress_init(j->progress, "reading", "tables", (double)j->n);
    for (size_t i = 0; i < j->n && !st; i++) {
        struct table t = {.j = j};
        struct dm_h5 *f;
        st = dm_h5_open(&f, j->src[i].path, DM_COOC_FORMAT, DM_COOC_VERSION, e);
        if (st)
            break;
        st = add_table(&t, f, e);
        release_block(&t);
        dm_cooc_reader_release(&t.r);
        free(t.c1);
        free(t.more);
        dm_h5_close(f);
        if (j->progress)
            dm_progress_set(j->progress, (double)(i + 1), NULL);
    }
    if (j->progress)
        dm_progress_end(j->progress);
    return st;
}

static enum dm_status survey_table(struct dm_cooc_job *j, const char *path, struct dm_h5 *f,
                                   struct dm_err *e)
{
    uint64_t V, order, complete = 0;
    char *hash;
    if (!dm_h5_has(f, "index"))
        return dm_fail(
            e, DM_EUNSUPPORTED,
            "%s: a table of version 1 does not say whether it was pruned; count its shards "
            "again with dynamo cooc",
            path);
    DM_TRY(dm_h5_get_u64(f, "/", "vocab", &V, e));
    DM_TRY(dm_h5_get_u64(f, "/", "order", &order, e));
    DM_TRY(dm_h5_get_u64(f, "/", "complete", &complete, e));
    if (complete != 1)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "%s: a pruned table cannot be added to others; merge whole ones, then prune",
                       path);
    if (!V || V > UINT32_MAX || order < 2 || order > DM_COOC_ORDER_MAX)
        return dm_fail(e, DM_EFORMAT,
                       "%s: vocab is %llu and order %llu, want 1 to 2^32 - 1, 2 to 4", path,
                       (unsigned long long)V, (unsigned long long)order);
    DM_TRY(dm_h5_get_string(f, "/", "tokenizer_hash", &hash, e));
    const enum dm_status st = dm_cooc_job_input(j, path, (size_t)V, (size_t)order, hash, 0, e);
    free(hash);
    return st;
}

static enum dm_status survey(struct dm_cooc_job *j, struct dm_err *e)
{
    for (size_t i = 0; i < j->o->n_inputs; i++) {
        const char *path = j->o->inputs[i];
        struct dm_h5 *f;
        DM_TRY(dm_h5_open(&f, path, DM_COOC_FORMAT, DM_COOC_VERSION, e));
        const enum dm_status st = survey_table(j, path, f, e);
        dm_h5_close(f);
        DM_TRY(st);
    }
    return DM_OK;
}

/* A block of about 1 MB, unpacked and as keys. */
#define READING ((size_t)48 << 20)

enum dm_status dm_cooc_merge(const struct dm_cooc_opt *o, struct dm_progress *progress,
                             struct dm_cooc_stats *s, struct dm_err *e)
{
    static const struct dm_cooc_kind kind = {"cooc merge", READING, 0, survey, add_all};
    return dm_cooc_job_run(o, progress, s, &kind, e);
}
