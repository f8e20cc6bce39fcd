/* SPDX-License-Identifier: MIT */
#include "train/guard.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/par.h"

static const struct dm_adamw_slot *last_bad(const struct dm_adamw *a, bool gradient, size_t *n)
{
    const struct dm_adamw_slot *bad = NULL;
    size_t count = 0;
    for (size_t i = 0; i < a->n_slots; i++) {
        const struct dm_adamw_slot *s = &a->slot[i];
        // Squares of finite floats cannot overflow a double.
        if (!isfinite(dm_par_sum_squares(gradient ? s->g : s->p, s->n))) {
            bad = s;
            count++;
        }
    }
    if (n)
        *n = count;
    return bad;
}

const struct dm_adamw_slot *dm_guard_bad_gradient(const struct dm_adamw *a, size_t *n)
{
    return last_bad(a, true, n);
}

const struct dm_adamw_slot *dm_guard_bad_parameter(const struct dm_adamw *a, size_t *n)
{
    return last_bad(a, false, n);
}

/* The bound that the next number must not be above. */
static double bound(const double *x, size_t n, double sigma)
{
    double mean = 0.0, square = 0.0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        square += (x[i] - mean) * (x[i] - mean) / (double)n;
    return mean + sigma * fmax(sqrt(square), 0.01 * mean);
}

bool dm_guard_spike(const struct dm_guard *g, double loss, double norm, char *what, size_t n)
{
    const double x[] = {loss, norm};
    const double *const past[] = {g->loss, g->norm};
    static const char *const names[] = {"loss", "norm of the gradient"};
    if (g->on == DM_SPIKE_OFF || g->n < g->window)
        return false;
    for (int i = 0; i < 2; i++) {
        const double most = bound(past[i], g->n, g->sigma);
        if (x[i] <= most)
            continue;
        snprintf(what, n, "the %s is %.4g, above %.4g: mean + %g sigma of the last %zu steps",
                 names[i], x[i], most, g->sigma, g->n);
        return true;
    }
    return false;
}

static void push(double *x, size_t n, size_t window, double value)
{
    if (n == window)
        memmove(x, x + 1, (n - 1) * sizeof(*x));
    x[n < window ? n : n - 1] = value;
}

void dm_guard_accept(struct dm_guard *g, double loss, double norm)
{
    if (g->on == DM_SPIKE_OFF)
        return;
    push(g->loss, g->n, g->window, loss);
    push(g->norm, g->n, g->window, norm);
    g->n += g->n < g->window;
}

json_t *dm_guard_json(const struct dm_guard *g)
{
    if (g->on == DM_SPIKE_OFF)
        return NULL;
    json_t *loss = json_array(), *norm = json_array();
    for (size_t i = 0; i < g->n; i++) {
        json_array_append_new(loss, json_real(g->loss[i]));
        json_array_append_new(norm, json_real(g->norm[i]));
    }
    return json_pack("{s:o, s:o}", "loss", loss, "norm", norm);
}

enum dm_status dm_guard_restore(struct dm_guard *g, const json_t *stored, const char *where,
                                struct dm_err *e)
{
    const json_t *loss = json_object_get(stored, "loss"), *norm = json_object_get(stored, "norm");
    const size_t n = json_array_size(loss);
    g->n = 0;
    if (!stored || g->on == DM_SPIKE_OFF)
        return DM_OK;
    if (!json_is_array(loss) || json_array_size(norm) != n)
        return dm_fail(e, DM_EFORMAT, "%s: \"guard\" has no two lists of the same length", where);
    for (size_t i = n > g->window ? n - g->window : 0; i < n; i++) {
        const json_t *l = json_array_get(loss, i), *m = json_array_get(norm, i);
        if (!json_is_number(l) || !json_is_number(m))
            return dm_fail(e, DM_EFORMAT, "%s: entry %zu of \"guard\" is no number", where, i);
        dm_guard_accept(g, json_number_value(l), json_number_value(m));
    }
    return DM_OK;
}
