/* SPDX-License-Identifier: MIT */
#include "train/loader.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/rng.h"
#include "src/io/shard.h"

#define SPLIT_KEY 0x64796e616d6f2031u /* any constant: the split is the same for every seed */

struct source {
    struct dm_shard *shard;
    int32_t *cache; /* all its tokens, or NULL: read by range */
    size_t windows;
};

struct pool {
    struct source *src;
    size_t n_src, windows;
};

struct dm_loader {
    struct pool data, val;
    size_t T, n_val; /* n_val: windows of `data` that are held out */
    uint64_t seed;
};

/* A permutation of [0, n): a Feistel network on the next even number of bits, walked until it lands
 * inside. Fewer than 4 rounds on average, since the domain is less than 4 n. */
static uint64_t permute(uint64_t i, uint64_t n, uint64_t key)
{
    unsigned half = 1;
    while (half < 32 && ((uint64_t)1 << (2 * half)) < n)
        half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    assert(i < n);
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            const uint64_t next = left ^ (dm_mix64(key ^ dm_mix64(right + (round << 40))) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

static void release_pool(struct pool *p)
{
    for (size_t i = 0; i < p->n_src; i++) {
        dm_shard_close(p->src[i].shard);
        free(p->src[i].cache);
    }
    free(p->src);
}

void dm_loader_free(struct dm_loader *l)
{
    if (!l)
        return;
    release_pool(&l->data);
    release_pool(&l->val);
    free(l);
}

static enum dm_status check_shard(const struct dm_shard *s, const char *path,
                                  const struct dm_loader_opt *o, struct dm_err *e)
{
    const char *hash = dm_shard_tokenizer_hash(s);
    if (o->tokenizer_hash && strcmp(hash, o->tokenizer_hash))
        return dm_fail(e, DM_EMISMATCH,
                       "%s: made with tokenizer %.12s..., but the model's is %.12s...; tokenize "
                       "the text again with the model's tokenizer",
                       path, hash, o->tokenizer_hash);
    if (dm_shard_vocab(s) > o->V)
        return dm_fail(e, DM_ERANGE, "%s: has a vocabulary of %zu, more than the model's %zu", path,
                       dm_shard_vocab(s), o->V);
    return DM_OK;
}

static enum dm_status open_source(struct source *src, const char *path,
                                  const struct dm_loader_opt *o, size_t *cache_left,
                                  struct dm_err *e)
{
    size_t bytes;
    DM_TRY(dm_shard_open(&src->shard, path, e));
    DM_TRY(check_shard(src->shard, path, o, e));
    const size_t tokens = dm_shard_tokens(src->shard);
    src->windows = tokens / o->T;
    if (!dm_mul(tokens, sizeof(int32_t), &bytes) || bytes > *cache_left)
        return DM_OK;
    src->cache = dm_alloc(tokens, sizeof(int32_t));
    if (!src->cache)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tokens", path, tokens);
    *cache_left -= bytes;
    return dm_shard_read_targets(src->shard, src->cache, 0, tokens, e);
}

static enum dm_status open_pool(struct pool *p, const char *const *paths, size_t n,
                                const struct dm_loader_opt *o, size_t *cache_left, struct dm_err *e)
{
    p->src = dm_alloc(n, sizeof(*p->src));
    if (!p->src)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu shards", n);
    for (size_t i = 0; i < n; i++) {
        p->n_src = i + 1; // before the call: what it opened is released if it fails
        DM_TRY(open_source(&p->src[i], paths[i], o, cache_left, e));
        p->windows += p->src[i].windows;
    }
    if (n && !p->windows)
        return dm_fail(e, DM_ERANGE, "%s: fewer than %zu tokens, not one sequence", paths[0], o->T);
    return DM_OK;
}

static enum dm_status split(struct dm_loader *l, const struct dm_loader_opt *o, struct dm_err *e)
{
    if (!o->n_val && o->val_fraction > 0.0) {
        l->n_val = (size_t)llround(o->val_fraction * (double)l->data.windows);
        if (!l->n_val)
            l->n_val = 1;
    }
    if (l->n_val >= l->data.windows)
        return dm_fail(e, DM_ERANGE,
                       "%s: %zu sequences of %zu tokens leave none to train on after %zu for "
                       "validation",
                       o->data[0], l->data.windows, o->T, l->n_val);
    return DM_OK;
}

enum dm_status dm_loader_new(struct dm_loader **out, const struct dm_loader_opt *opt,
                             struct dm_err *e)
{
    enum dm_status st = DM_OK;
    size_t cache_left = opt->cache_bytes;
    struct dm_loader *l = dm_alloc(1, sizeof(*l));
    *out = NULL;
    if (!l)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    l->T = opt->T;
    l->seed = opt->seed;
    DM_TRY_GOTO(open_pool(&l->data, opt->data, opt->n_data, opt, &cache_left, e));
    DM_TRY_GOTO(open_pool(&l->val, opt->val, opt->n_val, opt, &cache_left, e));
    DM_TRY_GOTO(split(l, opt, e));
    *out = l;
    l = NULL;
done:
    dm_loader_free(l);
    return st;
}

size_t dm_loader_train_windows(const struct dm_loader *l)
{
    return l->data.windows - l->n_val;
}

size_t dm_loader_val_windows(const struct dm_loader *l)
{
    return l->val.n_src ? l->val.windows : l->n_val;
}

static enum dm_status read_window(struct pool *p, size_t window, size_t T, int32_t *ids,
                                  struct dm_err *e)
{
    struct source *s = p->src;
    for (; window >= s->windows; s++)
        window -= s->windows;
    if (!s->cache)
        return dm_shard_read_targets(s->shard, ids, window * T, T, e);
    memcpy(ids, s->cache + window * T, T * sizeof(*ids));
    return DM_OK;
}

enum dm_status dm_loader_next(struct dm_loader *l, struct dm_loader_pos *pos, int32_t *ids,
                              size_t B, struct dm_err *e)
{
    const size_t n = dm_loader_train_windows(l);
    assert(pos->index < n);
    for (size_t b = 0; b < B; b++) {
        const uint64_t key = dm_mix64(l->seed) ^ dm_mix64(~pos->epoch);
        const size_t at = l->n_val + permute(pos->index, n, key);
        const size_t window = permute(at, l->data.windows, SPLIT_KEY);
        DM_TRY(read_window(&l->data, window, l->T, ids + b * l->T, e));
        if (++pos->index == n)
            *pos = (struct dm_loader_pos){.epoch = pos->epoch + 1};
    }
    return DM_OK;
}

enum dm_status dm_loader_val(struct dm_loader *l, size_t start, size_t n, int32_t *ids,
                             struct dm_err *e)
{
    assert(start + n <= dm_loader_val_windows(l));
    for (size_t i = 0; i < n; i++) {
        int32_t *row = ids + i * l->T;
        const size_t at = start + i;
        if (l->val.n_src)
            DM_TRY(read_window(&l->val, at, l->T, row, e));
        else
            DM_TRY(read_window(&l->data, permute(at, l->data.windows, SPLIT_KEY), l->T, row, e));
    }
    return DM_OK;
}
