/* SPDX-License-Identifier: MIT */
/* Whole runs through files: threads, precisions, recipes, what stays frozen, what is refused. */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/par.h"
#include "src/model/file.h"
#include "tests/runs.h"
#include "train/heads.h"
#include "train/pretrain.h"

static void test_the_file_does_not_depend_on_threads(void **state)
{
    (void)state;
    static const enum dm_train_kind kinds[] = {DM_TRAIN_BASE, DM_TRAIN_HEADS, DM_TRAIN_HEADS};
    run_make_base();
    for (int k = 0; k < 6; k++) {
        const char *one = run_named("t1", kinds[k % 3]);
        for (size_t threads = 1; threads <= 3; threads++) {
            struct dm_train_opt o;
            const char *path = threads == 1 ? one : run_named("tn", kinds[k % 3]);
            dm_par_set_threads(threads);
            run_options(&o, kinds[k % 3], path);
            o.recipe = k % 3 == 2 ? "joint" : "frozen";
            o.precision = run_precisions[k / 3];
            run_complete(&o);
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
    run_make_base();
    run_options(&o, DM_TRAIN_BASE, tmp_path("seed2.h5"));
    o.seed = 2;
    run_complete(&o);
    assert_ok(dm_model_hash(run_base_path, a, &e), e);
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
    run_make_base();
    for (int i = 0; i < 2; i++) {
        struct dm_train_opt o;
        run_options(&o, DM_TRAIN_HEADS, tmp_path(run_precisions[i]));
        o.precision = run_precisions[i];
        o.steps = 40;
        assert_ok(run_go(&o, &r[i], &e), e);
        assert_ok(dm_model_hash(o.output, hash[i], &e), e);
        const json_t *stored = json_object_get(r[i].provenance, "options");
        assert_string_equal(json_string_value(json_object_get(stored, "precision")),
                            run_precisions[i]);
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
    run_make_base();
    run_options(&o, DM_TRAIN_HEADS, tmp_path("heads.h5"));
    o.steps = 30;
    assert_ok(run_go(&o, &r, &e), e);
    assert_ok(dm_model_load(&base, run_base_path, &masters, NULL, &e), e);
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
    run_make_base();
    run_options(&o, DM_TRAIN_HEADS, tmp_path("joint.h5"));
    o.recipe = "joint";
    o.dtype = "f32";
    o.steps = 1;
    o.warmup = 0;
    o.decay = 0;
    o.lr = 1e-2;
    o.base_lr = 1e-3;
    assert_ok(run_go(&o, &r, &e), e);
    assert_ok(dm_model_load(&base, run_base_path, &masters, NULL, &e), e);
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
    run_make_base();
    // Options, and what the run records.
    static const double given[][4] = {
        {0, 0, 1e-3, 1e-5}, {0, 2e-5, 2e-3, 2e-5}, {3e-3, 0, 3e-3, 3e-5}, {3e-3, 1e-3, 3e-3, 1e-3}};
    for (int i = 0; i < 4; i++) {
        struct dm_train_opt o;
        struct dm_train_report r;
        struct dm_err e;
        run_options(&o, DM_TRAIN_HEADS, tmp_path("rates.h5"));
        o.recipe = "joint";
        o.steps = 1;
        o.lr = given[i][0];
        o.base_lr = given[i][1];
        assert_ok(run_go(&o, &r, &e), e);
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
    run_make_base();
    for (int i = 0; i < 6; i++) {
        struct dm_train_opt o;
        struct dm_config c;
        struct dm_err e;
        char name[32];
        snprintf(name, sizeof(name), "variant%d.h5", i);
        run_options(&o, DM_TRAIN_HEADS, tmp_path(name));
        const int k = i % 3;
        o.steps = 3;
        o.recipe = i < 3 ? "frozen" : "joint";
        o.heads = k == 0 ? 4 : 2;
        o.head_depth = k == 1 ? 2 : 1;
        o.init = k == 2 ? "random" : "copy";
        o.head_input = k == 2 ? "final" : "penultimate";
        o.head_weights = i == 0 ? "1,0.5,0.25" : i == 3 ? "2,1,0.5,0.25" : NULL;
        o.dtype = k == 1 ? "f32" : "base";
        run_complete(&o);
        assert_ok(dm_model_peek(o.output, &c, NULL, &e), e);
        assert_int_equal(c.K, o.heads);
        assert_int_equal(c.D, o.head_depth);
        assert_int_equal(c.from_final, k == 2);
        dm_train_opt_release(&o);
    }
}

static void test_what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_err e;
    const char *out = tmp_path("refused.h5"), *other = run_shard("other.h5", "m", 5);
    run_make_base();
    run_options(&o, DM_TRAIN_HEADS, out);
    run_set_data(&o, other);
    run_refused(&o, DM_EMISMATCH, "tokenizer");
    run_options(&o, DM_TRAIN_HEADS, out);
    o.context = 25;
    run_refused(&o, DM_ERANGE, "--context 25");
    run_options(&o, DM_TRAIN_HEADS, out);
    o.head_depth = 4;
    run_refused(&o, DM_ERANGE, "4 are to be copied");
    run_options(&o, DM_TRAIN_HEADS, out);
    o.head_weights = "1";
    run_refused(&o, DM_ERANGE, "--head-weights");
    run_options(&o, DM_TRAIN_HEADS, out);
    o.recipe = "joint";
    o.head_weights = "1,1";
    run_refused(&o, DM_ERANGE, "want 3 numbers from 0, one for each of heads 1..3");
    run_options(&o, DM_TRAIN_HEADS, out);
    o.lr = 0;
    o.min_lr = 0.1;
    run_refused(&o, DM_ERANGE, "--min-lr 0.1");
    run_options(&o, DM_TRAIN_HEADS, out);
    o.base = run_shard_path;
    run_refused(&o, DM_EFORMAT, "shard.h5");
    run_options(&o, DM_TRAIN_BASE, out);
    o.vocab_rows = "12";
    run_refused(&o, DM_ERANGE, "13 tokens, more than the 12 rows");
    run_options(&o, DM_TRAIN_BASE, out);
    o.vocab_rows = "few";
    run_refused(&o, DM_ERANGE, "--vocab-rows");
    run_options(&o, DM_TRAIN_BASE, out);
    o.config = "15m";
    run_refused(&o, DM_ERANGE, "15m");
    run_options(&o, DM_TRAIN_BASE, out);
    o.steps = 0;
    o.batch = 1000;
    run_refused(&o, DM_ERANGE, "fewer than one batch");
    // A model with heads is no base.
    struct dm_train_report r;
    run_options(&o, DM_TRAIN_HEADS, tmp_path("heads-again.h5"));
    o.steps = 1;
    assert_ok(run_go(&o, &r, &e), e);
    dm_train_report_release(&r);
    o.base = o.output;
    o.output = out;
    run_refused(&o, DM_EUNSUPPORTED, "heads already");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_file_does_not_depend_on_threads),
        cmocka_unit_test(test_the_seed_changes_the_weights),
        cmocka_unit_test(test_precisions_train_alike_but_not_the_same),
        cmocka_unit_test(test_heads_leave_the_base_as_it_was),
        cmocka_unit_test(test_the_joint_recipe_trains_the_base_at_its_own_rate),
        cmocka_unit_test(test_rates_default_to_the_papers),
        cmocka_unit_test(test_variants_of_heads_train),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests_name("train_run", tests, run_setup, NULL);
}
