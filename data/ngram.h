/* SPDX-License-Identifier: MIT */
/* ngram.h - exact n-gram counts of token ids by sorting.
 *
 * Every token starts one key: the n ids from it on, packed with the first one on top, an id being
 * 0 from the end of its document on (token 0 is the separator and never part of an n-gram). So one
 * sorted sequence of keys holds the counts of all orders up to n: the count of (x1,x2) is the sum
 * over the keys that start with it. Nothing spans a separator or the end of a stream.
 *
 * Chunks of keys are sorted and collapsed to runs, runs of similar size are merged. The result is a
 * function of the tokens alone: threads, chunk sizes and the order of streams do not show in it. */
#ifndef DM_DATA_NGRAM_H
#define DM_DATA_NGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

/* A sorted sequence of distinct keys with their counts (> 0). */
struct dm_run {
    uint64_t *key;   /* (n) ascending */
    uint32_t *count; /* (n) */
    size_t n;
};

struct dm_ngram; /* a counter */

/* Ids are < V; order 2..4. `memory` bounds the bytes held. DM_EUNSUPPORTED when order ids do not
 * fit 64 bits, DM_ERANGE when `memory` is below DM_NGRAM_MIN_MEMORY. The number of threads must not
 * change until dm_ngram_free(), which accepts NULL. */
#define DM_NGRAM_MIN_MEMORY ((size_t)16 << 20)
enum dm_status dm_ngram_new(struct dm_ngram **g, size_t V, size_t order, size_t memory,
                            struct dm_err *e);
void dm_ngram_free(struct dm_ngram *g);

/* Counts the n-grams that start at ids[0..n). ids holds n + look ids: `look` of them follow in the
 * same stream and only complete the last n-grams; it is order - 1 except near the stream's end,
 * which is the end of a document too. DM_ERANGE for an id outside [0, V), for a count above
 * UINT32_MAX and when the distinct n-grams need more than `memory`. */
enum dm_status dm_ngram_add(struct dm_ngram *g, const int32_t *ids, size_t n, size_t look,
                            struct dm_err *e);

/* Ends the counting; afterwards the parts may be read. Statuses as dm_ngram_add(). */
enum dm_status dm_ngram_finish(struct dm_ngram *g, struct dm_err *e);

/* The parts, in order, are one ascending sequence of keys. All keys that share their first two ids
 * are in the same part. Borrowed from g. */
size_t dm_ngram_parts(const struct dm_ngram *g);
const struct dm_run *dm_ngram_part(const struct dm_ngram *g, size_t part);
unsigned dm_ngram_id_bits(const struct dm_ngram *g); /* bits of one id in a key */
size_t dm_ngram_order(const struct dm_ngram *g);
size_t dm_ngram_vocab(const struct dm_ngram *g);
size_t dm_ngram_peak(const struct dm_ngram *g); /* most bytes held at a time */

#endif
