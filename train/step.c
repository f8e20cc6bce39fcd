/* SPDX-License-Identifier: MIT */
#include "train/step.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/guard.h"

enum dm_scope dm_step_scope(enum dm_pass_kind kind)
{
    if (kind == DM_PASS_JOINT)
        return DM_SCOPE_ALL;
    return kind == DM_PASS_HEADS ? DM_SCOPE_HEADS : DM_SCOPE_BASE;
}

size_t dm_step_first_head(enum dm_pass_kind kind)
{
    return kind == DM_PASS_HEADS ? 2 : 1;
}

static size_t last_head(const struct dm_step *s)
{
    return s->opt.kind == DM_PASS_BASE ? 1 : s->model->cfg.K;
}

static bool decays(const struct dm_tensor *t, enum dm_decay_mask mask)
{
    const bool layer = t->part == DM_PART_LAYER || t->part == DM_PART_HEAD;
    return mask == DM_DECAY_ALL || (t->decay && (layer || mask == DM_DECAY_MATRICES));
}

static enum dm_status init_adam(struct dm_step *s, struct dm_err *e)
{
    const struct dm_config *c = &s->model->cfg;
    const enum dm_scope scope = dm_step_scope(s->opt.kind);
    const size_t n = dm_params_list(NULL, c, scope, NULL);
    struct dm_tensor *grads = dm_alloc(n, sizeof(*grads));
    enum dm_status st;
    s->params_list = dm_alloc(n, sizeof(*s->params_list));
    s->n_tensors = n;
    if (!grads || !s->params_list) {
        free(grads);
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu tensors", n);
    }
    dm_params_list(&s->model->params, c, scope, s->params_list);
    dm_params_list(&s->grads, c, scope, grads);
    for (size_t i = 0; i < n; i++)
        s->params_list[i].decay = decays(&s->params_list[i], s->opt.decay_mask);
    st = dm_adamw_init(&s->adam, &s->opt.adam, s->params_list, grads, n, e);
    for (size_t i = 0; s->opt.kind == DM_PASS_JOINT && i < s->adam.n_slots; i++)
        if (s->adam.slot[i].part != DM_PART_HEAD)
            s->adam.slot[i].rate = s->opt.base_rate;
    free(grads);
    return st;
}

static size_t n_micros(const struct dm_step *s, size_t B)
{
    return (B + s->opt.micro - 1) / s->opt.micro;
}

/* Micro-batches of one process. */
static enum dm_status split(const struct dm_step *s, size_t *each, struct dm_err *e)
{
    const size_t n = n_micros(s, s->opt.batch), ranks = dm_ranks_count(s->opt.ranks);
    *each = n / ranks;
    if (n % ranks || (ranks & (ranks - 1)))
        return dm_fail(e, DM_ERANGE,
                       "%zu processes: want a power of 2 that divides the %zu micro-batches of a "
                       "step (--batch over --micro-batch)",
                       ranks, n);
    return DM_OK;
}

enum dm_status dm_step_init(struct dm_step *s, struct dm_model *m, const struct dm_step_opt *opt,
                            struct dm_err *e)
{
    enum dm_status st = DM_OK;
    const struct dm_config *c = &m->cfg;
    *s = (struct dm_step){.opt = *opt, .model = m};
    if (!s->opt.batch)
        s->opt.batch = opt->micro;
    const size_t n_micro = n_micros(s, s->opt.batch);
    size_t each;
    DM_TRY_GOTO(split(s, &each, e));
    s->loss = dm_alloc(c->K, sizeof(double));
    s->part = dm_alloc(n_micro, c->K * sizeof(double));
    s->n_targets = dm_alloc(c->K, sizeof(*s->n_targets));
    if (!s->loss || !s->part || !s->n_targets) {
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu heads", c->K);
        goto done;
    }
    DM_TRY_GOTO((opt->recompute ? dm_pass_new_recompute : dm_pass_new)(&s->pass, c, opt->kind,
                                                                       opt->micro, opt->T, e));
    DM_TRY_GOTO(dm_params_new(&s->grads, &s->grads_mem, c, dm_step_scope(opt->kind), e));
    DM_TRY_GOTO(dm_accum_init(&s->accum, &s->grads, c, dm_step_scope(opt->kind), each, e));
    DM_TRY_GOTO(init_adam(s, e));
done:
    if (st)
        dm_step_release(s);
    return st;
}

void dm_step_release(struct dm_step *s)
{
    dm_adamw_release(&s->adam);
    free(s->params_list);
    dm_accum_release(&s->accum);
    dm_arena_release(&s->grads_mem);
    dm_pass_free(s->pass);
    free(s->loss);
    free(s->part);
    free(s->n_targets);
    *s = (struct dm_step){0};
}

struct batch {
    struct dm_step *s;
    const int32_t *ids;
    size_t B;
};

static size_t micro_rows(const struct batch *b, size_t i)
{
    const size_t micro = b->s->opt.micro, left = b->B - i * micro;
    return left < micro ? left : micro;
}

static void micro_gradient(void *ctx, struct dm_params *grads, size_t i)
{
    const struct batch *b = ctx;
    struct dm_step *s = b->s;
    const size_t T = s->opt.T, rows = micro_rows(b, i);
    const struct dm_loss_opt o = {.scale = 1.0f,
                                  .head_weight = s->opt.head_weight,
                                  .stem_scale = (float)s->opt.stem_scale,
                                  .n_targets = s->n_targets};
    dm_pass_train(s->pass, s->model, grads, b->ids + i * s->opt.micro * T, rows, T, &o,
                  s->part + i * s->model->cfg.K);
}

static void sum_losses(const struct batch *b)
{
    struct dm_step *s = b->s;
    const size_t K = s->model->cfg.K, first = dm_step_first_head(s->opt.kind), last = last_head(s);
    for (size_t n = 1; n <= K; n++)
        s->loss[n - 1] = n < first || n > last ? NAN : 0.0;
    for (size_t i = 0; i < n_micros(s, b->B); i++)
        for (size_t n = first; n <= last; n++)
            s->loss[n - 1] += s->part[i * K + n - 1];
}

/* Names the tensor: a parameter that is broken says more than what follows from it. */
static enum dm_status check_finite(const struct dm_step *s, struct dm_err *e)
{
    const size_t first = dm_step_first_head(s->opt.kind), last = last_head(s);
    const struct dm_adamw_slot *bad;
    char what[64], where[sizeof(bad->name) + 80] = "";
    size_t n = first, count;
    while (n <= last && isfinite(s->loss[n - 1]))
        n++;
    if (n > last && isfinite(s->norm))
        return DM_OK;
    if (n <= last)
        snprintf(what, sizeof(what), "the loss of head %zu is %g", n, s->loss[n - 1]);
    else
        snprintf(what, sizeof(what), "the norm of the gradient is %g", s->norm);
    if ((bad = dm_guard_bad_parameter(&s->adam, &count)))
        snprintf(where, sizeof(where), ", parameter %s is not finite (%zu of %zu tensors)",
                 bad->name, count, s->adam.n_slots);
    else if ((bad = dm_guard_bad_gradient(&s->adam, &count)))
        snprintf(where, sizeof(where), ", the gradient of %s is not finite (%zu of %zu tensors)",
                 bad->name, count, s->adam.n_slots);
    return dm_fail(e, DM_ENAN, "%s%s; a lower learning rate or stronger clipping may help", what,
                   where);
}

/* The top of the tree, and what every process has to know of the others' micro-batches. */
static enum dm_status join(struct dm_step *s, size_t each, struct dm_err *e)
{
    struct dm_ranks *r = s->opt.ranks;
    for (size_t i = 0; i < s->adam.n_slots; i++)
        DM_TRY(dm_ranks_sum(r, s->adam.slot[i].g, s->adam.slot[i].n, e));
    return dm_ranks_gather(r, s->part, each * s->model->cfg.K * sizeof(*s->part), e);
}

enum dm_status dm_step_gradients(struct dm_step *s, const int32_t *ids, size_t B, struct dm_err *e)
{
    struct batch b = {s, ids, B};
    const size_t K = s->model->cfg.K;
    assert(B > 0 && B <= s->opt.batch);
    memset(s->n_targets, 0, K * sizeof(*s->n_targets));
    dm_pass_targets(s->n_targets, ids, B, s->opt.T, K);
    const size_t ranks = dm_ranks_count(s->opt.ranks), each = n_micros(s, B) / ranks;
    const size_t lo = s->opt.ranks ? s->opt.ranks->rank * each : 0;
    assert(each * ranks == n_micros(s, B));
    dm_accum_run(&s->accum, lo, lo + each, micro_gradient, &b);
    DM_TRY(join(s, each, e));
    sum_losses(&b);
    s->norm = dm_adamw_grad_norm(&s->adam);
    return check_finite(s, e);
}

void dm_step_update(struct dm_step *s, double lr)
{
    dm_adamw_step(&s->adam, lr, dm_adamw_clip(s->norm, s->opt.clip));
}

void dm_step_drop(struct dm_step *s)
{
    dm_adamw_zero_grads(&s->adam);
}

enum dm_status dm_step_run(struct dm_step *s, const int32_t *ids, size_t B, double lr,
                           struct dm_err *e)
{
    enum dm_status st = dm_step_gradients(s, ids, B, e);
    if (st)
        dm_step_drop(s);
    else
        dm_step_update(s, lr);
    return st;
}
