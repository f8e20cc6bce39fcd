/* SPDX-License-Identifier: MIT */
/* opt.h - checked numbers for argp parsers; a wrong one is a usage error (exit 2). */
#ifndef DM_BASE_OPT_H
#define DM_BASE_OPT_H

#include <argp.h>
#include <stddef.h>
#include <stdint.h>

/* Parse `arg` or call argp_error with the option's name, what was found and the range wanted.
 * dm_opt_size accepts the suffixes k, M, G (powers of 1000) and Ki, Mi, Gi (of 1024). */
size_t dm_opt_size(struct argp_state *s, const char *name, const char *arg, size_t min, size_t max);
uint64_t dm_opt_u64(struct argp_state *s, const char *name, const char *arg);
double dm_opt_real(struct argp_state *s, const char *name, const char *arg, double min, double max);

/* Index of `arg` in the NULL-terminated list `words`; argp_error lists them otherwise. */
int dm_opt_word(struct argp_state *s, const char *name, const char *arg, const char *const *words);

/* For a command's only argument: keeps it in *slot, or argp_error("one <what>, but ..."). */
void dm_opt_once(struct argp_state *s, const char *what, const char **slot, const char *arg);
/* argp_error("<what> is missing") unless given. */
void dm_opt_need(struct argp_state *s, const char *what, const void *given);

#endif
