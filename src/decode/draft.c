/* SPDX-License-Identifier: MIT */
/* Drafts for the base to verify: the likeliest continuations by the heads and the table. */
#include <assert.h>

#include "src/decode/decoder.h"
#include "src/decode/penalty.h"

/* Continuations that wait, of every row the best few. */
struct pool {
    size_t n;
    struct {
        size_t parent;
        int32_t id;
        double p;
    } item[DM_TREE_ROWS * DM_TREE_ROWS];
};

/* What the heads say, for all rows: head i+1's candidates in d->cand[i], made when first asked for.
 */
struct source {
    struct dm_decoder *d;
    const struct dm_gen_opt *o;
    const struct dm_cooc *cooc;
    const float *logits;
    size_t Vp, n, n_ready;
};

/* Candidates of the head that is i tokens behind the first; false if there are none. */
static bool ready(struct source *s, size_t i)
{
    struct dm_decoder *d = s->d;
    for (; s->n_ready < i; s->n_ready++)
        if (!dm_cand_select(&d->cand[s->n_ready + 1], s->logits + s->n_ready * s->Vp, d->V,
                            s->o->top_k, s->o->temperature > 0 ? s->o->temperature : 1))
            return false;
    return true;
}

/* The weights of all tokens behind a path of n, in cells whose number is the candidate's; their
 * sum. */
static double weigh(struct source *s, const int32_t *path, size_t n, struct dm_cells *c)
{
    struct dm_decoder *d = s->d;
    int32_t id[DM_ORDER_MAX];
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        d->given[i] = (struct dm_cand){.n = 1, .id = {path[i]}, .p = {1}};
        id[i] = path[i];
    }
    d->given[n] = d->cand[n];
    const struct dm_mask mask = {s->cooc, dm_gen_opt_alpha(s->o, n + 1), s->o->unseen,
                                 s->o->lambda};
    dm_joint_begin(d->joint, d->given, n + 1, &mask);
    if (!dm_joint_order(d->joint, n + 1, 0))
        return 0;
    dm_joint_collect(d->joint, 0, c);
    for (size_t i = 0; i < c->n; i++) {
        id[n] = d->given[n].id[c->cell[i]];
        c->J[i] /= dm_penalty_divisor(id, n + 1, d->seen, s->o->penalty);
        sum += c->J[i];
    }
    return sum;
}

/* Adds the `most` best continuations of row r to the pool. */
static void expand(struct source *s, const struct dm_draft *w, size_t r, size_t most,
                   struct pool *pool)
{
    uint8_t row[DM_TREE_ROWS];
    int32_t path[DM_TREE_ROWS];
    struct dm_cells c;
    const size_t n = dm_tree_path(&w->tree, r, row);
    if (n >= s->n || !ready(s, n))
        return;
    for (size_t i = 0; i < n; i++)
        path[i] = w->id[row[i]];
    const double sum = weigh(s, path, n, &c);
    for (; sum > 0 && most > 0; most--) {
        size_t best = 0;
        for (size_t i = 1; i < c.n; i++)
            if (c.J[i] > c.J[best])
                best = i;
        if (!(c.J[best] > 0))
            return;
        pool->item[pool->n].parent = r;
        pool->item[pool->n].id = s->d->cand[n].id[c.cell[best]];
        pool->item[pool->n++].p = w->p[r] * c.J[best] / sum;
        c.J[best] = 0;
    }
}

void dm_decoder_draft(struct dm_decoder *d, const struct dm_gen_opt *o, const struct dm_cooc *cooc,
                      const float *logits, size_t Vp, size_t n, bool chain, struct dm_draft *w)
{
    struct source s = {.d = d, .o = o, .cooc = cooc, .logits = logits, .Vp = Vp, .n = n};
    struct pool pool = {0};
    assert(n >= 1 && n <= d->n_max && o->rows >= 1 && o->rows <= DM_TREE_ROWS);
    w->tree.n = 1;
    w->p[0] = 1;
    for (size_t r = 0;; r = w->tree.n++) {
        if (w->tree.n == o->rows)
            return;
        if (chain)
            pool.n = 0;
        expand(&s, w, r, chain ? 1 : o->rows - w->tree.n, &pool);
        size_t best = 0;
        for (size_t i = 1; i < pool.n; i++)
            if (pool.item[i].p > pool.item[best].p)
                best = i;
        if (!pool.n || !(pool.item[best].p > 0))
            return;
        w->tree.parent[w->tree.n] = (uint8_t)pool.item[best].parent;
        w->id[w->tree.n] = pool.item[best].id;
        w->p[w->tree.n] = pool.item[best].p;
        pool.item[best].p = 0; // its turn is over
    }
}
