/* SPDX-License-Identifier: MIT */
#include "src/decode/stages.h"

#include <stdlib.h>

#include "src/base/arena.h"
#include "src/decode/penalty.h"

const char *const dm_stage_names[] = {"product", "mask", "blur", "threshold", "penalty"};

/* Cell J of row i, column m of the whole grid at one stage. */
static void put(struct dm_stages *s, enum dm_stage stage, size_t i, size_t m, double J)
{
    s->cells[stage] += J > 0;
    if (i >= s->n[0] || m >= s->n[1])
        return;
    s->J[stage][i][m] = J;
    s->mass[stage] += J;
}

static void finish(struct dm_stages *s, enum dm_stage stage, double sum)
{
    s->mass[stage] = sum > 0 ? s->mass[stage] / sum : 0;
}

/* All cells given, of a grid with `columns`. */
static void put_cells(struct dm_stages *s, enum dm_stage stage, const struct dm_cells *c,
                      size_t columns)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        put(s, stage, c->cell[i] / columns, c->cell[i] % columns, c->J[i]);
        sum += c->J[i];
    }
    finish(s, stage, sum);
}

/* The image of J, which is written to dense memory for it. */
static enum dm_status put_image(struct dm_stages *s, struct dm_grid g, const struct dm_cells *c,
                                bool blur, struct dm_err *e)
{
    uint32_t hist[256];
    double *J = dm_alloc(g.d1 * g.d2, sizeof(*J)), *row = dm_alloc(g.d2 + 2, sizeof(*row));
    uint8_t *level = dm_alloc(g.d1 * g.d2, 1);
    uint16_t *rows = dm_alloc(2 * g.d1, sizeof(*rows)), *reach = rows + g.d1;
    const bool ok = J && row && level && rows;
    if (ok) {
        for (size_t i = 0; i < c->n; i++)
            J[c->cell[i]] = c->J[i];
        dm_threshold_extents(rows, J, g);
        dm_threshold_reach(reach, rows, g, blur);
        dm_threshold_image(level, hist, J, reach, g, blur, row);
        double sum = 0;
        for (size_t i = 0; i < g.d1; i++)
            for (size_t m = 0; m < reach[i]; m++) {
                put(s, DM_STAGE_BLUR, i, m, level[i * g.d2 + m] / 255.0);
                sum += level[i * g.d2 + m] / 255.0;
            }
        finish(s, DM_STAGE_BLUR, sum);
    }
    free(J);
    free(row);
    free(level);
    free(rows);
    return ok ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory for an image of the joint");
}

static void penalise(struct dm_stages *s, const struct dm_decoder *d, const struct dm_gen_opt *o,
                     struct dm_cells *c)
{
    const size_t columns = d->cand[1].n;
    double term[DM_FIT_TERMS];
    size_t best = 0;
    for (size_t i = 0; i < c->n; i++) {
        const int32_t id[] = {d->cand[0].id[c->cell[i] / columns],
                              d->cand[1].id[c->cell[i] % columns]};
        c->J[i] /= o->penalty > 1 ? dm_penalty_divisor(id, 2, d->seen, o->penalty) : 1;
        best = c->J[i] > c->J[best] ? i : best;
    }
    if (c->n) {
        s->max = c->J[best];
        s->counts = dm_decoder_counts(d, o, c, best, 2, term);
    }
    put_cells(s, DM_STAGE_PENALTY, c, columns);
}

static void put_candidates(struct dm_stages *s, const struct dm_decoder *d)
{
    for (size_t h = 0; h < 2; h++) {
        const struct dm_cand *c = &d->cand[h];
        s->n[h] = c->n < DM_STAGES_TOP ? c->n : DM_STAGES_TOP;
        for (size_t i = 0; i < s->n[h]; i++) {
            s->id[h][i] = c->id[i];
            s->p[h][i] = c->p[i];
        }
    }
}

enum dm_status dm_stages_of(struct dm_stages *s, struct dm_decoder *d, const struct dm_gen_opt *o,
                            const struct dm_cooc *cooc, struct dm_err *e)
{
    struct dm_mask mask = {NULL, dm_gen_opt_alpha(o, 2), o->unseen, o->lambda};
    struct dm_cells c;
    *s = (struct dm_stages){.otsu = -1, .level = dm_gen_opt_level(o, 2)};
    if (d->n_cand < 2)
        return dm_fail(e, DM_ERANGE, "this step looks at one token only: there is no joint");
    const size_t columns = d->cand[1].n;
    put_candidates(s, d);
    dm_joint_begin(d->joint, d->cand, 2, &mask);
    if (dm_joint_order(d->joint, 2, 0)) {
        dm_joint_collect(d->joint, 0, &c);
        put_cells(s, DM_STAGE_PRODUCT, &c, columns);
    }
    mask.cooc = cooc;
    dm_joint_begin(d->joint, d->cand, 2, &mask);
    if (!dm_joint_order(d->joint, 2, 0))
        return DM_OK; // the mask leaves nothing
    dm_joint_collect(d->joint, 0, &c);
    put_cells(s, DM_STAGE_MASK, &c, columns);
    if (o->threshold) {
        DM_TRY(put_image(s, dm_joint_grid(d->joint), &c, o->blur, e));
        s->otsu = dm_joint_threshold(d->joint, o->blur, &c);
        if (s->otsu < 0)
            dm_joint_collect(d->joint, 0, &c);
    }
    put_cells(s, DM_STAGE_THRESHOLD, &c, columns);
    penalise(s, d, o, &c);
    return DM_OK;
}
