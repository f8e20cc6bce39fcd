/* SPDX-License-Identifier: MIT */
/* report.h - one page of HTML about runs: training, calibration, evaluation, text. */
#ifndef DM_EVAL_REPORT_H
#define DM_EVAL_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "src/base/status.h"

/* What a file is, told by what is in it. */
#define DM_RUN_KINDS(X)                                      \
    X(LOG, "training log")                                   \
    X(MODEL, "model")                                        \
    X(OTHER, "file")            /* HDF5 of ours, no model */ \
    X(CALIBRATE, "calibration") /* calibrate --json */       \
    X(EVAL, "evaluation")       /* eval --json */            \
    X(BENCH, "benchmark")       /* bench --json */           \
    X(TRAIN, "training")        /* train, pretrain --json */ \
    X(TEXT, "text")             /* generate --json */        \
    X(TRACE, "trace")           /* generate --trace */

enum dm_run_kind {
#define X(name, text) DM_RUN_##name,
    DM_RUN_KINDS(X)
#undef X
};
extern const char *const dm_run_kind_names[];

struct dm_run {
    enum dm_run_kind kind;
    char *path;
    char *label;  /* the file's name, or its path where names are equal; for people */
    json_t *root; /* an object; LOG and TRACE: an array of objects */
};

struct dm_runs {
    struct dm_run *run;
    size_t n, cap;
    json_t *passed_over; /* strings: files of folders that are nothing of the above */
};

/* Adds the file, or every file of the folder (not of the folders in it) that can be told. A file
 * of several answers (generate --chat --json) gives several runs. DM_EFORMAT: a file that is none
 * of these, a folder without one; DM_EIO, DM_ENOMEM, DM_ERANGE (too large). After a failure the
 * runs are as they were, or more. */
enum dm_status dm_runs_add(struct dm_runs *r, const char *path, struct dm_err *e);
void dm_runs_release(struct dm_runs *r);

/* The page's text (NUL-terminated heap, release with free()). *sections is new: {made: [{id,
 * title}], absent: [{id, title, made_by}]}. DM_ENOMEM. */
enum dm_status dm_report_page(const struct dm_runs *r, const char *title, char **html, size_t *n,
                              json_t **sections, struct dm_err *e);

#endif
