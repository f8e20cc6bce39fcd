/* SPDX-License-Identifier: MIT */
/* Loading models for what they are needed for: packs, masters, heads on a packed base. */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/par.h"
#include "src/model/file.h"
#include "src/model/quantize.h"
#include "tests/tiny.h"

static const struct dm_load_opt masters = {.masters = true};

static void save_as(const char *path, const struct dm_model *m, enum dm_dtype base,
                    enum dm_dtype heads)
{
    struct dm_err e;
    assert_ok(dm_model_save(m, NULL, path, NULL, base, heads, &e), e);
}

static const enum dm_dtype file_types[] = {DM_F32, DM_F16, DM_BF16};

/* The logits of both for every head must have the same bits. */
static void assert_same_logits(const struct dm_model *a, const struct dm_model *b)
{
    for (size_t n = 1; n <= a->cfg.K; n++) {
        float *x = tiny_logits(a, tiny_ids, 1, TINY_T, n),
              *y = tiny_logits(b, tiny_ids, 1, TINY_T, n);
        assert_memory_equal(x, y, TINY_T * a->cfg.Vp * sizeof(float));
        free(x);
        free(y);
    }
}

static void assert_no_matrices(const struct dm_params *p, const struct dm_config *c)
{
    const size_t n = dm_params_list(p, c, DM_SCOPE_ALL, NULL);
    struct dm_tensor *t = calloc(n, sizeof(*t));
    assert_non_null(t);
    dm_params_list(p, c, DM_SCOPE_ALL, t);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(t[i].data == NULL, t[i].cols > 0);
    free(t);
}

/* Loads `path` as packs, and `source` in float32, from which it was made. */
static void check_packs(const char *path, const char *source, enum dm_format fmt)
{
    struct dm_err e;
    struct dm_model full, packs;
    const struct dm_load_opt o = {.format = (int)fmt};
    assert_ok(dm_model_load(&full, source, &masters, NULL, &e), e);
    dm_model_set_format(&full, fmt);
    for (size_t threads = 1; threads <= 3; threads++) {
        dm_par_set_threads(threads);
        assert_ok(dm_model_load(&packs, path, &o, NULL, &e), e);
        assert_no_matrices(&packs.params, &packs.cfg);
        assert_null(packs.mats.unembed.w);
        assert_same_logits(&full, &packs);
        dm_model_release(&packs);
    }
    dm_par_set_threads(0);
    dm_model_release(&full);
}

static void test_packs_from_a_file_are_those_of_its_weights(void **state)
{
    (void)state;
    struct dm_config c = tiny_config();
    struct dm_model m;
    struct dm_quantize_stats stats;
    struct dm_err e;
    tiny_model(&m, &c);
    for (size_t i = 0; i < 3; i++) {
        save_as(tmp_path("p.h5"), &m, file_types[i], DM_F16);
        for (int fmt = DM_FMT_F32; fmt <= DM_FMT_INT4; fmt++)
            check_packs(tmp_path("p.h5"), tmp_path("p.h5"), (enum dm_format)fmt);
    }
    dm_model_release(&m);
    // what is widened from blocks
    assert_ok(
        dm_quantize(tmp_path("p.h5"), tmp_path("q.h5"), DM_INT8, DM_SCOPE_ALL, "{}", &stats, &e),
        e);
    check_packs(tmp_path("q.h5"), tmp_path("q.h5"), DM_FMT_F32);
    check_packs(tmp_path("q.h5"), tmp_path("q.h5"), DM_FMT_BF16);
    check_packs(tmp_path("q.h5"), tmp_path("p.h5"), DM_FMT_INT8);
}

static void test_the_format_is_the_files_unless_told_otherwise(void **state)
{
    (void)state;
    static const enum dm_format want[] = {DM_FMT_F32, DM_FMT_F32, DM_FMT_BF16};
    struct dm_config c = tiny_config();
    struct dm_model m, back;
    struct dm_err e;
    tiny_model(&m, &c);
    for (size_t i = 0; i < 3; i++) {
        save_as(tmp_path("a.h5"), &m, file_types[i], DM_F32);
        assert_ok(dm_model_load(&back, tmp_path("a.h5"), NULL, NULL, &e), e);
        assert_int_equal(back.mats.unembed.fmt, want[i]);
        assert_int_equal(back.mats.embed_dtype, file_types[i]);
        dm_model_release(&back);
    }
    dm_model_release(&m);
}

/* The same model with every tensor in compressed chunks. */
static void write_chunked(const char *from, const char *to)
{
    struct dm_err e;
    struct dm_h5 *in, *out;
    struct dm_config c;
    struct dm_tensor *list;
    size_t n;
    assert_ok(dm_h5_open(&in, from, DM_MODEL_FORMAT, DM_MODEL_VERSION, &e), e);
    assert_ok(dm_h5_create(&out, to, DM_MODEL_FORMAT, DM_MODEL_VERSION, &e), e);
    assert_ok(dm_model_read_meta(in, &c, NULL, &e), e);
    assert_ok(dm_model_write_meta(out, &c, NULL, &e), e);
    assert_ok(dm_model_tensors(&c, &list, &n, &e), e);
    for (size_t i = 0; i < n; i++) {
        char path[128];
        void *raw;
        enum dm_dtype t;
        dm_model_tensor_path(path, list + i);
        assert_ok(dm_model_read_raw(in, list + i, &raw, &t, &e), e);
        assert_ok(dm_h5_write(out, path, t == DM_F32 ? DM_H5_F32 : DM_H5_U16, raw, list[i].rows,
                              list[i].cols, 4, &e),
                  e);
        assert_ok(dm_h5_set_string(out, path, "dtype", dm_dtype_name(t), &e), e);
        free(raw);
    }
    free(list);
    dm_h5_close(in);
    assert_ok(dm_h5_commit(out, &e), e);
}

static void test_compressed_tensors_load_too(void **state)
{
    (void)state;
    struct dm_config c = tiny_config();
    struct dm_model m, plain, chunked;
    struct dm_err e;
    tiny_model(&m, &c);
    save_as(tmp_path("plain.h5"), &m, DM_BF16, DM_F32);
    dm_model_release(&m);
    write_chunked(tmp_path("plain.h5"), tmp_path("chunked.h5"));
    assert_ok(dm_model_load(&plain, tmp_path("plain.h5"), NULL, NULL, &e), e);
    assert_ok(dm_model_load(&chunked, tmp_path("chunked.h5"), NULL, NULL, &e), e);
    assert_same_logits(&plain, &chunked);
    dm_model_release(&plain);
    dm_model_release(&chunked);
}

static void test_a_truncated_file_is_refused(void **state)
{
    (void)state;
    struct dm_config c = tiny_config();
    struct dm_model m;
    struct dm_err e;
    char *data;
    size_t n;
    tiny_model(&m, &c);
    save_as(tmp_path("t.h5"), &m, DM_F32, DM_F32);
    dm_model_release(&m);
    assert_ok(dm_file_read(tmp_path("t.h5"), 1 << 26, &data, &n, &e), e);
    for (size_t cut = 1; cut < n; cut = cut * 3 + 7) {
        assert_ok(dm_file_write(tmp_path("t.h5"), data, n - cut, &e), e);
        assert_int_not_equal(dm_model_load(&m, tmp_path("t.h5"), NULL, NULL, &e), DM_OK);
        assert_non_null(strstr(e.msg, "t.h5"));
    }
    free(data);
}

/* Trainable heads on a base that exists as packs. */
static void test_heads_are_added_to_a_packed_base(void **state)
{
    (void)state;
    struct dm_config c = tiny_config();
    struct dm_model m, got;
    struct dm_err e;
    c.K = 1;
    tiny_model(&m, &c);
    save_as(tmp_path("base.h5"), &m, DM_F32, DM_F32);
    struct dm_load_opt o = {.gradients = true, .K = 3, .D = 2, .copy = true};
    assert_ok(dm_model_load(&got, tmp_path("base.h5"), &o, NULL, &e), e);
    assert_int_equal(got.cfg.K, 3);
    for (size_t h = 0; h < 4; h++) {
        const struct dm_layer *to = got.params.heads + h, *from = m.params.layers + c.L - 2 + h % 2;
        assert_memory_equal(to->qkv_w, from->qkv_w, 3 * c.C * c.C * sizeof(float));
        assert_memory_equal(to->proj_w, from->proj_w, c.C * c.C * sizeof(float));
        assert_memory_equal(to->up_w, from->up_w, c.F * c.C * sizeof(float));
        assert_memory_equal(to->down_w, from->down_w, c.F * c.C * sizeof(float));
        assert_memory_equal(to->ln1_w, from->ln1_w, c.C * sizeof(float));
        assert_memory_equal(to->down_b, from->down_b, c.C * sizeof(float));
        assert_ptr_equal(dm_model_matrix(&got, 4 * (c.L + h))->w, to->qkv_w);
    }
    // pack_t is that of the float32 matrix
    struct dm_weight w = m.mats.unembed;
    const size_t n = dm_linear_pack_t_bytes(&w);
    char *want = calloc(n, 1);
    assert_non_null(want);
    dm_linear_pack_t(want, &w);
    assert_memory_equal(got.mats.unembed.pack_t, want, n);
    free(want);
    dm_model_release(&got);
    o.copy = false;
    assert_ok(dm_model_load(&got, tmp_path("base.h5"), &o, NULL, &e), e);
    for (size_t i = 0; i < c.F * c.C; i++)
        assert_true(got.params.heads[3].up_w[i] == 0.0f);
    dm_model_release(&got);
    o.copy = true;
    o.D = 4;
    assert_int_equal(dm_model_load(&got, tmp_path("base.h5"), &o, NULL, &e), DM_ERANGE);
    dm_model_release(&m);
    c.K = 2;
    tiny_model(&m, &c);
    save_as(tmp_path("heads.h5"), &m, DM_F32, DM_F32);
    o.D = 1;
    assert_int_equal(dm_model_load(&got, tmp_path("heads.h5"), &o, NULL, &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "has 2 token heads already"));
    dm_model_release(&m);
}

static void test_gradients_need_a_format_that_has_them(void **state)
{
    (void)state;
    struct dm_config c = tiny_config();
    struct dm_model m;
    struct dm_err e;
    const struct dm_load_opt o = {.format = DM_FMT_INT8, .gradients = true};
    tiny_model(&m, &c);
    save_as(tmp_path("g.h5"), &m, DM_F32, DM_F32);
    dm_model_release(&m);
    assert_int_equal(dm_model_load(&m, tmp_path("g.h5"), &o, NULL, &e), DM_EUNSUPPORTED);
}

static void test_loading_survives_every_failed_allocation(void **state)
{
    (void)state;
    const struct dm_load_opt options[] = {{.format = DM_FORMAT_AUTO},
                                          {.masters = true},
                                          {.gradients = true, .K = 2, .D = 1, .copy = true}};
    struct dm_config c = tiny_config();
    struct dm_model m;
    struct dm_err e;
    c.K = 1;
    tiny_model(&m, &c);
    save_as(tmp_path("n.h5"), &m, DM_BF16, DM_F32);
    dm_model_release(&m);
    write_chunked(tmp_path("n.h5"), tmp_path("n2.h5"));
    for (size_t i = 0; i < 6; i++) {
        size_t n = 0;
        enum dm_status st;
        do {
            dm_alloc_fail_at(++n);
            st = dm_model_load(&m, tmp_path(i % 2 ? "n2.h5" : "n.h5"), options + i / 2, NULL, &e);
            if (st && st != DM_ENOMEM)
                fail_msg("allocation %zu of case %zu: %s", n, i, e.msg);
        } while (st);
        dm_alloc_fail_at(0);
        assert_true(n > 5);
        dm_model_release(&m);
    }
}

/* Without float32 matrices, with the same bits for any number of threads. */
static void test_a_random_model_runs_in_every_format(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    struct dm_model m[2];
    struct dm_err e;
    for (int fmt = DM_FMT_F32; fmt <= DM_FMT_INT4; fmt++) {
        for (size_t i = 0; i < 2; i++) {
            dm_par_set_threads(1 + 2 * i);
            assert_ok(dm_model_random(m + i, &c, (enum dm_format)fmt, 1, &e), e);
            assert_no_matrices(&m[i].params, &c);
        }
        assert_same_logits(m, m + 1);
        float *x = tiny_logits(m, tiny_ids, 1, TINY_T, 1), low = x[0], high = x[0];
        for (size_t i = 0; i < TINY_T * c.Vp; i++) {
            assert_true(isfinite(x[i]));
            low = x[i] < low ? x[i] : low;
            high = x[i] > high ? x[i] : high;
        }
        assert_true(high - low > 0.1f && high - low < 10.0f);
        free(x);
        dm_model_release(m);
        dm_model_release(m + 1);
    }
    dm_par_set_threads(0);
}

static void test_a_random_model_survives_every_failed_allocation(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    struct dm_model m;
    struct dm_err e;
    enum dm_status st;
    size_t n = 0;
    do {
        dm_alloc_fail_at(++n);
        st = dm_model_random(&m, &c, DM_FMT_INT8, 1, &e);
        assert_true(st == DM_OK || st == DM_ENOMEM);
    } while (st);
    dm_alloc_fail_at(0);
    assert_true(n > 3);
    dm_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packs_from_a_file_are_those_of_its_weights),
        cmocka_unit_test(test_the_format_is_the_files_unless_told_otherwise),
        cmocka_unit_test(test_compressed_tensors_load_too),
        cmocka_unit_test(test_a_truncated_file_is_refused),
        cmocka_unit_test(test_heads_are_added_to_a_packed_base),
        cmocka_unit_test(test_gradients_need_a_format_that_has_them),
        cmocka_unit_test(test_a_random_model_runs_in_every_format),
        cmocka_unit_test(test_a_random_model_survives_every_failed_allocation),
        cmocka_unit_test(test_loading_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("load", tests, NULL, NULL);
}
