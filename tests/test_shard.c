/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/rng.h"
#include "src/io/h5.h"
#include "src/io/shard.h"

enum { N = 600000 };
#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static int32_t *make_ids(size_t vocab)
{
    int32_t *ids = malloc(N * sizeof(*ids));
    assert_non_null(ids);
    for (size_t i = 0; i < N; i++)
        ids[i] = (int32_t)(dm_mix64(i) % vocab);
    return ids;
}

static void write_shard(const char *path, const int32_t *ids, size_t vocab, size_t cut)
{
    struct dm_err e;
    struct dm_shard_writer *w;
    assert_ok(dm_shard_create(&w, path, vocab, "{\"model\": 1}", HASH, "{}", &e), e);
    for (size_t at = 0; at < N; at += cut)
        assert_ok(dm_shard_append(w, ids + at, N - at < cut ? N - at : cut, &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
}

static void test_ranges_read_back_for_both_widths(void **state)
{
    (void)state;
    static const size_t vocab[] = {65536, 65537, 50277};
    for (size_t v = 0; v < 3; v++) {
        struct dm_err e;
        struct dm_shard *s;
        int32_t *ids = make_ids(vocab[v]), *back = malloc(N * sizeof(*back));
        assert_non_null(back);
        write_shard(tmp_path("s.h5"), ids, vocab[v], 100001);
        assert_ok(dm_shard_open(&s, tmp_path("s.h5"), &e), e);
        assert_int_equal(dm_shard_tokens(s), N);
        assert_int_equal(dm_shard_vocab(s), vocab[v]);
        assert_int_equal(dm_shard_separator(s), 0);
        assert_string_equal(dm_shard_tokenizer_hash(s), HASH);
        assert_ok(dm_shard_read(s, back, 0, N, &e), e);
        assert_memory_equal(back, ids, N * sizeof(*ids));
        assert_ok(dm_shard_read(s, back, 262100, 2049, &e), e); // across a chunk's border
        assert_memory_equal(back, ids + 262100, 2049 * sizeof(*ids));
        assert_ok(dm_shard_read(s, back, N, 0, &e), e);
        assert_int_equal(dm_shard_read(s, back, N - 3, 4, &e), DM_ERANGE);
        assert_int_equal(dm_shard_read(s, back, SIZE_MAX, 4, &e), DM_ERANGE);
        dm_shard_close(s);
        free(ids);
        free(back);
    }
}

/* Reads a whole shard part by part. */
static enum dm_status read_parts(const char *path, int32_t *back, struct dm_err *e)
{
    struct dm_shard_part p = {0};
    struct dm_shard *s;
    DM_TRY(dm_shard_open(&s, path, e));
    enum dm_status st = DM_OK;
    for (size_t i = 0; i * DM_SHARD_PART < dm_shard_tokens(s) && !st; i++) {
        st = dm_shard_fetch(s, i, &p, e);
        if (!st)
            st = dm_shard_unpack(&p, back + i * DM_SHARD_PART, e);
    }
    if (!st)
        assert_int_equal(dm_shard_fetch(s, 99, &p, e), DM_ERANGE);
    dm_shard_part_release(&p);
    dm_shard_close(s);
    return st;
}

/* In our chunks of both widths, and in another layout, which HDF5 must read for us. */
static void test_parts_are_the_shard(void **state)
{
    (void)state;
    static const size_t vocab[] = {65536, 65537, 50277};
    const char *path = tmp_path("p.h5");
    int32_t *back = malloc(N * sizeof(*back));
    assert_non_null(back);
    for (size_t v = 0; v < 3; v++) {
        struct dm_err e;
        int32_t *ids = make_ids(vocab[v]);
        write_shard(path, ids, vocab[v], 100001);
        if (v == 2) {
            uint16_t *narrow = malloc(N * sizeof(*narrow));
            struct dm_h5 *f;
            for (size_t i = 0; i < N; i++)
                narrow[i] = (uint16_t)ids[i];
            assert_ok(dm_h5_create(&f, path, "dynamo-shard", 1, &e), e);
            assert_ok(dm_h5_set_u64(f, "/", "vocab", vocab[v], &e), e);
            assert_ok(dm_h5_set_u64(f, "/", "separator", 0, &e), e);
            assert_ok(dm_h5_set_string(f, "/", "tokenizer_hash", HASH, &e), e);
            assert_ok(dm_h5_write(f, "tokens", DM_H5_U16, narrow, N, 0, 0, &e), e);
            assert_ok(dm_h5_commit(f, &e), e);
            free(narrow);
        }
        memset(back, 0, N * sizeof(*back));
        assert_ok(read_parts(path, back, &e), e);
        assert_memory_equal(back, ids, N * sizeof(*ids));
        free(ids);
    }
    free(back);
}

/* A flipped bit in the compressed ids is an error or another id, not a crash. */
static void test_damaged_parts_are_errors(void **state)
{
    (void)state;
    const char *path = tmp_path("d.h5");
    struct dm_err e;
    char *data;
    size_t n, bad = 0;
    int32_t *ids = make_ids(50277), *back = malloc(N * sizeof(*back));
    assert_non_null(back);
    write_shard(path, ids, 50277, N);
    assert_ok(dm_file_read(path, 1 << 26, &data, &n, &e), e);
    for (size_t i = 0; i < 40; i++) {
        const size_t at = n / 4 + n / 2 / 40 * i;
        data[at] ^= 4;
        assert_ok(dm_file_write(path, data, n, &e), e);
        const enum dm_status st = read_parts(path, back, &e);
        assert_true(!st || st == DM_EFORMAT || st == DM_EIO);
        bad += st != DM_OK;
        data[at] ^= 4;
    }
    assert_true(bad > 30); // zlib's own checksum
    free(data);
    free(ids);
    free(back);
}

/* Compressed chunks of one token, the best case, and of noise, the worst: their sizes, and that
 * they read back. */
static void test_repetition_is_small_and_noise_fits(void **state)
{
    (void)state;
    static const size_t vocab[] = {256, 65536, 70000, (size_t)INT32_MAX};
    for (size_t v = 0; v < sizeof(vocab) / sizeof(vocab[0]); v++)
        for (int noise = 0; noise < 2; noise++) {
            int32_t *ids = make_ids(noise ? vocab[v] : 1), *back = malloc(N * sizeof(*back));
            struct dm_shard *s;
            struct dm_err e;
            struct stat f;
            assert_non_null(back);
            write_shard(tmp_path("r.h5"), ids, vocab[v], 5000);
            assert_int_equal(stat(tmp_path("r.h5"), &f), 0);
            assert_true((size_t)f.st_size <
                        (noise ? (vocab[v] > 65536 ? 4u : 2u) * N + 70000 : 70000));
            assert_ok(dm_shard_open(&s, tmp_path("r.h5"), &e), e);
            assert_ok(dm_shard_read(s, back, 0, N, &e), e);
            assert_memory_equal(back, ids, N * sizeof(*ids));
            dm_shard_close(s);
            free(ids);
            free(back);
        }
}

static void test_bytes_do_not_depend_on_the_cut(void **state)
{
    (void)state;
    struct dm_err e;
    char *a, *b;
    size_t na, nb;
    int32_t *ids = make_ids(50277);
    write_shard(tmp_path("a.h5"), ids, 50277, N);
    write_shard(tmp_path("b.h5"), ids, 50277, 777);
    assert_ok(dm_file_read(tmp_path("a.h5"), 1 << 26, &a, &na, &e), e);
    assert_ok(dm_file_read(tmp_path("b.h5"), 1 << 26, &b, &nb, &e), e);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    free(a);
    free(b);
    free(ids);
}

static void test_an_empty_shard_opens(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_shard_writer *w;
    struct dm_shard *s;
    assert_ok(dm_shard_create(&w, tmp_path("e.h5"), 10, NULL, HASH, "{}", &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
    assert_ok(dm_shard_open(&s, tmp_path("e.h5"), &e), e);
    assert_int_equal(dm_shard_tokens(s), 0);
    dm_shard_close(s);
}

static void test_ids_outside_the_vocabulary_are_refused(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_shard_writer *w;
    static const int32_t bad[2][2] = {{3, 10}, {3, -1}};
    for (size_t i = 0; i < 2; i++) {
        assert_ok(dm_shard_create(&w, tmp_path("v.h5"), 10, NULL, HASH, "{}", &e), e);
        assert_int_equal(dm_shard_append(w, bad[i], 2, &e), DM_ERANGE);
        assert_non_null(strstr(e.msg, "want 0..9"));
        dm_shard_abort(w);
        assert_int_not_equal(access(tmp_path("v.h5"), F_OK), 0);
    }
    assert_int_equal(dm_shard_create(&w, tmp_path("v.h5"), 0, NULL, HASH, "{}", &e), DM_ERANGE);
    assert_null(w);
}

/* A file that calls itself a shard; each argument can lie. */
static void write_lie(const char *format, uint64_t vocab, uint64_t separator, enum dm_h5_type t,
                      size_t cols)
{
    static const uint32_t ids[8] = {1, 2, 3, 9, 5, 6, 7, 8};
    static const uint16_t ids16[8] = {1, 2, 3, 9, 5, 6, 7, 8};
    struct dm_err e;
    struct dm_h5 *f;
    assert_ok(dm_h5_create(&f, tmp_path("lie.h5"), format, 1, &e), e);
    assert_ok(dm_h5_set_u64(f, "/", "vocab", vocab, &e), e);
    assert_ok(dm_h5_set_u64(f, "/", "separator", separator, &e), e);
    assert_ok(dm_h5_set_string(f, "/", "tokenizer_hash", HASH, &e), e);
    assert_ok(dm_h5_write(f, "tokens", t, t == DM_H5_U16 ? (const void *)ids16 : ids,
                          cols ? 8 / cols : 8, cols, 0, &e),
              e);
    assert_ok(dm_h5_commit(f, &e), e);
}

static void test_files_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        uint64_t vocab, separator;
        enum dm_h5_type t;
        size_t cols;
        enum dm_status open, read;
        const char *text;
    } cases[] = {
        {"dynamo-shard", 10, 0, DM_H5_U16, 0, DM_OK, DM_OK, ""},
        {"dynamo-shard", 9, 0, DM_H5_U16, 0, DM_OK, DM_EFORMAT, "token 3 is 9, want less than 9"},
        {"dynamo-model", 10, 0, DM_H5_U16, 0, DM_EFORMAT, DM_OK, "is a dynamo-model file"},
        {"dynamo-shard", 0, 0, DM_H5_U16, 0, DM_ERANGE, DM_OK, "vocab is 0"},
        {"dynamo-shard", 1ull << 40, 0, DM_H5_U32, 0, DM_ERANGE, DM_OK, "vocab is 1099511627776"},
        {"dynamo-shard", 10, 5, DM_H5_U16, 0, DM_EUNSUPPORTED, DM_OK, "separator is 5"},
        {"dynamo-shard", 10, 0, DM_H5_U32, 0, DM_EFORMAT, DM_OK, "one row of u16"},
        {"dynamo-shard", 70000, 0, DM_H5_U16, 0, DM_EFORMAT, DM_OK, "one row of u32"},
        {"dynamo-shard", 10, 0, DM_H5_U16, 2, DM_EFORMAT, DM_OK, "one row of u16"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dm_err e = {""};
        struct dm_shard *s;
        int32_t ids[8];
        write_lie(cases[i].format, cases[i].vocab, cases[i].separator, cases[i].t, cases[i].cols);
        assert_int_equal(dm_shard_open(&s, tmp_path("lie.h5"), &e), cases[i].open);
        if (!cases[i].open)
            assert_int_equal(dm_shard_read(s, ids, 0, 8, &e), cases[i].read);
        if (!strstr(e.msg, cases[i].text))
            fail_msg("case %zu: %s", i, e.msg);
        dm_shard_close(s);
    }
}

/* Every third token is no target. */
static void test_a_mask_reads_back_and_plain_readers_see_ids(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_shard_writer *w;
    struct dm_shard *s;
    int32_t *ids = make_ids(1000), *masked = malloc(N * sizeof(*ids)),
            *back = malloc(N * sizeof(*ids));
    assert_non_null(masked);
    assert_non_null(back);
    for (size_t i = 0; i < N; i++)
        masked[i] = i % 3 ? ids[i] : ~ids[i];
    assert_ok(dm_shard_create(&w, tmp_path("m.h5"), 1000, NULL, HASH, "{}", &e), e);
    assert_ok(dm_shard_set_template(w, "{\"prompt_no_input\":\"x\"}", &e), e);
    for (size_t at = 0; at < N; at += 99999)
        assert_ok(dm_shard_append(w, masked + at, N - at < 99999 ? N - at : 99999, &e), e);
    static const int32_t bad = ~1000;
    assert_int_equal(dm_shard_append(w, &bad, 1, &e), DM_ERANGE);
    assert_ok(dm_shard_commit(w, &e), e);
    assert_ok(dm_shard_open(&s, tmp_path("m.h5"), &e), e);
    assert_string_equal(dm_shard_template(s), "{\"prompt_no_input\":\"x\"}");
    assert_ok(dm_shard_read_targets(s, back, 0, N, &e), e);
    assert_memory_equal(back, masked, N * sizeof(*ids));
    assert_ok(dm_shard_read_targets(s, back, 262100, 2049, &e), e);
    assert_memory_equal(back, masked + 262100, 2049 * sizeof(*ids));
    assert_ok(dm_shard_read(s, back, 0, N, &e), e);
    assert_memory_equal(back, ids, N * sizeof(*ids));
    dm_shard_close(s);
    write_shard(tmp_path("p.h5"), ids, 1000, N);
    assert_ok(dm_shard_open(&s, tmp_path("p.h5"), &e), e);
    assert_null(dm_shard_template(s));
    assert_ok(dm_shard_read_targets(s, back, 0, N, &e), e);
    assert_memory_equal(back, ids, N * sizeof(*ids));
    dm_shard_close(s);
    free(ids);
    free(masked);
    free(back);
}

static void test_a_mask_that_lies_is_refused(void **state)
{
    (void)state;
    static const uint16_t ids[8] = {1, 2, 3, 9, 5, 6, 7, 8};
    static const uint8_t mask[8] = {0, 0, 0, 1, 1, 1, 0, 1};
    for (int kind = 0; kind < 3; kind++) {
        struct dm_err e;
        struct dm_h5 *f;
        struct dm_shard *s;
        assert_ok(dm_h5_create(&f, tmp_path("lie.h5"), "dynamo-shard", 2, &e), e);
        assert_ok(dm_h5_set_u64(f, "/", "vocab", 10, &e), e);
        assert_ok(dm_h5_set_u64(f, "/", "separator", 0, &e), e);
        assert_ok(dm_h5_set_string(f, "/", "tokenizer_hash", HASH, &e), e);
        assert_ok(dm_h5_set_string(f, "/", "template", "{}", &e), e);
        assert_ok(dm_h5_write(f, "tokens", DM_H5_U16, ids, 8, 0, 0, &e), e);
        if (kind == 0) // too short
            assert_ok(dm_h5_write(f, "mask", DM_H5_U8, mask, 7, 0, 0, &e), e);
        if (kind == 1) // of another type
            assert_ok(dm_h5_write(f, "mask", DM_H5_U16, ids, 8, 0, 0, &e), e);
        assert_ok(dm_h5_commit(f, &e), e);
        assert_int_equal(dm_shard_open(&s, tmp_path("lie.h5"), &e), DM_EFORMAT); // 2: missing
        assert_non_null(strstr(e.msg, "mask"));
    }
}

static void test_truncated_shards_are_errors(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_shard *s;
    char *data;
    size_t n;
    int32_t *ids = make_ids(1000);
    write_shard(tmp_path("w.h5"), ids, 1000, N);
    assert_ok(dm_file_read(tmp_path("w.h5"), 1 << 26, &data, &n, &e), e);
    for (size_t i = 0; i < 20; i++) {
        assert_ok(dm_file_write(tmp_path("t.h5"), data, n * i / 20, &e), e);
        assert_int_equal(dm_shard_open(&s, tmp_path("t.h5"), &e), DM_EFORMAT);
        assert_null(s);
    }
    free(data);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges_read_back_for_both_widths),
        cmocka_unit_test(test_parts_are_the_shard),
        cmocka_unit_test(test_damaged_parts_are_errors),
        cmocka_unit_test(test_repetition_is_small_and_noise_fits),
        cmocka_unit_test(test_bytes_do_not_depend_on_the_cut),
        cmocka_unit_test(test_an_empty_shard_opens),
        cmocka_unit_test(test_ids_outside_the_vocabulary_are_refused),
        cmocka_unit_test(test_files_that_lie_are_refused),
        cmocka_unit_test(test_a_mask_reads_back_and_plain_readers_see_ids),
        cmocka_unit_test(test_a_mask_that_lies_is_refused),
        cmocka_unit_test(test_truncated_shards_are_errors),
    };
    return cmocka_run_group_tests_name("shard", tests, NULL, NULL);
}
