/* SPDX-License-Identifier: MIT */
/* bench_speed.c - a model file: loading it, and what its heads gain in wall clock. */
#include <stdlib.h>
#include <sys/stat.h>

#include "eval/bench_impl.h"
#include "eval/calibrate.h"
#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/progress.h"
#include "src/decode/generate.h"
#include "src/model/file.h"

/* Loads and makes one step, so that a loader that puts work off is not faster. */
static enum dm_status load_once(const struct dm_bench *b, double *seconds, struct dm_err *e)
{
    struct dm_model m = {0};
    struct dm_session *s = NULL;
    const int32_t id = 1;
    const double t = dm_now();
    enum dm_status st = dm_model_load(&m, b->opt.model, NULL, NULL, e);
    *seconds = dm_now() - t;
    float *logits = st ? NULL : dm_alloc(m.cfg.Vp, sizeof(*logits));
    if (!st)
        st = logits ? dm_session_new(&s, &m, 1, e) : dm_fail(e, DM_ENOMEM, "out of memory");
    if (!st)
        dm_session_step(s, &id, 1, logits);
    dm_session_free(s);
    dm_model_release(&m);
    free(logits);
    return st;
}

enum dm_status dm_bench_load(struct dm_bench *b, struct dm_err *e)
{
    const struct dm_config *c = &b->opt.cfg;
    double s[DM_BENCH_RUNS_MAX], rate[DM_BENCH_RUNS_MAX], first;
    struct stat file;
    if (!b->opt.model)
        return DM_OK;
    if (stat(b->opt.model, &file))
        return dm_fail_errno(e, "%s", b->opt.model);
    dm_bench_use_threads(b, b->opt.n_threads - 1);
    dm_bench_drop_mem(b);
    dm_bench_reset_peak_memory();
    DM_TRY(dm_bench_next(b, DM_BENCH_LOAD, "from a warm page cache", e));
    DM_TRY(load_once(b, &first, e)); // fills the page cache
    for (size_t i = 0; i < b->opt.runs; i++) {
        DM_TRY(dm_bench_next(b, DM_BENCH_LOAD, "from a warm page cache", e));
        DM_TRY(load_once(b, &s[i], e));
        rate[i] = 1e-9 * (double)file.st_size / s[i];
    }
    const double kv = 2.0 * 4.0 * (double)(c->L * c->T_max) * (double)c->C;
    const double mb = 1e-6 * (double)dm_bench_peak_memory(),
                 held = 1e-6 * ((double)file.st_size + kv);
    struct dm_bench_row *r = dm_bench_row_new(b, DM_BENCH_LOAD, "from a warm page cache", -1);
    if (!r)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    dm_bench_row_add(r, "peak_mb", &mb, 1);
    dm_bench_row_add(r, "weights_and_kv_mb", &held, 1);
    dm_bench_row_add(r, "gb_per_s", rate, b->opt.runs);
    dm_bench_row_add(r, "seconds", s, b->opt.runs);
    return DM_OK;
}

/* ---- DynaMo, dynamic and lossless, against one token at a time ------------------------------ */

struct speed {
    struct dm_model m;
    struct dm_model_meta meta;
    struct dm_cooc cooc;
    struct dm_gen *gen[2]; /* the base alone, all heads */
    struct dm_gen_opt opt;
    struct dm_cal_opt cal; /* number and length of the prompts */
    int32_t *prompts;
};

static void speed_free(struct speed *s, const struct dm_bench *b)
{
    dm_gen_free(s->gen[0]);
    dm_gen_free(s->gen[1]);
    dm_model_release(&s->m);
    dm_model_meta_release(&s->meta);
    if (b->opt.cooc)
        dm_cooc_release(&s->cooc);
    free(s->prompts);
}

/* Held-out text, or what the model writes after its end-of-text token. */
static enum dm_status make_prompts(struct speed *s, const struct dm_bench *b, struct dm_err *e)
{
    const size_t n = s->cal.prompt_tokens;
    s->prompts = dm_alloc(s->cal.prompts * n, sizeof(*s->prompts));
    if (!s->prompts)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    if (b->opt.data) {
        struct dm_shard *shard;
        DM_TRY(dm_shard_open(&shard, b->opt.data, e));
        enum dm_status st = dm_model_check_tokenizer(
            &s->meta, b->opt.model, dm_shard_tokenizer_hash(shard), b->opt.data, e);
        if (!st)
            st = dm_cal_prompts(s->prompts, s->cal.prompts, n, s->cal.seed, shard, e);
        dm_shard_close(shard);
        return st;
    }
    struct dm_gen_opt o = s->opt;
    o.mode = DM_GEN_AR;
    o.stop_eos = false;
    o.max_tokens = n;
    const int32_t start = s->m.cfg.eos < 0 ? 0 : s->m.cfg.eos;
    for (size_t i = 0; i < s->cal.prompts; i++) {
        struct dm_ids ids = {0};
        o.seed = 1000 + i;
        enum dm_status st = dm_gen_run(s->gen[0], &o, &start, 1, &ids, NULL, NULL, NULL, e);
        for (size_t k = 0; k < n && !st; k++)
            s->prompts[i * n + k] = ids.id[ids.n - 1 - (n - 1 - k) % ids.n];
        dm_ids_release(&ids);
        DM_TRY(st);
    }
    return DM_OK;
}

static enum dm_status speed_new(struct speed *s, struct dm_bench *b, enum dm_format fmt,
                                struct dm_err *e)
{
    struct dm_config c;
    s->opt = dm_gen_opt_default();
    s->cal = dm_cal_opt_default();
    s->cal.prompts = b->opt.quick ? 2 : 8;
    s->cal.prompt_tokens = b->opt.quick ? 4 : 32;
    s->opt.max_tokens = b->opt.quick ? 8 : 64;
    s->opt.stop_eos = false;
    DM_TRY(dm_model_peek(b->opt.model, &c, &s->meta, e));
    if (s->meta.calibration)
        DM_TRY(dm_gen_opt_calibrated(&s->opt, s->meta.calibration, b->opt.model, e));
    if (c.T_max < s->cal.prompt_tokens + s->opt.max_tokens)
        return dm_fail(e, DM_ERANGE, "%s: a context of %zu tokens is too short, want %zu",
                       b->opt.model, c.T_max, s->cal.prompt_tokens + s->opt.max_tokens);
    if (b->opt.cooc) {
        DM_TRY(dm_cooc_load_for(&s->cooc, b->opt.cooc, s->opt.unseen != DM_UNSEEN_DISCOUNT,
                                s->opt.unseen == DM_UNSEEN_DISCOUNT, e));
        DM_TRY(dm_model_check_tokenizer(&s->meta, b->opt.model, s->cooc.tokenizer_hash, b->opt.cooc,
                                        e));
    }
    DM_TRY(dm_bench_model(b, &s->m, fmt, e));
    for (size_t i = 0; i < 2; i++)
        DM_TRY(dm_gen_new(&s->gen[i], &s->m, b->opt.cooc ? &s->cooc : NULL, i ? c.K : 1, e));
    return make_prompts(s, b, e);
}

/* The base alone, then what is compared with it. */
static const enum dm_gen_mode modes[] = {DM_GEN_AR, DM_GEN_DYNAMO, DM_GEN_LOSSLESS};
enum { MODES = sizeof(modes) / sizeof(modes[0]) };

/* All prompts once, the modes in turn: tokens/s and tokens per forward of each. */
static enum dm_status run_prompts(struct speed *s, uint64_t seed, double rate[MODES],
                                  double per_forward[MODES], struct dm_err *e)
{
    double tokens[MODES] = {0.0}, seconds[MODES] = {0.0};
    size_t all[MODES] = {0}, forwards[MODES] = {0};
    for (size_t p = 0; p < s->cal.prompts; p++)
        for (size_t turn = 0; turn < MODES; turn++) {
            const size_t i = (p + turn) % MODES; // none is always the first
            struct dm_gen_opt o = s->opt;
            struct dm_gen_stats st;
            struct dm_ids ids = {0};
            o.mode = modes[i];
            o.seed = seed;
            const enum dm_status failed = dm_gen_run(
                s->gen[i > 0], &o, s->prompts + p * s->cal.prompt_tokens, s->cal.prompt_tokens,
                &ids, NULL, NULL, &st, e);
            dm_ids_release(&ids);
            DM_TRY(failed);
            tokens[i] += (double)(st.tokens - st.first);
            seconds[i] += st.seconds;
            all[i] += st.tokens;
            forwards[i] += st.forwards;
        }
    for (size_t i = 0; i < MODES; i++) {
        rate[i] = tokens[i] / seconds[i];
        per_forward[i] = (double)all[i] / (double)forwards[i];
    }
    return DM_OK;
}

static enum dm_status time_speed(struct dm_bench *b, struct speed *s, int fmt, struct dm_err *e)
{
    double rate[MODES][DM_BENCH_RUNS_MAX], per[MODES][DM_BENCH_RUNS_MAX],
        ratio[MODES][DM_BENCH_RUNS_MAX], x[MODES], y[MODES];
    char name[MODES][80];
    snprintf(name[1], sizeof(name[1]), "eps_b %.3g, %zu x %zu tokens", s->opt.eps_b, s->cal.prompts,
             s->opt.max_tokens);
    snprintf(name[2], sizeof(name[2]), "lossless, %zu x %zu tokens", s->cal.prompts,
             s->opt.max_tokens);
    for (size_t i = 0; i < b->opt.runs; i++) {
        DM_TRY(dm_bench_next(b, DM_BENCH_SPEEDUP, name[1], e));
        DM_TRY(run_prompts(s, 1 + i, x, y, e));
        for (size_t k = 0; k < MODES; k++) {
            rate[k][i] = x[k];
            per[k][i] = y[k];
            ratio[k][i] = x[k] / x[0];
        }
    }
    for (size_t k = 1; k < MODES; k++) {
        struct dm_bench_row *r = dm_bench_row_new(b, DM_BENCH_SPEEDUP, name[k], fmt);
        if (!r)
            return dm_fail(e, DM_ENOMEM, "out of memory");
        dm_bench_row_add(r, "tokens_per_forward", per[k], b->opt.runs);
        dm_bench_row_add(r, "base_tokens_per_s", rate[0], b->opt.runs);
        dm_bench_row_add(r, "tokens_per_s", rate[k], b->opt.runs);
        dm_bench_row_add(r, "ratio", ratio[k], b->opt.runs);
    }
    return DM_OK;
}

enum dm_status dm_bench_speedup(struct dm_bench *b, struct dm_err *e)
{
    if (!b->opt.model || b->opt.cfg.K < 2)
        return DM_OK;
    for (int fmt = 0; fmt < DM_BENCH_FORMATS; fmt++) {
        struct speed s = {0};
        if (!b->opt.fmt[fmt])
            continue;
        dm_bench_use_threads(b, b->opt.n_threads - 1);
        enum dm_status st = dm_bench_next(b, DM_BENCH_SPEEDUP, "weights and prompts", e);
        if (!st)
            st = speed_new(&s, b, (enum dm_format)fmt, e);
        for (size_t t = 0; t < b->opt.n_threads && !st; t++) {
            dm_bench_use_threads(b, t);
            st = time_speed(b, &s, fmt, e);
        }
        speed_free(&s, b);
        if (st)
            return st;
    }
    return DM_OK;
}
