/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/ids.h"
#include "eval/score.h"
#include "src/base/par.h"
#include "tests/tiny.h"

enum { N = 2 * TINY_T, VP = TINY_VP }; // the tiny context is 24: N needs two windows

static void test_short_text_is_scored_as_the_logits_say(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_scorer *s;
    const struct dm_config c = tiny_config();
    float logp[3 * TINY_T];
    int32_t rank[3 * TINY_T];
    struct dm_score_sum sum = {0};
    tiny_model(&m, &c);
    assert_ok(dm_scorer_new(&s, &m, 0, 0, &e), e);
    assert_int_equal(dm_scorer_heads(s), 3);
    assert_int_equal(dm_scorer_context(s), 24);
    assert_ok(dm_scorer_run(s, tiny_ids, TINY_T, logp, rank, &e), e);
    dm_score_add(&sum, logp, TINY_T, 3);
    double mean[3];
    for (size_t n = 1; n <= 3; n++) {
        float *logits = tiny_logits(&m, tiny_ids, 1, TINY_T, n);
        double nll = 0.0;
        for (size_t i = 0; i < TINY_T; i++) {
            const size_t at = (n - 1) * TINY_T + i;
            if (i < n) {
                assert_true(logp[at] == 0.0f && rank[at] == -1);
                continue;
            }
            const float *row = logits + (i - n) * VP;
            const float want = (float)((double)row[tiny_ids[i]] - tiny_lse(row, VP));
            assert_close(&logp[at], &want, 1, 2e-6, 1.0);
            assert_in_range(rank[at], 0, VP - 1);
            nll -= (double)logp[at];
        }
        mean[n - 1] = nll / (double)(TINY_T - n);
        assert_int_equal(sum.n[n - 1], TINY_T - n);
        assert_true(fabs(dm_score_ppl(&sum, n) / exp(mean[n - 1]) - 1.0) < 1e-9);
        free(logits);
    }
    const double joint = exp((mean[0] + mean[1] + mean[2]) / 3.0);
    assert_true(fabs(dm_score_ppl_joint(&sum, 3) / joint - 1.0) < 1e-9);
    assert_true(fabs(dm_score_ppl_joint(&sum, 1) / dm_score_ppl(&sum, 1) - 1.0) < 1e-12);
    dm_scorer_free(s);
    dm_model_release(&m);
}

/* The window that must have scored token i: the first one that holds it. */
static void test_windows_overlap_by_half_and_score_each_token_once(void **state)
{
    (void)state;
    enum { CONTEXT = 8 };
    struct dm_err e;
    struct dm_model m;
    struct dm_scorer *s;
    const struct dm_config c = tiny_config();
    float logp[2 * N];
    int32_t rank[2 * N];
    tiny_model(&m, &c);
    assert_ok(dm_scorer_new(&s, &m, CONTEXT, 2, &e), e);
    assert_ok(dm_scorer_run(s, tiny_ids, N, logp, rank, &e), e);
    for (size_t i = 0; i < N; i++) {
        size_t start = 0;
        while (start + CONTEXT <= i)
            start += CONTEXT / 2;
        const size_t T = N - start < CONTEXT ? N - start : CONTEXT;
        for (size_t n = 1; n <= 2; n++) {
            const size_t at = (n - 1) * N + i;
            if (i < n) {
                assert_int_equal(rank[at], -1);
                continue;
            }
            float *logits = tiny_logits(&m, tiny_ids + start, 1, T, n);
            const float *row = logits + (i - start - n) * VP;
            const float want = (float)((double)row[tiny_ids[i]] - tiny_lse(row, VP));
            assert_close(&logp[at], &want, 1, 2e-6, 1.0);
            free(logits);
        }
    }
    dm_scorer_free(s);
    dm_model_release(&m);
}

static void test_scores_do_not_depend_on_threads(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_scorer *s;
    const struct dm_config c = tiny_config();
    float logp[3][3 * N];
    tiny_model(&m, &c);
    assert_ok(dm_scorer_new(&s, &m, 0, 3, &e), e);
    for (size_t i = 0; i < 3; i++) {
        dm_par_set_threads(i + 1);
        assert_ok(dm_scorer_run(s, tiny_ids, N, logp[i], NULL, &e), e);
        assert_memory_equal(logp[i], logp[0], sizeof(logp[0]));
    }
    dm_par_set_threads(0);
    dm_scorer_free(s);
    dm_model_release(&m);
}

static void test_scoring_refuses_what_the_model_has_not(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_scorer *s;
    const struct dm_config c = tiny_config();
    const int32_t bad[] = {1, VP, 2}, negative[] = {1, -1, 2};
    float logp[9];
    tiny_model(&m, &c);
    assert_int_equal(dm_scorer_new(&s, &m, 25, 1, &e), DM_ERANGE);
    assert_int_equal(dm_scorer_new(&s, &m, 5, 3, &e), DM_ERANGE);
    assert_int_equal(dm_scorer_new(&s, &m, 0, 4, &e), DM_ERANGE);
    assert_ok(dm_scorer_new(&s, &m, 0, 0, &e), e);
    assert_int_equal(dm_scorer_run(s, bad, 3, logp, NULL, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "token 1 is 53"));
    assert_int_equal(dm_scorer_run(s, negative, 3, logp, NULL, &e), DM_ERANGE);
    dm_scorer_free(s);
    for (size_t n = 1, left = 0; !left; n++) {
        dm_alloc_fail_at(n);
        const enum dm_status st = dm_scorer_new(&s, &m, 0, 0, &e);
        left = dm_alloc_fail_at(0);
        assert_int_equal(st, left ? DM_OK : DM_ENOMEM);
        dm_scorer_free(s);
    }
    dm_model_release(&m);
}

static void test_nothing_scored_is_not_a_number(void **state)
{
    (void)state;
    struct dm_score_sum sum = {0};
    const float logp[1] = {0.0f};
    dm_score_add(&sum, logp, 1, 1);
    assert_true(isnan(dm_score_ppl(&sum, 1)) && isnan(dm_score_ppl_joint(&sum, 1)));
    json_t *root = dm_score_to_json(&sum, 1);
    assert_true(json_is_null(json_array_get(json_object_get(root, "ppl"), 0)));
    json_decref(root);
}

static void test_ids_are_read_from_text(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_ids x = {0};
    const int32_t want[] = {12, 0, 52};
    const char text[] = "  12\t0\n52 ";
    assert_ok(dm_ids_parse(&x, text, strlen(text), VP, "here", &e), e);
    assert_int_equal(x.n, 3);
    assert_memory_equal(x.id, want, sizeof(want));
    const struct {
        const char *text;
        enum dm_status st;
    } bad[] = {{"1 x", DM_EFORMAT}, {"1 2.5", DM_EFORMAT},
               {"-1", DM_EFORMAT},  {"53", DM_ERANGE},
               {"1,2", DM_EFORMAT}, {"99999999999999999999999999", DM_ERANGE},
               {"\x80", DM_EFORMAT}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(dm_ids_parse(&x, bad[i].text, strlen(bad[i].text), VP, "here", &e),
                         bad[i].st);
        assert_non_null(strstr(e.msg, "here: id "));
    }
    dm_ids_release(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_text_is_scored_as_the_logits_say),
        cmocka_unit_test(test_windows_overlap_by_half_and_score_each_token_once),
        cmocka_unit_test(test_scores_do_not_depend_on_threads),
        cmocka_unit_test(test_scoring_refuses_what_the_model_has_not),
        cmocka_unit_test(test_nothing_scored_is_not_a_number),
        cmocka_unit_test(test_ids_are_read_from_text),
    };
    return cmocka_run_group_tests_name("score", tests, NULL, NULL);
}
