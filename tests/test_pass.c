/* SPDX-License-Identifier: MIT */
/* Scores, losses and gradients of the model's pass: against PyTorch (tests/golden) and against
 * their definitions. */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/par.h"
#include "src/model/model.h"
#include "tests/golden.h"
#include "tests/tiny.h"

enum { T = TINY_T, VP = TINY_VP, LIST = 160 };

static void test_score_is_log_softmax_and_rank_of_the_logits(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_pass *p;
    const struct dm_config c = tiny_config();
    float logp[3 * 2 * T];
    int32_t rank[3 * 2 * T];
    tiny_model(&m, &c);
    assert_ok(dm_pass_new(&p, &c, DM_PASS_SCORE, 2, T, &e), e);
    dm_pass_score(p, &m, tiny_ids, 2, T, 3, logp, rank);
    for (size_t n = 1; n <= 3; n++) {
        float *logits = tiny_logits(&m, tiny_ids, 2, T, n);
        for (size_t i = 0; i < 2 * T; i++) {
            const size_t t = i % T, at = (n - 1) * 2 * T + i;
            const float *row = logits + i * VP;
            if (t + n >= T) {
                assert_true(logp[at] == 0.0f && rank[at] == -1);
                continue;
            }
            const int32_t x = tiny_ids[i + n];
            const float want = (float)((double)row[x] - tiny_lse(row, VP));
            int32_t better = 0;
            for (int32_t v = 0; v < VP; v++)
                better += row[v] > row[x] || (row[v] == row[x] && v < x);
            assert_close(&logp[at], &want, 1, 2e-6, 1.0);
            assert_int_equal(rank[at], better);
        }
        free(logits);
    }
    float alone[2 * T];
    dm_pass_score(p, &m, tiny_ids, 2, T, 1, alone, NULL);
    assert_memory_equal(alone, logp, sizeof(alone));
    dm_pass_free(p);
    dm_model_release(&m);
}

struct trained {
    struct dm_params grads;
    struct dm_arena mem;
    double loss[4];
};

static enum dm_scope scope_of(enum dm_pass_kind kind)
{
    static const enum dm_scope scope[] = {[DM_PASS_BASE] = DM_SCOPE_BASE,
                                          [DM_PASS_HEADS] = DM_SCOPE_HEADS,
                                          [DM_PASS_JOINT] = DM_SCOPE_ALL};
    return scope[kind];
}

static void train_once(struct trained *t, const struct dm_model *m, enum dm_pass_kind kind,
                       const int32_t *x, size_t B, size_t len, const struct dm_loss_opt *o)
{
    struct dm_err e;
    struct dm_pass *p;
    assert_ok(dm_params_new(&t->grads, &t->mem, &m->cfg, scope_of(kind), &e), e);
    assert_ok(dm_pass_new(&p, &m->cfg, kind, B, len, &e), e);
    dm_pass_train(p, m, &t->grads, x, B, len, o, t->loss);
    dm_pass_free(p);
}

/* The paper's rule with equal weights. */
static const struct dm_loss_opt plain = {1.0f, NULL, 0.1f};

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
    const size_t first = kind == DM_PASS_HEADS ? 2 : 1;
    tiny_model(&m, &c);
    dm_params_init_copy(&m.params, &c);
    train_once(&t, &m, kind, x, B, LEN, &plain);
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
        if (kind != DM_PASS_BASE)
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
    struct dm_tensor list[LIST];
    const size_t n_list = dm_params_list(&t.grads, &c, scope_of(kind), NULL);
    assert_true(n_list <= LIST);
    dm_params_list(&t.grads, &c, scope_of(kind), list);
    for (size_t i = 0; i < n_list; i++) {
        char name[160];
        size_t n;
        snprintf(name, sizeof(name), "grad/%.95s", list[i].name);
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

static void test_joint_losses_and_gradients_match_pytorch(void **state)
{
    (void)state;
    check_training("train_joint.h5", DM_PASS_JOINT);
}

static void test_training_adds_scaled_and_weighted_gradients(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_pass *p;
    struct trained one, more;
    const struct dm_config c = tiny_config();
    const float weight[] = {1.0f, 2.0f, 0.0f};
    struct dm_tensor a[64], b[64];
    tiny_model(&m, &c);
    const struct dm_loss_opt quarter = {.scale = 0.25f, .head_weight = weight};
    train_once(&one, &m, DM_PASS_HEADS, tiny_ids, 2, T, &plain);
    train_once(&more, &m, DM_PASS_HEADS, tiny_ids, 2, T, &quarter);
    assert_ok(dm_pass_new(&p, &c, DM_PASS_HEADS, 2, T, &e), e);
    dm_pass_train(p, &m, &more.grads, tiny_ids, 2, T, &quarter, more.loss);
    dm_pass_free(p);
    // Twice a quarter of twice the loss of head 2 is that loss; head 3 has weight 0.
    const size_t n = dm_params_list(&one.grads, &c, DM_SCOPE_HEADS, a);
    dm_params_list(&more.grads, &c, DM_SCOPE_HEADS, b);
    for (size_t i = 0; i < n; i++)
        if (a[i].index == 2)
            assert_close(b[i].data, a[i].data, a[i].n, 1e-5, 1e-3);
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
    struct dm_tensor a[LIST], b[LIST];
    const size_t n = dm_params_list(&x->grads, c, scope, NULL);
    assert_true(n <= LIST);
    dm_params_list(&x->grads, c, scope, a);
    dm_params_list(&y->grads, c, scope, b);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(a[i].data, b[i].data, a[i].n * sizeof(float));
}

/* Variants of the heads that no golden file covers. */
static const struct variant {
    size_t K, D, L;
    bool from_final, parallel;
} variants[] = {{2, 1, 3, false, true}, {3, 2, 3, false, true}, {2, 2, 2, true, false},
                {4, 1, 3, true, true},  {3, 1, 1, false, true}, {4, 2, 1, false, false}};
enum { N_VARIANTS = sizeof(variants) / sizeof(variants[0]) };

static struct dm_config variant_config(const struct variant *v)
{
    struct dm_config c = tiny_config();
    c.K = v->K;
    c.D = v->D;
    c.L = v->L;
    c.from_final = v->from_final;
    c.parallel = v->parallel;
    return c;
}

struct probe {
    struct dm_model *m;
    struct dm_pass *score;
    const float *weight;
};

/* The weighted sum of all heads' losses. */
static double summed_loss(void *ctx)
{
    const struct probe *p = ctx;
    float logp[4 * 2 * T];
    double sum = 0.0;
    dm_pass_score(p->score, p->m, tiny_ids, 2, T, p->m->cfg.K, logp, NULL);
    for (size_t n = 1; n <= p->m->cfg.K; n++)
        for (size_t i = 0; i < 2 * T; i++)
            sum -= (double)p->weight[n - 1] * (double)logp[(n - 1) * 2 * T + i] /
                   (double)(2 * (T - n));
    return sum;
}

static void test_joint_gradients_are_those_of_the_summed_loss(void **state)
{
    (void)state;
    static const float weight[] = {0.5f, 1.0f, 2.0f, 0.75f};
    const struct dm_loss_opt whole = {1.0f, weight, 1.0f};
    for (int v = 0; v < N_VARIANTS; v++) {
        struct dm_err e;
        struct dm_model m;
        struct trained t;
        struct dm_tensor w[LIST], g[LIST];
        const struct dm_config c = variant_config(&variants[v]);
        tiny_model(&m, &c);
        struct probe p = {.m = &m, .weight = weight};
        assert_ok(dm_pass_new(&p.score, &c, DM_PASS_SCORE, 2, T, &e), e);
        train_once(&t, &m, DM_PASS_JOINT, tiny_ids, 2, T, &whole);
        const size_t n = dm_params_list(&m.params, &c, DM_SCOPE_ALL, w);
        assert_true(n <= LIST);
        dm_params_list(&t.grads, &c, DM_SCOPE_ALL, g);
        for (size_t i = 0; i < n; i++)
            assert_grad(summed_loss, &p, w[i].data, g[i].data, w[i].n, 0.02);
        dm_pass_free(p.score);
        dm_arena_release(&t.mem);
        dm_model_release(&m);
    }
}

/* The base gets its own gradient and stem_scale times what the heads send; the heads' own layers
 * get all of theirs. */
static void check_share(const struct trained t[3], const struct dm_config *c)
{
    struct dm_tensor none[LIST], share[LIST], all[LIST];
    const size_t n = dm_params_list(&t[0].grads, c, DM_SCOPE_ALL, none);
    assert_true(n <= LIST);
    dm_params_list(&t[1].grads, c, DM_SCOPE_ALL, share);
    dm_params_list(&t[2].grads, c, DM_SCOPE_ALL, all);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < none[i].n; j++) {
            const float a = none[i].data[j], b = all[i].data[j];
            const float want = none[i].part == DM_PART_HEAD ? a : a + 0.25f * (b - a);
            assert_close(&share[i].data[j], &want, 1, 1e-5, 0.1);
        }
}

static void test_the_heads_share_of_the_bases_gradient_is_scaled(void **state)
{
    (void)state;
    for (int v = 0; v < N_VARIANTS; v++) {
        struct dm_model m;
        struct trained t[3], base, heads;
        const struct dm_config c = variant_config(&variants[v]);
        tiny_model(&m, &c);
        for (int i = 0; i < 3; i++) {
            const struct dm_loss_opt o = {.scale = 1.0f, .stem_scale = (float)(i * i) * 0.25f};
            train_once(&t[i], &m, DM_PASS_JOINT, tiny_ids, 2, T, &o);
        }
        train_once(&base, &m, DM_PASS_BASE, tiny_ids, 2, T, &plain);
        train_once(&heads, &m, DM_PASS_HEADS, tiny_ids, 2, T, &plain);
        assert_same_grads(&t[0], &base, &c, DM_SCOPE_BASE);
        assert_same_grads(&t[1], &heads, &c, DM_SCOPE_HEADS);
        assert_memory_equal(&t[1].loss[0], &base.loss[0], sizeof(double));
        assert_memory_equal(t[1].loss + 1, heads.loss + 1, (c.K - 1) * sizeof(double));
        check_share(t, &c);
        for (int i = 0; i < 3; i++)
            dm_arena_release(&t[i].mem);
        dm_arena_release(&base.mem);
        dm_arena_release(&heads.mem);
        dm_model_release(&m);
    }
}

/* Validation scores with the pass that trains. */
static void test_every_pass_scores_alike(void **state)
{
    (void)state;
    static const enum dm_pass_kind kinds[] = {DM_PASS_SCORE, DM_PASS_HEADS, DM_PASS_JOINT};
    for (int v = 0; v < N_VARIANTS; v++) {
        struct dm_err e;
        struct dm_model m;
        float logp[3][4 * 2 * T];
        const struct dm_config c = variant_config(&variants[v]);
        tiny_model(&m, &c);
        for (int k = 0; k < 3; k++) {
            struct dm_pass *p;
            assert_ok(dm_pass_new(&p, &c, kinds[k], 2, T, &e), e);
            dm_pass_score(p, &m, tiny_ids, 2, T, c.K, logp[k], NULL);
            dm_pass_free(p);
            assert_memory_equal(logp[k], logp[0], c.K * 2 * T * sizeof(float));
        }
        dm_model_release(&m);
    }
}

static void bits_of_threads(enum dm_format fmt)
{
    struct dm_model m;
    const struct dm_config c = tiny_config();
    float *logits[3];
    struct trained base[3], heads[3], joint[3];
    tiny_model(&m, &c);
    dm_model_set_format(&m, fmt);
    for (size_t i = 0; i < 3; i++) {
        dm_par_set_threads(i + 1);
        logits[i] = tiny_logits(&m, tiny_ids, 2, T, 2);
        train_once(&base[i], &m, DM_PASS_BASE, tiny_ids, 2, T, &plain);
        train_once(&heads[i], &m, DM_PASS_HEADS, tiny_ids, 2, T, &plain);
        train_once(&joint[i], &m, DM_PASS_JOINT, tiny_ids, 2, T, &plain);
    }
    dm_par_set_threads(0);
    for (size_t i = 1; i < 3; i++) {
        assert_memory_equal(logits[i], logits[0], 2 * T * VP * sizeof(float));
        assert_same_grads(&base[i], &base[0], &c, DM_SCOPE_BASE);
        assert_same_grads(&heads[i], &heads[0], &c, DM_SCOPE_HEADS);
        assert_same_grads(&joint[i], &joint[0], &c, DM_SCOPE_ALL);
        assert_memory_equal(joint[i].loss, joint[0].loss, 3 * sizeof(double));
        assert_memory_equal(base[i].loss, base[0].loss, sizeof(double));
        assert_memory_equal(heads[i].loss + 1, heads[0].loss + 1, 2 * sizeof(double));
    }
    for (size_t i = 0; i < 3; i++) {
        free(logits[i]);
        dm_arena_release(&base[i].mem);
        dm_arena_release(&heads[i].mem);
        dm_arena_release(&joint[i].mem);
    }
    dm_model_release(&m);
}

static void test_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    bits_of_threads(DM_FMT_F32);
    bits_of_threads(DM_FMT_BF16);
}

/* Relative distance of two gradients, over all tensors of a scope. */
static double grads_apart(const struct trained *x, const struct trained *y,
                          const struct dm_config *c, enum dm_scope scope, double *worst)
{
    struct dm_tensor a[LIST], b[LIST];
    const size_t n = dm_params_list(&x->grads, c, scope, NULL);
    double all_off = 0.0, all = 0.0;
    assert_true(n <= LIST);
    dm_params_list(&x->grads, c, scope, a);
    dm_params_list(&y->grads, c, scope, b);
    *worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        double off = 0.0, size = 0.0;
        for (size_t j = 0; j < a[i].n; j++) {
            off += pow((double)a[i].data[j] - (double)b[i].data[j], 2.0);
            size += pow((double)b[i].data[j], 2.0);
        }
        all_off += off;
        all += size;
        *worst = fmax(*worst, sqrt(off / size));
    }
    return sqrt(all_off / all);
}

/* All matrices of a model rounded to bfloat16. */
static void round_matrices(struct dm_model *m)
{
    struct dm_tensor t[64];
    uint16_t half[4096];
    const size_t n = dm_params_list(&m->params, &m->cfg, DM_SCOPE_ALL, t);
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++)
        if (t[i].cols) {
            assert_true(t[i].n <= 4096);
            dm_dtype_from_f32(half, DM_BF16, t[i].data, t[i].n);
            dm_dtype_to_f32(t[i].data, half, DM_BF16, t[i].n);
        }
}

/* What rounding costs depends on the model; so the measure is what rounding the weights alone,
 * once, does to the gradients of a float32 pass. A bf16 pass also rounds the inputs of every
 * product, and in the backward the gradients and the weights again: five independent roundings of
 * the same size where that model has one, so sqrt(5) times as much, and 4 times at the very most.
 */
static void test_bf16_gradients_are_those_of_f32_to_rounding(void **state)
{
    (void)state;
    static const enum dm_pass_kind kinds[] = {DM_PASS_BASE, DM_PASS_HEADS, DM_PASS_JOINT};
    static const char *const names[] = {"base", "heads", "joint"};
    const struct dm_config c = tiny_config();
    for (int k = 0; k < 3; k++) {
        const enum dm_scope scope = scope_of(kinds[k]);
        struct dm_model m;
        struct trained f32, bf16, rounded;
        double worst[2];
        tiny_model(&m, &c);
        train_once(&f32, &m, kinds[k], tiny_ids, 2, T, &plain);
        dm_model_set_format(&m, DM_FMT_BF16);
        train_once(&bf16, &m, kinds[k], tiny_ids, 2, T, &plain);
        dm_model_set_format(&m, DM_FMT_F32);
        round_matrices(&m);
        train_once(&rounded, &m, kinds[k], tiny_ids, 2, T, &plain);
        const double off = grads_apart(&bf16, &f32, &c, scope, &worst[0]);
        const double one = grads_apart(&rounded, &f32, &c, scope, &worst[1]);
        print_message("%s: apart by %.3g, worst tensor %.3g; rounded weights alone %.3g, %.3g\n",
                      names[k], off, worst[0], one, worst[1]);
        assert_true(off > one && off < 4.0 * one && worst[0] < 4.0 * worst[1]);
        for (size_t n = k == 1 ? 2 : 1; n <= (k ? 3 : 1); n++)
            assert_true(fabs(bf16.loss[n - 1] / f32.loss[n - 1] - 1.0) < 5e-3);
        dm_arena_release(&f32.mem);
        dm_arena_release(&bf16.mem);
        dm_arena_release(&rounded.mem);
        dm_model_release(&m);
    }
}

/* Along the gradient itself the loss of a bf16 pass changes as the gradient says: over a step that
 * is long against the rounding of the weights, both ways, so that the curvature cancels. */
static void test_bf16_loss_follows_its_gradient(void **state)
{
    (void)state;
    struct dm_model m;
    const struct dm_config c = tiny_config();
    struct trained t, side[2];
    struct dm_tensor w[64], g[64];
    tiny_model(&m, &c);
    dm_model_set_format(&m, DM_FMT_BF16);
    train_once(&t, &m, DM_PASS_BASE, tiny_ids, 2, T, &plain);
    const size_t n = dm_params_list(&m.params, &c, DM_SCOPE_BASE, w);
    assert_true(n <= 64);
    dm_params_list(&t.grads, &c, DM_SCOPE_BASE, g);
    double square = 0.0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < g[i].n; j++)
            square += (double)g[i].data[j] * (double)g[i].data[j];
    const double h = 0.1 / square; // the loss is to change by 0.1 each way
    for (int s = 0; s < 2; s++) {
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < w[i].n; j++)
                w[i].data[j] += (float)((s ? -2.0 : 1.0) * h * (double)g[i].data[j]);
        train_once(&side[s], &m, DM_PASS_BASE, tiny_ids, 2, T, &plain);
        dm_arena_release(&side[s].mem);
    }
    const double change = side[0].loss[0] - side[1].loss[0];
    print_message("loss changes by %.4f, the gradient says 0.2\n", change);
    assert_true(fabs(change - 0.2) < 0.01);
    dm_arena_release(&t.mem);
    dm_model_release(&m);
}

/* The figures of docs/training.md, in MFLOP per token. */
static void test_flops_of_published_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *size;
        enum dm_pass_kind kind;
        double mflop;
    } want[] = {{"70m", DM_PASS_HEADS, 281.0},
                {"160m", DM_PASS_HEADS, 563.0},
                {"410m", DM_PASS_HEADS, 1172.0},
                {"70m", DM_PASS_BASE, 277.2},
                {"70m", DM_PASS_JOINT, 627.2}};
    for (size_t i = 0; i < 5; i++) {
        struct dm_config c;
        struct dm_err e;
        assert_ok(dm_config_named(&c, want[i].size, &e), e);
        c.K = want[i].kind == DM_PASS_BASE ? 1 : 3;
        c.D = 1;
        const double got = dm_pass_flops(&c, want[i].kind, 512) * 1e-6;
        assert_true(fabs(got - want[i].mflop) < 0.6);
    }
}

static void test_a_pass_takes_smaller_batches(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_model m;
    struct dm_pass *p;
    const struct dm_config c = tiny_config();
    tiny_model(&m, &c);
    float *want = tiny_logits(&m, tiny_ids, 1, 5, 3), *got = tiny_floats(5 * VP);
    assert_ok(dm_pass_new(&p, &c, DM_PASS_SCORE, 2, T, &e), e);
    dm_pass_logits(p, &m, tiny_ids, 1, 5, 3, got);
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
    const struct dm_config c = tiny_config();
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
        cmocka_unit_test(test_score_is_log_softmax_and_rank_of_the_logits),
        cmocka_unit_test(test_base_loss_and_gradients_match_pytorch),
        cmocka_unit_test(test_head_losses_and_gradients_match_pytorch),
        cmocka_unit_test(test_joint_losses_and_gradients_match_pytorch),
        cmocka_unit_test(test_joint_gradients_are_those_of_the_summed_loss),
        cmocka_unit_test(test_the_heads_share_of_the_bases_gradient_is_scaled),
        cmocka_unit_test(test_every_pass_scores_alike),
        cmocka_unit_test(test_training_adds_scaled_and_weighted_gradients),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_bf16_gradients_are_those_of_f32_to_rounding),
        cmocka_unit_test(test_bf16_loss_follows_its_gradient),
        cmocka_unit_test(test_flops_of_published_shapes),
        cmocka_unit_test(test_a_pass_takes_smaller_batches),
        cmocka_unit_test(test_short_memory_is_reported),
    };
    return cmocka_run_group_tests_name("pass", tests, NULL, NULL);
}
