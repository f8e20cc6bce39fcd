/* SPDX-License-Identifier: MIT */
/* Lossless mode: the base's own text, whatever the heads draft. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/decode/generate.h"
#include "tests/tablet.h"
#include "tests/tiny.h"
#include "tests/util.h"

enum { N_PROMPT = 3, T_MAX = 24, V = TINY_VP - 3 };

static struct dm_config config(void)
{
    struct dm_config c = tiny_config();
    c.V = V;
    c.eos = -1;
    assert_int_equal(c.T_max, T_MAX);
    return c;
}

/* The base alone and the heads with it, and what both have said so far. */
struct pair {
    struct dm_gen *base, *heads;
    size_t drafted, accepted;
};

static struct pair pair_new(const struct dm_model *m, const struct dm_cooc *cooc)
{
    struct pair p = {0};
    struct dm_err e;
    assert_ok(dm_gen_new(&p.base, m, NULL, 1, &e), e);
    assert_ok(dm_gen_new(&p.heads, m, cooc, m->cfg.K, &e), e);
    return p;
}

static void pair_free(struct pair *p)
{
    dm_gen_free(p->base);
    dm_gen_free(p->heads);
}

/* The shares of blocks that are printed make a whole. */
static void check_shares(const struct dm_gen_stats *s)
{
    char text[512];
    double one, two, three;
    dm_gen_stats_text(s, text, sizeof(text));
    const char *shares = strchr(text, '(');
    assert_non_null(shares);
    assert_int_equal(sscanf(shares, "(one %lf %%, two %lf %%, three %lf %%)", &one, &two, &three),
                     3);
    assert_true(fabs(one + two + three - (s->tokens ? 100.0 : 0.0)) < 0.2);
}

/* Continues a prompt in both modes: same tokens, same end, one token per pass or more. */
static void check_text(struct pair *p, struct dm_gen_opt o, const int32_t *prompt)
{
    struct dm_err e;
    struct dm_gen_stats s, t;
    struct dm_ids want = {0}, got = {0};
    o.mode = DM_GEN_AR;
    assert_ok(dm_gen_run(p->base, &o, prompt, N_PROMPT, &want, NULL, NULL, &s, &e), e);
    o.mode = DM_GEN_LOSSLESS;
    assert_ok(dm_gen_run(p->heads, &o, prompt, N_PROMPT, &got, NULL, NULL, &t, &e), e);
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.id, want.id, want.n * sizeof(*want.id));
    assert_int_equal(t.end, s.end);
    assert_int_equal(t.tokens, s.tokens);
    assert_true(t.forwards <= s.forwards);
    size_t tokens = 0;
    for (size_t n = 1; n <= DM_ORDER_MAX; n++)
        tokens += n * t.blocks[n];
    assert_int_equal(tokens, t.tokens);
    check_shares(&t);
    p->drafted += t.drafted;
    p->accepted += t.accepted;
    dm_ids_release(&want);
    dm_ids_release(&got);
}

static void random_prompt(int32_t *prompt, uint64_t number)
{
    struct dm_rng rng;
    dm_rng_init(&rng, 5, number);
    for (size_t i = 0; i < N_PROMPT; i++)
        prompt[i] = (int32_t)dm_rng_below(&rng, V);
}

/* Continues 1,000 prompts, with trees of all sizes. */
static void check_1000(struct dm_gen_opt o, enum dm_format fmt)
{
    struct dm_model m;
    struct dm_err e;
    const struct dm_config c = config();
    tiny_model(&m, &c);
    dm_model_set_format(&m, fmt);
    assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
    struct pair p = pair_new(&m, NULL);
    o.max_tokens = T_MAX;
    for (uint64_t i = 0; i < 1000; i++) {
        int32_t prompt[N_PROMPT];
        random_prompt(prompt, i);
        o.seed = i;
        o.rows = i % (DM_TREE_ROWS + 1); // 0: measured
        check_text(&p, o, prompt);
    }
    assert_in_range(p.accepted, 1, p.drafted - 1); // some drafts were right, others not
    pair_free(&p);
    dm_model_release(&m);
}

static void test_greedy_text_of_1000_prompts_is_the_base_s(void **state)
{
    (void)state;
    struct dm_gen_opt o = dm_gen_opt_default();
    o.temperature = 0;
    check_1000(o, DM_FMT_F32);
}

static void test_sampled_text_of_1000_prompts_is_the_base_s(void **state)
{
    (void)state;
    check_1000(dm_gen_opt_default(), DM_FMT_BF16);
}

/* More rows never need more passes in all: a larger tree holds the smaller one. */
static void test_more_rows_accept_more(void **state)
{
    (void)state;
    struct dm_model m;
    struct dm_err e;
    struct dm_gen *g;
    const struct dm_config c = config();
    size_t forwards[DM_TREE_ROWS + 1] = {0};
    struct dm_gen_opt o = dm_gen_opt_default();
    o.mode = DM_GEN_LOSSLESS;
    o.max_tokens = T_MAX;
    tiny_model(&m, &c);
    assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
    assert_ok(dm_gen_new(&g, &m, NULL, m.cfg.K, &e), e);
    for (o.rows = 1; o.rows <= DM_TREE_ROWS; o.rows++)
        for (uint64_t i = 0; i < 100; i++) {
            struct dm_gen_stats s;
            struct dm_ids out = {0};
            int32_t prompt[N_PROMPT];
            random_prompt(prompt, i);
            o.seed = i;
            assert_ok(dm_gen_run(g, &o, prompt, N_PROMPT, &out, NULL, NULL, &s, &e), e);
            assert_true(s.drafted <= (o.rows - 1) * s.forwards);
            if (o.rows == 1)
                assert_int_equal(s.tokens, s.forwards);
            forwards[o.rows] += s.forwards;
            dm_ids_release(&out);
        }
    for (size_t rows = 2; rows <= DM_TREE_ROWS; rows *= 2)
        assert_true(forwards[rows] < forwards[rows / 2]);
    dm_gen_free(g);
    dm_model_release(&m);
}

/* Sampled text with many settings, on models of every form. */
static void check_sampling(const struct dm_model *m, const struct dm_cooc *cooc)
{
    struct pair p = pair_new(m, cooc);
    for (uint64_t i = 0; i < 40; i++) {
        int32_t prompt[N_PROMPT];
        struct dm_gen_opt o = dm_gen_opt_default();
        o.seed = i;
        o.top_k = i % 3 ? 50 : 2;
        o.unseen = i % 2 ? DM_UNSEEN_ZERO : DM_UNSEEN_BACKOFF;
        o.rows = 1 + i * 3 % DM_TREE_ROWS;
        o.max_tokens = i % 5 ? T_MAX : i / 5;
        random_prompt(prompt, i);
        check_text(&p, o, prompt);
    }
    assert_true(p.drafted > 0);
    pair_free(&p);
}

static void test_sampled_text_is_the_base_s_for_every_seed_and_model(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_config c = config();
    for (int variant = 0; variant < 8; variant++) {
        struct dm_model m;
        c.D = 1 + variant / 2 % 2;
        c.from_final = variant % 2;
        c.parallel = variant < 6;
        tiny_model(&m, &c);
        dm_model_set_format(&m, (enum dm_format)(variant % 4));
        assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
        check_sampling(&m, NULL);
        dm_model_release(&m);
    }
}

static void test_a_mask_changes_the_drafts_only(void **state)
{
    (void)state;
    enum { N = 4000 };
    int32_t ids[N];
    struct dm_rng rng;
    struct dm_cooc t;
    struct dm_model m;
    const struct dm_config c = config();
    tiny_model(&m, &c);
    dm_rng_init(&rng, 7, 0);
    for (size_t i = 0; i < N; i++)
        ids[i] = (int32_t)dm_rng_below(&rng, V);
    tablet_count(&t, ids, N, V);
    check_sampling(&m, &t);
    tablet_free(&t);
    dm_model_release(&m);
}

static void test_text_ends_behind_a_drafted_end_of_text_token(void **state)
{
    (void)state;
    struct dm_model m;
    struct dm_config c = config();
    struct dm_gen_opt o = dm_gen_opt_default();
    o.max_tokens = T_MAX;
    tiny_model(&m, &c);
    for (int32_t eos = 0; eos < V; eos++) { // each of them is said or drafted somewhere
        m.cfg.eos = eos;
        struct pair p = pair_new(&m, NULL);
        for (uint64_t i = 0; i < 4; i++) {
            int32_t prompt[N_PROMPT];
            random_prompt(prompt, i);
            o.seed = i;
            o.temperature = i % 2 ? 0.7 : 0;
            check_text(&p, o, prompt);
        }
        pair_free(&p);
    }
    dm_model_release(&m);
}

/* The three most likely of head 1's row at position t, and their probabilities. */
enum { CUT = 3, DRAWS = 6000 };
static void base_distribution(const struct dm_model *m, const int32_t *ids, size_t n,
                              struct dm_cand *c)
{
    float *logits = tiny_logits(m, ids, 1, n, 1);
    assert_true(dm_cand_select(c, logits + (n - 1) * TINY_VP, V, CUT, 1));
    free(logits);
}

/* The exact probability of every block of two tokens, against what DRAWS seeds say. */
static void test_two_tokens_have_the_base_s_distribution(void **state)
{
    (void)state;
    struct dm_model m;
    struct dm_cand first, second[CUT];
    size_t count[CUT * CUT] = {0};
    double prob[CUT * CUT];
    const struct dm_config c = config();
    int32_t ids[N_PROMPT + 1];
    struct dm_gen_opt o = dm_gen_opt_default();
    o.mode = DM_GEN_LOSSLESS;
    o.temperature = o.penalty = 1;
    o.top_k = CUT;
    o.max_tokens = 3;
    o.rows = 6;
    tiny_model(&m, &c);
    struct dm_err e;
    assert_ok(dm_model_pack(&m, DM_SCOPE_ALL, &e), e);
    random_prompt(ids, 1);
    base_distribution(&m, ids, N_PROMPT, &first);
    for (size_t i = 0; i < CUT; i++) {
        ids[N_PROMPT] = first.id[i];
        base_distribution(&m, ids, N_PROMPT + 1, &second[i]);
        for (size_t j = 0; j < CUT; j++)
            prob[i * CUT + j] = first.p[i] * second[i].p[j];
    }
    struct dm_gen *g;
    size_t blocks = 0;
    assert_ok(dm_gen_new(&g, &m, NULL, m.cfg.K, &e), e);
    for (o.seed = 0; o.seed < DRAWS; o.seed++) {
        struct dm_gen_stats s;
        struct dm_ids out = {0};
        assert_ok(dm_gen_run(g, &o, ids, N_PROMPT, &out, NULL, NULL, &s, &e), e);
        size_t i = 0, j = 0;
        while (first.id[i] != out.id[0])
            assert_true(++i < CUT);
        while (second[i].id[j] != out.id[1])
            assert_true(++j < CUT);
        count[i * CUT + j]++;
        blocks += s.blocks[2] + s.blocks[3];
        dm_ids_release(&out);
    }
    assert_frequencies(count, prob, CUT * CUT, DRAWS);
    assert_true(blocks > 0); // drafts were accepted among them
    dm_gen_free(g);
    dm_model_release(&m);
}

int main(void)
{
    dm_par_set_threads(1); // other tests show that threads change nothing
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_text_of_1000_prompts_is_the_base_s),
        cmocka_unit_test(test_sampled_text_of_1000_prompts_is_the_base_s),
        cmocka_unit_test(test_more_rows_accept_more),
        cmocka_unit_test(test_sampled_text_is_the_base_s_for_every_seed_and_model),
        cmocka_unit_test(test_a_mask_changes_the_drafts_only),
        cmocka_unit_test(test_text_ends_behind_a_drafted_end_of_text_token),
        cmocka_unit_test(test_two_tokens_have_the_base_s_distribution),
    };
    return cmocka_run_group_tests_name("lossless", tests, NULL, NULL);
}
