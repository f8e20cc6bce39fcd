/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/base/rng.h"
#include "src/model/file.h"
#include "src/model/fingerprint.h"
#include "src/model/hf.h"
#include "src/model/verify.h"
#include "tests/tiny.h"

#define HF_DIR "tests/golden/hf_dir/"

/* A file of the tiny model; at > 0 puts x into element `at` of its tensor `name`. */
static void save(const char *path, const char *name, size_t at, float x, enum dm_dtype dtype)
{
    struct dm_err e;
    const struct dm_config c = tiny_config();
    struct dm_model m;
    struct dm_tensor list[128];
    tiny_model(&m, &c);
    const size_t n = dm_params_list(&m.params, &c, DM_SCOPE_ALL, list);
    for (size_t i = 0; i < n; i++)
        if (name && !strcmp(list[i].name, name))
            list[i].data[at] = x;
    assert_ok(dm_model_save(&m, NULL, path, NULL, dtype, dtype, &e), e);
    dm_model_release(&m);
}

static json_t *verify(const char *path, bool fingerprint)
{
    struct dm_err e;
    json_t *report;
    assert_ok(dm_verify(path, fingerprint, &report, &e), e);
    return report;
}

/* n problems, the first of which contains text. */
static void assert_problems(const char *path, size_t n, const char *text)
{
    json_t *report = verify(path, true);
    const json_t *problems = json_object_get(report, "problems");
    const char *first = json_string_value(json_array_get(problems, 0));
    if (json_array_size(problems) != n || (n && !strstr(first, text)))
        fail_msg("%zu problems, the first: %s", json_array_size(problems), first ? first : "none");
    assert_true(!n == json_is_array(json_object_get(report, "fingerprint")));
    json_decref(report);
}

static void test_a_whole_model_has_no_problems(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    char hash[65];
    struct dm_err e;
    save(tmp_path("whole.h5"), NULL, 0, 0.0f, DM_BF16);
    assert_ok(dm_model_hash(tmp_path("whole.h5"), hash, &e), e);
    json_t *r = verify(tmp_path("whole.h5"), true);
    assert_int_equal(json_array_size(json_object_get(r, "problems")), 0);
    assert_string_equal(json_string_value(json_object_get(r, "model")), hash);
    assert_int_equal(json_integer_value(json_object_get(r, "parameters")),
                     dm_params_count(&c, DM_SCOPE_ALL));
    assert_int_equal(json_integer_value(json_object_get(r, "tensors")), 64);
    assert_int_equal(json_array_size(json_object_get(r, "fingerprint")), 9);
    json_decref(r);
    r = verify(tmp_path("whole.h5"), false);
    assert_true(json_is_null(json_object_get(r, "fingerprint")));
    json_decref(r);
}

static void test_numbers_that_are_not_finite_are_named(void **state)
{
    (void)state;
    static const enum dm_dtype types[] = {DM_F32, DM_F16, DM_BF16};
    for (size_t i = 0; i < 3; i++) {
        save(tmp_path("n.h5"), "embed_out.weight", 3 * 36 + 7, NAN, types[i]);
        assert_problems(tmp_path("n.h5"), 1, "n.h5: embed_out.weight: element (3,7) is NaN");
        save(tmp_path("n.h5"), "dynamo.heads.3.0.mlp.dense_h_to_4h.bias", 49, -INFINITY, types[i]);
        assert_problems(tmp_path("n.h5"), 1, "dense_h_to_4h.bias: element 49 is infinite");
    }
    // Finite weights whose logits are not.
    save(tmp_path("n.h5"), "gpt_neox.final_layer_norm.weight", 3, 3e38f, DM_F32);
    json_t *r = verify(tmp_path("n.h5"), true);
    const char *first = json_string_value(json_array_get(json_object_get(r, "problems"), 0));
    assert_true(first && strstr(first, "is not finite after"));
    json_decref(r);
}

static void test_int8_files_are_read_too(void **state)
{
    (void)state;
    struct dm_err e;
    const struct dm_config c = tiny_config();
    struct dm_tensor list[128];
    struct dm_h5 *from, *to;
    save(tmp_path("f.h5"), NULL, 0, 0.0f, DM_F32);
    assert_ok(dm_h5_open(&from, tmp_path("f.h5"), DM_MODEL_FORMAT, DM_MODEL_VERSION, &e), e);
    assert_ok(dm_h5_create(&to, tmp_path("q.h5"), DM_MODEL_FORMAT, DM_MODEL_VERSION, &e), e);
    assert_ok(dm_model_write_meta(to, &c, NULL, &e), e);
    const size_t n = dm_params_list(NULL, &c, DM_SCOPE_ALL, list);
    for (size_t i = 0; i < n; i++) {
        const bool block = list[i].cols && list[i].part != DM_PART_EMBED;
        char path[128];
        void *raw, *q = calloc(list[i].n, 8);
        enum dm_dtype t;
        assert_non_null(q);
        assert_ok(dm_model_read_raw(from, list + i, &raw, &t, &e), e);
        if (block)
            dm_dtype_rows_from_f32(q, DM_INT8, raw, list[i].rows, list[i].cols);
        dm_model_tensor_path(path, list + i);
        assert_ok(dm_h5_write_tensor(to, path, block ? DM_INT8 : DM_F32, block ? q : raw,
                                     list[i].rows, list[i].cols, &e),
                  e);
        free(raw);
        free(q);
    }
    dm_h5_close(from);
    assert_ok(dm_h5_commit(to, &e), e);
    assert_problems(tmp_path("q.h5"), 0, "");
}

/* The tiny model without `drop`, with a dataset `extra`, with a tokenizer text. */
static void write_wrong(const char *path, const char *drop, const char *extra, char *tokenizer)
{
    struct dm_err e;
    struct dm_h5 *f;
    const struct dm_config c = tiny_config();
    const struct dm_model_meta meta = {.tokenizer = tokenizer};
    struct dm_model m;
    struct dm_tensor list[128];
    char name[128];
    tiny_model(&m, &c);
    const size_t n = dm_params_list(&m.params, &c, DM_SCOPE_ALL, list);
    assert_ok(dm_h5_create(&f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, &e), e);
    assert_ok(dm_model_write_meta(f, &c, &meta, &e), e);
    for (size_t i = 0; i < n; i++) {
        dm_model_tensor_path(name, list + i);
        if (!drop || strcmp(drop, list[i].name))
            assert_ok(
                dm_h5_write_tensor(f, name, DM_F32, list[i].data, list[i].rows, list[i].cols, &e),
                e);
    }
    if (extra)
        assert_ok(dm_h5_write_tensor(f, extra, DM_F32, list[0].data, 1, 0, &e), e);
    assert_ok(dm_h5_commit(f, &e), e);
    dm_model_release(&m);
}

static void test_what_is_missing_unknown_or_damaged_is_named(void **state)
{
    (void)state;
    struct dm_err e;
    char *data;
    size_t n;
    write_wrong(tmp_path("w.h5"), "gpt_neox.final_layer_norm.bias", NULL, NULL);
    assert_problems(tmp_path("w.h5"), 1, "tensor gpt_neox.final_layer_norm.bias is missing");
    write_wrong(tmp_path("w.h5"), "embed_out.weight", "tensors/lm_head.weight", NULL);
    assert_problems(tmp_path("w.h5"), 2, "tensor embed_out.weight is missing");
    write_wrong(tmp_path("w.h5"), NULL, "tensors/a/b", NULL);
    assert_problems(tmp_path("w.h5"), 1, "tensors/a/b is unknown");
    char broken[] = "{\"model\":1}";
    write_wrong(tmp_path("w.h5"), NULL, NULL, broken);
    assert_problems(tmp_path("w.h5"), 1, "w.h5");
    assert_ok(dm_file_read("tests/golden/tok_small.json", 1 << 20, &data, &n, &e), e);
    write_wrong(tmp_path("w.h5"), NULL, NULL, data);
    assert_problems(tmp_path("w.h5"), 1, "its tokenizer has 500 tokens, its config says 53");
    free(data);

    struct dm_config c = tiny_config();
    struct dm_model m;
    tiny_model(&m, &c);
    save(tmp_path("d.h5"), NULL, 0, 0.0f, DM_F32);
    assert_ok(dm_file_read(tmp_path("d.h5"), 1 << 26, &data, &n, &e), e);
    char *p = memmem(data, n, m.params.unembed, 64);
    assert_non_null(p);
    p[5] ^= 4;
    write_scratch(tmp_path("d.h5"), data, n);
    assert_problems(tmp_path("d.h5"), 1, "embed_out.weight is damaged");
    write_scratch(tmp_path("d.h5"), data, n / 2);
    free(data);
    dm_model_release(&m);
    json_t *r;
    assert_true(dm_verify(tmp_path("d.h5"), true, &r, &e) && !r);
    assert_int_equal(dm_verify("/nonexistent", true, &r, &e), DM_EIO);
}

/* ---- Fingerprints --------------------------------------------------------------------------- */

static json_t *fingerprint(const struct dm_model *m)
{
    struct dm_err e;
    json_t *print;
    assert_ok(dm_fingerprint(m, &print, &e), e);
    return print;
}

static void test_a_fingerprint_is_the_largest_logits(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    struct dm_model m;
    int32_t ids[24];
    tiny_model(&m, &c);
    json_t *print = fingerprint(&m), *row;
    assert_int_equal(json_array_size(print), 9);
    for (size_t t = 0; t < 24; t++)
        ids[t] = (int32_t)(dm_mix64(128 + t) % TINY_VP);
    for (size_t head = 1; head <= 3; head++) {
        float *logits = tiny_logits(&m, ids, 1, 24, head), *x = logits + (size_t)23 * TINY_VP;
        row = json_array_get(print, 5 + head);
        assert_int_equal(json_integer_value(json_object_get(row, "tokens")), 24); // T_max
        assert_int_equal(json_integer_value(json_object_get(row, "head")), head);
        for (size_t k = 0; k < 5; k++) {
            size_t best = 0;
            for (size_t i = 1; i < TINY_VP; i++)
                best = x[i] > x[best] ? i : best;
            assert_int_equal(json_integer_value(json_array_get(json_object_get(row, "ids"), k)),
                             best);
            const double got = json_number_value(json_array_get(json_object_get(row, "logits"), k));
            assert_true(fabs(got - (double)x[best]) <= 5e-4 * fabs(got));
            x[best] = -INFINITY;
        }
        free(logits);
    }
    json_decref(print);
    dm_model_release(&m);
}

static json_t *array_of(json_t *print, size_t row, const char *key)
{
    return json_object_get(json_array_get(print, row), key);
}

static void test_fingerprints_agree_up_to_rounding(void **state)
{
    (void)state;
    struct dm_err e;
    const struct dm_config c = tiny_config();
    struct dm_model m;
    tiny_model(&m, &c);
    json_t *a = fingerprint(&m), *b = json_deep_copy(a), *x = array_of(b, 4, "logits");
    const double top = json_number_value(json_array_get(x, 0));
    json_array_set_new(x, 1, json_real(json_number_value(json_array_get(x, 1)) + 9e-4 * top));
    assert_ok(dm_fingerprint_compare(a, b, "b", &e), e);
    json_array_set_new(x, 1, json_real(json_number_value(json_array_get(x, 1)) + 9e-4 * top));
    assert_int_equal(dm_fingerprint_compare(a, b, "b", &e), DM_EMISMATCH);
    assert_non_null(strstr(e.msg, "b: another fingerprint: head 2 after 8 tokens"));
    json_decref(b);
    // Two ids that are level may change places, others not.
    b = json_deep_copy(a);
    json_t *first = json_incref(json_array_get(array_of(b, 0, "ids"), 0));
    json_array_set(array_of(b, 0, "ids"), 0, json_array_get(array_of(b, 0, "ids"), 1));
    json_array_set_new(array_of(b, 0, "ids"), 1, first);
    assert_int_equal(dm_fingerprint_compare(a, b, "b", &e), DM_EMISMATCH);
    json_array_set(array_of(b, 0, "logits"), 1, json_array_get(array_of(b, 0, "logits"), 0));
    json_array_set(array_of(a, 0, "logits"), 1, json_array_get(array_of(a, 0, "logits"), 0));
    assert_ok(dm_fingerprint_compare(a, b, "b", &e), e);
    json_decref(b);
    // What is no fingerprint.
    assert_int_equal(dm_fingerprint_compare(a, NULL, "b", &e), DM_EMISMATCH);
    b = json_pack("[{},{},{},{},{},{},{},{},{}]");
    assert_int_equal(dm_fingerprint_compare(a, b, "b", &e), DM_EMISMATCH);
    json_decref(a);
    json_decref(b);
    dm_model_release(&m);
}

/* ---- Directories ---------------------------------------------------------------------------- */

static void copy(const char *name, char **data, size_t *n)
{
    struct dm_err e;
    char *from = dm_hf_path(HF_DIR, name), *to = dm_hf_path(tmp_path("dir"), name);
    assert_true(from && to);
    assert_ok(dm_file_read(from, 1 << 20, data, n, &e), e);
    write_scratch(to, *data, *n);
    free(from);
    free(to);
}

static void test_a_directory_is_imported_and_its_sums_checked(void **state)
{
    (void)state;
    char *config, *weights, hex[65], line[256];
    size_t n_config, n_weights;
    mkdir(tmp_path("dir"), 0777);
    copy(DM_HF_CONFIG, &config, &n_config);
    copy(DM_HF_BASE, &weights, &n_weights);
    assert_problems(tmp_path("dir"), 0, "");
    dm_sha256(config, n_config, hex);
    int len = snprintf(line, sizeof(line), "%s  " DM_HF_CONFIG "\n", hex);
    write_scratch(tmp_path("dir/" DM_HF_SUMS), line, (size_t)len);
    assert_problems(tmp_path("dir"), 0, "");
    line[0] = line[0] == '1' ? '2' : '1';
    write_scratch(tmp_path("dir/" DM_HF_SUMS), line, (size_t)len);
    assert_problems(tmp_path("dir"), 1, "config.json: its SHA-256 is");
    len = snprintf(line, sizeof(line), "%s  ../x\nabc\n%s  nothing\n", hex, hex);
    assert_in_range(len, 1, sizeof(line) - 1);
    write_scratch(tmp_path("dir/" DM_HF_SUMS), line, (size_t)len);
    assert_problems(tmp_path("dir"), 3, "a line that sha256sum does not write");
    unlink(tmp_path("dir/" DM_HF_SUMS));
    // An infinite weight: half of the exponent's bits set in f16.
    weights[n_weights - 1] = 0x7c;
    weights[n_weights - 2] = 0;
    write_scratch(tmp_path("dir/" DM_HF_BASE), weights, n_weights);
    assert_problems(tmp_path("dir"), 1, "is infinite");
    write_scratch(tmp_path("dir/" DM_HF_BASE), weights, n_weights - 1);
    struct dm_err e;
    json_t *r;
    assert_int_equal(dm_verify(tmp_path("dir"), true, &r, &e), DM_EFORMAT);
    free(config);
    free(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_model_has_no_problems),
        cmocka_unit_test(test_numbers_that_are_not_finite_are_named),
        cmocka_unit_test(test_int8_files_are_read_too),
        cmocka_unit_test(test_what_is_missing_unknown_or_damaged_is_named),
        cmocka_unit_test(test_a_fingerprint_is_the_largest_logits),
        cmocka_unit_test(test_fingerprints_agree_up_to_rounding),
        cmocka_unit_test(test_a_directory_is_imported_and_its_sums_checked),
    };
    return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}
