/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/json.h"
#include "src/model/params.h"

/* The least that a config.json needs, with room for one more member. */
#define PLAIN                                                              \
    "\"vocab_size\": 100, \"hidden_size\": 64, \"num_hidden_layers\": 3, " \
    "\"num_attention_heads\": 4, "                                         \
    "\"intermediate_size\": 128, \"max_position_embeddings\": 32"

static enum dm_status parse(struct dm_config *c, const char *text, struct dm_err *e)
{
    json_t *root;
    DM_TRY(dm_json_parse(text, strlen(text), "config.json", &root, e));
    const enum dm_status st = dm_config_from_json(c, root, "config.json", e);
    json_decref(root);
    return st;
}

static void test_published_sizes_have_the_published_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t n;
        double overhead; // percent of 3 heads, 0: not published
    } want[] = {{"14m", 14067712, 0.0},     {"31m", 30494720, 0.0},     {"70m", 70426624, 8.95},
                {"160m", 162322944, 8.73},  {"410m", 405334016, 6.22},  {"1b", 1011781632, 9.95},
                {"1.4b", 1414647808, 7.12}, {"2.8b", 2775208960, 5.67}, {"6.9b", 6857302016, 5.87},
                {"12b", 11846072320, 0.0}};
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        struct dm_config c;
        struct dm_err e;
        assert_ok(dm_config_named(&c, want[i].name, &e), e);
        assert_int_equal(dm_params_count(&c, DM_SCOPE_BASE), want[i].n);
        assert_int_equal(dm_params_count(&c, DM_SCOPE_HEADS), 0);
        c.K = 3;
        const double heads = (double)dm_params_count(&c, DM_SCOPE_HEADS);
        if (want[i].overhead > 0.0)
            assert_int_equal(lround(1e4 * heads / (double)want[i].n),
                             lround(100.0 * want[i].overhead));
    }
}

static void test_unknown_size_lists_the_known(void **state)
{
    (void)state;
    struct dm_config c;
    struct dm_err e;
    assert_int_equal(dm_config_named(&c, "7b", &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "\"7b\""));
    assert_non_null(strstr(e.msg, "1.4b"));
}

static void test_missing_keys_have_the_class_defaults(void **state)
{
    (void)state;
    struct dm_config c;
    struct dm_err e;
    assert_ok(parse(&c, "{" PLAIN "}", &e), e);
    assert_true(c.Vp == 100 && c.V == 100 && c.C == 64 && c.L == 3 && c.NH == 4 && c.HS == 16);
    assert_true(c.F == 128 && c.T_max == 32 && c.rot == 4 && c.rope_base == 10000.0);
    assert_true(c.eps == 1e-5f && c.parallel && c.attn_bias && c.K == 1 && c.D == 1);
    assert_true(c.eos == 2 && c.dtype == DM_F32 && !c.from_final);
}

static void test_aliases_mean_the_same(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{" PLAIN ", \"rotary_pct\": 0.5, \"rotary_emb_base\": 500, \"torch_dtype\": \"float16\"}",
        "{" PLAIN
        ", \"partial_rotary_factor\": 0.5, \"rope_theta\": 500.0, \"dtype\": \"float16\"}",
        "{" PLAIN ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500.0, "
        "\"partial_rotary_factor\": 0.5}, \"torch_dtype\": \"torch.float16\", "
        "\"rope_scaling\": null}",
        "{" PLAIN ", \"rotary_pct\": 0.5, \"partial_rotary_factor\": 0.5, \"rope_theta\": 500, "
        "\"rope_parameters\": null, \"dtype\": \"float16\", \"eos_token_id\": 2}"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct dm_config c;
        struct dm_err e;
        assert_ok(parse(&c, texts[i], &e), e);
        assert_true(c.rot == 8 && c.rope_base == 500.0 && c.dtype == DM_F16);
    }
}

static void test_json_comes_back_equal(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{" PLAIN "}",
        "{" PLAIN ", \"rotary_pct\": 0.9, \"layer_norm_eps\": 1e-6, \"eos_token_id\": null, "
        "\"use_parallel_residual\": false, \"attention_bias\": false, \"dtype\": \"bfloat16\", "
        "\"dynamo\": {\"heads\": 3, \"head_depth\": 2, \"head_input\": \"final\", "
        "\"n_vocab\": 77}}"};
    for (size_t i = 0; i < 2; i++) {
        struct dm_config c, back;
        struct dm_err e;
        memset(&c, 0, sizeof(c));
        memset(&back, 0, sizeof(back));
        assert_ok(parse(&c, texts[i], &e), e);
        json_t *root = dm_config_to_json(&c);
        assert_non_null(root);
        assert_ok(dm_config_from_json(&back, root, "back", &e), e);
        json_decref(root);
        assert_true(c.Vp == back.Vp && c.V == back.V && c.C == back.C && c.L == back.L);
        assert_true(c.NH == back.NH && c.HS == back.HS && c.F == back.F && c.T_max == back.T_max);
        assert_true(c.rot == back.rot && c.rope_base == back.rope_base && c.eps == back.eps);
        assert_true(c.parallel == back.parallel && c.attn_bias == back.attn_bias);
        assert_true(c.K == back.K && c.D == back.D && c.from_final == back.from_final);
        assert_true(c.eos == back.eos && c.dtype == back.dtype);
    }
}

static void test_what_is_not_implemented_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *more, *text;
        enum dm_status st;
    } cases[] = {
        {"\"rope_scaling\": {\"type\": \"linear\"}", "\"rope_scaling\"", DM_EUNSUPPORTED},
        {"\"hidden_act\": \"gelu_new\"", "\"hidden_act\" is \"gelu_new\"", DM_EUNSUPPORTED},
        {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\"", DM_EUNSUPPORTED},
        {"\"rope_parameters\": {\"rope_type\": \"yarn\"}", "\"yarn\"", DM_EUNSUPPORTED},
        {"\"rope_parameters\": 5", "\"rope_parameters\" is integer", DM_EFORMAT},
        {"\"model_type\": \"llama\"", "\"llama\"", DM_EUNSUPPORTED},
        {"\"torch_dtype\": \"float64\"", "\"float64\"", DM_EUNSUPPORTED},
        {"\"rotary_pct\": 0.5, \"partial_rotary_factor\": 0.25", "is 0.5, but", DM_EFORMAT},
        {"\"rotary_pct\": 1.5", "1.5, want 0..1", DM_ERANGE},
        {"\"rotary_pct\": 0.1875", "even", DM_ERANGE},
        {"\"rotary_emb_base\": -1", "rotary base", DM_ERANGE},
        {"\"rotary_emb_base\": \"x\"", "is string, want a number", DM_EFORMAT},
        {"\"layer_norm_eps\": 0", "layer_norm_eps", DM_ERANGE},
        {"\"eos_token_id\": 100", "eos_token_id is 100, want 0..99", DM_ERANGE},
        {"\"eos_token_id\": [0, 1]", "eos_token_id\" is array", DM_EFORMAT},
        {"\"attention_bias\": \"yes\"", "want true or false", DM_EFORMAT},
        {"\"dynamo\": []", "\"dynamo\" is array", DM_EFORMAT},
        {"\"dynamo\": {\"heads\": 99}", "\"heads\" is 99, want 1..16", DM_ERANGE},
        {"\"dynamo\": {\"n_vocab\": 101}", "\"n_vocab\" is 101, want 1..100", DM_ERANGE},
        {"\"dynamo\": {\"head_input\": \"middle\"}", "\"middle\"", DM_EFORMAT},
        {"\"vocab_size\": 5", "duplicate", DM_EFORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        struct dm_config c;
        struct dm_err e;
        snprintf(text, sizeof(text), "{" PLAIN ", %s}", cases[i].more);
        assert_int_equal(parse(&c, text, &e), cases[i].st);
        if (!strstr(e.msg, cases[i].text) || !strstr(e.msg, "config.json"))
            fail_msg("%s: %s", cases[i].more, e.msg);
    }
}

static void test_each_missing_or_wild_size_is_named(void **state)
{
    (void)state;
    static const char *const keys[] = {"vocab_size",        "hidden_size",
                                       "num_hidden_layers", "num_attention_heads",
                                       "intermediate_size", "max_position_embeddings"};
    static const char plain[] = "{" PLAIN "}";
    for (size_t i = 0; i < 6; i++)
        for (int wild = 0; wild < 3; wild++) {
            struct dm_config c;
            struct dm_err e;
            json_t *root;
            assert_ok(dm_json_parse(plain, strlen(plain), "p", &root, &e), e);
            if (wild == 0)
                json_object_del(root, keys[i]);
            else
                json_object_set_new(root, keys[i], json_integer(wild == 1 ? -4 : 1ll << 60));
            assert_int_equal(dm_config_from_json(&c, root, "p", &e), wild ? DM_ERANGE : DM_EFORMAT);
            assert_non_null(strstr(e.msg, keys[i]));
            json_decref(root);
        }
    struct dm_config c;
    struct dm_err e;
    assert_int_equal(parse(&c, "[]", &e), DM_EFORMAT);
    assert_int_equal(parse(&c, "{\"vocab_size\": 10", &e), DM_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_sizes_have_the_published_parameters),
        cmocka_unit_test(test_unknown_size_lists_the_known),
        cmocka_unit_test(test_missing_keys_have_the_class_defaults),
        cmocka_unit_test(test_aliases_mean_the_same),
        cmocka_unit_test(test_json_comes_back_equal),
        cmocka_unit_test(test_what_is_not_implemented_is_refused_by_name),
        cmocka_unit_test(test_each_missing_or_wild_size_is_named),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
