/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/kern.h"
#include "src/nn/linear.h"
#include "tests/ref/ref_gemm.h"

/* Runs the body once per table that this processor has, that table being in use. */
#define FOR_EACH_TABLE(k)                                                                     \
    for (const struct dm_kern *const *k = dm_kern_all(); *k || (dm_kern_force(NULL), 0); k++) \
        if ((dm_kern_force(*k), 1))

enum { N = 5, C = 13, O = 7, ROUND_MAX = 128 };

struct small {
    float inp[N * C], w[O * C], b[O], out[N * O];
    float r[N * O]; /* the loss is sum(r * out) */
    float dinp[N * C], dw[O * C], db[O];
    float pack[4096];
};

/* A float32 weight (o,c), in rows, packed, or neither where it is not needed. */
static struct dm_weight weight(const float *w, const void *pack, size_t o, size_t c)
{
    return (struct dm_weight){.O = o, .C = c, .w = w, .pack = pack};
}

static void forward(float *out, const float *inp, const float *w, const void *pack, const float *b,
                    size_t n, size_t c, size_t o)
{
    const struct dm_weight m = weight(w, pack, o, c);
    dm_linear_forward(out, inp, &m, b, n);
}

static void backward(float *dinp, float *dw, float *db, const float *dout, const float *inp,
                     const float *w, size_t n, size_t c, size_t o)
{
    const struct dm_weight m = weight(w, NULL, o, c);
    dm_linear_backward(dinp, dw, db, dout, DM_F32, inp, &m, n);
}

static void fill_small(struct small *s)
{
    memset(s, 0, sizeof(*s));
    fill_named(s->inp, N * C, "inp", 1.0f);
    fill_named(s->w, O * C, "w", 1.0f);
    fill_named(s->b, O, "b", 1.0f);
    fill_named(s->r, N * O, "r", 1.0f);
    const struct dm_weight w = weight(s->w, NULL, O, C);
    assert_true(dm_linear_pack_bytes(&w) <= sizeof(s->pack));
    dm_linear_pack(s->pack, &w);
}

static void test_forward_matches_double(void **state)
{
    (void)state;
    struct small s;
    double want[N * O];
    FOR_EACH_TABLE(k)
    {
        fill_small(&s);
        ref_gemm(want, NULL, NULL, 0, (struct dm_mat){s.inp, C, 1}, (struct dm_mat){s.w, 1, C}, N,
                 O, C);
        for (int form = 0; form < 4; form++) {
            const bool packed = form & 1;
            const float *b = form & 2 ? s.b : NULL;
            memset(s.out, 0xff, sizeof(s.out));
            forward(s.out, s.inp, packed ? NULL : s.w, packed ? s.pack : NULL, b, N, C, O);
            for (size_t i = 0; i < N * O; i++) {
                const double w = want[i] + (b ? (double)b[i % O] : 0.0);
                assert_true(fabs((double)s.out[i] - w) <= 2e-6);
            }
        }
    }
}

static double loss(void *ctx)
{
    struct small *s = ctx;
    double sum = 0.0;
    forward(s->out, s->inp, s->w, NULL, s->b, N, C, O);
    for (size_t i = 0; i < N * O; i++)
        sum += (double)s->r[i] * (double)s->out[i];
    return sum;
}

static void test_backward_is_the_derivative(void **state)
{
    (void)state;
    struct small s;
    FOR_EACH_TABLE(k)
    {
        fill_small(&s);
        backward(s.dinp, s.dw, s.db, s.r, s.inp, s.w, N, C, O);
        assert_grad(loss, &s, s.inp, s.dinp, N * C, 1e-3);
        assert_grad(loss, &s, s.w, s.dw, O * C, 1e-3);
        assert_grad(loss, &s, s.b, s.db, O, 1e-3);
    }
}

/* The layer is affine, so its adjoint is known: far tighter than differences can be. */
static void test_backward_matches_the_adjoint_in_double(void **state)
{
    (void)state;
    struct small s;
    double dinp[N * C], dw[O * C];
    FOR_EACH_TABLE(k)
    {
        fill_small(&s);
        backward(s.dinp, s.dw, s.db, s.r, s.inp, s.w, N, C, O);
        ref_gemm(dinp, NULL, NULL, 0, (struct dm_mat){s.r, O, 1}, (struct dm_mat){s.w, C, 1}, N, C,
                 O);
        ref_gemm(dw, NULL, NULL, 0, (struct dm_mat){s.r, 1, O}, (struct dm_mat){s.inp, C, 1}, O, C,
                 N);
        for (size_t i = 0; i < N * C; i++)
            assert_true(fabs((double)s.dinp[i] - dinp[i]) <= 2e-6);
        for (size_t i = 0; i < O * C; i++)
            assert_true(fabs((double)s.dw[i] - dw[i]) <= 2e-6);
        for (size_t o = 0; o < O; o++) {
            double want = 0.0;
            for (size_t n = 0; n < N; n++)
                want += (double)s.r[n * O + o];
            assert_true(fabs((double)s.db[o] - want) <= 2e-6);
        }
    }
}

static void test_backward_adds_and_skips_null(void **state)
{
    (void)state;
    struct small s, t;
    FOR_EACH_TABLE(k)
    {
        fill_small(&s);
        t = s;
        backward(s.dinp, s.dw, s.db, s.r, s.inp, s.w, N, C, O);
        for (size_t i = 0; i < N * C; i++)
            t.dinp[i] = 3.0f;
        backward(t.dinp, NULL, NULL, s.r, NULL, s.w, N, C, O);
        for (size_t i = 0; i < O * C; i++)
            t.dw[i] = -2.0f;
        backward(NULL, t.dw, NULL, s.r, s.inp, NULL, N, C, O);
        for (size_t i = 0; i < O; i++)
            assert_true(t.db[i] == 0.0f);
        t.db[0] = 1.0f;
        backward(NULL, NULL, t.db, s.r, NULL, NULL, N, C, O);
        backward(NULL, NULL, NULL, s.r, s.inp, s.w, N, C, O);
        for (size_t i = 0; i < N * C; i++)
            assert_true(fabsf(t.dinp[i] - 3.0f - s.dinp[i]) <= 3e-6f);
        for (size_t i = 0; i < O * C; i++)
            assert_true(fabsf(t.dw[i] + 2.0f - s.dw[i]) <= 3e-6f);
        for (size_t i = 0; i < O; i++)
            assert_true(fabsf(t.db[i] - (i == 0 ? 1.0f : 0.0f) - s.db[i]) <= 3e-6f);
    }
}

/* Large enough for several threads; the column sums cross their block of 2048. */
static void test_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { ROWS = 23, IN = 37, OUT = 4133 };
    static float inp[ROWS * IN], w[OUT * IN], b[OUT], r[ROWS * OUT];
    static float out[2][ROWS * OUT], dinp[2][ROWS * IN], dw[2][OUT * IN], db[2][OUT];
    fill_named(inp, ROWS * IN, "inp", 1.0f);
    fill_named(w, OUT * IN, "w", 1.0f);
    fill_named(b, OUT, "b", 1.0f);
    fill_named(r, ROWS * OUT, "r", 1.0f);
    FOR_EACH_TABLE(k)
    {
        for (size_t threads = 1; threads <= 3; threads++) {
            const size_t i = threads > 1;
            dm_par_set_threads(threads);
            memset(dinp[i], 0, sizeof(dinp[i]));
            memset(dw[i], 0, sizeof(dw[i]));
            memset(db[i], 0, sizeof(db[i]));
            forward(out[i], inp, w, NULL, b, ROWS, IN, OUT);
            backward(dinp[i], dw[i], db[i], r, inp, w, ROWS, IN, OUT);
            if (i == 0)
                continue;
            assert_memory_equal(out[1], out[0], sizeof(out[0]));
            assert_memory_equal(dinp[1], dinp[0], sizeof(dinp[0]));
            assert_memory_equal(dw[1], dw[0], sizeof(dw[0]));
            assert_memory_equal(db[1], db[0], sizeof(db[0]));
        }
        dm_par_set_threads(0);
    }
}

static void test_a_row_has_the_same_bits_alone_and_among_others(void **state)
{
    (void)state;
    enum { ROWS = 40, OUT = 37 };
    float inp[ROWS * C], w[OUT * C], b[OUT], out[ROWS * OUT], one[OUT];
    static float pack[4096];
    fill_named(inp, ROWS * C, "inp", 1.0f);
    fill_named(w, OUT * C, "w", 1.0f);
    fill_named(b, OUT, "b", 1.0f);
    FOR_EACH_TABLE(k)
    {
        const struct dm_weight m = weight(w, NULL, OUT, C);
        assert_true(dm_linear_pack_bytes(&m) <= sizeof(pack));
        dm_linear_pack(pack, &m);
        for (size_t rows = 1; rows <= ROWS; rows++) {
            forward(out, inp, w, rows & 1 ? pack : NULL, b, rows, C, OUT);
            for (size_t n = 0; n < rows; n++) {
                forward(one, inp + n * C, w, n & 1 ? pack : NULL, b, 1, C, OUT);
                assert_memory_equal(one, out + n * OUT, sizeof(one));
            }
        }
    }
}

static void round_bf16(float *x, const char *name, size_t n)
{
    unsigned char raw[2 * ROUND_MAX];
    assert_true(n <= ROUND_MAX);
    fill_named(x, n, name, 1.0f);
    dm_dtype_from_f32(raw, DM_BF16, x, n);
    dm_dtype_to_f32(x, raw, DM_BF16, n);
}

/* On numbers that bf16 holds, products in bf16 are exact, so the float32 reference holds. */
static void test_bf16_forward_and_backward_match_double(void **state)
{
    (void)state;
    float inp[N * C], w[O * C], r[N * O], out[N * O], dinp[N * C], dw[O * C];
    double want[N * O], dinp_want[N * C], dw_want[O * C];
    static char pack[4096], pack_t[4096];
    round_bf16(inp, "inp", N * C);
    round_bf16(w, "w", O * C);
    round_bf16(r, "r", N * O);
    ref_gemm(want, NULL, NULL, 0, (struct dm_mat){inp, C, 1}, (struct dm_mat){w, 1, C}, N, O, C);
    ref_gemm(dinp_want, NULL, NULL, 0, (struct dm_mat){r, O, 1}, (struct dm_mat){w, C, 1}, N, C, O);
    ref_gemm(dw_want, NULL, NULL, 0, (struct dm_mat){r, 1, O}, (struct dm_mat){inp, C, 1}, O, C, N);
    FOR_EACH_TABLE(k)
    for (int packed = 0; packed < 2; packed++) {
        struct dm_weight m = {.fmt = DM_FMT_BF16, .O = O, .C = C, .w = w};
        assert_true(dm_linear_pack_bytes(&m) <= sizeof(pack));
        assert_true(dm_linear_pack_t_bytes(&m) <= sizeof(pack_t));
        dm_linear_pack_rows(pack, &m, w, DM_F32, 0, O);
        dm_linear_pack_t(pack_t, &m);
        if (packed)
            m = (struct dm_weight){DM_FMT_BF16, O, C, NULL, pack, pack_t};
        memset(dinp, 0, sizeof(dinp));
        memset(dw, 0, sizeof(dw));
        dm_linear_forward(out, inp, &m, NULL, N);
        dm_linear_backward(dinp, dw, NULL, r, DM_F32, inp, &m, N);
        for (size_t i = 0; i < N * O; i++)
            assert_true(fabs((double)out[i] - want[i]) <= 2e-6);
        for (size_t i = 0; i < N * C; i++)
            assert_true(fabs((double)dinp[i] - dinp_want[i]) <= 2e-6);
        for (size_t i = 0; i < O * C; i++)
            assert_true(fabs((double)dw[i] - dw_want[i]) <= 2e-6);
    }
}

static float *named(size_t n, const char *name)
{
    float *x = test_malloc(n * sizeof(*x));
    fill_named(x, n, name, 1.0f);
    return x;
}

/* dout in bf16, as the loss leaves it, gives the bits of the same numbers in float32, subnormals
 * and infinities included: added and written, packed and not. */
static void check_bf16_rows(size_t n, size_t c, size_t o)
{
    float *inp = named(n * c, "inp"), *w = named(o * c, "w"), *r = named(n * o, "r");
    float *half = test_malloc(n * o * sizeof(*half));
    float *dinp[] = {named(n * c, "dinp"), named(n * c, "dinp")};
    float *dw[] = {named(o * c, "dw"), named(o * c, "dw")};
    struct dm_weight m = {.fmt = DM_FMT_BF16, .O = o, .C = c, .w = w};
    void *pack_t = test_malloc(dm_linear_pack_t_bytes(&m));
    dm_linear_pack_t(pack_t, &m);
    r[0] = 1e-39f;
    r[n * o / 3] = -1e-40f;
    r[n * o / 2] = INFINITY;
    memset(half, 0xff, n * o * sizeof(*half)); // NaN, which nothing may read
    for (size_t i = 0; i < n; i++) {
        dm_dtype_from_f32(half + i * o, DM_BF16, r + i * o, o);
        dm_dtype_to_f32(r + i * o, half + i * o, DM_BF16, o);
    }
    for (int packed = 0; packed < 2; packed++) {
        m.pack_t = packed ? pack_t : NULL;
        dm_linear_backward(dinp[0], dw[0], NULL, r, DM_F32, inp, &m, n);
        dm_linear_backward(dinp[1], dw[1], NULL, half, DM_BF16, inp, &m, n);
        assert_memory_equal(dinp[1], dinp[0], n * c * sizeof(float));
        assert_memory_equal(dw[1], dw[0], o * c * sizeof(float));
        dm_linear_backward_input(dinp[0], r, DM_F32, &m, n);
        dm_linear_backward_input(dinp[1], half, DM_BF16, &m, n);
        assert_memory_equal(dinp[1], dinp[0], n * c * sizeof(float));
    }
    float *all[] = {inp, w, r, half, dinp[0], dinp[1], dw[0], dw[1]};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        test_free(all[i]);
    test_free(pack_t);
}

/* Every edge of panels and vectors, then more of rows, outputs and inputs than a block of amx
 * (1,024) or the others has. */
static void test_backward_of_bf16_rows_has_the_bits_of_float32(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    {
        const bool slow = strcmp((*k)->name, "ref") == 0;
        for (size_t n = 1; n <= 40; n++)
            check_bf16_rows(n, 33, 29);
        for (size_t o = 1; o <= 100; o++)
            check_bf16_rows(35, 5, o);
        check_bf16_rows(slow ? 5 : 263, slow ? 7 : 37, 2111);
        check_bf16_rows(slow ? 531 : 1061, 17, 31);
        check_bf16_rows(9, slow ? 131 : 1091, 39);
        check_bf16_rows(6, 5, 25000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_matches_double),
        cmocka_unit_test(test_backward_is_the_derivative),
        cmocka_unit_test(test_backward_matches_the_adjoint_in_double),
        cmocka_unit_test(test_backward_adds_and_skips_null),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_a_row_has_the_same_bits_alone_and_among_others),
        cmocka_unit_test(test_bf16_forward_and_backward_match_double),
        cmocka_unit_test(test_backward_of_bf16_rows_has_the_bits_of_float32),
    };
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
