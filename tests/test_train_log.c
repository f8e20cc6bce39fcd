/* SPDX-License-Identifier: MIT */
/* Perplexities and the logs. */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "train/log.h"
#include "train/tensorboard.h"

static const int32_t ids[8] = {0}; /* all are targets */

/* K = 3, B = 2, T = 4; every position has its own value, those without a target 0 as dm_pass_score
 * leaves them. */
static void fill_logp(float *logp)
{
    for (int n = 1; n <= 3; n++)
        for (int b = 0; b < 2; b++)
            for (int t = 0; t < 4; t++)
                logp[((n - 1) * 2 + b) * 4 + t] =
                    t + n < 4 ? -(float)n - 0.25f * (float)t - 0.125f * (float)b : 0.0f;
}

static void test_perplexities_follow_their_definition(void **state)
{
    (void)state;
    float logp[24];
    struct dm_ppl p = {0};
    fill_logp(logp);
    dm_ppl_add(&p, logp, ids, 3, 2, 4);
    assert_int_equal(p.windows, 2);
    assert_int_equal(p.n[0], 6);
    assert_int_equal(p.n[1], 4);
    assert_int_equal(p.n[2], 2);
    // Head n: mean over t < 4-n and b of n + t/4 + b/8.
    assert_true(fabs(dm_ppl_head(&p, 1) - exp(1.0 + 0.25 + 0.0625)) < 1e-9);
    assert_true(fabs(dm_ppl_head(&p, 2) - exp(2.0 + 0.125 + 0.0625)) < 1e-9);
    assert_true(fabs(dm_ppl_head(&p, 3) - exp(3.0 + 0.0625)) < 1e-9);
    // 1:2 at t = 0, 1: half of (1 + 2) + t/4 + b/8.
    assert_true(fabs(dm_ppl_joint(&p, 2) - exp(1.5 + 0.125 + 0.0625)) < 1e-9);
    assert_true(fabs(dm_ppl_joint(&p, 3) - exp(2.0 + 0.0625)) < 1e-9);
    assert_true(dm_ppl_joint(&p, 1) == dm_ppl_head(&p, 1));
    assert_true(fabs(dm_ppl_loss(&p, 2) - 0.5 * (2.1875 + 3.0625)) < 1e-9);
}

static void test_perplexities_do_not_depend_on_the_cut(void **state)
{
    (void)state;
    float logp[24], one[12];
    struct dm_ppl whole = {0}, parts = {0};
    fill_logp(logp);
    dm_ppl_add(&whole, logp, ids, 3, 2, 4);
    for (int b = 0; b < 2; b++) {
        for (int n = 0; n < 3; n++)
            memcpy(one + n * 4, logp + (n * 2 + b) * 4, 4 * sizeof(float));
        dm_ppl_add(&parts, one, ids, 3, 1, 4);
    }
    assert_memory_equal(&whole, &parts, sizeof(whole));
}

static void write_rows(const char *prefix, size_t from, size_t to, size_t resume)
{
    struct dm_log *l;
    struct dm_err e;
    float logp[24];
    struct dm_ppl p = {0};
    const double loss[3] = {NAN, 2.5, 3.5};
    fill_logp(logp);
    dm_ppl_add(&p, logp, ids, 3, 2, 4);
    assert_ok(dm_log_open(&l, prefix, 3, resume, &e), e);
    for (size_t step = from; step <= to; step++) {
        const struct dm_log_row row = {.step = step,
                                       .tokens = step * 64,
                                       .lr = 1e-3,
                                       .norm = 0.5,
                                       .loss = loss,
                                       .tokens_per_s = 1000.0,
                                       .mfu = step % 2 ? NAN : 0.25,
                                       .seconds = (double)step,
                                       .val = step % 2 ? NULL : &p};
        assert_ok(dm_log_row(l, &row, &e), e);
    }
    dm_log_close(l);
}

static void slurp(char **text, const char *prefix, const char *suffix)
{
    char path[600];
    size_t n;
    struct dm_err e;
    snprintf(path, sizeof(path), "%s%s", prefix, suffix);
    assert_ok(dm_file_read(path, 1 << 20, text, &n, &e), e);
}

static void test_logs_have_a_row_per_step(void **state)
{
    (void)state;
    const char *prefix = tmp_path("run");
    struct dm_err e;
    write_rows(prefix, 1, 2, 0);
    char *csv, *jsonl;
    slurp(&csv, prefix, ".csv");
    slurp(&jsonl, prefix, ".jsonl");
    assert_string_equal(
        csv,
        "step,tokens,seconds,lr,loss_1,loss_2,loss_3,grad_norm,tokens_per_second,mfu,val_windows,"
        "val_ppl_1,val_ppl_2,val_ppl_3,val_ppl_1:2,val_ppl_1:3\n"
        "1,64,1.000,0.001,,2.5,3.5,0.5,1000,,,,,,,\n"
        "2,128,2.000,0.001,,2.5,3.5,0.5,1000,0.25,2,3.71545074,8.91290298,21.3809428,5.40594893,"
        "7.86560927\n");
    const char *second = strchr(jsonl, '\n') + 1;
    json_t *j;
    assert_ok(dm_json_parse(second, strlen(second), "log", &j, &e), e);
    assert_int_equal(json_integer_value(json_object_get(j, "step")), 2);
    json_t *loss = json_object_get(j, "loss"), *val = json_object_get(j, "validation");
    assert_null(json_object_get(loss, "1"));
    assert_true(json_number_value(json_object_get(loss, "3")) == 3.5);
    assert_true(fabs(json_number_value(json_object_get(val, "ppl_1:2")) - 5.40594893) < 1e-6);
    json_decref(j);
    free(csv);
    free(jsonl);
}

static void test_a_resumed_log_drops_rows_after_the_checkpoint(void **state)
{
    (void)state;
    static const char *const suffix[] = {".csv", ".jsonl"};
    const char *whole = tmp_path("whole"), *cut = tmp_path("cut");
    write_rows(whole, 1, 12, 0);
    write_rows(cut, 1, 11, 0);
    write_rows(cut, 10, 12, 9); // the checkpoint was of step 9
    for (int i = 0; i < 2; i++) {
        char *want, *got;
        slurp(&want, whole, suffix[i]);
        slurp(&got, cut, suffix[i]);
        assert_string_equal(got, want);
        free(want);
        free(got);
    }
}

static void test_a_resumed_log_may_be_gone(void **state)
{
    (void)state;
    const char *prefix = tmp_path("gone");
    write_rows(prefix, 5, 5, 4);
    char *csv;
    slurp(&csv, prefix, ".csv");
    assert_memory_equal(csv, "step,tokens", 11);
    assert_non_null(strstr(csv, "\n5,320,"));
    free(csv);
}

static void test_an_unwritable_log_is_named(void **state)
{
    (void)state;
    struct dm_log *l;
    struct dm_err e;
    assert_int_equal(dm_log_open(&l, "/nonexistent/run", 1, 0, &e), DM_EIO);
    assert_non_null(strstr(e.msg, "/nonexistent/run.csv"));
}

/* Two events as TensorBoard 2.21's own writer makes them: wall time 1.5 and the version; wall time
 * 1234.25, step 300, loss/1 = 2.5, lr = -0.001. */
static const char golden[] =
    "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c28000000000000"
    "00ff70164a09000000000049934010ac022a1a0a0d0a066c6f73732f3115000020400a090a026c72156f1283bac3c8"
    "4915";

/* The bytes of the event file in `dir`; release with free(). */
static char *event_file(const char *dir, size_t *n)
{
    char path[700], *data;
    struct dm_err e;
    snprintf(path, sizeof(path), "%s/events.out.tfevents.dynamo", dir);
    assert_ok(dm_file_read(path, 1 << 20, &data, n, &e), e);
    return data;
}

static void write_golden(struct dm_tb *t)
{
    struct dm_err e;
    dm_tb_scalar(t, "loss/1", 2.5);
    dm_tb_scalar(t, "mfu", NAN); // not there
    dm_tb_scalar(t, "lr", -0.001);
    assert_ok(dm_tb_event(t, 300, 1234.25, &e), e);
}

static void test_event_files_have_tensorboards_bytes(void **state)
{
    (void)state;
    struct dm_tb *t;
    struct dm_err e;
    size_t n;
    const char *dir = tmp_path("golden.tb");
    assert_int_equal(dm_crc32c("123456789", 9), 0xe3069283u); // the polynomial's check value
    assert_ok(dm_tb_open(&t, dir, 0, 1.5, &e), e);
    write_golden(t);
    dm_tb_close(t);
    char *data = event_file(dir, &n);
    assert_int_equal(n, strlen(golden) / 2);
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(golden + 2 * i, "%2x", &byte), 1);
        assert_int_equal((unsigned char)data[i], byte);
    }
    free(data);
}

static void test_resumed_event_files_are_cut_at_the_step(void **state)
{
    (void)state;
    struct dm_tb *t;
    struct dm_err e;
    size_t n, m, lengths[5];
    char path[700];
    const char *dir = tmp_path("cut.tb");
    assert_ok(dm_tb_open(&t, dir, 0, 1.0, &e), e);
    for (size_t i = 0; i < 5; i++) {
        dm_tb_scalar(t, "x", (double)i);
        assert_ok(dm_tb_event(t, 100 * i + 1, 2.0, &e), e);
        free(event_file(dir, &lengths[i]));
    }
    dm_tb_close(t);
    assert_ok(dm_tb_open(&t, dir, 300, 3.0, &e), e); // after 201
    dm_tb_close(t);
    char *data = event_file(dir, &n);
    assert_int_equal(n, lengths[2]);
    // A record that was half-written, or is damaged, goes, and what follows it.
    snprintf(path, sizeof(path), "%s/events.out.tfevents.dynamo", dir);
    assert_ok(dm_file_write(path, data, n - 3, &e), e);
    assert_ok(dm_tb_open(&t, dir, 300, 3.0, &e), e);
    dm_tb_close(t);
    free(event_file(dir, &m));
    assert_int_equal(m, lengths[1]);
    data[lengths[0]] ^= 1; // the length of the second event
    assert_ok(dm_file_write(path, data, n, &e), e);
    assert_ok(dm_tb_open(&t, dir, 300, 3.0, &e), e);
    dm_tb_close(t);
    free(event_file(dir, &m));
    assert_int_equal(m, lengths[0]);
    free(data);
    assert_int_equal(dm_tb_open(&t, "/nonexistent/x.tb", 0, 1.0, &e), DM_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_perplexities_follow_their_definition),
        cmocka_unit_test(test_perplexities_do_not_depend_on_the_cut),
        cmocka_unit_test(test_logs_have_a_row_per_step),
        cmocka_unit_test(test_a_resumed_log_drops_rows_after_the_checkpoint),
        cmocka_unit_test(test_a_resumed_log_may_be_gone),
        cmocka_unit_test(test_an_unwritable_log_is_named),
        cmocka_unit_test(test_event_files_have_tensorboards_bytes),
        cmocka_unit_test(test_resumed_event_files_are_cut_at_the_step),
    };
    return cmocka_run_group_tests_name("train_log", tests, NULL, NULL);
}
