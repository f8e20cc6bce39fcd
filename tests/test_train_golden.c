/* SPDX-License-Identifier: MIT */
/* Twenty optimiser steps against PyTorch: losses, gradient norms and parameters, for pretraining,
 * for heads on a frozen base and for both together (tests/golden/README.md). */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden.h"
#include "train/schedule.h"
#include "train/step.h"

enum { STEPS = 20, B = 4, T = 16 };

/* Runs the golden steps with micro-batches of `micro`; loss, norm and parameters must agree. */
struct golden {
    struct dm_h5 *f;
    struct dm_config c;
    struct dm_model m;
    struct dm_step s;
    int32_t *ids;
    double *lr, *norm, *loss;
};

/* The weights that training starts from. */
static void start_model(struct dm_model *m, const struct dm_config *c)
{
    struct dm_err e;
    assert_ok(dm_model_init(m, c, &e), e);
    golden_fill(&m->params, c, DM_SCOPE_BASE);
    dm_params_init_copy(&m->params, c);
}

static void open_golden(struct golden *g, const char *file, enum dm_pass_kind kind, size_t micro)
{
    const struct dm_step_opt o = {.kind = kind,
                                  .micro = micro,
                                  .T = T,
                                  .batch = B,
                                  .clip = 1.0,
                                  .adam = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.01},
                                  .base_rate = 0.1,
                                  .stem_scale = 0.1};
    struct dm_err e;
    size_t n;
    g->f = golden_open(file, &g->c);
    g->ids = golden_read(g->f, "ids", DM_H5_I32, &n);
    assert_int_equal(n, STEPS * B * T);
    g->lr = golden_read(g->f, "lr", DM_H5_F64, &n);
    assert_int_equal(n, STEPS);
    g->norm = golden_read(g->f, "norm", DM_H5_F64, NULL);
    g->loss = golden_read(g->f, "loss", DM_H5_F64, NULL);
    g->c.K = kind == DM_PASS_BASE ? 1 : 3;
    g->c.D = 1;
    start_model(&g->m, &g->c);
    if (kind == DM_PASS_HEADS)
        assert_ok(dm_model_pack(&g->m, DM_SCOPE_BASE, &e), e); // as dynamo train does
    assert_ok(dm_step_init(&g->s, &g->m, &o, &e), e);
}

static void close_golden(struct golden *g)
{
    free(g->ids);
    free(g->lr);
    free(g->norm);
    free(g->loss);
    dm_step_release(&g->s);
    dm_model_release(&g->m);
    dm_h5_close(g->f);
}

static void near(double got, double want, double rtol, const char *what, int step)
{
    if (!(fabs(got - want) <= rtol * fabs(want)))
        fail_msg("%s of step %d: got %.12g, want %.12g", what, step, got, want);
}

static bool is_key_bias(const struct dm_tensor *t, size_t i, size_t HS)
{
    return strstr(t->name, "query_key_value.bias") && i % (3 * HS) / HS == 1;
}

/* Root mean square distance, in units of the distance that the weights moved. A key bias has a
 * gradient of rounding noise, and Adam divides by its size: it is only held to the learning rates'
 * sum. */
static void compare_tensor(const struct golden *g, const struct dm_tensor *t, const float *start,
                           double lr_sum)
{
    char name[128];
    size_t n, used = 0;
    double off = 0.0, moved = 0.0;
    snprintf(name, sizeof(name), "param/%s", t->name);
    float *want = golden_read(g->f, name, DM_H5_F32, &n);
    assert_int_equal(n, t->n);
    for (size_t i = 0; i < n; i++) {
        const double d = (double)t->data[i] - (double)want[i];
        if (is_key_bias(t, i, g->c.HS)) {
            if (fabs(d) > 2.0 * lr_sum)
                fail_msg("%s[%zu] is off by %g", name, i, d);
            continue;
        }
        off += d * d;
        moved += ((double)want[i] - (double)start[i]) * ((double)want[i] - (double)start[i]);
        used++;
    }
    assert_true(used > 0 && moved > 0.0);
    if (sqrt(off / moved) > 2e-4)
        fail_msg("%s: off by %.3g of the distance it moved", t->name, sqrt(off / moved));
    free(want);
}

static void compare_params(struct golden *g, enum dm_pass_kind kind, double lr_sum)
{
    struct dm_model start;
    start_model(&start, &g->c);
    struct dm_tensor *from = malloc(g->s.n_tensors * sizeof(*from));
    assert_non_null(from);
    dm_params_list(&start.params, &g->c, dm_step_scope(kind), from);
    for (size_t i = 0; i < g->s.n_tensors; i++)
        compare_tensor(g, &g->s.params_list[i], from[i].data, lr_sum);
    free(from);
    dm_model_release(&start);
}

static void follow(const char *file, enum dm_pass_kind kind, size_t micro)
{
    struct golden g;
    struct dm_err e;
    double lr_sum = 0.0;
    const struct dm_schedule schedule = {.steps = STEPS, .warmup = 4, .lr = 3e-3};
    open_golden(&g, file, kind, micro);
    const size_t first = dm_step_first_head(kind), heads = g.c.K - first + 1;
    for (int i = 0; i < STEPS; i++) {
        const double lr = dm_schedule_lr(&schedule, (size_t)i);
        near(lr, g.lr[i], 1e-12, "the learning rate", i + 1);
        assert_ok(dm_step_run(&g.s, g.ids + i * B * T, B, lr, &e), e);
        near(g.s.norm, g.norm[i], 1e-4, "the gradient's norm", i + 1);
        for (size_t h = 0; h < heads; h++)
            near(g.s.loss[first - 1 + h], g.loss[(size_t)i * heads + h], 5e-6, "the loss", i + 1);
        lr_sum += g.lr[i];
    }
    compare_params(&g, kind, lr_sum);
    close_golden(&g);
}

static void test_twenty_steps_of_pretraining_match_pytorch(void **state)
{
    (void)state;
    follow("train_base.h5", DM_PASS_BASE, B);
}

static void test_twenty_steps_of_heads_match_pytorch(void **state)
{
    (void)state;
    follow("train_heads.h5", DM_PASS_HEADS, B);
}

static void test_twenty_joint_steps_match_pytorch(void **state)
{
    (void)state;
    follow("train_joint.h5", DM_PASS_JOINT, B);
}

static void test_accumulated_steps_match_pytorch(void **state)
{
    (void)state;
    follow("train_base.h5", DM_PASS_BASE, 1);
    follow("train_heads.h5", DM_PASS_HEADS, 3);
    follow("train_joint.h5", DM_PASS_JOINT, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twenty_steps_of_pretraining_match_pytorch),
        cmocka_unit_test(test_twenty_steps_of_heads_match_pytorch),
        cmocka_unit_test(test_twenty_joint_steps_match_pytorch),
        cmocka_unit_test(test_accumulated_steps_match_pytorch),
    };
    return cmocka_run_group_tests_name("train_golden", tests, NULL, NULL);
}
