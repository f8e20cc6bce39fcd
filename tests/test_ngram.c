/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/ngram.h"
#include "data/radix.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/rng.h"

#define MEMORY (DM_NGRAM_MIN_MEMORY + ((size_t)2 << 20)) /* with the ids of the tests */

/* Where the counter keeps what does not fit. */
static const char *beside(void)
{
    static char path[512];
    if (!path[0])
        snprintf(path, sizeof(path), "%s", tmp_path("runs"));
    return path;
}

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

/* All keys and counts of a counter; checks on the way that keys ascend, and that segments do not
 * cut keys that share two ids. */
struct flat {
    uint64_t *key;
    uint32_t *count;
    size_t n;
};

struct gathering {
    struct flat slot[64], all;
    unsigned pair_bits; /* of what follows a pair in the key */
};

static void append(struct flat *f, const uint64_t *key, const uint32_t *count, size_t n)
{
    f->key = realloc(f->key, (f->n + n + 1) * sizeof(*f->key));
    f->count = realloc(f->count, (f->n + n + 1) * sizeof(*f->count));
    for (size_t i = 0; i < n; i++, f->n++) {
        assert_true(count[i] > 0);
        assert_true(!f->n || key[i] > f->key[f->n - 1]);
        f->key[f->n] = key[i];
        f->count[f->n] = count[i];
    }
}

static enum dm_status gather(void *ctx, size_t slot, const struct dm_counts *c, bool end,
                             struct dm_err *e)
{
    struct gathering *x = ctx;
    (void)end;
    (void)e;
    append(&x->slot[slot], c->key, c->count, c->n);
    return DM_OK;
}

static enum dm_status give(void *ctx, size_t slot, struct dm_err *e)
{
    struct gathering *x = ctx;
    struct flat *f = &x->slot[slot];
    (void)e;
    if (f->n && x->all.n)
        assert_true(f->key[0] >> x->pair_bits > x->all.key[x->all.n - 1] >> x->pair_bits);
    append(&x->all, f->key, f->count, f->n);
    f->n = 0;
    return DM_OK;
}

static struct flat flatten(struct dm_ngram *g)
{
    struct gathering x = {.pair_bits = dm_ngram_id_bits(g) * (unsigned)(dm_ngram_order(g) - 2)};
    const struct dm_ngram_scan scan = {&x, 16, gather, give};
    struct dm_err e;
    assert_true(dm_ngram_slots(g) <= 64);
    assert_ok(dm_ngram_scan(g, &scan, &e), e);
    for (size_t i = 0; i < 64; i++) {
        free(x.slot[i].key);
        free(x.slot[i].count);
    }
    return x.all;
}

static void flat_release(struct flat *f)
{
    free(f->key);
    free(f->count);
}

/* The n-grams of `order` that the counter's keys hold. */
static struct grams counted(struct dm_ngram *g, size_t order)
{
    const unsigned bits = dm_ngram_id_bits(g);
    const size_t top = dm_ngram_order(g);
    struct flat f = flatten(g);
    struct grams s = {.g = calloc(f.n + 1, sizeof(*s.g))};
    for (size_t i = 0; i < f.n; i++) {
        struct gram e = {.count = f.count[i]};
        bool whole = true;
        for (size_t j = 0; j < order; j++) {
            const unsigned shift = bits * (unsigned)(top - 1 - j);
            e.x[j] = (uint32_t)(f.key[i] >> shift & (((uint64_t)1 << bits) - 1));
            whole = whole && e.x[j];
        }
        if (whole)
            s.g[s.n++] = e;
    }
    flat_release(&f);
    unite(&s);
    return s;
}

/* Totals and unigram counts are those of the naive counts. */
static void assert_totals(struct dm_ngram *g, const int32_t *ids, size_t n)
{
    for (size_t k = 1; k <= dm_ngram_order(g); k++) {
        struct grams s = naive(ids, n, k);
        uint64_t total = 0;
        for (size_t i = 0; i < s.n; i++) {
            total += s.g[i].count;
            if (k == 1)
                assert_int_equal(dm_ngram_c1(g)[s.g[i].x[0]], s.g[i].count);
        }
        assert_int_equal(dm_ngram_totals(g)[k - 1], total);
        free(s.g);
    }
    assert_int_equal(dm_ngram_c1(g)[0], 0);
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
    assert_ok(dm_ngram_new(&g, V, order, MEMORY, beside(), &e), e);
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
            assert_totals(g, ids, n);
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
    assert_ok(dm_ngram_new(&g, 8, 3, MEMORY, beside(), &e), e);
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

/* n tokens of which almost every triplet is another one. */
static int32_t *sparse(size_t n, size_t V)
{
    struct dm_rng r;
    dm_rng_init(&r, 3, 1);
    int32_t *ids = malloc(n * sizeof(*ids));
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)dm_rng_below(&r, V);
    return ids;
}

static void test_threads_memory_and_stream_order_do_not_show(void **state)
{
    (void)state;
    const size_t n = 1500000, V = 60000;
    int32_t *a = sparse(n, V), *b = documents(n / 3, V / 10, 2);
    struct flat want = {0};
    for (size_t run = 0; run < 8; run++) {
        struct dm_err e;
        struct dm_ngram *g;
        const size_t memory = run == 7 ? (size_t)200 << 20 : (1 + run % 3) * MEMORY;
        dm_par_set_threads(1 + run / 2);
        assert_ok(dm_ngram_new(&g, V, 3, memory, beside(), &e), e);
        if (run % 2)
            assert_ok(add(g, b, n / 3, 70000, &e), e);
        assert_ok(add(g, a, n, n, &e), e);
        if (!(run % 2))
            assert_ok(add(g, b, n / 3, 999, &e), e);
        assert_ok(dm_ngram_finish(g, &e), e);
        struct flat got = flatten(g);
        assert_in_range(dm_ngram_peak(g), 1, memory);
        if (run % 3 == 0 && run < 7) // the least memory: files were needed
            assert_true(dm_ngram_spilled(g) > 1000000);
        if (!want.n) {
            want = got;
        } else {
            assert_int_equal(got.n, want.n);
            assert_memory_equal(got.key, want.key, want.n * sizeof(*want.key));
            assert_memory_equal(got.count, want.count, want.n * sizeof(*want.count));
            flat_release(&got);
        }
        dm_ngram_free(g);
    }
    dm_par_set_threads(0);
    flat_release(&want);
    free(a);
    free(b);
}

static void test_many_files_are_merged_to_fewer(void **state)
{
    (void)state;
    const size_t n = 6000000, V = 60000;
    struct dm_err e;
    struct dm_ngram *g;
    int32_t *ids = sparse(n, V);
    dm_par_set_threads(2);
    assert_ok(dm_ngram_new(&g, V, 3, MEMORY, beside(), &e), e);
    assert_ok(add(g, ids, n, 400000, &e), e);
    assert_ok(dm_ngram_finish(g, &e), e);
    assert_in_range(dm_ngram_runs(g), 1, 40);
    struct flat f = flatten(g), again = flatten(g); // as often as wanted
    uint64_t sum = 0, largest = 0;
    for (size_t i = 0; i < f.n; i++) {
        sum += f.count[i];
        largest = f.count[i] > largest ? f.count[i] : largest;
    }
    assert_int_equal(sum, dm_ngram_totals(g)[0]);
    assert_true(largest < 10 && f.n > n / 10 * 9);
    assert_int_equal(again.n, f.n);
    assert_memory_equal(again.key, f.key, f.n * sizeof(*f.key));
    assert_in_range(dm_ngram_peak(g), 1, MEMORY);
    flat_release(&f);
    flat_release(&again);
    dm_ngram_free(g);
    free(ids);
    dm_par_set_threads(0);
}

static void test_counts_made_elsewhere_are_added(void **state)
{
    (void)state;
    const size_t n = 300000, V = 900;
    struct dm_err e;
    struct dm_ngram *sum;
    int32_t *ids = documents(n, V, 8);
    struct dm_ngram *whole = count(ids, n, V, 3, n), *part = count(ids, n, V, 3, 5000);
    struct flat f = flatten(part), want = flatten(whole);
    assert_ok(dm_ngram_new(&sum, V, 3, MEMORY, beside(), &e), e);
    for (size_t at = 0; at < f.n; at += 70000) {
        const size_t take = f.n - at < 70000 ? f.n - at : 70000;
        const struct dm_counts c = {f.key + at, f.count + at, take};
        assert_ok(dm_ngram_add_counts(sum, &c, &e), e);
    }
    dm_ngram_add_totals(sum, dm_ngram_c1(part), dm_ngram_totals(part));
    assert_ok(add(sum, ids, n, n, &e), e); // and the same tokens once more
    assert_ok(dm_ngram_finish(sum, &e), e);
    struct flat got = flatten(sum);
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.key, want.key, want.n * sizeof(*want.key));
    for (size_t i = 0; i < got.n; i++)
        assert_int_equal(got.count[i], 2 * want.count[i]);
    assert_int_equal(dm_ngram_totals(sum)[2], 2 * dm_ngram_totals(whole)[2]);
    assert_int_equal(dm_ngram_c1(sum)[1], 2 * dm_ngram_c1(whole)[1]);
    flat_release(&f);
    flat_release(&want);
    flat_release(&got);
    dm_ngram_free(sum);
    dm_ngram_free(whole);
    dm_ngram_free(part);
    free(ids);
}

static void test_packed_runs_give_back_any_range(void **state)
{
    (void)state;
    enum { N = 5000 };
    static uint64_t key[N], first[N], at[N], back[N + DM_RUN_BLOCK];
    static uint32_t number[N], back_number[N + DM_RUN_BLOCK];
    static uint8_t data[N * DM_RUN_ENTRY_MAX + DM_RUN_PAD];
    struct dm_rng r;
    struct dm_err e;
    dm_rng_init(&r, 1, 1);
    for (size_t i = 0; i < N; i++) { // differences of all lengths, counts of both kinds
        const uint64_t step = 1 + (dm_rng_u64(&r) >> (12 + dm_rng_below(&r, 52)));
        key[i] = (i ? key[i - 1] : 0) + (step > UINT64_MAX / N ? UINT64_MAX / N : step);
        number[i] = i % 7 ? 1 + (uint32_t)dm_rng_below(&r, 40) : UINT32_MAX - (uint32_t)i;
    }
    struct dm_run run = {.data = data, .fd = -1, .n = N, .first = first, .at = at};
    run.bytes = dm_run_pack(data, first, at, &(struct dm_counts){key, number, N});
    run.blocks = (N + DM_RUN_BLOCK - 1) / DM_RUN_BLOCK;
    for (size_t begin = 0; begin < N; begin += 613)
        for (size_t end = begin; end <= N; end += 911) {
            struct dm_counts c = {back, back_number, 0};
            const uint64_t lo = key[begin] - (begin % 2), hi = end < N ? key[end] : 0;
            assert_ok(dm_run_read(&run, lo, hi, &c, NULL, 0, &e), e);
            assert_int_equal(c.n, end - begin);
            assert_memory_equal(c.key, key + begin, c.n * sizeof(*key));
            assert_memory_equal(c.count, number + begin, c.n * sizeof(*number));
        }
}

static void test_limits_are_refused_with_a_sentence(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_ngram *g;
    assert_int_equal(dm_ngram_new(&g, 10, 1, MEMORY, beside(), &e), DM_ERANGE);
    assert_int_equal(dm_ngram_new(&g, 10, 5, MEMORY, beside(), &e), DM_ERANGE);
    assert_int_equal(dm_ngram_new(&g, 0, 3, MEMORY, beside(), &e), DM_EUNSUPPORTED);
    assert_int_equal(dm_ngram_new(&g, ((size_t)1 << 21) + 1, 3, MEMORY, beside(), &e),
                     DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "2^21"));
    assert_int_equal(dm_ngram_new(&g, 10, 3, DM_NGRAM_MIN_MEMORY / 2, beside(), &e), DM_ERANGE);
    assert_null(g);
    dm_ngram_free(NULL);

    static const int32_t bad[] = {1, 2, 10}, negative[] = {-1};
    assert_ok(dm_ngram_new(&g, 10, 3, MEMORY, beside(), &e), e);
    assert_int_equal(dm_ngram_add(g, bad, 2, 1, &e), DM_ERANGE);
    assert_string_equal(e.msg, "token id 10, want 0 to 9");
    assert_int_equal(dm_ngram_add(g, negative, 1, 0, &e), DM_ERANGE);
    dm_ngram_free(g);
}

static void test_a_folder_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    const size_t n = 1500000;
    struct dm_err e;
    struct dm_ngram *g;
    int32_t *ids = sparse(n, 60000);
    assert_ok(dm_ngram_new(&g, 60000, 3, MEMORY, "/no/such/folder/x", &e), e);
    assert_int_equal(add(g, ids, n, 50000, &e), DM_EIO);
    assert_non_null(strstr(e.msg, "/no/such/folder/x"));
    dm_ngram_free(g);
    free(ids);
}

static enum dm_status count_only(void *ctx, size_t slot, const struct dm_counts *c, bool end,
                                 struct dm_err *e)
{
    (void)ctx;
    (void)slot;
    (void)c;
    (void)end;
    (void)e;
    return DM_OK;
}

static enum dm_status give_nothing(void *ctx, size_t slot, struct dm_err *e)
{
    (void)ctx;
    (void)slot;
    (void)e;
    return DM_OK;
}

static void test_every_failing_allocation_is_reported(void **state)
{
    (void)state;
    const size_t n = 300000;
    int32_t *ids = documents(n, 50, 4);
    bool failed = true;
    const struct dm_ngram_scan scan = {NULL, 0, count_only, give_nothing};
    for (size_t at = 1; failed; at += at < 8 ? 1 : 97) {
        struct dm_err e;
        struct dm_ngram *g;
        dm_alloc_fail_at(at);
        enum dm_status st = dm_ngram_new(&g, 50, 3, MEMORY, beside(), &e);
        st = st ? st : add(g, ids, n, n, &e);
        st = st ? st : dm_ngram_finish(g, &e);
        st = st ? st : dm_ngram_scan(g, &scan, &e);
        failed = dm_alloc_fail_at(0) == 0;
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
    const size_t most = 200003; // parted before it is sorted in the cache
    uint64_t *key = malloc(most * sizeof(*key)), *tmp = malloc(most * sizeof(*tmp));
    uint64_t *want = malloc(most * sizeof(*want));
    for (unsigned bits = 1; bits <= 64; bits++) {
        struct dm_rng r;
        const size_t n = bits % 8 ? 3001 : most;
        dm_rng_init(&r, bits, 1);
        for (size_t i = 0; i < n; i++) // parts of all sizes, and equal keys
            key[i] = want[i] = (dm_rng_u64(&r) >> (64 - bits)) >> (i % 5 ? 0 : bits / 2);
        qsort(want, n, sizeof(*want), by_key);
        assert_memory_equal(dm_radix_sort(key, tmp, n, bits), want, n * sizeof(*want));
    }
    assert_non_null(dm_radix_sort(key, tmp, 0, 20));
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
        cmocka_unit_test(test_threads_memory_and_stream_order_do_not_show),
        cmocka_unit_test(test_many_files_are_merged_to_fewer),
        cmocka_unit_test(test_counts_made_elsewhere_are_added),
        cmocka_unit_test(test_packed_runs_give_back_any_range),
        cmocka_unit_test(test_limits_are_refused_with_a_sentence),
        cmocka_unit_test(test_a_folder_that_cannot_be_written_is_named),
        cmocka_unit_test(test_every_failing_allocation_is_reported),
    };
    return cmocka_run_group_tests_name("ngram", tests, NULL, NULL);
}
