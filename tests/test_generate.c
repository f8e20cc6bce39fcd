/* SPDX-License-Identifier: MIT */
/* The generation loop on a real, tiny model; options from calibration; streamed text. */
#include "src/decode/generate.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/utf8.h"
#include "tests/tiny.h"
#include "tests/util.h"

enum { N_PROMPT = 3, ROOM = 24 - N_PROMPT };

static int setup(void **state)
{
    static struct dm_model m;
    struct dm_config c = tiny_config();
    c.V = TINY_VP - 3;
    c.eos = -1;
    tiny_model(&m, &c);
    *state = &m;
    return 0;
}

static int teardown(void **state)
{
    dm_model_release(*state);
    return 0;
}

static struct dm_ids run(const struct dm_model *m, size_t n_heads, const struct dm_gen_opt *o,
                         struct dm_gen_stats *s)
{
    struct dm_gen *g;
    struct dm_err e;
    struct dm_ids ids = {0};
    assert_ok(dm_gen_new(&g, m, NULL, n_heads, &e), e);
    assert_ok(dm_gen_run(g, o, tiny_ids, N_PROMPT, &ids, NULL, NULL, s, &e), e);
    dm_gen_free(g);
    assert_int_equal(ids.n, s->tokens);
    for (size_t i = 0; i < ids.n; i++)
        assert_in_range(ids.id[i], 0, m->cfg.V - 1);
    return ids;
}

static void assert_same_ids(const struct dm_ids *a, const struct dm_ids *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->id, b->id, a->n * sizeof(*a->id));
}

static void test_eps_b_1_equals_the_base_token_for_token(void **state)
{
    struct dm_gen_stats s, t;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct dm_gen_opt o = dm_gen_opt_default();
        o.seed = seed;
        o.eps_b = 1;
        o.max_tokens = 20;
        o.temperature = seed == 7 ? 0 : 0.7;
        struct dm_ids dynamo = run(*state, 3, &o, &s);
        o.mode = DM_GEN_AR;
        struct dm_ids ar = run(*state, 1, &o, &t);
        assert_same_ids(&dynamo, &ar);
        assert_int_equal(s.forwards, 20);
        assert_int_equal(t.blocks[1], 20);
        dm_ids_release(&dynamo);
        dm_ids_release(&ar);
    }
}

static void test_eps_b_0_always_emits_three(void **state)
{
    for (int threshold = 0; threshold <= 1; threshold++) {
        struct dm_gen_stats s;
        struct dm_gen_opt o = dm_gen_opt_default();
        o.eps_b = 0;
        o.threshold = threshold;
        o.max_tokens = 18;
        struct dm_ids ids = run(*state, 3, &o, &s);
        assert_int_equal(s.forwards, 6);
        assert_int_equal(s.blocks[3], 6);
        assert_true(dm_gen_per_forward(&s) == 3);
        assert_int_equal(s.end, DM_GEN_LENGTH);
        dm_ids_release(&ids);
    }
}

static void test_exactly_max_tokens_are_made(void **state)
{
    for (size_t n = 0; n < 9; n++) {
        struct dm_gen_stats s;
        struct dm_gen_opt o = dm_gen_opt_default();
        o.eps_b = 0;
        o.max_tokens = n;
        struct dm_ids ids = run(*state, 3, &o, &s);
        assert_int_equal(ids.n, n);
        assert_int_equal(s.forwards, (n + 2) / 3);
        assert_int_equal(s.blocks[n % 3], n % 3 ? 1 : 0);
        dm_ids_release(&ids);
    }
}

static void test_text_ends_where_the_context_is_full(void **state)
{
    struct dm_gen_stats s;
    struct dm_gen_opt o = dm_gen_opt_default();
    o.max_tokens = ROOM + 1;
    struct dm_ids ids = run(*state, 3, &o, &s);
    assert_int_equal(ids.n, ROOM);
    assert_int_equal(s.end, DM_GEN_CONTEXT);
    dm_ids_release(&ids);
    o.max_tokens = ROOM;
    ids = run(*state, 3, &o, &s);
    assert_int_equal(ids.n, ROOM);
    assert_int_equal(s.end, DM_GEN_LENGTH);
    dm_ids_release(&ids);
}

static void test_same_text_at_1_2_and_3_threads(void **state)
{
    struct dm_gen_opt o = dm_gen_opt_default();
    struct dm_gen_stats s;
    struct dm_ids ids[3];
    o.eps_b = 0.05;
    o.max_tokens = ROOM;
    for (size_t t = 0; t < 3; t++) {
        dm_par_set_threads(t + 1);
        ids[t] = run(*state, 3, &o, &s);
    }
    assert_same_ids(&ids[0], &ids[1]);
    assert_same_ids(&ids[0], &ids[2]);
    for (size_t t = 0; t < 3; t++)
        dm_ids_release(&ids[t]);
}

struct seen {
    struct dm_ids ids;
    size_t blocks, stop_after;
};

static bool on_block(void *ctx, const struct dm_block *b)
{
    struct seen *s = ctx;
    struct dm_err e;
    assert_int_equal(b->pos, N_PROMPT + s->ids.n);
    assert_true(b->q > 0 && b->q <= 1);
    for (size_t i = 0; i < b->kept; i++)
        assert_ok(dm_ids_push(&s->ids, b->id[i], &e), e);
    return ++s->blocks != s->stop_after;
}

static void test_callback_sees_every_block_and_can_stop(void **state)
{
    struct dm_gen *g;
    struct dm_err e;
    struct dm_ids ids = {0};
    struct dm_gen_stats s;
    struct dm_gen_opt o = dm_gen_opt_default();
    struct seen seen = {.stop_after = 4};
    o.eps_b = 0;
    o.max_tokens = ROOM;
    assert_ok(dm_gen_new(&g, *state, NULL, 3, &e), e);
    assert_ok(dm_gen_run(g, &o, tiny_ids, N_PROMPT, &ids, on_block, &seen, &s, &e), e);
    assert_same_ids(&ids, &seen.ids);
    assert_int_equal(seen.blocks, 4);
    assert_int_equal(ids.n, 12);
    assert_int_equal(s.end, DM_GEN_STOPPED);
    dm_gen_free(g);
    dm_ids_release(&ids);
    dm_ids_release(&seen.ids);
}

static void test_text_ends_behind_the_end_of_text_token(void **state)
{
    struct dm_model *m = *state;
    struct dm_gen_stats s;
    struct dm_gen_opt o = dm_gen_opt_default();
    o.eps_b = 0;
    o.max_tokens = ROOM;
    struct dm_ids all = run(m, 3, &o, &s);
    size_t at = 4; // inside the second block
    for (size_t i = 0; i < at; i++)
        assert_int_not_equal(all.id[i], all.id[at]);
    m->cfg.eos = all.id[at];
    struct dm_ids ids = run(m, 3, &o, &s);
    assert_int_equal(ids.n, at + 1);
    assert_memory_equal(ids.id, all.id, (at + 1) * sizeof(*ids.id));
    assert_int_equal(s.end, DM_GEN_EOS);
    assert_int_equal(s.blocks[3], 2);
    dm_ids_release(&ids);
    o.stop_eos = false;
    ids = run(m, 3, &o, &s);
    assert_same_ids(&ids, &all);
    dm_ids_release(&ids);
    dm_ids_release(&all);
    m->cfg.eos = -1;
}

static void test_one_generator_serves_many_texts_with_any_options(void **state)
{
    struct dm_gen *g;
    struct dm_err e;
    assert_ok(dm_gen_new(&g, *state, NULL, 3, &e), e);
    for (size_t i = 0; i < 6; i++) {
        struct dm_gen_stats s, t;
        struct dm_gen_opt o = dm_gen_opt_default();
        o.top_k = 3 + 20 * (i % 3);
        o.eps_b = 0.1 * (double)i;
        o.seed = i;
        o.max_tokens = ROOM;
        struct dm_ids a = {0}, b = run(*state, 3, &o, &t);
        assert_ok(dm_gen_run(g, &o, tiny_ids, N_PROMPT, &a, NULL, NULL, &s, &e), e);
        assert_same_ids(&a, &b);
        assert_int_equal(s.forwards, t.forwards);
        dm_ids_release(&a);
        dm_ids_release(&b);
    }
    dm_gen_free(g);
}

static void test_a_base_without_heads_generates_one_by_one(void **state)
{
    struct dm_model m;
    struct dm_config c = ((struct dm_model *)*state)->cfg;
    struct dm_gen_stats s;
    struct dm_gen_opt o = dm_gen_opt_default();
    c.K = 1;
    tiny_model(&m, &c);
    o.eps_b = 0;
    o.max_tokens = 5;
    struct dm_ids ids = run(&m, 3, &o, &s);
    assert_int_equal(s.forwards, 5);
    dm_ids_release(&ids);
    dm_model_release(&m);
}

static void test_wrong_prompts_and_options_are_refused(void **state)
{
    struct dm_gen *g;
    struct dm_err e;
    struct dm_ids ids = {0};
    struct dm_gen_opt o = dm_gen_opt_default(), bad = o;
    assert_ok(dm_gen_new(&g, *state, NULL, 3, &e), e);
    const int32_t outside[] = {1, TINY_VP}, negative[] = {-1};
    bad.eps_b = 1.5;
    const struct {
        const struct dm_gen_opt *o;
        const int32_t *prompt;
        size_t n;
        const char *msg;
    } cases[] = {
        {&o, tiny_ids, 0, "the prompt has no tokens, expected at least one"},
        {&o, tiny_ids, 24, "the prompt has 24 tokens; the model's context holds 24, so at most 23"},
        {&o, outside, 2, "token 1 of the prompt is 53, expected 0 to 52"},
        {&o, negative, 1, "token 0 of the prompt is -1, expected 0 to 52"},
        {&bad, tiny_ids, 1, "eps_b is 1.5, expected 0 to 1"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(
            dm_gen_run(g, cases[i].o, cases[i].prompt, cases[i].n, &ids, NULL, NULL, NULL, &e),
            DM_ERANGE);
        assert_string_equal(e.msg, cases[i].msg);
        assert_int_equal(ids.n, 0);
    }
    dm_gen_free(g);
}

static void test_running_out_of_memory_is_reported(void **state)
{
    struct dm_gen_opt o = dm_gen_opt_default();
    struct dm_err e;
    bool reached = true;
    for (size_t n = 1; reached; n++) {
        struct dm_gen *g = NULL;
        struct dm_ids ids = {0};
        dm_alloc_fail_at(n);
        enum dm_status st = dm_gen_new(&g, *state, NULL, 3, &e);
        if (!st)
            st = dm_gen_run(g, &o, tiny_ids, N_PROMPT, &ids, NULL, NULL, NULL, &e);
        reached = !dm_alloc_fail_at(0);
        assert_int_equal(st, reached ? DM_ENOMEM : DM_OK);
        dm_gen_free(g);
        dm_ids_release(&ids);
    }
}

static void test_calibration_sets_what_it_names(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_gen_opt o = dm_gen_opt_default();
    const char *text = "{\"eps_b\": 0.25, \"unseen\": \"mix\", \"lambda\": 1, \"top_k\": 20,"
                       " \"threshold\": false, \"evidence\": []}";
    assert_ok(dm_gen_opt_calibrated(&o, text, "m.h5", &e), e);
    assert_true(o.eps_b == 0.25 && o.lambda == 1 && o.top_k == 20 && !o.threshold && o.blur);
    assert_int_equal(o.unseen, DM_UNSEEN_MIX);
    assert_true(o.temperature == 0.7 && o.penalty == 1.1 && o.alpha_c == 1);

    o.cut = true;
    o.fitted = false;
    o.fit.known = true;
    o.fit.w[2][0] = 0.25;
    o.fit.w[3][8] = -1.0 / 3;
    o.power2 = 1.5;
    o.power3 = 3;
    o.alpha_3 = 0.75;
    o.rows = 7;
    json_t *j = dm_gen_opt_to_json(&o); // and back
    char *dump = json_dumps(j, 0);
    struct dm_gen_opt again = dm_gen_opt_default();
    assert_ok(dm_gen_opt_calibrated(&again, dump, "m.h5", &e), e);
    json_t *k = dm_gen_opt_to_json(&again);
    assert_true(json_equal(j, k));
    json_decref(j);
    json_decref(k);
    free(dump);
}

static void test_presets_leave_eps_b_and_sampling_alone(void **state)
{
    (void)state;
    struct dm_gen_opt o = dm_gen_opt_default();
    o.eps_b = 0.3;
    o.temperature = 2;
    o.power2 = 5;
    dm_gen_opt_preset(&o, DM_PRESET_PAPER);
    assert_true(o.cut && o.threshold && o.blur && o.unseen == DM_UNSEEN_ZERO);
    assert_true(o.power2 == 1 && o.power3 == 2 && o.alpha_c == 1 && o.alpha_3 == 1 && !o.fitted);
    dm_gen_opt_preset(&o, DM_PRESET_BEST);
    assert_true(!o.cut && o.threshold && o.blur && o.unseen == DM_UNSEEN_BACKOFF);
    assert_true(o.eps_b == 0.3 && o.temperature == 2 && o.lambda == 0.9);
}

static void test_malformed_calibration_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    const struct {
        const char *text, *msg;
        enum dm_status st;
    } cases[] = {
        {"{", NULL, DM_EFORMAT},
        {"[]", "m.h5: calibration: found array, expected an object", DM_EFORMAT},
        {"{\"lambda\": 0.5, \"eps_b\": \"x\"}", NULL, DM_EFORMAT},
        {"{\"lambda\": 0.5, \"eps_b\": -1}", "m.h5: calibration: eps_b is -1, expected 0 to 1",
         DM_ERANGE},
        {"{\"lambda\": 0.5, \"top_k\": 0}", NULL, DM_ERANGE},
        {"{\"lambda\": 0.5, \"unseen\": \"none\"}",
         "m.h5: calibration: unseen is \"none\", expected zero, mix, backoff or discount",
         DM_EFORMAT},
        {"{\"lambda\": 0.5, \"threshold\": 1}", NULL, DM_EFORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dm_gen_opt o = dm_gen_opt_default();
        struct dm_err e = {""};
        assert_int_equal(dm_gen_opt_calibrated(&o, cases[i].text, "m.h5", &e), cases[i].st);
        if (cases[i].msg)
            assert_string_equal(e.msg, cases[i].msg);
        assert_non_null(strstr(e.msg, "m.h5: calibration"));
        assert_true(o.lambda == 0.9);
    }
}

static void test_incomplete_utf8_is_held_back(void **state)
{
    (void)state;
    const struct {
        const char *s;
        size_t show;
    } cases[] = {{"", 0},
                 {"ab", 2},
                 {"ab\xc3", 2},
                 {"ab\xc3\xa9", 4},
                 {"\xe2", 0},
                 {"\xe2\x82", 0},
                 {"\xe2\x82\xac", 3},
                 {"x\xf0\x9f\x98", 1},
                 {"x\xf0\x9f\x98\x80", 5},
                 {"\x80\x80", 2},  // never valid: not held back
                 {"a\xff", 2},     //
                 {"a\xc0", 2},     // overlong
                 {"a\xe0\x80", 3}, //
                 {"a\xed\xa0", 3}, // surrogate
                 {"a\xf4\x90", 3}, // beyond U+10FFFF
                 {"a\xf0\x9f\x98\x80\x80", 6}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[16];
        size_t n = 0;
        struct dm_utf8 u = {0};
        assert_int_equal(dm_utf8_complete(cases[i].s, strlen(cases[i].s)), cases[i].show);
        for (const char *c = cases[i].s; *c; c++)
            n += dm_utf8_push(&u, *c, out + n);
        assert_int_equal(n, cases[i].show); // byte by byte the same
        assert_memory_equal(out, cases[i].s, n);
        assert_int_equal(n + u.n, strlen(cases[i].s));
    }
}

static void test_invalid_bytes_become_replacement_characters(void **state)
{
    (void)state;
    size_t n;
    char *s = dm_utf8_clean("a\xff\xc3\xa9\0\xe2\x82", 7, &n);
    assert_non_null(s);
    assert_int_equal(n, 13);
    assert_memory_equal(s, "a\xef\xbf\xbd\xc3\xa9\0\xef\xbf\xbd\xef\xbf\xbd", 14);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eps_b_1_equals_the_base_token_for_token),
        cmocka_unit_test(test_eps_b_0_always_emits_three),
        cmocka_unit_test(test_presets_leave_eps_b_and_sampling_alone),
        cmocka_unit_test(test_exactly_max_tokens_are_made),
        cmocka_unit_test(test_text_ends_where_the_context_is_full),
        cmocka_unit_test(test_same_text_at_1_2_and_3_threads),
        cmocka_unit_test(test_callback_sees_every_block_and_can_stop),
        cmocka_unit_test(test_text_ends_behind_the_end_of_text_token),
        cmocka_unit_test(test_one_generator_serves_many_texts_with_any_options),
        cmocka_unit_test(test_a_base_without_heads_generates_one_by_one),
        cmocka_unit_test(test_wrong_prompts_and_options_are_refused),
        cmocka_unit_test(test_running_out_of_memory_is_reported),
        cmocka_unit_test(test_calibration_sets_what_it_names),
        cmocka_unit_test(test_malformed_calibration_is_refused_and_changes_nothing),
        cmocka_unit_test(test_incomplete_utf8_is_held_back),
        cmocka_unit_test(test_invalid_bytes_become_replacement_characters),
    };
    return cmocka_run_group_tests_name("generate", tests, setup, teardown);
}
