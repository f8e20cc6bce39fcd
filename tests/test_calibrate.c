/* SPDX-License-Identifier: MIT */
/* Calibration: the rule on made-up texts, its guarantee where the true risks are known, and
 * reports. */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cal_report.h"
#include "eval/calibrate.h"
#include "eval/stats.h"
#include "src/base/file.h"
#include "src/base/rng.h"

/* ---- The rule on made-up texts --------------------------------------------------------------- */

enum { P = 100, M = 20, S = 2, EPS = 4 };

struct made_up {
    struct dm_cal_opt opt;
    struct dm_trial margins, test;
    struct dm_cal_report report;
};

static void trial_init(struct dm_trial *t, size_t settings, size_t prompts, size_t samples)
{
    *t = (struct dm_trial){
        .n_settings = settings, .prompts = prompts, .samples = samples, .tokens = 1};
    t->texts = calloc(settings * prompts * samples, sizeof(*t->texts));
    t->ids = calloc(settings * prompts * samples, sizeof(*t->ids));
    assert_true(t->texts && t->ids);
}

static struct dm_trial_text *text_at(const struct dm_trial *t, size_t setting, size_t prompt,
                                     size_t sample)
{
    return &t->texts[(setting * t->prompts + prompt) * t->samples + sample];
}

/* All settings are like the base, and smaller eps_b make more tokens per forward and are faster. */
static struct made_up *make_evidence(size_t n_unseen)
{
    static const double eps[EPS] = {0.8, 0.6, 0.4, 0.2};
    struct dm_err e;
    struct made_up *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    m->opt = dm_cal_opt_default();
    m->opt.prompts = P;
    m->opt.control_prompts = M;
    m->opt.samples = S;
    m->opt.n_eps = EPS;
    m->opt.n_unseen = n_unseen;
    memcpy(m->opt.eps, eps, sizeof(eps));
    for (size_t u = 0; u < n_unseen; u++)
        m->opt.unseen[u] = (enum dm_unseen)u;
    assert_ok(dm_cal_opt_check(&m->opt, &e), e);
    trial_init(&m->margins, 2, M, S);
    trial_init(&m->test, 2 + n_unseen * EPS, P, S);
    for (size_t i = 0; i < 2 * M * S; i++)
        m->margins.texts[i].value[DM_TRIAL_LOGP] = -3.0 - (double)(i % (M * S) % 3);
    for (size_t s = 0; s < m->test.n_settings; s++)
        for (size_t i = 0; i < P * S; i++) {
            struct dm_trial_text *t = &m->test.texts[s * P * S + i];
            const size_t step = s < 2 ? 0 : 1 + (s - 2) % EPS;
            t->value[DM_TRIAL_LOGP] = -3.0 - (double)(i % 3);
            t->value[DM_TRIAL_DIVERGENCE] = 0.02;
            t->stats = (struct dm_gen_stats){
                .tokens = 60, .forwards = 60 - 10 * step, .first = 1, .seconds = 1.0};
            t->stats.seconds = 1.0 / (1.0 + 0.1 * (double)step);
        }
    return m;
}

static void free_evidence(struct made_up *m)
{
    dm_trial_release(&m->margins);
    dm_trial_release(&m->test);
    dm_cal_report_release(&m->report);
    free(m);
}

/* `point` gets `by` more of a measure on the first n prompts, half of it in each sample's mean. */
static void spoil(struct made_up *m, size_t point, enum dm_trial_measure what, double by, size_t n)
{
    for (size_t p = 0; p < n; p++)
        for (size_t s = 0; s < S; s++)
            text_at(&m->test, 2 + point, p, s)->value[what] += by * (s ? 1.5 : 0.5);
}

static size_t decide(struct made_up *m)
{
    struct dm_err e;
    dm_cal_report_release(&m->report);
    assert_ok(dm_cal_decide(&m->report, &m->opt, &m->margins, &m->test, &e), e);
    return m->report.chosen;
}

static void test_the_fastest_certified_setting_is_chosen(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(1);
    assert_int_equal(decide(m), EPS - 1);   // nothing fails anywhere
    assert_int_equal(m->report.allowed, 1); // of 100 prompts at 0.05, 0.95
    spoil(m, 3, DM_TRIAL_DIVERGENCE, 1.0, 1);
    assert_int_equal(decide(m), 3);
    spoil(m, 3, DM_TRIAL_LOGP, -1.0, 2); // one prompt fails twice, which counts once
    assert_int_equal(decide(m), 2);
    const struct dm_cal_point *p = &m->report.points[3];
    assert_int_equal(p->test.failures, 2);
    assert_int_equal(p->failed_by[DM_CERT_DIVERGENCE], 1);
    assert_int_equal(p->failed_by[DM_CERT_LOGP], 2);
    assert_true(p->gen.eps_b == 0.2 && p->test.tested && !p->test.certified);
    assert_true(fabs(p->mean[DM_CERT_LOGP] - 0.02) < 1e-12);
    // By the clock the order is the same here, unless the fast one is slow.
    m->opt.wall_clock = true;
    for (size_t i = 0; i < P * S; i++)
        m->test.texts[(2 + 2) * P * S + i].stats.seconds = 5.0;
    assert_int_equal(decide(m), 1);
    free_evidence(m);
}

static void test_testing_stops_at_the_first_failure(void **state)
{
    (void)state;
    char text[768];
    struct made_up *m = make_evidence(1);
    spoil(m, 1, DM_TRIAL_REPEATS_4, 0.5, 3); // 0.6 fails; 0.4 and 0.2 would pass
    assert_int_equal(decide(m), 0);
    assert_false(m->report.points[2].test.tested || m->report.points[3].test.tested);
    assert_int_equal(m->report.points[1].failed_by[DM_CERT_REPEATS], 3);
    spoil(m, 0, DM_TRIAL_REPEATS_4, 0.5, 7);
    assert_int_equal(decide(m), m->report.n_points);
    dm_cal_sentence(&m->report, text, sizeof(text));
    assert_non_null(strstr(text, "infeasible: of the safest setting, eps_b 0.8, unseen zero, 7 of "
                                 "100 prompts fail (divergence 0, log-likelihood 0, repetition 7), "
                                 "at most 1 may"));
    free_evidence(m);
}

static void test_margins_are_the_controls_quantile_and_the_slack(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(1);
    // The control's losses are 0.1, 0.2 .. 2.0 nats, its divergences 0.01 .. 0.2 and rises 0.
    for (size_t p = 0; p < M; p++)
        for (size_t s = 0; s < S; s++) {
            text_at(&m->margins, 0, p, s)->value[DM_TRIAL_LOGP] = -2.0;
            text_at(&m->margins, 1, p, s)->value[DM_TRIAL_LOGP] = -2.0 - 0.1 * (double)(p + 1);
            text_at(&m->margins, 1, p, s)->value[DM_TRIAL_DIVERGENCE] = 0.01 * (double)(M - p);
        }
    m->opt.quantile = 0.9;
    decide(m);
    assert_true(fabs(m->report.quantile[DM_CERT_LOGP] - 1.8) < 1e-12);
    assert_true(fabs(m->report.margin[DM_CERT_LOGP] - 1.9) < 1e-12);
    assert_true(fabs(m->report.margin[DM_CERT_DIVERGENCE] - 0.38) < 1e-12);
    assert_true(m->report.margin[DM_CERT_REPEATS] == 0.05);
    m->opt.quantile = 1.0;
    decide(m);
    assert_true(fabs(m->report.quantile[DM_CERT_LOGP] - 2.0) < 1e-12);
    spoil(m, 2, DM_TRIAL_LOGP, -2.09, 50); // within the margin of 2.1
    spoil(m, 3, DM_TRIAL_LOGP, -2.11, 2);
    assert_int_equal(decide(m), 2);
    free_evidence(m);
}

static void test_sequences_share_the_risk_of_error(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(3);
    assert_int_equal(decide(m), EPS - 1); // the first of equals
    assert_int_equal(m->report.allowed, 0);
    spoil(m, 3, DM_TRIAL_DIVERGENCE, 1.0, 1);
    spoil(m, EPS + 2, DM_TRIAL_DIVERGENCE, 1.0, 1);
    assert_int_equal(decide(m), 2 * EPS + 3);
    assert_int_equal(m->report.points[m->report.chosen].gen.unseen, DM_UNSEEN_BACKOFF);
    assert_int_equal(m->report.points[2 * EPS].test.sequence, 2);
    free_evidence(m);
}

static void test_greedy_text_is_judged_without_divergence(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(1);
    for (size_t i = 0; i < m->margins.n_settings * M * S; i++)
        m->margins.texts[i].value[DM_TRIAL_DIVERGENCE] = (double)NAN;
    for (size_t i = 0; i < m->test.n_settings * P * S; i++)
        m->test.texts[i].value[DM_TRIAL_DIVERGENCE] = (double)NAN;
    assert_int_equal(decide(m), EPS - 1);
    assert_true(isnan(m->report.margin[DM_CERT_DIVERGENCE]));
    spoil(m, 3, DM_TRIAL_LOGP, -1.0, 2);
    assert_int_equal(decide(m), 2);
    free_evidence(m);
}

static void test_targets_choose_by_speed_and_by_divergence(void **state)
{
    (void)state;
    char text[768];
    struct made_up *m = make_evidence(1);
    for (size_t i = 0; i < EPS; i++)
        spoil(m, i, DM_TRIAL_DIVERGENCE, 0.1 * (double)(i + 1), P);
    m->opt.goal = DM_CAL_SPEEDUP;
    m->opt.target = 1.4; // 60/50 = 1.2, 1.5, 2, 3
    assert_int_equal(decide(m), 1);
    m->opt.target = 3.1;
    assert_int_equal(decide(m), EPS);
    dm_cal_sentence(&m->report, text, sizeof(text));
    assert_non_null(strstr(text, "no setting reaches 3.1 tokens per forward; the fastest has 3.0"));
    m->opt.goal = DM_CAL_QUALITY;
    m->opt.target = 0.33;
    assert_int_equal(decide(m), 2); // 0.02 + 0.3, without spread
    assert_true(fabs(m->report.points[2].bound - 0.32) < 1e-12);
    for (size_t p = 0; p < P; p++)
        for (size_t s = 0; s < S; s++) // the same mean, +-0.1 from prompt to prompt
            text_at(&m->test, 2 + 2, p, s)->value[DM_TRIAL_DIVERGENCE] += p % 2 ? 0.1 : -0.1;
    assert_int_equal(decide(m), 1);
    const double se = 0.1 * sqrt(P / (P - 1.0)) / 10.0;
    assert_true(fabs(m->report.points[2].bound - 0.32 - dm_t_quantile(0.95, P - 1) * se) < 1e-9);
    m->opt.target = 0.05;
    assert_int_equal(decide(m), EPS);
    dm_cal_sentence(&m->report, text, sizeof(text));
    assert_non_null(strstr(text, "the target is 0.05; the base's own is 0.02"));
    free_evidence(m);
}

/* Nothing certified is worth having when nothing is faster than the base. */
static void test_certified_but_slow_is_not_chosen(void **state)
{
    (void)state;
    char text[768];
    struct made_up *m = make_evidence(1);
    m->opt.wall_clock = true;
    for (size_t i = 2 * P * S; i < m->test.n_settings * P * S; i++)
        m->test.texts[i].stats.seconds = 2.0;
    assert_int_equal(decide(m), EPS);
    dm_cal_sentence(&m->report, text, sizeof(text));
    assert_non_null(strstr(text, "is faster than the base alone by the clock"));
    free_evidence(m);
}

/* ---- The guarantee --------------------------------------------------------------------------- */

/* The whole rule, margins included, 1,000 times. Losses are exponential: the control's with mean 1,
 * those of setting i with mean scale[i], so that given the margin m a prompt fails with probability
 * exp(-m / scale[i]). A repetition violates when the chosen setting's is above the risk. With three
 * standard errors of a share counted in 1,000 repetitions at most 5 % + 2.07 % may. */
static size_t violations(const double *scale, size_t n_unseen, uint64_t seed, size_t *found)
{
    size_t violated = 0;
    struct made_up *m = make_evidence(n_unseen);
    *found = 0;
    for (size_t i = 0; i < 2 * M * S; i++)
        m->margins.texts[i].value[DM_TRIAL_LOGP] = 0.0;
    for (size_t i = 0; i < m->test.n_settings * P * S; i++)
        m->test.texts[i].value[DM_TRIAL_LOGP] = 0.0;
    for (size_t r = 0; r < 1000; r++) {
        struct dm_rng rng;
        dm_rng_init(&rng, seed, r);
        for (size_t p = 0; p < M; p++)
            text_at(&m->margins, 1, p, 0)->value[DM_TRIAL_LOGP] = S *
                                                                  log(1.0 - dm_rng_uniform(&rng));
        for (size_t p = 0; p < P; p++) {
            const double loss = -log(1.0 - dm_rng_uniform(&rng));
            for (size_t i = 0; i < n_unseen * EPS; i++)
                text_at(&m->test, 2 + i, p, 0)->value[DM_TRIAL_LOGP] = -S * scale[i] * loss;
        }
        const size_t chosen = decide(m);
        if (chosen == m->report.n_points)
            continue;
        const double risk = exp(-m->report.margin[DM_CERT_LOGP] / scale[chosen]);
        violated += risk > m->opt.risk;
        ++*found;
    }
    free_evidence(m);
    return violated;
}

static void test_few_choices_are_riskier_than_stated(void **state)
{
    (void)state;
    enum { LIMIT = 70 };
    const double growing[3 * EPS] = {0.3, 0.6, 0.9, 1.2, 0.5, 0.8, 1.1, 1.4, 0.8, 1.1, 1.2, 2.0};
    double even[3 * EPS];
    size_t found;
    for (size_t i = 0; i < 3 * EPS; i++)
        even[i] = 1.0;
    assert_in_range(violations(growing, 1, 1, &found), 0, LIMIT);
    assert_true(found > 900); // and the rule is not empty
    assert_in_range(violations(growing, 3, 2, &found), 0, LIMIT);
    assert_true(found > 900);
    assert_in_range(violations(even, 1, 3, &found), 0, LIMIT);
    assert_in_range(violations(even, 3, 4, &found), 0, LIMIT);
}

/* The true risk lies just above the stated one whatever the margin turns out to be. */
static void test_a_risk_just_above_the_limit_is_rarely_certified(void **state)
{
    (void)state;
    size_t violated = 0;
    struct made_up *m = make_evidence(3);
    for (size_t r = 0; r < 1000; r++) {
        struct dm_rng rng;
        dm_rng_init(&rng, 77, r);
        for (size_t i = 0; i < 3 * EPS; i++)
            for (size_t p = 0; p < P; p++)
                text_at(&m->test, 2 + i, p, 0)->value[DM_TRIAL_REPEATS_4] =
                    dm_rng_uniform(&rng) < 0.0501 ? 1.0 : 0.0;
        violated += decide(m) < m->report.n_points;
    }
    assert_in_range(violated, 0, 70);
    free_evidence(m);
}

/* ---- Options and reports --------------------------------------------------------------------- */

static void test_options_are_checked_and_sorted(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_cal_opt o = dm_cal_opt_default(), bad;
    assert_ok(dm_cal_opt_check(&o, &e), e);
    assert_int_equal(o.n_eps, 10);
    assert_true(o.eps[0] == 0.9 && o.eps[9] == 0.35);
    o.eps[3] = o.eps[4];
    assert_ok(dm_cal_opt_check(&o, &e), e);
    assert_int_equal(o.n_eps, 9);
    bad = o;
    bad.eps[0] = 1.5;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
    bad = o;
    bad.confidence = (double)NAN;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
    bad = o;
    bad.alpha_c[0] = -1.0;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
    bad = o;
    bad.gen.penalty = 0.5;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
    bad = o;
    bad.prompts = 58;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "58 prompts cannot show a risk of 0.05 with confidence 0.95"));
    assert_non_null(strstr(e.msg, "takes 59"));
    bad.goal = DM_CAL_QUALITY; // which does not count failures
    assert_ok(dm_cal_opt_check(&bad, &e), e);
    bad.gen.temperature = 0.0;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "temperature"));
}

static void test_settings_are_all_combinations(void **state)
{
    (void)state;
    struct dm_cal_opt o = dm_cal_opt_default();
    size_t times[2][3][2][3] = {{{{0}}}};
    o.n_eps = 2;
    o.n_alpha_c = 3;
    o.n_unseen = 2;
    o.n_top_k = 3;
    memcpy(o.alpha_c, (double[]){1.0, 0.5, 0.0}, 3 * sizeof(double));
    memcpy(o.unseen, (enum dm_unseen[]){DM_UNSEEN_ZERO, DM_UNSEEN_MIX}, 2 * sizeof(enum dm_unseen));
    memcpy(o.top_k, (size_t[]){50, 20, 5}, 3 * sizeof(size_t));
    assert_int_equal(dm_cal_sequences(&o), 18);
    for (size_t i = 0; i < 36; i++) {
        const struct dm_gen_opt g = dm_cal_setting(&o, i);
        const size_t alpha = g.alpha_c == 1.0 ? 0 : g.alpha_c == 0.5 ? 1 : 2;
        const size_t k = g.top_k == 50 ? 0 : g.top_k == 20 ? 1 : 2;
        assert_true(g.eps_b == o.eps[i % 2]);
        times[i % 2][alpha][g.unseen == DM_UNSEEN_MIX][k]++;
    }
    for (size_t i = 0; i < 36; i++)
        assert_int_equal((&times[0][0][0][0])[i], 1);
}

static const struct dm_cal_inputs inputs = {
    .path = {"m.h5", "cooc.h5", "d.h5", NULL},
    .hash = {"1111111111111111111111111111111111111111111111111111111111111111",
             "2222222222222222222222222222222222222222222222222222222222222222",
             "3333333333333333333333333333333333333333333333333333333333333333", ""},
    .format = "bf16",
    .threads = 2};

static void test_the_stored_calibration_is_what_generate_reads(void **state)
{
    (void)state;
    struct dm_err e;
    struct made_up *m = make_evidence(1);
    struct dm_gen_opt g = dm_gen_opt_default();
    struct dm_certificate c;
    bool found;
    spoil(m, 3, DM_TRIAL_LOGP, -1.0, 2);
    spoil(m, 2, DM_TRIAL_LOGP, -1.0, 1);
    decide(m);
    json_t *root = dm_cal_to_json(&m->report, &inputs);
    char *text = json_dumps(root, JSON_REAL_PRECISION(9));
    assert_string_equal(json_string_value(json_object_get(root, "command")), "calibrate");
    assert_ok(dm_gen_opt_calibrated(&g, text, "m.h5", &e), e);
    assert_true(g.eps_b == 0.4);
    assert_ok(dm_certificate_from_text(&c, &found, text, "m.h5", &e), e);
    assert_true(found && c.failures == 1 && c.prompts == P && c.sequences == 1);
    assert_string_equal(c.table, inputs.hash[DM_CAL_TABLE]);
    assert_string_equal(c.format, "bf16");
    assert_true(c.per_forward == 2.0 && fabs(c.margin[DM_CERT_LOGP] - 0.1) < 1e-9);
    dm_certificate_release(&c);
    const json_t *evidence = json_object_get(root, "evidence");
    assert_int_equal(json_integer_value(json_object_get(evidence, "chosen_point")), 2);
    assert_int_equal(json_array_size(json_object_get(evidence, "points")), EPS);
    const json_t *p = json_array_get(json_object_get(evidence, "points"), 3);
    assert_string_equal(json_string_value(json_object_get(p, "verdict")), "fails");
    assert_int_equal(json_integer_value(json_object_get(p, "failures")), 2);
    assert_true(json_number_value(json_object_get(p, "tokens_per_forward")) == 3.0);
    free(text);
    json_decref(root);
    spoil(m, 0, DM_TRIAL_LOGP, -9.0, P);
    decide(m);
    root = dm_cal_to_json(&m->report, &inputs);
    assert_true(json_number_value(json_object_get(root, "eps_b")) == 1.0);
    assert_true(json_is_null(json_object_get(root, "certificate")));
    assert_true(json_is_false(json_object_get(json_object_get(root, "evidence"), "chosen")));
    json_decref(root);
    free_evidence(m);
}

static void test_table_and_plot_show_every_setting(void **state)
{
    (void)state;
    struct dm_err e;
    struct made_up *m = make_evidence(1);
    char *text = NULL, *svg, sentence[768];
    size_t n, lines = 0, circles = 0, tabs = 0;
    decide(m);
    FILE *f = open_memstream(&text, &n);
    dm_cal_print_table(&m->report, f);
    fclose(f);
    for (const char *c = text; (c = strchr(c, '\n')); c++)
        lines++;
    for (const char *c = text; (c = strchr(c, '\t')); c++)
        tabs++;
    assert_int_equal(lines, EPS + 3);
    assert_int_equal(tabs, 27 * lines);
    assert_non_null(strstr(text, "\tchosen\n"));
    dm_cal_sentence(&m->report, sentence, sizeof(sentence));
    assert_non_null(strstr(sentence, "certified: eps_b 0.2, unseen zero: with confidence 0.95 at "
                                     "most 5 % of prompts fail (0 of 100 did"));
    const char *path = tmp_path("plot.svg");
    assert_ok(dm_cal_write_svg(&m->report, path, &e), e);
    assert_ok(dm_file_read(path, 1 << 20, &svg, &n, &e), e);
    for (const char *c = svg; (c = strstr(c, "<circle")); c++)
        circles++;
    assert_int_equal(circles, 4 * EPS); // in every panel
    assert_null(strstr(svg, "nan"));
    assert_int_equal(dm_cal_write_svg(&m->report, "/nonexistent/p.svg", &e), DM_EIO);
    free(svg);
    free(text);
    free_evidence(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_fastest_certified_setting_is_chosen),
        cmocka_unit_test(test_testing_stops_at_the_first_failure),
        cmocka_unit_test(test_margins_are_the_controls_quantile_and_the_slack),
        cmocka_unit_test(test_sequences_share_the_risk_of_error),
        cmocka_unit_test(test_greedy_text_is_judged_without_divergence),
        cmocka_unit_test(test_targets_choose_by_speed_and_by_divergence),
        cmocka_unit_test(test_certified_but_slow_is_not_chosen),
        cmocka_unit_test(test_few_choices_are_riskier_than_stated),
        cmocka_unit_test(test_a_risk_just_above_the_limit_is_rarely_certified),
        cmocka_unit_test(test_options_are_checked_and_sorted),
        cmocka_unit_test(test_settings_are_all_combinations),
        cmocka_unit_test(test_the_stored_calibration_is_what_generate_reads),
        cmocka_unit_test(test_table_and_plot_show_every_setting),
    };
    return cmocka_run_group_tests_name("calibrate", tests, NULL, NULL);
}
