/* SPDX-License-Identifier: MIT */
/* Win rates, the line and its intervals on trials made by hand; prompts from files. */
#include "eval/quality.h"

#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/prompts.h"
#include "src/base/arena.h"
#include "src/base/rng.h"

enum { SETTINGS = 4, PROMPTS = 40, SAMPLES = 2, TOKENS = 12, TEXTS = PROMPTS * SAMPLES };

struct made {
    struct dm_trial t;
    struct dm_trial_text texts[SETTINGS * TEXTS];
    int32_t ids[SETTINGS * TEXTS * TOKENS];
};

static struct dm_trial_text *text(struct made *m, size_t setting, size_t i)
{
    return &m->texts[setting * TEXTS + i];
}

/* Setting s takes TOKENS / (s + 1) passes and its tokens (s + 1) / 2 of the base's time; the base
 * scores -2. */
static struct made *make(size_t n_settings)
{
    struct made *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    m->t = (struct dm_trial){.n_settings = n_settings,
                             .prompts = PROMPTS,
                             .samples = SAMPLES,
                             .tokens = TOKENS,
                             .texts = m->texts,
                             .ids = m->ids};
    for (size_t s = 0; s < SETTINGS; s++)
        for (size_t i = 0; i < TEXTS; i++) {
            struct dm_trial_text *x = text(m, s, i);
            x->value[DM_TRIAL_LOGP] = -2;
            x->value[DM_TRIAL_REPEATS_3] = 0.1 * (double)s;
            x->stats.tokens = TOKENS;
            x->stats.forwards = TOKENS / (s + 1);
            x->stats.blocks[s < 3 ? s + 1 : 3] = 1;
            x->stats.first = s + 1;
            x->stats.seconds = (double)(TOKENS - x->stats.first) * (s ? 0.5 * (double)(s + 1) : 1);
            for (size_t k = 0; k < TOKENS; k++)
                m->ids[(s * TEXTS + i) * TOKENS + k] = (int32_t)(i * TOKENS + k % (4 + s));
        }
    return m;
}

/* The setting wins its first `wins` texts and loses the next ones, ties the rest. */
static void set_wins(struct made *m, size_t setting, size_t wins, size_t losses)
{
    for (size_t i = 0; i < TEXTS; i++)
        text(m, setting, i)->value[DM_TRIAL_LOGP] = i < wins            ? -1.5
                                                    : i < wins + losses ? -2.25
                                                                        : -2;
}

static const struct dm_quality_opt few = {SETTINGS - 1, 200, 0.9, 1};

static void test_measures_by_hand(void **state)
{
    (void)state;
    struct made *m = make(2);
    struct dm_quality_point p[2];
    struct dm_err e;
    set_wins(m, 1, 30, 20);
    assert_ok(dm_quality_make(p, NULL, &m->t, &few, &e), e);
    assert_int_equal(p[1].wins, 30);
    assert_int_equal(p[1].losses, 20);
    assert_int_equal(p[1].ties, 30);
    assert_int_equal(p[0].ties, TEXTS);
    assert_near(p[0].value[DM_QUALITY_WIN_RATE].value, 1, 0);
    assert_near(p[1].value[DM_QUALITY_WIN_RATE].value, 45.0 / 35, 1e-12);
    assert_near(p[1].value[DM_QUALITY_PER_FORWARD].value, 2, 0);
    assert_near(p[1].value[DM_QUALITY_RATE].value, 1, 1e-12);
    assert_near(p[1].value[DM_QUALITY_WALL].value, 1, 1e-12);
    assert_near(p[1].value[DM_QUALITY_JUDGE].value, (-1.5 * 30 - 2.25 * 20 - 2 * 30) / TEXTS, 1e-9);
    assert_near(p[1].value[DM_QUALITY_REPEATS_3].value, 0.1, 1e-12);
    assert_near(p[1].value[DM_QUALITY_DISTINCT_1].value, 5.0 / TOKENS, 1e-12);
    assert_near(p[1].share[1], 1, 0);
    assert_true(isnan(p[1].value[DM_QUALITY_DISTINCT_1].low));
    // what all prompts agree in has no width
    assert_near(p[1].value[DM_QUALITY_PER_FORWARD].low, 2, 0);
    assert_near(p[1].value[DM_QUALITY_PER_FORWARD].high, 2, 0);
    set_wins(m, 1, TEXTS, 0);
    assert_ok(dm_quality_make(p, NULL, &m->t, &few, &e), e);
    assert_true(isinf(p[1].value[DM_QUALITY_WIN_RATE].value));
    assert_true(isinf(p[1].value[DM_QUALITY_WIN_RATE].high));
    json_t *root = dm_quality_point_to_json(&p[1]);
    assert_true(json_is_null(json_object_get(json_object_get(root, "win_rate"), "value")));
    assert_near(
        json_real_value(json_object_get(json_object_get(root, "tokens_per_forward"), "value")), 2,
        0);
    json_decref(root);
    free(m);
}

/* The least-squares line in another form: normal equations. */
static void test_line_is_that_of_least_squares(void **state)
{
    (void)state;
    struct made *m = make(SETTINGS);
    struct dm_quality_point p[SETTINGS];
    struct dm_quality_fit f[2];
    struct dm_err e;
    const size_t wins[SETTINGS] = {0, 50, 40, 20}, losses[SETTINGS] = {0, 20, 30, 60};
    double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (size_t s = 1; s < SETTINGS; s++) {
        const double x = (double)(s + 1), ties = (double)(TEXTS - wins[s] - losses[s]),
                     y = log(((double)wins[s] + ties / 2 + 0.5) /
                             ((double)losses[s] + ties / 2 + 0.5));
        set_wins(m, s, wins[s], losses[s]);
        n++;
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
    }
    const double slope = (n * sxy - sx * sy) / (n * sxx - sx * sx),
                 intercept = (sy - slope * sx) / n, root = -intercept / slope;
    assert_ok(dm_quality_make(p, f, &m->t, &few, &e), e);
    assert_near(f[0].slope, slope, 1e-9);
    assert_near(f[0].intercept, intercept, 1e-9);
    assert_true(root > 2 && root < 4);
    assert_near(f[0].speedup.value, root, 1e-9);
    assert_true(f[0].speedup.low <= root && root <= f[0].speedup.high);
    assert_true(f[0].speedup.low < f[0].speedup.high);
    // between settings 2 (3 per forward) and 3 (4), or 1 and 2
    assert_near(f[0].at[DM_QUALITY_PER_FORWARD], root, 1e-9);
    assert_near(f[0].at[DM_QUALITY_REPEATS_3], 0.1 * (root - 1), 1e-9);
    // by the clock nothing is faster than the base
    assert_near(f[1].speedup.value, 1, 0);
    json_t *json = dm_quality_fit_to_json(&f[0]);
    assert_near(json_real_value(json_object_get(json, "slope")), slope, 1e-9);
    json_decref(json);
    free(m);
}

static void test_a_control_is_not_on_the_line(void **state)
{
    (void)state;
    struct made *m = make(SETTINGS);
    struct dm_quality_point p[SETTINGS];
    struct dm_quality_fit with[2], without[2];
    struct dm_err e;
    const struct dm_quality_opt two = {2, 50, 0.9, 1};
    set_wins(m, 1, 50, 20);
    set_wins(m, 2, 30, 45);
    set_wins(m, 3, 79, 1);
    assert_ok(dm_quality_make(p, with, &m->t, &two, &e), e);
    assert_near(p[3].value[DM_QUALITY_WIN_RATE].value, 79, 0);
    m->t.n_settings = 3;
    assert_ok(dm_quality_make(p, without, &m->t, &two, &e), e);
    assert_true(with[0].slope == without[0].slope);
    assert_true(with[0].speedup.low == without[0].speedup.low);
    free(m);
}

static double answer(size_t wins, size_t losses)
{
    struct made *m = make(SETTINGS);
    struct dm_quality_point p[SETTINGS];
    struct dm_quality_fit f[2];
    struct dm_err e;
    for (size_t s = 1; s < SETTINGS; s++)
        set_wins(m, s, wins + s * (wins > losses), losses + s * (losses > wins));
    assert_ok(dm_quality_make(p, f, &m->t, &few, &e), e);
    free(m);
    return f[0].speedup.value;
}

static void test_answer_stays_within_what_was_measured(void **state)
{
    (void)state;
    assert_near(answer(60, 5), 4, 0); // better everywhere: the fastest
    assert_near(answer(5, 60), 1, 0); // worse everywhere: none
    struct made *m = make(2);
    struct dm_quality_point p[2];
    struct dm_quality_fit f[2];
    struct dm_err e;
    const struct dm_quality_opt one = {1, 50, 0.9, 1};
    assert_ok(dm_quality_make(p, f, &m->t, &one, &e), e); // one setting is no line
    assert_true(isnan(f[0].speedup.value) && isnan(f[0].speedup.low));
    free(m);
}

/* The mean of independent prompts: its interval is the normal one. */
static void test_intervals_are_those_of_a_mean_and_follow_the_seed(void **state)
{
    (void)state;
    struct made *m = make(2);
    struct dm_quality_point p[2], again[2], other[2];
    struct dm_quality_opt o = {1, 4000, 0.9, 5};
    struct dm_rng rng;
    struct dm_err e;
    double mean = 0, square = 0;
    dm_rng_init(&rng, 2, 0);
    for (size_t i = 0; i < PROMPTS; i++) {
        const double x = dm_rng_normal(&rng);
        mean += x / PROMPTS;
        square += x * x / PROMPTS;
        for (size_t s = 0; s < SAMPLES; s++) // samples of a prompt are alike: they stay together
            text(m, 1, i * SAMPLES + s)->value[DM_TRIAL_LOGP] = x;
    }
    const double se = sqrt((square - mean * mean) / PROMPTS);
    assert_ok(dm_quality_make(p, NULL, &m->t, &o, &e), e);
    const struct dm_interval *judge = &p[1].value[DM_QUALITY_JUDGE];
    assert_near(judge->value, mean, 1e-9);
    assert_near(judge->low, mean - 1.645 * se, 0.1 * se);
    assert_near(judge->high, mean + 1.645 * se, 0.1 * se);
    assert_ok(dm_quality_make(again, NULL, &m->t, &o, &e), e);
    assert_true(again[1].value[DM_QUALITY_JUDGE].low == judge->low);
    o.seed = 6;
    assert_ok(dm_quality_make(other, NULL, &m->t, &o, &e), e);
    assert_true(other[1].value[DM_QUALITY_JUDGE].low != judge->low);
    free(m);
}

static void test_options_and_memory(void **state)
{
    (void)state;
    struct made *m = make(2);
    struct dm_quality_point p[2];
    struct dm_quality_opt o = {1, 0, 0.9, 1};
    struct dm_err e;
    assert_int_equal(dm_quality_make(p, NULL, &m->t, &o, &e), DM_ERANGE);
    o = (struct dm_quality_opt){1, 10, 1, 1};
    assert_int_equal(dm_quality_make(p, NULL, &m->t, &o, &e), DM_ERANGE);
    o.confidence = 0.9;
    o.n_line = 2;
    struct dm_quality_fit f[2];
    assert_int_equal(dm_quality_make(p, f, &m->t, &o, &e), DM_ERANGE);
    for (size_t n = 1, left = 0; !left; n++) {
        dm_alloc_fail_at(n);
        const enum dm_status st = dm_quality_make(p, NULL, &m->t, &o, &e);
        left = dm_alloc_fail_at(0);
        assert_int_equal(st, left ? DM_OK : DM_ENOMEM);
    }
    free(m);
}

/* ---- Prompts --------------------------------------------------------------------------------- */

static struct dm_tokenizer *tokenizer(void)
{
    struct dm_tokenizer *t;
    struct dm_err e;
    assert_ok(dm_tokenizer_load(&t, "tests/golden/tok_small.json", &e), e);
    return t;
}

static const char *file(const char *name, const char *content)
{
    const char *path = tmp_path(name);
    write_scratch(path, content, strlen(content));
    return path;
}

/* Prompt i is the ids of the text. */
static void assert_prompt(const struct dm_prompts *p, size_t i, const struct dm_tokenizer *t,
                          const char *want)
{
    struct dm_ids ids = {0};
    struct dm_err e;
    assert_ok(dm_tokenizer_encode(t, want, strlen(want), &ids, &e), e);
    assert_int_equal(p->start[i + 1] - p->start[i], ids.n);
    assert_memory_equal(p->ids.id + p->start[i], ids.id, ids.n * sizeof(*ids.id));
    dm_ids_release(&ids);
}

static void test_prompts_of_lines_and_of_objects(void **state)
{
    (void)state;
    struct dm_tokenizer *t = tokenizer();
    struct dm_prompts p = {0};
    struct dm_err e;
    assert_ok(dm_prompts_load(&p, file("lines.txt", "In the \n\n  \r\nAnd the king\r\nWho"), t, &e),
              e);
    assert_int_equal(p.n, 3);
    assert_int_equal(p.n_kinds, 0);
    assert_prompt(&p, 0, t, "In the ");
    assert_prompt(&p, 1, t, "And the king");
    assert_prompt(&p, 2, t, "Who");
    assert_ok(dm_prompts_load(&p,
                              file("objects.jsonl", "{\"text\": \"one\", \"kind\": \"a\"}\n"
                                                    "{\"text\": \"two\", \"kind\": \"b\"}\n"
                                                    "{\"text\": \"three\", \"kind\": \"a\"}\n"
                                                    "{\"text\": \"four\"}\n"),
                              t, &e),
              e);
    assert_int_equal(p.n, 7);
    assert_prompt(&p, 6, t, "four");
    assert_int_equal(p.kind[0].n, 2);
    json_t *json = dm_prompts_to_json(&p, "here");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "kinds"), "b")), 1);
    json_decref(json);
    dm_prompts_thin(&p, 8);
    assert_int_equal(p.n, 7);
    dm_prompts_thin(&p, 3); // 0, 2 and 4
    assert_int_equal(p.n, 3);
    assert_prompt(&p, 0, t, "In the ");
    assert_prompt(&p, 1, t, "Who");
    assert_prompt(&p, 2, t, "two");
    assert_int_equal(p.kind[0].n, 0);
    assert_int_equal(p.kind[1].n, 1);
    dm_prompts_release(&p);
    dm_tokenizer_free(t);
}

static void test_prompts_that_are_none(void **state)
{
    (void)state;
    struct dm_tokenizer *t = tokenizer();
    struct dm_prompts p = {0};
    struct dm_err e;
    char many[4096] = "";
    for (int i = 0; i <= DM_PROMPT_KINDS; i++)
        snprintf(many + strlen(many), sizeof(many) - strlen(many),
                 "{\"text\": \"x\", \"kind\": \"%d\"}\n", i);
    const struct {
        const char *name, *content, *says;
        enum dm_status st;
    } bad[] = {{"none.txt", "\n \n", "no prompt", DM_ERANGE},
               {"empty.jsonl", "{\"text\": \"\"}\n", "line 1: the prompt has no tokens", DM_ERANGE},
               {"key.jsonl", "{\"prompt\": \"x\"}\n", "line 1", DM_EFORMAT},
               {"many.jsonl", many, "more than 32 kinds", DM_ERANGE}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(dm_prompts_load(&p, file(bad[i].name, bad[i].content), t, &e), bad[i].st);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%s does not say %s", e.msg, bad[i].says);
        dm_prompts_release(&p);
    }
    assert_int_equal(dm_prompts_load(&p, "tests/golden/missing.txt", t, &e), DM_EIO);
    dm_prompts_release(&p);
    dm_tokenizer_free(t);
}

/* Ours: seven kinds, as many of each. */
static void test_our_prompts_have_the_seven_kinds(void **state)
{
    (void)state;
    static const char *const files[] = {"data/prompts/completion.jsonl",
                                        "data/prompts/bible.jsonl"};
    struct dm_tokenizer *t = tokenizer();
    struct dm_err e;
    for (size_t f = 0; f < 2; f++) {
        struct dm_prompts p = {0};
        assert_ok(dm_prompts_load(&p, files[f], t, &e), e);
        assert_int_equal(p.n, 42);
        assert_int_equal(p.n_kinds, 7);
        for (size_t k = 0; k < 7; k++)
            assert_int_equal(p.kind[k].n, 6);
        dm_prompts_release(&p);
    }
    dm_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measures_by_hand),
        cmocka_unit_test(test_line_is_that_of_least_squares),
        cmocka_unit_test(test_a_control_is_not_on_the_line),
        cmocka_unit_test(test_answer_stays_within_what_was_measured),
        cmocka_unit_test(test_intervals_are_those_of_a_mean_and_follow_the_seed),
        cmocka_unit_test(test_options_and_memory),
        cmocka_unit_test(test_prompts_of_lines_and_of_objects),
        cmocka_unit_test(test_prompts_that_are_none),
        cmocka_unit_test(test_our_prompts_have_the_seven_kinds),
    };
    return cmocka_run_group_tests_name("quality", tests, NULL, NULL);
}
