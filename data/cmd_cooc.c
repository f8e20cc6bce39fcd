/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/cooc_build.h"
#include "data/cooc_show.h"
#include "data/ngram.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/par.h"
#include "src/base/stop.h"
#include "src/cmd.h"

enum {
    OPT_ORDER = 256,
    OPT_MIN,
    OPT_MIN2,
    OPT_MIN3,
    OPT_MIN4,
    OPT_SCORE,
    OPT_BYTES,
    OPT_BY,
    OPT_MEMORY,
    OPT_THREADS,
    OPT_JSON,
    OPT_TOP,
    OPT_PLOT
};

static const char *const orders[] = {"unigrams", "pairs", "triplets", "quadruples"};
static const char *const scores[] = {"count", "weight", NULL};

/* ---- Counting and merging ------------------------------------------------------------------ */

#define COMMON                                                                                  \
    {"output", 'o', "FILE", 0, "the table to write (required)", 0},                             \
        {"min-count", OPT_MIN, "N", 0, "keep n-grams that occur N times (default 1: all)", 0},  \
        {"min-count2", OPT_MIN2, "N", 0, "for pairs alone (default 1)", 0},                     \
        {"min-count3", OPT_MIN3, "N", 0, "for triplets alone (default 1)", 0},                  \
        {"min-count4", OPT_MIN4, "N", 0, "for quadruples alone (default 1)", 0},                \
        {"by",                                                                                  \
         OPT_BY,                                                                                \
         "SCORE",                                                                               \
         0,                                                                                     \
         "what --max-bytes and --min-score go by: count, or weight = |log r_n| * count "        \
         "(default count)",                                                                     \
         0},                                                                                    \
        {"min-score", OPT_SCORE, "X", 0, "keep n-grams with that score (default 0: all)", 0},   \
        {"max-bytes",                                                                           \
         OPT_BYTES,                                                                             \
         "BYTES",                                                                               \
         0,                                                                                     \
         "raise the minimum score until the file takes at most BYTES, such as 16M (default 0: " \
         "no limit)",                                                                           \
         0},                                                                                    \
        {"memory",                                                                              \
         OPT_MEMORY,                                                                            \
         "BYTES",                                                                               \
         0,                                                                                     \
         "memory of the whole process, at least 128Mi; what does not fit is kept in nameless "  \
         "files beside the output (default 1Gi)",                                               \
         0},                                                                                    \
        {"threads", OPT_THREADS, "N", 0, "threads (default 0: all cores)", 0},                  \
    {                                                                                           \
        "json", OPT_JSON, 0, 0, "report as one line of JSON", 0                                 \
    }

static const struct argp_option count_options[] = {
    {"order", OPT_ORDER, "N", 0, "longest n-gram counted, 2 to 4 (default 3)", -1}, COMMON, {0}};
static const struct argp_option merge_options[] = {COMMON, {0}};

struct args {
    struct dm_cooc_opt o;
    size_t threads;
    bool json;
};

static void all_orders(struct dm_cooc_rule *r, uint64_t min)
{
    for (size_t i = 0; i < DM_NGRAM_ORDER_MAX - 1; i++)
        r->min_count[i] = min;
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    static const char *const min_counts[] = {"--min-count2", "--min-count3", "--min-count4"};
    struct args *a = s->input;
    switch (key) {
    case 'o':
        a->o.out = arg;
        break;
    case OPT_ORDER:
        a->o.order = dm_opt_size(s, "--order", arg, 2, DM_NGRAM_ORDER_MAX);
        break;
    case OPT_MIN:
        all_orders(&a->o.rule, dm_opt_size(s, "--min-count", arg, 1, UINT32_MAX));
        break;
    case OPT_MIN2:
    case OPT_MIN3:
    case OPT_MIN4:
        a->o.rule.min_count[key - OPT_MIN2] = dm_opt_size(s, min_counts[key - OPT_MIN2], arg, 1,
                                                          UINT32_MAX);
        break;
    case OPT_BY:
        a->o.rule.by_weight = dm_opt_word(s, "--by", arg, scores) == 1;
        break;
    case OPT_SCORE:
        a->o.rule.min_score = dm_opt_real(s, "--min-score", arg, 0.0, 1e12);
        break;
    case OPT_BYTES:
        a->o.max_bytes = dm_opt_size(s, "--max-bytes", arg, 0, SIZE_MAX);
        break;
    case OPT_MEMORY:
        a->o.memory = dm_opt_size(s, "--memory", arg, DM_COOC_MIN_MEMORY, SIZE_MAX);
        break;
    case OPT_THREADS:
        a->threads = dm_opt_size(s, "--threads", arg, 0, 1024);
        break;
    case OPT_JSON:
        a->json = true;
        break;
    case ARGP_KEY_ARGS:
        a->o.inputs = (const char *const *)(s->argv + s->next);
        a->o.n_inputs = (size_t)(s->argc - s->next);
        break;
    case ARGP_KEY_NO_ARGS:
        argp_error(s, "no file given");
        break;
    case ARGP_KEY_END:
        if (!a->o.out)
            argp_error(s, "no output given (-o FILE)");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static double rate(const struct dm_cooc_stats *s)
{
    const double seconds = s->count_seconds + s->write_seconds;
    return seconds > 0.0 ? (double)s->tokens / seconds : 0.0;
}

static void report_json(const struct args *a, const struct dm_cooc_stats *s)
{
    json_t *root = json_pack(
        "{s:s, s:I, s:I, s:s, s:f, s:I, s:I, s:I, s:f, s:f, s:f}", "output", a->o.out, "order",
        (json_int_t)s->order, "tokens", (json_int_t)s->tokens, "score", scores[s->rule.by_weight],
        "min_score", s->rule.min_score, "bytes", (json_int_t)s->file_bytes, "peak_memory",
        (json_int_t)s->peak_memory, "spilled", (json_int_t)s->spilled, "count_seconds",
        s->count_seconds, "write_seconds", s->write_seconds, "tokens_per_second", rate(s));
    for (size_t i = 0; i < s->order; i++)
        json_object_set_new(
            root, orders[i],
            json_pack("{s:I, s:I, s:I, s:I}", "counted", (json_int_t)s->tally[i].total, "distinct",
                      (json_int_t)s->tally[i].distinct, "kept", (json_int_t)s->tally[i].kept,
                      "min_count", (json_int_t)(i ? s->rule.min_count[i - 1] : 1)));
    dm_json_print(root);
}

static void report_text(const struct args *a, const struct dm_cooc_stats *s)
{
    uint64_t kept = 0;
    printf("order\tcounted\tdistinct\tkept\tmin_count\n");
    for (size_t i = 0; i < s->order; i++) {
        printf("%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\n", orders[i],
               s->tally[i].total, s->tally[i].distinct, s->tally[i].kept,
               i ? s->rule.min_count[i - 1] : 1);
        kept += i ? s->tally[i].kept : 0;
    }
    printf("%s: %zu bytes, %.2f for each n-gram", a->o.out, s->file_bytes,
           kept ? (double)s->file_bytes / (double)kept : 0.0);
    if (s->rule.min_score > 0.0)
        printf("; %s from %.4g", scores[s->rule.by_weight], s->rule.min_score);
    if (s->tokens)
        printf("; from %" PRIu64 " tokens (%.3g/s)", s->tokens, rate(s));
    printf("; read in %.2f s, written in %.2f s\n", s->count_seconds, s->write_seconds);
}

/* Of several processes each counts a part; merging is for one. */
static enum dm_status run(struct args *a, struct dm_ranks *ranks, bool merge,
                          struct dm_cooc_stats *s, struct dm_err *e)
{
    struct dm_progress p;
    DM_TRY(dm_ranks_open(ranks, e));
    a->o.ranks = ranks;
    if (!merge)
        return dm_cooc_build(&a->o, dm_ranks_first(ranks) ? &p : NULL, s, e);
    if (ranks->n > 1)
        return dm_fail(e, DM_EUNSUPPORTED, "merging is the work of one process, not of %zu",
                       ranks->n);
    return dm_cooc_merge(&a->o, &p, s, e);
}

static int build(int argc, char **argv, const struct argp *argp, bool merge)
{
    struct args a = {.o = {.order = 3, .memory = (size_t)1 << 30}};
    struct dm_ranks ranks;
    struct dm_cooc_stats s;
    struct dm_err e;
    all_orders(&a.o.rule, 1);
    argp_parse(argp, argc, argv, 0, 0, &a);
    dm_par_set_threads(a.threads);
    dm_stop_install();
    const enum dm_status st = run(&a, &ranks, merge, &s, &e);
    const bool speak = dm_ranks_first(&ranks) || ranks.broken;
    const int code = dm_ranks_exit(&ranks, st);
    dm_ranks_close(&ranks);
    if (st && speak)
        fprintf(stderr, "%s: %s\n", argv[0], e.msg);
    else if (speak && a.json)
        report_json(&a, &s);
    else if (speak)
        report_text(&a, &s);
    return code;
}

static int count(int argc, char **argv)
{
    static const struct argp argp = {
        count_options,
        parse,
        "SHARD...\nmerge TABLE... -o FILE\nshow TABLE [TEXT]",
        "Count unigrams, pairs and triplets of token shards and write the co-occurrence table that "
        "decoding uses. Counts are exact within the given memory, nothing spans two documents, and "
        "the file does not depend on the threads, the memory or the order of the shards. `merge` "
        "adds up tables of parts and prunes; `show` explains a table; each has its own --help."
        "\vExample:\n  dynamo cooc corpus-*.h5 -o cooc.h5\n"
        "  dynamo cooc merge cooc.h5 -o small.h5 --max-bytes 16M\n"
        "  dynamo cooc show small.h5 ' of'",
        0,
        0,
        0};
    return build(argc, argv, &argp, false);
}

static int merge(int argc, char **argv)
{
    static const struct argp argp = {
        merge_options,
        parse,
        "TABLE...",
        "Add up the tables of parts of a corpus. The result is the table of the whole, byte for "
        "byte but for its provenance. The parts must hold all their n-grams: prune the result. "
        "One table alone may be given to prune it."
        "\vExample:\n  dynamo cooc merge part-*.h5 -o cooc.h5 --memory 500M\n"
        "  dynamo cooc merge cooc.h5 -o small.h5 --max-bytes 16M",
        0,
        0,
        0};
    return build(argc, argv, &argp, true);
}

/* ---- Showing ------------------------------------------------------------------------------- */

static const struct argp_option show_options[] = {
    {"top", OPT_TOP, "N", 0, "continuations listed from either end (default 10)", 0},
    {"plot", OPT_PLOT, "FILE", 0, "write counts against ranks as an SVG", 0},
    {"json", OPT_JSON, 0, 0, "report as one line of JSON", 0},
    {0},
};

struct show_args {
    const char *table, *text, *plot;
    size_t top;
    bool json;
};

static error_t parse_show(int key, char *arg, struct argp_state *s)
{
    struct show_args *a = s->input;
    switch (key) {
    case OPT_TOP:
        a->top = dm_opt_size(s, "--top", arg, 1, UINT32_MAX);
        break;
    case OPT_PLOT:
        a->plot = arg;
        break;
    case OPT_JSON:
        a->json = true;
        break;
    case ARGP_KEY_ARG:
        if (s->arg_num > 1)
            argp_error(s, "a table and one text are enough");
        *(s->arg_num ? &a->text : &a->table) = arg;
        break;
    case ARGP_KEY_END:
        if (!a->table)
            argp_error(s, "no table given");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* One continuation as a line of text or an object of JSON. */
static enum dm_status report_next(const struct show_args *a, const struct dm_tokenizer *t,
                                  const struct dm_cooc_next *n, json_t *list, struct dm_err *e)
{
    size_t len;
    const char *bytes = dm_tokenizer_bytes(t, (int32_t)n->id, &len);
    char *text = dm_cooc_escape(bytes, len);
    enum dm_status st = text ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory for a token's text");
    if (!st && a->json)
        st = dm_json_add(list, NULL,
                         json_pack("{s:s, s:I, s:I, s:f}", "text", text, "id", (json_int_t)n->id,
                                   "count", (json_int_t)n->count, "r", (double)n->r),
                         e);
    else if (!st)
        printf("%s\t%u\t%" PRIu64 "\t%.6g\n", text, n->id, n->count, (double)n->r);
    free(text);
    return st;
}

/* The strongest and the weakest continuations; none is listed twice. */
static enum dm_status report_lists(const struct show_args *a, const struct dm_tokenizer *t,
                                   const struct dm_cooc_shown *s, json_t *strongest,
                                   json_t *weakest, struct dm_err *e)
{
    const size_t top = s->n < a->top ? s->n : a->top;
    const size_t low = s->n - top < a->top ? top : s->n - a->top;
    for (size_t i = 0; i < top; i++)
        DM_TRY(report_next(a, t, &s->next[i], strongest, e));
    if (!a->json && low > top)
        printf("...\n");
    for (size_t i = low; i < s->n; i++)
        DM_TRY(report_next(a, t, &s->next[i], weakest, e));
    return DM_OK;
}

static enum dm_status report_shown(const struct show_args *a, const struct dm_tokenizer *t,
                                   const struct dm_cooc_shown *s, struct dm_err *e)
{
    json_t *strongest = json_array(), *weakest = json_array(), *root = NULL;
    char *context = dm_cooc_escape(a->text, strlen(a->text));
    enum dm_status st = context ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory for the context");
    if (!st && !a->json)
        printf("%s: %" PRIu64 " times, %zu continuations kept\ntext\tid\tcount\tr\n", context,
               s->count, s->n);
    if (!st)
        st = report_lists(a, t, s, strongest, weakest, e);
    if (!st && a->json)
        root = json_pack("{s:s, s:I, s:I, s:O, s:O}", "context", context, "count",
                         (json_int_t)s->count, "continuations", (json_int_t)s->n, "strongest",
                         strongest, "weakest", weakest);
    if (root)
        dm_json_print(root);
    else if (!st && a->json)
        st = dm_fail(e, DM_ENOMEM, "out of memory for the report");
    free(context);
    json_decref(strongest);
    json_decref(weakest);
    return st;
}

static enum dm_status report_table(const struct show_args *a, const struct dm_cooc *c,
                                   struct dm_err *e)
{
    struct dm_cooc_summary s[DM_COOC_ORDER_MAX];
    struct dm_cooc_sizes size;
    DM_TRY(dm_cooc_measure(&size, c, e));
    json_t *root = json_pack(
        "{s:s, s:I, s:I, s:b, s:I, s:I, s:I}", "table", c->path, "vocab", (json_int_t)c->V, "order",
        (json_int_t)c->order, "complete", c->complete, "bytes", (json_int_t)size.file,
        "memory_bytes", (json_int_t)size.memory, "coordinate_bytes", (json_int_t)size.coordinates);
    dm_cooc_summarise(s, c);
    if (!a->json)
        printf("%s: order %zu, %zu ids, %s\norder\tcounted\tkept\tcovered\tlargest\tonce\ttwice"
               "\tdiscount\n",
               c->path, c->order, c->V, c->complete ? "complete" : "pruned");
    enum dm_status st = DM_OK;
    for (size_t k = 0; k < c->order && !st; k++) {
        const double covered = s[k].total ? (double)s[k].sum / (double)s[k].total : 0.0;
        if (!a->json)
            printf("%s\t%" PRIu64 "\t%" PRIu64 "\t%.4f\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64
                   "\t%.4f\n",
                   orders[k], s[k].total, s[k].kept, covered, s[k].largest, s[k].ones, s[k].twos,
                   s[k].discount);
        else
            st = dm_json_add(root, orders[k],
                             json_pack("{s:I, s:I, s:f, s:I, s:I, s:I, s:f}", "counted",
                                       (json_int_t)s[k].total, "kept", (json_int_t)s[k].kept,
                                       "covered", covered, "largest", (json_int_t)s[k].largest,
                                       "once", (json_int_t)s[k].ones, "twice",
                                       (json_int_t)s[k].twos, "discount", s[k].discount),
                             e);
    }
    if (a->json && !st) {
        dm_json_print(root);
        return DM_OK;
    }
    json_decref(root);
    DM_TRY(st);
    const double n = size.n_grams ? (double)size.n_grams : 1.0;
    printf("bytes per n-gram: %.2f in the file, %.2f while decoding, %.2f as coordinates\n",
           (double)size.file / n, (double)size.memory / n, (double)size.coordinates / n);
    return DM_OK;
}

static enum dm_status show_text(const struct show_args *a, const struct dm_cooc *c,
                                struct dm_err *e)
{
    struct dm_cooc_shown s = {0};
    struct dm_tokenizer *t = NULL;
    enum dm_status st = dm_tokenizer_load(&t, a->table, e);
    if (!st)
        st = dm_cooc_show(&s, c, t, a->text, e);
    if (!st)
        st = report_shown(a, t, &s, e);
    dm_cooc_shown_release(&s);
    dm_tokenizer_free(t);
    return st;
}

static int show(int argc, char **argv)
{
    static const struct argp argp = {
        show_options,
        parse_show,
        "TABLE [TEXT]",
        "What a co-occurrence table holds: for each order the n-grams counted, those kept and the "
        "share of the corpus that they cover; or the strongest and weakest continuations of TEXT, "
        "which is one token or more, with their counts and ratios."
        "\vExample:\n  dynamo cooc show cooc.h5 --plot ranks.svg\n"
        "  dynamo cooc show cooc.h5 ' of' --top 5",
        0,
        0,
        0};
    struct show_args a = {.top = 10};
    struct dm_cooc c = {0};
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, 0, &a);
    enum dm_status st = dm_file_check_output(a.plot, &a.table, 1, &e);
    if (!st)
        st = dm_cooc_load(&c, a.table, &e);
    if (!st && a.plot)
        st = dm_cooc_plot(&c, a.plot, &e);
    if (!st && a.text)
        st = show_text(&a, &c, &e);
    else if (!st)
        st = report_table(&a, &c, &e);
    dm_cooc_release(&c);
    if (st)
        fprintf(stderr, "%s: %s\n", argv[0], e.msg);
    return st ? 1 : 0;
}

int cmd_cooc(int argc, char **argv)
{
    static const struct {
        const char *word, *name;
        int (*run)(int argc, char **argv);
    } sub[] = {{"merge", "dynamo cooc merge", merge}, {"show", "dynamo cooc show", show}};
    for (size_t i = 0; argc > 1 && i < sizeof(sub) / sizeof(sub[0]); i++)
        if (!strcmp(argv[1], sub[i].word)) {
            char name[32];
            snprintf(name, sizeof(name), "%s", sub[i].name);
            argv[1] = name; // argp's messages and ours begin with it
            return sub[i].run(argc - 1, argv + 1);
        }
    return count(argc, argv);
}
