/* SPDX-License-Identifier: MIT */
/* bench_decode.c - steps of decoding at 256 tokens of context: one token, chunks, all heads. */
#include <stdlib.h>

#include "eval/bench_impl.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/model/layer.h"

enum { CHUNK_MAX = 4 };

struct decode {
    struct dm_bench *b;
    struct dm_model m;
    enum dm_format fmt;
    struct dm_session *one, *all; /* head 1 alone; all heads, or NULL if there is one */
    size_t context, n_heads;
    size_t bytes, head_bytes; /* that a step of head 1 reads; that the other heads add */
    size_t reps;              /* steps of one timing: some ten milliseconds */
    float *logits;            /* (K,Vp) */
    int32_t *ids;             /* (context + CHUNK_MAX) */
};

static size_t layer_bytes(const struct dm_layer_mats *l, const struct decode *d)
{
    const struct dm_config *c = &d->m.cfg;
    const size_t vectors = 4 * c->C + (c->attn_bias ? 4 * c->C : 0) + c->F + c->C;
    const size_t kv = 2 * d->context * c->C * (d->fmt == DM_FMT_F32 ? 4 : 2);
    return dm_linear_pack_bytes(&l->qkv) + dm_linear_pack_bytes(&l->proj) +
           dm_linear_pack_bytes(&l->up) + dm_linear_pack_bytes(&l->down) + vectors * sizeof(float) +
           kv;
}

/* Everything but the activations, which stay in the caches, and all of the input embedding but one
 * row. */
static void count_bytes(struct decode *d)
{
    const struct dm_config *c = &d->m.cfg;
    d->bytes = dm_linear_pack_bytes(&d->m.mats.unembed) + 3 * c->C * sizeof(float);
    for (size_t l = 0; l < c->L; l++)
        d->bytes += layer_bytes(&d->m.mats.layers[l], d);
    for (size_t h = 0; h < (d->n_heads - 1) * c->D; h++)
        d->head_bytes += layer_bytes(&d->m.mats.heads[h], d);
}

static void step(const struct decode *d, struct dm_session *s, size_t n)
{
    dm_session_step(s, d->ids + d->context, n, d->logits);
    dm_session_reset(s, d->context);
}

/* Brings back into the caches what they hold of the weights while a text is generated. */
static void warm(const struct decode *d)
{
    const double start = dm_now();
    for (size_t i = 0; dm_bench_warm(d->b, d->bytes, i, dm_now() - start); i++)
        step(d, d->all ? d->all : d->one, 1);
}

/* Seconds of a step of n tokens, the mean of d->reps steps from the same context. */
static double time_step(const struct decode *d, struct dm_session *s, size_t n)
{
    step(d, s, n);
    const double t = dm_now();
    for (size_t i = 0; i < d->reps; i++)
        step(d, s, n);
    return (dm_now() - t) / (double)d->reps;
}

/* Seconds, by run: [0] all heads, [n] a chunk of n tokens, in turns; one token behind them, and the
 * probe's GB/s around it. */
struct times {
    double step[CHUNK_MAX + 1][DM_BENCH_RUNS_MAX], one[DM_BENCH_RUNS_MAX], probe[DM_BENCH_RUNS_MAX];
};

static enum dm_status add_row(struct decode *d, enum dm_bench_what what, const char *name,
                              struct dm_bench_row **r, struct dm_err *e)
{
    *r = dm_bench_row_new(d->b, what, name, (int)d->fmt);
    return *r ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory");
}

static enum dm_status add_one(struct decode *d, const struct times *t, struct dm_err *e)
{
    const size_t n = d->b->opt.runs;
    double ms[DM_BENCH_RUNS_MAX], tokens[DM_BENCH_RUNS_MAX], rate[DM_BENCH_RUNS_MAX];
    char name[80];
    struct dm_bench_row *r;
    for (size_t i = 0; i < n; i++) {
        ms[i] = 1e3 * t->one[i];
        tokens[i] = 1.0 / t->one[i];
        rate[i] = 1e-9 * (double)d->bytes / t->one[i];
    }
    snprintf(name, sizeof(name), "one token, %.1f MB", 1e-6 * (double)d->bytes);
    DM_TRY(add_row(d, DM_BENCH_DECODE, name, &r, e));
    dm_bench_row_add(r, "ms", ms, n);
    dm_bench_row_add(r, "tokens_per_s", tokens, n);
    dm_bench_row_add_share(r, "gb_per_s", rate, "probe_gb_per_s", t->probe, n);
    return DM_OK;
}

static enum dm_status add_chunk(struct decode *d, const struct times *t, size_t k, struct dm_err *e)
{
    const size_t n = d->b->opt.runs;
    double ms[DM_BENCH_RUNS_MAX], ratio[DM_BENCH_RUNS_MAX];
    char name[80];
    struct dm_bench_row *r;
    for (size_t i = 0; i < n; i++) {
        ms[i] = 1e3 * t->step[k][i];
        ratio[i] = t->step[k][i] / t->step[1][i];
    }
    snprintf(name, sizeof(name), "%zu tokens at once", k);
    DM_TRY(add_row(d, DM_BENCH_CHUNK, name, &r, e));
    dm_bench_row_add(r, "ms", ms, n);
    dm_bench_row_add(r, "ratio", ratio, n);
    return DM_OK;
}

static enum dm_status add_heads(struct decode *d, const struct times *t, struct dm_err *e)
{
    const size_t n = d->b->opt.runs;
    double ms[DM_BENCH_RUNS_MAX], limit[DM_BENCH_RUNS_MAX], ratio[DM_BENCH_RUNS_MAX];
    char name[80];
    struct dm_bench_row *r;
    for (size_t i = 0; i < n; i++) {
        ms[i] = 1e3 * t->step[0][i];
        limit[i] = 1e3 * (t->step[1][i] + 1e-9 * (double)d->head_bytes / t->probe[i]);
        ratio[i] = ms[i] / limit[i];
    }
    snprintf(name, sizeof(name), "%zu heads, %.1f MB more", d->n_heads,
             1e-6 * (double)d->head_bytes);
    DM_TRY(add_row(d, DM_BENCH_HEADS, name, &r, e));
    dm_bench_row_add(r, "ms", ms, n);
    dm_bench_row_add(r, "limit_ms", limit, n);
    dm_bench_row_add(r, "ratio", ratio, n);
    return DM_OK;
}

/* Variants that are compared take turns in every slice of a run, each time another one first: what
 * comes last finds more of its memory in a large L3, up to 15 %. So does the step that is held
 * against the probe, which has read its memory as often. */
static void time_run(struct decode *d, struct times *t, size_t run)
{
    const size_t chunks = d->b->opt.what[DM_BENCH_CHUNK] ? CHUNK_MAX : 1;
    const size_t first = d->all ? 0 : 1, n = chunks + 1 - first;
    const double part = 1.0 / DM_BENCH_SLICES;
    for (size_t k = 0; k <= CHUNK_MAX; k++)
        t->step[k][run] = 0.0;
    t->one[run] = t->probe[run] = 0.0;
    double before = dm_bench_probe_again(d->b, d->bytes);
    for (size_t i = 0; i < DM_BENCH_SLICES; i++) {
        warm(d);
        for (size_t turn = 0; n > 1 && turn < n; turn++) {
            const size_t k = first + (run * DM_BENCH_SLICES + i + turn) % n;
            t->step[k][run] += part * (k ? time_step(d, d->one, k) : time_step(d, d->all, 1));
        }
        t->one[run] += part * time_step(d, d->one, 1);
        const double after = dm_bench_probe_again(d->b, d->bytes);
        t->probe[run] += part * 0.5 * (before + after);
        before = after;
    }
}

static enum dm_status time_all(struct decode *d, struct dm_err *e)
{
    static const char *const text = "steps of one token, of chunks and of all heads";
    struct times t;
    d->reps = 1;
    const double once = time_step(d, d->one, 1), aim = d->b->opt.quick ? 0.0005 : 0.01;
    d->reps = once < aim ? (size_t)(aim / once) + 1 : 1;
    for (size_t i = 0; i < d->b->opt.runs; i++) {
        DM_TRY(dm_bench_next(d->b, DM_BENCH_DECODE, text, e));
        time_run(d, &t, i);
    }
    DM_TRY(add_one(d, &t, e));
    for (size_t k = 2; k <= CHUNK_MAX && d->b->opt.what[DM_BENCH_CHUNK]; k++)
        DM_TRY(add_chunk(d, &t, k, e));
    return d->all ? add_heads(d, &t, e) : DM_OK;
}

static void decode_free(struct decode *d)
{
    dm_session_free(d->one);
    dm_session_free(d->all);
    dm_model_release(&d->m);
    free(d->logits);
    free(d->ids);
}

/* Sessions with the context in them; all threads made it, which changes no bit. */
static enum dm_status decode_new(struct decode *d, struct dm_err *e)
{
    const struct dm_config *c = &d->b->opt.cfg;
    DM_TRY(dm_bench_model(d->b, &d->m, d->fmt, e));
    d->n_heads = c->K < 3 ? c->K : 3;
    d->context = d->b->opt.quick ? 16 : 256;
    if (d->context + CHUNK_MAX > c->T_max)
        d->context = c->T_max > CHUNK_MAX ? c->T_max - CHUNK_MAX : 0;
    if (!d->context)
        return dm_fail(e, DM_ERANGE, "a context of %zu tokens is too short to measure decoding",
                       c->T_max);
    count_bytes(d);
    d->logits = dm_alloc(c->K * c->Vp, sizeof(float));
    d->ids = dm_alloc(d->context + CHUNK_MAX, sizeof(*d->ids));
    if (!d->logits || !d->ids)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_bench_ids(d->ids, d->context + CHUNK_MAX, c->V, 4);
    DM_TRY(dm_session_new(&d->one, &d->m, 1, e));
    dm_session_step(d->one, d->ids, d->context, d->logits);
    if (d->n_heads == 1 || !d->b->opt.what[DM_BENCH_HEADS])
        return DM_OK;
    DM_TRY(dm_session_new(&d->all, &d->m, d->n_heads, e));
    dm_session_step(d->all, d->ids, d->context, d->logits);
    return DM_OK;
}

enum dm_status dm_bench_decode(struct dm_bench *b, struct dm_err *e)
{
    DM_TRY(dm_bench_need_mem(b, e));
    for (int fmt = 0; fmt < DM_BENCH_FORMATS; fmt++) {
        struct decode d = {.b = b, .fmt = (enum dm_format)fmt};
        if (!b->opt.fmt[fmt])
            continue;
        dm_bench_use_threads(b, b->opt.n_threads - 1);
        enum dm_status st = dm_bench_next(b, DM_BENCH_DECODE, "weights and context", e);
        if (!st)
            st = decode_new(&d, e);
        for (size_t t = 0; t < b->opt.n_threads && !st; t++) {
            dm_bench_use_threads(b, t);
            st = time_all(&d, e);
        }
        decode_free(&d);
        if (st)
            return st;
    }
    return DM_OK;
}
