/* SPDX-License-Identifier: MIT */
#include "src/nn/rotary.h"

#include <math.h>
#include <string.h>

#include "src/base/par.h"
#include "tests/ref/nn.h"

/* Two sequences of T rows, from position POS; three vectors per head lie in a row, as in qkv. */
enum { B = 2, T = 5, POS = 3, NH = 3, HS = 7, ROT = 4, ROW = NH * HS, N = B * T, MAX = 3000 };
#define BASE 10000.0

static float table[MAX * ROT];

static int setup(void **state)
{
    (void)state;
    dm_rotary_table(table, BASE, ROT, MAX);
    return 0;
}

static void forward(float *x, size_t pos, size_t n, size_t t)
{
    dm_rotary_forward(x, ROW, HS, table, pos, n, t, NH, ROT);
}

static void test_table_is_exact_at_high_positions(void **state)
{
    (void)state;
    for (size_t t = 0; t < MAX; t++)
        for (size_t j = 0; j < ROT / 2; j++) {
            const double angle = (double)t / pow(BASE, 2.0 * (double)j / ROT);
            const double c = cos(angle), s = sin(angle);
            assert_close_ref(&table[t * ROT + j], &c, 1, 1e-7, 1.0);
            assert_close_ref(&table[t * ROT + ROT / 2 + j], &s, 1, 1e-7, 1.0);
        }
}

static void test_forward_matches_reference(void **state)
{
    float x[N * ROW];
    double xd[N * ROW];
    (void)state;
    fill_both(x, xd, N * ROW, "x", 1.0f);
    forward(x, POS, N, T);
    ref_rotary(xd, BASE, POS, N, T, NH, HS, ROT);
    assert_close_ref(x, xd, N * ROW, 3e-7, 1.0);
}

static void test_strides_leave_the_rest_alone(void **state)
{
    enum { STRIDE = 3 * ROW, HEAD = 3 * HS };
    float x[N * STRIDE], x0[N * STRIDE], dense[N * ROW];
    (void)state;
    fill_named(x, N * STRIDE, "x", 1.0f);
    memcpy(x0, x, sizeof(x));
    for (size_t n = 0; n < N; n++)
        for (size_t h = 0; h < NH; h++)
            memcpy(dense + n * ROW + h * HS, x + n * STRIDE + h * HEAD, HS * sizeof(float));
    forward(dense, POS, N, T);
    dm_rotary_forward(x, STRIDE, HEAD, table, POS, N, T, NH, ROT);
    for (size_t n = 0; n < N; n++)
        for (size_t i = 0; i < STRIDE; i++) {
            const size_t h = i / HEAD, d = i % HEAD, at = n * STRIDE + i;
            const float want = d < ROT ? dense[n * ROW + h * HS + d] : x0[at];
            assert_memory_equal(&x[at], &want, sizeof(want));
        }
}

static void test_identity_at_position_0_and_for_rot_0(void **state)
{
    float x[ROW], x0[ROW];
    (void)state;
    fill_named(x, ROW, "x", 1.0f);
    memcpy(x0, x, sizeof(x));
    forward(x, 0, 1, 1);
    assert_memory_equal(x, x0, sizeof(x));
    dm_rotary_forward(x, ROW, HS, table, 7, 1, 1, NH, 0);
    assert_memory_equal(x, x0, sizeof(x));
}

static void test_norms_are_kept_and_backward_undoes_forward(void **state)
{
    float x[N * ROW];
    double xd[N * ROW];
    (void)state;
    fill_both(x, xd, N * ROW, "x", 1.0f);
    forward(x, 1000, N, T);
    for (size_t i = 0; i < N * NH; i++) {
        double before = 0.0, after = 0.0;
        for (size_t d = 0; d < HS; d++) {
            before += xd[i * HS + d] * xd[i * HS + d];
            after += (double)x[i * HS + d] * (double)x[i * HS + d];
        }
        assert_true(fabs(after - before) < 1e-6 * before);
    }
    dm_rotary_backward(x, ROW, HS, table, 1000, N, T, NH, ROT);
    assert_close_ref(x, xd, N * ROW, 5e-7, 1.0);
}

/* What the embedding is for: q at m dotted with k at n depends on m - n only. */
static void test_dot_product_depends_on_the_distance_only(void **state)
{
    double dot[3];
    const size_t at[3] = {0, 17, 1900};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        float q[ROW], k[ROW];
        fill_named(q, ROW, "q", 1.0f);
        fill_named(k, ROW, "k", 1.0f);
        forward(q, at[i] + 5, 1, 1);
        forward(k, at[i], 1, 1);
        dot[i] = 0.0;
        for (size_t d = 0; d < HS; d++)
            dot[i] += (double)q[d] * (double)k[d];
        assert_true(fabs(dot[i] - dot[0]) < 1e-6);
    }
}

struct grad {
    double x[N * ROW], r[N * ROW];
};

static double loss(void *ctx)
{
    const struct grad *g = ctx;
    double out[N * ROW];
    memcpy(out, g->x, sizeof(out));
    ref_rotary(out, BASE, POS, N, T, NH, HS, ROT);
    return ref_dot(out, g->r, N * ROW);
}

static void test_gradient(void **state)
{
    struct grad g;
    float x[N * ROW], dx[N * ROW];
    (void)state;
    fill_both(x, g.x, N * ROW, "x", 1.0f);
    fill_both(dx, g.r, N * ROW, "r", 1.0f);
    dm_rotary_backward(dx, ROW, HS, table, POS, N, T, NH, ROT);
    assert_grad_ref(loss, &g, g.x, dx, N * ROW, 1e-5);
}

static void test_chunks_and_batches_have_the_same_bits(void **state)
{
    float whole[N * ROW], part[N * ROW];
    (void)state;
    fill_named(whole, N * ROW, "x", 1.0f);
    memcpy(part, whole, sizeof(whole));
    forward(whole, POS, N, T);
    for (size_t b = 0; b < B; b++) {
        forward(part + b * T * ROW, POS, 2, 2);
        forward(part + (b * T + 2) * ROW, POS + 2, T - 2, T - 2);
    }
    assert_memory_equal(part, whole, sizeof(whole));
}

static void test_thread_count_does_not_change_bits(void **state)
{
    enum { LONG = 1500, M = LONG * ROW };
    static float got[3][M];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fill_named(got[i], M, "x", 1.0f);
        dm_par_set_threads(i + 1);
        forward(got[i], 0, LONG, LONG);
        dm_rotary_backward(got[i], ROW, HS, table, 9, LONG, LONG, NH, ROT);
        assert_memory_equal(got[i], got[0], sizeof(got[0]));
    }
    dm_par_set_threads(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_exact_at_high_positions),
        cmocka_unit_test(test_forward_matches_reference),
        cmocka_unit_test(test_strides_leave_the_rest_alone),
        cmocka_unit_test(test_identity_at_position_0_and_for_rot_0),
        cmocka_unit_test(test_norms_are_kept_and_backward_undoes_forward),
        cmocka_unit_test(test_dot_product_depends_on_the_distance_only),
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_chunks_and_batches_have_the_same_bits),
        cmocka_unit_test(test_thread_count_does_not_change_bits),
    };
    return cmocka_run_group_tests_name("rotary", tests, setup, NULL);
}
