/* SPDX-License-Identifier: MIT */
/* pipe.h - a sequence of pieces on several threads: each piece is taken by one thread at a time,
 * worked on by any number of them side by side, and given away by one at a time in the order in
 * which the pieces were taken. So reading, computing and writing overlap, and what comes out does
 * not depend on the threads. */
#ifndef DM_BASE_PIPE_H
#define DM_BASE_PIPE_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/status.h"

struct dm_pipe {
    size_t threads; /* at most dm_par_threads() */
    size_t slots;   /* pieces at a time; with more than threads, none waits for a slower one */
    void *ctx;
    /* The next piece, into a slot that nobody uses; *more = false at the end. */
    enum dm_status (*take)(void *ctx, size_t slot, bool *more, struct dm_err *e);
    /* thread < threads, for storage of its own. */
    enum dm_status (*work)(void *ctx, size_t slot, size_t thread, struct dm_err *e);
    /* NULL: nothing to do. Then slots = threads, a thread's slot is its number, and no piece waits
     * for another. */
    enum dm_status (*give)(void *ctx, size_t slot, struct dm_err *e);
};

/* Runs until all pieces are given, or one fails: the first failure in the order of the pieces comes
 * back, whichever thread met it, and nothing from that piece on is given. DM_ENOMEM. */
enum dm_status dm_pipe_run(const struct dm_pipe *p, struct dm_err *e);

#endif
