/* SPDX-License-Identifier: MIT */
/* The model's one forward: against transformers and PyTorch (tests/golden), and against itself in
 * every form it takes: whole sequences, chunks, single tokens, batches. */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/model/model.h"
#include "tests/golden.h"
#include "tests/tiny.h"

enum { T = TINY_T, VP = TINY_VP };

/* ---- Hugging Face parity --------------------------------------------------------------------- */

static void check_hf(const char *name)
{
    struct dm_config c;
    struct dm_model m;
    size_t N, n_rows, n_cols;
    struct dm_h5 *f = golden_open(name, &c);
    int32_t *x = golden_read(f, "ids", DM_H5_I32, &N);
    int32_t *rows = golden_read(f, "rows", DM_H5_I32, &n_rows);
    int32_t *cols = golden_read(f, "cols", DM_H5_I32, &n_cols);
    float *want = golden_read(f, "logits", DM_H5_F32, NULL);
    float *lse = golden_read(f, "lse", DM_H5_F32, NULL);
    int32_t *argmax = golden_read(f, "argmax", DM_H5_I32, NULL);
    const size_t B = N > 48 ? 2 : 1;
    tiny_model(&m, &c);
    float *got = tiny_logits(&m, x, B, N / B, 1);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t j = 0; j < n_cols; j++) {
            const float g = got[(size_t)rows[r] * c.Vp + (size_t)cols[j]];
            assert_close(&g, &want[r * n_cols + j], 1, 1e-4, 1.0);
        }
    for (size_t n = 0; n < N; n++) {
        const float *row = got + n * c.Vp, l = (float)tiny_lse(row, c.Vp);
        assert_close(&l, &lse[n], 1, 1e-5, 1.0);
        size_t best = 0;
        for (size_t v = 1; v < c.Vp; v++)
            best = row[v] > row[best] ? v : best;
        assert_int_equal(best, argmax[n]);
    }
    dm_model_release(&m);
    free(got);
    free(argmax);
    free(lse);
    free(want);
    free(cols);
    free(rows);
    free(x);
    dm_h5_close(f);
}

static void test_logits_match_transformers_14m(void **state)
{
    (void)state;
    check_hf("hf_14m.h5");
}

static void test_logits_match_transformers_head_dim_80(void **state)
{
    (void)state;
    check_hf("hf_hd80.h5");
}

static void test_logits_match_transformers_serial_residual(void **state)
{
    (void)state;
    check_hf("hf_hd80_serial.h5");
}

static void test_logits_match_transformers_without_attention_bias(void **state)
{
    (void)state;
    check_hf("hf_hd80_nobias.h5");
}

/* ---- One forward in all its forms ------------------------------------------------------------ */

/* Runs tiny_ids through a session in chunks of the given lengths (0 ends the list, repeated) and
 * compares every chunk's last row with the full pass, bitwise; all rows of short chunks. */
static void check_chunks(const struct dm_model *m, const size_t *chunk, size_t n_heads)
{
    struct dm_err e;
    struct dm_session *s;
    const size_t Vp = m->cfg.Vp;
    float *want[4], *got = tiny_floats(DM_LAYER_FEW * n_heads * Vp);
    for (size_t n = 1; n <= n_heads; n++)
        want[n - 1] = tiny_logits(m, tiny_ids, 1, T, n);
    assert_ok(dm_session_new(&s, m, n_heads, &e), e);
    for (size_t pos = 0, i = 0; pos < T; i++) {
        if (!chunk[i])
            i = 0;
        const size_t n = chunk[i] < T - pos ? chunk[i] : T - pos;
        const size_t keep = n <= DM_LAYER_FEW ? n : 1;
        dm_session_step_rows(s, tiny_ids + pos, n, keep, got);
        pos += n;
        assert_int_equal(dm_session_pos(s), pos);
        for (size_t row = 0; row < keep * n_heads; row++)
            assert_memory_equal(got + row * Vp,
                                want[row % n_heads] + (pos - keep + row / n_heads) * Vp,
                                Vp * sizeof(float));
    }
    dm_session_free(s);
    for (size_t n = 0; n < n_heads; n++)
        free(want[n]);
    free(got);
}

static const size_t ones[] = {1, 0}, chunks[] = {3, 1, 5, 4, 0}, whole[] = {T, 0};

static void check_all_chunks(const struct dm_config *c)
{
    struct dm_err e;
    struct dm_model m;
    tiny_model(&m, c);
    for (int fmt = DM_FMT_F32; fmt <= DM_FMT_INT4; fmt++) {
        dm_model_set_format(&m, (enum dm_format)fmt);
        for (int packed = 0; packed < 2; packed++) {
            check_chunks(&m, whole, c->K);
            check_chunks(&m, ones, c->K);
            check_chunks(&m, chunks, c->K);
            check_chunks(&m, chunks, 1);
            assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
        }
    }
    dm_model_release(&m);
}

static void test_chunks_and_single_tokens_equal_the_full_pass(void **state)
{
    (void)state;
    const struct dm_config c = tiny_config();
    check_all_chunks(&c);
}

static void test_chunks_equal_the_full_pass_in_every_variant(void **state)
{
    (void)state;
    struct dm_config c = tiny_config();
    c.parallel = false;
    c.D = 2;
    check_all_chunks(&c);
    c.attn_bias = false;
    c.from_final = true;
    c.rot = 12;
    check_all_chunks(&c);
    c.L = 1;
    c.K = 1;
    check_all_chunks(&c);
    // The parallel residual, where layers over a few rows run together.
    static const struct {
        size_t K, D, L;
        bool from_final;
    } heads[] = {
        {3, 2, 3, false}, {3, 2, 3, true}, {4, 1, 3, true}, {4, 3, 2, false}, {2, 2, 1, false}};
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        c = tiny_config();
        c.K = heads[i].K;
        c.D = heads[i].D;
        c.L = heads[i].L;
        c.from_final = heads[i].from_final;
        check_all_chunks(&c);
    }
}

static void test_a_reset_session_continues_as_if_fresh(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_session *s;
    const struct dm_config c = tiny_config();
    tiny_model(&m, &c);
    float *want = tiny_logits(&m, tiny_ids, 1, T, 2), *got = tiny_floats(c.K * VP);
    assert_ok(dm_session_new(&s, &m, c.K, &e), e);
    dm_session_step(s, tiny_ids, 6, got);
    dm_session_step(s, tiny_ids + T, 7, got); // tokens that are then taken back
    dm_session_reset(s, 6);
    assert_int_equal(dm_session_pos(s), 6);
    dm_session_step(s, tiny_ids + 6, T - 6, got);
    assert_memory_equal(got + VP, want + (T - 1) * VP, VP * sizeof(float));
    dm_session_reset(s, 0);
    dm_session_step(s, tiny_ids, 4, got);
    assert_memory_equal(got + VP, want + 3 * VP, VP * sizeof(float));
    dm_session_free(s);
    dm_model_release(&m);
    free(want);
    free(got);
}

static void test_a_batch_of_two_equals_two_of_one(void **state)
{
    (void)state;
    struct dm_model m;
    const struct dm_config c = tiny_config();
    tiny_model(&m, &c);
    for (size_t n = 1; n <= c.K; n++) {
        float *both = tiny_logits(&m, tiny_ids, 2, T, n);
        for (size_t b = 0; b < 2; b++) {
            float *one = tiny_logits(&m, tiny_ids + b * T, 1, T, n);
            assert_memory_equal(both + b * T * VP, one, T * VP * sizeof(float));
            free(one);
        }
        free(both);
    }
    dm_model_release(&m);
}

static void test_a_later_token_never_changes_an_earlier_row(void **state)
{
    (void)state;
    struct dm_model m;
    const struct dm_config c = tiny_config();
    int32_t other[T];
    tiny_model(&m, &c);
    memcpy(other, tiny_ids, sizeof(other));
    other[9] = 1;
    for (size_t n = 1; n <= c.K; n++) {
        float *x = tiny_logits(&m, tiny_ids, 1, T, n), *y = tiny_logits(&m, other, 1, T, n);
        assert_memory_equal(x, y, 9 * VP * sizeof(float));
        assert_memory_not_equal(x + 9 * VP, y + 9 * VP, VP * sizeof(float));
        free(x);
        free(y);
    }
    dm_model_release(&m);
}

static void test_a_copied_head_is_head_1(void **state)
{
    (void)state;
    struct dm_model m;
    const struct dm_config c = tiny_config();
    tiny_model(&m, &c);
    dm_params_init_copy(&m.params, &c);
    float *want = tiny_logits(&m, tiny_ids, 1, T, 1);
    for (size_t n = 2; n <= c.K; n++) {
        float *got = tiny_logits(&m, tiny_ids, 1, T, n);
        assert_memory_equal(got, want, T * VP * sizeof(float));
        free(got);
    }
    free(want);
    dm_model_release(&m);
}

static void copy_layer(struct dm_layer *to, const struct dm_layer *from, const struct dm_config *c)
{
#define X(field, name, rows, cols, decay, bias) \
    memcpy(to->field, from->field, sizeof(float) * (rows) * ((cols) ? (cols) : 1));
    DM_LAYER_PARAMS(X)
#undef X
}

/* Head 2 must be the same as head 1 of the base whose last layers are the head's. */
static void check_head_as_base(bool from_final, size_t D)
{
    struct dm_model m, base;
    struct dm_config c = tiny_config(), cb;
    c.from_final = from_final;
    c.D = D;
    c.K = 2;
    const size_t stem = from_final ? c.L : c.L - 1;
    cb = c;
    cb.K = 1;
    cb.L = stem + D;
    tiny_model(&m, &c);
    tiny_model(&base, &cb);
    for (size_t d = 0; d < D; d++)
        copy_layer(&base.params.layers[stem + d], &m.params.heads[d], &c);
    float *got = tiny_logits(&m, tiny_ids, 1, T, 2), *want = tiny_logits(&base, tiny_ids, 1, T, 1);
    assert_memory_equal(got, want, T * VP * sizeof(float));
    free(got);
    free(want);
    dm_model_release(&m);
    dm_model_release(&base);
}

static void test_a_head_reads_the_stem_and_shares_the_rest(void **state)
{
    (void)state;
    check_head_as_base(false, 1);
    check_head_as_base(false, 2);
    check_head_as_base(true, 1);
    check_head_as_base(true, 2);
}

static void test_a_session_does_not_depend_on_threads(void **state)
{
    (void)state;
    struct dm_model m;
    struct dm_config c = tiny_config();
    c.C = 96; // heads whose columns fill panels, so that threads share them
    c.NH = 3;
    c.HS = 32;
    c.F = 200;
    struct dm_err e;
    tiny_model(&m, &c);
    for (int fmt = DM_FMT_F32; fmt <= DM_FMT_INT4; fmt++) {
        dm_model_set_format(&m, (enum dm_format)fmt);
        assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
        for (size_t n = 3; n >= 1; n--) {
            dm_par_set_threads(n);
            check_chunks(&m, chunks, c.K);
        }
    }
    dm_par_set_threads(0);
    dm_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_match_transformers_14m),
        cmocka_unit_test(test_logits_match_transformers_head_dim_80),
        cmocka_unit_test(test_logits_match_transformers_serial_residual),
        cmocka_unit_test(test_logits_match_transformers_without_attention_bias),
        cmocka_unit_test(test_chunks_and_single_tokens_equal_the_full_pass),
        cmocka_unit_test(test_chunks_equal_the_full_pass_in_every_variant),
        cmocka_unit_test(test_a_reset_session_continues_as_if_fresh),
        cmocka_unit_test(test_a_batch_of_two_equals_two_of_one),
        cmocka_unit_test(test_a_later_token_never_changes_an_earlier_row),
        cmocka_unit_test(test_a_copied_head_is_head_1),
        cmocka_unit_test(test_a_head_reads_the_stem_and_shares_the_rest),
        cmocka_unit_test(test_a_session_does_not_depend_on_threads),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
