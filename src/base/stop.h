/* SPDX-License-Identifier: MIT */
/* stop.h - Ctrl-C and SIGTERM ask a long job to finish its step and save; a second one kills.
 * SIGUSR1 asks it to save and go on. */
#ifndef DM_BASE_STOP_H
#define DM_BASE_STOP_H

#include <stdbool.h>

void dm_stop_install(void); /* once, by a command that knows how to stop */
bool dm_stop_requested(void);

void dm_stop_install_save(void); /* SIGUSR1, once, by a command that knows how to save */
bool dm_stop_take_save(void);    /* true once for one or several signals since the last call */

#endif
