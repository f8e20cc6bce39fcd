/* SPDX-License-Identifier: MIT */
/* diversity.h - how much a text repeats itself, and how many different n-grams texts hold. */
#ifndef DM_EVAL_DIVERSITY_H
#define DM_EVAL_DIVERSITY_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

/* Share of the n-grams of ids (len) that occurred earlier in it, n >= 1; 0 for len <= n. */
double dm_div_repeats(const int32_t *ids, size_t len, size_t n);

/* Some texts: text i is ids[start[i]] to before ids[start[i] + len[i]]. No n-gram spans two. */
struct dm_texts {
    const int32_t *ids;
    const size_t *start, *len; /* (count) */
    size_t count;
};

/* distinct-n (Li et al. 2016): distinct n-grams / n-grams of all the texts together, n >= 1; *out
 * is NaN when no text has n tokens. For one text it is 1 - dm_div_repeats(). It falls with the
 * number of tokens, so compare sets of one size only. DM_ENOMEM. */
enum dm_status dm_div_distinct(double *out, const struct dm_texts *t, size_t n, struct dm_err *e);

#endif
