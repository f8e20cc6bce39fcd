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
 * and the order of streams do not show in it. Of the functions below only dm_ngram_add_part() may
 * be called by several threads at once. */
#ifndef DM_DATA_NGRAM_H
#define DM_DATA_NGRAM_H

#include <stdbool.h>
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

/* The same in a thread of the caller's, thread < dm_ngram_threads(), each with a number of its own.
 * dm_ngram_make_room() comes before it, alone, and says how many ids may be added by all threads
 * until it is called again: at least DM_NGRAM_MIN_ROOM. */
#define DM_NGRAM_MIN_ROOM ((size_t)1 << 18)
enum dm_status dm_ngram_add_part(struct dm_ngram *g, size_t thread, const int32_t *ids, size_t n,
                                 size_t look, struct dm_err *e);
enum dm_status dm_ngram_make_room(struct dm_ngram *g, size_t *n_ids, struct dm_err *e);
size_t dm_ngram_threads(const struct dm_ngram *g);

/* Adds counts that were made elsewhere: keys as above, ascending. c1 (V) and N (order) are what
 * they add to dm_ngram_c1() and dm_ngram_totals(); once for all pieces of a table, NULL else. */
enum dm_status dm_ngram_add_counts(struct dm_ngram *g, const struct dm_counts *c, struct dm_err *e);
void dm_ngram_add_totals(struct dm_ngram *g, const uint64_t *c1, const uint64_t *N);

/* Ends the adding of ids; dm_ngram_add_counts() may go on. Statuses as dm_ngram_add(). */
enum dm_status dm_ngram_finish(struct dm_ngram *g, struct dm_err *e);

/* What a scan does with the keys. They come in segments, and keys that share their first two ids
 * are in one segment. A thread adds up a segment in a slot < dm_ngram_slots(): its keys and their
 * counts, ascending, in pieces of any size, `end` with the last. Then the slots are given, one at a
 * time, so that segments ascend too, and are used again. */
struct dm_ngram_scan {
    void *ctx;
    size_t
        key_bytes; /* memory that a slot takes for each key, about: it limits how many are used */
    enum dm_status (*add)(void *ctx, size_t slot, const struct dm_counts *c, bool end,
                          struct dm_err *e);
    enum dm_status (*give)(void *ctx, size_t slot, struct dm_err *e);
};

/* Calls sink with all keys and their counts, ascending, in pieces of any size, in the calling
 * thread alone; otherwise as dm_ngram_scan(). */
typedef enum dm_status dm_ngram_sink(void *ctx, const struct dm_counts *c, struct dm_err *e);
enum dm_status dm_ngram_list(struct dm_ngram *g, dm_ngram_sink *sink, void *ctx, struct dm_err *e);

/* Scans all keys, as often as wanted after dm_ngram_finish(). DM_ESTOPPED after a signal, otherwise
 * statuses of reading and of *s. */
enum dm_status dm_ngram_scan(struct dm_ngram *g, const struct dm_ngram_scan *s, struct dm_err *e);
size_t dm_ngram_slots(const struct dm_ngram *g);

/* Bytes behind what a slot's thread writes all the time, if the next slot's lies behind it: two
 * threads that write to one line of the cache wait for each other. */
#define DM_APART 128

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
