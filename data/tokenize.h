/* SPDX-License-Identifier: MIT */
/* tokenize.h - text files to token ids, and shards back to documents. */
#ifndef DM_DATA_TOKENIZE_H
#define DM_DATA_TOKENIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/reader.h"
#include "src/io/shard.h"
#include "src/io/tokenizer.h"

/* The token between documents of a shard (data/FORMAT.md). */
#define DM_SEPARATOR 0

/* What was tokenized. `tokens` does not count separators. */
struct dm_tokenize_stats {
    uint64_t documents, bytes, tokens;
};

/* Gets the ids of the documents in order, a long document in several pieces: `end` is true for the
 * last one. Called by one thread at a time; a failure ends the run. */
typedef enum dm_status dm_tokenize_sink(void *ctx, const int32_t *ids, size_t n, bool end,
                                        struct dm_err *e);

/* Called now and then, by one thread at a time, with the bytes of the files read and what became
 * of them so far; may be NULL. */
typedef void dm_tokenize_progress(void *ctx, uint64_t consumed,
                                  const struct dm_tokenize_stats *so_far);

struct dm_tokenize {
    const struct dm_tokenizer *tokenizer;
    const char *const *paths; /* (n_paths); "-" = standard input */
    size_t n_paths;
    struct dm_reader_opt reader;
    size_t block; /* bytes of text that a thread takes at a time; 0 = 256 KiB */
    dm_tokenize_sink *sink;
    dm_tokenize_progress *progress;
    void *ctx; /* of both */
};

/* Every document of the files in order, on dm_par_threads() threads, which change nothing but the
 * time; stats is written. Memory: a few blocks and their ids for each thread, whatever the files'
 * sizes. Of several failures the first in the order of the text is reported. DM_ESTOPPED after
 * dm_stop_requested(). */
enum dm_status dm_tokenize_run(const struct dm_tokenize *k, struct dm_tokenize_stats *stats,
                               struct dm_err *e);

/* The same into a shard at `out`: each document followed by token 0, which must be the tokenizer's
 * <|endoftext|> (DM_EMISMATCH otherwise). k->sink is not used. argv goes into the provenance with
 * the files' hashes (src/base/provenance.h). */
enum dm_status dm_tokenize_shard(const struct dm_tokenize *k, const char *out, int argc,
                                 char *const *argv, struct dm_tokenize_stats *stats,
                                 struct dm_err *e);

/* An empty shard for the ids of these files, with their hashes in its provenance: the start of
 * dm_tokenize_shard() and of dm_instruct_shard(). */
enum dm_status dm_tokenize_create(struct dm_shard_writer **w, const struct dm_tokenizer *t,
                                  const char *const *paths, size_t n_paths, const char *out,
                                  int argc, char *const *argv, struct dm_err *e);

/* Reads a shard's documents in order. Start with a zeroed walk; release ids with dm_ids_release.
 * *more is false at the end. A last document without separator counts. */
struct dm_shard_walk {
    struct dm_ids ids; /* the document */
    size_t at;         /* next token of the shard */
    int32_t *block;    /* heap, released at the end by dm_shard_walk_release() */
    size_t n_block, block_at;
};
enum dm_status dm_shard_walk_next(struct dm_shard_walk *w, struct dm_shard *s, bool *more,
                                  struct dm_err *e);
void dm_shard_walk_release(struct dm_shard_walk *w);

#endif
