/* SPDX-License-Identifier: MIT */
/* Tokens that are read and are no targets: prompts of instructions. */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tiny.h"
#include "train/ppl.h"
#include "train/step.h"

enum { T = TINY_T, B = 2, K = 3, LIST = 160 };

static const enum dm_pass_kind kinds[] = {DM_PASS_BASE, DM_PASS_HEADS, DM_PASS_JOINT};
static const enum dm_scope scopes[] = {DM_SCOPE_BASE, DM_SCOPE_HEADS, DM_SCOPE_ALL};

/* tiny_ids with two responses in the first sequence and the end of one in the second. */
static void mark(int32_t ids[B * T])
{
    for (int i = 0; i < B * T; i++) {
        const int t = i % T;
        const bool target = i < T ? (t >= 4 && t < 8) || t >= 11 : t < 3;
        ids[i] = target ? tiny_ids[i] : ~tiny_ids[i];
    }
}

/* Mean of -log p over head n's targets, in double from the scores of unmarked ids. */
static double naive_loss(const struct dm_model *m, const int32_t *ids, size_t n)
{
    struct dm_err e;
    struct dm_pass *p;
    float logp[K * B * T];
    double sum = 0.0;
    size_t count = 0;
    assert_ok(dm_pass_new(&p, &m->cfg, DM_PASS_SCORE, B, T, &e), e);
    dm_pass_score(p, m, tiny_ids, B, T, K, logp, NULL);
    dm_pass_free(p);
    for (size_t b = 0; b < B; b++)
        for (size_t t = 0; t + n < T; t++)
            if (ids[b * T + t + n] >= 0) {
                sum -= (double)logp[((n - 1) * B + b) * T + t];
                count++;
            }
    return sum / (double)count;
}

/* The loss of one micro-batch and its gradients, as a list; release mem. */
static size_t gradients(const struct dm_model *m, int k, const int32_t *ids,
                        const struct dm_loss_opt *o, double loss[K], struct dm_arena *mem,
                        struct dm_tensor list[LIST])
{
    struct dm_err e;
    struct dm_pass *p;
    struct dm_params g;
    assert_ok(dm_params_new(&g, mem, &m->cfg, scopes[k], &e), e);
    assert_ok(dm_pass_new(&p, &m->cfg, kinds[k], B, T, &e), e);
    dm_pass_train(p, m, &g, ids, B, T, o, loss);
    dm_pass_free(p);
    const size_t n = dm_params_list(&g, &m->cfg, scopes[k], list);
    assert_true(n <= LIST);
    return n;
}

static const struct dm_loss_opt whole = {.scale = 1.0f, .stem_scale = 1.0f};

static void test_the_loss_is_the_mean_over_the_responses(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    struct dm_model m;
    int32_t ids[B * T];
    size_t n_targets[K] = {0};
    tiny_model(&m, &c);
    mark(ids);
    dm_pass_targets(n_targets, ids, B, T, K);
    assert_int_equal(n_targets[0], 8); // of 4 + 2 + 3 the very first token has nothing before it
    assert_int_equal(n_targets[1], 7);
    assert_int_equal(n_targets[2], 6);
    for (int k = 0; k < 3; k++) {
        struct dm_tensor list[LIST];
        struct dm_arena mem;
        double loss[K];
        gradients(&m, k, ids, &whole, loss, &mem, list);
        for (size_t n = 1; n <= K; n++)
            if (kinds[k] == DM_PASS_BASE ? n > 1 : n < dm_step_first_head(kinds[k]))
                assert_true(isnan(loss[n - 1]));
            else
                assert_true(fabs(loss[n - 1] - naive_loss(&m, ids, n)) < 1e-6);
        dm_arena_release(&mem);
    }
    dm_model_release(&m);
}

static void test_without_targets_loss_and_gradients_are_0(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    struct dm_model m;
    int32_t ids[B * T];
    tiny_model(&m, &c);
    for (int i = 0; i < B * T; i++)
        ids[i] = ~tiny_ids[i];
    for (int k = 0; k < 3; k++) {
        struct dm_tensor list[LIST];
        struct dm_arena mem;
        double loss[K];
        const size_t n = gradients(&m, k, ids, &whole, loss, &mem, list);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < list[i].n; j++)
                assert_true(list[i].data[j] == 0.0f);
        for (size_t h = 0; h < K; h++)
            assert_true(isnan(loss[h]) || loss[h] == 0.0);
        dm_arena_release(&mem);
    }
    dm_model_release(&m);
}

struct probe {
    const struct dm_model *m;
    const int32_t *ids;
};

static double summed_loss(void *ctx)
{
    const struct probe *p = ctx;
    double sum = 0.0;
    for (size_t n = 1; n <= K; n++)
        sum += naive_loss(p->m, p->ids, n);
    return sum;
}

static void test_gradients_are_those_of_the_responses_loss(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    struct dm_model m;
    struct dm_tensor g[LIST], w[LIST];
    struct dm_arena mem;
    int32_t ids[B * T];
    double loss[K];
    tiny_model(&m, &c);
    mark(ids);
    struct probe p = {&m, ids};
    const size_t n = gradients(&m, 2, ids, &whole, loss, &mem, g);
    dm_params_list(&m.params, &c, DM_SCOPE_ALL, w);
    for (size_t i = 0; i < n; i++)
        assert_grad(summed_loss, &p, w[i].data, g[i].data, w[i].n, 0.02);
    dm_arena_release(&mem);
    dm_model_release(&m);
}

/* Micro-batches have different numbers of targets, one of them none. */
static void test_micro_batches_equal_the_whole_batch(void **state)
{
    (void)state;
    enum { ROWS = 6 };
    const struct dm_config c = tiny_config();
    static const size_t micro[] = {ROWS, 1, 2, 4};
    int32_t ids[ROWS * T];
    double loss[4][K], norm[4];
    for (int i = 0; i < ROWS * T; i++)
        ids[i] = i / T == 3 || i % T < 2 * (i / T) ? ~tiny_ids[i % (B * T)] : tiny_ids[i % (B * T)];
    for (int i = 0; i < 4; i++) {
        const struct dm_step_opt o = {.kind = DM_PASS_JOINT,
                                      .micro = micro[i],
                                      .T = T,
                                      .batch = ROWS,
                                      .stem_scale = 0.1,
                                      .base_rate = 0.01,
                                      .adam = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
        struct dm_model m;
        struct dm_step s;
        struct dm_err e;
        tiny_model(&m, &c);
        assert_ok(dm_step_init(&s, &m, &o, &e), e);
        assert_ok(dm_step_gradients(&s, ids, ROWS, &e), e);
        memcpy(loss[i], s.loss, sizeof(loss[i]));
        norm[i] = s.norm;
        dm_step_release(&s);
        dm_model_release(&m);
        for (int n = 0; n < K; n++)
            assert_true(fabs(loss[i][n] - loss[0][n]) < 2e-6 * loss[0][n]);
        assert_true(fabs(norm[i] - norm[0]) < 1e-5 * norm[0]);
    }
}

/* Two heads, one sequence of five; PPL_1:2 needs both targets. */
static void test_perplexities_are_over_the_responses(void **state)
{
    (void)state;
    static const int32_t ids[5] = {~7, 1, ~7, 2, 3};
    static const float logp[10] = {-1, 0, -2, -4, 0, 0, -8, -16, 0, 0};
    struct dm_ppl p = {0};
    dm_ppl_add(&p, logp, ids, 2, 1, 5);
    assert_int_equal(p.n[0], 3);
    assert_int_equal(p.n[1], 2);
    assert_int_equal(p.n_joint[0], 3);
    assert_int_equal(p.n_joint[1], 1);
    assert_true(p.sum[0] == 7.0 && p.sum[1] == 24.0);
    assert_true(p.sum_joint[1] == 9.0); // half of 2 + 16
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_loss_is_the_mean_over_the_responses),
        cmocka_unit_test(test_without_targets_loss_and_gradients_are_0),
        cmocka_unit_test(test_gradients_are_those_of_the_responses_loss),
        cmocka_unit_test(test_micro_batches_equal_the_whole_batch),
        cmocka_unit_test(test_perplexities_are_over_the_responses),
    };
    return cmocka_run_group_tests_name("targets", tests, NULL, NULL);
}
