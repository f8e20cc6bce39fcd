/* SPDX-License-Identifier: MIT */
/* Sequences of token shards: each once per epoch, the split, weights, positions, what is refused.
 */
#include "tests/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/io/shard.h"
#include "train/loader.h"
#include "train/split.h"

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

enum { T = 5, V = 70000, DOC = 23 };

/* Ids first, first+1, ..., so that every token tells where it comes from, with a separator in the
 * place of every DOC-th. */
static const char *shard(const char *name, int32_t first, size_t n, const char *hash, size_t vocab)
{
    struct dm_shard_writer *w;
    struct dm_err e;
    const char *path = tmp_path(name);
    int32_t *ids = malloc(n * sizeof(*ids));
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = i % DOC == DOC - 1 ? 0 : first + (int32_t)i;
    assert_ok(dm_shard_create(&w, path, vocab, "{}", hash, "{}", &e), e);
    assert_ok(dm_shard_append(w, ids, n, &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
    free(ids);
    return path;
}

static struct dm_loader_opt options(const char *const *data, size_t n)
{
    return (struct dm_loader_opt){.data = data,
                                  .n_data = n,
                                  .val_fraction = 0.1,
                                  .T = T,
                                  .seed = 3,
                                  .V = V,
                                  .tokenizer_hash = HASH_A,
                                  .cache_bytes = 1 << 20};
}

/* Tokens of two shards, the second one with ids that take 32 bits; a name that outlives tmp_path's
 * ring. */
enum { ONE = 1008, TWO = 404, SECOND = 66000 };
static char one[600], two[600];
static const char *const both[] = {one, two};

static int setup(void **state)
{
    (void)state;
    snprintf(one, sizeof(one), "%s", shard("one.h5", 1, ONE, HASH_A, 5000));
    snprintf(two, sizeof(two), "%s", shard("two.h5", SECOND, TWO, HASH_A, V));
    return 0;
}

static struct dm_loader *opened(const struct dm_loader_opt *o)
{
    struct dm_loader *l;
    struct dm_err e;
    assert_ok(dm_loader_new(&l, o, &e), e);
    return l;
}

/* Counts the ids of n sequences. */
static void count(size_t *seen, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n * T; i++)
        seen[ids[i]] += ids[i] != 0;
}

static void test_an_epoch_sees_every_training_token_once(void **state)
{
    (void)state;
    static size_t train[2][V], val[V];
    static int32_t ids[2][400 * T];
    struct dm_err e;
    memset(train, 0, sizeof(train));
    memset(val, 0, sizeof(val));
    const struct dm_loader_opt o = options(both, 2);
    struct dm_loader *l = opened(&o);
    const size_t n = dm_loader_train_windows(l), held = dm_loader_val_windows(l);
    assert_ok(dm_loader_val(l, 0, held, ids[0], &e), e);
    count(val, ids[0], held);
    for (size_t epoch = 0; epoch < 2; epoch++) {
        assert_ok(dm_loader_read(l, epoch * n, n, ids[epoch], &e), e);
        count(train[epoch], ids[epoch], n);
    }
    size_t trained = 0, validated = 0, same = 0;
    for (size_t i = 0; i < V; i++) {
        assert_true(train[0][i] + val[i] <= 1);
        assert_int_equal(train[0][i], train[1][i]);
        trained += train[0][i];
        validated += val[i];
    }
    // But for separators and less than a sequence per shard, all of it.
    assert_true(trained + validated > (ONE + TWO) * (DOC - 1) / DOC - 4 * T);
    assert_true(validated >= (ONE + TWO) / 10 - 2 * T - 8 &&
                validated < (ONE + TWO) / 10 + 2 * DOC);
    for (size_t i = 0; i < n; i++)
        same += !memcmp(ids[0] + i * T, ids[1] + i * T, T * sizeof(int32_t));
    assert_true(same < n / 10); // another order in each epoch
    dm_loader_free(l);
}

static enum dm_status from_memory(void *ctx, int32_t *ids, size_t start, size_t n, struct dm_err *e)
{
    (void)e;
    memcpy(ids, (const int32_t *)ctx + start, n * sizeof(*ids));
    return DM_OK;
}

static void test_documents_are_held_out_whole(void **state)
{
    (void)state;
    struct dm_pieces train, val;
    struct dm_err e;
    struct dm_shard *s;
    int32_t *ids = malloc(ONE * sizeof(*ids)), *got = malloc(ONE * sizeof(*got));
    assert_ok(dm_shard_open(&s, one, &e), e);
    assert_ok(dm_shard_read(s, ids, 0, ONE, &e), e);
    dm_shard_close(s);
    assert_ok(dm_split(&train, &val, ONE, 0, 0.1, T, from_memory, ids, &e), e);
    assert_int_equal(train.tokens + val.tokens, ONE);
    assert_true(val.tokens >= ONE / 10 && val.tokens < ONE / 10 + DOC);
    for (size_t i = 0; i < val.n; i++)
        assert_int_equal(val.piece[i].begin % DOC, 0);
    assert_ok(dm_pieces_read(&val, got, 0, val.tokens, from_memory, ids, &e), e);
    for (size_t i = 0; i < val.tokens; i++)
        assert_int_equal(got[i] == 0, i % DOC == DOC - 1);
    // Any range of a stream is that part of the whole.
    assert_ok(dm_pieces_read(&train, got, 0, train.tokens, from_memory, ids, &e), e);
    for (size_t at = 0; at + 41 < train.tokens; at += 37) {
        int32_t part[41];
        assert_ok(dm_pieces_read(&train, part, at, 41, from_memory, ids, &e), e);
        assert_memory_equal(part, got + at, sizeof(part));
    }
    dm_pieces_release(&train);
    dm_pieces_release(&val);
    // One document of more than a fifth always trains; the same where the separator is no target.
    for (size_t i = 0; i < 800; i++)
        ids[i] = 1;
    ids[799] = ~0;
    assert_ok(dm_split(&train, &val, ONE, 0, 0.9, T, from_memory, ids, &e), e);
    assert_int_equal(train.tokens, 800);
    assert_int_equal(train.n, 1);
    dm_pieces_release(&train);
    dm_pieces_release(&val);
    // A single document gives its end.
    assert_ok(dm_split(&train, &val, 700, 0, 0.1, T, from_memory, ids, &e), e);
    assert_int_equal(train.tokens, 630);
    assert_int_equal(val.tokens, 70);
    assert_int_equal(val.piece[0].begin, 630);
    dm_pieces_release(&train);
    dm_pieces_release(&val);
    free(ids);
    free(got);
}

/* Sequences [0, 300) at once, in parts of 7, by range, and with a thread that reads ahead. */
static void same_sequences(struct dm_loader_opt o)
{
    static int32_t whole[300 * T], part[300 * T];
    struct dm_err e;
    struct dm_loader *l = opened(&o);
    assert_ok(dm_loader_read(l, 0, 300, whole, &e), e);
    for (size_t ahead = 0; ahead < 3; ahead++) {
        for (size_t i = 0; i < 300; i += 7) {
            const size_t n = 300 - i < 7 ? 300 - i : 7;
            assert_ok(dm_loader_read(l, i, n, part + i * T, &e), e);
            if (ahead) // wrongly every third time
                dm_loader_prefetch(l, i + 7 + (i % 3 == 0), 7);
            if (i % 5 == 0)
                dm_loader_quiet(l);
        }
        assert_memory_equal(whole, part, sizeof(whole));
        if (ahead < 1)
            continue;
        dm_loader_free(l);
        o.cache_bytes = 0;
        l = opened(&o);
    }
    assert_ok(dm_loader_read(l, 123, 50, part, &e), e); // from the middle
    assert_memory_equal(whole + 123 * T, part, 50 * T * sizeof(*part));
    dm_loader_free(l);
}

static void test_every_way_to_read_gives_the_same(void **state)
{
    (void)state;
    static const double weight[] = {0.7, 0.3};
    struct dm_loader_opt o = options(both, 2);
    same_sequences(o);
    o.weight = weight;
    same_sequences(o);
}

static void test_weights_are_shares_of_the_sequences(void **state)
{
    (void)state;
    static const double weight[] = {2.0, 1.0};
    static int32_t ids[3 * 4096 * T];
    static size_t seen[V];
    struct dm_err e;
    struct dm_loader_opt o = options(both, 2);
    memset(seen, 0, sizeof(seen));
    o.weight = weight;
    o.val_fraction = 0.0;
    struct dm_loader *l = opened(&o);
    assert_int_equal(dm_loader_train_windows(l), ONE / T + TWO / T);
    assert_ok(dm_loader_read(l, 0, 3 * 4096, ids, &e), e);
    size_t second[3] = {0};
    for (size_t i = 0; i < 3 * 4096; i++) {
        const int32_t id = ids[i * T] ? ids[i * T] : ids[i * T + 1];
        second[i / 4096] += id >= SECOND;
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(second[i], 1365); // 4096 / 3
    // Each shard is used evenly.
    count(seen, ids, 3 * 4096);
    for (size_t i = 0; i < V; i++) {
        const size_t used = i < SECOND ? 3 * 2731 / (ONE / T) : 3 * 1365 / (TWO / T);
        assert_true(!seen[i] || seen[i] == used || seen[i] == used + 1);
    }
    dm_loader_free(l);
}

static void test_the_seed_orders_but_does_not_split(void **state)
{
    (void)state;
    struct dm_err e;
    static int32_t x[100 * T], y[100 * T];
    struct dm_loader_opt o = options(both, 2);
    struct dm_loader *a = opened(&o);
    o.seed = 4;
    struct dm_loader *b = opened(&o);
    assert_ok(dm_loader_val(a, 0, 14, x, &e), e);
    assert_ok(dm_loader_val(b, 0, 14, y, &e), e);
    assert_memory_equal(x, y, 14 * T * sizeof(*x));
    assert_ok(dm_loader_read(a, 0, 100, x, &e), e);
    assert_ok(dm_loader_read(b, 0, 100, y, &e), e);
    assert_memory_not_equal(x, y, sizeof(x));
    dm_loader_free(a);
    dm_loader_free(b);
}

static void test_held_out_shards_replace_the_split(void **state)
{
    (void)state;
    static size_t seen[V];
    static int32_t ids[100 * T];
    struct dm_err e;
    struct dm_loader_opt o = options(both, 1);
    o.val = both + 1;
    o.n_val = 1;
    struct dm_loader *l = opened(&o);
    assert_int_equal(dm_loader_train_windows(l), ONE / T);
    assert_int_equal(dm_loader_val_windows(l), TWO / T);
    assert_ok(dm_loader_val(l, 0, TWO / T, ids, &e), e);
    count(seen, ids, TWO / T);
    for (size_t i = 0; i < V; i++)
        assert_true(!seen[i] || (seen[i] == 1 && i >= SECOND));
    dm_loader_free(l);
    o.n_val = 0;
    o.val_fraction = 0.0;
    l = opened(&o);
    assert_int_equal(dm_loader_val_windows(l), 0);
    assert_int_equal(dm_loader_train_windows(l), ONE / T);
    dm_loader_free(l);
}

static void refused(const struct dm_loader_opt *o, enum dm_status want, const char *part)
{
    struct dm_loader *l;
    struct dm_err e;
    assert_int_equal(dm_loader_new(&l, o, &e), want);
    assert_null(l);
    if (!strstr(e.msg, part))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, part);
}

static void test_shards_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    const char *good = one;
    const char *const other[] = {good, shard("other.h5", 1, 100, HASH_B, V)};
    const char *const few[] = {shard("few.h5", 1, 4, HASH_A, V)};
    const char *const single[] = {shard("single.h5", 1, 9, HASH_A, V)};
    static const double weight[] = {1.0};
    const char *const missing[] = {tmp_path("missing.h5")};
    struct dm_loader_opt o = options(other, 2);
    refused(&o, DM_EMISMATCH, "other.h5: made with tokenizer bbbb");
    o.n_data = 1;
    o.val = other + 1;
    o.n_val = 1;
    refused(&o, DM_EMISMATCH, "other.h5");
    o = options(few, 1);
    refused(&o, DM_ERANGE, "few.h5: fewer than 5 tokens");
    o.weight = weight;
    refused(&o, DM_ERANGE, "few.h5: fewer than 5 tokens");
    o = options(&good, 1);
    o.val = few;
    o.n_val = 1;
    refused(&o, DM_ERANGE, "few.h5: fewer than 5 tokens");
    o = options(single, 1);
    refused(&o, DM_ERANGE, "too few tokens to hold a sequence of 5 out");
    o = options(missing, 1);
    refused(&o, DM_EIO, "missing.h5");
    o = options(&good, 1);
    o.V = 4999;
    refused(&o, DM_ERANGE, "vocabulary of 5000, more than the model's 4999");
    o.V = 5000;
    o.tokenizer_hash = NULL; // a model without a tokenizer
    struct dm_loader *l;
    struct dm_err e;
    assert_ok(dm_loader_new(&l, &o, &e), e);
    dm_loader_free(l);
}

static void test_loader_reports_short_memory(void **state)
{
    (void)state;
    struct dm_loader *l;
    struct dm_err e;
    size_t n = 1;
    const struct dm_loader_opt o = options(both, 2);
    for (;; n++) {
        dm_alloc_fail_at(n);
        const enum dm_status st = dm_loader_new(&l, &o, &e);
        if (!st)
            break;
        assert_int_equal(st, DM_ENOMEM);
        assert_null(l);
    }
    dm_alloc_fail_at(0);
    assert_true(n > 3);
    dm_loader_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_epoch_sees_every_training_token_once),
        cmocka_unit_test(test_documents_are_held_out_whole),
        cmocka_unit_test(test_every_way_to_read_gives_the_same),
        cmocka_unit_test(test_weights_are_shares_of_the_sequences),
        cmocka_unit_test(test_the_seed_orders_but_does_not_split),
        cmocka_unit_test(test_held_out_shards_replace_the_split),
        cmocka_unit_test(test_shards_that_do_not_fit_are_refused),
        cmocka_unit_test(test_loader_reports_short_memory),
    };
    return cmocka_run_group_tests_name("train_loader", tests, setup, NULL);
}
