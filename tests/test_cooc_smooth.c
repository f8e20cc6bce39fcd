/* SPDX-License-Identifier: MIT */
/* Smoothed ratios are those of distributions: whatever was pruned, each adds up to 1. */
#include "tests/util.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/cooc_build.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/io/cooc.h"
#include "src/io/cooc_smooth.h"
#include "src/io/shard.h"

enum { V = 40, N = 4000 };
static const char HASH[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/* A table of skewed tokens of which triplets below min3 are pruned. */
static void build(struct dm_cooc *t, uint64_t min2, uint64_t min3)
{
    char *shard = strdup(tmp_path("smooth.h5")), *out = strdup(tmp_path("smooth_table.h5"));
    const struct dm_cooc_opt o = {.inputs = (const char *const *)&shard,
                                  .n_inputs = 1,
                                  .out = out,
                                  .order = 3,
                                  .rule = {.min_count = {min2, min3, 1}},
                                  .memory = DM_COOC_MIN_MEMORY};
    struct dm_cooc_stats s;
    struct dm_shard_writer *w;
    struct dm_err e;
    struct dm_rng r;
    int32_t ids[N];
    dm_rng_init(&r, 5, 1);
    for (size_t i = 0; i < N; i++) {
        const double u = dm_rng_uniform(&r);
        ids[i] = 1 + (int32_t)(u * u * (V - 1));
    }
    assert_ok(dm_shard_create(&w, shard, V, NULL, HASH, "{}", &e), e);
    assert_ok(dm_shard_append(w, ids, N, &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
    assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
    assert_ok(dm_cooc_load(t, out, &e), e);
    free(shard);
    free(out);
}

static double p1(const struct dm_cooc *t, uint32_t x)
{
    return (double)t->c1[x] / (double)t->N[0];
}

static void test_conditional_probabilities_add_up_to_1(void **state)
{
    (void)state;
    static const uint64_t min[][2] = {{1, 1}, {1, 3}, {4, 2}, {1000, 1000}};
    for (size_t i = 0; i < sizeof(min) / sizeof(min[0]); i++) {
        struct dm_cooc t;
        struct dm_cooc_smooth s;
        struct dm_err e;
        build(&t, min[i][0], min[i][1]);
        assert_ok(dm_cooc_smooth(&s, &t, &e), e);
        assert_true(s.discount[0] > 0.0 && s.discount[0] < 1.0 && s.discount[1] < 1.0);
        for (uint32_t x = 1; x < V; x++) {
            double two = 0.0;
            for (uint32_t y = 1; y < V; y++) {
                const double p2 = (double)dm_cooc_smooth_r2(&s, &t, x, y) * p1(&t, y);
                double three = 0.0;
                for (uint32_t z = 1; z < V; z++)
                    three += (double)dm_cooc_smooth_r3(&s, &t, x, y, z) * p1(&t, y) * p1(&t, z);
                assert_true(!t.c1[y] || fabs(three - p2) < 1e-5 * p2 + 1e-9);
                two += p2;
            }
            assert_true(fabs(two - 1.0) < 1e-5);
        }
        dm_cooc_smooth_release(&s);
        dm_cooc_release(&t);
    }
}

static void test_backing_off_is_the_formula_by_hand(void **state)
{
    (void)state;
    struct dm_cooc t;
    struct dm_cooc_smooth s;
    struct dm_err e;
    build(&t, 2, 3);
    assert_ok(dm_cooc_smooth(&s, &t, &e), e);
    size_t seen = 0, unseen = 0;
    for (uint32_t x = 1; x < V; x++)
        for (uint32_t y = 1; y < V; y++) {
            const size_t p = dm_cooc_find(&t, x, y);
            double kept = 0.0; // discounted counts of the row
            for (size_t i = t.row[x]; i < t.row[x + 1]; i++)
                kept += t.c2[i] - s.discount[0];
            const double g = 1.0 - kept / (double)t.c1[x];
            const double own = p == SIZE_MAX ? 0.0 : (t.c2[p] - s.discount[0]) / (double)t.c1[x];
            const double want = own / p1(&t, y) + g;
            assert_true(fabs((double)dm_cooc_smooth_r2(&s, &t, x, y) - want) < 1e-5 * want);
            seen += p != SIZE_MAX;
            unseen += p == SIZE_MAX;
            if (p == SIZE_MAX) // no history: a chain of pairs
                assert_true(fabs((double)dm_cooc_smooth_r3(&s, &t, x, y, 1) /
                                     (want * (double)dm_cooc_smooth_r2(&s, &t, y, 1)) -
                                 1.0) < 1e-5);
        }
    assert_true(seen > 50 && unseen > 50);
    assert_true(dm_cooc_smooth_r2(&s, &t, V, 1) == 1.0f);
    dm_cooc_smooth_release(&s);
    dm_cooc_release(&t);
}

static void test_threads_and_failing_allocations(void **state)
{
    (void)state;
    struct dm_cooc t;
    struct dm_cooc_smooth one, more;
    struct dm_err e;
    build(&t, 1, 2);
    dm_par_set_threads(1);
    assert_ok(dm_cooc_smooth(&one, &t, &e), e);
    for (size_t threads = 2; threads <= 3; threads++) {
        dm_par_set_threads(threads);
        assert_ok(dm_cooc_smooth(&more, &t, &e), e);
        assert_memory_equal(more.g1, one.g1, V * sizeof(*one.g1));
        assert_memory_equal(more.g2, one.g2, t.n_pairs * sizeof(*one.g2));
        assert_memory_equal(more.r2, one.r2, t.n_pairs * sizeof(*one.r2));
        assert_memory_equal(more.r3, one.r3, t.n_triplets * sizeof(*one.r3));
        dm_cooc_smooth_release(&more);
    }
    for (size_t at = 1; at <= 4; at++) {
        dm_alloc_fail_at(at);
        assert_int_equal(dm_cooc_smooth(&more, &t, &e), DM_ENOMEM);
        dm_alloc_fail_at(0);
        dm_cooc_smooth_release(&more);
    }
    dm_par_set_threads(0);
    dm_cooc_smooth_release(&one);
    dm_cooc_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conditional_probabilities_add_up_to_1),
        cmocka_unit_test(test_backing_off_is_the_formula_by_hand),
        cmocka_unit_test(test_threads_and_failing_allocations),
    };
    return cmocka_run_group_tests_name("cooc_smooth", tests, NULL, NULL);
}
