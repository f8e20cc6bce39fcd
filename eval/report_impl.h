/* SPDX-License-Identifier: MIT */
/* report_impl.h - what the parts of the report share. */
#ifndef DM_EVAL_REPORT_IMPL_H
#define DM_EVAL_REPORT_IMPL_H

#include "eval/chart.h"
#include "eval/report.h"

/* ---- Values of files, which may lack anything and be of any type ------------------------------
 */

/* The value at a path of keys ("stats.blocks.1"), NULL if there is none. */
const json_t *dm_rep_at(const json_t *o, const char *path);
/* The number there, else NaN. The string, else NULL. */
double dm_rep_number(const json_t *o, const char *path);
const char *dm_rep_string(const json_t *o, const char *path);

/* ---- Sections: each writes its body, or nothing and returns false ------------------------------
 */

bool dm_rep_glance(struct dm_page *p, const struct dm_runs *r);
bool dm_rep_training(struct dm_page *p, const struct dm_runs *r);
bool dm_rep_quality(struct dm_page *p, const struct dm_runs *r);
bool dm_rep_mixture(struct dm_page *p, const struct dm_runs *r);
bool dm_rep_joint(struct dm_page *p, const struct dm_runs *r);
bool dm_rep_text(struct dm_page *p, const struct dm_runs *r);
bool dm_rep_eval(struct dm_page *p, const struct dm_runs *r);
bool dm_rep_bench(struct dm_page *p, const struct dm_runs *r);
bool dm_rep_settings(struct dm_page *p, const struct dm_runs *r);

/* ---- Pieces -----------------------------------------------------------------------------------
 */

/* <table class="CLASS"> in a box that scrolls, with a caption; then the caller's rows; then the
 * end. `head` is the columns' names, NULL-terminated; a leading '#' marks numbers. */
void dm_rep_table(struct dm_page *p, const char *caption, const char *const *head);
void dm_rep_table_end(struct dm_page *p);

/* Any JSON value, for people: an object as a table of all that is in it, arrays of objects as
 * tables of their own, other arrays in a line. */
void dm_rep_value(struct dm_page *p, const json_t *v, const char *caption);
/* An array in a line; words with blanks between them. */
void dm_rep_line(struct dm_page *p, const json_t *a);

#endif
