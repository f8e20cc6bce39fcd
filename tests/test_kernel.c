/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/gemm.h"
#include "src/kernel/kern.h"
#include "tests/ref/ref_gemm.h"

/* Runs the body once per table that this processor has, that table being in use. */
#define FOR_EACH_TABLE(k)                                                                     \
    for (const struct dm_kern *const *k = dm_kern_all(); *k || (dm_kern_force(NULL), 0); k++) \
        if ((dm_kern_force(*k), 1))

static float *named(size_t n, const char *name, float scale)
{
    float *x = test_malloc((n ? n : 1) * sizeof(*x));
    fill_named(x, n, name, scale);
    return x;
}

static void test_ref_is_first_and_force_selects(void **state)
{
    (void)state;
    assert_string_equal(dm_kern_all()[0]->name, "ref");
    FOR_EACH_TABLE(k)
    {
        assert_ptr_equal(dm_kern(), *k);
        assert_true((*k)->mr >= 1 && (*k)->nr >= 1);
    }
}

static void test_environment_chooses_a_table(void **state)
{
    (void)state;
    for (const struct dm_kern *const *k = dm_kern_all(); *k; k++) {
        setenv("DM_ISA", (*k)->name, 1);
        dm_kern_force(NULL);
        assert_ptr_equal(dm_kern(), *k);
    }
    const struct dm_kern *widest = dm_kern();
    setenv("DM_ISA", "no such processor", 1);
    dm_kern_force(NULL);
    assert_ptr_equal(dm_kern(), widest);
    unsetenv("DM_ISA");
    dm_kern_force(NULL);
    assert_ptr_equal(dm_kern(), widest);
}

static const enum dm_format formats[] = {DM_FMT_F32, DM_FMT_BF16};
#define FOR_EACH_FORMAT(f) for (size_t f = 0; f < sizeof(formats) / sizeof(*formats); f++)

static void product(enum dm_format fmt, float *c, size_t ldc, bool add, struct dm_mat a,
                    struct dm_mat b, size_t M, size_t N, size_t K)
{
    dm_gemm(&(struct dm_gemm){
        .fmt = fmt, .c = c, .ldc = ldc, .add = add, .a = a, .b = b, .M = M, .N = N, .K = K});
}

/* n numbers as the format sees them. */
static void rounded(float *x, const float *from, size_t n, enum dm_format fmt)
{
    memcpy(x, from, n * sizeof(*x));
    if (fmt == DM_FMT_BF16) {
        uint16_t *h = test_malloc((n ? n : 1) * sizeof(*h));
        dm_dtype_from_f32(h, DM_BF16, from, n);
        dm_dtype_to_f32(x, h, DM_BF16, n);
        test_free(h);
    }
}

/* One product in the four ways to lay out A and B, written and added, against double. */
static void check_product(enum dm_format fmt, size_t M, size_t N, size_t K)
{
    const size_t ldc = N + 3;
    float *am = named(M * K, "a", 1.0f), *bm = named(K * N, "b", 1.0f);
    float *ar = named(M * K, "a", 1.0f), *br = named(K * N, "b", 1.0f);
    float *c = named(M * ldc, "c", 1.0f), *c0 = named(M * ldc, "c", 1.0f);
    double *want = test_malloc(M * N * sizeof(*want)), *size = test_malloc(M * N * sizeof(*size));
    rounded(ar, am, M * K, fmt);
    rounded(br, bm, K * N, fmt);
    for (int form = 0; form < 8; form++) {
        const size_t ars = form & 1 ? 1 : K, acs = form & 1 ? M : 1;
        const size_t brs = form & 2 ? 1 : N, bcs = form & 2 ? K : 1;
        memcpy(c, c0, M * ldc * sizeof(*c));
        product(fmt, c, ldc, form & 4, (struct dm_mat){am, ars, acs}, (struct dm_mat){bm, brs, bcs},
                M, N, K);
        ref_gemm(want, size, form & 4 ? c0 : NULL, ldc, (struct dm_mat){ar, ars, acs},
                 (struct dm_mat){br, brs, bcs}, M, N, K);
        for (size_t i = 0; i < M * ldc; i++) {
            const size_t m = i / ldc, n = i % ldc;
            if (n >= N) { // the gap between rows stays
                assert_memory_equal(&c[i], &c0[i], sizeof(*c));
                continue;
            }
            const double err = fabs((double)c[i] - want[m * N + n]);
            if (!(err <= 1e-6 * (size[m * N + n] + 1e-30) * sqrt((double)K)))
                fail_msg("%s format %d %zux%zux%zu form %d at (%zu,%zu): %g, want %g",
                         dm_kern()->name, (int)fmt, M, N, K, form, m, n, (double)c[i],
                         want[m * N + n]);
        }
    }
    test_free(am);
    test_free(bm);
    test_free(ar);
    test_free(br);
    test_free(c);
    test_free(c0);
    test_free(want);
    test_free(size);
}

static void test_gemm_matches_double_at_odd_sizes(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{5, 7, 13},   {1, 1, 1},   {1, 33, 2},
                                      {14, 32, 9},  {15, 31, 8}, {29, 65, 17},
                                      {6, 16, 100}, {40, 9, 33}, {3, 100, 1}};
    FOR_EACH_TABLE(k)
    FOR_EACH_FORMAT(f)
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        check_product(formats[f], sizes[i][0], sizes[i][1], sizes[i][2]);
}

/* Beyond every block but the 1024 rows of amx: 252 rows, 1024 columns, DM_KC words of K (1024
 * values in bf16). */
static void test_gemm_matches_double_across_blocks(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    FOR_EACH_FORMAT(f)
    {
        const bool slow = strcmp((*k)->name, "ref") == 0;
        check_product(formats[f], slow ? 17 : 259, 11, formats[f] == DM_FMT_F32 ? 521 : 1039);
        check_product(formats[f], 3, slow ? 517 : 1033, 515);
        if (!slow)
            check_product(formats[f], 261, 523, 519);
    }
}

/* All the ways to compute C = A B (bias NULL) or bias + A B must agree in every bit. */
static void check_bits(enum dm_format fmt, size_t M, size_t N, size_t K)
{
    float *am = named(M * K, "a", 1.0f), *bm = named(N * K, "b", 1.0f);
    float *bias = named(N, "bias", 1.0f);
    void *pack = test_malloc(dm_gemm_pack_bytes(fmt, N, K));
    float *c = named(M * N, "c", 1.0f), *row = named(M * N, "d", 1.0f);
    struct dm_gemm g = {
        .fmt = fmt, .c = row, .ldc = N, .a = {am, K, 1}, .b = {bm, 1, K}, .M = M, .N = N, .K = K};
    dm_par_set_threads(1);
    dm_gemm_pack(fmt, pack, g.b, N, K);
    product(fmt, c, N, false, g.a, g.b, M, N, K);
    for (size_t threads = 1; threads <= 3; threads++) {
        dm_par_set_threads(threads);
        for (int form = 0; form < 3; form++) { // unpacked, packed, added to zeros
            memset(row, form == 2 ? 0 : 0xff, M * N * sizeof(*row));
            g.pack = form ? pack : NULL;
            g.add = form == 2;
            dm_gemm(&g);
            assert_memory_equal(row, c, M * N * sizeof(*c));
        }
        memset(row, 0xff, M * N * sizeof(*row));
        for (size_t m = 0; m < M; m++) {
            struct dm_gemm one = g;
            one.c += m * N;
            one.a.p += m * K;
            one.add = false;
            one.M = 1;
            dm_gemm(&one);
        }
        assert_memory_equal(row, c, M * N * sizeof(*c));
    }
    g = (struct dm_gemm){fmt, c, N, false, bias, g.a, g.b, NULL, M, N, K};
    dm_gemm(&g);
    for (size_t m0 = 0; m0 < M; m0 += M / 2 + 1) {
        struct dm_gemm some = g;
        some.c = row + m0 * N;
        some.a.p += m0 * K;
        some.pack = pack;
        some.M = M - m0 < M / 2 + 1 ? M - m0 : M / 2 + 1;
        dm_gemm(&some);
    }
    assert_memory_equal(row, c, M * N * sizeof(*c));
    dm_par_set_threads(0);
    test_free(am);
    test_free(bm);
    test_free(bias);
    test_free(pack);
    test_free(c);
    test_free(row);
}

static void test_gemm_bits_depend_on_neither_threads_nor_rows_nor_packing(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    FOR_EACH_FORMAT(f)
    {
        const enum dm_format fmt = formats[f];
        const bool slow = strcmp((*k)->name, "ref") == 0;
        for (size_t M = 1; M <= 40; M++)
            check_bits(fmt, M, 37, 29);
        check_bits(fmt, 3, slow ? 67 : 2085, slow ? 529 : 1031);
        check_bits(fmt, slow ? 9 : 43, 147, fmt == DM_FMT_F32 ? 530 : 1054);
        if (!slow) {
            check_bits(fmt, 290, 131, 523);
            check_bits(fmt, 1061, 33, 31);
            check_bits(fmt, 35, 3109, 31); // more columns than a thread has at once
        }
        check_bits(fmt, 6, 5, 25000); // few rows, but too long to be held at once
    }
}

static float no_subnormal(float x)
{
    return isnormal(x) ? x : copysignf(0.0f, x);
}

/* kern_bf16_tmpl.c: of 32 values of k the even ones are a chain from zero, so are the odd ones, and
 * their sum is added. */
static void test_tiles_sum_in_blocks_of_32(void **state)
{
    (void)state;
    enum { M = 37, N = 33, K = 75 };
    const struct dm_kern *amx = NULL;
    for (const struct dm_kern *const *k = dm_kern_all(); *k; k++)
        if (strcmp((*k)->name, "amx") == 0)
            amx = *k;
    if (!amx)
        skip();
    float *am = named(M * K, "a", 1.0f), *bm = named(N * K, "b", 1.0f), c[M * N];
    for (size_t i = 0; i < M * K; i++)
        am[i] = i % 5 ? am[i] : ldexpf(am[i], i % 2 ? -70 : -130); // products that are subnormal
    for (size_t i = 0; i < N * K; i++)
        bm[i] = i % 3 ? bm[i] : ldexpf(bm[i], -70);
    dm_kern_force(amx);
    dm_gemm(
        &(struct dm_gemm){DM_FMT_BF16, c, N, false, NULL, {am, K, 1}, {bm, 1, K}, NULL, M, N, K});
    dm_kern_force(NULL);
    rounded(am, am, M * K, DM_FMT_BF16);
    rounded(bm, bm, N * K, DM_FMT_BF16);
    for (size_t i = 0; i < M * N; i++) {
        float want = 0.0f;
        for (size_t k0 = 0; k0 < K; k0 += 32) {
            float sum[2] = {0.0f, 0.0f};
            for (size_t k = k0; k < K && k < k0 + 32; k++)
                sum[k % 2] = no_subnormal(fmaf(no_subnormal(am[i / N * K + k]),
                                               no_subnormal(bm[i % N * K + k]), sum[k % 2]));
            want = no_subnormal(want + no_subnormal(sum[0] + sum[1]));
        }
        assert_memory_equal(&c[i], &want, sizeof(want));
    }
    test_free(am);
    test_free(bm);
}

static void test_gemm_of_nothing(void **state)
{
    (void)state;
    float c[6] = {1, 2, 3, 4, 5, 6};
    const float bias[3] = {7, 8, 9};
    const struct dm_mat none = {c, 0, 0};
    FOR_EACH_TABLE(k)
    FOR_EACH_FORMAT(f)
    {
        for (size_t i = 0; i < 6; i++)
            c[i] = (float)i;
        product(formats[f], c, 3, true, none, none, 2, 3, 0);
        product(formats[f], c, 3, false, none, none, 0, 3, 5);
        product(formats[f], c, 3, false, none, none, 2, 0, 5);
        for (size_t i = 0; i < 6; i++)
            assert_true(c[i] == (float)i);
        product(formats[f], c, 3, false, none, none, 1, 3, 0);
        dm_gemm(&(struct dm_gemm){
            .fmt = formats[f], .c = c + 3, .ldc = 3, .bias = bias, .M = 1, .N = 3});
        assert_true(c[0] == 0.0f && c[1] == 0.0f && c[2] == 0.0f);
        assert_memory_equal(c + 3, bias, sizeof(bias));
    }
}

/* Only the row and the column that they stand in are touched, in tiles and in few rows. */
static void test_gemm_passes_nan_and_infinity(void **state)
{
    (void)state;
    enum { M = 17, N = 35, K = 43 };
    float *am = named(M * K, "a", 1.0f), *bm = named(N * K, "b", 1.0f), c[M * N];
    am[3 * K + 7] = NAN;
    am[4 * K + 42] = INFINITY;
    bm[34 * K + 2] = -INFINITY;
    FOR_EACH_TABLE(k)
    FOR_EACH_FORMAT(f)
    {
        void *pack = test_malloc(dm_gemm_pack_bytes(formats[f], N, K));
        struct dm_gemm g = {formats[f], c, N, false, NULL, {am, K, 1}, {bm, 1, K}, NULL, M, N, K};
        dm_gemm_pack(formats[f], pack, g.b, N, K);
        for (int few = 0; few < 2; few++) {
            g.M = few ? 5 : M;
            g.pack = few ? pack : NULL;
            if (few && (*k)->f32->mr < 5)
                g.M = 4;
            dm_gemm(&g);
            for (size_t i = 0; i < g.M * N; i++) {
                const size_t m = i / N, n = i % N;
                assert_true(isnan(c[i]) == (m == 3) || (m == 4 && n == 34));
                assert_true(isfinite(c[i]) == (m != 3 && m != 4 && n != 34));
            }
        }
        test_free(pack);
    }
    test_free(am);
    test_free(bm);
}

/* Odd sizes, every kind of number; the file's rows start at an odd address. */
static void test_packs_from_raw_rows_are_the_same_bytes(void **state)
{
    (void)state;
    enum { N = 71, K = 1069 };
    static float w[N * K], exact[N * K];
    static char raw[N * K * 4 + 1], first[(N + 32) * (K + 1) * 2];
    fill_named(w, N * K, "w", 1.0f);
    static const float odd[] = {NAN,     INFINITY,  -INFINITY, -0.0f,   1e-40f,
                                -1e-39f, 0x1.01p0f, 0x1.03p0f, 3.4e38f, 0x1p-126f};
    memcpy(w + 5, odd, sizeof(odd));
    memcpy(w + N * K - 10, odd, sizeof(odd));
    static const enum dm_dtype types[] = {DM_F32, DM_BF16, DM_F16};
    FOR_EACH_TABLE(k)
    FOR_EACH_FORMAT(f)
    {
        const size_t bytes = dm_gemm_pack_bytes(formats[f], N, K);
        char *want = test_malloc(bytes), *got = test_malloc(bytes);
        for (size_t t = 0; t < 3; t++) {
            const size_t row = K * dm_dtype_size(types[t]);
            dm_dtype_from_f32(raw + 1, types[t], w, N * K);
            dm_dtype_to_f32(exact, raw + 1, types[t], N * K);
            dm_gemm_pack(formats[f], want, (struct dm_mat){exact, 1, K}, N, K);
            memset(got, 0xee, bytes);
            dm_gemm_pack_raw(formats[f], got, raw + 1 + 32 * row, types[t], 32, N - 32, K);
            dm_gemm_pack_raw(formats[f], got, raw + 1, types[t], 0, 32, K);
            assert_memory_equal(got, want, bytes);
            if (formats[f] == DM_FMT_BF16 && types[t] == DM_F32) { // the same for all tables
                assert_true(bytes <= sizeof(first));
                if (*k == dm_kern_all()[0])
                    memcpy(first, got, bytes);
                assert_memory_equal(got, first, bytes);
            }
        }
        test_free(want);
        test_free(got);
    }
}

/* (A B) t and A (B t) agree: a property that no reference implementation can share a bug with. */
static void test_gemm_is_associative_with_a_vector(void **state)
{
    (void)state;
    enum { M = 37, N = 41, K = 67 };
    static float c[M * N], left[M], right[M], bt[K];
    float *am = named(M * K, "a", 1.0f), *bm = named(K * N, "b", 1.0f), *t = named(N, "t", 1.0f);
    const struct dm_mat a = {am, K, 1}, b = {bm, N, 1}, tv = {t, 1, 1};
    FOR_EACH_TABLE(k)
    {
        product(DM_FMT_F32, c, N, false, a, b, M, N, K);
        product(DM_FMT_F32, left, 1, false, (struct dm_mat){c, N, 1}, tv, M, 1, N);
        product(DM_FMT_F32, bt, 1, false, b, tv, K, 1, N);
        product(DM_FMT_F32, right, 1, false, a, (struct dm_mat){bt, 1, 1}, M, 1, K);
        assert_close(left, right, M, 2e-5, 1.0);
    }
    test_free(am);
    test_free(bm);
    test_free(t);
}

static void test_dot_axpy_and_max_match_double(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    for (size_t n = 0; n <= 150; n++) {
        float *x = named(n, "x", 2.0f), *y = named(n, "y", 2.0f), *z = named(n, "y", 2.0f);
        double want = 0.0, size = 1e-30;
        float top = n ? x[0] : 0.0f;
        for (size_t i = 0; i < n; i++) {
            want += (double)x[i] * y[i];
            size += fabs((double)x[i] * y[i]);
            top = x[i] > top ? x[i] : top;
        }
        assert_true(fabs((*k)->dot(x, y, n) - want) <= 1e-6 * size);
        (*k)->axpy(z, 0.75f, x, n);
        for (size_t i = 0; i < n; i++)
            assert_true(z[i] == (float)(0.75 * x[i] + y[i]));
        if (n)
            assert_true((*k)->max(x, n) == top);
        test_free(x);
        test_free(y);
        test_free(z);
    }
}

static void test_mix_is_one_chain_in_the_order_of_the_rows(void **state)
{
    (void)state;
    enum { ROWS = 19, STRIDE = 150 };
    FOR_EACH_TABLE(k)
    for (size_t n = 1; n <= 140; n += n < 40 ? 1 : 25) {
        float *x = named(ROWS * STRIDE, "rows", 1.0f), *p = named(ROWS, "p", 1.0f);
        float *y = named(n + 1, "y", 1.0f), *want = named(n + 1, "y", 1.0f);
        (*k)->mix(y, p, x, STRIDE, ROWS, n);
        for (size_t j = 0; j < ROWS; j++)
            (*k)->axpy(want, p[j], x + j * STRIDE, n);
        assert_memory_equal(y, want, (n + 1) * sizeof(*y)); // and nothing beyond n
        test_free(x);
        test_free(p);
        test_free(y);
        test_free(want);
    }
}

static void test_exp_is_within_two_ulp(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    {
        double worst = 0.0;
        for (double at = -86.0; at < 88.0; at += 0.0625 * 11) {
            float x[11], in[11];
            for (size_t i = 0; i < 11; i++)
                in[i] = x[i] = (float)(at + 0.06251 * (double)i);
            (*k)->exp_sum(x, 0.0f, 11);
            for (size_t i = 0; i < 11; i++) {
                const double want = exp((double)in[i]);
                const double ulp = nextafterf((float)want, INFINITY) - (float)want;
                worst = fmax(worst, fabs(x[i] - want) / ulp);
            }
        }
        if (!(worst <= 2.0))
            fail_msg("%s: %g ulp", (*k)->name, worst);
    }
}

static void test_exp_at_the_edges(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    {
        float x[] = {0.0f, -0.0f, -INFINITY, -200.0f, -104.0f, INFINITY, 89.0f, -88.0f, -100.0f};
        (*k)->exp_sum(x, 0.0f, 9);
        assert_true(x[0] == 1.0f && x[1] == 1.0f);
        assert_true(x[2] == 0.0f && x[3] == 0.0f && x[4] == 0.0f);
        assert_true(x[5] == INFINITY && x[6] == INFINITY);
        // subnormal results keep what bits they have
        assert_true(fabs(x[7] - exp(-88.0)) <= 0x1p-149);
        assert_true(fabs(x[8] - exp(-100.0)) <= 0x1p-149);
        float nan[] = {1.0f, NAN};
        assert_true(isnan((*k)->exp_sum(nan, 0.0f, 2)));
        assert_true(isnan(nan[1]));
    }
}

static void test_exp_sum_is_the_sum_of_what_it_writes(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    for (size_t n = 0; n <= 70; n++) {
        float *x = named(n, "x", 9.0f);
        const float sum = (*k)->exp_sum(x, 2.5f, n);
        double want = 0.0;
        for (size_t i = 0; i < n; i++)
            want += x[i];
        assert_true(fabs(sum - want) <= 1e-6 * want);
        test_free(x);
    }
}

static double ref_gelu(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2.0));
}

static double ref_gelu_grad(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0)) + x * exp(-0.5 * x * x) / sqrt(8.0 * atan(1.0));
}

static void test_gelu_matches_double_erf(void **state)
{
    (void)state;
    enum { N = 40001 };
    static float x[N], y[N], dx[N];
    for (size_t i = 0; i < N; i++) {
        x[i] = (float)((double)i * 0.001 - 20.0);
    }
    FOR_EACH_TABLE(k)
    {
        for (size_t i = 0; i < N; i++)
            dx[i] = 1.0f;
        (*k)->gelu(y, x, N);
        (*k)->gelu_grad(dx, x, N);
        double worst = 0.0, worst_grad = 0.0;
        for (size_t i = 0; i < N; i++) {
            const double w = ref_gelu((double)x[i]), g = ref_gelu_grad((double)x[i]);
            worst = fmax(worst, fabs(y[i] - w) / fmax(fabs(w), 1e-3));
            worst_grad = fmax(worst_grad, fabs(dx[i] - g) / fmax(fabs(g), 0.25));
        }
        assert_true(worst <= 4e-7 && worst_grad <= 4e-7);
    }
}

static void test_gelu_at_the_edges(void **state)
{
    (void)state;
    FOR_EACH_TABLE(k)
    {
        const float x[] = {0.0f, -0.0f, INFINITY, -INFINITY, 1e30f, -1e30f, 1e-40f, NAN};
        float y[8], dx[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        (*k)->gelu(y, x, 8);
        (*k)->gelu_grad(dx, x, 8);
        assert_true(y[0] == 0.0f && y[1] == 0.0f && y[2] == INFINITY && y[3] == 0.0f);
        assert_true(y[4] == 1e30f && y[5] == 0.0f && y[6] >= 0.0f && y[6] <= 1e-40f);
        assert_true(isnan(y[7]) && isnan(dx[7]));
        assert_true(dx[0] == 0.5f && dx[1] == 0.5f && dx[2] == 1.0f && dx[3] == 0.0f);
        assert_true(dx[4] == 1.0f && dx[5] == 0.0f);
    }
}

static void test_gelu_grad_and_scale_multiply_in_place(void **state)
{
    (void)state;
    enum { N = 53 };
    float dx[N], dy[N], x[N];
    fill_named(x, N, "x", 3.0f);
    fill_named(dy, N, "dy", 1.0f);
    FOR_EACH_TABLE(k)
    for (size_t n = 0; n <= N; n++) {
        memcpy(dx, dy, sizeof(dx));
        (*k)->gelu_grad(dx, x, n);
        for (size_t i = 0; i < N; i++)
            assert_true(fabs(dx[i] - dy[i] * (i < n ? ref_gelu_grad((double)x[i]) : 1.0)) <= 4e-7);
        memcpy(dx, dy, sizeof(dx));
        (*k)->scale(dx, 0.37f, n);
        for (size_t i = 0; i < N; i++)
            assert_true(dx[i] == (i < n ? 0.37f * dy[i] : dy[i]));
    }
}

/* Element i of an array of N alone, at every offset, in a vector or in a tail: the same bits. */
static void test_elementwise_bits_do_not_depend_on_the_place(void **state)
{
    (void)state;
    enum { N = 77 };
    float x[N], all[3][N], one[3];
    fill_named(x, N, "place", 6.0f);
    FOR_EACH_TABLE(k)
    {
        memcpy(all[0], x, sizeof(x));
        (*k)->exp_sum(all[0], 1.0f, N);
        (*k)->gelu(all[1], x, N);
        memcpy(all[2], x, sizeof(x));
        (*k)->gelu_grad(all[2], x, N);
        for (size_t i = 0; i < N; i++) {
            one[0] = x[i];
            (*k)->exp_sum(&one[0], 1.0f, 1);
            (*k)->gelu(&one[1], &x[i], 1);
            one[2] = x[i];
            (*k)->gelu_grad(&one[2], &x[i], 1);
            for (size_t f = 0; f < 3; f++)
                assert_memory_equal(&one[f], &all[f][i], sizeof(float));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ref_is_first_and_force_selects),
        cmocka_unit_test(test_environment_chooses_a_table),
        cmocka_unit_test(test_gemm_matches_double_at_odd_sizes),
        cmocka_unit_test(test_gemm_matches_double_across_blocks),
        cmocka_unit_test(test_gemm_bits_depend_on_neither_threads_nor_rows_nor_packing),
        cmocka_unit_test(test_tiles_sum_in_blocks_of_32),
        cmocka_unit_test(test_gemm_of_nothing),
        cmocka_unit_test(test_gemm_passes_nan_and_infinity),
        cmocka_unit_test(test_packs_from_raw_rows_are_the_same_bytes),
        cmocka_unit_test(test_gemm_is_associative_with_a_vector),
        cmocka_unit_test(test_dot_axpy_and_max_match_double),
        cmocka_unit_test(test_mix_is_one_chain_in_the_order_of_the_rows),
        cmocka_unit_test(test_exp_is_within_two_ulp),
        cmocka_unit_test(test_exp_at_the_edges),
        cmocka_unit_test(test_exp_sum_is_the_sum_of_what_it_writes),
        cmocka_unit_test(test_gelu_matches_double_erf),
        cmocka_unit_test(test_gelu_at_the_edges),
        cmocka_unit_test(test_gelu_grad_and_scale_multiply_in_place),
        cmocka_unit_test(test_elementwise_bits_do_not_depend_on_the_place),
    };
    return cmocka_run_group_tests_name("kernel", tests, NULL, NULL);
}
