/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/pipe.h"
#include "src/base/progress.h"
#include "src/base/rng.h"

enum { PIECES = 500, SLOTS = 7, THREADS = 3 };

/* Squares of 0, 1, .. in order; what a slot or a thread holds must be its own meanwhile. */
struct squares {
    size_t next, fail_take, fail_work, fail_give; /* pieces that fail; PIECES: none */
    size_t value[SLOTS], given[PIECES], n;
    atomic_bool taking, giving, busy[SLOTS], thread[THREADS];
    bool wait; /* with piece 0 for all others */
    atomic_size_t done;
};

static enum dm_status take(void *ctx, size_t slot, bool *more, struct dm_err *e)
{
    struct squares *s = ctx;
    assert_false(atomic_exchange(&s->taking, true));
    assert_false(atomic_exchange(&s->busy[slot], true));
    *more = s->next < PIECES;
    s->value[slot] = s->next++;
    if (!*more)
        s->busy[slot] = false;
    s->taking = false;
    return s->value[slot] == s->fail_take ? dm_fail(e, DM_EIO, "take %zu", s->fail_take) : DM_OK;
}

static enum dm_status work(void *ctx, size_t slot, size_t thread, struct dm_err *e)
{
    struct squares *s = ctx;
    const size_t x = s->value[slot];
    volatile uint64_t h = x;
    assert_false(atomic_exchange(&s->thread[thread], true));
    for (size_t i = 0; i < dm_mix64(x) % 20000; i++) // so that pieces overtake each other
        h = dm_mix64(h);
    s->value[slot] = x * x;
    s->thread[thread] = false;
    return x == s->fail_work ? dm_fail(e, DM_EFORMAT, "work %zu", x) : DM_OK;
}

static enum dm_status give(void *ctx, size_t slot, struct dm_err *e)
{
    struct squares *s = ctx;
    assert_false(atomic_exchange(&s->giving, true));
    s->given[s->n++] = s->value[slot];
    s->busy[slot] = false;
    s->giving = false;
    return s->n - 1 == s->fail_give ? dm_fail(e, DM_ESTOPPED, "give %zu", s->n - 1) : DM_OK;
}

/* Where nothing is given. */
static enum dm_status work_alone(void *ctx, size_t slot, size_t thread, struct dm_err *e)
{
    struct squares *s = ctx;
    const size_t x = s->value[slot];
    const double start = dm_now();
    assert_int_equal(slot, thread);
    const enum dm_status st = work(ctx, slot, thread, e);
    while (s->wait && !x && s->done < PIECES - 1 && dm_now() - start < 60)
        sched_yield();
    s->given[x] = s->done++;
    s->busy[slot] = false;
    return st;
}

static void test_without_giving_no_piece_waits_for_another(void **state)
{
    (void)state;
    for (size_t threads = 1; threads <= THREADS; threads++) {
        struct squares s = {.fail_take = SIZE_MAX, .fail_work = SIZE_MAX};
        const struct dm_pipe p = {threads, threads, &s, take, work_alone, NULL};
        struct dm_err e;
        dm_par_set_threads(threads);
        s.wait = dm_par_threads() > 1; // a build without OpenMP has one
        assert_ok(dm_pipe_run(&p, &e), e);
        assert_int_equal(s.done, PIECES);
        assert_int_equal(s.given[0], s.wait ? PIECES - 1 : 0);
    }
    dm_par_set_threads(0);
}

static void test_without_giving_the_first_failure_is_reported(void **state)
{
    (void)state;
    static const size_t fail[][2] = {{100, 90}, {90, 100}, {0, 1}};
    static const char *const want[] = {"work 90", "take 90", "take 0"};
    static const enum dm_status status[] = {DM_EFORMAT, DM_EIO, DM_EIO};
    for (size_t i = 0; i < 3; i++)
        for (size_t threads = 1; threads <= THREADS; threads++) {
            struct squares s = {.fail_take = fail[i][0], .fail_work = fail[i][1]};
            const struct dm_pipe p = {threads, threads, &s, take, work_alone, NULL};
            struct dm_err e;
            dm_par_set_threads(threads);
            assert_int_equal(dm_pipe_run(&p, &e), status[i]);
            assert_string_equal(e.msg, want[i]);
            assert_in_range(s.next, i < 2 ? 91 : 1, 90 + THREADS + 1);
        }
    dm_par_set_threads(0);
}

static void test_pieces_are_given_in_order_for_all_threads_and_slots(void **state)
{
    (void)state;
    for (size_t threads = 1; threads <= THREADS; threads++)
        for (size_t slots = 1; slots <= SLOTS; slots++) {
            struct squares s = {
                .fail_take = SIZE_MAX, .fail_work = SIZE_MAX, .fail_give = SIZE_MAX};
            const struct dm_pipe p = {threads, slots, &s, take, work, give};
            struct dm_err e;
            dm_par_set_threads(threads);
            assert_ok(dm_pipe_run(&p, &e), e);
            assert_int_equal(s.n, PIECES);
            for (size_t i = 0; i < PIECES; i++)
                assert_int_equal(s.given[i], i * i);
        }
    dm_par_set_threads(0);
}

static void test_the_first_failure_in_order_is_reported(void **state)
{
    (void)state;
    static const size_t fail[][3] = {{100, 90, 95}, {90, 100, 95}, {95, 100, 90}, {0, 1, 1}};
    static const char *const want[] = {"work 90", "take 90", "give 90", "take 0"};
    static const enum dm_status status[] = {DM_EFORMAT, DM_EIO, DM_ESTOPPED, DM_EIO};
    for (size_t i = 0; i < 4; i++)
        for (size_t threads = 1; threads <= THREADS; threads++) {
            struct squares s = {
                .fail_take = fail[i][0], .fail_work = fail[i][1], .fail_give = fail[i][2]};
            const struct dm_pipe p = {threads, SLOTS, &s, take, work, give};
            struct dm_err e;
            dm_par_set_threads(threads);
            assert_int_equal(dm_pipe_run(&p, &e), status[i]);
            assert_string_equal(e.msg, want[i]);
            assert_in_range(s.n, i < 3 ? 90 : 0, 91);
        }
    dm_par_set_threads(0);
}

static void test_no_memory_is_reported(void **state)
{
    (void)state;
    struct squares s = {.fail_take = SIZE_MAX};
    const struct dm_pipe p = {1, 1, &s, take, work, give};
    struct dm_err e;
    dm_alloc_fail_at(1);
    assert_int_equal(dm_pipe_run(&p, &e), DM_ENOMEM);
    dm_alloc_fail_at(0);
    assert_int_equal(s.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_are_given_in_order_for_all_threads_and_slots),
        cmocka_unit_test(test_the_first_failure_in_order_is_reported),
        cmocka_unit_test(test_without_giving_no_piece_waits_for_another),
        cmocka_unit_test(test_without_giving_the_first_failure_is_reported),
        cmocka_unit_test(test_no_memory_is_reported),
    };
    return cmocka_run_group_tests_name("pipe", tests, NULL, NULL);
}
