/* SPDX-License-Identifier: MIT */
/* What other minimum counts keep is found by counting again instead of from a histogram: a pass
 * reads the keys once in order, at memory speed and on all threads, and the pairs that only a
 * triplet keeps come out exactly. */
#include "data/cooc_prune.h"

#include <assert.h>

#include "src/base/par.h"

#define PARTS_MAX 256u

bool dm_pair_next(const struct dm_ngram *g, size_t part, struct dm_pair *p)
{
    const struct dm_run *r = dm_ngram_part(g, part);
    const unsigned bits = dm_ngram_id_bits(g), low = bits * (unsigned)(dm_ngram_order(g) - 2);
    size_t i = p->end;
    if (i >= r->n)
        return false;
    const uint64_t pair = r->key[i] >> low;
    p->begin = i;
    p->count = 0;
    for (; i < r->n && r->key[i] >> low == pair; i++)
        p->count += r->count[i];
    p->end = i;
    p->x1 = (uint32_t)(pair >> bits);
    p->x2 = (uint32_t)(pair & (((uint64_t)1 << bits) - 1));
    return true;
}

uint32_t dm_pair_third(const struct dm_ngram *g, size_t part, size_t i)
{
    const uint64_t mask = ((uint64_t)1 << dm_ngram_id_bits(g)) - 1;
    return dm_ngram_order(g) < 3 ? 0 : (uint32_t)(dm_ngram_part(g, part)->key[i] & mask);
}

static void raise_to(uint64_t *largest, uint64_t count)
{
    if (*largest < count)
        *largest = count;
}

static void count_part(const struct dm_ngram *g, size_t part, struct dm_cooc_tally *t)
{
    const struct dm_run *r = dm_ngram_part(g, part);
    for (struct dm_pair p = {0}; dm_pair_next(g, part, &p);) {
        if (!p.x2)
            continue;
        uint64_t kept = 0;
        for (size_t i = p.begin; i < p.end; i++) {
            if (!dm_pair_third(g, part, i))
                continue;
            t->total[1] += r->count[i];
            t->distinct[1]++;
            raise_to(&t->largest[1], r->count[i]);
            kept += r->count[i] >= t->min_count[1];
        }
        t->kept[1] += kept;
        t->total[0] += p.count;
        t->distinct[0]++;
        raise_to(&t->largest[0], p.count);
        t->kept[0] += kept || p.count >= t->min_count[0];
    }
}

struct counting {
    const struct dm_ngram *g;
    struct dm_cooc_tally part[PARTS_MAX];
};

static void count_parts(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    struct counting *c = ctx;
    for (size_t p = begin; p < end; p++)
        count_part(c->g, p, &c->part[p]);
}

void dm_cooc_count(const struct dm_ngram *g, const uint64_t min_count[2], struct dm_cooc_tally *t)
{
    struct counting c = {.g = g};
    const size_t parts = dm_ngram_parts(g);
    assert(parts <= PARTS_MAX && dm_ngram_order(g) <= 3);
    *t = (struct dm_cooc_tally){.min_count = {min_count[0], min_count[1]}};
    for (size_t p = 0; p < parts; p++)
        c.part[p] = *t;
    dm_par_for(parts, 1, count_parts, &c);
    for (size_t p = 0; p < parts; p++)
        for (size_t i = 0; i < 2; i++) {
            t->total[i] += c.part[p].total[i];
            t->distinct[i] += c.part[p].distinct[i];
            t->kept[i] += c.part[p].kept[i];
            raise_to(&t->largest[i], c.part[p].largest[i]);
        }
}

/* Raises min_count[level] of t, which does not fit, as little as needed; *met is false if no value
 * is enough, and t is then the one that keeps nothing for its own count. */
static enum dm_status raise_level(const struct dm_ngram *g, size_t level, dm_cooc_fits_fn *fits,
                                  void *ctx, struct dm_cooc_tally *t, bool *met, struct dm_err *e)
{
    const uint64_t top = t->largest[level] + 1;
    uint64_t min[2] = {t->min_count[0], t->min_count[1]};
    uint64_t no = min[level], yes; // the largest known not to fit, the smallest known to fit
    for (*met = false; !*met && no < top;) {
        min[level] = no > top / 2 ? top : 2 * no;
        dm_cooc_count(g, min, t);
        DM_TRY(fits(ctx, t, met, e));
        if (!*met)
            no = min[level];
    }
    if (!*met)
        return DM_OK;
    for (yes = min[level]; yes - no > 1;) {
        bool ok;
        min[level] = no + (yes - no) / 2;
        dm_cooc_count(g, min, t);
        DM_TRY(fits(ctx, t, &ok, e));
        *(ok ? &yes : &no) = min[level];
    }
    min[level] = yes;
    dm_cooc_count(g, min, t);
    return DM_OK;
}

enum dm_status dm_cooc_prune(const struct dm_ngram *g, const uint64_t min_count[2],
                             dm_cooc_fits_fn *fits, void *ctx, struct dm_cooc_tally *t, bool *met,
                             struct dm_err *e)
{
    *met = true;
    dm_cooc_count(g, min_count, t);
    if (t->largest[0] > UINT32_MAX)
        return dm_fail(e, DM_ERANGE, "a pair occurs %llu times, want at most %lu",
                       (unsigned long long)t->largest[0], (unsigned long)UINT32_MAX);
    if (fits)
        DM_TRY(fits(ctx, t, met, e));
    for (size_t level = 2; level-- > 0 && !*met;)
        DM_TRY(raise_level(g, level, fits, ctx, t, met, e));
    return DM_OK;
}
