/* SPDX-License-Identifier: MIT */
/* Every loader with every allocation of its own and of jansson failing once. The linker leads this
 * program's malloc and its kin here (tests/meson.build); leaks are LeakSanitizer's to find. Memory
 * of HDF5, zlib and zstd does not pass here. */
#include "tests/util.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/instruct.h"
#include "data/reader.h"
#include "eval/tasks.h"
#include "src/base/file.h"
#include "src/io/cooc.h"
#include "src/io/safetensors.h"
#include "src/io/shard.h"
#include "src/io/tokenizer.h"
#include "src/io/torch.h"
#include "src/model/hf.h"
#include "src/model/verify.h"
#include "train/checkpoint.h"
#include "train/loader.h"
#include "train/ppl.h"

#define CORPUS "tests/fuzz/corpus/"
#define TORCH "tests/golden/hf_torch/"

/* ---- Allocations that fail ------------------------------------------------------------------ */

static atomic_size_t left; /* calls until the failing one, 0 = none fails */

static bool must_fail(void)
{
    size_t n = atomic_load(&left);
    while (n && !atomic_compare_exchange_weak(&left, &n, n - 1))
        ;
    if (n == 1)
        errno = ENOMEM;
    return n == 1;
}

#define WRAP(type, name, params, args) \
    type __real_##name params;         \
    type __wrap_##name params;         \
    type __wrap_##name params          \
    {                                  \
        if (must_fail())               \
            return NULL;               \
        return __real_##name args;     \
    }
WRAP(void *, malloc, (size_t n), (n))
WRAP(void *, calloc, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, (void *p, size_t n), (p, n))
WRAP(void *, aligned_alloc, (size_t align, size_t n), (align, n))
WRAP(char *, strdup, (const char *s), (s))
WRAP(char *, strndup, (const char *s, size_t n), (s, n))
#undef WRAP

int __wrap_asprintf(char **out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int __wrap_asprintf(char **out, const char *fmt, ...)
{
    va_list ap;
    if (must_fail())
        return -1;
    va_start(ap, fmt);
    const int n = vasprintf(out, fmt, ap);
    va_end(ap);
    return n;
}

/* Runs `load` with the first, second, .. allocation failing until it needs no more. */
static void sweep(enum dm_status (*load)(struct dm_err *e), size_t at_least)
{
    size_t n = 0;
    for (bool failed = true; failed;) {
        struct dm_err e = {""};
        atomic_store(&left, ++n);
        const enum dm_status st = load(&e);
        failed = !atomic_exchange(&left, 0);
        if (failed ? st != DM_ENOMEM : st != DM_OK)
            fail_msg("allocation %zu: status %d, %s", n, (int)st, e.msg);
        if (failed && !strstr(e.msg, "memory"))
            fail_msg("allocation %zu: %s", n, e.msg);
    }
    if (n <= at_least)
        fail_msg("%zu allocations, at least %zu are known", n - 1, at_least);
}

/* ---- Loaders: each leaves its outputs empty when it fails ----------------------------------- */

static enum dm_status load_safetensors(struct dm_err *e)
{
    struct dm_safetensors s = {0};
    const enum dm_status st = dm_safetensors_open(&s, "tests/golden/tiny.safetensors", e);
    assert_true(!st == (s.n == 5) && !st == (s.map.data != NULL));
    dm_safetensors_close(&s);
    return st;
}

static enum dm_status load_torch(struct dm_err *e)
{
    struct dm_torch t = {0};
    const enum dm_status st = dm_torch_open(&t, CORPUS "torch/odd", e);
    assert_true(!st == (t.n == 12) && !st == (t.map.data != NULL));
    dm_torch_close(&t);
    return st;
}

static enum dm_status load_tokenizer(struct dm_err *e)
{
    struct dm_tokenizer *t = NULL;
    const enum dm_status st = dm_tokenizer_load(&t, CORPUS "tokenizer/strings", e);
    assert_true(!st == (t != NULL));
    dm_tokenizer_free(t);
    return st;
}

/* The same from a model's file. */
static enum dm_status load_stored_tokenizer(struct dm_err *e)
{
    struct dm_tokenizer *t = NULL;
    const enum dm_status st = dm_tokenizer_load(&t, tmp_path("tok.h5"), e);
    assert_true(!st == (t != NULL));
    dm_tokenizer_free(t);
    return st;
}

static enum dm_status peek_model(struct dm_err *e)
{
    struct dm_config c;
    struct dm_model_meta meta = {0};
    const enum dm_status st = dm_model_peek(CORPUS "h5/model", &c, &meta, e);
    assert_true(!st == (meta.provenance != NULL));
    dm_model_meta_release(&meta);
    return st;
}

static enum dm_status load_model(struct dm_err *e)
{
    struct dm_model m;
    struct dm_model_meta meta = {0};
    const enum dm_status st = dm_model_load(&m, CORPUS "h5/model", NULL, &meta, e);
    assert_true(!st == (meta.provenance != NULL));
    if (!st) {
        dm_model_release(&m);
        dm_model_meta_release(&meta);
    }
    return st;
}

static enum dm_status load_shard(struct dm_err *e)
{
    struct dm_shard *s = NULL;
    int32_t ids[3] = {-1, -1, -1};
    enum dm_status st = dm_shard_open(&s, CORPUS "h5/shard", e);
    assert_true(!st == (s != NULL));
    if (!st) {
        st = dm_shard_read(s, ids, 0, 3, e);
        assert_true(!st == (ids[2] != -1));
        dm_shard_close(s);
    }
    return st;
}

static enum dm_status load_table(struct dm_err *e)
{
    struct dm_cooc c;
    const enum dm_status st = dm_cooc_load(&c, CORPUS "h5/table", e);
    assert_true(st || c.n_pairs == 16);
    dm_cooc_release(&c);
    return st;
}

static enum dm_status load_ratios(struct dm_err *e)
{
    struct dm_cooc c;
    const enum dm_status st = dm_cooc_load_for(&c, CORPUS "h5/table", true, true, e);
    assert_true(st || c.discounted->n_pairs == 16);
    dm_cooc_release(&c);
    return st;
}

static enum dm_status open_loader(struct dm_err *e)
{
    const char *const path[] = {CORPUS "h5/shard"};
    const struct dm_loader_opt opt = {.data = path,
                                      .n_data = 1,
                                      .val_fraction = 0.3,
                                      .T = 2,
                                      .V = 1 << 16,
                                      .cache_bytes = 1 << 20};
    struct dm_loader *l = NULL;
    int32_t ids[2];
    enum dm_status st = dm_loader_new(&l, &opt, e);
    assert_true(!st == (l != NULL));
    if (!st)
        st = dm_loader_read(l, 0, 1, ids, e);
    dm_loader_free(l);
    return st;
}

static enum dm_task_kind task_kind;
static const char *task_items, *task_labels; /* labels: NULL = none */

static enum dm_status load_task(struct dm_err *e)
{
    struct dm_task t = {0};
    const enum dm_status st = dm_task_load(&t, task_kind, task_items, task_labels, 0, e);
    assert_true(st || t.n == 2);
    dm_task_release(&t);
    return st;
}

static const char *template_json; /* NULL = the default */
static const char given[] = "{\"prompt_input\":\"{instruction} {input}:\","
                            "\"prompt_no_input\":\"{instruction}:\"}";

static enum dm_status parse_template(struct dm_err *e)
{
    struct dm_template t = {0};
    const enum dm_status st = dm_template_parse(&t, template_json, "template", e);
    assert_true(!st == (t.json && t.no_input && t.with_input));
    if (!st && template_json)
        assert_string_equal(t.json, template_json);
    dm_template_release(&t);
    return st;
}

static enum dm_status common_template(struct dm_err *e)
{
    char *json = NULL;
    const char *const path = tmp_path("instruct.h5");
    const enum dm_status st = dm_shard_common_template(&json, &path, 1, e);
    assert_true(!st == (json != NULL));
    free(json);
    return st;
}

static const char *jsonl_path;

static enum dm_status read_documents(struct dm_err *e)
{
    const struct dm_reader_opt opt = {.format = DM_READER_JSONL};
    struct dm_reader *r = NULL;
    const char *text = "";
    size_t n, docs = 0;
    enum dm_status st = dm_reader_open(&r, jsonl_path, &opt, e);
    assert_true(!st == (r != NULL));
    while (!st && text) {
        st = dm_reader_next(r, &text, &n, e);
        docs += !st && text;
    }
    assert_true(st || docs == 4);
    dm_reader_close(r);
    return st;
}

static enum dm_status read_blocks(struct dm_err *e)
{
    const struct dm_reader_opt opt = {.format = DM_READER_JSONL};
    struct dm_reader *r = NULL;
    struct dm_block b = {0};
    const char *text;
    size_t n, docs = 0;
    bool more = true, end;
    enum dm_status st = dm_reader_open(&r, jsonl_path, &opt, e);
    while (!st && more) {
        st = dm_reader_block(r, NULL, NULL, 40, &b, &more, e);
        for (text = ""; !st && more && text; docs += !st && text)
            st = dm_block_next(&b, &text, &n, &end, e);
    }
    assert_true(st || docs == 4);
    dm_block_release(&b);
    dm_reader_close(r);
    return st;
}

static enum dm_status peek_checkpoint(struct dm_err *e)
{
    struct dm_checkpoint c = {0};
    const enum dm_status st = dm_checkpoint_peek(&c, tmp_path("ckpt.h5"), e);
    assert_true(!st == (c.run != NULL));
    dm_checkpoint_release(&c);
    return st;
}

static struct dm_adamw *adamw; /* of one tensor */

static enum dm_status load_checkpoint(struct dm_err *e)
{
    return dm_checkpoint_load(adamw, tmp_path("ckpt.h5"), e);
}

static enum dm_status load_replay(struct dm_err *e)
{
    int32_t ids[4] = {0};
    const enum dm_status st = dm_checkpoint_load_replay(adamw, ids, 2, 2, tmp_path("replay.h5"), e);
    assert_true(st || ids[3] == 4);
    return st;
}

static char *argv_of_test[] = {"dynamo import", NULL};
static const char *import_dir; /* below the scratch folder */

static const char old[] = "old"; /* what is at the output's place before */
static char *whole;              /* what is written with all memory */
static size_t n_whole;

/* jansson's check for circles does without the memory, and then the output must be right: `st` of
 * what wrote `out`, or DM_ENOMEM when an allocation failed that was not needed. */
static enum dm_status check_written(const char *out, enum dm_status st, struct dm_err *e)
{
    const size_t pending = atomic_exchange(&left, 0);
    char *data;
    size_t n;
    assert_ok(dm_file_read(out, 1 << 20, &data, &n, NULL), *e);
    if (st)
        assert_true(n == strlen(old) && !memcmp(data, old, n));
    else if (whole)
        assert_true(n == n_whole && !memcmp(data, whole, n));
    if (st || whole) {
        free(data);
    } else {
        whole = data;
        n_whole = n;
    }
    atomic_store(&left, pending);
    return st || pending ? st : dm_fail(e, DM_ENOMEM, "memory was not needed");
}

static enum dm_status import(struct dm_err *e)
{
    const char *out = tmp_path("imported.h5");
    write_scratch(out, old, strlen(old));
    const enum dm_status st = dm_hf_import(tmp_path(import_dir), out, false, 1, argv_of_test, e);
    return check_written(out, st, e);
}

static void sweep_writer(enum dm_status (*write)(struct dm_err *e), size_t at_least)
{
    struct dm_err e;
    whole = NULL;
    atomic_store(&left, SIZE_MAX);
    assert_ok(write(&e), e);
    sweep(write, at_least);
    free(whole);
}

static void sweep_import(const char *dir)
{
    import_dir = dir;
    sweep_writer(import, 100);
}

static struct dm_instruct instruct;

static enum dm_status read_instructions(struct dm_err *e)
{
    static char *argv[] = {"dynamo tokenize", NULL};
    struct dm_instruct_stats stats = {0};
    const char *out = tmp_path("instruct.h5"), *const path = tmp_path("instruct.jsonl");
    instruct.paths = &path;
    write_scratch(out, old, strlen(old));
    const enum dm_status st = dm_instruct_shard(&instruct, out, 1, argv, &stats, e);
    assert_true(st || stats.examples == 3);
    return check_written(out, st, e);
}

static enum dm_status verify(struct dm_err *e)
{
    json_t *report = NULL;
    const enum dm_status st = dm_verify(CORPUS "h5/model", true, &report, e);
    assert_true(!st == (report != NULL));
    json_decref(report);
    return st;
}

/* A tokenizer as a shard or a model carries it. */
static void store_tokenizer(const char *json, const char *path)
{
    struct dm_err e;
    struct dm_h5 *f;
    char *text;
    size_t n;
    assert_ok(dm_file_read(json, 1 << 20, &text, &n, &e), e);
    assert_ok(dm_h5_create(&f, path, DM_MODEL_FORMAT, DM_MODEL_VERSION, &e), e);
    assert_ok(dm_h5_set_string(f, "/", "tokenizer", text, &e), e);
    assert_ok(dm_h5_commit(f, &e), e);
    free(text);
}

/* ---- Tests ---------------------------------------------------------------------------------- */

static void test_weights(void **state)
{
    (void)state;
    sweep(load_safetensors, 20);
    sweep(load_torch, 10);
}

static void test_tokenizers(void **state)
{
    (void)state;
    sweep(load_tokenizer, 100);
    store_tokenizer(CORPUS "tokenizer/strings", tmp_path("tok.h5"));
    sweep(load_stored_tokenizer, 100);
}

static void test_models(void **state)
{
    (void)state;
    sweep(peek_model, 20);
    sweep(load_model, 30);
    sweep(verify, 100);
}

static void test_shards_and_tables(void **state)
{
    (void)state;
    sweep(load_shard, 5);
    sweep(load_table, 10);
    sweep(load_ratios, 20);
    sweep(open_loader, 10);
}

static void test_documents(void **state)
{
    (void)state;
    static const char *const paths[] = {CORPUS "jsonl/lines", CORPUS "jsonl/gzip",
                                        CORPUS "jsonl/zstd"};
    for (size_t i = 0; i < 3; i++) {
        jsonl_path = paths[i];
        sweep(read_documents, 10);
        sweep(read_blocks, 10);
    }
}

static const char *written(const char *name, const char *text)
{
    write_scratch(tmp_path(name), text, strlen(text));
    return tmp_path(name);
}

static void test_tasks(void **state)
{
    (void)state;
    static const char *const items[] = {
        [DM_TASK_LAMBADA] = "{\"text\": \"he said\"}\n{\"text\": \"a b\"}\n",
        [DM_TASK_PIQA] = "[{\"goal\": \"g\", \"sol1\": \"x\", \"sol2\": \"y\", \"label\": 1},"
                         " {\"goal\": \"g\", \"sol1\": \"x\", \"sol2\": \"y\", \"label\": 0}]",
        [DM_TASK_ARC] = "{\"question\": \"q\", \"choices\": {\"text\": [\"x\", \"y\"],"
                        " \"label\": [\"A\", \"B\"]}, \"answerKey\": \"B\"}\n"
                        "{\"question\": {\"stem\": \"q\", \"choices\": ["
                        "{\"text\": \"x\", \"label\": \"A\"}]}, \"answerKey\": \"A\"}\n",
        [DM_TASK_SCIQ] = "[{\"support\": \"s\", \"question\": \"q\", \"distractor1\": \"x\","
                         " \"distractor2\": \"y\", \"distractor3\": \"z\","
                         " \"correct_answer\": \"w\"}, {\"support\": \"\", \"question\": \"q\","
                         " \"distractor1\": \"x\", \"distractor2\": \"y\","
                         " \"distractor3\": \"z\", \"correct_answer\": \"w\"}]",
        [DM_TASK_WINOGRANDE] = "{\"sentence\": \"a _ b\", \"option1\": \"x\", \"option2\": \"y\","
                               " \"answer\": \"1\"}\n{\"sentence\": \"_ b\", \"option1\": \"x\","
                               " \"option2\": \"y\", \"answer\": \"2\"}\n",
        [DM_TASK_CHOICE] = "{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"answer\": 1}\n"
                           "{\"context\": \"c\", \"choices\": [\"x\", \"y\"], \"answer\": 0}\n"};
    for (size_t k = 0; k < sizeof(items) / sizeof(items[0]); k++) {
        assert_non_null(items[k]);
        task_kind = (enum dm_task_kind)k;
        task_items = written("items", items[k]);
        sweep(load_task, 10);
    }
    task_kind = DM_TASK_PIQA;
    task_items = written("items", "[{\"goal\": \"g\", \"sol1\": \"x\", \"sol2\": \"y\"},"
                                  " {\"goal\": \"g\", \"sol1\": \"x\", \"sol2\": \"y\"}]");
    task_labels = written("labels", "1\n0\n");
    sweep(load_task, 10);
}

static void test_instructions(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_tokenizer *t;
    struct dm_template template;
    sweep(parse_template, 10);
    template_json = given;
    sweep(parse_template, 20);
    assert_ok(dm_tokenizer_load(&t, CORPUS "tokenizer/strings", &e), e);
    assert_ok(dm_template_parse(&template, NULL, "default", &e), e);
    instruct = (struct dm_instruct){.tokenizer = t, .template = &template, .n_paths = 1};
    written("instruct.jsonl", "{\"instruction\": \"a\", \"output\": \"b\"}\n"
                              "{\"instruction\": \"a\", \"input\": \"c\", \"output\": \"b\"}\n"
                              "{\"instruction\": \"a\", \"instances\": [{\"output\": \"d\"}]}\n");
    sweep_writer(read_instructions, 30);
    written("instruct.jsonl", "[{\"instruction\": \"a\", \"output\": \"b\"},"
                              "{\"instruction\": \"a\", \"input\": \"c\", \"output\": \"b\"},"
                              "{\"instruction\": \"a\", \"instances\": [{\"output\": \"d\"}]}]");
    sweep_writer(read_instructions, 30);
    sweep(common_template, 5);
    dm_template_release(&template);
    dm_tokenizer_free(t);
}

static enum dm_status ppl_json(struct dm_err *e)
{
    const struct dm_ppl p = {.K = 3, .windows = 2, .n = {1, 1, 1}, .n_joint = {1, 1, 1}};
    json_t *o = dm_ppl_json(&p);
    assert_true(!o || json_object_size(o) == 6);
    json_decref(o);
    return o ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory");
}

static void test_checkpoints(void **state)
{
    (void)state;
    const struct dm_adamw_opt opt = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    float x[6] = {1, 2, 3, 4, 5, 6}, dx[6] = {0};
    struct dm_tensor p = {.name = "embed_out.weight", .data = x, .rows = 2, .cols = 3, .n = 6};
    struct dm_tensor g = p;
    struct dm_adamw a;
    struct dm_err e;
    struct dm_checkpoint c = {.step = 1, .run = json_pack("{s:s}", "command", "train")};
    g.data = dx;
    assert_ok(dm_adamw_init(&a, &opt, &p, &g, 1, &e), e);
    const int32_t ids[] = {1, 2, 3, 4};
    assert_ok(dm_checkpoint_save(tmp_path("ckpt.h5"), &c, &a, &e), e);
    assert_ok(dm_checkpoint_save_replay(tmp_path("replay.h5"), &c, &a, ids, 2, 2, &e), e);
    dm_checkpoint_release(&c);
    adamw = &a;
    sweep(peek_checkpoint, 10);
    sweep(load_checkpoint, 10);
    sweep(load_replay, 10);
    sweep(ppl_json, 10);
    dm_adamw_release(&a);
}

static void copy(const char *from, const char *to)
{
    struct dm_err e;
    char *data;
    size_t n;
    assert_ok(dm_file_read(from, 1 << 20, &data, &n, &e), e);
    write_scratch(to, data, n);
    free(data);
}

static void test_imports(void **state)
{
    (void)state;
    struct dm_err e;
    assert_ok(dm_hf_export(CORPUS "h5/model", tmp_path("hf"), false, &e), e);
    sweep_import("hf");
    // The same as the only shard of an index.
    mkdir(tmp_path("shards"), 0777);
    copy(tmp_path("hf/" DM_HF_CONFIG), tmp_path("shards/" DM_HF_CONFIG));
    copy(tmp_path("hf/" DM_HF_BASE), tmp_path("shards/one"));
    struct dm_safetensors s = {0};
    assert_ok(dm_safetensors_open(&s, tmp_path("hf/" DM_HF_BASE), &e), e);
    json_t *map = json_object(), *root = json_pack("{s:o}", "weight_map", map);
    for (size_t i = 0; i < s.n; i++)
        json_object_set_new(map, s.tensor[i].name, json_string("one"));
    dm_safetensors_close(&s);
    char *text = json_dumps(root, 0);
    write_scratch(tmp_path("shards/model.safetensors.index.json"), text, strlen(text));
    free(text);
    json_decref(root);
    sweep_import("shards");
    // PyTorch's file, one and several.
    mkdir(tmp_path("bin"), 0777);
    mkdir(tmp_path("bins"), 0777);
    copy("tests/golden/hf_dir/" DM_HF_CONFIG, tmp_path("bin/" DM_HF_CONFIG));
    copy("tests/golden/hf_dir/" DM_HF_CONFIG, tmp_path("bins/" DM_HF_CONFIG));
    copy(TORCH "pytorch_model.bin", tmp_path("bin/pytorch_model.bin"));
    copy(TORCH "pytorch_model.bin.index.json", tmp_path("bins/pytorch_model.bin.index.json"));
    copy(TORCH "pytorch_model-00001-of-00002.bin",
         tmp_path("bins/pytorch_model-00001-of-00002.bin"));
    copy(TORCH "pytorch_model-00002-of-00002.bin",
         tmp_path("bins/pytorch_model-00002-of-00002.bin"));
    sweep_import("bin");
    sweep_import("bins");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),      cmocka_unit_test(test_tokenizers),
        cmocka_unit_test(test_models),       cmocka_unit_test(test_shards_and_tables),
        cmocka_unit_test(test_documents),    cmocka_unit_test(test_tasks),
        cmocka_unit_test(test_instructions), cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_imports),
    };
    return cmocka_run_group_tests_name("nomem", tests, NULL, NULL);
}
