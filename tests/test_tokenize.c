/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "data/files.h"
#include "data/tokenize.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/base/stop.h"
#include "tests/util.h"

static struct dm_tokenizer *neox(void)
{
    struct dm_tokenizer *t;
    struct dm_err e;
    assert_ok(dm_tokenizer_load(&t, "tests/golden/tok_neox.json", &e), e);
    return t;
}

/* What came through the sink: ids, and -1 at the end of each document. */
struct log {
    struct dm_ids ids;
    size_t pieces;
};

static enum dm_status collect(void *ctx, const int32_t *ids, size_t n, bool end, struct dm_err *e)
{
    struct log *l = ctx;
    l->pieces++;
    for (size_t i = 0; i < n; i++)
        DM_TRY(dm_ids_push(&l->ids, ids[i], e));
    return end ? dm_ids_push(&l->ids, -1, e) : DM_OK;
}

/* Text of random words; a JSONL file has a document every few words. */
static const char *make_file(const char *name, size_t words, bool jsonl, bool pack)
{
    struct dm_rng r;
    char *path = strdup(tmp_path(name));
    assert_non_null(path);
    gzFile f = gzopen(path, pack ? "wb" : "wbT");
    assert_non_null(f);
    dm_rng_init(&r, words, 0);
    for (size_t i = 0; i < words; i++) {
        if (jsonl && i % 40 == 0)
            gzputs(f, "{\"text\": \"");
        for (size_t k = 1 + dm_rng_below(&r, 8); k; k--)
            gzputc(f, "etaoinshrdlu'.7"[dm_rng_below(&r, 15)]);
        gzputs(f, jsonl ? (i % 40 == 39 ? "\"}\n" : " ") : dm_rng_below(&r, 9) ? " " : "\n \n");
    }
    gzclose(f);
    return path;
}

static void test_threads_and_blocks_change_nothing(void **state)
{
    (void)state;
    struct dm_tokenizer *t = neox();
    const char *paths[] = {
        make_file("a.txt", 9000, false, false), make_file("b.jsonl.gz", 8000, true, true),
        make_file("c.txt", 0, false, false), make_file("d.txt.gz", 5000, false, true)};
    struct log want = {0};
    struct dm_tokenize_stats all = {0};
    for (size_t block = 16u << 20; block >= 100; block /= 40)
        for (size_t threads = 1; threads <= 5; threads++) {
            struct log got = {0};
            struct dm_tokenize_stats s;
            struct dm_err e;
            const struct dm_tokenize k = {.tokenizer = t,
                                          .paths = paths,
                                          .n_paths = 4,
                                          .block = block,
                                          .sink = collect,
                                          .ctx = &got};
            dm_par_set_threads(threads);
            assert_ok(dm_tokenize_run(&k, &s, &e), e);
            if (!want.ids.n) {
                want = got;
                all = s;
                assert_int_equal(s.documents, 203);
                assert_int_equal(s.tokens + s.documents, want.ids.n);
                continue;
            }
            assert_memory_equal(&s, &all, sizeof(s));
            assert_true(got.pieces >= want.pieces);
            assert_int_equal(got.ids.n, want.ids.n);
            assert_memory_equal(got.ids.id, want.ids.id, want.ids.n * sizeof(*want.ids.id));
            dm_ids_release(&got.ids);
        }
    dm_ids_release(&want.ids);
    for (size_t i = 0; i < 4; i++)
        free((void *)(uintptr_t)paths[i]);
    dm_par_set_threads(0);
    dm_tokenizer_free(t);
}

static void write_text(const char *path, const char *text)
{
    struct dm_err e;
    assert_ok(dm_file_write(path, text, strlen(text), &e), e);
}

/* However fast the others are: what a single thread would have met first. */
static void test_the_first_failure_is_reported(void **state)
{
    (void)state;
    struct dm_tokenizer *t = neox();
    char *lines = malloc(30000);
    const char *path = tmp_path("bad.jsonl");
    size_t n = 0;
    assert_non_null(lines);
    for (int i = 1; i <= 1000; i++)
        n += (size_t)snprintf(
            lines + n, 30000 - n,
            i == 700 || i == 710 || i == 990 ? "{\"text\": %d}\n" : "{\"text\": \"line %d\"}\n", i);
    write_text(path, lines);
    for (size_t threads = 1; threads <= 4; threads++) {
        struct log got = {0};
        struct dm_tokenize_stats s;
        struct dm_err e;
        const struct dm_tokenize k = {.tokenizer = t,
                                      .paths = &path,
                                      .n_paths = 1,
                                      .block = 100,
                                      .sink = collect,
                                      .ctx = &got};
        dm_par_set_threads(threads);
        assert_int_equal(dm_tokenize_run(&k, &s, &e), DM_EFORMAT);
        assert_non_null(strstr(e.msg, "bad.jsonl, line 700: \"text\" is integer"));
        dm_ids_release(&got.ids);
    }
    dm_par_set_threads(0);
    free(lines);
    dm_tokenizer_free(t);
}

static void test_a_folder_stands_for_its_texts_in_order(void **state)
{
    (void)state;
    static const char *const names[] = {"b.txt",      "a.jsonl.zst", "c.md",   ".hidden.txt",
                                        "a.jsonl.gz", ".txt",        "z/1.txt"};
    char dir[256], path[512];
    struct dm_files f = {0};
    struct dm_err e;
    snprintf(dir, sizeof(dir), "%s", tmp_path("folder"));
    snprintf(path, sizeof(path), "%s/z", dir);
    assert_int_equal(mkdir(dir, 0777), 0);
    assert_int_equal(dm_files_add(&f, dir, &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "folder: no .txt or .jsonl file in this folder"));
    assert_int_equal(mkdir(path, 0777), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        write_text(path, "x");
    }
    snprintf(path, sizeof(path), "%s/loop", dir);
    assert_int_equal(symlink(".", path), 0);
    assert_ok(dm_files_add(&f, "-", &e), e);
    assert_ok(dm_files_add(&f, dir, &e), e);
    static const char *const want[] = {"/a.jsonl.gz", "/a.jsonl.zst", "/b.txt", "/z/1.txt"};
    assert_int_equal(f.n, 5);
    assert_string_equal(f.path[0], "-");
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(f.path[i + 1] + strlen(dir), want[i]);
    dm_files_release(&f);
}

static enum dm_status to_shard(const struct dm_tokenizer *t, const char *path, const char *out,
                               struct dm_err *e)
{
    char *argv[] = {(char *)(uintptr_t) "test"};
    struct dm_tokenize_stats s;
    const struct dm_tokenize k = {.tokenizer = t, .paths = &path, .n_paths = 1, .block = 1000};
    return dm_tokenize_shard(&k, out, 1, argv, &s, e);
}

static void test_every_failing_allocation_is_reported(void **state)
{
    (void)state;
    struct dm_tokenizer *t = neox();
    const char *path = make_file("alloc.jsonl.gz", 400, true, true);
    char out[256];
    snprintf(out, sizeof(out), "%s", tmp_path("alloc.h5"));
    size_t failures = 0;
    dm_par_set_threads(1); // the failing one is counted
    for (size_t n = 1;; n++) {
        struct dm_err e;
        dm_alloc_fail_at(n);
        const enum dm_status st = to_shard(t, path, out, &e);
        dm_alloc_fail_at(0);
        if (!st)
            break;
        assert_int_equal(st, DM_ENOMEM);
        assert_int_equal(access(out, F_OK), -1);
        failures++;
    }
    assert_true(failures >= 10);
    dm_par_set_threads(0);
    free((void *)(uintptr_t)path);
    dm_tokenizer_free(t);
}

/* Last: a request to stop is for good. */
static void test_a_signal_leaves_no_file(void **state)
{
    (void)state;
    struct dm_tokenizer *t = neox();
    const char *path = make_file("stop.txt", 3000, false, false);
    struct dm_err e;
    char out[256], *tmp;
    snprintf(out, sizeof(out), "%s", tmp_path("stop.h5"));
    tmp = dm_file_tmp_name(out);
    dm_stop_install();
    assert_int_equal(raise(SIGINT), 0);
    assert_int_equal(to_shard(t, path, out, &e), DM_ESTOPPED);
    assert_string_equal(e.msg, "stopped by a signal");
    assert_int_equal(access(out, F_OK), -1);
    assert_int_equal(access(tmp, F_OK), -1);
    free(tmp);
    free((void *)(uintptr_t)path);
    dm_tokenizer_free(t);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_and_blocks_change_nothing),
        cmocka_unit_test(test_the_first_failure_is_reported),
        cmocka_unit_test(test_a_folder_stands_for_its_texts_in_order),
        cmocka_unit_test(test_every_failing_allocation_is_reported),
        cmocka_unit_test(test_a_signal_leaves_no_file),
    };
    return cmocka_run_group_tests_name("tokenize", tests, NULL, NULL);
}
