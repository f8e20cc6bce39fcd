/* SPDX-License-Identifier: MIT */
/* The limits that timings are compared with, and the benchmark: what it measures, judges and
 * reports. No figure is judged by its size: machines differ. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/bench_impl.h"
#include "src/base/file.h"
#include "src/base/par.h"
#include "src/kernel/kern.h"
#include "src/kernel/peak.h"
#include "tests/tiny.h"
#include "tests/util.h"
#include "train/step.h"

static void test_every_table_has_a_peak_for_every_format(void **state)
{
    (void)state;
    for (const struct dm_kern *const *k = dm_kern_all(); *k; k++) {
        dm_kern_force(*k);
        for (int fmt = DM_FMT_F32; fmt <= DM_FMT_INT4; fmt++) {
            const double peak = dm_peak_flops((enum dm_format)fmt);
            assert_true(isfinite(peak) && peak > 0.0);
            // 10^15 per second would be a loop that the compiler has removed.
            assert_true(peak < 1e6);
            assert_true(strlen(dm_peak_operation((enum dm_format)fmt)) > 0);
        }
    }
    dm_kern_force(NULL);
}

static void test_bandwidth_and_fork_join_are_positive(void **state)
{
    (void)state;
    struct dm_peak_mem m;
    struct dm_err e;
    for (size_t threads = 1; threads <= 3; threads++) {
        dm_par_set_threads(threads);
        assert_int_equal(dm_peak_mem_init(&m, ((size_t)5 << 20) + 1, &e), DM_OK);
        assert_true(m.bytes == (size_t)6 << 20); // whole huge pages
        for (const struct dm_kern *const *k = dm_kern_all(); *k; k++) {
            dm_kern_force(*k);
            const double rate = dm_peak_bandwidth(&m);
            assert_true(isfinite(rate) && rate > 0.0 && rate < 1e6);
        }
        dm_kern_force(NULL);
        assert_true(dm_peak_fork_join() >= 0.0);
        dm_peak_mem_release(&m);
        assert_null(m.p);
    }
    dm_par_set_threads(0);
}

static void test_memory_that_cannot_be_had_is_an_error(void **state)
{
    (void)state;
    struct dm_peak_mem m;
    struct dm_err e;
    assert_int_equal(dm_peak_mem_init(&m, SIZE_MAX, &e), DM_ENOMEM);
    assert_null(m.p);
    assert_non_null(strstr(e.msg, "to measure the memory"));
    dm_peak_mem_release(&m);
}

/* ---- Rows and goals -------------------------------------------------------------------------- */

static void add_row(struct dm_bench *b, enum dm_bench_what what, const char *name, int fmt,
                    const char *value, double x)
{
    const double runs[3] = {x, 1.5 * x, 0.5 * x};
    struct dm_bench_row *r = dm_bench_row_new(b, what, name, fmt);
    assert_non_null(r);
    dm_bench_row_add(r, value, runs, 3);
}

static void test_spread_is_sorted(void **state)
{
    (void)state;
    struct dm_bench b = {0};
    const double even[4] = {4.0, 1.0, 3.0, 2.0};
    add_row(&b, DM_BENCH_GEMM, "a row", DM_FMT_F32, "share", 0.5);
    const struct dm_bench_spread *s = dm_bench_value(&b.rows[0], "share");
    assert_true(s->min == 0.25 && s->median == 0.5 && s->max == 0.75);
    dm_bench_row_add(&b.rows[0], "other", even, 4);
    s = dm_bench_value(&b.rows[0], "other");
    assert_true(s->min == 1.0 && s->median == 2.5 && s->max == 4.0);
    assert_null(dm_bench_value(&b.rows[0], "none"));
    dm_bench_release(&b);
}

static const struct dm_bench_goal *find_goal(const struct dm_bench_goal *g, size_t n,
                                             const char *part)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(g[i].name, part))
            return &g[i];
    return NULL;
}

static void test_goal_judges_the_worst_row(void **state)
{
    (void)state;
    struct dm_bench_goal g[DM_BENCH_GOALS_MAX];
    struct dm_bench b = {.opt = dm_bench_opt_default(), .size = "70m"};
    b.opt.n_threads = 1;
    dm_par_set_threads(1);
    add_row(&b, DM_BENCH_GEMM, "up forward", DM_FMT_F32, "share", 0.95);
    add_row(&b, DM_BENCH_GEMM, "down forward", DM_FMT_F32, "share", 0.85);
    add_row(&b, DM_BENCH_GEMM, "down forward", DM_FMT_BF16, "share", 0.91);
    add_row(&b, DM_BENCH_GEMM, "down forward, packing", DM_FMT_BF16, "share", 0.1);
    add_row(&b, DM_BENCH_CHUNK, "2 tokens", DM_FMT_INT8, "ratio", 1.05);
    add_row(&b, DM_BENCH_CHUNK, "3 tokens", DM_FMT_INT8, "ratio", 1.2);
    add_row(&b, DM_BENCH_JOINT, "order 3", -1, "share_of_step", 0.02);
    const size_t n = dm_bench_goals(&b, g, DM_BENCH_GOALS_MAX);
    assert_int_equal(n, 4);
    const struct dm_bench_goal *f32 = find_goal(g, n, "(down forward)");
    assert_non_null(strstr(f32->name, "f32"));
    assert_true(f32->goal == 0.9 && f32->reached.median == 0.85 && !f32->at_most);
    assert_false(dm_bench_goal_met(f32));
    assert_true(dm_bench_goal_met(find_goal(g, n, "bf16, 1 thread (down forward)")));
    const struct dm_bench_goal *chunk = find_goal(g, n, "(3 tokens)");
    assert_true(chunk->at_most && !dm_bench_goal_met(chunk));
    assert_true(dm_bench_goal_met(find_goal(g, n, "joint")));
    assert_int_equal(dm_bench_goals(&b, g, 2), 2);
    b.size = "160m"; // the joint is judged by a step of 70m
    assert_int_equal(dm_bench_goals(&b, g, DM_BENCH_GOALS_MAX), 3);
    dm_bench_release(&b);
    dm_par_set_threads(0);
}

static void test_peers_are_compared_at_their_own_size_and_threads(void **state)
{
    (void)state;
    struct dm_bench_goal g[DM_BENCH_GOALS_MAX];
    struct dm_bench b = {.opt = dm_bench_opt_default(), .size = "410m"};
    b.opt.n_threads = 1;
    dm_par_set_threads(1);
    add_row(&b, DM_BENCH_DECODE, "one token", DM_FMT_BF16, "tokens_per_s", 54.0); // 36 x 1.5
    size_t n = dm_bench_goals(&b, g, DM_BENCH_GOALS_MAX);
    assert_int_equal(n, 1);
    assert_true(g[0].goal == 1.3 && fabs(g[0].reached.median - 1.5) < 1e-12);
    assert_non_null(strstr(g[0].name, "another machine, AMD EPYC"));
    assert_true(g[0].elsewhere); // b.cpu is empty
    snprintf(b.cpu, sizeof(b.cpu), "AMD EPYC 9B14 96-Core Processor");
    assert_int_equal(dm_bench_goals(&b, g, DM_BENCH_GOALS_MAX), 1);
    assert_non_null(strstr(g[0].name, "the same kind of machine"));
    assert_false(g[0].elsewhere);
    b.size = NULL;
    assert_int_equal(dm_bench_goals(&b, g, DM_BENCH_GOALS_MAX), 0);
    b.size = "410m";
    b.rows[0].threads = 3;
    assert_int_equal(dm_bench_goals(&b, g, DM_BENCH_GOALS_MAX), 0);
    dm_bench_release(&b);
    dm_par_set_threads(0);
}

static enum dm_status read_peers(struct dm_bench *b, const char *text, struct dm_err *e)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s", tmp_path("peers.json"));
    assert_int_equal(dm_file_write(path, text, strlen(text), e), DM_OK);
    b->opt.peers[0] = path;
    b->opt.n_peers = 1;
    return dm_bench_read_peers(b, e);
}

static void test_peers_of_a_file_replace_the_built_in_ones(void **state)
{
    (void)state;
    struct dm_bench_goal g[DM_BENCH_GOALS_MAX];
    struct dm_err e;
    struct dm_bench b = {.opt = dm_bench_opt_default(), .size = "70m", .cpu = "Processor 7"};
    b.opt.n_threads = 1;
    dm_par_set_threads(1);
    add_row(&b, DM_BENCH_DECODE, "one token", DM_FMT_INT8, "tokens_per_s", 300.0);
    add_row(&b, DM_BENCH_TRAIN, "heads, frozen base, batch 4x512", DM_FMT_BF16, "tokens_per_s",
            900.0);
    const double mb = 400.0;
    dm_bench_row_add(&b.rows[1], "peak_mb", &mb, 1);
    assert_ok(read_peers(&b,
                         "[{\"peer\": \"slow Q8_0\", \"size\": \"70m\", \"job\": \"decode\", "
                         "\"format\": \"int8\", \"threads\": 1, \"tokens_per_s\": [9, 10, 11]},"
                         "{\"peer\": \"quick Q8_0\", \"size\": \"70m\", \"job\": \"decode\", "
                         "\"format\": \"int8\", \"threads\": 1, \"tokens_per_s\": [150, 200, 210]},"
                         "{\"peer\": \"torch\", \"size\": \"70m\", \"job\": \"heads\", "
                         "\"format\": \"bf16\", \"threads\": 1, \"tokens_per_s\": [1, 450, 451], "
                         "\"peak_mb\": 1000, \"machine\": \"Processor 8\"}]",
                         &e),
              e);
    const size_t n = dm_bench_goals(&b, g, DM_BENCH_GOALS_MAX);
    assert_int_equal(n, 3);
    const struct dm_bench_goal *decode = find_goal(g, n, "quick Q8_0's 200 (peers.json), 1 thread");
    assert_true(decode && decode->goal == 1.3 && fabs(decode->reached.median - 1.5) < 1e-12);
    assert_false(decode->elsewhere);
    const struct dm_bench_goal *heads = find_goal(g, n, "tokens/s over torch's 450");
    assert_true(heads && heads->goal == 1.8 && fabs(heads->reached.median - 2.0) < 1e-12);
    assert_true(heads->elsewhere && strstr(heads->name, "measured on Processor 8"));
    const struct dm_bench_goal *peak = find_goal(g, n, "peak MB over torch's 1000");
    assert_true(peak && peak->at_most && fabs(peak->reached.median - 0.4) < 1e-12);
    dm_bench_release(&b);
    dm_par_set_threads(0);
}

static void test_bad_peers_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{}", "is of type object, want a list"},
        {"[1]", "peer 1 is of type integer"},
        {"[{\"size\": \"70m\"}]", "\"peer\""},
        {"[{\"peer\": \"p\", \"size\": \"70m\", \"job\": \"chat\"}]", "\"job\" is \"chat\""},
        {"[{\"peer\": \"p\", \"size\": \"70m\", \"job\": \"whole\", \"format\": \"fp8\"}]",
         "want one of f32 to int4"},
        {"[{\"peer\": \"p\", \"size\": \"70m\", \"job\": \"whole\", \"format\": \"f32\", "
         "\"threads\": 1, \"tokens_per_s\": [1, 3, 2]}]",
         "no list [min, median, max]"},
        {"[{\"peer\": \"p\", \"size\": \"70m\", \"job\": \"whole\", \"format\": \"f32\", "
         "\"threads\": 0, \"tokens_per_s\": [1, 2, 3]}]",
         "threads"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct dm_bench b = {.opt = dm_bench_opt_default()};
        struct dm_err e;
        assert_true(read_peers(&b, bad[i][0], &e) < 0);
        if (!strstr(e.msg, bad[i][1]) || !strstr(e.msg, "peers.json"))
            fail_msg("%s", e.msg);
        dm_bench_release(&b);
    }
}

/* ---- Whole runs ------------------------------------------------------------------------------ */

static enum dm_status train_begin(void **t, struct dm_model *m, enum dm_pass_kind kind, size_t B,
                                  size_t T, struct dm_err *e)
{
    const struct dm_step_opt opt = {
        .kind = kind, .micro = B, .T = T, .adam = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
    struct dm_step *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    *t = s;
    return dm_step_init(s, m, &opt, e);
}

static enum dm_status train_step(void *t, const int32_t *ids, size_t B, struct dm_err *e)
{
    return dm_step_run(t, ids, B, 1e-3, e);
}

static void train_end(void *t)
{
    dm_step_release(t);
    free(t);
}

static const struct dm_bench_trainer trainer = {train_begin, train_step, train_end};

static struct dm_bench_opt quick_options(void)
{
    struct dm_bench_opt o = dm_bench_opt_default();
    o.cfg = tiny_config();
    o.quick = true;
    o.runs = 2;
    o.n_threads = 2;
    o.threads[1] = 2;
    return o;
}

/* Counts the calls; stops at one of them. */
struct calls {
    size_t n, stop_at;
    bool section[DM_BENCH_N];
};

static bool count_call(void *ctx, const struct dm_bench *b, enum dm_bench_what what,
                       const char *text)
{
    struct calls *c = ctx;
    assert_non_null(b);
    c->section[what] = c->section[what] || !text;
    return ++c->n != c->stop_at;
}

static void test_quick_run_measures_every_section_in_every_format(void **state)
{
    (void)state;
    struct dm_bench b;
    struct dm_err e;
    struct calls c = {0};
    bool rows[DM_BENCH_N][DM_BENCH_FORMATS] = {{false}};
    const struct dm_bench_opt o = quick_options();
    assert_ok(dm_bench_run(&b, &o, &trainer, count_call, &c, &e), e);
    for (size_t i = 0; i < b.n_rows; i++) {
        const struct dm_bench_row *r = &b.rows[i];
        assert_true(r->threads == 1 || r->threads == 2);
        assert_true(r->n_values >= 1);
        if (r->fmt >= 0)
            rows[r->what][r->fmt] = true;
        for (size_t k = 0; k < r->n_values; k++) {
            const struct dm_bench_spread *s = &r->value[k].s;
            if (!(s->min > 0.0 && s->min <= s->median && s->median <= s->max && isfinite(s->max)))
                fail_msg("%s, %s: %g %g %g", r->name, r->value[k].name, s->min, s->median, s->max);
        }
    }
    for (int fmt = 0; fmt < DM_BENCH_FORMATS; fmt++) {
        assert_true(rows[DM_BENCH_FEW][fmt] && rows[DM_BENCH_DECODE][fmt]);
        assert_true(rows[DM_BENCH_CHUNK][fmt] && rows[DM_BENCH_HEADS][fmt]);
    }
    for (int fmt = DM_FMT_F32; fmt <= DM_FMT_BF16; fmt++)
        assert_true(rows[DM_BENCH_GEMM][fmt] && rows[DM_BENCH_TRAIN][fmt]);
    for (int i = 0; i < DM_BENCH_N; i++)
        assert_true(c.section[i]);
    dm_bench_release(&b);
}

static void test_report_has_every_figure_and_goals_with_their_keys(void **state)
{
    (void)state;
    static const char *const keys[] = {"name", "goal", "reached", "met"};
    struct dm_bench b;
    struct dm_err e;
    struct dm_bench_opt o = quick_options();
    memset(o.what, 0, sizeof(o.what));
    o.what[DM_BENCH_GEMM] = o.what[DM_BENCH_DECODE] = true;
    memset(o.fmt, 0, sizeof(o.fmt));
    o.fmt[DM_FMT_F32] = o.fmt[DM_FMT_BF16] = true;
    assert_ok(dm_bench_run(&b, &o, NULL, NULL, NULL, &e), e);
    json_t *root = dm_bench_to_json(&b), *goal;
    assert_non_null(root);
    const json_t *sections = json_object_get(root, "sections"),
                 *goals = json_object_get(root, "goals");
    assert_int_equal(json_object_size(sections), 2);
    assert_int_equal(json_array_size(json_object_get(sections, "gemm")), 2 * 5 * 3 * 2);
    const json_t *share = json_object_get(json_array_get(json_object_get(sections, "decode"), 0),
                                          "share");
    assert_int_equal(json_array_size(share), 3);
    assert_true(json_array_size(goals) > 0);
    size_t i;
    json_array_foreach(goals, i, goal)
    {
        for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++)
            assert_non_null(json_object_get(goal, keys[k]));
        assert_true(json_is_null(json_object_get(goal, "met"))); // quick: nothing is judged
        assert_true(json_is_real(json_object_get(goal, "goal")));
    }
    json_decref(root);

    char *text;
    size_t n;
    assert_ok(dm_bench_write_svg(&b, tmp_path("bench.svg"), &e), e);
    assert_ok(dm_file_read(tmp_path("bench.svg"), 1 << 20, &text, &n, &e), e);
    assert_non_null(strstr(text, "<svg"));
    assert_non_null(strstr(text, "</svg>"));
    assert_non_null(strstr(text, "one token"));
    free(text);
    dm_bench_release(&b);
}

static void test_stopped_run_keeps_its_rows(void **state)
{
    (void)state;
    struct dm_bench b;
    struct dm_err e;
    const struct dm_bench_opt o = quick_options();
    struct calls c = {.stop_at = 12};
    assert_int_equal(dm_bench_run(&b, &o, &trainer, count_call, &c, &e), DM_ESTOPPED);
    assert_int_equal(c.n, 12);
    assert_true(b.n_rows > 0 && b.n_rows < 12);
    json_t *root = dm_bench_to_json(&b);
    assert_non_null(root);
    json_decref(root);
    dm_bench_release(&b);
}

static void test_bad_options_are_refused(void **state)
{
    (void)state;
    struct dm_bench b;
    struct dm_err e;
    struct dm_bench_opt o = quick_options();
    o.runs = DM_BENCH_RUNS_MAX + 1;
    assert_int_equal(dm_bench_run(&b, &o, NULL, NULL, NULL, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "want 1 to 64"));
    dm_bench_release(&b);
    o = quick_options();
    o.n_threads = 0;
    assert_int_equal(dm_bench_run(&b, &o, NULL, NULL, NULL, &e), DM_ERANGE);
    dm_bench_release(&b);
    o = quick_options();
    o.model = "no/such/file.h5";
    assert_int_equal(dm_bench_run(&b, &o, NULL, NULL, NULL, &e), DM_EIO);
    assert_non_null(strstr(e.msg, "no/such/file.h5"));
    dm_bench_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_table_has_a_peak_for_every_format),
        cmocka_unit_test(test_bandwidth_and_fork_join_are_positive),
        cmocka_unit_test(test_memory_that_cannot_be_had_is_an_error),
        cmocka_unit_test(test_spread_is_sorted),
        cmocka_unit_test(test_goal_judges_the_worst_row),
        cmocka_unit_test(test_peers_are_compared_at_their_own_size_and_threads),
        cmocka_unit_test(test_peers_of_a_file_replace_the_built_in_ones),
        cmocka_unit_test(test_bad_peers_are_refused),
        cmocka_unit_test(test_quick_run_measures_every_section_in_every_format),
        cmocka_unit_test(test_report_has_every_figure_and_goals_with_their_keys),
        cmocka_unit_test(test_stopped_run_keeps_its_rows),
        cmocka_unit_test(test_bad_options_are_refused),
    };
    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
