/* SPDX-License-Identifier: MIT */
#include "src/cmd.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cmd_eval.h"
#include "eval/reliability.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/base/stop.h"

const char *const eval_words[] = {"perplexity", "accuracy", "reliability",
                                  "quality",    "ablation", NULL};

enum {
    OPT_WHAT = 256,
    OPT_TASK,
    OPT_DIVERSITY,
    OPT_COOC,
    OPT_DATA,
    OPT_TEXT,
    OPT_JUDGE,
    OPT_PROMPTS,
    OPT_EPS,
    OPT_SET,
    OPT_POSITIONS,
    OPT_CONTEXT,
    OPT_BINS,
    OPT_PLOT,
    OPT_N_PROMPTS,
    OPT_PROMPT_TOKENS,
    OPT_SAMPLES,
    OPT_TOKENS,
    OPT_SEED,
    OPT_BOOTSTRAP,
    OPT_CONFIDENCE,
    OPT_LIMIT,
    OPT_ITEMS,
    OPT_JSON,
    OPT_FORMAT,
    OPT_THREADS
};

static const struct argp_option table[] = {
    {0, 0, 0, 0, "What is evaluated:", 1},
    {"what", OPT_WHAT, "LIST", 0,
     "Sections, with commas: perplexity, accuracy, reliability (of held-out text), quality, "
     "ablation (of generated text)",
     1},
    {"task", OPT_TASK, "KIND=FILE[,LABELS]", 0,
     "A zero-shot task; may be repeated. KIND is lambada, piqa, arc, sciq, winogrande or choice, "
     "LABELS a file with the index of each right answer (piqa)",
     1},
    {"diversity", OPT_DIVERSITY, "FILE", 0,
     "Repeated and distinct n-grams of a text (of token ids if it ends in .ids); may be repeated",
     1},
    {0, 0, 0, 0, "Files:", 2},
    {"cooc", OPT_COOC, "FILE", 0, "Co-occurrence table; without it there is no mask", 2},
    {"data", OPT_DATA, "SHARD", 0, "Held-out tokens", 2},
    {"text", OPT_TEXT, "FILE", 0, "Held-out text, instead of --data", 2},
    {"prompts", OPT_PROMPTS, "FILE", 0,
     "Prompts of quality and ablation: a line each, or JSONL with text and kind (default: from "
     "--data)",
     2},
    {"judge", OPT_JUDGE, "MODEL", 0, "The model that judges texts (default: MODEL's own base)", 2},
    {"plot", OPT_PLOT, "FILE.svg", 0, "Draw the reliability diagrams", 2},
    {0, 0, 0, 0, "Settings of decoding:", 3},
    {"eps", OPT_EPS, "LIST", 0,
     "Values of eps_b for perplexity and quality, with commas, or FROM:TO:STEP; the paper's are "
     "0:1:0.02 (0:1:0.1)",
     3},
    {"set", OPT_SET, "KEY=VALUE", 0,
     "eps_b (of reliability and ablation), power2, power3, fitted, cut, alpha_c, alpha_3, unseen, "
     "lambda, top_k, temperature, penalty, threshold or blur; may be repeated (the model's "
     "calibration, or generate's defaults)",
     3},
    {0, 0, 0, 0, "Held-out text:", 4},
    {"positions", OPT_POSITIONS, "N", 0, "Positions to look at, at least (2000)", 4},
    {"context", OPT_CONTEXT, "N", 0, "Tokens of a window (256, or the model's)", 4},
    {"bins", OPT_BINS, "N", 0, "Bins of a reliability diagram (10)", 4},
    {0, 0, 0, 0, "Generated text:", 5},
    {"samples", OPT_SAMPLES, "N", 0, "Texts of each prompt, seeds differ (2)", 5},
    {"tokens", OPT_TOKENS, "N", 0, "Tokens of each text (60)", 5},
    {"n-prompts", OPT_N_PROMPTS, "N", 0,
     "So many prompts, spread evenly over the file or --data (all, 64)", 5},
    {"prompt-tokens", OPT_PROMPT_TOKENS, "N", 0, "Tokens of a prompt from --data (32)", 5},
    {"seed", OPT_SEED, "N", 0, "First seed, and that of the bootstrap (1)", 5},
    {"bootstrap", OPT_BOOTSTRAP, "N", 0, "Resamples of the prompts (1000)", 5},
    {"confidence", OPT_CONFIDENCE, "P", 0, "Of the intervals (0.95)", 5},
    {0, 0, 0, 0, "Others:", 6},
    {"limit", OPT_LIMIT, "N", 0, "Only the first N items of each task; 0 = all (0)", 6},
    {"items", OPT_ITEMS, "FILE", 0, "Write every item's log p and choice as JSON lines", 6},
    {"json", OPT_JSON, 0, 0, "One JSON object instead of tables", 6},
    {"format", OPT_FORMAT, "FORMAT", 0,
     "Numbers to compute with: auto (the model file's), f32, bf16, int8, int4 (auto)", 6},
    {"threads", OPT_THREADS, "N", 0, "Number of threads; 0 = all cores (0)", 6},
    {0}};

static const char doc[] =
    "Evaluates a model: perplexities of each head, of blocks and of dynamic decoding (PPL_d); how "
    "often heads and blocks are right, and whether their confidence says so; the speed-up at which "
    "a judge finds generated text as good as the base's, with divergence and repetition beside it; "
    "the paper's ablations; zero-shot tasks. docs/evaluation.md defines each figure.\v"
    "Examples:\n"
    "  dynamo eval heads.h5 --cooc cooc.h5 --data heldout.h5 "
    "--what perplexity,accuracy,reliability --plot reliability.svg\n"
    "  dynamo eval heads.h5 --cooc cooc.h5 --prompts data/prompts/completion.jsonl "
    "--what quality,ablation --judge larger.h5 --set eps_b=0.5 --json\n"
    "  dynamo eval base.h5 --task lambada=lambada_test.jsonl "
    "--task piqa=valid.jsonl,valid-labels.lst\n\n"
    "Files of tasks are JSONL or an array of objects, gzip or zstd too:\n"
    "  lambada     {text}\n"
    "  piqa        {goal, sol1, sol2, label}\n"
    "  arc         {question, choices: {text, label}, answerKey}, or AI2's own form\n"
    "  sciq        {support, question, distractor1, distractor2, distractor3, correct_answer}\n"
    "  winogrande  {sentence, option1, option2, answer}\n"
    "  choice      {context, choices: [..], answer: index from 0}\n"
    "Items longer than the model's context lose their beginning.";

static void add_task(struct eval_options *o, struct argp_state *s, char *arg)
{
    struct eval_task *t = &o->task[o->n_tasks];
    char *path = strchr(arg, '=');
    if (o->n_tasks++ == EVAL_TASKS)
        argp_error(s, "--task: more than %d", EVAL_TASKS);
    if (!path || !path[1])
        argp_error(s, "--task: \"%s\" is not KIND=FILE", arg);
    *path++ = '\0';
    t->kind = (enum dm_task_kind)dm_opt_word(s, "--task", arg, dm_task_names);
    t->path = path;
    t->labels = strchr(path, ',');
    if (t->labels)
        *t->labels++ = '\0';
}

static void parse_what(struct eval_options *o, struct argp_state *s, char *arg)
{
    char *item;
    while ((item = strsep(&arg, ",")))
        o->what[dm_opt_word(s, "--what", item, eval_words)] = true;
}

static void add_eps(struct eval_options *o, struct argp_state *s, double eps)
{
    if (o->n_eps == EVAL_EPS)
        argp_error(s, "--eps: more than %d values", EVAL_EPS);
    o->eps[o->n_eps++] = eps;
}

static void parse_eps(struct eval_options *o, struct argp_state *s, char *arg)
{
    char *item;
    o->n_eps = 0;
    if (!strchr(arg, ':')) {
        while ((item = strsep(&arg, ",")))
            add_eps(o, s, dm_opt_real(s, "--eps", item, 0, 1));
        return;
    }
    double range[3] = {0, 0, 0}; // from, to, step
    size_t n = 0;
    while ((item = strsep(&arg, ":")) && n < 3) {
        range[n] = dm_opt_real(s, "--eps", item, n == 2 ? 1e-3 : 0, 1);
        n++;
    }
    if (n < 3 || item)
        argp_error(s, "--eps: a range is FROM:TO:STEP");
    for (size_t i = 0; range[0] + (double)i * range[2] <= range[1] * (1 + 1e-9); i++)
        add_eps(o, s, fmin(1, round((range[0] + (double)i * range[2]) * 1e9) / 1e9));
}

/* KEY=VALUE becomes a member of o->set; what it means is checked with the others, where a
 * calibration is. */
static void parse_set(struct eval_options *o, struct argp_state *s, char *arg)
{
    char *value = strchr(arg, '=');
    if (!value || !value[1])
        argp_error(s, "--set: \"%s\" is not KEY=VALUE", arg);
    *value++ = '\0';
    const struct dm_gen_opt gen = dm_gen_opt_default();
    json_t *known = dm_gen_opt_to_json(&gen), *v;
    if (!json_object_get(known, arg))
        argp_error(s, "--set: \"%s\" is no option of decoding", arg);
    if (!strcmp(value, "on") || !strcmp(value, "off"))
        v = json_boolean(!strcmp(value, "on"));
    else if (!(v = json_loads(value, JSON_DECODE_ANY, NULL)))
        v = json_string(value);
    json_object_set_new(o->set, arg, v);
    json_decref(known);
}

/* The options of held-out and of generated text; false if key is none of them. */
static bool parse_sizes(int key, char *arg, struct argp_state *s, struct eval_options *o)
{
    const struct {
        int key;
        const char *name;
        size_t *to, min, max;
    } sizes[] = {{OPT_POSITIONS, "--positions", &o->positions, 1, 100000000},
                 {OPT_CONTEXT, "--context", &o->context, 2, 1000000},
                 {OPT_BINS, "--bins", &o->bins, 1, DM_CURVE_BINS},
                 {OPT_SAMPLES, "--samples", &o->samples, 1, 10000},
                 {OPT_TOKENS, "--tokens", &o->tokens, 1, 1000000},
                 {OPT_N_PROMPTS, "--n-prompts", &o->n_prompts, 1, 1000000},
                 {OPT_PROMPT_TOKENS, "--prompt-tokens", &o->prompt_tokens, 1, 1000000},
                 {OPT_BOOTSTRAP, "--bootstrap", &o->bootstrap, 1, 1000000},
                 {OPT_LIMIT, "--limit", &o->limit, 0, SIZE_MAX},
                 {OPT_THREADS, "--threads", &o->threads, 0, 1024}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        if (key == sizes[i].key) {
            *sizes[i].to = dm_opt_size(s, sizes[i].name, arg, sizes[i].min, sizes[i].max);
            return true;
        }
    return false;
}

/* Names of files; false if key is none of them. */
static bool parse_files(int key, char *arg, struct eval_options *o)
{
    const struct {
        int key;
        const char **to;
    } files[] = {{OPT_COOC, &o->cooc},   {OPT_DATA, &o->data},       {OPT_TEXT, &o->text},
                 {OPT_JUDGE, &o->judge}, {OPT_PROMPTS, &o->prompts}, {OPT_PLOT, &o->plot},
                 {OPT_ITEMS, &o->items}};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (key == files[i].key) {
            *files[i].to = arg;
            return true;
        }
    return false;
}

static void check_needs(const struct eval_options *o, struct argp_state *s)
{
    const bool heldout = o->what[EVAL_PERPLEXITY] || o->what[EVAL_ACCURACY] ||
                         o->what[EVAL_RELIABILITY],
               texts = o->what[EVAL_QUALITY] || o->what[EVAL_ABLATION];
    dm_opt_need(s, "MODEL", o->model);
    dm_opt_need(s, "--what LIST, --task KIND=FILE or --diversity FILE",
                heldout || texts || o->n_tasks || o->n_diversity ? o : NULL);
    if (heldout && !o->data == !o->text)
        argp_error(s, "give exactly one of --data and --text");
    if (texts && !o->data && !o->prompts)
        argp_error(s, "give --prompts or --data for the prompts");
    if (o->plot && !o->what[EVAL_RELIABILITY])
        argp_error(s, "--plot draws the section reliability, which is not asked for");
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct eval_options *o = s->input;
    if (parse_sizes(key, arg, s, o) || parse_files(key, arg, o))
        return 0;
    switch (key) {
    case OPT_WHAT:
        parse_what(o, s, arg);
        break;
    case OPT_TASK:
        add_task(o, s, arg);
        break;
    case OPT_DIVERSITY:
        if (o->n_diversity == EVAL_FILES)
            argp_error(s, "--diversity: more than %d", EVAL_FILES);
        o->diversity[o->n_diversity++] = arg;
        break;
    case OPT_EPS:
        parse_eps(o, s, arg);
        break;
    case OPT_SET:
        parse_set(o, s, arg);
        break;
    case OPT_SEED:
        o->seed = dm_opt_u64(s, "--seed", arg);
        break;
    case OPT_CONFIDENCE:
        o->confidence = dm_opt_real(s, "--confidence", arg, 0.5, 0.9999);
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case OPT_FORMAT:
        o->format = dm_opt_word(s, "--format", arg, dm_load_formats) - 1;
        break;
    case ARGP_KEY_ARG:
        dm_opt_once(s, "model", &o->model, arg);
        break;
    case ARGP_KEY_END:
        check_needs(o, s);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

const struct dm_cooc *eval_cooc(const struct eval_job *j)
{
    return j->o->cooc ? &j->cooc : NULL;
}

enum dm_status eval_need_tokenizer(const struct eval_job *j, const char *what, struct dm_err *e)
{
    return j->tokenizer ? DM_OK
                        : dm_fail(e, DM_EUNSUPPORTED, "%s: has no tokenizer, so %s cannot be read",
                                  j->o->model, what);
}

void eval_print(double x, int digits)
{
    if (isfinite(x))
        printf("\t%.*f", digits, x);
    else
        printf("\t-");
}

/* The model's calibration, then --set. */
static enum dm_status settings(struct eval_job *j, struct dm_err *e)
{
    j->gen = dm_gen_opt_default();
    if (j->meta.calibration)
        DM_TRY(dm_gen_opt_calibrated(&j->gen, j->meta.calibration, j->o->model, e));
    char *text = dm_json_text(j->o->set, JSON_COMPACT);
    if (!text)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    const enum dm_status st = dm_gen_opt_calibrated(&j->gen, text, "--set", e);
    free(text);
    return st;
}

static enum dm_status load_judge(struct eval_job *j, struct dm_err *e)
{
    struct dm_model_meta meta = {0};
    enum dm_status st = dm_model_load(&j->judge, j->o->judge,
                                      &(struct dm_load_opt){.format = j->o->format}, &meta, e);
    if (!st && j->tokenizer)
        st = dm_model_check_tokenizer(&meta, j->o->judge, dm_tokenizer_hash(j->tokenizer),
                                      j->o->model, e);
    if (!st && j->judge.cfg.Vp < j->model.cfg.V)
        st = dm_fail(e, DM_EMISMATCH, "%s knows %zu token ids, %s has %zu", j->o->judge,
                     j->judge.cfg.Vp, j->o->model, j->model.cfg.V);
    dm_model_meta_release(&meta);
    return st;
}

static bool has_texts(const struct eval_options *o)
{
    return o->what[EVAL_QUALITY] || o->what[EVAL_ABLATION];
}

/* Everything that is soon read, and what cannot be evaluated, before what takes long. */
static enum dm_status prepare(struct eval_job *j, struct dm_err *e)
{
    const struct eval_options *o = j->o;
    DM_TRY(dm_model_peek(o->model, &j->model.cfg, &j->meta, e));
    if (j->meta.tokenizer)
        DM_TRY(dm_tokenizer_parse(&j->tokenizer, j->meta.tokenizer, strlen(j->meta.tokenizer),
                                  o->model, e));
    DM_TRY(settings(j, e));
    if (has_texts(o) && j->model.cfg.K < 2)
        return dm_fail(e, DM_EUNSUPPORTED, "%s has no heads beyond the base's: nothing to compare",
                       o->model);
    if (o->what[EVAL_ABLATION] && !o->cooc)
        return dm_fail(e, DM_EUNSUPPORTED, "the ablation needs a co-occurrence table (--cooc)");
    if (o->n_tasks)
        DM_TRY(eval_need_tokenizer(j, "text", e));
    DM_TRY(eval_read_tasks(j, e));
    DM_TRY(eval_read_diversity(j, e));
    if (o->data) {
        DM_TRY(dm_shard_open(&j->shard, o->data, e));
        DM_TRY(dm_model_check_tokenizer(&j->meta, o->model, dm_shard_tokenizer_hash(j->shard),
                                        o->data, e));
    }
    return has_texts(o) ? eval_read_prompts(j, e) : DM_OK;
}

static enum dm_status load(struct eval_job *j, struct dm_err *e)
{
    const struct eval_options *o = j->o;
    DM_TRY(dm_model_load(&j->model, o->model, &(struct dm_load_opt){.format = o->format}, NULL, e));
    if (o->cooc) {
        const bool discount = j->gen.unseen == DM_UNSEEN_DISCOUNT;
        DM_TRY(dm_cooc_load_for(&j->cooc, o->cooc, !discount, discount, e));
        DM_TRY(dm_model_check_tokenizer(&j->meta, o->model, j->cooc.tokenizer_hash, o->cooc, e));
    }
    return o->judge ? load_judge(j, e) : DM_OK;
}

/* No file that is read is written over, nor one output by the other. */
static enum dm_status check_names(const struct eval_options *o, struct dm_err *e)
{
    const char *in[6 + 2 * EVAL_TASKS + EVAL_FILES] = {o->model, o->cooc,  o->data,
                                                       o->text,  o->judge, o->prompts};
    size_t n = 6;
    for (size_t i = 0; i < o->n_tasks; i++) {
        in[n++] = o->task[i].path;
        in[n++] = o->task[i].labels;
    }
    for (size_t i = 0; i < o->n_diversity; i++)
        in[n++] = o->diversity[i];
    DM_TRY(dm_file_check_inputs(in, n, e));
    return dm_file_check_outputs((const char *const[]){o->plot, o->items}, 2, in, n, e);
}

static json_t *name_or_null(const char *name)
{
    return name ? json_string(name) : json_null();
}

static enum dm_status run(struct eval_job *j, struct dm_err *e)
{
    const struct eval_options *o = j->o;
    DM_TRY(check_names(o, e));
    DM_TRY(prepare(j, e));
    DM_TRY(load(j, e));
    j->root = json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "command", "eval", "model", o->model,
                        "format", dm_load_formats[o->format + 1], "judge",
                        o->judge ? o->judge : o->model, "cooc", name_or_null(o->cooc), "data",
                        name_or_null(o->data ? o->data : o->text), "settings",
                        dm_gen_opt_to_json(&j->gen));
    if (o->what[EVAL_PERPLEXITY] || o->what[EVAL_ACCURACY] || o->what[EVAL_RELIABILITY])
        DM_TRY(eval_heldout(j, e));
    if (has_texts(o))
        DM_TRY(eval_quality(j, e));
    if (o->n_diversity)
        DM_TRY(eval_diversity(j, e));
    if (o->n_tasks)
        DM_TRY(eval_tasks(j, e));
    if (o->json)
        dm_json_print(json_incref(j->root));
    return DM_OK;
}

int cmd_eval(int argc, char **argv)
{
    static const struct argp argp = {table, parse, "MODEL", doc, NULL, NULL, NULL};
    struct eval_options o = {.format = DM_FORMAT_AUTO,
                             .set = json_object(),
                             .n_eps = 11,
                             .positions = 2000,
                             .bins = 10,
                             .n_prompts = 0,
                             .prompt_tokens = 32,
                             .samples = 2,
                             .tokens = 60,
                             .bootstrap = 1000,
                             .confidence = 0.95,
                             .seed = 1};
    for (size_t i = 0; i < o.n_eps; i++)
        o.eps[i] = (double)i / 10;
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    dm_par_set_threads(o.threads);
    dm_stop_install();
    struct eval_job *j = calloc(1, sizeof(*j));
    enum dm_status st = DM_ENOMEM;
    snprintf(e.msg, sizeof(e.msg), "out of memory");
    if (j) {
        j->o = &o;
        st = run(j, &e);
        json_decref(j->root);
        for (size_t i = 0; i < o.n_tasks; i++)
            dm_task_release(&j->task[i]);
        for (size_t i = 0; i < o.n_diversity; i++)
            dm_ids_release(&j->diversity[i]);
        dm_prompts_release(&j->prompts);
        dm_shard_close(j->shard);
        dm_cooc_release(&j->cooc);
        dm_tokenizer_free(j->tokenizer);
        dm_model_meta_release(&j->meta);
        dm_model_release(&j->judge);
        dm_model_release(&j->model);
    }
    free(j);
    json_decref(o.set);
    if (st)
        fprintf(stderr, "dynamo eval: %s\n", e.msg);
    return st ? 1 : 0;
}
