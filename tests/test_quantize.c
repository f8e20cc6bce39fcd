/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/par.h"
#include "src/base/qblock.h"
#include "src/model/hf.h"
#include "src/model/quantize.h"
#include "tests/tiny.h"

static const enum dm_dtype block_types[] = {DM_INT8, DM_INT4};

/* ---- Blocks -------------------------------------------------------------------------------- */

static void test_an_int8_block_is_within_half_a_step(void **state)
{
    (void)state;
    float x[32], y[32];
    uint8_t block[DM_INT8_BLOCK_BYTES];
    for (size_t n = 1; n <= 32; n++) {
        struct dm_qblock b;
        float scale, top = 0.0f;
        fill_named(x, n, "int8", 0.37f);
        dm_qblock_from_f32(block, DM_INT8, x, n);
        dm_qblock_read(&b, block, DM_INT8);
        dm_dtype_to_f32(&scale, &b.scale, DM_BF16, 1);
        dm_qblock_to_f32(y, block, DM_INT8, n);
        for (size_t i = 0; i < n; i++)
            top = fmaxf(top, fabsf(x[i]));
        assert_true(scale >= top / 127.0f && scale <= top / 127.0f * 1.008f);
        for (size_t i = 0; i < 32; i++) {
            assert_true(b.q[i] >= 1 && (i < n || b.q[i] == 128));
            assert_true(i >= n || fabsf(x[i] - y[i]) <= 0.5001f * scale);
        }
    }
}

static void test_blocks_of_zeros_and_equal_numbers_are_exact(void **state)
{
    (void)state;
    const float values[] = {0.0f, 0.5f, -3.0f, 1e-40f};
    float x[32], y[32];
    uint8_t block[DM_INT8_BLOCK_BYTES];
    for (size_t t = 0; t < 2; t++)
        for (size_t v = 0; v < 4; v++) {
            for (size_t i = 0; i < 32; i++)
                x[i] = values[v];
            dm_qblock_from_f32(block, block_types[t], x, 32);
            assert_true(dm_qblock_finite(block, block_types[t], 1));
            dm_qblock_to_f32(y, block, block_types[t], 32);
            for (size_t i = 0; i < 32; i++)
                assert_true(fabsf(x[i] - y[i]) <= fabsf(x[i]) * 0.009f + 1e-40f);
        }
}

/* The search may only win against the even steps from the least to the largest number. */
static void test_an_int4_block_beats_even_steps_over_the_range(void **state)
{
    (void)state;
    enum { BLOCKS = 50 };
    float x[BLOCKS * 32], y[32];
    uint8_t block[DM_INT4_BLOCK_BYTES];
    double found = 0.0, even = 0.0;
    fill_named(x, BLOCKS * 32, "int4", 1.0f);
    for (size_t b = 0; b < BLOCKS; b++) {
        float lo = INFINITY, hi = -INFINITY, *p = x + b * 32;
        for (size_t i = 0; i < 32; i++) {
            p[i] = p[i] * p[i] * p[i]; // longer tails
            lo = fminf(lo, p[i]);
            hi = fmaxf(hi, p[i]);
        }
        dm_qblock_from_f32(block, DM_INT4, p, 32);
        dm_qblock_to_f32(y, block, DM_INT4, 32);
        for (size_t i = 0; i < 32; i++) {
            const double step = (double)(hi - lo) / 15.0;
            const double q = nearbyint((double)(p[i] - lo) / step);
            const double d = (double)p[i] - ((double)lo + q * step);
            found += (double)(p[i] - y[i]) * (double)(p[i] - y[i]);
            even += d * d;
        }
    }
    assert_true(found > 0.0 && found < 0.9 * even);
}

static void test_what_is_not_finite_shows_in_the_scale(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float x[32];
    uint8_t block[DM_INT8_BLOCK_BYTES];
    for (size_t t = 0; t < 2; t++)
        for (size_t i = 0; i < 3; i++) {
            fill_named(x, 32, "x", 1.0f);
            x[17] = bad[i];
            dm_qblock_from_f32(block, block_types[t], x, 32);
            assert_false(dm_qblock_finite(block, block_types[t], 1));
        }
}

static void test_rows_start_new_blocks(void **state)
{
    (void)state;
    enum { ROWS = 3, COLS = 41 };
    float x[ROWS * COLS], y[ROWS * COLS], one[COLS];
    uint8_t raw[ROWS * 2 * DM_INT8_BLOCK_BYTES];
    size_t bytes;
    fill_named(x, ROWS * COLS, "rows", 1.0f);
    for (size_t t = 0; t < 2; t++) {
        assert_true(dm_dtype_row_bytes(block_types[t], COLS, &bytes));
        assert_int_equal(bytes, 2 * (t ? DM_INT4_BLOCK_BYTES : DM_INT8_BLOCK_BYTES));
        dm_dtype_rows_from_f32(raw, block_types[t], x, ROWS, COLS);
        dm_dtype_rows_to_f32(y, raw, block_types[t], ROWS, COLS);
        for (size_t r = 0; r < ROWS; r++) {
            dm_dtype_to_f32(one, raw + r * bytes, block_types[t], COLS);
            assert_memory_equal(one, y + r * COLS, sizeof(one));
            for (size_t i = 0; i < COLS; i++)
                assert_true(fabsf(one[i] - x[r * COLS + i]) <= (t ? 0.09f : 0.005f));
        }
    }
    assert_false(dm_dtype_row_bytes(DM_INT8, SIZE_MAX, &bytes));
    assert_false(dm_dtype_bytes(DM_INT4, SIZE_MAX / 4, 64, &bytes));
}

/* ---- Files --------------------------------------------------------------------------------- */

static void save_tiny(struct dm_model *m, const char *name)
{
    struct dm_err e;
    const struct dm_config c = tiny_config();
    const struct dm_model_meta meta = {"{\"model\":{}}", "{\"command\":[\"x\"]}", "{\"eps\":[0.5]}",
                                       NULL};
    tiny_model(m, &c);
    assert_ok(dm_model_save(m, &meta, tmp_path(name), NULL, DM_F32, DM_F32, &e), e);
}

static void quantize_scope(const char *from, const char *to, enum dm_dtype type,
                           enum dm_scope scope, struct dm_quantize_stats *stats)
{
    struct dm_err e;
    assert_ok(dm_quantize(tmp_path(from), tmp_path(to), type, scope, "{\"to\":1}", stats, &e), e);
}

static void quantize(const char *from, const char *to, enum dm_dtype type,
                     struct dm_quantize_stats *stats)
{
    quantize_scope(from, to, type, DM_SCOPE_ALL, stats);
}

/* Head n's logits (TINY_T,TINY_VP) of all tokens at once have the bits of token by token. */
static void check_steps(const struct dm_model *m, size_t n, const float *logits)
{
    struct dm_err e;
    struct dm_session *s;
    float *step = tiny_floats(3 * TINY_VP);
    assert_ok(dm_session_new(&s, m, 3, &e), e);
    for (size_t t = 0; t < TINY_T; t++) {
        dm_session_step(s, tiny_ids + t, 1, step);
        assert_memory_equal(step + (n - 1) * TINY_VP, logits + t * TINY_VP,
                            TINY_VP * sizeof(float));
    }
    dm_session_free(s);
    free(step);
}

static void test_matrices_change_and_the_rest_is_copied(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_config c = tiny_config();
    struct dm_tensor *list;
    struct dm_h5 *a, *b;
    size_t n;
    save_tiny(&m, "m.h5");
    assert_ok(dm_model_tensors(&c, &list, &n, &e), e);
    for (size_t k = 0; k < 3; k++) {
        const enum dm_dtype to = k == 2 ? DM_BF16 : block_types[k];
        struct dm_quantize_stats q;
        quantize("m.h5", "q.h5", to, &q);
        assert_true(q.error > 0.0 && q.error < (to == DM_INT4 ? 0.1 : 0.01));
        assert_true(q.before == 4 * q.weights && q.after < q.before);
        assert_ok(dm_h5_open(&a, tmp_path("m.h5"), NULL, 1, &e), e);
        assert_ok(dm_h5_open(&b, tmp_path("q.h5"), NULL, 1, &e), e);
        assert_ok(dm_model_check_tensors(b, list, n, &e), e);
        for (size_t i = 0; i < n; i++) {
            void *x, *y;
            enum dm_dtype tx, ty;
            size_t bytes;
            assert_ok(dm_model_read_raw(a, list + i, &x, &tx, &e), e);
            assert_ok(dm_model_read_raw(b, list + i, &y, &ty, &e), e);
            assert_true(dm_dtype_bytes(ty, list[i].rows, list[i].cols, &bytes));
            assert_int_equal(ty, dm_quantize_converts(list + i, DM_SCOPE_ALL) ? to : DM_F32);
            if (dm_quantize_converts(list + i, DM_SCOPE_ALL)) { // the rounding of dtype.h, no other
                void *want = malloc(bytes);
                assert_non_null(want);
                dm_dtype_rows_from_f32(want, to, x, list[i].rows, list[i].cols);
                assert_memory_equal(want, y, bytes);
                free(want);
            } else {
                assert_memory_equal(x, y, bytes);
            }
            free(x);
            free(y);
        }
        dm_h5_close(a);
        dm_h5_close(b);
    }
    free(list);
    dm_model_release(&m);
}

/* Heads alone: the base keeps its bytes, its format and its bits; the heads take theirs from the
 * file unless a narrower one is asked for. */
static void test_heads_can_have_a_format_of_their_own(void **state)
{
    (void)state;
    static const enum dm_format want[][2] = {
        {DM_FORMAT_AUTO, DM_FMT_INT8}, {DM_FMT_F32, DM_FMT_INT8},  {DM_FMT_BF16, DM_FMT_INT8},
        {DM_FMT_INT8, DM_FMT_INT8},    {DM_FMT_INT4, DM_FMT_INT4},
    };
    struct dm_err e;
    struct dm_model m, mixed;
    const struct dm_config c = tiny_config();
    struct dm_tensor *list;
    struct dm_h5 *f;
    struct dm_quantize_stats q;
    size_t n;
    save_tiny(&m, "m.h5");
    quantize_scope("m.h5", "q.h5", DM_INT8, DM_SCOPE_HEADS, &q);
    assert_ok(dm_model_tensors(&c, &list, &n, &e), e);
    assert_ok(dm_h5_open(&f, tmp_path("q.h5"), NULL, 1, &e), e);
    for (size_t i = 0; i < n; i++) {
        void *y;
        enum dm_dtype type;
        assert_ok(dm_model_read_raw(f, list + i, &y, &type, &e), e);
        assert_int_equal(type, list[i].part == DM_PART_HEAD && list[i].cols ? DM_INT8 : DM_F32);
        free(y);
    }
    dm_h5_close(f);
    free(list);
    for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++) {
        const struct dm_load_opt o = {.format = (int)want[i][0]};
        assert_ok(dm_model_load(&mixed, tmp_path("q.h5"), &o, NULL, &e), e);
        assert_int_equal(mixed.mats.heads[0].up.fmt, want[i][1]);
        assert_int_equal(mixed.mats.layers[0].up.fmt, i ? want[i][0] : DM_FMT_F32);
        dm_model_release(&mixed);
    }
    assert_ok(dm_model_load(&mixed, tmp_path("q.h5"), NULL, NULL, &e), e);
    float *base = tiny_logits(&m, tiny_ids, 1, TINY_T, 1),
          *got = tiny_logits(&mixed, tiny_ids, 1, TINY_T, 1);
    assert_memory_equal(base, got, TINY_T * TINY_VP * sizeof(float));
    check_steps(&mixed, 1, got);
    free(got);
    got = tiny_logits(&mixed, tiny_ids, 1, TINY_T, 3);
    check_steps(&mixed, 3, got);
    free(base);
    free(got);
    dm_model_release(&mixed);
    // a base alone has nothing to convert
    struct dm_config one = tiny_config();
    one.K = 1;
    dm_model_release(&m);
    tiny_model(&m, &one);
    assert_ok(dm_model_save(&m, NULL, tmp_path("one.h5"), NULL, DM_F32, DM_F32, &e), e);
    assert_int_equal(
        dm_quantize(tmp_path("one.h5"), tmp_path("no.h5"), DM_INT8, DM_SCOPE_HEADS, "{}", &q, &e),
        DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "one.h5: has no token heads"));
    assert_int_not_equal(access(tmp_path("no.h5"), F_OK), 0);
    dm_model_release(&m);
}

static void test_the_bytes_depend_on_neither_threads_nor_a_second_run(void **state)
{
    (void)state;
    struct dm_model m;
    struct dm_quantize_stats q;
    struct dm_err e;
    char *x, *y;
    size_t nx, ny;
    save_tiny(&m, "m.h5");
    dm_model_release(&m);
    for (size_t k = 0; k < 2; k++) {
        dm_par_set_threads(1);
        quantize("m.h5", "one.h5", block_types[k], &q);
        dm_par_set_threads(3);
        quantize("m.h5", "three.h5", block_types[k], &q);
        quantize("three.h5", "again.h5", block_types[k], &q); // what is int8 already stays
        dm_par_set_threads(0);
        assert_ok(dm_file_read(tmp_path("one.h5"), 1 << 26, &x, &nx, &e), e);
        for (int i = 0; i < 2; i++) {
            assert_ok(dm_file_read(tmp_path(i ? "again.h5" : "three.h5"), 1 << 26, &y, &ny, &e), e);
            assert_true(nx == ny && !memcmp(x, y, nx));
            free(y);
        }
        free(x);
    }
}

static void test_metadata_goes_along(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_config c;
    struct dm_model_meta meta;
    struct dm_quantize_stats q;
    save_tiny(&m, "m.h5");
    dm_model_release(&m);
    quantize("m.h5", "q.h5", DM_INT8, &q);
    assert_ok(dm_model_peek(tmp_path("q.h5"), &c, &meta, &e), e);
    assert_int_equal(c.K, 3);
    assert_string_equal(meta.tokenizer, "{\"model\":{}}");
    assert_string_equal(meta.calibration, "{\"eps\":[0.5]}");
    assert_string_equal(meta.provenance, "{\"to\":1}");
    dm_model_meta_release(&meta);
    assert_int_equal(dm_hf_export(tmp_path("q.h5"), tmp_path("hf"), false, &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "its weights are int8"));
    assert_int_not_equal(access(tmp_path("hf/model.safetensors"), F_OK), 0);
}

/* The model computes in the file's format: near to the same weights in float32, and token by token
 * to the bit as at once. */
static void test_a_quantized_model_runs_in_its_format(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m, f32;
    struct dm_quantize_stats q;
    const struct dm_load_opt opt = {.format = DM_FMT_F32};
    save_tiny(&m, "m.h5");
    dm_model_release(&m);
    for (size_t k = 0; k < 2; k++) {
        quantize("m.h5", "q.h5", block_types[k], &q);
        assert_ok(dm_model_load(&m, tmp_path("q.h5"), NULL, NULL, &e), e);
        assert_ok(dm_model_load(&f32, tmp_path("q.h5"), &opt, NULL, &e), e);
        assert_int_equal(m.mats.unembed.fmt, k ? DM_FMT_INT4 : DM_FMT_INT8);
        float *got = tiny_logits(&m, tiny_ids, 1, TINY_T, 2),
              *want = tiny_logits(&f32, tiny_ids, 1, TINY_T, 2);
        double changed = 0.0, size = 0.0;
        for (size_t i = 0; i < (size_t)TINY_T * TINY_VP; i++) {
            changed += pow((double)got[i] - (double)want[i], 2.0);
            size += pow((double)want[i], 2.0);
        }
        assert_true(changed > 0.0 && sqrt(changed / size) < 0.05);
        check_steps(&m, 2, got);
        free(got);
        free(want);
        dm_model_release(&m);
        dm_model_release(&f32);
    }
}

static void test_weights_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, 3e38f};
    struct dm_err e;
    struct dm_model m;
    struct dm_quantize_stats q;
    save_tiny(&m, "m.h5");
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 2; k++) {
            m.params.layers[1].up_w[m.cfg.C] = bad[i]; // row 1
            m.params.layers[1].up_w[m.cfg.C + 1] = -bad[i];
            assert_ok(dm_model_save(&m, NULL, tmp_path("bad.h5"), NULL, DM_F32, DM_F32, &e), e);
            const enum dm_status st = dm_quantize(tmp_path("bad.h5"), tmp_path("no.h5"),
                                                  block_types[k], DM_SCOPE_ALL, "{}", &q, &e);
            if (i == 2 && k == 0) { // int8 reaches as far as float32
                assert_ok(st, e);
                unlink(tmp_path("no.h5"));
                continue;
            }
            assert_int_equal(st, DM_ENAN);
            assert_non_null(strstr(e.msg, "row 1 of gpt_neox.layers.1.mlp.dense_h_to_4h.weight"));
            assert_int_not_equal(access(tmp_path("no.h5"), F_OK), 0);
        }
    dm_model_release(&m);
}

/* ---- Malformed files ----------------------------------------------------------------------- */

/* One tensor as `write` leaves it, after a lie about it. */
static enum dm_status read_back(const char *attr, const char *text, uint64_t cols, uint16_t scale,
                                struct dm_err *e)
{
    enum { ROWS = 2, COLS = 40, BYTES = ROWS * 2 * DM_INT4_BLOCK_BYTES };
    uint8_t raw[BYTES] = {0}, back[BYTES];
    struct dm_h5 *f;
    enum dm_dtype t;
    size_t r, c;
    memcpy(raw + 3 * DM_INT4_BLOCK_BYTES + 2, &scale, 2);
    assert_ok(dm_h5_create(&f, tmp_path("t.h5"), "x", 1, e), *e);
    assert_ok(dm_h5_write_tensor(f, "t", DM_INT4, raw, ROWS, COLS, e), *e);
    if (attr)
        assert_ok(dm_h5_set_string(f, "t", attr, text, e), *e);
    if (cols)
        assert_ok(dm_h5_set_u64(f, "t", "cols", cols, e), *e);
    assert_ok(dm_h5_commit(f, e), *e);
    assert_ok(dm_h5_open(&f, tmp_path("t.h5"), "x", 1, e), *e);
    enum dm_status st = dm_h5_tensor_shape(f, "t", &t, &r, &c, e);
    if (!st) {
        assert_true(t == DM_INT4 && r == ROWS && c == COLS);
        st = dm_h5_read_tensor(f, "t", back, ROWS, COLS, e);
    }
    if (!st)
        assert_memory_equal(back, raw, sizeof(raw));
    dm_h5_close(f);
    return st;
}

static void test_lies_about_a_block_tensor_are_refused(void **state)
{
    (void)state;
    struct dm_err e;
    assert_ok(read_back(NULL, NULL, 0, 0, &e), e);
    assert_int_equal(read_back("dtype", "int8", 0, 0, &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "rows of 40 bytes, which are not 40 int8"));
    assert_int_equal(read_back("dtype", "bf16", 0, 0, &e), DM_EFORMAT);
    assert_int_equal(read_back("dtype", "int5", 0, 0, &e), DM_EFORMAT);
    assert_int_equal(read_back(NULL, NULL, 65, 0, &e), DM_EFORMAT);
    assert_int_equal(read_back(NULL, NULL, UINT64_MAX, 0, &e), DM_EFORMAT);
    assert_int_equal(read_back("cols", "forty", 0, 0, &e), DM_EFORMAT);
    assert_int_equal(read_back(NULL, NULL, 0, 0x7f80, &e), DM_EFORMAT); // infinity
    assert_non_null(strstr(e.msg, "a scale that is not finite"));
    assert_int_equal(read_back(NULL, NULL, 0, 0xffc0, &e), DM_EFORMAT); // NaN
    assert_int_equal(read_back("sha256", "00", 0, 0, &e), DM_EFORMAT);
}

/* A model whose embedding or a vector is int8: only matrices of products may be. */
static void test_other_tensors_cannot_be_blocks(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_config c = tiny_config();
    struct dm_tensor *list;
    struct dm_h5 *f;
    size_t n, bytes;
    save_tiny(&m, "m.h5");
    assert_ok(dm_model_tensors(&c, &list, &n, &e), e);
    assert_ok(dm_h5_create(&f, tmp_path("e.h5"), DM_MODEL_FORMAT, 1, &e), e);
    assert_ok(dm_model_write_meta(f, &c, NULL, &e), e);
    for (size_t i = 0; i < n; i++) {
        char path[128];
        const enum dm_dtype t = list[i].part == DM_PART_EMBED ? DM_INT8 : DM_F32;
        assert_true(dm_dtype_bytes(t, list[i].rows, list[i].cols, &bytes));
        void *raw = calloc(bytes, 1);
        assert_non_null(raw);
        dm_model_tensor_path(path, list + i);
        assert_ok(dm_h5_write_tensor(f, path, t, raw, list[i].rows, list[i].cols, &e), e);
        free(raw);
    }
    assert_ok(dm_h5_commit(f, &e), e);
    dm_model_release(&m);
    assert_int_equal(dm_model_load(&m, tmp_path("e.h5"), NULL, NULL, &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "embed_in.weight is int8"));
    float x = 0.0f;
    assert_ok(dm_h5_create(&f, tmp_path("v.h5"), "x", 1, &e), e);
    assert_int_equal(dm_h5_write_tensor(f, "v", DM_INT8, &x, 1, 0, &e), DM_ERANGE);
    dm_h5_close(f);
    free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_int8_block_is_within_half_a_step),
        cmocka_unit_test(test_blocks_of_zeros_and_equal_numbers_are_exact),
        cmocka_unit_test(test_an_int4_block_beats_even_steps_over_the_range),
        cmocka_unit_test(test_what_is_not_finite_shows_in_the_scale),
        cmocka_unit_test(test_rows_start_new_blocks),
        cmocka_unit_test(test_matrices_change_and_the_rest_is_copied),
        cmocka_unit_test(test_heads_can_have_a_format_of_their_own),
        cmocka_unit_test(test_the_bytes_depend_on_neither_threads_nor_a_second_run),
        cmocka_unit_test(test_metadata_goes_along),
        cmocka_unit_test(test_a_quantized_model_runs_in_its_format),
        cmocka_unit_test(test_weights_that_do_not_fit_are_refused),
        cmocka_unit_test(test_lies_about_a_block_tensor_are_refused),
        cmocka_unit_test(test_other_tensors_cannot_be_blocks),
    };
    return cmocka_run_group_tests_name("quantize", tests, NULL, NULL);
}
