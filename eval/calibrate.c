/* SPDX-License-Identifier: MIT */
/* calibrate.c - options, settings and prompts. */
#include "eval/calibrate.h"

#include <stdlib.h>

#include "src/base/binomial.h"
#include "src/base/rng.h"

const char *const dm_cal_goal_names[] = {"risk", "speedup", "quality"};

struct dm_cal_opt dm_cal_opt_default(void)
{
    static const double eps[] = {0.9, 0.8, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35};
    struct dm_cal_opt o = {.gen = dm_gen_opt_default(),
                           .n_eps = sizeof(eps) / sizeof(eps[0]),
                           .n_alpha_c = 1,
                           .n_unseen = 1,
                           .n_top_k = 1,
                           .prompts = 200,
                           .control_prompts = 100,
                           .prompt_tokens = 32,
                           .tokens = 100,
                           .samples = 2,
                           .seed = 1,
                           .risk = 0.05,
                           .confidence = 0.95,
                           .quantile = 0.99,
                           .slack = {0.2, 0.1, 0.05}};
    for (size_t i = 0; i < o.n_eps; i++)
        o.eps[i] = eps[i];
    o.alpha_c[0] = o.gen.alpha_c;
    o.unseen[0] = o.gen.unseen;
    o.top_k[0] = o.gen.top_k;
    return o;
}

size_t dm_cal_sequences(const struct dm_cal_opt *o)
{
    return o->n_alpha_c * o->n_unseen * o->n_top_k;
}

double dm_cal_level(const struct dm_cal_opt *o)
{
    return dm_ltt_level(1.0 - o->confidence, dm_cal_sequences(o));
}

struct dm_gen_opt dm_cal_setting(const struct dm_cal_opt *o, size_t i)
{
    struct dm_gen_opt g = o->gen;
    g.mode = DM_GEN_DYNAMO;
    g.eps_b = o->eps[i % o->n_eps];
    i /= o->n_eps;
    g.alpha_c = o->alpha_c[i % o->n_alpha_c];
    i /= o->n_alpha_c;
    g.unseen = o->unseen[i % o->n_unseen];
    g.top_k = o->top_k[i / o->n_unseen];
    return g;
}

static int falling(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static enum dm_status check_ranges(const struct dm_cal_opt *o, struct dm_err *e)
{
    const struct {
        const char *name;
        double value, min, max;
    } range[] = {{"the number of eps_b values", (double)o->n_eps, 1, DM_CAL_EPS},
                 {"the number of alpha_c values", (double)o->n_alpha_c, 1, DM_CAL_LIST},
                 {"the number of policies", (double)o->n_unseen, 1, DM_CAL_UNSEEN},
                 {"the number of top_k values", (double)o->n_top_k, 1, DM_CAL_LIST},
                 {"the number of prompts", (double)o->prompts, 2, 1e6},
                 {"the number of prompts for the margins", (double)o->control_prompts, 2, 1e6},
                 {"the prompts' length", (double)o->prompt_tokens, 1, 1e6},
                 {"the texts' length", (double)o->tokens, 1, 1e6},
                 {"the number of samples", (double)o->samples, 1, 1e4},
                 {"the seed", (double)o->seed, 0, 1e12},
                 {"the risk", o->risk, 1e-6, 0.999999},
                 {"the confidence", o->confidence, 0.5, 0.999999},
                 {"the target", o->target, 0, 1e6},
                 {"the control's quantile", o->quantile, 0.5, 1},
                 {"the slack of the divergence", o->slack[DM_CERT_DIVERGENCE], 0, 100},
                 {"the slack of the log-likelihood", o->slack[DM_CERT_LOGP], 0, 100},
                 {"the slack of repetition", o->slack[DM_CERT_REPEATS], 0, 1}};
    for (size_t i = 0; i < sizeof(range) / sizeof(range[0]); i++)
        if (!(range[i].value >= range[i].min && range[i].value <= range[i].max))
            return dm_fail(e, DM_ERANGE, "%s is %g, expected %g to %g", range[i].name,
                           range[i].value, range[i].min, range[i].max);
    for (size_t i = 0; i < o->n_eps; i++)
        if (!(o->eps[i] >= 0.0 && o->eps[i] <= 1.0))
            return dm_fail(e, DM_ERANGE, "eps_b is %g, expected 0 to 1", o->eps[i]);
    for (size_t i = 0; i < dm_cal_sequences(o); i++) {
        const struct dm_gen_opt g = dm_cal_setting(o, i * o->n_eps);
        DM_TRY(dm_gen_opt_check(&g, e));
    }
    return dm_gen_opt_check(&o->gen, e);
}

/* The goal must be within reach, before hours are spent on it. */
static enum dm_status check_goal(const struct dm_cal_opt *o, struct dm_err *e)
{
    const double level = dm_cal_level(o);
    const size_t need = dm_binomial_need(o->risk, level);
    if (o->goal != DM_CAL_RISK && !(o->gen.temperature > 0.0))
        return dm_fail(e, DM_ERANGE,
                       "greedy text has no divergence: a target needs a temperature above 0");
    if (o->goal == DM_CAL_RISK && o->prompts < need)
        return dm_fail(e, DM_ERANGE,
                       "%zu prompts cannot show a risk of %g with confidence %g (%zu sequences): "
                       "even without a failure that takes %zu",
                       o->prompts, o->risk, o->confidence, dm_cal_sequences(o), need);
    return DM_OK;
}

enum dm_status dm_cal_opt_check(struct dm_cal_opt *o, struct dm_err *e)
{
    DM_TRY(check_ranges(o, e));
    DM_TRY(check_goal(o, e));
    qsort(o->eps, o->n_eps, sizeof(o->eps[0]), falling);
    size_t n = 1;
    for (size_t i = 1; i < o->n_eps; i++)
        if (o->eps[i] < o->eps[n - 1])
            o->eps[n++] = o->eps[i];
    o->n_eps = n;
    return DM_OK;
}

/* Looks for a run of `tokens` ids without a separator in [begin, end) of the shard, from `from` on
 * and then from the beginning. */
static enum dm_status find_run(int32_t *out, size_t tokens, struct dm_shard *shard, size_t begin,
                               size_t end, size_t from, bool *found, struct dm_err *e)
{
    int32_t *ids = dm_alloc(end - begin, sizeof(*ids));
    size_t have = 0;
    *found = false;
    if (!ids)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu tokens", end - begin);
    enum dm_status st = dm_shard_read(shard, ids, begin, end - begin, e);
    for (size_t turn = 0; turn < 2 && !st && !*found; turn++, have = 0)
        for (size_t i = turn ? 0 : from; i < end - begin && !*found; i++) {
            have = ids[i] == dm_shard_separator(shard) ? 0 : have + 1;
            *found = have == tokens;
            for (size_t k = 0; *found && k < tokens; k++)
                out[k] = ids[i + 1 - tokens + k];
        }
    free(ids);
    return st;
}

enum dm_status dm_cal_prompts(int32_t *out, size_t n, size_t tokens, uint64_t seed,
                              struct dm_shard *shard, struct dm_err *e)
{
    const size_t part = dm_shard_tokens(shard) / n;
    for (size_t i = 0; i < n; i++) {
        bool found = false;
        struct dm_rng rng;
        dm_rng_init(&rng, seed, i);
        if (part)
            DM_TRY(find_run(out + i * tokens, tokens, shard, i * part, (i + 1) * part,
                            dm_rng_below(&rng, part), &found, e));
        if (!found)
            return dm_fail(e, DM_ERANGE,
                           "the held-out data's part %zu of %zu (%zu tokens) has no run of %zu "
                           "tokens within a document; use fewer or shorter prompts or more data",
                           i + 1, n, part, tokens);
    }
    return DM_OK;
}
