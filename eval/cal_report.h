/* SPDX-License-Identifier: MIT */
/* cal_report.h - what a calibration found, for people, programs and the model file. */
#ifndef DM_EVAL_CAL_REPORT_H
#define DM_EVAL_CAL_REPORT_H

#include <stdio.h>

#include "eval/calibrate.h"
#include "src/base/hash.h"

/* One header line, the base's line, the control's and one per setting, separated by tabs. */
void dm_cal_print_table(const struct dm_cal_report *r, FILE *out);

/* Why this setting, or why none; one sentence with the numbers. */
void dm_cal_sentence(const struct dm_cal_report *r, char *text, size_t n);

/* "chosen", "certified", "fails", or "-": not tested. */
const char *dm_cal_verdict(const struct dm_cal_report *r, size_t point);

/* What the evidence rests on. */
enum dm_cal_input { DM_CAL_MODEL, DM_CAL_TABLE, DM_CAL_DATA, DM_CAL_JUDGE, DM_CAL_INPUTS };
struct dm_cal_inputs {
    const char *path[DM_CAL_INPUTS]; /* NULL: there is none */
    char hash[DM_CAL_INPUTS][DM_HASH_LEN + 1];
    const char *format; /* of the products: "f32", .. */
    size_t threads;
};

/* The calibration that the model file stores and --json prints: "command": "calibrate", the fields
 * of dm_gen_opt_to_json() of the chosen setting (with eps_b = 1 when there is none),
 * "certificate" (certificate.h; null unless goal risk chose one), and "evidence": options, margins,
 * base, control, points, inputs, summary. docs/decoding.md lists the members. New reference, NULL
 * when out of memory. */
json_t *dm_cal_to_json(const struct dm_cal_report *r, const struct dm_cal_inputs *inputs);

/* An SVG against speed: failing prompts, divergence, loss of log-likelihood and repetition, with
 * confidence intervals, margins and the control. By rename. */
enum dm_status dm_cal_write_svg(const struct dm_cal_report *r, const char *path, struct dm_err *e);

#endif
