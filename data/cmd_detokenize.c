/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/tokenize.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/cmd.h"
#include "src/io/tokenizer_text.h"

struct options {
    const char *tokenizer, *file;
    bool jsonl, one;
    uint64_t document; /* the only one wanted, if `one` */
    uint64_t printed;
};

enum { KEY_DOCUMENT = 256, KEY_JSONL };

static const struct argp_option option_table[] = {
    {"tokenizer", 't', "FILE", 0,
     "A tokenizer.json, or a model or shard of ours that carries one (default: the shard's own)",
     0},
    {"document", KEY_DOCUMENT, "N", 0, "Only document N, counted from 0 (default: all)", 0},
    {"jsonl", KEY_JSONL, NULL, 0, "One line {\"text\": ...} for each document", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case 't':
        o->tokenizer = arg;
        return 0;
    case KEY_DOCUMENT:
        o->document = dm_opt_u64(s, "--document", arg);
        o->one = true;
        return 0;
    case KEY_JSONL:
        o->jsonl = true;
        return 0;
    case ARGP_KEY_ARG:
        dm_opt_once(s, "file", &o->file, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static enum dm_status print_jsonl(const char *text, size_t n, struct dm_err *e)
{
    struct dm_bytes buf = {0};
    const uint8_t *s;
    // Ids in any order may give bytes that are not UTF-8, which JSON cannot hold.
    enum dm_status st = dm_text_clean(text, n, &buf, &s, &n, e);
    if (!st)
        dm_json_print(json_pack("{s:o}", "text", json_stringn((const char *)s, n)));
    dm_bytes_release(&buf);
    return st;
}

/* Document `number`: written if it is wanted. */
static enum dm_status put(struct options *o, const struct dm_tokenizer *t, uint64_t number,
                          const struct dm_ids *ids, struct dm_err *e)
{
    char *text;
    size_t n;
    if (o->one && number != o->document)
        return DM_OK;
    DM_TRY(dm_tokenizer_decode(t, ids->id, ids->n, &text, &n, e));
    enum dm_status st = DM_OK;
    if (o->jsonl) {
        st = print_jsonl(text, n, e);
    } else {
        if (o->printed)
            putchar('\n');
        fwrite(text, 1, n, stdout);
    }
    o->printed++;
    free(text);
    if (!st && ferror(stdout))
        st = dm_fail_errno(e, "cannot write to standard output");
    return st;
}

static enum dm_status from_shard(struct options *o, const struct dm_tokenizer *t, struct dm_err *e)
{
    struct dm_shard *s;
    struct dm_shard_walk w = {0};
    enum dm_status st = DM_OK;
    bool more = true;
    DM_TRY(dm_shard_open(&s, o->file, e));
    if (strcmp(dm_shard_tokenizer_hash(s), dm_tokenizer_hash(t)))
        st = dm_fail(e, DM_EMISMATCH, "%s was made with another tokenizer than %s", o->file,
                     o->tokenizer);
    for (uint64_t i = 0; !st && more; i++) {
        st = dm_shard_walk_next(&w, s, &more, e);
        if (!st && more)
            st = put(o, t, i, &w.ids, e);
    }
    dm_shard_walk_release(&w);
    dm_shard_close(s);
    return st;
}

/* The ids of one line of text; *end at the end of the file. */
static enum dm_status read_line(FILE *f, const struct options *o, size_t vocab, uint64_t line,
                                struct dm_ids *ids, bool *end, struct dm_err *e)
{
    int c;
    bool any = false;
    ids->n = 0;
    while ((c = getc_unlocked(f)) != EOF && c != '\n') {
        any = true;
        if (c == ' ' || c == '\t' || c == '\r')
            continue;
        size_t id = 0;
        for (; c >= '0' && c <= '9' && id < vocab; c = getc_unlocked(f))
            id = 10 * id + (size_t)(c - '0');
        if (id >= vocab)
            return dm_fail(e, DM_ERANGE,
                           "%s, line %llu: id %zu is not below %zu, the tokenizer's size", o->file,
                           (unsigned long long)line, id, vocab);
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n' && c != EOF)
            return dm_fail(e, DM_EFORMAT, "%s, line %llu: found \"%c\", want token ids", o->file,
                           (unsigned long long)line, c >= ' ' && c < 127 ? c : '?');
        DM_TRY(dm_ids_push(ids, (int32_t)id, e));
        ungetc(c, f);
    }
    *end = c == EOF && !any;
    return ferror(f) ? dm_fail_errno(e, "%s: cannot read", o->file) : DM_OK;
}

static enum dm_status from_text(struct options *o, const struct dm_tokenizer *t, struct dm_err *e)
{
    struct dm_ids ids = {0};
    enum dm_status st = DM_OK;
    bool end = false;
    const bool standard = !strcmp(o->file, "-");
    FILE *f = standard ? stdin : fopen(o->file, "rb");
    if (!f)
        return dm_fail_errno(e, "%s: cannot open", o->file);
    for (uint64_t i = 0; !st; i++) {
        st = read_line(f, o, dm_tokenizer_size(t), i + 1, &ids, &end, e);
        if (end || st)
            break;
        st = put(o, t, i, &ids, e);
    }
    if (!standard)
        fclose(f);
    dm_ids_release(&ids);
    return st;
}

static enum dm_status detokenize(struct options *o, struct dm_err *e)
{
    struct dm_tokenizer *t;
    const bool shard = dm_file_is_h5(o->file);
    if (!o->tokenizer)
        o->tokenizer = o->file;
    DM_TRY(dm_tokenizer_load(&t, o->tokenizer, e));
    enum dm_status st = shard ? from_shard(o, t, e) : from_text(o, t, e);
    dm_tokenizer_free(t);
    if (!st && o->one && !o->printed)
        st = dm_fail(e, DM_ERANGE, "%s has no document %llu", o->file,
                     (unsigned long long)o->document);
    return st;
}

int cmd_detokenize(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        "[FILE]",
        "Turn token ids back into text: a shard, or lines of ids as tokenize --print gives them."
        "\vFILE is - (standard input) by default. Documents are separated by a newline; one alone "
        "comes out exactly as it went into tokenize (in Unicode's NFC).\n\nExamples:\n"
        "  dynamo detokenize --document 0 corpus.h5\n"
        "  dynamo tokenize -t T --print book.txt | dynamo detokenize -t T",
        NULL,
        NULL,
        NULL};
    struct options o = {0};
    struct dm_err e;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (!o.file)
        o.file = "-";
    if (!o.tokenizer && !dm_file_is_h5(o.file)) {
        if (dm_file_check_inputs(&o.file, 1, &e)) {
            fprintf(stderr, "%s: %s\n", argv[0], e.msg);
            return 1;
        }
        fprintf(stderr, "%s: --tokenizer FILE is missing: %s is no shard that carries one\n",
                argv[0], o.file);
        return 2;
    }
    if (detokenize(&o, &e)) {
        fprintf(stderr, "dynamo detokenize: %s\n", e.msg);
        return 1;
    }
    return 0;
}
