/* SPDX-License-Identifier: MIT */
/* Whole runs through files: resuming, threads, what stays frozen, what is refused. */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/par.h"
#include "src/io/shard.h"
#include "src/io/tokenizer.h"
#include "src/model/file.h"
#include "train/checkpoint.h"
#include "train/heads.h"
#include "train/keep.h"
#include "train/pretrain.h"
#include "train/resume.h"

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

/* 1500 ids with some structure. */
static const char *make_shard(const char *name, const char *extra, unsigned salt)
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

static const char *make_config(void)
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

static const char *const precisions[] = {"bf16", "f32"};

/* Names that outlive tmp_path's ring. */
static char shard_path[600], config_path[600], base_path[600];

static int setup(void **state)
{
    (void)state;
    snprintf(shard_path, sizeof(shard_path), "%s", make_shard("shard.h5", "l", 5));
    snprintf(config_path, sizeof(config_path), "%s", make_config());
    return 0;
}

static void options(struct dm_train_opt *o, enum dm_train_kind kind, const char *output)
{
    struct dm_err e;
    dm_train_opt_init(o, kind);
    assert_ok(dm_train_opt_add_path(&o->data, shard_path, &e), e);
    o->config = config_path;
    o->base = base_path;
    o->output = output;
    o->vocab_rows = "auto";
    o->steps = 12;
    o->batch = 5;
    o->micro = 2;
    o->context = 16;
    o->val_every = 5;
    o->lr = 3e-3;
}

static enum dm_status go(const struct dm_train_opt *o, struct dm_train_report *r, struct dm_err *e)
{
    return o->kind == DM_TRAIN_BASE ? dm_pretrain(o, r, NULL, e) : dm_train_heads(o, r, NULL, e);
}

/* A run to the end, its report dropped. */
static void complete(const struct dm_train_opt *o)
{
    struct dm_train_report r;
    struct dm_err e;
    assert_ok(go(o, &r, &e), e);
    assert_int_equal(r.steps, r.total_steps);
    dm_train_report_release(&r);
}

static const char *named(const char *prefix, enum dm_train_kind kind)
{
    char name[64];
    snprintf(name, sizeof(name), "%s-%s.h5", prefix, dm_train_kind_name(kind));
    return tmp_path(name);
}

static void make_base(void)
{
    struct dm_train_opt o;
    if (base_path[0])
        return;
    snprintf(base_path, sizeof(base_path), "%s", tmp_path("base.h5"));
    options(&o, DM_TRAIN_BASE, base_path);
    complete(&o);
    dm_train_opt_release(&o);
}

static void assert_same_file(const char *a, const char *b)
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

/* The name without .h5, in memory that is overwritten by the next call. */
static const char *prefix_of(const char *file)
{
    static char prefix[600];
    snprintf(prefix, sizeof(prefix), "%.*s", (int)strlen(file) - 3, file);
    return prefix;
}

/* 12 steps at once against 5 (the checkpoint after step 4 is overtaken), 4 and the rest. */
static void resume(enum dm_train_kind kind, const char *recipe, const char *precision)
{
    struct dm_train_opt o;
    struct dm_train_report r;
    struct dm_err e;
    const char *whole = named("whole", kind), *parts = named("parts", kind);
    const char *ckpt = named("ckpt", kind);
    char second[600];
    unlink(parts);
    options(&o, kind, whole);
    o.recipe = recipe;
    o.precision = precision;
    complete(&o);
    o.output = parts;
    o.checkpoint = ckpt;
    o.checkpoint_every = 4;
    o.stop_after = 5;
    assert_ok(go(&o, &r, &e), e);
    assert_int_equal(r.steps, 5);
    assert_int_equal(r.total_steps, 12);
    assert_true(access(parts, F_OK) != 0);
    dm_train_report_release(&r);
    dm_train_opt_release(&o);
    // The default prefix, then one file of it.
    assert_ok(dm_keep_path(second, sizeof(second), prefix_of(ckpt), 9, &e), e);
    for (int i = 0; i < 2; i++) {
        dm_train_opt_init(&o, kind);
        o.resume = i ? second : prefix_of(ckpt);
        o.stop_after = i ? 0 : 4;
        assert_ok(dm_resume_options(&o, &e), e);
        assert_string_equal(o.output, parts);
        assert_int_equal(o.batch, 5);
        assert_string_equal(o.precision, precision);
        assert_string_equal(o.recipe, recipe);
        assert_ok(go(&o, &r, &e), e);
        assert_int_equal(r.steps, i ? 12 : 9);
        dm_train_report_release(&r);
        dm_train_opt_release(&o);
    }
    assert_same_file(whole, parts);
}

static void test_a_resumed_run_gives_the_same_bytes(void **state)
{
    (void)state;
    make_base();
    for (int i = 0; i < 2; i++) {
        resume(DM_TRAIN_BASE, "frozen", precisions[i]);
        resume(DM_TRAIN_HEADS, "frozen", precisions[i]);
        resume(DM_TRAIN_HEADS, "joint", precisions[i]);
    }
}

static void test_the_file_does_not_depend_on_threads(void **state)
{
    (void)state;
    static const enum dm_train_kind kinds[] = {DM_TRAIN_BASE, DM_TRAIN_HEADS, DM_TRAIN_HEADS};
    make_base();
    for (int k = 0; k < 6; k++) {
        const char *one = named("t1", kinds[k % 3]);
        for (size_t threads = 1; threads <= 3; threads++) {
            struct dm_train_opt o;
            const char *path = threads == 1 ? one : named("tn", kinds[k % 3]);
            dm_par_set_threads(threads);
            options(&o, kinds[k % 3], path);
            o.recipe = k % 3 == 2 ? "joint" : "frozen";
            o.precision = precisions[k / 3];
            complete(&o);
            dm_train_opt_release(&o);
            assert_same_file(one, path);
        }
    }
    dm_par_set_threads(0);
}

static void test_the_seed_changes_the_weights(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_err e;
    char a[65], b[65];
    make_base();
    options(&o, DM_TRAIN_BASE, tmp_path("seed2.h5"));
    o.seed = 2;
    complete(&o);
    assert_ok(dm_model_hash(base_path, a, &e), e);
    assert_ok(dm_model_hash(o.output, b, &e), e);
    assert_string_not_equal(a, b);
    dm_train_opt_release(&o);
}

/* Also in the file, where the precision stands, and in the report. */
static void test_precisions_train_alike_but_not_the_same(void **state)
{
    (void)state;
    struct dm_train_report r[2];
    struct dm_err e;
    char hash[2][65];
    make_base();
    for (int i = 0; i < 2; i++) {
        struct dm_train_opt o;
        options(&o, DM_TRAIN_HEADS, tmp_path(precisions[i]));
        o.precision = precisions[i];
        o.steps = 40;
        assert_ok(go(&o, &r[i], &e), e);
        assert_ok(dm_model_hash(o.output, hash[i], &e), e);
        const json_t *stored = json_object_get(r[i].provenance, "options");
        assert_string_equal(json_string_value(json_object_get(stored, "precision")), precisions[i]);
        dm_train_opt_release(&o);
    }
    assert_string_not_equal(hash[0], hash[1]);
    // Weights of 8 bits against 24: the losses part in the third digit at most.
    for (size_t n = 1; n <= 3; n++)
        assert_true(fabs(dm_ppl_head(&r[0].val, n) / dm_ppl_head(&r[1].val, n) - 1.0) < 5e-3);
    assert_true(r[0].flops == r[1].flops && r[0].flops > 0.0);
    dm_train_report_release(&r[0]);
    dm_train_report_release(&r[1]);
}

static const struct dm_load_opt masters = {.masters = true};

static void test_heads_leave_the_base_as_it_was(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_train_report r;
    struct dm_err e;
    struct dm_model base, heads;
    struct dm_model_meta meta;
    make_base();
    options(&o, DM_TRAIN_HEADS, tmp_path("heads.h5"));
    o.steps = 30;
    assert_ok(go(&o, &r, &e), e);
    assert_ok(dm_model_load(&base, base_path, &masters, NULL, &e), e);
    assert_ok(dm_model_load(&heads, o.output, &masters, &meta, &e), e);
    assert_int_equal(heads.cfg.K, 3);
    const size_t n = dm_params_list(NULL, &base.cfg, DM_SCOPE_BASE, NULL);
    struct dm_tensor *x = calloc(n, sizeof(*x)), *y = calloc(n, sizeof(*y));
    dm_params_list(&base.params, &base.cfg, DM_SCOPE_BASE, x);
    dm_params_list(&heads.params, &heads.cfg, DM_SCOPE_BASE, y);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(x[i].data, y[i].data, x[i].n * sizeof(float));
    // The heads began as copies of the last layer and have moved.
    assert_memory_not_equal(heads.params.heads[0].qkv_w, base.params.layers[2].qkv_w,
                            32 * sizeof(float));
    // The report: a better head 1 than later ones, and the joint between them.
    assert_int_equal(r.val.K, 3);
    assert_int_equal(r.n_params, dm_params_count(&heads.cfg, DM_SCOPE_HEADS));
    assert_true(isnan(r.loss[0]) && isfinite(r.loss[1]) && isfinite(r.loss[2]));
    const double low = fmin(dm_ppl_head(&r.val, 1), dm_ppl_head(&r.val, 2));
    const double high = fmax(dm_ppl_head(&r.val, 1), dm_ppl_head(&r.val, 2));
    assert_true(dm_ppl_joint(&r.val, 2) > 0.95 * low && dm_ppl_joint(&r.val, 2) < 1.05 * high);
    // Its provenance tells options, inputs and the base's own story, and nothing of this run's
    // time.
    json_t *p;
    assert_ok(dm_json_parse(meta.provenance, strlen(meta.provenance), "provenance", &p, &e), e);
    json_t *command = json_object_get(p, "command"), *own = json_object_get(p, "base");
    assert_string_equal(json_string_value(json_array_get(command, 1)), "train");
    command = json_object_get(own, "command");
    assert_string_equal(json_string_value(json_array_get(command, 1)), "pretrain");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(p, "options"), "heads")),
                     3);
    assert_null(json_object_get(p, "seconds"));
    json_decref(p);
    free(x);
    free(y);
    dm_train_report_release(&r);
    dm_model_meta_release(&meta);
    dm_model_release(&base);
    dm_model_release(&heads);
    dm_train_opt_release(&o);
}

/* Largest distance of two arrays. */
static double apart(const float *x, const float *y, size_t n)
{
    double most = 0.0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)x[i] - (double)y[i]));
    return most;
}

static void test_the_joint_recipe_trains_the_base_at_its_own_rate(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_train_report r;
    struct dm_err e;
    struct dm_model base, joint;
    make_base();
    options(&o, DM_TRAIN_HEADS, tmp_path("joint.h5"));
    o.recipe = "joint";
    o.dtype = "f32";
    o.steps = 1;
    o.warmup = 0;
    o.decay = 0;
    o.lr = 1e-2;
    o.base_lr = 1e-3;
    assert_ok(go(&o, &r, &e), e);
    assert_ok(dm_model_load(&base, base_path, &masters, NULL, &e), e);
    assert_ok(dm_model_load(&joint, o.output, &masters, NULL, &e), e);
    assert_int_equal(r.n_params, dm_params_count(&joint.cfg, DM_SCOPE_ALL));
    assert_int_equal(joint.cfg.dtype, DM_F32);
    // AdamW's first step is the learning rate, whatever the gradient.
    const size_t n = base.cfg.C * base.cfg.C, last = base.cfg.L - 1;
    const float *from = base.params.layers[last].proj_w, *stem = base.params.layers[0].proj_w;
    assert_true(fabs(apart(from, joint.params.layers[last].proj_w, n) / 1e-3 - 1.0) < 1e-2);
    assert_true(fabs(apart(stem, joint.params.layers[0].proj_w, n) / 1e-3 - 1.0) < 1e-2);
    assert_true(fabs(apart(from, joint.params.heads[0].proj_w, n) / 1e-2 - 1.0) < 1e-2);
    for (int h = 0; h < 3; h++)
        assert_true(isfinite(r.loss[h]));
    const json_t *stored = json_object_get(r.provenance, "options");
    assert_string_equal(json_string_value(json_object_get(stored, "recipe")), "joint");
    dm_train_report_release(&r);
    dm_model_release(&base);
    dm_model_release(&joint);
    dm_train_opt_release(&o);
}

static void test_rates_default_to_the_papers(void **state)
{
    (void)state;
    static const struct {
        const char *size;
        double lr;
    } want[] = {{"14m", 1e-5},  {"70m", 1e-5},    {"160m", 6e-6},   {"410m", 3e-6}, {"1b", 2e-6},
                {"1.4b", 2e-6}, {"2.8b", 1.6e-6}, {"6.9b", 1.2e-6}, {"12b", 1.2e-6}};
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        struct dm_config c;
        struct dm_err e;
        assert_ok(dm_config_named(&c, want[i].size, &e), e);
        assert_true(dm_heads_base_lr(&c) == want[i].lr);
    }
    make_base();
    // Options, and what the run records.
    static const double given[][4] = {
        {0, 0, 1e-3, 1e-5}, {0, 2e-5, 2e-3, 2e-5}, {3e-3, 0, 3e-3, 3e-5}, {3e-3, 1e-3, 3e-3, 1e-3}};
    for (int i = 0; i < 4; i++) {
        struct dm_train_opt o;
        struct dm_train_report r;
        struct dm_err e;
        options(&o, DM_TRAIN_HEADS, tmp_path("rates.h5"));
        o.recipe = "joint";
        o.steps = 1;
        o.lr = given[i][0];
        o.base_lr = given[i][1];
        assert_ok(go(&o, &r, &e), e);
        const json_t *used = json_object_get(r.provenance, "options");
        const double lr = json_real_value(json_object_get(used, "lr"));
        const double base_lr = json_real_value(json_object_get(used, "base-lr"));
        assert_true(fabs(lr / given[i][2] - 1.0) < 1e-12);
        assert_true(fabs(base_lr / given[i][3] - 1.0) < 1e-12);
        dm_train_report_release(&r);
        dm_train_opt_release(&o);
    }
}

static void test_variants_of_heads_train(void **state)
{
    (void)state;
    make_base();
    for (int i = 0; i < 6; i++) {
        struct dm_train_opt o;
        struct dm_config c;
        struct dm_err e;
        char name[32];
        snprintf(name, sizeof(name), "variant%d.h5", i);
        options(&o, DM_TRAIN_HEADS, tmp_path(name));
        const int k = i % 3;
        o.steps = 3;
        o.recipe = i < 3 ? "frozen" : "joint";
        o.heads = k == 0 ? 4 : 2;
        o.head_depth = k == 1 ? 2 : 1;
        o.init = k == 2 ? "random" : "copy";
        o.head_input = k == 2 ? "final" : "penultimate";
        o.head_weights = i == 0 ? "1,0.5,0.25" : i == 3 ? "2,1,0.5,0.25" : NULL;
        o.dtype = k == 1 ? "f32" : "base";
        complete(&o);
        assert_ok(dm_model_peek(o.output, &c, NULL, &e), e);
        assert_int_equal(c.K, o.heads);
        assert_int_equal(c.D, o.head_depth);
        assert_int_equal(c.from_final, k == 2);
        dm_train_opt_release(&o);
    }
}

static void refused(struct dm_train_opt *o, enum dm_status want, const char *part)
{
    struct dm_train_report r;
    struct dm_err e = {""};
    assert_int_equal(go(o, &r, &e), want);
    if (!strstr(e.msg, part))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, part);
    assert_true(access(o->output, F_OK) != 0);
    dm_train_opt_release(o);
}

/* A rate that grows until the model is worse than it was. */
static void test_the_best_weights_can_be_saved(void **state)
{
    (void)state;
    static const char *const saves[] = {"last", "best"};
    struct dm_train_report r[2];
    struct dm_train_opt o;
    struct dm_err e;
    char path[600];
    for (int i = 0; i < 2; i++) {
        options(&o, DM_TRAIN_BASE, tmp_path(saves[i]));
        o.save = saves[i];
        o.steps = 40;
        o.warmup = 40;
        o.lr = 3;
        assert_ok(go(&o, &r[i], &e), e);
        dm_train_opt_release(&o);
    }
    assert_int_equal(r[0].best_step, r[1].best_step);
    assert_true(r[0].best_step > 0 && r[0].best_step < 40);
    assert_int_equal(r[0].saved_step, 40);
    assert_int_equal(r[1].saved_step, r[1].best_step);
    assert_true(dm_ppl_loss(&r[0].val, 1) > r[0].best);
    assert_true(dm_ppl_loss(&r[1].val, 1) == r[1].best);
    // The best stays beside the last, but not beside itself.
    for (int i = 0; i < 2; i++) {
        assert_ok(dm_keep_path(path, sizeof(path), r[i].checkpoint, DM_KEEP_BEST, &e), e);
        assert_int_equal(access(path, F_OK) == 0, i == 0);
        dm_train_report_release(&r[i]);
    }
}

static void test_a_new_run_does_not_write_over_an_unfinished_one(void **state)
{
    (void)state;
    struct dm_train_report r;
    struct dm_train_opt o;
    struct dm_err e;
    const char *out = tmp_path("unfinished.h5");
    options(&o, DM_TRAIN_BASE, out);
    o.stop_after = 2;
    assert_ok(go(&o, &r, &e), e);
    dm_train_report_release(&r);
    refused(&o, DM_EMISMATCH, "unfinished.ckpt-00000002.h5 is left of a run that did not finish");
}

static void test_what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_err e;
    const char *out = tmp_path("refused.h5"), *other = make_shard("other.h5", "m", 5);
    make_base();
    options(&o, DM_TRAIN_HEADS, out);
    o.data.path[0] = other;
    refused(&o, DM_EMISMATCH, "tokenizer");
    options(&o, DM_TRAIN_HEADS, out);
    o.context = 25;
    refused(&o, DM_ERANGE, "--context 25");
    options(&o, DM_TRAIN_HEADS, out);
    o.head_depth = 4;
    refused(&o, DM_ERANGE, "4 are to be copied");
    options(&o, DM_TRAIN_HEADS, out);
    o.head_weights = "1";
    refused(&o, DM_ERANGE, "--head-weights");
    options(&o, DM_TRAIN_HEADS, out);
    o.recipe = "joint";
    o.head_weights = "1,1";
    refused(&o, DM_ERANGE, "want 3 numbers from 0, one for each of heads 1..3");
    options(&o, DM_TRAIN_HEADS, out);
    o.lr = 0;
    o.min_lr = 0.1;
    refused(&o, DM_ERANGE, "--min-lr 0.1");
    options(&o, DM_TRAIN_HEADS, out);
    o.base = shard_path;
    refused(&o, DM_EFORMAT, "shard.h5");
    options(&o, DM_TRAIN_BASE, out);
    o.vocab_rows = "12";
    refused(&o, DM_ERANGE, "13 tokens, more than the 12 rows");
    options(&o, DM_TRAIN_BASE, out);
    o.vocab_rows = "few";
    refused(&o, DM_ERANGE, "--vocab-rows");
    options(&o, DM_TRAIN_BASE, out);
    o.config = "15m";
    refused(&o, DM_ERANGE, "15m");
    options(&o, DM_TRAIN_BASE, out);
    o.steps = 0;
    o.batch = 1000;
    refused(&o, DM_ERANGE, "fewer than one batch");
    // A model with heads is no base.
    struct dm_train_report r;
    options(&o, DM_TRAIN_HEADS, tmp_path("heads-again.h5"));
    o.steps = 1;
    assert_ok(go(&o, &r, &e), e);
    dm_train_report_release(&r);
    o.base = o.output;
    o.output = out;
    refused(&o, DM_EUNSUPPORTED, "heads already");
}

static void test_divergence_stops_and_keeps_the_checkpoint(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_checkpoint c;
    struct dm_err e;
    const char *ckpt = tmp_path("nan.ckpt.h5"), *out = tmp_path("nan.h5");
    options(&o, DM_TRAIN_BASE, out);
    o.lr = o.min_lr = 100;
    o.decay = 100; // weights times -9999 each step: beyond float32 soon
    o.clip = 0;
    o.steps = 40;
    o.warmup = 0;
    o.checkpoint = ckpt;
    o.checkpoint_every = 1;
    refused(&o, DM_ENAN, "step ");
    size_t *step, n;
    char path[600];
    assert_ok(dm_keep_list(&step, &n, prefix_of(ckpt), &e), e);
    assert_int_equal(n, 2);
    assert_true(step[0] == step[1] + 1);
    assert_ok(dm_keep_path(path, sizeof(path), prefix_of(ckpt), step[0], &e), e);
    assert_ok(dm_checkpoint_peek(&c, path, &e), e);
    assert_true(c.step == step[0] && c.step >= 2 && c.step < 40);
    dm_checkpoint_release(&c);
    free(step);
}

static void test_a_checkpoint_of_another_run_is_refused(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_train_report r;
    struct dm_err e;
    const char *ckpt = tmp_path("mine.ckpt.h5"), *out = tmp_path("mine.h5");
    options(&o, DM_TRAIN_BASE, out);
    o.checkpoint = ckpt;
    o.stop_after = 2;
    assert_ok(go(&o, &r, &e), e);
    dm_train_report_release(&r);
    // The same tokenizer, other text.
    o.data.path[0] = make_shard("changed.h5", "l", 7);
    o.resume = prefix_of(ckpt);
    refused(&o, DM_EMISMATCH, "inputs");
    dm_train_opt_init(&o, DM_TRAIN_HEADS);
    o.resume = prefix_of(ckpt);
    assert_int_equal(dm_resume_options(&o, &e), DM_EMISMATCH);
    assert_non_null(strstr(e.msg, "dynamo pretrain"));
    dm_train_opt_release(&o);
}

static void test_stored_options_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *part;
    } bad[] = {{"batch", "0", "\"batch\" is 0"},
               {"batch", "\"x\"", "want an integer"},
               {"lr", "-1", "\"lr\" is -1"},
               {"dtype", "\"f64\"", "f64"},
               {"data", "[1]", "not a string"},
               {"seed", "null", "missing"},
               {"val-fraction", "0.99", "want 0 to 0.9"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct dm_train_opt o, p;
        struct dm_err e = {""};
        options(&o, DM_TRAIN_BASE, "out.h5");
        json_t *j = dm_train_opt_json(&o, true);
        assert_non_null(j);
        dm_train_opt_init(&p, DM_TRAIN_BASE);
        assert_ok(dm_train_opt_restore(&p, j, "good", &e), e);
        assert_int_equal(p.batch, 5);
        assert_string_equal(p.data.path[0], shard_path);
        dm_train_opt_release(&p);
        json_object_set_new(j, bad[i].key, json_loads(bad[i].value, JSON_DECODE_ANY, NULL));
        dm_train_opt_init(&p, DM_TRAIN_BASE);
        assert_true(dm_train_opt_restore(&p, j, "bad", &e) < 0);
        if (!strstr(e.msg, bad[i].part))
            fail_msg("\"%s\" does not say \"%s\"", e.msg, bad[i].part);
        dm_train_opt_release(&p);
        json_decref(j);
        dm_train_opt_release(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_resumed_run_gives_the_same_bytes),
        cmocka_unit_test(test_the_file_does_not_depend_on_threads),
        cmocka_unit_test(test_the_seed_changes_the_weights),
        cmocka_unit_test(test_precisions_train_alike_but_not_the_same),
        cmocka_unit_test(test_heads_leave_the_base_as_it_was),
        cmocka_unit_test(test_the_joint_recipe_trains_the_base_at_its_own_rate),
        cmocka_unit_test(test_rates_default_to_the_papers),
        cmocka_unit_test(test_variants_of_heads_train),
        cmocka_unit_test(test_the_best_weights_can_be_saved),
        cmocka_unit_test(test_a_new_run_does_not_write_over_an_unfinished_one),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
        cmocka_unit_test(test_divergence_stops_and_keeps_the_checkpoint),
        cmocka_unit_test(test_a_checkpoint_of_another_run_is_refused),
        cmocka_unit_test(test_stored_options_are_checked),
    };
    return cmocka_run_group_tests_name("train_run", tests, setup, NULL);
}
