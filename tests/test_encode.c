/* SPDX-License-Identifier: MIT */
/* What makes encoding fast and memory constant changes no id. */
#include "tests/util.h"

#include <stdio.h>
#include <string.h>

#include "src/base/rng.h"
#include "src/io/tokenizer.h"
#include "src/io/tokenizer_text.h"

static struct dm_tokenizer *neox(void)
{
    struct dm_tokenizer *t;
    struct dm_err e;
    assert_ok(dm_tokenizer_load(&t, "tests/golden/tok_neox.json", &e), e);
    return t;
}

/* A small tokenizer of all bytes with one added token. */
static struct dm_tokenizer *glued(const char *added)
{
    struct dm_tokenizer *t;
    struct dm_err e;
    char json[8192];
    char vocab[6000] = "\"<|endoftext|>\":0,\"the\":1";
    size_t n = strlen(vocab);
    for (unsigned i = 0; i < 256; i++) {
        const uint32_t cp = dm_text_byte_symbol((uint8_t)i);
        n += (size_t)snprintf(vocab + n, sizeof(vocab) - n, ",\"\\u%04x\":%u", cp, i + 10);
    }
    snprintf(json, sizeof(json),
             "{\"added_tokens\":[%s],\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":"
             "{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{\"type\":"
             "\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{%s},\"merges\":[]}}",
             added, vocab);
    assert_ok(dm_tokenizer_parse(&t, json, strlen(json), "glued.json", &e), e);
    return t;
}

/* Random text of parts that matter for words, NFC and added tokens. */
static size_t random_text(struct dm_rng *r, char *text, size_t cap)
{
    static const char *const parts[] = {
        "a",      "be",         "the",      "don't",  "'s",
        "7",      "2024",       ".",        "--",     " ",
        "  ",     "\n",         "\r\n",     "\t",     "\u00a0",
        "\u3000", "\u3002",     "e\u0301",  "\u0301", "\u1100\u1161",
        "\u4e2d", "\xff",       "\xe2\x80", "\x85",   "<|endoftext|>",
        "<|",     "token with", " space"};
    size_t n = 0;
    while (n + 32 < cap && dm_rng_below(r, 40)) {
        const char *p = parts[dm_rng_below(r, sizeof(parts) / sizeof(parts[0]))];
        memcpy(text + n, p, strlen(p));
        n += strlen(p);
    }
    return n;
}

static void assert_cut_is_free(const struct dm_tokenizer *t, const char *text, size_t n, size_t p)
{
    struct dm_ids whole = {0}, parts = {0};
    struct dm_err e;
    assert_ok(dm_tokenizer_encode(t, text, n, &whole, &e), e);
    assert_ok(dm_tokenizer_encode(t, text, p, &parts, &e), e);
    assert_ok(dm_tokenizer_encode(t, text + p, n - p, &parts, &e), e);
    assert_int_equal(whole.n, parts.n);
    assert_memory_equal(whole.id, parts.id, whole.n * sizeof(*whole.id));
    dm_ids_release(&whole);
    dm_ids_release(&parts);
}

/* The second tokenizer has an added token with a space in it, the third one a normalized one. */
static void test_a_cut_never_changes_the_ids(void **state)
{
    (void)state;
    static const char raw[] = "{\"id\":9,\"content\":\"token with space\",\"normalized\":false}";
    static const char normal[] = "{\"id\":9,\"content\":\"the 7\",\"normalized\":true}";
    struct dm_tokenizer *tokenizers[] = {neox(), glued(raw), glued(normal)};
    struct dm_rng r;
    size_t cuts = 0;
    dm_rng_init(&r, 3, 0);
    for (size_t i = 0; i < 6000; i++) {
        const struct dm_tokenizer *t = tokenizers[i % 3];
        char text[600];
        const size_t n = random_text(&r, text, sizeof(text));
        for (size_t end = n, p; (p = dm_tokenizer_cut(t, text, end)); end = p, cuts++) {
            assert_true(p < end);
            assert_cut_is_free(t, text, n, p);
        }
    }
    assert_true(cuts > 5000);
    static const char phrase[] = "say token with space now";
    assert_int_equal(dm_tokenizer_cut(tokenizers[0], phrase, 20), 14);
    assert_int_equal(dm_tokenizer_cut(tokenizers[1], phrase, 20), 3);
    assert_int_equal(dm_tokenizer_cut(tokenizers[0], "one", 3), 0);
    assert_int_equal(dm_tokenizer_cut(tokenizers[0], " one", 4), 0);
    for (size_t i = 0; i < 3; i++)
        dm_tokenizer_free(tokenizers[i]);
}

/* An encoder that has seen other texts against one that remembers nothing. */
static void test_remembered_words_have_the_same_ids(void **state)
{
    (void)state;
    struct dm_tokenizer *t = neox();
    struct dm_encoder *c;
    struct dm_ids a = {0}, b = {0};
    struct dm_err e;
    struct dm_rng r;
    dm_rng_init(&r, 4, 0);
    assert_ok(dm_encoder_new(&c, t, &e), e);
    for (size_t i = 0; i < 20000; i++) {
        char text[600];
        const size_t n = random_text(&r, text, sizeof(text));
        a.n = b.n = 0;
        assert_ok(dm_encoder_encode(c, text, n, &a, &e), e);
        assert_ok(dm_tokenizer_encode(t, text, n, &b, &e), e);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.id, b.id, a.n * sizeof(*a.id));
    }
    dm_ids_release(&a);
    dm_ids_release(&b);
    dm_encoder_free(c);
    dm_tokenizer_free(t);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cut_never_changes_the_ids),
        cmocka_unit_test(test_remembered_words_have_the_same_ids),
    };
    return cmocka_run_group_tests_name("encode", tests, NULL, NULL);
}
