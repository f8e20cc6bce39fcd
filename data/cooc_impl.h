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

struct dm_cooc_kind;

struct dm_cooc_job {
    const struct dm_cooc_opt *o;
    struct dm_progress *progress;
    struct dm_cooc_stats *s;
    const struct dm_cooc_kind *kind;
    struct dm_cooc_source *src; /* (n_inputs), sorted by hash before counting */
    size_t n;                   /* of them that are filled */
    size_t V, order;
    char *tokenizer; /* JSON, NULL if no input carries it */
    char tokenizer_hash[DM_HASH_LEN + 1];
    struct dm_ngram *g;
    char *provenance;
    char *candidate; /* name of a table whose size is tried */
};

/* What is different between the two. */
struct dm_cooc_kind {
    const char *command; /* for the provenance */
    size_t reading,
        a_thread; /* bytes that `count` takes besides the counter, and for each thread */
    enum dm_status (*survey)(struct dm_cooc_job *j, struct dm_err *e); /* gives in all inputs */
    enum dm_status (*count)(struct dm_cooc_job *j, struct dm_err *e);
};

/* After counting: adds the counters of all processes to that of rank 0, in pairs; the others' are
 * of no further use. st is how the counting went here; the result is the same on all. */
enum dm_status dm_cooc_job_join(struct dm_cooc_job *j, enum dm_status st, struct dm_err *e);

/* From the inputs to the table; *s is filled. */
enum dm_status dm_cooc_job_run(const struct dm_cooc_opt *o, struct dm_progress *progress,
                               struct dm_cooc_stats *s, const struct dm_cooc_kind *kind,
                               struct dm_err *e);

/* The next input: DM_EMISMATCH unless its tokenizer, vocabulary and order are those before. */
enum dm_status dm_cooc_job_input(struct dm_cooc_job *j, const char *path, size_t V, size_t order,
                                 const char *tokenizer_hash, uint64_t tokens, struct dm_err *e);

#endif
