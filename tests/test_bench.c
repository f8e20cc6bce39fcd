/* SPDX-License-Identifier: MIT */
/* The limits that timings are compared with. No figure is judged by its size: machines differ. */
#include <math.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/kern.h"
#include "src/kernel/peak.h"
#include "tests/util.h"

static void test_every_table_has_a_peak_for_every_format(void **state)
{
    (void)state;
    for (const struct dm_kern *const *k = dm_kern_all(); *k; k++) {
        dm_kern_force(*k);
        for (int fmt = DM_FMT_F32; fmt <= DM_FMT_INT4; fmt++) {
            const double peak = dm_peak_flops((enum dm_format)fmt);
            assert_true(isfinite(peak) && peak > 0.0);
            // 10^15 per second would be a loop that the compiler has removed.
            assert_true(peak < 1e6);
            assert_true(strlen(dm_peak_operation((enum dm_format)fmt)) > 0);
        }
    }
    dm_kern_force(NULL);
}

static void test_bandwidth_and_fork_join_are_positive(void **state)
{
    (void)state;
    struct dm_peak_mem m;
    struct dm_err e;
    for (size_t threads = 1; threads <= 3; threads++) {
        dm_par_set_threads(threads);
        assert_int_equal(dm_peak_mem_init(&m, ((size_t)5 << 20) + 1, &e), DM_OK);
        assert_true(m.bytes == (size_t)6 << 20); // whole huge pages
        for (const struct dm_kern *const *k = dm_kern_all(); *k; k++) {
            dm_kern_force(*k);
            const double rate = dm_peak_bandwidth(&m);
            assert_true(isfinite(rate) && rate > 0.0 && rate < 1e6);
        }
        dm_kern_force(NULL);
        assert_true(dm_peak_fork_join() >= 0.0);
        dm_peak_mem_release(&m);
        assert_null(m.p);
    }
    dm_par_set_threads(0);
}

static void test_memory_that_cannot_be_had_is_an_error(void **state)
{
    (void)state;
    struct dm_peak_mem m;
    struct dm_err e;
    assert_int_equal(dm_peak_mem_init(&m, SIZE_MAX, &e), DM_ENOMEM);
    assert_null(m.p);
    assert_non_null(strstr(e.msg, "to measure the memory"));
    dm_peak_mem_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_table_has_a_peak_for_every_format),
        cmocka_unit_test(test_bandwidth_and_fork_join_are_positive),
        cmocka_unit_test(test_memory_that_cannot_be_had_is_an_error),
    };
    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
