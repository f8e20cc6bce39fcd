/* SPDX-License-Identifier: MIT */
#include "eval/diversity.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"

double dm_div_repeats(const int32_t *ids, size_t len, size_t n)
{
    assert(n >= 1);
    if (len <= n)
        return 0.0;
    size_t repeats = 0;
    // Quadratic, but a text of one context is judged in far more time than this takes.
    for (size_t i = 1; i + n <= len; i++)
        for (size_t k = 0; k < i; k++)
            if (ids[k] == ids[i] && !memcmp(ids + k, ids + i, n * sizeof(*ids))) {
                repeats++;
                break;
            }
    return (double)repeats / (double)(len - n + 1);
}

static int by_ids(const void *a, const void *b, void *n)
{
    return memcmp(*(const int32_t *const *)a, *(const int32_t *const *)b, *(const size_t *)n);
}

enum dm_status dm_div_distinct(double *out, const struct dm_texts *t, size_t n, struct dm_err *e)
{
    size_t all = 0, distinct = 0, bytes = n * sizeof(*t->ids);
    assert(n >= 1);
    for (size_t i = 0; i < t->count; i++)
        all += t->len[i] >= n ? t->len[i] - n + 1 : 0;
    *out = (double)NAN;
    if (!all)
        return DM_OK;
    const int32_t **at = dm_alloc(all, sizeof(*at));
    if (!at)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu n-grams", all);
    all = 0;
    for (size_t i = 0; i < t->count; i++)
        for (size_t k = 0; k + n <= t->len[i]; k++)
            at[all++] = t->ids + t->start[i] + k;
    qsort_r(at, all, sizeof(*at), by_ids, &bytes);
    for (size_t i = 0; i < all; i++)
        distinct += !i || memcmp(at[i - 1], at[i], bytes) != 0;
    free(at);
    *out = (double)distinct / (double)all;
    return DM_OK;
}
