/* SPDX-License-Identifier: MIT */
/* log.h - what happened at each step, as <prefix>.csv, <prefix>.jsonl and, for TensorBoard, an
 * event file in the directory <prefix>.tb.
 *
 * Logs grow while the run goes on (one flushed line per step), so they are the one output that does
 * not appear by rename. They hold times; model files do not. */
#ifndef DM_TRAIN_LOG_H
#define DM_TRAIN_LOG_H

#include "train/ppl.h"

struct dm_log;

/* What follows the prefix; the last one is the directory. */
#define DM_LOG_NAMES 3
extern const char *const dm_log_suffix[DM_LOG_NAMES];

struct dm_log_row {
    size_t step, tokens; /* done so far */
    double lr, norm;
    bool skipped;             /* the step was refused: the weights stayed */
    const double *loss;       /* (K), NaN for heads that are not trained */
    double tokens_per_s, mfu; /* of this step; mfu: share of the peak, NaN = not known */
    double seconds;           /* since this run began */
    const struct dm_ppl *val; /* NULL when this step was not validated */
};

/* Begins the files for K heads; with step > 0 the rows up to it are kept and those after it
 * removed, for a run that resumes there. Release with dm_log_close(). */
enum dm_status dm_log_open(struct dm_log **out, const char *prefix, size_t K, size_t step,
                           struct dm_err *e);
enum dm_status dm_log_row(struct dm_log *l, const struct dm_log_row *row, struct dm_err *e);
void dm_log_close(struct dm_log *l); /* NULL is fine */

#endif
