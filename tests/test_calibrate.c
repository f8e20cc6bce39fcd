/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cal_report.h"
#include "eval/calibrate.h"
#include "eval/stats.h"
#include "src/base/file.h"
#include "tests/tiny.h"

/* ---- Statistics ------------------------------------------------------------------------------ */

static void test_t_quantiles_are_the_published_ones(void **state)
{
    (void)state;
    const struct {
        double p;
        size_t df;
        double t;
    } table[] = {{0.95, 1, 6.313752},  {0.95, 2, 2.919986},   {0.975, 3, 3.182446},
                 {0.99, 30, 2.457262}, {0.95, 31, 1.695519},  {0.95, 1000, 1.646379},
                 {0.5, 7, 0.0},        {0.975, 10, 2.228139}, {0.99, 1, 31.820516}};
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_true(fabs(dm_t_quantile(table[i].p, table[i].df) - table[i].t) < 1e-6);
}

static void test_mean_error_and_median_by_hand(void **state)
{
    (void)state;
    double x[] = {4.0, 1.0, 2.0, 5.0};
    assert_true(dm_mean(x, 4) == 3.0);
    assert_true(fabs(dm_standard_error(x, 4) - sqrt(10.0 / 3.0 / 4.0)) < 1e-12);
    assert_true(isinf(dm_standard_error(x, 1)));
    assert_true(dm_median(x, 4) == 3.0);
    assert_true(dm_median(x, 3) == 2.0); // sorted by now: 1 2 4
    assert_true(isnan(dm_median(x, 0)) && isnan(dm_mean(x, 0)));
}

/* ---- The rule on made-up evidence ------------------------------------------------------------ */

enum { P = 4, S = 2, EPS = 5 };

struct made_up {
    struct dm_cal_opt opt;
    struct dm_cal_text texts[(1 + 3 * EPS) * P * S];
    struct dm_cal_report report;
};

/* All settings are like the base, and smaller eps_b make more tokens per forward. */
static struct made_up *make_evidence(size_t n_unseen)
{
    static const double eps[EPS] = {0.0, 0.25, 0.5, 0.75, 1.0};
    struct dm_err e;
    struct made_up *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    m->opt = dm_cal_opt_default();
    m->opt.prompts = P;
    m->opt.samples = S;
    m->opt.n_eps = EPS;
    m->opt.n_unseen = n_unseen;
    memcpy(m->opt.eps, eps, sizeof(eps));
    for (size_t u = 0; u < n_unseen; u++)
        m->opt.unseen[u] = (enum dm_unseen)u;
    assert_ok(dm_cal_opt_check(&m->opt, &e), e);
    for (size_t s = 0; s < 1 + n_unseen * EPS; s++)
        for (size_t i = 0; i < P * S; i++) {
            struct dm_cal_text *t = &m->texts[s * P * S + i];
            const size_t step = s ? (s - 1) % EPS : 0;
            t->logp = -3.0 - (double)(i % 3);
            t->repeats = 0.05;
            t->stats = (struct dm_gen_stats){
                .tokens = 60, .forwards = 60 - 10 * step, .first = 1, .seconds = 1.0};
            t->stats.blocks[1] = t->stats.forwards;
        }
    return m;
}

/* Setting `point` loses `loss` on average, `spread` up and down between the prompts. */
static void lose(struct made_up *m, size_t point, double loss, double spread)
{
    for (size_t i = 0; i < P * S; i++)
        m->texts[(point + 1) * P * S + i].logp -= i / S % 2 ? loss + spread : loss - spread;
}

static size_t decide(struct made_up *m)
{
    struct dm_err e;
    assert_ok(dm_cal_summarise(&m->report, &m->opt, m->texts, &e), e);
    return m->report.chosen;
}

static void test_the_fastest_passing_setting_is_chosen(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(1);
    assert_int_equal(decide(m), EPS - 1); // nothing is lost anywhere
    lose(m, 4, 0.2, 0.0);
    assert_int_equal(decide(m), 3);
    assert_true(m->report.points[3].eps_b == 0.25);
    assert_true(fabs(m->report.points[4].loss - 0.2) < 1e-12);
    assert_false(m->report.points[4].passes);
    lose(m, 3, -0.5, 0.0); // better than the base is fine
    assert_int_equal(decide(m), 3);
    lose(m, 3, 0.55, 0.0); // and a loss within the margin, too
    assert_int_equal(decide(m), 3);
    free(m);
}

static void test_testing_stops_at_the_first_failure(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(1);
    lose(m, 2, 0.3, 0.0); // 0.5 fails, so 0.25 and 0 are not considered though they would pass
    assert_int_equal(decide(m), 1);
    assert_true(m->report.points[3].passes && m->report.points[4].passes);
    lose(m, 1, 0.3, 0.0); // only eps_b = 1 is left, which is the base: none
    assert_int_equal(decide(m), m->report.n_points);
    free(m);
}

static void test_uncertain_losses_do_not_pass(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(1);
    lose(m, 4, 0.0, 0.2);
    assert_int_equal(decide(m), 3);
    const struct dm_cal_point *p = &m->report.points[4];
    // Prompts lose -0.2, 0.2, -0.2, 0.2: se = 0.2 * sqrt(4/3) / 2, t(0.95, 3) = 2.353363.
    assert_true(fabs(p->loss) < 1e-12);
    assert_true(fabs(p->loss_se - 0.1 * sqrt(4.0 / 3.0)) < 1e-12);
    assert_true(fabs(p->loss_bound - 2.353363 * p->loss_se) < 1e-6);
    free(m);
}

static void test_repetitive_text_does_not_pass_however_likely_it_is(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(1);
    lose(m, 4, -1.0, 0.0);
    for (size_t i = 0; i < P * S; i++)
        m->texts[5 * P * S + i].repeats = 0.3;
    assert_int_equal(decide(m), 3);
    assert_true(fabs(m->report.points[4].rise - 0.25) < 1e-12);
    free(m);
}

static void test_policies_share_the_risk_and_the_fastest_wins(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(3);
    lose(m, 3, 0.5, 0.0);           // zero ends at 0.5
    lose(m, EPS + 2, 0.5, 0.0);     // mix ends at 0.75
    lose(m, 2 * EPS + 4, 0.5, 0.0); // backoff ends at 0.25
    assert_int_equal(decide(m), 2 * EPS + 3);
    assert_int_equal(m->report.points[m->report.chosen].unseen, DM_UNSEEN_BACKOFF);
    lose(m, EPS, 0.0, 0.01);
    decide(m);
    const struct dm_cal_point *p = &m->report.points[EPS];
    assert_true(fabs(p->loss_bound / p->loss_se - dm_t_quantile(1.0 - 0.05 / 3.0, P - 1)) < 1e-6);
    free(m);
}

static void test_speedup_is_the_median_ratio_to_the_paired_base_text(void **state)
{
    (void)state;
    struct made_up *m = make_evidence(1);
    for (size_t i = 0; i < P * S; i++) {
        m->texts[i].stats.seconds = i < 4 ? 1.0 : 10.0; // a slow half of the run hits both alike
        m->texts[5 * P * S + i].stats.seconds = m->texts[i].stats.seconds / 2.0;
    }
    decide(m);
    assert_true(fabs(m->report.points[4].speedup - 2.0) < 1e-12);
    free(m);
}

static void test_options_are_checked_and_sorted(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_cal_opt o = dm_cal_opt_default(), bad;
    assert_ok(dm_cal_opt_check(&o, &e), e);
    assert_int_equal(o.n_eps, 11);
    assert_true(o.eps[0] == 1.0 && o.eps[10] == 0.0);
    o.eps[3] = o.eps[4];
    assert_ok(dm_cal_opt_check(&o, &e), e);
    assert_int_equal(o.n_eps, 10);
    bad = o;
    bad.eps[0] = 1.5;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
    bad = o;
    bad.prompts = 1;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
    bad = o;
    bad.confidence = (double)NAN;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
    bad = o;
    bad.gen.penalty = 0.5;
    assert_int_equal(dm_cal_opt_check(&bad, &e), DM_ERANGE);
}

/* ---- Reports --------------------------------------------------------------------------------- */

static void test_the_stored_calibration_is_what_generate_reads(void **state)
{
    (void)state;
    struct dm_err e;
    struct made_up *m = make_evidence(1);
    struct dm_gen_opt g = dm_gen_opt_default();
    lose(m, 4, 0.2, 0.0);
    decide(m);
    json_t *inputs = json_pack("{s:s}", "model", "m.h5"),
           *root = dm_cal_to_json(&m->report, inputs);
    char *text = json_dumps(root, 0);
    g.eps_b = 0.9;
    assert_ok(dm_gen_opt_calibrated(&g, text, "m.h5", &e), e);
    assert_true(g.eps_b == 0.25);
    const json_t *evidence = json_object_get(root, "evidence");
    assert_true(json_is_true(json_object_get(evidence, "chosen")));
    assert_int_equal(json_array_size(json_object_get(evidence, "points")), EPS);
    assert_string_equal(json_string_value(json_object_get(evidence, "model")), "m.h5");
    free(text);
    json_decref(root);
    for (size_t i = 0; i < EPS - 1; i++)
        lose(m, i + 1, 9.0, 0.0);
    decide(m);
    root = dm_cal_to_json(&m->report, inputs);
    assert_true(json_number_value(json_object_get(root, "eps_b")) == 1.0);
    assert_true(json_is_false(json_object_get(json_object_get(root, "evidence"), "chosen")));
    json_decref(root);
    json_decref(inputs);
    free(m);
}

static void test_table_and_plot_show_every_setting(void **state)
{
    (void)state;
    struct dm_err e;
    struct made_up *m = make_evidence(1);
    char *text = NULL, *svg, sentence[512];
    size_t n, lines = 0, circles = 0;
    decide(m);
    FILE *f = open_memstream(&text, &n);
    dm_cal_print_table(&m->report, f);
    fclose(f);
    for (const char *c = text; (c = strchr(c, '\n')); c++)
        lines++;
    assert_int_equal(lines, EPS + 2);
    assert_non_null(strstr(text, "\tchosen\n"));
    dm_cal_sentence(&m->report, sentence, sizeof(sentence));
    assert_non_null(strstr(sentence, "eps_b 0,"));
    const char *path = tmp_path("plot.svg");
    assert_ok(dm_cal_write_svg(&m->report, path, &e), e);
    assert_ok(dm_file_read(path, 1 << 20, &svg, &n, &e), e);
    for (const char *c = svg; (c = strstr(c, "<circle")); c++)
        circles++;
    assert_int_equal(circles, 2 * EPS); // in both panels
    assert_null(strstr(svg, "nan"));
    assert_int_equal(dm_cal_write_svg(&m->report, "/nonexistent/p.svg", &e), DM_EIO);
    free(svg);
    free(text);
    free(m);
}

/* ---- From a shard and a model ---------------------------------------------------------------- */

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
    struct dm_cal_opt o = dm_cal_opt_default();
    const int32_t ids[] = {1, 2, 0, 3, 4, 5, 6, 7, 8, 9, 0, 10, 11, 12, 13, 0};
    const int32_t want[] = {3, 4, 5};
    int32_t got[6];
    struct dm_shard *s = make_shard(ids, 16);
    o.prompts = 2;
    o.prompt_tokens = 3;
    assert_ok(dm_cal_prompts(got, &o, s, &e), e);
    // Parts [0,8) and [8,16): the second one starts inside a document.
    assert_memory_equal(got, want, 3 * sizeof(*got));
    assert_int_equal(got[3], 10);
    o.prompt_tokens = 6;
    int32_t more[12];
    assert_int_equal(dm_cal_prompts(more, &o, s, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "no run of 6 tokens"));
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
    o.prompts = 3;
    o.prompt_tokens = 5;
    o.tokens = 9;
    o.samples = 2;
    o.gen.top_k = TINY_VP;
    assert_ok(dm_cal_opt_check(&o, &e), e);
    return o;
}

static bool count_calls(void *ctx, double share)
{
    (*(size_t *)ctx)++;
    return share <= 1.0;
}

static void test_a_whole_run_on_a_tiny_model(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    const struct dm_config c = tiny_config();
    struct dm_cal_opt o = small_run();
    struct dm_cal_report *r = calloc(2, sizeof(*r));
    size_t calls = 0;
    assert_non_null(r);
    tiny_model(&m, &c);
    assert_ok(dm_cal_run(&r[0], &m, NULL, &o, tiny_ids, count_calls, &calls, &e), e);
    assert_int_equal(calls, 4 * 6);
    assert_int_equal(r->base.tokens, 3 * 2 * 9);
    assert_int_equal(r->base.forwards, 3 * 2 * 9);
    // With top_k = V the base's sampler is its own model: no divergence from itself.
    assert_true(fabs(r->base.fidelity) < 1e-5);
    // eps_b = 1 is the base token for token, 0 always makes three.
    const struct dm_cal_point *one = &r->points[0], *zero = &r->points[2];
    assert_true(one->eps_b == 1.0 && zero->eps_b == 0.0);
    assert_int_equal(one->forwards, r->base.forwards);
    assert_true(one->logp == r->base.logp && one->loss == 0.0 && one->loss_bound == 0.0);
    assert_true(one->passes);
    assert_int_equal(zero->forwards, 3 * 2 * 3);
    assert_int_equal(zero->blocks[3], 3 * 2 * 3);
    // The same seeds give the same texts.
    assert_ok(dm_cal_run(&r[1], &m, NULL, &o, tiny_ids, NULL, NULL, &e), e);
    for (size_t i = 0; i < 3; i++) {
        assert_true(r[0].points[i].logp == r[1].points[i].logp);
        assert_int_equal(r[0].points[i].forwards, r[1].points[i].forwards);
    }
    assert_int_equal(r[0].chosen, r[1].chosen);
    free(r);
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
    struct dm_cal_report *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    tiny_model(&m, &c);
    assert_int_equal(dm_cal_run(r, &m, NULL, &o, tiny_ids, stop_at_once, NULL, &e), DM_ESTOPPED);
    o.tokens = 20;
    assert_int_equal(dm_cal_run(r, &m, NULL, &o, tiny_ids, NULL, NULL, &e), DM_ERANGE);
    dm_model_release(&m);
    c.K = 1;
    tiny_model(&m, &c);
    assert_int_equal(dm_cal_run(r, &m, NULL, &o, tiny_ids, NULL, NULL, &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "train heads"));
    dm_model_release(&m);
    free(r);
}

static void test_short_memory_is_reported(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    const struct dm_config c = tiny_config();
    struct dm_cal_opt o = small_run();
    struct dm_cal_report *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    o.n_eps = 1;
    o.prompts = 2;
    o.samples = 1;
    o.tokens = 3;
    tiny_model(&m, &c);
    for (size_t n = 1, left = 0; !left; n++) {
        dm_alloc_fail_at(n);
        const enum dm_status st = dm_cal_run(r, &m, NULL, &o, tiny_ids, NULL, NULL, &e);
        left = dm_alloc_fail_at(0);
        assert_int_equal(st, left ? DM_OK : DM_ENOMEM);
    }
    free(r);
    dm_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_t_quantiles_are_the_published_ones),
        cmocka_unit_test(test_mean_error_and_median_by_hand),
        cmocka_unit_test(test_the_fastest_passing_setting_is_chosen),
        cmocka_unit_test(test_testing_stops_at_the_first_failure),
        cmocka_unit_test(test_uncertain_losses_do_not_pass),
        cmocka_unit_test(test_repetitive_text_does_not_pass_however_likely_it_is),
        cmocka_unit_test(test_policies_share_the_risk_and_the_fastest_wins),
        cmocka_unit_test(test_speedup_is_the_median_ratio_to_the_paired_base_text),
        cmocka_unit_test(test_options_are_checked_and_sorted),
        cmocka_unit_test(test_the_stored_calibration_is_what_generate_reads),
        cmocka_unit_test(test_table_and_plot_show_every_setting),
        cmocka_unit_test(test_prompts_lie_within_documents_and_are_spread),
        cmocka_unit_test(test_a_whole_run_on_a_tiny_model),
        cmocka_unit_test(test_runs_that_cannot_be_done_say_why),
        cmocka_unit_test(test_short_memory_is_reported),
    };
    return cmocka_run_group_tests_name("calibrate", tests, NULL, NULL);
}
