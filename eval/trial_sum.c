/* SPDX-License-Identifier: MIT */
/* trial_sum.c - from the texts of a trial to figures of its settings. */
#include <stdio.h>
#include <stdlib.h>

#include "eval/stats.h"
#include "eval/trial.h"
#include "src/base/arena.h"
#include "src/base/json.h"

void dm_trial_by_prompt(double *out, const struct dm_trial *t, size_t setting,
                        enum dm_trial_measure m)
{
    for (size_t p = 0; p < t->prompts; p++) {
        out[p] = 0.0;
        for (size_t s = 0; s < t->samples; s++)
            out[p] += dm_trial_at(t, setting, p, s)->value[m] / (double)t->samples;
    }
}

static void count(struct dm_trial_sum *s, const struct dm_trial_text *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        s->tokens += x[i].stats.tokens;
        s->forwards += x[i].stats.forwards;
        for (size_t b = 1; b <= DM_ORDER_MAX; b++)
            s->blocks[b] += x[i].stats.blocks[b];
    }
    s->per_forward = s->forwards ? (double)s->tokens / (double)s->forwards : 0.0;
}

/* Medians of tokens/s and of its ratio to the reference's. */
static void time_texts(struct dm_trial_sum *s, const struct dm_trial_text *x,
                       const struct dm_trial_text *reference, size_t n, double *scratch)
{
    for (size_t i = 0; i < n; i++)
        scratch[i] = dm_gen_rate(&x[i].stats);
    s->rate = dm_median(scratch, n);
    size_t n_ratios = 0;
    for (size_t i = 0; i < n; i++)
        if (dm_gen_rate(&reference[i].stats) > 0.0)
            scratch[n_ratios++] = dm_gen_rate(&x[i].stats) / dm_gen_rate(&reference[i].stats);
    s->speedup = dm_median(scratch, n_ratios);
}

static double agreement(const int32_t *a, const int32_t *b, size_t texts, size_t tokens)
{
    size_t same = 0;
    for (size_t i = 0; i < texts; i++, a += tokens, b += tokens)
        for (size_t k = 0; k < tokens && a[k] == b[k]; k++)
            same++;
    return (double)same / (double)(texts * tokens);
}

/* start and len are scratch (texts). */
static enum dm_status distinct(struct dm_trial_sum *s, const int32_t *ids, size_t texts,
                               size_t tokens, size_t *start, size_t *len, struct dm_err *e)
{
    for (size_t i = 0; i < texts; i++) {
        start[i] = i * tokens;
        len[i] = tokens;
    }
    const struct dm_texts all = {ids, start, len, texts};
    for (size_t n = 1; n <= DM_TRIAL_DISTINCT; n++)
        DM_TRY(dm_div_distinct(&s->distinct[n], &all, n, e));
    return DM_OK;
}

enum dm_status dm_trial_summarise(struct dm_trial_sum *s, const struct dm_trial *t, size_t setting,
                                  size_t reference, struct dm_err *e)
{
    const size_t n = t->prompts * t->samples;
    const struct dm_trial_text *x = dm_trial_at(t, setting, 0, 0);
    const int32_t *ids = dm_trial_ids(t, setting, 0, 0);
    *s = (struct dm_trial_sum){0};
    double *scratch = dm_alloc(n, sizeof(*scratch));
    size_t *places = dm_alloc(n, 2 * sizeof(*places));
    enum dm_status st = DM_OK;
    if (!scratch || !places)
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu texts", n);
    if (!st) {
        count(s, x, n);
        time_texts(s, x, dm_trial_at(t, reference, 0, 0), n, scratch);
        for (size_t m = 0; m < DM_TRIAL_MEASURES; m++) {
            dm_trial_by_prompt(scratch, t, setting, (enum dm_trial_measure)m);
            s->value[m] = dm_mean(scratch, t->prompts);
            s->se[m] = dm_standard_error(scratch, t->prompts);
        }
        s->agree = agreement(ids, dm_trial_ids(t, reference, 0, 0), n, t->tokens);
        st = distinct(s, ids, n, t->tokens, places, places + n, e);
    }
    free(scratch);
    free(places);
    return st;
}

/* {"1": x[1], ..} */
static json_t *numbered(const double *x, size_t n)
{
    json_t *o = json_object();
    for (size_t i = 1; i <= n; i++) {
        char key[24];
        snprintf(key, sizeof(key), "%zu", i);
        json_object_set_new(o, key, dm_json_real(x[i]));
    }
    return o;
}

json_t *dm_trial_sum_to_json(const struct dm_trial_sum *s)
{
    json_t *blocks = json_object(), *o = json_object();
    int bad = json_object_set_new(o, "tokens", json_integer((json_int_t)s->tokens));
    bad |= json_object_set_new(o, "forwards", json_integer((json_int_t)s->forwards));
    bad |= json_object_set_new(o, "tokens_per_forward", dm_json_real(s->per_forward));
    for (size_t b = 1; b <= DM_ORDER_MAX; b++) {
        char key[24];
        snprintf(key, sizeof(key), "%zu", b);
        bad |= json_object_set_new(blocks, key, json_integer((json_int_t)s->blocks[b]));
    }
    bad |= json_object_set_new(o, "blocks", blocks);
    bad |= json_object_set_new(o, "tokens_per_second", dm_json_real(s->rate));
    bad |= json_object_set_new(o, "speedup", dm_json_real(s->speedup));
    for (size_t m = 0; m < DM_TRIAL_MEASURES; m++) {
        char key[32];
        snprintf(key, sizeof(key), "%s_se", dm_trial_keys[m]);
        bad |= json_object_set_new(o, dm_trial_keys[m], dm_json_real(s->value[m]));
        bad |= json_object_set_new(o, key, dm_json_real(s->se[m]));
    }
    bad |= json_object_set_new(o, "distinct", numbered(s->distinct, DM_TRIAL_DISTINCT));
    bad |= json_object_set_new(o, "agree", dm_json_real(s->agree));
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}
