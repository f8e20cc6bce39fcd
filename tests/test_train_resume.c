/* SPDX-License-Identifier: MIT */
/* Runs that stop and go on, and what they keep. */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/runs.h"
#include "train/checkpoint.h"
#include "train/keep.h"
#include "train/resume.h"

/* 12 steps at once against 5 (the checkpoint after step 4 is overtaken), 4 and the rest. */
static void resume(enum dm_train_kind kind, const char *recipe, const char *precision)
{
    struct dm_train_opt o;
    struct dm_train_report r;
    struct dm_err e;
    const char *whole = run_named("whole", kind), *parts = run_named("parts", kind);
    const char *ckpt = run_named("ckpt", kind);
    char second[600];
    unlink(parts);
    run_options(&o, kind, whole);
    o.recipe = recipe;
    o.precision = precision;
    run_complete(&o);
    o.output = parts;
    o.checkpoint = ckpt;
    o.checkpoint_every = 4;
    o.stop_after = 5;
    assert_ok(run_go(&o, &r, &e), e);
    assert_int_equal(r.steps, 5);
    assert_int_equal(r.total_steps, 12);
    assert_true(access(parts, F_OK) != 0);
    dm_train_report_release(&r);
    dm_train_opt_release(&o);
    // The default prefix, then one file of it.
    assert_ok(dm_keep_path(second, sizeof(second), run_prefix_of(ckpt), 9, &e), e);
    for (int i = 0; i < 2; i++) {
        dm_train_opt_init(&o, kind);
        o.resume = i ? second : run_prefix_of(ckpt);
        o.stop_after = i ? 0 : 4;
        assert_ok(dm_resume_options(&o, &e), e);
        assert_string_equal(o.output, parts);
        assert_int_equal(o.batch, 5);
        assert_string_equal(o.precision, precision);
        assert_string_equal(o.recipe, recipe);
        assert_ok(run_go(&o, &r, &e), e);
        assert_int_equal(r.steps, i ? 12 : 9);
        dm_train_report_release(&r);
        dm_train_opt_release(&o);
    }
    assert_same_file(whole, parts);
}

static void test_a_resumed_run_gives_the_same_bytes(void **state)
{
    (void)state;
    run_make_base();
    for (int i = 0; i < 2; i++) {
        resume(DM_TRAIN_BASE, "frozen", run_precisions[i]);
        resume(DM_TRAIN_HEADS, "frozen", run_precisions[i]);
        resume(DM_TRAIN_HEADS, "joint", run_precisions[i]);
    }
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
        run_options(&o, DM_TRAIN_BASE, tmp_path(saves[i]));
        o.save = saves[i];
        o.steps = 40;
        o.warmup = 40;
        o.lr = 3;
        assert_ok(run_go(&o, &r[i], &e), e);
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

/* A run that was killed after its best checkpoint was saved and before it was called the best. */
static void test_a_best_checkpoint_without_its_name_gets_it(void **state)
{
    (void)state;
    struct dm_train_report r;
    struct dm_train_opt o;
    struct dm_err e;
    char best[600];
    size_t best_step = 0;
    for (int i = 0; i < 2; i++) {
        const size_t stop = i ? best_step : 0;
        run_options(&o, DM_TRAIN_BASE, tmp_path(i ? "nameless.h5" : "named.h5"));
        o.save = "best";
        o.steps = 40;
        o.warmup = 40;
        o.lr = 3;
        o.stop_after = stop;
        assert_ok(run_go(&o, &r, &e), e);
        if (!i) {
            best_step = r.best_step;
            dm_train_report_release(&r);
            dm_train_opt_release(&o);
        }
    }
    assert_ok(dm_keep_path(best, sizeof(best), r.checkpoint, DM_KEEP_BEST, &e), e);
    assert_int_equal(unlink(best), 0);
    dm_train_report_release(&r);
    o.resume = "auto";
    o.stop_after = 0;
    assert_ok(dm_resume_options(&o, &e), e);
    assert_ok(run_go(&o, &r, &e), e);
    assert_int_equal(r.saved_step, r.best_step);
    assert_true(r.saved_step < 40);
    dm_train_report_release(&r);
    dm_train_opt_release(&o);
}

static void test_a_new_run_does_not_write_over_an_unfinished_one(void **state)
{
    (void)state;
    struct dm_train_report r;
    struct dm_train_opt o;
    struct dm_err e;
    const char *out = tmp_path("unfinished.h5");
    run_options(&o, DM_TRAIN_BASE, out);
    o.stop_after = 2;
    assert_ok(run_go(&o, &r, &e), e);
    dm_train_report_release(&r);
    run_refused(&o, DM_EMISMATCH,
                "unfinished.ckpt-00000002.h5 is left of a run that did not finish");
}

static void test_divergence_stops_and_keeps_the_checkpoint(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_checkpoint c;
    struct dm_err e;
    const char *ckpt = tmp_path("nan.ckpt.h5"), *out = tmp_path("nan.h5");
    run_options(&o, DM_TRAIN_BASE, out);
    o.lr = o.min_lr = 100;
    o.decay = 100; // weights times -9999 each step: beyond float32 soon
    o.clip = 0;
    o.steps = 40;
    o.warmup = 0;
    o.checkpoint = ckpt;
    o.checkpoint_every = 1;
    run_refused(&o, DM_ENAN, "step ");
    size_t *step, n;
    char path[600];
    assert_ok(dm_keep_list(&step, &n, run_prefix_of(ckpt), &e), e);
    assert_int_equal(n, 2);
    assert_true(step[0] == step[1] + 1);
    assert_ok(dm_keep_path(path, sizeof(path), run_prefix_of(ckpt), step[0], &e), e);
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
    run_options(&o, DM_TRAIN_BASE, out);
    o.checkpoint = ckpt;
    o.stop_after = 2;
    assert_ok(run_go(&o, &r, &e), e);
    dm_train_report_release(&r);
    // The same tokenizer, other text.
    run_set_data(&o, run_shard("changed.h5", "l", 7));
    o.resume = run_prefix_of(ckpt);
    run_refused(&o, DM_EMISMATCH, "inputs");
    dm_train_opt_init(&o, DM_TRAIN_HEADS);
    o.resume = run_prefix_of(ckpt);
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
        run_options(&o, DM_TRAIN_BASE, "out.h5");
        json_t *j = dm_train_opt_json(&o, true);
        assert_non_null(j);
        dm_train_opt_init(&p, DM_TRAIN_BASE);
        assert_ok(dm_train_opt_restore(&p, j, "good", &e), e);
        assert_int_equal(p.batch, 5);
        assert_string_equal(p.data.path[0], run_shard_path);
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
        cmocka_unit_test(test_the_best_weights_can_be_saved),
        cmocka_unit_test(test_a_best_checkpoint_without_its_name_gets_it),
        cmocka_unit_test(test_a_new_run_does_not_write_over_an_unfinished_one),
        cmocka_unit_test(test_divergence_stops_and_keeps_the_checkpoint),
        cmocka_unit_test(test_a_checkpoint_of_another_run_is_refused),
        cmocka_unit_test(test_stored_options_are_checked),
    };
    return cmocka_run_group_tests_name("train_resume", tests, run_setup, NULL);
}
