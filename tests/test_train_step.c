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
#include "train/guard.h"
#include "train/step.h"

enum { T = TINY_T, B = 6 };

static enum dm_format format; /* of the models that train() makes */
static bool recompute;        /* in train() */

static struct dm_step_opt options(enum dm_pass_kind kind, size_t micro)
{
    return (struct dm_step_opt){.kind = kind,
                                .micro = micro,
                                .T = T,
                                .batch = B,
                                .clip = 1.0,
                                .adam = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.01},
                                .base_rate = 0.1,
                                .stem_scale = 0.1};
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
    struct dm_step_opt o = options(kind, micro);
    struct dm_model m;
    struct dm_step s;
    struct dm_err e;
    int32_t ids[3 * B * T];
    o.recompute = recompute;
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
    accumulation(DM_PASS_JOINT, 1, 3);
}

static void test_step_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    static const enum dm_pass_kind kinds[] = {DM_PASS_BASE, DM_PASS_HEADS, DM_PASS_JOINT};
    for (int k = 0; k < 6; k++) {
        float *one = NULL;
        double loss[3], norm, norm_one = 0.0;
        size_t n;
        format = k < 3 ? DM_FMT_F32 : DM_FMT_BF16;
        for (size_t threads = 1; threads <= 3; threads++) {
            dm_par_set_threads(threads);
            float *x = train(kinds[k % 3], 4, loss, &norm, &n);
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

static void test_recomputing_takes_less_memory_and_gives_the_same_bits(void **state)
{
    (void)state;
    static const enum dm_pass_kind kinds[] = {DM_PASS_BASE, DM_PASS_HEADS, DM_PASS_JOINT};
    const struct dm_config c = tiny_config();
    for (int k = 0; k < 3; k++) {
        double loss[2][3], norm[2];
        size_t n, bytes[2];
        float *x[2];
        for (int i = 0; i < 2; i++) {
            recompute = i == 1;
            x[i] = train(kinds[k], 4, loss[i], &norm[i], &n);
            assert_true(dm_pass_need(&bytes[i], &c, kinds[k], recompute, 4, T));
        }
        recompute = false;
        assert_memory_equal(x[0], x[1], n * sizeof(float));
        assert_memory_equal(loss[0], loss[1], sizeof(loss[0]));
        assert_true(norm[0] == norm[1]);
        assert_true(kinds[k] == DM_PASS_HEADS ? bytes[1] == bytes[0] : bytes[1] < bytes[0]);
        free(x[0]);
        free(x[1]);
    }
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

static void test_a_loss_that_is_not_finite_names_head_and_tensor(void **state)
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
    assert_non_null(strstr(e.msg, "the loss of head 3 is"));
    assert_non_null(strstr(e.msg, "parameter dynamo.heads.3.0.mlp.dense_h_to_4h.bias is not"));
    float *after = flat(&m.params, &c, DM_SCOPE_ALL, &n);
    assert_memory_equal(before, after, n * sizeof(float));
    assert_int_equal(s.adam.t, 1);
    free(before);
    free(after);
    dm_step_release(&s);
    dm_model_release(&m);
}

/* A frozen unembedding with a NaN: no parameter of ours is broken, but every gradient is. */
static void test_a_gradient_that_is_not_finite_is_named(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    const struct dm_step_opt o = options(DM_PASS_HEADS, B);
    struct dm_model m;
    struct dm_step s;
    struct dm_err e;
    int32_t ids[B * T];
    fill_ids(ids, B * T);
    tiny_model(&m, &c);
    m.params.unembed[3] = NAN;
    assert_ok(dm_step_init(&s, &m, &o, &e), e);
    assert_int_equal(dm_step_gradients(&s, ids, B, &e), DM_ENAN);
    assert_non_null(strstr(e.msg, "the gradient of dynamo.heads.3.0."));
    assert_non_null(dm_guard_bad_gradient(&s.adam, NULL));
    assert_null(dm_guard_bad_parameter(&s.adam, NULL));
    dm_step_drop(&s);
    assert_null(dm_guard_bad_gradient(&s.adam, NULL));
    dm_step_release(&s);
    dm_model_release(&m);
}

static void test_the_decay_mask_says_what_decays(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    static const enum dm_decay_mask masks[] = {DM_DECAY_MATRICES, DM_DECAY_LAYERS, DM_DECAY_ALL};
    for (int k = 0; k < 3; k++) {
        struct dm_step_opt o = options(DM_PASS_BASE, B);
        struct dm_model m;
        struct dm_step s;
        struct dm_err e;
        o.decay_mask = masks[k];
        tiny_model(&m, &c);
        assert_ok(dm_step_init(&s, &m, &o, &e), e);
        for (size_t i = 0; i < s.adam.n_slots; i++) {
            const struct dm_adamw_slot *t = &s.adam.slot[i];
            const bool embedding = strstr(t->name, "embed") != NULL;
            const bool want = masks[k] == DM_DECAY_ALL ||
                              (t->cols && (!embedding || masks[k] == DM_DECAY_MATRICES));
            if (t->decay != want)
                fail_msg("mask %d: decay of %s is %d", k, t->name, t->decay);
        }
        dm_step_release(&s);
        dm_model_release(&m);
    }
}

/* A leaf that adds its number, scaled so that the order of additions shows in the bits. */
static void add_number(void *ctx, struct dm_params *grads, size_t i)
{
    const size_t n = *(const size_t *)ctx;
    for (size_t j = 0; j < n; j++)
        grads->heads[0].up_w[j] += 1.0f / (float)(3 * i + 1 + j);
}

static void test_parts_of_the_tree_join_to_the_bits_of_the_whole(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 3, 4, 7, 8, 12, 20, 24};
    const struct dm_config c = tiny_config();
    size_t n = c.F * c.C;
    for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++)
        for (size_t ranks = 1; ranks <= 4 && counts[k] % ranks == 0; ranks *= 2) {
            struct dm_accum a;
            struct dm_arena mem[5];
            struct dm_params sum[5];
            struct dm_err e;
            const size_t part = counts[k] / ranks;
            for (size_t r = 0; r < ranks + 1; r++) {
                const size_t lo = r < ranks ? r * part : 0, hi = r < ranks ? lo + part : counts[k];
                assert_ok(dm_params_new(&sum[r], &mem[r], &c, DM_SCOPE_HEADS, &e), e);
                assert_ok(dm_accum_init(&a, &sum[r], &c, DM_SCOPE_HEADS, hi - lo, &e), e);
                assert_int_equal(a.depth, dm_accum_depth(hi - lo));
                dm_accum_run(&a, lo, hi, add_number, &n);
                dm_accum_release(&a);
            }
            for (size_t step = 1; step < ranks; step *= 2) // pairs, as machines would
                for (size_t r = 0; r < ranks; r += 2 * step)
                    for (size_t j = 0; j < n; j++)
                        sum[r].heads[0].up_w[j] += sum[r + step].heads[0].up_w[j];
            assert_memory_equal(sum[0].heads[0].up_w, sum[ranks].heads[0].up_w, n * sizeof(float));
            for (size_t j = 0; j < n; j++) {
                double want = 0.0;
                for (size_t i = 0; i < counts[k]; i++)
                    want += 1.0 / (double)(3 * i + 1 + j);
                assert_true(fabs((double)sum[0].heads[0].up_w[j] - want) < 1e-5 * want);
            }
            for (size_t r = 0; r < ranks + 1; r++)
                dm_arena_release(&mem[r]);
        }
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
        cmocka_unit_test(test_recomputing_takes_less_memory_and_gives_the_same_bits),
        cmocka_unit_test(test_only_the_trained_scope_moves),
        cmocka_unit_test(test_steps_lower_the_loss),
        cmocka_unit_test(test_a_head_of_weight_0_stays),
        cmocka_unit_test(test_a_loss_that_is_not_finite_names_head_and_tensor),
        cmocka_unit_test(test_a_gradient_that_is_not_finite_is_named),
        cmocka_unit_test(test_the_decay_mask_says_what_decays),
        cmocka_unit_test(test_parts_of_the_tree_join_to_the_bits_of_the_whole),
        cmocka_unit_test(test_step_reports_short_memory),
    };
    return cmocka_run_group_tests_name("train_step", tests, NULL, NULL);
}
