/* SPDX-License-Identifier: MIT */
#include "src/cmd.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "eval/score.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/base/provenance.h"
#include "src/io/shard.h"
#include "src/model/quantize.h"

struct options {
    const char *model, *output, *data;
    enum dm_dtype to;
    size_t tokens, threads;
    enum dm_scope scope;
    bool has_to, json;
};

enum { OPT_TO = 256, OPT_HEADS_ONLY, OPT_TOKENS, OPT_JSON, OPT_THREADS };

static const struct argp_option table[] = {
    {"output", 'o', "FILE", 0, "Model file to write (required)", 0},
    {"to", OPT_TO, "FORMAT", 0, "bf16, int8 or int4 (required)", 0},
    {"heads-only", OPT_HEADS_ONLY, 0, 0,
     "Convert the layers of heads 2 and up and leave the base as it is", 0},
    {"data", 'd', "SHARD", 0,
     "Held-out token shard: measure the perplexity of every head before and after", 0},
    {"tokens", OPT_TOKENS, "N", 0, "Score the first N tokens of it (default 65536; 0 = all)", 0},
    {"json", OPT_JSON, 0, 0, "Report as one line of JSON", 0},
    {"threads", OPT_THREADS, "N", 0, "Number of threads; 0 = all cores (default 0)", 0},
    {0}};

static const char doc[] =
    "Writes MODEL with the matrices of its layers, heads and output embedding in another number "
    "format, in which they are also computed with; input embedding, LayerNorms and biases stay as "
    "they are.\v"
    "bf16  16 bits a weight\n"
    "int8  8.5 bits: blocks of 32 inputs with a scale; inputs are rounded to 8 bits, too\n"
    "int4  5 bits: blocks of 32 inputs with a scale and an offset\n\n"
    "Examples:\n  dynamo quantize heads.h5 --to int8 -o heads-int8.h5\n"
    "  dynamo quantize heads.h5 --to int4 -o heads-int4.h5 --data heldout.h5\n"
    "  dynamo quantize heads.h5 --to int4 --heads-only -o mixed.h5";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    static const char *const words[] = {"bf16", "int8", "int4", NULL};
    static const enum dm_dtype types[] = {DM_BF16, DM_INT8, DM_INT4};
    struct options *o = s->input;
    switch (key) {
    case 'o':
        o->output = arg;
        break;
    case 'd':
        o->data = arg;
        break;
    case OPT_TO:
        o->to = types[dm_opt_word(s, "--to", arg, words)];
        o->has_to = true;
        break;
    case OPT_HEADS_ONLY:
        o->scope = DM_SCOPE_HEADS;
        break;
    case OPT_TOKENS:
        o->tokens = dm_opt_size(s, "--tokens", arg, 0, SIZE_MAX);
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case OPT_THREADS:
        o->threads = dm_opt_size(s, "--threads", arg, 0, 1024);
        break;
    case ARGP_KEY_ARG:
        dm_opt_once(s, "model", &o->model, arg);
        break;
    case ARGP_KEY_END:
        dm_opt_need(s, "MODEL", o->model);
        if (!o->has_to)
            argp_error(s, "--to FORMAT is missing");
        dm_opt_need(s, "-o FILE", o->output);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* What dm_quantize() and the scores would refuse, before anything takes long. */
static enum dm_status check(const struct options *o, struct dm_err *e)
{
    const char *const in[] = {o->model, o->data};
    struct dm_config cfg;
    DM_TRY(dm_file_check_inputs(in, 2, e));
    DM_TRY(dm_file_check_output(o->output, in, 2, e));
    DM_TRY(dm_model_peek(o->model, &cfg, NULL, e));
    if (o->scope == DM_SCOPE_HEADS && cfg.K == 1)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: has no token heads", o->model);
    return DM_OK;
}

/* The new file's provenance: this command, its input, and the input's own provenance. */
static enum dm_status make_provenance(const struct options *o, int argc, char **argv, char **text,
                                      struct dm_err *e)
{
    struct dm_config cfg;
    struct dm_model_meta meta;
    DM_TRY(dm_model_peek(o->model, &cfg, &meta, e));
    json_t *inputs = json_array();
    const enum dm_status st = dm_provenance_input(inputs, o->model, e);
    json_t *extra = json_pack("{s:s, s:b, s:o}", "to", dm_dtype_name(o->to), "heads_only",
                              o->scope == DM_SCOPE_HEADS, "inputs", inputs);
    json_t *source = json_loads(meta.provenance, JSON_DECODE_ANY, NULL);
    if (source)
        json_object_set_new(extra, "model", source);
    dm_model_meta_release(&meta);
    if (st) {
        json_decref(extra);
        return st;
    }
    *text = extra ? dm_provenance(argc, argv, extra) : NULL;
    return *text ? DM_OK : dm_fail(e, DM_ENOMEM, "%s: out of memory", o->output);
}

/* ---- Perplexity ---------------------------------------------------------------------------- */

static enum dm_status check_together(const struct options *o, const struct dm_shard *s,
                                     struct dm_err *e)
{
    struct dm_config cfg;
    struct dm_model_meta meta;
    DM_TRY(dm_model_peek(o->model, &cfg, &meta, e));
    const enum dm_status st = dm_model_check_tokenizer(&meta, o->model, dm_shard_tokenizer_hash(s),
                                                       o->data, e);
    dm_model_meta_release(&meta);
    return st;
}

/* The first tokens of the shard as one sequence. */
static enum dm_status read_tokens(const struct options *o, int32_t **ids, size_t *n,
                                  struct dm_err *e)
{
    struct dm_shard *s;
    DM_TRY(dm_shard_open(&s, o->data, e));
    enum dm_status st = check_together(o, s, e);
    *n = dm_shard_tokens(s);
    *n = o->tokens && o->tokens < *n ? o->tokens : *n;
    *ids = dm_alloc(*n, sizeof(**ids));
    if (!st && !*ids)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tokens", o->data, *n);
    if (!st && *n < 2)
        st = dm_fail(e, DM_ERANGE, "%s: %zu tokens, nothing to score", o->data, *n);
    if (!st)
        st = dm_shard_read(s, *ids, 0, *n, e);
    dm_shard_close(s);
    return st;
}

static enum dm_status score(const char *model, const int32_t *ids, size_t n,
                            struct dm_score_sum *sum, size_t *n_heads, struct dm_err *e)
{
    struct dm_model m;
    struct dm_scorer *s = NULL;
    float *logp = NULL;
    DM_TRY(dm_model_load(&m, model, NULL, NULL, e));
    enum dm_status st = dm_scorer_new(&s, &m, 0, 0, e);
    if (!st) {
        *n_heads = dm_scorer_heads(s);
        logp = dm_alloc(n, *n_heads * sizeof(*logp));
        st = logp ? dm_scorer_run(s, ids, n, logp, NULL, e)
                  : dm_fail(e, DM_ENOMEM, "out of memory for the scores of %zu tokens", n);
    }
    if (!st)
        dm_score_add(sum, logp, n, *n_heads);
    free(logp);
    dm_scorer_free(s);
    dm_model_release(&m);
    return st;
}

/* ---- Report -------------------------------------------------------------------------------- */

struct result {
    struct dm_quantize_stats stats;
    size_t file_before, file_after, n_heads, tokens;
    struct dm_score_sum before, after;
};

static double loss_percent(const struct result *r, size_t head)
{
    return 100.0 * (dm_score_ppl(&r->after, head) / dm_score_ppl(&r->before, head) - 1.0);
}

static double bits(size_t bytes, size_t weights)
{
    return 8.0 * (double)bytes / (double)weights;
}

static void print_json(const struct options *o, const struct result *r)
{
    const struct dm_quantize_stats *q = &r->stats;
    json_t *root = json_pack("{s:s, s:s, s:s, s:{s:I, s:I}, s:{s:I, s:f, s:f, s:f}}", "model",
                             o->model, "output", o->output, "to", dm_dtype_name(o->to),
                             "file_bytes", "before", (json_int_t)r->file_before, "after",
                             (json_int_t)r->file_after, "matrices", "weights",
                             (json_int_t)q->weights, "bits_before", bits(q->before, q->weights),
                             "bits_after", bits(q->after, q->weights), "relative_error", q->error);
    if (o->data) {
        json_t *loss = json_array();
        for (size_t n = 1; n <= r->n_heads; n++)
            json_array_append_new(loss, json_real(loss_percent(r, n)));
        json_object_set_new(root, "tokens", json_integer((json_int_t)r->tokens));
        json_object_set_new(root, "before", dm_score_to_json(&r->before, r->n_heads));
        json_object_set_new(root, "after", dm_score_to_json(&r->after, r->n_heads));
        json_object_set_new(root, "loss_percent", loss);
    }
    dm_json_print(root);
}

static void print_table(const struct options *o, const struct result *r)
{
    const struct dm_quantize_stats *q = &r->stats;
    printf("%s: %s\n", o->output, dm_dtype_name(o->to));
    printf("file\t%zu -> %zu bytes\n", r->file_before, r->file_after);
    printf("matrices\t%zu weights, %.2f -> %.2f bits each, relative error %.5f\n", q->weights,
           bits(q->before, q->weights), bits(q->after, q->weights), q->error);
    for (size_t n = 1; n <= r->n_heads; n++)
        printf("PPL_%zu\t%.4f -> %.4f\t%+.3f %%\n", n, dm_score_ppl(&r->before, n),
               dm_score_ppl(&r->after, n), loss_percent(r, n));
}

static enum dm_status file_size(const char *path, size_t *n, struct dm_err *e)
{
    struct stat s;
    if (stat(path, &s))
        return dm_fail_errno(e, "%s", path);
    *n = (size_t)s.st_size;
    return DM_OK;
}

static enum dm_status run(const struct options *o, int argc, char **argv, struct dm_err *e)
{
    struct result r = {0};
    char *provenance = NULL;
    int32_t *ids = NULL;
    enum dm_status st = DM_OK;
    DM_TRY(check(o, e));
    DM_TRY(file_size(o->model, &r.file_before, e));
    if (o->data) // before anything is written: the shard may be wrong
        st = read_tokens(o, &ids, &r.tokens, e);
    if (!st)
        st = make_provenance(o, argc, argv, &provenance, e);
    if (!st && o->data)
        st = score(o->model, ids, r.tokens, &r.before, &r.n_heads, e);
    if (!st)
        st = dm_quantize(o->model, o->output, o->to, o->scope, provenance, &r.stats, e);
    if (!st)
        st = file_size(o->output, &r.file_after, e);
    if (!st && o->data)
        st = score(o->output, ids, r.tokens, &r.after, &r.n_heads, e);
    free(ids);
    free(provenance);
    if (st)
        return st;
    if (o->json)
        print_json(o, &r);
    else
        print_table(o, &r);
    return DM_OK;
}

int cmd_quantize(int argc, char **argv)
{
    static const struct argp argp = {table, parse, "MODEL", doc, NULL, NULL, NULL};
    struct options o = {.tokens = 65536};
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    dm_par_set_threads(o.threads);
    if (run(&o, argc, argv, &e)) {
        fprintf(stderr, "dynamo quantize: %s\n", e.msg);
        return 1;
    }
    return 0;
}
