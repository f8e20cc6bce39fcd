/* SPDX-License-Identifier: MIT */
/* Rows of a tree in a session: each has the bits of its path alone, and what is kept of them is as
 * if nothing else had been there. */
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/base/rng.h"
#include "tests/tiny.h"
#include "tests/util.h"

enum { V = TINY_VP, T_MAX = 24 };

static struct dm_tree random_tree(struct dm_rng *rng, size_t n)
{
    struct dm_tree tree = {.n = n};
    for (size_t i = 1; i < n; i++)
        tree.parent[i] = (uint8_t)dm_rng_below(rng, (uint32_t)i);
    return tree;
}

static void test_paths_go_from_the_first_row_to_the_last(void **state)
{
    (void)state;
    const struct dm_tree tree = {6, {0, 0, 1, 0, 2, 4}};
    uint8_t path[DM_TREE_ROWS];
    assert_int_equal(dm_tree_path(&tree, 0, path), 1);
    assert_int_equal(path[0], 0);
    assert_int_equal(dm_tree_path(&tree, 3, path), 2);
    assert_int_equal(path[1], 3);
    assert_int_equal(dm_tree_path(&tree, 5, path), 5);
    assert_memory_equal(path, ((uint8_t[]){0, 1, 2, 4, 5}), 5);
}

/* A text so far, the session that has read it, and all that is needed to grow it. */
struct text {
    const struct dm_model *m;
    struct dm_session *s;
    size_t n, n_heads;
    int32_t ids[T_MAX];
};

/* The logits of head h behind the text and n further ids are those of row `got`. */
static void check_row(const struct text *t, const int32_t *more, size_t n, size_t h,
                      const float *got)
{
    int32_t ids[T_MAX];
    memcpy(ids, t->ids, t->n * sizeof(*ids));
    memcpy(ids + t->n, more, n * sizeof(*ids));
    float *want = tiny_logits(t->m, ids, 1, t->n + n, h);
    assert_memory_equal(got, want + (t->n + n - 1) * V, V * sizeof(float));
    free(want);
}

/* Runs a tree of n rows behind the text, checks every row, and keeps one of the paths. */
static void grow(struct text *t, struct dm_rng *rng, size_t n)
{
    const struct dm_tree tree = random_tree(rng, n);
    float *logits = tiny_floats(DM_TREE_ROWS * t->n_heads * V);
    const size_t heads = dm_session_tree_heads(t->s, n);
    int32_t ids[DM_TREE_ROWS], kept[DM_TREE_ROWS];
    uint8_t path[DM_TREE_ROWS];
    size_t n_path = 0;
    const size_t keep = dm_rng_below(rng, (uint32_t)n);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)dm_rng_below(rng, V);
    dm_session_tree(t->s, ids, &tree, logits);
    assert_int_equal(dm_session_pos(t->s), t->n);
    for (size_t i = 0; i < n; i++) {
        const size_t row = (keep + 1 + i) % n; // the kept one comes last
        n_path = dm_tree_path(&tree, row, path);
        for (size_t d = 0; d < n_path; d++)
            kept[d] = ids[path[d]];
        for (size_t h = 1; h <= heads; h++)
            check_row(t, kept, n_path, h, logits + (row * heads + h - 1) * V);
    }
    dm_session_keep(t->s, keep, logits);
    for (size_t h = heads + 1; h <= t->n_heads; h++)
        check_row(t, kept, n_path, h, logits + (h - 2) * V);
    memcpy(t->ids + t->n, kept, n_path * sizeof(*kept));
    t->n += n_path;
    assert_int_equal(dm_session_pos(t->s), t->n);
    free(logits);
}

/* Trees of all sizes, now and then a chunk, until the context is full. */
static void check_trees(const struct dm_model *m, size_t n_heads, uint64_t seed)
{
    struct dm_err e;
    struct dm_rng rng;
    struct text t = {.m = m, .n = 3, .n_heads = n_heads, .ids = {7, 11, 2}};
    float *logits = tiny_floats(n_heads * V);
    dm_rng_init(&rng, 3, seed);
    assert_ok(dm_session_new(&t.s, m, n_heads, &e), e);
    assert_true(dm_session_has_trees(t.s));
    dm_session_step(t.s, t.ids, t.n, logits);
    while (t.n < T_MAX) {
        const size_t room = T_MAX - t.n, n = 1 + dm_rng_below(&rng, DM_TREE_ROWS);
        if (dm_rng_below(&rng, 4)) {
            grow(&t, &rng, n < room ? n : room);
            continue;
        }
        const int32_t id = (int32_t)dm_rng_below(&rng, V);
        dm_session_step(t.s, &id, 1, logits);
        for (size_t h = 1; h <= n_heads; h++)
            check_row(&t, &id, 1, h, logits + (h - 1) * V);
        t.ids[t.n++] = id;
    }
    dm_session_free(t.s);
    free(logits);
}

static void test_every_row_has_the_bits_of_its_path_in_every_variant(void **state)
{
    (void)state;
    static const struct {
        size_t K, D, L;
        bool from_final;
    } variant[] = {{3, 1, 3, false}, {3, 2, 3, true}, {2, 2, 1, false}, {1, 1, 2, false}};
    struct dm_err e;
    for (size_t i = 0; i < sizeof(variant) / sizeof(variant[0]); i++)
        for (int fmt = DM_FMT_F32; fmt <= DM_FMT_INT4; fmt++) {
            struct dm_model m;
            struct dm_config c = tiny_config();
            assert_true(c.T_max == T_MAX && c.V == V);
            c.K = variant[i].K;
            c.D = variant[i].D;
            c.L = variant[i].L;
            c.from_final = variant[i].from_final;
            tiny_model(&m, &c);
            dm_model_set_format(&m, (enum dm_format)fmt);
            assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
            for (uint64_t seed = 0; seed < 4; seed++) {
                dm_par_set_threads(seed ? 1 : 3); // waiting for each other is what takes time
                check_trees(&m, c.K, seed);
            }
            dm_model_release(&m);
        }
    dm_par_set_threads(0);
}

static void test_models_without_packs_or_parallel_residual_have_no_trees(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_session *s;
    for (int parallel = 0; parallel < 2; parallel++) {
        struct dm_model m;
        struct dm_config c = tiny_config();
        c.parallel = parallel;
        tiny_model(&m, &c);
        for (int packed = 0; packed < 2; packed++) {
            assert_ok(dm_session_new(&s, &m, c.K, &e), e);
            assert_int_equal(dm_session_has_trees(s), parallel && packed);
            dm_session_free(s);
            assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
        }
        dm_model_release(&m);
    }
}

/* Their packed rows would not fit the buffer. */
static void test_a_very_wide_model_decodes_as_many_rows_do(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_session *s;
    struct dm_config c = tiny_config();
    float *logits = tiny_floats(V);
    c.K = c.L = 1;
    c.F = 252 * 512 + 1;
    tiny_model(&m, &c);
    assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
    assert_ok(dm_session_new(&s, &m, 1, &e), e);
    assert_false(dm_session_has_trees(s));
    dm_session_step(s, tiny_ids, 3, logits);
    dm_session_step(s, tiny_ids + 3, 1, logits);
    float *want = tiny_logits(&m, tiny_ids, 1, 4, 1);
    assert_memory_equal(logits, want + 3 * V, V * sizeof(float));
    dm_session_free(s);
    dm_model_release(&m);
    free(want);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths_go_from_the_first_row_to_the_last),
        cmocka_unit_test(test_every_row_has_the_bits_of_its_path_in_every_variant),
        cmocka_unit_test(test_models_without_packs_or_parallel_residual_have_no_trees),
        cmocka_unit_test(test_a_very_wide_model_decodes_as_many_rows_do),
    };
    return cmocka_run_group_tests_name("tree", tests, NULL, NULL);
}
