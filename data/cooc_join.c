/* SPDX-License-Identifier: MIT */
/* The counters of several processes become one: in round k, rank r gets the counts of rank r + 2^k,
 * which had added those of its own partners before. Every piece on its way begins with how many
 * counts follow, so that a process that fails can say so and its partner need not wait. */
#include <stdlib.h>
#include <string.h>

#include "data/cooc_impl.h"
#include "data/ngram.h"
#include "src/base/arena.h"

#define PIECE ((size_t)1 << 16) /* counts sent at a time */
#define LAST ((uint64_t)0)      /* no more pieces, the totals follow */
#define FAILED UINT64_MAX       /* no more of anything */

struct way {
    struct dm_ranks *r;
    size_t other;
};

static enum dm_status put_piece(void *ctx, const struct dm_counts *c, struct dm_err *e)
{
    const struct way *w = ctx;
    for (size_t at = 0; at < c->n; at += PIECE) {
        const uint64_t n = c->n - at < PIECE ? c->n - at : PIECE;
        DM_TRY(dm_ranks_put(w->r, &n, sizeof(n), w->other, e));
        DM_TRY(dm_ranks_put(w->r, c->key + at, n * sizeof(*c->key), w->other, e));
        DM_TRY(dm_ranks_put(w->r, c->count + at, n * sizeof(*c->count), w->other, e));
    }
    return DM_OK;
}

/* Sends all counts; st is how it went so far. */
static enum dm_status put_all(struct dm_cooc_job *j, struct way *w, enum dm_status st,
                              struct dm_err *e)
{
    if (!st)
        st = dm_ngram_finish(j->g, e);
    if (!st)
        st = dm_ngram_list(j->g, put_piece, w, e); // processes talk in this thread
    const uint64_t end = st ? FAILED : LAST;
    struct dm_err lost;
    enum dm_status sent = dm_ranks_put(w->r, &end, sizeof(end), w->other, st ? &lost : e);
    if (st || sent)
        return st ? st : sent;
    DM_TRY(dm_ranks_put(w->r, dm_ngram_c1(j->g), j->V * sizeof(uint64_t), w->other, e));
    return dm_ranks_put(w->r, dm_ngram_totals(j->g), j->order * sizeof(uint64_t), w->other, e);
}

/* Where a piece and the totals are received. */
struct room {
    struct dm_counts c;
    uint64_t *c1, N[DM_NGRAM_ORDER_MAX];
};

/* Takes all counts of the other and adds them unless something has failed here, in *st: what was
 * sent must be taken in any case. *more = false when there is nothing after it. */
static enum dm_status get_piece(struct dm_cooc_job *j, const struct way *w, struct room *m,
                                enum dm_status *st, bool *more, struct dm_err *e)
{
    uint64_t n;
    struct dm_err lost;
    struct dm_err *mine = *st ? &lost : e; // the first sentence stays
    DM_TRY(dm_ranks_get(w->r, &n, sizeof(n), w->other, mine));
    *more = n != LAST && n != FAILED;
    if (*more && n > PIECE)
        return dm_fail(mine, DM_EFORMAT, "process %zu sent nonsense", w->other);
    if (*more) {
        m->c.n = (size_t)n;
        DM_TRY(dm_ranks_get(w->r, m->c.key, n * sizeof(*m->c.key), w->other, mine));
        DM_TRY(dm_ranks_get(w->r, m->c.count, n * sizeof(*m->c.count), w->other, mine));
        if (!*st)
            *st = dm_ngram_add_counts(j->g, &m->c, e);
    } else if (n == LAST) {
        DM_TRY(dm_ranks_get(w->r, m->c1, j->V * sizeof(*m->c1), w->other, mine));
        DM_TRY(dm_ranks_get(w->r, m->N, j->order * sizeof(*m->N), w->other, mine));
        if (!*st)
            dm_ngram_add_totals(j->g, m->c1, m->N);
    }
    return DM_OK;
}

static enum dm_status get_all(struct dm_cooc_job *j, const struct way *w, struct room *m,
                              enum dm_status st, struct dm_err *e)
{
    enum dm_status got = DM_OK;
    for (bool more = true; more && !got;)
        got = get_piece(j, w, m, &st, &more, e);
    return st ? st : got;
}

static enum dm_status join(struct dm_cooc_job *j, struct room *m, enum dm_status st,
                           struct dm_err *e)
{
    struct dm_ranks *r = j->o->ranks;
    for (size_t d = 1; d < r->n; d *= 2) {
        struct way w = {.r = r, .other = r->rank ^ d};
        if (r->rank & d)
            return put_all(j, &w, st, e);
        if (w.other < r->n)
            st = get_all(j, &w, m, st, e);
    }
    return st ? st : dm_ngram_finish(j->g, e);
}

enum dm_status dm_cooc_job_join(struct dm_cooc_job *j, enum dm_status st, struct dm_err *e)
{
    struct dm_ranks *r = j->o->ranks;
    struct room m = {0};
    if (dm_ranks_count(r) == 1)
        return st;
    m.c.key = dm_alloc(PIECE, sizeof(*m.c.key));
    m.c.count = dm_alloc(PIECE, sizeof(*m.c.count));
    m.c1 = dm_alloc(j->V, sizeof(*m.c1));
    const bool memory = m.c.key && m.c.count && m.c1;
    enum dm_status ready = dm_ranks_agree(
        r, memory ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory"), e);
    if (!ready)
        ready = dm_ranks_agree(r, join(j, &m, st, e), e);
    free(m.c.key);
    free(m.c.count);
    free(m.c1);
    return ready;
}
