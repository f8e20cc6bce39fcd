/* SPDX-License-Identifier: MIT */
#include "src/decode/decoder.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/rng.h"
#include "src/decode/penalty.h"

enum dm_status dm_decoder_init(struct dm_decoder *d, size_t V, size_t top_k, size_t n_max,
                               struct dm_err *e)
{
    d->V = V;
    d->top_k = top_k < V ? top_k : V;
    d->n_max = n_max;
    d->n_cand = 0;
    d->joint = NULL;
    d->seen = dm_alloc(V, sizeof(*d->seen));
    if (!d->seen)
        return dm_fail(e, DM_ENOMEM, "out of memory for a context of %zu tokens", V);
    return dm_joint_new(&d->joint, V, d->top_k, n_max, e);
}

void dm_decoder_release(struct dm_decoder *d)
{
    free(d->seen);
    dm_joint_free(d->joint);
    d->seen = NULL;
    d->joint = NULL;
}

void dm_decoder_reset(struct dm_decoder *d)
{
    memset(d->seen, 0, d->V * sizeof(*d->seen));
}

void dm_decoder_add(struct dm_decoder *d, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0 && (size_t)ids[i] < d->V)
            d->seen[ids[i]] = true;
}

/* Tokens of a cell of the order-n grid. */
static void cell_tokens(const struct dm_decoder *d, size_t cell, size_t n, int32_t *id)
{
    for (size_t i = n; i-- > 0; cell /= d->cand[i].n)
        id[i] = d->cand[i].id[cell % d->cand[i].n];
}

/* Divides by the penalty. */
static void penalise(const struct dm_decoder *d, struct dm_cells *c, size_t n, double penalty)
{
    int32_t id[DM_ORDER_MAX];
    for (size_t i = 0; i < c->n && penalty > 1; i++) {
        cell_tokens(d, c->cell[i], n, id);
        c->J[i] /= dm_penalty_divisor(id, n, d->seen, penalty);
    }
}

/* Index of the arg max, the first of equals. */
static size_t best_cell(const struct dm_cells *c)
{
    size_t best = 0;
    for (size_t i = 1; i < c->n; i++)
        if (c->J[i] > c->J[best])
            best = i;
    return best;
}

double dm_decoder_counts(const struct dm_decoder *d, const struct dm_gen_opt *o,
                         const struct dm_cells *c, size_t best, size_t n, double *term)
{
    const double J = c->J[best];
    double left = 0;
    if (!o->trace && !dm_gen_opt_fitted(o))
        return J;
    for (size_t i = 0; i < c->n; i++)
        left += c->J[i];
    dm_fit_read(term, n, J, left, c->cell[best], d->cand);
    return dm_gen_opt_fitted(o) ? fmin(dm_fit_confidence(&o->fit, n, term), J) : J;
}

/* Leaves the cells whose J is at least `cut`. */
static void drop_below(struct dm_cells *c, double cut)
{
    size_t left = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (c->J[i] < cut)
            continue;
        c->cell[left] = c->cell[i];
        c->J[left++] = c->J[i];
    }
    c->n = left;
}

/* Chooses a cell and fills in tokens and q. */
static void choose(const struct dm_decoder *d, const struct dm_gen_opt *o, const struct dm_cells *c,
                   size_t n, struct dm_block *out)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++)
        sum += c->J[i];
    size_t pick = 0;
    if (o->temperature > 0) {
        struct dm_rng rng;
        dm_rng_init(&rng, o->seed, out->pos);
        const double u = dm_rng_uniform(&rng) * sum;
        double upto = 0;
        for (size_t i = 0; i < c->n && !(upto > u); i++) {
            upto += c->J[i];
            pick = i; // the last one is taken when rounding left upto short of u
        }
    } else {
        pick = best_cell(c);
    }
    out->n = out->kept = n;
    out->q = c->J[pick] / sum;
    cell_tokens(d, c->cell[pick], n, out->id);
}

/* The cells of order n that may be sampled, before the penalty. */
static void survivors(struct dm_decoder *d, const struct dm_gen_opt *o, size_t n, double cut,
                      struct dm_try *t, struct dm_cells *c)
{
    if (o->threshold)
        t->otsu = dm_joint_threshold(d->joint, o->blur, c);
    if (t->otsu >= 0)
        return;
    // Without a threshold every cell survives. Those below the cut are 0 anyway, if it counts; if
    // all are, the largest is still wanted, and the penalty can change which one that is.
    const double least = dm_joint_max(d->joint) / pow(o->penalty, (double)n);
    dm_joint_collect(d->joint, !o->cut ? 0 : least < cut ? least : cut, c);
}

/* False if the candidates alone show that the fit lets no block of order n pass: most steps of a
 * model that is sure of little need no joint. */
static bool may_pass(const struct dm_decoder *d, const struct dm_gen_opt *o, size_t n)
{
    const double level = dm_gen_opt_level(o, n);
    return o->trace || !dm_gen_opt_fitted(o) || dm_fit_bound(&o->fit, n, level, d->cand) > level;
}

/* The order's block passes if its most probable cell is confident enough. */
static bool try_order(struct dm_decoder *d, const struct dm_gen_opt *o, size_t n,
                      struct dm_block *out)
{
    struct dm_try *t = &out->order[n];
    struct dm_cells c;
    const double cut = dm_gen_opt_level(o, n);
    // neither the threshold nor the penalty raises the largest J, nor does the fit
    if (!dm_joint_order(d->joint, n, o->trace ? 0 : cut))
        return false;
    survivors(d, o, n, cut, t, &c);
    t->n_cells = c.n;
    if (!c.n)
        return false;
    penalise(d, &c, n, o->penalty);
    const size_t best = best_cell(&c);
    t->max = c.J[best];
    t->counts = dm_decoder_counts(d, o, &c, best, n, t->term);
    if (o->trace)
        cell_tokens(d, c.cell[best], n, t->best);
    t->passed = t->counts > cut;
    if (!t->passed)
        return false;
    if (o->cut)
        drop_below(&c, cut);
    choose(d, o, &c, n, out);
    return true;
}

static void one_token(struct dm_decoder *d, const struct dm_gen_opt *o, struct dm_block *out)
{
    struct dm_cells c = {d->cand[0].n, d->one_cell, d->one_J};
    for (size_t i = 0; i < c.n; i++) {
        c.cell[i] = (uint32_t)i;
        c.J[i] = d->cand[0].p[i];
    }
    penalise(d, &c, 1, o->penalty);
    const double max = c.J[best_cell(&c)];
    out->order[1] = (struct dm_try){
        .tried = true, .passed = true, .otsu = -1, .n_cells = c.n, .max = max, .counts = max};
    choose(d, o, &c, 1, out);
}

enum dm_status dm_decoder_step(struct dm_decoder *d, const struct dm_gen_opt *o,
                               const struct dm_cooc *cooc, const float *logits, size_t Vp, size_t n,
                               size_t pos, struct dm_block *out, struct dm_err *e)
{
    assert(n >= 1 && n <= d->n_max && d->V <= Vp);
    *out = (struct dm_block){.pos = pos};
    if (dm_gen_opt_single(o))
        n = 1;
    d->n_cand = n;
    for (size_t i = 0; i < n; i++)
        if (!dm_cand_select(&d->cand[i], logits + i * Vp, d->V, o->top_k,
                            o->temperature > 0 ? o->temperature : 1))
            return dm_fail(e, DM_ENAN, "logits of head %zu at position %zu are not finite", i + 1,
                           pos);
    for (double alpha = NAN; n > 1; n--) { // of the mask that the joint has
        out->order[n] = (struct dm_try){.tried = true, .otsu = -1};
        if (!may_pass(d, o, n))
            continue;
        const struct dm_mask mask = {cooc, dm_gen_opt_alpha(o, n), o->unseen, o->lambda};
        if (mask.alpha != alpha)
            dm_joint_begin(d->joint, d->cand, n, &mask);
        alpha = mask.alpha;
        if (try_order(d, o, n, out))
            return DM_OK;
    }
    one_token(d, o, out);
    return DM_OK;
}
