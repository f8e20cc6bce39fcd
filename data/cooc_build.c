/* SPDX-License-Identifier: MIT */
#include "data/cooc_build.h"

#include <stdlib.h>

#include "data/cooc_impl.h"
#include "src/base/arena.h"
#include "src/base/stop.h"
#include "src/io/shard.h"

#define PIECE ((size_t)1 << 19) /* ids read at a time */

/* HDF5 keeps decompressed chunks of an open shard, so it is opened anew after these many pieces. */
#define OPEN 8u
#define READING (2 * (OPEN + 2) * PIECE * sizeof(int32_t))

/* Opens every shard once before the first token is counted: a wrong one fails at once. */
static enum dm_status survey(struct dm_cooc_job *j, struct dm_err *e)
{
    for (size_t i = 0; i < j->o->n_inputs; i++) {
        const char *path = j->o->inputs[i];
        struct dm_shard *s;
        enum dm_status st = DM_OK;
        DM_TRY(dm_shard_open(&s, path, e));
        if (dm_shard_separator(s) != 0)
            st = dm_fail(e, DM_EUNSUPPORTED, "%s: separates documents by token %d, want 0", path,
                         dm_shard_separator(s));
        if (!st)
            st = dm_cooc_job_input(j, path, dm_shard_vocab(s), j->o->order,
                                   dm_shard_tokenizer_hash(s), dm_shard_tokens(s), e);
        dm_shard_close(s);
        DM_TRY(st);
    }
    return dm_cooc_job_sort(j, e);
}

/* Counts the n-grams that begin in the next pieces of a shard, as many as one opening is for, up to
 * token `end`. */
static enum dm_status count_pieces(struct dm_cooc_job *j, struct dm_shard *s, int32_t *ids,
                                   size_t *at, size_t end, double *counted, struct dm_err *e)
{
    for (size_t i = 0; i < OPEN && *at < end; i++) {
        const size_t take = end - *at < PIECE ? end - *at : PIECE;
        const size_t left = dm_shard_tokens(s) - *at - take;
        const size_t look = left < j->order - 1 ? left : j->order - 1;
        if (dm_stop_requested())
            return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
        DM_TRY(dm_shard_read(s, ids, *at, take + look, e));
        DM_TRY(dm_ngram_add(j->g, ids, take, look, e));
        *at += take;
        *counted += (double)take;
        if (j->progress)
            dm_progress_set(j->progress, *counted, NULL);
    }
    return DM_OK;
}

/* Tokens [*at, *end) of source i that are among [lo, hi) of all sources laid end to end. */
static void part_of(const struct dm_cooc_job *j, size_t i, uint64_t lo, uint64_t hi, size_t *at,
                    size_t *end)
{
    uint64_t before = 0;
    for (size_t k = 0; k < i; k++)
        before += j->src[k].tokens;
    const uint64_t n = j->src[i].tokens;
    *at = (size_t)(lo < before ? 0 : lo - before < n ? lo - before : n);
    *end = (size_t)(hi < before ? 0 : hi - before < n ? hi - before : n);
}

/* Counts what begins in this process' part of the tokens. It may be cut anywhere: each n-gram
 * begins in one part, and a few tokens more are read to complete the last ones. */
static enum dm_status count(struct dm_cooc_job *j, struct dm_err *e)
{
    const uint64_t n = dm_ranks_count(j->o->ranks), r = j->o->ranks ? j->o->ranks->rank : 0;
    const uint64_t each = j->s->tokens / n, lo = r * each;
    const uint64_t hi = r + 1 == n ? j->s->tokens : lo + each;
    double counted = 0.0;
    enum dm_status st = DM_OK;
    int32_t *ids = dm_alloc(PIECE + j->order, sizeof(*ids));
    if (!ids)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu token ids", PIECE);
    if (j->progress)
        dm_progress_init(j->progress, "counting", "tokens", (double)(hi - lo));
    for (size_t i = 0, at, end; i < j->n && !st; i++) {
        struct dm_shard *s;
        part_of(j, i, lo, hi, &at, &end);
        while (at < end && !st) {
            DM_TRY_GOTO(dm_shard_open(&s, j->src[i].path, e));
            st = count_pieces(j, s, ids, &at, end, &counted, e);
            dm_shard_close(s);
        }
    }
    if (!st)
        st = dm_ngram_finish(j->g, e);
done:
    if (j->progress)
        dm_progress_end(j->progress);
    free(ids);
    return st;
}

enum dm_status dm_cooc_build(const struct dm_cooc_opt *o, struct dm_progress *progress,
                             struct dm_cooc_stats *s, struct dm_err *e)
{
    struct dm_cooc_job j;
    const double start = dm_now();
    enum dm_status st = dm_cooc_job_init(&j, o, progress, s, "cooc", e);
    if (!st)
        st = survey(&j, e);
    if (!st)
        st = dm_cooc_job_counter(&j, READING, e);
    st = dm_ranks_agree(o->ranks, st, e);
    if (!st)
        st = dm_cooc_job_join(&j, count(&j, e), e);
    if (!st && dm_ranks_first(o->ranks))
        st = dm_cooc_job_write(&j, start, e);
    dm_cooc_job_release(&j);
    return dm_ranks_agree(o->ranks, st, e);
}
