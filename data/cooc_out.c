/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/cooc_impl.h"
#include "data/cooc_write.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/par.h"
#include "src/io/cooc.h"
#include "src/io/h5.h"

/* What the process takes besides the counter: program, libraries, HDF5 and the writer. */
#define RESERVE ((size_t)40 << 20)
#define TRIES 8u /* tables written to meet a budget */

/* Checks the options; all of *j is then valid for release(). */
static enum dm_status init(struct dm_cooc_job *j, struct dm_err *e)
{
    const struct dm_cooc_opt *o = j->o;
    bool counts = true;
    for (size_t i = 0; i < DM_NGRAM_ORDER_MAX - 1; i++)
        counts &= o->rule.min_count[i] >= 1 && o->rule.min_count[i] <= UINT32_MAX;
    if (!o->n_inputs || o->order < 2 || o->order > DM_NGRAM_ORDER_MAX || !counts)
        return dm_fail(e, DM_ERANGE,
                       "%zu inputs, order %zu, minimum counts %" PRIu64 ", %" PRIu64 " and %" PRIu64
                       ": want at least one input, order 2 to 4, counts from 1",
                       o->n_inputs, o->order, o->rule.min_count[0], o->rule.min_count[1],
                       o->rule.min_count[2]);
    if (o->memory < DM_COOC_MIN_MEMORY)
        return dm_fail(e, DM_ERANGE, "memory is %zu bytes, want at least %zu", o->memory,
                       DM_COOC_MIN_MEMORY);
    j->src = dm_alloc(o->n_inputs, sizeof(*j->src));
    return j->src ? DM_OK : dm_fail(e, DM_ENOMEM, "no memory for %zu inputs", o->n_inputs);
}

static void release(struct dm_cooc_job *j)
{
    if (j->candidate)
        unlink(j->candidate); // gone already after a success
    dm_ngram_free(j->g);
    free(j->candidate);
    free(j->src);
    free(j->tokenizer);
    free(j->provenance);
}

enum dm_status dm_cooc_job_input(struct dm_cooc_job *j, const char *path, size_t V, size_t order,
                                 const char *tokenizer_hash, uint64_t tokens, struct dm_err *e)
{
    struct dm_cooc_source *s = &j->src[j->n];
    const char *first = j->o->inputs[0];
    if (!j->n) {
        j->V = V;
        j->order = order;
        snprintf(j->tokenizer_hash, sizeof(j->tokenizer_hash), "%s", tokenizer_hash);
    }
    if (strcmp(tokenizer_hash, j->tokenizer_hash))
        return dm_fail(e, DM_EMISMATCH, "%s: made with tokenizer %.12s, but %s with %.12s", path,
                       tokenizer_hash, first, j->tokenizer_hash);
    if (V != j->V || order != j->order)
        return dm_fail(e, DM_EMISMATCH,
                       "%s: has a vocabulary of %zu ids and order %zu, but %s one of %zu and order "
                       "%zu",
                       path, V, order, first, j->V, j->order);
    *s = (struct dm_cooc_source){.path = path, .tokens = tokens};
    j->s->tokens += tokens;
    j->n++;
    return DM_OK;
}

static int by_hash(const void *a, const void *b)
{
    const struct dm_cooc_source *p = a, *q = b;
    const int c = strcmp(p->hash, q->hash);
    return c ? c : strcmp(p->path, q->path);
}

/* The tokenizer's JSON from the first input that carries it, so that the table explains itself. */
static enum dm_status read_tokenizer(struct dm_cooc_job *j, struct dm_err *e)
{
    for (size_t i = 0; i < j->n && !j->tokenizer; i++) {
        struct dm_h5 *f;
        DM_TRY(dm_h5_open(&f, j->src[i].path, NULL, SIZE_MAX, e));
        const enum dm_status st = dm_h5_has_attr(f, "/", "tokenizer")
                                      ? dm_h5_get_string(f, "/", "tokenizer", &j->tokenizer, e)
                                      : DM_OK;
        dm_h5_close(f);
        DM_TRY(st);
    }
    return DM_OK;
}

/* A part of the files on each process. */
static enum dm_status hash_all(struct dm_cooc_job *j, struct dm_err *e)
{
    char(*hex)[DM_HASH_LEN + 1] = dm_alloc(j->n, sizeof(*hex));
    if (!hex)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu inputs", j->n);
    const enum dm_status st = dm_ranks_hash(j->o->ranks, j->o->inputs, j->n, hex, e);
    for (size_t i = 0; i < j->n && !st; i++)
        memcpy(j->src[i].hash, hex[i], sizeof(hex[i]));
    free(hex);
    return st;
}

/* A counter with what the memory leaves for it. */
static enum dm_status counter(struct dm_cooc_job *j, struct dm_err *e)
{
    const size_t reading = j->kind->reading + j->kind->a_thread * dm_par_threads();
    const size_t other = RESERVE + reading + 2 * (j->tokenizer ? strlen(j->tokenizer) : 0);
    if (other > j->o->memory)
        return dm_fail(e, DM_ERANGE, "memory is %zu bytes, want more than the %zu for reading",
                       j->o->memory, other);
    return dm_ngram_new(&j->g, j->V, j->order, j->o->memory - other, j->o->out, e);
}

/* ---- The file ------------------------------------------------------------------------------ */

static json_t *sources(const struct dm_cooc_job *j)
{
    json_t *list = json_array();
    for (size_t i = 0; i < j->n; i++) {
        const char *slash = strrchr(j->src[i].path, '/');
        json_t *one = json_pack("{s:s, s:s}", "name", slash ? slash + 1 : j->src[i].path, "sha256",
                                j->src[i].hash);
        if (one && j->src[i].tokens)
            json_object_set_new(one, "tokens", json_integer((json_int_t)j->src[i].tokens));
        json_array_append_new(list, one);
    }
    return list;
}

/* What would change between machines or runs (times, threads, directories, the order of arguments)
 * stays out. */
static enum dm_status describe(struct dm_cooc_job *j, const struct dm_cooc_rule *rule,
                               struct dm_err *e)
{
    static const char text[] =
        "n-grams that occur min_count times and whose score, count or weight = |log r_n| * count, "
        "is at least min_score, and those that begin a kept one; min_score is raised for max_bytes";
    const struct dm_cooc_rule *asked = &j->o->rule;
    json_t *root = json_pack(
        "{s:s, s:s, s:I, s:o, s:{s:s, s:[I,I,I], s:s, s:f, s:f, s:I}}", "program",
        "dynamo " DM_VERSION, "command", j->kind->command, "order", (json_int_t)j->order, "inputs",
        sources(j), "pruning", "rule", text, "min_count", (json_int_t)rule->min_count[0],
        (json_int_t)rule->min_count[1], (json_int_t)rule->min_count[2], "score",
        rule->by_weight ? "weight" : "count", "min_score", rule->min_score, "asked_min_score",
        asked->min_score, "max_bytes", (json_int_t)j->o->max_bytes);
    free(j->provenance);
    j->provenance = root ? dm_json_text(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return j->provenance ? DM_OK
                         : dm_fail(e, DM_ENOMEM,
                                   "%s: cannot describe the inputs: a name is not UTF-8 or memory "
                                   "is short",
                                   j->o->out);
}

static enum dm_status fill(struct dm_cooc_job *j, struct dm_h5 *f, const struct dm_cooc_rule *rule,
                           struct dm_err *e)
{
    DM_TRY(dm_cooc_write(f, j->g, rule, j->s->tally, e));
    DM_TRY(dm_h5_set_string(f, "/", "tokenizer_hash", j->tokenizer_hash, e));
    if (j->tokenizer)
        DM_TRY(dm_h5_set_string(f, "/", "tokenizer", j->tokenizer, e));
    return dm_h5_set_string(f, "/", "provenance", j->provenance, e);
}

static enum dm_status write_table(struct dm_cooc_job *j, const char *path,
                                  const struct dm_cooc_rule *rule, size_t *bytes, struct dm_err *e)
{
    struct dm_h5 *f;
    struct stat file;
    DM_TRY(describe(j, rule, e));
    DM_TRY(dm_h5_create(&f, path, DM_COOC_FORMAT, DM_COOC_VERSION, e));
    if (j->progress)
        dm_progress_init(j->progress, "writing", "%", 100.0);
    dm_ngram_show(j->g, j->progress);
    const enum dm_status st = fill(j, f, rule, e);
    if (j->progress)
        dm_progress_end(j->progress);
    if (st) {
        dm_h5_close(f);
        return st;
    }
    DM_TRY(dm_h5_commit(f, e));
    if (stat(path, &file))
        return dm_fail_errno(e, "%s", path);
    *bytes = (size_t)file.st_size;
    j->s->rule = *rule;
    return DM_OK;
}

/* The lowest step from which on no more than n n-grams are left. */
static size_t step_for(const struct dm_cooc_histogram *h, double n)
{
    size_t i = 0;
    while (i + 1 < DM_COOC_SCORES && (double)h->n[i] > n)
        i++;
    return i;
}

/* A table that was written: the step of its minimum score, and its bytes. */
struct tried {
    size_t step, bytes;
};

static enum dm_status try_step(struct dm_cooc_job *j, size_t step, struct tried *t,
                               struct dm_err *e)
{
    struct dm_cooc_rule rule = j->o->rule;
    rule.min_score = fmax(dm_cooc_histogram_at(step), rule.min_score);
    t->step = step;
    return write_table(j, j->candidate, &rule, &t->bytes, e);
}

/* How many bytes an n-gram takes changes with pruning, and some are kept for others' sake, so
 * tables are written under another name: the bytes of one that fits and of one that does not tell
 * what to try between them. */
static enum dm_status search(struct dm_cooc_job *j, struct tried large, struct dm_cooc_histogram *h,
                             struct dm_err *e)
{
    const double budget = (double)j->o->max_bytes;
    struct tried t, fits;
    DM_TRY(try_step(j, DM_COOC_SCORES - 1, &fits, e));
    if ((double)fits.bytes > budget)
        return dm_fail(e, DM_ERANGE,
                       "%s: takes %zu bytes even without any pair, which is more than the size "
                       "budget of %zu",
                       j->o->out, fits.bytes, j->o->max_bytes);
    DM_TRY(dm_cooc_count_scores(h, j->g, &j->o->rule, e));
    t = fits;
    for (size_t i = 0; i < TRIES && fits.step - large.step > 1; i++) {
        const double least = (double)h->n[fits.step], most = (double)h->n[large.step];
        const double share = (0.99 * budget - (double)fits.bytes) /
                             (double)(large.bytes - fits.bytes);
        size_t step = step_for(h, least + share * (most - least));
        if (step <= large.step)
            step = large.step + 1;
        if (step >= fits.step)
            step = large.step + (fits.step - large.step) / 2;
        DM_TRY(try_step(j, step, &t, e));
        *((double)t.bytes <= budget ? &fits : &large) = t;
        if ((double)fits.bytes > 0.98 * budget)
            break;
    }
    return t.step == fits.step ? DM_OK : try_step(j, fits.step, &fits, e);
}

static enum dm_status meet_budget(struct dm_cooc_job *j, struct dm_err *e)
{
    struct tried all;
    j->candidate = dm_file_tmp_name(j->o->out);
    if (!j->candidate)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", j->o->out);
    DM_TRY(try_step(j, 0, &all, e));
    if (all.bytes > j->o->max_bytes) {
        struct dm_cooc_histogram *h = dm_alloc(1, sizeof(*h));
        const enum dm_status st = h ? search(j, all, h, e)
                                    : dm_fail(e, DM_ENOMEM, "%s: out of memory", j->o->out);
        free(h);
        DM_TRY(st);
    }
    return dm_file_publish(j->candidate, j->o->out, e);
}

/* Prunes, writes and publishes the table, and fills the statistics. */
static enum dm_status publish(struct dm_cooc_job *j, double start, struct dm_err *e)
{
    struct dm_cooc_stats *s = j->s;
    struct stat file;
    size_t bytes;
    const double counted = dm_now();
    DM_TRY(j->o->max_bytes ? meet_budget(j, e) : write_table(j, j->o->out, &j->o->rule, &bytes, e));
    s->order = j->order;
    s->file_bytes = stat(j->o->out, &file) ? 0 : (size_t)file.st_size;
    s->peak_memory = dm_ngram_peak(j->g);
    s->spilled = dm_ngram_spilled(j->g);
    s->count_seconds = counted - start;
    s->write_seconds = dm_now() - counted;
    return DM_OK;
}

static enum dm_status prepare(struct dm_cooc_job *j, struct dm_err *e)
{
    DM_TRY(dm_file_check_output(j->o->out, j->o->inputs, j->o->n_inputs, e));
    DM_TRY(init(j, e));
    DM_TRY(j->kind->survey(j, e));
    DM_TRY(hash_all(j, e));
    qsort(j->src, j->n, sizeof(*j->src), by_hash); // the order given leaves no trace
    DM_TRY(read_tokenizer(j, e));
    return counter(j, e);
}

static enum dm_status count(struct dm_cooc_job *j, struct dm_err *e)
{
    DM_TRY(j->kind->count(j, e));
    return dm_ngram_finish(j->g, e);
}

enum dm_status dm_cooc_job_run(const struct dm_cooc_opt *o, struct dm_progress *progress,
                               struct dm_cooc_stats *s, const struct dm_cooc_kind *kind,
                               struct dm_err *e)
{
    struct dm_cooc_job j = {.o = o, .progress = progress, .s = s, .kind = kind};
    const double start = dm_now();
    *s = (struct dm_cooc_stats){0};
    enum dm_status st = dm_ranks_agree(o->ranks, prepare(&j, e), e);
    if (!st)
        st = dm_cooc_job_join(&j, count(&j, e), e);
    if (!st && dm_ranks_first(o->ranks))
        st = publish(&j, start, e);
    release(&j);
    return dm_ranks_agree(o->ranks, st, e);
}
