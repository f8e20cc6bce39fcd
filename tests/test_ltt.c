/* SPDX-License-Identifier: MIT */
/* Means and quantiles; Learn then Test: exact p-values, the order of testing, and the guarantee on
 * settings whose true risks are known. */
#include "tests/util.h"

#include <math.h>
#include <stdlib.h>

#include "eval/ltt.h"
#include "eval/stats.h"
#include "src/base/binomial.h"
#include "src/base/rng.h"

static void test_t_quantiles_are_the_published_ones(void **state)
{
    (void)state;
    const struct {
        double p;
        size_t df;
        double t;
    } table[] = {{0.95, 1, 6.313752},  {0.95, 2, 2.919986},   {0.975, 3, 3.182446},
                 {0.99, 30, 2.457262}, {0.95, 31, 1.695519},  {0.95, 1000, 1.646379},
                 {0.5, 7, 0.0},        {0.975, 10, 2.228139}, {0.99, 1, 31.820516}};
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_true(fabs(dm_t_quantile(table[i].p, table[i].df) - table[i].t) < 1e-6);
}

static void test_mean_error_and_median_by_hand(void **state)
{
    (void)state;
    double x[] = {4.0, 1.0, 2.0, 5.0};
    assert_true(dm_mean(x, 4) == 3.0);
    assert_true(fabs(dm_standard_error(x, 4) - sqrt(10.0 / 3.0 / 4.0)) < 1e-12);
    assert_true(isinf(dm_standard_error(x, 1)));
    assert_true(dm_median(x, 4) == 3.0);
    assert_true(dm_median(x, 3) == 2.0); // sorted by now: 1 2 4
    assert_true(isnan(dm_median(x, 0)) && isnan(dm_mean(x, 0)));
}

static void test_tails_are_exact(void **state)
{
    (void)state;
    const struct {
        size_t k, n;
        double p, cdf; // rational arithmetic of Python, rounded once
    } table[] = {{0, 59, 1.0 / 20.0, 0.0484945252494232},
                 {0, 58, 1.0 / 20.0, 0.0510468686836034},
                 {4, 181, 1.0 / 20.0, 0.04916257891476},
                 {3, 200, 1.0 / 20.0, 0.00904837639610154},
                 {10, 100, 1.0 / 10.0, 0.583155512266492},
                 {2, 7, 1.0 / 3.0, 0.570644718792867},
                 {40, 2000, 1.0 / 40.0, 0.0833678353586715},
                 {50, 100, 1.0 / 10.0, 1.0},
                 {900, 1000, 1.0 / 2.0, 1.0},
                 {7, 7, 0.25, 1.0}};
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_true(fabs(dm_binomial_cdf(table[i].k, table[i].n, table[i].p) / table[i].cdf - 1.0) <
                    1e-11);
    // (1 - p)^n underflows, the tail does not vanish: the median of Bin(10^6, 0.05) is 50,000.
    assert_true(fabs(dm_binomial_cdf(50000, 1000000, 0.05) - 0.5) < 0.002);
    assert_true(dm_binomial_cdf(0, 1000000, 0.05) == 0.0);
}

static void test_tails_are_the_sums_of_their_terms(void **state)
{
    (void)state;
    enum { N = 30 };
    for (double p = 0.05; p < 1.0; p += 0.15) {
        double sum = 0.0, term = pow(1.0 - p, N);
        for (size_t k = 0; k < N; k++) {
            sum += term;
            assert_true(fabs(dm_binomial_cdf(k, N, p) / sum - 1.0) < 1e-11);
            term *= (double)(N - k) / (double)(k + 1) * p / (1.0 - p);
        }
    }
}

static void test_needed_prompts_and_allowed_failures(void **state)
{
    (void)state;
    assert_int_equal(dm_binomial_need(0.05, 0.05), 59);
    assert_int_equal(dm_binomial_need(0.1, 0.1), 22);
    assert_int_equal(dm_binomial_need(0.5, 0.25), 2); // exactly the level
    assert_int_equal(dm_binomial_allowed(58, 0.05, 0.05), SIZE_MAX);
    assert_int_equal(dm_binomial_allowed(59, 0.05, 0.05), 0);
    assert_int_equal(dm_binomial_allowed(92, 0.05, 0.05), 0);
    assert_int_equal(dm_binomial_allowed(93, 0.05, 0.05), 1);
    assert_int_equal(dm_binomial_allowed(181, 0.05, 0.05), 4);
    assert_int_equal(dm_binomial_allowed(0, 0.05, 0.05), SIZE_MAX);
}

static void test_sequences_end_at_what_is_not_rejected(void **state)
{
    (void)state;
    // 181 prompts: 4 failures pass alone, 2 when the level is halved
    struct dm_ltt one[] = {{.failures = 4}, {.failures = 5}, {.failures = 0}};
    dm_ltt_test(one, 3, 1, 181, 0.05, 0.05);
    assert_true(one[0].certified && one[1].tested && !one[1].certified);
    assert_false(one[2].tested || one[2].certified);
    assert_true(one[2].p < 1e-4);
    struct dm_ltt two[] = {{.sequence = 0, .failures = 4},
                           {.sequence = 0, .failures = 0},
                           {.sequence = 1, .failures = 2},
                           {.sequence = 1, .failures = 1}};
    dm_ltt_test(two, 4, 2, 181, 0.05, 0.05);
    assert_true(two[0].tested && !two[0].certified && !two[1].tested);
    assert_true(two[2].certified && two[3].certified);
}

/* ---- The guarantee --------------------------------------------------------------------------- */

enum { REPETITIONS = 1000, SETTINGS = 12 };

/* Settings of `sequences` sequences with these risks, tried on n prompts many times: the share of
 * repetitions that certify any setting whose risk is above `risk`, and of those that certify any
 * at all. Prompts are hard or easy for all settings alike, as real ones are: setting i fails where
 * u < risk[i]. */
static double violations(const double *risks, size_t sequences, size_t n, double risk, double delta,
                         uint64_t seed, double *any)
{
    size_t violated = 0, certified = 0;
    for (size_t r = 0; r < REPETITIONS; r++) {
        struct dm_ltt s[SETTINGS] = {{0}};
        struct dm_rng rng;
        bool bad = false, some = false;
        dm_rng_init(&rng, seed, r);
        for (size_t p = 0; p < n; p++) {
            const double u = dm_rng_uniform(&rng);
            for (size_t i = 0; i < SETTINGS; i++)
                s[i].failures += u < risks[i];
        }
        for (size_t i = 0; i < SETTINGS; i++)
            s[i].sequence = i * sequences / SETTINGS;
        dm_ltt_test(s, SETTINGS, sequences, n, risk, delta);
        for (size_t i = 0; i < SETTINGS; i++) {
            some |= s[i].certified;
            bad |= s[i].certified && risks[i] > risk;
        }
        violated += bad;
        certified += some;
    }
    *any = (double)certified / REPETITIONS;
    return (double)violated / REPETITIONS;
}

/* At most delta, and three standard errors of a share counted in 1,000 repetitions. */
static double limit(double delta)
{
    return delta + 3.0 * sqrt(delta * (1.0 - delta) / REPETITIONS);
}

static void test_few_certificates_are_wrong(void **state)
{
    (void)state;
    double rising[SETTINGS], above[SETTINGS], hidden[SETTINGS], any;
    for (size_t i = 0; i < SETTINGS; i++) {
        rising[i] = 0.01 * (double)(i + 1);      // crosses 0.05
        above[i] = 0.0501;                       // the worst there is: all just above
        hidden[i] = i % 4 == 3 ? 0.0501 : 0.002; // each sequence ends in a trap
    }
    for (size_t n = 59; n <= 400; n += 341 / 3) {
        assert_true(violations(rising, 1, n, 0.05, 0.05, 10 + n, &any) <= limit(0.05));
        assert_true(violations(above, 1, n, 0.05, 0.05, 20 + n, &any) <= limit(0.05));
        assert_true(violations(hidden, 3, n, 0.05, 0.05, 30 + n, &any) <= limit(0.05));
    }
    // The level is nearly used up where it can be (59 prompts, no failure: 4.8 %), so the limit is
    // not kept by testing too little, and what is safe is found.
    assert_true(violations(above, 1, 59, 0.05, 0.05, 99, &any) > 0.03);
    violations(rising, 1, 400, 0.05, 0.05, 98, &any);
    assert_true(any > 0.99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_t_quantiles_are_the_published_ones),
        cmocka_unit_test(test_mean_error_and_median_by_hand),
        cmocka_unit_test(test_tails_are_exact),
        cmocka_unit_test(test_tails_are_the_sums_of_their_terms),
        cmocka_unit_test(test_needed_prompts_and_allowed_failures),
        cmocka_unit_test(test_sequences_end_at_what_is_not_rejected),
        cmocka_unit_test(test_few_certificates_are_wrong),
    };
    return cmocka_run_group_tests_name("ltt", tests, NULL, NULL);
}
