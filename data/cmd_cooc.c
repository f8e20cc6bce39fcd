/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/cooc_build.h"
#include "data/cooc_show.h"
#include "data/ngram.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/base/stop.h"
#include "src/cmd.h"

enum {
    OPT_ORDER = 256,
    OPT_MIN2,
    OPT_MIN3,
    OPT_SIZE,
    OPT_MEMORY,
    OPT_THREADS,
    OPT_JSON,
    OPT_SHOW,
    OPT_TOP
};

static const struct argp_option options[] = {
    {"output", 'o', "FILE", 0, "the table to write (required)", 0},
    {"order", OPT_ORDER, "N", 0, "longest n-gram counted, 2 or 3 (default 3)", 0},
    {"min-count2", OPT_MIN2, "N", 0,
     "keep pairs that occur N times, or that lead a kept triplet (default 1: all)", 0},
    {"min-count3", OPT_MIN3, "N", 0, "keep triplets that occur N times (default 1: all)", 0},
    {"max-size", OPT_SIZE, "BYTES", 0,
     "raise the minimum count of triplets, then, once none is left, of pairs, until the file takes "
     "at most BYTES, such as 200M (default 0: no limit)",
     0},
    {"memory", OPT_MEMORY, "BYTES", 0,
     "memory for counting, at least 16Mi; more distinct n-grams than fit are an error "
     "(default 4Gi)",
     0},
    {"threads", OPT_THREADS, "N", 0, "threads (default 0: all cores)", 0},
    {"json", OPT_JSON, 0, 0, "report as one line of JSON", 0},
    {"show", OPT_SHOW, "TEXT", 0,
     "count nothing: the argument is a table, and the strongest and weakest continuations of TEXT "
     "(one or two tokens) are listed with their counts and ratios",
     0},
    {"top", OPT_TOP, "N", 0, "continuations listed from either end (default 10)", 0},
    {0},
};

struct args {
    struct dm_cooc_opt o;
    size_t threads, top;
    bool json;
    const char *show;
};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct args *a = s->input;
    switch (key) {
    case 'o':
        a->o.out = arg;
        break;
    case OPT_ORDER:
        a->o.order = dm_opt_size(s, "--order", arg, 2, 3);
        break;
    case OPT_MIN2:
        a->o.min_count[0] = dm_opt_size(s, "--min-count2", arg, 1, UINT32_MAX);
        break;
    case OPT_MIN3:
        a->o.min_count[1] = dm_opt_size(s, "--min-count3", arg, 1, UINT32_MAX);
        break;
    case OPT_SIZE:
        a->o.max_size = dm_opt_size(s, "--max-size", arg, 0, SIZE_MAX);
        break;
    case OPT_MEMORY:
        a->o.memory = dm_opt_size(s, "--memory", arg, DM_NGRAM_MIN_MEMORY, SIZE_MAX);
        break;
    case OPT_THREADS:
        a->threads = dm_opt_size(s, "--threads", arg, 0, 1024);
        break;
    case OPT_JSON:
        a->json = true;
        break;
    case OPT_SHOW:
        a->show = arg;
        break;
    case OPT_TOP:
        a->top = dm_opt_size(s, "--top", arg, 1, UINT32_MAX);
        break;
    case ARGP_KEY_ARGS:
        a->o.shards = (const char *const *)(s->argv + s->next);
        a->o.n_shards = (size_t)(s->argc - s->next);
        break;
    case ARGP_KEY_NO_ARGS:
        argp_error(s, "no file given");
        break;
    case ARGP_KEY_END:
        if (a->show && (a->o.out || a->o.n_shards != 1))
            argp_error(s, "--show takes one table and no output");
        if (!a->show && !a->o.out)
            argp_error(s, "no output given (-o FILE)");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static double rate(const struct dm_cooc_stats *s)
{
    return s->count_seconds > 0.0 ? (double)s->tokens / s->count_seconds : 0.0;
}

static void report_json(const struct args *a, const struct dm_cooc_stats *s)
{
    static const char *const name[] = {"unigrams", "pairs", "triplets"};
    json_t *root = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "output", a->o.out, "order",
        (json_int_t)a->o.order, "tokens", (json_int_t)s->tokens, "min_count2",
        (json_int_t)s->min_count[0], "min_count3", (json_int_t)s->min_count[1], "bytes",
        (json_int_t)s->file_bytes, "peak_memory", (json_int_t)s->peak_memory, "count_seconds",
        s->count_seconds, "write_seconds", s->write_seconds, "tokens_per_second", rate(s));
    for (size_t i = 0; i < a->o.order; i++)
        json_object_set_new(root, name[i],
                            json_pack("{s:I, s:I, s:I}", "counted", (json_int_t)s->total[i],
                                      "distinct", (json_int_t)s->distinct[i], "kept",
                                      (json_int_t)s->kept[i]));
    dm_json_print(root);
}

static void report_text(const struct args *a, const struct dm_cooc_stats *s)
{
    static const char *const name[] = {"unigrams", "pairs", "triplets"};
    printf("order\tcounted\tdistinct\tkept\tmin_count\n");
    for (size_t i = 0; i < a->o.order; i++)
        printf("%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\n", name[i], s->total[i],
               s->distinct[i], s->kept[i], i ? s->min_count[i - 1] : 1);
    printf("%s: %zu bytes from %" PRIu64 " tokens; counted in %.2f s (%.3g tokens/s), written in "
           "%.2f s\n",
           a->o.out, s->file_bytes, s->tokens, s->count_seconds, rate(s), s->write_seconds);
}

/* One continuation as a line of text or an object of JSON. */
static void report_next(const struct args *a, const struct dm_tokenizer *t,
                        const struct dm_cooc_next *n, json_t *list)
{
    size_t len;
    const char *bytes = dm_tokenizer_bytes(t, (int32_t)n->id, &len);
    char *text = dm_cooc_escape(bytes, len);
    if (a->json)
        json_array_append_new(list, json_pack("{s:s*, s:I, s:I, s:f}", "text", text, "id",
                                              (json_int_t)n->id, "count", (json_int_t)n->count, "r",
                                              (double)n->r));
    else
        printf("%s\t%u\t%" PRIu64 "\t%.6g\n", text ? text : "", n->id, n->count, (double)n->r);
    free(text);
}

static void report_shown(const struct args *a, const struct dm_tokenizer *t,
                         const struct dm_cooc_shown *s)
{
    json_t *strongest = json_array(), *weakest = json_array();
    char *context = dm_cooc_escape(a->show, strlen(a->show));
    if (!a->json)
        printf("%s: %" PRIu64 " times, %zu continuations kept\ntext\tid\tcount\tr\n",
               context ? context : "", s->count, s->n);
    const size_t top = s->n < a->top ? s->n : a->top;
    const size_t low = s->n - top < a->top ? top : s->n - a->top; // nothing is listed twice
    for (size_t i = 0; i < top; i++)
        report_next(a, t, &s->next[i], strongest);
    if (!a->json && low > top)
        printf("...\n");
    for (size_t i = low; i < s->n; i++)
        report_next(a, t, &s->next[i], weakest);
    if (a->json)
        dm_json_print(json_pack("{s:s*, s:I, s:I, s:O, s:O}", "context", context, "count",
                                (json_int_t)s->count, "continuations", (json_int_t)s->n,
                                "strongest", strongest, "weakest", weakest));
    free(context);
    json_decref(strongest);
    json_decref(weakest);
}

static enum dm_status show(const struct args *a, struct dm_err *e)
{
    struct dm_cooc c;
    struct dm_cooc_shown s = {0};
    struct dm_tokenizer *t = NULL;
    enum dm_status st = dm_cooc_load(&c, a->o.shards[0], e);
    if (!st)
        st = dm_tokenizer_load(&t, a->o.shards[0], e);
    if (!st)
        st = dm_cooc_show(&s, &c, t, a->show, e);
    if (!st)
        report_shown(a, t, &s);
    dm_cooc_shown_release(&s);
    dm_tokenizer_free(t);
    dm_cooc_release(&c);
    return st;
}

static enum dm_status build(const struct args *a, struct dm_err *e)
{
    struct dm_cooc_stats s;
    struct dm_progress p;
    dm_stop_install();
    DM_TRY(dm_cooc_build(&a->o, &p, &s, e));
    if (a->json)
        report_json(a, &s);
    else
        report_text(a, &s);
    return DM_OK;
}

int cmd_cooc(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse,
        "SHARD...",
        "Count unigrams, pairs and triplets of token shards and write the co-occurrence table that "
        "decoding uses. Counts are exact, nothing spans two documents, and the file does not "
        "depend on the number of threads or the order of the shards."
        "\vExample:\n  dynamo cooc corpus-*.h5 -o cooc.h5 --min-count3 2 --max-size 200M\n"
        "  dynamo cooc --show ' of' cooc.h5",
        0,
        0,
        0};
    struct args a = {.o = {.order = 3, .min_count = {1, 1}, .memory = (size_t)4 << 30}, .top = 10};
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, 0, &a);
    dm_par_set_threads(a.threads);
    if (a.show ? show(&a, &e) : build(&a, &e)) {
        fprintf(stderr, "dynamo cooc: %s\n", e.msg);
        return 1;
    }
    return 0;
}
