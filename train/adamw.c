/* SPDX-License-Identifier: MIT */
#include "train/adamw.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/kern.h"

/* Boundaries between threads: 4096 floats are a multiple of a page, so no cache line is shared. */
#define GRAIN 4096u

static void bind_moments(struct dm_adamw *a, struct dm_arena *mem)
{
    for (size_t i = 0; i < a->n_slots; i++)
        a->slot[i].m = dm_arena_floats(mem, a->slot[i].n, 1);
    for (size_t i = 0; i < a->n_slots; i++)
        a->slot[i].v = dm_arena_floats(mem, a->slot[i].n, 1);
}

enum dm_status dm_adamw_init(struct dm_adamw *a, const struct dm_adamw_opt *opt,
                             const struct dm_tensor *params, const struct dm_tensor *grads,
                             size_t n, struct dm_err *e)
{
    struct dm_arena measure = {0};
    *a = (struct dm_adamw){.opt = *opt};
    a->slot = dm_alloc(n, sizeof(*a->slot));
    if (!a->slot)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        assert(params[i].n == grads[i].n && !strcmp(params[i].name, grads[i].name));
        if (!params[i].data || !grads[i].data)
            continue;
        struct dm_adamw_slot *s = &a->slot[a->n_slots++];
        *s = (struct dm_adamw_slot){.p = params[i].data,
                                    .g = grads[i].data,
                                    .n = params[i].n,
                                    .decay = params[i].decay,
                                    .rate = 1.0,
                                    .part = params[i].part,
                                    .rows = params[i].rows,
                                    .cols = params[i].cols};
        memcpy(s->name, params[i].name, sizeof(s->name));
        a->n_total += s->n;
    }
    bind_moments(a, &measure);
    enum dm_status st = dm_arena_init(&a->mem, measure.used, e);
    if (st) {
        dm_adamw_release(a);
        return st;
    }
    dm_arena_huge(&a->mem);
    bind_moments(a, &a->mem);
    return DM_OK;
}

void dm_adamw_release(struct dm_adamw *a)
{
    free(a->slot);
    dm_arena_release(&a->mem);
    *a = (struct dm_adamw){0};
}

void dm_adamw_zero_grads(struct dm_adamw *a)
{
    for (size_t i = 0; i < a->n_slots; i++)
        memset(a->slot[i].g, 0, a->slot[i].n * sizeof(float));
}

double dm_adamw_grad_norm(const struct dm_adamw *a)
{
    double sum = 0.0;
    for (size_t i = 0; i < a->n_slots; i++)
        sum += dm_par_sum_squares(a->slot[i].g, a->slot[i].n);
    return sqrt(sum);
}

double dm_adamw_clip(double norm, double max_norm)
{
    if (max_norm <= 0.0)
        return 1.0;
    const double factor = max_norm / (norm + 1e-6);
    return factor < 1.0 ? factor : 1.0;
}

struct update {
    const struct dm_adamw *a;
    struct dm_adamw_rates rates; /* but what depends on the slot */
    double lr, correction1;
};

static void update_range(const struct update *u, const struct dm_adamw_slot *s, size_t begin,
                         size_t end)
{
    struct dm_adamw_rates r = u->rates;
    const double lr = u->lr * s->rate;
    r.keep = s->decay ? (float)(1.0 - lr * u->a->opt.decay) : 1.0f;
    r.rate = (float)(lr / u->correction1);
    dm_kern()->train->adamw(s->p + begin, s->m + begin, s->v + begin, s->g + begin, &r,
                            end - begin);
}

/* All tensors laid end to end: one parallel region per step, however many tensors there are. */
static void update_part(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct update *u = ctx;
    (void)part;
    size_t at = 0;
    for (size_t i = 0; i < u->a->n_slots && at < end; at += u->a->slot[i].n, i++) {
        const struct dm_adamw_slot *s = &u->a->slot[i];
        const size_t from = begin > at ? begin - at : 0, to = end - at < s->n ? end - at : s->n;
        if (from < to)
            update_range(u, s, from, to);
    }
}

void dm_adamw_step(struct dm_adamw *a, double lr, double grad_scale)
{
    const struct dm_adamw_opt *o = &a->opt;
    a->t++;
    const struct update u = {
        .a = a,
        .lr = lr,
        .correction1 = 1.0 - pow(o->beta1, (double)a->t),
        .rates = {.scale = (float)grad_scale,
                  .beta1 = (float)o->beta1,
                  .beta2 = (float)o->beta2,
                  .rest1 = (float)(1.0 - o->beta1), // rounded once, as PyTorch does
                  .rest2 = (float)(1.0 - o->beta2),
                  .inv_root2 = (float)(1.0 / sqrt(1.0 - pow(o->beta2, (double)a->t))),
                  .eps = (float)o->eps}};
    dm_par_for(a->n_total, GRAIN, update_part, (void *)&u);
}
