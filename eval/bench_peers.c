/* SPDX-License-Identifier: MIT */
/* bench_peers.c - figures of other programs: built-in ones of one machine, or a user's own files.
 *
 * A file is a JSON list; docs/performance.md describes its members. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/bench_impl.h"
#include "src/base/arena.h"
#include "src/base/json.h"

static const char *const job_words[] = {"decode", "heads", "whole"};
enum { N_JOBS = sizeof(job_words) / sizeof(*job_words) };

/* 2 cores of an AMD EPYC (Zen 4, avx512_bf16), 24 GB, Debian 12. Decoding: llama.cpp of August
 * 2026, native build, random weights, 256 tokens of context. Training, batch 4 x 512: the faster of
 * PyTorch 1.13's bf16 autocast and (heads) a stem kept in bf16, 2 threads. Medians. */
#define MACHINE "AMD EPYC"
#define PEER(size, who, job, fmt, threads, t, mb)                      \
    {                                                                  \
        size, who, MACHINE, "", job, fmt, threads, {(t), (t), (t)}, mb \
    }
#define LLAMA(size, bf16_1, bf16_2, q8_1, q8_2, q4_1, q4_2)                           \
    PEER(size, "llama.cpp BF16", DM_BENCH_JOB_DECODE, DM_FMT_BF16, 1, bf16_1, 0),     \
        PEER(size, "llama.cpp BF16", DM_BENCH_JOB_DECODE, DM_FMT_BF16, 2, bf16_2, 0), \
        PEER(size, "llama.cpp Q8_0", DM_BENCH_JOB_DECODE, DM_FMT_INT8, 1, q8_1, 0),   \
        PEER(size, "llama.cpp Q8_0", DM_BENCH_JOB_DECODE, DM_FMT_INT8, 2, q8_2, 0),   \
        PEER(size, "llama.cpp Q4_0", DM_BENCH_JOB_DECODE, DM_FMT_INT4, 1, q4_1, 0),   \
        PEER(size, "llama.cpp Q4_0", DM_BENCH_JOB_DECODE, DM_FMT_INT4, 2, q4_2, 0)
static const struct dm_bench_peer built_in[] = {
    LLAMA("70m", 234, 374, 401, 460, 517, 697),
    LLAMA("160m", 91, 116, 159, 206, 220, 275),
    LLAMA("410m", 36, 52, 51, 71, 76, 111),
    LLAMA("1.4b", 9.4, 15.4, 13.8, 23.0, 24.5, 37.7),
    PEER("70m", "PyTorch 1.13 bf16", DM_BENCH_JOB_HEADS, DM_FMT_BF16, 2, 656, 2100),
    PEER("160m", "PyTorch 1.13 bf16", DM_BENCH_JOB_HEADS, DM_FMT_BF16, 2, 434, 2700),
    PEER("70m", "PyTorch 1.13 bf16", DM_BENCH_JOB_WHOLE, DM_FMT_BF16, 2, 646, 3300),
};

static enum dm_status read_word(const json_t *obj, const char *key, const char *const *words,
                                size_t n, const char *where, size_t *out, struct dm_err *e)
{
    const char *s = NULL;
    DM_TRY(dm_json_string(obj, key, true, where, &s, e));
    for (size_t i = 0; i < n; i++)
        if (strcmp(words[i], s) == 0) {
            *out = i;
            return DM_OK;
        }
    return dm_fail(e, DM_EFORMAT, "%s: \"%s\" is \"%.40s\", want one of %s to %s", where, key, s,
                   words[0], words[n - 1]);
}

static enum dm_status read_text(char *out, size_t room, const json_t *obj, const char *key,
                                bool required, const char *where, struct dm_err *e)
{
    const char *s = "";
    DM_TRY(dm_json_string(obj, key, required, where, &s, e));
    snprintf(out, room, "%s", s);
    return DM_OK;
}

static enum dm_status read_rate(struct dm_bench_spread *s, const json_t *obj, const char *where,
                                struct dm_err *e)
{
    const json_t *list = json_object_get(obj, "tokens_per_s");
    double x[3];
    bool good = json_is_array(list) && json_array_size(list) == 3;
    for (size_t i = 0; i < 3 && good; i++) {
        x[i] = json_number_value(json_array_get(list, i));
        good = x[i] > 0.0 && isfinite(x[i]) && (i == 0 || x[i] >= x[i - 1]);
    }
    if (!good)
        return dm_fail(e, DM_EFORMAT,
                       "%s: \"tokens_per_s\" is no list [min, median, max] of numbers above 0",
                       where);
    *s = (struct dm_bench_spread){x[0], x[1], x[2]};
    return DM_OK;
}

static enum dm_status read_peer(struct dm_bench_peer *p, const json_t *obj, const char *where,
                                struct dm_err *e)
{
    size_t job = 0, fmt = 0;
    if (!json_is_object(obj))
        return dm_fail(e, DM_EFORMAT, "%s is of type %s, want object", where, dm_json_type(obj));
    DM_TRY(read_text(p->who, sizeof(p->who), obj, "peer", true, where, e));
    DM_TRY(read_text(p->size, sizeof(p->size), obj, "size", true, where, e));
    DM_TRY(read_text(p->machine, sizeof(p->machine), obj, "machine", false, where, e));
    DM_TRY(read_word(obj, "job", job_words, N_JOBS, where, &job, e));
    DM_TRY(read_word(obj, "format", dm_bench_formats, DM_BENCH_FORMATS, where, &fmt, e));
    DM_TRY(dm_json_size(obj, "threads", 1, 1024, true, where, &p->threads, e));
    DM_TRY(dm_json_number(obj, "peak_mb", false, where, &p->peak_mb, e));
    p->job = (enum dm_bench_job)job;
    p->fmt = (enum dm_format)fmt;
    return read_rate(&p->tokens_per_s, obj, where, e);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static enum dm_status add_list(struct dm_bench *b, const json_t *list, const char *path,
                               struct dm_err *e)
{
    char where[300];
    if (!json_is_array(list))
        return dm_fail(e, DM_EFORMAT, "%s: is of type %s, want a list of peers", path,
                       dm_json_type(list));
    const size_t n = json_array_size(list);
    struct dm_bench_peer *p = dm_realloc(b->peers, b->n_peers + n + 1, sizeof(*p));
    if (!p)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    b->peers = p;
    for (size_t i = 0; i < n; i++) {
        p = &b->peers[b->n_peers];
        *p = (struct dm_bench_peer){0};
        snprintf(where, sizeof(where), "%s: peer %zu", path, i + 1);
        DM_TRY(read_peer(p, json_array_get(list, i), where, e));
        snprintf(p->file, sizeof(p->file), "%s", base_name(path));
        b->n_peers++;
    }
    return DM_OK;
}

enum dm_status dm_bench_read_peers(struct dm_bench *b, struct dm_err *e)
{
    if (b->opt.n_peers > DM_BENCH_PEER_FILES)
        return dm_fail(e, DM_ERANGE, "%zu files of peers, want at most %d", b->opt.n_peers,
                       DM_BENCH_PEER_FILES);
    for (size_t i = 0; i < b->opt.n_peers; i++) {
        json_t *root;
        DM_TRY(dm_json_read(b->opt.peers[i], 1 << 20, &root, e));
        const enum dm_status st = add_list(b, root, b->opt.peers[i], e);
        json_decref(root);
        DM_TRY(st);
    }
    return DM_OK;
}

const struct dm_bench_peer *dm_bench_peers(const struct dm_bench *b, size_t *n)
{
    *n = b->opt.n_peers ? b->n_peers : sizeof(built_in) / sizeof(*built_in);
    return b->opt.n_peers ? b->peers : built_in;
}
