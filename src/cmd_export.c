/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "src/base/opt.h"
#include "src/cmd.h"
#include "src/model/hf.h"

struct options {
    const char *model, *dir;
    bool force;
};

static const struct argp_option option_table[] = {
    {"output", 'o', "DIR", 0, "Directory to write, made if it is not there (required)", 0},
    {"force", 'f', NULL, 0, "Replace files that exist (default: refuse)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case 'o':
        o->dir = arg;
        return 0;
    case 'f':
        o->force = true;
        return 0;
    case ARGP_KEY_ARG:
        dm_opt_once(s, "model", &o->model, arg);
        return 0;
    case ARGP_KEY_END:
        dm_opt_need(s, "MODEL", o->model);
        dm_opt_need(s, "-o DIR", o->dir);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int cmd_export(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        "MODEL",
        "Write a model file as a Hugging Face GPTNeoX directory."
        "\vTensors, config.json and tokenizer.json are byte for byte what was imported. Token "
        "heads "
        "go into dynamo_heads.safetensors and a key \"dynamo\" of config.json, which transformers "
        "does not mind.\n\nExample: dynamo export model.h5 -o model-hf",
        NULL,
        NULL,
        NULL};
    struct options o = {0};
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (dm_hf_export(o.model, o.dir, o.force, &e)) {
        fprintf(stderr, "dynamo export: %s\n", e.msg);
        return 1;
    }
    return 0;
}
