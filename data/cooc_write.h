/* SPDX-License-Identifier: MIT */
/* cooc_write.h - the arrays of a co-occurrence table, streamed from a counter to its file. */
#ifndef DM_DATA_COOC_WRITE_H
#define DM_DATA_COOC_WRITE_H

#include "data/cooc_prune.h"
#include "src/io/h5.h"

/* Writes c1, row, x2, c2, sub, x3, c3 and the counts as attributes; t is what dm_cooc_prune() found
 * for g. n1 and the numbers of distinct ids come back (either may not be NULL). */
enum dm_status dm_cooc_write(struct dm_h5 *f, const struct dm_ngram *g,
                             const struct dm_cooc_tally *t, uint64_t *n1, uint64_t *n_ids,
                             struct dm_err *e);

#endif
