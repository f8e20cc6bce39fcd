/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/cmd.h"
#include "src/model/hf.h"

struct options {
    const char *dir, *out;
    bool no_tokenizer, json;
};

enum { KEY_NO_TOKENIZER = 256, KEY_JSON };

static const struct argp_option option_table[] = {
    {"output", 'o', "FILE", 0, "The model file to write (required)", 0},
    {"no-tokenizer", KEY_NO_TOKENIZER, NULL, 0, "Read no tokenizer.json: a model of token ids only",
     0},
    {"json", KEY_JSON, NULL, 0, "Report as one line of JSON", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case 'o':
        o->out = arg;
        return 0;
    case KEY_NO_TOKENIZER:
        o->no_tokenizer = true;
        return 0;
    case KEY_JSON:
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        dm_opt_once(s, "directory", &o->dir, arg);
        return 0;
    case ARGP_KEY_END:
        dm_opt_need(s, "DIR", o->dir);
        dm_opt_need(s, "-o FILE", o->out);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static enum dm_status report(const struct options *o, struct dm_err *e)
{
    struct dm_config c;
    DM_TRY(dm_model_peek(o->out, &c, NULL, e));
    const size_t n = dm_params_count(&c, DM_SCOPE_ALL);
    if (o->json)
        dm_json_print(json_pack("{s:s, s:I, s:s, s:I, s:I}", "output", o->out, "parameters",
                                (json_int_t)n, "dtype", dm_dtype_name(c.dtype), "heads",
                                (json_int_t)c.K, "tokens", (json_int_t)c.V));
    else
        printf("%s: %zu parameters in %s, %zu token head%s, %zu tokens%s\n", o->out, n,
               dm_dtype_name(c.dtype), c.K, c.K == 1 ? "" : "s", c.V,
               o->no_tokenizer ? ", no tokenizer" : "");
    return DM_OK;
}

int cmd_import(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        "DIR",
        "Turn a Hugging Face GPTNeoX directory into one self-contained model file."
        "\vDIR holds config.json, tokenizer.json and weights in f32, f16 or bf16: "
        "model.safetensors or "
        "pytorch_model.bin, or an index of several (*.index.json); the first of these is taken. "
        "Every "
        "tensor keeps its bits. dynamo_heads.safetensors is read too when config.json says that "
        "there are heads (dynamo export writes it so).\n\nExample: dynamo import pythia-70m -o "
        "pythia-70m.h5",
        NULL,
        NULL,
        NULL};
    struct options o = {0};
    struct dm_err e;
    // argp reorders argv: the provenance gets the command line as it was typed.
    char **typed = malloc((size_t)argc * sizeof(*typed));
    if (!typed) {
        fprintf(stderr, "dynamo import: out of memory\n");
        return 1;
    }
    memcpy(typed, argv, (size_t)argc * sizeof(*typed));
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    enum dm_status st = dm_hf_import(o.dir, o.out, !o.no_tokenizer, argc, typed, &e);
    free(typed);
    if (!st)
        st = report(&o, &e);
    if (st) {
        fprintf(stderr, "dynamo import: %s\n", e.msg);
        return 1;
    }
    return 0;
}
