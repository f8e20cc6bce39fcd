/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe_train.h"
#include "data/cmd_text.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/base/progress.h"
#include "src/base/stop.h"
#include "src/cmd.h"

struct options {
    struct dm_text_args text;
    size_t vocab;
    uint64_t min_count;
    const char *out;
};

enum { KEY_MIN_COUNT = 256, BLOCK = 1 << 18 };

static const struct argp_option option_table[] = {
    {"vocab", 'v', "N", 0, "Tokens of the vocabulary, at least 258 (default 8192)", 0},
    {"output", 'o', "FILE", 0, "The tokenizer.json to write (required)", 0},
    {"min-count", KEY_MIN_COUNT, "N", 0, "Merge only pairs that occur N times (default 2)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case ARGP_KEY_INIT:
        s->child_inputs[0] = &o->text;
        return 0;
    case 'v':
        o->vocab = dm_opt_size(s, "--vocab", arg, DM_BPE_MIN_VOCAB, 1u << 20);
        return 0;
    case 'o':
        o->out = arg;
        return 0;
    case KEY_MIN_COUNT:
        o->min_count = dm_opt_u64(s, "--min-count", arg);
        return 0;
    case ARGP_KEY_END:
        if (!o->out)
            argp_error(s, "-o FILE is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static size_t cut(const void *ctx, const char *text, size_t n)
{
    return dm_bpe_train_cut(ctx, text, n);
}

static enum dm_status count_block(struct dm_bpe_train *b, struct dm_block *block, struct dm_err *e)
{
    const char *text;
    size_t n;
    bool end;
    DM_TRY(dm_block_next(block, &text, &n, &end, e));
    while (text) {
        DM_TRY(dm_bpe_train_add(b, text, n, e));
        DM_TRY(dm_block_next(block, &text, &n, &end, e));
    }
    return DM_OK;
}

static enum dm_status count_file(struct dm_bpe_train *b, const struct options *o, const char *path,
                                 struct dm_progress *p, double *before, struct dm_err *e)
{
    struct dm_reader *r;
    struct dm_block block = {0};
    bool more = true;
    enum dm_status st;
    DM_TRY(dm_reader_open(&r, path, &o->text.reader, e));
    for (;;) {
        DM_TRY_GOTO(dm_reader_block(r, cut, b, BLOCK, &block, &more, e));
        if (!more)
            break;
        DM_TRY_GOTO(dm_stop_requested() ? dm_fail(e, DM_ESTOPPED, "stopped by a signal") : DM_OK);
        DM_TRY_GOTO(count_block(b, &block, e));
        dm_progress_set(p, *before + (double)dm_reader_consumed(r), NULL);
    }
    *before += (double)dm_reader_consumed(r);
done:
    dm_block_release(&block);
    dm_reader_close(r);
    return st;
}

static void show_merges(void *ctx, size_t tokens)
{
    dm_progress_set(ctx, (double)tokens, NULL);
}

static enum dm_status train(struct options *o, struct dm_bpe_stats *stats, struct dm_err *e)
{
    const struct dm_files *f = &o->text.files;
    struct dm_bpe_train *b;
    struct dm_progress p;
    json_t *root = NULL;
    double before = 0.0;
    enum dm_status st = DM_OK;
    DM_TRY(dm_text_files(&o->text, o->out, e));
    DM_TRY(dm_bpe_train_new(&b, e));
    dm_progress_init(&p, "counting words", "bytes",
                     (double)dm_reader_total((const char *const *)f->path, f->n));
    for (size_t i = 0; !st && i < f->n; i++)
        st = count_file(b, o, f->path[i], &p, &before, e);
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
    if (o->text.json)
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
        "or .jsonl, also with .gz or .zst; a folder stands for all such files below it, - is "
        "standard input.\n\nExample: dynamo "
        "tokenizer-train book.txt.gz --vocab 8192 -o tokenizer.json",
        dm_text_children,
        NULL,
        NULL};
    struct options o = {.vocab = 8192, .min_count = 2};
    struct dm_bpe_stats stats;
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    dm_stop_install();
    const enum dm_status st = train(&o, &stats, &e);
    dm_files_release(&o.text.files);
    if (st) {
        fprintf(stderr, "dynamo tokenizer-train: %s\n", e.msg);
        return 1;
    }
    report(&o, &stats);
    return 0;
}
