/* SPDX-License-Identifier: MIT */
/* The usual block in one pass: every number is read, checked and made a ratio at once. Lists are
 * two or three entries long, so each loop over one costs a mispredicted branch at its end, and one
 * loop takes half the time of four. */
#include "src/io/cooc_impl.h"
#include "src/io/cooc_read.h"

struct taking {
    struct dm_cooc *c;
    const struct dm_cooc_token *token;
    const uint64_t *base;
    const uint8_t *p, *end; /* DM_COOC_TAKE_PAD more bytes can be read */
    size_t pair, pairs;     /* number of the next one, and where the block's end */
    size_t triplet, triplets;
    uint16_t *ratio;
};

/* A number of up to 4 bytes without a branch on its length; a longer one gives UINT32_MAX. */
static inline uint32_t number(const uint8_t **p)
{
    uint32_t w;
    memcpy(&w, *p, sizeof(w));
    const uint32_t ends = ~w & 0x80808080u; // of numbers
    if (!ends)
        return UINT32_MAX;
    w &= ends ^ (ends - 1);
    *p += ((unsigned)__builtin_ctz(ends) >> 3) + 1;
    return (w & 0x7f) | (w >> 1 & 0x3f80) | (w >> 2 & 0x1fc000) | (w >> 3 & 0xfe00000);
}

/* Reads the next entry of a list of the order; false if it is wrong. *last: the list ends behind
 * it, which is seen before the next number is read: each waits for where the one before it ends. */
static inline bool entry(struct taking *t, size_t order, uint32_t *id, uint64_t *count, bool *last)
{
    uint32_t w;
    memcpy(&w, t->p, sizeof(w));
    const uint32_t ends = ~w & 0x808080u; // ids take no more than 3 bytes
    if (t->p >= t->end || !ends)
        return false;
    const uint32_t v = w & (ends ^ (ends - 1)),
                   head = (v & 0x7f) | (v >> 1 & 0x3f80) | (v >> 2 & 0x1fc000);
    const unsigned bits = (unsigned)__builtin_ctz(ends) + 1;
    uint32_t next = w >> bits & 0xff;
    t->p += bits >> 3;
    *id += head >> 1;
    *count = t->base[order];
    if (head & 1) { // mostly one byte more, so a branch is better here
        *count += (*t->p < 128 ? *t->p++ : (uint64_t)number(&t->p)) + 1;
        next = *t->p;
    }
    *last = !next;
    return head > 1 && *id < t->c->V && *count <= t->token[*id].most;
}

static inline bool is_empty(const struct taking *t)
{
    return !*t->p;
}

/* Ids and ratios of n triplets lie side by side, so the latter wait until n is known: the first
 * four in a register, for reading at once as a whole what was written piece by piece takes long. */
static inline void put_ratios(const struct taking *t, unsigned char *to, size_t n, uint64_t four)
{
    if (n <= 4 && t->triplets - t->triplet >= 4) // what is too much is overwritten
        memcpy(to, &four, sizeof(four));
    else
        memcpy(to, t->ratio, n * sizeof(*t->ratio));
}

/* The list below pair p, which is counted c2 times; adds to *total. */
static inline bool take_triplets(struct taking *t, size_t p, uint64_t c2, double scale,
                                 uint64_t *total)
{
    struct dm_cooc *c = t->c;
    const size_t room = t->triplets - t->triplet;
    const double discount = c->discount[1];
    unsigned char *ids = c->next + t->triplet * (2 * sizeof(uint16_t));
    uint64_t count, sum = 0, four = 0;
    uint32_t id = 0;
    uint16_t max = 0;
    size_t n = 0;
    for (bool last = is_empty(t); !last;) {
        if (!entry(t, 3, &id, &count, &last) || n == room)
            return false;
        const double c3 = (double)(int64_t)count; // from uint64_t it takes longer
        const uint16_t low = (uint16_t)id,
                       r = dm_cooc_to_ratio((c3 - discount) * scale * t->token[id].n1_over_c1);
        memcpy(ids + n * sizeof(low), &low, sizeof(low));
        four |= n < 4 ? (uint64_t)r << 16 * n : 0;
        t->ratio[n++] = r;
        max = r > max ? r : max;
        sum += count;
    }
    t->p++; // the list's end
    put_ratios(t, ids + n * sizeof(uint16_t), n, four);
    if (c->discounting)
        c->left2[p] = dm_cooc_to_ratio(1 - ((double)sum - discount * (double)n) / (double)c2);
    c->pair[p].at = (uint32_t)t->triplet;
    c->pair[p].r3_max = max;
    t->triplet += n;
    *total += sum;
    return sum <= c2;
}

/* The pairs of x1 and what they begin; adds to *triplets. The last id and the sum come back. */
static bool take_row(struct taking *t, uint32_t x1, uint32_t *last_id, uint64_t *sum,
                     uint64_t *triplets)
{
    struct dm_cooc *c = t->c;
    const double n2 = (double)c->N[c->discounting ? 0 : 1], n3 = (double)c->N[2];
    uint32_t id = 0;
    uint64_t count;
    *sum = 0;
    for (bool last; !is_empty(t);) {
        if (!entry(t, 2, &id, &count, &last) || t->pair == t->pairs)
            return false;
        const size_t p = t->pair++;
        const uint16_t low = (uint16_t)id;
        const double both = t->token[x1].n1_over_c1 * t->token[id].n1_over_c1,
                     c2 = (double)(int64_t)count;
        memcpy(c->x2_ids + p * sizeof(low), &low, sizeof(low));
        c->pair[p].r2 = dm_cooc_to_ratio((c2 - c->discount[0]) / n2 * both);
        if (!take_triplets(t, p, count, c->discounting ? 1 / c2 : both / n3, triplets))
            return false;
        *sum += count;
    }
    t->p++;
    *last_id = id;
    return *sum <= c->c1[x1];
}

bool dm_cooc_take(struct dm_cooc *c, const struct dm_cooc_reader *r, size_t b, const uint8_t *data,
                  size_t n, const struct dm_cooc_token *token, uint16_t *ratio, uint64_t *row,
                  uint64_t *pairs_of, struct dm_cooc_block *out)
{
    struct taking t = {c, token, r->base, data, data + n, dm_cooc_before(r, 2, b), 0, 0, 0, ratio};
    const bool goes_on = dm_cooc_goes_on(r, b),
               last_ours = b + 1 == r->blocks || dm_cooc_goes_on(r, b + 1);
    const uint32_t end = dm_cooc_first_row(r, b + 1);
    struct dm_cooc_block k = {.x = out->x, .first = dm_cooc_first_row(r, b)};
    const size_t begin = t.pair;
    if (r->order != 3 || c->id_bytes != sizeof(uint16_t))
        return false;
    t.pairs = dm_cooc_before(r, 2, b + 1);
    t.triplet = dm_cooc_before(r, 3, b);
    t.triplets = dm_cooc_before(r, 3, b + 1);
    k.last = k.first;
    for (bool first = true; t.p < t.end; first = false) {
        const uint32_t step = number(&t.p);
        const size_t at = t.pair;
        // other rows are other blocks', and maybe other threads'
        if (first != !step || step > end - k.last || (k.last + step == end && !last_ours))
            return false;
        k.last += step;
        if (!(first && goes_on))
            row[k.last] = at;
        if (!take_row(&t, k.last, &k.last_id, &k.last_sum, &k.total[1]) || t.pair == at)
            return false;
        k.total[0] += k.last_sum;
        if (first)
            k.first_sum = k.last_sum;
        else if (t.p < t.end)
            pairs_of[k.last] = k.last_sum;
    }
    if (t.p != t.end || t.pair != t.pairs || t.triplet != t.triplets || t.pair == begin)
        return false;
    k.first_id = dm_cooc_pair_id(c, begin);
    *out = k;
    return true;
}
