/* SPDX-License-Identifier: MIT */
/* What a table says about itself. */
#include "tests/util.h"

#include <stdlib.h>
#include <string.h>

#include "data/cooc_build.h"
#include "data/cooc_show.h"
#include "src/base/file.h"
#include "src/io/cooc.h"
#include "src/io/shard.h"

static const char HASH[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static void test_summary_and_plot_say_what_the_table_holds(void **state)
{
    (void)state;
    // documents 1 2 1 2 3 | 2 1
    static const int32_t ids[] = {1, 2, 1, 2, 3, 0, 2, 1};
    struct dm_cooc_summary sum[DM_COOC_ORDER_MAX];
    struct dm_cooc_stats s;
    struct dm_cooc t;
    struct dm_err e;
    char *shard = strdup(tmp_path("hand.h5")), *out = strdup(tmp_path("t.h5")), *svg;
    const struct dm_cooc_opt o = {.inputs = (const char *const *)&shard,
                                  .n_inputs = 1,
                                  .out = out,
                                  .order = 3,
                                  .rule = {.min_count = {1, 1, 1}},
                                  .memory = DM_COOC_MIN_MEMORY};
    struct dm_shard_writer *w;
    size_t n;
    assert_ok(dm_shard_create(&w, shard, 4, NULL, HASH, "{}", &e), e);
    assert_ok(dm_shard_append(w, ids, 8, &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
    assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
    assert_ok(dm_cooc_load(&t, out, &e), e);
    dm_cooc_summarise(sum, &t);
    assert_int_equal(sum[0].kept, 3);
    assert_int_equal(sum[1].kept, 3); // (1,2) and (2,1) twice, (2,3) once
    assert_int_equal(sum[1].ones, 1);
    assert_int_equal(sum[1].twos, 2);
    assert_true(sum[1].discount == 0.2);
    assert_int_equal(sum[0].largest, 3);
    assert_int_equal(sum[1].largest, 2);
    assert_int_equal(sum[2].sum, 3);
    assert_true(sum[2].discount == 1.0);
    char *path = strdup(tmp_path("t.svg"));
    assert_ok(dm_cooc_plot(&t, path, &e), e);
    assert_ok(dm_file_read(path, 1 << 20, &svg, &n, &e), e);
    assert_non_null(strstr(svg, "triplets: 3"));
    assert_non_null(strstr(svg, "</svg>"));
    free(svg);
    free(path);
    dm_cooc_release(&t);
    free(shard);
    free(out);
}

static void test_escaped_bytes_fit_on_one_line(void **state)
{
    (void)state;
    static const char bytes[] = "a\\\n\t\r\xc3\xa9\xff\xe2\x82 \xc2\x85\0z";
    char *text = dm_cooc_escape(bytes, sizeof(bytes) - 1);
    assert_string_equal(text, "a\\\\\\n\\t\\x0d\xc3\xa9\\xff\\xe2\\x82 \\xc2\\x85\\x00z");
    free(text);
    text = dm_cooc_escape(NULL, 0);
    assert_string_equal(text, "");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_summary_and_plot_say_what_the_table_holds),
        cmocka_unit_test(test_escaped_bytes_fit_on_one_line),
    };
    return cmocka_run_group_tests_name("cooc_show", tests, NULL, NULL);
}
