/* SPDX-License-Identifier: MIT */
/* keep.h - the checkpoints of a run as files: <prefix>-<step, 8 digits>.h5, of which the newest are
 * kept, and <prefix>-best.h5, the one with the smallest validation loss so far. */
#ifndef DM_TRAIN_KEEP_H
#define DM_TRAIN_KEEP_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/status.h"

#define DM_KEEP_BEST ((size_t)-1) /* stands for <prefix>-best.h5 where a step is asked for */

/* Name of a file into out (n); DM_ERANGE when it does not fit. */
enum dm_status dm_keep_path(char *out, size_t n, const char *prefix, size_t step, struct dm_err *e);

/* Whether `path`, which need not be there, has the name of one of these files. */
bool dm_keep_is(const char *prefix, const char *path);

/* Steps of the checkpoints that there are, newest first, in new memory; the best is not listed.
 * Release with free(). DM_EIO for a directory that cannot be read, DM_ENOMEM. */
enum dm_status dm_keep_list(size_t **step, size_t *n, const char *prefix, struct dm_err *e);

/* Makes the checkpoint of `step` the best one, too, without a second copy where the file system has
 * links; DM_EUNSUPPORTED where it has none. */
enum dm_status dm_keep_best(const char *prefix, size_t step, struct dm_err *e);

/* Of the checkpoints up to `step` removes all but the `last` newest. Later ones, left of a run that
 * went back, are overwritten in time. What cannot be removed stays. */
void dm_keep_prune(const char *prefix, size_t last, size_t step);

#endif
