/* SPDX-License-Identifier: MIT */
/* cmd_eval_tasks.c - `dynamo eval`: zero-shot tasks, and the n-grams of given texts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cmd_eval.h"
#include "eval/diversity.h"
#include "eval/ids.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/stop.h"

static bool on_item(void *ctx, size_t done)
{
    struct eval_job *j = ctx;
    dm_progress_set(&j->progress, (double)done, NULL);
    return !dm_stop_requested();
}

static void write_items(FILE *to, const struct dm_task *t, const struct dm_task_answer *a)
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
        json_dumpf(row, to, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fputc('\n', to);
        json_decref(row);
    }
}

static void report(struct eval_job *j, json_t *rows, const struct eval_task *s,
                   const struct dm_task_result *r)
{
    if (j->o->json) {
        json_array_append_new(
            rows, json_pack("{s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "task",
                            dm_task_names[s->kind], "file", s->path, "items", (json_int_t)r->n,
                            "acc", dm_json_real(r->acc), "acc_stderr", dm_json_real(r->acc_se),
                            "acc_norm", dm_json_real(r->acc_norm), "acc_norm_stderr",
                            dm_json_real(r->acc_norm_se), "perplexity", dm_json_real(r->ppl)));
        return;
    }
    printf("%s\t%zu", dm_task_names[s->kind], r->n);
    eval_print(r->acc, 4);
    eval_print(r->acc_se, 4);
    eval_print(r->acc_norm, 4);
    eval_print(r->acc_norm_se, 4);
    eval_print(r->ppl, 4);
    printf("\n");
    fflush(stdout);
}

enum dm_status eval_read_tasks(struct eval_job *j, struct dm_err *e)
{
    const struct eval_task *s = j->o->task;
    for (size_t i = 0; i < j->o->n_tasks; i++)
        DM_TRY(dm_task_load(&j->task[i], s[i].kind, s[i].path, s[i].labels, j->o->limit, e));
    return DM_OK;
}

static enum dm_status run_task(struct eval_job *j, const struct eval_task *s,
                               const struct dm_task *t, json_t *rows, FILE *items, struct dm_err *e)
{
    struct dm_task_result r;
    struct dm_task_answer *answers = dm_alloc(t->n, sizeof(*answers));
    if (!answers)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu answers", t->n);
    dm_progress_init(&j->progress, dm_task_names[s->kind], "items", (double)t->n);
    struct dm_err why;
    enum dm_status st = dm_task_run(t, &j->model, j->tokenizer, answers, on_item, j, &why);
    dm_progress_end(&j->progress);
    if (st) {
        dm_fail(e, st, "%s: %s", s->path, why.msg);
        goto done;
    }
    DM_TRY_GOTO(dm_task_summarise(&r, t, answers, e));
    if (items)
        write_items(items, t, answers);
    report(j, rows, s, &r);
done:
    free(answers);
    return st;
}

enum dm_status eval_tasks(struct eval_job *j, struct dm_err *e)
{
    const struct eval_options *o = j->o;
    char *tmp = NULL;
    FILE *items = NULL;
    json_t *rows = json_array();
    enum dm_status st = DM_OK;
    if (o->items && (!(tmp = dm_file_tmp_name(o->items)) || !(items = fopen(tmp, "w"))))
        st = dm_fail_errno(e, "%s: cannot be written", o->items);
    if (!st && !o->json)
        printf("task\titems\tacc\tstderr\tacc_norm\tstderr\tperplexity\n");
    for (size_t i = 0; i < o->n_tasks && !st; i++)
        st = run_task(j, &o->task[i], &j->task[i], rows, items, e);
    if (items && (ferror(items) | fclose(items)) && !st)
        st = dm_fail_errno(e, "%s: cannot be written", o->items);
    if (!st && o->items)
        st = dm_file_publish(tmp, o->items, e);
    else if (tmp)
        remove(tmp);
    free(tmp);
    json_object_set_new(j->root, "tasks", rows);
    return st;
}

/* ---- Diversity ------------------------------------------------------------------------------- */

static enum dm_status read_ids(const struct eval_job *j, const char *path, struct dm_ids *out,
                               struct dm_err *e)
{
    const size_t len = strlen(path);
    struct dm_map map;
    DM_TRY(dm_map_open_text(&map, path, e));
    const char *text = map.n ? (const char *)map.data : "";
    enum dm_status st;
    if (len > 4 && !strcmp(path + len - 4, ".ids"))
        st = dm_ids_parse(out, text, map.n, j->model.cfg.Vp, path, e);
    else if (!(st = eval_need_tokenizer(j, "text", e)))
        st = dm_tokenizer_encode(j->tokenizer, text, map.n, out, e);
    dm_map_close(&map);
    if (!st && !out->n)
        st = dm_fail(e, DM_ERANGE, "%s: no tokens", path);
    return st;
}

enum dm_status eval_read_diversity(struct eval_job *j, struct dm_err *e)
{
    for (size_t i = 0; i < j->o->n_diversity; i++)
        DM_TRY(read_ids(j, j->o->diversity[i], &j->diversity[i], e));
    return DM_OK;
}

static enum dm_status one_text(const struct eval_job *j, json_t *rows, const char *path,
                               const struct dm_ids *x, struct dm_err *e)
{
    double repeats[2], distinct[4];
    const size_t start = 0;
    const struct dm_texts texts = {x->id, &start, &x->n, 1};
    for (size_t n = 1; n <= 4; n++)
        DM_TRY(dm_div_distinct(&distinct[n - 1], &texts, n, e));
    for (size_t i = 0; i < 2; i++) // dm_div_repeats() is quadratic, and this may be a book
        repeats[i] = isnan(distinct[2 + i]) ? 0.0 : 1.0 - distinct[2 + i];
    if (j->o->json) {
        json_array_append_new(
            rows, json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "file", path, "tokens",
                            (json_int_t)x->n, "repeats_3", dm_json_real(repeats[0]), "repeats_4",
                            dm_json_real(repeats[1]), "distinct_1", dm_json_real(distinct[0]),
                            "distinct_2", dm_json_real(distinct[1]), "distinct_3",
                            dm_json_real(distinct[2])));
        return DM_OK;
    }
    printf("%s\t%zu", path, x->n);
    for (size_t i = 0; i < 2; i++)
        eval_print(repeats[i], 4);
    for (size_t i = 0; i < 3; i++)
        eval_print(distinct[i], 4);
    printf("\n");
    return DM_OK;
}

enum dm_status eval_diversity(struct eval_job *j, struct dm_err *e)
{
    json_t *rows = json_array();
    enum dm_status st = DM_OK;
    if (!j->o->json)
        printf("file\ttokens\trepeats_3\trepeats_4\tdistinct_1\tdistinct_2\tdistinct_3\n");
    for (size_t i = 0; i < j->o->n_diversity && !st; i++)
        st = one_text(j, rows, j->o->diversity[i], &j->diversity[i], e);
    json_object_set_new(j->root, "diversity", rows);
    return st;
}
