/* SPDX-License-Identifier: MIT */
#include "data/tokenize.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/pipe.h"
#include "src/base/provenance.h"
#include "src/base/stop.h"

enum { BLOCK = 1 << 16, TEXT_BLOCK = 1 << 18 };

/* ---- The pipeline --------------------------------------------------------------------------- */

/* A part of a document: where its ids end, and whether the document does. */
struct piece {
    size_t end;
    bool last;
};

/* A block of text on its way to ids. */
struct work {
    struct dm_block block;
    struct dm_ids ids;
    struct piece *piece;
    size_t n_pieces, cap_pieces;
    struct dm_tokenize_stats stats;
};

/* Blocks are read one after the other, encoded side by side and handed over in order. */
struct pipeline {
    const struct dm_tokenize *k;
    struct dm_reader *reader; /* of paths[path]; NULL before it is opened */
    size_t path;
    uint64_t before; /* bytes of the files before this one */
    struct dm_tokenize_stats *stats;
    struct work *work;           /* (slots) */
    struct dm_encoder **encoder; /* (threads) */
};

static size_t cut(const void *ctx, const char *text, size_t n)
{
    return dm_tokenizer_cut(ctx, text, n);
}

/* The next block of the files; *more = false after the last one. */
static enum dm_status take(void *ctx, size_t slot, bool *more, struct dm_err *e)
{
    struct pipeline *p = ctx;
    struct work *w = &p->work[slot];
    const struct dm_tokenize *k = p->k;
    const size_t size = k->block ? k->block : TEXT_BLOCK;
    for (*more = false; !*more && p->path < k->n_paths;) {
        if (dm_stop_requested())
            return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
        if (!p->reader)
            DM_TRY(dm_reader_open(&p->reader, k->paths[p->path], &k->reader, e));
        DM_TRY(dm_reader_block(p->reader, cut, k->tokenizer, size, &w->block, more, e));
        if (*more) {
            w->block.consumed += p->before;
        } else {
            p->before += dm_reader_consumed(p->reader);
            dm_reader_close(p->reader);
            p->reader = NULL;
            p->path++;
        }
    }
    return DM_OK;
}

static enum dm_status add_piece(struct work *w, bool last, struct dm_err *e)
{
    if (w->n_pieces == w->cap_pieces) {
        const size_t cap = w->cap_pieces ? 2 * w->cap_pieces : 64;
        struct piece *q = dm_realloc(w->piece, cap, sizeof(*q));
        if (!q)
            return dm_fail(e, DM_ENOMEM, "out of memory");
        w->piece = q;
        w->cap_pieces = cap;
    }
    w->piece[w->n_pieces++] = (struct piece){.end = w->ids.n, .last = last};
    return DM_OK;
}

static enum dm_status encode(void *ctx, size_t slot, size_t thread, struct dm_err *e)
{
    const struct pipeline *p = ctx;
    struct work *w = &p->work[slot];
    const char *text;
    size_t n;
    bool last;
    w->ids.n = w->n_pieces = 0;
    w->stats = (struct dm_tokenize_stats){0};
    for (;;) {
        DM_TRY(dm_block_next(&w->block, &text, &n, &last, e));
        if (!text)
            break;
        DM_TRY(dm_encoder_encode(p->encoder[thread], text, n, &w->ids, e));
        DM_TRY(add_piece(w, last, e));
        w->stats.documents += last;
        w->stats.bytes += n;
    }
    w->stats.tokens = w->ids.n;
    return DM_OK;
}

static enum dm_status hand_over(void *ctx, size_t slot, struct dm_err *e)
{
    struct pipeline *p = ctx;
    const struct work *w = &p->work[slot];
    const struct dm_tokenize *k = p->k;
    for (size_t i = 0, at = 0; i < w->n_pieces; at = w->piece[i++].end)
        DM_TRY(k->sink(k->ctx, w->ids.id + at, w->piece[i].end - at, w->piece[i].last, e));
    p->stats->documents += w->stats.documents;
    p->stats->bytes += w->stats.bytes;
    p->stats->tokens += w->stats.tokens;
    if (k->progress)
        k->progress(k->ctx, w->block.consumed, p->stats);
    return DM_OK;
}

enum dm_status dm_tokenize_run(const struct dm_tokenize *k, struct dm_tokenize_stats *stats,
                               struct dm_err *e)
{
    const size_t threads = dm_par_threads(), slots = 2 * threads;
    struct pipeline p = {.k = k, .stats = stats};
    const struct dm_pipe pipe = {threads, slots, &p, take, encode, hand_over};
    *stats = (struct dm_tokenize_stats){0};
    p.work = dm_alloc(slots, sizeof(*p.work));
    p.encoder = dm_alloc(threads, sizeof(struct dm_encoder *));
    enum dm_status st = p.work && p.encoder ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory");
    for (size_t i = 0; !st && i < threads; i++)
        st = dm_encoder_new(&p.encoder[i], k->tokenizer, e);
    if (!st)
        st = dm_pipe_run(&pipe, e);
    dm_reader_close(p.reader);
    for (size_t i = 0; p.work && i < slots; i++) {
        dm_block_release(&p.work[i].block);
        dm_ids_release(&p.work[i].ids);
        free(p.work[i].piece);
    }
    for (size_t i = 0; p.encoder && i < threads; i++)
        dm_encoder_free(p.encoder[i]);
    free(p.work);
    free(p.encoder);
    return st;
}

/* ---- Shards --------------------------------------------------------------------------------- */

struct shard_sink {
    struct dm_shard_writer *w;
    const struct dm_tokenize *k;
};

static enum dm_status to_shard(void *ctx, const int32_t *ids, size_t n, bool end, struct dm_err *e)
{
    static const int32_t separator = DM_SEPARATOR;
    struct shard_sink *s = ctx;
    DM_TRY(dm_shard_append(s->w, ids, n, e));
    return end ? dm_shard_append(s->w, &separator, 1, e) : DM_OK;
}

static void pass_progress(void *ctx, uint64_t consumed, const struct dm_tokenize_stats *so_far)
{
    struct shard_sink *s = ctx;
    if (s->k->progress)
        s->k->progress(s->k->ctx, consumed, so_far);
}

/* Hashing a pipe would swallow it. */
static bool regular(const char *path)
{
    struct stat s;
    return strcmp(path, "-") && !stat(path, &s) && S_ISREG(s.st_mode);
}

/* The shard's provenance as heap text. Pipes, standard input among them, have no hash. */
static enum dm_status describe(const struct dm_tokenizer *t, const char *const *paths,
                               size_t n_paths, int argc, char *const *argv, char **text,
                               struct dm_err *e)
{
    json_t *inputs = json_array();
    enum dm_status st = DM_OK;
    *text = NULL;
    for (size_t i = 0; !st && i < n_paths; i++) {
        if (dm_stop_requested())
            st = dm_fail(e, DM_ESTOPPED, "stopped by a signal");
        else if (regular(paths[i]))
            st = dm_provenance_input(inputs, paths[i], e);
    }
    json_t *extra = json_pack("{s:o, s:s}", "inputs", inputs, "tokenizer_sha256",
                              dm_tokenizer_hash(t));
    if (st) {
        json_decref(extra);
        return st;
    }
    *text = extra ? dm_provenance(argc, argv, extra) : NULL;
    return *text ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory");
}

enum dm_status dm_tokenize_create(struct dm_shard_writer **w, const struct dm_tokenizer *t,
                                  const char *const *paths, size_t n_paths, const char *out,
                                  int argc, char *const *argv, struct dm_err *e)
{
    char *provenance;
    *w = NULL;
    if (dm_tokenizer_eos(t) != DM_SEPARATOR)
        return dm_fail(e, DM_EMISMATCH,
                       "%s: a shard separates documents by token 0, but this tokenizer's "
                       "<|endoftext|> is %d",
                       out, (int)dm_tokenizer_eos(t));
    DM_TRY(describe(t, paths, n_paths, argc, argv, &provenance, e));
    enum dm_status st = dm_shard_create(w, out, dm_tokenizer_size(t), dm_tokenizer_json(t, NULL),
                                        dm_tokenizer_hash(t), provenance, e);
    free(provenance);
    return st;
}

enum dm_status dm_tokenize_shard(const struct dm_tokenize *k, const char *out, int argc,
                                 char *const *argv, struct dm_tokenize_stats *stats,
                                 struct dm_err *e)
{
    struct shard_sink sink = {.k = k};
    struct dm_tokenize inner = *k;
    *stats = (struct dm_tokenize_stats){0};
    DM_TRY(dm_tokenize_create(&sink.w, k->tokenizer, k->paths, k->n_paths, out, argc, argv, e));
    inner.sink = to_shard;
    inner.progress = pass_progress;
    inner.ctx = &sink;
    enum dm_status st = dm_tokenize_run(&inner, stats, e);
    if (!st)
        return dm_shard_commit(sink.w, e);
    dm_shard_abort(sink.w);
    return st;
}

enum dm_status dm_shard_walk_next(struct dm_shard_walk *w, struct dm_shard *s, bool *more,
                                  struct dm_err *e)
{
    const size_t total = dm_shard_tokens(s);
    w->ids.n = 0;
    *more = w->block_at < w->n_block || w->at < total;
    if (!w->block && !(w->block = dm_alloc(BLOCK, sizeof(*w->block))))
        return dm_fail(e, DM_ENOMEM, "out of memory");
    while (w->block_at < w->n_block || w->at < total) {
        if (w->block_at == w->n_block) {
            w->n_block = total - w->at < BLOCK ? total - w->at : BLOCK;
            w->block_at = 0;
            DM_TRY(dm_shard_read(s, w->block, w->at, w->n_block, e));
            w->at += w->n_block;
        }
        const int32_t id = w->block[w->block_at++];
        if (id == dm_shard_separator(s))
            break;
        DM_TRY(dm_ids_push(&w->ids, id, e));
    }
    return DM_OK;
}

void dm_shard_walk_release(struct dm_shard_walk *w)
{
    dm_ids_release(&w->ids);
    free(w->block);
    *w = (struct dm_shard_walk){0};
}
