/* SPDX-License-Identifier: MIT */
/* ngram.h - exact n-gram counts of token ids by sorting, within a given memory.
 *
 * Every token starts one key: the n ids from it on, packed with the first one on top, an id being
 * 0 from the end of its document on (token 0 is the separator and never part of an n-gram). So one
 * sorted sequence of keys holds the counts of all orders up to n: the count of (x1,x2) is the sum
 * over the keys that start with it. Nothing spans a separator or the end of a stream.
 *
 * Each thread sorts keys of its own and packs them to a run (data/run.h). When the runs fill the
 * memory they are merged to one in a nameless file, which the system removes on any end. Reading
 * merges all runs, range by range. The result is a function of the tokens alone: threads, memory
 * and the order of streams do not show in it. */
#ifndef DM_DATA_NGRAM_H
#define DM_DATA_NGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "data/run.h"
#include "src/base/progress.h"
#include "src/base/status.h"

#define DM_NGRAM_ORDER_MAX 4u

struct dm_ngram; /* a counter */

/* Ids are < V; order 2..4. `memory` bounds the bytes held, by fewer threads if need be; `beside`
 * names the file in whose folder runs are kept that do not fit (borrowed). DM_EUNSUPPORTED when
 * order ids do not fit 64 bits, DM_ERANGE when `memory` is below DM_NGRAM_MIN_MEMORY plus 8 bytes
 * per id. The number of threads must not change until dm_ngram_free(), which accepts NULL. */
#define DM_NGRAM_MIN_MEMORY ((size_t)6 << 20)
enum dm_status dm_ngram_new(struct dm_ngram **g, size_t V, size_t order, size_t memory,
                            const char *beside, struct dm_err *e);
void dm_ngram_free(struct dm_ngram *g);

/* Counts the n-grams that start at ids[0..n). ids holds n + look ids: `look` of them follow in the
 * same stream and only complete the last n-grams; it is order - 1 except near the stream's end,
 * which is the end of a document too. DM_ERANGE for an id outside [0, V) and for a count above
 * UINT32_MAX, DM_EIO when the disk is full or fails, DM_ESTOPPED. */
enum dm_status dm_ngram_add(struct dm_ngram *g, const int32_t *ids, size_t n, size_t look,
                            struct dm_err *e);

/* Adds counts that were made elsewhere: keys as above, ascending. c1 (V) and N (order) are what
 * they add to dm_ngram_c1() and dm_ngram_totals(); once for all pieces of a table, NULL else. */
enum dm_status dm_ngram_add_counts(struct dm_ngram *g, const struct dm_counts *c, struct dm_err *e);
void dm_ngram_add_totals(struct dm_ngram *g, const uint64_t *c1, const uint64_t *N);

/* Ends the counting; statuses as dm_ngram_add(). */
enum dm_status dm_ngram_finish(struct dm_ngram *g, struct dm_err *e);

/* Calls sink with all keys and their counts, ascending, in pieces of any size; as often as wanted
 * after dm_ngram_finish(). Merging runs on all threads, sink on one. DM_ESTOPPED after a signal,
 * otherwise statuses of reading and of sink. */
typedef enum dm_status dm_ngram_sink(void *ctx, const struct dm_counts *c, struct dm_err *e);
enum dm_status dm_ngram_scan(struct dm_ngram *g, dm_ngram_sink *sink, void *ctx, struct dm_err *e);

/* Scans show how far they are, in percent; NULL: they do not. Borrowed. */
void dm_ngram_show(struct dm_ngram *g, struct dm_progress *p);

unsigned dm_ngram_id_bits(const struct dm_ngram *g); /* bits of one id in a key */
size_t dm_ngram_order(const struct dm_ngram *g);
size_t dm_ngram_vocab(const struct dm_ngram *g);
const uint64_t *dm_ngram_c1(const struct dm_ngram *g);     /* (V) counts of the ids */
const uint64_t *dm_ngram_totals(const struct dm_ngram *g); /* (order) n-grams, orders from 1 */
size_t dm_ngram_peak(const struct dm_ngram *g);            /* most bytes held at a time */
uint64_t dm_ngram_spilled(const struct dm_ngram *g);       /* bytes written to temporary files */
size_t dm_ngram_runs(const struct dm_ngram *g);            /* runs in memory and in files */

#endif
