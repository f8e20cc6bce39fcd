/* SPDX-License-Identifier: MIT */
#include "src/cmd.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/tasks.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/stop.h"
#include "src/model/file.h"

enum { TASKS_MAX = 16 };

struct source {
    enum dm_task_kind kind;
    char *path, *labels; /* labels may be NULL */
};

struct options {
    const char *model, *items;
    struct source task[TASKS_MAX];
    size_t n_tasks, limit, threads;
    int format;
    bool json;
};

enum { OPT_TASK = 256, OPT_LIMIT, OPT_ITEMS, OPT_JSON, OPT_FORMAT, OPT_THREADS };

static const struct argp_option table[] = {
    {"task", OPT_TASK, "KIND=FILE[,LABELS]", 0,
     "A zero-shot task; may be repeated. KIND is lambada, piqa, arc, sciq, winogrande or choice, "
     "LABELS a file with the index of each right answer (piqa)",
     0},
    {"limit", OPT_LIMIT, "N", 0, "Only the first N items of each task; 0 = all (0)", 0},
    {"items", OPT_ITEMS, "FILE", 0, "Write every item's log p and choice as JSON lines", 0},
    {"json", OPT_JSON, 0, 0, "One JSON object instead of a table", 0},
    {"format", OPT_FORMAT, "FORMAT", 0,
     "Numbers to compute with: auto (the model file's), f32, bf16, int8, int4 (auto)", 0},
    {"threads", OPT_THREADS, "N", 0, "Number of threads; 0 = all cores (0)", 0},
    {0}};

static const char doc[] =
    "Zero-shot tasks with head 1, scored as lm-evaluation-harness scores them without examples: "
    "accuracy by the log p of each choice, and by log p per character (acc_norm); for lambada "
    "greedy agreement and perplexity of the last word; with standard errors.\v"
    "Example:\n  dynamo eval base.h5 --task lambada=lambada_test.jsonl "
    "--task piqa=valid.jsonl,valid-labels.lst\n\n"
    "Files are JSONL or an array of objects, gzip or zstd too:\n"
    "  lambada     {text}\n"
    "  piqa        {goal, sol1, sol2, label}\n"
    "  arc         {question, choices: {text, label}, answerKey}, or AI2's own form\n"
    "  sciq        {support, question, distractor1, distractor2, distractor3, correct_answer}\n"
    "  winogrande  {sentence, option1, option2, answer}\n"
    "  choice      {context, choices: [..], answer: index from 0}\n"
    "Items longer than the model's context lose their beginning.";

static void add_task(struct options *o, struct argp_state *s, char *arg)
{
    struct source *t = &o->task[o->n_tasks];
    char *path = strchr(arg, '=');
    if (o->n_tasks++ == TASKS_MAX)
        argp_error(s, "--task: more than %d", TASKS_MAX);
    if (!path || !path[1])
        argp_error(s, "--task: \"%s\" is not KIND=FILE", arg);
    *path++ = '\0';
    t->kind = (enum dm_task_kind)dm_opt_word(s, "--task", arg, dm_task_names);
    t->path = path;
    t->labels = strchr(path, ',');
    if (t->labels)
        *t->labels++ = '\0';
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case OPT_TASK:
        add_task(o, s, arg);
        break;
    case OPT_LIMIT:
        o->limit = dm_opt_size(s, "--limit", arg, 0, SIZE_MAX);
        break;
    case OPT_ITEMS:
        o->items = arg;
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case OPT_FORMAT:
        o->format = dm_opt_word(s, "--format", arg, dm_load_formats) - 1;
        break;
    case OPT_THREADS:
        o->threads = dm_opt_size(s, "--threads", arg, 0, 1024);
        break;
    case ARGP_KEY_ARG:
        dm_opt_once(s, "model", &o->model, arg);
        break;
    case ARGP_KEY_END:
        dm_opt_need(s, "MODEL", o->model);
        dm_opt_need(s, "--task KIND=FILE", o->n_tasks ? o : NULL);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

struct job {
    const struct options *o;
    struct dm_model model;
    struct dm_tokenizer *tokenizer;
    struct dm_progress progress;
    FILE *items; /* or NULL */
    json_t *results;
};

static bool on_item(void *ctx, size_t done)
{
    struct job *j = ctx;
    dm_progress_set(&j->progress, (double)done, NULL);
    return !dm_stop_requested();
}

static void write_items(struct job *j, const struct dm_task *t, const struct dm_task_answer *a)
{
    for (size_t i = 0; i < t->n; i++) {
        json_t *logp = json_array();
        for (size_t k = 0; k < t->item[i].n; k++)
            json_array_append_new(logp, json_real(a[i].logp[k]));
        json_t *row = json_pack(
            "{s:s, s:I, s:o, s:I, s:I, s:I, s:b, s:b, s:b}", "task", dm_task_names[t->kind], "item",
            (json_int_t)i, "logp", logp, "answer", (json_int_t)t->item[i].answer, "best",
            (json_int_t)a[i].best, "best_norm", (json_int_t)a[i].best_norm, "greedy", a[i].greedy,
            "right", a[i].right, "right_norm", a[i].right_norm);
        json_dumpf(row, j->items, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fputc('\n', j->items);
        json_decref(row);
    }
}

static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static void print_number(double x, double se)
{
    if (isnan(x))
        printf("\t-\t-");
    else
        printf("\t%.4f\t%.4f", x, se);
}

static void report(struct job *j, const struct source *s, const struct dm_task_result *r)
{
    if (j->o->json) {
        json_array_append_new(
            j->results,
            json_pack("{s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "task", dm_task_names[s->kind],
                      "file", s->path, "items", (json_int_t)r->n, "acc", number(r->acc),
                      "acc_stderr", number(r->acc_se), "acc_norm", number(r->acc_norm),
                      "acc_norm_stderr", number(r->acc_norm_se), "perplexity", number(r->ppl)));
        return;
    }
    printf("%s\t%zu", dm_task_names[s->kind], r->n);
    print_number(r->acc, r->acc_se);
    print_number(r->acc_norm, r->acc_norm_se);
    if (isnan(r->ppl))
        printf("\t-\n");
    else
        printf("\t%.4f\n", r->ppl);
    fflush(stdout);
}

static enum dm_status run_task(struct job *j, const struct source *s, struct dm_err *e)
{
    struct dm_task t;
    struct dm_task_result r;
    struct dm_task_answer *answers = NULL;
    enum dm_status st;
    DM_TRY_GOTO(dm_task_load(&t, s->kind, s->path, s->labels, j->o->limit, e));
    answers = dm_alloc(t.n, sizeof(*answers));
    if (!answers) {
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu answers", t.n);
        goto done;
    }
    dm_progress_init(&j->progress, dm_task_names[s->kind], "items", (double)t.n);
    struct dm_err why;
    st = dm_task_run(&t, &j->model, j->tokenizer, answers, on_item, j, &why);
    dm_progress_end(&j->progress);
    if (st) {
        dm_fail(e, st, "%s: %s", s->path, why.msg);
        goto done;
    }
    DM_TRY_GOTO(dm_task_summarise(&r, &t, answers, e));
    if (j->items)
        write_items(j, &t, answers);
    report(j, s, &r);
done:
    free(answers);
    dm_task_release(&t);
    return st;
}

static enum dm_status run_tasks(struct job *j, struct dm_err *e)
{
    const struct options *o = j->o;
    char *tmp = NULL;
    enum dm_status st = DM_OK;
    if (o->items && (!(tmp = dm_file_tmp_name(o->items)) || !(j->items = fopen(tmp, "w"))))
        st = dm_fail_errno(e, "%s: cannot be written", o->items);
    if (!st && !o->json)
        printf("task\titems\tacc\tstderr\tacc_norm\tstderr\tperplexity\n");
    for (size_t i = 0; i < o->n_tasks && !st; i++)
        st = run_task(j, &o->task[i], e);
    if (j->items && (ferror(j->items) | fclose(j->items)) && !st)
        st = dm_fail_errno(e, "%s: cannot be written", o->items);
    if (!st && o->items)
        st = dm_file_publish(tmp, o->items, e);
    else if (tmp)
        remove(tmp);
    free(tmp);
    if (!st && o->json)
        dm_json_print(json_pack("{s:s, s:s, s:O}", "model", o->model, "format",
                                dm_load_formats[o->format + 1], "tasks", j->results));
    return st;
}

static enum dm_status run(const struct options *o, struct dm_err *e)
{
    struct dm_model_meta meta = {0};
    struct job j = {.o = o, .results = json_array()};
    enum dm_status st = dm_model_load(&j.model, o->model,
                                      &(struct dm_load_opt){.format = o->format}, &meta, e);
    if (!st && !meta.tokenizer)
        st = dm_fail(e, DM_EUNSUPPORTED, "%s: has no tokenizer, so text cannot be read", o->model);
    if (!st)
        st = dm_tokenizer_parse(&j.tokenizer, meta.tokenizer, strlen(meta.tokenizer), o->model, e);
    if (!st)
        st = run_tasks(&j, e);
    dm_tokenizer_free(j.tokenizer);
    dm_model_meta_release(&meta);
    dm_model_release(&j.model);
    json_decref(j.results);
    return st;
}

int cmd_eval(int argc, char **argv)
{
    static const struct argp argp = {table, parse, "MODEL", doc, NULL, NULL, NULL};
    struct options o = {.format = DM_FORMAT_AUTO};
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    dm_par_set_threads(o.threads);
    dm_stop_install();
    if (run(&o, &e)) {
        fprintf(stderr, "dynamo eval: %s\n", e.msg);
        return 1;
    }
    return 0;
}
