/* SPDX-License-Identifier: MIT */
/* Trials of settings on a tiny model with a table of random n-grams. */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/trial.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "tests/tablet.h"
#include "tests/tiny.h"

enum { SAMPLES = 3, TOKENS = 8, PROMPTS = 3, BASE = 0, CONTROL, ONE, BLOCKS, BARE, N_SETTINGS };

/* A model, a table, five settings, prompts of 2, 5 and 1 tokens. */
struct fixture {
    struct dm_model m, other;
    struct dm_cooc cooc;
    struct dm_trial_setting set[N_SETTINGS];
    size_t start[PROMPTS + 1];
    struct dm_trial_opt o;
};

static struct fixture *fixture_new(void)
{
    enum { CORPUS = 4000 };
    struct fixture *f = calloc(1, sizeof(*f));
    struct dm_config c = tiny_config();
    struct dm_rng rng;
    int32_t ids[CORPUS];
    assert_non_null(f);
    tiny_model(&f->m, &c);
    c.K = 1;
    c.L = 2;
    tiny_model(&f->other, &c);
    dm_rng_init(&rng, 3, 0);
    for (size_t i = 0; i < CORPUS; i++)
        ids[i] = 1 + (int32_t)dm_rng_below(&rng, TINY_VP - 1);
    tablet_count(&f->cooc, ids, CORPUS, TINY_VP);
    for (size_t i = 0; i < N_SETTINGS; i++) {
        f->set[i].gen = dm_gen_opt_default();
        f->set[i].gen.top_k = 10;
        f->set[i].gen.mode = i <= CONTROL ? DM_GEN_AR : DM_GEN_DYNAMO;
        f->set[i].gen.eps_b = i == ONE ? 1.0 : 0.0;
        f->set[i].table = i != BARE;
    }
    f->set[CONTROL].seed = 1000;
    memcpy(f->start, (size_t[]){0, 2, 7, 8}, sizeof(f->start));
    f->o = (struct dm_trial_opt){.model = &f->m,
                                 .cooc = &f->cooc,
                                 .settings = f->set,
                                 .n_settings = N_SETTINGS,
                                 .prompts = {tiny_ids, f->start, PROMPTS},
                                 .samples = SAMPLES,
                                 .tokens = TOKENS,
                                 .seed = 7};
    return f;
}

static void fixture_free(struct fixture *f)
{
    dm_model_release(&f->m);
    dm_model_release(&f->other);
    tablet_free(&f->cooc);
    free(f);
}

static void run(struct dm_trial *t, const struct fixture *f)
{
    struct dm_err e;
    assert_ok(dm_trial_run(t, &f->o, NULL, NULL, &e), e);
}

/* Everything but the seconds. */
static bool same_texts(const struct dm_trial *a, size_t i, const struct dm_trial *b, size_t k)
{
    const size_t n = a->prompts * a->samples;
    for (size_t x = 0; x < n; x++) {
        const struct dm_trial_text *p = dm_trial_at(a, i, 0, 0) + x,
                                   *q = dm_trial_at(b, k, 0, 0) + x;
        if (memcmp(p->value, q->value, sizeof(p->value)) ||
            p->stats.forwards != q->stats.forwards || p->stats.tokens != q->stats.tokens)
            return false;
    }
    return !memcmp(dm_trial_ids(a, i, 0, 0), dm_trial_ids(b, k, 0, 0),
                   n * a->tokens * sizeof(*a->ids));
}

static void test_texts_are_those_of_generate(void **state)
{
    (void)state;
    struct dm_err e;
    struct fixture *f = fixture_new();
    struct dm_trial t;
    run(&t, f);
    for (size_t set = 0; set < N_SETTINGS; set++) {
        struct dm_gen *g;
        const bool table = set == ONE || set == BLOCKS;
        assert_ok(dm_gen_new(&g, &f->m, table ? &f->cooc : NULL, 3, &e), e);
        for (size_t at = 0; at < PROMPTS * SAMPLES; at++) {
            const size_t p = at / SAMPLES;
            struct dm_gen_opt o = f->set[set].gen;
            struct dm_ids ids = {0};
            o.seed = 7 + at + (set == CONTROL ? 1000 : 0);
            o.max_tokens = TOKENS;
            o.stop_eos = false;
            assert_ok(dm_gen_run(g, &o, tiny_ids + f->start[p], f->start[p + 1] - f->start[p], &ids,
                                 NULL, NULL, NULL, &e),
                      e);
            assert_memory_equal(ids.id, dm_trial_ids(&t, set, p, at % SAMPLES),
                                TOKENS * sizeof(*ids.id));
            dm_ids_release(&ids);
        }
        dm_gen_free(g);
    }
    dm_trial_release(&t);
    fixture_free(f);
}

static void test_eps_1_is_the_base_and_a_control_is_not(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct dm_trial t;
    run(&t, f);
    assert_true(same_texts(&t, BASE, &t, ONE));
    assert_false(same_texts(&t, BASE, &t, CONTROL));
    assert_false(same_texts(&t, BLOCKS, &t, BARE)); // the table counts
    for (size_t i = 0; i < PROMPTS * SAMPLES; i++) {
        assert_int_equal(dm_trial_at(&t, BASE, 0, 0)[i].stats.forwards, TOKENS);
        assert_int_equal(dm_trial_at(&t, BLOCKS, 0, 0)[i].stats.forwards, 3); // 3 + 3 + 2
    }
    dm_trial_release(&t);
    fixture_free(f);
}

/* The base's divergence from itself is what the cut to top_k removes: -log of the mass that is left
 * after the penalty, token by token from the logits. */
static void test_divergence_of_the_base_is_its_cut(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    const struct dm_gen_opt *o = &f->set[BASE].gen;
    struct dm_trial t;
    run(&t, f);
    for (size_t at = 0; at < PROMPTS * SAMPLES; at++) {
        const size_t p = at / SAMPLES, n_prompt = f->start[p + 1] - f->start[p];
        int32_t ids[32];
        double want = 0.0;
        memcpy(ids, tiny_ids + f->start[p], n_prompt * sizeof(*ids));
        memcpy(ids + n_prompt, dm_trial_ids(&t, BASE, p, at % SAMPLES), TOKENS * sizeof(*ids));
        float *logits = tiny_logits(&f->m, ids, 1, n_prompt + TOKENS, 1);
        for (size_t i = n_prompt; i < n_prompt + TOKENS; i++) {
            const float *row = logits + (i - 1) * TINY_VP;
            double all = 0.0, left = 0.0;
            for (size_t v = 0; v < TINY_VP; v++) {
                size_t rank = 0;
                double w = exp((double)row[v] / o->temperature);
                for (size_t k = 0; k < TINY_VP; k++)
                    rank += row[k] > row[v];
                for (size_t k = 0; k < i; k++)
                    if (ids[k] == (int32_t)v) {
                        w /= o->penalty;
                        break;
                    }
                all += w;
                left += rank < o->top_k ? w : 0.0;
            }
            want -= log(left / all) / TOKENS;
        }
        const struct dm_trial_text *x = dm_trial_at(&t, BASE, p, at % SAMPLES);
        assert_true(fabs(x->value[DM_TRIAL_DIVERGENCE] - want) < 1e-5 && want > 0.0);
        assert_true(x->value[DM_TRIAL_OUTSIDE] == 0.0);
        free(logits);
    }
    dm_trial_release(&t);
    fixture_free(f);
}

static void test_results_depend_on_neither_threads_nor_other_settings(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct dm_trial t[4];
    for (size_t i = 0; i < 3; i++) {
        dm_par_set_threads(i + 1);
        run(&t[i], f);
    }
    dm_par_set_threads(0);
    f->o.settings = &f->set[BLOCKS];
    f->o.n_settings = 1;
    run(&t[3], f);
    for (size_t set = 0; set < N_SETTINGS; set++) {
        assert_true(same_texts(&t[0], set, &t[1], set));
        assert_true(same_texts(&t[0], set, &t[2], set));
    }
    assert_true(same_texts(&t[0], BLOCKS, &t[3], 0));
    for (size_t i = 0; i < 4; i++)
        dm_trial_release(&t[i]);
    fixture_free(f);
}

static void test_another_model_may_judge(void **state)
{
    (void)state;
    struct fixture *f = fixture_new();
    struct dm_trial own, by_other;
    run(&own, f);
    f->o.judge = &f->other;
    run(&by_other, f);
    for (size_t at = 0; at < N_SETTINGS * PROMPTS * SAMPLES; at++) {
        const double *a = own.texts[at].value, *b = by_other.texts[at].value;
        assert_true(a[DM_TRIAL_LOGP] == a[DM_TRIAL_BASE_LOGP]);
        assert_true(b[DM_TRIAL_LOGP] != b[DM_TRIAL_BASE_LOGP]);
        assert_memory_equal(a + DM_TRIAL_BASE_LOGP, b + DM_TRIAL_BASE_LOGP,
                            (DM_TRIAL_MEASURES - 1) * sizeof(*a));
    }
    // log p by the other model, from its logits
    int32_t ids[32];
    double want = 0.0;
    memcpy(ids, tiny_ids, 2 * sizeof(*ids));
    memcpy(ids + 2, dm_trial_ids(&by_other, BLOCKS, 0, 1), TOKENS * sizeof(*ids));
    float *logits = tiny_logits(&f->other, ids, 1, 2 + TOKENS, 1);
    for (size_t i = 2; i < 2 + TOKENS; i++) {
        const float *row = logits + (i - 1) * TINY_VP;
        want += ((double)row[ids[i]] - tiny_lse(row, TINY_VP)) / TOKENS;
    }
    assert_true(fabs(dm_trial_at(&by_other, BLOCKS, 0, 1)->value[DM_TRIAL_LOGP] - want) < 1e-5);
    free(logits);
    dm_trial_release(&own);
    dm_trial_release(&by_other);
    fixture_free(f);
}

static void test_sums_are_those_of_the_texts(void **state)
{
    (void)state;
    enum { N = PROMPTS * SAMPLES };
    struct dm_err e;
    struct fixture *f = fixture_new();
    struct dm_trial t;
    struct dm_trial_sum s;
    double by_prompt[PROMPTS], mean = 0.0;
    size_t distinct = 0;
    run(&t, f);
    for (size_t i = 0; i < 2 * N; i++) // made-up clocks: the base at 7 tokens/s, the others at 14
        t.texts[(i < N ? BASE : BLOCKS - 1) * N + i].stats.seconds = i < N ? 1.0 : 0.5;
    for (size_t i = 0; i < N; i++)
        t.texts[BLOCKS * N + i].stats.first = 1;
    assert_ok(dm_trial_summarise(&s, &t, BLOCKS, BASE, &e), e);
    assert_int_equal(s.tokens, N * TOKENS);
    assert_int_equal(s.forwards, 3 * N);
    assert_int_equal(s.blocks[3], 2 * N);
    assert_int_equal(s.blocks[2], N);
    assert_true(s.per_forward == TOKENS / 3.0);
    assert_true(s.rate == 14.0 && s.speedup == 2.0);
    dm_trial_by_prompt(by_prompt, &t, BLOCKS, DM_TRIAL_LOGP);
    for (size_t i = 0; i < N; i++)
        mean += dm_trial_at(&t, BLOCKS, 0, 0)[i].value[DM_TRIAL_LOGP] / N;
    assert_true(fabs(s.value[DM_TRIAL_LOGP] - mean) < 1e-12);
    assert_true(fabs((by_prompt[0] + by_prompt[1] + by_prompt[2]) / 3.0 - mean) < 1e-12);
    assert_true(s.se[DM_TRIAL_LOGP] > 0.0);
    const int32_t *ids = dm_trial_ids(&t, BLOCKS, 0, 0);
    for (int32_t v = 0; v < TINY_VP; v++)
        for (size_t i = 0; i < N * TOKENS; i++)
            if (ids[i] == v) {
                distinct++;
                break;
            }
    assert_true(s.distinct[1] == (double)distinct / (N * TOKENS));
    assert_ok(dm_trial_summarise(&s, &t, ONE, BASE, &e), e);
    assert_true(s.agree == 1.0);
    // Texts that differ from the third token on agree in two.
    for (size_t i = 0; i < N; i++)
        t.ids[(ONE * N + i) * TOKENS + 2] = TINY_VP;
    assert_ok(dm_trial_summarise(&s, &t, ONE, BASE, &e), e);
    assert_true(s.agree == 2.0 / TOKENS);
    json_t *root = dm_trial_sum_to_json(&s);
    assert_true(json_real_value(json_object_get(root, "agree")) == 2.0 / TOKENS);
    assert_int_equal(json_integer_value(json_object_get(root, "forwards")), N * TOKENS);
    assert_true(json_real_value(json_object_get(root, "repeats_4")) == s.value[DM_TRIAL_REPEATS_4]);
    assert_int_equal(json_object_size(json_object_get(root, "distinct")), DM_TRIAL_DISTINCT);
    json_decref(root);
    dm_trial_release(&t);
    fixture_free(f);
}

static void test_greedy_and_lossless_settings_are_tried_too(void **state)
{
    (void)state;
    struct dm_err e;
    struct fixture *f = fixture_new();
    struct dm_trial t;
    struct dm_trial_sum s;
    for (size_t i = 0; i < N_SETTINGS; i++)
        f->set[i].gen.temperature = 0.0;
    f->set[BARE].gen.mode = DM_GEN_LOSSLESS;
    run(&t, f);
    assert_ok(dm_trial_summarise(&s, &t, BARE, BASE, &e), e);
    assert_true(s.agree == 1.0 && s.per_forward > 1.0);
    assert_true(fabs(s.value[DM_TRIAL_FIRST] - 1.0) < 1e-12);
    assert_true(isnan(s.value[DM_TRIAL_DIVERGENCE]));
    assert_ok(dm_trial_summarise(&s, &t, BLOCKS, BASE, &e), e);
    assert_true(s.agree < 1.0 && s.value[DM_TRIAL_FIRST] < 1.0);
    json_t *root = dm_trial_sum_to_json(&s);
    assert_true(json_is_null(json_object_get(root, "divergence")));
    json_decref(root);
    dm_trial_release(&t);
    fixture_free(f);
}

static bool stop_at_third(void *ctx, double share)
{
    return share <= 1.0 && ++*(int *)ctx < 3;
}

static void test_what_cannot_be_tried_says_why(void **state)
{
    (void)state;
    struct dm_err e;
    struct fixture *f = fixture_new();
    struct dm_trial t;
    int calls = 0;
    assert_int_equal(dm_trial_run(&t, &f->o, stop_at_third, &calls, &e), DM_ESTOPPED);
    assert_int_equal(calls, 3);
    dm_trial_release(&t);
    f->o.tokens = 20;
    assert_int_equal(dm_trial_run(&t, &f->o, NULL, NULL, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "prompts of 5 and texts of 20 tokens exceed the context 24"));
    dm_trial_release(&t);
    f->o.tokens = TOKENS;
    f->set[BLOCKS].gen.lambda = 2.0;
    assert_int_equal(dm_trial_run(&t, &f->o, NULL, NULL, &e), DM_ERANGE);
    dm_trial_release(&t);
    f->set[BLOCKS].gen.lambda = 0.9;
    f->o.samples = 0;
    assert_int_equal(dm_trial_run(&t, &f->o, NULL, NULL, &e), DM_ERANGE);
    dm_trial_release(&t);
    f->o.samples = 1;
    f->o.tokens = 2;
    for (size_t n = 1, left = 0; !left; n++) {
        struct dm_trial_sum s;
        dm_alloc_fail_at(n);
        enum dm_status st = dm_trial_run(&t, &f->o, NULL, NULL, &e);
        if (!st)
            st = dm_trial_summarise(&s, &t, BLOCKS, BASE, &e);
        left = dm_alloc_fail_at(0);
        assert_int_equal(st, left ? DM_OK : DM_ENOMEM);
        dm_trial_release(&t);
    }
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_are_those_of_generate),
        cmocka_unit_test(test_eps_1_is_the_base_and_a_control_is_not),
        cmocka_unit_test(test_divergence_of_the_base_is_its_cut),
        cmocka_unit_test(test_results_depend_on_neither_threads_nor_other_settings),
        cmocka_unit_test(test_another_model_may_judge),
        cmocka_unit_test(test_sums_are_those_of_the_texts),
        cmocka_unit_test(test_greedy_and_lossless_settings_are_tried_too),
        cmocka_unit_test(test_what_cannot_be_tried_says_why),
    };
    return cmocka_run_group_tests_name("trial", tests, NULL, NULL);
}
