/* SPDX-License-Identifier: MIT */
#include "src/decode/candidates.h"

#include <assert.h>
#include <math.h>

#include "src/kernel/kern.h"

enum { SEGMENT = 1 << 16, ROOM = 2 * DM_TOP_K_MAX + 2 * DM_SELECT_ROOM };

/* What may still be among the best, in rising order of id. */
struct pool {
    size_t n;
    float x[ROOM];
    int32_t id[ROOM];
};

/* Leaves the `best` best of the pool, ties to the lower id, in rising order of id. */
static void cut_pool(struct pool *p, size_t best, const struct dm_kern *k)
{
    uint32_t rank[ROOM];
    size_t m = 0;
    if (p->n <= best)
        return;
    const float least = k->select->bound(p->x, p->n, best);
    for (size_t i = 0; i < p->n; i++) {
        p->x[m] = p->x[i];
        p->id[m] = p->id[i];
        m += p->x[m] >= least;
    }
    k->select->rank(rank, p->x, p->id, m);
    p->n = 0;
    for (size_t i = 0; i < m; i++) {
        p->x[p->n] = p->x[i];
        p->id[p->n] = p->id[i];
        p->n += rank[i] < best;
    }
}

/* Adds what x (n), the logits of ids from `first` on, may contribute to the `best` best. */
static void scan(struct pool *p, const float *x, int32_t first, size_t n, size_t best,
                 const struct dm_kern *k)
{
    float peak[DM_SELECT_PEAKS(SEGMENT)];
    const size_t n_peaks = k->select->peaks(peak, x, n);
    float least = n_peaks >= best ? k->select->bound(peak, n_peaks, best) : -INFINITY;
    for (size_t from = 0; from < n;) {
        if (ROOM - p->n < DM_SELECT_ROOM || (first && !from))
            cut_pool(p, best, k);
        if (p->n == best) { // ids rise, so that an equal logit never displaces an earlier one
            float worst = p->x[0];
            for (size_t i = 1; i < best; i++)
                worst = p->x[i] < worst ? p->x[i] : worst;
            worst = nextafterf(worst, INFINITY);
            least = worst > least ? worst : least;
        }
        const size_t m = k->select->at_least(p->id + p->n, p->x + p->n, ROOM - p->n, x, n, peak,
                                             least, &from);
        for (size_t i = p->n; first && i < p->n + m; i++)
            p->id[i] += first;
        p->n += m;
    }
}

bool dm_cand_select(struct dm_cand *c, const float *logits, size_t V, size_t top_k,
                    double temperature)
{
    assert(V > 0 && V <= INT32_MAX && top_k > 0 && top_k <= DM_TOP_K_MAX && temperature > 0);
    const struct dm_kern *k = dm_kern();
    const size_t n = top_k < V ? top_k : V;
    struct pool p;
    uint32_t rank[ROOM];
    p.n = 0;
    for (size_t i = 0; i < V; i += SEGMENT)
        scan(&p, logits + i, (int32_t)i, V - i < SEGMENT ? V - i : SEGMENT, n, k);
    cut_pool(&p, n, k);
    for (size_t i = 0; p.n < n; i++) // only where NaN leaves fewer
        if (isnan(logits[i])) {
            p.x[p.n] = -INFINITY;
            p.id[p.n++] = (int32_t)i;
        }

    c->n = n;
    k->select->rank(rank, p.x, p.id, n);
    for (size_t i = 0; i < n; i++) {
        c->id[rank[i]] = p.id[i];
        c->p[rank[i]] = (double)p.x[i];
    }
    const double top = c->p[0];
    if (!isfinite(top))
        return false;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += c->p[i] = exp((c->p[i] - top) / temperature);
    for (size_t i = 0; i < n; i++)
        c->p[i] /= sum;
    return true;
}
