/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/base/rng.h"
#include "src/io/tokenizer_impl.h"

/* The published tokenizer, or NULL; the check is then skipped in plain view. */
static struct dm_tokenizer *published(void)
{
    struct dm_tokenizer *t = NULL;
    struct dm_err e;
    const char *path = shared_path("tokenizer/20B_tokenizer.json");
    if (!path)
        skip();
    assert_ok(dm_tokenizer_load(&t, path, &e), e);
    return t;
}

static void assert_ids(const struct dm_tokenizer *t, const char *text, size_t n, const json_t *want)
{
    struct dm_ids ids = {0};
    struct dm_err e;
    assert_ok(dm_tokenizer_encode(t, text, n, &ids, &e), e);
    for (size_t i = 0; i < ids.n && i < json_array_size(want); i++)
        if (ids.id[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("id %zu of \"%s\" is %d, want %lld", i, text, ids.id[i],
                     (long long)json_integer_value(json_array_get(want, i)));
    assert_int_equal(ids.n, json_array_size(want));
    dm_ids_release(&ids);
}

static void test_published_vectors(void **state)
{
    (void)state;
    struct dm_tokenizer *t = published();
    struct dm_err e;
    json_t *cases, *c;
    size_t i;
    assert_ok(dm_json_read(shared_path("tokenizer/vectors.json"), 1 << 20, &cases, &e), e);
    assert_true(json_array_size(cases) >= 30);
    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_object_get(c, "text");
        assert_ids(t, json_string_value(text), json_string_length(text), json_object_get(c, "ids"));
    }
    json_decref(cases);
    dm_tokenizer_free(t);
}

static char *gunzip(const char *path, size_t *n)
{
    gzFile f = gzopen(path, "rb");
    size_t cap = 1 << 22;
    char *text = malloc(cap);
    assert_non_null(f);
    assert_non_null(text);
    *n = 0;
    for (int k; (k = gzread(f, text + *n, (unsigned)(cap - *n))) > 0;) {
        *n += (size_t)k;
        if (*n == cap)
            assert_non_null(text = realloc(text, cap *= 2));
    }
    gzclose(f);
    return text;
}

static void test_published_hashes_of_the_corpus(void **state)
{
    (void)state;
    struct dm_tokenizer *t = published();
    FILE *f = fopen(shared_path("tokenizer/expected_ids.tsv"), "r");
    char line[512], name[256], want[65], got[65], dir[512];
    size_t bytes, tokens, files = 0;
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f)); // the heading
    while (fgets(line, sizeof(line), f)) {
        struct dm_encoder *c;
        struct dm_ids ids = {0};
        struct dm_err e;
        size_t n;
        assert_int_equal(sscanf(line, "%255s %zu %zu %*s %64s", name, &bytes, &tokens, want), 4);
        snprintf(dir, sizeof(dir), "%s", name);
        assert_non_null(shared_path(dir));
        char *text = gunzip(shared_path(dir), &n);
        assert_int_equal(n, bytes);
        assert_ok(dm_encoder_new(&c, t, &e), e);
        assert_ok(dm_encoder_encode(c, text, n, &ids, &e), e);
        assert_int_equal(ids.n, tokens);
        uint8_t *le = malloc(2 * ids.n);
        assert_non_null(le);
        for (size_t i = 0; i < ids.n; i++) {
            le[2 * i] = (uint8_t)ids.id[i];
            le[2 * i + 1] = (uint8_t)(ids.id[i] >> 8);
        }
        dm_sha256(le, 2 * ids.n, got);
        assert_string_equal(got, want);
        free(le);
        free(text);
        dm_ids_release(&ids);
        dm_encoder_free(c);
        files++;
    }
    fclose(f);
    assert_int_equal(files, 28);
    dm_tokenizer_free(t);
}

static struct dm_tokenizer *golden(const char *name)
{
    char path[256];
    struct dm_tokenizer *t;
    struct dm_err e;
    snprintf(path, sizeof(path), "tests/golden/%s", name);
    assert_ok(dm_tokenizer_load(&t, path, &e), e);
    return t;
}

/* The ids say NFC(text) again; a name of an added token next to a mark would compose in the whole
 * text but not in its pieces, so texts with such names are left to the ids. */
static void assert_round_trip(const struct dm_tokenizer *t, const char *text, size_t n,
                              const json_t *want)
{
    struct dm_text tables;
    struct dm_bytes buf = {0};
    struct dm_err e;
    const uint8_t *nfc;
    char *got;
    size_t len, got_len, k = json_array_size(want);
    int32_t *ids = malloc((k + 1) * sizeof(*ids));
    assert_non_null(ids);
    for (size_t i = 0; i < k; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(want, i));
    assert_ok(dm_text_init(&tables, &e), e);
    assert_ok(dm_text_nfc(&tables, (const uint8_t *)text, n, &buf, &nfc, &len, &e), e);
    assert_ok(dm_tokenizer_decode(t, ids, k, &got, &got_len, &e), e);
    assert_int_equal(got_len, len);
    assert_memory_equal(got, nfc, len);
    assert_int_equal(got[len], 0);
    free(got);
    free(ids);
    dm_bytes_release(&buf);
    dm_text_release(&tables);
}

static void test_ids_of_hugging_face_and_back(void **state)
{
    (void)state;
    struct dm_tokenizer *small = golden("tok_small.json"), *neox = golden("tok_neox.json");
    struct dm_err e;
    json_t *cases, *c;
    size_t i, round_trips = 0;
    assert_ok(dm_json_read("tests/golden/tok_vectors.json", 1 << 20, &cases, &e), e);
    assert_int_equal(json_array_size(cases), 586);
    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_object_get(c, "text"), *ids = json_object_get(c, "ids");
        const char *name = json_string_value(json_object_get(c, "tokenizer"));
        const struct dm_tokenizer *t = strcmp(name, "tok_small.json") ? neox : small;
        const char *s = json_string_value(text);
        assert_ids(t, s, json_string_length(text), ids);
        if (i % 4 || memmem(s, json_string_length(text), "|>", 2) || strstr(s, "日本"))
            continue;
        assert_round_trip(t, s, json_string_length(text), ids);
        round_trips++;
    }
    assert_true(round_trips > 100);
    json_decref(cases);
    dm_tokenizer_free(small);
    dm_tokenizer_free(neox);
}

static void test_names_and_bytes_of_tokens(void **state)
{
    (void)state;
    struct dm_tokenizer *t = golden("tok_neox.json");
    size_t n, json_n;
    const int32_t gap = dm_tokenizer_id(t, "  ", 2), word = dm_tokenizer_id(t, "\u0120the", 5);
    assert_int_equal(dm_tokenizer_eos(t), 0);
    assert_int_equal(dm_tokenizer_id(t, "<|padding|>", 11), 1);
    assert_int_equal(dm_tokenizer_id(t, "!", 1), 2);
    assert_int_equal(dm_tokenizer_id(t, "no such token", 13), -1);
    assert_int_equal(dm_tokenizer_id(t, "", 0), -1);
    assert_true(gap > 0 && word > 0);
    assert_int_equal(dm_tokenizer_id(t, "nai\u0308ve", 7), gap + 1);
    assert_memory_equal(dm_tokenizer_bytes(t, gap, &n), "  ", 2);
    assert_int_equal(n, 2);
    assert_memory_equal(dm_tokenizer_bytes(t, word, &n), " the", 4);
    assert_int_equal(n, 4);
    dm_tokenizer_bytes(t, -1, &n);
    assert_int_equal(n, 0);
    dm_tokenizer_bytes(t, (int32_t)dm_tokenizer_size(t), &n);
    assert_int_equal(n, 0);
    char hex[DM_HASH_LEN + 1];
    const char *json = dm_tokenizer_json(t, &json_n);
    dm_sha256(json, json_n, hex);
    assert_string_equal(hex, dm_tokenizer_hash(t));
    dm_tokenizer_free(t);
}

/* What Rust's String::from_utf8_lossy gives for the Unicode standard's own examples. */
static void test_invalid_utf8_becomes_replacement_characters(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain \u00e9 \u20ac \U0001f600", "plain \u00e9 \u20ac \U0001f600"},
        {"\xff", "\ufffd"},
        {"a\x80z", "a\ufffdz"},
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41",
         "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\x41"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41",
         "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\x41"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42",
         "\ufffd\ufffd\ufffd\ufffd\ufffd\x41\ufffd\ufffd\x42"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "\ufffd\ufffd\ufffd\ufffd\x41"},
        {"cut \xe2\x82", "cut \ufffd"},
        {"\xf0\x9f\x98", "\ufffd"},
    };
    struct dm_tokenizer *t = golden("tok_small.json");
    struct dm_bytes buf = {0};
    struct dm_err e;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dm_ids a = {0}, b = {0};
        const uint8_t *s;
        size_t n;
        assert_ok(dm_text_clean(cases[i].in, strlen(cases[i].in), &buf, &s, &n, &e), e);
        assert_int_equal(n, strlen(cases[i].out));
        assert_memory_equal(s, cases[i].out, n);
        assert_ok(dm_tokenizer_encode(t, cases[i].in, strlen(cases[i].in), &a, &e), e);
        assert_ok(dm_tokenizer_encode(t, cases[i].out, n, &b, &e), e);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.id, b.id, a.n * sizeof(*a.id));
        dm_ids_release(&a);
        dm_ids_release(&b);
    }
    dm_bytes_release(&buf);
    dm_tokenizer_free(t);
}

/* Lowest rank first, leftmost among equals, by looking at everything again after every merge. */
static size_t merge_naively(const struct dm_merges *m, int32_t *sym, size_t n)
{
    for (;;) {
        const struct dm_merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const struct dm_merge *g = dm_merges_get(m, sym[i], sym[i + 1]);
            if (g && (!best || g->rank < best->rank)) {
                best = g;
                at = i;
            }
        }
        if (!best)
            return n;
        sym[at] = best->id;
        memmove(sym + at + 1, sym + at + 2, (--n - at - 1) * sizeof(*sym));
    }
}

static void test_short_and_long_words_merge_by_the_definition(void **state)
{
    (void)state;
    static const char letters[] = "aabbcehit the. ";
    struct dm_tokenizer *t = golden("tok_small.json");
    struct dm_rng r;
    dm_rng_init(&r, 5, 0);
    for (size_t len = 1; len <= 300; len++) {
        int32_t want[300], got[300];
        const size_t kinds = 1 + dm_rng_below(&r, sizeof(letters) - 1);
        for (size_t i = 0; i < len; i++)
            want[i] = got[i] = t->symbol[(uint8_t)letters[dm_rng_below(&r, kinds)]];
        const size_t n = merge_naively(&t->merges, want, len);
        assert_int_equal(dm_merges_apply(&t->merges, got, len), n);
        assert_memory_equal(got, want, n * sizeof(*got));
    }
    dm_tokenizer_free(t);
}

static void assert_merged_naively(const struct dm_merges *m, int32_t *sym, size_t n)
{
    int32_t *want = malloc((n + 1) * sizeof(*want));
    assert_non_null(want);
    memcpy(want, sym, n * sizeof(*want));
    const size_t left = merge_naively(m, want, n);
    assert_int_equal(dm_merges_apply(m, sym, n), left);
    assert_memory_equal(sym, want, left * sizeof(*want));
    free(want);
}

/* Words of several windows. The merges come in an order that no training would give. */
static void test_windows_of_a_long_word_join_without_a_seam(void **state)
{
    (void)state;
    enum { N = 9000, MERGES = 60 };
    static int32_t sym[N + 1];
    struct dm_rng r;
    dm_rng_init(&r, 6, 0);
    for (size_t round = 0; round < 10; round++) {
        struct dm_merges m;
        struct dm_err e;
        const uint32_t letters = 1 + (uint32_t)round % 5;
        assert_ok(dm_merges_init(&m, MERGES, &e), e);
        for (uint32_t i = 0; i < MERGES; i++)
            dm_merges_put(&m, (int32_t)dm_rng_below(&r, letters + i),
                          (int32_t)dm_rng_below(&r, letters + i), (i * 7 + 3) % MERGES,
                          (int32_t)(letters + i));
        for (size_t i = 0; i < N; i++)
            sym[i] = (int32_t)dm_rng_below(&r, letters);
        assert_merged_naively(&m, sym, N);
        dm_merges_release(&m);
    }
}

/* The last pair first: what the first window becomes depends on the other end, for one of these
 * lengths is odd. */
static void test_a_seam_that_cannot_be_joined_is_none(void **state)
{
    (void)state;
    enum { N = 9000 };
    static int32_t sym[N + 1];
    struct dm_merges m;
    struct dm_err e;
    assert_ok(dm_merges_init(&m, N, &e), e);
    for (int32_t i = 0; i < N; i++)
        dm_merges_put(&m, i, i + 1, (uint32_t)(N - i), N + 1 + i);
    for (size_t n = N; n <= N + 1; n++) {
        for (size_t i = 0; i < n; i++)
            sym[i] = (int32_t)i;
        assert_merged_naively(&m, sym, n);
    }
    dm_merges_release(&m);
}

/* Each of these would take minutes if any step were quadratic. */
static void test_a_megabyte_of_anything_is_linear(void **state)
{
    (void)state;
    static const char *const units[] = {"a",       "ab",
                                        " ",       "\n",
                                        "'",       "\u0301\u0323",
                                        "'s",      "\xff",
                                        "<|",      "\u1100\u1161\u11a8",
                                        " \u00a0", "\u0344"};
    enum { N = 1 << 20 };
    struct dm_tokenizer *t = golden("tok_neox.json");
    struct dm_err e;
    char *text = malloc(N);
    assert_non_null(text);
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        struct dm_ids ids = {0};
        const size_t k = strlen(units[u]), n = N / k * k;
        for (size_t i = 0; i < n; i++)
            text[i] = units[u][i % k];
        assert_ok(dm_tokenizer_encode(t, text, n, &ids, &e), e);
        assert_true(ids.n > 0 && ids.n <= 2 * n + n);
        dm_ids_release(&ids);
    }
    free(text);
    dm_tokenizer_free(t);
}

#define HEAD "{\"added_tokens\":["
#define MIDDLE                                                                       \
    "],\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"," \
    "\"add_prefix_space\":false},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{"   \
    "\"type\":\"BPE\",\"vocab\":{"
#define VOCAB "\"<|endoftext|>\":0,\"a\":1,\"b\":2,\"ab\":3"
#define WITH(added, vocab, merges, rest) \
    HEAD added MIDDLE vocab "},\"merges\":[" merges "]" rest "}}"

static enum dm_status parse(const char *json, struct dm_err *e)
{
    struct dm_tokenizer *t;
    const enum dm_status st = dm_tokenizer_parse(&t, json, strlen(json), "t.json", e);
    assert_true(!st == (t != NULL));
    dm_tokenizer_free(t);
    return st;
}

static void test_harmless_variants_load(void **state)
{
    (void)state;
    static const char *const good[] = {
        WITH("", VOCAB, "\"a b\"", ""),
        WITH("", VOCAB, "[\"a\",\"b\"]", ""),
        WITH("", VOCAB, "\"#version: 0.2\",\"a b\"", ",\"ignore_merges\":true"),
        WITH("", VOCAB, "",
             ",\"dropout\":null,\"unk_token\":null,\"byte_fallback\":false,"
             "\"continuing_subword_prefix\":\"\",\"fuse_unk\":false"),
        WITH("{\"id\":0,\"content\":\"<|endoftext|>\",\"special\":true}", VOCAB, "", ""),
        WITH("{\"id\":900,\"content\":\"far\",\"lstrip\":false}", VOCAB, "", ""),
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":{\"strategy\":\"BatchLongest\"},"
        "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"}]},"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":"
        "\"A\",\"type_id\":0}}]},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{"
        "\"a\":0},\"merges\":[]}}",
    };
    struct dm_err e;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_ok(parse(good[i], &e), e);
}

static void test_ignore_merges_takes_the_whole_word(void **state)
{
    (void)state;
    static const char *const json[] = {
        WITH("", VOCAB ",\"aab\":4", "\"a b\"", ""),
        WITH("", VOCAB ",\"aab\":4", "\"a b\"", ",\"ignore_merges\":true")};
    for (size_t i = 0; i < 2; i++) {
        struct dm_tokenizer *t;
        struct dm_ids ids = {0};
        struct dm_err e;
        assert_ok(dm_tokenizer_parse(&t, json[i], strlen(json[i]), "t.json", &e), e);
        assert_ok(dm_tokenizer_encode(t, "aab?", 4, &ids, &e), e); // "?" has no symbol
        assert_int_equal(ids.n, i ? 1 : 2);
        assert_int_equal(ids.id[0], i ? 4 : 1);
        dm_ids_release(&ids);
        dm_tokenizer_free(t);
    }
}

static const struct {
    const char *json, *says;
    enum dm_status status;
} hostile[] = {
    {"", "t.json: not valid JSON", DM_EFORMAT},
    {"[]", "want an object", DM_EFORMAT},
    {"{}", "\"model\" is nothing", DM_EFORMAT},
    {WITH("", VOCAB ",\"c\":3", "", ""), "id 3 stands for two tokens", DM_EFORMAT},
    {WITH("", VOCAB ",\"a\":4", "", ""), "not valid JSON", DM_EFORMAT},
    {WITH("", VOCAB ",\"c\":-1", "", ""), "id of \"c\" is -1", DM_ERANGE},
    {WITH("", VOCAB ",\"c\":4194304", "", ""), "id of \"c\" is 4194304", DM_ERANGE},
    {WITH("", VOCAB ",\"c\":99999999999999999999", "", ""), "not valid JSON", DM_EFORMAT},
    {WITH("", VOCAB ",\"c\":1.5", "", ""), "is real, want an integer", DM_EFORMAT},
    {WITH("", VOCAB ",\"c\":\"4\"", "", ""), "is string, want an integer", DM_EFORMAT},
    {WITH("", "", "", ""), "the vocabulary is empty", DM_EFORMAT},
    {WITH("", VOCAB, "\"a c\"", ""), "merge 0 (\"a\" and \"c\") names a token", DM_EFORMAT},
    {WITH("", VOCAB, "\"a b\",\"b a\"", ""), "names a result", DM_EFORMAT},
    {WITH("", VOCAB, "\"ab\"", ""), "merge 0 is not \"a b\"", DM_EFORMAT},
    {WITH("", VOCAB, "\"a b a\"", ""), "merge 0 is not \"a b\"", DM_EFORMAT},
    {WITH("", VOCAB, "\" ab\"", ""), "names a token", DM_EFORMAT},
    {WITH("", VOCAB, "[\"a\"]", ""), "merge 0 is not", DM_EFORMAT},
    {WITH("", VOCAB, "[\"a\",2]", ""), "merge 0 is not", DM_EFORMAT},
    {WITH("", VOCAB, "[\"a\",\"b\\u0000\"]", ""), "merge 0 is not", DM_EFORMAT},
    {WITH("", VOCAB, "7", ""), "merge 0 is not", DM_EFORMAT},
    {WITH("", VOCAB, "", ",\"byte_fallback\":true"), "\"byte_fallback\"", DM_EUNSUPPORTED},
    {WITH("", VOCAB, "", ",\"dropout\":0.1"), "\"dropout\"", DM_EUNSUPPORTED},
    {WITH("", VOCAB, "", ",\"unk_token\":\"a\""), "unk_token \"a\"", DM_EUNSUPPORTED},
    {WITH("", VOCAB, "", ",\"end_of_word_suffix\":\"</w>\""), "\"end_of_word_suffix\"",
     DM_EUNSUPPORTED},
    {WITH("", VOCAB, "", ",\"ignore_merges\":1"), "want true or false", DM_EFORMAT},
    {WITH("7", VOCAB, "", ""), "an added token is integer", DM_EFORMAT},
    {WITH("{\"id\":0,\"content\":\"\"}", VOCAB, "", ""), "an added token is empty", DM_EFORMAT},
    {WITH("{\"id\":9}", VOCAB, "", ""), "\"content\" is missing", DM_EFORMAT},
    {WITH("{\"content\":\"x\"}", VOCAB, "", ""), "is nothing, want an integer", DM_EFORMAT},
    {WITH("{\"id\":9,\"content\":\"x\\u0000\"}", VOCAB, "", ""), "U+0000", DM_EUNSUPPORTED},
    {WITH("{\"id\":9,\"content\":\"x\",\"lstrip\":true}", VOCAB, "", ""), "\"lstrip\"",
     DM_EUNSUPPORTED},
    {WITH("{\"id\":1,\"content\":\"x\"}", VOCAB, "", ""), "id 1 stands for two tokens", DM_EFORMAT},
    {WITH("{\"id\":2,\"content\":\"a\"}", VOCAB, "", ""), "id 2 as added token but 1", DM_EFORMAT},
    {WITH("{\"id\":9,\"content\":\"x\"},{\"id\":9,\"content\":\"y\"}", VOCAB, "", ""),
     "id 9 stands for two tokens", DM_EFORMAT},
    {"{\"model\":{\"type\":\"Unigram\"}}", "model type \"Unigram\"", DM_EUNSUPPORTED},
    {"{\"model\":{\"vocab\":[]}}", "pre_tokenizer \"(no type)\"", DM_EUNSUPPORTED},
    {"{\"model\":{},\"normalizer\":{\"type\":\"NFKC\"}}", "normalizer \"NFKC\"", DM_EUNSUPPORTED},
    {"{\"model\":{},\"normalizer\":{\"type\":\"Sequence\"}}", "without the array", DM_EFORMAT},
    {"{\"model\":{},\"truncation\":{}}", "\"truncation\"", DM_EUNSUPPORTED},
    {"{\"model\":{},\"padding\":{\"strategy\":{\"Fixed\":9}}}", "fixed length", DM_EUNSUPPORTED},
    {"{\"model\":{},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":false}}", "use_regex",
     DM_EUNSUPPORTED},
    {"{\"model\":{},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true}}",
     "add_prefix_space", DM_EUNSUPPORTED},
    {"{\"model\":{},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"post_processor\":{\"type\":"
     "\"BertProcessing\"}}",
     "\"BertProcessing\"", DM_EUNSUPPORTED},
    {"{\"model\":{},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":"
     "\"WordPiece\"}}",
     "decoder \"WordPiece\"", DM_EUNSUPPORTED},
    {"{\"model\":{\"vocab\":[]},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"decoder\":{"
     "\"type\":\"ByteLevel\"}}",
     "\"vocab\" is array", DM_EFORMAT},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":{}},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}"
     ","
     "\"decoder\":{\"type\":\"ByteLevel\"}}",
     "\"merges\" is object", DM_EFORMAT},
};

static void test_hostile_files_are_refused(void **state)
{
    (void)state;
    struct dm_err e;
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        assert_int_equal(parse(hostile[i].json, &e), hostile[i].status);
        if (!strstr(e.msg, hostile[i].says) || !strstr(e.msg, "t.json"))
            fail_msg("\"%s\" does not say \"%s\"", e.msg, hostile[i].says);
    }
}

static void test_truncated_and_damaged_files_end_in_a_status(void **state)
{
    (void)state;
    char *json;
    size_t n;
    struct dm_err e;
    struct dm_tokenizer *t;
    struct dm_rng r;
    dm_rng_init(&r, 9, 0);
    assert_ok(dm_file_read("tests/golden/tok_neox.json", 1 << 20, &json, &n, &e), e);
    for (size_t k = 0; k < n - 2; k += 37) { // the last two bytes are "}" and a newline
        assert_int_equal(dm_tokenizer_parse(&t, json, k, "cut.json", &e), DM_EFORMAT);
        assert_null(t);
    }
    for (int i = 0; i < 300; i++) {
        const size_t at = dm_rng_below(&r, n);
        const char old = json[at];
        json[at] = (char)dm_rng_below(&r, 256);
        const enum dm_status st = dm_tokenizer_parse(&t, json, n, "damaged.json", &e);
        assert_true(!st == (t != NULL));
        dm_tokenizer_free(t);
        json[at] = old;
    }
    free(json);
    assert_int_equal(dm_tokenizer_load(&t, "tests/golden/hf_hd80.h5", &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "carries no tokenizer"));
    assert_int_equal(dm_tokenizer_load(&t, "tests/golden/nothing.json", &e), DM_EIO);
}

static void test_every_failing_allocation_is_reported(void **state)
{
    (void)state;
    static const char json[] = WITH("{\"id\":9,\"content\":\"e\\u0301  \",\"normalized\":true}",
                                    VOCAB, "\"a b\"", "");
    char text[200];
    struct dm_err e;
    size_t failures = 0;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = "ab\xcc\x81"[i % 4];
    for (size_t n = 1;; n++) {
        struct dm_tokenizer *t;
        struct dm_ids ids = {0};
        dm_alloc_fail_at(n);
        enum dm_status st = dm_tokenizer_parse(&t, json, strlen(json), "t.json", &e);
        if (!st)
            st = dm_tokenizer_encode(t, text, sizeof(text), &ids, &e);
        dm_alloc_fail_at(0);
        dm_ids_release(&ids);
        dm_tokenizer_free(t);
        if (!st)
            break;
        assert_int_equal(st, DM_ENOMEM);
        failures++;
    }
    assert_true(failures >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_published_hashes_of_the_corpus),
        cmocka_unit_test(test_ids_of_hugging_face_and_back),
        cmocka_unit_test(test_names_and_bytes_of_tokens),
        cmocka_unit_test(test_invalid_utf8_becomes_replacement_characters),
        cmocka_unit_test(test_short_and_long_words_merge_by_the_definition),
        cmocka_unit_test(test_windows_of_a_long_word_join_without_a_seam),
        cmocka_unit_test(test_a_seam_that_cannot_be_joined_is_none),
        cmocka_unit_test(test_a_megabyte_of_anything_is_linear),
        cmocka_unit_test(test_harmless_variants_load),
        cmocka_unit_test(test_ignore_merges_takes_the_whole_word),
        cmocka_unit_test(test_hostile_files_are_refused),
        cmocka_unit_test(test_truncated_and_damaged_files_end_in_a_status),
        cmocka_unit_test(test_every_failing_allocation_is_reported),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
