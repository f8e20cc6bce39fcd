/* SPDX-License-Identifier: MIT */
/* Tokenizing in memory on one thread: one JSON line per input with the least, median and largest
 * rate of 5 runs in MB of text per second.
 *
 *   bench_tokenize [TOKENIZER [FILE...]]
 *
 * Prose comes from the files in pieces of 256 KiB, each with a fresh and with a kept encoder;
 * without files, only the hostile inputs run: 64 kB to 4 MB of one kind, whose rates are equal when
 * the time is linear. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"
#include "src/base/arena.h"
#include "src/base/progress.h"
#include "src/base/rng.h"
#include "src/io/tokenizer.h"

enum { RUNS = 5, PIECE = 1 << 18, MOST = 4096000 };

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum dm_status encode_all(struct dm_encoder *c, const struct dm_tokenizer *t,
                                 const char *text, size_t n, struct dm_ids *ids, struct dm_err *e)
{
    for (size_t i = 0; i < n;) {
        size_t k = n - i;
        if (k > PIECE) {
            const size_t cut = dm_tokenizer_cut(t, text + i, PIECE);
            k = cut ? cut : k;
        }
        ids->n = 0;
        DM_TRY(dm_encoder_encode(c, text + i, k, ids, e));
        i += k;
    }
    return DM_OK;
}

static enum dm_status measure(const char *name, const struct dm_tokenizer *t, const char *text,
                              size_t n, struct dm_err *e)
{
    double rate[RUNS];
    enum dm_status st = DM_OK;
    struct dm_ids ids = {0};
    for (size_t i = 0; !st && i < RUNS; i++) {
        struct dm_encoder *c;
        const double start = dm_now();
        st = dm_encoder_new(&c, t, e);
        if (st)
            break;
        st = encode_all(c, t, text, n, &ids, e);
        rate[i] = (double)n / (dm_now() - start) / 1e6;
        dm_encoder_free(c);
    }
    dm_ids_release(&ids);
    if (st)
        return st;
    qsort(rate, RUNS, sizeof(rate[0]), ascending);
    printf("{\"input\":\"%s\",\"bytes\":%zu,\"seconds\":%.4f,"
           "\"mb_per_second\":{\"min\":%.2f,\"median\":%.2f,\"max\":%.2f}}\n",
           name, n, (double)n / 1e6 / rate[RUNS / 2], rate[0], rate[RUNS / 2], rate[RUNS - 1]);
    fflush(stdout);
    return DM_OK;
}

static enum dm_status prose(const struct dm_tokenizer *t, char **files, size_t n_files,
                            struct dm_err *e)
{
    char *all = NULL;
    size_t total = 0;
    enum dm_status st = DM_OK;
    for (size_t i = 0; !st && i < n_files; i++) {
        struct dm_reader *r;
        const char *text;
        size_t n;
        st = dm_reader_open(&r, files[i], NULL, e);
        if (st)
            break;
        while (!(st = dm_reader_next(r, &text, &n, e)) && text) {
            char *p = dm_realloc(all, total + n + 1, 1);
            if (!p) {
                st = dm_fail(e, DM_ENOMEM, "out of memory");
                break;
            }
            all = p;
            memcpy(all + total, text, n);
            total += n;
        }
        dm_reader_close(r);
    }
    if (!st && total)
        st = measure("prose", t, all, total, e);
    free(all);
    return st;
}

/* One word of letters that look like a language's. */
static void giant_word(char *text, size_t n, struct dm_rng *r)
{
    for (size_t i = 0; i < n; i++)
        text[i] = i % 2 ? "aeiou"[dm_rng_below(r, 5)] : "bcdfghklmnprstvw"[dm_rng_below(r, 16)];
}

static void random_letters(char *text, size_t n, struct dm_rng *r)
{
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + dm_rng_below(r, 26));
}

static void random_bytes(char *text, size_t n, struct dm_rng *r)
{
    for (size_t i = 0; i < n; i++)
        text[i] = (char)dm_rng_below(r, 256);
}

static enum dm_status hostile(const struct dm_tokenizer *t, size_t n, struct dm_err *e)
{
    static const struct {
        const char *name, *unit;
    } units[] = {{"one letter", "a"},       {"spaces", " "},
                 {"newlines", "\n"},        {"apostrophes", "'"},
                 {"digits", "7"},           {"spaces and no-break spaces", " \u00a0"},
                 {"marks", "\u0301\u0323"}, {"bytes ff", "\xff"}};
    static const struct {
        const char *name;
        void (*fill)(char *text, size_t n, struct dm_rng *r);
    } fills[] = {{"giant word", giant_word},
                 {"random letters", random_letters},
                 {"random bytes", random_bytes}};
    enum dm_status st = DM_OK;
    struct dm_rng r;
    char *text = dm_alloc(n, 1);
    if (!text)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_rng_init(&r, 1, 0);
    for (size_t u = 0; !st && u < sizeof(units) / sizeof(units[0]); u++) {
        for (size_t i = 0, k = strlen(units[u].unit); i < n; i++)
            text[i] = units[u].unit[i % k];
        st = measure(units[u].name, t, text, n, e);
    }
    for (size_t u = 0; !st && u < sizeof(fills) / sizeof(fills[0]); u++) {
        fills[u].fill(text, n, &r);
        st = measure(fills[u].name, t, text, n, e);
    }
    free(text);
    return st;
}

int main(int argc, char **argv)
{
    struct dm_tokenizer *t;
    struct dm_err e;
    const char *path = argc > 1 ? argv[1] : "tests/golden/tok_neox.json";
    enum dm_status st = dm_tokenizer_load(&t, path, &e);
    if (!st && argc > 2)
        st = prose(t, argv + 2, (size_t)argc - 2, &e);
    for (size_t n = 64000; !st && n <= MOST; n *= 4)
        st = hostile(t, n, &e);
    if (st)
        fprintf(stderr, "bench_tokenize: %s\n", e.msg);
    dm_tokenizer_free(t);
    return st ? 1 : 0;
}
