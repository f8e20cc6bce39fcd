/* SPDX-License-Identifier: MIT */
/* cmd_bench.c - beside dynamo.c the one file that sees both train and eval: the benchmark measures
 * a training step without knowing training. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/bench.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/base/stop.h"
#include "src/cmd.h"
#include "train/step.h"

struct options {
    struct dm_bench_opt bench;
    const char *config, *plot;
    bool json;
};

enum {
    OPT_CONFIG = 256,
    OPT_FORMAT,
    OPT_THREADS,
    OPT_WHAT,
    OPT_RUNS,
    OPT_COOC,
    OPT_DATA,
    OPT_PEERS,
    OPT_JSON,
    OPT_PLOT,
    OPT_QUICK
};

static const struct argp_option table[] = {
    {0, 0, 0, 0, "What is measured:", 1},
    {"config", OPT_CONFIG, "SIZE|FILE.json", 0,
     "Random weights of a published size (70m, 160m, 410m, 1.4b, ..) or of a config.json, with two "
     "heads added if it has none (default 70m)",
     1},
    {"what", OPT_WHAT, "LIST", 0,
     "limits, gemm, few, decode, chunks, heads, joint, train, load, speedup, with commas, or all "
     "(default all); load and speedup need MODEL.h5",
     1},
    {"format", OPT_FORMAT, "LIST", 0, "f32, bf16, int8, int4, with commas (default all four)", 1},
    {"threads", OPT_THREADS, "LIST", 0, "Thread counts, with commas (default 1 and all cores)", 1},
    {"runs", OPT_RUNS, "N", 0, "Runs of each measurement, 1 to 64 (default 5)", 1},
    {"cooc", OPT_COOC, "FILE", 0,
     "Co-occurrence table for joint and speedup (default: a synthetic one, and none)", 1},
    {"data", OPT_DATA, "SHARD", 0,
     "Tokens for the prompts of speedup (default: the model writes them itself)", 1},
    {"peers", OPT_PEERS, "FILE.json", 0,
     "Figures of other programs on this machine, as scripts/bench_llama.py writes them, instead of "
     "the built-in ones of another machine; may be given again",
     1},
    {"quick", OPT_QUICK, 0, 0, "Small and short: shows that it works, judges no goal", 1},
    {0, 0, 0, 0, "Output:", 2},
    {"json", OPT_JSON, 0, 0, "One line of JSON with everything and the goals", 2},
    {"plot", OPT_PLOT, "FILE.svg", 0, "Draw the shares of the limits", 2},
    {0}};

static const char doc[] =
    "Measures this machine: its limits, and what the program reaches of them with a model's shapes "
    "or a model's file.\v"
    "Examples:\n  dynamo bench\n  dynamo bench --config 410m --format bf16,int8 --what "
    "decode,heads\n"
    "  dynamo bench heads.h5 --cooc cooc.h5 --what load,speedup --json\n"
    "  dynamo bench --what decode --peers llama.json\n\n"
    "Every figure is a median of --runs runs (JSON: [min, median, max]), and its limit is measured "
    "right beside each run, since shared machines drift within seconds. The machine should have "
    "nothing else to do. 70m takes some minutes and 4 GB, 1.4b 20 GB. Ctrl-C prints what is there.";

/* ---- Command line ---------------------------------------------------------------------------- */

static void parse_formats(struct argp_state *s, struct dm_bench_opt *o, char *arg)
{
    char *rest = arg, *item;
    memset(o->fmt, 0, sizeof(o->fmt));
    while ((item = strsep(&rest, ",")))
        o->fmt[dm_opt_word(s, "--format", item, dm_bench_formats)] = true;
}

static void parse_what(struct argp_state *s, struct dm_bench_opt *o, char *arg)
{
    const char *words[DM_BENCH_N + 2] = {NULL};
    char *rest = arg, *item;
    memcpy(words, dm_bench_words, sizeof(dm_bench_words));
    words[DM_BENCH_N] = "all";
    memset(o->what, 0, sizeof(o->what));
    while ((item = strsep(&rest, ","))) {
        const int i = dm_opt_word(s, "--what", item, words);
        for (int k = 0; k < DM_BENCH_N; k++)
            o->what[k] = o->what[k] || i == k || i == DM_BENCH_N;
    }
}

static void parse_threads(struct argp_state *s, struct dm_bench_opt *o, char *arg)
{
    char *rest = arg, *item;
    o->n_threads = 0;
    while ((item = strsep(&rest, ","))) {
        if (o->n_threads == DM_BENCH_THREADS)
            argp_error(s, "--threads: more than %d counts", DM_BENCH_THREADS);
        o->threads[o->n_threads++] = dm_opt_size(s, "--threads", item, 1, 1024);
    }
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case OPT_CONFIG:
        o->config = arg;
        return 0;
    case OPT_FORMAT:
        parse_formats(s, &o->bench, arg);
        return 0;
    case OPT_THREADS:
        parse_threads(s, &o->bench, arg);
        return 0;
    case OPT_WHAT:
        parse_what(s, &o->bench, arg);
        return 0;
    case OPT_RUNS:
        o->bench.runs = dm_opt_size(s, "--runs", arg, 1, DM_BENCH_RUNS_MAX);
        return 0;
    case OPT_COOC:
        o->bench.cooc = arg;
        return 0;
    case OPT_DATA:
        o->bench.data = arg;
        return 0;
    case OPT_PEERS:
        if (o->bench.n_peers == DM_BENCH_PEER_FILES)
            argp_error(s, "--peers: more than %d files", DM_BENCH_PEER_FILES);
        o->bench.peers[o->bench.n_peers++] = arg;
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    case OPT_PLOT:
        o->plot = arg;
        return 0;
    case OPT_QUICK:
        o->bench.quick = true;
        return 0;
    case ARGP_KEY_ARG:
        dm_opt_once(s, "model", &o->bench.model, arg);
        return 0;
    case ARGP_KEY_END:
        if (o->bench.model && o->config)
            argp_error(s, "--config and a model file exclude each other");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Two heads more unless the file tells otherwise: a step of all heads is to be measured too. */
static enum dm_status read_config(struct dm_config *c, const char *name, struct dm_err *e)
{
    const size_t n = strlen(name);
    if (strchr(name, '/') || (n > 5 && strcmp(name + n - 5, ".json") == 0)) {
        json_t *root;
        DM_TRY(dm_json_read(name, 16 << 20, &root, e));
        const enum dm_status st = dm_config_from_json(c, root, name, e);
        json_decref(root);
        DM_TRY(st);
    } else {
        DM_TRY(dm_config_named(c, name, e));
    }
    if (c->K == 1) {
        c->K = 3;
        c->D = 1;
    }
    return DM_OK;
}

/* ---- The training step ----------------------------------------------------------------------- */

static void train_end(void *trainer)
{
    dm_step_release(trainer);
    free(trainer);
}

static enum dm_status train_begin(void **trainer, struct dm_model *m, enum dm_pass_kind kind,
                                  size_t B, size_t T, struct dm_err *e)
{
    const struct dm_step_opt opt = {.kind = kind,
                                    .micro = B,
                                    .T = T,
                                    .clip = 1.0,
                                    .adam = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
    struct dm_step *s = calloc(1, sizeof(*s));
    if (!s)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    const enum dm_status st = dm_step_init(s, m, &opt, e);
    if (st)
        free(s);
    else
        *trainer = s;
    return st;
}

static enum dm_status train_step(void *trainer, const int32_t *ids, size_t B, struct dm_err *e)
{
    return dm_step_run(trainer, ids, B, 1e-4, e);
}

static const struct dm_bench_trainer trainer = {train_begin, train_step, train_end};

/* ---- Running --------------------------------------------------------------------------------- */

struct console {
    struct dm_progress progress;
    double measurements;
    bool json, printed[DM_BENCH_N];
};

static bool show(void *ctx, const struct dm_bench *b, enum dm_bench_what what, const char *text)
{
    struct console *c = ctx;
    char note[128];
    if (text) {
        snprintf(note, sizeof(note), "%s: %s", dm_bench_words[what], text);
        dm_progress_set(&c->progress, c->measurements++, note);
    } else if (!c->json) {
        dm_progress_end(&c->progress);
        dm_bench_print(b, what, stdout);
        fflush(stdout);
        c->printed[what] = true;
    }
    return !dm_stop_requested();
}

static enum dm_status report(const struct dm_bench *b, const struct options *o, struct dm_err *e)
{
    if (o->json) {
        json_t *root = dm_bench_to_json(b);
        if (!root)
            return dm_fail(e, DM_ENOMEM, "out of memory");
        dm_json_print(root);
    } else {
        dm_bench_print_goals(b, stdout);
    }
    return o->plot ? dm_bench_write_svg(b, o->plot, e) : DM_OK;
}

/* A stop is no failure: what was not printed when its section ended is printed here. */
static enum dm_status run(struct options *o, struct dm_err *e)
{
    struct dm_bench b;
    struct console c = {.json = o->json};
    const char *const in[] = {o->config, o->bench.model, o->bench.cooc, o->bench.data};
    DM_TRY(dm_file_check_output(o->plot, in, sizeof(in) / sizeof(in[0]), e));
    DM_TRY(dm_file_check_output(o->plot, o->bench.peers, o->bench.n_peers, e));
    DM_TRY(dm_file_check_inputs(in + 1, sizeof(in) / sizeof(in[0]) - 1, e));
    if (o->config)
        DM_TRY(read_config(&o->bench.cfg, o->config, e));
    dm_progress_init(&c.progress, "measuring", "done", 0.0);
    dm_stop_install();
    enum dm_status st = dm_bench_run(&b, &o->bench, &trainer, show, &c, e);
    dm_progress_end(&c.progress);
    if (st == DM_ESTOPPED) {
        fprintf(stderr, "dynamo bench: stopped; what follows is incomplete\n");
        st = DM_OK;
        for (int i = 0; i < DM_BENCH_N && !o->json; i++)
            if (!c.printed[i])
                dm_bench_print(&b, (enum dm_bench_what)i, stdout);
    }
    if (!st)
        st = report(&b, o, e);
    dm_bench_release(&b);
    return st;
}

int cmd_bench(int argc, char **argv)
{
    struct options o = {.bench = dm_bench_opt_default()};
    struct dm_err e;
    const struct argp argp = {table, parse, "[MODEL.h5]", doc, NULL, NULL, NULL};
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (run(&o, &e)) {
        fprintf(stderr, "dynamo bench: %s\n", e.msg);
        return 1;
    }
    return 0;
}
