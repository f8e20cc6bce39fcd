/* SPDX-License-Identifier: MIT */
#include "src/decode/fit.h"

#include <math.h>
#include <stdio.h>

#include "src/base/json.h"

/* Confidences lie between exp(-MOST) and exp(MOST): eps_b = 0 then passes whatever the weights. */
#define MOST 500.0

size_t dm_fit_terms(size_t n)
{
    return 3 + 2 * n;
}

static double entropy(const struct dm_cand *c)
{
    double sum = 0;
    for (size_t i = 0; i < c->n && c->p[i] > 0; i++) // they fall
        sum -= c->p[i] * log(c->p[i]);
    return sum;
}

void dm_fit_read(double *term, size_t n, double J, double S, size_t cell,
                 const struct dm_cand *cand)
{
    term[0] = 1;
    term[1] = log(J);
    term[2] = log(S);
    for (size_t h = n; h-- > 0; cell /= cand[h].n) {
        term[3 + h] = log(cand[h].p[cell % cand[h].n]);
        term[3 + n + h] = entropy(&cand[h]);
    }
}

/* The least that w t can be for t from `low` to `high`. */
static double least(double w, double low, double high)
{
    return w == 0 ? 0 : w * (w > 0 ? low : high);
}

double dm_fit_bound(const struct dm_fit *f, size_t n, double level, const struct dm_cand *cand)
{
    // J and S are shares of 1, but for the rounding of their sum; the rounding of d itself is less
    enum { J = 1, S = 2, P = 3 };
    const double *w = f->w[n], slack = 1e-6;
    if (!(level > 0))
        return exp(MOST);
    const double shares = least(w[J], log(level), slack) + least(w[S], log(level), slack);
    double d = w[0] + shares, size = fabs(w[0]) + fabs(shares);
    for (size_t h = 0; h < n; h++) {
        const double *p = cand[h].p, H = w[P + n + h] == 0 ? 0 : entropy(&cand[h]);
        size_t last = cand[h].n - 1;
        while (last > 0 && !(p[last] > 0)) // such tokens are in no block
            last--;
        const double part = least(w[P + h], log(p[last]), log(p[0])) + w[P + n + h] * H;
        d += part;
        size += fabs(part);
    }
    d -= 1e-9 * (1 + size);
    return exp(-fmin(fmax(d, -MOST), MOST));
}

double dm_fit_confidence(const struct dm_fit *f, size_t n, const double *term)
{
    double d = 0;
    for (size_t i = 0; i < dm_fit_terms(n); i++)
        d += f->w[n][i] * term[i];
    return exp(-fmin(fmax(d, -MOST), MOST));
}

json_t *dm_fit_to_json(const struct dm_fit *f)
{
    if (!f->known)
        return json_null();
    json_t *o = json_object();
    int bad = !o;
    for (size_t n = 2; n <= DM_ORDER_MAX; n++) {
        char key[8];
        json_t *a = json_array();
        for (size_t i = 0; i < dm_fit_terms(n); i++)
            bad |= json_array_append_new(a, json_real(f->w[n][i]));
        snprintf(key, sizeof(key), "%zu", n);
        bad |= json_object_set_new(o, key, a);
    }
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

enum dm_status dm_fit_from_json(struct dm_fit *f, const json_t *o, const char *where,
                                struct dm_err *e)
{
    *f = (struct dm_fit){.known = !json_is_null(o)};
    for (size_t n = 2; f->known && n <= DM_ORDER_MAX; n++) {
        char key[8];
        snprintf(key, sizeof(key), "%zu", n);
        const json_t *a = json_object_get(o, key);
        if (json_array_size(a) != dm_fit_terms(n))
            return dm_fail(e, DM_EFORMAT, "%s: fit has no %zu weights for %zu tokens", where,
                           dm_fit_terms(n), n);
        for (size_t i = 0; i < dm_fit_terms(n); i++) {
            const json_t *w = json_array_get(a, i);
            if (!json_is_number(w))
                return dm_fail(e, DM_EFORMAT, "%s: a weight of fit is %s, expected a number", where,
                               dm_json_type(w));
            f->w[n][i] = json_number_value(w);
        }
    }
    return DM_OK;
}
