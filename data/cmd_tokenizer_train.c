/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe_train.h"
#include "data/reader.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/progress.h"
#include "src/cmd.h"

struct options {
    const char **files;
    size_t n_files, vocab;
    uint64_t min_count;
    const char *out;
    struct dm_reader_opt reader;
    bool json;
};

enum { KEY_MIN_COUNT = 256, KEY_FIELD, KEY_FORMAT, KEY_JSON };

static const char *const formats[] = {"auto", "text", "jsonl", NULL};

static const struct argp_option option_table[] = {
    {"vocab", 'v', "N", 0, "Tokens of the vocabulary, at least 258 (default 8192)", 0},
    {"output", 'o', "FILE", 0, "The tokenizer.json to write (required)", 0},
    {"min-count", KEY_MIN_COUNT, "N", 0, "Merge only pairs that occur N times (default 2)", 0},
    {"field", KEY_FIELD, "NAME", 0, "Field of JSONL lines that holds the text (default text)", 0},
    {"format", KEY_FORMAT, "KIND", 0, "auto (by name), text or jsonl (default auto)", 0},
    {"json", KEY_JSON, NULL, 0, "Report as one line of JSON", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case 'v':
        o->vocab = dm_opt_size(s, "--vocab", arg, DM_BPE_MIN_VOCAB, 1u << 20);
        return 0;
    case 'o':
        o->out = arg;
        return 0;
    case KEY_MIN_COUNT:
        o->min_count = dm_opt_u64(s, "--min-count", arg);
        return 0;
    case KEY_FIELD:
        o->reader.field = arg;
        return 0;
    case KEY_FORMAT:
        o->reader.format = (enum dm_reader_format)dm_opt_word(s, "--format", arg, formats);
        return 0;
    case KEY_JSON:
        o->json = true;
        return 0;
    case ARGP_KEY_ARGS:
        o->files = (const char **)s->argv + s->next;
        o->n_files = (size_t)(s->argc - s->next);
        return 0;
    case ARGP_KEY_END:
        if (!o->n_files)
            argp_error(s, "no text file given");
        if (!o->out)
            argp_error(s, "-o FILE is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static enum dm_status count_file(struct dm_bpe_train *b, const struct options *o, const char *path,
                                 struct dm_progress *p, double *before, struct dm_err *e)
{
    struct dm_reader *r;
    const char *text;
    size_t n;
    enum dm_status st;
    DM_TRY(dm_reader_open(&r, path, &o->reader, e));
    while (!(st = dm_reader_next(r, &text, &n, e)) && text) {
        st = dm_bpe_train_add(b, text, n, e);
        if (st)
            break;
        dm_progress_set(p, *before + (double)dm_reader_consumed(r), NULL);
    }
    *before += (double)dm_reader_consumed(r);
    dm_reader_close(r);
    return st;
}

static void show_merges(void *ctx, size_t tokens)
{
    dm_progress_set(ctx, (double)tokens, NULL);
}

static enum dm_status train(const struct options *o, struct dm_bpe_stats *stats, struct dm_err *e)
{
    struct dm_bpe_train *b;
    struct dm_progress p;
    json_t *root = NULL;
    double before = 0.0;
    enum dm_status st = DM_OK;
    DM_TRY(dm_bpe_train_new(&b, e));
    dm_progress_init(&p, "counting words", "bytes", (double)dm_reader_total(o->files, o->n_files));
    for (size_t i = 0; !st && i < o->n_files; i++)
        st = count_file(b, o, o->files[i], &p, &before, e);
    dm_progress_end(&p);
    if (st)
        goto done;
    dm_progress_init(&p, "merging", "tokens", (double)o->vocab);
    st = dm_bpe_train_finish(b, o->vocab, o->min_count, show_merges, &p, &root, stats, e);
    dm_progress_end(&p);
    if (!st)
        st = dm_json_write(o->out, root, e);
done:
    json_decref(root);
    dm_bpe_train_free(b);
    return st;
}

static void report(const struct options *o, const struct dm_bpe_stats *s)
{
    if (o->json)
        dm_json_print(json_pack("{s:s, s:I, s:I, s:I, s:I}", "output", o->out, "vocab",
                                (json_int_t)s->vocab, "merges", (json_int_t)s->merges, "words",
                                (json_int_t)s->words, "distinct_words", (json_int_t)s->distinct));
    else
        printf("%s: %zu tokens, %zu merges from %llu words (%llu distinct)\n", o->out, s->vocab,
               s->merges, (unsigned long long)s->words, (unsigned long long)s->distinct);
    if (s->vocab < o->vocab)
        fprintf(stderr, "dynamo tokenizer-train: the text gave only %zu of %zu tokens\n", s->vocab,
                o->vocab);
}

int cmd_tokenizer_train(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        "FILE...",
        "Learn a byte-level BPE from text and write a tokenizer.json that Hugging Face's "
        "tokenizers "
        "and this program read alike."
        "\v<|endoftext|> is token 0, <|padding|> token 1, then the 256 bytes, so that no text is "
        "lost, then one token for each merge. Among pairs that occur equally often the one with "
        "the smaller ids is merged first, so the result depends on the text alone. Files are .txt "
        "or .jsonl, also with .gz or .zst; - is standard input.\n\nExample: dynamo "
        "tokenizer-train book.txt.gz --vocab 8192 -o tokenizer.json",
        NULL,
        NULL,
        NULL};
    struct options o = {.vocab = 8192, .min_count = 2};
    struct dm_bpe_stats stats;
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (train(&o, &stats, &e)) {
        fprintf(stderr, "dynamo tokenizer-train: %s\n", e.msg);
        return 1;
    }
    report(&o, &stats);
    return 0;
}
