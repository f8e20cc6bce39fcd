/* SPDX-License-Identifier: MIT */
/* Checkpoints: what is written comes back, and what is damaged is refused. */
#include "tests/util.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/file.h"
#include "src/io/h5.h"
#include "train/checkpoint.h"
#include "train/keep.h"

enum { N = 2 };
static const size_t rows[N] = {6, 9}, cols[N] = {4, 0};

/* An optimiser over two tensors with known contents. */
struct set {
    struct dm_tensor p[N], g[N];
    float data[N][24], grad[N][24];
    struct dm_adamw a;
};

static void make_set(struct set *s, float scale)
{
    static const char *const names[] = {"gpt_neox.embed_in.weight", "dynamo.heads.2.0.mlp.bias"};
    const struct dm_adamw_opt opt = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.1};
    struct dm_err e;
    memset(s, 0, sizeof(*s));
    for (int i = 0; i < N; i++) {
        struct dm_tensor *t = &s->p[i];
        snprintf(t->name, sizeof(t->name), "%s", names[i]);
        t->rows = rows[i];
        t->cols = cols[i];
        t->n = rows[i] * (cols[i] ? cols[i] : 1);
        s->g[i] = *t;
        t->data = s->data[i];
        s->g[i].data = s->grad[i];
        fill_named(t->data, t->n, names[i], scale);
        fill_named(s->grad[i], t->n, "gradient", scale);
    }
    assert_ok(dm_adamw_init(&s->a, &opt, s->p, s->g, N, &e), e);
    for (int t = 0; t < 3 && scale > 0.0f; t++)
        dm_adamw_step(&s->a, 0.01, 1.0);
}

static struct dm_checkpoint state_of(const struct set *s)
{
    return (struct dm_checkpoint){.step = s->a.t,
                                  .drawn = 77,
                                  .best = 1.0 / 3.0,
                                  .best_step = 2,
                                  .run = json_pack("{s:s, s:f}", "command", "train", "lr", 0.1)};
}

static const char *saved(const char *name, const struct set *s)
{
    const char *path = tmp_path(name);
    struct dm_checkpoint c = state_of(s);
    struct dm_err e;
    assert_ok(dm_checkpoint_save(path, &c, &s->a, &e), e);
    dm_checkpoint_release(&c);
    return path;
}

static void test_a_checkpoint_comes_back_bit_for_bit(void **state)
{
    (void)state;
    struct set s, t;
    struct dm_err e;
    struct dm_checkpoint c;
    make_set(&s, 1.0f);
    make_set(&t, 0.0f);
    const char *path = saved("ckpt.h5", &s);
    assert_ok(dm_checkpoint_peek(&c, path, &e), e);
    assert_int_equal(c.step, 3);
    assert_int_equal(c.drawn, 77);
    assert_true(c.best == 1.0 / 3.0);
    assert_int_equal(c.best_step, 2);
    assert_true(json_number_value(json_object_get(c.run, "lr")) == 0.1);
    dm_checkpoint_release(&c);
    assert_ok(dm_checkpoint_load(&t.a, path, &e), e);
    assert_int_equal(t.a.t, 3);
    for (int i = 0; i < N; i++) {
        assert_memory_equal(s.data[i], t.data[i], sizeof(s.data[i]));
        assert_memory_equal(s.a.slot[i].m, t.a.slot[i].m, s.p[i].n * sizeof(float));
        assert_memory_equal(s.a.slot[i].v, t.a.slot[i].v, s.p[i].n * sizeof(float));
    }
    dm_adamw_release(&s.a);
    dm_adamw_release(&t.a);
}

static void test_no_validation_yet_is_kept(void **state)
{
    (void)state;
    struct set s;
    struct dm_err e;
    make_set(&s, 1.0f);
    const char *path = tmp_path("fresh.h5");
    struct dm_checkpoint c = state_of(&s), d;
    c.best = INFINITY;
    c.best_step = 0;
    assert_ok(dm_checkpoint_save(path, &c, &s.a, &e), e);
    assert_ok(dm_checkpoint_peek(&d, path, &e), e);
    assert_true(isinf(d.best) && d.best_step == 0);
    dm_checkpoint_release(&c);
    dm_checkpoint_release(&d);
    dm_adamw_release(&s.a);
}

static void test_the_same_state_gives_the_same_bytes(void **state)
{
    (void)state;
    struct set s;
    struct dm_err e;
    char *x, *y;
    size_t n, m;
    make_set(&s, 1.0f);
    assert_ok(dm_file_read(saved("x.h5", &s), 1 << 20, &x, &n, &e), e);
    assert_ok(dm_file_read(saved("y.h5", &s), 1 << 20, &y, &m, &e), e);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
    dm_adamw_release(&s.a);
}

static void test_a_failed_save_leaves_the_old_file(void **state)
{
    (void)state;
    struct set s;
    struct dm_err e;
    struct dm_checkpoint c;
    make_set(&s, 1.0f);
    const char *path = saved("kept.h5", &s);
    c = state_of(&s);
    assert_int_equal(dm_checkpoint_save("/nonexistent/c.h5", &c, &s.a, &e), DM_EIO);
    assert_non_null(strstr(e.msg, "/nonexistent/c.h5"));
    dm_checkpoint_release(&c);
    assert_ok(dm_checkpoint_peek(&c, path, &e), e);
    dm_checkpoint_release(&c);
    dm_adamw_release(&s.a);
}

/* Loading must fail with `want` and a sentence that has `part`. */
static void refused(struct dm_adamw *a, const char *path, enum dm_status want, const char *part)
{
    struct dm_err e = {""};
    assert_int_equal(dm_checkpoint_load(a, path, &e), want);
    if (!strstr(e.msg, part))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, part);
}

static void test_every_flipped_tensor_byte_is_noticed(void **state)
{
    (void)state;
    struct set s;
    struct dm_err e;
    char *bytes;
    size_t n;
    make_set(&s, 1.0f);
    const char *path = saved("flip.h5", &s), *bad = tmp_path("flipped.h5");
    assert_ok(dm_file_read(path, 1 << 20, &bytes, &n, &e), e);
    for (int group = 0; group < 3; group++) {
        float *const data[] = {s.a.slot[0].p, s.a.slot[0].m, s.a.slot[0].v};
        char *at = memmem(bytes, n, data[group], 24 * sizeof(float));
        assert_non_null(at);
        at[41] ^= 4;
        assert_ok(dm_file_write(bad, bytes, n, &e), e);
        at[41] ^= 4;
        refused(&s.a, bad, DM_EFORMAT, "embed_in");
        assert_ok(dm_checkpoint_load(&s.a, path, &e), e); // whole again
    }
    free(bytes);
    dm_adamw_release(&s.a);
}

static void test_a_changed_state_is_noticed(void **state)
{
    (void)state;
    struct set s;
    struct dm_err e;
    struct dm_checkpoint c;
    char *bytes;
    size_t n;
    make_set(&s, 1.0f);
    assert_ok(dm_file_read(saved("state.h5", &s), 1 << 20, &bytes, &n, &e), e);
    char *at = memmem(bytes, n, "\"drawn\":77", 10);
    assert_non_null(at);
    at[9] = '8';
    const char *bad = tmp_path("state-bad.h5");
    assert_ok(dm_file_write(bad, bytes, n, &e), e);
    assert_int_equal(dm_checkpoint_peek(&c, bad, &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "state"));
    free(bytes);
    dm_adamw_release(&s.a);
}

static void test_truncated_and_foreign_files_are_refused(void **state)
{
    (void)state;
    struct set s;
    struct dm_err e;
    struct dm_h5 *f;
    char *bytes;
    size_t n;
    make_set(&s, 1.0f);
    assert_ok(dm_file_read(saved("cut.h5", &s), 1 << 20, &bytes, &n, &e), e);
    const char *cut = tmp_path("cut-half.h5"), *other = tmp_path("other.h5");
    assert_ok(dm_file_write(cut, bytes, n / 2, &e), e);
    assert_true(dm_checkpoint_load(&s.a, cut, &e) < 0);
    assert_non_null(strstr(e.msg, "cut-half.h5"));
    assert_ok(dm_h5_create(&f, other, "dynamo-model", 1, &e), e);
    assert_ok(dm_h5_commit(f, &e), e);
    refused(&s.a, other, DM_EFORMAT, "dynamo-checkpoint");
    assert_ok(dm_h5_create(&f, other, "dynamo-checkpoint", 1, &e), e);
    assert_ok(dm_h5_set_string(f, "/", "state", "{}", &e), e);
    assert_ok(dm_h5_commit(f, &e), e);
    assert_true(dm_checkpoint_load(&s.a, other, &e) < 0); // no manifest
    assert_non_null(strstr(e.msg, "manifest"));
    free(bytes);
    dm_adamw_release(&s.a);
}

static void test_another_shape_or_name_is_refused(void **state)
{
    (void)state;
    struct set s;
    make_set(&s, 1.0f);
    const char *path = saved("shape.h5", &s);
    s.a.slot[0].rows = 4;
    s.a.slot[0].cols = 6;
    refused(&s.a, path, DM_ESHAPE, "embed_in");
    s.a.slot[0].rows = 6;
    s.a.slot[0].cols = 4;
    snprintf(s.a.slot[1].name, sizeof(s.a.slot[1].name), "nobody");
    struct dm_err e;
    assert_true(dm_checkpoint_load(&s.a, path, &e) < 0);
    assert_non_null(strstr(e.msg, "nobody"));
    dm_adamw_release(&s.a);
}

static void test_the_newest_and_the_best_are_kept(void **state)
{
    (void)state;
    char prefix[512], path[600], best[600];
    size_t *step, n;
    struct dm_err e;
    struct set s;
    struct dm_checkpoint c;
    make_set(&s, 1.0f);
    snprintf(prefix, sizeof(prefix), "%s", tmp_path("many"));
    const size_t steps[] = {3, 20, 100000000, 7};
    for (size_t i = 0; i < 4; i++) {
        c = state_of(&s);
        c.step = steps[i];
        c.best_step = 0;
        c.best = INFINITY;
        assert_ok(dm_keep_path(path, sizeof(path), prefix, steps[i], &e), e);
        assert_ok(dm_checkpoint_save(path, &c, &s.a, &e), e);
        dm_checkpoint_release(&c);
        if (steps[i] != 3) {
            assert_ok(dm_keep_best(prefix, steps[i], &e), e);
            assert_ok(dm_keep_best(prefix, steps[i], &e), e); // again: the same file
        }
    }
    // Names that are no checkpoints of this prefix.
    assert_ok(dm_file_write(tmp_path("many-1.h5"), "", 0, &e), e);
    assert_ok(dm_file_write(tmp_path("many-00000001.h5x"), "", 0, &e), e);
    assert_ok(dm_file_write(tmp_path("manymore-00000001.h5"), "", 0, &e), e);
    assert_ok(dm_keep_list(&step, &n, prefix, &e), e);
    assert_int_equal(n, 4);
    assert_true(step[0] == 100000000 && step[1] == 20 && step[2] == 7 && step[3] == 3);
    free(step);
    dm_keep_prune(prefix, 1, 20); // of 20, 7 and 3
    assert_ok(dm_keep_list(&step, &n, prefix, &e), e);
    assert_int_equal(n, 2);
    assert_true(step[0] == 100000000 && step[1] == 20);
    free(step);
    assert_ok(dm_keep_path(best, sizeof(best), prefix, DM_KEEP_BEST, &e), e);
    assert_ok(dm_checkpoint_peek(&c, best, &e), e);
    assert_int_equal(c.step, 7); // its own name is gone
    dm_checkpoint_release(&c);
    assert_int_equal(dm_keep_best(prefix, 5, &e), DM_EIO);
    assert_int_equal(dm_keep_list(&step, &n, "/nonexistent/x", &e), DM_EIO);
    dm_adamw_release(&s.a);
}

static void test_skipped_steps_are_not_updates(void **state)
{
    (void)state;
    struct set s;
    struct dm_err e;
    make_set(&s, 1.0f);
    struct dm_checkpoint c = state_of(&s);
    const char *path = tmp_path("skipped.h5");
    c.step = 10;
    assert_ok(dm_checkpoint_save(path, &c, &s.a, &e), e);
    s.a.t = 77;
    assert_ok(dm_checkpoint_load(&s.a, path, &e), e);
    assert_int_equal(s.a.t, 3);
    dm_checkpoint_release(&c);
    dm_adamw_release(&s.a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_checkpoint_comes_back_bit_for_bit),
        cmocka_unit_test(test_no_validation_yet_is_kept),
        cmocka_unit_test(test_the_same_state_gives_the_same_bytes),
        cmocka_unit_test(test_a_failed_save_leaves_the_old_file),
        cmocka_unit_test(test_every_flipped_tensor_byte_is_noticed),
        cmocka_unit_test(test_a_changed_state_is_noticed),
        cmocka_unit_test(test_truncated_and_foreign_files_are_refused),
        cmocka_unit_test(test_another_shape_or_name_is_refused),
        cmocka_unit_test(test_the_newest_and_the_best_are_kept),
        cmocka_unit_test(test_skipped_steps_are_not_updates),
    };
    return cmocka_run_group_tests_name("train_checkpoint", tests, NULL, NULL);
}
