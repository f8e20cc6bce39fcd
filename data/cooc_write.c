/* SPDX-License-Identifier: MIT */
/* Pairs and triplets go through blocks of fixed size, so writing needs memory for the unigrams
 * only, however large the table is. */
#include "data/cooc_write.h"

#include <stdlib.h>

#include "src/base/arena.h"

#define BLOCK ((size_t)1 << 16) /* items */

enum column_id { X2, C2, SUB, X3, C3, N_COLUMNS };

struct column {
    const char *name;
    enum dm_h5_type type;
    union {
        uint32_t *u32;
        uint64_t *u64;
        void *any;
    } buf;
    size_t n;
};

struct writer {
    struct dm_h5 *f;
    struct column col[N_COLUMNS];
    uint64_t *c1, *row; /* (V), (V+1) */
    uint64_t n_triplets;
};

static enum dm_status flush(struct writer *w, struct column *c, struct dm_err *e)
{
    const size_t n = c->n;
    c->n = 0;
    return dm_h5_append(w->f, c->name, c->type, c->buf.any, n, e);
}

static enum dm_status put(struct writer *w, enum column_id id, uint64_t v, struct dm_err *e)
{
    struct column *c = &w->col[id];
    if (c->type == DM_H5_U64)
        c->buf.u64[c->n++] = v;
    else
        c->buf.u32[c->n++] = (uint32_t)v;
    return c->n == BLOCK ? flush(w, c, e) : DM_OK;
}

static enum dm_status put_pair(struct writer *w, const struct dm_ngram *g, size_t part,
                               const struct dm_pair *p, const struct dm_cooc_tally *t,
                               struct dm_err *e)
{
    const struct dm_run *r = dm_ngram_part(g, part);
    const uint64_t first = w->n_triplets;
    for (size_t i = p->begin; i < p->end; i++) {
        const uint32_t x3 = dm_pair_third(g, part, i);
        if (!x3 || r->count[i] < t->min_count[1])
            continue;
        DM_TRY(put(w, X3, x3, e));
        DM_TRY(put(w, C3, r->count[i], e));
        w->n_triplets++;
    }
    if (w->n_triplets == first && p->count < t->min_count[0])
        return DM_OK;
    w->row[p->x1 + 1]++;
    DM_TRY(put(w, X2, p->x2, e));
    DM_TRY(put(w, C2, p->count, e));
    return put(w, SUB, first, e);
}

static enum dm_status put_all(struct writer *w, const struct dm_ngram *g,
                              const struct dm_cooc_tally *t, struct dm_err *e)
{
    for (size_t part = 0; part < dm_ngram_parts(g); part++)
        for (struct dm_pair p = {0}; dm_pair_next(g, part, &p);) {
            w->c1[p.x1] += p.count;
            if (p.x2)
                DM_TRY(put_pair(w, g, part, &p, t, e));
        }
    DM_TRY(put(w, SUB, w->n_triplets, e));
    for (size_t i = 0; i < N_COLUMNS; i++)
        DM_TRY(flush(w, &w->col[i], e));
    return DM_OK;
}

static enum dm_status put_unigrams(struct writer *w, size_t V, uint64_t *n1, uint64_t *n_ids,
                                   struct dm_err *e)
{
    *n1 = *n_ids = 0;
    for (size_t i = 0; i < V; i++) {
        *n1 += w->c1[i];
        *n_ids += w->c1[i] != 0;
        w->row[i + 1] += w->row[i];
    }
    DM_TRY(dm_h5_write(w->f, "c1", DM_H5_U64, w->c1, V, 0, 4, e));
    return dm_h5_write(w->f, "row", DM_H5_U64, w->row, V + 1, 0, 4, e);
}

static enum dm_status put_attributes(struct dm_h5 *f, const struct dm_ngram *g,
                                     const struct dm_cooc_tally *t, uint64_t n1, struct dm_err *e)
{
    const struct {
        const char *name;
        uint64_t value;
    } attr[] = {
        {"vocab", dm_ngram_vocab(g)},
        {"order", dm_ngram_order(g)},
        {"n1", n1},
        {"n2", t->total[0]},
        {"n3", t->total[1]},
        {"min_count2", t->min_count[0]},
        {"min_count3", t->min_count[1]},
        {"distinct2", t->distinct[0]},
        {"distinct3", t->distinct[1]},
    };
    for (size_t i = 0; i < sizeof(attr) / sizeof(attr[0]); i++)
        DM_TRY(dm_h5_set_u64(f, "/", attr[i].name, attr[i].value, e));
    return DM_OK;
}

enum dm_status dm_cooc_write(struct dm_h5 *f, const struct dm_ngram *g,
                             const struct dm_cooc_tally *t, uint64_t *n1, uint64_t *n_ids,
                             struct dm_err *e)
{
    static const struct column col[N_COLUMNS] = {
        [X2] = {"x2", DM_H5_U32}, [C2] = {"c2", DM_H5_U32}, [SUB] = {"sub", DM_H5_U64},
        [X3] = {"x3", DM_H5_U32}, [C3] = {"c3", DM_H5_U32},
    };
    struct writer w = {.f = f};
    const size_t V = dm_ngram_vocab(g);
    enum dm_status st = DM_OK;
    w.c1 = dm_alloc(V, sizeof(*w.c1));
    w.row = dm_alloc(V + 1, sizeof(*w.row));
    bool short_of_memory = !w.c1 || !w.row;
    for (size_t i = 0; i < N_COLUMNS; i++) {
        w.col[i] = col[i];
        w.col[i].buf.any = dm_alloc(BLOCK, sizeof(uint64_t));
        short_of_memory |= !w.col[i].buf.any;
    }
    if (short_of_memory) {
        st = dm_fail(e, DM_ENOMEM, "%s: no memory to write a table of %zu ids", dm_h5_path(f), V);
        goto done;
    }
    DM_TRY_GOTO(put_all(&w, g, t, e));
    DM_TRY_GOTO(put_unigrams(&w, V, n1, n_ids, e));
    st = put_attributes(f, g, t, *n1, e);
done:
    for (size_t i = 0; i < N_COLUMNS; i++)
        free(w.col[i].buf.any);
    free(w.row);
    free(w.c1);
    return st;
}
