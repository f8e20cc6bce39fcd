/* SPDX-License-Identifier: MIT */
/* split.h - the tokens of a shard as two streams: documents that train and documents that are held
 * out. A document is what ends with the separator; the last one may lack it. */
#ifndef DM_TRAIN_SPLIT_H
#define DM_TRAIN_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

struct dm_piece {
    size_t begin; /* in the shard */
    size_t at;    /* in the stream */
};

/* Pieces of a shard laid end to end: a stream. */
struct dm_pieces {
    struct dm_piece *piece; /* (n) in order */
    size_t n, tokens;
};
void dm_pieces_release(struct dm_pieces *s);

/* The whole shard. DM_ENOMEM. */
enum dm_status dm_pieces_whole(struct dm_pieces *s, size_t tokens, struct dm_err *e);

/* Reads tokens [start, start+n) of the shard. */
typedef enum dm_status dm_split_read(void *ctx, int32_t *ids, size_t start, size_t n,
                                     struct dm_err *e);

/* Holds whole documents out, in a fixed random order, until they have `share` of the tokens; one
 * that has more than a fifth of the shard trains. Where that gives fewer than `least` tokens, the
 * end of the shard is held out instead, `least` at least; `val` stays empty when too few were left
 * to train. Both are released with dm_pieces_release(), also after a failure: DM_ENOMEM or what
 * `read` returns. */
enum dm_status dm_split(struct dm_pieces *train, struct dm_pieces *val, size_t tokens,
                        int32_t separator, double share, size_t least, dm_split_read *read,
                        void *ctx, struct dm_err *e);

/* Calls read for the pieces that tokens [start, start+n) of the stream lie in. */
enum dm_status dm_pieces_read(const struct dm_pieces *s, int32_t *ids, size_t start, size_t n,
                              dm_split_read *read, void *ctx, struct dm_err *e);

/* A permutation of [0, n), n > i, computed and not stored. */
uint64_t dm_permute(uint64_t i, uint64_t n, uint64_t key);

#endif
