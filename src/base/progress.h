/* SPDX-License-Identifier: MIT */
/* progress.h - one line on stderr with rate and time left, only when stderr is a terminal. */
#ifndef DM_BASE_PROGRESS_H
#define DM_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdio.h>

struct dm_progress {
    const char *what, *unit; /* "counting", "tokens"; borrowed */
    double total;            /* 0 = unknown */
    double done;
    double started, shown; /* dm_now() */
    bool tty;
};

double dm_now(void); /* seconds on the monotonic clock */

/* ", 2:05 left": minutes, however many, and seconds. */
void dm_print_left(FILE *f, double seconds);

void dm_progress_init(struct dm_progress *p, const char *what, const char *unit, double total);

/* Sets the amount done and redraws at most five times a second. `note` (may be NULL) is appended.
 */
void dm_progress_set(struct dm_progress *p, double done, const char *note);

/* Clears the line. */
void dm_progress_end(struct dm_progress *p);

#endif
