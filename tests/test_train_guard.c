/* SPDX-License-Identifier: MIT */
/* Jumps of loss and gradient: when they are seen, what is done, what can be done again. */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "tests/runs.h"
#include "train/guard.h"
#include "train/keep.h"
#include "train/resume.h"

static struct dm_guard guard; /* too large for a stack of tests */

static void fill(size_t n)
{
    guard = (struct dm_guard){.on = DM_SPIKE_SKIP, .window = 8, .sigma = 3.0};
    for (size_t i = 0; i < n; i++)
        dm_guard_accept(&guard, 4.0 + (i % 2 ? 0.2 : -0.2), 1.0);
}

static void test_a_jump_is_above_mean_and_sigma_of_the_window(void **state)
{
    (void)state;
    char what[200];
    fill(7);
    assert_false(dm_guard_spike(&guard, 1e6, 1e6, what, sizeof(what))); // not full yet
    fill(8);
    assert_false(dm_guard_spike(&guard, 4.59, 1.0, what, sizeof(what)));
    assert_true(dm_guard_spike(&guard, 4.61, 1.0, what, sizeof(what)));
    assert_non_null(strstr(what, "the loss is 4.61, above 4.6: mean + 3 sigma of the last 8"));
    // A norm that never moved may rise by 3 times 1 %.
    assert_false(dm_guard_spike(&guard, 4.0, 1.029, what, sizeof(what)));
    assert_true(dm_guard_spike(&guard, 4.0, 1.031, what, sizeof(what)));
    assert_non_null(strstr(what, "the norm of the gradient is 1.031"));
    for (int i = 0; i < 8; i++) // the window moves on
        dm_guard_accept(&guard, 9.0, 5.0);
    assert_int_equal(guard.n, 8);
    assert_false(dm_guard_spike(&guard, 9.1, 5.1, what, sizeof(what)));
    guard.on = DM_SPIKE_OFF;
    assert_false(dm_guard_spike(&guard, 1e6, 1e6, what, sizeof(what)));
    assert_null(dm_guard_json(&guard));
}

static void test_the_memory_comes_back_bit_for_bit(void **state)
{
    (void)state;
    static struct dm_guard back;
    struct dm_err e;
    guard = (struct dm_guard){.on = DM_SPIKE_STOP, .window = 5, .sigma = 3.0};
    for (int i = 1; i < 9; i++)
        dm_guard_accept(&guard, 1.0 / i, sqrt(i));
    json_t *j = dm_guard_json(&guard);
    char *text = json_dumps(j, 0);
    json_decref(j);
    j = json_loads(text, 0, NULL);
    back = (struct dm_guard){.on = DM_SPIKE_SKIP, .window = 5};
    assert_ok(dm_guard_restore(&back, j, "file", &e), e);
    assert_int_equal(back.n, 5);
    assert_memory_equal(back.loss, guard.loss, 5 * sizeof(double));
    assert_memory_equal(back.norm, guard.norm, 5 * sizeof(double));
    back.window = 3; // a shorter one keeps the newest
    assert_ok(dm_guard_restore(&back, j, "file", &e), e);
    assert_int_equal(back.n, 3);
    assert_memory_equal(back.loss, guard.loss + 2, 3 * sizeof(double));
    assert_ok(dm_guard_restore(&back, NULL, "file", &e), e);
    assert_int_equal(back.n, 0);
    json_array_set_new(json_object_get(j, "norm"), 4, json_string("x"));
    assert_int_equal(dm_guard_restore(&back, j, "file", &e), DM_EFORMAT);
    json_array_remove(json_object_get(j, "norm"), 0);
    assert_int_equal(dm_guard_restore(&back, j, "file", &e), DM_EFORMAT);
    json_decref(j);
    free(text);
}

/* So strict that every few steps one is refused. */
static void strict(struct dm_train_opt *o, enum dm_train_kind kind, const char *output)
{
    run_options(o, kind, output);
    o->steps = 30;
    o->on_spike = "skip";
    o->spike_sigma = 0.5;
    o->spike_window = 4;
}

static size_t skipped(const struct dm_train_report *r)
{
    return (size_t)json_integer_value(json_object_get(r->provenance, "skipped_steps"));
}

/* The newest refused step of an output. */
static const char *refused_file(const char *output)
{
    static char path[700];
    char prefix[600];
    size_t *step, n;
    struct dm_err e;
    assert_ok(dm_train_opt_path(prefix, sizeof(prefix), output, ".refused", &e), e);
    assert_ok(dm_keep_list(&step, &n, prefix, &e), e);
    assert_true(n >= 1 && n <= 4);
    assert_ok(dm_keep_path(path, sizeof(path), prefix, step[0], &e), e);
    free(step);
    return path;
}

static void replayed(const char *file, bool finite)
{
    struct dm_train_opt o;
    struct dm_train_report r;
    struct dm_err e;
    dm_train_opt_init(&o, DM_TRAIN_BASE);
    o.resume = o.replay = file;
    assert_ok(dm_resume_options(&o, &e), e);
    assert_ok(run_go(&o, &r, &e), e);
    assert_non_null(r.replay);
    assert_true(json_is_true(json_object_get(r.replay, "same")));
    assert_int_equal(json_is_true(json_object_get(r.replay, "finite")), finite);
    assert_true(json_array_size(json_object_get(r.replay, "tensors")) > 10);
    dm_train_report_release(&r);
    dm_train_opt_release(&o);
}

static void test_skipped_steps_are_the_same_when_the_run_is_resumed(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_train_report r;
    struct dm_err e;
    const char *whole = tmp_path("whole.h5"), *parts = tmp_path("parts.h5");
    strict(&o, DM_TRAIN_BASE, whole);
    assert_ok(run_go(&o, &r, &e), e);
    const size_t n = skipped(&r);
    assert_true(n > 2 && n < 28);
    dm_train_report_release(&r);
    o.output = parts;
    o.stop_after = 17;
    assert_ok(run_go(&o, &r, &e), e);
    dm_train_report_release(&r);
    o.resume = "auto";
    o.stop_after = 0;
    assert_ok(dm_resume_options(&o, &e), e);
    assert_ok(run_go(&o, &r, &e), e);
    assert_int_equal(skipped(&r), n);
    dm_train_report_release(&r);
    dm_train_opt_release(&o);
    assert_same_file(whole, parts);
    replayed(refused_file(parts), true);
}

static void test_stop_keeps_the_state_before_the_jump(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_train_report r;
    struct dm_err e;
    const char *out = tmp_path("stop.h5");
    strict(&o, DM_TRAIN_BASE, out);
    o.on_spike = "stop";
    assert_int_equal(run_go(&o, &r, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "again: dynamo pretrain --replay "));
    replayed(refused_file(out), true);
    o.resume = "auto";
    o.on_spike = "off";
    o.given = 0;
    assert_ok(dm_resume_options(&o, &e), e);
    assert_string_equal(o.on_spike, "stop"); // as stored
    o.on_spike = "off";
    assert_ok(run_go(&o, &r, &e), e);
    assert_int_equal(r.steps, 30);
    assert_int_equal(skipped(&r), 0);
    dm_train_report_release(&r);
    dm_train_opt_release(&o);
}

static void test_a_step_that_is_not_finite_can_be_replayed(void **state)
{
    (void)state;
    struct dm_train_opt o;
    const char *out = tmp_path("nan.h5");
    run_options(&o, DM_TRAIN_BASE, out);
    o.lr = o.min_lr = 100;
    o.decay = 100; // weights times -9999 each step: beyond float32 soon
    o.clip = 0;
    o.steps = 40;
    o.warmup = 0;
    run_refused(&o, DM_ENAN, "--replay");
    replayed(refused_file(out), false);
}

static void test_a_checkpoint_is_nothing_to_replay(void **state)
{
    (void)state;
    struct dm_train_opt o;
    struct dm_train_report r;
    struct dm_err e;
    char file[600];
    run_options(&o, DM_TRAIN_BASE, tmp_path("plain.h5"));
    o.stop_after = 3;
    assert_ok(run_go(&o, &r, &e), e);
    assert_ok(dm_keep_path(file, sizeof(file), r.checkpoint, 3, &e), e);
    dm_train_report_release(&r);
    o.resume = o.replay = file;
    run_refused(&o, DM_EFORMAT, "is a checkpoint without a batch");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_jump_is_above_mean_and_sigma_of_the_window),
        cmocka_unit_test(test_the_memory_comes_back_bit_for_bit),
        cmocka_unit_test(test_skipped_steps_are_the_same_when_the_run_is_resumed),
        cmocka_unit_test(test_stop_keeps_the_state_before_the_jump),
        cmocka_unit_test(test_a_step_that_is_not_finite_can_be_replayed),
        cmocka_unit_test(test_a_checkpoint_is_nothing_to_replay),
    };
    return cmocka_run_group_tests_name("train_guard", tests, run_setup, NULL);
}
