/* SPDX-License-Identifier: MIT */
/* Candidates, look-ups and the joint against references that compute every cell. */
#include "src/decode/joint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/decode/lookup.h"
#include "src/kernel/kern.h"
#include "tests/tablet.h"
#include "tests/util.h"

enum { V = 300, TEXT = 4000 };

/* A text whose next token depends on the last one, so that r is far from 1. */
static void make_table(struct dm_cooc *c)
{
    static int32_t ids[TEXT];
    struct dm_rng rng;
    dm_rng_init(&rng, 11, 0);
    for (size_t i = 1; i < TEXT; i++) {
        const double u = dm_rng_uniform(&rng);
        ids[i] = (int32_t)(((size_t)ids[i - 1] * 7 + (size_t)(u * u * u * 60)) % V);
    }
    static struct dm_cooc smooth;
    tablet_count(c, ids, TEXT, V);
    tablet_count(&smooth, ids, TEXT, V);
    tablet_discount(&smooth);
    c->discounted = &smooth;
}

static void free_table(struct dm_cooc *c)
{
    tablet_free(c->discounted);
    tablet_free(c);
}

static void random_logits(float *x, size_t n, uint64_t stream)
{
    struct dm_rng rng;
    dm_rng_init(&rng, 5, stream);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(2.5 * dm_rng_normal(&rng));
}

static const float *sort_key;
static int by_logit(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sort_key[i] != sort_key[j])
        return sort_key[i] > sort_key[j] ? -1 : 1;
    return (i > j) - (i < j);
}

static void test_candidates_equal_a_full_sort_and_skip_padding(void **state)
{
    (void)state;
    static float x[1003];
    static struct dm_cand c;
    for (size_t round = 0; round < 40; round++) {
        random_logits(x, 1003, round);
        for (size_t i = 0; i < 1003 && round % 2; i++)
            x[i] = roundf(x[i]); // many ties
        x[1001] = 1e9f;          // padding
        static int32_t order[1000];
        for (int32_t i = 0; i < 1000; i++)
            order[i] = i;
        sort_key = x;
        qsort(order, 1000, sizeof(*order), by_logit);
        const size_t k = 1 + round * 6;
        assert_true(dm_cand_select(&c, x, 1000, k, 0.7));
        assert_int_equal(c.n, k);
        assert_memory_equal(c.id, order, k * sizeof(*order));
        double sum = 0, p = 0;
        for (size_t i = 0; i < k; i++)
            sum += exp((double)x[order[i]] / 0.7);
        for (size_t i = 0; i < k; i++) {
            assert_near(c.p[i], exp((double)x[order[i]] / 0.7) / sum, 1e-12);
            p += c.p[i];
        }
        assert_near(p, 1, 1e-12);
    }
}

static void test_candidates_of_a_small_vocabulary_and_bad_logits(void **state)
{
    (void)state;
    static struct dm_cand c;
    const float x[4] = {1, NAN, 3, -INFINITY};
    assert_true(dm_cand_select(&c, x, 4, 50, 1));
    assert_int_equal(c.n, 4);
    assert_int_equal(c.id[0], 2);
    assert_int_equal(c.id[1], 0);
    assert_near(c.p[2] + c.p[3], 0, 0);
    const float nan2[2] = {NAN, NAN}, inf2[2] = {0, INFINITY}, none[2] = {-INFINITY, -INFINITY};
    assert_false(dm_cand_select(&c, nan2, 2, 2, 1));
    assert_false(dm_cand_select(&c, inf2, 2, 1, 1));
    assert_false(dm_cand_select(&c, none, 2, 2, 1));
}

/* Falling, rising, all equal, few finite: what a bound from maxima serves worst. */
static void test_candidates_of_awkward_rows_on_every_instruction_set(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 7, 255, 256, 257, 4096, 65536, 70001, 140000};
    static float x[140000];
    static int32_t order[140000];
    static struct dm_cand c;
    for (const struct dm_kern *const *k = dm_kern_all(); *k; k++) {
        dm_kern_force(*k);
        for (size_t round = 0; round < 6 * 9; round++) {
            const size_t n = sizes[round / 6], top_k = round % 4 == 3 ? 256 : 50;
            for (size_t i = 0; i < n; i++) {
                x[i] = round % 6 == 0   ? -(float)i
                       : round % 6 == 1 ? (float)i
                       : round % 6 == 2 ? -0.5f
                       : round % 6 == 3 ? (float)(i * 7919 % 40)
                       : round % 6 == 4 ? (i % 99 ? -INFINITY : -(float)(i % 7))
                                        : (float)(i % 2 ? i % 11 : 0) - 0.0f;
                order[i] = (int32_t)i;
            }
            sort_key = x;
            qsort(order, n, sizeof(*order), by_logit);
            assert_true(dm_cand_select(&c, x, n, top_k, 1));
            assert_int_equal(c.n, n < top_k ? n : top_k);
            assert_memory_equal(c.id, order, c.n * sizeof(*order));
        }
    }
    dm_kern_force(NULL);
}

static void test_lookup_finds_the_same_in_short_and_long_rows(void **state)
{
    (void)state;
    struct dm_lookup l = {0};
    uint32_t scratch[DM_LOOKUP_SCRATCH];
    struct dm_err e;
    static struct dm_cand c;
    static uint32_t row[60000];
    static uint16_t row16[60001];
    static float x[50304];
    assert_ok(dm_lookup_init(&l, 50304, &e), e);
    for (size_t round = 0; round < 60; round++) {
        random_logits(x, 50304, round);
        assert_true(dm_cand_select(&c, x, 50304, 1 + round % 50, 1));
        dm_lookup_set(&l, &c);
        struct dm_rng rng;
        dm_rng_init(&rng, 8, round);
        const double density = pow(dm_rng_uniform(&rng), 4);
        size_t n = 0, want = 0;
        for (uint32_t id = 0; id < 60000; id++) // beyond the lookup's ids too
            if (dm_rng_uniform(&rng) < density)
                row[n++] = id;
        uint16_t pos[DM_TOP_K_MAX + 1], pos16[DM_TOP_K_MAX + 1];
        uint32_t at[DM_TOP_K_MAX + 1], at16[DM_TOP_K_MAX + 1];
        const size_t m = dm_lookup_row(&l, row, 4, n, pos, at, scratch);
        for (size_t i = 0; i < m; i++)
            assert_int_equal(row[at[i]], c.id[pos[i]]);
        for (size_t i = 0; i < n; i++)
            row16[i + 1] = (uint16_t)row[i];
        unsigned char *odd = (unsigned char *)row16 + 1; // of any alignment
        memmove(odd, row16 + 1, n * sizeof(*row16));
        for (const struct dm_kern *const *k = dm_kern_all(); *k; k++) {
            dm_kern_force(*k);
            dm_lookup_set(&l, &c);
            assert_int_equal(dm_lookup_row(&l, odd, 2, n, pos16, at16, scratch), m);
            assert_memory_equal(pos16, pos, m * sizeof(*pos));
            assert_memory_equal(at16, at, m * sizeof(*at));
        }
        dm_kern_force(NULL);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < c.n; k++)
                want += row[i] == (uint32_t)c.id[k];
        assert_int_equal(m, want);
    }
    assert_int_equal(dm_lookup_row(&l, row, 2, 0, NULL, NULL, scratch), 0);
    dm_lookup_release(&l);
}

/* joint.h's definition, cell by cell. */
static double ratio(const struct dm_mask *m, const int32_t *x, size_t n)
{
    if (!m->cooc || m->alpha == 0)
        return 1;
    if (m->unseen == DM_UNSEEN_DISCOUNT)
        return pow(stored_discounted(m->cooc->discounting ? m->cooc : m->cooc->discounted, x, n),
                   m->alpha);
    double r = n == 2 ? tablet_r2(m->cooc, x[0], x[1]) : tablet_r3(m->cooc, x[0], x[1], x[2]);
    if (m->unseen == DM_UNSEEN_MIX)
        r = m->lambda * r + 1 - m->lambda;
    if (m->unseen == DM_UNSEEN_BACKOFF && r == 0)
        r = n == 2 ? 1 - m->lambda
                   : ratio(&(struct dm_mask){m->cooc, 1, m->unseen, m->lambda}, x, 2) *
                         ratio(&(struct dm_mask){m->cooc, 1, m->unseen, m->lambda}, x + 1, 2);
    return pow(r, m->alpha);
}

static double *reference(const struct dm_cand *c, size_t n, const struct dm_mask *m)
{
    const size_t d0 = n == 3 ? c[0].n : 1, d1 = c[n - 2].n, d2 = c[n - 1].n;
    double *J = malloc(d0 * d1 * d2 * sizeof(*J)), sum = 0;
    assert_non_null(J);
    for (size_t cell = 0; cell < d0 * d1 * d2; cell++) {
        const size_t pos[3] = {cell / d2 / d1, cell / d2 % d1, cell % d2};
        int32_t x[3];
        double p = 1;
        for (size_t i = 0; i < n; i++) {
            x[i] = c[i].id[pos[3 - n + i]];
            p *= c[i].p[pos[3 - n + i]];
        }
        sum += J[cell] = p * ratio(m, x, n);
    }
    for (size_t cell = 0; cell < d0 * d1 * d2 && sum > 0; cell++)
        J[cell] /= sum;
    return J;
}

static void check_threshold(struct dm_joint *j, const double *J, bool blur)
{
    const struct dm_grid g = dm_joint_grid(j);
    const size_t rows = g.d0 * g.d1, cells = rows * g.d2;
    uint16_t *ext = calloc(2 * rows, sizeof(*ext)), *reach = ext + rows;
    uint8_t *level = calloc(cells, 1);
    double *row = calloc(g.d2 + 2, sizeof(*row));
    uint32_t hist[256];
    dm_threshold_extents(ext, J, g);
    dm_threshold_reach(reach, ext, g, blur);
    dm_threshold_image(level, hist, J, reach, g, blur, row);
    const int t = dm_threshold_otsu(hist);
    struct dm_cells out;
    assert_int_equal(dm_joint_threshold(j, blur, &out), t);
    size_t n = 0;
    for (size_t c = 0; c < cells && t >= 0; c++) {
        if (level[c] <= t || J[c] == 0)
            continue;
        assert_true(n < out.n);
        assert_int_equal(out.cell[n], c);
        assert_near(out.J[n++], J[c], 1e-12);
    }
    assert_int_equal(out.n, n);
    free(ext);
    free(level);
    free(row);
}

static void check_collect(struct dm_joint *j, const double *J, size_t cells, double cut)
{
    struct dm_cells out;
    dm_joint_collect(j, cut, &out);
    size_t n = 0;
    for (size_t c = 0; c < cells; c++) {
        if (J[c] < cut || J[c] == 0)
            continue;
        assert_true(n < out.n);
        assert_int_equal(out.cell[n], c);
        assert_near(out.J[n], J[c], 1e-12);
        n++;
    }
    assert_int_equal(out.n, n);
}

static void check_order(struct dm_joint *j, const struct dm_cand *c, size_t n,
                        const struct dm_mask *m)
{
    double *J = reference(c, n, m), max = 0, sum = 0;
    const size_t cells = (n == 3 ? c[0].n : 1) * c[n - 2].n * c[n - 1].n;
    for (size_t i = 0; i < cells; i++) {
        max = fmax(max, J[i]);
        sum += J[i];
    }
    assert_int_equal(dm_joint_order(j, n, 0), sum > 0);
    if (sum > 0) {
        assert_near(dm_joint_max(j), max, 1e-12);
        for (size_t i = 0; i < cells; i += 1 + cells / 50)
            assert_near(dm_joint_cell(j, i), J[i], 1e-12);
        check_threshold(j, J, true);
        check_threshold(j, J, false);
        // cuts that no cell equals up to rounding
        check_collect(j, J, cells, max * 0.500001);
        check_collect(j, J, cells, 1.00001e-4);
        check_collect(j, J, cells, 0);
    }
    free(J);
}

static void test_joint_equals_its_definition_for_every_policy(void **state)
{
    (void)state;
    struct dm_cooc table;
    make_table(&table);
    struct dm_joint *j;
    struct dm_err e;
    assert_ok(dm_joint_new(&j, V, 20, 3, &e), e);
    static struct dm_cand c[3];
    static float x[V];
    static const double alphas[] = {1, 0.5, 0, 0.3}, lambdas[] = {0.9, 1, 0, 0.5};
    for (size_t round = 0; round < 64; round++) {
        for (size_t h = 0; h < 3; h++) {
            random_logits(x, V, round * 3 + h);
            const size_t k = round % 5 == 4 ? 1 + (round + h * 5) % 20 : 20;
            assert_true(dm_cand_select(&c[h], x, V, k, round % 7 == 6 ? 30 : 0.7));
        }
        const struct dm_mask m = {round % 9 == 8   ? NULL
                                  : round % 8 == 3 ? table.discounted
                                                   : &table,
                                  alphas[round / 4 % 4], (enum dm_unseen)(round % 4),
                                  lambdas[round / 16]};
        dm_joint_begin(j, c, 3, &m);
        check_order(j, c, 3, &m);
        check_order(j, c, 2, &m);
    }
    dm_joint_free(j);
    free_table(&table);
}

/* Giving up is allowed only where no cell exceeds the cut; otherwise nothing may change, not a bit.
 */
static void check_cut(struct dm_joint *j, size_t n, double cut, size_t *given_up)
{
    static uint32_t cell[8000];
    static double J[8000];
    struct dm_cells all, again;
    assert_true(dm_joint_order(j, n, 0));
    const double max = dm_joint_max(j);
    dm_joint_collect(j, 0, &all);
    const size_t n_cells = all.n;
    memcpy(cell, all.cell, n_cells * sizeof(*cell));
    memcpy(J, all.J, n_cells * sizeof(*J));
    if (!dm_joint_order(j, n, cut)) {
        assert_true(max <= cut);
        ++*given_up;
        return;
    }
    assert_true(dm_joint_max(j) == max);
    dm_joint_collect(j, 0, &again);
    assert_int_equal(again.n, n_cells);
    assert_memory_equal(again.cell, cell, n_cells * sizeof(*cell));
    assert_memory_equal(again.J, J, n_cells * sizeof(*J));
}

static void test_joints_are_given_up_only_below_the_cut(void **state)
{
    (void)state;
    static const double cuts[] = {1e-6, 0.01, 0.04, 0.1, 0.25, 0.5, 0.81, 0.99};
    struct dm_cooc table;
    make_table(&table);
    struct dm_joint *j;
    struct dm_err e;
    assert_ok(dm_joint_new(&j, V, 20, 3, &e), e);
    static struct dm_cand c[3];
    static float x[V];
    size_t tried = 0, given_up = 0;
    for (size_t round = 0; round < 60; round++) {
        for (size_t h = 0; h < 3; h++) {
            random_logits(x, V, round * 3 + h);
            assert_true(dm_cand_select(&c[h], x, V, 20, round % 7 == 6 ? 0.1 : 0.7));
        }
        const struct dm_mask m = {&table, round % 5 ? 1 : 0.5, (enum dm_unseen)(round % 4), 0.9};
        dm_joint_begin(j, c, 3, &m);
        for (size_t n = 3; n >= 2; n--) {
            if (!dm_joint_order(j, n, 0))
                continue;
            for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++, tried++)
                check_cut(j, n, cuts[i], &given_up);
            // and exactly at the largest cell: just below it, nothing may be given up
            assert_true(dm_joint_order(j, n, 0));
            const double max = dm_joint_max(j);
            assert_true(dm_joint_order(j, n, max * (1 - 1e-15)));
        }
    }
    assert_in_range(given_up, tried / 4, tried - 1);
    dm_joint_free(j);
    free_table(&table);
}

/* The same text with ids beyond 16 bits has the same joint. */
static void test_large_vocabularies_give_the_same_joint(void **state)
{
    (void)state;
    enum { WIDE = 70000, FACTOR = 233 };
    static int32_t ids[TEXT], wide[TEXT];
    static float x[V], y[WIDE];
    static struct dm_cand c[3], d[3];
    struct dm_rng rng;
    dm_rng_init(&rng, 12, 0);
    for (size_t i = 0; i < TEXT; i++) {
        ids[i] = (int32_t)(pow(dm_rng_uniform(&rng), 3) * V);
        wide[i] = ids[i] * FACTOR;
    }
    struct dm_cooc table[2];
    struct dm_joint *j[2];
    struct dm_err e;
    tablet_count(&table[0], ids, TEXT, V);
    tablet_count(&table[1], wide, TEXT, WIDE);
    assert_int_equal(table[1].id_bytes, 4);
    assert_ok(dm_joint_new(&j[0], V, 20, 3, &e), e);
    assert_ok(dm_joint_new(&j[1], WIDE, 20, 3, &e), e);
    for (size_t i = 0; i < WIDE; i++)
        y[i] = -INFINITY;
    for (size_t round = 0; round < 10; round++) {
        for (size_t h = 0; h < 3; h++) {
            random_logits(x, V, round * 3 + h);
            for (size_t i = 0; i < V; i++)
                y[i * FACTOR] = x[i] -= (float)i / 30;
            assert_true(dm_cand_select(&c[h], x, V, 20, 1));
            assert_true(dm_cand_select(&d[h], y, WIDE, 20, 1));
        }
        struct dm_cells out[2];
        for (size_t t = 0; t < 2; t++) {
            const struct dm_mask m = {&table[t], 1, DM_UNSEEN_BACKOFF, 0.9};
            dm_joint_begin(j[t], t ? d : c, 3, &m);
            assert_true(dm_joint_order(j[t], 3, 0));
            dm_joint_collect(j[t], 1e-5, &out[t]);
        }
        assert_true(out[0].n > 0);
        assert_int_equal(out[0].n, out[1].n);
        assert_memory_equal(out[0].cell, out[1].cell, out[0].n * sizeof(*out[0].cell));
        for (size_t i = 0; i < out[0].n; i++)
            assert_near(out[0].J[i], out[1].J[i], 1e-12);
    }
    for (size_t t = 0; t < 2; t++) {
        dm_joint_free(j[t]);
        tablet_free(&table[t]);
    }
}

static void test_threads_do_not_show(void **state)
{
    (void)state;
    enum { TOP_K = 30, CELLS = TOP_K * TOP_K * TOP_K };
    static float x[V];
    static double J[CELLS];
    static uint32_t cell[CELLS];
    static struct dm_cand c[3];
    struct dm_cooc table;
    struct dm_joint *j;
    struct dm_err e;
    make_table(&table);
    assert_ok(dm_joint_new(&j, V, TOP_K, 3, &e), e);
    for (size_t h = 0; h < 3; h++) {
        random_logits(x, V, h);
        assert_true(dm_cand_select(&c[h], x, V, TOP_K, 1));
    }
    const struct dm_mask m = {&table, 1, DM_UNSEEN_BACKOFF, 0.9};
    size_t n[2] = {0};
    int otsu = 0;
    for (size_t threads = 1; threads <= 3; threads++) {
        struct dm_cells all, left;
        dm_par_set_threads(threads);
        dm_joint_begin(j, c, 3, &m);
        assert_true(dm_joint_order(j, 3, 1e-12)); // pairs in order of weight, in batches
        const int t = dm_joint_threshold(j, true, &left);
        const size_t n_left = left.n;
        dm_joint_collect(j, 0, &all);
        assert_true(all.n > 0);
        if (threads == 1) {
            memcpy(J, all.J, all.n * sizeof(*J));
            memcpy(cell, all.cell, all.n * sizeof(*cell));
            n[0] = all.n;
            n[1] = n_left;
            otsu = t;
        }
        assert_int_equal(n[0], all.n);
        assert_int_equal(n[1], n_left);
        assert_int_equal(otsu, t);
        assert_memory_equal(J, all.J, all.n * sizeof(*J));
        assert_memory_equal(cell, all.cell, all.n * sizeof(*cell));
    }
    dm_joint_free(j);
    free_table(&table);
}

static void test_mask_without_any_seen_ngram_leaves_nothing_only_for_zero(void **state)
{
    (void)state;
    const int32_t text[] = {0, 1, 2, 3, 0, 1};
    struct dm_cooc table;
    tablet_count(&table, text, 6, 8);
    struct dm_joint *j;
    struct dm_err e;
    assert_ok(dm_joint_new(&j, 10, 4, 3, &e), e);
    const float x[10] = {-9, -9, -9, -9, 4, 3, 2, 1, 5, 6}; // 8 and 9 are not in the table
    static struct dm_cand c[3];
    for (size_t h = 0; h < 3; h++)
        assert_true(dm_cand_select(&c[h], x, 10, 4, 1));
    for (int unseen = 0; unseen < 3; unseen++) {
        const struct dm_mask m = {&table, 1, (enum dm_unseen)unseen, 0.5};
        dm_joint_begin(j, c, 3, &m);
        assert_int_equal(dm_joint_order(j, 3, 0), unseen != DM_UNSEEN_ZERO);
        assert_int_equal(dm_joint_order(j, 2, 0), unseen != DM_UNSEEN_ZERO);
    }
    dm_joint_free(j);
    tablet_free(&table);
}

static void test_running_out_of_memory_is_reported(void **state)
{
    (void)state;
    struct dm_joint *j;
    struct dm_err e;
    for (size_t n = 1;; n++) {
        dm_alloc_fail_at(n);
        const enum dm_status st = dm_joint_new(&j, 100, 5, 3, &e);
        if (dm_alloc_fail_at(0)) { // the failing call was not reached
            assert_ok(st, e);
            break;
        }
        assert_int_equal(st, DM_ENOMEM);
        assert_null(j);
    }
    dm_joint_free(j);
    dm_joint_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_candidates_equal_a_full_sort_and_skip_padding),
        cmocka_unit_test(test_candidates_of_a_small_vocabulary_and_bad_logits),
        cmocka_unit_test(test_candidates_of_awkward_rows_on_every_instruction_set),
        cmocka_unit_test(test_lookup_finds_the_same_in_short_and_long_rows),
        cmocka_unit_test(test_joint_equals_its_definition_for_every_policy),
        cmocka_unit_test(test_joints_are_given_up_only_below_the_cut),
        cmocka_unit_test(test_large_vocabularies_give_the_same_joint),
        cmocka_unit_test(test_threads_do_not_show),
        cmocka_unit_test(test_mask_without_any_seen_ngram_leaves_nothing_only_for_zero),
        cmocka_unit_test(test_running_out_of_memory_is_reported),
    };
    return cmocka_run_group_tests_name("joint", tests, NULL, NULL);
}
