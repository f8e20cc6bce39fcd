/* SPDX-License-Identifier: MIT */
#include "src/nn/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/format.h"
#include "tests/ref/nn.h"

/* One case: dense q, k, v (B,T,NH,HS) and what comes of them. */
struct run {
    size_t B, T, NH, HS, n; /* n = B*T*NH*HS */
    float *q, *k, *v, *out, *lse, *r, *dq, *dk, *dv;
    double *qd, *kd, *vd, *rd, *outd;
};

static struct dm_heads dense(float *p, size_t T, size_t NH, size_t HS)
{
    const struct dm_heads h = {p, T * NH * HS, NH * HS, HS};
    return h;
}

static struct dm_heads heads(const struct run *a, float *p)
{
    return dense(p, a->T, a->NH, a->HS);
}

static float *scratch_new(size_t T_max, size_t HS)
{
    float *s = malloc(dm_attention_scratch(T_max, HS) * sizeof(*s));
    assert_non_null(s);
    return s;
}

static void run_init(struct run *a, size_t B, size_t T, size_t NH, size_t HS)
{
    float **f[] = {&a->q, &a->k, &a->v, &a->out, &a->lse, &a->r, &a->dq, &a->dk, &a->dv};
    double **d[] = {&a->qd, &a->kd, &a->vd, &a->rd, &a->outd};
    a->B = B;
    a->T = T;
    a->NH = NH;
    a->HS = HS;
    a->n = B * T * NH * HS;
    for (size_t i = 0; i < sizeof(f) / sizeof(f[0]); i++)
        assert_non_null(*f[i] = calloc(a->n, sizeof(float)));
    for (size_t i = 0; i < sizeof(d) / sizeof(d[0]); i++)
        assert_non_null(*d[i] = calloc(a->n, sizeof(double)));
    fill_both(a->q, a->qd, a->n, "q", 2.0f);
    fill_both(a->k, a->kd, a->n, "k", 2.0f);
    fill_both(a->v, a->vd, a->n, "v", 1.0f);
    fill_both(a->r, a->rd, a->n, "r", 1.0f);
}

static void run_release(struct run *a)
{
    float *f[] = {a->q, a->k, a->v, a->out, a->lse, a->r, a->dq, a->dk, a->dv};
    double *d[] = {a->qd, a->kd, a->vd, a->rd, a->outd};
    for (size_t i = 0; i < sizeof(f) / sizeof(f[0]); i++)
        free(f[i]);
    for (size_t i = 0; i < sizeof(d) / sizeof(d[0]); i++)
        free(d[i]);
}

static void run_forward(struct run *a)
{
    float *s = scratch_new(a->T, a->HS);
    dm_attention_forward(heads(a, a->out), a->lse, heads(a, a->q), heads(a, a->k), heads(a, a->v),
                         a->B, a->T, 0, a->NH, a->HS, s);
    free(s);
}

static void run_backward(struct run *a, float *dq, float *dk, float *dv)
{
    float *s = scratch_new(a->T, a->HS);
    dm_attention_backward(heads(a, dq), heads(a, dk), heads(a, dv), heads(a, a->r),
                          heads(a, a->out), a->lse, heads(a, a->q), heads(a, a->k), heads(a, a->v),
                          a->B, a->T, a->NH, a->HS, s);
    free(s);
}

/* B, T, NH, HS: below and above the tiles, vector widths and their remainders. */
static const size_t shapes[][4] = {{2, 7, 3, 5},  {1, 1, 1, 1},    {1, 17, 2, 13},
                                   {2, 67, 1, 8}, {1, 100, 2, 80}, {1, 33, 1, 64}};
enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static void test_forward_matches_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct run a;
        run_init(&a, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
        double *lse = calloc(a.n, sizeof(*lse));
        assert_non_null(lse);
        ref_attention(a.outd, lse, a.qd, a.kd, a.vd, a.B, a.T, 0, a.NH, a.HS);
        FOR_EACH_KERN
        {
            run_forward(&a);
            assert_close_ref(a.out, a.outd, a.n, 1e-5, 0.3);
            assert_close_ref(a.lse, lse, a.B * a.NH * a.T, 1e-6, 1.0);
        }
        free(lse);
        run_release(&a);
    }
}

/* With v = 1 everywhere the output is the sum of the probabilities. */
static void test_probabilities_sum_to_1(void **state)
{
    struct run a;
    (void)state;
    run_init(&a, 1, 40, 2, 9);
    for (size_t i = 0; i < a.n; i++)
        a.v[i] = 1.0f;
    FOR_EACH_KERN
    {
        run_forward(&a);
        for (size_t i = 0; i < a.n; i++)
            assert_true(fabs((double)a.out[i] - 1.0) < 2e-6);
    }
    run_release(&a);
}

static void test_later_tokens_do_not_change_earlier_rows(void **state)
{
    struct run a;
    enum { KEEP = 21 };
    (void)state;
    run_init(&a, 1, 40, 2, 9);
    float *before = malloc(a.n * sizeof(*before));
    assert_non_null(before);
    const size_t row = a.NH * a.HS;
    FOR_EACH_KERN
    {
        fill_named(a.k, a.n, "k", 2.0f);
        fill_named(a.v, a.n, "v", 1.0f);
        run_forward(&a);
        memcpy(before, a.out, a.n * sizeof(*before));
        for (size_t i = KEEP * row; i < a.n; i++) { // nothing could leak through a weight of 0
            a.k[i] = i % 2 ? NAN : INFINITY;
            a.v[i] = NAN;
        }
        run_forward(&a);
        assert_memory_equal(a.out, before, KEEP * row * sizeof(*before));
        assert_memory_not_equal(a.out + KEEP * row, before + KEEP * row, row * sizeof(*before));
    }
    free(before);
    run_release(&a);
}

/* 101 tokens in chunks, as a KV cache sees them. */
static void check_chunks(size_t B, size_t NH, size_t HS)
{
    static const size_t chunks[] = {1, 1, 3, 30, 16, 2, 47, 1};
    struct run a;
    run_init(&a, B, 101, NH, HS);
    float *out = malloc(a.n * sizeof(*out)), *s = scratch_new(a.T, HS);
    float *lse = malloc(a.n * sizeof(*lse));
    assert_true(out && lse);
    run_forward(&a);
    size_t pos = 0;
    for (size_t c = 0; c < sizeof(chunks) / sizeof(chunks[0]); c++) {
        const size_t at = pos * NH * HS, n = chunks[c];
        dm_attention_forward(heads(&a, out + at), lse, heads(&a, a.q + at), heads(&a, a.k),
                             heads(&a, a.v), B, n, pos, NH, HS, s);
        for (size_t i = 0; i < B * NH; i++)
            assert_memory_equal(lse + i * n, a.lse + i * a.T + pos, n * sizeof(*lse));
        pos += n;
    }
    assert_int_equal(pos, a.T);
    assert_memory_equal(out, a.out, a.n * sizeof(*out));
    free(out);
    free(lse);
    free(s);
    run_release(&a);
}

static void test_chunks_have_the_bits_of_the_whole(void **state)
{
    (void)state;
    FOR_EACH_KERN
    {
        check_chunks(2, 3, 20);
        check_chunks(1, 1, 64);
        check_chunks(1, 2, 1);
    }
}

/* The layouts the model uses: q, k, v inside rows of 3C floats per head, against dense arrays;
 * and a batch of 2 against each sequence alone. */
static void test_strides_and_batch_do_not_change_bits(void **state)
{
    struct run a;
    (void)state;
    run_init(&a, 2, 19, 3, 11);
    float *qkv = malloc(3 * a.n * sizeof(*qkv)), *out = malloc(a.n * sizeof(*out));
    float *s = scratch_new(a.T, a.HS);
    assert_true(qkv && out);
    for (size_t i = 0; i < a.n / a.HS; i++) {
        memcpy(qkv + (3 * i) * a.HS, a.q + i * a.HS, a.HS * sizeof(*qkv));
        memcpy(qkv + (3 * i + 1) * a.HS, a.k + i * a.HS, a.HS * sizeof(*qkv));
        memcpy(qkv + (3 * i + 2) * a.HS, a.v + i * a.HS, a.HS * sizeof(*qkv));
    }
    const size_t bs = a.T * a.NH * a.HS;
    FOR_EACH_KERN
    {
        run_forward(&a);
        for (size_t b = 0; b < 2; b++) {
            float *p = qkv + b * 3 * bs;
            const struct dm_heads q = {p, 3 * bs, 3 * a.NH * a.HS, 3 * a.HS};
            struct dm_heads k = q, v = q;
            k.p += a.HS;
            v.p += 2 * a.HS;
            dm_attention_forward(heads(&a, out + b * bs), NULL, q, k, v, 1, a.T, 0, a.NH, a.HS, s);
        }
        assert_memory_equal(out, a.out, a.n * sizeof(*out));
    }
    free(qkv);
    free(out);
    free(s);
    run_release(&a);
}

static double loss(void *ctx)
{
    struct run *a = ctx;
    ref_attention(a->outd, NULL, a->qd, a->kd, a->vd, a->B, a->T, 0, a->NH, a->HS);
    return ref_dot(a->outd, a->rd, a->n);
}

static void test_gradients(void **state)
{
    static const size_t grads[][4] = {{2, 7, 3, 5}, {1, 35, 1, 3}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct run a;
        run_init(&a, grads[i][0], grads[i][1], grads[i][2], grads[i][3]);
        FOR_EACH_KERN
        {
            memset(a.dq, 0, a.n * sizeof(float));
            memset(a.dk, 0, a.n * sizeof(float));
            memset(a.dv, 0, a.n * sizeof(float));
            run_forward(&a);
            run_backward(&a, a.dq, a.dk, a.dv);
            assert_grad_ref(loss, &a, a.qd, a.dq, a.n, 1e-4);
            assert_grad_ref(loss, &a, a.kd, a.dk, a.n, 1e-4);
            assert_grad_ref(loss, &a, a.vd, a.dv, a.n, 1e-4);
        }
        run_release(&a);
    }
}

/* Too large for a difference per element: along a random direction of 50 rows at a time. */
static void test_gradients_of_a_long_sequence_along_directions(void **state)
{
    struct run a;
    const double h = 1e-5;
    (void)state;
    run_init(&a, 1, 150, 1, 40);
    run_forward(&a);
    run_backward(&a, a.dq, a.dk, a.dv);
    double *x[3] = {a.qd, a.kd, a.vd};
    const float *dx[3] = {a.dq, a.dk, a.dv};
    for (size_t w = 0; w < 3; w++)
        for (size_t first = 0; first < 150; first += 50) { // 50 rows at a time
            double claim = 0.0, size = 0.0, side[2];
            const size_t from = first * 40, to = from + 50 * 40;
            for (size_t i = from; i < to; i++) {
                claim += a.rd[i] * (double)dx[w][i];
                size += pow(a.rd[i] * (double)dx[w][i], 2.0);
            }
            for (int s = 0; s < 2; s++) {
                for (size_t i = from; i < to; i++)
                    x[w][i] += (s ? -2.0 : 1.0) * h * a.rd[i];
                side[s] = loss(&a);
            }
            for (size_t i = from; i < to; i++)
                x[w][i] += h * a.rd[i];
            const double want = (side[0] - side[1]) / (2.0 * h);
            assert_true(fabs(claim - want) <= 2e-4 * fmax(fabs(want), sqrt(size)));
        }
    run_release(&a);
}

static void test_backward_writes_and_skips_null(void **state)
{
    struct run a;
    (void)state;
    run_init(&a, 1, 18, 2, 6);
    run_forward(&a);
    run_backward(&a, a.dq, a.dk, a.dv);
    float *d = malloc(a.n * sizeof(*d));
    assert_non_null(d);
    for (size_t i = 0; i < 3; i++) {
        fill_named(d, a.n, "old", 1.0f);
        run_backward(&a, i == 0 ? d : NULL, i == 1 ? d : NULL, i == 2 ? d : NULL);
        assert_memory_equal(d, i == 0 ? a.dq : i == 1 ? a.dk : a.dv, a.n * sizeof(*d));
    }
    run_backward(&a, NULL, NULL, NULL);
    free(d);
    run_release(&a);
}

static void test_thread_count_does_not_change_bits(void **state)
{
    struct run a[3];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        dm_par_set_threads(i + 1);
        run_init(&a[i], 1, 90, 5, 16);
        run_forward(&a[i]);
        run_backward(&a[i], a[i].dq, a[i].dk, a[i].dv);
        const size_t bytes = a[0].n * sizeof(float);
        assert_memory_equal(a[i].out, a[0].out, bytes);
        assert_memory_equal(a[i].lse, a[0].lse, bytes / 16);
        assert_memory_equal(a[i].dq, a[0].dq, bytes);
        assert_memory_equal(a[i].dk, a[0].dk, bytes);
        assert_memory_equal(a[i].dv, a[0].dv, bytes);
    }
    for (size_t i = 0; i < 3; i++)
        run_release(&a[i]);
    dm_par_set_threads(0);
}

/* Runs the rows of a (B = 1) through a cache, n of them at a time, and compares with a->out. */
static void check_cached(const struct run *a, const struct dm_kv *kv, size_t n, float *out)
{
    float *s = scratch_new(a->T, a->HS), *few = calloc(DM_ATTENTION_FEW * kv->T_max, sizeof(*few));
    assert_non_null(few);
    for (size_t t = 0; t < a->T; t += n) {
        const size_t m = a->T - t < n ? a->T - t : n, at = t * a->NH * a->HS;
        const struct dm_heads q = heads(a, a->q + at), y = heads(a, out + at);
        dm_kv_put(kv, heads(a, a->k + at), heads(a, a->v + at), m, t, 0, a->NH, a->HS);
        if (m <= DM_ATTENTION_FEW) { // in two parts, as two threads would
            dm_attention_few(y, q, kv, m, t, NULL, 0, a->NH / 2, a->HS, few);
            dm_attention_few(y, q, kv, m, t, NULL, a->NH / 2, a->NH, a->HS, few);
            assert_memory_equal(out + at, a->out + at, m * a->NH * a->HS * sizeof(float));
        }
        dm_attention_cached(y, q, kv, m, t, a->NH, a->HS, s);
        assert_memory_equal(out + at, a->out + at, m * a->NH * a->HS * sizeof(float));
    }
    free(few);
    free(s);
}

static void test_a_cache_has_the_bits_of_the_rows_however_they_come(void **state)
{
    (void)state;
    static const size_t chunk[] = {1, 2, 3, 4, 7, 64};
    for (size_t i = 0; i < N_SHAPES; i++)
        for (int half = 0; half < 2; half++) {
            struct run a;
            run_init(&a, 1, shapes[i][1], shapes[i][2], shapes[i][3]);
            if (half) {
                dm_heads_round(heads(&a, a.k), 1, a.T, a.NH, a.HS);
                dm_heads_round(heads(&a, a.v), 1, a.T, a.NH, a.HS);
            }
            const size_t t_max = (a.T + DM_PANEL - 1) / DM_PANEL * DM_PANEL;
            const size_t n = t_max * a.NH * a.HS;
            float *k = malloc(n * sizeof(*k)), *v = malloc(n * sizeof(*v));
            float *out = malloc(a.n * sizeof(*out));
            assert_true(k && v && out);
            FOR_EACH_KERN
            {
                run_forward(&a);
                for (size_t c = 0; c < sizeof(chunk) / sizeof(chunk[0]); c++) {
                    memset(k, 0xff, n * sizeof(*k)); // NaN wherever no row has been put
                    memset(v, 0xff, n * sizeof(*v));
                    const struct dm_kv kv = {k, v, half, t_max};
                    check_cached(&a, &kv, chunk[c], out);
                }
            }
            free(k);
            free(v);
            free(out);
            run_release(&a);
        }
}

static void test_rounding_keeps_bf16_and_nan(void **state)
{
    (void)state;
    float x[] = {1.0f, 1.00390625f, 1.01171875f, -3.0e38f, NAN, 3.4e38f};
    const float want[] = {1.0f, 1.0f, 1.015625f, -3.004e38f, 0.0f, INFINITY};
    dm_heads_round(dense(x, 1, 1, 6), 1, 1, 1, 6);
    for (size_t i = 0; i < 6; i++)
        if (i == 4)
            assert_true(isnan(x[i]));
        else if (isinf(want[i]))
            assert_true(isinf(x[i]));
        else
            assert_close(x + i, want + i, 1, i == 3 ? 1e-2 : 0.0, 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_matches_reference),
        cmocka_unit_test(test_probabilities_sum_to_1),
        cmocka_unit_test(test_later_tokens_do_not_change_earlier_rows),
        cmocka_unit_test(test_chunks_have_the_bits_of_the_whole),
        cmocka_unit_test(test_a_cache_has_the_bits_of_the_rows_however_they_come),
        cmocka_unit_test(test_rounding_keeps_bf16_and_nan),
        cmocka_unit_test(test_strides_and_batch_do_not_change_bits),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_gradients_of_a_long_sequence_along_directions),
        cmocka_unit_test(test_backward_writes_and_skips_null),
        cmocka_unit_test(test_thread_count_does_not_change_bits),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
