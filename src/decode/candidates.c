/* SPDX-License-Identifier: MIT */
#include "src/decode/candidates.h"

#include <assert.h>
#include <math.h>

/* The n best so far as a heap whose root is the worst of them. */
struct heap {
    size_t n;
    float x[DM_TOP_K_MAX];
    int32_t id[DM_TOP_K_MAX];
};

static bool worse(float x, int32_t id, float y, int32_t jd)
{
    return x < y || (x == y && id > jd);
}

/* Puts (x, id) at the root and lets it sink. */
static void sink(struct heap *h, float x, int32_t id)
{
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= h->n)
            break;
        if (c + 1 < h->n && worse(h->x[c + 1], h->id[c + 1], h->x[c], h->id[c]))
            c++;
        if (!worse(h->x[c], h->id[c], x, id))
            break;
        h->x[i] = h->x[c];
        h->id[i] = h->id[c];
        i = c;
    }
    h->x[i] = x;
    h->id[i] = id;
}

static void push(struct heap *h, float x, int32_t id)
{
    size_t i = h->n++;
    for (; i > 0 && worse(x, id, h->x[(i - 1) / 2], h->id[(i - 1) / 2]); i = (i - 1) / 2) {
        h->x[i] = h->x[(i - 1) / 2];
        h->id[i] = h->id[(i - 1) / 2];
    }
    h->x[i] = x;
    h->id[i] = id;
}

/* Ids rise along the scan, so an equal logit never displaces an earlier one: > is enough. NaN
 * compares false, which drops it. The scan is cut into blocks that are tested as a whole, because
 * almost none holds a new candidate and the test of a block vectorises. */
static void scan(struct heap *h, const float *logits, size_t begin, size_t V)
{
    enum { BLOCK = 32 };
    for (size_t b = begin; b < V; b += BLOCK) {
        const size_t end = V - b < BLOCK ? V : b + BLOCK;
        const float least = h->x[0];
        int any = 0;
        for (size_t i = b; i < end; i++)
            any |= logits[i] > least;
        for (size_t i = b; any && i < end; i++)
            if (logits[i] > h->x[0])
                sink(h, logits[i], (int32_t)i);
    }
}

bool dm_cand_select(struct dm_cand *c, const float *logits, size_t V, size_t top_k,
                    double temperature)
{
    assert(V > 0 && top_k > 0 && top_k <= DM_TOP_K_MAX && temperature > 0);
    struct heap h = {0};
    const size_t n = top_k < V ? top_k : V;
    for (size_t i = 0; i < n; i++)
        push(&h, isnan(logits[i]) ? -INFINITY : logits[i], (int32_t)i);
    scan(&h, logits, n, V);

    c->n = n;
    for (size_t i = n; i-- > 0;) { // the root is the worst: fill from the end
        c->id[i] = h.id[0];
        c->p[i] = h.x[0];
        h.n--;
        if (h.n)
            sink(&h, h.x[h.n], h.id[h.n]);
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
