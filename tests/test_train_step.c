/* SPDX-License-Identifier: MIT */
/* One optimiser step: accumulation, threads, what is frozen, what is not finite. */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "tests/golden.h"
#include "tests/tiny.h"
#include "train/step.h"

enum { T = TINY_T, B = 6 };

static enum dm_format format; /* of the models that train() makes */

static struct dm_step_opt options(enum dm_pass_kind kind, size_t micro)
{
    return (struct dm_step_opt){.kind = kind,
                                .micro = micro,
                                .T = T,
                                .clip = 1.0,
                                .adam = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.01}};
}

static void fill_ids(int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * i + 7 * i + 3) % TINY_VP);
}

/* Copies the tensors of a scope into one new array. */
static float *flat(const struct dm_params *p, const struct dm_config *c, enum dm_scope scope,
                   size_t *n)
{
    const size_t count = dm_params_list(NULL, c, scope, NULL);
    struct dm_tensor *t = malloc(count * sizeof(*t));
    float *out = tiny_floats(dm_params_count(c, scope));
    assert_non_null(t);
    *n = 0;
    dm_params_list(p, c, scope, t);
    for (size_t i = 0; i < count; i++) {
        memcpy(out + *n, t[i].data, t[i].n * sizeof(float));
        *n += t[i].n;
    }
    assert_int_equal(*n, dm_params_count(c, scope));
    free(t);
    return out;
}

/* Three steps from the same weights; the parameters afterwards, and loss and norm of the last. */
static float *train(enum dm_pass_kind kind, size_t micro, double *loss, double *norm, size_t *n)
{
    const struct dm_config c = tiny_config();
    const struct dm_step_opt o = options(kind, micro);
    struct dm_model m;
    struct dm_step s;
    struct dm_err e;
    int32_t ids[3 * B * T];
    fill_ids(ids, 3 * B * T);
    tiny_model(&m, &c);
    dm_model_set_format(&m, format);
    assert_ok(dm_step_init(&s, &m, &o, &e), e);
    for (size_t i = 0; i < 3; i++)
        assert_ok(dm_step_run(&s, ids + i * B * T, B, 1e-3, &e), e);
    assert_int_equal(s.adam.t, 3);
    memcpy(loss, s.loss, c.K * sizeof(*loss));
    *norm = s.norm;
    float *out = flat(&m.params, &c, DM_SCOPE_ALL, n);
    dm_step_release(&s);
    dm_model_release(&m);
    return out;
}

/* Micro-batches of any size, even one that does not divide B, are the whole batch. */
static void accumulation(enum dm_pass_kind kind, size_t first, size_t last)
{
    double loss[2][3], norm[2];
    size_t n;
    float *whole = train(kind, B, loss[0], &norm[0], &n);
    static const size_t micro[] = {1, 2, 4};
    for (int i = 0; i < 3; i++) {
        float *parts = train(kind, micro[i], loss[1], &norm[1], &n);
        for (size_t h = first; h <= last; h++)
            assert_true(fabs(loss[0][h - 1] - loss[1][h - 1]) < 2e-6 * loss[0][h - 1]);
        assert_true(fabs(norm[0] - norm[1]) < 1e-4 * norm[0]);
        // A step moves a weight by about lr; rounding of a tiny gradient can turn it.
        double off = 0.0;
        for (size_t j = 0; j < n; j++)
            off += fabs((double)parts[j] - (double)whole[j]);
        assert_true(off / (double)n < 1e-6);
        free(parts);
    }
    free(whole);
}

static void test_micro_batches_equal_the_whole_batch(void **state)
{
    (void)state;
    accumulation(DM_PASS_BASE, 1, 1);
    accumulation(DM_PASS_HEADS, 2, 3);
}

static void test_step_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    static const enum dm_pass_kind kinds[] = {DM_PASS_BASE, DM_PASS_HEADS};
    for (int k = 0; k < 4; k++) {
        float *one = NULL;
        double loss[3], norm, norm_one = 0.0;
        size_t n;
        format = k < 2 ? DM_FMT_F32 : DM_FMT_BF16;
        for (size_t threads = 1; threads <= 3; threads++) {
            dm_par_set_threads(threads);
            float *x = train(kinds[k % 2], 4, loss, &norm, &n);
            if (one) {
                assert_memory_equal(one, x, n * sizeof(float));
                assert_true(norm == norm_one);
                free(x);
            } else {
                one = x;
                norm_one = norm;
            }
        }
        free(one);
    }
    dm_par_set_threads(0);
    format = DM_FMT_F32;
}

static void test_only_the_trained_scope_moves(void **state)
{
    (void)state;
    static const struct {
        enum dm_pass_kind kind;
        enum dm_scope frozen, trained;
    } cases[] = {{DM_PASS_HEADS, DM_SCOPE_BASE, DM_SCOPE_HEADS},
                 {DM_PASS_BASE, DM_SCOPE_HEADS, DM_SCOPE_BASE}};
    const struct dm_config c = tiny_config();
    int32_t ids[B * T];
    fill_ids(ids, B * T);
    for (int k = 0; k < 2; k++) {
        const struct dm_step_opt o = options(cases[k].kind, 3);
        struct dm_model m;
        struct dm_step s;
        struct dm_err e;
        size_t n, n_trained;
        tiny_model(&m, &c);
        float *frozen = flat(&m.params, &c, cases[k].frozen, &n);
        float *before = flat(&m.params, &c, cases[k].trained, &n_trained);
        assert_ok(dm_step_init(&s, &m, &o, &e), e);
        assert_int_equal(s.adam.n_total, n_trained);
        assert_ok(dm_step_run(&s, ids, B, 1e-3, &e), e);
        float *after = flat(&m.params, &c, cases[k].frozen, &n);
        float *moved = flat(&m.params, &c, cases[k].trained, &n_trained);
        assert_memory_equal(frozen, after, n * sizeof(float));
        size_t same = 0;
        for (size_t i = 0; i < n_trained; i++)
            same += before[i] == moved[i];
        assert_true(same < n_trained / 100);
        for (size_t h = 1; h <= 3; h++)
            assert_true(isnan(s.loss[h - 1]) == ((h > 1) != (cases[k].kind == DM_PASS_HEADS)));
        free(frozen);
        free(before);
        free(after);
        free(moved);
        dm_step_release(&s);
        dm_model_release(&m);
    }
}

static void test_steps_lower_the_loss(void **state)
{
    (void)state;
    static const enum dm_pass_kind kinds[] = {DM_PASS_BASE, DM_PASS_HEADS};
    const struct dm_config c = tiny_config();
    int32_t ids[B * T];
    fill_ids(ids, B * T);
    for (int k = 0; k < 2; k++) {
        const struct dm_step_opt o = options(kinds[k], B);
        struct dm_model m;
        struct dm_step s;
        struct dm_err e;
        tiny_model(&m, &c);
        assert_ok(dm_step_init(&s, &m, &o, &e), e);
        assert_ok(dm_step_run(&s, ids, B, 3e-3, &e), e);
        const double first = s.loss[k];
        for (int i = 0; i < 60; i++)
            assert_ok(dm_step_run(&s, ids, B, 3e-3, &e), e);
        assert_true(s.loss[k] < 0.3 * first);
        dm_step_release(&s);
        dm_model_release(&m);
    }
}

static void test_a_head_of_weight_0_stays(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    const float weight[3] = {0.0f, 1.0f, 0.0f};
    struct dm_step_opt o = options(DM_PASS_HEADS, B);
    struct dm_model m;
    struct dm_step s;
    struct dm_err e;
    int32_t ids[B * T];
    fill_ids(ids, B * T);
    o.head_weight = weight;
    o.adam.decay = 0.0;
    tiny_model(&m, &c);
    const float head2 = m.params.heads[0].up_w[5], head3 = m.params.heads[1].up_w[5];
    assert_ok(dm_step_init(&s, &m, &o, &e), e);
    assert_ok(dm_step_run(&s, ids, B, 1e-3, &e), e);
    assert_true(m.params.heads[0].up_w[5] != head2);
    assert_true(m.params.heads[1].up_w[5] == head3);
    assert_true(isfinite(s.loss[2]) && s.loss[2] > 0.0);
    dm_step_release(&s);
    dm_model_release(&m);
}

static void test_a_loss_that_is_not_finite_names_step_and_head(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    const struct dm_step_opt o = options(DM_PASS_HEADS, B);
    struct dm_model m;
    struct dm_step s;
    struct dm_err e;
    int32_t ids[B * T];
    size_t n;
    fill_ids(ids, B * T);
    tiny_model(&m, &c);
    assert_ok(dm_step_init(&s, &m, &o, &e), e);
    assert_ok(dm_step_run(&s, ids, B, 1e-3, &e), e);
    m.params.heads[1].up_b[0] = NAN; // head 3
    float *before = flat(&m.params, &c, DM_SCOPE_ALL, &n);
    assert_int_equal(dm_step_run(&s, ids, B, 1e-3, &e), DM_ENAN);
    assert_non_null(strstr(e.msg, "step 2"));
    assert_non_null(strstr(e.msg, "head 3"));
    float *after = flat(&m.params, &c, DM_SCOPE_ALL, &n);
    assert_memory_equal(before, after, n * sizeof(float));
    assert_int_equal(s.adam.t, 1);
    free(before);
    free(after);
    dm_step_release(&s);
    dm_model_release(&m);
}

static void test_step_reports_short_memory(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    const struct dm_step_opt o = options(DM_PASS_HEADS, 2);
    struct dm_model m;
    struct dm_step s;
    struct dm_err e;
    size_t n = 1;
    tiny_model(&m, &c);
    for (;; n++) {
        dm_alloc_fail_at(n);
        enum dm_status st = dm_step_init(&s, &m, &o, &e);
        if (!st)
            break;
        assert_int_equal(st, DM_ENOMEM);
    }
    dm_alloc_fail_at(0);
    assert_true(n > 5);
    dm_step_release(&s);
    dm_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_micro_batches_equal_the_whole_batch),
        cmocka_unit_test(test_step_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_only_the_trained_scope_moves),
        cmocka_unit_test(test_steps_lower_the_loss),
        cmocka_unit_test(test_a_head_of_weight_0_stays),
        cmocka_unit_test(test_a_loss_that_is_not_finite_names_step_and_head),
        cmocka_unit_test(test_step_reports_short_memory),
    };
    return cmocka_run_group_tests_name("train_step", tests, NULL, NULL);
}
