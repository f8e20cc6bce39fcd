/* SPDX-License-Identifier: MIT */
/* cooc_impl.h - what counting shards and merging tables share: inputs that belong together, and
 * writing the table. Included by the cooc_*.c only. */
#ifndef DM_DATA_COOC_IMPL_H
#define DM_DATA_COOC_IMPL_H

#include <jansson.h>

#include "data/cooc_build.h"
#include "src/base/hash.h"

struct dm_cooc_source {
    const char *path;
    char hash[DM_HASH_LEN + 1];
    uint64_t tokens;
};

struct dm_cooc_job {
    const struct dm_cooc_opt *o;
    struct dm_progress *progress;
    struct dm_cooc_stats *s;
    const char *command;        /* for the provenance */
    struct dm_cooc_source *src; /* (n_inputs), sorted by dm_cooc_job_sort() */
    size_t n;                   /* of them that are filled */
    size_t V, order;
    char *tokenizer; /* JSON, NULL if no input carries it */
    char tokenizer_hash[DM_HASH_LEN + 1];
    struct dm_ngram *g;
    char *provenance;
    char *candidate; /* name of a table whose size is tried */
};

/* Checks the options; all of *j is then valid for dm_cooc_job_release(). */
enum dm_status dm_cooc_job_init(struct dm_cooc_job *j, const struct dm_cooc_opt *o,
                                struct dm_progress *progress, struct dm_cooc_stats *s,
                                const char *command, struct dm_err *e);
void dm_cooc_job_release(struct dm_cooc_job *j);

/* The next input: DM_EMISMATCH unless its tokenizer, vocabulary and order are those before. */
enum dm_status dm_cooc_job_input(struct dm_cooc_job *j, const char *path, size_t V, size_t order,
                                 const char *tokenizer_hash, uint64_t tokens, struct dm_err *e);

/* After the last: hashes the files, a part of them on each process, sorts by hash, so that the
 * order given leaves no trace, and reads the tokenizer. */
enum dm_status dm_cooc_job_sort(struct dm_cooc_job *j, struct dm_err *e);

/* A counter with what the memory leaves for it; `reading` bytes are needed besides. */
enum dm_status dm_cooc_job_counter(struct dm_cooc_job *j, size_t reading, struct dm_err *e);

/* After counting: adds the counters of all processes to that of rank 0, in pairs; the others' are
 * of no further use. st is how the counting went here; the result is the same on all. */
enum dm_status dm_cooc_job_join(struct dm_cooc_job *j, enum dm_status st, struct dm_err *e);

/* Prunes, writes and publishes the table of j->g, and fills the statistics. `start` is when the job
 * began, in dm_now(). */
enum dm_status dm_cooc_job_write(struct dm_cooc_job *j, double start, struct dm_err *e);

#endif
