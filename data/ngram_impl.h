/* SPDX-License-Identifier: MIT */
/* ngram_impl.h - what ngram.c (counting) and ngram_merge.c (merging runs) share. */
#ifndef DM_DATA_NGRAM_IMPL_H
#define DM_DATA_NGRAM_IMPL_H

#include <pthread.h>

#include "data/ngram.h"

struct dm_ngram {
    size_t V, order, memory;
    unsigned bits;
    const char *beside;
    size_t threads, slice; /* keys of one thread */
    uint64_t *key;         /* (threads, slice) keys that wait; NULL after dm_ngram_finish() */
    size_t *n;             /* (threads) of them */
    size_t *run_keys;      /* (threads) how many become a run */
    uint8_t *work;         /* (threads, dm_ngram_area_bytes(slice)): sorting, packing, merging */
    uint32_t *hist;        /* (threads, V) ids counted since the last flush */
    pthread_mutex_t lock;  /* of all below, while threads add */
    size_t held, peak;
    uint64_t spilled;
    uint64_t *c1; /* (V) */
    uint64_t N[DM_NGRAM_ORDER_MAX];
    struct dm_run *run; /* in files first */
    size_t n_files, n_runs, room;
    struct dm_progress *progress;
};

/* What a thread packs to, or merges in: one of `of` equal parts of g->work, dm_ngram_slots() at
 * most. */
struct dm_area {
    uint8_t *bytes;       /* (size) */
    uint64_t *first, *at; /* (blocks + 1) */
    size_t size, blocks;
};
size_t dm_ngram_area_bytes(size_t slice);
struct dm_area dm_ngram_area(const struct dm_ngram *g, size_t i, size_t of);

/* Adds and gives back bytes; DM_ERANGE when there are not as many. */
enum dm_status dm_ngram_hold(struct dm_ngram *g, size_t bytes, struct dm_err *e);
void dm_ngram_unhold(struct dm_ngram *g, size_t bytes);

/* Most runs that can be merged with the memory for it. */
size_t dm_ngram_fan(const struct dm_ngram *g);

/* Opens a nameless file for runs. Close it. */
enum dm_status dm_ngram_open_file(const struct dm_ngram *g, int *fd, struct dm_err *e);
enum dm_status dm_ngram_write_file(struct dm_ngram *g, int fd, const uint8_t *data, size_t n,
                                   size_t at, struct dm_err *e);

/* Merges runs [begin, n_runs) to one in a nameless file that takes their place. */
enum dm_status dm_ngram_spill(struct dm_ngram *g, size_t begin, struct dm_err *e);

#endif
