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
#include "src/cmd_joint.h"
#include "src/model/file.h"

struct options {
    const char *model, *cooc, *data, *judge, *out, *plot;
    struct dm_cal_opt cal;
    size_t threads;
    int format;
    bool json, dry, has_risk, keep_fit;
};

enum {
    OPT_COOC = 256,
    OPT_DATA,
    OPT_JUDGE,
    OPT_EPS,
    OPT_UNSEEN,
    OPT_PROMPTS,
    OPT_CONTROL_PROMPTS,
    OPT_PROMPT_TOKENS,
    OPT_TOKENS,
    OPT_SAMPLES,
    OPT_RISK,
    OPT_CONFIDENCE,
    OPT_TARGET_SPEEDUP,
    OPT_TARGET_QUALITY,
    OPT_SPEED,
    OPT_QUANTILE,
    OPT_SLACK_DIVERGENCE,
    OPT_SLACK_LOGP,
    OPT_SLACK_REPEATS,
    OPT_SEED,
    OPT_TEMPERATURE,
    OPT_TOP_K,
    OPT_PENALTY,
    OPT_ALPHA,
    OPT_PRESET,
    OPT_KEEP_FIT,
    OPT_FORMAT,
    OPT_THREADS,
    OPT_JSON,
    OPT_PLOT
};

static const struct argp_option table[] = {
    {0, 0, 0, 0, "Input and output:", 1},
    {"cooc", OPT_COOC, "FILE", 0, "Co-occurrence table; without it there is no mask", 1},
    {"data", OPT_DATA, "SHARD", 0, "Held-out tokens for the prompts (needed)", 1},
    {"judge", OPT_JUDGE, "MODEL", 0, "Another model with this tokenizer judges log p", 1},
    {"output", 'o', "FILE", 0, "Write a copy of MODEL (default: change MODEL itself)", 1},
    {"dry-run", 'n', 0, 0, "Store nothing, only report", 1},
    {"json", OPT_JSON, 0, 0, "Print what is stored as JSON instead of a table", 1},
    {"plot", OPT_PLOT, "FILE.svg", 0, "Draw failures and quality against speed", 1},
    {0, 0, 0, 0, "What is wanted (default --risk 0.05):", 2},
    {"risk", OPT_RISK, "P", 0, "The fastest setting with which at most this share of prompts fails",
     2},
    {"confidence", OPT_CONFIDENCE, "P", 0, "With this probability (default 0.95)", 2},
    {"target-speedup", OPT_TARGET_SPEEDUP, "X", 0,
     "Instead: the setting with the smallest divergence that is this fast", 2},
    {"target-quality", OPT_TARGET_QUALITY, "NATS", 0,
     "Instead: the fastest setting with a divergence of at most NATS per token", 2},
    {"speed", OPT_SPEED, "UNIT", 0,
     "What fast means: forward (tokens per forward pass, default) or clock (against the base)", 2},
    {0, 0, 0, 0, "When a prompt fails:", 3},
    {"quantile", OPT_QUANTILE, "Q", 0,
     "Margins: this quantile of the base against itself with other seeds (default 0.99)", 3},
    {"slack-divergence", OPT_SLACK_DIVERGENCE, "NATS", 0,
     "and so much more of divergence per token (default 0.2)", 3},
    {"slack-logp", OPT_SLACK_LOGP, "NATS", 0, "of lost log p per token (default 0.1)", 3},
    {"slack-repeats", OPT_SLACK_REPEATS, "X", 0, "of repeated 4-grams' share (default 0.05)", 3},
    {0, 0, 0, 0, "What is tried:", 4},
    {"eps", OPT_EPS, "LIST", 0, "Values of eps_b, with commas (default 0.35,0.4,..,0.7,0.8,0.9)",
     4},
    {"alpha-c", OPT_ALPHA, "LIST", 0, "Exponents of the co-occurrence ratio (default 1)", 4},
    {"unseen", OPT_UNSEEN, "LIST", 0,
     "Of zero, mix, backoff and discount, or all (default backoff)", 4},
    {"top-k", OPT_TOP_K, "LIST", 0, "Candidates per head; the base has the first (default 50)", 4},
    {"prompts", OPT_PROMPTS, "N", 0, "Prompts from the held-out data (default 200)", 4},
    {"control-prompts", OPT_CONTROL_PROMPTS, "N", 0, "Others, for the margins (default 100)", 4},
    {"prompt-tokens", OPT_PROMPT_TOKENS, "N", 0, "Tokens of each (default 32)", 4},
    {"samples", OPT_SAMPLES, "N", 0, "Texts per prompt, seeds differ (default 2)", 4},
    {"tokens", OPT_TOKENS, "N", 0, "Tokens of each text (default 100)", 4},
    {"seed", OPT_SEED, "N", 0, "Of texts and of the choice of prompts (default 1)", 4},
    {0, 0, 0, 0, "Decoding, as in generate:", 5},
    {"temperature", OPT_TEMPERATURE, "X", 0, "Default 0.7", 5},
    {"preset", OPT_PRESET, "NAME", 0,
     "How the joint is made and trusted: paper or best (default best); options after it go over it",
     5},
    {"penalty", OPT_PENALTY, "X", 0, "Repetition penalty, default 1.1", 5},
    {"keep-fit", OPT_KEEP_FIT, 0, 0,
     "Try the fit of MODEL's calibration, where without this one is made", 5},
    {0, 0, 0, 0, "Others:", 6},
    {"format", OPT_FORMAT, "FORMAT", 0,
     "Numbers to compute with: auto (the model file's), f32, bf16, int8, int4 (default auto)", 6},
    {"threads", OPT_THREADS, "N", 0, "Number of threads; 0 = all cores (default 0)", 6},
    {0}};

static const char doc[] =
    "Chooses how to decode on held-out prompts and stores it in the model file, with the evidence "
    "and a certificate; generate then uses it by default.\v"
    "Examples:\n  dynamo calibrate heads.h5 --cooc cooc.h5 --data heldout.h5 --plot plot.svg\n"
    "  dynamo calibrate heads.h5 --cooc cooc.h5 --data heldout.h5 --risk 0.1 --unseen all\n"
    "  dynamo calibrate heads.h5 --cooc cooc.h5 --data heldout.h5 --target-speedup 1.5\n\n"
    "Every setting continues the same prompts from the same seeds as the base alone, in turns, and "
    "so does a control: the base with other seeds. A prompt fails when its divergence from the "
    "base's sampler, its loss of log p or its rise of repeated 4-grams exceeds a margin: a "
    "quantile "
    "of what the control shows on prompts of its own, plus a slack. From the largest eps_b down "
    "each setting is tested (exact binomial p-value of its failures) until one is not rejected; "
    "with the stated confidence no setting that passed has a larger risk than stated, and the "
    "fastest of them is stored. Combinations of alpha_c, policy and top_k share the risk of error. "
    "If none passes, eps_b = 1 is stored, the base alone.\n\n"
    "Columns: tok/fwd tokens per forward; one, two, three: shares of blocks; tok/s median; speedup "
    "median ratio to the base's text of the same prompt and seed; logp the judge's mean; loss "
    "against the base, with its standard error; divergence in nats per token, likewise; outside: "
    "share of tokens beyond the base's top_k; repeats_n: share of n-grams that occurred earlier in "
    "the text; distinct_n: distinct n-grams of all texts; agree: share of tokens before the first "
    "difference from the base's text; failed prompts, and by which margin.";

/* Calls set() with each item of a list with commas. */
static void parse_list(struct argp_state *s, const char *name, char *arg, size_t *n, size_t most,
                       void (*set)(struct argp_state *s, struct dm_cal_opt *c, const char *item,
                                   size_t i))
{
    struct options *o = s->input;
    char *rest = arg, *item;
    *n = 0;
    while ((item = strsep(&rest, ","))) {
        if (*n == most)
            argp_error(s, "%s: more than %zu values", name, most);
        set(s, &o->cal, item, (*n)++);
    }
}

static void set_eps(struct argp_state *s, struct dm_cal_opt *c, const char *item, size_t i)
{
    c->eps[i] = dm_opt_real(s, "--eps", item, 0, 1);
}

static void set_alpha_c(struct argp_state *s, struct dm_cal_opt *c, const char *item, size_t i)
{
    c->alpha_c[i] = dm_opt_real(s, "--alpha-c", item, 0, 10);
}

static void set_top_k(struct argp_state *s, struct dm_cal_opt *c, const char *item, size_t i)
{
    c->top_k[i] = dm_opt_size(s, "--top-k", item, 1, DM_TOP_K_MAX);
}

static void set_unseen(struct argp_state *s, struct dm_cal_opt *c, const char *item, size_t i)
{
    c->unseen[i] = (enum dm_unseen)dm_opt_word(s, "--unseen", item, dm_unseen_names);
}

static void parse_unseen(struct argp_state *s, struct dm_cal_opt *c, char *arg)
{
    if (strcmp(arg, "all")) {
        parse_list(s, "--unseen", arg, &c->n_unseen, DM_CAL_UNSEEN, set_unseen);
        return;
    }
    for (c->n_unseen = 0; dm_unseen_names[c->n_unseen]; c->n_unseen++)
        c->unseen[c->n_unseen] = (enum dm_unseen)c->n_unseen;
}

/* What is tried; false if key is none of these options. */
static bool parse_search(int key, char *arg, struct argp_state *s, struct dm_cal_opt *c)
{
    switch (key) {
    case OPT_EPS:
        parse_list(s, "--eps", arg, &c->n_eps, DM_CAL_EPS, set_eps);
        return true;
    case OPT_ALPHA:
        parse_list(s, "--alpha-c", arg, &c->n_alpha_c, DM_CAL_LIST, set_alpha_c);
        return true;
    case OPT_TOP_K:
        parse_list(s, "--top-k", arg, &c->n_top_k, DM_CAL_LIST, set_top_k);
        return true;
    case OPT_UNSEEN:
        parse_unseen(s, c, arg);
        return true;
    case OPT_PROMPTS:
        c->prompts = dm_opt_size(s, "--prompts", arg, 2, 1000000);
        return true;
    case OPT_CONTROL_PROMPTS:
        c->control_prompts = dm_opt_size(s, "--control-prompts", arg, 2, 1000000);
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
    default:
        return false;
    }
}

static void set_goal(struct argp_state *s, struct dm_cal_opt *c, enum dm_cal_goal goal,
                     double target)
{
    const struct options *o = s->input;
    if (o->has_risk || c->goal != DM_CAL_RISK)
        argp_error(s, "--risk, --target-speedup and --target-quality exclude each other");
    c->goal = goal;
    c->target = target;
}

/* What is wanted, and when a prompt fails. */
static bool parse_goal(int key, char *arg, struct argp_state *s, struct dm_cal_opt *c)
{
    static const char *const units[] = {"forward", "clock", NULL};
    struct options *o = s->input;
    switch (key) {
    case OPT_RISK:
        set_goal(s, c, DM_CAL_RISK, 0.0);
        o->has_risk = true;
        c->risk = dm_opt_real(s, "--risk", arg, 1e-6, 0.999999);
        return true;
    case OPT_CONFIDENCE:
        c->confidence = dm_opt_real(s, "--confidence", arg, 0.5, 0.999999);
        return true;
    case OPT_TARGET_SPEEDUP:
        set_goal(s, c, DM_CAL_SPEEDUP, dm_opt_real(s, "--target-speedup", arg, 0, 1000));
        return true;
    case OPT_TARGET_QUALITY:
        set_goal(s, c, DM_CAL_QUALITY, dm_opt_real(s, "--target-quality", arg, 0, 1000));
        return true;
    case OPT_SPEED:
        c->wall_clock = dm_opt_word(s, "--speed", arg, units) == 1;
        return true;
    case OPT_QUANTILE:
        c->quantile = dm_opt_real(s, "--quantile", arg, 0.5, 1);
        return true;
    case OPT_SLACK_DIVERGENCE:
        c->slack[DM_CERT_DIVERGENCE] = dm_opt_real(s, "--slack-divergence", arg, 0, 100);
        return true;
    case OPT_SLACK_LOGP:
        c->slack[DM_CERT_LOGP] = dm_opt_real(s, "--slack-logp", arg, 0, 100);
        return true;
    case OPT_SLACK_REPEATS:
        c->slack[DM_CERT_REPEATS] = dm_opt_real(s, "--slack-repeats", arg, 0, 1);
        return true;
    default:
        return false;
    }
}

static bool parse_decoding(int key, char *arg, struct argp_state *s, struct dm_cal_opt *c)
{
    switch (key) {
    case OPT_TEMPERATURE:
        c->gen.temperature = dm_opt_real(s, "--temperature", arg, 0, 100);
        return true;
    case OPT_PENALTY:
        c->gen.penalty = dm_opt_real(s, "--penalty", arg, 1, 100);
        return true;
    case OPT_PRESET:
        dm_gen_opt_preset(&c->gen,
                          (enum dm_preset)dm_opt_word(s, "--preset", arg, dm_preset_names));
        c->n_alpha_c = c->n_unseen = 1;
        c->alpha_c[0] = c->gen.alpha_c;
        c->unseen[0] = c->gen.unseen;
        return true;
    default:
        return false;
    }
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    if (parse_search(key, arg, s, &o->cal) || parse_goal(key, arg, s, &o->cal) ||
        parse_decoding(key, arg, s, &o->cal))
        return 0;
    switch (key) {
    case ARGP_KEY_INIT:
        s->child_inputs[0] = &o->cal.gen;
        break;
    case OPT_COOC:
        o->cooc = arg;
        break;
    case OPT_DATA:
        o->data = arg;
        break;
    case OPT_JUDGE:
        o->judge = arg;
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
    case OPT_KEEP_FIT:
        o->keep_fit = true;
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
        o->cal.gen.top_k = o->cal.top_k[0];
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* Everything the command holds, released in one place. */
struct job {
    const struct options *o;
    struct dm_model model, judge;
    struct dm_model_meta meta, judge_meta;
    struct dm_cooc cooc;
    struct dm_shard *shard;
    int32_t *prompts;
    struct dm_cal_report report;
};

/* The ids of `path` are those of the shard. */
static enum dm_status check_tokenizer(const struct job *j, const char *path,
                                      const struct dm_config *c, const struct dm_model_meta *meta,
                                      struct dm_err *e)
{
    DM_TRY(dm_model_check_tokenizer(meta, path, dm_shard_tokenizer_hash(j->shard), j->o->data, e));
    if (dm_shard_vocab(j->shard) > c->Vp)
        return dm_fail(e, DM_EMISMATCH, "%s has %zu token ids, %s only %zu", j->o->data,
                       dm_shard_vocab(j->shard), path, c->Vp);
    return DM_OK;
}

static enum dm_status keep_fit(const struct job *j, struct dm_cal_opt *c, struct dm_err *e)
{
    struct dm_gen_opt g = dm_gen_opt_default();
    if (!j->o->keep_fit)
        return DM_OK;
    if (j->meta.calibration)
        DM_TRY(dm_gen_opt_calibrated(&g, j->meta.calibration, j->o->model, e));
    c->gen.fit = g.fit;
    return g.fit.known ? DM_OK
                       : dm_fail(e, DM_EMISMATCH, "%s: there is no fit to keep", j->o->model);
}

/* Everything that is soon read, before what takes long: the prompts, and whether the models are
 * fit. */
static enum dm_status prepare(struct job *j, struct dm_cal_opt *cal, struct dm_err *e)
{
    const struct options *o = j->o;
    const size_t n = cal->control_prompts + cal->prompts;
    struct dm_config c;
    DM_TRY(dm_shard_open(&j->shard, o->data, e));
    DM_TRY(dm_model_peek(o->model, &c, &j->meta, e));
    DM_TRY(check_tokenizer(j, o->model, &c, &j->meta, e));
    if (c.K < 2)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "%s has no heads beyond the base's: nothing to calibrate, train them first",
                       o->model);
    if (o->judge) {
        DM_TRY(dm_model_peek(o->judge, &c, &j->judge_meta, e));
        DM_TRY(check_tokenizer(j, o->judge, &c, &j->judge_meta, e));
    }
    DM_TRY(keep_fit(j, cal, e));
    j->prompts = dm_alloc(n, cal->prompt_tokens * sizeof(*j->prompts));
    if (!j->prompts)
        return dm_fail(e, DM_ENOMEM, "out of memory for the prompts");
    return dm_cal_prompts(j->prompts, n, cal->prompt_tokens, cal->seed, j->shard, e);
}

static enum dm_status load(struct job *j, struct dm_err *e)
{
    const struct options *o = j->o;
    DM_TRY(dm_model_load(&j->model, o->model, &(struct dm_load_opt){.format = o->format}, NULL, e));
    if (o->judge)
        DM_TRY(dm_model_load(&j->judge, o->judge, NULL, NULL, e));
    if (!o->cooc)
        return DM_OK;
    size_t discounted = 0;
    for (size_t i = 0; i < o->cal.n_unseen; i++)
        discounted += o->cal.unseen[i] == DM_UNSEEN_DISCOUNT;
    DM_TRY(dm_cooc_load_for(&j->cooc, o->cooc, discounted<o->cal.n_unseen, discounted> 0, e));
    if (strcmp(j->cooc.tokenizer_hash, dm_shard_tokenizer_hash(j->shard)))
        return dm_fail(e, DM_EMISMATCH, "%s was counted with another tokenizer than %s's", o->cooc,
                       o->data);
    return DM_OK;
}

static bool show_progress(void *ctx, double share)
{
    dm_progress_set(ctx, share * 100.0, NULL);
    return !dm_stop_requested();
}

/* What is stored may go into MODEL, but into no other input; a plot into none. */
static enum dm_status check_outputs(const struct options *o, struct dm_err *e)
{
    const char *const in[] = {o->cooc, o->data, o->judge};
    DM_TRY(dm_file_check_inputs(&o->model, 1, e));
    DM_TRY(dm_file_check_inputs(in, 3, e));
    const char *const out[] = {o->plot, o->dry ? NULL : o->out ? o->out : o->model};
    DM_TRY(dm_file_check_output(o->plot, &o->model, 1, e));
    return dm_file_check_outputs(out, 2, in, 3, e);
}

static enum dm_status measure(struct job *j, struct dm_err *e)
{
    const struct options *o = j->o;
    struct dm_cal_opt cal = o->cal;
    struct dm_progress progress;
    DM_TRY(dm_cal_opt_check(&cal, e));
    DM_TRY(check_outputs(o, e));
    DM_TRY(prepare(j, &cal, e));
    DM_TRY(load(j, e));
    dm_stop_install();
    dm_progress_init(&progress, "calibrating", "%", 100.0);
    enum dm_status st = dm_cal_run(&j->report, &j->model, o->judge ? &j->judge : NULL,
                                   o->cooc ? &j->cooc : NULL, &cal, j->prompts, show_progress,
                                   &progress, e);
    dm_progress_end(&progress);
    return st;
}

/* Names and hashes of what the evidence rests on. */
static enum dm_status list_inputs(const struct job *j, struct dm_cal_inputs *in, struct dm_err *e)
{
    const struct options *o = j->o;
    *in = (struct dm_cal_inputs){.path = {o->model, o->cooc, o->data, o->judge},
                                 .format = dm_load_formats[j->model.mats.unembed.fmt + 1],
                                 .threads = dm_par_threads()};
    DM_TRY(dm_model_hash(o->model, in->hash[DM_CAL_MODEL], e));
    DM_TRY(dm_sha256_file(o->data, in->hash[DM_CAL_DATA], e));
    if (o->judge)
        DM_TRY(dm_model_hash(o->judge, in->hash[DM_CAL_JUDGE], e));
    return o->cooc ? dm_sha256_file(o->cooc, in->hash[DM_CAL_TABLE], e) : DM_OK;
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
    struct dm_cal_inputs inputs;
    json_t *calibration = NULL;
    enum dm_status st = list_inputs(j, &inputs, e);
    if (!st && !(calibration = dm_cal_to_json(&j->report, &inputs)))
        st = dm_fail(e, DM_ENOMEM, "out of memory for the calibration");
    if (!st && !o->dry)
        st = store(o, calibration, e);
    if (!st && o->plot)
        st = dm_cal_write_svg(&j->report, o->plot, e);
    if (!st && o->json) {
        dm_json_print(calibration);
        return DM_OK;
    }
    if (!st) {
        char text[768];
        dm_cal_print_table(&j->report, stdout);
        dm_cal_sentence(&j->report, text, sizeof(text));
        puts(text);
    }
    json_decref(calibration);
    return st;
}

int cmd_calibrate(int argc, char **argv)
{
    static const struct argp_child children[] = {{&cmd_joint_argp, 0, NULL, 5}, {0}};
    static const struct argp argp = {table, parse, "MODEL", doc, children, NULL, NULL};
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
    dm_model_meta_release(&j->judge_meta);
    dm_model_release(&j->judge);
    dm_cal_report_release(&j->report);
    free(j);
    if (st)
        fprintf(stderr, "dynamo calibrate: %s\n", e.msg);
    return st ? 1 : 0;
}
