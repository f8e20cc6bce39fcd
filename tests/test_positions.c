/* SPDX-License-Identifier: MIT */
/* Positions against naive double code, and what is made of them. */
#include "eval/positions.h"

#include "tests/util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/heldout.h"
#include "eval/reliability.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/decode/decoder.h"
#include "tests/tablet.h"
#include "tests/tiny.h"

enum { CONTEXT = 12, WINDOWS = 2, PER = 4, N = WINDOWS * PER, TOP_K = 8, TEXT = 2000 };

/* Counts of a text in which a token says something of the next. */
static void make_table(struct dm_cooc *c, size_t V)
{
    static int32_t ids[TEXT];
    struct dm_rng rng;
    dm_rng_init(&rng, 3, 0);
    for (size_t i = 1; i < TEXT; i++)
        ids[i] = (int32_t)(((size_t)ids[i - 1] * 5 + dm_rng_below(&rng, 2 + V / 4)) % V);
    tablet_count(c, ids, TEXT, V);
}

static struct dm_gen_opt options(enum dm_unseen unseen, bool threshold)
{
    struct dm_gen_opt o = dm_gen_opt_default();
    o.top_k = TOP_K;
    o.unseen = unseen;
    o.threshold = threshold;
    o.penalty = 1.3;
    return o;
}

/* What a preset or a calibration may change of the joint and of its level. */
static void vary(struct dm_gen_opt *o)
{
    o->alpha_c = 1.5;
    o->alpha_3 = 0.5;
    o->fit = (struct dm_fit){.known = true,
                             .w = {[2] = {0.1, 0, 0, -0.4}, [3] = {0.2, 0, 0, -0.5}}};
    o->power2 = 2;
    o->power3 = 2.5;
}

/* ---- Reference ------------------------------------------------------------------------------- */

struct head {
    double logp[TINY_VP]; /* full softmax at temperature 1 */
    int32_t cand[TOP_K];
    double p[TOP_K]; /* of the candidates */
};

static void make_head(struct head *h, const float *row, size_t V, double temperature)
{
    const double lse = tiny_lse(row, V);
    bool used[TINY_VP] = {false};
    double sum = 0;
    for (size_t v = 0; v < V; v++)
        h->logp[v] = (double)row[v] - lse;
    for (size_t i = 0; i < TOP_K; i++) {
        int32_t best = -1;
        for (size_t v = 0; v < V; v++)
            if (!used[v] && (best < 0 || row[v] > row[best]))
                best = (int32_t)v;
        used[best] = true;
        h->cand[i] = best;
        sum += h->p[i] = exp(((double)row[best] - (double)row[h->cand[0]]) / temperature);
    }
    for (size_t i = 0; i < TOP_K; i++)
        h->p[i] /= sum;
}

static double ratio(const struct dm_cooc *c, const struct dm_gen_opt *o, const int32_t *x, size_t n)
{
    const double unseen = o->unseen == DM_UNSEEN_ZERO ? 0 : 1 - o->lambda;
    const double a = tablet_r2(c, x[0], x[1]);
    if (n == 2)
        return a > 0 ? a : unseen;
    const double r3 = tablet_r3(c, x[0], x[1], x[2]), b = tablet_r2(c, x[1], x[2]);
    if (r3 > 0 || o->unseen == DM_UNSEEN_ZERO)
        return r3;
    return (a > 0 ? a : unseen) * (b > 0 ? b : unseen);
}

/* J of every combination of n candidates, cell = (i * TOP_K + j) * TOP_K + k; false: all 0. */
static bool make_joint(double *J, const struct head *h, size_t n, const struct dm_cooc *c,
                       const struct dm_gen_opt *o)
{
    const size_t cells = n == 2 ? TOP_K * TOP_K : TOP_K * TOP_K * TOP_K;
    double Z = 0;
    for (size_t cell = 0; cell < cells; cell++) {
        int32_t x[3];
        double w = 1;
        for (size_t i = n, rest = cell; i-- > 0; rest /= TOP_K) {
            x[i] = h[i].cand[rest % TOP_K];
            w *= h[i].p[rest % TOP_K];
        }
        Z += J[cell] = w * (c ? pow(ratio(c, o, x, n), n > 2 ? o->alpha_c * o->alpha_3 : o->alpha_c)
                              : 1);
    }
    for (size_t cell = 0; cell < cells; cell++)
        J[cell] = Z > 0 ? J[cell] / Z : 0;
    return Z > 0;
}

static void check_masked(const struct dm_pos *p, const struct head *h, size_t n,
                         const int32_t *next, const struct dm_cooc *c, const struct dm_gen_opt *o)
{
    double J[TOP_K * TOP_K * TOP_K], plain = 0, mass = 1;
    size_t cell = 0;
    bool inside = true;
    for (size_t i = 0; i < n; i++) {
        size_t at = TOP_K;
        double sum = 0;
        for (size_t k = 0; k < TOP_K; k++) {
            sum += exp(h[i].logp[h[i].cand[k]]);
            at = h[i].cand[k] == next[i] ? k : at;
        }
        plain += h[i].logp[next[i]];
        mass *= sum;
        cell = cell * TOP_K + at;
        inside = inside && at < TOP_K;
        assert_int_equal(p->outside[i], at == TOP_K);
    }
    const bool any = make_joint(J, h, n, c, o);
    const double want = inside && any ? log(0.99 * mass * J[cell] + 0.01 * exp(plain)) : plain;
    assert_near(p->masked[n], want, 1e-5);
    assert_int_equal(p->zero[n], inside && any && J[cell] == 0);
}

/* With threshold off: the largest J after the penalty, what of it counts, and whether it is the
 * text. */
static void check_tested(const struct dm_pos *p, int kind, const struct head *h, size_t n,
                         const int32_t *ids, size_t pos, const struct dm_cooc *c,
                         const struct dm_gen_opt *o)
{
    double J[TOP_K * TOP_K * TOP_K], max = 0, counts = 0;
    const size_t cells = n == 2 ? TOP_K * TOP_K : TOP_K * TOP_K * TOP_K;
    bool right = false;
    make_joint(J, h, n, c, o);
    for (size_t cell = 0; cell < cells; cell++) {
        int32_t x[CONTEXT];
        bool is_text = true;
        memcpy(x, ids, pos * sizeof(*x));
        for (size_t i = n, rest = cell; i-- > 0; rest /= TOP_K)
            x[pos + i] = h[i].cand[rest % TOP_K];
        for (size_t i = pos; i < pos + n; i++) {
            bool seen = false;
            for (size_t k = 0; k < i; k++)
                seen = seen || x[k] == x[i];
            J[cell] /= seen ? o->penalty : 1;
            is_text = is_text && x[i] == ids[i];
        }
        if (J[cell] > max) {
            max = J[cell];
            const double p1 = h[0].p[cell / (n == 2 ? TOP_K : TOP_K * TOP_K)];
            const double fit = exp(-o->fit.w[n][0]) * pow(p1, -o->fit.w[n][3]);
            counts = o->fit.known ? fmin(max, fit) : max;
            right = is_text;
        }
    }
    assert_near(p->joint[kind][n].max, max, 1e-6);
    assert_near(p->joint[kind][n].counts, counts, 1e-6);
    assert_int_equal(p->joint[kind][n].right, right);
}

static void check_position(const struct dm_pos *p, float *const logits[3], const int32_t *ids,
                           size_t pos, const struct dm_cooc *c, const struct dm_gen_opt *o)
{
    struct head one[3], warm[3];
    for (size_t h = 0; h < 3; h++) {
        const float *row = logits[h] + (pos - 1) * TINY_VP;
        int32_t rank = 0;
        make_head(&one[h], row, TINY_VP, 1);
        make_head(&warm[h], row, TINY_VP, o->temperature);
        assert_near((double)p->logp[h], one[h].logp[ids[pos + h]], 2e-6);
        assert_near((double)p->top[h], exp(one[h].logp[one[h].cand[0]]), 2e-6);
        for (size_t v = 0; v < TINY_VP; v++)
            rank += row[v] > row[ids[pos + h]];
        assert_int_equal(p->rank[h], rank);
    }
    assert_true(p->masked[1] == (double)p->logp[0]);
    for (size_t n = 2; n <= 3; n++) {
        check_masked(p, one, n, ids + pos, c, o);
        check_tested(p, DM_POS_PLAIN, warm, n, ids, pos, NULL, o);
        check_tested(p, DM_POS_MASKED, warm, n, ids, pos, c, o);
    }
}

/* Targets that are candidates of their heads, which the windows' hardly ever are in all of them. */
static void check_inside(const struct dm_model *m, const struct dm_cooc *table,
                         const struct dm_gen_opt *o)
{
    enum { SHORT = 5 }; // one position, after two tokens
    int32_t ids[SHORT] = {3, 6};
    struct head head[3];
    for (size_t n = 1; n <= 3; n++) {
        float *logits = tiny_logits(m, ids, 1, 2, n);
        make_head(&head[n - 1], logits + TINY_VP, TINY_VP, 1);
        free(logits);
    }
    for (size_t i = 0; i < TOP_K; i++) {
        struct dm_pos p;
        struct dm_err e;
        for (size_t h = 0; h < 3; h++)
            ids[2 + h] = head[h].cand[i * (2 * h + 1) % TOP_K];
        assert_ok(dm_pos_run(&p, m, table, o, ids, 1, SHORT, NULL, NULL, &e), e);
        for (size_t n = 2; n <= 3; n++)
            check_masked(&p, head, n, ids + 2, table, o);
    }
}

static void test_positions_equal_their_definition(void **state)
{
    (void)state;
    const struct dm_config cfg = tiny_config();
    struct dm_model m;
    struct dm_cooc table;
    struct dm_err e;
    struct dm_pos p[N];
    int32_t ids[WINDOWS * CONTEXT];
    tiny_model(&m, &cfg);
    make_table(&table, TINY_VP);
    memcpy(ids, tiny_ids, sizeof(ids));
    assert_int_equal(dm_pos_per_window(CONTEXT, 3), PER);
    for (int variant = 0; variant < 4; variant++) {
        struct dm_gen_opt o = options(variant % 2 ? DM_UNSEEN_BACKOFF : DM_UNSEEN_ZERO, false);
        if (variant > 1)
            vary(&o);
        assert_ok(dm_pos_run(p, &m, &table, &o, ids, WINDOWS, CONTEXT, NULL, NULL, &e), e);
        for (size_t w = 0; w < WINDOWS; w++) {
            const int32_t *x = ids + w * CONTEXT;
            float *logits[3];
            for (size_t n = 1; n <= 3; n++)
                logits[n - 1] = tiny_logits(&m, x, 1, CONTEXT, n);
            for (size_t i = 0; i < PER; i++)
                check_position(&p[w * PER + i], logits, x, CONTEXT / 2 + i, &table, &o);
            for (size_t n = 0; n < 3; n++)
                free(logits[n]);
        }
        check_inside(&m, &table, &o);
    }
    tablet_free(&table);
    dm_model_release(&m);
}

/* Over all pairs that may follow, the masked probabilities sum to 1; so do those of triplets. */
static void test_masked_probabilities_sum_to_one(void **state)
{
    (void)state;
    enum { V = 7, TOP = 4, SHORT = 5 }; // one position, after two tokens
    struct dm_config cfg = tiny_config();
    struct dm_model m;
    struct dm_cooc table;
    struct dm_err e;
    cfg.V = cfg.Vp = V;
    tiny_model(&m, &cfg);
    make_table(&table, V);
    assert_int_equal(dm_pos_per_window(SHORT, 3), 1);
    for (int unseen = 0; unseen <= DM_UNSEEN_BACKOFF; unseen++) {
        struct dm_gen_opt o = options((enum dm_unseen)unseen, true);
        double pairs = 0, triplets = 0;
        size_t outside = 0, moved = 0;
        o.top_k = TOP;
        for (int32_t i = 0; i < V * V * V; i++) {
            const int32_t ids[SHORT] = {3, 6, i % V, i / V % V, i / V / V};
            struct dm_pos p;
            assert_ok(dm_pos_run(&p, &m, &table, &o, ids, 1, SHORT, NULL, NULL, &e), e);
            pairs += exp(p.masked[2]) / V;
            triplets += exp(p.masked[3]);
            outside += p.outside[0] || p.outside[1] || p.outside[2];
            moved += fabs(p.masked[3] + 3 * dm_pos_nll(&p, DM_POS_PLAIN, 3)) > 0.02;
        }
        assert_near(pairs, 1, 1e-6);
        assert_near(triplets, 1, 1e-6);
        assert_int_equal(outside, V * V * V - TOP * TOP * TOP);
        assert_true(moved > 10);
    }
    tablet_free(&table);
    dm_model_release(&m);
}

static void check_back_off(const struct dm_model *m, const struct dm_cooc *table,
                           struct dm_gen_opt o, size_t by_n[4])
{
    enum { EPS = 41 };
    struct dm_decoder d;
    struct dm_err e;
    struct dm_pos p[N];
    assert_ok(dm_pos_run(p, m, table, &o, tiny_ids, WINDOWS, CONTEXT, NULL, NULL, &e), e);
    assert_ok(dm_decoder_init(&d, TINY_VP, TOP_K, 3, &e), e);
    for (size_t i = 0; i < N * EPS; i++) {
        const struct dm_pos *at = &p[i / EPS];
        const int32_t *ids = tiny_ids + i / EPS / PER * CONTEXT;
        const size_t pos = CONTEXT / 2 + i / EPS % PER;
        float *logits = tiny_floats(3 * TINY_VP);
        struct dm_block b;
        for (size_t n = 1; n <= 3; n++) {
            float *all = tiny_logits(m, ids, 1, CONTEXT, n);
            memcpy(logits + (n - 1) * TINY_VP, all + (pos - 1) * TINY_VP, TINY_VP * sizeof(*all));
            free(all);
        }
        for (int kind = 0; kind < DM_POS_KINDS; kind++) {
            o.eps_b = (double)(i % EPS) / (EPS - 1);
            dm_decoder_reset(&d);
            dm_decoder_add(&d, ids, pos);
            assert_ok(dm_decoder_step(&d, &o, kind == DM_POS_MASKED ? table : NULL, logits, TINY_VP,
                                      3, pos, &b, &e),
                      e);
            assert_int_equal(dm_pos_tokens(at, kind, &o, 3), b.n);
            by_n[b.n]++;
        }
        free(logits);
    }
    dm_decoder_release(&d);
}

static void test_back_off_is_that_of_decoding(void **state)
{
    (void)state;
    const struct dm_config cfg = tiny_config();
    struct dm_model m;
    struct dm_cooc table;
    tiny_model(&m, &cfg);
    make_table(&table, TINY_VP);
    for (int variant = 0; variant < 4; variant++) {
        struct dm_gen_opt o = options(DM_UNSEEN_BACKOFF, true);
        size_t by_n[4] = {0};
        o.cut = variant % 2;
        if (variant > 1)
            vary(&o);
        check_back_off(&m, &table, o, by_n);
        assert_true(by_n[1] > 10 && by_n[2] > 0 && by_n[3] > 10);
    }
    tablet_free(&table);
    dm_model_release(&m);
}

/* One combination has all of J: order 3 passes whatever eps_b, and order 2 is known all the same.
 */
static void test_a_certain_block_hides_no_lower_order(void **state)
{
    (void)state;
    const struct dm_config cfg = tiny_config();
    struct dm_model m;
    struct dm_err e;
    struct dm_pos p[N];
    tiny_model(&m, &cfg);
    struct dm_gen_opt o = options(DM_UNSEEN_BACKOFF, true);
    o.top_k = 1;
    o.penalty = 1;
    assert_ok(dm_pos_run(p, &m, NULL, &o, tiny_ids, WINDOWS, CONTEXT, NULL, NULL, &e), e);
    for (size_t i = 0; i < N; i++) {
        assert_true(p[i].joint[DM_POS_MASKED][3].max == 1);
        assert_true(p[i].joint[DM_POS_MASKED][2].max == 1);
        assert_int_equal(p[i].joint[DM_POS_PLAIN][2].right, !p[i].rank[0] && !p[i].rank[1]);
        o.eps_b = 0.99;
        assert_int_equal(dm_pos_tokens(&p[i], DM_POS_MASKED, &o, 3), 3);
        o.eps_b = 1;
        assert_int_equal(dm_pos_tokens(&p[i], DM_POS_MASKED, &o, 3), 1);
    }
    dm_model_release(&m);
}

static bool stop_at_once(void *ctx, size_t done)
{
    *(size_t *)ctx = done;
    return false;
}

static void test_windows_and_limits(void **state)
{
    (void)state;
    const struct dm_config cfg = tiny_config();
    struct dm_model m;
    struct dm_err e;
    struct dm_pos p[N];
    const struct dm_gen_opt o = options(DM_UNSEEN_BACKOFF, true);
    const int32_t bad[CONTEXT] = {1, 2, TINY_VP};
    size_t done = 0;
    assert_int_equal(dm_pos_per_window(5, 3), 1);
    assert_int_equal(dm_pos_per_window(4, 3), 0);
    assert_int_equal(dm_pos_per_window(1, 1), 0);
    assert_int_equal(dm_pos_start(0, 3, 10, 100), 0);
    assert_int_equal(dm_pos_start(1, 3, 10, 100), 45);
    assert_int_equal(dm_pos_start(2, 3, 10, 100), 90);
    tiny_model(&m, &cfg);
    assert_int_equal(dm_pos_run(p, &m, NULL, &o, tiny_ids, 1, 25, NULL, NULL, &e), DM_ERANGE);
    assert_non_null(strstr(e.msg, "25 tokens is not within 5..24"));
    assert_int_equal(dm_pos_run(p, &m, NULL, &o, tiny_ids, 1, 4, NULL, NULL, &e), DM_ERANGE);
    assert_int_equal(dm_pos_run(p, &m, NULL, &o, bad, 1, CONTEXT, NULL, NULL, &e), DM_ERANGE);
    assert_int_equal(dm_pos_run(p, &m, NULL, &o, tiny_ids, 2, CONTEXT, stop_at_once, &done, &e),
                     DM_ESTOPPED);
    assert_int_equal(done, 1);
    for (size_t n = 1, left = 0; !left; n++) {
        dm_alloc_fail_at(n);
        const enum dm_status st = dm_pos_run(p, &m, NULL, &o, tiny_ids, 1, CONTEXT, NULL, NULL, &e);
        left = dm_alloc_fail_at(0);
        assert_int_equal(st, left ? DM_OK : DM_ENOMEM);
    }
    dm_model_release(&m);
}

/* ---- What is made of positions --------------------------------------------------------------- */

/* Two positions whose numbers are easy. */
static void make_two(struct dm_pos *p)
{
    memset(p, 0, 2 * sizeof(*p));
    for (size_t h = 0; h < 3; h++) {
        p[0].logp[h] = -(float)(h + 1);
        p[1].logp[h] = -2.0f * (float)(h + 1);
        p[0].rank[h] = (int32_t)h * 3; // 0, 3, 6
    }
    p[1].outside[1] = true;
    for (size_t n = 1; n <= 3; n++) {
        p[0].masked[n] = -0.5 * (double)n;
        p[1].masked[n] = -1.5 * (double)n;
    }
    p[0].masked[1] = -1;
    p[1].masked[1] = -2;
    p[0].joint[DM_POS_PLAIN][3] = (struct dm_pos_joint){0.3, 0.3, true};
    p[0].joint[DM_POS_MASKED][3] = (struct dm_pos_joint){0.2, 0.2, false};
    p[0].joint[DM_POS_MASKED][2] = (struct dm_pos_joint){0.5, 0.5, true};
    p[1].joint[DM_POS_PLAIN][2] = (struct dm_pos_joint){0.55, 0.55, true};
    p[1].joint[DM_POS_MASKED][3] = (struct dm_pos_joint){0.9, 0.9, true};
    p[1].zero[2] = true;
}

/* The defaults, whose powers are the paper's 1 and 2. */
static const struct dm_gen_opt *at_eps(double eps_b, struct dm_gen_opt *o)
{
    *o = dm_gen_opt_default();
    o->eps_b = eps_b;
    return o;
}

static void test_perplexities_by_hand(void **state)
{
    (void)state;
    struct dm_pos p[2];
    struct dm_ppl s;
    struct dm_ppl_dynamic d;
    struct dm_gen_opt o;
    make_two(p);
    dm_ppl_sum(&s, p, 2, 3);
    assert_near(s.head[0], exp(1.5), 1e-12);
    assert_near(s.head[2], exp(4.5), 1e-9);
    assert_near(s.joint[0], s.head[0], 1e-12);
    assert_near(s.joint[2], cbrt(s.head[0] * s.head[1] * s.head[2]), 1e-9);
    assert_near(s.masked[0], s.head[0], 1e-12);
    assert_near(s.masked[1], exp(1), 1e-12);
    assert_near(s.outside[1], 0.5, 0);
    assert_near(s.outside_joint[0] + s.outside_joint[1], 0.5, 0);
    assert_near(s.outside_joint[2], 0.5, 0);
    assert_near(s.zero[1], 0.5, 0);
    // eps_b .5: order 3 needs more than .25, order 2 more than .5
    dm_ppl_dynamic(&d, p, 2, 3, DM_POS_PLAIN, at_eps(0.5, &o));
    assert_near(d.tokens, 2.5, 0);
    assert_near(d.share[1] + d.share[2], 1, 0);
    assert_near(d.ppl, exp((2.0 + 3.0) / 2), 1e-9);
    dm_ppl_dynamic(&d, p, 2, 3, DM_POS_MASKED, at_eps(0.5, &o));
    assert_near(d.tokens, 2, 0);
    assert_near(d.ppl, exp((1 + 1.5) / 2), 1e-12);
    dm_ppl_dynamic(&d, p, 2, 3, DM_POS_MASKED, at_eps(1, &o));
    assert_near(d.ppl, s.head[0], 1e-12);
    dm_ppl_dynamic(&d, p, 2, 3, DM_POS_MASKED, at_eps(0, &o));
    assert_near(d.ppl, s.masked[2], 1e-12);
    dm_ppl_sum(&s, p, 0, 3);
    dm_ppl_dynamic(&d, p, 0, 3, DM_POS_PLAIN, at_eps(0.5, &o));
    json_t *root = dm_ppl_to_json(&s, &d, 1);
    assert_true(json_is_null(json_array_get(json_object_get(root, "ppl"), 0)));
    assert_true(
        json_is_null(json_object_get(json_array_get(json_object_get(root, "dynamic"), 0), "ppl")));
    json_decref(root);
}

static void test_accuracies_by_hand(void **state)
{
    (void)state;
    struct dm_pos p[2];
    struct dm_accuracy a;
    make_two(p);
    dm_accuracy_sum(&a, p, 2, 3);
    assert_near(a.top1[0], 1, 0);
    assert_near(a.top1[1], 0.5, 0);
    assert_near(a.top5[1], 1, 0);
    assert_near(a.top5[2], 0.5, 0);
    assert_near(a.heads[2], 0.5, 0);
    assert_near(a.joint[DM_POS_PLAIN][2], 0.5, 0);
    assert_near(a.joint[DM_POS_PLAIN][3], 0.5, 0);
    assert_near(a.joint[DM_POS_MASKED][3], 0.5, 0);
    json_t *root = dm_accuracy_to_json(&a);
    assert_int_equal(json_array_size(json_object_get(root, "heads")), 3);
    assert_int_equal(json_array_size(json_object_get(root, "blocks")), 2);
    json_decref(root);
}

static void test_bins_hold_equal_numbers_and_ece_is_their_mean_gap(void **state)
{
    (void)state;
    const double confidence[] = {0.9, 0.1, 0.8, 0.2, 0.3};
    const bool right[] = {true, false, false, false, true};
    struct dm_curve c = {0};
    struct dm_err e;
    assert_ok(dm_curve_make(&c, confidence, right, 5, 2, &e), e);
    assert_int_equal(c.n_bins, 2);
    assert_int_equal(c.bin[0].n, 2);
    assert_int_equal(c.bin[1].n, 3);
    assert_near(c.bin[0].confidence, 0.15, 1e-12);
    assert_near(c.bin[0].correct, 0, 0);
    assert_near(c.bin[1].confidence, 2.0 / 3, 1e-12);
    assert_near(c.bin[1].correct, 2.0 / 3, 1e-12);
    assert_near(c.ece, 0.4 * 0.15, 1e-12);
    assert_near(c.confidence, 2.3 / 5, 1e-12);
    assert_near(c.correct, 0.4, 1e-12);
    assert_ok(dm_curve_make(&c, confidence, right, 3, 10, &e), e);
    assert_int_equal(c.n_bins, 3);
    assert_ok(dm_curve_make(&c, confidence, right, 0, 10, &e), e);
    assert_true(isnan(c.ece) && c.n_bins == 0);
}

/* A confidence that is right as often as it says has a small error, twice of it a large one. */
static void test_a_calibrated_confidence_has_no_error(void **state)
{
    (void)state;
    enum { DRAWS = 20000 };
    static double confidence[DRAWS];
    static bool right[DRAWS];
    struct dm_curve c = {0};
    struct dm_rng rng;
    struct dm_err e;
    dm_rng_init(&rng, 9, 0);
    for (size_t i = 0; i < DRAWS; i++) {
        confidence[i] = 0.5 * dm_rng_uniform(&rng);
        right[i] = dm_rng_uniform(&rng) < confidence[i];
    }
    assert_ok(dm_curve_make(&c, confidence, right, DRAWS, 20, &e), e);
    assert_true(c.ece < 0.02);
    for (size_t i = 0; i < DRAWS; i++)
        confidence[i] *= 2;
    assert_ok(dm_curve_make(&c, confidence, right, DRAWS, 20, &e), e);
    assert_near(c.ece, 0.25, 0.02);
}

static void test_curves_of_positions(void **state)
{
    (void)state;
    struct dm_pos p[2];
    struct dm_curve c[DM_CURVES];
    struct dm_gen_opt o;
    struct dm_err e;
    size_t n;
    char name[80];
    make_two(p);
    assert_ok(dm_curves(c, &n, p, 2, 3, at_eps(0.5, &o), 10, &e), e);
    assert_int_equal(n, DM_CURVES);
    assert_int_equal(c[0].n, 2);
    // accepted at .5: one block of 3, which is right; none of 2, since .5 is not more than .5
    const struct dm_curve *three = &c[n - 1], *two = &c[n - 2];
    assert_int_equal(three->kind, DM_CURVE_ACCEPTED);
    assert_int_equal(three->n, 1);
    assert_near(three->ece, 0.1, 1e-12);
    assert_int_equal(two->n, 0);
    dm_curve_name(three, name, sizeof(name));
    assert_string_equal(name, "3 tokens, accepted at eps_b 0.5");
    json_t *root = dm_curves_to_json(c, n);
    assert_int_equal(json_array_size(json_object_get(root, "curves")), DM_CURVES);
    json_decref(root);
    assert_ok(dm_curves_plot(c, n, tmp_path("reliability.svg"), &e), e);
    assert_ok(dm_curves(c, &n, p, 2, 1, at_eps(0.5, &o), 10, &e), e);
    assert_int_equal(n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_positions_equal_their_definition),
        cmocka_unit_test(test_masked_probabilities_sum_to_one),
        cmocka_unit_test(test_back_off_is_that_of_decoding),
        cmocka_unit_test(test_a_certain_block_hides_no_lower_order),
        cmocka_unit_test(test_windows_and_limits),
        cmocka_unit_test(test_perplexities_by_hand),
        cmocka_unit_test(test_accuracies_by_hand),
        cmocka_unit_test(test_bins_hold_equal_numbers_and_ece_is_their_mean_gap),
        cmocka_unit_test(test_a_calibrated_confidence_has_no_error),
        cmocka_unit_test(test_curves_of_positions),
    };
    dm_par_set_threads(1); // many short runs
    return cmocka_run_group_tests_name("positions", tests, NULL, NULL);
}
