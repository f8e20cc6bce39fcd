/* SPDX-License-Identifier: MIT */
/* Windows of token shards: every one once per epoch, the split, positions, what is refused. */
#include "tests/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/io/shard.h"
#include "train/loader.h"

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

enum { T = 5, V = 5000 };

/* Ids first, first+1, ... so that a window tells where it comes from. */
static const char *shard(const char *name, int32_t first, size_t n, const char *hash)
{
    struct dm_shard_writer *w;
    struct dm_err e;
    const char *path = tmp_path(name);
    int32_t *ids = malloc(n * sizeof(*ids));
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = first + (int32_t)i;
    assert_ok(dm_shard_create(&w, path, V, "{}", hash, "{}", &e), e);
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

/* Two shards: 101 windows and a rest of 3, 40 windows and a rest of 4. */
static void two_shards(const char *path[2])
{
    path[0] = shard("one.h5", 0, 508, HASH_A);
    path[1] = shard("two.h5", 1000, 204, HASH_A);
}

/* Number of a window of two_shards(), which must be whole. */
static size_t window_of(const int32_t *ids)
{
    for (int i = 1; i < T; i++)
        assert_int_equal(ids[i], ids[0] + i);
    const int32_t at = ids[0] < 1000 ? ids[0] : ids[0] - 1000;
    assert_int_equal(at % T, 0);
    return (size_t)(at / T) + (ids[0] < 1000 ? 0 : 101);
}

static void test_an_epoch_sees_every_training_window_once(void **state)
{
    (void)state;
    const char *path[2];
    struct dm_loader *l;
    struct dm_err e;
    struct dm_loader_pos pos = {0};
    int32_t ids[T];
    size_t seen[141] = {0}, order[2][141];
    two_shards(path);
    const struct dm_loader_opt o = options(path, 2);
    assert_ok(dm_loader_new(&l, &o, &e), e);
    const size_t n = dm_loader_train_windows(l), held = dm_loader_val_windows(l);
    assert_int_equal(held, 14);
    assert_int_equal(n, 127);
    for (size_t i = 0; i < held; i++) {
        assert_ok(dm_loader_val(l, i, 1, ids, &e), e);
        seen[window_of(ids)] += 100;
    }
    for (size_t epoch = 0; epoch < 2; epoch++) {
        assert_int_equal(pos.epoch, epoch);
        assert_int_equal(pos.index, 0);
        for (size_t i = 0; i < n; i++) {
            assert_ok(dm_loader_next(l, &pos, ids, 1, &e), e);
            order[epoch][i] = window_of(ids);
            seen[order[epoch][i]]++;
        }
    }
    for (size_t i = 0; i < 141; i++)
        assert_true(seen[i] == 2 || seen[i] == 100);
    // Shuffled, and differently in each epoch: few windows stay at a place or follow each other.
    size_t same = 0, follow = 0;
    for (size_t i = 1; i < n; i++) {
        same += order[0][i] == order[1][i];
        follow += order[0][i] == order[0][i - 1] + 1;
    }
    assert_true(same < 10 && follow < 10);
    dm_loader_free(l);
}

static void test_any_position_can_be_entered(void **state)
{
    (void)state;
    const char *path[2];
    struct dm_loader *l;
    struct dm_err e;
    int32_t whole[200 * T], part[200 * T];
    two_shards(path);
    const struct dm_loader_opt o = options(path, 2);
    assert_ok(dm_loader_new(&l, &o, &e), e);
    struct dm_loader_pos pos = {0};
    assert_ok(dm_loader_next(l, &pos, whole, 200, &e), e);
    assert_int_equal(pos.epoch, 1);
    assert_int_equal(pos.index, 200 - 127);
    pos = (struct dm_loader_pos){0};
    for (size_t i = 0; i < 200; i += 8)
        assert_ok(dm_loader_next(l, &pos, part + i * T, 8, &e), e);
    assert_memory_equal(whole, part, sizeof(whole));
    dm_loader_free(l);
    // A new loader that starts in the middle.
    assert_ok(dm_loader_new(&l, &o, &e), e);
    pos = (struct dm_loader_pos){.index = 100};
    assert_ok(dm_loader_next(l, &pos, part, 100, &e), e);
    assert_memory_equal(whole + 100 * T, part, 100 * T * sizeof(*part));
    dm_loader_free(l);
}

static void test_reading_by_range_gives_the_same(void **state)
{
    (void)state;
    const char *path[2];
    struct dm_loader *cached, *ranged;
    struct dm_err e;
    struct dm_loader_pos p = {0}, q = {0};
    int32_t x[150 * T], y[150 * T];
    two_shards(path);
    struct dm_loader_opt o = options(path, 2);
    assert_ok(dm_loader_new(&cached, &o, &e), e);
    o.cache_bytes = 0;
    assert_ok(dm_loader_new(&ranged, &o, &e), e);
    assert_ok(dm_loader_next(cached, &p, x, 150, &e), e);
    assert_ok(dm_loader_next(ranged, &q, y, 150, &e), e);
    assert_memory_equal(x, y, sizeof(x));
    dm_loader_free(cached);
    dm_loader_free(ranged);
}

static void test_the_seed_orders_but_does_not_split(void **state)
{
    (void)state;
    const char *path[2];
    struct dm_loader *a, *b;
    struct dm_err e;
    struct dm_loader_pos p = {0}, q = {0};
    int32_t x[100 * T], y[100 * T];
    two_shards(path);
    struct dm_loader_opt o = options(path, 2);
    assert_ok(dm_loader_new(&a, &o, &e), e);
    o.seed = 4;
    assert_ok(dm_loader_new(&b, &o, &e), e);
    assert_ok(dm_loader_val(a, 0, 14, x, &e), e);
    assert_ok(dm_loader_val(b, 0, 14, y, &e), e);
    assert_memory_equal(x, y, 14 * T * sizeof(*x));
    assert_ok(dm_loader_next(a, &p, x, 100, &e), e);
    assert_ok(dm_loader_next(b, &q, y, 100, &e), e);
    assert_memory_not_equal(x, y, sizeof(x));
    dm_loader_free(a);
    dm_loader_free(b);
}

static void test_held_out_shards_replace_the_split(void **state)
{
    (void)state;
    const char *path[2];
    struct dm_loader *l;
    struct dm_err e;
    int32_t ids[2 * T];
    two_shards(path);
    struct dm_loader_opt o = options(path, 1);
    o.val = path + 1;
    o.n_val = 1;
    assert_ok(dm_loader_new(&l, &o, &e), e);
    assert_int_equal(dm_loader_train_windows(l), 101);
    assert_int_equal(dm_loader_val_windows(l), 40);
    assert_ok(dm_loader_val(l, 38, 2, ids, &e), e);
    assert_int_equal(window_of(ids), 101 + 38);
    assert_int_equal(window_of(ids + T), 101 + 39);
    dm_loader_free(l);
    o.n_val = 0;
    o.val_fraction = 0.0;
    assert_ok(dm_loader_new(&l, &o, &e), e);
    assert_int_equal(dm_loader_val_windows(l), 0);
    assert_int_equal(dm_loader_train_windows(l), 101);
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
    const char *good = shard("good.h5", 0, 508, HASH_A);
    const char *const other[] = {good, shard("other.h5", 0, 100, HASH_B)};
    const char *const few[] = {shard("few.h5", 0, 4, HASH_A)};
    const char *const single[] = {shard("single.h5", 0, 5, HASH_A)};
    const char *const missing[] = {tmp_path("missing.h5")};
    struct dm_loader_opt o = options(other, 2);
    refused(&o, DM_EMISMATCH, "other.h5: made with tokenizer bbbb");
    o.n_data = 1;
    o.val = other + 1;
    o.n_val = 1;
    refused(&o, DM_EMISMATCH, "other.h5");
    o = options(few, 1);
    refused(&o, DM_ERANGE, "few.h5: fewer than 5 tokens");
    o = options(single, 1);
    refused(&o, DM_ERANGE, "leave none to train on");
    o = options(missing, 1);
    refused(&o, DM_EIO, "missing.h5");
    o = options(&good, 1);
    o.V = V - 1;
    refused(&o, DM_ERANGE, "vocabulary of 5000, more than the model's 4999");
    o.V = V;
    o.tokenizer_hash = NULL; // a model without a tokenizer
    struct dm_loader *l;
    struct dm_err e;
    assert_ok(dm_loader_new(&l, &o, &e), e);
    dm_loader_free(l);
}

static void test_loader_reports_short_memory(void **state)
{
    (void)state;
    const char *path[2];
    struct dm_loader *l;
    struct dm_err e;
    size_t n = 1;
    two_shards(path);
    const struct dm_loader_opt o = options(path, 2);
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
        cmocka_unit_test(test_an_epoch_sees_every_training_window_once),
        cmocka_unit_test(test_any_position_can_be_entered),
        cmocka_unit_test(test_reading_by_range_gives_the_same),
        cmocka_unit_test(test_the_seed_orders_but_does_not_split),
        cmocka_unit_test(test_held_out_shards_replace_the_split),
        cmocka_unit_test(test_shards_that_do_not_fit_are_refused),
        cmocka_unit_test(test_loader_reports_short_memory),
    };
    return cmocka_run_group_tests_name("train_loader", tests, NULL, NULL);
}
