/* SPDX-License-Identifier: MIT */
/* report.h - what a run tells: its result, and lines on the console while it goes on. */
#ifndef DM_TRAIN_REPORT_H
#define DM_TRAIN_REPORT_H

#include <stdio.h>

#include "src/base/progress.h"
#include "train/log.h"
#include "train/ppl.h"

struct dm_train_report {
    size_t steps, tokens; /* done since the very first step */
    size_t total_steps;   /* planned; steps < total_steps after --stop-after */
    size_t saved_step;    /* whose weights the model has: total_steps, or the best's */
    size_t n_params;      /* trained */
    size_t train_windows, val_windows;
    size_t memory;                /* bytes, the most that the process had */
    double seconds, tokens_per_s; /* of this run; the rate is that of the steps alone */
    double flops;                 /* per token: dm_pass_flops() */
    double peak_gflops; /* of the precision's multiply-adds, the best measured in this run, of all
                         * processes */
    size_t processes;
    uint64_t sent_per_step;        /* bytes of gradients that each process sends */
    double exchange;               /* share of the steps' time that this took, waiting included */
    double mfu;                    /* share of it that the steps reached, NaN = not known */
    double loss[DM_PPL_MAX_HEADS]; /* of the last step of this run, NaN = not trained */
    struct dm_ppl val;             /* K = 0: there was nothing to validate on */
    double best;                   /* smallest mean validation loss, at best_step (0 = none) */
    size_t best_step;
    json_t *provenance;    /* command, options, inputs' hashes, validation: no times, no threads */
    json_t *replay;        /* of a run with --replay: what dm_replay() gave; the rest is 0 */
    char checkpoint[4096]; /* the prefix of the files' names */
};
void dm_train_report_release(struct dm_train_report *r);

/* Mean of the trained heads' losses; loss (K), NaN for the others. */
double dm_report_mean_loss(const double *loss, size_t K);

/* As JSON without the provenance; new reference. */
json_t *dm_train_report_json(const struct dm_train_report *r);

/* The console of a run: a moving line on a terminal; elsewhere a plain one every `every` steps. */
struct dm_console {
    FILE *f;             /* NULL = silent */
    size_t begun, steps; /* the run goes from step `begun` to `steps` */
    size_t per_step;     /* tokens */
    size_t K, every;
    struct dm_progress progress;
};
void dm_console_begin(struct dm_console *c, const char *what);
void dm_console_step(struct dm_console *c, const struct dm_log_row *row);
/* A line of its own that begins with "warning: ". */
void dm_console_warn(struct dm_console *c, const char *text);
/* "<what> <prefix>-<step>.h5". */
void dm_console_note(struct dm_console *c, const char *what, const char *prefix, size_t step);
void dm_console_end(struct dm_console *c);

#endif
