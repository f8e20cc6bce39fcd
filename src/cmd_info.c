/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/cmd.h"
#include "src/decode/certificate.h"
#include "src/model/info.h"

struct options {
    const char *file;
    size_t heads, head_depth;
    bool config_only, json;
};

enum { KEY_CONFIG_ONLY = 256, KEY_HEADS, KEY_DEPTH, KEY_JSON, HEADS_MAX = 16 };

static const struct argp_option option_table[] = {
    {"config-only", KEY_CONFIG_ONLY, NULL, 0,
     "FILE is a config.json or the name of a published size (14m 31m 70m 160m 410m 1b 1.4b 2.8b "
     "6.9b 12b): count its parameters without weights",
     0},
    {"heads", KEY_HEADS, "K", 0,
     "With --config-only: token heads, the base's own included (default: as the config says)", 0},
    {"head-depth", KEY_DEPTH, "D", 0,
     "With --config-only: decoder layers of each extra head (default: as the config says)", 0},
    {"json", KEY_JSON, NULL, 0, "Report as one line of JSON", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case KEY_CONFIG_ONLY:
        o->config_only = true;
        return 0;
    case KEY_HEADS:
        o->heads = dm_opt_size(s, "--heads", arg, 1, HEADS_MAX);
        return 0;
    case KEY_DEPTH:
        o->head_depth = dm_opt_size(s, "--head-depth", arg, 1, HEADS_MAX);
        return 0;
    case KEY_JSON:
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        dm_opt_once(s, "file", &o->file, arg);
        return 0;
    case ARGP_KEY_END:
        dm_opt_need(s, "FILE", o->file);
        if ((o->heads || o->head_depth) && !o->config_only)
            argp_error(s, "--heads and --head-depth need --config-only");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* A name with a dot or slash that is no size is a file: "1.4b" is a size. */
static enum dm_status read_config(struct dm_config *c, const char *name, struct dm_err *e)
{
    json_t *root;
    if (!dm_config_named(c, name, e))
        return DM_OK;
    const size_t n = strlen(name);
    if (!strchr(name, '/') && (n < 5 || strcmp(name + n - 5, ".json")))
        return DM_ERANGE;
    DM_TRY(dm_json_read(name, 16 << 20, &root, e));
    const enum dm_status st = dm_config_from_json(c, root, name, e);
    json_decref(root);
    return st;
}

static enum dm_status config_info(const struct options *o, json_t **out, struct dm_err *e)
{
    struct dm_config c;
    DM_TRY(read_config(&c, o->file, e));
    c.K = o->heads ? o->heads : c.K;
    c.D = o->head_depth ? o->head_depth : c.D;
    DM_TRY(dm_config_check(&c, o->file, e));
    *out = dm_info_config(&c);
    return *out ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory");
}

/* "certified" in words for a model with a certificate; what is wrong with it goes to stderr. */
static void add_certified(json_t *root, const char *path)
{
    json_t *calibration = json_object_get(root, "calibration");
    char *text = json_is_object(calibration) ? dm_json_text(calibration, JSON_COMPACT) : NULL;
    const char *hash = json_string_value(json_object_get(root, "hash"));
    struct dm_certificate c;
    struct dm_err e;
    bool found;
    char sentence[512];
    if (!text)
        return;
    if (dm_certificate_from_text(&c, &found, text, path, &e)) {
        fprintf(stderr, "dynamo info: %s\n", e.msg);
    } else if (found) {
        dm_certificate_sentence(&c, sentence, sizeof(sentence));
        json_object_set_new(root, "certified", json_string(sentence));
        if (strcmp(hash ? hash : "", c.model))
            fprintf(stderr, "dynamo info: %s: certificate: it is of other weights\n", path);
    }
    dm_certificate_release(&c);
    free(text);
}

static void print_scalar(const json_t *v)
{
    if (json_is_string(v))
        printf("%s", json_string_value(v));
    else if (json_is_integer(v))
        printf("%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        printf("%.6g", json_real_value(v));
    else if (json_is_null(v))
        printf("none");
    else
        printf("%s", json_is_true(v) ? "yes" : "no");
}

/* Objects are indented, arrays of scalars stay on their line. */
static void print_value(const char *key, const json_t *v, int indent)
{
    const char *k;
    json_t *x;
    size_t i;
    if (json_is_object(v)) {
        printf("%*s%s\n", indent, "", key);
        json_object_foreach((json_t *)(uintptr_t)v, k, x) print_value(k, x, indent + 2);
        return;
    }
    if (json_is_array(v) && json_is_object(json_array_get(v, 0))) {
        json_array_foreach(v, i, x)
        {
            char name[128];
            snprintf(name, sizeof(name), "%s %zu", key, i + 1);
            print_value(name, x, indent);
        }
        return;
    }
    printf("%*s%-*s ", indent, "", 26 - indent, key);
    if (json_is_array(v)) {
        json_array_foreach(v, i, x)
        {
            if (i)
                putchar(' ');
            print_scalar(x);
        }
    } else {
        print_scalar(v);
    }
    putchar('\n');
}

int cmd_info(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        "FILE",
        "Print what a file of ours holds and where it came from: models, token shards, "
        "co-occurrence tables, checkpoints."
        "\vFor a model: the config, the parameters of each part, the share of the extra heads over "
        "the base, the thresholds of its calibration, its provenance.\n\nExamples: dynamo info "
        "model.h5\n          dynamo info --config-only 70m --heads 3",
        NULL,
        NULL,
        NULL};
    struct options o = {0};
    struct dm_err e;
    json_t *root = NULL;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (o.config_only ? config_info(&o, &root, &e) : dm_info_file(o.file, &root, &e)) {
        fprintf(stderr, "dynamo info: %s\n", e.msg);
        return 1;
    }
    if (!o.config_only)
        add_certified(root, o.file);
    if (o.json) {
        dm_json_print(root);
        return 0;
    }
    const char *key;
    json_t *v;
    json_object_foreach(root, key, v) print_value(key, v, 0);
    json_decref(root);
    return 0;
}
