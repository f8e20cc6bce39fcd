/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe_train.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/rng.h"
#include "src/io/tokenizer.h"

static json_t *train(const char *const *texts, size_t n, size_t vocab, uint64_t min_count,
                     struct dm_bpe_stats *stats)
{
    struct dm_bpe_train *b;
    struct dm_err e;
    json_t *root;
    assert_ok(dm_bpe_train_new(&b, &e), e);
    for (size_t i = 0; i < n; i++)
        assert_ok(dm_bpe_train_add(b, texts[i], strlen(texts[i]), &e), e);
    assert_ok(dm_bpe_train_finish(b, vocab, min_count, NULL, NULL, &root, stats, &e), e);
    dm_bpe_train_free(b);
    return root;
}

static const json_t *model_of(const json_t *root, const char *key)
{
    return json_object_get(json_object_get(root, "model"), key);
}

/* tok_small.json was trained by Hugging Face's BpeTrainer on the same text. */
static void test_merges_and_vocabulary_equal_hugging_face(void **state)
{
    (void)state;
    char *text;
    size_t n;
    struct dm_err e;
    struct dm_bpe_stats stats;
    json_t *want, *got;
    assert_ok(dm_file_read("tests/golden/tok_text.txt", 1 << 20, &text, &n, &e), e);
    assert_ok(dm_json_read("tests/golden/tok_small.json", 1 << 20, &want, &e), e);
    got = train((const char *const *)&text, 1, 500, 2, &stats);
    assert_true(json_equal(model_of(got, "vocab"), model_of(want, "vocab")));
    const json_t *a = model_of(got, "merges"), *b = model_of(want, "merges");
    assert_int_equal(json_array_size(a), 242);
    assert_int_equal(json_array_size(b), 242);
    for (size_t i = 0; i < 242; i++) {
        char pair[256];
        const json_t *m = json_array_get(b, i);
        snprintf(pair, sizeof(pair), "%s %s", json_string_value(json_array_get(m, 0)),
                 json_string_value(json_array_get(m, 1)));
        assert_string_equal(json_string_value(json_array_get(a, i)), pair);
    }
    assert_int_equal(stats.vocab, 500);
    assert_int_equal(stats.merges, 242);
    json_decref(want);
    json_decref(got);
    free(text);
}

static void test_order_of_documents_does_not_matter(void **state)
{
    (void)state;
    static const char *const one[] = {"the cat sat", "on the mat, the end", "cat on mat"};
    static const char *const two[] = {"cat on mat", "on the mat, the end", "the cat sat"};
    json_t *a = train(one, 3, 280, 1, NULL), *b = train(two, 3, 280, 1, NULL);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
}

/* Texts of all kinds of white space, and bytes that are not UTF-8, in parts that end at cuts. */
static void test_parts_of_a_document_count_like_the_whole(void **state)
{
    (void)state;
    static const char *const bits[] = {"word",   "a",      " ",      "\n",       "  ",
                                       "\u3000", "\u00a0", "\u0301", "\u3002",   "\xff",
                                       "'s",     "77",     "\t",     "\xc2\x85", "e\u0301"};
    enum { BITS = sizeof(bits) / sizeof(bits[0]) };
    char text[4000];
    struct dm_rng r;
    dm_rng_init(&r, 3, 1);
    for (size_t round = 0; round < 50; round++) {
        struct dm_bpe_train *whole, *parts;
        struct dm_bpe_stats a, b;
        struct dm_err e;
        json_t *want, *got;
        size_t n = 0, cuts = 0;
        for (size_t i = 0; i < 800; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", bits[dm_rng_below(&r, BITS)]);
        assert_ok(dm_bpe_train_new(&whole, &e), e);
        assert_ok(dm_bpe_train_new(&parts, &e), e);
        assert_ok(dm_bpe_train_add(whole, text, n, &e), e);
        for (size_t at = 0; at < n; cuts++) {
            size_t size = at + 40 < n ? 40 : n - at, cut = size;
            while (at + size < n && !(cut = dm_bpe_train_cut(parts, text + at, size)))
                size = at + 2 * size < n ? 2 * size : n - at;
            cut = at + size < n ? cut : size;
            assert_ok(dm_bpe_train_add(parts, text + at, cut, &e), e);
            at += cut;
        }
        assert_true(cuts > 20);
        assert_ok(dm_bpe_train_finish(whole, 400, 1, NULL, NULL, &want, &a, &e), e);
        assert_ok(dm_bpe_train_finish(parts, 400, 1, NULL, NULL, &got, &b, &e), e);
        assert_true(json_equal(want, got));
        assert_int_equal(a.words, b.words);
        json_decref(want);
        json_decref(got);
        dm_bpe_train_free(whole);
        dm_bpe_train_free(parts);
    }
}

/* Counted by hand: "ab" 4 times, " ab" 3 times, then everything else once. */
static void test_counts_ties_and_min_count(void **state)
{
    (void)state;
    static const char *const texts[] = {"ab ab ab ab", "zy", "xw"};
    struct dm_bpe_stats s;
    json_t *root = train(texts, 3, 1000, 2, &s);
    const json_t *merges = model_of(root, "merges");
    assert_int_equal(json_array_size(merges), 2);
    assert_string_equal(json_string_value(json_array_get(merges, 0)), "a b");
    assert_string_equal(json_string_value(json_array_get(merges, 1)), "\u0120 ab");
    assert_int_equal(s.words, 6);
    assert_int_equal(s.distinct, 4);
    assert_int_equal(s.vocab, 260);
    json_decref(root);
    root = train(texts, 3, 1000, 1, &s); // now the pairs that occur once, smaller ids first
    merges = model_of(root, "merges");
    assert_int_equal(json_array_size(merges), 4);
    assert_string_equal(json_string_value(json_array_get(merges, 2)), "x w");
    assert_string_equal(json_string_value(json_array_get(merges, 3)), "z y");
    json_decref(root);
}

static void test_a_run_of_one_letter_is_counted_like_hugging_face(void **state)
{
    (void)state;
    // aaaaaaa: seven letters are six pairs; aa aa aa a, then aaaa aa a, and so on.
    static const char *const texts[] = {"aaaaaaa aaaaaaa"};
    json_t *root = train(texts, 1, 1000, 2, NULL);
    static const char *const want[] = {"a a", "aa aa", "aa a", "aaaa aaa"};
    const json_t *merges = model_of(root, "merges");
    assert_int_equal(json_array_size(merges), 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(json_string_value(json_array_get(merges, i)), want[i]);
    json_decref(root);
}

static void test_result_loads_and_loses_no_byte(void **state)
{
    (void)state;
    static const char *const texts[] = {"some words, some more words"};
    static const char text[] = "<|endoftext|>\x01 \xc3\xa9\xf0\x9f\x98\x80 words\x7f\n";
    struct dm_tokenizer *t;
    struct dm_ids ids = {0};
    struct dm_err e;
    json_t *root = train(texts, 1, 270, 1, NULL);
    char *json = json_dumps(root, 0), *back;
    size_t n;
    assert_ok(dm_tokenizer_parse(&t, json, strlen(json), "trained", &e), e);
    assert_int_equal(dm_tokenizer_size(t), 270);
    assert_int_equal(dm_tokenizer_eos(t), 0);
    assert_ok(dm_tokenizer_encode(t, text, sizeof(text) - 1, &ids, &e), e);
    assert_int_equal(ids.id[0], 0);
    assert_ok(dm_tokenizer_decode(t, ids.id, ids.n, &back, &n, &e), e);
    assert_int_equal(n, sizeof(text) - 1);
    assert_memory_equal(back, text, n);
    for (int b = 0; b < 256; b++) { // every byte has a token, also those that UTF-8 never holds
        size_t found = 0;
        for (int32_t id = 2; id < 258 && !found; id++) {
            const char *p = dm_tokenizer_bytes(t, id, &n);
            found = n == 1 && (uint8_t)p[0] == b;
        }
        assert_int_equal(found, 1);
    }
    free(back);
    free(json);
    dm_ids_release(&ids);
    dm_tokenizer_free(t);
    json_decref(root);
}

static void test_too_small_a_vocabulary_is_refused(void **state)
{
    (void)state;
    struct dm_bpe_train *b;
    struct dm_err e;
    json_t *root;
    assert_ok(dm_bpe_train_new(&b, &e), e);
    assert_int_equal(dm_bpe_train_finish(b, 257, 2, NULL, NULL, &root, NULL, &e), DM_ERANGE);
    assert_null(root);
    dm_bpe_train_free(b);
}

static void test_every_failing_allocation_is_reported(void **state)
{
    (void)state;
    static const char text[] = "caf\xc3\xa9 cafe\xcc\x81 the end of the text \xff the end";
    struct dm_err e;
    size_t failures = 0;
    for (size_t n = 1;; n++) {
        struct dm_bpe_train *b;
        json_t *root = NULL;
        dm_alloc_fail_at(n);
        enum dm_status st = dm_bpe_train_new(&b, &e);
        if (!st)
            st = dm_bpe_train_add(b, text, sizeof(text) - 1, &e);
        if (!st)
            st = dm_bpe_train_finish(b, 270, 1, NULL, NULL, &root, NULL, &e);
        dm_alloc_fail_at(0);
        dm_bpe_train_free(b);
        json_decref(root);
        if (!st)
            break;
        assert_int_equal(st, DM_ENOMEM);
        failures++;
    }
    assert_true(failures >= 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_and_vocabulary_equal_hugging_face),
        cmocka_unit_test(test_order_of_documents_does_not_matter),
        cmocka_unit_test(test_parts_of_a_document_count_like_the_whole),
        cmocka_unit_test(test_counts_ties_and_min_count),
        cmocka_unit_test(test_a_run_of_one_letter_is_counted_like_hugging_face),
        cmocka_unit_test(test_result_loads_and_loses_no_byte),
        cmocka_unit_test(test_too_small_a_vocabulary_is_refused),
        cmocka_unit_test(test_every_failing_allocation_is_reported),
    };
    return cmocka_run_group_tests_name("bpe_train", tests, NULL, NULL);
}
