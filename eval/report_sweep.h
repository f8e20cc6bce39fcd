/* SPDX-License-Identifier: MIT */
/* report_sweep.h - thresholds that were tried and what they gave, whichever command tried them. */
#ifndef DM_EVAL_REPORT_SWEEP_H
#define DM_EVAL_REPORT_SWEEP_H

#include "eval/report_impl.h"

/* An estimate with its interval; NaN for what is not known. */
struct dm_rep_estimate {
    double value, lo, hi;
};

struct dm_rep_setting {
    double eps_b;
    struct dm_rep_estimate per_forward, speedup;
    struct dm_rep_estimate
        shortfall; /* of the judge: nats per token that the text is less likely */
    struct dm_rep_estimate divergence; /* from the base's sampler, nats per token */
    struct dm_rep_estimate repeats;    /* rise of the share of repeated n-grams over the base's */
    struct dm_rep_estimate failing;    /* share of prompts over a margin */
    struct dm_rep_estimate wins;       /* the judge's win rate against the base */
    double share[4];                   /* of passes that gave 1, 2, 3 tokens; [0] is not used */
    bool passes, chosen;
    const char *verdict; /* "chosen", "certified", ..; empty where nothing is tested */
};

/* One curve: a run and, where it has several, a policy. */
struct dm_rep_sweep {
    char name[120];
    const char *label; /* of the run */
    const json_t *source;
    struct dm_rep_setting *at; /* by rising eps_b */
    size_t n;
    double margin[4]; /* limits of shortfall, divergence, repeats, failing; NaN = none */
    const json_t *certificate;
    const char *summary;
};

/* All sweeps of the runs; *out is heap, release with dm_rep_sweeps_free(). False: out of memory,
 * with *out what there was. */
bool dm_rep_sweeps(const struct dm_runs *r, struct dm_rep_sweep **out, size_t *n);
void dm_rep_sweeps_free(struct dm_rep_sweep *s, size_t n);

#endif
