/* SPDX-License-Identifier: MIT */
#include "train/step.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum dm_scope dm_step_scope(enum dm_pass_kind kind)
{
    return kind == DM_PASS_HEADS ? DM_SCOPE_HEADS : DM_SCOPE_BASE;
}

size_t dm_step_first_head(enum dm_pass_kind kind)
{
    return kind == DM_PASS_HEADS ? 2 : 1;
}

static size_t last_head(const struct dm_step *s)
{
    return s->opt.kind == DM_PASS_HEADS ? s->model->cfg.K : 1;
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
    st = dm_adamw_init(&s->adam, &s->opt.adam, s->params_list, grads, n, e);
    free(grads);
    return st;
}

enum dm_status dm_step_init(struct dm_step *s, struct dm_model *m, const struct dm_step_opt *opt,
                            struct dm_err *e)
{
    enum dm_status st = DM_OK;
    const struct dm_config *c = &m->cfg;
    *s = (struct dm_step){.opt = *opt, .model = m};
    s->loss = dm_alloc(c->K, sizeof(double));
    s->part = dm_alloc(c->K, sizeof(double));
    if (!s->loss || !s->part) {
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu heads", c->K);
        goto done;
    }
    DM_TRY_GOTO(dm_pass_new(&s->pass, c, opt->kind, opt->micro, opt->T, e));
    DM_TRY_GOTO(dm_params_new(&s->grads, &s->grads_mem, c, dm_step_scope(opt->kind), e));
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
    dm_arena_release(&s->grads_mem);
    dm_pass_free(s->pass);
    free(s->loss);
    free(s->part);
    *s = (struct dm_step){0};
}

/* The gradients of the batch, added to zeros, and the losses. */
static enum dm_status gradients(struct dm_step *s, const int32_t *ids, size_t B, struct dm_err *e)
{
    const size_t T = s->opt.T, step = (size_t)s->adam.t + 1, K = s->model->cfg.K;
    const size_t first = dm_step_first_head(s->opt.kind), last = last_head(s);
    for (size_t n = 1; n <= K; n++)
        s->loss[n - 1] = n < first || n > last ? NAN : 0.0;
    for (size_t b = 0; b < B; b += s->opt.micro) {
        const size_t rows = B - b < s->opt.micro ? B - b : s->opt.micro;
        const double share = (double)rows / (double)B;
        dm_pass_train(s->pass, s->model, &s->grads, ids + b * T, rows, T, (float)share,
                      s->opt.head_weight, s->part);
        for (size_t n = first; n <= last; n++) {
            s->loss[n - 1] += share * s->part[n - 1];
            if (!isfinite(s->part[n - 1]))
                return dm_fail(e, DM_ENAN,
                               "step %zu: the loss of head %zu is %g; a lower learning rate or "
                               "stronger clipping may help",
                               step, n, s->part[n - 1]);
        }
    }
    s->norm = dm_adamw_grad_norm(&s->adam);
    if (!isfinite(s->norm))
        return dm_fail(e, DM_ENAN, "step %zu: the norm of the gradient is %g", step, s->norm);
    return DM_OK;
}

enum dm_status dm_step_run(struct dm_step *s, const int32_t *ids, size_t B, double lr,
                           struct dm_err *e)
{
    assert(B > 0);
    enum dm_status st = gradients(s, ids, B, e);
    if (st) {
        dm_adamw_zero_grads(&s->adam);
        return st;
    }
    dm_adamw_step(&s->adam, lr, dm_adamw_clip(s->norm, s->opt.clip));
    return DM_OK;
}
