/* SPDX-License-Identifier: MIT */
/* prefetch.h - one thread that reads the batch after the one at hand. */
#ifndef DM_TRAIN_PREFETCH_H
#define DM_TRAIN_PREFETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

/* Reads sequences first .. first+n-1 into ids (n,T); called by one thread at a time. */
typedef enum dm_status dm_prefetch_read(void *ctx, uint64_t first, size_t n, int32_t *ids,
                                        struct dm_err *e);

struct dm_prefetch;

/* NULL when there is no memory or no thread to be had: then do without. */
struct dm_prefetch *dm_prefetch_new(dm_prefetch_read *read, void *ctx, size_t T);
void dm_prefetch_free(struct dm_prefetch *p); /* waits for a read that is going on; NULL is fine */

void dm_prefetch_ask(struct dm_prefetch *p, uint64_t first, size_t n);
void dm_prefetch_wait(struct dm_prefetch *p);

/* True, with *st and perhaps *e, when exactly this was asked for: ids (n,T) are the thread's. Waits
 * for it. */
bool dm_prefetch_take(struct dm_prefetch *p, uint64_t first, size_t n, int32_t *ids,
                      enum dm_status *st, struct dm_err *e);

#endif
