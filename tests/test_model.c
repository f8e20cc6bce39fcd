/* SPDX-License-Identifier: MIT */
/* The model's one forward: against transformers and PyTorch (tests/golden), and against itself in
 * every form it takes: whole sequences, chunks, single tokens, batches, threads. */
#include "tests/util.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/model/model.h"
#include "tests/golden.h"

enum { T = 13, VP = 53 };

/* A small model with K = 3 and odd sizes, filled by the golden formula. */
static struct dm_config small_config(void)
{
    return (struct dm_config){.Vp = VP,
                              .V = VP,
                              .C = 36,
                              .L = 3,
                              .NH = 3,
                              .HS = 12,
                              .F = 50,
                              .T_max = 24,
                              .rot = 6,
                              .rope_base = 10000.0,
                              .eps = 1e-5f,
                              .parallel = true,
                              .attn_bias = true,
                              .K = 3,
                              .D = 1,
                              .eos = 0};
}

static void make_model(struct dm_model *m, const struct dm_config *c)
{
    struct dm_err e;
    assert_ok(dm_model_init(m, c, &e), e);
    golden_fill(&m->params, c, DM_SCOPE_ALL);
}

static const int32_t ids[2 * T] = {5,  17, 3,  3,  44, 52, 0, 1, 29, 30, 8, 17, 3,
                                   11, 50, 51, 40, 2,  2,  2, 9, 33, 21, 7, 12, 5};

static float *floats(size_t n)
{
    float *x = malloc(n * sizeof(*x));
    assert_non_null(x);
    return x;
}

/* (B*T,Vp) of head n, new memory. */
static float *full_logits(const struct dm_model *m, const int32_t *x, size_t B, size_t len,
                          size_t n)
{
    struct dm_err e;
    struct dm_pass *p;
    float *out = floats(B * len * m->cfg.Vp);
    assert_ok(dm_pass_new(&p, &m->cfg, DM_PASS_SCORE, B, len, &e), e);
    dm_pass_logits(p, m, x, B, len, n, out);
    dm_pass_free(p);
    return out;
}

/* ---- Hugging Face parity --------------------------------------------------------------------- */

static double row_lse(const float *x, size_t n)
{
    double max = -DBL_MAX, sum = 0.0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    return max + log(sum);
}

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
    make_model(&m, &c);
    float *got = full_logits(&m, x, B, N / B, 1);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t j = 0; j < n_cols; j++) {
            const float g = got[(size_t)rows[r] * c.Vp + (size_t)cols[j]];
            assert_close(&g, &want[r * n_cols + j], 1, 1e-4, 1.0);
        }
    for (size_t n = 0; n < N; n++) {
        const float *row = got + n * c.Vp, l = (float)row_lse(row, c.Vp);
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

/* Runs ids through a session in chunks of the given lengths (0 ends the list, repeated) and
 * compares every chunk's last row with the full pass, bitwise. */
static void check_chunks(const struct dm_model *m, const size_t *chunk, size_t n_heads)
{
    struct dm_err e;
    struct dm_session *s;
    const size_t Vp = m->cfg.Vp;
    float *want[4], *got = floats(n_heads * Vp);
    for (size_t n = 1; n <= n_heads; n++)
        want[n - 1] = full_logits(m, ids, 1, T, n);
    assert_ok(dm_session_new(&s, m, n_heads, &e), e);
    for (size_t pos = 0, i = 0; pos < T; i++) {
        if (!chunk[i])
            i = 0;
        const size_t n = chunk[i] < T - pos ? chunk[i] : T - pos;
        dm_session_step(s, ids + pos, n, got);
        pos += n;
        assert_int_equal(dm_session_pos(s), pos);
        for (size_t k = 0; k < n_heads; k++)
            assert_memory_equal(got + k * Vp, want[k] + (pos - 1) * Vp, Vp * sizeof(float));
    }
    dm_session_free(s);
    for (size_t n = 0; n < n_heads; n++)
        free(want[n]);
    free(got);
}

static const size_t ones[] = {1, 0}, chunks[] = {3, 1, 5, 2, 0}, whole[] = {T, 0};

static void check_all_chunks(const struct dm_config *c)
{
    struct dm_err e;
    struct dm_model m;
    make_model(&m, c);
    for (int packed = 0; packed < 2; packed++) {
        check_chunks(&m, whole, c->K);
        check_chunks(&m, ones, c->K);
        check_chunks(&m, chunks, c->K);
        check_chunks(&m, chunks, 1);
        assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
    }
    dm_model_release(&m);
}

static void test_chunks_and_single_tokens_equal_the_full_pass(void **state)
{
    (void)state;
    const struct dm_config c = small_config();
    check_all_chunks(&c);
}

static void test_chunks_equal_the_full_pass_in_every_variant(void **state)
{
    (void)state;
    struct dm_config c = small_config();
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
}

static void test_a_reset_session_continues_as_if_fresh(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_session *s;
    const struct dm_config c = small_config();
    make_model(&m, &c);
    float *want = full_logits(&m, ids, 1, T, 2), *got = floats(c.K * VP);
    assert_ok(dm_session_new(&s, &m, c.K, &e), e);
    dm_session_step(s, ids, 6, got);
    dm_session_step(s, ids + T, 7, got); // tokens that are then taken back
    dm_session_reset(s, 6);
    assert_int_equal(dm_session_pos(s), 6);
    dm_session_step(s, ids + 6, T - 6, got);
    assert_memory_equal(got + VP, want + (T - 1) * VP, VP * sizeof(float));
    dm_session_reset(s, 0);
    dm_session_step(s, ids, 4, got);
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
    const struct dm_config c = small_config();
    make_model(&m, &c);
    for (size_t n = 1; n <= c.K; n++) {
        float *both = full_logits(&m, ids, 2, T, n);
        for (size_t b = 0; b < 2; b++) {
            float *one = full_logits(&m, ids + b * T, 1, T, n);
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
    const struct dm_config c = small_config();
    int32_t other[T];
    make_model(&m, &c);
    memcpy(other, ids, sizeof(other));
    other[9] = 1;
    for (size_t n = 1; n <= c.K; n++) {
        float *x = full_logits(&m, ids, 1, T, n), *y = full_logits(&m, other, 1, T, n);
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
    const struct dm_config c = small_config();
    make_model(&m, &c);
    dm_params_init_copy(&m.params, &c);
    float *want = full_logits(&m, ids, 1, T, 1);
    for (size_t n = 2; n <= c.K; n++) {
        float *got = full_logits(&m, ids, 1, T, n);
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
    struct dm_config c = small_config(), cb;
    c.from_final = from_final;
    c.D = D;
    c.K = 2;
    const size_t stem = from_final ? c.L : c.L - 1;
    cb = c;
    cb.K = 1;
    cb.L = stem + D;
    make_model(&m, &c);
    make_model(&base, &cb);
    for (size_t d = 0; d < D; d++)
        copy_layer(&base.params.layers[stem + d], &m.params.heads[d], &c);
    float *got = full_logits(&m, ids, 1, T, 2), *want = full_logits(&base, ids, 1, T, 1);
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

/* ---- Scores, losses and gradients ------------------------------------------------------------ */

static void test_score_is_log_softmax_and_rank_of_the_logits(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_pass *p;
    const struct dm_config c = small_config();
    float logp[3 * 2 * T];
    int32_t rank[3 * 2 * T];
    make_model(&m, &c);
    assert_ok(dm_pass_new(&p, &c, DM_PASS_SCORE, 2, T, &e), e);
    dm_pass_score(p, &m, ids, 2, T, 3, logp, rank);
    for (size_t n = 1; n <= 3; n++) {
        float *logits = full_logits(&m, ids, 2, T, n);
        for (size_t i = 0; i < 2 * T; i++) {
            const size_t t = i % T, at = (n - 1) * 2 * T + i;
            const float *row = logits + i * VP;
            if (t + n >= T) {
                assert_true(logp[at] == 0.0f && rank[at] == -1);
                continue;
            }
            const int32_t x = ids[i + n];
            const float want = (float)((double)row[x] - row_lse(row, VP));
            int32_t better = 0;
            for (int32_t v = 0; v < VP; v++)
                better += row[v] > row[x] || (row[v] == row[x] && v < x);
            assert_close(&logp[at], &want, 1, 2e-6, 1.0);
            assert_int_equal(rank[at], better);
        }
        free(logits);
    }
    float alone[2 * T];
    dm_pass_score(p, &m, ids, 2, T, 1, alone, NULL);
    assert_memory_equal(alone, logp, sizeof(alone));
    dm_pass_free(p);
    dm_model_release(&m);
}

struct trained {
    struct dm_params grads;
    struct dm_arena mem;
    double loss[3];
};

static void train_once(struct trained *t, const struct dm_model *m, enum dm_pass_kind kind,
                       const int32_t *x, size_t B, size_t len, float scale, const float *weight)
{
    struct dm_err e;
    struct dm_pass *p;
    const enum dm_scope scope = kind == DM_PASS_BASE ? DM_SCOPE_BASE : DM_SCOPE_HEADS;
    assert_ok(dm_params_new(&t->grads, &t->mem, &m->cfg, scope, &e), e);
    assert_ok(dm_pass_new(&p, &m->cfg, kind, B, len, &e), e);
    dm_pass_train(p, m, &t->grads, x, B, len, scale, weight, t->loss);
    dm_pass_free(p);
}

/* Loss, log p of every position and every gradient of a golden training file. */
static void check_training(const char *file, enum dm_pass_kind kind)
{
    enum { B = 4, LEN = 16 };
    struct dm_err e;
    struct dm_config c;
    struct dm_model m;
    struct trained t;
    struct dm_pass *p;
    struct dm_h5 *f = golden_open(file, &c);
    int32_t *x = golden_read(f, "ids", DM_H5_I32, NULL);
    double *loss = golden_read(f, "loss", DM_H5_F64, NULL);
    const size_t first = kind == DM_PASS_BASE ? 1 : 2;
    make_model(&m, &c);
    dm_params_init_copy(&m.params, &c);
    train_once(&t, &m, kind, x, B, LEN, 1.0f, NULL);
    float logp[3 * B * LEN];
    assert_ok(dm_pass_new(&p, &c, DM_PASS_SCORE, B, LEN, &e), e);
    dm_pass_score(p, &m, x, B, LEN, c.K, logp, NULL);
    dm_pass_free(p);
    for (size_t n = 1; n <= c.K; n++) {
        char name[32] = "logp";
        if (n < first) {
            assert_true(isnan(t.loss[n - 1]));
            continue;
        }
        if (kind == DM_PASS_HEADS)
            snprintf(name, sizeof(name), "logp/%zu", n);
        double *want = golden_read(f, name, DM_H5_F64, NULL), sum = 0.0;
        for (size_t b = 0; b < B; b++)
            for (size_t i = 0; i < LEN - n; i++) {
                const float w = (float)want[b * (LEN - n) + i];
                assert_close(&logp[((n - 1) * B + b) * LEN + i], &w, 1, 2e-5, 1.0);
                sum -= (double)logp[((n - 1) * B + b) * LEN + i];
            }
        assert_true(fabs(t.loss[n - 1] - loss[n - first]) < 1e-5);
        assert_true(fabs(t.loss[n - 1] - sum / (double)(B * (LEN - n))) < 1e-6);
        free(want);
    }
    struct dm_tensor list[128];
    const enum dm_scope scope = kind == DM_PASS_BASE ? DM_SCOPE_BASE : DM_SCOPE_HEADS;
    const size_t n_list = dm_params_list(&t.grads, &c, scope, NULL);
    assert_true(n_list <= 128);
    dm_params_list(&t.grads, &c, scope, list);
    for (size_t i = 0; i < n_list; i++) {
        char name[160];
        size_t n;
        snprintf(name, sizeof(name), "grad/%s", list[i].name);
        float *want = golden_read(f, name, DM_H5_F32, &n);
        double square = 0.0;
        assert_int_equal(n, list[i].n);
        for (size_t j = 0; j < n; j++)
            square += (double)want[j] * (double)want[j];
        assert_close(list[i].data, want, n, 5e-5, sqrt(square / (double)n));
        free(want);
    }
    dm_arena_release(&t.mem);
    dm_model_release(&m);
    free(loss);
    free(x);
    dm_h5_close(f);
}

static void test_base_loss_and_gradients_match_pytorch(void **state)
{
    (void)state;
    check_training("train_base.h5", DM_PASS_BASE);
}

static void test_head_losses_and_gradients_match_pytorch(void **state)
{
    (void)state;
    check_training("train_heads.h5", DM_PASS_HEADS);
}

static void test_training_adds_scaled_and_weighted_gradients(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_pass *p;
    struct trained one, more;
    const struct dm_config c = small_config();
    const float weight[] = {1.0f, 2.0f, 0.0f};
    struct dm_tensor a[64], b[64];
    make_model(&m, &c);
    train_once(&one, &m, DM_PASS_HEADS, ids, 2, T, 1.0f, NULL);
    train_once(&more, &m, DM_PASS_HEADS, ids, 2, T, 0.25f, weight);
    assert_ok(dm_pass_new(&p, &c, DM_PASS_HEADS, 2, T, &e), e);
    dm_pass_train(p, &m, &more.grads, ids, 2, T, 0.25f, weight, more.loss);
    dm_pass_free(p);
    // Twice a quarter of twice the loss of head 2 is that loss; head 3 has weight 0.
    const size_t n = dm_params_list(&one.grads, &c, DM_SCOPE_HEADS, a);
    dm_params_list(&more.grads, &c, DM_SCOPE_HEADS, b);
    for (size_t i = 0; i < n; i++)
        if (a[i].index == 2)
            assert_close(b[i].data, a[i].data, a[i].n, 1e-5, 1e-4);
        else
            for (size_t j = 0; j < b[i].n; j++)
                assert_true(b[i].data[j] == 0.0f);
    assert_memory_equal(one.loss + 1, more.loss + 1, 2 * sizeof(double));
    dm_arena_release(&one.mem);
    dm_arena_release(&more.mem);
    dm_model_release(&m);
}

static void assert_same_grads(const struct trained *x, const struct trained *y,
                              const struct dm_config *c, enum dm_scope scope)
{
    struct dm_tensor a[64], b[64];
    const size_t n = dm_params_list(&x->grads, c, scope, NULL);
    assert_true(n <= 64);
    dm_params_list(&x->grads, c, scope, a);
    dm_params_list(&y->grads, c, scope, b);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(a[i].data, b[i].data, a[i].n * sizeof(float));
}

static void test_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    struct dm_model m;
    const struct dm_config c = small_config();
    float *logits[3];
    struct trained base[3], heads[3];
    make_model(&m, &c);
    for (size_t i = 0; i < 3; i++) {
        dm_par_set_threads(i + 1);
        logits[i] = full_logits(&m, ids, 2, T, 2);
        train_once(&base[i], &m, DM_PASS_BASE, ids, 2, T, 1.0f, NULL);
        train_once(&heads[i], &m, DM_PASS_HEADS, ids, 2, T, 1.0f, NULL);
        check_chunks(&m, chunks, c.K);
    }
    dm_par_set_threads(0);
    for (size_t i = 1; i < 3; i++) {
        assert_memory_equal(logits[i], logits[0], 2 * T * VP * sizeof(float));
        assert_same_grads(&base[i], &base[0], &c, DM_SCOPE_BASE);
        assert_same_grads(&heads[i], &heads[0], &c, DM_SCOPE_HEADS);
        assert_memory_equal(base[i].loss, base[0].loss, sizeof(double));
        assert_memory_equal(heads[i].loss + 1, heads[0].loss + 1, 2 * sizeof(double));
    }
    for (size_t i = 0; i < 3; i++) {
        free(logits[i]);
        dm_arena_release(&base[i].mem);
        dm_arena_release(&heads[i].mem);
    }
    dm_model_release(&m);
}

static void test_a_pass_takes_smaller_batches(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_pass *p;
    const struct dm_config c = small_config();
    make_model(&m, &c);
    float *want = full_logits(&m, ids, 1, 5, 3), *got = floats(5 * VP);
    assert_ok(dm_pass_new(&p, &c, DM_PASS_SCORE, 2, T, &e), e);
    dm_pass_logits(p, &m, ids, 1, 5, 3, got);
    assert_memory_equal(got, want, 5 * VP * sizeof(float));
    dm_pass_free(p);
    dm_model_release(&m);
    free(want);
    free(got);
}

static void test_short_memory_is_reported(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_pass *p;
    struct dm_session *s;
    const struct dm_config c = small_config();
    for (size_t n = 1, left = 0; !left; n++) {
        dm_alloc_fail_at(n);
        enum dm_status st = dm_model_init(&m, &c, &e);
        enum dm_status sp = st ? st : dm_pass_new(&p, &c, DM_PASS_HEADS, 2, T, &e);
        enum dm_status ss = sp ? sp : dm_session_new(&s, &m, c.K, &e);
        enum dm_status sk = ss ? ss : dm_model_pack(&m, DM_SCOPE_ALL, &e);
        left = dm_alloc_fail_at(0);
        assert_int_equal(sk, left ? DM_OK : DM_ENOMEM);
        if (!ss)
            dm_session_free(s);
        if (!sp)
            dm_pass_free(p);
        if (!st)
            dm_model_release(&m);
    }
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
        cmocka_unit_test(test_score_is_log_softmax_and_rank_of_the_logits),
        cmocka_unit_test(test_base_loss_and_gradients_match_pytorch),
        cmocka_unit_test(test_head_losses_and_gradients_match_pytorch),
        cmocka_unit_test(test_training_adds_scaled_and_weighted_gradients),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_a_pass_takes_smaller_batches),
        cmocka_unit_test(test_short_memory_is_reported),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
