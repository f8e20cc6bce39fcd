/* SPDX-License-Identifier: MIT */
/* stop.h - Ctrl-C and SIGTERM ask a long job to finish its step and save; a second one kills. */
#ifndef DM_BASE_STOP_H
#define DM_BASE_STOP_H

#include <stdbool.h>

void dm_stop_install(void); /* once, by a command that knows how to stop */
bool dm_stop_requested(void);

#endif
