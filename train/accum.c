/* SPDX-License-Identifier: MIT */
/* Going through the tree from left to right, one gradient waits per level: the sums of the left
 * halves that the leaf at hand lies to the right of. */
#include "train/accum.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"

#define GRAIN 4096u /* floats: whole pages */

size_t dm_accum_depth(size_t n)
{
    size_t depth = 1;
    for (; n > 1; n = (n + 1) / 2)
        depth++;
    return depth;
}

enum dm_status dm_accum_init(struct dm_accum *a, const struct dm_params *grads,
                             const struct dm_config *c, enum dm_scope scope, size_t n,
                             struct dm_err *e)
{
    enum dm_status st = DM_OK;
    *a = (struct dm_accum){.depth = dm_accum_depth(n),
                           .n_tensors = dm_params_list(NULL, c, scope, NULL)};
    a->level = dm_alloc(a->depth, sizeof(*a->level));
    a->mem = dm_alloc(a->depth, sizeof(*a->mem));
    a->list = dm_alloc(a->depth * a->n_tensors, sizeof(*a->list));
    if (!a->level || !a->mem || !a->list) {
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu tensors", a->n_tensors);
        goto done;
    }
    a->level[0] = *grads;
    for (size_t i = 0; i < a->depth; i++) {
        if (i)
            DM_TRY_GOTO(dm_params_new(&a->level[i], &a->mem[i], c, scope, e));
        dm_params_list(&a->level[i], c, scope, a->list + i * a->n_tensors);
    }
done:
    if (st)
        dm_accum_release(a);
    return st;
}

void dm_accum_release(struct dm_accum *a)
{
    for (size_t i = 1; a->mem && i < a->depth; i++)
        dm_arena_release(&a->mem[i]);
    free(a->level);
    free(a->mem);
    free(a->list);
    *a = (struct dm_accum){0};
}

struct join {
    float *to, *from;
};

/* to += from; from becomes 0 for the next leaf. */
static void join_part(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct join *j = ctx;
    (void)part;
    for (size_t i = begin; i < end; i++)
        j->to[i] += j->from[i];
    memset(j->from + begin, 0, (end - begin) * sizeof(float));
}

static void range(struct dm_accum *a, size_t at, size_t lo, size_t hi, dm_accum_leaf *leaf,
                  void *ctx)
{
    assert(at < a->depth);
    if (hi - lo == 1) {
        leaf(ctx, &a->level[at], lo);
        return;
    }
    const size_t mid = lo + (hi - lo + 1) / 2;
    range(a, at, lo, mid, leaf, ctx);
    range(a, at + 1, mid, hi, leaf, ctx);
    for (size_t i = 0; i < a->n_tensors; i++) {
        const struct dm_tensor *to = &a->list[at * a->n_tensors + i], *from = to + a->n_tensors;
        struct join j = {to->data, from->data};
        if (to->data)
            dm_par_for(to->n, GRAIN, join_part, &j);
    }
}

void dm_accum_run(struct dm_accum *a, size_t lo, size_t hi, dm_accum_leaf *leaf, void *ctx)
{
    assert(lo < hi);
    range(a, 0, lo, hi, leaf, ctx);
}
