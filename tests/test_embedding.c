/* SPDX-License-Identifier: MIT */
#include "src/nn/embedding.h"

#include <string.h>

#include "src/base/par.h"
#include "tests/ref/nn.h"

enum { N = 6, C = 13, VP = 7, BIG_N = 260, BIG_C = 263, BIG_V = 11 };

static const int32_t ids[N] = {3, 0, 6, 3, 3, 1};

static void test_forward_copies_rows(void **state)
{
    float w[VP * C], out[N * C];
    (void)state;
    fill_named(w, VP * C, "w", 1.0f);
    dm_embedding_forward(out, ids, w, DM_F32, N, C, VP);
    for (size_t n = 0; n < N; n++)
        assert_memory_equal(out + n * C, w + (size_t)ids[n] * C, C * sizeof(float));
}

static double loss(void *ctx)
{
    const double *w = ctx;
    float r[N * C];
    double s = 0.0;
    fill_named(r, N * C, "r", 1.0f);
    for (size_t i = 0; i < N * C; i++)
        s += w[(size_t)ids[i / C] * C + i % C] * (double)r[i];
    return s;
}

static void test_gradient_adds_over_repeated_ids(void **state)
{
    float w[VP * C], r[N * C], start[VP * C], added[VP * C];
    double wd[VP * C];
    (void)state;
    fill_both(w, wd, VP * C, "w", 1.0f);
    fill_named(r, N * C, "r", 1.0f);
    fill_named(start, VP * C, "start", 1.0f);
    FOR_EACH_KERN
    {
        float dw[VP * C] = {0};
        dm_embedding_backward(dw, ids, r, N, C, VP);
        assert_grad_ref(loss, wd, wd, dw, VP * C, 1e-5);
        memcpy(added, start, sizeof(start));
        dm_embedding_backward(added, ids, r, N, C, VP);
        assert_added(added, start, dw, VP * C);
        // Rows 2, 4 and 5 occur nowhere.
        assert_memory_equal(added + 2 * C, start + 2 * C, C * sizeof(float));
        assert_memory_equal(added + 4 * C, start + 4 * C, 2 * C * sizeof(float));
    }
}

static void test_vec_add_adds_exactly(void **state)
{
    float y[37], x[37], want[37];
    (void)state;
    fill_named(x, 37, "x", 1.0f);
    FOR_EACH_KERN
    {
        fill_named(y, 37, "y", 1.0f);
        for (size_t i = 0; i < 37; i++)
            want[i] = y[i] + x[i];
        dm_vec_add(y, x, 37);
        assert_memory_equal(y, want, sizeof(y));
    }
}

static void test_thread_count_does_not_change_bits(void **state)
{
    enum { M = BIG_N * BIG_C };
    static float r[M], w[BIG_V * BIG_C];
    static int32_t big_ids[BIG_N];
    static struct {
        float out[M], dw[BIG_V * BIG_C];
    } got[3];
    (void)state;
    fill_named(r, M, "r", 1.0f);
    fill_named(w, BIG_V * BIG_C, "w", 1.0f);
    for (size_t n = 0; n < BIG_N; n++)
        big_ids[n] = (int32_t)(n * n % BIG_V);
    memset(got, 0, sizeof(got));
    for (size_t i = 0; i < 3; i++) {
        dm_par_set_threads(i + 1);
        dm_embedding_forward(got[i].out, big_ids, w, DM_F32, BIG_N, BIG_C, BIG_V);
        dm_embedding_backward(got[i].dw, big_ids, r, BIG_N, BIG_C, BIG_V);
        dm_vec_add(got[i].out, r, M);
        assert_memory_equal(&got[i], &got[0], sizeof(got[0]));
    }
    for (size_t n = 0; n < BIG_N; n++)
        for (size_t c = 0; c < BIG_C; c++) {
            const float want = w[(size_t)big_ids[n] * BIG_C + c] + r[n * BIG_C + c];
            assert_memory_equal(&got[0].out[n * BIG_C + c], &want, sizeof(want));
        }
    dm_par_set_threads(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_copies_rows),
        cmocka_unit_test(test_gradient_adds_over_repeated_ids),
        cmocka_unit_test(test_vec_add_adds_exactly),
        cmocka_unit_test(test_thread_count_does_not_change_bits),
    };
    return cmocka_run_group_tests_name("embedding", tests, NULL, NULL);
}
