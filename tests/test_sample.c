/* SPDX-License-Identifier: MIT */
/* One decoding step on synthetic logits: penalty, acceptance, back-off, sampling. */
#include <math.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/rng.h"
#include "src/decode/decoder.h"
#include "src/decode/penalty.h"
#include "src/decode/stages.h"
#include "tests/tablet.h"
#include "tests/util.h"

enum { V = 12, VP = 16, DRAWS = 20000 };

struct fixture {
    struct dm_decoder d;
    struct dm_gen_opt o;
    float logits[3 * VP];
};

static int setup(void **state)
{
    static struct fixture f;
    struct dm_err e;
    assert_ok(dm_decoder_init(&f.d, V, 50, 3, &e), e);
    f.o = dm_gen_opt_default();
    f.o.temperature = 1;
    f.o.threshold = false;
    f.o.trace = true;
    for (size_t i = 0; i < 3 * VP; i++)
        f.logits[i] = i % VP < V ? -1e30f : 50; // padding must never be sampled
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    dm_decoder_release(&((struct fixture *)*state)->d);
    return 0;
}

/* Gives token `id` of head h probability p (unnormalised). */
static void set(struct fixture *f, size_t h, int32_t id, double p)
{
    f->logits[(h - 1) * VP + (size_t)id] = (float)log(p);
}

static struct dm_block step(struct fixture *f, const struct dm_cooc *cooc, size_t pos)
{
    struct dm_block b;
    struct dm_err e;
    assert_ok(dm_decoder_step(&f->d, &f->o, cooc, f->logits, VP, 3, pos, &b, &e), e);
    for (size_t i = 0; i < b.n; i++)
        assert_in_range(b.id[i], 0, V - 1);
    return b;
}

/* Draws DRAWS blocks and compares the counts with p (V^n cells, sums to 1); every draw must have n
 * tokens and report its probability. */
static void check_frequencies(struct fixture *f, const struct dm_cooc *cooc, size_t n,
                              const double *p)
{
    static size_t count[V * V * V];
    memset(count, 0, sizeof(count));
    for (size_t i = 0; i < DRAWS; i++) {
        const struct dm_block b = step(f, cooc, i);
        assert_int_equal(b.n, n);
        size_t cell = 0;
        for (size_t t = 0; t < n; t++)
            cell = cell * V + (size_t)b.id[t];
        assert_near(b.q, p[cell], 1e-6);
        count[cell]++;
    }
    assert_frequencies(count, p, (size_t)pow(V, (double)n), DRAWS);
}

static void normalise(double *p, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += p[i];
    for (size_t i = 0; i < n; i++)
        p[i] /= sum;
}

static void test_penalty_counts_repeats_of_context_and_block_once_each(void **state)
{
    (void)state;
    const bool seen[4] = {true, false, false, false};
    const struct {
        int32_t id[3];
        size_t n;
        double divisor;
    } cases[] = {{{1}, 1, 1},       {{0}, 1, 2},       {{1, 2}, 2, 1},    {{1, 1}, 2, 2},
                 {{0, 0}, 2, 4},    {{1, 2, 1}, 3, 2}, {{1, 1, 1}, 3, 4}, {{0, 1, 1}, 3, 4},
                 {{0, 0, 0}, 3, 8}, {{1, 2, 3}, 3, 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_near(dm_penalty_divisor(cases[i].id, cases[i].n, seen, 2), cases[i].divisor, 0);
}

static void test_one_token_frequencies_match_head_1_after_penalty(void **state)
{
    struct fixture *f = *state;
    double p[V] = {[2] = 0.5, [3] = 0.2, [7] = 0.15, [9] = 0.1, [11] = 0.05};
    for (int32_t v = 0; v < V; v++)
        if (p[v] > 0)
            set(f, 1, v, p[v]);
    f->o.mode = DM_GEN_AR;
    f->o.penalty = 1.6;
    f->o.top_k = 4; // cuts token 11
    dm_decoder_add(&f->d, (const int32_t[]){2, 9, 15, -1}, 4);
    p[11] = 0;
    p[2] /= 1.6;
    p[9] /= 1.6;
    normalise(p, V);
    check_frequencies(f, NULL, 1, p);
}

static void test_block_frequencies_match_the_joint(void **state)
{
    struct fixture *f = *state;
    static double p[V * V * V];
    static const double h[3][V] = {{[1] = 0.5, [4] = 0.3, [5] = 0.2},
                                   {[1] = 0.6, [2] = 0.4},
                                   {[2] = 0.7, [6] = 0.2, [8] = 0.1}};
    const int32_t text[] = {1, 1, 2, 1, 2, 6, 4, 1, 2, 4, 1, 8, 5, 2, 6, 1, 2, 2};
    struct dm_cooc table;
    tablet_count(&table, text, sizeof(text) / sizeof(text[0]), V);
    for (size_t i = 0; i < 3; i++)
        for (int32_t v = 0; v < V; v++)
            if (h[i][v] > 0)
                set(f, i + 1, v, h[i][v]);
    f->o.eps_b = 0;
    f->o.top_k = 3;
    f->o.unseen = DM_UNSEEN_MIX;
    f->o.lambda = 0.6;
    f->o.penalty = 1.3;
    dm_decoder_add(&f->d, (const int32_t[]){4}, 1);
    for (int32_t c = 0; c < V * V * V; c++) {
        const int32_t x[3] = {c / V / V, c / V % V, c % V};
        p[c] = h[0][x[0]] * h[1][x[1]] * h[2][x[2]] *
               (0.6 * tablet_r3(&table, x[0], x[1], x[2]) + 0.4) /
               dm_penalty_divisor(x, 3, f->d.seen, 1.3);
    }
    normalise(p, V * V * V);
    check_frequencies(f, &table, 3, p);
    tablet_free(&table);
}

static void test_cells_below_the_static_threshold_are_never_sampled(void **state)
{
    struct fixture *f = *state;
    static double p[V * V];
    set(f, 1, 0, 0.8);
    set(f, 1, 1, 0.2);
    set(f, 2, 2, 0.5);
    set(f, 2, 3, 0.3);
    set(f, 2, 4, 0.2);
    for (int32_t v = 0; v < V; v++)
        set(f, 3, v, 1); // flat: three tokens never pass
    f->o.eps_b = 0.2;
    f->o.penalty = 1;
    f->o.cut = true;
    p[2] = 0.40;
    p[3] = 0.24; // 0.16 and those of token 1 are below 0.2
    normalise(p, V * V);
    check_frequencies(f, NULL, 2, p);
}

static void test_acceptance_backs_off_one_token_at_a_time(void **state)
{
    struct fixture *f = *state;
    const struct {
        double eps;
        size_t n;
    } cases[] = {{0, 3}, {0.5, 3}, {0.59, 3}, {0.61, 2}, {0.7, 2}, {0.73, 1}, {1, 1}};
    set(f, 1, 0, 0.9);
    set(f, 1, 5, 0.1);
    set(f, 2, 1, 0.8); // max of two: 0.72
    set(f, 2, 6, 0.2);
    set(f, 3, 2, 0.5); // of three: 0.36 = 0.6^2
    set(f, 3, 7, 0.5);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        f->o.eps_b = cases[i].eps;
        const struct dm_block b = step(f, NULL, 3);
        assert_int_equal(b.n, cases[i].n);
        assert_int_equal(b.pos, 3);
        for (size_t n = 1; n <= 3; n++) {
            assert_int_equal(b.order[n].tried, n >= cases[i].n && (cases[i].eps < 1 || n == 1));
            assert_int_equal(b.order[n].passed, n == cases[i].n);
        }
        if (b.order[3].tried)
            assert_near(b.order[3].max, 0.36, 1e-6);
        if (b.order[2].tried)
            assert_near(b.order[2].max, 0.72, 1e-6);
    }
}

static void test_without_the_cut_all_cells_may_be_sampled(void **state)
{
    struct fixture *f = *state;
    static double p[V * V];
    set(f, 1, 0, 0.8);
    set(f, 1, 1, 0.2);
    set(f, 2, 2, 0.75);
    set(f, 2, 3, 0.25);
    for (int32_t v = 0; v < V; v++)
        set(f, 3, v, 1);
    f->o.eps_b = 0.5;
    f->o.penalty = 1;
    f->o.cut = false;
    p[2] = 0.6;
    p[3] = 0.2;
    p[V + 2] = 0.15;
    p[V + 3] = 0.05;
    check_frequencies(f, NULL, 2, p);
}

static void test_each_order_has_its_own_power(void **state)
{
    struct fixture *f = *state;
    const struct {
        double power2, power3;
        size_t n;
    } cases[] = {{1, 2, 1}, {1.1, 2, 2}, {1.1, 4.1, 2}, {1, 4.2, 3}, {1.1, 4.2, 3}, {0.5, 0.5, 1}};
    set(f, 1, 0, 0.9);
    set(f, 1, 5, 0.1);
    set(f, 2, 1, 0.8); // max of two: 0.72 = 0.74^1.09
    set(f, 2, 6, 0.2);
    set(f, 3, 2, 0.4);
    set(f, 3, 7, 0.3); // of three: 0.288 = 0.74^4.13
    set(f, 3, 8, 0.3);
    f->o.eps_b = 0.74;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        f->o.power2 = cases[i].power2;
        f->o.power3 = cases[i].power3;
        assert_int_equal(step(f, NULL, 3).n, cases[i].n);
    }
}

static void test_a_block_passes_by_its_fit_and_its_joint(void **state)
{
    struct fixture *f = *state;
    set(f, 1, 0, 0.9);
    set(f, 1, 1, 0.1);
    set(f, 2, 2, 0.6);
    set(f, 2, 3, 0.4);
    for (int32_t v = 0; v < V; v++)
        set(f, 3, v, 1);
    f->o.penalty = 1;
    f->o.power3 = 0.01;
    f->o.eps_b = 0.5; // (0,2) has J 0.54
    f->o.fit.known = true;
    const struct dm_block b = step(f, NULL, 0);
    assert_int_equal(b.n, 2);
    assert_near(b.order[2].counts, 0.54, 1e-6);
    const double want[] = {1, log(0.54), 0, log(0.9), log(0.6), 0.325083, 0.673012};
    for (size_t i = 0; i < 7; i++)
        assert_near(b.order[2].term[i], want[i], 1e-6);
    f->o.fit.w[2][0] = 0.65; // exp(-d) is 0.522, and with 0.75 it is 0.472
    assert_int_equal(step(f, NULL, 0).n, 2);
    f->o.fit.w[2][0] = 0.75;
    assert_near(step(f, NULL, 0).order[2].counts, exp(-0.75), 1e-9);
    assert_int_equal(step(f, NULL, 0).n, 1);
    f->o.temperature = 0; // greedy text, and fits that are off, have J alone
    assert_int_equal(step(f, NULL, 0).n, 2);
    f->o.temperature = 1;
    f->o.fitted = false;
    assert_int_equal(step(f, NULL, 0).n, 2);
}

static void test_triplets_have_their_own_exponent(void **state)
{
    struct fixture *f = *state;
    static double p[V * V * V];
    static const double h[3][V] = {
        {[1] = 0.5, [4] = 0.5}, {[1] = 0.6, [2] = 0.4}, {[2] = 0.7, [6] = 0.3}};
    const int32_t text[] = {1, 1, 2, 1, 2, 6, 4, 1, 2, 4, 1, 6, 5, 2, 6, 1, 2, 2};
    struct dm_cooc table;
    tablet_count(&table, text, sizeof(text) / sizeof(text[0]), V);
    for (size_t i = 0; i < 3; i++)
        for (int32_t v = 0; v < V; v++)
            if (h[i][v] > 0)
                set(f, i + 1, v, h[i][v]);
    f->o.eps_b = 0;
    f->o.unseen = DM_UNSEEN_MIX;
    f->o.lambda = 0.6;
    f->o.penalty = 1;
    f->o.alpha_c = 0.8;
    f->o.alpha_3 = 0.5;
    for (int32_t c = 0; c < V * V * V; c++) {
        const int32_t x[3] = {c / V / V, c / V % V, c % V};
        p[c] = h[0][x[0]] * h[1][x[1]] * h[2][x[2]] *
               pow(0.6 * tablet_r3(&table, x[0], x[1], x[2]) + 0.4, 0.4);
    }
    normalise(p, V * V * V);
    check_frequencies(f, &table, 3, p);
    f->o.power3 = 0.01; // pairs, after triplets were tried with another mask
    f->o.eps_b = 1e-9;
    memset(p, 0, sizeof(p));
    for (int32_t c = 0; c < V * V; c++)
        p[c] = h[0][c / V] * h[1][c % V] * pow(0.6 * tablet_r2(&table, c / V, c % V) + 0.4, 0.8);
    normalise(p, V * V);
    check_frequencies(f, &table, 2, p);
    tablet_free(&table);
}

static void test_certain_heads_do_not_pass_eps_b_1(void **state)
{
    struct fixture *f = *state;
    for (size_t h = 1; h <= 3; h++)
        set(f, h, (int32_t)h, 1); // J = 1 in one cell
    f->o.eps_b = 1;
    assert_int_equal(step(f, NULL, 0).n, 1);
    f->o.eps_b = 0.999;
    assert_int_equal(step(f, NULL, 0).n, 3);
}

static void test_penalty_can_make_a_block_fail(void **state)
{
    struct fixture *f = *state;
    set(f, 1, 0, 1);
    set(f, 2, 1, 1);
    set(f, 3, 1, 1); // repeats inside the block
    f->o.eps_b = 0.9;
    f->o.penalty = 1.2; // 1 / 1.2 > 0.81
    assert_int_equal(step(f, NULL, 0).n, 3);
    f->o.penalty = 1.25; // 1 / 1.25 = 0.8
    assert_int_equal(step(f, NULL, 0).n, 2);
    dm_decoder_add(&f->d, (const int32_t[]){1}, 1);
    assert_int_equal(step(f, NULL, 0).n, 1);
    dm_decoder_reset(&f->d);
    assert_int_equal(step(f, NULL, 0).n, 2);
}

static void test_greedy_is_the_arg_max_of_the_joint(void **state)
{
    struct fixture *f = *state;
    const int32_t text[] = {5, 6, 2, 5, 6, 2, 5, 6, 2, 0, 1, 4, 3, 2, 1};
    struct dm_cooc table;
    tablet_count(&table, text, sizeof(text) / sizeof(text[0]), V);
    f->o.temperature = 0;
    f->o.eps_b = 0;
    for (int32_t v = 0; v < V; v++)
        for (size_t h = 1; h <= 3; h++)
            set(f, h, v, 1 + 0.01 * (double)h * v);
    f->o.unseen = DM_UNSEEN_ZERO;          // (1,4,3) and (0,1,4) have the largest r3, 129.8
    for (size_t pos = 0; pos < 5; pos++) { // whatever the random number
        const struct dm_block b = step(f, NULL, pos);
        assert_memory_equal(b.id, ((const int32_t[]){9, 10, 11}), sizeof(b.id));
        assert_memory_equal(step(f, &table, pos).id, ((const int32_t[]){1, 4, 3}), sizeof(b.id));
    }
    f->o.mode = DM_GEN_AR;
    assert_int_equal(step(f, NULL, 0).id[0], 11);
    tablet_free(&table);
}

static void test_eps_b_0_emits_three_whatever_the_threshold_sees(void **state)
{
    struct fixture *f = *state;
    f->o.eps_b = 0;
    f->o.threshold = true;
    for (int sharp = 0; sharp < 12; sharp++) {
        for (int32_t v = 0; v < V; v++)
            for (size_t h = 1; h <= 3; h++)
                set(f, h, v, exp(-0.3 * sharp * ((v + (int32_t)h) % 5)));
        const struct dm_block b = step(f, NULL, 7);
        assert_int_equal(b.n, 3);
        assert_int_equal(b.order[3].otsu >= 0, sharp > 0); // flat: nothing to part
    }
}

static void test_orders_that_the_table_empties_are_skipped(void **state)
{
    struct fixture *f = *state;
    const int32_t pairs[] = {1, 2, 0, 3}; // holds (1,2) but no triplet of the heads
    struct dm_cooc table;
    tablet_count(&table, pairs, 4, V);
    set(f, 1, 1, 1);
    set(f, 2, 2, 1);
    set(f, 3, 3, 1);
    f->o.eps_b = 0;
    f->o.unseen = DM_UNSEEN_ZERO;
    struct dm_block b = step(f, &table, 0);
    assert_int_equal(b.n, 2);
    assert_true(b.order[3].tried && !b.order[3].passed && b.order[3].n_cells == 0);
    set(f, 2, 2, 1e-30);
    set(f, 2, 5, 1); // no pair either: (1,2) is cut off
    f->o.top_k = 1;
    assert_int_equal(step(f, &table, 0).n, 1);
    f->o.alpha_c = 0; // switches the mask off
    assert_int_equal(step(f, &table, 0).n, 3);
    tablet_free(&table);
}

static void test_backing_off_uses_no_random_number(void **state)
{
    struct fixture *f = *state;
    f->o.threshold = true;
    for (int32_t v = 0; v < V; v++)
        for (size_t h = 1; h <= 3; h++)
            set(f, h, v, 1 + v);
    for (size_t pos = 0; pos < 200; pos++) {
        f->o.mode = DM_GEN_DYNAMO;
        f->o.eps_b = 0.99; // tried and refused
        const struct dm_block a = step(f, NULL, pos);
        f->o.eps_b = 1;
        const struct dm_block b = step(f, NULL, pos);
        f->o.mode = DM_GEN_AR;
        const struct dm_block c = step(f, NULL, pos);
        assert_true(a.order[3].tried && !b.order[3].tried);
        assert_int_equal(a.n, 1);
        assert_int_equal(a.id[0], c.id[0]);
        assert_int_equal(b.id[0], c.id[0]);
        assert_true(a.q == c.q && b.q == c.q);
    }
}

static void test_blocks_are_the_same_with_and_without_trace(void **state)
{
    struct fixture *f = *state;
    const int32_t text[] = {1, 1, 2, 1, 2, 6, 4, 1, 2, 4, 1, 8, 5, 2, 6, 1, 2, 2, 7, 9, 10, 11, 3};
    struct dm_cooc table;
    tablet_count(&table, text, sizeof(text) / sizeof(text[0]), V);
    size_t by_n[4] = {0}, given_up = 0;
    f->o.threshold = true;
    const struct dm_fit fit[] = {{.w = {[2] = {0.3, -0.5}, [3] = {0.4, -0.3, -0.2}}},
                                 {.w = {[2] = {0.1, 0.1, -0.7, -0.4, -0.2, -0.1, 0.3},
                                        [3] = {0.5, -0.1, -0.7, -0.4, 0.1, -0.3, -0.2, 0.3, 0.1}}}};
    for (size_t pos = 0; pos < 600; pos++) {
        struct dm_rng rng;
        dm_rng_init(&rng, 77, pos);
        for (int32_t v = 0; v < V; v++)
            for (size_t h = 1; h <= 3; h++)
                set(f, h, v, exp(4 * dm_rng_normal(&rng)));
        f->o.eps_b = 0.1 * (double)(pos % 9);
        f->o.unseen = (enum dm_unseen)(pos % 3);
        f->o.fit = fit[pos % 8 / 4];
        f->o.fit.known = pos % 4 == 0;
        f->o.power3 = pos % 5 ? 2 : 1.5;
        f->o.alpha_3 = pos % 6 ? 1 : 0.6;
        f->o.cut = pos % 7;
        f->o.trace = true;
        const struct dm_block a = step(f, &table, pos);
        f->o.trace = false;
        const struct dm_block b = step(f, &table, pos);
        f->o.trace = true;
        f->o.temperature = 0;
        const struct dm_block greedy = step(f, &table, pos);
        f->o.temperature = 1;
        if (!f->o.fit.known)
            assert_int_equal(a.n, greedy.n);
        if (a.n > 1 && a.n == greedy.n)
            assert_memory_equal(a.order[a.n].best, greedy.id, a.n * sizeof(*greedy.id));
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.id, b.id, a.n * sizeof(*a.id));
        assert_true(a.q == b.q);
        assert_true(a.order[a.n].max == b.order[a.n].max);
        by_n[a.n]++;
        given_up += a.order[3].max > 0 && b.order[3].max == 0;
    }
    assert_true(by_n[1] > 20 && by_n[2] > 20 && by_n[3] > 20 && given_up > 20);
    tablet_free(&table);
}

static void test_logits_that_are_not_finite_are_an_error(void **state)
{
    struct fixture *f = *state;
    struct dm_block b;
    struct dm_err e;
    for (int32_t v = 0; v < V; v++)
        f->logits[VP + v] = NAN;
    assert_int_equal(dm_decoder_step(&f->d, &f->o, NULL, f->logits, VP, 3, 9, &b, &e), DM_ENAN);
    assert_string_equal(e.msg, "logits of head 2 at position 9 are not finite");
    f->o.mode = DM_GEN_AR;
    assert_ok(dm_decoder_step(&f->d, &f->o, NULL, f->logits, VP, 3, 9, &b, &e), e);
}

static void test_running_out_of_memory_is_reported(void **state)
{
    (void)state;
    struct dm_err e;
    for (size_t n = 1;; n++) {
        struct dm_decoder d = {0};
        dm_alloc_fail_at(n);
        const enum dm_status st = dm_decoder_init(&d, V, 5, 3, &e);
        const bool reached = !dm_alloc_fail_at(0);
        dm_decoder_release(&d);
        assert_int_equal(st, reached ? DM_ENOMEM : DM_OK);
        if (!reached)
            break;
    }
}

/* Three candidates per head, in this order: 1, 4, 8 and 2, 6, 7; the table holds (1,2), (4,2). */
static void test_stages_are_those_of_the_step(void **state)
{
    struct fixture *f = *state;
    const int32_t seen[] = {1, 2, 0, 4, 2, 0, 6, 1, 1}, context = 4;
    static const int32_t id[2][3] = {{1, 4, 8}, {2, 6, 7}};
    static const double p[2][3] = {{0.6, 0.3, 0.1}, {0.5, 0.3, 0.2}};
    struct dm_cooc table;
    struct dm_stages s;
    struct dm_err e;
    tablet_count(&table, seen, 9, V);
    for (size_t h = 0; h < 2; h++)
        for (size_t i = 0; i < 3; i++)
            set(f, h + 1, id[h][i], p[h][i]);
    set(f, 3, 3, 1);
    f->o.top_k = 3;
    f->o.eps_b = 0.999; // order 3 does not pass
    f->o.threshold = f->o.blur = true;
    f->o.unseen = DM_UNSEEN_MIX;
    dm_decoder_add(&f->d, &context, 1);
    const struct dm_try want = step(f, &table, 0).order[2];
    assert_true(want.tried);
    assert_ok(dm_stages_of(&s, &f->d, &f->o, &table, &e), e);
    double Z = 0, w[3][3], max = 0;
    assert_true(s.n[0] == 3 && s.n[1] == 3 && s.otsu >= 0);
    for (int i = 0; i < 3; i++)
        for (int m = 0; m < 3; m++) {
            assert_true(s.id[0][i] == id[0][i] && s.id[1][m] == id[1][m]);
            Z += w[i][m] = p[0][i] * p[1][m] * (0.9 * tablet_r2(&table, id[0][i], id[1][m]) + 0.1);
            assert_near(s.J[DM_STAGE_PRODUCT][i][m], p[0][i] * p[1][m], 1e-6);
        }
    for (int i = 0; i < 3; i++)
        for (int m = 0; m < 3; m++) {
            const double J = s.J[DM_STAGE_THRESHOLD][i][m], out = s.J[DM_STAGE_PENALTY][i][m];
            assert_near(s.J[DM_STAGE_MASK][i][m], w[i][m] / Z, 1e-6);
            if (round(255 * s.J[DM_STAGE_BLUR][i][m]) > s.otsu)
                assert_near(J, w[i][m] / Z, 1e-6);
            else
                assert_true(J == 0);
            assert_near(out, i == 1 ? J / f->o.penalty : J, 1e-12);
            max = fmax(max, out);
        }
    assert_near(s.mass[DM_STAGE_MASK], 1, 1e-9);
    assert_int_equal(s.cells[DM_STAGE_MASK], 9);
    assert_int_equal(s.cells[DM_STAGE_THRESHOLD], want.n_cells);
    assert_int_equal(s.otsu, want.otsu);
    assert_true(s.max == max && s.max == want.max);
    assert_true(s.counts == max && s.level == f->o.eps_b);
    f->o.power2 = 2;
    f->o.fit = (struct dm_fit){.known = true, .w = {[2] = {2, 0, 0, 1}}};
    assert_ok(dm_stages_of(&s, &f->d, &f->o, &table, &e), e);
    assert_near(s.counts, exp(-2) / p[0][1], 1e-6); // the largest is in the second row
    assert_near(s.level, f->o.eps_b * f->o.eps_b, 1e-12);
    f->o.unseen = DM_UNSEEN_ZERO;
    set(f, 2, 2, 1e-30);
    set(f, 2, 9, 0.5); // no pair of the table is left
    assert_int_equal(step(f, &table, 0).n, 1);
    assert_ok(dm_stages_of(&s, &f->d, &f->o, &table, &e), e);
    assert_true(s.max == 0 && s.mass[DM_STAGE_MASK] == 0 && s.mass[DM_STAGE_PRODUCT] > 0);
    f->o.eps_b = 1;
    step(f, &table, 0);
    assert_int_equal(dm_stages_of(&s, &f->d, &f->o, &table, &e), DM_ERANGE);
    tablet_free(&table);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_penalty_counts_repeats_of_context_and_block_once_each),
        T(test_one_token_frequencies_match_head_1_after_penalty),
        T(test_block_frequencies_match_the_joint),
        T(test_cells_below_the_static_threshold_are_never_sampled),
        T(test_acceptance_backs_off_one_token_at_a_time),
        T(test_without_the_cut_all_cells_may_be_sampled),
        T(test_each_order_has_its_own_power),
        T(test_a_block_passes_by_its_fit_and_its_joint),
        T(test_triplets_have_their_own_exponent),
        T(test_certain_heads_do_not_pass_eps_b_1),
        T(test_penalty_can_make_a_block_fail),
        T(test_greedy_is_the_arg_max_of_the_joint),
        T(test_eps_b_0_emits_three_whatever_the_threshold_sees),
        T(test_orders_that_the_table_empties_are_skipped),
        T(test_backing_off_uses_no_random_number),
        T(test_blocks_are_the_same_with_and_without_trace),
        T(test_logits_that_are_not_finite_are_an_error),
        T(test_stages_are_those_of_the_step),
        T(test_running_out_of_memory_is_reported),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
