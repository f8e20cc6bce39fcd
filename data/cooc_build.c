/* SPDX-License-Identifier: MIT */
#include "data/cooc_build.h"

#include <stdlib.h>
#include <string.h>

#include "data/cooc_impl.h"
#include "src/base/arena.h"
#include "src/base/pipe.h"
#include "src/base/stop.h"
#include "src/io/shard.h"

/* What a slot fetches to, and what a thread unpacks to. */
#define SLOT_BYTES (3 * DM_SHARD_PART * sizeof(int32_t))
#define THREAD_BYTES (DM_SHARD_PART * sizeof(int32_t))

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
    return DM_OK;
}

/* Threads unpack and count parts of shards. The n-grams that begin in a part and end in the next
 * one are counted at the end, by its last ids and the first ones of the next. */
#define SEAM (2 * (DM_NGRAM_ORDER_MAX - 1))
struct seam {
    int32_t ids[SEAM]; /* order - 1 ids of one part, up to as many of the next */
    size_t look;
};

struct slot {
    struct dm_shard_part part;
    bool first, last; /* of the shard */
    size_t seam;      /* with the next part; that with the one before is seam - 1 */
};

struct counting {
    struct dm_cooc_job *j;
    struct dm_shard *shard; /* NULL: none is open */
    size_t source, part;    /* next one */
    size_t left;            /* parts that are this process' work */
    bool begun;             /* with them */
    size_t room;            /* ids that may be added yet */
    double counted;
    struct slot *slot; /* (threads) */
    int32_t **ids;     /* (threads, DM_SHARD_PART) */
    struct seam *seam;
    size_t n_seams;
};

static size_t n_parts(uint64_t tokens)
{
    return (size_t)((tokens + DM_SHARD_PART - 1) / DM_SHARD_PART);
}

/* This process' share of the parts of all shards, laid end to end. */
static void share(struct counting *c)
{
    const struct dm_cooc_job *j = c->j;
    const size_t n = dm_ranks_count(j->o->ranks), r = j->o->ranks ? j->o->ranks->rank : 0;
    size_t all = 0;
    for (size_t i = 0; i < j->n; i++)
        all += n_parts(j->src[i].tokens);
    c->left = all * (r + 1) / n - all * r / n;
    c->part = all * r / n;
    while (c->source < j->n && c->part >= n_parts(j->src[c->source].tokens))
        c->part -= n_parts(j->src[c->source++].tokens);
}

/* The next part is another process': its first ids are read here, too. */
static enum dm_status read_head(struct counting *c, uint64_t tokens, struct dm_err *e)
{
    struct seam *m = &c->seam[c->n_seams - 1];
    const size_t edge = c->j->order - 1, at = c->part * DM_SHARD_PART;
    m->look = tokens - at < edge ? (size_t)(tokens - at) : edge;
    return dm_shard_read(c->shard, m->ids + edge, at, m->look, e);
}

/* No more parts than there is room for in the counter. */
static enum dm_status take_part(void *ctx, size_t slot, bool *more, struct dm_err *e)
{
    struct counting *c = ctx;
    struct slot *s = &c->slot[slot];
    while (c->source < c->j->n && !c->j->src[c->source].tokens)
        c->source++;
    *more = c->left && c->room >= DM_SHARD_PART;
    if (!*more)
        return DM_OK;
    if (dm_stop_requested())
        return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
    const struct dm_cooc_source *src = &c->j->src[c->source];
    if (!c->shard)
        DM_TRY(dm_shard_open(&c->shard, src->path, e));
    DM_TRY(dm_shard_fetch(c->shard, c->part, &s->part, e));
    c->counted += (double)s->part.n;
    if (c->j->progress)
        dm_progress_set(c->j->progress, c->counted, NULL);
    s->part.chunk.name = src->path; // the shard may be closed before the part is unpacked
    s->first = !c->part || !c->begun;
    c->begun = true;
    s->last = ++c->part == n_parts(src->tokens);
    s->seam = c->n_seams;
    c->n_seams += !s->last;
    c->room -= DM_SHARD_PART;
    if (!--c->left && !s->last)
        DM_TRY(read_head(c, src->tokens, e));
    if (s->last) {
        dm_shard_close(c->shard);
        c->shard = NULL;
        c->source++;
        c->part = 0;
    }
    return DM_OK;
}

static enum dm_status count_part(void *ctx, size_t slot, size_t thread, struct dm_err *e)
{
    struct counting *c = ctx;
    const struct slot *s = &c->slot[slot];
    int32_t *ids = c->ids[thread];
    const size_t edge = c->j->order - 1, n = s->part.n, head = n < edge ? n : edge;
    DM_TRY(dm_shard_unpack(&c->slot[slot].part, ids, e));
    if (!s->first) {
        struct seam *before = &c->seam[s->seam - 1];
        memcpy(before->ids + edge, ids, head * sizeof(*ids));
        before->look = head;
    }
    if (s->last)
        return dm_ngram_add_part(c->j->g, thread, ids, n, 0, e);
    memcpy(c->seam[s->seam].ids, ids + n - edge, edge * sizeof(*ids));
    return dm_ngram_add_part(c->j->g, thread, ids, n - edge, edge, e);
}

static enum dm_status count_all(struct counting *c, struct dm_err *e)
{
    const size_t threads = dm_ngram_threads(c->j->g);
    const struct dm_pipe pipe = {threads, threads, c, take_part, count_part, NULL};
    while (c->left) {
        DM_TRY(dm_ngram_make_room(c->j->g, &c->room, e));
        DM_TRY(dm_pipe_run(&pipe, e));
    }
    for (size_t i = 0; i < c->n_seams; i++)
        DM_TRY(dm_ngram_add(c->j->g, c->seam[i].ids, c->j->order - 1, c->seam[i].look, e));
    return DM_OK;
}

static enum dm_status count(struct dm_cooc_job *j, struct dm_err *e)
{
    const size_t threads = dm_ngram_threads(j->g);
    struct counting c = {.j = j};
    bool memory = true;
    share(&c);
    c.seam = dm_alloc(c.left + 1, sizeof(*c.seam));
    c.slot = dm_alloc(threads, sizeof(*c.slot));
    c.ids = dm_alloc(threads, sizeof(*c.ids));
    for (size_t t = 0; t < threads && c.ids; t++)
        memory &= (c.ids[t] = dm_alloc(DM_SHARD_PART, sizeof(**c.ids))) != NULL;
    memory = memory && c.seam && c.slot && c.ids;
    if (j->progress)
        dm_progress_init(j->progress, "counting", "tokens",
                         (double)j->s->tokens / (double)dm_ranks_count(j->o->ranks));
    const enum dm_status st = memory ? count_all(&c, e)
                                     : dm_fail(e, DM_ENOMEM, "no memory to read token shards");
    if (j->progress)
        dm_progress_end(j->progress);
    for (size_t t = 0; t < threads && c.ids; t++)
        free(c.ids[t]);
    for (size_t i = 0; i < threads && c.slot; i++)
        dm_shard_part_release(&c.slot[i].part);
    dm_shard_close(c.shard);
    free(c.ids);
    free(c.slot);
    free(c.seam);
    return st;
}

enum dm_status dm_cooc_build(const struct dm_cooc_opt *o, struct dm_progress *progress,
                             struct dm_cooc_stats *s, struct dm_err *e)
{
    static const struct dm_cooc_kind kind = {"cooc", 0, SLOT_BYTES + THREAD_BYTES, survey, count};
    return dm_cooc_job_run(o, progress, s, &kind, e);
}
