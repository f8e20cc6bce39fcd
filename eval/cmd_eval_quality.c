/* SPDX-License-Identifier: MIT */
/* cmd_eval_quality.c - `dynamo eval`: generated text beside the base's, over eps_b and for the
 * paper's ablations. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/calibrate.h"
#include "eval/cmd_eval.h"
#include "eval/prompts.h"
#include "eval/quality.h"
#include "src/base/arena.h"
#include "src/base/json.h"
#include "src/base/stop.h"

enum { FROM_DATA = 64 }; // prompts

struct named {
    char name[40];
    const struct paper_row *paper; /* or NULL */
};

/* DynaMo's ablations at eps_b = .5, 7.3B: tokens per forward and win rate. */
static const struct paper_row {
    const char *name;
    double speedup, win_rate;
} paper[] = {{"all", 2.57, 0.98},
             {"w/o CO", 2.49, 0.38},
             {"w/o AT", 2.61, 0.82},
             {"w/o G-3", 2.44, 0.96},
             {"alpha_c 0.5", 2.55, 0.77}};
enum { ABLATIONS = sizeof(paper) / sizeof(paper[0]) };

/* A section: its settings, number 0 the base, and what comes of them. */
struct section {
    struct eval_job *j;
    const char *name;
    size_t n;
    struct dm_trial_setting *setting; /* (n) */
    struct named *named;              /* (n) */
    struct dm_quality_point *point;   /* (n) */
    struct dm_quality_fit fit[2];
    bool sweep; /* of eps_b: with a line, and a control as the last setting */
};

static enum dm_status from_data(struct dm_prompts *p, const struct eval_job *j, struct dm_err *e)
{
    const struct eval_options *o = j->o;
    const size_t n = o->n_prompts ? o->n_prompts : FROM_DATA, tokens = o->prompt_tokens;
    int32_t *ids = dm_alloc(n, tokens * sizeof(*ids));
    enum dm_status st = ids ? dm_cal_prompts(ids, n, tokens, 1, j->shard, e)
                            : dm_fail(e, DM_ENOMEM, "out of memory for %zu prompts", n);
    for (size_t i = 0; i < n && !st; i++)
        st = dm_prompts_add(p, ids + i * tokens, tokens, NULL, e);
    free(ids);
    return st;
}

enum dm_status eval_read_prompts(struct eval_job *j, struct dm_err *e)
{
    if (!j->o->prompts)
        return from_data(&j->prompts, j, e);
    DM_TRY(eval_need_tokenizer(j, j->o->prompts, e));
    DM_TRY(dm_prompts_load(&j->prompts, j->o->prompts, j->tokenizer, e));
    if (j->o->n_prompts)
        dm_prompts_thin(&j->prompts, j->o->n_prompts);
    return DM_OK;
}

static enum dm_status section_new(struct section *s, struct eval_job *j, const char *name, size_t n,
                                  struct dm_err *e)
{
    *s = (struct section){.j = j, .name = name, .n = n};
    s->setting = dm_alloc(n, sizeof(*s->setting));
    s->named = dm_alloc(n, sizeof(*s->named));
    s->point = dm_alloc(n, sizeof(*s->point));
    if (!s->setting || !s->named || !s->point)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu settings", n);
    for (size_t i = 0; i < n; i++) {
        s->setting[i].gen = j->gen;
        s->setting[i].gen.mode = i ? DM_GEN_DYNAMO : DM_GEN_AR;
        s->setting[i].table = i && j->o->cooc;
    }
    snprintf(s->named[0].name, sizeof(s->named[0].name), "base");
    return DM_OK;
}

static void section_free(struct section *s)
{
    free(s->setting);
    free(s->named);
    free(s->point);
}

static bool on_text(void *ctx, double share)
{
    struct eval_job *j = ctx;
    dm_progress_set(&j->progress, share * 100, NULL);
    return !dm_stop_requested();
}

static enum dm_status measure(struct section *s, const struct dm_prompts *p, struct dm_err *e)
{
    struct eval_job *j = s->j;
    const struct eval_options *o = j->o;
    const struct dm_trial_opt trial = {.model = &j->model,
                                       .judge = o->judge ? &j->judge : NULL,
                                       .cooc = eval_cooc(j),
                                       .settings = s->setting,
                                       .n_settings = s->n,
                                       .prompts = {p->ids.id, p->start, p->n},
                                       .samples = o->samples,
                                       .tokens = o->tokens,
                                       .seed = o->seed};
    const struct dm_quality_opt q = {s->n - 2, o->bootstrap, o->confidence, o->seed};
    struct dm_trial t = {0};
    dm_progress_init(&j->progress, s->name, "%", 100);
    enum dm_status st = dm_trial_run(&t, &trial, on_text, j, e);
    dm_progress_end(&j->progress);
    if (!st)
        st = dm_quality_make(s->point, s->sweep ? s->fit : NULL, &t, &q, e);
    dm_trial_release(&t);
    return st;
}

/* ---- Reports --------------------------------------------------------------------------------- */

static json_t *point_to_json(const struct section *s, size_t i)
{
    const struct paper_row *row = s->named[i].paper;
    json_t *o = dm_quality_point_to_json(&s->point[i]);
    json_object_set_new(o, "name", json_string(s->named[i].name));
    json_object_set_new(o, "settings",
                        s->setting[i].gen.mode == DM_GEN_DYNAMO
                            ? dm_gen_opt_to_json(&s->setting[i].gen)
                            : json_null());
    json_object_set_new(o, "paper",
                        row ? json_pack("{s:s, s:f, s:f}", "name", row->name, "speedup",
                                        row->speedup, "win_rate", row->win_rate)
                            : json_null());
    return o;
}

static json_t *section_to_json(const struct section *s, const struct dm_prompts *p)
{
    const struct eval_options *o = s->j->o;
    json_t *points = json_array();
    for (size_t i = 1; i < s->n - s->sweep; i++)
        json_array_append_new(points, point_to_json(s, i));
    json_t *root = json_pack("{s:o, s:I, s:I, s:I, s:I, s:f, s:o, s:o}", "prompts",
                             dm_prompts_to_json(p, o->prompts ? o->prompts : o->data), "samples",
                             (json_int_t)o->samples, "tokens", (json_int_t)o->tokens, "seed",
                             (json_int_t)o->seed, "bootstrap", (json_int_t)o->bootstrap,
                             "confidence", o->confidence, "base", point_to_json(s, 0), "points",
                             points);
    if (!s->sweep)
        return root;
    json_object_set_new(root, "control", point_to_json(s, s->n - 1));
    json_object_set_new(root, "same_quality",
                        json_pack("{s:o, s:o}", "tokens_per_forward",
                                  dm_quality_fit_to_json(&s->fit[0]), "wall_clock",
                                  dm_quality_fit_to_json(&s->fit[1])));
    return root;
}

/* "\t1.23 (1.1-1.4)" */
static void print_interval(const struct dm_interval *x, int digits)
{
    eval_print(x->value, digits);
    if (!isnan(x->low)) // a bound may be infinite
        printf(" (%.*f..%.*f)", digits, x->low, digits, x->high);
}

static void print_section(const struct section *s)
{
    static const struct {
        enum dm_quality_measure m;
        int digits;
    } columns[] = {
        {DM_QUALITY_PER_FORWARD, 3}, {DM_QUALITY_WALL, 3},       {DM_QUALITY_WIN_RATE, 3},
        {DM_QUALITY_JUDGE, 3},       {DM_QUALITY_DIVERGENCE, 3}, {DM_QUALITY_REPEATS_3, 4},
        {DM_QUALITY_REPEATS_4, 4},   {DM_QUALITY_DISTINCT_2, 4}, {DM_QUALITY_DISTINCT_3, 4}};
    enum { COLUMNS = sizeof(columns) / sizeof(columns[0]) };
    printf("%s", s->name);
    for (size_t c = 0; c < COLUMNS; c++)
        printf("\t%s", dm_quality_keys[columns[c].m]);
    printf("\twins\tlosses\tties%s\n", s->sweep ? "" : "\tpaper_speedup\tpaper_win_rate");
    for (size_t i = 0; i < s->n; i++) {
        const struct dm_quality_point *p = &s->point[i];
        printf("%s", s->named[i].name);
        for (size_t c = 0; c < COLUMNS; c++)
            print_interval(&p->value[columns[c].m], columns[c].digits);
        printf("\t%zu\t%zu\t%zu", p->wins, p->losses, p->ties);
        if (!s->sweep && s->named[i].paper)
            printf("\t%.2f\t%.2f", s->named[i].paper->speedup, s->named[i].paper->win_rate);
        else if (!s->sweep)
            printf("\t-\t-");
        printf("\n");
    }
    for (size_t i = 0; i < 2 && s->sweep; i++) {
        const struct dm_quality_fit *f = &s->fit[i];
        printf("same quality, %s", i ? "wall clock" : "tokens per forward");
        print_interval(&f->speedup, 3);
        printf("\tthere: wall clock %.3f, divergence %.3f, repeats_3 %.4f, repeats_4 %.4f, "
               "distinct_2 %.4f\n",
               f->at[DM_QUALITY_WALL], f->at[DM_QUALITY_DIVERGENCE], f->at[DM_QUALITY_REPEATS_3],
               f->at[DM_QUALITY_REPEATS_4], f->at[DM_QUALITY_DISTINCT_2]);
    }
}

static enum dm_status finish(struct section *s, const struct dm_prompts *p, struct dm_err *e)
{
    DM_TRY(measure(s, p, e));
    if (s->j->o->json)
        json_object_set_new(s->j->root, s->name, section_to_json(s, p));
    else
        print_section(s);
    return DM_OK;
}

/* ---- Sections -------------------------------------------------------------------------------- */

static enum dm_status sweep(struct eval_job *j, const struct dm_prompts *p, struct dm_err *e)
{
    const struct eval_options *o = j->o;
    struct section s;
    enum dm_status st = section_new(&s, j, "quality", o->n_eps + 2, e);
    s.sweep = true;
    for (size_t i = 0; i < o->n_eps && !st; i++) {
        s.setting[i + 1].gen.eps_b = o->eps[i];
        snprintf(s.named[i + 1].name, sizeof(s.named[0].name), "eps_b %g", o->eps[i]);
    }
    if (!st) {
        struct dm_trial_setting *control = &s.setting[s.n - 1];
        *control = s.setting[0];
        control->seed = p->n * o->samples; // beyond those of the others
        snprintf(s.named[s.n - 1].name, sizeof(s.named[0].name), "control");
    }
    if (!st)
        st = finish(&s, p, e);
    section_free(&s);
    return st;
}

static enum dm_status ablation(struct eval_job *j, const struct dm_prompts *p, struct dm_err *e)
{
    struct section s;
    enum dm_status st = section_new(&s, j, "ablation", 1 + ABLATIONS, e);
    for (size_t i = 0; i < ABLATIONS && !st; i++) {
        struct dm_gen_opt *g = &s.setting[i + 1].gen;
        s.named[i + 1].paper = &paper[i];
        snprintf(s.named[i + 1].name, sizeof(s.named[0].name), "%s", paper[i].name);
        g->fitted = false; // a fit is of the whole, and the paper has none
        g->alpha_c = i == 1 ? 0 : i == 4 ? 0.5 : g->alpha_c;
        s.setting[i + 1].table = i != 1;
        g->threshold = g->threshold && i != 2;
        g->blur = g->blur && i != 3;
    }
    if (!st)
        st = finish(&s, p, e);
    section_free(&s);
    return st;
}

enum dm_status eval_quality(struct eval_job *j, struct dm_err *e)
{
    if (j->o->what[EVAL_QUALITY])
        DM_TRY(sweep(j, &j->prompts, e));
    return j->o->what[EVAL_ABLATION] ? ablation(j, &j->prompts, e) : DM_OK;
}
