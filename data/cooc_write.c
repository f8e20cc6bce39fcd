/* SPDX-License-Identifier: MIT */
/* An n-gram is known to be kept only after all that it begins are, so every order has a list of
 * bytes that grows until the n-gram above it ends. The longest list is that of one pair. */
#include "data/cooc_write.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/io/cooc.h"
#include "src/io/cooc_pack.h"

#define BLOCK ((size_t)1 << 20) /* bytes after which a block ends with its pair */
#define ENTRY_MAX 16u           /* bytes of ids and count of an entry, or of a row's head */

/* The n-grams of one order that continue the same one, as far as they are known. */
struct list {
    uint8_t *byte;
    size_t n, room;
    uint32_t last; /* id of the last entry */
    size_t kept;
};

struct writer {
    struct dm_h5 *f;
    size_t order;
    struct dm_cooc_scorer keep;
    struct dm_cooc_tally *tally;
    uint64_t base[DM_NGRAM_ORDER_MAX + 1];    /* the least count that can be kept */
    struct list list[DM_NGRAM_ORDER_MAX + 1]; /* [n]: order n; [2] is the block */
    uint32_t row;                             /* the last one */
    uint64_t block_row;                       /* as in the index */
    bool in_row, any_row;                     /* in the block, in the table */
    size_t blocks;
    uint64_t before[DM_NGRAM_ORDER_MAX + 1]; /* n-grams kept before the block, by order */
};

static enum dm_status reserve(struct list *l, size_t n, struct dm_err *e)
{
    if (l->n + n <= l->room)
        return DM_OK;
    const size_t room = 2 * (l->n + n) + 256;
    uint8_t *byte = dm_realloc(l->byte, room, 1);
    if (!byte)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu bytes of a table", room);
    l->byte = byte;
    l->room = room;
    return DM_OK;
}

static void put_number(struct list *l, uint64_t v)
{
    l->n += dm_cooc_put_number(l->byte + l->n, v);
}

static enum dm_status put_index(struct writer *w, struct dm_err *e)
{
    const uint64_t line[DM_COOC_INDEX] = {w->block_row, w->before[2], w->before[3], w->before[4]};
    return dm_h5_append(w->f, "index", DM_H5_U64, line, DM_COOC_INDEX, e);
}

static enum dm_status end_block(struct writer *w, struct dm_err *e)
{
    struct list *l = &w->list[2];
    char name[DM_COOC_BLOCK_NAME];
    if (!l->n)
        return DM_OK;
    DM_TRY(reserve(l, 1, e));
    l->byte[l->n++] = 0;
    DM_TRY(put_index(w, e));
    dm_cooc_block_name(name, w->blocks++);
    DM_TRY(dm_h5_write(w->f, name, DM_H5_U8, l->byte, l->n, 0, 0, e));
    for (size_t n = 2; n <= w->order; n++)
        w->before[n] = w->tally[n - 1].kept;
    l->n = 0;
    l->last = 0;
    w->in_row = false;
    return DM_OK;
}

/* The head of x1's row, and the end of the row before it. */
static enum dm_status begin_row(struct writer *w, uint32_t x1, struct dm_err *e)
{
    struct list *l = &w->list[2];
    if (w->in_row && w->row == x1)
        return DM_OK;
    DM_TRY(reserve(l, ENTRY_MAX, e));
    if (w->in_row)
        l->byte[l->n++] = 0;
    if (!l->n) {
        w->block_row = (uint64_t)x1 << 1 | (w->any_row && w->row == x1);
        w->row = x1;
    }
    put_number(l, x1 - w->row);
    w->row = x1;
    w->in_row = w->any_row = true;
    l->last = 0;
    return DM_OK;
}

static void count_in(struct dm_cooc_tally *t, uint64_t count)
{
    t->total += count;
    t->distinct++;
    t->ones += count == 1;
    t->twos += count == 2;
}

static enum dm_status put_gram(void *ctx, const struct dm_gram *x, struct dm_err *e)
{
    struct writer *w = ctx;
    struct list *l = &w->list[x->n], *next = &w->list[x->n + 1 <= w->order ? x->n + 1 : 0];
    const bool leaf = x->n == w->order;
    count_in(&w->tally[x->n - 1], x->count);
    if (x->count > UINT32_MAX)
        return dm_fail(e, DM_ERANGE, "an n-gram occurs %" PRIu64 " times, want at most %lu",
                       x->count, (unsigned long)UINT32_MAX);
    if (!(!leaf && next->kept) && !dm_cooc_keeps(&w->keep, x))
        return DM_OK;
    if (x->n == 2)
        DM_TRY(begin_row(w, x->id[0], e));
    DM_TRY(reserve(l, ENTRY_MAX + (leaf ? 0 : next->n + 1), e));
    const uint32_t id = x->id[x->n - 1];
    const uint64_t more = x->count - w->base[x->n];
    put_number(l, (uint64_t)(id - l->last) << 1 | (more > 0));
    if (more)
        put_number(l, more - 1);
    l->last = id;
    l->kept++;
    w->tally[x->n - 1].kept++;
    if (leaf)
        return DM_OK;
    if (next->n) // an empty list may have no memory
        memcpy(l->byte + l->n, next->byte, next->n);
    l->n += next->n;
    l->byte[l->n++] = 0;
    next->n = next->kept = 0;
    next->last = 0;
    return x->n == 2 && l->n >= BLOCK ? end_block(w, e) : DM_OK;
}

/* An n-gram is kept for its own count or for that of one it begins, which is no larger. */
static void find_bases(struct writer *w, const struct dm_cooc_rule *rule)
{
    uint64_t least = UINT64_MAX;
    const double score = rule->by_weight ? 0.0 : rule->min_score;
    for (size_t n = w->order; n >= 2; n--) {
        uint64_t own = rule->min_count[n - 2];
        if ((double)own < score)
            own = score < (double)UINT32_MAX ? (uint64_t)ceil(score) : UINT32_MAX;
        least = own < least ? own : least;
        w->base[n] = least;
    }
}

static enum dm_status put_all(struct writer *w, struct dm_ngram *g, struct dm_err *e)
{
    const size_t V = dm_ngram_vocab(g);
    DM_TRY(dm_h5_write(w->f, "c1", DM_H5_U64, dm_ngram_c1(g), V, 0, 4, e));
    DM_TRY(dm_cooc_walk(g, put_gram, w, e));
    DM_TRY(end_block(w, e));
    w->block_row = (uint64_t)(V - 1) << 1;
    return put_index(w, e);
}

static enum dm_status put_attributes(struct writer *w, const struct dm_ngram *g, struct dm_err *e)
{
    const struct dm_cooc_rule *rule = &w->keep.rule;
    bool complete = true;
    DM_TRY(dm_h5_set_u64(w->f, "/", "vocab", dm_ngram_vocab(g), e));
    DM_TRY(dm_h5_set_u64(w->f, "/", "order", w->order, e));
    for (size_t n = 1; n <= w->order; n++) {
        const struct dm_cooc_tally *t = &w->tally[n - 1];
        const struct {
            const char *name;
            uint64_t value;
        } attr[] = {{"n", t->total},
                    {"distinct", t->distinct},
                    {"kept", t->kept},
                    {"ones", t->ones},
                    {"twos", t->twos},
                    {"min_count", n > 1 ? rule->min_count[n - 2] : 1},
                    {"base", n > 1 ? w->base[n] : 1}};
        complete &= t->kept == t->distinct;
        for (size_t i = 0; i < sizeof(attr) / sizeof(attr[0]); i++) {
            char name[32];
            snprintf(name, sizeof(name), "%s%zu", attr[i].name, n);
            DM_TRY(dm_h5_set_u64(w->f, "/", name, attr[i].value, e));
        }
    }
    DM_TRY(dm_h5_set_f64(w->f, "/", "min_score", rule->min_score, e));
    DM_TRY(dm_h5_set_string(w->f, "/", "score", rule->by_weight ? "weight" : "count", e));
    return dm_h5_set_u64(w->f, "/", "complete", complete, e);
}

static void tally_ids(struct dm_cooc_tally *t, const struct dm_ngram *g)
{
    const uint64_t *c1 = dm_ngram_c1(g);
    *t = (struct dm_cooc_tally){0};
    for (size_t i = 0; i < dm_ngram_vocab(g); i++)
        if (c1[i])
            count_in(t, c1[i]);
    t->kept = t->distinct;
}

enum dm_status dm_cooc_write(struct dm_h5 *f, struct dm_ngram *g, const struct dm_cooc_rule *rule,
                             struct dm_cooc_tally *tally, struct dm_err *e)
{
    struct writer w = {.f = f, .order = dm_ngram_order(g), .tally = tally};
    enum dm_status st;
    memset(tally, 0, w.order * sizeof(*tally));
    tally_ids(tally, g);
    find_bases(&w, rule);
    DM_TRY_GOTO(dm_cooc_scorer_init(&w.keep, g, rule, e));
    DM_TRY_GOTO(put_all(&w, g, e));
    st = put_attributes(&w, g, e);
done:
    for (size_t n = 0; n <= DM_NGRAM_ORDER_MAX; n++)
        free(w.list[n].byte);
    dm_cooc_scorer_release(&w.keep);
    return st;
}
