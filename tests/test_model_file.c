/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/provenance.h"
#include "src/base/rng.h"
#include "src/io/safetensors.h"
#include "src/model/hf.h"
#include "src/model/info.h"
#include "tests/tiny.h"

#define HF_DIR "tests/golden/hf_dir" /* written by transformers */

static const struct dm_load_opt masters = {.masters = true}, f32 = {.format = DM_FMT_F32};
static char *meta_text[] = {"{\"model\":{}}", "{\"command\":[\"x\"]}", "{\"eps\":[0.5]}", NULL};

static struct dm_model_meta sample_meta(void)
{
    return (struct dm_model_meta){meta_text[0], meta_text[1], meta_text[2], NULL};
}

static void save(const char *path, const struct dm_model *m, const char *base_file,
                 enum dm_dtype base, enum dm_dtype heads)
{
    struct dm_err e;
    const struct dm_model_meta meta = sample_meta();
    assert_ok(dm_model_save(m, &meta, path, base_file, base, heads, &e), e);
}

static void assert_same_file(const char *a, const char *b)
{
    struct dm_err e;
    char *x, *y;
    size_t nx, ny;
    assert_ok(dm_file_read(a, 1 << 26, &x, &nx, &e), e);
    assert_ok(dm_file_read(b, 1 << 26, &y, &ny, &e), e);
    if (nx != ny || memcmp(x, y, nx))
        fail_msg("%s and %s differ", a, b);
    free(x);
    free(y);
}

static void test_a_model_comes_back_bit_for_bit(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_config c = tiny_config();
    struct dm_model m, back;
    struct dm_model_meta meta;
    tiny_model(&m, &c);
    save(tmp_path("m.h5"), &m, NULL, DM_F32, DM_F32);
    save(tmp_path("m2.h5"), &m, NULL, DM_F32, DM_F32);
    assert_same_file(tmp_path("m.h5"), tmp_path("m2.h5"));
    assert_ok(dm_model_load(&back, tmp_path("m.h5"), &masters, &meta, &e), e);
    assert_int_equal(back.mem.used, m.mem.used);
    const size_t n = dm_params_list(&m.params, &c, DM_SCOPE_ALL, NULL);
    struct dm_tensor *a = calloc(n, sizeof(*a)), *b = calloc(n, sizeof(*b));
    assert_true(a && b);
    dm_params_list(&m.params, &c, DM_SCOPE_ALL, a);
    dm_params_list(&back.params, &back.cfg, DM_SCOPE_ALL, b);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(a[i].data, b[i].data, a[i].n * sizeof(float));
    free(a);
    free(b);
    assert_int_equal(back.cfg.K, 3);
    assert_string_equal(meta.tokenizer, meta_text[0]);
    assert_string_equal(meta.provenance, meta_text[1]);
    assert_string_equal(meta.calibration, meta_text[2]);
    assert_null(meta.hf_config);
    dm_model_meta_release(&meta);
    dm_model_release(&m);
    dm_model_release(&back);
}

static void test_a_frozen_base_is_copied_not_converted(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_config c = tiny_config(), got;
    struct dm_model m;
    struct dm_model_meta meta;
    tiny_model(&m, &c);
    save(tmp_path("half.h5"), &m, NULL, DM_BF16, DM_F16);
    // The base in memory is float32 with more bits than the file's: they must not get there.
    save(tmp_path("copy.h5"), &m, tmp_path("half.h5"), DM_F32, DM_F16);
    assert_same_file(tmp_path("half.h5"), tmp_path("copy.h5"));
    assert_ok(dm_model_peek(tmp_path("copy.h5"), &got, &meta, &e), e);
    assert_int_equal(got.dtype, DM_BF16);
    dm_model_meta_release(&meta);
    c.C = 24; // another base
    c.HS = 8;
    struct dm_model other;
    tiny_model(&other, &c);
    assert_int_equal(
        dm_model_save(&other, NULL, tmp_path("no.h5"), tmp_path("half.h5"), DM_F32, DM_F32, &e),
        DM_ESHAPE);
    assert_int_not_equal(access(tmp_path("no.h5"), F_OK), 0);
    dm_model_release(&m);
    dm_model_release(&other);
}

static void test_calibration_changes_nothing_else(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_config c = tiny_config();
    struct dm_model m;
    struct dm_model_meta meta;
    char before[65], after[65];
    tiny_model(&m, &c);
    save(tmp_path("c.h5"), &m, NULL, DM_F16, DM_F32);
    save(tmp_path("same.h5"), &m, NULL, DM_F16, DM_F32);
    assert_ok(dm_model_hash(tmp_path("c.h5"), before, &e), e);
    assert_ok(dm_model_set_calibration(tmp_path("c.h5"), "{\"eps\":[0.25]}", &e), e);
    assert_ok(dm_model_hash(tmp_path("c.h5"), after, &e), e);
    assert_string_equal(before, after);
    assert_ok(dm_model_peek(tmp_path("c.h5"), &c, &meta, &e), e);
    assert_string_equal(meta.calibration, "{\"eps\":[0.25]}");
    dm_model_meta_release(&meta);
    assert_ok(dm_model_set_calibration(tmp_path("c.h5"), meta_text[2], &e), e);
    assert_same_file(tmp_path("c.h5"), tmp_path("same.h5"));
    assert_ok(dm_model_set_calibration(tmp_path("c.h5"), NULL, &e), e);
    assert_ok(dm_model_peek(tmp_path("c.h5"), &c, &meta, &e), e);
    assert_null(meta.calibration);
    dm_model_meta_release(&meta);
    m.params.embed[0] += 1.0f;
    save(tmp_path("c.h5"), &m, NULL, DM_F16, DM_F32);
    assert_ok(dm_model_hash(tmp_path("c.h5"), after, &e), e);
    assert_string_not_equal(before, after);
    dm_model_release(&m);
}

/* A model file whose tensors do not match its config. */
static void write_wrong(const char *path, const char *drop, const char *reshape, const char *extra,
                        const struct dm_config *claim)
{
    struct dm_err e;
    struct dm_h5 *f;
    struct dm_config c = tiny_config();
    struct dm_tensor *list;
    size_t n;
    c.K = 1;
    float *zeros = calloc(1 << 16, sizeof(*zeros));
    assert_non_null(zeros);
    assert_ok(dm_model_tensors(&c, &list, &n, &e), e);
    assert_ok(dm_h5_create(&f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, &e), e);
    assert_ok(dm_model_write_meta(f, claim ? claim : &c, NULL, &e), e);
    for (size_t i = 0; i < n; i++) {
        char name[128];
        dm_model_tensor_path(name, list + i);
        if (drop && !strcmp(drop, list[i].name))
            continue;
        const size_t rows = list[i].rows + (reshape && !strcmp(reshape, list[i].name));
        assert_ok(dm_h5_write_tensor(f, name, DM_F32, zeros, rows, list[i].cols, &e), e);
    }
    if (extra)
        assert_ok(dm_h5_write_tensor(f, extra, DM_F32, zeros, 1, 0, &e), e);
    assert_ok(dm_h5_commit(f, &e), e);
    free(list);
    free(zeros);
}

static void test_files_that_contradict_their_config_are_refused(void **state)
{
    (void)state;
    struct dm_config huge = tiny_config();
    huge.K = 1;
    huge.C = 1 << 15;
    huge.NH = 1;
    huge.HS = huge.C;
    huge.L = 4096; // terabytes, if it were believed
    const struct {
        const char *drop, *reshape, *extra, *text;
        const struct dm_config *claim;
        enum dm_status st;
    } cases[] = {
        {NULL, NULL, NULL, "", NULL, DM_OK},
        {"embed_out.weight", NULL, NULL, "no dataset tensors/embed_out.weight", NULL, DM_EFORMAT},
        {NULL, "gpt_neox.layers.1.mlp.dense_4h_to_h.bias", NULL, "is (37,0), want (36,0)", NULL,
         DM_ESHAPE},
        {NULL, NULL, "tensors/extra", "tensors, want the", NULL, DM_EFORMAT},
        {NULL, NULL, NULL, "want (53,32768)", &huge, DM_ESHAPE},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dm_err e = {""};
        struct dm_model m;
        struct dm_model_meta meta;
        const char *path = tmp_path("wrong.h5");
        write_wrong(path, cases[i].drop, cases[i].reshape, cases[i].extra, cases[i].claim);
        assert_int_equal(dm_model_load(&m, path, &f32, &meta, &e), cases[i].st);
        if (!strstr(e.msg, cases[i].text))
            fail_msg("case %zu: %s", i, e.msg);
        if (!cases[i].st) {
            dm_model_release(&m);
            dm_model_meta_release(&meta);
        }
    }
}

static void test_a_damaged_weight_is_found(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_config c = tiny_config();
    struct dm_model m;
    char *data;
    size_t n;
    tiny_model(&m, &c);
    save(tmp_path("d.h5"), &m, NULL, DM_F32, DM_F32);
    assert_ok(dm_file_read(tmp_path("d.h5"), 1 << 26, &data, &n, &e), e);
    char *p = memmem(data, n, m.params.unembed, 64);
    assert_non_null(p);
    p[5] ^= 4;
    assert_ok(dm_file_write(tmp_path("d.h5"), data, n, &e), e);
    dm_model_release(&m);
    assert_int_equal(dm_model_load(&m, tmp_path("d.h5"), &f32, NULL, &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "embed_out.weight is damaged"));
    free(data);
}

/* ---- Hugging Face directories --------------------------------------------------------------- */

static char *argv_of_test[] = {"dynamo import", "x", NULL};

static void test_transformers_directory_survives_the_round_trip(void **state)
{
    (void)state;
    struct dm_err e;
    const char *out = tmp_path("back");
    assert_ok(dm_hf_import(HF_DIR, tmp_path("hf.h5"), false, 2, argv_of_test, &e), e);
    assert_ok(dm_hf_export(tmp_path("hf.h5"), out, false, &e), e);
    assert_same_file(HF_DIR "/" DM_HF_BASE, tmp_path("back/" DM_HF_BASE));
    assert_same_file(HF_DIR "/" DM_HF_CONFIG, tmp_path("back/" DM_HF_CONFIG));
    assert_int_not_equal(access(tmp_path("back/" DM_HF_HEADS), F_OK), 0);
    assert_int_equal(dm_hf_export(tmp_path("hf.h5"), out, false, &e), DM_EIO);
    assert_non_null(strstr(e.msg, "exists already"));
    assert_ok(dm_hf_export(tmp_path("hf.h5"), out, true, &e), e);
}

static void test_heads_go_into_their_own_file_and_come_back(void **state)
{
    (void)state;
    static const enum dm_dtype base[] = {DM_F32, DM_F16, DM_BF16};
    struct dm_err e;
    struct dm_config c = tiny_config();
    struct dm_model m;
    struct dm_safetensors s;
    char hash[65], back[65];
    tiny_model(&m, &c);
    for (size_t i = 0; i < 3; i++) {
        save(tmp_path("k.h5"), &m, NULL, base[i], DM_F16);
        assert_ok(dm_hf_export(tmp_path("k.h5"), tmp_path("k"), true, &e), e);
        assert_ok(dm_safetensors_open(&s, tmp_path("k/" DM_HF_BASE), &e), e);
        assert_non_null(dm_safetensors_find(&s, "embed_out.weight"));
        assert_null(dm_safetensors_find(&s, "dynamo.heads.2.0.mlp.dense_h_to_4h.bias"));
        dm_safetensors_close(&s);
        unlink(tmp_path("k/" DM_HF_TOKENIZER)); // the sample's is none
        assert_ok(dm_hf_import(tmp_path("k"), tmp_path("k2.h5"), false, 2, argv_of_test, &e), e);
        assert_ok(dm_model_hash(tmp_path("k.h5"), hash, &e), e);
        assert_ok(dm_model_hash(tmp_path("k2.h5"), back, &e), e);
        assert_string_equal(hash, back); // config, dtypes and the bits of every tensor
        assert_ok(dm_hf_export(tmp_path("k2.h5"), tmp_path("k2"), true, &e), e);
        assert_same_file(tmp_path("k/" DM_HF_BASE), tmp_path("k2/" DM_HF_BASE));
        assert_same_file(tmp_path("k/" DM_HF_HEADS), tmp_path("k2/" DM_HF_HEADS));
        assert_same_file(tmp_path("k/" DM_HF_CONFIG), tmp_path("k2/" DM_HF_CONFIG));
    }
    dm_model_release(&m);
}

enum fault { NONE, MISSING, RESHAPED, TYPE, UNKNOWN, BUFFERS };

/* The transformers directory's tensors with one fault in layer 1's down_b. */
static void write_faulty(const char *path, enum fault fault)
{
    struct dm_err e;
    struct dm_safetensors s;
    json_t *header = json_object();
    size_t at = 0, n = 0;
    char *data = calloc(1 << 20, 1);
    assert_non_null(data);
    assert_ok(dm_safetensors_open(&s, HF_DIR "/" DM_HF_BASE, &e), e);
    for (size_t i = 0; i < s.n; i++) {
        const struct dm_raw_tensor *t = s.tensor + i;
        const bool here = !strcmp(t->name, "gpt_neox.layers.1.mlp.dense_4h_to_h.bias");
        if (here && fault == MISSING)
            continue;
        json_t *v = json_deep_copy(json_object_get(s.header, t->name));
        if (here && fault == RESHAPED)
            json_object_set_new(v, "shape", json_pack("[i, i]", 4, 4));
        if (here && fault == TYPE)
            json_object_set_new(v, "dtype", json_string("I16"));
        json_object_set_new(v, "data_offsets",
                            json_pack("[I, I]", (json_int_t)at, (json_int_t)(at + t->n_bytes)));
        json_object_set_new(header, t->name, v);
        at += t->n_bytes;
    }
    static const char *const more[] = {"gpt_neox.layers.0.attention.bias",
                                       "gpt_neox.layers.0.attention.masked_bias",
                                       "gpt_neox.layers.2.attention.rotary_emb.inv_freq"};
    for (size_t i = 0; i < 3 && fault == BUFFERS; i++, at += 4)
        json_object_set_new(header, more[i],
                            json_pack("{s:s, s:[i,i], s:[I, I]}", "dtype", i ? "I16" : "BOOL",
                                      "shape", i ? 1 : 2, 2, "data_offsets", (json_int_t)at,
                                      (json_int_t)at + 4));
    if (fault == UNKNOWN) {
        json_object_set_new(header, "gpt_neox.layers.3.attention.dense.bias",
                            json_pack("{s:s, s:[i], s:[I, I]}", "dtype", "F32", "shape", 1,
                                      "data_offsets", (json_int_t)at, (json_int_t)at + 4));
        at += 4;
    }
    dm_safetensors_close(&s);
    char *text = json_dumps(header, JSON_COMPACT);
    n = strlen(text);
    for (int i = 0; i < 8; i++)
        data[i] = (char)((uint64_t)n >> 8 * i);
    memcpy(data + 8, text, n);
    assert_ok(dm_file_write(path, data, 8 + n + at, &e), e);
    json_decref(header);
    free(text);
    free(data);
}

static void test_each_fault_of_a_directory_has_its_sentence(void **state)
{
    (void)state;
    static const struct {
        enum fault fault;
        enum dm_status st;
        const char *text;
    } cases[] = {
        {NONE, DM_OK, ""},
        {BUFFERS, DM_OK, ""},
        {MISSING, DM_EFORMAT, "tensor gpt_neox.layers.1.mlp.dense_4h_to_h.bias is missing"},
        {RESHAPED, DM_ESHAPE, "dense_4h_to_h.bias is (4,4), want (16)"},
        {TYPE, DM_EUNSUPPORTED, "dense_4h_to_h.bias has dtype I16, want F32, F16 or BF16"},
        {UNKNOWN, DM_EFORMAT, "tensor gpt_neox.layers.3.attention.dense.bias is unknown"},
    };
    struct dm_err e = {""};
    char *text;
    size_t n;
    // tmp_path() keeps eight names; these two are needed longer
    char *dir = strdup(tmp_path("faulty")), *out = strdup(tmp_path("faulty.h5"));
    assert_true(dir && out);
    mkdir(dir, 0777);
    assert_int_equal(dm_hf_import(dir, out, false, 2, argv_of_test, &e), DM_EIO);
    assert_non_null(strstr(e.msg, DM_HF_CONFIG));
    assert_ok(dm_file_read(HF_DIR "/" DM_HF_CONFIG, 1 << 20, &text, &n, &e), e);
    assert_ok(dm_file_write(tmp_path("faulty/" DM_HF_CONFIG), text, n, &e), e);
    free(text);
    assert_int_equal(dm_hf_import(dir, out, true, 2, argv_of_test, &e), DM_EIO);
    assert_non_null(strstr(e.msg, "--no-tokenizer"));
    assert_int_equal(dm_hf_import(dir, out, false, 2, argv_of_test, &e), DM_EIO);
    assert_non_null(strstr(e.msg, "nor an index"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        e.msg[0] = '\0';
        unlink(out);
        write_faulty(tmp_path("faulty/" DM_HF_BASE), cases[i].fault);
        assert_int_equal(dm_hf_import(dir, out, false, 2, argv_of_test, &e), cases[i].st);
        if (!strstr(e.msg, cases[i].text))
            fail_msg("case %zu: %s", i, e.msg);
        assert_int_equal(access(out, F_OK) == 0, cases[i].st == DM_OK);
    }
    free(dir);
    free(out);
}

static void test_the_dtype_comes_from_the_file(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_config c;
    struct dm_model_meta meta;
    const char *dir = tmp_path("stale");
    char *text;
    size_t n;
    mkdir(dir, 0777);
    write_faulty(tmp_path("stale/" DM_HF_BASE), NONE);
    assert_ok(dm_file_read(HF_DIR "/" DM_HF_CONFIG, 1 << 20, &text, &n, &e), e);
    memcpy(strstr(text, "float16"), "float32", 7);
    assert_ok(dm_file_write(tmp_path("stale/" DM_HF_CONFIG), text, n, &e), e);
    assert_ok(dm_hf_import(dir, tmp_path("stale.h5"), false, 2, argv_of_test, &e), e);
    assert_ok(dm_model_peek(tmp_path("stale.h5"), &c, &meta, &e), e);
    assert_int_equal(c.dtype, DM_F16);
    assert_string_equal(meta.hf_config, text);
    dm_model_meta_release(&meta);
    free(text);
}

/* ---- Reports -------------------------------------------------------------------------------- */

static void test_info_adds_up(void **state)
{
    (void)state;
    static const char *const parts[] = {"embedding",   "stem",   "head_1", "final_layer_norm",
                                        "unembedding", "head_2", "head_3"};
    struct dm_err e;
    struct dm_config c = tiny_config();
    struct dm_model m;
    json_t *info;
    json_int_t sum = 0;
    tiny_model(&m, &c);
    save(tmp_path("i.h5"), &m, NULL, DM_BF16, DM_F32);
    dm_model_release(&m);
    assert_ok(dm_info_file(tmp_path("i.h5"), &info, &e), e);
    const json_t *p = json_object_get(info, "parameters");
    for (size_t i = 0; i < 7; i++)
        sum += json_integer_value(json_object_get(p, parts[i]));
    assert_int_equal(sum, dm_params_count(&c, DM_SCOPE_ALL));
    assert_int_equal(sum, json_integer_value(json_object_get(p, "total")));
    assert_int_equal(json_integer_value(json_object_get(p, "heads")),
                     dm_params_count(&c, DM_SCOPE_HEADS));
    const double want = 100.0 * (double)dm_params_count(&c, DM_SCOPE_HEADS) /
                        (double)dm_params_count(&c, DM_SCOPE_BASE);
    assert_true(fabs(json_real_value(json_object_get(info, "overhead_percent")) - want) < 1e-9);
    const json_t *types = json_object_get(info, "dtypes");
    assert_int_equal(json_integer_value(json_object_get(types, "f32")), 24);
    assert_int_equal(json_integer_value(json_object_get(types, "bf16")), 4 + 3 * 12);
    const json_t *eps = json_object_get(json_object_get(info, "calibration"), "eps");
    assert_true(json_real_value(json_array_get(eps, 0)) == 0.5);
    json_decref(info);
}

static void test_provenance_has_the_command_and_no_time(void **state)
{
    (void)state;
    struct dm_err e;
    char *args[] = {"dynamo train", "a b", "\xff", NULL};
    json_t *inputs = json_array(), *root;
    assert_ok(dm_file_write(tmp_path("abc"), "abc", 3, &e), e);
    assert_ok(dm_provenance_input(inputs, tmp_path("abc"), &e), e);
    char *text = dm_provenance(3, args, json_pack("{s:i, s:o}", "seed", 7, "inputs", inputs));
    assert_string_equal(text,
                        "{\"program\":\"dynamo " DM_VERSION "\",\"command\":[\"dynamo train\","
                        "\"a b\",\"?\"],\"seed\":7,\"inputs\":[{\"path\":\"abc\",\"sha256\":"
                        "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\""
                        "}]}");
    assert_ok(dm_json_parse(text, strlen(text), "p", &root, &e), e);
    json_decref(root);
    free(text);
    inputs = json_array();
    assert_int_equal(dm_provenance_input(inputs, "/nonexistent", &e), DM_EIO);
    json_decref(inputs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_model_comes_back_bit_for_bit),
        cmocka_unit_test(test_a_frozen_base_is_copied_not_converted),
        cmocka_unit_test(test_calibration_changes_nothing_else),
        cmocka_unit_test(test_files_that_contradict_their_config_are_refused),
        cmocka_unit_test(test_a_damaged_weight_is_found),
        cmocka_unit_test(test_transformers_directory_survives_the_round_trip),
        cmocka_unit_test(test_heads_go_into_their_own_file_and_come_back),
        cmocka_unit_test(test_each_fault_of_a_directory_has_its_sentence),
        cmocka_unit_test(test_the_dtype_comes_from_the_file),
        cmocka_unit_test(test_info_adds_up),
        cmocka_unit_test(test_provenance_has_the_command_and_no_time),
    };
    return cmocka_run_group_tests_name("model_file", tests, NULL, NULL);
}
