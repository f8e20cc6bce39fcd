/* SPDX-License-Identifier: MIT */
/* cooc_write.h - a counter's n-grams as the arrays of a co-occurrence table (data/FORMAT.md). */
#ifndef DM_DATA_COOC_WRITE_H
#define DM_DATA_COOC_WRITE_H

#include "data/cooc_prune.h"
#include "src/io/h5.h"

/* Writes c1, index, data and the attributes about counts; the n-grams that rule keeps. tally
 * (order) comes back, [0] being that of single ids. The file is a function of the counts and the
 * rule. DM_ERANGE when an n-gram occurs more than UINT32_MAX times. */
enum dm_status dm_cooc_write(struct dm_h5 *f, struct dm_ngram *g, const struct dm_cooc_rule *rule,
                             struct dm_cooc_tally *tally, struct dm_err *e);

#endif
