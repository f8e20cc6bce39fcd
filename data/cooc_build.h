/* SPDX-License-Identifier: MIT */
/* cooc_build.h - token shards, or tables of parts -> co-occurrence table (src/io/cooc.h reads it).
 *
 * The file is a function of the set of inputs and of the options below: neither the number of
 * threads or processes nor the memory nor the order of the inputs shows in it. */
#ifndef DM_DATA_COOC_BUILD_H
#define DM_DATA_COOC_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/cooc_prune.h"
#include "src/base/progress.h"
#include "src/base/ranks.h"
#include "src/base/status.h"

struct dm_cooc_opt {
    const char *const *inputs;
    size_t n_inputs;
    const char *out;
    size_t order; /* 2 to 4; of tables it is theirs */
    struct dm_cooc_rule rule;
    size_t max_bytes;       /* the file takes no more, by raising rule.min_score; 0 = no limit */
    size_t memory;          /* bytes of the whole process, at least DM_COOC_MIN_MEMORY */
    struct dm_ranks *ranks; /* processes that count together, or NULL; rank 0 writes */
};
#define DM_COOC_MIN_MEMORY ((size_t)128 << 20)

struct dm_cooc_stats {
    uint64_t tokens; /* ids read, separators included; 0 for tables */
    size_t order;
    struct dm_cooc_tally tally[DM_NGRAM_ORDER_MAX]; /* by order */
    struct dm_cooc_rule rule;                       /* in effect */
    size_t file_bytes;
    size_t peak_memory;                  /* bytes held while counting */
    uint64_t spilled;                    /* bytes written to temporary files */
    double count_seconds, write_seconds; /* counting includes reading the inputs */
};

/* Counts shards, with o->ranks a part of their tokens on each process, and writes by rename;
 * `progress` (may be NULL) is initialised here. Statuses of reading and writing; DM_EMISMATCH when
 * the shards' tokenizers or vocabularies differ, DM_EUNSUPPORTED for a separator other than 0,
 * DM_ERANGE when a limit cannot be met, DM_ESTOPPED.
 */
enum dm_status dm_cooc_build(const struct dm_cooc_opt *o, struct dm_progress *progress,
                             struct dm_cooc_stats *s, struct dm_err *e);

/* Adds up tables that hold all n-grams of their parts, to the table of the whole. As
 * dm_cooc_build(); DM_EUNSUPPORTED for a pruned table. */
enum dm_status dm_cooc_merge(const struct dm_cooc_opt *o, struct dm_progress *progress,
                             struct dm_cooc_stats *s, struct dm_err *e);

#endif
