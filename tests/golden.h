/* SPDX-License-Identifier: MIT */
/* golden.h - reading tests/golden/ and the weights that its files were computed from. */
#ifndef DM_TESTS_GOLDEN_H
#define DM_TESTS_GOLDEN_H

#include "src/io/h5.h"
#include "src/model/params.h"

/* Opens tests/golden/<name> and parses its config (c may be NULL); close with dm_h5_close(). Fails
 * the test when that does not work. */
struct dm_h5 *golden_open(const char *name, struct dm_config *c);

/* Reads a whole dataset into new memory of *n elements (NULL skips n); release with free(). The
 * stored type must be t. */
void *golden_read(struct dm_h5 *f, const char *name, enum dm_h5_type t, size_t *n);

/* Sets the tensors of `scope` by the formula of golden/README.md. */
void golden_fill(struct dm_params *p, const struct dm_config *c, enum dm_scope scope);

#endif
