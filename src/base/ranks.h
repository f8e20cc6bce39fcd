/* SPDX-License-Identifier: MIT */
/* ranks.h - the processes of one run that mpirun or srun started. The only module that calls MPI;
 * built without it (meson setup -Dmpi=enabled), or started without a launcher, a run is one
 * process.
 *
 * Every process calls the same functions in the same order; NULL for struct dm_ranks is a process
 * alone. A call that fails because another process is gone leaves nothing to go on with: `broken`
 * is set and later calls fail at once. */
#ifndef DM_BASE_RANKS_H
#define DM_BASE_RANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/hash.h"
#include "src/base/status.h"

struct dm_ranks {
    size_t n, rank; /* rank < n */
    float *scratch;
    uint64_t sent;  /* bytes that dm_ranks_sum() sent from here */
    double seconds; /* that it took, waiting for others included */
    bool broken;
    bool over; /* a failure was agreed on */
};

/* Once per process, before any thread. DM_EUNSUPPORTED when a launcher started several processes of
 * a program that was built without MPI: each would do the whole work. */
enum dm_status dm_ranks_open(struct dm_ranks *r, struct dm_err *e);
/* Waits for the others unless broken. */
void dm_ranks_close(struct dm_ranks *r);

size_t dm_ranks_count(const struct dm_ranks *r); /* 1 for NULL */
bool dm_ranks_first(const struct dm_ranks *r);   /* rank 0, the one that writes and speaks */

/* The exit code of a command. Of a failure that all know of, only the first process gives 1:
 * launchers end a run at the first such code, and could end the first process before its sentence
 * is out. */
int dm_ranks_exit(const struct dm_ranks *r, enum dm_status st);

/* x (n) becomes the sum over the processes, on all of them, as a binary tree over the ranks:
 *   sum(lo, hi) = sum(lo, mid) + sum(mid, hi),  mid the middle
 * whose bits are the same on every process. The number of processes is a power of 2 (asserted).
 * Sends 8 n (N-1)/N bytes from each of N processes. */
enum dm_status dm_ranks_sum(struct dm_ranks *r, float *x, size_t n, struct dm_err *e);

/* x holds `bytes` for each process in the order of the ranks; each has filled its own. */
enum dm_status dm_ranks_gather(struct dm_ranks *r, void *x, size_t bytes, struct dm_err *e);
/* x of process `root` on all of them. */
enum dm_status dm_ranks_send(struct dm_ranks *r, void *x, size_t bytes, size_t root,
                             struct dm_err *e);
/* From one process to another, which takes exactly as many bytes. */
enum dm_status dm_ranks_put(struct dm_ranks *r, const void *x, size_t bytes, size_t to,
                            struct dm_err *e);
enum dm_status dm_ranks_get(struct dm_ranks *r, void *x, size_t bytes, size_t from,
                            struct dm_err *e);
/* True on all processes if it is on one. */
enum dm_status dm_ranks_any(struct dm_ranks *r, bool *x, struct dm_err *e);

/* What each process came to, as one result: the status and the sentence of the first rank that
 * failed, on all of them. Sentences of others than rank 0 begin with who says it. Every step that
 * can fail on one process alone ends with this, or the others would wait for ever. */
enum dm_status dm_ranks_agree(struct dm_ranks *r, enum dm_status st, struct dm_err *e);

/* SHA-256 of n files (hex of each), every file read by one process. */
enum dm_status dm_ranks_hash(struct dm_ranks *r, const char *const *paths, size_t n,
                             char (*hex)[DM_HASH_LEN + 1], struct dm_err *e);

/* DM_EMISMATCH, with `what` named, unless all processes have the same text (of any length). */
enum dm_status dm_ranks_same(struct dm_ranks *r, const char *text, const char *what,
                             struct dm_err *e);

#endif
