/* SPDX-License-Identifier: MIT */
#include "data/tokenize.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/arena.h"
#include "src/base/provenance.h"

enum { BLOCK = 1 << 16 };

static enum dm_status run_file(const struct dm_tokenize *k, const char *path,
                               struct dm_encoder *encoder, struct dm_ids *ids, uint64_t before,
                               uint64_t *consumed, struct dm_tokenize_stats *stats,
                               struct dm_err *e)
{
    struct dm_reader *r;
    const char *text;
    size_t n;
    enum dm_status st;
    DM_TRY(dm_reader_open(&r, path, &k->reader, e));
    while (!(st = dm_reader_next(r, &text, &n, e)) && text) {
        ids->n = 0;
        st = dm_encoder_encode(encoder, text, n, ids, e);
        if (!st)
            st = k->sink(k->ctx, ids->id, ids->n, e);
        if (st)
            break;
        stats->documents++;
        stats->bytes += n;
        stats->tokens += ids->n;
        if (k->progress)
            k->progress(k->ctx, before + dm_reader_consumed(r));
    }
    *consumed = dm_reader_consumed(r);
    dm_reader_close(r);
    return st;
}

enum dm_status dm_tokenize_run(const struct dm_tokenize *k, struct dm_tokenize_stats *stats,
                               struct dm_err *e)
{
    struct dm_encoder *encoder;
    struct dm_ids ids = {0};
    uint64_t before = 0, consumed;
    enum dm_status st = DM_OK;
    *stats = (struct dm_tokenize_stats){0};
    DM_TRY(dm_encoder_new(&encoder, k->tokenizer, e));
    for (size_t i = 0; !st && i < k->n_paths; i++) {
        st = run_file(k, k->paths[i], encoder, &ids, before, &consumed, stats, e);
        before += st ? 0 : consumed;
    }
    dm_ids_release(&ids);
    dm_encoder_free(encoder);
    return st;
}

struct shard_sink {
    struct dm_shard_writer *w;
    const struct dm_tokenize *k;
};

static enum dm_status to_shard(void *ctx, const int32_t *ids, size_t n, struct dm_err *e)
{
    static const int32_t separator = DM_SEPARATOR;
    struct shard_sink *s = ctx;
    DM_TRY(dm_shard_append(s->w, ids, n, e));
    return dm_shard_append(s->w, &separator, 1, e);
}

static void pass_progress(void *ctx, uint64_t consumed)
{
    struct shard_sink *s = ctx;
    if (s->k->progress)
        s->k->progress(s->k->ctx, consumed);
}

/* Hashing a pipe would swallow it. */
static bool regular(const char *path)
{
    struct stat s;
    return strcmp(path, "-") && !stat(path, &s) && S_ISREG(s.st_mode);
}

/* The shard's provenance as heap text. Pipes, standard input among them, have no hash. */
static enum dm_status describe(const struct dm_tokenize *k, int argc, char *const *argv,
                               char **text, struct dm_err *e)
{
    json_t *inputs = json_array();
    enum dm_status st = DM_OK;
    *text = NULL;
    for (size_t i = 0; !st && i < k->n_paths; i++)
        if (regular(k->paths[i]))
            st = dm_provenance_input(inputs, k->paths[i], e);
    json_t *extra = json_pack("{s:o, s:s}", "inputs", inputs, "tokenizer_sha256",
                              dm_tokenizer_hash(k->tokenizer));
    if (st) {
        json_decref(extra);
        return st;
    }
    *text = dm_provenance(argc, argv, extra);
    return *text ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory");
}

enum dm_status dm_tokenize_shard(const struct dm_tokenize *k, const char *out, int argc,
                                 char *const *argv, struct dm_tokenize_stats *stats,
                                 struct dm_err *e)
{
    struct shard_sink sink = {.k = k};
    struct dm_tokenize inner = *k;
    char *provenance;
    *stats = (struct dm_tokenize_stats){0};
    if (dm_tokenizer_eos(k->tokenizer) != DM_SEPARATOR)
        return dm_fail(e, DM_EMISMATCH,
                       "%s: a shard separates documents by token 0, but this tokenizer's "
                       "<|endoftext|> is %d",
                       out, (int)dm_tokenizer_eos(k->tokenizer));
    DM_TRY(describe(k, argc, argv, &provenance, e));
    enum dm_status st = dm_shard_create(&sink.w, out, dm_tokenizer_size(k->tokenizer),
                                        dm_tokenizer_json(k->tokenizer, NULL),
                                        dm_tokenizer_hash(k->tokenizer), provenance, e);
    free(provenance);
    if (st)
        return st;
    inner.sink = to_shard;
    inner.progress = pass_progress;
    inner.ctx = &sink;
    st = dm_tokenize_run(&inner, stats, e);
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
