/* SPDX-License-Identifier: MIT */
/* tablet.h - a co-occurrence table in memory, made from a list of n-grams, and a model-free
 * reference of its ratios. */
#ifndef DM_TESTS_TABLET_H
#define DM_TESTS_TABLET_H

#include "src/io/cooc.h"

/* Counts the pairs and triplets of ids (n), all < V, as one document. Release with tablet_free. */
void tablet_count(struct dm_cooc *c, const int32_t *ids, size_t n, size_t V);
void tablet_free(struct dm_cooc *c);

/* Ratios from the counts by linear search, rounded as they are stored; 0 for what the table lacks.
 */
double tablet_r2(const struct dm_cooc *c, int32_t x1, int32_t x2);
double tablet_r3(const struct dm_cooc *c, int32_t x1, int32_t x2, int32_t x3);

/* Those that a table has stored. */
double stored_r2(const struct dm_cooc *c, uint32_t x1, uint32_t x2);
double stored_r3(const struct dm_cooc *c, uint32_t x1, uint32_t x2, uint32_t x3);

/* Gives a table of counts smoothed ratios instead of its own. */
void tablet_discount(struct dm_cooc *c);

/* Smoothed ratios of any n tokens, n = 2 or 3, from those that the table has stored; and from its
 * counts by src/io/cooc.h's formulas. */
double stored_discounted(const struct dm_cooc *c, const int32_t *x, size_t n);
double tablet_discounted(const struct dm_cooc *c, const int32_t *x, size_t n);

#endif
