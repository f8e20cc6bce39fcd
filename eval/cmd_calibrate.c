/* SPDX-License-Identifier: MIT */
#include "src/cmd.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cal_report.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/stop.h"
#include "src/model/file.h"

struct options {
    const char *model, *cooc, *data, *out, *plot;
    struct dm_cal_opt cal;
    size_t threads;
    int format;
    bool json, dry;
};

enum {
    OPT_COOC = 256,
    OPT_DATA,
    OPT_EPS,
    OPT_UNSEEN,
    OPT_PROMPTS,
    OPT_PROMPT_TOKENS,
    OPT_TOKENS,
    OPT_SAMPLES,
    OPT_MARGIN,
    OPT_REPEAT,
    OPT_CONFIDENCE,
    OPT_SEED,
    OPT_TEMPERATURE,
    OPT_TOP_K,
    OPT_PENALTY,
    OPT_ALPHA,
    OPT_LAMBDA,
    OPT_THRESHOLD,
    OPT_BLUR,
    OPT_FORMAT,
    OPT_THREADS,
    OPT_JSON,
    OPT_PLOT
};

static const struct argp_option table[] = {
    {0, 0, 0, 0, "Input and output:", 1},
    {"cooc", OPT_COOC, "FILE", 0, "Co-occurrence table; without it there is no mask", 1},
    {"data", OPT_DATA, "SHARD", 0, "Held-out tokens for the prompts (needed)", 1},
    {"output", 'o', "FILE", 0, "Write a copy of MODEL (default: change MODEL itself)", 1},
    {"dry-run", 'n', 0, 0, "Store nothing, only report", 1},
    {"json", OPT_JSON, 0, 0, "Print what is stored as JSON instead of a table", 1},
    {"plot", OPT_PLOT, "FILE.svg", 0, "Draw loss and repetition against speed-up", 1},
    {0, 0, 0, 0, "What is tried:", 2},
    {"eps", OPT_EPS, "LIST", 0, "Values of eps_b, with commas (default 0,0.1,..,1)", 2},
    {"unseen", OPT_UNSEEN, "POLICY", 0, "zero, mix, backoff or all (default backoff)", 2},
    {"prompts", OPT_PROMPTS, "N", 0, "Prompts from the held-out data (default 32)", 2},
    {"prompt-tokens", OPT_PROMPT_TOKENS, "N", 0, "Tokens of each (default 32)", 2},
    {"samples", OPT_SAMPLES, "N", 0, "Texts per prompt, seeds differ (default 4)", 2},
    {"tokens", OPT_TOKENS, "N", 0, "Tokens of each text (default 64)", 2},
    {"seed", OPT_SEED, "N", 0, "First seed (default 1)", 2},
    {0, 0, 0, 0, "What is allowed:", 3},
    {"margin", OPT_MARGIN, "NATS", 0, "Loss of log-likelihood per token (default 0.1)", 3},
    {"repeat-margin", OPT_REPEAT, "X", 0, "Rise of repeated trigrams' share (default 0.02)", 3},
    {"confidence", OPT_CONFIDENCE, "P", 0, "That the margins are kept (default 0.95)", 3},
    {0, 0, 0, 0, "Decoding, as in generate:", 4},
    {"temperature", OPT_TEMPERATURE, "X", 0, "Default 0.7", 4},
    {"top-k", OPT_TOP_K, "N", 0, "Default 50", 4},
    {"penalty", OPT_PENALTY, "X", 0, "Repetition penalty, default 1.1", 4},
    {"alpha-c", OPT_ALPHA, "X", 0, "Exponent of the co-occurrence ratio, default 1", 4},
    {"lambda", OPT_LAMBDA, "X", 0, "Trust in the table for mix and backoff, default 0.9", 4},
    {"threshold", OPT_THRESHOLD, "on|off", 0, "Adaptive threshold (default on)", 4},
    {"blur", OPT_BLUR, "on|off", 0, "Its blur (default on)", 4},
    {0, 0, 0, 0, "Others:", 5},
    {"format", OPT_FORMAT, "FORMAT", 0,
     "Numbers to compute with: auto (the model file's), f32, bf16, int8, int4 (default auto)", 5},
    {"threads", OPT_THREADS, "N", 0, "Number of threads; 0 = all cores (default 0)", 5},
    {0}};

static const char doc[] =
    "Chooses the back-off threshold eps_b on held-out prompts and stores it, with the evidence, in "
    "the model file; generate then uses it by default.\v"
    "Example:\n  dynamo calibrate heads.h5 --cooc cooc.h5 --data heldout.h5 --plot plot.svg\n\n"
    "Every eps_b continues the same prompts from the same seeds as the base alone, in turns. The "
    "base judges all texts: loss is the base's mean log p per token of its own text minus that of "
    "the setting's. A setting passes if the upper confidence bounds of the loss and of the rise of "
    "repeated trigrams (Student's t over prompts) are within the margins. From eps_b = 1 down each "
    "is tested until one fails; the last that passed is chosen, so that the stated confidence "
    "holds for the choice. With --unseen all the risk is shared by the policies and the one with "
    "the most tokens per forward wins. If none passes below 1, eps_b = 1 is stored.\n\n"
    "Columns: tok/fwd tokens per forward; one, two, three: shares of blocks; tok/s median; speedup "
    "median ratio to the base's text of the same prompt and seed; logp the judge's mean; loss, its "
    "standard error and bound; repeats: share of repeated trigrams; fidelity: estimate of the "
    "divergence from the base's sampler, nats per token.";

static void parse_eps(struct argp_state *s, struct dm_cal_opt *c, char *arg)
{
    char *rest = arg, *item;
    c->n_eps = 0;
    while ((item = strsep(&rest, ","))) {
        if (c->n_eps == DM_CAL_EPS)
            argp_error(s, "--eps: more than %d values", DM_CAL_EPS);
        c->eps[c->n_eps++] = dm_opt_real(s, "--eps", item, 0, 1);
    }
}

static void parse_unseen(struct argp_state *s, struct dm_cal_opt *c, const char *arg)
{
    if (strcmp(arg, "all")) {
        c->n_unseen = 1;
        c->unseen[0] = (enum dm_unseen)dm_opt_word(s, "--unseen", arg, dm_unseen_names);
        return;
    }
    for (c->n_unseen = 0; dm_unseen_names[c->n_unseen]; c->n_unseen++)
        c->unseen[c->n_unseen] = (enum dm_unseen)c->n_unseen;
}

/* The options of the search and of decoding; false if key is none of them. */
static bool parse_search(int key, char *arg, struct argp_state *s, struct dm_cal_opt *c)
{
    switch (key) {
    case OPT_EPS:
        parse_eps(s, c, arg);
        return true;
    case OPT_UNSEEN:
        parse_unseen(s, c, arg);
        return true;
    case OPT_PROMPTS:
        c->prompts = dm_opt_size(s, "--prompts", arg, 2, 1000000);
        return true;
    case OPT_PROMPT_TOKENS:
        c->prompt_tokens = dm_opt_size(s, "--prompt-tokens", arg, 1, 1000000);
        return true;
    case OPT_SAMPLES:
        c->samples = dm_opt_size(s, "--samples", arg, 1, 10000);
        return true;
    case OPT_TOKENS:
        c->tokens = dm_opt_size(s, "--tokens", arg, 1, 1000000);
        return true;
    case OPT_SEED:
        c->seed = dm_opt_u64(s, "--seed", arg);
        return true;
    case OPT_MARGIN:
        c->margin = dm_opt_real(s, "--margin", arg, 0, 100);
        return true;
    case OPT_REPEAT:
        c->repeat_margin = dm_opt_real(s, "--repeat-margin", arg, 0, 1);
        return true;
    case OPT_CONFIDENCE:
        c->confidence = dm_opt_real(s, "--confidence", arg, 0.5, 0.9999);
        return true;
    default:
        return false;
    }
}

static bool parse_decoding(int key, char *arg, struct argp_state *s, struct dm_gen_opt *g)
{
    static const char *const words[] = {"off", "on", NULL};
    switch (key) {
    case OPT_TEMPERATURE:
        g->temperature = dm_opt_real(s, "--temperature", arg, 0, 100);
        return true;
    case OPT_TOP_K:
        g->top_k = dm_opt_size(s, "--top-k", arg, 1, DM_TOP_K_MAX);
        return true;
    case OPT_PENALTY:
        g->penalty = dm_opt_real(s, "--penalty", arg, 1, 100);
        return true;
    case OPT_ALPHA:
        g->alpha_c = dm_opt_real(s, "--alpha-c", arg, 0, 10);
        return true;
    case OPT_LAMBDA:
        g->lambda = dm_opt_real(s, "--lambda", arg, 0, 1);
        return true;
    case OPT_THRESHOLD:
        g->threshold = dm_opt_word(s, "--threshold", arg, words) == 1;
        return true;
    case OPT_BLUR:
        g->blur = dm_opt_word(s, "--blur", arg, words) == 1;
        return true;
    default:
        return false;
    }
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    if (parse_search(key, arg, s, &o->cal) || parse_decoding(key, arg, s, &o->cal.gen))
        return 0;
    switch (key) {
    case OPT_COOC:
        o->cooc = arg;
        break;
    case OPT_DATA:
        o->data = arg;
        break;
    case 'o':
        o->out = arg;
        break;
    case 'n':
        o->dry = true;
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case OPT_PLOT:
        o->plot = arg;
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
        if (!o->data)
            argp_error(s, "no held-out data was given (--data)");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* Everything the command holds, released in one place. */
struct job {
    const struct options *o;
    struct dm_model model;
    struct dm_model_meta meta;
    struct dm_cooc cooc;
    struct dm_shard *shard;
    int32_t *prompts;
    struct dm_cal_report report;
};

static enum dm_status check_together(const struct job *j, struct dm_err *e)
{
    const struct options *o = j->o;
    const char *shard_hash = dm_shard_tokenizer_hash(j->shard);
    char hash[DM_HASH_LEN + 1];
    if (j->meta.tokenizer) {
        dm_sha256(j->meta.tokenizer, strlen(j->meta.tokenizer), hash);
        if (strcmp(hash, shard_hash))
            return dm_fail(e, DM_EMISMATCH, "%s was tokenized with another tokenizer than %s's",
                           o->data, o->model);
    }
    if (dm_shard_vocab(j->shard) > j->model.cfg.Vp)
        return dm_fail(e, DM_EMISMATCH, "%s has %zu token ids, %s only %zu", o->data,
                       dm_shard_vocab(j->shard), o->model, j->model.cfg.Vp);
    if (o->cooc && strcmp(j->cooc.tokenizer_hash, shard_hash))
        return dm_fail(e, DM_EMISMATCH, "%s was counted with another tokenizer than %s's", o->cooc,
                       o->data);
    return DM_OK;
}

static bool show_progress(void *ctx, double share)
{
    dm_progress_set(ctx, share * 100.0, NULL);
    return !dm_stop_requested();
}

static enum dm_status measure(struct job *j, struct dm_err *e)
{
    const struct options *o = j->o;
    struct dm_cal_opt cal = o->cal;
    struct dm_progress progress;
    DM_TRY(dm_cal_opt_check(&cal, e));
    DM_TRY(dm_model_load(&j->model, o->model, &(struct dm_load_opt){.format = o->format}, &j->meta,
                         e));
    DM_TRY(dm_shard_open(&j->shard, o->data, e));
    if (o->cooc)
        DM_TRY(dm_cooc_load_ratios(&j->cooc, o->cooc, e));
    DM_TRY(check_together(j, e));
    j->prompts = dm_alloc(cal.prompts, cal.prompt_tokens * sizeof(*j->prompts));
    if (!j->prompts)
        return dm_fail(e, DM_ENOMEM, "out of memory for the prompts");
    DM_TRY(dm_cal_prompts(j->prompts, &cal, j->shard, e));
    dm_stop_install();
    dm_progress_init(&progress, "calibrating", "%", 100.0);
    enum dm_status st = dm_cal_run(&j->report, &j->model, o->cooc ? &j->cooc : NULL, &cal,
                                   j->prompts, show_progress, &progress, e);
    dm_progress_end(&progress);
    return st;
}

/* Names and hashes of what the evidence rests on. */
static enum dm_status hash_inputs(const struct options *o, json_t *inputs, struct dm_err *e)
{
    char hash[DM_HASH_LEN + 1];
    DM_TRY(dm_model_hash(o->model, hash, e));
    json_object_set_new(inputs, "model", json_pack("{s:s, s:s}", "path", o->model, "hash", hash));
    DM_TRY(dm_sha256_file(o->data, hash, e));
    json_object_set_new(inputs, "data", json_pack("{s:s, s:s}", "path", o->data, "sha256", hash));
    if (!o->cooc)
        return DM_OK;
    DM_TRY(dm_sha256_file(o->cooc, hash, e));
    json_object_set_new(inputs, "cooc", json_pack("{s:s, s:s}", "path", o->cooc, "sha256", hash));
    return DM_OK;
}

static enum dm_status store(const struct options *o, const json_t *calibration, struct dm_err *e)
{
    const char *path = o->model;
    if (o->out && strcmp(o->out, o->model)) {
        struct dm_map map;
        DM_TRY(dm_map_open(&map, o->model, e));
        enum dm_status st = dm_file_write(o->out, map.data, map.n, e);
        dm_map_close(&map);
        DM_TRY(st);
        path = o->out;
    }
    char *text = dm_json_text(calibration, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (!text)
        return dm_fail(e, DM_ENOMEM, "out of memory for the calibration");
    enum dm_status st = dm_model_set_calibration(path, text, e);
    free(text);
    return st;
}

static enum dm_status report(const struct job *j, struct dm_err *e)
{
    const struct options *o = j->o;
    json_t *inputs = json_object(), *calibration = NULL;
    json_object_set_new(inputs, "format", json_string(dm_load_formats[o->format + 1]));
    json_object_set_new(inputs, "threads", json_integer((json_int_t)dm_par_threads()));
    enum dm_status st = hash_inputs(o, inputs, e);
    if (!st && !(calibration = dm_cal_to_json(&j->report, inputs)))
        st = dm_fail(e, DM_ENOMEM, "out of memory for the calibration");
    json_decref(inputs);
    if (!st && o->plot)
        st = dm_cal_write_svg(&j->report, o->plot, e);
    if (!st && !o->dry)
        st = store(o, calibration, e);
    if (!st && o->json) {
        dm_json_print(calibration);
        return DM_OK;
    }
    if (!st) {
        char text[512];
        dm_cal_print_table(&j->report, stdout);
        dm_cal_sentence(&j->report, text, sizeof(text));
        puts(text);
    }
    json_decref(calibration);
    return st;
}

int cmd_calibrate(int argc, char **argv)
{
    static const struct argp argp = {table, parse, "MODEL", doc, NULL, NULL, NULL};
    struct options o = {.cal = dm_cal_opt_default(), .format = DM_FORMAT_AUTO};
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    dm_par_set_threads(o.threads);
    struct job *j = calloc(1, sizeof(*j));
    if (!j) {
        fprintf(stderr, "dynamo calibrate: out of memory\n");
        return 1;
    }
    j->o = &o;
    enum dm_status st = measure(j, &e);
    if (!st)
        st = report(j, &e);
    free(j->prompts);
    dm_shard_close(j->shard);
    dm_cooc_release(&j->cooc);
    dm_model_meta_release(&j->meta);
    dm_model_release(&j->model);
    free(j);
    if (st)
        fprintf(stderr, "dynamo calibrate: %s\n", e.msg);
    return st ? 1 : 0;
}
