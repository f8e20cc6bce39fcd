/* SPDX-License-Identifier: MIT */
/* What a block is worth: terms, confidence, JSON; the weights, and the texts they are made on. */
#include "tests/util.h"

#include <math.h>
#include <string.h>

#include "eval/fit_make.h"
#include "eval/judge.h"
#include "src/base/rng.h"
#include "src/decode/decoder.h"
#include "tests/tiny.h"

static void test_terms_are_those_of_the_cell(void **state)
{
    (void)state;
    const struct dm_cand cand[] = {
        {3, {4, 9, 2}, {0.5, 0.3, 0.2}}, {2, {7, 1}, {0.75, 0.25}}, {3, {3, 5, 6}, {0.6, 0.4, 0}}};
    const double H[] = {1.029653, 0.562335, 0.673012};
    double term[DM_FIT_TERMS];
    dm_fit_read(term, 3, 0.2, 0.7, (2 * 2 + 1) * 3 + 1, cand); // the cell (2,1,1)
    const double p[] = {0.2, 0.25, 0.4};
    assert_int_equal(dm_fit_terms(3), 9);
    assert_true(term[0] == 1);
    assert_near(term[1], log(0.2), 1e-12);
    assert_near(term[2], log(0.7), 1e-12);
    for (size_t h = 0; h < 3; h++) {
        assert_near(term[3 + h], log(p[h]), 1e-12);
        assert_near(term[6 + h], H[h], 1e-6);
    }
    dm_fit_read(term, 2, 0.2, 0.7, 1 * 2 + 0, cand);
    assert_near(term[3], log(0.3), 1e-12);
    assert_near(term[4], log(0.75), 1e-12);
    assert_near(term[6], H[1], 1e-6);
}

static void test_confidence_weighs_every_term_and_stays_positive(void **state)
{
    (void)state;
    const double term[DM_FIT_TERMS] = {1, -2, -0.5, -0.25, -1, -3, 0.5, 2, 1.5};
    for (size_t n = 2; n <= DM_ORDER_MAX; n++)
        for (size_t i = 0; i < dm_fit_terms(n); i++) {
            struct dm_fit f = {.known = true};
            f.w[n][i] = 0.75;
            assert_near(dm_fit_confidence(&f, n, term), exp(-0.75 * term[i]), 1e-12);
            f.w[n][0] = 1e300;
            assert_true(dm_fit_confidence(&f, n, term) > 0);
        }
}

/* Whatever J, S and cell a block with J > level has. */
static void test_no_block_has_more_confidence_than_the_bound(void **state)
{
    (void)state;
    size_t close = 0;
    for (uint64_t round = 0; round < 2000; round++) {
        struct dm_rng rng;
        struct dm_cand cand[3] = {0};
        struct dm_fit f = {.known = true};
        double term[DM_FIT_TERMS], bound, most = 0;
        dm_rng_init(&rng, 8, round);
        const size_t n = 2 + round % 2, sharp = round / 2 % 3;
        for (size_t h = 0; h < n; h++) {
            double sum = 0;
            cand[h].n = 2 + round % 3;
            for (size_t i = 0; i < cand[h].n; i++)
                sum += cand[h].p[i] = exp(-(double)((i + h) * sharp));
            for (size_t i = 0; i < cand[h].n; i++)
                cand[h].p[i] /= sum;
        }
        cand[n - 1].p[cand[n - 1].n - 1] = round % 5 ? cand[n - 1].p[cand[n - 1].n - 1] : 0;
        for (size_t i = 0; i < dm_fit_terms(n); i++)
            f.w[n][i] = round % 7 == i ? 0 : dm_rng_normal(&rng);
        const double level = 0.05 + 0.9 * dm_rng_uniform(&rng);
        bound = dm_fit_bound(&f, n, level, cand);
        const size_t cells = cand[0].n * cand[1].n * (n == 3 ? cand[2].n : 1);
        for (size_t cell = 0; cell < cells; cell++)
            for (size_t k = 0; k < 4; k++) {
                const double J = k & 1 ? 1 : level, S = k & 2 ? 1 : J;
                dm_fit_read(term, n, J, S, cell, cand);
                const double c = dm_fit_confidence(&f, n, term);
                if (isfinite(term[2 + n])) // of a token that is possible
                    most = c > most ? c : most;
            }
        assert_true(most <= bound);
        close += most > 0.999 * bound;
        assert_true(dm_fit_bound(&f, n, 0, cand) > 1e200);
    }
    assert_true(close > 1000); // the bound is no larger than it must be
}

static void test_json_there_and_back(void **state)
{
    (void)state;
    struct dm_fit f = {.known = true}, g;
    struct dm_err e;
    for (size_t n = 2; n <= DM_ORDER_MAX; n++)
        for (size_t i = 0; i < dm_fit_terms(n); i++)
            f.w[n][i] = (double)n + 0.125 * (double)i;
    json_t *j = dm_fit_to_json(&f);
    assert_ok(dm_fit_from_json(&g, j, "m.h5", &e), e);
    assert_memory_equal(&f, &g, sizeof(f));
    json_array_remove(json_object_get(j, "3"), 8);
    assert_int_equal(dm_fit_from_json(&g, j, "m.h5", &e), DM_EFORMAT);
    assert_string_equal(e.msg, "m.h5: fit has no 9 weights for 3 tokens");
    json_array_append_new(json_object_get(j, "3"), json_true());
    assert_int_equal(dm_fit_from_json(&g, j, "m.h5", &e), DM_EFORMAT);
    json_decref(j);
    f.known = false;
    j = dm_fit_to_json(&f);
    assert_true(json_is_null(j));
    assert_ok(dm_fit_from_json(&g, j, "m.h5", &e), e);
    assert_false(g.known);
    json_decref(j);
}

static void test_weights_that_were_planted_are_found(void **state)
{
    (void)state;
    static struct dm_fit_sample s[400];
    double w[DM_FIT_TERMS], planted[2][7];
    for (size_t i = 0; i < 400; i++) {
        struct dm_rng rng;
        dm_rng_init(&rng, 5, i);
        s[i].text = i / 7;
        s[i].term[0] = 1;
        for (size_t t = 1; t < 7; t++)
            s[i].term[t] = dm_rng_normal(&rng) + (double)t;
        for (size_t t = 0; t < 7; t++) { // other weights for texts with an odd number
            planted[s[i].text % 2][t] = s[i].text % 2 ? 3 - 0.5 * (double)t : (double)t;
            s[i].nats += planted[s[i].text % 2][t] * s[i].term[t];
        }
    }
    for (size_t half = 0; half < 2; half++) {
        dm_fit_solve(w, 7, s, 400, 1 - half);
        for (size_t t = 0; t < 7; t++)
            assert_near(w[t], planted[half][t], 1e-3);
    }
    // over all: the gradient of the squares is 0
    dm_fit_solve(w, 7, s, 400, 2);
    for (size_t t = 0; t < 7; t++) {
        double sum = 0;
        for (size_t i = 0; i < 400; i++) {
            double d = -s[i].nats;
            for (size_t k = 0; k < 7; k++)
                d += w[k] * s[i].term[k];
            sum += d * s[i].term[t] / 400;
        }
        assert_near(sum, 0, 1e-3);
    }
    memset(s, 0, sizeof(s)); // terms that never vary
    for (size_t i = 0; i < 400; i++)
        s[i].term[0] = s[i].nats = 1;
    dm_fit_solve(w, 7, s, 400, 2);
    assert_near(w[0], 1, 1e-3);
    assert_true(w[6] == 0);
}

static struct dm_gen_opt options(void)
{
    struct dm_gen_opt o = dm_gen_opt_default();
    o.temperature = 0.8;
    o.top_k = 20;
    o.penalty = 1.3;
    return o;
}

static void test_one_position_has_the_divergence_that_the_judge_finds(void **state)
{
    (void)state;
    enum { PROMPT = 7, SEED = 40 };
    const struct dm_config c = tiny_config();
    struct dm_gen_opt o = options();
    struct dm_model m;
    struct dm_err e;
    struct dm_fit_report r;
    struct dm_session *s;
    struct dm_decoder d;
    struct dm_judge *judge;
    float *logits = tiny_floats(3 * TINY_VP);
    tiny_model(&m, &c);
    assert_ok(dm_fit_make(&r, &m, NULL, &o, tiny_ids, 1, PROMPT, 1, SEED, NULL, NULL, &e), e);
    assert_false(r.fit.known);
    assert_ok(dm_session_new(&s, &m, 3, &e), e);
    assert_ok(dm_decoder_init(&d, c.V, o.top_k, 3, &e), e);
    assert_ok(dm_judge_new(&judge, &m, TINY_T, &e), e);
    dm_session_step(s, tiny_ids, PROMPT, logits);
    dm_decoder_add(&d, tiny_ids, PROMPT);
    o.eps_b = 0;
    o.seed = SEED + 1; // the text has SEED
    for (size_t n = 2; n <= 3; n++) {
        struct dm_block b;
        struct dm_verdict v;
        int32_t ids[TINY_T];
        assert_ok(dm_decoder_step(&d, &o, NULL, logits, TINY_VP, n, PROMPT, &b, &e), e);
        memcpy(ids, tiny_ids, PROMPT * sizeof(*ids));
        memcpy(ids + PROMPT, b.id, n * sizeof(*ids));
        assert_ok(dm_judge_text(judge, ids, PROMPT, PROMPT + n, &o, &v, &e), e);
        assert_int_equal(r.order[n].positions, 1);
        assert_near(r.order[n].curve[DM_FIT_FITTED].bin[0].found,
                    log(b.q) - (double)n * v.sampler_logp, 1e-5);
        assert_near(r.order[n].curve[DM_FIT_JOINT].bin[0].claimed, -log(b.order[n].max), 1e-9);
    }
    dm_judge_free(judge);
    dm_decoder_release(&d);
    dm_session_free(s);
    dm_model_release(&m);
    free(logits);
}

static bool stop(void *ctx, double share)
{
    (void)share;
    return (*(size_t *)ctx)++ < 1;
}

static void test_a_fit_is_made_of_many_positions_the_same_twice(void **state)
{
    (void)state;
    enum { TEXTS = 22, PROMPT = 2, TOKENS = 6 };
    const struct dm_config c = tiny_config();
    const struct dm_gen_opt o = options();
    int32_t prompts[TEXTS * PROMPT];
    struct dm_model m;
    struct dm_err e;
    struct dm_fit_report r[2];
    size_t calls = 0;
    for (size_t i = 0; i < TEXTS * PROMPT; i++)
        prompts[i] = (int32_t)(i * i % TINY_VP);
    tiny_model(&m, &c);
    for (size_t i = 0; i < 2; i++)
        assert_ok(
            dm_fit_make(&r[i], &m, NULL, &o, prompts, TEXTS, PROMPT, TOKENS, 3, NULL, NULL, &e), e);
    assert_memory_equal(&r[0], &r[1], sizeof(r[0]));
    assert_true(r->fit.known);
    for (size_t n = 2; n <= 3; n++) {
        const struct dm_fit_curve *curve = r->order[n].curve;
        size_t all = 0;
        for (size_t b = 0; b < DM_FIT_BINS; b++) {
            all += curve->bin[b].n;
            assert_true(!b || curve->bin[b].claimed >= curve->bin[b - 1].claimed);
        }
        assert_int_equal(r->order[n].positions, TEXTS * TOKENS);
        assert_int_equal(all, TEXTS * TOKENS);
        assert_true(r->order[n].explained < 1);
    }
    assert_int_equal(
        dm_fit_make(r, &m, NULL, &o, prompts, TEXTS, PROMPT, TOKENS, 3, stop, &calls, &e),
        DM_ESTOPPED);
    // no room behind the prompt: no positions
    assert_true(c.T_max - 2 <= 2 * TINY_T);
    assert_ok(dm_fit_make(r, &m, NULL, &o, tiny_ids, 1, c.T_max - 2, 5, 3, NULL, NULL, &e), e);
    assert_int_equal(r->order[2].positions, 0);
    assert_false(r->fit.known);
    dm_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_terms_are_those_of_the_cell),
        cmocka_unit_test(test_confidence_weighs_every_term_and_stays_positive),
        cmocka_unit_test(test_no_block_has_more_confidence_than_the_bound),
        cmocka_unit_test(test_json_there_and_back),
        cmocka_unit_test(test_weights_that_were_planted_are_found),
        cmocka_unit_test(test_one_position_has_the_divergence_that_the_judge_finds),
        cmocka_unit_test(test_a_fit_is_made_of_many_positions_the_same_twice),
    };
    return cmocka_run_group_tests_name("fit", tests, NULL, NULL);
}
