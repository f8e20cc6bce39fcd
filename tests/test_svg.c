/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/file.h"
#include "src/base/svg.h"

static void test_shapes_and_escaped_text_become_a_whole_file(void **state)
{
    (void)state;
    static const double xy[] = {1, 2, 3.25, 4};
    struct dm_svg s;
    struct dm_err e;
    char *text;
    size_t n;
    dm_svg_begin(&s, 100, 50);
    dm_svg_text(&s, 10, 20.5,
                (struct dm_svg_style){.colour = "#c00", .anchor = DM_SVG_END, .bold = true},
                "%d < 2 & \"%s\" > 0", 1, "x");
    dm_svg_text(&s, 5, 6, (struct dm_svg_style){.upright = true, .size = 14}, "up");
    dm_svg_polyline(&s, xy, 2, "red");
    dm_svg_dashed(&s, 0, 1, 2, 3, "red");
    dm_svg_rect(&s, 0, 1, 2, 3, "red");
    dm_svg_circle(&s, 0, 1, 2, "white", "red");
    assert_ok(dm_svg_end(&s, tmp_path("a.svg"), &e), e);
    assert_ok(dm_file_read(tmp_path("a.svg"), 1 << 20, &text, &n, &e), e);
    static const char *const parts[] = {
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100\" height=\"50\"",
        "<text x=\"10.0\" y=\"20.5\" text-anchor=\"end\" fill=\"#c00\" font-weight=\"bold\">",
        "\"bold\">1 &lt; 2 &amp; &quot;x&quot; &gt; 0</text>\n",
        "<text transform=\"translate(5.0 6.0) rotate(-90)\" font-size=\"14\">up</text>\n",
        "points=\"1.0,2.0 3.2,4.0 \"/>",
        "d=\"M0.0 1.0L2.0 3.0\" stroke=\"red\" stroke-dasharray=\"6 4\"/>",
        "<rect x=\"0.0\" y=\"1.0\" width=\"2.0\" height=\"3.0\" fill=\"red\"/>",
        "<circle cx=\"0.0\" cy=\"1.0\" r=\"2.0\" fill=\"white\" stroke=\"red\"/>\n</svg>\n"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (!strstr(text, parts[i]))
            fail_msg("no %s in %s", parts[i], text);
    free(text);
}

static void test_an_embedded_drawing_has_a_label_classes_and_tips(void **state)
{
    (void)state;
    static const double xy[] = {1, 2, 3, 4, 5, 6};
    struct dm_svg s;
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    dm_svg_embed(&s, 100, 50, "a \"<b>\" & c\x01");
    dm_svg_group(&s, "c1", "x < 1'\xff\xc3");
    dm_svg_area(&s, xy, 3, "currentColor");
    dm_svg_group_end(&s);
    dm_svg_group(&s, "c2", NULL);
    dm_svg_group_end(&s);
    assert_int_equal(dm_svg_put(&s, f), DM_OK);
    fclose(f);
    assert_string_equal(
        text, "<svg viewBox=\"0 0 100 50\" role=\"img\" aria-label=\"a &quot;&lt;b&gt;&quot; &amp; "
              "c\xef\xbf\xbd\">\n"
              "<g class=\"c1\"><title>x &lt; 1&#39;\xef\xbf\xbd\xef\xbf\xbd</title>\n"
              "<polygon fill=\"currentColor\" points=\"1.0,2.0 3.0,4.0 5.0,6.0 \"/>\n</g>\n"
              "<g class=\"c2\">\n</g>\n</svg>\n");
    free(text);
}

static void test_a_path_that_cannot_be_written_is_reported(void **state)
{
    (void)state;
    struct dm_svg s;
    struct dm_err e;
    dm_svg_begin(&s, 100, 50);
    assert_int_equal(dm_svg_end(&s, "/nowhere/a.svg", &e), DM_EIO);
    assert_non_null(strstr(e.msg, "/nowhere/a.svg"));
    dm_svg_begin(&s, 100, 50);
    dm_svg_drop(&s);
    dm_svg_text(&s, 0, 0, (struct dm_svg_style){0}, "ignored");
    assert_int_equal(dm_svg_end(&s, tmp_path("b.svg"), &e), DM_ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes_and_escaped_text_become_a_whole_file),
        cmocka_unit_test(test_an_embedded_drawing_has_a_label_classes_and_tips),
        cmocka_unit_test(test_a_path_that_cannot_be_written_is_reported),
    };
    return cmocka_run_group_tests_name("svg", tests, NULL, NULL);
}
