/* SPDX-License-Identifier: MIT */
/* cmd_eval_heldout.c - `dynamo eval`: perplexity, accuracy and reliability on held-out text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cmd_eval.h"
#include "eval/heldout.h"
#include "eval/reliability.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/stop.h"

/* The windows and what was found in them. */
struct heldout {
    int32_t *ids; /* (windows,context) */
    size_t windows, context, n_heads;
    struct dm_pos *pos; /* (n) */
    size_t n;
};

static enum dm_status read_text(struct eval_job *j, struct dm_ids *out, struct dm_err *e)
{
    struct dm_map map;
    DM_TRY(eval_need_tokenizer(j, j->o->text, e));
    DM_TRY(dm_map_open_text(&map, j->o->text, e));
    enum dm_status st = dm_tokenizer_encode(j->tokenizer, map.n ? (const char *)map.data : "",
                                            map.n, out, e);
    dm_map_close(&map);
    return st;
}

/* As many windows as the positions asked for need and the text has. */
static enum dm_status plan(struct heldout *h, const struct eval_job *j, size_t tokens,
                           struct dm_err *e)
{
    const size_t T_max = j->model.cfg.T_max;
    h->n_heads = dm_pos_heads(&j->model);
    h->context = j->o->context ? j->o->context : T_max < 256 ? T_max : 256;
    const size_t per_window = dm_pos_per_window(h->context, h->n_heads);
    if (!per_window)
        return dm_fail(e, DM_ERANGE, "a context of %zu tokens is too short for %zu heads",
                       h->context, h->n_heads);
    h->windows = (j->o->positions + per_window - 1) / per_window;
    h->windows = h->windows < tokens / h->context ? h->windows : tokens / h->context;
    if (!h->windows)
        return dm_fail(e, DM_ERANGE, "%s: %zu tokens are fewer than a window of %zu",
                       j->o->data ? j->o->data : j->o->text, tokens, h->context);
    h->n = h->windows * per_window;
    h->ids = dm_alloc(h->windows, h->context * sizeof(*h->ids));
    h->pos = dm_alloc(h->n, sizeof(*h->pos));
    return h->ids && h->pos ? DM_OK
                            : dm_fail(e, DM_ENOMEM, "out of memory for %zu positions", h->n);
}

static enum dm_status read_windows(struct heldout *h, struct eval_job *j, struct dm_err *e)
{
    if (j->o->data) {
        DM_TRY(plan(h, j, dm_shard_tokens(j->shard), e));
        return dm_pos_read(h->ids, j->shard, h->windows, h->context, e);
    }
    struct dm_ids text = {0};
    enum dm_status st = read_text(j, &text, e);
    if (!st)
        st = plan(h, j, text.n, e);
    for (size_t w = 0; w < h->windows && !st; w++)
        memcpy(h->ids + w * h->context, text.id + dm_pos_start(w, h->windows, h->context, text.n),
               h->context * sizeof(*h->ids));
    dm_ids_release(&text);
    return st;
}

static bool on_window(void *ctx, size_t done)
{
    struct eval_job *j = ctx;
    dm_progress_set(&j->progress, (double)done, NULL);
    return !dm_stop_requested();
}

static enum dm_status perplexity(struct eval_job *j, const struct heldout *h, struct dm_err *e)
{
    const struct eval_options *o = j->o;
    const int kinds = o->cooc ? DM_POS_KINDS : 1;
    struct dm_ppl s;
    struct dm_ppl_dynamic *d = dm_alloc((size_t)kinds * o->n_eps, sizeof(*d));
    if (!d)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_ppl_sum(&s, h->pos, h->n, h->n_heads);
    struct dm_gen_opt gen = j->gen;
    for (size_t i = 0; i < (size_t)kinds * o->n_eps; i++) {
        gen.eps_b = o->eps[i % o->n_eps];
        dm_ppl_dynamic(&d[i], h->pos, h->n, h->n_heads, (int)(i / o->n_eps), &gen);
    }
    json_t *section = dm_ppl_to_json(&s, d, (size_t)kinds * o->n_eps);
    json_object_set_new(section, "windows", json_integer((json_int_t)h->windows));
    json_object_set_new(section, "context", json_integer((json_int_t)h->context));
    json_object_set_new(j->root, "perplexity", section);
    if (!o->json) {
        printf("n\tPPL_n\tPPL_1:n\tmasked\toutside\toutside_joint\tzero\n");
        for (size_t n = 0; n < h->n_heads; n++) {
            printf("%zu", n + 1);
            eval_print(s.head[n], 4);
            eval_print(s.joint[n], 4);
            eval_print(o->cooc ? s.masked[n] : (double)NAN, 4);
            eval_print(s.outside[n], 4);
            eval_print(s.outside_joint[n], 4);
            eval_print(o->cooc ? s.zero[n] : (double)NAN, 4);
            printf("\n");
        }
        printf("mask\teps_b\tPPL_d\ttokens\tone\ttwo\tthree\n");
        for (size_t i = 0; i < (size_t)kinds * o->n_eps; i++) {
            printf("%s\t%g", d[i].kind == DM_POS_MASKED ? "yes" : "no", d[i].eps_b);
            eval_print(d[i].ppl, 4);
            eval_print(d[i].tokens, 3);
            for (size_t n = 0; n < DM_ORDER_MAX; n++)
                eval_print(d[i].share[n], 3);
            printf("\n");
        }
    }
    free(d);
    return DM_OK;
}

static void accuracy(struct eval_job *j, const struct heldout *h)
{
    struct dm_accuracy a;
    dm_accuracy_sum(&a, h->pos, h->n, h->n_heads);
    json_object_set_new(j->root, "accuracy", dm_accuracy_to_json(&a));
    if (j->o->json)
        return;
    printf("head\ttop1\ttop5\n");
    for (size_t n = 1; n <= h->n_heads; n++)
        printf("%zu\t%.4f\t%.4f\n", n, a.top1[n - 1], a.top5[n - 1]);
    printf("tokens\theads\tjoint\tmasked\n");
    for (size_t n = 2; n <= h->n_heads; n++) {
        printf("%zu\t%.4f\t%.4f", n, a.heads[n], a.joint[DM_POS_PLAIN][n]);
        eval_print(j->o->cooc ? a.joint[DM_POS_MASKED][n] : (double)NAN, 4);
        printf("\n");
    }
}

static enum dm_status reliability(struct eval_job *j, const struct heldout *h, struct dm_err *e)
{
    struct dm_curve c[DM_CURVES];
    size_t n;
    DM_TRY(dm_curves(c, &n, h->pos, h->n, h->n_heads, &j->gen, j->o->bins, e));
    json_object_set_new(j->root, "reliability", dm_curves_to_json(c, n));
    if (j->o->plot)
        DM_TRY(dm_curves_plot(c, n, j->o->plot, e));
    if (j->o->json)
        return DM_OK;
    printf("confidence\tpositions\tece\tmean\tcorrect\n");
    for (size_t i = 0; i < n; i++) {
        char name[80];
        dm_curve_name(&c[i], name, sizeof(name));
        printf("%s\t%zu", name, c[i].n);
        eval_print(c[i].ece, 4);
        eval_print(c[i].confidence, 4);
        eval_print(c[i].correct, 4);
        printf("\n");
    }
    return DM_OK;
}

enum dm_status eval_heldout(struct eval_job *j, struct dm_err *e)
{
    struct heldout h = {0};
    enum dm_status st = read_windows(&h, j, e);
    if (!st) {
        dm_progress_init(&j->progress, "held-out text", "windows", (double)h.windows);
        st = dm_pos_run(h.pos, &j->model, eval_cooc(j), &j->gen, h.ids, h.windows, h.context,
                        on_window, j, e);
        dm_progress_end(&j->progress);
    }
    if (!st && j->o->what[EVAL_PERPLEXITY])
        st = perplexity(j, &h, e);
    if (!st && j->o->what[EVAL_ACCURACY])
        accuracy(j, &h);
    if (!st && j->o->what[EVAL_RELIABILITY])
        st = reliability(j, &h, e);
    free(h.ids);
    free(h.pos);
    return st;
}
