/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/base/qblock.h"
#include "src/kernel/int.h"
#include "src/kernel/kern.h"

/* Runs the body once per table that this processor has, that table being in use. */
#define FOR_EACH_TABLE(k)                                                                     \
    for (const struct dm_kern *const *k = dm_kern_all(); *k || (dm_kern_force(NULL), 0); k++) \
        if ((dm_kern_force(*k), 1))
#define FOR_BOTH(fmt) for (int fmt = DM_FMT_INT8; fmt <= DM_FMT_INT4; fmt++)

static enum dm_dtype type_of(int fmt)
{
    return fmt == DM_FMT_INT8 ? DM_INT8 : DM_INT4;
}

static float bf16(uint16_t h)
{
    float x;
    dm_dtype_to_f32(&x, &h, DM_BF16, 1);
    return x;
}

static void *memory(size_t n)
{
    void *p = calloc(n, 1);
    assert_non_null(p);
    return p;
}

/* A block of up to 32 inputs as int.h says, in double where the order cannot matter. */
static void ref_input(struct dm_int_input *to, const float *x, size_t n)
{
    float most = 0.0f;
    int sum = 0;
    memset(to, 0, sizeof(*to));
    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    to->scale = most < 1e-35f ? 0.0f : most / 127.0f;
    for (size_t i = 0; i < n; i++) {
        to->q[i] = (int8_t)(most < 1e-35f ? 0 : nearbyintf(x[i] * (127.0f / most)));
        sum += to->q[i];
    }
    to->sum = to->scale * (float)sum;
    to->start = -128 * sum;
}

/* One output from the row of blocks as a file holds it: the chain, number by number. */
static float ref_output(const float *x, const char *row, int fmt, float bias, size_t C)
{
    const size_t bytes = fmt == DM_FMT_INT8 ? DM_INT8_BLOCK_BYTES : DM_INT4_BLOCK_BYTES;
    float acc = bias;
    for (size_t k = 0; k < C; k += DM_BLOCK, row += bytes) {
        struct dm_int_input in;
        struct dm_qblock w;
        const size_t n = C - k < DM_BLOCK ? C - k : DM_BLOCK;
        int sum = 0;
        ref_input(&in, x + k, n);
        dm_qblock_read(&w, row, type_of(fmt));
        for (size_t i = 0; i < n; i++)
            sum += (w.q[i] - (fmt == DM_FMT_INT8 ? 128 : 0)) * in.q[i];
        acc = fmaf((float)sum, bf16(w.scale) * in.scale, acc);
        if (fmt == DM_FMT_INT4)
            acc = fmaf(bf16(w.offset), in.sum, acc);
    }
    return acc;
}

/* A random weight (O,C) in all its forms. */
struct weight {
    size_t O, C, row_bytes;
    int fmt;
    float *w, *b;
    char *rows;
    void *pack;
};

static struct weight make(int fmt, size_t O, size_t C)
{
    struct weight s = {.O = O, .C = C, .fmt = fmt};
    assert_true(dm_dtype_row_bytes(type_of(fmt), C, &s.row_bytes));
    s.w = memory(O * C * sizeof(float));
    s.b = memory(O * sizeof(float));
    s.rows = memory(O * s.row_bytes);
    s.pack = memory(dm_int_pack_bytes((enum dm_format)fmt, O, C));
    fill_named(s.w, O * C, "w", 0.05f);
    fill_named(s.b, O, "b", 1.0f);
    dm_dtype_rows_from_f32(s.rows, type_of(fmt), s.w, O, C);
    dm_int_pack(s.pack, (enum dm_format)fmt, O, C, s.w);
    return s;
}

static void drop(struct weight *s)
{
    free(s->w);
    free(s->b);
    free(s->rows);
    free(s->pack);
}

static void affine(float *out, const float *inp, const struct weight *s, bool packed, size_t M)
{
    dm_int_affine(out, s->b, inp, (enum dm_format)s->fmt, packed ? s->pack : NULL,
                  packed ? NULL : s->w, M, s->O, s->C);
}

static void test_inputs_are_rounded_alike_in_every_table(void **state)
{
    (void)state;
    enum { K = 75, BLOCKS = 3 };
    float x[K];
    struct dm_int_input got[BLOCKS], want[BLOCKS];
    fill_named(x, K, "inputs", 3.0f);
    x[3] = 63.5f / 127.0f * 4.0f; // halves go to even
    x[4] = 4.0f;
    for (size_t i = 32; i < 64; i++)
        x[i] *= 1e-37f; // below what a scale holds
    FOR_EACH_TABLE(k)
    {
        memset(got, 0xff, sizeof(got));
        (*k)->ints->input(got, x, K);
        for (size_t b = 0; b < BLOCKS; b++)
            ref_input(want + b, x + 32 * b, b == 2 ? K - 64 : 32);
        assert_memory_equal(got, want, sizeof(got));
        assert_true(want[1].scale == 0.0f && want[1].q[0] == 0);
    }
}

static void test_a_number_that_is_none_poisons_its_row_alone(void **state)
{
    (void)state;
    enum { M = 3, O = 5, C = 70 };
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float inp[M * C], out[M * O];
    FOR_BOTH(fmt)
    {
        struct weight s = make(fmt, O, C);
        FOR_EACH_TABLE(k)
        {
            for (size_t i = 0; i < 3; i++) {
                fill_named(inp, M * C, "inp", 1.0f);
                inp[C + 69] = bad[i];
                affine(out, inp, &s, true, M);
                for (size_t j = 0; j < M * O; j++)
                    assert_true((bool)isnan(out[j]) == (j / O == 1));
            }
        }
        drop(&s);
    }
}

/* Every output to the last bit, packed or not, on every table. */
static void test_products_are_the_chain_of_the_blocks(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1},    {1, 32, 32},   {2, 33, 31},  {3, 7, 65},
                                      {4, 64, 96},  {5, 13, 100},  {6, 70, 64},  {7, 31, 33},
                                      {8, 40, 128}, {13, 37, 130}, {29, 65, 40}, {3, 5, 2079}};
    FOR_BOTH(fmt)
    {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            const size_t M = sizes[i][0], O = sizes[i][1], C = sizes[i][2];
            struct weight s = make(fmt, O, C);
            float *inp = memory(M * C * sizeof(float)), *want = memory(M * O * sizeof(float)),
                  *out = memory(M * O * sizeof(float));
            fill_named(inp, M * C, "inp", 2.0f);
            for (size_t j = 0; j < M * O; j++)
                want[j] = ref_output(inp + j / O * C, s.rows + j % O * s.row_bytes, fmt, s.b[j % O],
                                     C);
            FOR_EACH_TABLE(k)
            {
                for (int packed = 0; packed < 2; packed++) {
                    memset(out, 0xff, M * O * sizeof(float));
                    affine(out, inp, &s, packed, M);
                    assert_memory_equal(out, want, M * O * sizeof(float));
                }
            }
            free(inp);
            free(want);
            free(out);
            drop(&s);
        }
    }
}

/* 16 bits do not hold two products of the largest numbers: 2 * 255 * 127. */
static void test_the_largest_numbers_do_not_saturate(void **state)
{
    (void)state;
    enum { O = 4, C = 64 };
    float inp[C], out[O];
    FOR_BOTH(fmt)
    {
        struct weight s = make(fmt, O, C);
        const size_t head = fmt == DM_FMT_INT8 ? 2 : 4, bytes = s.row_bytes / 2;
        const uint8_t fill[O] = {0, 255, 1, 128};
        for (size_t o = 0; o < O; o++)
            for (size_t b = 0; b < 2; b++)
                memset(s.rows + o * s.row_bytes + b * bytes + head, fill[o], bytes - head);
        dm_int_pack_rows(s.pack, (enum dm_format)fmt, C, s.rows, type_of(fmt), 0, O);
        for (size_t i = 0; i < C; i++)
            inp[i] = i < 40 ? 1.0f : -1.0f;
        FOR_EACH_TABLE(k)
        {
            affine(out, inp, &s, true, 1);
            for (size_t o = 0; o < O; o++)
                assert_true(out[o] == ref_output(inp, s.rows + o * s.row_bytes, fmt, s.b[o], C));
        }
        drop(&s);
    }
}

/* Near the product of what the blocks stand for: the inputs' rounding, 1/254 of the largest of each
 * block at most, is all that is lost. */
static void test_products_are_near_those_in_double(void **state)
{
    (void)state;
    enum { M = 4, O = 45, C = 333 };
    float inp[M * C], out[M * O];
    static float w[O * C];
    fill_named(inp, M * C, "inp", 1.0f);
    FOR_BOTH(fmt)
    {
        struct weight s = make(fmt, O, C);
        dm_dtype_rows_to_f32(w, s.rows, type_of(fmt), O, C);
        affine(out, inp, &s, true, M);
        for (size_t j = 0; j < M * O; j++) {
            double want = (double)s.b[j % O], room = 0.0;
            for (size_t k = 0; k < C; k++) {
                want += (double)w[j % O * C + k] * (double)inp[j / O * C + k];
                room += fabs((double)w[j % O * C + k]) / 254.0;
            }
            assert_true(fabs((double)out[j] - want) <= room + 1e-6);
        }
        drop(&s);
    }
}

static void test_bits_depend_on_neither_threads_nor_rows(void **state)
{
    (void)state;
    enum { M = 41, O = 421, C = 200 };
    static float inp[M * C], all[M * O], out[M * O];
    fill_named(inp, M * C, "inp", 1.0f);
    FOR_BOTH(fmt)
    {
        struct weight s = make(fmt, O, C);
        FOR_EACH_TABLE(k)
        {
            dm_par_set_threads(1);
            for (size_t i = 0; i < M; i++)
                affine(all + i * O, inp + i * C, &s, true, 1);
            for (size_t threads = 1; threads <= 3; threads++) {
                dm_par_set_threads(threads);
                for (size_t m = 1; m <= M; m += m < 10 ? 1 : 10) {
                    memset(out, 0xff, sizeof(out));
                    affine(out, inp, &s, m & 1, m);
                    assert_memory_equal(out, all, m * O * sizeof(float));
                }
            }
            dm_par_set_threads(0);
        }
        drop(&s);
    }
}

/* More inputs than the buffer has room for, and more rows. */
static void test_long_rows_and_many_rows_are_cut(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{2, 3, 32 * 1024 + 40}, {300, 3, 1000}};
    FOR_BOTH(fmt)
    {
        for (size_t i = 0; i < 2; i++) {
            const size_t M = sizes[i][0], O = sizes[i][1], C = sizes[i][2];
            struct weight s = make(fmt, O, C);
            float *inp = memory(M * C * sizeof(float)), *out = memory(M * O * sizeof(float));
            fill_named(inp, M * C, "inp", 1.0f);
            for (int packed = 0; packed < 2; packed++) {
                affine(out, inp, &s, packed, M);
                for (size_t j = 0; j < M * O; j++)
                    assert_true(out[j] == ref_output(inp + j / O * C, s.rows + j % O * s.row_bytes,
                                                     fmt, s.b[j % O], C));
            }
            free(inp);
            free(out);
            drop(&s);
        }
    }
}

/* From float32, from what a file holds, all at once or panel by panel: the same bytes. */
static void test_packs_do_not_depend_on_how_they_are_made(void **state)
{
    (void)state;
    enum { O = 97, C = 85 };
    FOR_BOTH(fmt)
    {
        struct weight s = make(fmt, O, C);
        const enum dm_format f = (enum dm_format)fmt;
        const size_t n = dm_int_pack_bytes(f, O, C);
        char *pack = memory(n);
        for (size_t o = 0; o < O; o += 32)
            dm_int_pack_rows(pack, f, C, s.rows + o * s.row_bytes, type_of(fmt), o,
                             O - o < 32 ? O - o : 32);
        assert_memory_equal(pack, s.pack, n);
        // bf16 holds these weights exactly
        uint16_t *half = memory(O * C * 2);
        dm_dtype_from_f32(half, DM_BF16, s.w, O * C);
        dm_dtype_to_f32(s.w, half, DM_BF16, O * C);
        dm_int_pack_rows(s.pack, f, C, s.w, DM_F32, 0, O);
        memset(pack, 0xff, n);
        dm_int_pack_rows(pack, f, C, half, DM_BF16, 0, 64);
        dm_int_pack_rows(pack, f, C, half + 64 * C, DM_BF16, 64, O - 64);
        assert_memory_equal(pack, s.pack, n);
        free(half);
        free(pack);
        drop(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inputs_are_rounded_alike_in_every_table),
        cmocka_unit_test(test_a_number_that_is_none_poisons_its_row_alone),
        cmocka_unit_test(test_products_are_the_chain_of_the_blocks),
        cmocka_unit_test(test_the_largest_numbers_do_not_saturate),
        cmocka_unit_test(test_products_are_near_those_in_double),
        cmocka_unit_test(test_bits_depend_on_neither_threads_nor_rows),
        cmocka_unit_test(test_long_rows_and_many_rows_are_cut),
        cmocka_unit_test(test_packs_do_not_depend_on_how_they_are_made),
    };
    return cmocka_run_group_tests_name("int", tests, NULL, NULL);
}
