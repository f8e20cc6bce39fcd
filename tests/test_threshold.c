/* SPDX-License-Identifier: MIT */
/* The adaptive threshold: DynaMo figure 11 and a reference that blurs the whole image. */
#include "src/decode/threshold.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/rng.h"
#include "tests/util.h"

enum { MAX_CELLS = 4096 };

struct image {
    uint8_t level[MAX_CELLS];
    uint32_t hist[256];
    int otsu;
};

/* As the decoder uses the module; what is not computed is 0. */
static void threshold(struct image *im, const double *J, struct dm_grid g, bool blur)
{
    static uint16_t ext[MAX_CELLS], reach[MAX_CELLS];
    static double row[MAX_CELLS];
    memset(im->level, 0, sizeof(im->level));
    dm_threshold_extents(ext, J, g);
    dm_threshold_reach(reach, ext, g, blur);
    dm_threshold_image(im->level, im->hist, J, reach, g, blur, row);
    im->otsu = dm_threshold_otsu(im->hist);
}

static long mirror(long i, long n)
{
    i = labs(i);
    return n == 1 ? 0 : i < n ? i : 2 * (n - 1) - i;
}

/* One axis after the other over the whole image; Otsu by its definition, two class means. */
static void reference(struct image *im, const double *J, struct dm_grid g, bool blur)
{
    static double a[MAX_CELLS], b[MAX_CELLS];
    const long dim[3] = {(long)g.d0, (long)g.d1, (long)g.d2};
    const long stride[3] = {dim[1] * dim[2], dim[2], 1}, n = dim[0] * stride[0];
    for (long c = 0; c < n; c++)
        a[c] = 255 * J[c];
    for (int axis = 0; blur && axis < 3; axis++) {
        for (long c = 0; c < n; c++) {
            const long i = c / stride[axis] % dim[axis], base = c - i * stride[axis];
            b[c] = (a[base + mirror(i - 1, dim[axis]) * stride[axis]] + 2 * a[c] +
                    a[base + mirror(i + 1, dim[axis]) * stride[axis]]) /
                   4;
        }
        memcpy(a, b, sizeof(a));
    }
    memset(im, 0, sizeof(*im));
    for (long c = 0; c < n; c++)
        im->hist[im->level[c] = (uint8_t)lrint(a[c])]++;
    double best = 0;
    im->otsu = -1;
    for (int t = 0; t < 255; t++) {
        double w[2] = {0}, s[2] = {0};
        for (int l = 0; l < 256; l++) {
            w[l > t] += im->hist[l];
            s[l > t] += (double)l * im->hist[l];
        }
        const double d = w[0] > 0 && w[1] > 0 ? s[0] / w[0] - s[1] / w[1] : 0,
                     v = w[0] * w[1] * d * d;
        if (v > best * (1 + 1e-12)) {
            best = v;
            im->otsu = t;
        }
    }
}

static void check_grid(const double *J, struct dm_grid g, bool blur)
{
    static struct image got, want;
    threshold(&got, J, g, blur);
    reference(&want, J, g, blur);
    assert_int_equal(got.otsu, want.otsu);
    assert_memory_equal(got.hist, want.hist, sizeof(got.hist));
    assert_memory_equal(got.level, want.level, sizeof(got.level));
}

/* A joint of n cells that falls off like real ones, the steeper the larger `sharp`. */
static void random_joint(double *J, size_t n, double sharp, struct dm_rng *rng)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += J[i] = exp(sharp * dm_rng_normal(rng));
    for (size_t i = 0; i < n; i++)
        J[i] /= sum;
}

static void test_figure_11_is_reproduced_in_all_100_cells(void **state)
{
    (void)state;
    struct dm_err e;
    json_t *root;
    assert_ok(dm_json_read("tests/golden/figure11.json", 1 << 20, &root, &e), e);
    double J[100], sum = 0;
    for (size_t c = 0; c < 100; c++)
        sum += J[c] = json_number_value(
            json_array_get(json_array_get(json_object_get(root, "joint"), c / 10), c % 10));
    for (size_t c = 0; c < 100; c++)
        J[c] /= sum;
    static struct image im;
    threshold(&im, J, (struct dm_grid){1, 10, 10}, true);
    assert_int_equal(im.otsu, json_integer_value(json_object_get(root, "otsu_threshold")));
    size_t survivors = 0;
    for (size_t c = 0; c < 100; c++) {
        const json_t *want = json_array_get(
            json_array_get(json_object_get(root, "adaptive"), c / 10), c % 10);
        assert_true(json_is_integer(want));
        assert_int_equal(im.level[c] > im.otsu ? im.level[c] : 0, json_integer_value(want));
        survivors += im.level[c] > im.otsu;
    }
    assert_int_equal(survivors, 17);
    json_decref(root);
}

static void test_skipping_gives_the_whole_image(void **state)
{
    (void)state;
    static double J[MAX_CELLS];
    static const struct dm_grid grids[] = {{1, 1, 1}, {1, 1, 9},   {1, 9, 1},   {1, 2, 2},
                                           {1, 7, 5}, {2, 2, 2},   {3, 1, 4},   {5, 4, 3},
                                           {9, 8, 7}, {1, 50, 50}, {16, 16, 16}};
    struct dm_rng rng;
    dm_rng_init(&rng, 3, 0);
    for (size_t g = 0; g < sizeof(grids) / sizeof(grids[0]); g++)
        for (int sharp = 0; sharp <= 6; sharp++)
            for (int blur = 0; blur <= 1; blur++) {
                random_joint(J, grids[g].d0 * grids[g].d1 * grids[g].d2, sharp, &rng);
                check_grid(J, grids[g], blur);
            }
}

static void test_a_lone_peak_keeps_a_share_of_the_blur(void **state)
{
    (void)state;
    static const struct {
        size_t cell;
        uint8_t level; // 255 / 4 in the middle, 255 / 2 * 1/2 .. at the border
    } cases[] = {{12, 64}, {0, 64}, {2, 64}, {24, 64}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double J[25] = {0};
        static struct image im;
        J[cases[i].cell] = 1;
        threshold(&im, J, (struct dm_grid){1, 5, 5}, true);
        assert_int_equal(im.level[cases[i].cell], cases[i].level);
        check_grid(J, (struct dm_grid){1, 5, 5}, true);
    }
    // next to the border a cell counts twice for its mirror image: 255 * (1/4 + 1/4) * 1/2
    double J[25] = {[6] = 1};
    static struct image im;
    threshold(&im, J, (struct dm_grid){1, 5, 5}, true);
    assert_int_equal(im.level[0], 64);
    assert_int_equal(im.level[5], 64);
    assert_int_equal(im.level[6], 64);
}

static void test_otsu_parts_two_modes_at_the_lower_edge_of_the_gap(void **state)
{
    (void)state;
    uint32_t hist[256] = {[10] = 50, [11] = 20, [200] = 3, [201] = 4};
    assert_int_equal(dm_threshold_otsu(hist), 11);
}

static void test_one_grey_level_has_no_threshold(void **state)
{
    (void)state;
    uint32_t hist[256] = {[0] = 125000}, full[256] = {[255] = 1};
    assert_int_equal(dm_threshold_otsu(hist), -1);
    assert_int_equal(dm_threshold_otsu(full), -1);
    static double J[1000];
    static struct image im;
    for (size_t i = 0; i < 1000; i++)
        J[i] = 1e-3; // 0.255 of a level
    threshold(&im, J, (struct dm_grid){10, 10, 10}, true);
    assert_int_equal(im.otsu, -1);
    assert_int_equal(im.hist[0], 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figure_11_is_reproduced_in_all_100_cells),
        cmocka_unit_test(test_skipping_gives_the_whole_image),
        cmocka_unit_test(test_a_lone_peak_keeps_a_share_of_the_blur),
        cmocka_unit_test(test_otsu_parts_two_modes_at_the_lower_edge_of_the_gap),
        cmocka_unit_test(test_one_grey_level_has_no_threshold),
    };
    return cmocka_run_group_tests_name("threshold", tests, NULL, NULL);
}
