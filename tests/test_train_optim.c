/* SPDX-License-Identifier: MIT */
/* AdamW and the learning rate's schedule. */
#include "tests/ref/nn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "train/adamw.h"
#include "train/schedule.h"

enum { N_TENSORS = 3 };
static const size_t sizes[N_TENSORS] = {35, 9001, 7};

/* Three tensors, the last one without decay, with their gradients. */
struct set {
    struct dm_tensor p[N_TENSORS], g[N_TENSORS];
};

static void make_set(struct set *s)
{
    memset(s, 0, sizeof(*s));
    for (int i = 0; i < N_TENSORS; i++) {
        snprintf(s->p[i].name, sizeof(s->p[i].name), "tensor %d", i);
        s->p[i].n = s->p[i].rows = sizes[i];
        s->p[i].decay = i < 2;
        s->g[i] = s->p[i];
        s->p[i].data = malloc(sizes[i] * sizeof(float));
        s->g[i].data = malloc(sizes[i] * sizeof(float));
        assert_non_null(s->p[i].data);
        assert_non_null(s->g[i].data);
        fill_named(s->p[i].data, sizes[i], s->p[i].name, 1.0f);
    }
}

static void free_set(struct set *s)
{
    for (int i = 0; i < N_TENSORS; i++) {
        free(s->p[i].data);
        free(s->g[i].data);
    }
}

static void fill_grads(struct set *s, int step)
{
    char name[64];
    for (int i = 0; i < N_TENSORS; i++) {
        snprintf(name, sizeof(name), "gradient %d %d", i, step);
        fill_named(s->g[i].data, sizes[i], name, 0.3f);
    }
}

static const struct dm_adamw_opt opt = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.1};

/* torch.optim.AdamW's update in double. */
struct ref {
    double *p, *m, *v;
};

static void ref_step(struct ref *r, const float *g, size_t n, bool decay, int t, double lr)
{
    for (size_t i = 0; i < n; i++) {
        const double gi = (double)g[i];
        if (decay)
            r->p[i] *= 1.0 - lr * opt.decay;
        r->m[i] = opt.beta1 * r->m[i] + (1.0 - opt.beta1) * gi;
        r->v[i] = opt.beta2 * r->v[i] + (1.0 - opt.beta2) * gi * gi;
        const double correction1 = 1.0 - pow(opt.beta1, t), correction2 = 1.0 - pow(opt.beta2, t);
        r->p[i] -= lr / correction1 * r->m[i] / (sqrt(r->v[i]) / sqrt(correction2) + opt.eps);
    }
}

static void follow_torch(void)
{
    struct set s;
    struct dm_adamw a;
    struct dm_err e;
    struct ref r[N_TENSORS];
    make_set(&s);
    assert_ok(dm_adamw_init(&a, &opt, s.p, s.g, N_TENSORS, &e), e);
    assert_int_equal(a.n_total, 35 + 9001 + 7);
    for (int i = 0; i < N_TENSORS; i++) {
        r[i].p = calloc(sizes[i], sizeof(double));
        r[i].m = calloc(sizes[i], sizeof(double));
        r[i].v = calloc(sizes[i], sizeof(double));
        for (size_t j = 0; j < sizes[i]; j++)
            r[i].p[j] = (double)s.p[i].data[j];
    }
    for (int t = 1; t <= 30; t++) {
        const double lr = 0.01 / t;
        fill_grads(&s, t);
        for (int i = 0; i < N_TENSORS; i++)
            ref_step(&r[i], s.g[i].data, sizes[i], s.p[i].decay, t, lr);
        dm_adamw_step(&a, lr, 1.0);
    }
    for (int i = 0; i < N_TENSORS; i++) {
        for (size_t j = 0; j < sizes[i]; j++)
            if (fabs((double)s.p[i].data[j] - r[i].p[j]) > 2e-6)
                fail_msg("tensor %d element %zu: got %.9g, want %.9g", i, j, (double)s.p[i].data[j],
                         r[i].p[j]);
        free(r[i].p);
        free(r[i].m);
        free(r[i].v);
    }
    dm_adamw_release(&a);
    free_set(&s);
}

static void test_adamw_follows_torch_in_double(void **state)
{
    (void)state;
    FOR_EACH_KERN
    {
        follow_torch();
    }
}

static void test_decay_only_where_it_is_due(void **state)
{
    (void)state;
    struct set s;
    struct dm_adamw a;
    struct dm_err e;
    make_set(&s);
    const float with = s.p[0].data[3], without = s.p[2].data[3];
    assert_ok(dm_adamw_init(&a, &opt, s.p, s.g, N_TENSORS, &e), e);
    dm_adamw_zero_grads(&a);
    dm_adamw_step(&a, 0.5, 1.0);
    assert_true(s.p[0].data[3] == (float)(1.0 - 0.5 * opt.decay) * with);
    assert_true(s.p[2].data[3] == without);
    dm_adamw_release(&a);
    free_set(&s);
}

static void test_clipping_scales_the_gradient_to_the_norm(void **state)
{
    (void)state;
    struct set s;
    struct dm_adamw a;
    struct dm_err e;
    double sum = 0.0;
    make_set(&s);
    fill_grads(&s, 1);
    for (int i = 0; i < N_TENSORS; i++)
        for (size_t j = 0; j < sizes[i]; j++)
            sum += (double)s.g[i].data[j] * (double)s.g[i].data[j];
    assert_ok(dm_adamw_init(&a, &opt, s.p, s.g, N_TENSORS, &e), e);
    const double norm = dm_adamw_grad_norm(&a);
    assert_true(fabs(norm - sqrt(sum)) < 1e-9 * norm);
    assert_true(fabs(dm_adamw_clip(norm, 1.0) * norm - 1.0) < 1e-6);
    assert_true(dm_adamw_clip(norm, 2.0 * norm) == 1.0);
    assert_true(dm_adamw_clip(norm, 0.0) == 1.0);
    // The factor reaches the moments.
    const float want = 0.1f * 0.25f * s.g[1].data[8];
    dm_adamw_step(&a, 0.1, 0.25);
    assert_true(fabsf(a.slot[1].m[8] - want) <= 1e-6f * fabsf(want));
    assert_true(dm_adamw_grad_norm(&a) == 0.0); // ready for the next step
    dm_adamw_release(&a);
    free_set(&s);
}

static void test_adamw_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    struct set s[3];
    for (size_t threads = 1; threads <= 3; threads++) {
        struct set *x = &s[threads - 1];
        struct dm_adamw a;
        struct dm_err e;
        dm_par_set_threads(threads);
        make_set(x);
        assert_ok(dm_adamw_init(&a, &opt, x->p, x->g, N_TENSORS, &e), e);
        for (int t = 1; t <= 3; t++) {
            fill_grads(x, t);
            dm_adamw_step(&a, 0.01, dm_adamw_clip(dm_adamw_grad_norm(&a), 1.0));
        }
        dm_adamw_release(&a);
        for (int i = 0; i < N_TENSORS; i++)
            assert_memory_equal(s[0].p[i].data, x->p[i].data, sizes[i] * sizeof(float));
    }
    dm_par_set_threads(0);
    for (int i = 0; i < 3; i++)
        free_set(&s[i]);
}

static void test_tensors_without_data_are_left_out(void **state)
{
    (void)state;
    struct set s;
    struct dm_adamw a;
    struct dm_err e;
    make_set(&s);
    struct dm_tensor p[N_TENSORS];
    memcpy(p, s.p, sizeof(p));
    p[1].data = NULL;
    assert_ok(dm_adamw_init(&a, &opt, p, s.g, N_TENSORS, &e), e);
    assert_int_equal(a.n_slots, 2);
    assert_int_equal(a.n_total, 42);
    dm_adamw_release(&a);
    free_set(&s);
}

static void test_adamw_reports_short_memory(void **state)
{
    (void)state;
    struct set s;
    struct dm_adamw a;
    struct dm_err e;
    make_set(&s);
    for (size_t n = 1; n <= 2; n++) {
        dm_alloc_fail_at(n);
        assert_int_equal(dm_adamw_init(&a, &opt, s.p, s.g, N_TENSORS, &e), DM_ENOMEM);
    }
    dm_alloc_fail_at(0);
    free_set(&s);
}

static void test_warmup_is_a_fraction_or_steps(void **state)
{
    (void)state;
    assert_int_equal(dm_schedule_part(0.01, 1000, 1000), 10);
    assert_int_equal(dm_schedule_part(0.01, 1050, 1050), 11);
    assert_int_equal(dm_schedule_part(25, 1000, 1000), 25);
    assert_int_equal(dm_schedule_part(25, 10, 10), 10);
    assert_int_equal(dm_schedule_part(0, 10, 10), 0);
}

static void test_schedule_warms_up_and_falls_to_min_lr(void **state)
{
    (void)state;
    const struct dm_schedule s = {.steps = 104, .warmup = 4, .lr = 0.8, .min_lr = 0.2};
    static const struct {
        size_t step;
        double lr;
    } want[] = {{0, 0.2},   {1, 0.4},  {3, 0.8}, {4, 0.8}, {54, 0.5}, {29, 0.5 + 0.3 * M_SQRT1_2},
                {104, 0.2}, {500, 0.2}};
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        assert_true(fabs(dm_schedule_lr(&s, want[i].step) - want[i].lr) < 1e-12);
    for (size_t i = 5; i < 104; i++)
        assert_true(dm_schedule_lr(&s, i) < dm_schedule_lr(&s, i - 1));
    const struct dm_schedule zero = {.steps = 10, .warmup = 0, .lr = 1.0, .min_lr = 0.0};
    assert_true(dm_schedule_lr(&zero, 0) == 1.0);
    assert_true(dm_schedule_lr(&zero, 9) > 0.0); // the last step still learns
    const struct dm_schedule all = {.steps = 5, .warmup = 5, .lr = 1.0, .min_lr = 0.0};
    assert_true(dm_schedule_lr(&all, 4) == 1.0);
}

static void test_other_shapes_follow_their_formulas(void **state)
{
    (void)state;
    struct dm_schedule s = {.steps = 110, .warmup = 10, .lr = 1.0, .min_lr = 0.1, .decay = 25};
    for (size_t i = 0; i < 110; i++) {
        const double x = i < 10 ? 0.0 : (double)(i - 10) / 100.0;
        const double y = i < 85 ? 0.0 : (double)(i - 85) / 25.0;
        const double warm = (double)(i + 1) / 10.0;
        s.shape = DM_LR_LINEAR;
        assert_true(fabs(dm_schedule_lr(&s, i) - (i < 10 ? warm : 1.0 - 0.9 * x)) < 1e-12);
        s.shape = DM_LR_CONSTANT;
        assert_true(fabs(dm_schedule_lr(&s, i) - (i < 10 ? warm : 1.0)) < 1e-12);
        s.shape = DM_LR_WSD;
        assert_true(fabs(dm_schedule_lr(&s, i) - (i < 10 ? warm : 1.0 - 0.9 * sqrt(y))) < 1e-12);
    }
    s.decay = 0;
    assert_true(dm_schedule_lr(&s, 109) == 1.0);
    assert_int_equal(dm_schedule_part(0.2, 100, 90), 20);
    assert_int_equal(dm_schedule_part(1000, 100, 90), 90);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw_follows_torch_in_double),
        cmocka_unit_test(test_decay_only_where_it_is_due),
        cmocka_unit_test(test_clipping_scales_the_gradient_to_the_norm),
        cmocka_unit_test(test_adamw_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_tensors_without_data_are_left_out),
        cmocka_unit_test(test_adamw_reports_short_memory),
        cmocka_unit_test(test_warmup_is_a_fraction_or_steps),
        cmocka_unit_test(test_schedule_warms_up_and_falls_to_min_lr),
        cmocka_unit_test(test_other_shapes_follow_their_formulas),
    };
    return cmocka_run_group_tests_name("train_optim", tests, NULL, NULL);
}
