/* SPDX-License-Identifier: MIT */
/* The judge and what a text repeats. */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/diversity.h"
#include "eval/judge.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/decode/generate.h"
#include "tests/tiny.h"

enum { VP = TINY_VP };

static bool repeated(const int32_t *x, size_t i, int32_t id)
{
    for (size_t k = 0; k < i; k++)
        if (x[k] == id)
            return true;
    return false;
}

/* The judge's definition, token by token, from the full logits. */
static void test_judge_is_the_mean_log_p_of_the_generated_tokens(void **state)
{
    (void)state;
    enum { PROMPT = 4 };
    const struct dm_gen_opt o = {.temperature = 0.7, .penalty = 1.3, .top_k = 20},
                            greedy = {.penalty = 1.0, .top_k = 1};
    struct dm_err e;
    struct dm_model m;
    struct dm_judge *j;
    struct dm_verdict v;
    struct dm_config c = tiny_config();
    c.V = VP - 3; // the last rows are padding
    tiny_model(&m, &c);
    assert_ok(dm_judge_new(&j, &m, TINY_T, &e), e);
    assert_ok(dm_judge_text(j, tiny_ids + TINY_T + 3, PROMPT, 10, &o, &v, &e), e);
    const int32_t *x = tiny_ids + TINY_T + 3;
    float *logits = tiny_logits(&m, x, 1, 9, 1);
    const double shift = o.penalty / pow(o.penalty, 1.0 / o.temperature);
    double want = 0.0, sampler = 0.0, outside = 0.0, first = 0.0;
    for (size_t i = PROMPT; i < 10; i++) {
        const float *row = logits + (i - 1) * VP;
        double p[VP] = {0}, sum = 0.0;
        size_t before = 0, better = 0;
        want += (double)row[x[i]] - tiny_lse(row, VP);
        for (size_t t = 0; t < c.V; t++) {
            p[t] = exp((double)row[t] / o.temperature);
            if (repeated(x, i, (int32_t)t))
                p[t] /= o.penalty;
            sum += p[t];
        }
        sampler += log(p[x[i]] / sum);
        for (size_t t = 0; t < c.V; t++) {
            before += row[t] > row[x[i]];
            // greedy decoding divides probabilities at temperature 1, so the penalty's power
            better += p[t] * (repeated(x, i, (int32_t)t) ? shift : 1.0) >
                      p[x[i]] * (repeated(x, i, x[i]) ? shift : 1.0);
        }
        outside += before >= o.top_k;
        first += !better;
    }
    assert_true(fabs(v.logp - want / 6.0) < 1e-6);
    assert_true(fabs(v.sampler_logp - sampler / 6.0) < 1e-6);
    assert_true(fabs(v.outside - outside / 6.0) < 1e-12 && outside > 0.0);
    assert_true(fabs(v.first - first / 6.0) < 1e-12);
    assert_ok(dm_judge_text(j, x, PROMPT, 10, &greedy, &v, &e), e);
    assert_true(isnan(v.sampler_logp));
    free(logits);
    dm_judge_free(j);
    dm_model_release(&m);
}

/* Rows of several blocks, ids beyond the vocabulary, and a penalty that leaves a hundredth of
 * nearly everything: what is lost in the subtraction is what an exponential is off by, a hundred
 * times. */
static void test_sampler_log_p_is_that_of_its_definition(void **state)
{
    (void)state;
    enum { V = 5003, SEEN = 40 };
    static float x[V + 5];
    int32_t seen[SEEN];
    for (uint64_t round = 0; round < 8; round++) {
        struct dm_gen_opt o = {.temperature = 0.7, .penalty = round & 1 ? 100.0 : 1.3};
        const double near = round & 1 ? 2e-5 : 3e-7;
        struct dm_rng rng;
        double sum = 0.0;
        dm_rng_init(&rng, 6, round);
        for (size_t v = 0; v < V + 5; v++)
            x[v] = (float)(3.0 * dm_rng_normal(&rng));
        for (size_t s = 0; s < SEEN; s++) {
            seen[s] = (int32_t)(V + 2 - s * 113); // the first is beyond V
            x[seen[s]] += round & 2 ? 20.0f : 0.0f;
        }
        const size_t n = round & 4 ? 0 : SEEN;
        for (int32_t v = 0; v < V; v++)
            sum += exp((double)x[v] / o.temperature) / (repeated(seen, n, v) ? o.penalty : 1.0);
        for (size_t s = 0; s < SEEN; s++)
            for (int32_t id = seen[s] - 1; id <= seen[s]; id++) {
                const double want = (double)x[id] / o.temperature - log(sum) -
                                    (repeated(seen, n, id) ? log(o.penalty) : 0.0);
                assert_near(dm_judge_sampler_logp(x, V, id, seen, n, &o), want, near);
            }
    }
}

static void test_judge_refuses_texts_without_prompt_or_tokens(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_judge *j;
    struct dm_verdict v;
    const struct dm_config c = tiny_config();
    const struct dm_gen_opt o = {.temperature = 1.0, .penalty = 1.0, .top_k = 20};
    const int32_t bad[] = {1, 2, VP};
    tiny_model(&m, &c);
    assert_int_equal(dm_judge_new(&j, &m, 25, &e), DM_ERANGE);
    assert_ok(dm_judge_new(&j, &m, 6, &e), e);
    assert_int_equal(dm_judge_text(j, tiny_ids, 0, 3, &o, &v, &e), DM_ERANGE);
    assert_int_equal(dm_judge_text(j, tiny_ids, 3, 3, &o, &v, &e), DM_ERANGE);
    assert_int_equal(dm_judge_text(j, tiny_ids, 3, 7, &o, &v, &e), DM_ERANGE);
    assert_int_equal(dm_judge_text(j, bad, 1, 3, &o, &v, &e), DM_ERANGE);
    dm_judge_free(j);
    dm_model_release(&m);
}

/* A text that greedy decoding of the base writes is its first choice everywhere, and no other is.
 */
static void test_first_is_what_greedy_decoding_writes(void **state)
{
    (void)state;
    enum { PROMPT = 5, TEXT = 12 };
    struct dm_err e;
    struct dm_model m;
    struct dm_gen *g;
    struct dm_judge *j;
    struct dm_verdict v;
    struct dm_ids ids = {0};
    const struct dm_config c = tiny_config();
    struct dm_gen_opt o = dm_gen_opt_default();
    o.mode = DM_GEN_AR;
    o.temperature = 0.0;
    o.penalty = 1.4;
    o.max_tokens = TEXT;
    o.stop_eos = false;
    tiny_model(&m, &c);
    assert_ok(dm_gen_new(&g, &m, NULL, 1, &e), e);
    for (size_t i = 0; i < PROMPT; i++)
        assert_ok(dm_ids_push(&ids, tiny_ids[i], &e), e);
    assert_ok(dm_gen_run(g, &o, tiny_ids, PROMPT, &ids, NULL, NULL, NULL, &e), e);
    assert_ok(dm_judge_new(&j, &m, PROMPT + TEXT, &e), e);
    assert_ok(dm_judge_text(j, ids.id, PROMPT, ids.n, &o, &v, &e), e);
    assert_true(fabs(v.first - 1.0) < 1e-12 && v.outside == 0.0);
    ids.id[ids.n - 1] = (ids.id[ids.n - 1] + 1) % VP;
    assert_ok(dm_judge_text(j, ids.id, PROMPT, ids.n, &o, &v, &e), e);
    assert_true(fabs(v.first - 11.0 / 12.0) < 1e-12);
    dm_ids_release(&ids);
    dm_judge_free(j);
    dm_gen_free(g);
    dm_model_release(&m);
}

static void test_verdicts_do_not_depend_on_threads(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_verdict v[3];
    const struct dm_config c = tiny_config();
    const struct dm_gen_opt o = {.temperature = 0.7, .penalty = 1.1, .top_k = 9};
    tiny_model(&m, &c);
    for (size_t threads = 1; threads <= 3; threads++) {
        struct dm_judge *j;
        dm_par_set_threads(threads);
        assert_ok(dm_judge_new(&j, &m, TINY_T, &e), e);
        assert_ok(dm_judge_text(j, tiny_ids, 2, TINY_T, &o, &v[threads - 1], &e), e);
        dm_judge_free(j);
    }
    dm_par_set_threads(0);
    assert_memory_equal(&v[0], &v[1], sizeof(v[0]));
    assert_memory_equal(&v[0], &v[2], sizeof(v[0]));
    dm_model_release(&m);
}

static void test_repeats_count_what_occurred_before(void **state)
{
    (void)state;
    const int32_t none[] = {1, 2, 3, 4, 5}, some[] = {1, 2, 3, 1, 2, 3, 1}, all[] = {7, 7, 7, 7};
    assert_true(dm_div_repeats(none, 5, 3) == 0.0);
    assert_true(dm_div_repeats(none, 2, 3) == 0.0);
    assert_true(dm_div_repeats(some, 7, 3) == 2.0 / 5.0);
    assert_true(dm_div_repeats(some, 7, 1) == 4.0 / 7.0);
    assert_true(dm_div_repeats(some, 7, 4) == 1.0 / 4.0);
    assert_true(dm_div_repeats(all, 4, 3) == 0.5);
}

static void test_distinct_counts_n_grams_of_all_texts(void **state)
{
    (void)state;
    struct dm_err e;
    double d;
    // 1 2 1 2 | 2 1 | (empty): no pair spans two texts
    const int32_t ids[] = {1, 2, 1, 2, 2, 1};
    const size_t start[] = {0, 4, 6}, len[] = {4, 2, 0};
    const struct dm_texts t = {ids, start, len, 3};
    const double want[] = {2.0 / 6.0, 2.0 / 4.0, 2.0 / 2.0, 1.0};
    for (size_t n = 1; n <= 4; n++) {
        assert_ok(dm_div_distinct(&d, &t, n, &e), e);
        assert_true(fabs(d - want[n - 1]) < 1e-12);
    }
    assert_ok(dm_div_distinct(&d, &t, 5, &e), e);
    assert_true(isnan(d));
    dm_alloc_fail_at(1);
    assert_int_equal(dm_div_distinct(&d, &t, 1, &e), DM_ENOMEM);
    dm_alloc_fail_at(0);
}

static void test_one_text_is_distinct_where_it_does_not_repeat(void **state)
{
    (void)state;
    enum { LEN = 97 };
    struct dm_err e;
    struct dm_rng rng;
    int32_t ids[LEN];
    double d;
    dm_rng_init(&rng, 5, 0);
    for (size_t i = 0; i < LEN; i++)
        ids[i] = (int32_t)dm_rng_below(&rng, 6);
    for (size_t n = 1; n <= 6; n++) {
        const struct dm_texts t = {ids, (size_t[]){0}, (size_t[]){LEN}, 1};
        assert_ok(dm_div_distinct(&d, &t, n, &e), e);
        assert_true(fabs(d + dm_div_repeats(ids, LEN, n) - 1.0) < 1e-12);
        assert_true(d > 0.0 && d <= 1.0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge_is_the_mean_log_p_of_the_generated_tokens),
        cmocka_unit_test(test_sampler_log_p_is_that_of_its_definition),
        cmocka_unit_test(test_judge_refuses_texts_without_prompt_or_tokens),
        cmocka_unit_test(test_first_is_what_greedy_decoding_writes),
        cmocka_unit_test(test_verdicts_do_not_depend_on_threads),
        cmocka_unit_test(test_repeats_count_what_occurred_before),
        cmocka_unit_test(test_distinct_counts_n_grams_of_all_texts),
        cmocka_unit_test(test_one_text_is_distinct_where_it_does_not_repeat),
    };
    return cmocka_run_group_tests_name("judge", tests, NULL, NULL);
}
