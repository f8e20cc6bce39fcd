/* SPDX-License-Identifier: MIT */
/* An n-gram is known to be kept only after all that it begins are, so every order has a list of
 * bytes that grows until the n-gram above it ends. Threads pack one stretch of pairs each, with all
 * that these begin. The stretches are put into blocks in order; only the first pair of a stretch or
 * block, whose bytes depend on what is before it, is packed then. */
#include "data/cooc_write.h"

#include <endian.h>
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
#define SHORT 16u               /* most lists below an n-gram are no longer: moved as that many */

/* The n-grams of one order that continue the same one, as far as they are known. */
struct list {
    uint8_t *byte;
    size_t n, room;
    uint32_t last; /* id of the last entry */
    size_t kept;
};

/* A pair that is kept: `below` bytes of what it begins, which end at `end` in the part's list, and
 * how many n-grams of orders 3 and 4 that is. */
struct pair {
    uint32_t x1, x2, count, kept[DM_NGRAM_ORDER_MAX - 2];
    size_t below, end;
};
#define KEY_BYTES (sizeof(struct pair) + 8u) /* a key is a pair of its own at most */

/* What a thread makes of a stretch of pairs. */
struct part {
    struct pair *pair;
    size_t n, room;
    struct list list[DM_NGRAM_ORDER_MAX + 1]; /* [n]: order n > 2; [2]: the pairs with all below */
    size_t kept[DM_NGRAM_ORDER_MAX - 2];      /* of orders 3 and 4 below the pair */
    struct dm_cooc_tally tally[DM_NGRAM_ORDER_MAX];
    char apart[DM_APART];
};

struct writer {
    struct dm_h5 *f;
    size_t order;
    struct dm_cooc_scorer keep;
    bool all; /* is kept */
    struct dm_cooc_tally *tally;
    uint64_t base[DM_NGRAM_ORDER_MAX + 1]; /* the least count that can be kept */
    unsigned id_bits;
    struct part *part; /* (slots) */
    struct list block;
    uint32_t row;         /* the last one */
    uint64_t block_row;   /* as in the index */
    bool in_row, any_row; /* in the block, in the table */
    uint64_t *index;      /* (blocks + 1, DM_COOC_INDEX), room for index_room lines */
    size_t blocks, index_room;
    uint64_t before[DM_NGRAM_ORDER_MAX + 1]; /* n-grams kept before the block, by order */
};

/* Room for n more bytes, and for SHORT beyond them that are of no account. */
static enum dm_status reserve(struct list *l, size_t n, struct dm_err *e)
{
    if (l->n + n + SHORT <= l->room)
        return DM_OK;
    const size_t room = 2 * (l->n + n + SHORT) + 256;
    uint8_t *byte = dm_realloc(l->byte, room, 1);
    if (!byte)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu bytes of a table", room);
    l->byte = byte;
    l->room = room;
    return DM_OK;
}

/* Without branches on the length, which could not be predicted. */
static inline uint8_t *put_number(uint8_t *p, uint64_t v)
{
    if (v >> 28)
        return p + dm_cooc_put_number(p, v);
    const uint32_t x = (uint32_t)v;
    const unsigned more = (x > 0x7f) + (x > 0x3fff) + (x > 0x1fffff); // bytes after the first
    const uint32_t bytes = (x & 127) | (x >> 7 & 127) << 8 | (x >> 14 & 127) << 16 | x >> 21 << 24;
    const uint32_t all = htole32(bytes | (0x808080u & ((1u << 8 * more) - 1)));
    memcpy(p, &all, sizeof(all));
    return p + 1 + more;
}

/* ids: the distance to the entry before; more: what the count is above the order's base. */
static inline uint8_t *put_entry(uint8_t *p, uint32_t ids, uint64_t more)
{
    p = put_number(p, (uint64_t)ids << 1 | (more > 0));
    return more ? put_number(p, more - 1) : p;
}

/* Appends n bytes, for which there is room. */
static void put_bytes(struct list *l, const uint8_t *from, size_t n)
{
    if (n <= SHORT)
        memcpy(l->byte + l->n, from, SHORT);
    else
        memcpy(l->byte + l->n, from, n);
    l->n += n;
}

static enum dm_status put_index(struct writer *w, struct dm_err *e)
{
    const uint64_t line[DM_COOC_INDEX] = {w->block_row, w->before[2], w->before[3], w->before[4]};
    if (w->blocks == w->index_room) {
        const size_t room = 2 * w->index_room + 64;
        uint64_t *index = dm_realloc(w->index, room, sizeof(line));
        if (!index)
            return dm_fail(e, DM_ENOMEM, "no memory for an index of %zu blocks", room);
        w->index = index;
        w->index_room = room;
    }
    memcpy(w->index + w->blocks * DM_COOC_INDEX, line, sizeof(line));
    return DM_OK;
}

static enum dm_status end_block(struct writer *w, struct dm_err *e)
{
    struct list *l = &w->block;
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
    struct list *l = &w->block;
    if (w->in_row && w->row == x1)
        return DM_OK;
    DM_TRY(reserve(l, ENTRY_MAX, e));
    if (w->in_row)
        l->byte[l->n++] = 0;
    if (!l->n) {
        w->block_row = (uint64_t)x1 << 1 | (w->any_row && w->row == x1);
        w->row = x1;
    }
    l->n = (size_t)(put_number(l->byte + l->n, x1 - w->row) - l->byte);
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

/* Moves the list below an n-gram behind it. */
static void put_below(struct list *l, struct list *below)
{
    if (below->n) // an empty list may have no memory
        put_bytes(l, below->byte, below->n);
    l->byte[l->n++] = 0;
    below->n = below->kept = 0;
    below->last = 0;
}

static void append_entry(const struct writer *w, struct list *l, size_t order, uint32_t id,
                         uint64_t count)
{
    l->n = (size_t)(put_entry(l->byte + l->n, id - l->last, count - w->base[order]) - l->byte);
    l->last = id;
}

/* The pair's own bytes, after those of the pair before it in the part; it has room for them. */
static enum dm_status add_pair(const struct writer *w, struct part *p, const struct dm_gram *x,
                               struct dm_err *e)
{
    struct list *l = &p->list[2];
    if (p->n == p->room) {
        const size_t room = p->room ? 2 * p->room : 1024;
        struct pair *more = dm_realloc(p->pair, room, sizeof(*more));
        if (!more)
            return dm_fail(e, DM_ENOMEM, "no memory for %zu pairs", room);
        p->pair = more;
        p->room = room;
    }
    if (p->n && p->pair[p->n - 1].x1 != x->id[0]) { // the end of a row, the head of the next
        l->byte[l->n++] = 0;
        l->n = (size_t)(put_number(l->byte + l->n, x->id[0] - p->pair[p->n - 1].x1) - l->byte);
        l->last = 0;
    }
    append_entry(w, l, 2, x->id[1], x->count);
    p->pair[p->n++] = (struct pair){
        x->id[0], x->id[1], (uint32_t)x->count, {(uint32_t)p->kept[0], (uint32_t)p->kept[1]},
        0,        l->n};
    p->kept[0] = p->kept[1] = 0;
    return DM_OK;
}

/* Called by several threads, each with a part of its own. */
static enum dm_status put_gram(void *ctx, size_t slot, const struct dm_gram *x, struct dm_err *e)
{
    const struct writer *w = ctx;
    struct part *p = &w->part[slot];
    struct list *l = &p->list[x->n], *below = x->n < w->order ? &p->list[x->n + 1] : NULL;
    count_in(&p->tally[x->n - 1], x->count);
    if (x->count > UINT32_MAX)
        return dm_fail(e, DM_ERANGE, "an n-gram occurs %" PRIu64 " times, want at most %lu",
                       x->count, (unsigned long)UINT32_MAX);
    if (!w->all && !(below && below->kept) && !dm_cooc_keeps(&w->keep, x))
        return DM_OK;
    DM_TRY(reserve(l, 2 * ENTRY_MAX + (below ? below->n + 1 : 0), e));
    if (x->n > 2) {
        append_entry(w, l, x->n, x->id[x->n - 1], x->count);
        l->kept++;
        p->kept[x->n - 3]++;
    } else {
        DM_TRY(add_pair(w, p, x, e));
    }
    if (below)
        put_below(l, below);
    if (x->n == 2) {
        struct pair *pair = &p->pair[p->n - 1];
        pair->below = l->n - pair->end;
        pair->end = l->n;
    }
    return DM_OK;
}

/* N-grams of the table's order, which begin nothing. */
static enum dm_status put_leaves(void *ctx, size_t slot, const uint32_t *id,
                                 const struct dm_counts *c, struct dm_err *e)
{
    const struct writer *w = ctx;
    struct part *p = &w->part[slot];
    struct list *l = &p->list[w->order];
    struct dm_cooc_tally *t = &p->tally[w->order - 1];
    const uint64_t mask = ((uint64_t)1 << w->id_bits) - 1, base = w->base[w->order];
    uint32_t full[DM_NGRAM_ORDER_MAX], *x = &full[w->order - 1], last = l->last;
    size_t kept = 0;
    DM_TRY(reserve(l, c->n * ENTRY_MAX, e));
    uint8_t *to = l->byte + l->n;
    memcpy(full, id, sizeof(full));
    for (size_t i = 0; i < c->n; i++) {
        const struct dm_gram gram = {full, w->order, c->count[i]};
        *x = (uint32_t)(c->key[i] & mask);
        count_in(t, c->count[i]);
        if (!w->all && !dm_cooc_keeps(&w->keep, &gram))
            continue;
        to = put_entry(to, *x - last, c->count[i] - base);
        last = *x;
        kept++;
    }
    l->n = (size_t)(to - l->byte);
    l->last = last;
    l->kept += kept;
    p->kept[w->order - 3] += kept;
    return DM_OK;
}

/* Puts pairs of a part from *i on into the block until it is full. */
static enum dm_status put_pairs(struct writer *w, const struct part *p, size_t *i, struct dm_err *e)
{
    struct list *l = &w->block;
    const struct pair *x = &p->pair[*i];
    const size_t from = x->end - x->below;
    size_t n;
    DM_TRY(begin_row(w, x->x1, e));
    DM_TRY(reserve(l, ENTRY_MAX, e));
    append_entry(w, l, 2, x->x2, x->count);
    do {
        x = &p->pair[(*i)++];
        n = x->end - from; // what is below the first pair, then the bytes as they are
        w->tally[1].kept++;
        for (size_t k = 3; k <= w->order; k++)
            w->tally[k - 1].kept += x->kept[k - 3];
    } while (*i < p->n && l->n + n < BLOCK);
    DM_TRY(reserve(l, n, e));
    if (n)
        put_bytes(l, p->list[2].byte + from, n);
    w->row = x->x1;
    l->last = x->x2;
    return l->n >= BLOCK ? end_block(w, e) : DM_OK;
}

static enum dm_status put_part(void *ctx, size_t slot, struct dm_err *e)
{
    struct writer *w = ctx;
    struct part *p = &w->part[slot];
    for (size_t i = 0; i < p->n;)
        DM_TRY(put_pairs(w, p, &i, e));
    for (size_t n = 2; n <= w->order; n++) {
        struct dm_cooc_tally *t = &w->tally[n - 1], *u = &p->tally[n - 1];
        t->total += u->total;
        t->distinct += u->distinct;
        t->ones += u->ones;
        t->twos += u->twos;
        *u = (struct dm_cooc_tally){0};
    }
    p->n = p->list[2].n = 0;
    p->list[2].last = 0;
    return DM_OK;
}

/* An n-gram is kept for its own count or for that of one it begins, which is no larger. */
static void find_bases(struct writer *w, const struct dm_cooc_rule *rule)
{
    uint64_t least = UINT64_MAX;
    w->all = rule->min_score <= 0;
    const double score = rule->by_weight ? 0.0 : rule->min_score;
    for (size_t n = w->order; n >= 2; n--) {
        uint64_t own = rule->min_count[n - 2];
        w->all &= own <= 1;
        if ((double)own < score)
            own = score < (double)UINT32_MAX ? (uint64_t)ceil(score) : UINT32_MAX;
        least = own < least ? own : least;
        w->base[n] = least;
    }
}

static enum dm_status put_all(struct writer *w, struct dm_ngram *g, struct dm_err *e)
{
    const size_t V = dm_ngram_vocab(g);
    const struct dm_cooc_walk walk = {w, KEY_BYTES, put_gram, w->order > 2 ? put_leaves : NULL,
                                      put_part};
    DM_TRY(dm_h5_write(w->f, "c1", DM_H5_U64, dm_ngram_c1(g), V, 0, 4, e));
    DM_TRY(dm_cooc_walk(g, &walk, e));
    DM_TRY(end_block(w, e));
    w->block_row = (uint64_t)(V - 1) << 1;
    DM_TRY(put_index(w, e));
    return dm_h5_write(w->f, "index", DM_H5_U64, w->index, (w->blocks + 1) * DM_COOC_INDEX, 0, 4,
                       e);
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
    w.id_bits = dm_ngram_id_bits(g);
    enum dm_status st;
    memset(tally, 0, w.order * sizeof(*tally));
    w.part = dm_alloc(dm_ngram_slots(g), sizeof(*w.part));
    if (!w.part)
        return dm_fail(e, DM_ENOMEM, "no memory to pack a table");
    tally_ids(tally, g);
    find_bases(&w, rule);
    DM_TRY_GOTO(dm_cooc_scorer_init(&w.keep, g, rule, e));
    DM_TRY_GOTO(put_all(&w, g, e));
    st = put_attributes(&w, g, e);
done:
    for (size_t i = 0; i < dm_ngram_slots(g); i++) {
        for (size_t n = 0; n <= DM_NGRAM_ORDER_MAX; n++)
            free(w.part[i].list[n].byte);
        free(w.part[i].pair);
    }
    free(w.part);
    free(w.block.byte);
    free(w.index);
    dm_cooc_scorer_release(&w.keep);
    return st;
}
