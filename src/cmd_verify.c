/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/cmd.h"
#include "src/model/fingerprint.h"
#include "src/model/verify.h"

struct options {
    const char *path, *compare;
    size_t threads;
    bool no_fingerprint, json;
};

enum { KEY_NO_FINGERPRINT = 256, KEY_COMPARE, KEY_THREADS, KEY_JSON };

static const struct argp_option option_table[] = {
    {"no-fingerprint", KEY_NO_FINGERPRINT, NULL, 0,
     "Do not load and run the model: one tensor is in memory at a time", 0},
    {"compare", KEY_COMPARE, "REPORT", 0,
     "Fail unless the fingerprint is that of REPORT, which --json printed elsewhere", 0},
    {"threads", KEY_THREADS, "N", 0, "Number of threads; 0 = all cores (0)", 0},
    {"json", KEY_JSON, NULL, 0, "Report as one line of JSON", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case KEY_NO_FINGERPRINT:
        o->no_fingerprint = true;
        return 0;
    case KEY_COMPARE:
        o->compare = arg;
        return 0;
    case KEY_THREADS:
        o->threads = dm_opt_size(s, "--threads", arg, 0, 1024);
        return 0;
    case KEY_JSON:
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        dm_opt_once(s, "file or directory", &o->path, arg);
        return 0;
    case ARGP_KEY_END:
        dm_opt_need(s, "FILE or DIR", o->path);
        if (o->compare && o->no_fingerprint)
            argp_error(s, "--compare needs the fingerprint");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static size_t size_of(const json_t *obj, const char *key)
{
    return (size_t)json_integer_value(json_object_get(obj, key));
}

static void print(const json_t *r)
{
    const json_t *v = json_object_get(r, "vocabulary"), *row, *x;
    size_t i, k;
    printf("model %s\n%zu parameters in %zu tensors of %s, hashes right, all finite\n",
           json_string_value(json_object_get(r, "model")), size_of(r, "parameters"),
           size_of(r, "tensors"), json_string_value(json_object_get(r, "dtype")));
    printf("%zu tokens%s, %zu rows: %zu of padding\n", size_of(v, "tokens"),
           json_is_true(json_object_get(v, "tokenizer")) ? "" : " (no tokenizer)",
           size_of(v, "rows"), size_of(v, "padding"));
    json_array_foreach(json_object_get(r, "fingerprint"), i, row)
    {
        printf("fingerprint %2zu tokens, head %zu:", size_of(row, "tokens"), size_of(row, "head"));
        json_array_foreach(json_object_get(row, "ids"), k, x)
            printf("  %lld %.4g", (long long)json_integer_value(x),
                   json_real_value(json_array_get(json_object_get(row, "logits"), k)));
        putchar('\n');
    }
}

/* The first problem, and how many more there are. */
static enum dm_status judge(const struct options *o, const json_t *report, struct dm_err *e)
{
    const json_t *problems = json_object_get(report, "problems");
    const size_t n = json_array_size(problems);
    const char *first = json_string_value(json_array_get(problems, 0));
    json_t *other;
    if (n > 1)
        return dm_fail(e, DM_EFORMAT, "%s (and %zu more)", first, n - 1);
    if (n)
        return dm_fail(e, DM_EFORMAT, "%s", first);
    if (!o->compare)
        return DM_OK;
    DM_TRY(dm_json_read(o->compare, 1 << 20, &other, e));
    const enum dm_status st = dm_fingerprint_compare(json_object_get(report, "fingerprint"),
                                                     json_object_get(other, "fingerprint"),
                                                     o->compare, e);
    json_decref(other);
    return st;
}

int cmd_verify(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        "FILE|DIR",
        "Is this model whole, and does it compute?"
        "\vReads all of a model file, or of a Hugging Face directory (imported into a file in "
        "$TMPDIR first): tensors missing, unknown, misshapen, damaged (SHA-256) or not finite, the "
        "parameter count, the padding of the vocabulary, and SHA256SUMS of a directory if it is "
        "there. Then the fingerprint: the five largest logits after fixed token ids, computed in "
        "float32, which takes 4 bytes a parameter. Exit code 1 and one sentence when something is "
        "wrong; --json prints all problems.\n\nExample: dynamo verify pythia-70m.h5 --json > "
        "here.json\n         dynamo verify pythia-70m.h5 --compare there.json",
        NULL,
        NULL,
        NULL};
    struct options o = {0};
    struct dm_err e;
    json_t *report = NULL;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    dm_par_set_threads(o.threads);
    enum dm_status st = dm_verify(o.path, !o.no_fingerprint, &report, &e);
    if (!st) {
        st = judge(&o, report, &e);
        if (o.json)
            dm_json_print(json_incref(report));
        else if (!st)
            print(report);
        json_decref(report);
    }
    if (st) {
        fprintf(stderr, "dynamo verify: %s\n", e.msg);
        return 1;
    }
    return 0;
}
