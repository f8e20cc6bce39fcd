/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "data/reader.h"
#include "data/stream.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/io/tokenizer.h"

static const char *file_of(const char *name, const void *data, size_t n)
{
    struct dm_err e;
    const char *path = tmp_path(name);
    assert_ok(dm_file_write(path, data, n, &e), e);
    return path;
}

static size_t gzip(uint8_t *out, size_t cap, const void *data, size_t n)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

static size_t zstd(uint8_t *out, size_t cap, const void *data, size_t n)
{
    const size_t k = ZSTD_compress(out, cap, data, n, 3);
    assert_false(ZSTD_isError(k));
    return k;
}

typedef size_t pack_fn(uint8_t *out, size_t cap, const void *data, size_t n);
static const struct {
    const char *suffix, *name;
    pack_fn *pack;
} packers[] = {{".gz", "gzip", gzip}, {".zst", "zstd", zstd}};

/* All documents joined by '|' into buf; returns the status of the last call. */
static enum dm_status read_all(const char *path, const struct dm_reader_opt *opt, char *buf,
                               size_t cap, struct dm_err *e)
{
    struct dm_reader *r;
    const char *text;
    size_t n, at = 0;
    buf[0] = 0;
    enum dm_status st = dm_reader_open(&r, path, opt, e);
    if (st)
        return st;
    while (!(st = dm_reader_next(r, &text, &n, e)) && text) {
        assert_true(at + n + 2 < cap);
        memcpy(buf + at, text, n);
        at += n;
        buf[at++] = '|';
        buf[at] = 0;
    }
    dm_reader_close(r);
    return st;
}

static void test_text_is_one_document(void **state)
{
    (void)state;
    char got[256];
    struct dm_err e;
    assert_ok(read_all(file_of("a.txt", "one\ntwo\r\n\n", 10), NULL, got, sizeof(got), &e), e);
    assert_string_equal(got, "one\ntwo\r\n\n|");
    assert_ok(read_all(file_of("empty.txt", "", 0), NULL, got, sizeof(got), &e), e);
    assert_string_equal(got, "|");
}

static void test_jsonl_gives_the_field_of_each_line(void **state)
{
    (void)state;
    static const char lines[] =
        "\xef\xbb\xbf{\"text\":\"one\"}\n\n{\"b\":1,\"text\":\"t\\u0077o\\n\"}\r\n"
        " \t\r\n{\"text\":\"\"}\n{\"text\":\"last\"}";
    static const char other[] = "{\"content\":\"x\",\"text\":1}\n";
    const struct dm_reader_opt field = {.field = "content", .format = DM_READER_JSONL};
    char got[256];
    struct dm_err e;
    assert_ok(read_all(file_of("a.jsonl", lines, sizeof(lines) - 1), NULL, got, sizeof(got), &e),
              e);
    assert_string_equal(got, "one|two\n||last|");
    assert_ok(read_all(file_of("b.txt", other, sizeof(other) - 1), &field, got, sizeof(got), &e),
              e);
    assert_string_equal(got, "x|");
}

/* A text larger than all buffers, in two members or frames one after the other. */
static void test_compressed_parts_are_read_one_after_the_other(void **state)
{
    (void)state;
    enum { N = 700000 };
    char *text = malloc(N), *got = malloc(N + 16), name[32];
    uint8_t *packed = malloc(2 * N);
    struct dm_err e;
    assert_true(text && got && packed);
    for (size_t i = 0; i < N; i++)
        text[i] = (char)('a' + i * i % 23);
    for (size_t k = 0; k < 2; k++) {
        size_t n = packers[k].pack(packed, N, text, 300000);
        n += packers[k].pack(packed + n, N, text + 300000, N - 300000);
        snprintf(name, sizeof(name), "x.txt%s", packers[k].suffix);
        assert_ok(read_all(file_of(name, packed, n), NULL, got, N + 16, &e), e);
        assert_int_equal(strlen(got), N + 1);
        assert_memory_equal(got, text, N);
        // The first bytes tell, too, when the name does not.
        assert_ok(read_all(file_of("x.dat", packed, n), NULL, got, N + 16, &e), e);
        assert_memory_equal(got, text, N);
    }
    free(packed);
    free(got);
    free(text);
}

static void test_damaged_compression_is_refused(void **state)
{
    (void)state;
    static const char text[] = "some text that is long enough to be cut: 0123456789 abcdefghijkl";
    char got[256], name[32], says[64];
    uint8_t packed[512];
    struct dm_err e;
    for (size_t k = 0; k < 2; k++) {
        const size_t n = packers[k].pack(packed, sizeof(packed), text, sizeof(text));
        snprintf(name, sizeof(name), "cut.txt%s", packers[k].suffix);
        for (size_t cut = 4; cut < n; cut++) {
            assert_int_equal(read_all(file_of(name, packed, cut), NULL, got, sizeof(got), &e),
                             DM_EFORMAT);
            snprintf(says, sizeof(says), "the %s data is cut off", packers[k].name);
            assert_non_null(strstr(e.msg, says));
            assert_non_null(strstr(e.msg, name));
        }
        assert_int_equal(read_all(file_of(name, text, sizeof(text)), NULL, got, sizeof(got), &e),
                         DM_EFORMAT);
        assert_non_null(strstr(e.msg, "the file is not"));
        memcpy(packed + n, "rubbish!", 8);
        assert_int_equal(read_all(file_of(name, packed, n + 8), NULL, got, sizeof(got), &e),
                         DM_EFORMAT);
        assert_non_null(strstr(e.msg, "damaged"));
    }
    const size_t n = gzip(packed, sizeof(packed), text, sizeof(text));
    packed[n - 6] ^= 1; // the checksum
    assert_int_equal(read_all(file_of("sum.gz", packed, n), NULL, got, sizeof(got), &e),
                     DM_EFORMAT);
}

static void test_bad_lines_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
        enum dm_status status;
    } bad[] = {
        {"{\"text\":\"x\"", "bad.jsonl, line 3: not valid JSON", DM_EFORMAT},
        {"{\"text\":\"\xff\"}", "bad.jsonl, line 3: not valid JSON", DM_EFORMAT},
        {"{\"text\":\"\\ud800\"}", "bad.jsonl, line 3: not valid JSON", DM_EFORMAT},
        {"{\"txt\":\"x\"}", "bad.jsonl, line 3: key \"text\" is missing", DM_EFORMAT},
        {"{\"text\":null}", "bad.jsonl, line 3: key \"text\" is missing", DM_EFORMAT},
        {"{\"text\":[1]}", "bad.jsonl, line 3: \"text\" is array, want a string", DM_EFORMAT},
        {"[\"text\"]", "bad.jsonl, line 3: array, want an object", DM_EFORMAT},
        {"{\"text\":\"                                        \"}", "line 3: longer than 40 bytes",
         DM_ERANGE},
    };
    const struct dm_reader_opt opt = {.max_line = 40};
    char content[256], got[256];
    struct dm_err e;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const int n = snprintf(content, sizeof(content), "{\"text\":\"one\"}\n\n%s\n", bad[i].line);
        const char *path = file_of("bad.jsonl", content, (size_t)n);
        assert_int_equal(read_all(path, &opt, got, sizeof(got), &e), bad[i].status);
        assert_string_equal(got, "one|");
        if (!strstr(e.msg, bad[i].says))
            fail_msg("\"%s\" does not say \"%s\"", e.msg, bad[i].says);
    }
    assert_int_equal(read_all(tmp_path("absent.txt"), NULL, got, sizeof(got), &e), DM_EIO);
    assert_int_equal(read_all("/", NULL, got, sizeof(got), &e), DM_EIO);
}

/* The buffer grows to the longest line and no further. */
static void test_jsonl_needs_memory_for_one_line_only(void **state)
{
    (void)state;
    enum { LINES = 40000 };
    static const char line[] = "{\"text\":\"a line of some length, again and again\"}\n";
    const size_t k = sizeof(line) - 1;
    char *content = malloc(LINES * k);
    struct dm_reader *r;
    struct dm_err e;
    const char *text;
    size_t n, lines = 0;
    assert_non_null(content);
    for (size_t i = 0; i < LINES; i++)
        memcpy(content + i * k, line, k);
    const char *path = file_of("many.jsonl", content, LINES * k);
    free(content);
    assert_ok(dm_reader_open(&r, path, NULL, &e), e);
    dm_alloc_fail_at(1); // no allocation of ours from here on
    while (!dm_reader_next(r, &text, &n, &e) && text)
        lines++;
    dm_alloc_fail_at(0);
    assert_int_equal(lines, LINES);
    assert_int_equal(dm_reader_consumed(r), LINES * k);
    assert_int_equal(dm_reader_total(&path, 1), LINES * k);
    dm_reader_close(r);
}

static size_t cut(const void *ctx, const char *text, size_t n)
{
    return dm_tokenizer_cut(ctx, text, n);
}

/* The same through blocks of about `size` bytes, which are checked on the way. */
static enum dm_status read_blocks(const char *path, const struct dm_reader_opt *opt,
                                  const struct dm_tokenizer *t, size_t size, char *buf,
                                  struct dm_err *e)
{
    struct dm_reader *r;
    struct dm_block b = {0};
    bool more = true, end;
    const char *text;
    size_t n, at = 0;
    assert_ok(dm_reader_open(&r, path, opt, e), *e);
    enum dm_status st;
    while (!(st = dm_reader_block(r, cut, t, size, &b, &more, e)) && more) {
        assert_true(b.consumed == dm_reader_consumed(r));
        while (!(st = dm_block_next(&b, &text, &n, &end, e)) && text) {
            memcpy(buf + at, text, n);
            at += n;
            if (end)
                buf[at++] = '|';
        }
        if (st)
            break;
    }
    buf[at] = 0;
    dm_block_release(&b);
    dm_reader_close(r);
    return st;
}

static void test_blocks_are_the_documents_in_pieces(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        {"blocks.txt", "It was the best of times,\nit was the worst of times\u3000.\n\n  Both. "},
        {"blank.txt", " \n \n\n   \n"},
        {"word.txt", "incomprehensibilities"},
        {"empty.txt", ""},
        {"blocks.jsonl",
         "{\"text\": \"one two\"}\n\n  \n{\"text\": \"\"}\r\n{\"text\": \"three\"}"},
        {"mark.jsonl", "\xef\xbb\xbf{\"text\": \"a\"}\n{\"text\": \"b\"}\n"},
        {"empty.jsonl", ""}};
    struct dm_tokenizer *t;
    struct dm_err e;
    char want[400], got[400];
    assert_ok(dm_tokenizer_load(&t, "tests/golden/tok_neox.json", &e), e);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        const char *path = file_of(files[i][0], files[i][1], strlen(files[i][1]));
        assert_ok(read_all(path, NULL, want, sizeof(want), &e), e);
        for (size_t size = 1; size <= 100; size++) {
            assert_ok(read_blocks(path, NULL, t, size, got, &e), e);
            assert_string_equal(got, want);
        }
    }
    dm_tokenizer_free(t);
}

static void test_blocks_end_at_the_limit(void **state)
{
    (void)state;
    const struct dm_reader_opt opt = {.max_line = 40};
    static const char text[] =
        "words then "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    static const char lines[] = "{\"text\": \"short\"}\n"
                                "{\"text\": \"long long long long long long\"}\n{}\n";
    static const char bad[] = "{\"text\": \"a\"}\n\n{\"text\": 5}\n";
    struct dm_tokenizer *t;
    struct dm_err e;
    char got[400];
    assert_ok(dm_tokenizer_load(&t, "tests/golden/tok_neox.json", &e), e);
    const char *path = file_of("wide.txt", text, strlen(text));
    assert_int_equal(read_blocks(path, &opt, t, 8, got, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "wide.txt: more than 40 bytes without white space"));
    path = file_of("wide.jsonl", lines, strlen(lines));
    for (size_t size = 1; size < 200; size += 7) {
        assert_int_equal(read_blocks(path, &opt, t, size, got, &e), DM_ERANGE);
        assert_non_null(strstr(e.msg, "wide.jsonl, line 2: longer than 40 bytes"));
    }
    path = file_of("bad.jsonl", bad, strlen(bad));
    for (size_t size = 1; size < 50; size++) {
        assert_int_equal(read_blocks(path, NULL, t, size, got, &e), DM_EFORMAT);
        assert_non_null(strstr(e.msg, "bad.jsonl, line 3: "));
    }
    dm_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_is_one_document),
        cmocka_unit_test(test_jsonl_gives_the_field_of_each_line),
        cmocka_unit_test(test_compressed_parts_are_read_one_after_the_other),
        cmocka_unit_test(test_damaged_compression_is_refused),
        cmocka_unit_test(test_bad_lines_are_named),
        cmocka_unit_test(test_jsonl_needs_memory_for_one_line_only),
        cmocka_unit_test(test_blocks_are_the_documents_in_pieces),
        cmocka_unit_test(test_blocks_end_at_the_limit),
    };
    return cmocka_run_group_tests_name("reader", tests, NULL, NULL);
}
