/* SPDX-License-Identifier: MIT */
/* cooc_show.h - what a co-occurrence table says about the tokens that follow a context, as text. */
#ifndef DM_DATA_COOC_SHOW_H
#define DM_DATA_COOC_SHOW_H

#include <stddef.h>
#include <stdint.h>

#include "src/io/cooc.h"
#include "src/io/tokenizer.h"

struct dm_cooc_next {
    uint32_t id;
    uint64_t count; /* of the context with this token after it */
    float r;        /* r_2, r_3 or r_4 */
};

struct dm_cooc_shown {
    size_t n_ids; /* tokens of the context: 1 to 3 */
    uint32_t id[3];
    uint64_t count;            /* of the context; 0 when the table does not hold it */
    struct dm_cooc_next *next; /* (n) by falling r, equal ones by id */
    size_t n;
};

/* All kept continuations of `text`, which must be fewer tokens than the table's order: DM_ERANGE
 * otherwise.
 * Release with dm_cooc_shown_release(). */
enum dm_status dm_cooc_show(struct dm_cooc_shown *s, const struct dm_cooc *c,
                            const struct dm_tokenizer *t, const char *text, struct dm_err *e);
void dm_cooc_shown_release(struct dm_cooc_shown *s);

/* What is known about the n-grams of one order. */
struct dm_cooc_summary {
    uint64_t total, kept, sum; /* counted in the corpus; n-grams in the table, and their counts */
    uint64_t ones, twos;       /* counted once, twice, before pruning */
    double discount;           /* absolute: ones / (ones + 2 twos); 0 if not known */
    uint64_t largest;          /* count in the table */
};
void dm_cooc_summarise(struct dm_cooc_summary s[DM_COOC_ORDER_MAX], const struct dm_cooc *c);

/* Bytes of the table's file, of its ratios while decoding, and of the paper's coordinate format: 16
 * a pair, 32 a triplet (40 a quadruple, in the same manner). */
struct dm_cooc_sizes {
    uint64_t file, memory, coordinates, n_grams;
};
enum dm_status dm_cooc_measure(struct dm_cooc_sizes *s, const struct dm_cooc *c, struct dm_err *e);

/* Counts against ranks on logarithmic axes, a curve for each order, as an SVG by rename. */
enum dm_status dm_cooc_plot(const struct dm_cooc *c, const char *path, struct dm_err *e);

/* n bytes for one line of a terminal: control characters and bytes that are not UTF-8 appear as \n,
 * \t, \xNN, the backslash as \\. Heap text, release with free(); NULL when out of memory. */
char *dm_cooc_escape(const char *bytes, size_t n);

#endif
