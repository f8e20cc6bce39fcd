/* SPDX-License-Identifier: MIT */
#include "src/nn/layernorm.h"

#include <math.h>
#include <string.h>

#include "src/base/par.h"
#include "tests/ref/nn.h"

enum { N = 5, C = 13, BIG_N = 66, BIG_C = 301 };
#define EPS 1e-5f

static struct {
    float x[N * C], w[C], b[C], r[N * C];
    double xd[N * C], wd[C], bd[C], rd[N * C];
    float out[N * C], mean[N], rstd[N];
} s;

static void fill(void)
{
    fill_both(s.x, s.xd, N * C, "x", 2.0f);
    fill_both(s.w, s.wd, C, "w", 1.0f);
    fill_both(s.b, s.bd, C, "b", 1.0f);
    fill_both(s.r, s.rd, N * C, "r", 1.0f);
    dm_layernorm_forward(s.out, s.mean, s.rstd, s.x, s.w, s.b, EPS, N, C);
}

static double loss(void *ctx)
{
    double out[N * C];
    (void)ctx;
    ref_layernorm(out, s.xd, s.wd, s.bd, (double)EPS, N, C);
    return ref_dot(out, s.rd, N * C);
}

static void test_forward_matches_reference(void **state)
{
    double want[N * C];
    (void)state;
    FOR_EACH_KERN
    {
        fill();
        ref_layernorm(want, s.xd, s.wd, s.bd, (double)EPS, N, C);
        assert_close_ref(s.out, want, N * C, 2e-6, 1.0);
    }
}

/* Float sums of squares would leave nothing of a variance of 1/3 beside a mean of 3000. */
static void large_mean(void)
{
    double want[N * C];
    fill();
    for (size_t i = 0; i < N * C; i++) {
        s.x[i] += 3000.0f;
        s.xd[i] = (double)s.x[i];
    }
    dm_layernorm_forward(s.out, s.mean, s.rstd, s.x, s.w, s.b, EPS, N, C);
    ref_layernorm(want, s.xd, s.wd, s.bd, (double)EPS, N, C);
    // The float mean is off by up to 2^-13, the spread is about 1.
    assert_close_ref(s.out, want, N * C, 5e-4, 1.0);
    for (size_t n = 0; n < N; n++) {
        double mean = 0.0, var = 0.0;
        for (size_t c = 0; c < C; c++)
            mean += s.xd[n * C + c] / C;
        for (size_t c = 0; c < C; c++)
            var += (s.xd[n * C + c] - mean) * (s.xd[n * C + c] - mean) / C;
        const double rstd = 1.0 / sqrt(var + (double)EPS);
        assert_close_ref(&s.rstd[n], &rstd, 1, 1e-6, 0.0);
    }
}

static void test_large_mean_keeps_the_variance(void **state)
{
    (void)state;
    FOR_EACH_KERN
    {
        large_mean();
    }
}

static void test_rows_have_mean_0_and_variance_1(void **state)
{
    (void)state;
    fill();
    for (size_t c = 0; c < C; c++) {
        s.w[c] = 1.0f;
        s.b[c] = 0.0f;
    }
    dm_layernorm_forward(s.out, NULL, NULL, s.x, s.w, s.b, 0.0f, N, C);
    for (size_t n = 0; n < N; n++) {
        double mean = 0.0, var = 0.0;
        for (size_t c = 0; c < C; c++) {
            mean += (double)s.out[n * C + c] / C;
            var += (double)s.out[n * C + c] * (double)s.out[n * C + c] / C;
        }
        assert_true(fabs(mean) < 1e-6);
        assert_true(fabs(var - 1.0) < 1e-5);
    }
}

static void test_out_may_alias_inp_and_statistics_may_be_null(void **state)
{
    (void)state;
    fill();
    dm_layernorm_forward(s.x, NULL, NULL, s.x, s.w, s.b, EPS, N, C);
    assert_memory_equal(s.x, s.out, sizeof(s.out));
}

static void test_gradients(void **state)
{
    (void)state;
    FOR_EACH_KERN
    {
        float dx[N * C] = {0}, dw[C] = {0}, db[C] = {0};
        fill();
        dm_layernorm_backward(dx, dw, db, s.r, s.x, s.w, s.mean, s.rstd, N, C);
        assert_grad_ref(loss, NULL, s.xd, dx, N * C, 1e-4);
        assert_grad_ref(loss, NULL, s.wd, dw, C, 1e-4);
        assert_grad_ref(loss, NULL, s.bd, db, C, 1e-4);
    }
}

static void test_backward_adds_and_skips_null(void **state)
{
    float dx[N * C] = {0}, dw[C] = {0}, db[C] = {0};
    float x0[N * C], w0[C], b0[C], x1[N * C], w1[C], b1[C];
    (void)state;
    fill();
    dm_layernorm_backward(dx, dw, db, s.r, s.x, s.w, s.mean, s.rstd, N, C);
    fill_named(x0, N * C, "x0", 1.0f);
    fill_named(w0, C, "w0", 1.0f);
    fill_named(b0, C, "b0", 1.0f);
    memcpy(x1, x0, sizeof(x0));
    memcpy(w1, w0, sizeof(w0));
    memcpy(b1, b0, sizeof(b0));
    dm_layernorm_backward(x1, NULL, NULL, s.r, s.x, s.w, s.mean, s.rstd, N, C);
    dm_layernorm_backward(NULL, w1, NULL, s.r, s.x, s.w, s.mean, s.rstd, N, C);
    dm_layernorm_backward(NULL, NULL, b1, s.r, s.x, s.w, s.mean, s.rstd, N, C);
    dm_layernorm_backward(NULL, NULL, NULL, s.r, s.x, s.w, s.mean, s.rstd, N, C);
    assert_added(x1, x0, dx, N * C);
    assert_added(w1, w0, dw, C);
    assert_added(b1, b0, db, C);
}

static void test_a_row_alone_has_the_same_bits(void **state)
{
    float one[C], dx[N * C] = {0}, d1[C];
    (void)state;
    fill();
    dm_layernorm_backward(dx, NULL, NULL, s.r, s.x, s.w, s.mean, s.rstd, N, C);
    for (size_t n = 0; n < N; n++) {
        float mean, rstd;
        dm_layernorm_forward(one, &mean, &rstd, s.x + n * C, s.w, s.b, EPS, 1, C);
        assert_memory_equal(one, s.out + n * C, sizeof(one));
        assert_memory_equal(&mean, &s.mean[n], sizeof(mean));
        assert_memory_equal(&rstd, &s.rstd[n], sizeof(rstd));
        memset(d1, 0, sizeof(d1));
        dm_layernorm_backward(d1, NULL, NULL, s.r + n * C, s.x + n * C, s.w, &mean, &rstd, 1, C);
        assert_memory_equal(d1, dx + n * C, sizeof(d1));
    }
}

static void test_thread_count_does_not_change_bits(void **state)
{
    enum { M = BIG_N * BIG_C };
    static float x[M], r[M], w[BIG_C], b[BIG_C], mean[BIG_N], rstd[BIG_N];
    static struct {
        float out[M], dx[M], dw[BIG_C], db[BIG_C];
    } got[3];
    (void)state;
    fill_named(x, M, "x", 2.0f);
    fill_named(r, M, "r", 1.0f);
    fill_named(w, BIG_C, "w", 1.0f);
    fill_named(b, BIG_C, "b", 1.0f);
    memset(got, 0, sizeof(got));
    for (size_t i = 0; i < 3; i++) {
        dm_par_set_threads(i + 1);
        dm_layernorm_forward(got[i].out, mean, rstd, x, w, b, EPS, BIG_N, BIG_C);
        dm_layernorm_backward(got[i].dx, got[i].dw, got[i].db, r, x, w, mean, rstd, BIG_N, BIG_C);
        assert_memory_equal(&got[i], &got[0], sizeof(got[0]));
    }
    dm_par_set_threads(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_matches_reference),
        cmocka_unit_test(test_large_mean_keeps_the_variance),
        cmocka_unit_test(test_rows_have_mean_0_and_variance_1),
        cmocka_unit_test(test_out_may_alias_inp_and_statistics_may_be_null),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_backward_adds_and_skips_null),
        cmocka_unit_test(test_a_row_alone_has_the_same_bits),
        cmocka_unit_test(test_thread_count_does_not_change_bits),
    };
    return cmocka_run_group_tests_name("layernorm", tests, NULL, NULL);
}
