/* SPDX-License-Identifier: MIT */
/* cmd_generate.c - continue a prompt. */
#include <argp.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/base/stop.h"
#include "src/cmd.h"
#include "src/cmd_joint.h"
#include "src/decode/certificate.h"
#include "src/decode/generate.h"
#include "src/decode/record.h"
#include "src/io/template.h"
#include "src/model/file.h"

enum { MAX_PROMPT = 1 << 24 }; /* bytes */

struct options {
    struct dm_gen_opt gen;
    const char *model, *cooc, *prompt, *prompt_file, *input, *trace;
    size_t threads, joint;
    int format;
    bool chat, echo, stats, json;
};

enum {
    OPT_COOC = 256,
    OPT_CHAT,
    OPT_INPUT,
    OPT_MODE,
    OPT_PENALTY,
    OPT_SEED,
    OPT_PRESET,
    OPT_EPS_B,
    OPT_ALPHA_C,
    OPT_UNSEEN,
    OPT_ROWS,
    OPT_IGNORE_EOS,
    OPT_ECHO,
    OPT_STATS,
    OPT_JSON,
    OPT_TRACE,
    OPT_JOINT,
    OPT_FORMAT,
    OPT_THREADS
};

static const struct argp_option arguments[] = {
    {0, 0, 0, 0, "Input", 1},
    {"prompt", 'p', "TEXT", 0, "Text to continue; empty or absent: start a document", 0},
    {"prompt-file", 'f', "FILE", 0, "The same from a file, byte for byte; - is standard input", 0},
    {"chat", OPT_CHAT, 0, 0,
     "The text is an instruction, which goes into the model's prompt template; without -p and -f "
     "each line of standard input is one, answered on its own",
     0},
    {"input", OPT_INPUT, "TEXT", 0, "With --chat: the input that the instruction is about", 0},
    {"cooc", OPT_COOC, "FILE", 0, "Co-occurrence table; without it no combination is masked", 0},
    {0, 0, 0, 0, "Sampling (defaults: the model's calibration, else those given here)", 2},
    {"tokens", 'n', "N", 0, "Make at most N tokens (100), and no more than the context holds", 0},
    {"mode", OPT_MODE, "MODE", 0,
     "dynamo (default): the heads decide; lossless: the heads draft and the base verifies, so the "
     "text is the base's own; ar: the base alone, one by one",
     0},
    {"temperature", 't', "X", 0, "0.7; 0 is greedy: the most probable block", 0},
    {"top-k", 'k', "N", 0, "Candidates per head, 1 to 256 (50)", 0},
    {"penalty", OPT_PENALTY, "X", 0, "Divides the probability of repeated tokens, from 1 (1.1)", 0},
    {"seed", OPT_SEED, "N", 0, "Same seed, same text (1)", 0},
    {0, 0, 0, 0, "Several tokens per step (defaults as above)", 3},
    {"preset", OPT_PRESET, "NAME", 0,
     "Everything here but eps-b, lambda and rows at once: paper, or best, what was measured to be "
     "better (best); options after it go over it",
     0},
    {"eps-b", OPT_EPS_B, "X", 0,
     "Back-off threshold, 0 (always as many tokens as heads) to 1 (always one): n tokens are taken "
     "if their joint's maximum exceeds X^(n-1), see --power (0.5)",
     0},
    {"alpha-c", OPT_ALPHA_C, "X", 0, "Exponent of the co-occurrence ratio; 0 is off (1)", 0},
    {"unseen", OPT_UNSEEN, "POLICY", 0,
     "Ratio of an n-gram that the table lacks: zero (the paper's), mix: lambda * r + (1 - lambda) "
     "for all, backoff: the chain of its pairs, 1 - lambda for an unseen pair, discount: absolute "
     "discounting (backoff)",
     0},
    {"rows", OPT_ROWS, "N", 0,
     "With --mode lossless: tokens that a pass runs at once, the base's next one and N - 1 drafts, "
     "1 to 8; 0: as many as pay on this machine, which changes the speed only (4)",
     0},
    {"ignore-eos", OPT_IGNORE_EOS, 0, 0, "Go on after the end-of-text token", 0},
    {0, 0, 0, 0, "Output", 4},
    {"echo", OPT_ECHO, 0, 0, "Print the prompt before its continuation", 0},
    {"stats", OPT_STATS, 0, 0, "Report tokens per forward, mixture and speed on stderr", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object: text, ids, options, stats, blocks", 0},
    {"trace", OPT_TRACE, "FILE", 0, "Write every step's decision as JSON lines", 0},
    {"joint", OPT_JOINT, "N", 0,
     "With --json: what became of the joint of step N's first two tokens, stage by stage; all "
     "orders are looked at as with --trace",
     0},
    {"format", OPT_FORMAT, "FORMAT", 0,
     "Numbers to compute with: auto (the model file's), f32, bf16, int8, int4 (auto)", 0},
    {"threads", OPT_THREADS, "N", 0, "Number of threads; 0 = all cores (0)", 0},
    {0}};

static const char doc[] =
    "Continue a prompt, several tokens per forward pass."
    "\vThe text appears on standard output as it is made, followed by a newline. Ctrl-C ends it "
    "cleanly.\n\nExample:\n"
    "  dynamo generate heads.h5 --cooc cooc.h5 -p \"In the beginning\" --stats\n"
    "  dynamo generate tuned.h5 --cooc cooc.h5 --chat -p \"Name three fruits.\"";

/* Options of the sampling; ARGP_ERR_UNKNOWN for others. */
static error_t parse_gen(int key, char *arg, struct argp_state *s, struct dm_gen_opt *g)
{
    switch (key) {
    case 'n':
        g->max_tokens = dm_opt_size(s, "--tokens", arg, 0, SIZE_MAX);
        break;
    case OPT_MODE:
        g->mode = (enum dm_gen_mode)dm_opt_word(s, "--mode", arg, dm_gen_mode_names);
        break;
    case 't':
        g->temperature = dm_opt_real(s, "--temperature", arg, 0, 100);
        break;
    case 'k':
        g->top_k = dm_opt_size(s, "--top-k", arg, 1, DM_TOP_K_MAX);
        break;
    case OPT_PENALTY:
        g->penalty = dm_opt_real(s, "--penalty", arg, 1, 100);
        break;
    case OPT_SEED:
        g->seed = dm_opt_u64(s, "--seed", arg);
        break;
    case OPT_PRESET:
        dm_gen_opt_preset(g, (enum dm_preset)dm_opt_word(s, "--preset", arg, dm_preset_names));
        break;
    case OPT_EPS_B:
        g->eps_b = dm_opt_real(s, "--eps-b", arg, 0, 1);
        break;
    case OPT_ALPHA_C:
        g->alpha_c = dm_opt_real(s, "--alpha-c", arg, 0, 10);
        break;
    case OPT_UNSEEN:
        g->unseen = (enum dm_unseen)dm_opt_word(s, "--unseen", arg, dm_unseen_names);
        break;
    case OPT_ROWS:
        g->rows = dm_opt_size(s, "--rows", arg, 0, DM_TREE_ROWS);
        break;
    case OPT_IGNORE_EOS:
        g->stop_eos = false;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case ARGP_KEY_INIT:
        s->child_inputs[0] = &o->gen;
        break;
    case 'p':
        o->prompt = arg;
        break;
    case 'f':
        o->prompt_file = arg;
        break;
    case OPT_COOC:
        o->cooc = arg;
        break;
    case OPT_CHAT:
        o->chat = true;
        break;
    case OPT_INPUT:
        o->input = arg;
        break;
    case OPT_ECHO:
        o->echo = true;
        break;
    case OPT_STATS:
        o->stats = true;
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case OPT_TRACE:
        o->trace = arg;
        o->gen.trace = true;
        break;
    case OPT_JOINT:
        o->joint = dm_opt_size(s, "--joint", arg, 1, SIZE_MAX);
        o->gen.trace = true;
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
        if (o->prompt && o->prompt_file)
            argp_error(s, "--prompt and --prompt-file exclude each other");
        if (o->joint && !o->json)
            argp_error(s, "--joint needs --json");
        if (o->input && !o->chat)
            argp_error(s, "--input needs --chat");
        break;
    default:
        return parse_gen(key, arg, s, &o->gen);
    }
    return 0;
}

static const struct argp_child children[] = {{&cmd_joint_argp, 0, NULL, 3}, {0}};
static const struct argp argp = {arguments, parse, "MODEL", doc, children, 0, 0};

/* Everything that a run holds. */
struct job {
    const struct options *o;
    struct dm_model model;
    struct dm_model_meta meta;
    struct dm_cooc table;
    bool has_table;
    struct dm_certified certified;
    struct dm_tokenizer *tokenizer;
    struct dm_template template;
    struct dm_gen *gen;
    char *prompt;
    size_t n_prompt;
    struct dm_ids ids, out;
    struct dm_gen_stats stats;
    struct dm_utf8 shown;
    FILE *trace;
    char *trace_tmp;
    size_t steps;
    struct dm_record record;
    json_t *blocks, *joint; // of --json
    enum dm_status failed;  // in a callback
    struct dm_err e;
};

static void job_release(struct job *j)
{
    if (j->trace)
        fclose(j->trace);
    if (j->trace_tmp)
        remove(j->trace_tmp);
    free(j->trace_tmp);
    json_decref(j->blocks);
    json_decref(j->joint);
    dm_gen_free(j->gen);
    dm_ids_release(&j->ids);
    dm_ids_release(&j->out);
    free(j->prompt);
    dm_tokenizer_free(j->tokenizer);
    dm_template_release(&j->template);
    if (j->has_table)
        dm_cooc_release(&j->table);
    dm_certified_release(&j->certified);
    dm_model_meta_release(&j->meta);
    dm_model_release(&j->model);
}

static enum dm_status read_prompt(struct job *j)
{
    const struct options *o = j->o;
    if (!o->prompt_file) {
        j->n_prompt = o->prompt ? strlen(o->prompt) : 0;
        j->prompt = strdup(o->prompt ? o->prompt : "");
        return j->prompt ? DM_OK : dm_fail(&j->e, DM_ENOMEM, "out of memory for the prompt");
    }
    const bool standard = !strcmp(o->prompt_file, "-");
    const char *name = standard ? "standard input" : o->prompt_file;
    FILE *f = standard ? stdin : fopen(o->prompt_file, "re");
    if (!f)
        return dm_fail_errno(&j->e, "%s: cannot open", name);
    enum dm_status st = DM_OK;
    if (!(j->prompt = dm_alloc(MAX_PROMPT + 1, 1)))
        st = dm_fail(&j->e, DM_ENOMEM, "out of memory for the prompt");
    else if ((j->n_prompt = fread(j->prompt, 1, MAX_PROMPT + 1, f)) > MAX_PROMPT)
        st = dm_fail(&j->e, DM_ERANGE, "%s: the prompt has more than %d bytes", name, MAX_PROMPT);
    else if (ferror(f))
        st = dm_fail_errno(&j->e, "%s: cannot read the prompt", name);
    if (!standard)
        fclose(f);
    return st;
}

/* --chat: the instruction in j->prompt becomes the prompt that the template makes of it. */
static enum dm_status apply_template(struct job *j)
{
    char *text;
    size_t n;
    while (j->n_prompt && j->prompt[j->n_prompt - 1] == '\n')
        j->prompt[--j->n_prompt] = '\0'; // of a file or a terminal
    if (strlen(j->prompt) != j->n_prompt)
        return dm_fail(&j->e, DM_EFORMAT, "the instruction holds a zero byte");
    DM_TRY(dm_template_prompt(&j->template, j->prompt, j->o->input, &text, &n, &j->e));
    free(j->prompt);
    j->prompt = text;
    j->n_prompt = n;
    return DM_OK;
}

/* The prompt's ids. An empty prompt starts a document: after the separator; so does an instruction,
 * for that is where all of them stood in training. */
static enum dm_status encode_prompt(struct job *j)
{
    j->ids.n = 0;
    if (j->o->chat && j->model.cfg.eos >= 0)
        DM_TRY(dm_ids_push(&j->ids, j->model.cfg.eos, &j->e));
    DM_TRY(dm_tokenizer_encode(j->tokenizer, j->prompt, j->n_prompt, &j->ids, &j->e));
    if (j->ids.n)
        return DM_OK;
    if (j->model.cfg.eos < 0)
        return dm_fail(&j->e, DM_ERANGE,
                       "%s: an empty prompt needs a model with a document separator", j->o->model);
    return dm_ids_push(&j->ids, j->model.cfg.eos, &j->e);
}

static enum dm_status load_table(struct job *j)
{
    j->has_table = true; // to be released after a failure too
    const bool discount = j->o->gen.unseen == DM_UNSEEN_DISCOUNT;
    DM_TRY(dm_cooc_load_for(&j->table, j->o->cooc, !discount, discount, &j->e));
    return dm_model_check_tokenizer(&j->meta, j->o->model, j->table.tokenizer_hash, j->o->cooc,
                                    &j->e);
}

/* Says what is not as it was certified. The base's own text needs no certificate. */
static enum dm_status check_certificate(struct job *j, bool base_alone)
{
    size_t i;
    json_t *v;
    if (base_alone || !j->meta.calibration)
        return DM_OK;
    DM_TRY(dm_certified_check(&j->certified, j->meta.calibration, j->o->model,
                              j->has_table ? j->o->cooc : NULL,
                              dm_load_formats[j->model.mats.unembed.fmt + 1], &j->o->gen, &j->e));
    json_array_foreach(j->certified.differences, i, v)
        fprintf(stderr, "dynamo generate: not as certified: %s\n", json_string_value(v));
    return DM_OK;
}

/* Tokenizer, table, model; says what they imply for the decoding. Of the model there are the config
 * and the metadata; the rest comes last, for it takes longest. */
static enum dm_status load(struct job *j)
{
    const struct options *o = j->o;
    const bool ar = o->gen.mode == DM_GEN_AR, single = dm_gen_opt_single(&o->gen);
    if (!j->meta.tokenizer)
        return dm_fail(&j->e, DM_EMISMATCH,
                       "%s: has no tokenizer, so text cannot be read or written", o->model);
    DM_TRY(dm_tokenizer_parse(&j->tokenizer, j->meta.tokenizer, strlen(j->meta.tokenizer), o->model,
                              &j->e));
    if (o->chat && !j->meta.template)
        return dm_fail(&j->e, DM_EMISMATCH,
                       "%s: has no prompt template for --chat: it was not trained on a shard made "
                       "by dynamo tokenize --instruct",
                       o->model);
    if (o->chat)
        DM_TRY(dm_template_parse(&j->template, j->meta.template, o->model, &j->e));
    if (!ar && j->model.cfg.K == 1)
        fprintf(stderr, "dynamo generate: %s has no extra heads: one token per step\n", o->model);
    else if (!ar && !o->cooc)
        fprintf(stderr, "dynamo generate: no --cooc: combinations of tokens are not masked\n");
    else if (!ar)
        DM_TRY(load_table(j));
    DM_TRY(dm_model_load(&j->model, o->model, &(struct dm_load_opt){.format = o->format}, NULL,
                         &j->e));
    DM_TRY(check_certificate(j, single || j->model.cfg.K == 1 || o->gen.mode == DM_GEN_LOSSLESS));
    return dm_gen_new(&j->gen, &j->model, j->has_table ? &j->table : NULL,
                      single ? 1 : DM_ORDER_MAX, &j->e);
}

static enum dm_status trace_open(struct job *j)
{
    if (!j->o->trace)
        return DM_OK;
    if (!(j->trace_tmp = dm_file_tmp_name(j->o->trace)))
        return dm_fail(&j->e, DM_ENOMEM, "%s: out of memory", j->o->trace);
    if (!(j->trace = fopen(j->trace_tmp, "w")))
        return dm_fail_errno(&j->e, "%s: cannot create", j->o->trace);
    return DM_OK;
}

static enum dm_status trace_close(struct job *j)
{
    if (!j->trace)
        return DM_OK;
    const bool bad = ferror(j->trace), unclosed = fclose(j->trace);
    j->trace = NULL;
    if (bad || unclosed)
        return dm_fail_errno(&j->e, "%s: cannot write", j->o->trace);
    enum dm_status st = dm_file_publish(j->trace_tmp, j->o->trace, &j->e);
    free(j->trace_tmp);
    j->trace_tmp = NULL;
    return st;
}

/* Writes the bytes of a token but for the start of a sequence that is not complete yet. */
static void show(struct job *j, int32_t id)
{
    size_t n;
    const char *s = dm_tokenizer_bytes(j->tokenizer, id, &n);
    for (size_t i = 0; i < n && id != j->model.cfg.eos; i++) {
        char out[4];
        fwrite(out, 1, dm_utf8_push(&j->shown, s[i], out), stdout);
    }
}

/* Keeps the step's record for --json and --trace, and its joint if it was asked for. */
static enum dm_status record(struct job *j, const struct dm_block *b)
{
    const struct options *o = j->o;
    json_t *step = dm_record_block(&j->record, b, j->steps);
    if (!step)
        return dm_fail(&j->e, DM_ENOMEM, "out of memory for a step's record");
    if (j->trace) {
        json_dumpf(step, j->trace, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fputc('\n', j->trace);
    }
    if (o->json)
        json_array_append(j->blocks, step);
    json_decref(step);
    if (o->joint != j->steps)
        return DM_OK;
    struct dm_stages stages;
    struct dm_err why;
    const enum dm_status st = dm_gen_stages(j->gen, &o->gen, &stages, &why);
    if (st)
        return dm_fail(&j->e, st, "--joint %zu: %s", o->joint, why.msg);
    j->joint = dm_record_stages(&stages, j->tokenizer);
    json_object_set_new(j->joint, "step", json_integer((json_int_t)j->steps));
    return DM_OK;
}

static bool on_block(void *ctx, const struct dm_block *b)
{
    struct job *j = ctx;
    j->steps++;
    if (j->trace || j->o->json)
        j->failed = record(j, b);
    for (size_t i = 0; i < b->kept && !j->o->json; i++)
        show(j, b->id[i]);
    if (!j->o->json)
        fflush(stdout);
    return !dm_stop_requested() && !ferror(stdout) && !j->failed;
}

static enum dm_status report_json(struct job *j)
{
    const size_t eos = j->stats.end == DM_GEN_EOS; // not part of the text
    char *text;
    size_t n;
    DM_TRY(dm_tokenizer_decode(j->tokenizer, j->out.id, j->out.n - eos, &text, &n, &j->e));
    json_t *options = dm_gen_opt_to_json(&j->o->gen);
    json_object_set_new(options, "mode", json_string(dm_gen_mode_names[j->o->gen.mode]));
    json_object_set_new(options, "seed", json_integer((json_int_t)j->o->gen.seed));
    json_t *root = json_pack("{s:o, s:o, s:o, s:o, s:o, s:s, s:s?}", "prompt",
                             dm_record_text(j->prompt, j->n_prompt), "text",
                             dm_record_text(text, n), "ids", dm_record_ids(j->out.id, j->out.n),
                             "options", options, "stats", dm_gen_stats_to_json(&j->stats), "model",
                             j->o->model, "cooc", j->has_table ? j->o->cooc : NULL);
    free(text);
    if (!root)
        return dm_fail(&j->e, DM_ENOMEM, "out of memory for the report");
    json_object_set(root, "blocks", j->blocks);
    if (j->joint)
        json_object_set(root, "joint", j->joint);
    json_object_set_new(root, "certificate", dm_certified_to_json(&j->certified));
    dm_json_print(root);
    return DM_OK;
}

static void report_stats(const struct job *j)
{
    char text[512];
    dm_gen_stats_text(&j->stats, text, sizeof(text));
    fprintf(stderr, "%s\n", text);
    dm_certified_sentence(&j->certified, text, sizeof(text));
    fprintf(stderr, "%s%s", text, *text ? "\n" : "");
}

/* Continues j->prompt and reports. */
static enum dm_status answer(struct job *j)
{
    const struct options *o = j->o;
    if (o->chat)
        DM_TRY(apply_template(j));
    DM_TRY(encode_prompt(j));
    j->out.n = 0;
    j->steps = 0;
    j->shown.n = 0;
    j->record = (struct dm_record){
        .tokenizer = j->tokenizer, .eos = j->model.cfg.eos, .traced = o->gen.trace};
    json_decref(j->blocks);
    json_decref(j->joint);
    j->blocks = json_array();
    j->joint = NULL;
    if (o->echo && !o->json)
        fwrite(j->prompt, 1, j->n_prompt, stdout);
    DM_TRY(
        dm_gen_run(j->gen, &o->gen, j->ids.id, j->ids.n, &j->out, on_block, j, &j->stats, &j->e));
    if (j->failed)
        return j->failed;
    if (o->joint && !j->joint)
        return dm_fail(&j->e, DM_ERANGE, "--joint %zu: the text has %zu steps only", o->joint,
                       j->steps);
    if (o->json) {
        DM_TRY(report_json(j));
    } else {
        fwrite(j->shown.held, 1, j->shown.n, stdout);
        putchar('\n');
    }
    if (o->stats)
        report_stats(j);
    return DM_OK;
}

/* The next line of standard input into j->prompt; false at its end or after Ctrl-C, which poll()
 * notices and read() would not. */
static bool next_line(struct job *j, bool terminal)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    size_t cap = 0;
    free(j->prompt);
    j->prompt = NULL;
    if (terminal)
        fputs("> ", stderr);
    if (dm_stop_requested() || (terminal && poll(&p, 1, -1) < 0))
        return false;
    const ssize_t n = getline(&j->prompt, &cap, stdin);
    j->n_prompt = n > 0 ? (size_t)n : 0;
    return n >= 0;
}

static enum dm_status chat(struct job *j)
{
    const bool terminal = isatty(STDIN_FILENO);
    while (next_line(j, terminal))
        if (j->prompt[strspn(j->prompt, " \t\n")]) {
            DM_TRY(answer(j));
            fflush(stdout);
        }
    return ferror(stdin) ? dm_fail_errno(&j->e, "standard input: cannot read") : DM_OK;
}

static enum dm_status run(struct job *j)
{
    const struct options *o = j->o;
    DM_TRY(load(j));
    DM_TRY(trace_open(j));
    if (o->chat && !o->prompt && !o->prompt_file) {
        DM_TRY(chat(j));
    } else {
        DM_TRY(read_prompt(j));
        DM_TRY(answer(j));
    }
    return trace_close(j);
}

int cmd_generate(int argc, char **argv)
{
    struct options o = {.gen = dm_gen_opt_default(), .format = DM_FORMAT_AUTO};
    struct job j = {.o = &o};
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    dm_par_set_threads(o.threads);
    dm_stop_install();
    const char *const in[] = {o.model, o.cooc, o.prompt_file};
    enum dm_status st = dm_file_check_output(o.trace, in, sizeof(in) / sizeof(in[0]), &j.e);
    if (!st)
        st = dm_file_check_inputs(in, sizeof(in) / sizeof(in[0]), &j.e);
    if (!st)
        st = dm_model_peek(o.model, &j.model.cfg, &j.meta, &j.e);
    if (!st && j.meta.calibration) {
        st = dm_gen_opt_calibrated(&o.gen, j.meta.calibration, o.model, &j.e);
        argp_parse(&argp, argc, argv, 0, NULL, &o); // what the user says goes over it
    }
    if (!st)
        st = run(&j);
    if (st)
        fprintf(stderr, "dynamo generate: %s\n", j.e.msg);
    job_release(&j);
    return st ? 1 : 0;
}
