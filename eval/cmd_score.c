/* SPDX-License-Identifier: MIT */
#include "src/cmd.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/ids.h"
#include "eval/score.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/io/tokenizer.h"
#include "src/model/file.h"

struct options {
    const char *model, *ids, *ids_file, *text;
    size_t heads, context, threads;
    int format;
    bool json, summary;
};

enum {
    OPT_IDS = 256,
    OPT_IDS_FILE,
    OPT_TEXT,
    OPT_HEADS,
    OPT_CONTEXT,
    OPT_JSON,
    OPT_SUMMARY,
    OPT_FORMAT,
    OPT_THREADS
};

static const struct argp_option table[] = {
    {"ids", OPT_IDS, "\"N N ..\"", 0, "Score this one sequence of token ids", 0},
    {"ids-file", OPT_IDS_FILE, "FILE", 0, "Score the ids in FILE, one sequence per line", 0},
    {"text", OPT_TEXT, "FILE", 0, "Score FILE, one sequence, with the model's tokenizer", 0},
    {"heads", OPT_HEADS, "N", 0, "Only the first N heads (default: all)", 0},
    {"context", OPT_CONTEXT, "N", 0, "Tokens per window (default: the model's context)", 0},
    {"json", OPT_JSON, 0, 0, "One JSON object instead of a table", 0},
    {"summary", OPT_SUMMARY, 0, 0, "Only the perplexities, not every token", 0},
    {"format", OPT_FORMAT, "FORMAT", 0,
     "Numbers to compute with: auto (the model file's), f32, bf16, int8, int4 (default auto)", 0},
    {"threads", OPT_THREADS, "N", 0, "Number of threads; 0 = all cores (default 0)", 0},
    {0}};

static const char doc[] =
    "Prints log p (nats) and rank (0 = the most likely) of every token under every head, and the "
    "perplexities: PPL_n of head n for the token n ahead, PPL_1:n of the joint of heads 1..n "
    "(without a co-occurrence mask: the geometric mean of PPL_1..PPL_n).\v"
    "Example:\n  dynamo score heads.h5 --text chapter.txt --json\n\n"
    "Exactly one of --ids, --ids-file and --text. A sequence longer than the context is cut into "
    "windows that overlap by half; each later window scores only the tokens that are new to it, so "
    "every token is scored once and, after the first window, with at least half a context before "
    "it. Head n does not score the first n tokens (log p \"-\", null in JSON).\n"
    "The table: sequence, position, id, then log p and rank of each head, separated by tabs; a "
    "sequence of one token has nothing to score and is left out.";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case OPT_IDS:
        o->ids = arg;
        break;
    case OPT_IDS_FILE:
        o->ids_file = arg;
        break;
    case OPT_TEXT:
        o->text = arg;
        break;
    case OPT_HEADS:
        o->heads = dm_opt_size(s, "--heads", arg, 1, DM_SCORE_HEADS);
        break;
    case OPT_CONTEXT:
        o->context = dm_opt_size(s, "--context", arg, 2, SIZE_MAX);
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case OPT_SUMMARY:
        o->summary = true;
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
        if (!o->ids + !o->ids_file + !o->text != 2)
            argp_error(s, "give exactly one of --ids, --ids-file and --text");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* What is being scored and what came of it so far. */
struct job {
    const struct options *o;
    struct dm_scorer *scorer;
    struct dm_score_sum sum;
    size_t n_sequences;
    json_t *sequences; /* with --json */
};

static void print_rows(const struct job *j, const struct dm_ids *x, const float *logp,
                       const int32_t *rank)
{
    const size_t n_heads = dm_scorer_heads(j->scorer);
    for (size_t i = 0; i < x->n; i++) {
        printf("%zu\t%zu\t%d", j->n_sequences, i, x->id[i]);
        for (size_t n = 0; n < n_heads; n++)
            if (rank[n * x->n + i] < 0)
                printf("\t-\t-");
            else
                printf("\t%.6f\t%d", (double)logp[n * x->n + i], rank[n * x->n + i]);
        putchar('\n');
    }
}

static json_t *rows_to_json(const struct job *j, const struct dm_ids *x, const float *logp,
                            const int32_t *rank)
{
    json_t *ids = json_array(), *all_logp = json_array(), *all_rank = json_array();
    for (size_t i = 0; i < x->n; i++)
        json_array_append_new(ids, json_integer(x->id[i]));
    for (size_t n = 0; n < dm_scorer_heads(j->scorer); n++) {
        json_t *l = json_array(), *r = json_array();
        for (size_t i = 0; i < x->n; i++) {
            const bool has = rank[n * x->n + i] >= 0;
            json_array_append_new(l, has ? json_real((double)logp[n * x->n + i]) : json_null());
            json_array_append_new(r, has ? json_integer(rank[n * x->n + i]) : json_null());
        }
        json_array_append_new(all_logp, l);
        json_array_append_new(all_rank, r);
    }
    return json_pack("{s:o, s:o, s:o}", "ids", ids, "logp", all_logp, "rank", all_rank);
}

static enum dm_status score_one(struct job *j, const struct dm_ids *x, struct dm_err *e)
{
    if (x->n < 2) { // nothing to score, but it keeps its number
        j->n_sequences += x->n;
        return DM_OK;
    }
    const size_t n_heads = dm_scorer_heads(j->scorer);
    float *logp = dm_alloc(n_heads, x->n * sizeof(*logp));
    int32_t *rank = dm_alloc(n_heads, x->n * sizeof(*rank));
    enum dm_status st;
    if (!logp || !rank)
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu tokens", x->n);
    else
        st = dm_scorer_run(j->scorer, x->id, x->n, logp, rank, e);
    if (!st) {
        dm_score_add(&j->sum, logp, x->n, n_heads);
        if (!j->o->summary && j->o->json)
            json_array_append_new(j->sequences, rows_to_json(j, x, logp, rank));
        else if (!j->o->summary)
            print_rows(j, x, logp, rank);
        j->n_sequences++;
    }
    free(logp);
    free(rank);
    return st;
}

/* Every line of text is a sequence of ids; empty ones are skipped. */
static enum dm_status score_lines(struct job *j, const char *text, size_t n, size_t V,
                                  const char *where, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    size_t line = 1;
    for (size_t i = 0; i < n && !st; line++) {
        const char *end = memchr(text + i, '\n', n - i);
        const size_t len = end ? (size_t)(end - text) - i : n - i;
        struct dm_ids x = {0};
        char name[512];
        snprintf(name, sizeof(name), "%s, line %zu", where, line);
        st = dm_ids_parse(&x, text + i, len, V, name, e);
        if (!st)
            st = score_one(j, &x, e);
        dm_ids_release(&x);
        i += len + 1;
    }
    return st;
}

static enum dm_status score_text(struct job *j, const char *text, size_t n,
                                 const struct dm_model_meta *meta, struct dm_err *e)
{
    struct dm_tokenizer *t;
    struct dm_ids x = {0};
    if (!meta->tokenizer)
        return dm_fail(e, DM_EUNSUPPORTED, "%s has no tokenizer, give ids instead of text",
                       j->o->model);
    DM_TRY(dm_tokenizer_parse(&t, meta->tokenizer, strlen(meta->tokenizer), j->o->model, e));
    enum dm_status st = dm_tokenizer_encode(t, text, n, &x, e);
    if (!st)
        st = score_one(j, &x, e);
    dm_ids_release(&x);
    dm_tokenizer_free(t);
    return st;
}

static enum dm_status score_input(struct job *j, const struct dm_model *m,
                                  const struct dm_model_meta *meta, struct dm_err *e)
{
    const struct options *o = j->o;
    if (o->ids)
        return score_lines(j, o->ids, strlen(o->ids), m->cfg.Vp, "--ids", e);
    struct dm_map map;
    const char *path = o->text ? o->text : o->ids_file;
    DM_TRY(dm_map_open_text(&map, path, e));
    const char *text = map.n ? (const char *)map.data : "";
    enum dm_status st;
    if (o->text)
        st = score_text(j, text, map.n, meta, e);
    else
        st = score_lines(j, text, map.n, m->cfg.Vp, path, e);
    dm_map_close(&map);
    return st;
}

static void print_summary(const struct job *j)
{
    const size_t n_heads = dm_scorer_heads(j->scorer);
    if (j->o->json) {
        json_t *root = dm_score_to_json(&j->sum, n_heads);
        json_object_set_new(root, "model", json_string(j->o->model));
        json_object_set_new(root, "heads", json_integer((json_int_t)n_heads));
        json_object_set_new(root, "context",
                            json_integer((json_int_t)dm_scorer_context(j->scorer)));
        if (!j->o->summary)
            json_object_set(root, "sequences", j->sequences);
        dm_json_print(root);
        return;
    }
    for (size_t n = 1; n <= n_heads; n++)
        printf("PPL_%zu\t%.4f\t%zu tokens\n", n, dm_score_ppl(&j->sum, n), j->sum.n[n - 1]);
    for (size_t n = 2; n <= n_heads; n++)
        printf("PPL_1:%zu\t%.4f\n", n, dm_score_ppl_joint(&j->sum, n));
}

static enum dm_status run(const struct options *o, struct dm_err *e)
{
    struct dm_model m;
    struct dm_model_meta meta = {0};
    struct job j = {.o = o};
    DM_TRY(dm_file_check_inputs((const char *const[]){o->text, o->ids_file}, 2, e));
    DM_TRY(dm_model_load(&m, o->model, &(struct dm_load_opt){.format = o->format}, &meta, e));
    enum dm_status st = dm_scorer_new(&j.scorer, &m, o->context, o->heads, e);
    j.sequences = json_array();
    if (!st)
        st = score_input(&j, &m, &meta, e);
    if (!st && !j.sum.n[0])
        st = dm_fail(e, DM_ERANGE, "%s: no sequence of at least two tokens, nothing to score",
                     o->text       ? o->text
                     : o->ids_file ? o->ids_file
                                   : "--ids");
    if (!st)
        print_summary(&j);
    json_decref(j.sequences);
    dm_scorer_free(j.scorer);
    dm_model_meta_release(&meta);
    dm_model_release(&m);
    return st;
}

int cmd_score(int argc, char **argv)
{
    static const struct argp argp = {table, parse, "MODEL", doc, NULL, NULL, NULL};
    struct options o = {.format = DM_FORMAT_AUTO};
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    dm_par_set_threads(o.threads);
    if (run(&o, &e)) {
        fprintf(stderr, "dynamo score: %s\n", e.msg);
        return 1;
    }
    return 0;
}
