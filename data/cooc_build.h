/* SPDX-License-Identifier: MIT */
/* cooc_build.h - token shards -> co-occurrence table (src/io/cooc.h reads it).
 *
 * The file is a function of the set of shards and of the options below: neither the number of
 * threads nor the order of the shards shows in it. */
#ifndef DM_DATA_COOC_BUILD_H
#define DM_DATA_COOC_BUILD_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/progress.h"
#include "src/base/status.h"

struct dm_cooc_opt {
    const char *const *shards;
    size_t n_shards;
    const char *out;
    size_t order;          /* 2 or 3 */
    uint64_t min_count[2]; /* of pairs and triplets, >= 1 */
    size_t max_size;       /* bytes the file may take (see dm_cooc_prune); 0 = no limit */
    size_t memory;         /* bytes for counting */
};

struct dm_cooc_stats {
    uint64_t tokens;       /* ids read, separators included */
    uint64_t total[3];     /* n-grams of orders 1..3 */
    uint64_t distinct[3];  /* before pruning */
    uint64_t kept[3];      /* after pruning */
    uint64_t min_count[2]; /* in effect: raised to meet max_size */
    size_t file_bytes;
    size_t peak_memory;                  /* bytes held while counting */
    double count_seconds, write_seconds; /* counting includes reading the shards */
};

/* Counts and writes by rename; `progress` (may be NULL) is initialised here. Statuses of reading
 * and writing; DM_EMISMATCH when the shards' tokenizers or vocabularies differ, DM_EUNSUPPORTED for
 * a separator other than 0, DM_ERANGE when a limit cannot be met, DM_ESTOPPED. */
enum dm_status dm_cooc_build(const struct dm_cooc_opt *o, struct dm_progress *progress,
                             struct dm_cooc_stats *s, struct dm_err *e);

#endif
