/* SPDX-License-Identifier: MIT */
/* What a pass of lossless decoding costs by the number of its rows: verifying a tree and asking the
 * heads about the kept path, beside one token of the base alone, and beside all rows through base
 * and heads at once. One JSON line per number of rows; times in ms: min, median, max.
 *
 *   bench_tree [MODEL.h5|SHAPE [FORMAT [THREADS]]]     default 70m, the file's or bf16, all cores
 *
 * All variants take turns. Exits 1 when something is wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/model/file.h"

enum { RUNS = 15, HEADS = 3, CONTEXT = 256, ROWS = DM_TREE_ROWS };

struct bench {
    struct dm_model m;
    struct dm_session *one, *all; /* the base alone; with its heads */
    size_t n_heads, context, reps;
    float *logits;
    int32_t ids[CONTEXT + ROWS];
};

static enum dm_status load(struct bench *b, const char *model, const char *format, struct dm_err *e)
{
    int fmt = DM_FORMAT_AUTO;
    for (int i = 0; format && dm_load_formats[i]; i++)
        if (!strcmp(format, dm_load_formats[i]))
            fmt = i - 1;
    if (strchr(model, '.')) {
        struct dm_model_meta meta;
        enum dm_status st = dm_model_load(&b->m, model, &(struct dm_load_opt){.format = fmt}, &meta,
                                          e);
        dm_model_meta_release(&meta);
        return st;
    }
    struct dm_config c;
    DM_TRY(dm_config_named(&c, model, e));
    c.K = HEADS;
    c.D = 1;
    return dm_model_random(&b->m, &c, fmt == DM_FORMAT_AUTO ? DM_FMT_BF16 : (enum dm_format)fmt, 1,
                           e);
}

static enum dm_status prepare(struct bench *b, struct dm_err *e)
{
    const struct dm_config *c = &b->m.cfg;
    struct dm_rng rng;
    b->n_heads = c->K < HEADS ? c->K : HEADS;
    b->context = c->T_max < CONTEXT + ROWS ? c->T_max - ROWS : CONTEXT;
    b->logits = dm_alloc(ROWS * HEADS * c->Vp, sizeof(float));
    if (!b->logits)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_rng_init(&rng, 1, 0);
    for (size_t i = 0; i < b->context + ROWS; i++)
        b->ids[i] = (int32_t)dm_rng_below(&rng, (uint32_t)c->V);
    DM_TRY(dm_session_new(&b->one, &b->m, 1, e));
    DM_TRY(dm_session_new(&b->all, &b->m, b->n_heads, e));
    dm_session_step(b->one, b->ids, b->context, b->logits);
    dm_session_step(b->all, b->ids, b->context, b->logits);
    return DM_OK;
}

/* Row 1 behind row 0, the others in turns behind these: what is kept has two or three rows. */
static struct dm_tree tree_of(size_t n)
{
    struct dm_tree t = {.n = n};
    for (size_t i = 2; i < n; i++)
        t.parent[i] = i % 2;
    return t;
}

enum what { ONE, TREE, AT_ONCE };
static double seconds(const struct bench *b, enum what what, size_t n)
{
    const struct dm_tree tree = tree_of(n);
    const int32_t *ids = b->ids + b->context;
    const double t = dm_now();
    for (size_t i = 0; i < b->reps; i++) {
        struct dm_session *s = what == ONE ? b->one : b->all;
        if (what == TREE) {
            dm_session_tree(s, ids, &tree, b->logits);
            dm_session_keep(s, n - 1, b->logits);
        } else {
            dm_session_step_rows(s, ids, n, n, b->logits);
        }
        dm_session_reset(s, b->context);
    }
    return (dm_now() - t) / (double)b->reps;
}

static int by_size(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static void print(const char *name, double *ms)
{
    qsort(ms, RUNS, sizeof(*ms), by_size);
    printf(",\"%s\":[%.4f,%.4f,%.4f]", name, ms[0], ms[RUNS / 2], ms[RUNS - 1]);
}

static void run(struct bench *b)
{
    double one[RUNS], tree[ROWS][RUNS], at_once[ROWS][RUNS], median;
    b->reps = 1;
    seconds(b, ONE, 1);
    b->reps = (size_t)(0.005 / seconds(b, ONE, 1)) + 1;
    for (size_t r = 0; r < RUNS; r++) {
        one[r] = 1e3 * seconds(b, ONE, 1);
        for (size_t n = 1; n <= ROWS; n++) {
            tree[n - 1][r] = 1e3 * seconds(b, TREE, n);
            at_once[n - 1][r] = 1e3 * seconds(b, AT_ONCE, n);
        }
    }
    for (size_t n = 1; n <= ROWS; n++) {
        printf("{\"rows\":%zu,\"threads\":%zu", n, dm_par_threads());
        print("base_one_row", one);
        median = one[RUNS / 2];
        print("tree", tree[n - 1]);
        print("at_once", at_once[n - 1]);
        printf(",\"tree_to_one\":%.3f,\"at_once_to_one\":%.3f}\n", tree[n - 1][RUNS / 2] / median,
               at_once[n - 1][RUNS / 2] / median);
    }
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    struct dm_err e;
    dm_par_set_threads(argc > 3 ? strtoul(argv[3], NULL, 10) : 0);
    enum dm_status st = load(&b, argc > 1 ? argv[1] : "70m", argc > 2 ? argv[2] : NULL, &e);
    if (!st)
        st = prepare(&b, &e);
    if (!st)
        run(&b);
    else
        fprintf(stderr, "bench_tree: %s\n", e.msg);
    dm_session_free(b.one);
    dm_session_free(b.all);
    dm_model_release(&b.m);
    free(b.logits);
    return st ? 1 : 0;
}
