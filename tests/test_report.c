/* SPDX-License-Identifier: MIT */
/* The report: what files are told to be, escaping, scales, and pages of files that lie. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/chart.h"
#include "eval/report_impl.h"
#include "eval/scale.h"
#include "src/base/arena.h"
#include "src/base/json.h"
#include "src/base/utf8.h"
#include "tests/util.h"

#define EVIL "</script><b>\"&'\x01"
#define LONG                                                                                     \
    "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9" \
    "\u00e9"
#define EVIL_HTML "&lt;/script&gt;&lt;b&gt;&quot;&amp;&#39;\xef\xbf\xbd"

/* ---- Is it HTML?
 * --------------------------------------------------------------------------------- */

enum { DEPTH = 40, IDS = 40 };

static bool is_void(const char *name, size_t n)
{
    return n == 4 && !memcmp(name, "meta", 4);
}

/* Checks one tag from behind its < and returns what is behind its >. Attributes are quoted or have
 * no value, ids differ, references stay in the page. */
static const char *check_tag(const char *s, const char *stack[DEPTH], size_t len[DEPTH],
                             size_t *depth, const char *ids[IDS], size_t *n_ids)
{
    const bool end = *s == '/';
    const char *name = s + end;
    const size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
    assert_true(n > 0);
    if (end) {
        assert_true(*depth > 0 && len[*depth - 1] == n && name[n] == '>');
        assert_memory_equal(stack[*depth - 1], name, n);
        --*depth;
        return name + n + 1;
    }
    for (s = name + n; *s != '>' && memcmp(s, "/>", 2);) {
        assert_true(*s == ' ');
        const size_t key = strcspn(++s, "=> /\"'<");
        assert_true(key > 0);
        if (s[key] == '=' && s[key + 1] == '"') {
            const char *value = s + key + 2;
            const size_t v = strcspn(value, "\"");
            assert_true(value[v] == '"' && !memchr(value, '<', v));
            if (key == 2 && !memcmp(s, "id", 2)) {
                for (size_t i = 0; i < *n_ids; i++)
                    assert_true(strncmp(ids[i], value, v + 1) != 0);
                assert_true(*n_ids < IDS);
                ids[(*n_ids)++] = value;
            }
            assert_true(memcmp(s, "href", 4) != 0 || *value == '#');
            assert_true(memcmp(s, "src", 3) != 0 && memcmp(s, "on", 2) != 0);
            s = value + v + 1;
        } else {
            assert_true(s[key] == ' ' || s[key] == '>');
            s += key;
        }
    }
    if (*s == '/')
        return s + 2;
    if (!is_void(name, n)) {
        assert_true(*depth < DEPTH);
        stack[*depth] = name;
        len[(*depth)++] = n;
    }
    return s + 1;
}

/* Text as HTML may hold it: UTF-8 without control characters but line ends and tabs. */
static void check_text(const char *html)
{
    const size_t n = strlen(html);
    size_t clean;
    char *s = dm_utf8_clean(html, n, &clean);
    assert_true(s && clean == n && !memcmp(s, html, n));
    free(s);
    for (const char *c = html; *c; c++)
        assert_true(*c == '\n' || *c == '\t' || ((unsigned char)*c >= 0x20 && *c != 0x7f));
}

/* Every tag is closed in its turn, no other & or < is there, and nothing is loaded. */
static void check_html(const char *html)
{
    check_text(html);
    const char *stack[DEPTH], *ids[IDS], *s = html;
    size_t len[DEPTH], depth = 0, n_ids = 0;
    assert_memory_equal(s, "<!DOCTYPE html>\n", 16);
    assert_null(strstr(html, "http:"));
    assert_null(strstr(html, "https:"));
    assert_null(strstr(html, "url("));
    for (s += 16; *s;) {
        if (*s == '&') {
            assert_true(!memcmp(s, "&amp;", 5) || !memcmp(s, "&lt;", 4) || !memcmp(s, "&gt;", 4) ||
                        !memcmp(s, "&quot;", 6) || !memcmp(s, "&#39;", 5));
        } else if (*s == '<') {
            const char *tag = s + 1;
            s = check_tag(tag, stack, len, &depth, ids, &n_ids);
            if (!memcmp(tag, "style>", 6) || !memcmp(tag, "script>", 7))
                s = strstr(s, "</");
            continue;
        }
        s++;
    }
    assert_int_equal(depth, 0);
}

/* ---- Pages
 * ---------------------------------------------------------------------------------------- */

static json_t *fixture;

static int setup(void **state)
{
    (void)state;
    struct dm_err e;
    return dm_json_read("tests/golden/report.json", 1 << 20, &fixture, &e);
}

static int teardown(void **state)
{
    (void)state;
    json_decref(fixture);
    return 0;
}

static const struct {
    const char *key;
    enum dm_run_kind kind;
} parts[] = {{"log", DM_RUN_LOG},
             {"model", DM_RUN_MODEL},
             {"calibrate", DM_RUN_CALIBRATE},
             {"eval", DM_RUN_EVAL},
             {"bench", DM_RUN_BENCH},
             {"train", DM_RUN_TRAIN},
             {"text", DM_RUN_TEXT},
             {"base", DM_RUN_TEXT},
             {"trace", DM_RUN_TRACE},
             {"certified", DM_RUN_CALIBRATE}};
enum { PARTS = sizeof(parts) / sizeof(parts[0]) };

/* The page of the fixture's part k, of all for k = PARTS. */
static enum dm_status page_of(json_t *from, size_t k, char **html, json_t **sections,
                              struct dm_err *e)
{
    struct dm_run run[PARTS];
    struct dm_runs r = {.run = run, .passed_over = json_array()};
    size_t n;
    for (size_t i = 0; i < PARTS; i++)
        if (i == k || k == PARTS)
            run[r.n++] = (struct dm_run){parts[i].kind, (char *)(uintptr_t)EVIL,
                                         (char *)(uintptr_t)EVIL,
                                         json_object_get(from, parts[i].key)};
    const enum dm_status st = dm_report_page(&r, EVIL, html, &n, sections, e);
    json_decref(r.passed_over);
    if (!st)
        assert_int_equal(strlen(*html), n);
    return st;
}

static void check_page(json_t *from, size_t k)
{
    struct dm_err e;
    char *html;
    json_t *sections;
    assert_ok(page_of(from, k, &html, &sections, &e), e);
    check_html(html);
    json_decref(sections);
    free(html);
}

static void test_a_page_of_everything_has_every_section(void **state)
{
    (void)state;
    struct dm_err e;
    char *html, *again;
    json_t *sections;
    assert_ok(page_of(fixture, PARTS, &html, &sections, &e), e);
    check_html(html);
    assert_int_equal(json_array_size(json_object_get(sections, "made")), 9);
    assert_int_equal(json_array_size(json_object_get(sections, "absent")), 0);
    json_decref(sections);
    static const char *const has[] = {"<title>" EVIL_HTML "</title>",
                                      "Content-Security-Policy",
                                      "id=\"glance\"",
                                      "id=\"training\"",
                                      "Perplexity on held-out text",
                                      "margin 0.5",
                                      "threshold eps_b",
                                      "After the co-occurrence mask",
                                      "class=\"b b3\"",
                                      "calibration error 0.021",
                                      "paper: win rate</th>",
                                      "a made-up goal",
                                      "<svg viewBox=",
                                      "Prompts that fail",
                                      ">certified</text>"};
    for (size_t i = 0; i < sizeof(has) / sizeof(has[0]); i++)
        if (!strstr(html, has[i]))
            fail_msg("no %s", has[i]);
    assert_null(strstr(html, EVIL));
    assert_null(strstr(html, "What is not here"));
    assert_ok(page_of(fixture, PARTS, &again, &sections, &e), e);
    assert_string_equal(html, again);
    json_decref(sections);
    free(html);
    free(again);
}

static void test_a_win_rate_without_losses_is_said(void **state)
{
    (void)state;
    struct dm_err e;
    char *html;
    json_t *sections, *copy = json_deep_copy(fixture);
    json_t *ablation = json_object_get(json_object_get(copy, "eval"), "ablation");
    json_t *point = json_array_get(json_object_get(ablation, "points"), 0);
    assert_ok(page_of(copy, PARTS, &html, &sections, &e), e);
    assert_null(strstr(html, "no loss"));
    json_decref(sections);
    free(html);
    assert_int_equal(json_object_set_new(point, "losses", json_integer(0)), 0);
    assert_int_equal(json_object_set_new(point, "win_rate", json_null()), 0);
    assert_ok(page_of(copy, PARTS, &html, &sections, &e), e);
    assert_non_null(strstr(html, "<td class=\"n\">no loss</td>"));
    json_decref(sections);
    json_decref(copy);
    free(html);
}

static void test_sections_without_data_are_absent_and_say_so(void **state)
{
    (void)state;
    static const size_t made[PARTS] = {2, 3, 3, 4, 2, 1, 4, 3, 2, 3}; // settings are always there
    for (size_t k = 0; k < PARTS; k++) {
        struct dm_err e;
        char *html;
        json_t *sections;
        assert_ok(page_of(fixture, k, &html, &sections, &e), e);
        const size_t n = json_array_size(json_object_get(sections, "made"));
        if (n != made[k])
            fail_msg("%s: %zu sections", parts[k].key, n);
        assert_int_equal(json_array_size(json_object_get(sections, "absent")), 9 - n);
        assert_non_null(strstr(html, "id=\"absent\""));
        assert_non_null(strstr(html, "<code>dynamo "));
        json_decref(sections);
        free(html);
    }
}

/* Puts every other of a list of strange values in the place of each value below v, one at a time.
 */
static size_t strange_values(json_t *v, json_t *root, size_t k)
{
    static const char *const values[] = {"null",
                                         "-1",
                                         "1e308",
                                         "\"</td><script>\"",
                                         "[[[7]]]",
                                         "{\"a\":{\"b\":[{\"c\":1}]}}",
                                         "\"x" LONG LONG LONG LONG
                                         "\""}; // two bytes a character, which a cut may part
    size_t n = 0, i;
    json_t *x;
    const char *key;
    void *next;
    if (json_is_object(v)) {
        json_object_foreach_safe(v, next, key, x)
        {
            json_t *kept = json_incref(x);
            char *name = strdup(key);
            for (i = n % 2; i < sizeof(values) / sizeof(values[0]); i += 2, n++) {
                json_object_set_new(v, name, json_loads(values[i], JSON_DECODE_ANY, NULL));
                check_page(root, k);
            }
            json_object_set_new(v, name, kept);
            free(name);
            n += strange_values(kept, root, k);
        }
    } else if (json_is_array(v) && json_array_size(v)) {
        json_t *kept = json_incref(json_array_get(v, 0)); // the others are read like it
        for (i = n % 2; i < sizeof(values) / sizeof(values[0]); i += 2, n++) {
            json_array_set_new(v, 0, json_loads(values[i], JSON_DECODE_ANY, NULL));
            check_page(root, k);
        }
        json_array_set_new(v, 0, kept);
        n += strange_values(kept, root, k);
    }
    return n;
}

static void test_any_value_may_be_anything(void **state)
{
    (void)state;
    size_t n = 0;
    for (size_t k = 0; k < PARTS; k++) {
        json_t *copy = json_deep_copy(fixture);
        n += strange_values(json_object_get(copy, parts[k].key), copy, k);
        assert_true(json_equal(copy, fixture));
        json_decref(copy);
    }
    assert_true(n > 900);
}

static void test_running_out_of_memory_is_reported(void **state)
{
    (void)state;
    for (size_t at = 1;; at += 1 + at / 16) { // a page has thousands of them
        struct dm_err e;
        char *html;
        json_t *sections;
        dm_alloc_fail_at(at);
        const enum dm_status st = page_of(fixture, PARTS, &html, &sections, &e);
        const bool reached = !dm_alloc_fail_at(0);
        assert_int_equal(st, reached ? DM_ENOMEM : DM_OK);
        assert_true(!st == !!html && !st == !!sections);
        json_decref(sections);
        free(html);
        if (!reached)
            break;
    }
}

/* ---- Files
 * ---------------------------------------------------------------------------------------- */

static const char *file(const char *name, const char *text)
{
    const char *path = tmp_path(name);
    write_scratch(path, text, strlen(text));
    return path;
}

static void test_files_are_told_by_what_is_in_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum dm_run_kind kind;
    } cases[] = {{"{\"step\":1,\"lr\":0.1,\"loss\":{}}\n{\"step\":2,\"lr\":0.1,\"loss\":{}}\n{\"st",
                  DM_RUN_LOG},
                 {"{\"step\":1,\"tokens\":[1],\"orders\":[]}\n", DM_RUN_TRACE},
                 {"{\"eps_b\":0.5,\"evidence\":{}}", DM_RUN_CALIBRATE},
                 {"\n{\n  \"command\": \"calibrate\"\n}\n", DM_RUN_CALIBRATE},
                 {"{\"command\":\"eval\",\"evidence\":1,\"eps_b\":1}", DM_RUN_EVAL},
                 {"{\"model\":\"m\",\"tasks\":[]}", DM_RUN_EVAL},
                 {"{\"sections\":{},\"goals\":[],\"isa\":\"ref\"}", DM_RUN_BENCH},
                 {"{\"total_steps\":1,\"loss\":{},\"seconds\":1}", DM_RUN_TRAIN},
                 {"{\"text\":\"\",\"ids\":[],\"options\":{}}", DM_RUN_TEXT}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dm_runs r = {0};
        struct dm_err e;
        assert_ok(dm_runs_add(&r, file("told", cases[i].text), &e), e);
        assert_int_equal(r.n, 1);
        assert_int_equal(r.run[0].kind, cases[i].kind);
        assert_string_equal(r.run[0].label, "told");
        if (!i)
            assert_int_equal(json_array_size(r.run[0].root), 2); // the third is being written
        dm_runs_release(&r);
    }
}

static void test_other_files_are_refused_with_a_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        enum dm_status st;
    } cases[] = {
        {"", "is none of", DM_EFORMAT},
        {"hello", "is none of", DM_EFORMAT},
        {"[1]", "is none of", DM_EFORMAT},
        {"{\"a\":1}", "is none of", DM_EFORMAT},
        {"{\"command\":\"fly\",\"text\":\"\",\"ids\":[],\"options\":{}}", "is none of", DM_EFORMAT},
        {"{\"eps_b\":0.5,\"evidence\":{", "told", DM_EFORMAT},
        {"{\"eps_b\":1,\"evidence\":{}}\n{\"eps_b\":1,\"evidence\":{}}", "more than one",
         DM_EFORMAT},
        {"{\"step\":1,\"lr\":0.1,\"loss\":{}}\n{\"a\":1}\n", "line 2", DM_EFORMAT},
        {"{\"step\":1,\"lr\":0.1,\"loss\":{}}\n{\"a\n", "told", DM_EFORMAT},
        {"\x89HDF\r\n\x1a\nrubbish", "told", DM_EFORMAT}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dm_runs r = {0};
        struct dm_err e = {""};
        const enum dm_status st = dm_runs_add(&r, file("told", cases[i].text), &e);
        if (st != cases[i].st || !strstr(e.msg, cases[i].says) || strchr(e.msg, '\n'))
            fail_msg("%s: status %d, %s", cases[i].text, (int)st, e.msg);
        assert_int_equal(r.n, 0);
        dm_runs_release(&r);
    }
    struct dm_runs r = {0};
    struct dm_err e;
    assert_int_equal(dm_runs_add(&r, "/nowhere/x.json", &e), DM_EIO);
    assert_int_equal(dm_runs_add(&r, "", &e), DM_EIO);
    dm_runs_release(&r);
}

/* ---- Scales and numbers
 * ---------------------------------------------------------------------------- */

static void test_ticks_are_round_and_within_the_range(void **state)
{
    (void)state;
    static const double ends[][2] = {{0, 1},      {0, 0.003}, {-5, 17},        {3, 3},
                                     {1e-8, 1e9}, {20, 700},  {-1e300, 1e300}, {0.5, 0.50001}};
    for (int log = 0; log <= 1; log++)
        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
            double tick[12];
            struct dm_scale s = dm_scale_new(log);
            dm_scale_add(&s, ends[i][0]);
            dm_scale_add(&s, NAN);
            dm_scale_add(&s, INFINITY);
            dm_scale_add(&s, ends[i][1]);
            dm_scale_pad(&s, 0.05);
            assert_true(s.lo < s.hi && isfinite(s.lo) && isfinite(s.hi) && (!log || s.lo > 0));
            const size_t n = dm_scale_ticks(&s, 5, tick, 12);
            assert_in_range(n, i == 6 && !log ? 1 : 2, 12);
            for (size_t k = 0; k < n; k++) {
                assert_true(tick[k] >= s.lo && tick[k] <= s.hi && (!k || tick[k] > tick[k - 1]));
                const double part = fabs(tick[k]) / pow(10, floor(log10(fabs(tick[k]) + 1e-300)));
                assert_true(tick[k] == 0 || i == 7 || fabs(part * 10 - round(part * 10)) < 1e-6);
                assert_true(dm_scale_at(&s, tick[k]) >= 0 && dm_scale_at(&s, tick[k]) <= 1);
            }
        }
    struct dm_scale s = dm_scale_new(true);
    dm_scale_add(&s, -3);
    assert_true(s.lo > s.hi);
    dm_scale_pad(&s, 0.1);
    assert_true(isnan(dm_scale_at(&s, 0)) && isnan(dm_scale_at(&s, NAN)));
}

static void test_figures_are_short_and_nan_is_a_dash(void **state)
{
    (void)state;
    static const struct {
        double x;
        const char *text;
    } cases[] = {{0, "0"},
                 {-0.0, "0"},
                 {1234567, "1,234,567"},
                 {-12345, "-12,345"},
                 {999, "999"},
                 {0.12346, "0.1235"},
                 {1e-7, "1e-07"},
                 {NAN, "\xe2\x80\x93"},
                 {-INFINITY, "\xe2\x80\x93"},
                 {1e300, "1e+300"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[40];
        dm_page_figure(text, cases[i].x, 4);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_text_is_escaped_wherever_it_stands(void **state)
{
    (void)state;
    struct dm_page p;
    struct dm_err e;
    char *text;
    size_t n;
    dm_page_begin(&p);
    dm_page_raw(&p, "<i title=\"");
    dm_page_text(&p, "%s\xff", EVIL);
    dm_page_raw(&p, "\">");
    dm_page_element(&p, "td class=\"n\"", "%s", EVIL "\t\n");
    dm_page_number(&p, NAN, 3);
    assert_ok(dm_page_end(&p, &text, &n, &e), e);
    assert_string_equal(text, "<i title=\"" EVIL_HTML "\xef\xbf\xbd\"><td class=\"n\">" EVIL_HTML
                              "\t\n</td><td class=\"n\">\xe2\x80\x93</td>");
    free(text);
}

/* A chart of n points of y(x), one of them chosen, and a limit. */
static char *chart_of(double (*y)(double x), size_t n, size_t chosen)
{
    struct dm_series s = {.name = "a", .colour = 1};
    struct dm_page p;
    struct dm_err e;
    char *html;
    size_t size;
    for (size_t i = 0; i < n; i++) {
        const double x = (double)i / (double)(n - 1);
        struct dm_point *point = dm_series_add(&s, x, y(x));
        assert_non_null(point);
        point->mark = i == chosen ? DM_MARK_CHOSEN : DM_MARK_FULL;
    }
    dm_page_begin(&p);
    assert_true(dm_chart_draw(&p, &(struct dm_chart){.title = "t",
                                                     .x = "x",
                                                     .y = "y",
                                                     .summary = "s",
                                                     .chosen = "certified",
                                                     .limit = 0.5,
                                                     .limit_name = "margin 0.5",
                                                     .series = &s,
                                                     .n = 1}));
    assert_ok(dm_page_end(&p, &html, &size, &e), e);
    free(s.point);
    return html;
}

static double up(double x)
{
    return x;
}

static double down(double x)
{
    return 1 - x;
}

static double bent(double x)
{
    return x * x * x;
}

static void test_the_chosen_points_name_hides_no_point(void **state)
{
    (void)state;
    enum { N = 12 };
    double (*const shape[])(double) = {up, down, bent};
    for (size_t k = 0; k < 3 * N; k++) {
        char *html = chart_of(shape[k / N], N, k % N);
        double x, y, cx, cy;
        size_t n = 0;
        const char *word = strstr(html, "\">certified</text>"), *c = html;
        assert_non_null(word);
        for (c = html; (c = strstr(c + 1, "<text x=")) && c < word;)
            assert_int_equal(sscanf(c, "<text x=\"%lf\" y=\"%lf\"", &x, &y), 2);
        assert_true(x > 36 && x < 404 && y > 10 && y < 230);
        for (c = html; (c = strstr(c, "<circle ")); c++, n++) {
            assert_int_equal(sscanf(c, "<circle cx=\"%lf\" cy=\"%lf\"", &cx, &cy), 2);
            if (fabs(cx - x) < 36 && cy > y - 12 && cy < y + 3)
                fail_msg("shape %zu, point %zu: a point under the word", k / N, k % N);
        }
        assert_int_equal(n, N + 1); // the chosen one has a ring
        free(html);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_is_escaped_wherever_it_stands),
        cmocka_unit_test(test_figures_are_short_and_nan_is_a_dash),
        cmocka_unit_test(test_ticks_are_round_and_within_the_range),
        cmocka_unit_test(test_files_are_told_by_what_is_in_them),
        cmocka_unit_test(test_other_files_are_refused_with_a_sentence),
        cmocka_unit_test(test_a_page_of_everything_has_every_section),
        cmocka_unit_test(test_a_win_rate_without_losses_is_said),
        cmocka_unit_test(test_sections_without_data_are_absent_and_say_so),
        cmocka_unit_test(test_any_value_may_be_anything),
        cmocka_unit_test(test_the_chosen_points_name_hides_no_point),
        cmocka_unit_test(test_running_out_of_memory_is_reported),
    };
    return cmocka_run_group_tests_name("report", tests, setup, teardown);
}
