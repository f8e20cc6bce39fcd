/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/rng.h"
#include "src/io/safetensors.h"

#define FIXTURE "tests/golden/tiny.safetensors" /* written by the safetensors package */

static void assert_values(const struct dm_safetensors *s, const char *name, enum dm_dtype dtype,
                          size_t rank, size_t d0, size_t d1, float first, float step)
{
    const struct dm_raw_tensor *t = dm_safetensors_find(s, name);
    float x[16];
    assert_non_null(t);
    assert_true(t->usable && t->dtype == dtype && t->rank == rank && t->dim[0] == d0);
    assert_true(rank < 2 || t->dim[1] == d1);
    const size_t n = t->n_bytes / dm_dtype_size(dtype);
    assert_int_equal(n, d0 * (rank == 2 ? d1 : 1));
    dm_dtype_to_f32(x, t->data, dtype, n);
    for (size_t i = 0; i < n; i++)
        assert_true(x[i] == first + step * (float)i);
}

static void test_the_packages_file_reads(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_safetensors s = {0};
    assert_ok(dm_safetensors_open(&s, FIXTURE, &e), e);
    assert_int_equal(s.n, 5);
    assert_values(&s, "z.w", DM_F32, 2, 3, 4, -3.0f, 0.5f);
    assert_values(&s, "a.b", DM_F32, 1, 5, 0, -2.0f, 1.0f);
    assert_values(&s, "m.h", DM_F16, 2, 2, 3, 0.0f, 0.25f);
    assert_values(&s, "m.b", DM_BF16, 2, 4, 2, 0.0f, 3.0f);
    assert_values(&s, "a.one", DM_F32, 1, 1, 0, 7.0f, 0.0f);
    assert_null(dm_safetensors_find(&s, "nothing"));
    dm_safetensors_close(&s);
}

static void test_the_writer_makes_the_packages_bytes(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_safetensors s = {0};
    struct dm_st_writer *w;
    struct dm_st_entry t[] = {{"m.h", DM_F16, 2, 3},
                              {"z.w", DM_F32, 3, 4},
                              {"a.one", DM_F32, 1, 0},
                              {"m.b", DM_BF16, 4, 2},
                              {"a.b", DM_F32, 5, 0}};
    char *a, *b;
    size_t na, nb;
    assert_ok(dm_safetensors_open(&s, FIXTURE, &e), e);
    assert_ok(dm_st_create(&w, tmp_path("w.safetensors"), t, 5, "pt", &e), e);
    for (size_t i = 0; i < 5; i++) {
        const struct dm_raw_tensor *x = dm_safetensors_find(&s, t[i].name);
        assert_non_null(x);
        assert_ok(dm_st_append(w, x->data, x->n_bytes, &e), e);
    }
    assert_ok(dm_st_commit(w, &e), e);
    dm_safetensors_close(&s);
    assert_ok(dm_file_read(FIXTURE, 1 << 20, &a, &na, &e), e);
    assert_ok(dm_file_read(tmp_path("w.safetensors"), 1 << 20, &b, &nb, &e), e);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    free(a);
    free(b);
}

static void test_an_incomplete_file_does_not_appear(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_st_writer *w;
    struct dm_st_entry t[] = {{"a", DM_F16, 2, 0}, {"b", DM_F16, 2, 0}};
    const char *path = tmp_path("half.safetensors");
    assert_ok(dm_st_create(&w, path, t, 2, "pt", &e), e);
    assert_ok(dm_st_append(w, "1234", 4, &e), e);
    assert_int_equal(dm_st_commit(w, &e), DM_EIO);
    assert_ok(dm_st_create(&w, path, t, 2, "pt", &e), e);
    assert_int_equal(dm_st_append(w, "12345", 5, &e), DM_ESHAPE);
    dm_st_abort(w);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(dm_st_create(&w, "/nonexistent/x", t, 2, "pt", &e), DM_EIO);
    assert_null(w);
}

/* A file with this header and n_data bytes of data; claim < 0: the true header length. */
static void write_st(const char *path, const char *header, size_t n_data, int64_t claim)
{
    const size_t n = strlen(header);
    char *text = calloc(n + n_data + 8, 1);
    assert_non_null(text);
    const uint64_t len = claim < 0 ? n : (uint64_t)claim;
    for (int i = 0; i < 8; i++)
        text[i] = (char)(len >> 8 * i);
    memcpy(text + 8, header, n);
    write_scratch(path, text, n + n_data + 8);
    free(text);
}

#define T(dtype, shape, offsets) \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_unusable_dtypes_are_kept_by_name(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_safetensors s = {0};
    write_st(tmp_path("u.st"),
             "{\"x\":" T("U8", "[2,2]", "[0,4]") ",\"q\":" T("F4_NEW", "[7]", "[4,8]") "}   ", 8,
             -1);
    assert_ok(dm_safetensors_open(&s, tmp_path("u.st"), &e), e);
    assert_int_equal(s.n, 2);
    assert_false(s.tensor[0].usable || s.tensor[1].usable);
    assert_string_equal(s.tensor[1].type_name, "F4_NEW");
    dm_safetensors_close(&s);
}

static void test_lying_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        int64_t claim;
        const char *text;
    } cases[] = {
        {"{\"a\":" T("F32", "[2]", "[0,8]") "}", 8, 1 << 20, "truncated, or not safetensors"},
        {"{\"a\":" T("F32", "[2]", "[0,8]") "}", 8, INT64_MAX, "truncated, or not safetensors"},
        {"{\"a\":" T("F32", "[2]", "[0,8]") "}", 8, 10, "not valid JSON"},
        {"{\"a\":" T("F32", "[2]", "[0,8]") "}", 8, 0, "not valid JSON"},
        {"[1,2]", 0, -1, "the header is array"},
        {"{\"a\": 5}", 0, -1, "entry of a is integer"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, -1, "\"dtype\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, -1, "shape of a"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, -1, "data_offsets of a"},
        {"{\"a\":" T("F32", "[2.5]", "[0,8]") "}", 8, -1, "no size"},
        {"{\"a\":" T("F32", "[-2]", "[0,8]") "}", 8, -1, "no size"},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, -1, "up to 8 sizes"},
        {"{\"a\":" T("F32", "[4611686018427387904,8]", "[0,8]") "}", 8, -1, "overflows"},
        {"{\"a\":" T("F32", "[4611686018427387904]", "[0,8]") "}", 8, -1, "8 bytes for"},
        {"{\"a\":" T("F32", "[3]", "[0,8]") "}", 8, -1, "8 bytes for 3 elements of F32"},
        {"{\"a\":" T("F32", "[2]", "[8,0]") "}", 8, -1, "8..0 of 8 bytes"},
        {"{\"a\":" T("F32", "[2]", "[-8,0]") "}", 8, -1, "-8..0 of 8 bytes"},
        {"{\"a\":" T("F32", "[4]", "[0,16]") "}", 8, -1, "0..16 of 8 bytes"},
        {"{\"a\":" T("F32", "[2]", "[0]") "}", 8, -1, "not two integers"},
        {"{\"a\":" T("F32", "[2]", "[0,8]") ",\"b\":" T("F32", "[1]", "[4,8]") "}", 8, -1,
         "b begins at byte 4"},
        {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[8,12]") "}", 12, -1,
         "b begins at byte 8, but the data before it ends at 4"},
        {"{\"a\":" T("F32", "[2]", "[0,8]") "}", 12, -1, "12 bytes of data"},
        {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}", 8, -1,
         "duplicate"},
        {"{\"__metadata__\":{\"n\":5}}", 0, -1, "\"n\" is integer, want a string"},
        {"{\"__metadata__\":[]}", 0, -1, "__metadata__ is array"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dm_err e;
        struct dm_safetensors s = {0};
        write_st(tmp_path("lie.st"), cases[i].header, cases[i].n_data, cases[i].claim);
        assert_int_equal(dm_safetensors_open(&s, tmp_path("lie.st"), &e), DM_EFORMAT);
        if (!strstr(e.msg, cases[i].text) || !strstr(e.msg, "lie.st"))
            fail_msg("%s: %s", cases[i].header, e.msg);
        assert_null(s.map.data);
    }
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    struct dm_err e;
    char *data;
    size_t n;
    assert_ok(dm_file_read(FIXTURE, 1 << 20, &data, &n, &e), e);
    for (size_t keep = 0; keep < n; keep++) {
        struct dm_safetensors s = {0};
        write_scratch(tmp_path("cut.st"), data, keep);
        assert_int_equal(dm_safetensors_open(&s, tmp_path("cut.st"), &e), DM_EFORMAT);
    }
    free(data);
    struct dm_safetensors s = {0};
    assert_int_equal(dm_safetensors_open(&s, "/nonexistent", &e), DM_EIO);
}

static void test_random_damage_never_crashes(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_rng r;
    char *data;
    size_t n, opened = 0;
    assert_ok(dm_file_read(FIXTURE, 1 << 20, &data, &n, &e), e);
    dm_rng_init(&r, 11, 0);
    for (int i = 0; i < 3000; i++) {
        struct dm_safetensors s = {0};
        const size_t at = dm_rng_below(&r, 8 + 0x150);
        const char old = data[at];
        data[at] = (char)dm_rng_u64(&r);
        write_scratch(tmp_path("dam.st"), data, n);
        data[at] = old;
        if (dm_safetensors_open(&s, tmp_path("dam.st"), &e))
            continue;
        opened++;
        volatile uint8_t byte; // every byte that is offered can be read
        for (size_t t = 0; t < s.n; t++)
            for (size_t k = 0; k < s.tensor[t].n_bytes; k++)
                byte = s.tensor[t].data[k], (void)byte;
        dm_safetensors_close(&s);
    }
    assert_true(opened > 0 && opened < 3000);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_packages_file_reads),
        cmocka_unit_test(test_the_writer_makes_the_packages_bytes),
        cmocka_unit_test(test_an_incomplete_file_does_not_appear),
        cmocka_unit_test(test_unusable_dtypes_are_kept_by_name),
        cmocka_unit_test(test_lying_headers_are_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_random_damage_never_crashes),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
