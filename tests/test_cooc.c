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
#include "data/ngram.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/io/cooc.h"
#include "src/io/h5.h"
#include "src/io/shard.h"
#include "tests/tablet.h"

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
    return (struct dm_cooc_opt){.inputs = shards,
                                .n_inputs = n,
                                .out = out,
                                .order = 3,
                                .rule = {.min_count = {1, 1, 1}},
                                .memory = DM_COOC_MIN_MEMORY};
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
    assert_memory_equal(t->N, d->N, sizeof(d->N));
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
            }
            triplets += kept;
            const bool keep = kept || (d->c2[x][y] && d->c2[x][y] >= min2);
            assert_int_equal(p != SIZE_MAX, keep);
            pairs += keep;
            if (keep)
                assert_int_equal(t->c2[p], d->c2[x][y]);
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
    assert_int_equal(s.tally[2].total, d->N[2]);
    assert_int_equal(s.tally[1].kept, t.n_pairs);
    assert_int_equal(s.tally[2].distinct, t.n_triplets);
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
        memcpy(o.rule.min_count, min[i], sizeof(min[i]));
        assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
        assert_ok(dm_cooc_load(&t, out, &e), e);
        assert_table(&t, d, min[i][0], min[i][1]);
        assert_memory_equal(t.min_count, min[i], sizeof(min[i]));
        assert_int_equal(t.complete, false);
        assert_int_equal(s.tally[2].kept, t.n_triplets);
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
static void assert_ratio(double got, double want)
{
    assert_true(fabs(got - want) <= 0x1p-8 * want);
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
        assert_ok(dm_cooc_index(&t, &e), e);
        assert_int_equal(t.N[0], 7);
        assert_int_equal(t.N[1], 5);
        assert_int_equal(t.N[2], 3);
        // (1,2) twice, (2,1) twice, (2,3) once
        assert_ratio(stored_r2(&t, 1, 2), (2.0 / 5) / (3.0 / 7 * 3.0 / 7));
        assert_ratio(stored_r2(&t, 2, 1), (2.0 / 5) / (3.0 / 7 * 3.0 / 7));
        assert_ratio(stored_r2(&t, 2, 3), (1.0 / 5) / (3.0 / 7 * 1.0 / 7));
        // (1,2,1), (2,1,2), (1,2,3) once each
        assert_ratio(stored_r3(&t, 1, 2, 1), (1.0 / 3) / (27.0 / 343));
        assert_ratio(stored_r3(&t, 2, 1, 2), (1.0 / 3) / (27.0 / 343));
        assert_ratio(stored_r3(&t, 1, 2, 3), (1.0 / 3) / (9.0 / 343));
        // (3,2) would span the separator; 7 and 4 are no ids
        assert_true(stored_r2(&t, 3, 2) == 0.0f);
        assert_true(stored_r2(&t, 4, 1) == 0.0f);
        assert_true(stored_r3(&t, 1, 2, 7) == 0.0f);
        assert_true(stored_r3(&t, 3, 2, 1) == 0.0f);
        assert_int_equal(dm_cooc_find(&t, UINT32_MAX, 1), SIZE_MAX);
        assert_int_equal(dm_cooc_find3(&t, SIZE_MAX, 1), SIZE_MAX);
        dm_cooc_release(&t);
    }
    dm_par_set_threads(0);
    free(shard);
    free(out);
}

/* |log r| * count, DynaMo eq. 3 from the dense counts; z = 0 for a pair. */
static double weight(const struct dense *d, uint32_t x, uint32_t y, uint32_t z)
{
    const uint32_t c = z ? d->c3[x][y][z] : d->c2[x][y];
    const double n1 = (double)d->N[0];
    double p = (double)d->c1[x] / n1 * (d->c1[y] / n1);
    p *= z ? d->c1[z] / n1 : 1.0;
    return c ? c * fabs(log(c / (double)d->N[z ? 2 : 1] / p)) : 0.0;
}

/* The table holds what has the score, and what begins such. */
static void assert_scored(const struct dm_cooc *t, const struct dense *d, double least)
{
    size_t pairs = 0, triplets = 0;
    for (uint32_t x = 1; x < V; x++)
        for (uint32_t y = 1; y < V; y++) {
            size_t below = 0;
            const size_t p = dm_cooc_find(t, x, y);
            for (uint32_t z = 1; z < V; z++) {
                const bool keep = d->c3[x][y][z] && weight(d, x, y, z) >= least;
                const size_t at = dm_cooc_find3(t, p, z);
                assert_int_equal(at != SIZE_MAX, keep);
                if (keep)
                    assert_int_equal(t->c3[at], d->c3[x][y][z]);
                below += keep;
            }
            const bool keep = below || (d->c2[x][y] && weight(d, x, y, 0) >= least);
            assert_int_equal(p != SIZE_MAX, keep);
            if (keep)
                assert_int_equal(t->c2[p], d->c2[x][y]);
            pairs += keep;
            triplets += below;
        }
    assert_int_equal(t->n_pairs, pairs);
    assert_int_equal(t->n_triplets, triplets);
}

static void test_file_is_no_larger_than_max_bytes_and_says_the_rule(void **state)
{
    (void)state;
    static const size_t budget[] = {11000, 13000, 16000, 40000, 1000000};
    struct corpus c;
    struct dm_err e;
    corpus_init(&c);
    struct dense *d = dense_count(&c);
    char *out = scratch("t.h5");
    struct dm_cooc_opt o = options((const char *const *)c.path, SHARDS, out);
    for (size_t i = 0; i < 2 * sizeof(budget) / sizeof(budget[0]); i++) {
        struct dm_cooc_stats s;
        struct dm_cooc t;
        json_t *root;
        o.max_bytes = budget[i / 2];
        o.rule.by_weight = i % 2;
        assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
        assert_in_range(s.file_bytes, 1, o.max_bytes);
        assert_ok(dm_cooc_load(&t, out, &e), e);
        if (i % 2) {
            assert_scored(&t, d, s.rule.min_score);
            if (i / 2 < 3) // as much as fits
                assert_in_range(s.file_bytes, o.max_bytes / 10 * 9, o.max_bytes);
        } else {
            const uint64_t least = s.rule.min_score > 1.0 ? (uint64_t)ceil(s.rule.min_score) : 1;
            assert_table(&t, d, least, least);
        }
        assert_int_equal(t.complete, s.rule.min_score == 0.0);
        assert_ok(dm_json_parse(t.provenance, strlen(t.provenance), out, &root, &e), e);
        const json_t *pruning = json_object_get(root, "pruning");
        assert_true(json_real_value(json_object_get(pruning, "min_score")) == s.rule.min_score);
        assert_string_equal(json_string_value(json_object_get(pruning, "score")),
                            i % 2 ? "weight" : "count");
        assert_int_equal(json_integer_value(json_object_get(pruning, "max_bytes")), o.max_bytes);
        assert_int_equal(json_array_size(json_object_get(root, "inputs")), SHARDS);
        json_decref(root);
        dm_cooc_release(&t);
    }
    struct dm_cooc_stats s;
    o.max_bytes = 1000;
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "even without any pair"));
    struct dm_cooc before; // is left alone
    assert_ok(dm_cooc_load(&before, out, &e), e);
    dm_cooc_release(&before);
    free(out);
    free(d);
    corpus_release(&c);
}

/* Everything of two tables but their provenance. */
static void assert_same_table(const struct dm_cooc *a, const struct dm_cooc *b)
{
    assert_int_equal(a->n_pairs, b->n_pairs);
    assert_int_equal(a->n_triplets, b->n_triplets);
    assert_int_equal(a->n_quads, b->n_quads);
    assert_memory_equal(a->N, b->N, sizeof(a->N));
    assert_memory_equal(a->ones, b->ones, sizeof(a->ones));
    assert_memory_equal(a->twos, b->twos, sizeof(a->twos));
    assert_memory_equal(a->c1, b->c1, V * sizeof(*a->c1));
    assert_memory_equal(a->row, b->row, (V + 1) * sizeof(*a->row));
    assert_memory_equal(a->x2, b->x2, a->n_pairs * sizeof(*a->x2));
    assert_memory_equal(a->c2, b->c2, a->n_pairs * sizeof(*a->c2));
    assert_memory_equal(a->sub, b->sub, (a->n_pairs + 1) * sizeof(*a->sub));
    assert_memory_equal(a->x3, b->x3, a->n_triplets * sizeof(*a->x3));
    assert_memory_equal(a->c3, b->c3, a->n_triplets * sizeof(*a->c3));
    if (a->order < 4)
        return;
    assert_memory_equal(a->sub3, b->sub3, (a->n_triplets + 1) * sizeof(*a->sub3));
    assert_memory_equal(a->x4, b->x4, a->n_quads * sizeof(*a->x4));
    assert_memory_equal(a->c4, b->c4, a->n_quads * sizeof(*a->c4));
}

static void test_merged_parts_are_the_whole(void **state)
{
    (void)state;
    struct corpus c;
    struct dm_err e;
    struct dm_cooc_stats s;
    corpus_init(&c);
    char *out = scratch("whole.h5"), *merged = scratch("merged.h5"), *part[SHARDS];
    for (size_t order = 2; order <= 4; order++)
        for (size_t pruned = 0; pruned < 3; pruned++) {
            struct dm_cooc a, b;
            struct dm_cooc_opt o = options((const char *const *)c.path, SHARDS, out);
            o.order = order;
            o.max_bytes = pruned == 2 ? 25000 : 0;
            o.rule.by_weight = pruned == 2;
            o.rule.min_count[1] = 1 + pruned % 2;
            assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
            for (size_t i = 0; i < SHARDS; i++) {
                char name[16];
                snprintf(name, sizeof(name), "part%zu.h5", i);
                part[i] = scratch(name);
                struct dm_cooc_opt p = options((const char *const *)&c.path[i], 1, part[i]);
                p.order = order;
                assert_ok(dm_cooc_build(&p, NULL, &s, &e), e);
            }
            struct dm_cooc_opt m = o;
            m.inputs = (const char *const *)part;
            m.out = merged;
            m.order = 2; // tables say their own
            assert_ok(dm_cooc_merge(&m, NULL, &s, &e), e);
            assert_ok(dm_cooc_load(&a, out, &e), e);
            assert_ok(dm_cooc_load(&b, merged, &e), e);
            assert_int_equal(b.order, order);
            assert_true(b.n_pairs > 100);
            assert_same_table(&a, &b);
            dm_cooc_release(&a);
            dm_cooc_release(&b);
            for (size_t i = 0; i < SHARDS; i++)
                free(part[i]);
        }
    // a pruned one is no part
    const char *pruned = merged;
    struct dm_cooc_opt o = options(&pruned, 1, out);
    assert_int_equal(dm_cooc_merge(&o, NULL, &s, &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "merged.h5: a pruned table"));
    // nor is one of version 1: the sentence names the way out
    struct dm_h5 *f;
    assert_ok(dm_h5_create(&f, merged, DM_COOC_FORMAT, 1, &e), e);
    assert_ok(dm_h5_commit(f, &e), e);
    assert_int_equal(dm_cooc_merge(&o, NULL, &s, &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "version 1"));
    assert_non_null(strstr(e.msg, "count its shards again"));
    free(out);
    free(merged);
    corpus_release(&c);
}

static void test_quadruples_equal_a_naive_count(void **state)
{
    (void)state;
    struct corpus c;
    struct dm_err e;
    struct dm_cooc_stats s;
    struct dm_cooc t;
    corpus_init(&c);
    uint32_t(*c4)[V][V][V] = calloc(V, sizeof(*c4));
    uint64_t total = 0;
    for (size_t k = 0; k < SHARDS; k++)
        for (size_t i = 0; i + 3 < c.n[k]; i++) {
            const int32_t *x = c.ids[k] + i;
            if (!x[0] || !x[1] || !x[2] || !x[3])
                continue;
            c4[x[0]][x[1]][x[2]][x[3]]++;
            total++;
        }
    char *out = scratch("t.h5");
    struct dm_cooc_opt o = options((const char *const *)c.path, SHARDS, out);
    o.order = 4;
    assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
    assert_ok(dm_cooc_load(&t, out, &e), e);
    assert_int_equal(t.N[3], total);
    uint64_t sum = 0;
    for (uint32_t x = 0; x < V; x++)
        for (size_t p = t.row[x]; p < t.row[x + 1]; p++)
            for (size_t q = t.sub[p]; q < t.sub[p + 1]; q++)
                for (size_t i = t.sub3[q]; i < t.sub3[q + 1]; i++) {
                    assert_int_equal(t.c4[i], c4[x][t.x2[p]][t.x3[q]][t.x4[i]]);
                    sum += t.c4[i];
                }
    assert_int_equal(sum, total); // so nothing is missing
    dm_cooc_release(&t);
    free(c4);
    free(out);
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
        dm_cooc_release(&t);
        assert_ok(dm_cooc_load_ratios(&t, out, &e), e);
        assert_true(stored_r2(&t, 1, 1) == 0);
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
    o.n_inputs = 1;
    o.order = 5;
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_ERANGE);
    o.order = 3;
    o.rule.min_count[1] = 0;
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_ERANGE);
    o.rule.min_count[1] = 1;
    o.memory = 1;
    assert_int_equal(dm_cooc_build(&o, NULL, &s, &e), DM_ERANGE);
    assert_int_equal(access(out, F_OK), -1);
    for (size_t i = 0; i < 3; i++)
        free(path[i]);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_equals_a_naive_count),
        cmocka_unit_test(test_minimum_counts_keep_exactly_what_they_say),
        cmocka_unit_test(test_threads_and_shard_order_give_the_same_bytes),
        cmocka_unit_test(test_ratios_are_equation_3_by_hand),
        cmocka_unit_test(test_file_is_no_larger_than_max_bytes_and_says_the_rule),
        cmocka_unit_test(test_merged_parts_are_the_whole),
        cmocka_unit_test(test_quadruples_equal_a_naive_count),
        cmocka_unit_test(test_order_2_has_pairs_only),
        cmocka_unit_test(test_empty_shard_gives_an_empty_table),
        cmocka_unit_test(test_wrong_shards_and_options_are_refused),
    };
    return cmocka_run_group_tests_name("cooc", tests, NULL, NULL);
}
