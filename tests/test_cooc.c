/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/cooc_build.h"
#include "data/cooc_prune.h"
#include "data/cooc_show.h"
#include "data/ngram.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/io/cooc.h"
#include "src/io/h5.h"
#include "src/io/shard.h"

static const char HASH[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char OTHER[] = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char TOKENIZER[] = "{\"model\":{\"type\":\"BPE\"}}";

/* tmp_path() has one buffer; tests need several names at a time. */
static char *scratch(const char *name)
{
    char *p = strdup(tmp_path(name));
    assert_non_null(p);
    return p;
}

static char *make_shard(const char *name, const int32_t *ids, size_t n, size_t V, const char *hash)
{
    struct dm_shard_writer *w;
    struct dm_err e;
    char *path = scratch(name);
    assert_ok(dm_shard_create(&w, path, V, TOKENIZER, hash, "{}", &e), e);
    assert_ok(dm_shard_append(w, ids, n, &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
    return path;
}

static int32_t *documents(size_t n, size_t V, uint64_t seed)
{
    struct dm_rng r;
    dm_rng_init(&r, seed, 2);
    int32_t *ids = malloc((n + 1) * sizeof(*ids));
    for (size_t i = 0; i < n; i++) {
        const double u = dm_rng_uniform(&r);
        ids[i] = dm_rng_below(&r, 9) ? (int32_t)(u * u * u * (double)V) : 0;
    }
    return ids;
}

static struct dm_cooc_opt options(const char *const *shards, size_t n, const char *out)
{
    return (struct dm_cooc_opt){.shards = shards,
                                .n_shards = n,
                                .out = out,
                                .order = 3,
                                .min_count = {1, 1},
                                .memory = DM_NGRAM_MIN_MEMORY};
}

/* Three shards of one small vocabulary, and their ids for naive counting. */
enum { V = 60, SHARDS = 3 };
struct corpus {
    int32_t *ids[SHARDS];
    size_t n[SHARDS];
    char *path[SHARDS];
};

static void corpus_init(struct corpus *c)
{
    static const char *const name[SHARDS] = {"a.h5", "b.h5", "c.h5"};
    static const size_t n[SHARDS] = {20000, 3001, 1};
    for (size_t i = 0; i < SHARDS; i++) {
        c->ids[i] = documents(n[i], V, i + 1);
        c->n[i] = n[i];
        c->path[i] = make_shard(name[i], c->ids[i], n[i], V, HASH);
    }
}

static void corpus_release(struct corpus *c)
{
    for (size_t i = 0; i < SHARDS; i++) {
        free(c->ids[i]);
        free(c->path[i]);
    }
}

/* Dense counts by the definition: c1 (V), c2 (V,V), c3 (V,V,V), totals. */
struct dense {
    uint32_t c1[V], c2[V][V], c3[V][V][V];
    uint64_t N[3];
};

static struct dense *dense_count(const struct corpus *c)
{
    struct dense *d = calloc(1, sizeof(*d));
    for (size_t s = 0; s < SHARDS; s++)
        for (size_t i = 0; i < c->n[s]; i++) {
            const int32_t *x = c->ids[s] + i;
            const size_t left = c->n[s] - i;
            if (!x[0])
                continue;
            d->c1[x[0]]++;
            d->N[0]++;
            if (left < 2 || !x[1])
                continue;
            d->c2[x[0]][x[1]]++;
            d->N[1]++;
            if (left < 3 || !x[2])
                continue;
            d->c3[x[0]][x[1]][x[2]]++;
            d->N[2]++;
        }
    return d;
}

/* The table holds exactly what the rule keeps of the dense counts. */
static void assert_table(const struct dm_cooc *t, const struct dense *d, uint64_t min2,
                         uint64_t min3)
{
    size_t pairs = 0, triplets = 0;
    assert_int_equal(t->V, V);
    assert_memory_equal(t->N, d->N, sizeof(t->N));
    for (uint32_t x = 0; x < V; x++) {
        assert_int_equal(t->c1[x], d->c1[x]);
        for (uint32_t y = 0; y < V; y++) {
            const size_t p = dm_cooc_find(t, x, y);
            size_t kept = 0;
            for (uint32_t z = 0; z < V; z++) {
                const size_t at = dm_cooc_find3(t, p, z);
                const uint32_t c = d->c3[x][y][z];
                const bool keep = c && c >= min3;
                kept += keep;
                assert_int_equal(at != SIZE_MAX, keep);
                if (keep)
                    assert_int_equal(t->c3[at], c);
                else
                    assert_true(dm_cooc_r3(t, x, y, z) == 0.0f);
            }
            triplets += kept;
            const bool keep = kept || (d->c2[x][y] && d->c2[x][y] >= min2);
            assert_int_equal(p != SIZE_MAX, keep);
            pairs += keep;
            if (keep)
                assert_int_equal(t->c2[p], d->c2[x][y]);
            else
                assert_true(dm_cooc_r2(t, x, y) == 0.0f);
        }
    }
    assert_int_equal(t->n_pairs, pairs);
    assert_int_equal(t->n_triplets, triplets);
}

static void test_table_equals_a_naive_count(void **state)
{
    (void)state;
    struct corpus c;
    struct dm_cooc_stats s;
    struct dm_cooc t;
    struct dm_err e;
    corpus_init(&c);
    struct dense *d = dense_count(&c);
    char *out = scratch("t.h5");
    struct dm_cooc_opt o = options((const char *const *)c.path, SHARDS, out);
    assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
    assert_ok(dm_cooc_load(&t, out, &e), e);
    assert_table(&t, d, 1, 1);
    assert_int_equal(t.order, 3);
    assert_string_equal(t.tokenizer_hash, HASH);
    assert_string_equal(t.path, out);
    assert_int_equal(s.tokens, 20000 + 3001 + 1);
    assert_int_equal(s.total[2], d->N[2]);
    assert_int_equal(s.kept[1], t.n_pairs);
    assert_int_equal(s.distinct[2], t.n_triplets);
    struct stat file;
    assert_int_equal(stat(out, &file), 0);
    assert_int_equal(s.file_bytes, file.st_size);
    dm_cooc_release(&t);
    free(out);
    free(d);
    corpus_release(&c);
}

static void test_minimum_counts_keep_exactly_what_they_say(void **state)
{
    (void)state;
    static const uint64_t min[][2] = {{2, 2}, {5, 3}, {3, 9}, {1, 1000000}, {1000000, 1000000}};
    struct corpus c;
    struct dm_cooc_stats s;
    struct dm_err e;
    corpus_init(&c);
    struct dense *d = dense_count(&c);
    char *out = scratch("t.h5");
    for (size_t i = 0; i < sizeof(min) / sizeof(min[0]); i++) {
        struct dm_cooc t;
        struct dm_cooc_opt o = options((const char *const *)c.path, SHARDS, out);
        memcpy(o.min_count, min[i], sizeof(o.min_count));
        assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
        assert_ok(dm_cooc_load(&t, out, &e), e);
        assert_table(&t, d, min[i][0], min[i][1]);
        assert_memory_equal(t.min_count, min[i], sizeof(t.min_count));
        assert_int_equal(s.kept[2], t.n_triplets);
        dm_cooc_release(&t);
    }
    free(out);
    free(d);
    corpus_release(&c);
}

static void test_threads_and_shard_order_give_the_same_bytes(void **state)
{
    (void)state;
    static const size_t order[][SHARDS] = {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}};
    struct corpus c;
    struct dm_err e;
    corpus_init(&c);
    char *out = scratch("t.h5"), *want = NULL;
    size_t n_want = 0;
    for (size_t i = 0; i < 9; i++) {
        const char *path[SHARDS];
        struct dm_cooc_stats s;
        char *got;
        size_t n;
        for (size_t k = 0; k < SHARDS; k++)
            path[k] = c.path[order[i % 3][k]];
        struct dm_cooc_opt o = options(path, SHARDS, out);
        o.memory *= 1 + i; // chunk sizes do not show either
        dm_par_set_threads(1 + i / 3);
        assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
        assert_ok(dm_file_read(out, 1 << 26, &got, &n, &e), e);
        if (!want) {
            want = got;
            n_want = n;
            continue;
        }
        assert_int_equal(n, n_want);
        assert_memory_equal(got, want, n);
        free(got);
    }
    dm_par_set_threads(0);
    free(want);
    free(out);
    corpus_release(&c);
}

/* Within one rounding to float. */
static void assert_ratio(float got, double want)
{
    assert_true(fabs((double)got - want) <= 6e-8 * want);
}

static void test_ratios_are_equation_3_by_hand(void **state)
{
    (void)state;
    // documents 1 2 1 2 3 | 2 1: c(1) = 3, c(2) = 3, c(3) = 1; N1 = 7, N2 = 5, N3 = 3
    static const int32_t ids[] = {1, 2, 1, 2, 3, 0, 2, 1};
    struct dm_cooc_stats s;
    struct dm_cooc t;
    struct dm_err e;
    char *shard = make_shard("hand.h5", ids, 8, 4, HASH), *out = scratch("t.h5");
    struct dm_cooc_opt o = options((const char *const *)&shard, 1, out);
    assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
    for (size_t threads = 1; threads <= 3; threads++) {
        dm_par_set_threads(threads);
        assert_ok(dm_cooc_load(&t, out, &e), e);
        assert_int_equal(t.N[0], 7);
        assert_int_equal(t.N[1], 5);
        assert_int_equal(t.N[2], 3);
        // (1,2) twice, (2,1) twice, (2,3) once
        assert_ratio(dm_cooc_r2(&t, 1, 2), (2.0 / 5) / (3.0 / 7 * 3.0 / 7));
        assert_ratio(dm_cooc_r2(&t, 2, 1), (2.0 / 5) / (3.0 / 7 * 3.0 / 7));
        assert_ratio(dm_cooc_r2(&t, 2, 3), (1.0 / 5) / (3.0 / 7 * 1.0 / 7));
        // (1,2,1), (2,1,2), (1,2,3) once each
        assert_ratio(dm_cooc_r3(&t, 1, 2, 1), (1.0 / 3) / (27.0 / 343));
        assert_ratio(dm_cooc_r3(&t, 2, 1, 2), (1.0 / 3) / (27.0 / 343));
        assert_ratio(dm_cooc_r3(&t, 1, 2, 3), (1.0 / 3) / (9.0 / 343));
        // (3,2) would span the separator; 7 and 4 are no ids
        assert_true(dm_cooc_r2(&t, 3, 2) == 0.0f);
        assert_true(dm_cooc_r2(&t, 4, 1) == 0.0f);
        assert_true(dm_cooc_r3(&t, 1, 2, 7) == 0.0f);
        assert_true(dm_cooc_r3(&t, 3, 2, 1) == 0.0f);
        assert_int_equal(dm_cooc_find(&t, UINT32_MAX, 1), SIZE_MAX);
        assert_int_equal(dm_cooc_find3(&t, SIZE_MAX, 1), SIZE_MAX);
        dm_cooc_release(&t);
    }
    dm_par_set_threads(0);
    free(shard);
    free(out);
}

/* A budget of eight bytes per pair and triplet. */
struct budget {
    size_t bytes, asked;
};

static enum dm_status within(void *ctx, const struct dm_cooc_tally *t, bool *fits, struct dm_err *e)
{
    struct budget *b = ctx;
    (void)e;
    b->asked++;
    *fits = 8 * (t->kept[0] + t->kept[1]) <= b->bytes;
    return DM_OK;
}

/* What dm_cooc_prune() found for a budget is enough, and one step less is not. */
static void assert_smallest(const struct dm_ngram *g, const uint64_t min[2], size_t bytes)
{
    struct budget b = {.bytes = bytes};
    struct dm_cooc_tally t, less;
    struct dm_err e;
    bool met, fits;
    assert_ok(dm_cooc_prune(g, min, within, &b, &t, &met, &e), e);
    assert_true(met);
    assert_in_range(b.asked, 1, 40);
    assert_in_range(8 * (t.kept[0] + t.kept[1]), 0, bytes);
    assert_true(t.min_count[0] >= min[0] && t.min_count[1] >= min[1]);
    const size_t level = t.min_count[0] > min[0] ? 0 : 1;
    if (level == 0)
        assert_int_equal(t.kept[1], 0); // pairs go last
    if (t.min_count[level] == min[level])
        return;
    uint64_t one_less[2] = {t.min_count[0], t.min_count[1]};
    one_less[level]--;
    dm_cooc_count(g, one_less, &less);
    assert_ok(within(&b, &less, &fits, &e), e);
    assert_false(fits);
}

static void test_size_budget_is_met_with_the_smallest_minimum_counts(void **state)
{
    (void)state;
    static const uint64_t one[2] = {1, 1}, some[2] = {2, 3};
    struct corpus c;
    struct dm_err e;
    struct dm_ngram *g;
    struct dm_cooc_tally all, t;
    bool met;
    corpus_init(&c);
    assert_ok(dm_ngram_new(&g, V, 3, DM_NGRAM_MIN_MEMORY, &e), e);
    for (size_t i = 0; i < SHARDS; i++)
        assert_ok(dm_ngram_add(g, c.ids[i], c.n[i], 0, &e), e);
    assert_ok(dm_ngram_finish(g, &e), e);
    dm_cooc_count(g, one, &all);
    const size_t whole = 8 * (all.kept[0] + all.kept[1]);
    for (size_t bytes = 0; bytes <= whole + 8; bytes += 1 + whole / 30) {
        assert_smallest(g, one, bytes);
        assert_smallest(g, some, bytes);
    }
    struct budget b = {.bytes = whole};
    assert_ok(dm_cooc_prune(g, one, within, &b, &t, &met, &e), e);
    assert_memory_equal(&t, &all, sizeof(t));
    b.bytes = whole - 1;
    assert_ok(dm_cooc_prune(g, one, within, &b, &t, &met, &e), e);
    assert_int_equal(t.min_count[1], 2);
    dm_ngram_free(g);
    corpus_release(&c);
}

static void test_file_is_no_larger_than_max_size_and_says_the_rule(void **state)
{
    (void)state;
    static const size_t budget[] = {12000, 14000, 18000, 21000, 1000000};
    struct corpus c;
    struct dm_err e;
    corpus_init(&c);
    struct dense *d = dense_count(&c);
    char *out = scratch("t.h5");
    struct dm_cooc_opt o = options((const char *const *)c.path, SHARDS, out);
    size_t last = 0;
    for (size_t i = 0; i < sizeof(budget) / sizeof(budget[0]); i++) {
        struct dm_cooc_stats s;
        struct dm_cooc t;
        json_t *root;
        size_t min3;
        o.max_size = budget[i];
        assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
        assert_in_range(s.file_bytes, 1, budget[i]);
        assert_ok(dm_cooc_load(&t, out, &e), e);
        assert_table(&t, d, s.min_count[0], s.min_count[1]);
        assert_true(t.n_pairs + t.n_triplets >= last); // a larger budget is used
        last = t.n_pairs + t.n_triplets;
        assert_ok(dm_json_parse(t.provenance, strlen(t.provenance), out, &root, &e), e);
        const json_t *pruning = json_object_get(root, "pruning");
        assert_ok(dm_json_size(pruning, "min_count3", 1, SIZE_MAX, true, out, &min3, &e), e);
        assert_int_equal(min3, s.min_count[1]);
        assert_int_equal(json_integer_value(json_object_get(pruning, "max_size")), budget[i]);
        assert_int_equal(json_array_size(json_object_get(root, "shards")), SHARDS);
        json_decref(root);
        dm_cooc_release(&t);
    }
    struct dm_cooc_stats s;
    o.max_size = 1000;
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "even without any pair"));
    struct dm_cooc before; // is left alone
    assert_ok(dm_cooc_load(&before, out, &e), e);
    dm_cooc_release(&before);
    free(out);
    free(d);
    corpus_release(&c);
}

static void test_order_2_has_pairs_only(void **state)
{
    (void)state;
    struct corpus c;
    struct dm_cooc_stats s;
    struct dm_cooc t;
    struct dm_err e;
    corpus_init(&c);
    struct dense *d = dense_count(&c);
    memset(d->c3, 0, sizeof(d->c3));
    d->N[2] = 0;
    char *out = scratch("t.h5");
    struct dm_cooc_opt o = options((const char *const *)c.path, SHARDS, out);
    o.order = 2;
    assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
    assert_ok(dm_cooc_load(&t, out, &e), e);
    assert_int_equal(t.order, 2);
    assert_table(&t, d, 1, 1);
    dm_cooc_release(&t);
    free(out);
    free(d);
    corpus_release(&c);
}

static void test_empty_shard_gives_an_empty_table(void **state)
{
    (void)state;
    static const int32_t ids[2];
    for (size_t n = 0; n <= 2; n++) {
        struct dm_cooc_stats s;
        struct dm_cooc t;
        struct dm_err e;
        char *shard = make_shard("empty.h5", ids, n, 4, HASH), *out = scratch("t.h5");
        struct dm_cooc_opt o = options((const char *const *)&shard, 1, out);
        assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
        assert_ok(dm_cooc_load(&t, out, &e), e);
        assert_int_equal(t.n_pairs + t.n_triplets + t.N[0], 0);
        assert_true(dm_cooc_r2(&t, 1, 1) == 0.0f);
        dm_cooc_release(&t);
        free(shard);
        free(out);
    }
}

static void test_wrong_shards_and_options_are_refused(void **state)
{
    (void)state;
    static const int32_t ids[] = {1, 2, 3};
    struct dm_cooc_stats s;
    struct dm_err e;
    char *out = scratch("never.h5");
    char *path[3] = {make_shard("a.h5", ids, 3, 4, HASH), make_shard("b.h5", ids, 3, 4, OTHER),
                     make_shard("c.h5", ids, 3, 5, HASH)};
    struct dm_cooc_opt o = options((const char *const *)path, 2, out);
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_EMISMATCH);
    assert_non_null(strstr(e.msg, "b.h5: made with tokenizer ff1122334455"));
    free(path[1]);
    path[1] = strdup(path[2]);
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_EMISMATCH);
    assert_non_null(strstr(e.msg, "vocabulary of 5 ids"));
    free(path[1]);
    path[1] = scratch("missing.h5");
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_EIO);

    o = options((const char *const *)path, 0, out);
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_ERANGE);
    o.n_shards = 1;
    o.order = 4;
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_ERANGE);
    o.order = 3;
    o.min_count[1] = 0;
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_ERANGE);
    o.min_count[1] = 1;
    o.memory = 1;
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_ERANGE);
    assert_int_equal(access(out, F_OK), -1);
    for (size_t i = 0; i < 3; i++)
        free(path[i]);
    free(out);
}

static void test_escaped_bytes_fit_on_one_line(void **state)
{
    (void)state;
    static const char bytes[] = "a\\\n\t\r\xc3\xa9\xff\xe2\x82 \xc2\x85\0z";
    char *text = dm_cooc_escape(bytes, sizeof(bytes) - 1);
    assert_string_equal(text, "a\\\\\\n\\t\\x0d\xc3\xa9\\xff\\xe2\\x82 \\xc2\\x85\\x00z");
    free(text);
    text = dm_cooc_escape(NULL, 0);
    assert_string_equal(text, "");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_equals_a_naive_count),
        cmocka_unit_test(test_minimum_counts_keep_exactly_what_they_say),
        cmocka_unit_test(test_threads_and_shard_order_give_the_same_bytes),
        cmocka_unit_test(test_ratios_are_equation_3_by_hand),
        cmocka_unit_test(test_size_budget_is_met_with_the_smallest_minimum_counts),
        cmocka_unit_test(test_file_is_no_larger_than_max_size_and_says_the_rule),
        cmocka_unit_test(test_order_2_has_pairs_only),
        cmocka_unit_test(test_empty_shard_gives_an_empty_table),
        cmocka_unit_test(test_wrong_shards_and_options_are_refused),
        cmocka_unit_test(test_escaped_bytes_fit_on_one_line),
    };
    return cmocka_run_group_tests_name("cooc", tests, NULL, NULL);
}
