/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/dtype.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/base/par.h"
#include "src/base/rng.h"

static void test_arena_measures_then_carves(void **state)
{
    (void)state;
    struct dm_arena m = {0}, a;
    struct dm_err e;
    assert_null(dm_arena_floats(&m, 3, 5));
    assert_null(dm_arena_alloc(&m, 7, 1));
    assert_ok(dm_arena_init(&a, m.used, &e), e);
    float *x = dm_arena_floats(&a, 3, 5);
    char *y = dm_arena_alloc(&a, 7, 1);
    assert_int_equal((uintptr_t)x % DM_ALIGN, 0);
    assert_int_equal((uintptr_t)y % DM_ALIGN, 0);
    assert_true((char *)(x + 15) <= y);
    assert_int_equal(a.used, m.used);
    dm_arena_release(&a);
}

static void test_arena_reports_overflow(void **state)
{
    (void)state;
    struct dm_arena m = {0};
    struct dm_err e;
    dm_arena_floats(&m, SIZE_MAX / 2, 3);
    assert_true(dm_arena_overflowed(&m));
    assert_int_equal(dm_arena_init(&m, SIZE_MAX - 3, &e), DM_ENOMEM);
}

static void test_every_f16_and_bf16_survives_float32(void **state)
{
    (void)state;
    for (int t = DM_F16; t <= DM_BF16; t++)
        for (uint32_t h = 0; h < 65536; h++) {
            const uint16_t in = (uint16_t)h;
            uint16_t out;
            float f;
            dm_dtype_to_f32(&f, &in, (enum dm_dtype)t, 1);
            dm_dtype_from_f32(&out, (enum dm_dtype)t, &f, 1);
            if (isnan(f))
                assert_int_equal(out & 0x7c00, 0x7c00);
            else
                assert_int_equal(out, in);
        }
}

static void test_narrowing_rounds_to_nearest_even(void **state)
{
    (void)state;
    static const struct {
        float x;
        uint16_t f16, bf16;
    } cases[] = {
        {1.0f, 0x3c00, 0x3f80},       {-2.5f, 0xc100, 0xc020},       {65519.0f, 0x7bff, 0x4780},
        {65520.0f, 0x7c00, 0x4780},   {0x1p-24f, 0x0001, 0x3380},    {0x1p-25f, 0x0000, 0x3300},
        {0x1.8p-25f, 0x0001, 0x3340}, {1.00390625f, 0x3c04, 0x3f80}, {1.01171875f, 0x3c0c, 0x3f82}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint16_t h;
        dm_dtype_from_f32(&h, DM_F16, &cases[i].x, 1);
        assert_int_equal(h, cases[i].f16);
        dm_dtype_from_f32(&h, DM_BF16, &cases[i].x, 1);
        assert_int_equal(h, cases[i].bf16);
    }
}

static void test_sums_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { N = 100003 };
    float *x = malloc(N * sizeof(*x));
    assert_non_null(x);
    fill_named(x, N, "sums", 1.0f);
    double sum[3];
    for (size_t t = 1; t <= 3; t++) {
        dm_par_set_threads(t);
        sum[t - 1] = dm_par_sum_squares(x, N);
    }
    assert_memory_equal(&sum[0], &sum[1], sizeof(double));
    assert_memory_equal(&sum[0], &sum[2], sizeof(double));
    double want = 0.0;
    for (size_t i = 0; i < N; i++)
        want += (double)x[i] * (double)x[i];
    assert_true(fabs(sum[0] - want) < 1e-9 * want);
    free(x);
}

static void mark(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    for (size_t i = begin; i < end; i++)
        ((unsigned char *)ctx)[i]++;
}

static void test_par_for_covers_each_index_once(void **state)
{
    (void)state;
    for (size_t threads = 1; threads <= 3; threads++)
        for (size_t n = 0; n < 40; n++)
            for (size_t grain = 1; grain < 9; grain += 3) {
                unsigned char seen[40] = {0};
                dm_par_set_threads(threads);
                dm_par_for(n, grain, mark, seen);
                for (size_t i = 0; i < 40; i++)
                    assert_int_equal(seen[i], i < n);
            }
}

/* Every thread writes its place, meets the others and finds all places written, a thousand times.
 */
struct rounds {
    struct dm_par_meeting meeting;
    size_t at[8], wrong[8], members;
};

static void go_round(void *ctx, size_t id, size_t n)
{
    struct rounds *r = ctx;
    if (id == 0)
        r->members = n;
    for (size_t i = 1; i <= 1000; i++) {
        r->at[id] = i;
        dm_par_meet(&r->meeting, n);
        for (size_t k = 0; k < n; k++)
            r->wrong[id] += r->at[k] != i;
        dm_par_meet(&r->meeting, n);
    }
}

static void test_a_team_meets(void **state)
{
    (void)state;
    for (size_t threads = 1; threads <= 8; threads++) {
        struct rounds r = {0};
        dm_par_set_threads(threads);
        dm_par_team(go_round, &r);
        assert_in_range(r.members, 1, threads);
        for (size_t k = 0; k < 8; k++) {
            assert_int_equal(r.at[k], k < r.members ? 1000 : 0);
            assert_int_equal(r.wrong[k], 0);
        }
    }
}

static void test_sha256_of_abc(void **state)
{
    (void)state;
    char hex[DM_HASH_LEN + 1];
    dm_sha256("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void test_leftovers_of_dead_processes_are_swept(void **state)
{
    (void)state;
    // 2^22 is the largest process number that Linux gives; 1 is always there.
    static const char *const names[] = {"run-1.h5.tmp.4194305", "run.tmp.1", "run.tmp.x", "run.h5",
                                        "other.tmp.4194305"};
    static const bool stays[] = {false, true, true, true, true};
    struct dm_err e;
    for (int i = 0; i < 5; i++)
        assert_ok(dm_file_write(tmp_path(names[i]), "x", 1, &e), e);
    dm_file_sweep(tmp_path("run"));
    for (int i = 0; i < 5; i++)
        assert_int_equal(access(tmp_path(names[i]), F_OK) == 0, stays[i]);
    dm_file_sweep("/nonexistent/run");
}

static void test_an_output_that_is_an_input_is_refused(void **state)
{
    struct dm_err e = {""};
    char out[256], in[256], want[600];
    (void)state;
    snprintf(out, sizeof(out), "%s", tmp_path("out"));
    snprintf(in, sizeof(in), "%s", tmp_path("in"));
    const char *const list[] = {NULL, "/nonexistent/x", out, in};
    assert_ok(dm_file_write(in, "x", 1, &e), e);
    assert_ok(dm_file_check_output(NULL, list, 4, &e), e);
    assert_ok(dm_file_check_output(out, list, 4, &e), e); // out is not there
    assert_int_equal(dm_file_check_output(in, list, 4, &e), DM_EMISMATCH);
    snprintf(want, sizeof(want), "%s: is both input and output", in);
    assert_string_equal(e.msg, want);
    for (int hard = 0; hard < 2; hard++) {
        assert_int_equal(hard ? link(in, out) : symlink(in, out), 0);
        assert_ok(dm_file_check_output(out, list, 2, &e), e);
        assert_int_equal(dm_file_check_output(out, list + 3, 1, &e), DM_EMISMATCH);
        snprintf(want, sizeof(want), "%s: is both input (%s) and output", out, in);
        assert_string_equal(e.msg, want);
        assert_int_equal(unlink(out), 0);
    }
    assert_ok(dm_file_write(out, "x", 1, &e), e); // as long, but another file
    assert_ok(dm_file_check_output(out, list + 3, 1, &e), e);
}

static void refuses_outputs(const char *first, const char *second, const char *sentence)
{
    struct dm_err e = {""};
    char want[2048];
    assert_int_not_equal(dm_file_check_outputs((const char *const[]){first, NULL, second}, 3,
                                               &(const char *){"/nonexistent/x"}, 1, &e),
                         DM_OK);
    snprintf(want, sizeof(want), "%s: %s", second, sentence);
    assert_string_equal(e.msg, want);
}

static void test_outputs_that_cannot_be_written_are_refused(void **state)
{
    struct dm_err e = {""};
    char a[256], again[300], link_to_a[256], sentence[400];
    (void)state;
    snprintf(a, sizeof(a), "%s", tmp_path("a"));
    snprintf(link_to_a, sizeof(link_to_a), "%s", tmp_path("link"));
    snprintf(again, sizeof(again), "%.*s/.//a", (int)(strlen(a) - 2), a);
    snprintf(sentence, sizeof(sentence), "is two outputs in one (%s)", a);
    for (int there = 0; there < 2; there++) { // in either case the names are one file
        refuses_outputs(a, a, sentence);
        refuses_outputs(a, again, sentence);
        assert_ok(dm_file_write(a, "x", 1, &e), e);
    }
    assert_int_equal(symlink(a, link_to_a), 0);
    refuses_outputs(a, link_to_a, sentence);
    assert_ok(dm_file_check_outputs((const char *const[]){a, tmp_path("b")}, 2, NULL, 0, &e), e);
    refuses_outputs(a, "/", "cannot write: is a directory");
    refuses_outputs(a, "/dev/null", "cannot write: is not a regular file");
    refuses_outputs(a, "/no/x", "cannot write into the folder /no: No such file or directory");
    snprintf(again, sizeof(again), "%s/x", a);
    snprintf(sentence, sizeof(sentence), "cannot write into the folder %s: Not a directory", a);
    refuses_outputs(NULL, again, sentence);
    memset(again, 'n', 250); // fits without .tmp.<pid>
    again[250] = '\0';
    refuses_outputs(NULL, again, "the name is too long");
    assert_int_not_equal(dm_file_check_output("", NULL, 0, &e), DM_OK);
    assert_string_equal(e.msg, "\"\": cannot write: not the name of a file");
}

static void test_inputs_are_looked_at_before_work(void **state)
{
    struct dm_err e = {""};
    char in[256];
    (void)state;
    snprintf(in, sizeof(in), "%s", tmp_path("in"));
    assert_ok(dm_file_write(in, "x", 1, &e), e);
    assert_ok(dm_file_check_inputs((const char *const[]){NULL, "-", in, "/dev/null"}, 4, &e), e);
    assert_int_equal(dm_file_check_inputs((const char *const[]){in, "/no/x"}, 2, &e), DM_EIO);
    assert_string_equal(e.msg, "/no/x: cannot open: No such file or directory");
    assert_int_equal(dm_file_check_inputs((const char *const[]){"/"}, 1, &e), DM_EIO);
    assert_string_equal(e.msg, "/: is a directory, want a file");
}

static void test_files_appear_whole_and_read_back(void **state)
{
    (void)state;
    struct dm_err e;
    const char *path = tmp_path("f");
    char *data;
    size_t n;
    assert_ok(dm_file_write(path, "hello", 5, &e), e);
    assert_ok(dm_file_read(path, 100, &data, &n, &e), e);
    assert_int_equal(n, 5);
    assert_string_equal(data, "hello");
    free(data);
    assert_int_equal(dm_file_read(path, 4, &data, &n, &e), DM_ERANGE);
    assert_int_equal(dm_file_write("/nonexistent/x", "a", 1, &e), DM_EIO);
    assert_non_null(strstr(e.msg, "/nonexistent/x"));
    assert_int_equal(dm_file_read("/tmp", 4, &data, &n, &e), DM_EIO);
}

static void test_a_link_stays_and_its_file_is_written(void **state)
{
    struct dm_err e = {""};
    char link_to_link[256], file[300], sentence[400], *data;
    size_t n;
    (void)state;
    snprintf(link_to_link, sizeof(link_to_link), "%s", tmp_path("link-to-link"));
    snprintf(file, sizeof(file), "%s/file", tmp_path("elsewhere"));
    assert_int_equal(symlink("elsewhere/file", tmp_path("link-elsewhere")), 0); // of its folder
    assert_int_equal(symlink(tmp_path("link-elsewhere"), link_to_link), 0);
    snprintf(sentence, sizeof(sentence),
             "cannot write into the folder %s: No such file or directory", tmp_path("elsewhere"));
    refuses_outputs(NULL, link_to_link, sentence);
    assert_int_equal(mkdir(tmp_path("elsewhere"), 0777), 0);
    snprintf(sentence, sizeof(sentence), "is two outputs in one (%s)", file);
    for (int there = 0; there < 2; there++) {
        refuses_outputs(file, link_to_link, sentence);
        assert_ok(dm_file_write(link_to_link, there ? "new" : "old", 3, &e), e);
        assert_ok(dm_file_read(file, 3, &data, &n, &e), e);
        assert_string_equal(data, there ? "new" : "old");
        free(data);
    }
    assert_int_equal(unlink(file), 0);
    assert_int_equal(access(link_to_link, F_OK), -1);  // leads to where nothing is now
    assert_int_equal(rmdir(tmp_path("elsewhere")), 0); // and nothing was left
}

static size_t json_left; /* allocations of jansson until the failing one, 0 = none fails */

static void *failing_malloc(size_t n)
{
    return json_left && !--json_left ? NULL : malloc(n);
}

static void test_json_that_is_added_to_is_whole_or_reported(void **state)
{
    (void)state;
    json_malloc_t usual_malloc;
    json_free_t usual_free;
    json_get_alloc_funcs(&usual_malloc, &usual_free);
    json_set_alloc_funcs(failing_malloc, free);
    size_t failed = 0;
    for (size_t at = 1, reached = 1; reached; at++) {
        struct dm_err e;
        json_left = at;
        json_t *root = json_object(), *list = json_array();
        enum dm_status st = DM_OK;
        for (int i = 0; i < 20 && !st; i++)
            st = dm_json_add(list, NULL, json_pack("{s:i, s:s}", "i", i, "text", "x"), &e);
        for (int i = 0; i < 3 && !st; i++)
            st = dm_json_add(root, &"abc"[i], json_integer(i), &e);
        if (!st)
            st = dm_json_add(root, "list", json_incref(list), &e);
        reached = !json_left;
        json_left = 0;
        assert_int_equal(st, reached ? DM_ENOMEM : DM_OK);
        assert_true(!reached || strstr(e.msg, "memory"));
        assert_true(st || (json_object_size(root) == 4 && json_array_size(list) == 20));
        failed += reached;
        json_decref(root);
        json_decref(list);
    }
    assert_true(failed > 60);
    json_set_alloc_funcs(usual_malloc, usual_free);
}

static void test_json_errors_name_key_and_range(void **state)
{
    (void)state;
    struct dm_err e;
    json_t *j;
    size_t v = 7;
    static const char text[] = "{\"a\": 5, \"b\": \"x\"}";
    assert_ok(dm_json_parse(text, strlen(text), "t.json", &j, &e), e);
    assert_ok(dm_json_size(j, "none", 0, 9, false, "t.json", &v, &e), e);
    assert_int_equal(v, 7);
    assert_ok(dm_json_size(j, "a", 0, 9, true, "t.json", &v, &e), e);
    assert_int_equal(v, 5);
    assert_int_equal(dm_json_size(j, "a", 6, 9, true, "t.json", &v, &e), DM_ERANGE);
    assert_string_equal(e.msg, "t.json: \"a\" is 5, want 6..9");
    assert_int_equal(dm_json_size(j, "b", 0, 9, true, "t.json", &v, &e), DM_EFORMAT);
    json_decref(j);
    assert_int_equal(dm_json_parse("{\"a\":1,\"a\":2}", 13, "t", &j, &e), DM_EFORMAT);
}

static void test_rng_streams_differ_and_are_uniform(void **state)
{
    (void)state;
    struct dm_rng a, b;
    double mean = 0.0, var = 0.0;
    dm_rng_init(&a, 1, 0);
    dm_rng_init(&b, 1, 1);
    assert_true(dm_rng_u64(&a) != dm_rng_u64(&b));
    for (int i = 0; i < 100000; i++) {
        const double z = dm_rng_normal(&a);
        mean += z;
        var += z * z;
    }
    assert_true(fabs(mean / 1e5) < 0.02);
    assert_true(fabs(var / 1e5 - 1.0) < 0.02);
    size_t count[3] = {0};
    for (int i = 0; i < 30000; i++)
        count[dm_rng_below(&b, 3)]++;
    for (int i = 0; i < 3; i++)
        assert_in_range(count[i], 9700, 10300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena_measures_then_carves),
        cmocka_unit_test(test_arena_reports_overflow),
        cmocka_unit_test(test_every_f16_and_bf16_survives_float32),
        cmocka_unit_test(test_narrowing_rounds_to_nearest_even),
        cmocka_unit_test(test_sums_do_not_depend_on_threads),
        cmocka_unit_test(test_par_for_covers_each_index_once),
        cmocka_unit_test(test_a_team_meets),
        cmocka_unit_test(test_sha256_of_abc),
        cmocka_unit_test(test_leftovers_of_dead_processes_are_swept),
        cmocka_unit_test(test_an_output_that_is_an_input_is_refused),
        cmocka_unit_test(test_outputs_that_cannot_be_written_are_refused),
        cmocka_unit_test(test_inputs_are_looked_at_before_work),
        cmocka_unit_test(test_files_appear_whole_and_read_back),
        cmocka_unit_test(test_a_link_stays_and_its_file_is_written),
        cmocka_unit_test(test_json_that_is_added_to_is_whole_or_reported),
        cmocka_unit_test(test_json_errors_name_key_and_range),
        cmocka_unit_test(test_rng_streams_differ_and_are_uniform),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
