/* SPDX-License-Identifier: MIT */
#include "src/nn/gelu.h"

#include <math.h>
#include <string.h>

#include "src/base/par.h"
#include "tests/ref/nn.h"

enum { N = 401, BIG = 5 * 4096 + 37 };

/* -10..10 in steps of 0.05. */
static void grid(float *x, double *xd)
{
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i - N / 2) * 0.05f;
        xd[i] = (double)x[i];
    }
}

static void test_forward_matches_reference(void **state)
{
    float x[N], out[N];
    double xd[N], want[N];
    (void)state;
    grid(x, xd);
    for (size_t i = 0; i < N; i++)
        want[i] = ref_gelu(xd[i]);
    FOR_EACH_KERN
    {
        dm_gelu_forward(out, x, N);
        assert_close_ref(out, want, N, 2e-6, 0.1);
        for (size_t i = 0; i < N; i++) // far from 0 it is x, or nothing
            if (x[i] > 6.0f || x[i] < -6.0f)
                assert_true(fabs((double)out[i] - fmax((double)x[i], 0.0)) < 1e-6);
        assert_true(out[N / 2] == 0.0f);
    }
}

static void test_out_may_alias_inp(void **state)
{
    float x[N], out[N];
    double xd[N];
    (void)state;
    FOR_EACH_KERN
    {
        grid(x, xd);
        dm_gelu_forward(out, x, N);
        dm_gelu_forward(x, x, N);
        assert_memory_equal(x, out, sizeof(x));
    }
}

static void test_nan_stays_nan(void **state)
{
    (void)state;
    FOR_EACH_KERN
    {
        float x[20] = {0}, out[20];
        x[3] = x[18] = NAN; // in a vector and in the tail
        dm_gelu_forward(out, x, 20);
        assert_true(isnan(out[3]) && isnan(out[18]) && !isnan(out[4]));
    }
}

static double loss(void *ctx)
{
    const double *x = ctx;
    double sum = 0.0;
    for (size_t i = 0; i < N; i++)
        sum += ref_gelu(x[i]) * (double)(i % 3 + 1);
    return sum;
}

static void test_gradient(void **state)
{
    float x[N], dy[N], dx[N];
    double xd[N];
    (void)state;
    grid(x, xd);
    for (size_t i = 0; i < N; i++)
        dy[i] = (float)(i % 3 + 1);
    FOR_EACH_KERN
    {
        memcpy(dx, dy, sizeof(dx));
        dm_gelu_backward(dx, x, N);
        assert_grad_ref(loss, xd, xd, dx, N, 5e-6);
    }
}

/* Rows are cut out of a longer array: where an element lies must not change its bits. */
static void test_place_in_the_array_does_not_change_bits(void **state)
{
    enum { M = 70 };
    float x[M], dy[M], out[M], dx[M];
    (void)state;
    fill_named(x, M, "x", 3.0f);
    fill_named(dy, M, "dy", 1.0f);
    FOR_EACH_KERN
    {
        memcpy(dx, dy, sizeof(dx));
        dm_gelu_forward(out, x, M);
        dm_gelu_backward(dx, x, M);
        for (size_t i = 0; i < M; i++)
            for (size_t n = 1; n <= M - i; n += 5) {
                float part[M], dpart[M];
                dm_gelu_forward(part, x + i, n);
                memcpy(dpart, dy + i, n * sizeof(float));
                dm_gelu_backward(dpart, x + i, n);
                assert_memory_equal(part, out + i, n * sizeof(float));
                assert_memory_equal(dpart, dx + i, n * sizeof(float));
            }
    }
}

static void test_thread_count_does_not_change_bits(void **state)
{
    static float x[BIG], dy[BIG];
    static struct {
        float out[BIG], dx[BIG];
    } got[3];
    (void)state;
    fill_named(x, BIG, "x", 3.0f);
    fill_named(dy, BIG, "dy", 1.0f);
    for (size_t i = 0; i < 3; i++) {
        dm_par_set_threads(i + 1);
        dm_gelu_forward(got[i].out, x, BIG);
        memcpy(got[i].dx, dy, sizeof(dy));
        dm_gelu_backward(got[i].dx, x, BIG);
        assert_memory_equal(&got[i], &got[0], sizeof(got[0]));
    }
    dm_par_set_threads(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_matches_reference),
        cmocka_unit_test(test_out_may_alias_inp),
        cmocka_unit_test(test_nan_stays_nan),
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_place_in_the_array_does_not_change_bits),
        cmocka_unit_test(test_thread_count_does_not_change_bits),
    };
    return cmocka_run_group_tests_name("gelu", tests, NULL, NULL);
}
