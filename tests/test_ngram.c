/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/ngram.h"
#include "data/radix.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/rng.h"

#define MEMORY DM_NGRAM_MIN_MEMORY

/* An n-gram with its count, for both sides of the comparison. */
struct gram {
    uint32_t x[4];
    uint64_t count;
};

struct grams {
    struct gram *g;
    size_t n;
};

static int by_ids(const void *a, const void *b)
{
    const struct gram *p = a, *q = b;
    for (size_t i = 0; i < 4; i++)
        if (p->x[i] != q->x[i])
            return p->x[i] < q->x[i] ? -1 : 1;
    return 0;
}

/* Sorts and adds up equal n-grams. */
static void unite(struct grams *s)
{
    size_t n = 0;
    if (s->n)
        qsort(s->g, s->n, sizeof(*s->g), by_ids);
    for (size_t i = 0; i < s->n; i++) {
        if (n && !by_ids(&s->g[n - 1], &s->g[i]))
            s->g[n - 1].count += s->g[i].count;
        else
            s->g[n++] = s->g[i];
    }
    s->n = n;
}

/* By the definition: every window of `order` ids of a stream without a separator in it. */
static struct grams naive(const int32_t *ids, size_t n, size_t order)
{
    struct grams s = {.g = calloc(n + 1, sizeof(*s.g))};
    for (size_t i = 0; i + order <= n; i++) {
        struct gram g = {.count = 1};
        bool whole = true;
        for (size_t j = 0; j < order; j++) {
            g.x[j] = (uint32_t)ids[i + j];
            whole = whole && ids[i + j] != 0;
        }
        if (whole)
            s.g[s.n++] = g;
    }
    unite(&s);
    return s;
}

/* The n-grams of `order` that the counter's keys hold; checks on the way that keys ascend. */
static struct grams counted(const struct dm_ngram *g, size_t order)
{
    const unsigned bits = dm_ngram_id_bits(g);
    const size_t top = dm_ngram_order(g);
    struct grams s = {0};
    uint64_t last = 0;
    for (size_t p = 0; p < dm_ngram_parts(g); p++) {
        const struct dm_run *r = dm_ngram_part(g, p);
        s.g = realloc(s.g, (s.n + r->n + 1) * sizeof(*s.g));
        for (size_t i = 0; i < r->n; i++) {
            assert_true(r->key[i] > last);
            assert_true(r->count[i] > 0);
            last = r->key[i];
            struct gram e = {.count = r->count[i]};
            bool whole = true;
            for (size_t j = 0; j < order; j++) {
                const unsigned shift = bits * (unsigned)(top - 1 - j);
                e.x[j] = (uint32_t)(r->key[i] >> shift & (((uint64_t)1 << bits) - 1));
                whole = whole && e.x[j];
            }
            if (whole)
                s.g[s.n++] = e;
        }
    }
    unite(&s);
    return s;
}

static void assert_same(struct grams got, struct grams want)
{
    assert_int_equal(got.n, want.n);
    for (size_t i = 0; i < got.n; i++) {
        assert_memory_equal(got.g[i].x, want.g[i].x, sizeof(got.g[i].x));
        assert_int_equal(got.g[i].count, want.g[i].count);
    }
    free(got.g);
    free(want.g);
}

/* Documents of 0, 1, 2 or more tokens of a skewed vocabulary, with separators at both ends. */
static int32_t *documents(size_t n, size_t V, uint64_t seed)
{
    struct dm_rng r;
    dm_rng_init(&r, seed, 1);
    int32_t *ids = malloc((n + 1) * sizeof(*ids));
    for (size_t i = 0; i < n; i++) {
        const double u = dm_rng_uniform(&r);
        ids[i] = (int32_t)(u * u * u * (double)V);
        if (dm_rng_below(&r, 6) == 0)
            ids[i] = 0;
    }
    ids[0] = ids[n - 1] = 0;
    return ids;
}

/* Adds a stream in pieces of `piece` tokens. */
static enum dm_status add(struct dm_ngram *g, const int32_t *ids, size_t n, size_t piece,
                          struct dm_err *e)
{
    for (size_t at = 0; at < n; at += piece) {
        const size_t take = n - at < piece ? n - at : piece, left = n - at - take;
        const size_t look = dm_ngram_order(g) - 1;
        DM_TRY(dm_ngram_add(g, ids + at, take, left < look ? left : look, e));
    }
    return DM_OK;
}

static struct dm_ngram *count(const int32_t *ids, size_t n, size_t V, size_t order, size_t piece)
{
    struct dm_err e;
    struct dm_ngram *g;
    assert_ok(dm_ngram_new(&g, V, order, MEMORY, &e), e);
    assert_ok(add(g, ids, n, piece, &e), e);
    assert_ok(dm_ngram_finish(g, &e), e);
    return g;
}

static void test_counts_of_all_orders_equal_a_naive_count(void **state)
{
    (void)state;
    static const size_t vocab[] = {2, 7, 300, 50277, 65536};
    for (size_t v = 0; v < sizeof(vocab) / sizeof(vocab[0]); v++)
        for (size_t order = 2; order <= 4; order++) {
            const size_t n = 5000 + 37 * v;
            int32_t *ids = documents(n, vocab[v], 11 * v + order);
            struct dm_ngram *g = count(ids, n, vocab[v], order, 1 + 613 * v);
            for (size_t k = 1; k <= order; k++)
                assert_same(counted(g, k), naive(ids, n, k));
            dm_ngram_free(g);
            free(ids);
        }
}

static void test_many_chunks_equal_a_naive_count(void **state)
{
    (void)state;
    // the smallest memory gives chunks of 2^18 keys: several flushes and merges
    const size_t n = 1100003, V = 40;
    int32_t *ids = documents(n, V, 5);
    struct dm_ngram *g = count(ids, n, V, 3, 100000);
    for (size_t k = 1; k <= 3; k++)
        assert_same(counted(g, k), naive(ids, n, k));
    assert_in_range(dm_ngram_peak(g), 1, MEMORY);
    dm_ngram_free(g);
    free(ids);
}

static void test_nothing_spans_a_separator_or_a_stream(void **state)
{
    (void)state;
    static const int32_t a[] = {0, 0, 5, 0, 5, 6, 0, 0}, b[] = {6, 5}, c[] = {5};
    struct dm_err e;
    struct dm_ngram *g;
    assert_ok(dm_ngram_new(&g, 8, 3, MEMORY, &e), e);
    assert_ok(add(g, a, 8, 8, &e), e);
    assert_ok(add(g, b, 2, 1, &e), e);
    assert_ok(add(g, c, 1, 1, &e), e);
    assert_ok(dm_ngram_finish(g, &e), e);
    struct grams one = counted(g, 1), two = counted(g, 2), three = counted(g, 3);
    assert_int_equal(one.n, 2);
    assert_int_equal(one.g[0].count, 4); // 5
    assert_int_equal(one.g[1].count, 2); // 6
    assert_int_equal(two.n, 2);          // (5,6) and (6,5), but not (5,5) across the streams
    assert_int_equal(two.g[0].x[0], 5);
    assert_int_equal(two.g[0].count, 1);
    assert_int_equal(two.g[1].x[0], 6);
    assert_int_equal(two.g[1].count, 1);
    assert_int_equal(three.n, 0);
    free(one.g);
    free(two.g);
    free(three.g);
    dm_ngram_free(g);
}

static void test_empty_and_separators_only_give_nothing(void **state)
{
    (void)state;
    static const int32_t zeros[100];
    for (size_t n = 0; n <= 100; n += 100) {
        struct dm_ngram *g = count(zeros, n, 8, 3, 10);
        struct grams one = counted(g, 1);
        assert_int_equal(one.n, 0);
        free(one.g);
        dm_ngram_free(g);
    }
}

/* All keys and counts as one block. */
static size_t flatten(const struct dm_ngram *g, uint64_t **out)
{
    size_t n = 0;
    *out = NULL;
    for (size_t p = 0; p < dm_ngram_parts(g); p++) {
        const struct dm_run *r = dm_ngram_part(g, p);
        *out = realloc(*out, (n + r->n + 1) * 2 * sizeof(**out));
        for (size_t i = 0; i < r->n; i++, n++) {
            (*out)[2 * n] = r->key[i];
            (*out)[2 * n + 1] = r->count[i];
        }
    }
    return n;
}

static void test_threads_and_stream_order_do_not_show(void **state)
{
    (void)state;
    const size_t n = 400000, V = 3000;
    int32_t *a = documents(n, V, 1), *b = documents(n / 3, V / 10, 2);
    uint64_t *want = NULL;
    size_t n_want = 0;
    for (size_t run = 0; run < 6; run++) {
        struct dm_err e;
        struct dm_ngram *g;
        dm_par_set_threads(1 + run / 2);
        assert_ok(dm_ngram_new(&g, V, 3, (1 + run % 3) * MEMORY, &e), e);
        if (run % 2)
            assert_ok(add(g, b, n / 3, 70000, &e), e);
        assert_ok(add(g, a, n, n, &e), e);
        if (!(run % 2))
            assert_ok(add(g, b, n / 3, 999, &e), e);
        assert_ok(dm_ngram_finish(g, &e), e);
        uint64_t *got;
        const size_t n_got = flatten(g, &got);
        if (!want) {
            want = got;
            n_want = n_got;
        } else {
            assert_int_equal(n_got, n_want);
            assert_memory_equal(got, want, n_want * 2 * sizeof(*want));
            free(got);
        }
        dm_ngram_free(g);
    }
    dm_par_set_threads(0);
    free(want);
    free(a);
    free(b);
}

static void test_pairs_are_never_split_between_parts(void **state)
{
    (void)state;
    const size_t n = 200000;
    int32_t *ids = documents(n, 6, 9); // 216 triplets at most: bounds fall inside pairs
    struct dm_ngram *g = count(ids, n, 6, 3, n);
    uint64_t last = UINT64_MAX;
    size_t parts = 0;
    for (size_t p = 0; p < dm_ngram_parts(g); p++) {
        const struct dm_run *r = dm_ngram_part(g, p);
        if (!r->n)
            continue;
        assert_true(r->key[0] >> dm_ngram_id_bits(g) != last);
        last = r->key[r->n - 1] >> dm_ngram_id_bits(g);
        parts++;
    }
    assert_in_range(parts, 10, 36);
    dm_ngram_free(g);
    free(ids);
}

static void test_limits_are_refused_with_a_sentence(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_ngram *g;
    assert_int_equal(dm_ngram_new(&g, 10, 1, MEMORY, &e), DM_ERANGE);
    assert_int_equal(dm_ngram_new(&g, 10, 5, MEMORY, &e), DM_ERANGE);
    assert_int_equal(dm_ngram_new(&g, 0, 3, MEMORY, &e), DM_EUNSUPPORTED);
    assert_int_equal(dm_ngram_new(&g, ((size_t)1 << 21) + 1, 3, MEMORY, &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "2^21"));
    assert_int_equal(dm_ngram_new(&g, 10, 3, MEMORY - 1, &e), DM_ERANGE);
    assert_null(g);
    dm_ngram_free(NULL);

    static const int32_t bad[] = {1, 2, 10}, negative[] = {-1};
    assert_ok(dm_ngram_new(&g, 10, 3, MEMORY, &e), e);
    assert_int_equal(dm_ngram_add(g, bad, 2, 1, &e), DM_ERANGE);
    assert_string_equal(e.msg, "token id 10, want 0 to 9");
    assert_int_equal(dm_ngram_add(g, negative, 1, 0, &e), DM_ERANGE);
    dm_ngram_free(g);
}

static void test_more_distinct_ngrams_than_memory_is_an_error(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_ngram *g;
    struct dm_rng r;
    const size_t n = 1500000; // distinct triplets: 12 bytes each against 16 MiB
    int32_t *ids = malloc(n * sizeof(*ids));
    dm_rng_init(&r, 3, 1);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)dm_rng_below(&r, 60000);
    assert_ok(dm_ngram_new(&g, 60000, 3, MEMORY, &e), e);
    assert_int_equal(add(g, ids, n, 50000, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "16777216 bytes of memory allowed"));
    dm_ngram_free(g);
    free(ids);
}

static void test_every_failing_allocation_is_reported(void **state)
{
    (void)state;
    const size_t n = 300000;
    int32_t *ids = documents(n, 50, 4);
    bool failed = true;
    for (size_t at = 1; failed; at += at < 8 ? 1 : 97) {
        struct dm_err e;
        struct dm_ngram *g;
        dm_alloc_fail_at(at);
        enum dm_status st = dm_ngram_new(&g, 50, 3, MEMORY, &e);
        st = st ? st : add(g, ids, n, n, &e);
        st = st ? st : dm_ngram_finish(g, &e);
        failed = dm_alloc_fail_at(0) == 0;
        // a failing shrink keeps the larger block and is no failure
        assert_true(st == DM_ENOMEM || st == DM_OK);
        assert_true(failed || st == DM_OK);
        if (at <= 3)
            assert_int_equal(st, DM_ENOMEM);
        dm_ngram_free(g);
    }
    free(ids);
}

static int by_key(const void *a, const void *b)
{
    const uint64_t p = *(const uint64_t *)a, q = *(const uint64_t *)b;
    return (p > q) - (p < q);
}

static void test_radix_sort_equals_qsort_for_all_widths(void **state)
{
    (void)state;
    const size_t n = 3001;
    uint64_t *key = malloc(n * sizeof(*key)), *tmp = malloc(n * sizeof(*tmp));
    uint64_t *want = malloc(n * sizeof(*want));
    for (size_t threads = 1; threads <= 3; threads++) {
        dm_par_set_threads(threads);
        size_t *scratch = malloc(dm_radix_scratch() * sizeof(*scratch));
        for (unsigned bits = 1; bits <= 64; bits++) {
            struct dm_rng r;
            dm_rng_init(&r, bits, threads);
            for (size_t i = 0; i < n; i++)
                key[i] = want[i] = dm_rng_u64(&r) >> (64 - bits);
            qsort(want, n, sizeof(*want), by_key);
            assert_memory_equal(dm_radix_sort(key, tmp, n, bits, scratch), want, n * sizeof(*want));
        }
        assert_non_null(dm_radix_sort(key, tmp, 0, 20, scratch));
        free(scratch);
    }
    dm_par_set_threads(0);
    free(key);
    free(tmp);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_radix_sort_equals_qsort_for_all_widths),
        cmocka_unit_test(test_counts_of_all_orders_equal_a_naive_count),
        cmocka_unit_test(test_many_chunks_equal_a_naive_count),
        cmocka_unit_test(test_nothing_spans_a_separator_or_a_stream),
        cmocka_unit_test(test_empty_and_separators_only_give_nothing),
        cmocka_unit_test(test_threads_and_stream_order_do_not_show),
        cmocka_unit_test(test_pairs_are_never_split_between_parts),
        cmocka_unit_test(test_limits_are_refused_with_a_sentence),
        cmocka_unit_test(test_more_distinct_ngrams_than_memory_is_an_error),
        cmocka_unit_test(test_every_failing_allocation_is_reported),
    };
    return cmocka_run_group_tests_name("ngram", tests, NULL, NULL);
}
