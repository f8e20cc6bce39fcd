/* SPDX-License-Identifier: MIT */
/* Smoothed ratios against the formulas in double precision, for tables pruned or not: they are
 * those of distributions, each of which adds up to 1. */
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
#include "src/io/shard.h"
#include "tests/tablet.h"

static const char HASH[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/* Up to six ratios are rounded on the way, each by at most 2^-8. */
#define ROUNDING (6.0 / 256)

/* Path of a table of n skewed tokens of V, of which pairs below min2 and triplets below min3 are
 * pruned; heap string. */
static char *build(size_t n, size_t V, uint64_t min2, uint64_t min3)
{
    char *shard = strdup(tmp_path("discount.h5")), *out = strdup(tmp_path("discount_table.h5"));
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
    int32_t *ids = malloc(n * sizeof(*ids));
    assert_non_null(ids);
    dm_rng_init(&r, 5, 1);
    for (size_t i = 0; i < n; i++) {
        const double u = dm_rng_uniform(&r);
        ids[i] = 1 + (int32_t)(u * u * (double)(V - 1));
    }
    assert_ok(dm_shard_create(&w, shard, V, NULL, HASH, "{}", &e), e);
    assert_ok(dm_shard_append(w, ids, n, &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
    assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
    free(ids);
    free(shard);
    return out;
}

static double p1(const struct dm_cooc *t, int32_t x)
{
    return (double)t->c1[x] / (double)t->N[0];
}

/* The conditional probabilities that r_2 and r_3 stand for, over all that may follow x. */
static void assert_sums(const struct dm_cooc *t, int32_t x, int32_t V)
{
    double two = 0;
    for (int32_t y = 1; y < V; y++) {
        const int32_t xy[] = {x, y};
        const double p2 = stored_discounted(t, xy, 2) * p1(t, y);
        double three = 0;
        for (int32_t z = 1; z < V; z++) {
            const int32_t xyz[] = {x, y, z};
            three += stored_discounted(t, xyz, 3) * p1(t, y) * p1(t, z);
        }
        if (t->c1[y])
            assert_near(three / p2, 1, ROUNDING);
        two += p2;
    }
    assert_near(two, 1, ROUNDING);
}

static void test_ratios_follow_the_formulas_and_add_up_to_1(void **state)
{
    (void)state;
    enum { V = 40 };
    static const uint64_t min[][2] = {{1, 1}, {1, 3}, {4, 2}, {1000, 1000}};
    for (size_t i = 0; i < sizeof(min) / sizeof(min[0]); i++) {
        struct dm_cooc counts, t;
        struct dm_err e;
        char *path = build(4000, V, min[i][0], min[i][1]);
        assert_ok(dm_cooc_load(&counts, path, &e), e);
        assert_ok(dm_cooc_load_for(&t, path, false, true, &e), e);
        assert_true(t.discount[0] > 0 && t.discount[0] < 1);
        assert_true(t.discount[1] > 0 && t.discount[1] < 1);
        size_t unseen = 0, seen = 0;
        for (int32_t x = 1; x < V; x++) {
            for (int32_t y = 1; y < V; y++)
                for (int32_t z = 1; counts.c1[y] && z < V; z++) {
                    const int32_t xyz[] = {x, y, z};
                    if (!counts.c1[z])
                        continue;
                    assert_near(stored_discounted(&t, xyz, 3) / tablet_discounted(&counts, xyz, 3),
                                1, ROUNDING);
                    assert_near(stored_discounted(&t, xyz, 2) / tablet_discounted(&counts, xyz, 2),
                                1, ROUNDING);
                    (stored_r3(&t, (uint32_t)x, (uint32_t)y, (uint32_t)z) > 0 ? seen++ : unseen++);
                }
            assert_sums(&t, x, V);
        }
        assert_true(unseen > 1000 && (seen > 50 || min[i][1] == 1000));
        dm_cooc_release(&counts);
        dm_cooc_release(&t);
        free(path);
    }
}

static void assert_same(const struct dm_cooc *a, const struct dm_cooc *b)
{
    assert_memory_equal(a->left1, b->left1, a->V * sizeof(*a->left1));
    assert_memory_equal(a->left2, b->left2, a->n_pairs * sizeof(*a->left2));
    assert_memory_equal(a->pair, b->pair, (a->n_pairs + 1) * sizeof(*a->pair));
    assert_memory_equal(a->next, b->next, a->n_triplets * (a->id_bytes + sizeof(uint16_t)));
}

/* Of several blocks, so that rows are cut by their ends; with maps of long rows and without. */
static void test_threads_and_ways_of_loading_give_the_same_bytes(void **state)
{
    (void)state;
    char *path = build(800000, 3000, 1, 1);
    struct dm_cooc counts, t;
    struct dm_err e;
    assert_ok(dm_cooc_load(&counts, path, &e), e);
    counts.discounting = true;
    assert_ok(dm_cooc_index(&counts, &e), e);
    assert_true(counts.map_words > 0 && counts.n_triplets > 700000);
    for (size_t threads = 1; threads <= 3; threads++) {
        dm_par_set_threads(threads);
        assert_ok(dm_cooc_load_for(&t, path, threads == 2, true, &e), e);
        assert_true((threads == 2) == (t.discounted != NULL));
        assert_same(&counts, t.discounted ? t.discounted : &t);
        if (t.discounted) { // and its own ratios are the counts'
            assert_false(t.discounting);
            size_t same = 0;
            for (size_t p = 0; p < t.n_pairs; p++)
                same += t.pair[p].r2 == t.discounted->pair[p].r2;
            assert_true(same < t.n_pairs / 10);
        }
        dm_cooc_release(&t);
    }
    dm_par_set_threads(0);
    for (size_t x = 1; x < 3000; x += 61)
        for (int32_t z = 1; z < 3000; z += 7) {
            const int32_t xyz[] = {(int32_t)x, (int32_t)counts.x2[counts.row[x]], z};
            assert_near(stored_discounted(&counts, xyz, 3) / tablet_discounted(&counts, xyz, 3), 1,
                        ROUNDING);
        }
    dm_cooc_release(&counts);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ratios_follow_the_formulas_and_add_up_to_1),
        cmocka_unit_test(test_threads_and_ways_of_loading_give_the_same_bytes),
    };
    return cmocka_run_group_tests_name("discount", tests, NULL, NULL);
}
