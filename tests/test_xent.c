/* SPDX-License-Identifier: MIT */
#include "src/nn/xent.h"

#include <math.h>
#include <string.h>

#include "src/base/par.h"
#include "tests/ref/nn.h"

/* VP is longer than a block of the implementation and no multiple of anything. */
enum { N = 5, VP = 1303 };

static const int32_t target[N] = {0, 1302, -1, 1024, 77};
static float x[N * VP];
static double xd[N * VP];

static void fill(float scale)
{
    fill_both(x, xd, N * VP, "x", scale);
}

static void test_logp_matches_reference(void **state)
{
    const float scales[] = {0.1f, 5.0f, 80.0f};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fill(scales[i]);
        FOR_EACH_KERN
        {
            float logp[N];
            dm_xent_forward(logp, NULL, x, target, N, VP);
            for (size_t n = 0; n < N; n++) {
                if (target[n] < 0)
                    continue;
                const double want = ref_logp(xd + n * VP, (size_t)target[n], VP);
                assert_close_ref(&logp[n], &want, 1, 1e-6, 1.0);
            }
        }
    }
}

static void test_probabilities_sum_to_1(void **state)
{
    enum { V = 101 };
    float row[V], logp;
    (void)state;
    fill_named(row, V, "row", 4.0f);
    FOR_EACH_KERN
    {
        double sum = 0.0;
        for (int32_t i = 0; i < V; i++) {
            dm_xent_forward(&logp, NULL, row, &i, 1, V);
            sum += exp((double)logp);
        }
        assert_true(fabs(sum - 1.0) < 1e-6);
    }
}

static void test_large_logits_do_not_overflow(void **state)
{
    float row[4] = {30000.0f, -30000.0f, 29999.0f, 0.0f}, logp;
    const int32_t t = 2;
    const double want = -1.0 - log1p(exp(-1.0));
    (void)state;
    FOR_EACH_KERN
    {
        dm_xent_forward(&logp, NULL, row, &t, 1, 4);
        assert_close_ref(&logp, &want, 1, 1e-6, 1.0);
    }
}

static void test_a_nan_logit_makes_logp_nan(void **state)
{
    (void)state;
    for (size_t at = 0; at < 33; at++) {
        FOR_EACH_KERN
        {
            float row[33] = {0}, logp;
            const int32_t t = 5;
            row[at] = NAN;
            dm_xent_forward(&logp, NULL, row, &t, 1, 33);
            assert_true(isnan(logp));
            dm_xent_backward(&logp, row, DM_F32, &t, 1.0f, 1, 33);
            assert_true(isnan(logp));
        }
    }
}

static void test_rank_counts_larger_logits_and_ties_to_the_smaller_id(void **state)
{
    const float row[7] = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f, 2.0f, 2.0f};
    const int32_t want[7] = {5, 0, 2, 1, 6, 3, 4};
    (void)state;
    for (int32_t i = 0; i < 7; i++) {
        float logp;
        int32_t rank = -7;
        dm_xent_forward(&logp, &rank, row, &i, 1, 7);
        assert_int_equal(rank, want[i]);
    }
}

static void test_negative_targets_are_skipped(void **state)
{
    float logp[N];
    int32_t rank[N];
    (void)state;
    fill(3.0f);
    dm_xent_forward(logp, rank, x, target, N, VP);
    assert_true(logp[2] == 0.0f);
    assert_int_equal(rank[2], -1);
    for (size_t n = 0; n < N; n++)
        assert_true(n == 2 || (logp[n] < 0.0f && rank[n] >= 0));
    logp[2] = 1.0f;
    dm_xent_backward(logp, x, DM_F32, target, 1.0f, N, VP);
    assert_true(logp[2] == 0.0f);
    for (size_t i = 0; i < VP; i++)
        assert_true(x[2 * VP + i] == 0.0f);
}

enum { GN = 3, GV = 17 };
static const int32_t g_target[GN] = {16, -5, 4};
static const double g_scale = 0.37;

static double loss(void *ctx)
{
    const double *z = ctx;
    double s = 0.0;
    for (size_t n = 0; n < GN; n++)
        if (g_target[n] >= 0)
            s -= g_scale * ref_logp(z + n * GV, (size_t)g_target[n], GV);
    return s;
}

static void test_gradient(void **state)
{
    float z[GN * GV], logp[GN];
    double zd[GN * GV];
    (void)state;
    FOR_EACH_KERN
    {
        fill_both(z, zd, GN * GV, "z", 2.0f);
        dm_xent_backward(logp, z, DM_F32, g_target, (float)g_scale, GN, GV);
        assert_grad_ref(loss, zd, zd, z, GN * GV, 1e-5);
    }
}

static void test_backward_returns_the_bits_of_forward_and_sums_to_0(void **state)
{
    (void)state;
    FOR_EACH_KERN
    {
        float forward[N], backward[N];
        fill(3.0f);
        dm_xent_forward(forward, NULL, x, target, N, VP);
        dm_xent_backward(backward, x, DM_F32, target, 2.0f, N, VP);
        assert_memory_equal(forward, backward, sizeof(forward));
        for (size_t n = 0; n < N; n++) {
            double sum = 0.0;
            for (size_t i = 0; i < VP; i++)
                sum += (double)x[n * VP + i];
            assert_true(fabs(sum) < 1e-5);
        }
    }
}

/* Rounded as for products: subnormals, of which the scale makes some, become zero. */
static void test_gradient_in_bf16_is_that_in_float32_rounded(void **state)
{
    static float y[N * VP];
    static uint16_t want[VP];
    (void)state;
    FOR_EACH_KERN
    for (size_t i = 0; i < 3; i++) {
        const float scales[] = {0.37f, 1e-30f, 1e-38f};
        float logp[N], logp_y[N];
        size_t n_tiny = 0;
        fill(i ? 30.0f : 3.0f);
        memcpy(y, x, sizeof(y));
        dm_xent_backward(logp, x, DM_F32, target, scales[i], N, VP);
        dm_xent_backward(logp_y, y, DM_BF16, target, scales[i], N, VP);
        assert_memory_equal(logp_y, logp, sizeof(logp));
        for (size_t n = 0; n < N; n++) {
            for (size_t j = 0; j < VP; j++)
                if (fpclassify(x[n * VP + j]) == FP_SUBNORMAL) {
                    x[n * VP + j] = copysignf(0.0f, x[n * VP + j]);
                    n_tiny++;
                }
            dm_dtype_from_f32(want, DM_BF16, x + n * VP, VP);
            assert_memory_equal(y + n * VP, want, sizeof(want));
        }
        assert_true(i == 0 || n_tiny > 100);
    }
}

static void test_a_row_alone_has_the_same_bits(void **state)
{
    float logp[N], one;
    int32_t rank[N], one_rank;
    (void)state;
    fill(3.0f);
    FOR_EACH_KERN
    {
        dm_xent_forward(logp, rank, x, target, N, VP);
        for (size_t n = 0; n < N; n++) {
            dm_xent_forward(&one, &one_rank, x + n * VP, target + n, 1, VP);
            assert_memory_equal(&one, &logp[n], sizeof(one));
            assert_int_equal(one_rank, rank[n]);
        }
    }
}

static void test_thread_count_does_not_change_bits(void **state)
{
    enum { M = 30 };
    static float z[M * VP];
    static struct {
        float logp[M], dz[M * VP];
        int32_t rank[M];
    } got[3];
    int32_t t[M];
    (void)state;
    fill_named(z, M * VP, "z", 3.0f);
    for (int32_t n = 0; n < M; n++)
        t[n] = n % 7 == 6 ? -1 : n * 41;
    for (size_t i = 0; i < 3; i++) {
        dm_par_set_threads(i + 1);
        dm_xent_forward(got[i].logp, got[i].rank, z, t, M, VP);
        memcpy(got[i].dz, z, sizeof(z));
        dm_xent_backward(got[i].logp, got[i].dz, DM_F32, t, 0.5f, M, VP);
        assert_memory_equal(&got[i], &got[0], sizeof(got[0]));
    }
    dm_par_set_threads(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logp_matches_reference),
        cmocka_unit_test(test_probabilities_sum_to_1),
        cmocka_unit_test(test_large_logits_do_not_overflow),
        cmocka_unit_test(test_a_nan_logit_makes_logp_nan),
        cmocka_unit_test(test_rank_counts_larger_logits_and_ties_to_the_smaller_id),
        cmocka_unit_test(test_negative_targets_are_skipped),
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_backward_returns_the_bits_of_forward_and_sums_to_0),
        cmocka_unit_test(test_gradient_in_bf16_is_that_in_float32_rounded),
        cmocka_unit_test(test_a_row_alone_has_the_same_bits),
        cmocka_unit_test(test_thread_count_does_not_change_bits),
    };
    return cmocka_run_group_tests_name("xent", tests, NULL, NULL);
}
