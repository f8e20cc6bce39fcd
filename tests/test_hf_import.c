/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/io/safetensors.h"
#include "src/model/hf.h"

#define HF_DIR "tests/golden/hf_dir/"      /* written by transformers */
#define TORCH_DIR "tests/golden/hf_torch/" /* the same weights in every other form */

static char *argv_of_test[] = {"dynamo import", "x", NULL};

/* dir/name in the scratch folder, heap. */
static char *scratch(const char *dir, const char *name)
{
    char *path = dm_hf_path(tmp_path(dir), name);
    assert_non_null(path);
    return path;
}

static void write_text(const char *dir, const char *name, const char *text)
{
    struct dm_err e;
    char *to = scratch(dir, name);
    assert_ok(dm_file_write(to, text, strlen(text), &e), e);
    free(to);
}

static void copy(const char *from_dir, const char *name, const char *dir, const char *as)
{
    struct dm_err e;
    char *data, *from = dm_hf_path(from_dir, name), *to = scratch(dir, as);
    size_t n;
    assert_non_null(from);
    assert_ok(dm_file_read(from, 1 << 20, &data, &n, &e), e);
    assert_ok(dm_file_write(to, data, n, &e), e);
    free(data);
    free(from);
    free(to);
}

#define ST_1 "model-00001-of-00003.safetensors"
#define ST_2 "model-00002-of-00003.safetensors"
#define ST_3 "model-00003-of-00003.safetensors"
#define PT_1 "pytorch_model-00001-of-00002.bin"
#define PT_2 "pytorch_model-00002-of-00002.bin"
#define ST_INDEX "model.safetensors.index.json"
#define PT_INDEX "pytorch_model.bin.index.json"

/* A new folder with config.json and these files of TORCH_DIR. */
static void make_dir(const char *dir, const char *const *names)
{
    mkdir(tmp_path(dir), 0777);
    copy(HF_DIR, DM_HF_CONFIG, dir, DM_HF_CONFIG);
    for (; *names; names++)
        copy(TORCH_DIR, *names, dir, *names);
}

static enum dm_status import(const char *dir, const char *out, struct dm_err *e)
{
    return dm_hf_import(tmp_path(dir), tmp_path(out), false, 2, argv_of_test, e);
}

/* All that a model file holds but its provenance. */
static void assert_same_model(const char *a, const char *b)
{
    struct dm_err e;
    struct dm_h5 *f[2];
    struct dm_config c[2];
    struct dm_model_meta meta[2];
    struct dm_tensor *list;
    char *text[2];
    size_t n;
    for (int i = 0; i < 2; i++) {
        const char *path = tmp_path(i ? b : a);
        assert_ok(dm_h5_open(&f[i], path, DM_MODEL_FORMAT, DM_MODEL_VERSION, &e), e);
        assert_ok(dm_model_read_meta(f[i], &c[i], &meta[i], &e), e);
        assert_ok(dm_h5_get_string(f[i], "/", "config", &text[i], &e), e);
    }
    assert_string_equal(text[0], text[1]);
    assert_string_equal(meta[0].hf_config, meta[1].hf_config);
    assert_ok(dm_model_tensors(&c[0], &list, &n, &e), e);
    for (size_t i = 0; i < n; i++) {
        void *raw[2];
        enum dm_dtype t[2];
        for (int k = 0; k < 2; k++)
            assert_ok(dm_model_read_raw(f[k], list + i, &raw[k], &t[k], &e), e);
        assert_int_equal(t[0], t[1]);
        assert_memory_equal(raw[0], raw[1], list[i].n * dm_dtype_size(t[0]));
        free(raw[0]);
        free(raw[1]);
    }
    for (int i = 0; i < 2; i++) {
        dm_h5_close(f[i]);
        dm_model_meta_release(&meta[i]);
        free(text[i]);
    }
    free(list);
}

static void test_every_form_gives_the_same_model(void **state)
{
    (void)state;
    static const struct {
        const char *dir, *names[5];
        size_t n_inputs;
    } forms[] = {{"bin", {"pytorch_model.bin"}, 2},
                 {"bins", {PT_1, PT_2, PT_INDEX}, 4},
                 {"shards", {ST_1, ST_2, ST_3, ST_INDEX}, 5}};
    struct dm_err e;
    assert_ok(dm_hf_import(HF_DIR, tmp_path("one.h5"), false, 2, argv_of_test, &e), e);
    for (size_t i = 0; i < 3; i++) {
        struct dm_config c;
        struct dm_model_meta meta;
        json_t *root;
        make_dir(forms[i].dir, forms[i].names);
        assert_ok(import(forms[i].dir, "form.h5", &e), e);
        assert_same_model("one.h5", "form.h5");
        // Every file that was read is in the provenance.
        assert_ok(dm_model_peek(tmp_path("form.h5"), &c, &meta, &e), e);
        assert_ok(dm_json_parse(meta.provenance, strlen(meta.provenance), "p", &root, &e), e);
        assert_int_equal(json_array_size(json_object_get(root, "inputs")), forms[i].n_inputs);
        json_decref(root);
        dm_model_meta_release(&meta);
    }
}

static void test_one_file_goes_before_an_index_and_safetensors_before_bin(void **state)
{
    (void)state;
    static const char *const names[] = {"pytorch_model.bin", NULL};
    struct dm_err e;
    make_dir("order", names);
    write_text("order", PT_INDEX, "not read");
    assert_ok(import("order", "order.h5", &e), e);
    write_text("order", ST_INDEX, "no JSON");
    assert_int_equal(import("order", "order.h5", &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, ST_INDEX));
    copy(HF_DIR, DM_HF_BASE, "order", DM_HF_BASE);
    assert_ok(import("order", "order.h5", &e), e);
}

/* ---- transformers 5's name of the output embedding --------------------------------------------
 */

#define OLD_NAME "embed_out.weight"
#define NEW_NAME "lm_head.weight"

/* dir/name with the first `from` (n bytes) replaced by `to` of the same size. */
static void patch(const char *dir, const char *name, const char *from, const char *to, size_t n)
{
    struct dm_err e;
    char *path = scratch(dir, name), *data;
    size_t size;
    assert_ok(dm_file_read(path, 1 << 20, &data, &size, &e), e);
    char *at = memmem(data, size, from, n);
    assert_non_null(at);
    memcpy(at, to, n);
    assert_ok(dm_file_write(path, data, size, &e), e);
    free(data);
    free(path);
}

/* JSON: blanks fill up what the name is shorter. */
static void rename_in_json(const char *dir, const char *name)
{
    patch(dir, name, "\"" OLD_NAME "\"", "\"" NEW_NAME "\"  ", sizeof(OLD_NAME) + 1);
}

/* A pickle: BINUNICODE with its length, and a BINPUT more to the next memo, which is not yet set.
 * `memo` is the string's. */
static void rename_in_pickle(const char *dir, const char *name, char memo)
{
    char from[] = "X\x10\0\0\0" OLD_NAME "q", to[] = "X\x0e\0\0\0" NEW_NAME "q?q";
    to[sizeof(to) - 3] = (char)(memo + 1);
    patch(dir, name, from, to, sizeof(from) - 1);
}

static void test_lm_head_is_embed_out_in_every_form(void **state)
{
    (void)state;
    static const char *const st[] = {NULL}, *const pt[] = {"pytorch_model.bin", NULL};
    static const char *const sts[] = {ST_1, ST_2, ST_3, ST_INDEX, NULL};
    static const char *const pts[] = {PT_1, PT_2, PT_INDEX, NULL};
    static const char *const dirs[] = {"new_st", "new_sts", "new_pt", "new_pts"};
    struct dm_err e;
    make_dir("new_st", st);
    copy(HF_DIR, DM_HF_BASE, "new_st", DM_HF_BASE);
    rename_in_json("new_st", DM_HF_BASE);
    make_dir("new_sts", sts);
    rename_in_json("new_sts", ST_1);
    assert_int_equal(import("new_sts", "new.h5", &e), DM_EFORMAT); // the index has the other name
    assert_non_null(strstr(e.msg, "tensor " OLD_NAME " is not in " ST_1));
    rename_in_json("new_sts", ST_INDEX);
    make_dir("new_pt", pt);
    rename_in_pickle("new_pt", "pytorch_model.bin", 2);
    make_dir("new_pts", pts);
    rename_in_pickle("new_pts", PT_1, 1);
    rename_in_json("new_pts", PT_INDEX);
    assert_ok(dm_hf_import(HF_DIR, tmp_path("one.h5"), false, 2, argv_of_test, &e), e);
    for (size_t i = 0; i < 4; i++) {
        assert_ok(import(dirs[i], "new.h5", &e), e);
        assert_same_model("one.h5", "new.h5");
    }
}

/* A safetensors file of these n tensors of one element. */
static void write_ones(const char *dir, const char *name, const char *const *tensors, size_t n)
{
    struct dm_st_entry entries[2] = {{NULL, DM_F16, 1, 1}, {NULL, DM_F16, 1, 1}};
    struct dm_st_writer *w;
    struct dm_err e;
    char *path = scratch(dir, name);
    for (size_t i = 0; i < n; i++)
        entries[i].name = tensors[i];
    assert_ok(dm_st_create(&w, path, entries, n, "pt", &e), e);
    for (size_t i = 0; i < n; i++)
        assert_ok(dm_st_append(w, "\0", 2, &e), e);
    assert_ok(dm_st_commit(w, &e), e);
    free(path);
}

/* In two files of an index, and in one file. */
static void test_both_names_are_refused(void **state)
{
    (void)state;
    static const char *const sts[] = {ST_1, ST_2, ST_3, NULL};
    static const char *const both[] = {NEW_NAME, OLD_NAME};
    struct dm_err e;
    json_t *root;
    make_dir("both", sts);
    write_ones("both", "again", both, 1);
    assert_ok(dm_json_read(TORCH_DIR ST_INDEX, 1 << 20, &root, &e), e);
    json_object_set_new(json_object_get(root, "weight_map"), NEW_NAME, json_string("again"));
    char *text = json_dumps(root, 0);
    write_text("both", ST_INDEX, text);
    free(text);
    json_decref(root);
    assert_int_equal(import("both", "both.h5", &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, ST_INDEX ": holds both " OLD_NAME " and " NEW_NAME));
    write_ones("both", DM_HF_BASE, both, 2);
    assert_int_equal(import("both", "both.h5", &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, DM_HF_BASE ": holds both " OLD_NAME " and " NEW_NAME));
    assert_int_not_equal(access(tmp_path("both.h5"), F_OK), 0);
}

/* ---- Hostile indices ------------------------------------------------------------------------ */

enum fault {
    NONE,
    SLASH,
    ABOVE,
    HIDDEN,
    ABSOLUTE,
    EMPTY,
    NUL,
    NUMBER,
    MISSING_FILE,
    WRONG_SHARD,
    NOT_THERE,
    NOT_LISTED,
    NO_MAP,
    MAP_EMPTY,
    OTHER_KIND
};

#define VICTIM "gpt_neox.layers.1.mlp.dense_4h_to_h.bias"

/* The golden index with one fault at VICTIM. */
static void write_index(enum fault fault)
{
    struct dm_err e;
    json_t *root;
    assert_ok(dm_json_read(TORCH_DIR ST_INDEX, 1 << 20, &root, &e), e);
    json_t *map = json_object_get(root, "weight_map");
    const char *right = json_string_value(json_object_get(map, VICTIM));
    const char *wrong = strcmp(right, ST_1) ? ST_1 : ST_2;
    const char *const file[] = {
        [SLASH] = "x/" ST_1,   [ABOVE] = "../" ST_1, [HIDDEN] = ".hidden",
        [ABSOLUTE] = "/tmp/x", [EMPTY] = "",         [MISSING_FILE] = "nothing",
        [WRONG_SHARD] = wrong, [OTHER_KIND] = PT_1};
    if (fault < sizeof(file) / sizeof(file[0]) && file[fault])
        json_object_set_new(map, VICTIM, json_string(file[fault]));
    if (fault == NUL)
        json_object_set_new(map, VICTIM, json_stringn(ST_1 "\0x", sizeof(ST_1) + 1));
    if (fault == NUMBER)
        json_object_set_new(map, VICTIM, json_integer(1));
    if (fault == NOT_THERE)
        json_object_set_new(map, "gpt_neox.layers.9.x", json_string(ST_1));
    if (fault == NOT_LISTED)
        json_object_del(map, VICTIM);
    if (fault == NO_MAP)
        json_object_del(root, "weight_map");
    if (fault == MAP_EMPTY)
        json_object_clear(map);
    char *path = scratch("index", ST_INDEX);
    assert_ok(dm_json_write(path, root, &e), e);
    free(path);
    json_decref(root);
}

static void test_an_index_that_lies_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {ST_1, ST_2, ST_3, PT_1, NULL};
    static const struct {
        enum fault fault;
        enum dm_status st;
        const char *text;
    } cases[] = {
        {NONE, DM_OK, ""},
        {SLASH, DM_EFORMAT, "not the name of one in this directory: x/model"},
        {ABOVE, DM_EFORMAT, "not the name of one in this directory: ../"},
        {HIDDEN, DM_EFORMAT, "not the name of one in this directory: .hidden"},
        {ABSOLUTE, DM_EFORMAT, "not the name of one in this directory: /tmp/x"},
        {EMPTY, DM_EFORMAT, "not the name of one in this directory"},
        {NUL, DM_EFORMAT, "not the name of one in this directory"},
        {NUMBER, DM_EFORMAT, "not the name of one in this directory: integer"},
        {MISSING_FILE, DM_EIO, "nothing: cannot open"},
        {WRONG_SHARD, DM_EFORMAT, "the index says model-0000"},
        {NOT_THERE, DM_EFORMAT, "tensor gpt_neox.layers.9.x is not in " ST_1},
        {NOT_LISTED, DM_EFORMAT, "is not in the index"},
        {NO_MAP, DM_EFORMAT, "\"weight_map\" is nothing"},
        {MAP_EMPTY, DM_EFORMAT, "\"weight_map\" is object"},
        {OTHER_KIND, DM_EFORMAT, "truncated, or not safetensors"},
    };
    make_dir("index", names);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dm_err e = {""};
        unlink(tmp_path("index.h5"));
        write_index(cases[i].fault);
        const enum dm_status st = import("index", "index.h5", &e);
        if (st != cases[i].st || !strstr(e.msg, cases[i].text))
            fail_msg("case %zu: status %d, %s", i, (int)st, e.msg);
        assert_int_equal(access(tmp_path("index.h5"), F_OK) == 0, !cases[i].st);
    }
}

static void test_a_tensor_in_two_shards_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {ST_1, ST_2, ST_3, ST_INDEX, NULL};
    struct dm_err e;
    make_dir("twice", names);
    copy(TORCH_DIR, ST_1, "twice", ST_2);
    assert_int_equal(import("twice", "twice.h5", &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "is also in"));
    make_dir("twice", names);
    char *path = scratch("twice", ST_3);
    unlink(path);
    assert_int_equal(import("twice", "twice.h5", &e), DM_EIO);
    assert_non_null(strstr(e.msg, ST_3));
    free(path);
}

/* ---- Memory --------------------------------------------------------------------------------- */

/* Peak resident bytes since the last reset, 0 if the kernel does not tell. */
static size_t peak(bool reset)
{
    size_t kb = 0;
    char line[128];
    if (reset) {
        FILE *f = fopen("/proc/self/clear_refs", "w");
        if (!f || fputs("5", f) < 0 || fclose(f))
            return 0;
    }
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, "VmHWM:", 6))
            kb = strtoul(line + 6, NULL, 10);
    if (f)
        fclose(f);
    return kb * 1024;
}

/* A model of 124 MB in f16, the largest tensor of which has 33 MB. */
static size_t write_large(const char *dir)
{
    struct dm_err e;
    struct dm_config c;
    struct dm_tensor *list;
    struct dm_st_writer *w;
    size_t n, largest = 0;
    assert_ok(dm_config_named(&c, "1b", &e), e);
    c.Vp = c.V = 8192;
    c.L = 1;
    c.F = 2048;
    c.dtype = DM_F16;
    mkdir(tmp_path(dir), 0777);
    json_t *root = dm_config_to_json(&c);
    char *path = scratch(dir, DM_HF_CONFIG);
    assert_ok(dm_json_write(path, root, &e), e);
    json_decref(root);
    free(path);
    assert_ok(dm_model_tensors(&c, &list, &n, &e), e);
    struct dm_st_entry *entries = calloc(n, sizeof(*entries));
    assert_non_null(entries);
    for (size_t i = 0; i < n; i++)
        entries[i] = (struct dm_st_entry){list[i].name, DM_F16, list[i].rows, list[i].cols};
    path = scratch(dir, DM_HF_BASE);
    assert_ok(dm_st_create(&w, path, entries, n, "pt", &e), e);
    for (size_t i = 0; i < n; i++) {
        const size_t bytes = 2 * entries[i].rows * (entries[i].cols ? entries[i].cols : 1);
        char *raw = malloc(bytes);
        assert_non_null(raw);
        memset(raw, (int)i + 1, bytes);
        assert_ok(dm_st_append(w, raw, bytes, &e), e);
        free(raw);
        largest = bytes > largest ? bytes : largest;
    }
    assert_ok(dm_st_commit(w, &e), e);
    free(path);
    free(entries);
    free(list);
    return largest;
}

static void test_importing_holds_one_tensor(void **state)
{
    (void)state;
    struct dm_err e;
    const size_t largest = write_large("large"), before = peak(true);
    if (!before)
        skip();
    assert_ok(import("large", "large.h5", &e), e);
    const size_t grown = peak(false) - before;
    if (grown > largest + (20 << 20))
        fail_msg("%zu bytes for a largest tensor of %zu", grown, largest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form_gives_the_same_model),
        cmocka_unit_test(test_one_file_goes_before_an_index_and_safetensors_before_bin),
        cmocka_unit_test(test_lm_head_is_embed_out_in_every_form),
        cmocka_unit_test(test_both_names_are_refused),
        cmocka_unit_test(test_an_index_that_lies_is_refused),
        cmocka_unit_test(test_a_tensor_in_two_shards_is_refused),
        cmocka_unit_test(test_importing_holds_one_tensor),
    };
    return cmocka_run_group_tests_name("hf_import", tests, NULL, NULL);
}
