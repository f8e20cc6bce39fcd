/* SPDX-License-Identifier: MIT */
#include "src/model/fingerprint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/rng.h"

enum { N_PROMPTS = 3, N_TOP = 5, SPREAD = 64 };
static const size_t lengths[N_PROMPTS] = {1, 8, 32};
static const double tolerance = 1e-3;

static size_t length(const struct dm_config *c, size_t p)
{
    return lengths[p] < c->T_max ? lengths[p] : c->T_max;
}

/* The n largest of x (V), the first of equal ones first. */
static void top(size_t *id, size_t n, const float *x, size_t V)
{
    for (size_t k = 0; k < n; k++) {
        size_t best = V;
        for (size_t i = 0; i < V; i++) {
            // After the one before in the order of (logit down, id up).
            if (k && !(x[i] < x[id[k - 1]] || (x[i] == x[id[k - 1]] && i > id[k - 1])))
                continue;
            if (best == V || x[i] > x[best])
                best = i;
        }
        id[k] = best;
    }
}

static double four_digits(float x)
{
    char text[32];
    snprintf(text, sizeof(text), "%.4g", (double)x);
    return strtod(text, NULL);
}

static enum dm_status add_row(json_t *out, const struct dm_config *c, const float *logits, size_t T,
                              size_t head, struct dm_err *e)
{
    const float *x = logits + (T - 1) * c->Vp;
    const size_t n = c->Vp < N_TOP ? c->Vp : N_TOP;
    size_t id[N_TOP];
    for (size_t i = 0; i < T * c->Vp; i++)
        if (!isfinite(logits[i]))
            return dm_fail(e, DM_ENAN, "logit %zu of head %zu is not finite after %zu tokens",
                           i % c->Vp, head, i / c->Vp + 1);
    json_t *ids = json_array(), *values = json_array();
    int bad = 0;
    top(id, n, x, c->Vp);
    for (size_t k = 0; k < n; k++)
        bad |= json_array_append_new(ids, json_integer((json_int_t)id[k])) |
               json_array_append_new(values, json_real(four_digits(x[id[k]])));
    json_t *row = json_pack("{s:I, s:I, s:o, s:o}", "tokens", (json_int_t)T, "head",
                            (json_int_t)head, "ids", ids, "logits", values);
    if (bad | json_array_append_new(out, row))
        return dm_fail(e, DM_ENOMEM, "out of memory for a fingerprint");
    return DM_OK;
}

static enum dm_status run(const struct dm_model *m, struct dm_pass *pass, float *logits,
                          json_t *out, struct dm_err *e)
{
    for (size_t p = 0; p < N_PROMPTS; p++) {
        const size_t T = length(&m->cfg, p);
        int32_t ids[SPREAD];
        for (size_t t = 0; t < T; t++)
            ids[t] = (int32_t)(dm_mix64(SPREAD * p + t) % m->cfg.V);
        for (size_t head = 1; head <= m->cfg.K; head++) {
            dm_pass_logits(pass, m, ids, 1, T, head, logits);
            DM_TRY(add_row(out, &m->cfg, logits, T, head, e));
        }
    }
    return DM_OK;
}

enum dm_status dm_fingerprint(const struct dm_model *m, json_t **out, struct dm_err *e)
{
    const size_t T = length(&m->cfg, N_PROMPTS - 1);
    struct dm_pass *pass;
    *out = NULL;
    DM_TRY(dm_pass_new(&pass, &m->cfg, DM_PASS_SCORE, 1, T, e));
    float *logits = dm_alloc(T * m->cfg.Vp, sizeof(*logits));
    json_t *rows = json_array();
    enum dm_status st = logits && rows ? run(m, pass, logits, rows, e)
                                       : dm_fail(e, DM_ENOMEM, "out of memory for a fingerprint");
    free(logits);
    dm_pass_free(pass);
    if (st)
        json_decref(rows);
    else
        *out = rows;
    return st;
}

/* ---- Comparing ----------------------------------------------------------------------------- */

static double logit(const json_t *row, size_t k)
{
    return json_number_value(json_array_get(json_object_get(row, "logits"), k));
}

static json_int_t id_of(const json_t *row, size_t k)
{
    return json_integer_value(json_array_get(json_object_get(row, "ids"), k));
}

/* The rank in `row` of this id with about this logit; n if there is none. */
static size_t rank(const json_t *row, size_t n, json_int_t id, double value, double slack)
{
    size_t k = 0;
    while (k < n && (id_of(row, k) != id || fabs(logit(row, k) - value) > slack))
        k++;
    return k;
}

static enum dm_status compare_row(const json_t *got, const json_t *want, const char *where,
                                  struct dm_err *e)
{
    const size_t n = json_array_size(json_object_get(got, "ids"));
    const json_int_t head = json_integer_value(json_object_get(got, "head"));
    const json_int_t tokens = json_integer_value(json_object_get(got, "tokens"));
    if (json_array_size(json_object_get(want, "ids")) != n ||
        json_array_size(json_object_get(want, "logits")) != n ||
        json_integer_value(json_object_get(want, "head")) != head ||
        json_integer_value(json_object_get(want, "tokens")) != tokens)
        return dm_fail(e, DM_EMISMATCH, "%s: its fingerprint has another shape", where);
    double largest = 0.0;
    for (size_t k = 0; k < n; k++)
        largest = fmax(largest, fabs(logit(got, k)));
    for (size_t k = 0; k < n; k++) {
        const double slack = tolerance * largest;
        if (rank(want, n, id_of(got, k), logit(got, k), slack) < n ||
            (k + 1 == n && fabs(logit(got, k) - logit(want, k)) <= slack))
            continue;
        return dm_fail(
            e, DM_EMISMATCH,
            "%s: another fingerprint: head %lld after %lld tokens gives id %lld the logit "
            "%.4g at rank %zu, there id %lld has %.4g",
            where, (long long)head, (long long)tokens, (long long)id_of(got, k), logit(got, k),
            k + 1, (long long)id_of(want, k), logit(want, k));
    }
    return DM_OK;
}

enum dm_status dm_fingerprint_compare(const json_t *got, const json_t *want, const char *where,
                                      struct dm_err *e)
{
    const size_t n = json_array_size(got);
    if (!json_is_array(want) || json_array_size(want) != n)
        return dm_fail(e, DM_EMISMATCH, "%s: has no fingerprint of %zu rows", where, n);
    for (size_t i = 0; i < n; i++)
        DM_TRY(compare_row(json_array_get(got, i), json_array_get(want, i), where, e));
    return DM_OK;
}
