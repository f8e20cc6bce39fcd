/* SPDX-License-Identifier: MIT */
#include "train/loader.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/rng.h"
#include "src/io/shard.h"
#include "train/prefetch.h"
#include "train/split.h"

#define VAL_KEY 0x64796e616d6f2032u /* any constant: validation is the same for every seed */
enum { ROUND = 4096 };              /* sequences over which weights are kept */

struct source {
    struct dm_shard *shard;
    int32_t *cache; /* all its tokens, or NULL: read by range */
    struct dm_pieces train, val;
    size_t share; /* sequences of a round */
};

struct pool {
    struct source *src;
    size_t n_src;
};

struct dm_loader {
    struct pool data, held; /* held: the shards of --val */
    size_t T, n_train, n_val;
    size_t round; /* sequences of a round: the sum of the shares */
    uint64_t seed;
    bool cached; /* all is in memory */
    struct dm_prefetch *prefetch;
};

static void release_pool(struct pool *p)
{
    for (size_t i = 0; i < p->n_src; i++) {
        struct source *s = &p->src[i];
        dm_shard_close(s->shard);
        free(s->cache);
        dm_pieces_release(&s->train);
        dm_pieces_release(&s->val);
    }
    free(p->src);
}

void dm_loader_free(struct dm_loader *l)
{
    if (!l)
        return;
    dm_prefetch_free(l->prefetch);
    release_pool(&l->data);
    release_pool(&l->held);
    free(l);
}

/* ---- Opening ----------------------------------------------------------------------------------
 */

enum dm_status dm_loader_check(const struct dm_shard *s, const char *path,
                               const char *tokenizer_hash, size_t V, struct dm_err *e)
{
    const char *hash = dm_shard_tokenizer_hash(s);
    if (tokenizer_hash && strcmp(hash, tokenizer_hash))
        return dm_fail(e, DM_EMISMATCH,
                       "%s: made with tokenizer %.12s..., but the model's is %.12s...; tokenize "
                       "the text again with the model's tokenizer",
                       path, hash, tokenizer_hash);
    if (dm_shard_vocab(s) > V)
        return dm_fail(e, DM_ERANGE, "%s: has a vocabulary of %zu, more than the model's %zu", path,
                       dm_shard_vocab(s), V);
    return DM_OK;
}

static enum dm_status read_tokens(void *ctx, int32_t *ids, size_t start, size_t n, struct dm_err *e)
{
    const struct source *s = ctx;
    if (!s->cache)
        return dm_shard_read_targets(s->shard, ids, start, n, e);
    memcpy(ids, s->cache + start, n * sizeof(*ids));
    return DM_OK;
}

static enum dm_status fill_cache(struct source *s, const char *path, size_t *cache_left,
                                 struct dm_err *e)
{
    const size_t tokens = dm_shard_tokens(s->shard);
    size_t bytes;
    if (!dm_mul(tokens, sizeof(int32_t), &bytes) || bytes > *cache_left)
        return DM_OK;
    int32_t *ids = dm_alloc(tokens, sizeof(*ids));
    if (!ids)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tokens", path, tokens);
    *cache_left -= bytes;
    s->cache = ids;
    return dm_shard_read_targets(s->shard, ids, 0, tokens, e);
}

static enum dm_status open_source(struct source *s, const char *path, double share,
                                  const struct dm_loader_opt *o, size_t *cache_left,
                                  struct dm_err *e)
{
    DM_TRY(dm_shard_open(&s->shard, path, e));
    DM_TRY(dm_loader_check(s->shard, path, o->tokenizer_hash, o->V, e));
    DM_TRY(fill_cache(s, path, cache_left, e));
    const size_t tokens = dm_shard_tokens(s->shard);
    if (share > 0.0)
        return dm_split(&s->train, &s->val, tokens, dm_shard_separator(s->shard), share, o->T,
                        read_tokens, s, e);
    return dm_pieces_whole(&s->train, tokens, e);
}

static enum dm_status open_pool(struct dm_loader *l, struct pool *p, const char *const *paths,
                                size_t n, double share, const struct dm_loader_opt *o,
                                size_t *cache_left, struct dm_err *e)
{
    p->src = dm_alloc(n, sizeof(*p->src));
    if (!p->src)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu shards", n);
    for (size_t i = 0; i < n; i++) {
        p->n_src = i + 1; // before the call: what it opened is released if it fails
        DM_TRY(open_source(&p->src[i], paths[i], share, o, cache_left, e));
        l->cached = l->cached && p->src[i].cache;
    }
    return DM_OK;
}

/* Every window once, or ROUND sequences by weight: the whole parts, then the largest remainders. */
static enum dm_status set_shares(struct dm_loader *l, const struct dm_loader_opt *o,
                                 struct dm_err *e)
{
    double sum = 0.0;
    for (size_t i = 0; i < o->n_data; i++) {
        struct source *s = &l->data.src[i];
        s->share = s->train.tokens / l->T;
        l->n_train += s->share;
        sum += o->weight ? o->weight[i] : 0.0;
        if (o->weight && !s->share)
            return dm_fail(e, DM_ERANGE, "%s: fewer than %zu tokens to train on, not one sequence",
                           o->data[i], l->T);
    }
    l->round = l->n_train;
    if (!o->weight)
        return DM_OK;
    size_t left = ROUND;
    for (size_t i = 0; i < o->n_data; i++) {
        l->data.src[i].share = (size_t)floor(o->weight[i] / sum * ROUND);
        left -= l->data.src[i].share;
    }
    for (; left; left--) {
        size_t most = 0;
        double lack = -INFINITY;
        for (size_t i = 0; i < o->n_data; i++) {
            const double x = o->weight[i] / sum * ROUND - (double)l->data.src[i].share;
            if (x > lack) {
                lack = x;
                most = i;
            }
        }
        l->data.src[most].share++;
    }
    l->round = ROUND;
    return DM_OK;
}

static enum dm_status check_sizes(struct dm_loader *l, const struct dm_loader_opt *o,
                                  struct dm_err *e)
{
    const struct pool *p = o->n_val ? &l->held : &l->data;
    for (size_t i = 0; i < p->n_src; i++)
        l->n_val += (o->n_val ? p->src[i].train.tokens : p->src[i].val.tokens) / l->T;
    if (!l->n_train)
        return dm_fail(e, DM_ERANGE, "%s: fewer than %zu tokens to train on, not one sequence",
                       o->data[0], l->T);
    if (l->n_val || (!o->n_val && o->val_fraction <= 0.0))
        return DM_OK;
    if (o->n_val)
        return dm_fail(e, DM_ERANGE, "%s: fewer than %zu tokens, not one sequence", o->val[0],
                       l->T);
    return dm_fail(e, DM_ERANGE,
                   "%s: too few tokens to hold a sequence of %zu out; give --val SHARD, or "
                   "--val-fraction 0 for no validation",
                   o->data[0], l->T);
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
    l->cached = true;
    const double share = opt->n_val ? 0.0 : opt->val_fraction;
    DM_TRY_GOTO(open_pool(l, &l->data, opt->data, opt->n_data, share, opt, &cache_left, e));
    DM_TRY_GOTO(open_pool(l, &l->held, opt->val, opt->n_val, 0.0, opt, &cache_left, e));
    DM_TRY_GOTO(set_shares(l, opt, e));
    DM_TRY_GOTO(check_sizes(l, opt, e));
    *out = l;
    l = NULL;
done:
    dm_loader_free(l);
    return st;
}

size_t dm_loader_train_windows(const struct dm_loader *l)
{
    return l->n_train;
}

size_t dm_loader_val_windows(const struct dm_loader *l)
{
    return l->n_val;
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

/* Sequence `number` of the run: its place in the round says which shard and the how-manieth of that
 * shard's sequences it is; these go through the shard's windows, in another order each time. */
static enum dm_status read_sequence(struct dm_loader *l, uint64_t number, int32_t *ids,
                                    struct dm_err *e)
{
    const uint64_t round = number / l->round;
    uint64_t at = dm_permute(number % l->round, l->round, dm_mix64(l->seed) ^ dm_mix64(~round));
    struct source *s = l->data.src;
    for (; at >= s->share; s++)
        at -= s->share;
    const uint64_t own = round * s->share + at, windows = s->train.tokens / l->T;
    const uint64_t which = (uint64_t)(s - l->data.src) << 48;
    const uint64_t key = dm_mix64(l->seed + 1) ^ dm_mix64(which + own / windows);
    const size_t window = (size_t)dm_permute(own % windows, windows, key);
    return dm_pieces_read(&s->train, ids, window * l->T, l->T, read_tokens, s, e);
}

static enum dm_status read_sequences(void *ctx, uint64_t first, size_t n, int32_t *ids,
                                     struct dm_err *e)
{
    struct dm_loader *l = ctx;
    for (size_t i = 0; i < n; i++)
        DM_TRY(read_sequence(l, first + i, ids + i * l->T, e));
    return DM_OK;
}

enum dm_status dm_loader_read(struct dm_loader *l, uint64_t first, size_t n, int32_t *ids,
                              struct dm_err *e)
{
    enum dm_status st;
    if (l->prefetch && dm_prefetch_take(l->prefetch, first, n, ids, &st, e))
        return st;
    return read_sequences(l, first, n, ids, e);
}

void dm_loader_prefetch(struct dm_loader *l, uint64_t first, size_t n)
{
    if (l->cached)
        return;
    if (!l->prefetch)
        l->prefetch = dm_prefetch_new(read_sequences, l, l->T);
    if (l->prefetch)
        dm_prefetch_ask(l->prefetch, first, n);
}

void dm_loader_quiet(struct dm_loader *l)
{
    if (l->prefetch)
        dm_prefetch_wait(l->prefetch);
}

enum dm_status dm_loader_val(struct dm_loader *l, size_t start, size_t n, int32_t *ids,
                             struct dm_err *e)
{
    assert(start + n <= l->n_val);
    dm_loader_quiet(l);
    for (size_t i = 0; i < n; i++) {
        const bool apart = l->held.n_src > 0;
        struct source *s = apart ? l->held.src : l->data.src;
        size_t at = (size_t)dm_permute(start + i, l->n_val, VAL_KEY);
        for (;; s++) {
            const struct dm_pieces *v = apart ? &s->train : &s->val;
            if (at < v->tokens / l->T) {
                DM_TRY(dm_pieces_read(v, ids + i * l->T, at * l->T, l->T, read_tokens, s, e));
                break;
            }
            at -= v->tokens / l->T;
        }
    }
    return DM_OK;
}
