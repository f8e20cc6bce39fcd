/* SPDX-License-Identifier: MIT */
/* The processes of one run: started by mpirun every process runs these tests, and with it the other
 * ones; alone they hold, too. */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/ranks.h"
#include "tests/tiny.h"

static struct dm_ranks ranks;

/* What process `rank` adds: numbers of many magnitudes, so that another order has other bits. */
static float value(size_t rank, size_t i)
{
    float u;
    char name[32];
    snprintf(name, sizeof(name), "%zu/%zu", rank, i);
    fill_named(&u, 1, name, 1.0f);
    return ldexpf(u, (int)((rank + i) % 5) * 4);
}

static float tree(size_t lo, size_t hi, size_t i)
{
    const size_t mid = (lo + hi) / 2;
    return hi - lo == 1 ? value(lo, i) : tree(lo, mid, i) + tree(mid, hi, i);
}

/* Shorter than the number of processes, odd, and longer than what is sent at a time. */
static void test_sums_are_those_of_the_tree(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 3, 1000, 1001};
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        struct dm_err e;
        float x[1001];
        const uint64_t before = ranks.sent;
        for (size_t i = 0; i < sizes[k]; i++)
            x[i] = value(ranks.rank, i);
        assert_ok(dm_ranks_sum(&ranks, x, sizes[k], &e), e);
        for (size_t i = 0; i < sizes[k]; i++) {
            const float want = tree(0, ranks.n, i);
            assert_memory_equal(&x[i], &want, sizeof(want));
        }
        if (sizes[k] == 1000) // 8 n (N-1)/N
            assert_int_equal(ranks.sent - before, 8 * sizes[k] * (ranks.n - 1) / ranks.n);
    }
}

static void test_long_sums_have_the_same_bits_everywhere(void **state)
{
    (void)state;
    enum { N = 2500003 };
    struct dm_err e;
    float *x = tiny_floats(N), *first = tiny_floats(N);
    for (size_t i = 0; i < N; i++)
        x[i] = value(ranks.rank, i % 4093);
    assert_ok(dm_ranks_sum(&ranks, x, N, &e), e);
    memcpy(first, x, N * sizeof(float));
    assert_ok(dm_ranks_send(&ranks, first, N * sizeof(float), 0, &e), e);
    assert_memory_equal(x, first, N * sizeof(float));
    for (size_t i = 0; i < N; i += 99991) {
        const float want = tree(0, ranks.n, i % 4093);
        assert_memory_equal(&x[i], &want, sizeof(want));
    }
    free(x);
    free(first);
}

static void test_gathered_parts_are_in_order(void **state)
{
    (void)state;
    struct dm_err e;
    double *x = calloc(3 * ranks.n, sizeof(*x));
    assert_non_null(x);
    for (size_t i = 0; i < 3; i++)
        x[3 * ranks.rank + i] = (double)(10 * ranks.rank + i);
    assert_ok(dm_ranks_gather(&ranks, x, 3 * sizeof(*x), &e), e);
    for (size_t r = 0; r < ranks.n; r++)
        for (size_t i = 0; i < 3; i++)
            assert_true(x[3 * r + i] == (double)(10 * r + i));
    free(x);
}

static void test_any_is_true_for_all_if_it_is_for_one(void **state)
{
    (void)state;
    struct dm_err e;
    for (size_t r = 0; r <= ranks.n; r++) {
        bool x = ranks.rank == r;
        assert_ok(dm_ranks_any(&ranks, &x, &e), e);
        assert_true(x == (r < ranks.n));
    }
}

static void test_a_failure_is_everybodys(void **state)
{
    (void)state;
    struct dm_err e;
    assert_int_equal(dm_ranks_agree(&ranks, DM_OK, &e), DM_OK);
    for (size_t r = 0; r < ranks.n; r++) {
        enum dm_status st = DM_OK;
        if (ranks.rank >= r)
            st = dm_fail(&e, DM_ERANGE, "it is %zu", ranks.rank);
        assert_int_equal(dm_ranks_agree(&ranks, st, &e), DM_ERANGE);
        char want[64];
        if (r)
            snprintf(want, sizeof(want), "process %zu of %zu: it is %zu", r, ranks.n, r);
        assert_string_equal(e.msg, r ? want : "it is 0");
        // The run is over: nobody waits for anybody.
        assert_true(ranks.over == (ranks.n > 1));
        assert_int_equal(dm_ranks_agree(&ranks, ranks.rank ? DM_OK : DM_ENAN, &e),
                         ranks.rank ? DM_OK : DM_ENAN);
        ranks.over = false;
    }
}

static void test_texts_are_compared(void **state)
{
    (void)state;
    struct dm_err e;
    char text[32];
    snprintf(text, sizeof(text), "rank %zu", ranks.rank);
    assert_ok(dm_ranks_same(&ranks, "the same", "words", &e), e);
    assert_int_equal(dm_ranks_same(&ranks, text, "words", &e), ranks.n > 1 ? DM_EMISMATCH : DM_OK);
    if (ranks.n > 1)
        assert_non_null(strstr(e.msg, "words differ from those of process 0"));
    ranks.over = false;
}

static void test_nobody_is_one_process(void **state)
{
    (void)state;
    struct dm_err e;
    float x = 3.0f;
    bool any = true;
    assert_int_equal(dm_ranks_count(NULL), 1);
    assert_true(dm_ranks_first(NULL));
    assert_ok(dm_ranks_sum(NULL, &x, 1, &e), e);
    assert_true(x == 3.0f);
    assert_ok(dm_ranks_any(NULL, &any, &e), e);
    assert_true(any);
    assert_int_equal(dm_ranks_agree(NULL, DM_ENAN, &e), DM_ENAN);
}

int main(void)
{
    struct dm_err e;
    if (dm_ranks_open(&ranks, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_are_those_of_the_tree),
        cmocka_unit_test(test_long_sums_have_the_same_bits_everywhere),
        cmocka_unit_test(test_gathered_parts_are_in_order),
        cmocka_unit_test(test_any_is_true_for_all_if_it_is_for_one),
        cmocka_unit_test(test_a_failure_is_everybodys),
        cmocka_unit_test(test_texts_are_compared),
        cmocka_unit_test(test_nobody_is_one_process),
    };
    const int failed = cmocka_run_group_tests_name("ranks", tests, NULL, NULL);
    dm_ranks_close(&ranks);
    return failed;
}
