/* SPDX-License-Identifier: MIT */
#include "tests/runs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/io/shard.h"
#include "src/io/tokenizer.h"
#include "tests/util.h"
#include "train/heads.h"
#include "train/pretrain.h"

/* A byte-level BPE of 12 letters without merges; `extra` makes another tokenizer of it. */
static char *tokenizer_json(const char *extra)
{
    char *out = NULL;
    assert_true(
        asprintf(&out,
                 "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[{"
                 "\"id\":0,\"content\":\"<|endoftext|>\",\"single_word\":false,\"lstrip\":false,"
                 "\"rstrip\":false,\"normalized\":false,\"special\":true}],"
                 "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\","
                 "\"add_prefix_space\":false,\"trim_offsets\":true},\"post_processor\":null,"
                 "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                 "\"trim_offsets\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,"
                 "\"unk_token\":null,\"continuing_subword_prefix\":null,"
                 "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"vocab\":{\"<|endoftext|>\":0,"
                 "\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9,"
                 "\"j\":10,\"k\":11,\"%s\":12},\"merges\":[]}}",
                 extra) > 0);
    return out;
}

const char *run_shard(const char *name, const char *extra, unsigned salt)
{
    struct dm_shard_writer *w;
    struct dm_tokenizer *t;
    struct dm_err e;
    char *json = tokenizer_json(extra);
    const char *path = tmp_path(name);
    int32_t ids[1500];
    for (unsigned i = 0; i < 1500; i++)
        ids[i] = i % 97 == 96 ? 0 : (int32_t)(1 + (i * i / 3 + i * salt) % 12);
    assert_ok(dm_tokenizer_parse(&t, json, strlen(json), "test", &e), e);
    assert_ok(dm_shard_create(&w, path, 13, json, dm_tokenizer_hash(t), "{}", &e), e);
    assert_ok(dm_shard_append(w, ids, 1500, &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
    dm_tokenizer_free(t);
    free(json);
    return path;
}

static const char *run_config(void)
{
    static const char text[] =
        "{\"model_type\":\"gpt_neox\",\"architectures\":[\"GPTNeoXForCausalLM\"],"
        "\"hidden_size\":32,\"num_hidden_layers\":3,\"num_attention_heads\":2,"
        "\"intermediate_size\":64,\"vocab_size\":40,\"max_position_embeddings\":24,"
        "\"rotary_pct\":0.25,\"rotary_emb_base\":10000,\"layer_norm_eps\":1e-5,"
        "\"use_parallel_residual\":true,\"hidden_act\":\"gelu\",\"tie_word_embeddings\":false,"
        "\"torch_dtype\":\"float16\",\"bos_token_id\":0,\"eos_token_id\":0}";
    struct dm_err e;
    const char *path = tmp_path("config.json");
    assert_ok(dm_file_write(path, text, strlen(text), &e), e);
    return path;
}

const char *const run_precisions[] = {"bf16", "f32"};

char run_shard_path[600], run_config_path[600], run_base_path[600];

int run_setup(void **state)
{
    (void)state;
    snprintf(run_shard_path, sizeof(run_shard_path), "%s", run_shard("shard.h5", "l", 5));
    snprintf(run_config_path, sizeof(run_config_path), "%s", run_config());
    return 0;
}

void run_options(struct dm_train_opt *o, enum dm_train_kind kind, const char *output)
{
    struct dm_err e;
    dm_train_opt_init(o, kind);
    assert_ok(dm_paths_add(&o->data, run_shard_path, &e), e);
    o->config = run_config_path;
    o->base = run_base_path;
    o->output = output;
    o->vocab_rows = "auto";
    o->steps = 12;
    o->batch = 5;
    o->micro = 2;
    o->context = 16;
    o->val_every = 5;
    o->lr = 3e-3;
}

void run_set_data(struct dm_train_opt *o, const char *path)
{
    struct dm_err e;
    dm_paths_clear(&o->data);
    assert_ok(dm_paths_add(&o->data, path, &e), e);
}

enum dm_status run_go(const struct dm_train_opt *o, struct dm_train_report *r, struct dm_err *e)
{
    return o->kind == DM_TRAIN_BASE ? dm_pretrain(o, r, NULL, e) : dm_train_heads(o, r, NULL, e);
}

void run_complete(const struct dm_train_opt *o)
{
    struct dm_train_report r;
    struct dm_err e;
    assert_ok(run_go(o, &r, &e), e);
    assert_int_equal(r.steps, r.total_steps);
    dm_train_report_release(&r);
}

const char *run_named(const char *prefix, enum dm_train_kind kind)
{
    char name[64];
    snprintf(name, sizeof(name), "%s-%s.h5", prefix, dm_train_kind_name(kind));
    return tmp_path(name);
}

void run_make_base(void)
{
    struct dm_train_opt o;
    if (run_base_path[0])
        return;
    snprintf(run_base_path, sizeof(run_base_path), "%s", tmp_path("base.h5"));
    run_options(&o, DM_TRAIN_BASE, run_base_path);
    run_complete(&o);
    dm_train_opt_release(&o);
}

void assert_same_file(const char *a, const char *b)
{
    char *x, *y;
    size_t n, m;
    struct dm_err e;
    assert_ok(dm_file_read(a, 1 << 24, &x, &n, &e), e);
    assert_ok(dm_file_read(b, 1 << 24, &y, &m, &e), e);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

const char *run_prefix_of(const char *file)
{
    static char prefix[600];
    snprintf(prefix, sizeof(prefix), "%.*s", (int)strlen(file) - 3, file);
    return prefix;
}

void run_refused(struct dm_train_opt *o, enum dm_status want, const char *part)
{
    struct dm_train_report r;
    struct dm_err e = {""};
    assert_int_equal(run_go(o, &r, &e), want);
    if (!strstr(e.msg, part))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, part);
    assert_true(access(o->output, F_OK) != 0);
    dm_train_opt_release(o);
}
