/* SPDX-License-Identifier: MIT */
/* cal_report.h - what a calibration found, for people, programs and the model file. */
#ifndef DM_EVAL_CAL_REPORT_H
#define DM_EVAL_CAL_REPORT_H

#include <stdio.h>

#include "eval/calibrate.h"

/* One header line, the base's line and one per setting, separated by tabs. */
void dm_cal_print_table(const struct dm_cal_report *r, FILE *out);

/* Why this setting, or why none; one sentence with the numbers. */
void dm_cal_sentence(const struct dm_cal_report *r, char *text, size_t n);

/* The calibration that the model file stores: the fields of dm_gen_opt_to_json with the chosen
 * eps_b and policy (eps_b = 1 when none was chosen), and "evidence": the options, the points, what
 * was chosen and the members of `inputs` (hashes; borrowed). New reference, NULL when out of
 * memory. */
json_t *dm_cal_to_json(const struct dm_cal_report *r, json_t *inputs);

/* An SVG of loss and of repetition against speed-up, with bounds and margins. By rename. */
enum dm_status dm_cal_write_svg(const struct dm_cal_report *r, const char *path, struct dm_err *e);

#endif
