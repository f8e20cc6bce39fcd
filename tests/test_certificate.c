/* SPDX-License-Identifier: MIT */
/* Certificates: what is written is read back, what was changed is refused, what differs is named.
 */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/binomial.h"
#include "src/decode/certificate.h"

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define HASH_C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

static struct dm_gen_opt options(void)
{
    struct dm_gen_opt g = dm_gen_opt_default();
    g.eps_b = 0.6;
    return g;
}

static struct dm_certificate example(void)
{
    const struct dm_gen_opt g = options();
    return (struct dm_certificate){.program = "dynamo x",
                                   .model = HASH_A,
                                   .table = HASH_B,
                                   .data = HASH_C,
                                   .format = "f32",
                                   .settings = dm_gen_opt_to_json(&g),
                                   .prompts = 200,
                                   .failures = 4,
                                   .sequences = 1,
                                   .control_prompts = 100,
                                   .control_failures = 2,
                                   .prompt_tokens = 32,
                                   .tokens = 100,
                                   .samples = 2,
                                   .seed = 7,
                                   .risk = 0.05,
                                   .confidence = 0.95,
                                   .p_value = dm_binomial_cdf(4, 200, 0.05),
                                   .quantile = 0.99,
                                   .margin = {(double)NAN, 0.3, 0.1},
                                   .slack = {0.1, 0.1, 0.05},
                                   .per_forward = 1.38,
                                   .speedup = 0.62};
}

/* The calibration around a certificate, which is released; its text. */
static char *calibration(json_t *certificate)
{
    const struct dm_gen_opt g = options();
    json_t *root = dm_gen_opt_to_json(&g);
    json_object_set_new(root, "certificate", certificate);
    char *text = json_dumps(root, JSON_REAL_PRECISION(9));
    json_decref(root);
    return text;
}

static void test_what_is_written_is_read_back(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_certificate c = example(), got;
    bool found;
    char *text = calibration(dm_certificate_to_json(&c)), sentence[512];
    assert_ok(dm_certificate_from_text(&got, &found, text, "m.h5", &e), e);
    assert_true(found);
    assert_string_equal(got.model, HASH_A);
    assert_string_equal(got.table, HASH_B);
    assert_string_equal(got.data, HASH_C);
    assert_string_equal(got.judge, "");
    assert_string_equal(got.program, "dynamo x");
    assert_true(got.prompts == 200 && got.failures == 4 && got.seed == 7 && got.tokens == 100);
    assert_true(fabs(got.p_value / c.p_value - 1.0) < 1e-8 && got.per_forward == 1.38);
    assert_true(isnan(got.margin[0]) && got.margin[1] == 0.3 && got.slack[2] == 0.05);
    assert_true(json_equal(got.settings, c.settings));
    dm_certificate_sentence(&got, sentence, sizeof(sentence));
    assert_non_null(strstr(sentence, "confidence 0.95: at most 5 % of prompts fail (4 of 200 did"));
    // Written again it has the same seal, though numbers lost digits.
    json_t *again = dm_certificate_to_json(&got), *first = dm_certificate_to_json(&c);
    assert_string_equal(json_string_value(json_object_get(again, "sha256")),
                        json_string_value(json_object_get(first, "sha256")));
    json_decref(again);
    json_decref(first);
    dm_certificate_release(&c);
    dm_certificate_release(&got);
    free(text);
}

static void test_no_certificate_is_fine(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_certificate c;
    bool found = true;
    assert_ok(dm_certificate_from_text(&c, &found, "{\"eps_b\": 0.5}", "m.h5", &e), e);
    assert_false(found);
    assert_ok(dm_certificate_from_text(&c, &found, "{\"certificate\": null}", "m.h5", &e), e);
    assert_false(found);
    dm_certificate_release(&c);
}

/* Replaces the first `from` in the stored text by `to`; the status with which it is read. */
static enum dm_status tampered(const char *from, const char *to, struct dm_err *e)
{
    struct dm_certificate c = example(), got;
    bool found;
    char *text = calibration(dm_certificate_to_json(&c)), other[4096];
    const char *at = strstr(text, from);
    assert_non_null(at);
    snprintf(other, sizeof(other), "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    const enum dm_status st = dm_certificate_from_text(&got, &found, other, "m.h5", e);
    dm_certificate_release(&got);
    dm_certificate_release(&c);
    free(text);
    return st;
}

static void test_what_was_changed_is_refused(void **state)
{
    (void)state;
    struct dm_err e;
    const struct {
        const char *from, *to, *says;
        enum dm_status st;
    } cases[] = {
        {"\"failures\": 4", "\"failures\": 1", "changed after it was made", DM_EMISMATCH},
        {"\"risk\": 0.05", "\"risk\": 0.01", "changed after it was made", DM_EMISMATCH},
        {HASH_B, HASH_A, "changed after it was made", DM_EMISMATCH},
        {"\"logp\": 0.3", "\"logp\": 3", "changed after it was made", DM_EMISMATCH},
        {"\"version\": 1", "\"version\": 2", "version 2", DM_EUNSUPPORTED},
        {"\"version\": 1", "\"version\": 0", "\"version\" is 0", DM_ERANGE},
        {"\"prompts\": 200", "\"prompts\": -3", "\"prompts\" is -3", DM_ERANGE},
        {"\"prompts\": 200", "\"prompts\": \"x\"", "\"prompts\" is string", DM_EFORMAT},
        {"\"p_value\"", "\"q_value\"", "key \"p_value\" is missing", DM_EFORMAT},
        {"\"sha256\"", "\"sha255\"", "key \"sha256\" is missing", DM_EFORMAT},
        {HASH_A, "aa", "\"model\" has 2 bytes", DM_EFORMAT},
        {"\"dynamo x\"", "\"a name that is far too long for a program of ours\"", "\"program\" has",
         DM_EFORMAT},
        {"\"margin\": {", "\"margin\": 3, \"m\": {", "\"margin\" is integer", DM_EFORMAT},
        {"\"settings\": {", "\"settings\": 3, \"m\": {", "\"settings\" is integer", DM_EFORMAT},
        {"\"eps_b\": 0.6", "\"eps_b\": 0.2", "\"eps_b\" is not that of the calibration",
         DM_EMISMATCH}, // the first one stands beside the certificate
        {"\"certificate\": {", "\"certificate\": 7, \"c\": {", "found integer", DM_EFORMAT}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(tampered(cases[i].from, cases[i].to, &e), cases[i].st);
        if (!strstr(e.msg, cases[i].says) || !strstr(e.msg, "m.h5: certificate"))
            fail_msg("\"%s\" does not say \"%s\"", e.msg, cases[i].says);
    }
}

/* A new seal does not help: the numbers must follow from each other. */
static void test_numbers_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_certificate got;
    bool found;
    for (size_t i = 0; i < 5; i++) {
        struct dm_certificate c = example();
        const char *says = "not what a calibration can have found";
        if (i == 0) {
            c.p_value = 0.001;
            says = "but 4 failures of 200 prompts give";
        } else if (i == 1) { // enough for 0.95, not for 0.99
            c.confidence = 0.99;
            says = "does not give the confidence 0.99";
        } else if (i == 2) {
            c.sequences = 3;
            says = "which needs 0.0166";
        } else if (i == 3) {
            c.risk = 1.5;
        } else {
            c.failures = 201;
        }
        char *text = calibration(dm_certificate_to_json(&c));
        assert_true(dm_certificate_from_text(&got, &found, text, "m.h5", &e) < 0);
        if (!strstr(e.msg, says))
            fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
        dm_certificate_release(&got);
        dm_certificate_release(&c);
        free(text);
    }
}

static void test_every_difference_is_named(void **state)
{
    (void)state;
    struct dm_certificate c = example();
    struct dm_gen_opt g = options();
    struct dm_certificate_use use = {.model = HASH_A, .table = HASH_B, .format = "f32", .gen = &g};
    json_t *list = dm_certificate_differences(&c, &use);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
    use.model = HASH_C;
    use.table = "";
    use.format = "int8";
    g.eps_b = 0.3;
    g.unseen = DM_UNSEEN_ZERO;
    g.blur = false;
    g.max_tokens = 101;
    const char *want[] = {"the weights are other ones",
                          "the format is int8, certified: f32",
                          "there is no co-occurrence table, certified: with one",
                          "eps_b is 0.3, certified: 0.6",
                          "unseen is zero, certified: backoff",
                          "blur is off, certified: on",
                          "the text may get 101 tokens, certified: 100"};
    list = dm_certificate_differences(&c, &use);
    assert_int_equal(json_array_size(list), 7);
    for (size_t i = 0; i < 7; i++)
        assert_string_equal(json_string_value(json_array_get(list, i)), want[i]);
    json_decref(list);
    use.table = HASH_A;
    list = dm_certificate_differences(&c, &use);
    assert_string_equal(json_string_value(json_array_get(list, 2)),
                        "the co-occurrence table is another one, certified: with one");
    json_decref(list);
    // An option that the certificate does not know is a difference, too.
    json_object_del(c.settings, "lambda");
    list = dm_certificate_differences(&c, &use);
    assert_int_equal(json_array_size(list), 8);
    json_decref(list);
    dm_certificate_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read_back),
        cmocka_unit_test(test_no_certificate_is_fine),
        cmocka_unit_test(test_what_was_changed_is_refused),
        cmocka_unit_test(test_numbers_that_cannot_be_are_refused),
        cmocka_unit_test(test_every_difference_is_named),
    };
    return cmocka_run_group_tests_name("certificate", tests, NULL, NULL);
}
