/* SPDX-License-Identifier: MIT */
#include "data/cooc_build.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/cooc_prune.h"
#include "data/cooc_write.h"
#include "data/ngram.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/base/stop.h"
#include "src/io/cooc.h"
#include "src/io/h5.h"
#include "src/io/shard.h"

#define PIECE ((size_t)1 << 20) /* ids read at a time */

struct source {
    const char *path;
    char hash[DM_HASH_LEN + 1];
    size_t tokens;
};

struct build {
    const struct dm_cooc_opt *o;
    struct dm_progress *progress;
    struct dm_cooc_stats *s;
    struct source *src; /* (n_shards) by hash: no trace of the order given */
    size_t V;
    char *tokenizer; /* JSON */
    char tokenizer_hash[DM_HASH_LEN + 1];
    struct dm_ngram *g;
    struct dm_cooc_tally tally;
    char *provenance;
    char *candidate; /* name of a table whose size is tried */
    size_t candidate_bytes;
};

static enum dm_status survey_shard(struct build *b, size_t i, const struct dm_shard *s,
                                   struct dm_err *e)
{
    const char *path = b->o->shards[i], *hash = dm_shard_tokenizer_hash(s);
    b->src[i].path = path;
    b->src[i].tokens = dm_shard_tokens(s);
    b->s->tokens += b->src[i].tokens;
    if (dm_shard_separator(s) != 0)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: separates documents by token %d, want 0", path,
                       dm_shard_separator(s));
    if (!i) {
        b->V = dm_shard_vocab(s);
        snprintf(b->tokenizer_hash, sizeof(b->tokenizer_hash), "%s", hash);
    }
    if (strcmp(hash, b->tokenizer_hash))
        return dm_fail(e, DM_EMISMATCH, "%s: made with tokenizer %.12s, but %s with %.12s", path,
                       hash, b->o->shards[0], b->tokenizer_hash);
    if (dm_shard_vocab(s) != b->V)
        return dm_fail(e, DM_EMISMATCH, "%s: has a vocabulary of %zu ids, but %s one of %zu", path,
                       dm_shard_vocab(s), b->o->shards[0], b->V);
    return dm_sha256_file(path, b->src[i].hash, e);
}

static int by_hash(const void *a, const void *b)
{
    const struct source *p = a, *q = b;
    const int c = strcmp(p->hash, q->hash);
    return c ? c : strcmp(p->path, q->path);
}

/* The tokenizer's JSON from the first shard that carries it, so that the table explains itself. */
static enum dm_status read_tokenizer(struct build *b, struct dm_err *e)
{
    for (size_t i = 0; i < b->o->n_shards && !b->tokenizer; i++) {
        struct dm_h5 *f;
        DM_TRY(dm_h5_open(&f, b->src[i].path, NULL, SIZE_MAX, e));
        const enum dm_status st = dm_h5_has_attr(f, "/", "tokenizer")
                                      ? dm_h5_get_string(f, "/", "tokenizer", &b->tokenizer, e)
                                      : DM_OK;
        dm_h5_close(f);
        DM_TRY(st);
    }
    return DM_OK;
}

/* Opens every shard once before the first token is counted: a wrong one fails at once. */
static enum dm_status survey(struct build *b, struct dm_err *e)
{
    b->src = dm_alloc(b->o->n_shards, sizeof(*b->src));
    if (!b->src)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu shards", b->o->n_shards);
    for (size_t i = 0; i < b->o->n_shards; i++) {
        struct dm_shard *s;
        DM_TRY(dm_shard_open(&s, b->o->shards[i], e));
        const enum dm_status st = survey_shard(b, i, s, e);
        dm_shard_close(s);
        DM_TRY(st);
    }
    qsort(b->src, b->o->n_shards, sizeof(*b->src), by_hash);
    return read_tokenizer(b, e);
}

static enum dm_status count_shard(struct build *b, struct dm_shard *s, int32_t *ids,
                                  double *counted, struct dm_err *e)
{
    const size_t n = dm_shard_tokens(s);
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t take = n - at < PIECE ? n - at : PIECE, left = n - at - take;
        const size_t look = left < b->o->order - 1 ? left : b->o->order - 1;
        if (dm_stop_requested())
            return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
        DM_TRY(dm_shard_read(s, ids, at, take + look, e));
        DM_TRY(dm_ngram_add(b->g, ids, take, look, e));
        *counted += (double)take;
        if (b->progress)
            dm_progress_set(b->progress, *counted, NULL);
    }
    return DM_OK;
}

static enum dm_status count(struct build *b, struct dm_err *e)
{
    double counted = 0.0;
    int32_t *ids = dm_alloc(PIECE + b->o->order, sizeof(*ids));
    if (!ids)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu token ids", PIECE);
    if (b->progress)
        dm_progress_init(b->progress, "counting", "tokens", (double)b->s->tokens);
    enum dm_status st = dm_ngram_new(&b->g, b->V, b->o->order, b->o->memory, e);
    for (size_t i = 0; i < b->o->n_shards && !st; i++) {
        struct dm_shard *s;
        DM_TRY_GOTO(dm_shard_open(&s, b->src[i].path, e));
        st = count_shard(b, s, ids, &counted, e);
        dm_shard_close(s);
    }
    if (!st)
        st = dm_ngram_finish(b->g, e);
done:
    if (b->progress)
        dm_progress_end(b->progress);
    free(ids);
    return st;
}

static json_t *sources(const struct build *b)
{
    json_t *list = json_array();
    for (size_t i = 0; i < b->o->n_shards; i++) {
        const char *slash = strrchr(b->src[i].path, '/');
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:I}", "name", slash ? slash + 1 : b->src[i].path, "sha256",
                            b->src[i].hash, "tokens", (json_int_t)b->src[i].tokens));
    }
    return list;
}

/* What would change between machines or runs (times, threads, directories, the order of arguments)
 * stays out. */
static enum dm_status describe(struct build *b, struct dm_err *e)
{
    static const char rule[] =
        "triplets that occur min_count3 times, pairs that occur min_count2 times or lead a kept "
        "triplet; for max_size, min_count3 is raised first, min_count2 once no triplet is left";
    json_t *root = json_pack(
        "{s:s, s:s, s:I, s:I, s:o, s:{s:s, s:I, s:I, s:I, s:I, s:I}}", "program",
        "dynamo " DM_VERSION, "command", "cooc", "order", (json_int_t)b->o->order, "tokens",
        (json_int_t)b->s->tokens, "shards", sources(b), "pruning", "rule", rule, "min_count2",
        (json_int_t)b->tally.min_count[0], "min_count3", (json_int_t)b->tally.min_count[1],
        "asked_min_count2", (json_int_t)b->o->min_count[0], "asked_min_count3",
        (json_int_t)b->o->min_count[1], "max_size", (json_int_t)b->o->max_size);
    free(b->provenance);
    b->provenance = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return b->provenance ? DM_OK
                         : dm_fail(e, DM_ENOMEM,
                                   "%s: cannot describe the shards: a name is not "
                                   "UTF-8 or memory is short",
                                   b->o->out);
}

/* Writes the table of b->tally as `path`. */
static enum dm_status write_table(struct build *b, const char *path, struct dm_err *e)
{
    struct dm_h5 *f;
    struct dm_cooc_stats *s = b->s;
    DM_TRY(describe(b, e));
    DM_TRY(dm_h5_create(&f, path, DM_COOC_FORMAT, DM_COOC_VERSION, e));
    enum dm_status st = dm_cooc_write(f, b->g, &b->tally, &s->total[0], &s->distinct[0], e);
    if (!st)
        st = dm_h5_set_string(f, "/", "tokenizer_hash", b->tokenizer_hash, e);
    if (!st && b->tokenizer)
        st = dm_h5_set_string(f, "/", "tokenizer", b->tokenizer, e);
    if (!st)
        st = dm_h5_set_string(f, "/", "provenance", b->provenance, e);
    if (st) {
        dm_h5_close(f);
        return st;
    }
    return dm_h5_commit(f, e);
}

/* How well arrays compress is not known before they are compressed, so a budget is checked on the
 * file itself, written under another name. */
static enum dm_status write_candidate(void *ctx, const struct dm_cooc_tally *t, bool *fits,
                                      struct dm_err *e)
{
    struct build *b = ctx;
    struct stat file;
    if (dm_stop_requested())
        return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
    b->tally = *t;
    DM_TRY(write_table(b, b->candidate, e));
    if (stat(b->candidate, &file))
        return dm_fail_errno(e, "%s", b->candidate);
    b->candidate_bytes = (size_t)file.st_size;
    *fits = b->candidate_bytes <= b->o->max_size;
    return DM_OK;
}

static enum dm_status prune_and_write(struct build *b, struct dm_err *e)
{
    struct dm_cooc_tally t;
    bool met;
    if (!b->o->max_size) {
        DM_TRY(dm_cooc_prune(b->g, b->o->min_count, NULL, NULL, &b->tally, &met, e));
        return write_table(b, b->o->out, e);
    }
    b->candidate = dm_file_tmp_name(b->o->out);
    if (!b->candidate)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", b->o->out);
    DM_TRY(dm_cooc_prune(b->g, b->o->min_count, write_candidate, b, &t, &met, e));
    if (!met)
        return dm_fail(e, DM_ERANGE,
                       "%s: takes %zu bytes even without any pair, which is more than the size "
                       "budget of %zu",
                       b->o->out, b->candidate_bytes, b->o->max_size);
    if (memcmp(t.min_count, b->tally.min_count, sizeof(t.min_count)))
        DM_TRY(write_candidate(b, &t, &met, e));
    return dm_file_publish(b->candidate, b->o->out, e);
}

static void fill_stats(struct build *b)
{
    struct dm_cooc_stats *s = b->s;
    struct stat file;
    s->kept[0] = s->distinct[0];
    for (size_t i = 0; i < 2; i++) {
        s->total[i + 1] = b->tally.total[i];
        s->distinct[i + 1] = b->tally.distinct[i];
        s->kept[i + 1] = b->tally.kept[i];
        s->min_count[i] = b->tally.min_count[i];
    }
    s->peak_memory = dm_ngram_peak(b->g);
    s->file_bytes = stat(b->o->out, &file) ? 0 : (size_t)file.st_size;
}

enum dm_status dm_cooc_build(const struct dm_cooc_opt *o, struct dm_progress *progress,
                             struct dm_cooc_stats *s, struct dm_err *e)
{
    struct build b = {.o = o, .progress = progress, .s = s};
    enum dm_status st;
    *s = (struct dm_cooc_stats){0};
    if (!o->n_shards || o->order < 2 || o->order > 3 || !o->min_count[0] || !o->min_count[1])
        return dm_fail(e, DM_ERANGE,
                       "%zu shards, order %zu, minimum counts %" PRIu64 " and %" PRIu64
                       ": want at least one shard, order 2 or 3, counts from 1",
                       o->n_shards, o->order, o->min_count[0], o->min_count[1]);
    const double start = dm_now();
    DM_TRY_GOTO(survey(&b, e));
    DM_TRY_GOTO(count(&b, e));
    const double counted = dm_now();
    DM_TRY_GOTO(prune_and_write(&b, e));
    fill_stats(&b);
    s->count_seconds = counted - start;
    s->write_seconds = dm_now() - counted;
done:
    dm_ngram_free(b.g);
    if (b.candidate)
        unlink(b.candidate); // gone already after a success
    free(b.candidate);
    free(b.src);
    free(b.tokenizer);
    free(b.provenance);
    return st;
}
