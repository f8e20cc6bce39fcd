/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/cmd_text.h"
#include "data/instruct.h"
#include "data/tokenize.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/stop.h"
#include "src/cmd.h"

struct options {
    struct dm_text_args text;
    const char *tokenizer, *out, *template, *fields;
    bool print, instruct;
    bool in_line; /* ids of a document are printed and its line has not ended */
    size_t threads;
    struct dm_progress progress;
    int argc;
    char **argv; /* as typed */
};

enum {
    KEY_PRINT = 256,
    KEY_THREADS,
    KEY_INSTRUCT,
    KEY_FIELDS,
    KEY_TEMPLATE,
    TEMPLATE_MAX = 1 << 20
};

static const struct argp_option option_table[] = {
    {"tokenizer", 't', "FILE", 0,
     "A tokenizer.json, or a model or shard of ours that carries one (required)", 0},
    {"output", 'o', "SHARD", 0, "The token shard to write", 0},
    {"print", KEY_PRINT, NULL, 0,
     "Print the ids instead, one line for each document, and reports on standard error", 0},
    {"instruct", KEY_INSTRUCT, NULL, 0,
     "Files hold instructions and responses, as a JSON array or JSONL: prompts come from a "
     "template, and training learns the responses only",
     0},
    {"fields", KEY_FIELDS, "I,N,O", 0,
     "With --instruct: the names of instruction, input (may be empty) and output (default "
     "instruction,input,output)",
     0},
    {"template", KEY_TEMPLATE, "FILE", 0,
     "With --instruct: JSON with prompt_no_input and prompt_input, texts with the places "
     "{instruction} and {input} (default: Alpaca's)",
     0},
    {"threads", KEY_THREADS, "N", 0, "Threads (default: all cores); the ids do not depend on it",
     0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case ARGP_KEY_INIT:
        s->child_inputs[0] = &o->text;
        return 0;
    case 't':
        o->tokenizer = arg;
        return 0;
    case 'o':
        o->out = arg;
        return 0;
    case KEY_PRINT:
        o->print = true;
        return 0;
    case KEY_THREADS:
        o->threads = dm_opt_size(s, "--threads", arg, 1, 1024);
        return 0;
    case KEY_INSTRUCT:
        o->instruct = true;
        return 0;
    case KEY_FIELDS:
        o->fields = arg;
        return 0;
    case KEY_TEMPLATE:
        o->template = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->tokenizer)
            argp_error(s, "--tokenizer FILE is missing");
        if (!o->out == !o->print)
            argp_error(s, "give either -o SHARD or --print");
        if (o->instruct ? o->print || o->text.reader.field || o->text.reader.format
                        : o->fields || o->template)
            argp_error(s, o->instruct ? "--instruct excludes --print, --field and --format"
                                      : "--fields and --template need --instruct");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static enum dm_status print_ids(void *ctx, const int32_t *ids, size_t n, bool end, struct dm_err *e)
{
    struct options *o = ctx;
    for (size_t i = 0; i < n; i++) {
        printf(o->in_line ? " %d" : "%d", (int)ids[i]);
        o->in_line = true;
    }
    if (end)
        putchar('\n');
    o->in_line = o->in_line && !end;
    return ferror(stdout) ? dm_fail_errno(e, "cannot write to standard output") : DM_OK;
}

static void show(void *ctx, uint64_t consumed, const struct dm_tokenize_stats *so_far)
{
    struct options *o = ctx;
    char note[96];
    snprintf(note, sizeof(note), "%.1f million tokens, %.1f MB/s of text",
             (double)so_far->tokens / 1e6,
             (double)so_far->bytes / 1e6 / (dm_now() - o->progress.started + 1e-9));
    dm_progress_set(&o->progress, (double)consumed, note);
}

static enum dm_status load_template(struct dm_template *t, const char *path, struct dm_err *e)
{
    char *text = NULL;
    size_t n;
    if (path)
        DM_TRY(dm_file_read(path, TEMPLATE_MAX, &text, &n, e));
    const enum dm_status st = dm_template_parse(t, text, path, e);
    free(text);
    return st;
}

static enum dm_status instruct(struct options *o, const struct dm_tokenizer *t, struct dm_err *e)
{
    struct dm_template template;
    struct dm_instruct_stats s;
    DM_TRY(load_template(&template, o->template, e));
    const struct dm_instruct k = {.tokenizer = t,
                                  .template = &template,
                                  .paths = (const char *const *)o->text.files.path,
                                  .n_paths = o->text.files.n,
                                  .fields = o->fields};
    const enum dm_status st = dm_instruct_shard(&k, o->out, o->argc, o->argv, &s, e);
    dm_template_release(&template);
    DM_TRY(st);
    if (o->text.json)
        dm_json_print(json_pack("{s:s, s:I, s:I, s:I, s:I}", "output", o->out, "examples",
                                (json_int_t)s.examples, "skipped", (json_int_t)s.skipped,
                                "prompt_tokens", (json_int_t)s.prompt_tokens, "response_tokens",
                                (json_int_t)s.response_tokens));
    else
        printf("%s: %llu examples, %llu prompt tokens, %llu response tokens; %llu without a "
               "response left out\n",
               o->out, (unsigned long long)s.examples, (unsigned long long)s.prompt_tokens,
               (unsigned long long)s.response_tokens, (unsigned long long)s.skipped);
    return DM_OK;
}

static enum dm_status tokenize(struct options *o, const struct dm_tokenizer *t,
                               struct dm_tokenize_stats *stats, struct dm_err *e)
{
    const char *const *paths = (const char *const *)o->text.files.path;
    const struct dm_tokenize k = {.tokenizer = t,
                                  .paths = paths,
                                  .n_paths = o->text.files.n,
                                  .reader = o->text.reader,
                                  .sink = print_ids,
                                  .progress = show,
                                  .ctx = o};
    dm_progress_init(&o->progress, "tokenizing", "bytes",
                     (double)dm_reader_total(paths, o->text.files.n));
    enum dm_status st = o->print ? dm_tokenize_run(&k, stats, e)
                                 : dm_tokenize_shard(&k, o->out, o->argc, o->argv, stats, e);
    dm_progress_end(&o->progress);
    return st;
}

static void report(const struct options *o, const struct dm_tokenize_stats *s, double seconds)
{
    const double per_token = s->tokens ? (double)s->bytes / (double)s->tokens : 0.0;
    const double rate = (double)s->bytes / 1e6 / seconds;
    if (o->text.json) {
        json_t *root = json_pack("{s:s?, s:I, s:I, s:I, s:f, s:f, s:f, s:I}", "output", o->out,
                                 "documents", (json_int_t)s->documents, "tokens",
                                 (json_int_t)s->tokens, "bytes", (json_int_t)s->bytes,
                                 "bytes_per_token", per_token, "seconds", seconds, "mb_per_second",
                                 rate, "threads", (json_int_t)dm_par_threads());
        json_dumpf(root, o->print ? stderr : stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        putc('\n', o->print ? stderr : stdout);
        json_decref(root);
    } else if (!o->print) {
        printf("%s: %llu documents, %llu tokens from %llu bytes (%.3f bytes per token) in %.2f s "
               "(%.1f MB/s)\n",
               o->out, (unsigned long long)s->documents, (unsigned long long)s->tokens,
               (unsigned long long)s->bytes, per_token, seconds, rate);
    }
}

static enum dm_status run(struct options *o, struct dm_err *e)
{
    struct dm_tokenizer *t;
    struct dm_tokenize_stats stats;
    const double start = dm_now();
    DM_TRY(dm_text_files(&o->text, o->out, e));
    DM_TRY(dm_file_check_output(o->out, (const char *const[]){o->tokenizer, o->template}, 2, e));
    DM_TRY(dm_tokenizer_load(&t, o->tokenizer, e));
    const enum dm_status st = o->instruct ? instruct(o, t, e) : tokenize(o, t, &stats, e);
    dm_tokenizer_free(t);
    if (!st && !o->instruct)
        report(o, &stats, dm_now() - start);
    return st;
}

/* Copies the command line without --threads, which must not show in the shard; returns how many
 * words are left. */
static int keep_result_options(char **out, char **argv, int argc)
{
    int n = 0;
    for (int i = 0; i < argc; i++) {
        const size_t len = strcspn(argv[i], "=");
        if (len < strlen("--th") || strncmp(argv[i], "--threads", len))
            out[n++] = argv[i];
        else if (!argv[i][len])
            i++;
    }
    return n;
}

int cmd_tokenize(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        "FILE...",
        "Turn text into token ids: a shard for training and counting, or lines of numbers."
        "\vA .txt file is one document, each line of a .jsonl file is one; both may end in .gz or "
        ".zst. A folder stands for all such files below it, and - is standard input. Every "
        "document in a shard is followed by token 0. Text is "
        "tokenized as Hugging Face's tokenizers do it, special tokens such as <|endoftext|> "
        "included; a byte sequence that is not UTF-8 becomes U+FFFD.\n\nExample:\n"
        "  dynamo tokenize --tokenizer tokenizer.json corpus.jsonl.zst -o corpus.h5\n"
        "  dynamo tokenize --tokenizer tokenizer.json --instruct alpaca.json -o alpaca.h5",
        dm_text_children,
        NULL,
        NULL};
    // argp sorts options before files: keep the command line as it was typed.
    struct options o = {.argv = dm_alloc((size_t)argc + 1, sizeof(*argv))};
    struct dm_err e;
    if (!o.argv) {
        fprintf(stderr, "dynamo tokenize: out of memory\n");
        return 1;
    }
    o.argc = keep_result_options(o.argv, argv, argc);
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    dm_par_set_threads(o.threads);
    dm_stop_install();
    const enum dm_status st = run(&o, &e);
    dm_files_release(&o.text.files);
    free(o.argv);
    if (st)
        fprintf(stderr, "dynamo tokenize: %s\n", e.msg);
    return st ? 1 : 0;
}
