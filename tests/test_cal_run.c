/* SPDX-License-Identifier: MIT */
/* Calibration from a shard and a model: prompts, a whole run, failures. */
#include "tests/util.h"

#include <math.h>
#include <string.h>

#include "eval/calibrate.h"
#include "src/base/arena.h"
#include "tests/tiny.h"

static struct dm_shard *make_shard(const int32_t *ids, size_t n)
{
    struct dm_err e;
    struct dm_shard_writer *w;
    struct dm_shard *s;
    const char *path = tmp_path("shard.h5");
    char hash[DM_HASH_LEN + 1];
    dm_sha256("{}", 2, hash);
    assert_ok(dm_shard_create(&w, path, TINY_VP, "{}", hash, "{}", &e), e);
    assert_ok(dm_shard_append(w, ids, n, &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
    assert_ok(dm_shard_open(&s, path, &e), e);
    return s;
}

static void test_prompts_lie_within_documents_and_are_spread(void **state)
{
    (void)state;
    struct dm_err e;
    const int32_t ids[] = {1, 2, 0, 3, 4, 5, 6, 7, 8, 9, 0, 10, 11, 12, 13, 0};
    int32_t got[12];
    bool first[3] = {false}, second[2] = {false};
    struct dm_shard *s = make_shard(ids, 16);
    for (uint64_t seed = 0; seed < 64; seed++) {
        // Parts [0,8) with 3 4 5, 4 5 6 and 5 6 7, and [8,16) with 10 11 12 and 11 12 13.
        assert_ok(dm_cal_prompts(got, 2, 3, seed, s, &e), e);
        assert_in_range(got[0], 3, 5);
        assert_true(got[1] == got[0] + 1 && got[2] == got[0] + 2);
        assert_in_range(got[3], 10, 11);
        assert_true(got[4] == got[3] + 1 && got[5] == got[3] + 2);
        first[got[0] - 3] = second[got[3] - 10] = true;
    }
    assert_true(first[0] && first[1] && first[2] && second[0] && second[1]);
    assert_int_equal(dm_cal_prompts(got, 2, 6, 1, s, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "no run of 6 tokens"));
    assert_int_equal(dm_cal_prompts(got, 17, 1, 1, s, &e), DM_ERANGE);
    dm_shard_close(s);
}

static struct dm_cal_opt small_run(void)
{
    struct dm_cal_opt o = dm_cal_opt_default();
    struct dm_err e;
    o.n_eps = 3;
    o.eps[0] = 0.0;
    o.eps[1] = 0.4;
    o.eps[2] = 1.0;
    o.risk = 0.5;
    o.confidence = 0.6;
    o.prompts = 3;
    o.control_prompts = 2;
    o.prompt_tokens = 5;
    o.tokens = 9;
    o.samples = 2;
    o.gen.top_k = o.top_k[0] = TINY_VP;
    assert_ok(dm_cal_opt_check(&o, &e), e);
    return o;
}

static bool count_calls(void *ctx, double share)
{
    (*(size_t *)ctx)++;
    return share <= 1.0 + 1e-9;
}

static void test_a_whole_run_on_a_tiny_model(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    const struct dm_config c = tiny_config();
    struct dm_cal_opt o = small_run();
    struct dm_cal_report r[2];
    size_t calls = 0;
    tiny_model(&m, &c);
    assert_ok(dm_cal_run(&r[0], &m, NULL, NULL, &o, tiny_ids, count_calls, &calls, &e), e);
    assert_int_equal(calls, 2 + 2 * 2 * 2 + 5 * 3 * 2);
    assert_int_equal(r->fit.order[3].positions, 2 * 9); // too few
    assert_true(!r->fit.fit.known && !r->points[0].gen.fit.known);
    assert_int_equal(r->base.sum.tokens, 3 * 2 * 9);
    assert_int_equal(r->base.sum.forwards, 3 * 2 * 9);
    // With top_k = V the base's sampler is its own model: no divergence from itself.
    assert_true(fabs(r->base.sum.value[DM_TRIAL_DIVERGENCE]) < 1e-5);
    assert_true(r->control.sum.value[DM_TRIAL_LOGP] != r->base.sum.value[DM_TRIAL_LOGP]);
    // eps_b = 1 is the base token for token and never fails, 0 always makes three.
    const struct dm_cal_point *one = &r->points[0], *zero = &r->points[2];
    assert_true(one->gen.eps_b == 1.0 && zero->gen.eps_b == 0.0);
    assert_int_equal(one->sum.forwards, r->base.sum.forwards);
    assert_true(one->sum.agree == 1.0 && one->mean[DM_CERT_LOGP] == 0.0);
    assert_true(one->test.failures == 0 && one->test.certified && r->chosen != 0);
    assert_int_equal(zero->sum.forwards, 3 * 2 * 3);
    assert_int_equal(zero->sum.blocks[3], 3 * 2 * 3);
    // The same seeds give the same texts.
    assert_ok(dm_cal_run(&r[1], &m, NULL, NULL, &o, tiny_ids, NULL, NULL, &e), e);
    for (size_t i = 0; i < 3; i++) {
        assert_memory_equal(r[0].points[i].sum.value, r[1].points[i].sum.value,
                            sizeof(r->base.sum.value));
        assert_int_equal(r[0].points[i].test.failures, r[1].points[i].test.failures);
    }
    dm_cal_report_release(&r[0]);
    dm_cal_report_release(&r[1]);
    dm_model_release(&m);
}

/* The margins' prompts are at equal distances, and the two sets have no prompt in common. */
static void test_prompts_are_dealt_to_margins_and_test(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    const struct dm_config c = tiny_config();
    struct dm_cal_opt o = small_run();
    struct dm_cal_report r[3];
    int32_t ids[25];
    tiny_model(&m, &c);
    memcpy(ids, tiny_ids, sizeof(ids));
    assert_ok(dm_cal_run(&r[0], &m, NULL, NULL, &o, ids, NULL, NULL, &e), e);
    ids[2 * 5]++; // prompts 2 and 4 of 5 are the margins': floor(3 * 2 / 5) > floor(2 * 2 / 5)
    ids[4 * 5]++;
    assert_ok(dm_cal_run(&r[1], &m, NULL, NULL, &o, ids, NULL, NULL, &e), e);
    ids[0]++; // prompt 0 is of the test
    assert_ok(dm_cal_run(&r[2], &m, NULL, NULL, &o, ids, NULL, NULL, &e), e);
    assert_true(r[0].base.sum.value[DM_TRIAL_LOGP] == r[1].base.sum.value[DM_TRIAL_LOGP]);
    assert_true(r[0].margin[DM_CERT_LOGP] != r[1].margin[DM_CERT_LOGP]);
    assert_true(r[1].base.sum.value[DM_TRIAL_LOGP] != r[2].base.sum.value[DM_TRIAL_LOGP]);
    assert_true(r[1].margin[DM_CERT_LOGP] == r[2].margin[DM_CERT_LOGP]);
    for (size_t i = 0; i < 3; i++)
        dm_cal_report_release(&r[i]);
    dm_model_release(&m);
}

static bool stop_at_once(void *ctx, double share)
{
    (void)ctx;
    (void)share;
    return false;
}

static void test_runs_that_cannot_be_done_say_why(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_config c = tiny_config();
    struct dm_cal_opt o = small_run();
    struct dm_cal_report r;
    tiny_model(&m, &c);
    assert_int_equal(dm_cal_run(&r, &m, NULL, NULL, &o, tiny_ids, stop_at_once, NULL, &e),
                     DM_ESTOPPED);
    o.tokens = 20;
    assert_int_equal(dm_cal_run(&r, &m, NULL, NULL, &o, tiny_ids, NULL, NULL, &e), DM_ERANGE);
    dm_model_release(&m);
    c.K = 1;
    tiny_model(&m, &c);
    assert_int_equal(dm_cal_run(&r, &m, NULL, NULL, &o, tiny_ids, NULL, NULL, &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "train heads"));
    dm_model_release(&m);
}

static void test_short_memory_is_reported(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    const struct dm_config c = tiny_config();
    struct dm_cal_opt o = small_run();
    struct dm_cal_report r;
    o.n_eps = 1;
    o.prompts = 2;
    o.samples = 1;
    o.tokens = 3;
    tiny_model(&m, &c);
    for (size_t n = 1, left = 0; !left; n++) {
        dm_alloc_fail_at(n);
        const enum dm_status st = dm_cal_run(&r, &m, NULL, NULL, &o, tiny_ids, NULL, NULL, &e);
        left = dm_alloc_fail_at(0);
        assert_int_equal(st, left ? DM_OK : DM_ENOMEM);
        dm_cal_report_release(&r);
    }
    dm_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_lie_within_documents_and_are_spread),
        cmocka_unit_test(test_a_whole_run_on_a_tiny_model),
        cmocka_unit_test(test_prompts_are_dealt_to_margins_and_test),
        cmocka_unit_test(test_runs_that_cannot_be_done_say_why),
        cmocka_unit_test(test_short_memory_is_reported),
    };
    return cmocka_run_group_tests_name("cal_run", tests, NULL, NULL);
}
