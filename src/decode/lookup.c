/* SPDX-License-Identifier: MIT */
#include "src/decode/lookup.h"

#include <assert.h>
#include <stdlib.h>

#include "src/base/arena.h"

enum dm_status dm_lookup_init(struct dm_lookup *l, size_t V, struct dm_err *e)
{
    l->V = V;
    l->n = 0;
    l->bits = dm_alloc(V / 64 + 1, sizeof(*l->bits));
    l->pos = dm_alloc(V, sizeof(*l->pos));
    if (!l->bits || !l->pos)
        return dm_fail(e, DM_ENOMEM, "out of memory for the candidates of %zu tokens", V);
    return DM_OK;
}

void dm_lookup_release(struct dm_lookup *l)
{
    free(l->bits);
    free(l->pos);
    l->bits = NULL;
    l->pos = NULL;
}

static int by_value(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void dm_lookup_set(struct dm_lookup *l, const struct dm_cand *c)
{
    for (size_t i = 0; i < l->n; i++)
        l->bits[l->sorted[i] / 64] = 0;
    l->n = c->n;
    for (size_t i = 0; i < c->n; i++) {
        const uint32_t id = (uint32_t)c->id[i];
        l->sorted[i] = id;
        l->bits[id / 64] |= (uint64_t)1 << id % 64;
        l->pos[id] = (uint16_t)i;
    }
    qsort(l->sorted, l->n, sizeof(l->sorted[0]), by_value);
}

/* Without a branch on the hit, which could not be predicted. */
static size_t walk(const struct dm_lookup *l, const uint32_t *x, size_t n, uint16_t *pos,
                   uint32_t *at)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        at[m] = (uint32_t)i;
        m += l->bits[x[i] / 64] >> x[i] % 64 & 1;
    }
    for (size_t i = 0; i < m; i++)
        pos[i] = l->pos[x[at[i]]];
    return m;
}

/* One binary search for all candidates at once: their steps do not depend on each other, so the
 * cache misses of a long row overlap. */
static size_t search(struct dm_lookup *l, const uint32_t *x, size_t n, uint16_t *pos, uint32_t *at)
{
    uint32_t *a = l->at_least;
    for (size_t i = 0; i < l->n; i++)
        a[i] = 0;
    size_t left = n;
    while (left > 1) { // the answer lies in [a, a + left]
        const uint32_t half = (uint32_t)(left / 2);
        for (size_t i = 0; i < l->n; i++) // a mask, because a branch could not be predicted
            a[i] += half & -(uint32_t)(x[a[i] + half - 1] < l->sorted[i]);
        left -= half;
    }
    size_t m = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (x[a[i]] != l->sorted[i])
            continue;
        pos[m] = l->pos[l->sorted[i]];
        at[m++] = a[i];
    }
    return m;
}

size_t dm_lookup_row(struct dm_lookup *l, const uint32_t *x, size_t n, uint16_t *pos, uint32_t *at)
{
    while (n > 0 && x[n - 1] >= l->V) // a table may know more tokens than the model
        n--;
    // a step of the walk costs about as much as a step of one candidate's search
    size_t steps = 1;
    while (n >> steps)
        steps++;
    assert(n <= UINT32_MAX); // distinct 32-bit ids
    if (n <= l->n * steps)
        return walk(l, x, n, pos, at);
    return search(l, x, n, pos, at);
}
