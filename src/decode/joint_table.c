/* SPDX-License-Identifier: MIT */
/* The part of the joint that the table holds: pairs for all orders, triplets behind them. Nearly
 * all of the time goes into waiting for memory that the weights have pushed out of the caches, so
 * everything is asked for well before it is read, by two threads. */
#include <math.h>
#include <string.h>

#include "src/base/par.h"
#include "src/decode/joint_impl.h"

/* Weight of an n-gram that the table holds, r^alpha. Rises with r. */
static double weight(const struct dm_mask *m, double r)
{
    if (m->unseen == DM_UNSEEN_MIX)
        r = m->lambda * r + (1 - m->lambda);
    return m->alpha == 1 ? r : m->alpha == 0.5 ? sqrt(r) : pow(r, m->alpha);
}

double dm_joint_unseen(const struct dm_joint *j, int32_t x1)
{
    const struct dm_mask *m = &j->mask;
    if (!m->cooc || m->unseen == DM_UNSEEN_ZERO)
        return m->cooc ? 0 : 1;
    if (m->unseen == DM_UNSEEN_DISCOUNT)
        return (size_t)x1 < m->cooc->V ? weight(m, (double)m->cooc->left1[x1]) : 1;
    return pow(1 - m->lambda, m->alpha);
}

/* Adds the pairs of the i-th candidate to the n before. */
static size_t look_up_row(const struct dm_joint *j, size_t head, size_t i, size_t *found,
                          uint32_t *cell, size_t n)
{
    const struct dm_cooc *c = j->mask.cooc;
    const uint32_t x1 = (uint32_t)j->cand[head].id[i];
    uint16_t pos[DM_TOP_K_MAX + 1];
    uint32_t at[DM_TOP_K_MAX + 1];
    if (x1 >= c->V)
        return n;
    const size_t m = dm_lookup_pairs(&j->lookup[head], c, x1, pos, at,
                                     j->scratch + head * DM_LOOKUP_SCRATCH);
    for (size_t s = 0; s < m; s++, n++) {
        cell[n] = (uint32_t)(i * j->cand[head + 1].n + pos[s]);
        found[n] = c->rows[x1].pair + at[s];
        __builtin_prefetch(c->pair + found[n]);
    }
    return n;
}

/* found[p] = index in the table of the p-th pair of a's candidates and those of l, which is pair
 * (i, m); returns how many. first (a->n + 1) unless NULL: those of a's i-th begin at first[i]. */
static size_t look_up(const struct dm_joint *j, size_t head, size_t *found, uint32_t *cell,
                      uint32_t *first)
{
    enum { AHEAD = 4 };
    const struct dm_cooc *c = j->mask.cooc;
    const struct dm_cand *a = &j->cand[head];
    size_t n = 0;
    if (first)
        first[0] = 0;
    for (size_t i = 0; i < a->n; i++)
        if ((size_t)a->id[i] < c->V)
            __builtin_prefetch(c->rows + a->id[i]);
    for (size_t i = 0; i < a->n + AHEAD; i++) {
        if (i < a->n && (size_t)a->id[i] < c->V)
            dm_lookup_prefetch(&j->lookup[head], c, (uint32_t)a->id[i]);
        if (i < AHEAD)
            continue;
        n = look_up_row(j, head, i - AHEAD, found, cell, n);
        if (first)
            first[i - AHEAD + 1] = (uint32_t)n;
    }
    return n;
}

static void clear(double *w, size_t n, double unseen)
{
    for (size_t i = 0; i < n; i++)
        w[i] = unseen;
}

/* What pair p weighs if its chain goes on to a triplet that is unseen. */
static void weigh_chain(struct dm_joint *j, size_t p, size_t cell)
{
    const double left = (double)dm_cooc_ratio(j->mask.cooc->left2[j->found[p]]);
    j->w123[cell] = j->w12[cell] * weight(&j->mask, left);
}

/* e of 2^e <= x < 2^(e+1), for any x >= 0 of normal size; lower for smaller ones. */
static int exponent(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return (int)(bits >> 52) - 1023;
}

/* What is needed for triplets of pair p, which is t in the table, that of candidates i, m. */
static void set_pair(struct dm_joint *j, size_t p, const struct dm_cooc_pair *t, size_t i, size_t m)
{
    const struct dm_cooc *c = j->mask.cooc;
    struct pair *q = &j->pair[p];
    q->i = (uint16_t)i;
    q->m = (uint16_t)m;
    q->at = dm_cooc_triplet(c, (size_t)j->cand[0].id[i], j->found[p]);
    q->n = (uint32_t)dm_cooc_triplets(c, j->found[p]);
    if (j->n <= 2)
        return;
    q->p = j->cand[0].p[i] * j->cand[1].p[m];
    const double r3_max = weight(&j->mask, (double)dm_cooc_ratio(t->r3_max));
    j->top[p] = (int16_t)exponent(q->n ? q->p * j->cand[2].p[0] * r3_max : 0);
}

/* Pairs of heads 1 and 2, with what is needed for triplets. */
static void find_first(struct dm_joint *j)
{
    const struct dm_cooc *c = j->mask.cooc;
    const size_t d1 = j->cand[1].n;
    uint32_t *cell = j->turn; // free until triplets are sought
    const bool discount = j->mask.unseen == DM_UNSEEN_DISCOUNT;
    look_up(j, 0, j->found, cell, j->first);
    for (size_t i = 0; i < j->cand[0].n; i++)
        clear(j->w12 + i * d1, d1, j->unseen[i]);
    if (discount)
        memcpy(j->w123, j->w12, j->cand[0].n * d1 * sizeof(*j->w12));
    for (size_t i = 0; i < j->cand[0].n; i++)
        for (size_t p = j->first[i]; p < j->first[i + 1]; p++) {
            const struct dm_cooc_pair *t = &c->pair[j->found[p]];
            set_pair(j, p, t, i, cell[p] - i * d1);
            j->w12[cell[p]] = weight(&j->mask, (double)dm_cooc_ratio(t->r2));
            if (discount)
                weigh_chain(j, p, cell[p]);
        }
}

/* Pairs of heads 2 and 3: all that B needs. */
static void find_second(struct dm_joint *j)
{
    size_t *found = j->found + j->top_k * j->top_k;
    const size_t n = look_up(j, 1, found, j->cell, NULL), d2 = j->cand[2].n;
    for (size_t i = 0; i < j->cand[1].n; i++)
        clear(j->w23 + i * d2, d2,
              i && j->mask.unseen == DM_UNSEEN_BACKOFF ? j->w23[0]
                                                       : dm_joint_unseen(j, j->cand[1].id[i]));
    for (size_t p = 0; p < n; p++)
        j->w23[j->cell[p]] = weight(&j->mask,
                                    (double)dm_cooc_ratio(j->mask.cooc->pair[found[p]].r2));
    for (size_t i = 0; i < j->cand[1].n; i++)
        dm_joint_make_B(j, i, j->cand[2].p, j->w23 + i * d2, d2);
}

static void find_either(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    for (size_t i = begin; i < end; i++)
        (i ? find_second : find_first)(ctx);
}

void dm_joint_find_pairs(struct dm_joint *j, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        dm_lookup_set(&j->lookup[i], &j->cand[i + 1]);
    if (n <= 2 || !dm_joint_chains(j))
        find_first(j);
    else if (j->cand[0].n > 1) // drafts look behind one token: a region would take longer
        dm_par_for(2, 1, find_either, j);
    else
        find_either(j, 0, 0, 2);
}

/* Row r's seen n-grams are the n listed from `first` on. */
static void set_row(struct dm_joint *j, size_t r, size_t first, size_t n)
{
    j->seen[r] = (uint32_t)first;
    j->n_seen[r] = (uint16_t)n;
}

/* Takes over the pairs of candidate i as the seen n-grams of order 2. */
static size_t list_pairs(struct dm_joint *j, size_t i, size_t n)
{
    set_row(j, i, n, j->first[i + 1] - j->first[i]);
    for (size_t p = j->first[i]; p < j->first[i + 1]; p++, n++) {
        j->seen_k[n] = j->pair[p].m;
        j->seen_w[n] = j->w12[i * j->g.d2 + j->pair[p].m];
    }
    return n;
}

/* The ids of pair p's triplets; the ratios lie behind them. */
static const unsigned char *triplet_ids(const struct dm_joint *j, const struct pair *p)
{
    return j->mask.cooc->next + p->at * (j->mask.cooc->id_bytes + sizeof(uint16_t));
}

static const unsigned char *triplet_ratios(const struct dm_joint *j, const struct pair *p)
{
    return triplet_ids(j, p) + p->n * j->mask.cooc->id_bytes;
}

/* Asks for what find_triplets() will read. */
static void prefetch_triplets(const struct dm_joint *j, const struct pair *p)
{
    enum { LINE = 64, LINES = 8 }; // what is longer streams by itself
    const unsigned char *at = triplet_ids(j, p);
    const size_t bytes = p->n * j->mask.cooc->id_bytes;
    for (size_t i = 0; i < bytes && i < LINES * LINE; i += LINE)
        __builtin_prefetch(at + i);
}

/* Lists the candidates among the triplets of pair p behind the first n of the list and asks for
 * their ratios; returns how many are listed then. */
static size_t find_triplets(struct dm_joint *j, struct pair *p, uint32_t *scratch, size_t n)
{
    uint32_t *at = j->seen_at + n;
    const unsigned char *ratio = triplet_ratios(j, p);
    const double *B = dm_joint_B_row(j, p->m); // maybe in the other thread's cache
    const size_t m = dm_lookup_row(&j->lookup[1], triplet_ids(j, p), j->mask.cooc->id_bytes, p->n,
                                   j->seen_k + n, at, scratch);
    for (size_t s = 0; s < m; s++) {
        __builtin_prefetch(ratio + at[s] * sizeof(uint16_t));
        __builtin_prefetch(B + j->seen_k[n + s]);
    }
    p->first = (uint32_t)n;
    p->n_seen = (uint16_t)m;
    return n + m;
}

/* What seen n-grams of one row weigh, what the product gave them, and the heaviest. */
struct sums {
    double seen, replaced, max;
};

/* Multiplies the n weights listed from `first` on for a row (.,m), whose factor is A, by p and the
 * last factor of their cells and adds them up. */
static struct sums weigh_row(struct dm_joint *j, double A, size_t m, size_t first, size_t n,
                             double p)
{
    const double *B = dm_joint_B_row(j, m), *last = j->cand[j->pairs ? 1 : 2].p;
    const uint16_t *k = j->seen_k + first;
    double *restrict w = j->seen_w + first, s = 0, b = 0, max = 0;
    for (size_t l = 0; l < n; l++) {
        w[l] *= p * last[k[l]];
        s += w[l];
        b += B[k[l]];
        max = w[l] > max ? w[l] : max;
    }
    return (struct sums){s, A * b, max};
}

/* The same for the triplets that find_triplets() has listed for pair p. */
static void weigh_triplets(struct dm_joint *j, struct pair *p)
{
    const struct dm_mask mask = j->mask;
    const unsigned char *ratio = triplet_ratios(j, p);
    const uint32_t *at = j->seen_at + p->first;
    double *restrict w = j->seen_w + p->first;
    for (size_t l = 0; l < p->n_seen; l++) {
        uint16_t x;
        memcpy(&x, ratio + at[l] * sizeof(x), sizeof(x));
        w[l] = weight(&mask, (double)dm_cooc_ratio(x));
    }
    const struct sums s = weigh_row(j, p->A, p->m, p->first, p->n_seen, p->p);
    p->seen = s.seen;
    p->replaced = s.replaced;
    p->max = s.max;
}

/* Takes the pairs in the order of what their triplets can weigh at most, to a power of two. */
static void sort_pairs(struct dm_joint *j, size_t n)
{
    enum { BINS = 64 };
    uint32_t bin[BINS + 1] = {0};
    int top = INT16_MIN;
    for (size_t p = 0; p < n; p++)
        top = j->top[p] > top ? j->top[p] : top;
    const int least = top - BINS + 1;
    for (size_t p = 0; p < n; p++)
        j->top[p] = (int16_t)(j->top[p] > least ? j->top[p] : least);
    for (size_t p = 0; p < n; p++)
        bin[top - j->top[p] + 1]++;
    for (size_t b = 0; b < BINS; b++)
        bin[b + 1] += bin[b];
    for (size_t p = 0; p < n; p++)
        j->turn[bin[top - j->top[p]]++] = (uint32_t)p;
}

/* Turns [begin, end), which two threads take in turns. Each has a list of its own, and sums of what
 * is new: what the triplets of its pairs add to all rows, and the heaviest. */
struct batch {
    struct dm_joint *j;
    size_t begin, end;
    struct half {
        _Alignas(DM_ALIGN) size_t n; /* listed so far, in all batches */
        double more, max;
    } half[2];
};

/* Pair q is done. */
static void add_pair(struct half *h, const struct dm_joint *j, const struct pair *q)
{
    h->more += q->seen + q->A * j->B_sum[dm_joint_B_index(j, q->m)] - q->replaced;
    h->max = q->max > h->max ? q->max : h->max;
}

/* Lists are asked for, searched, and weighed with AHEAD pairs between: each of the two reads waits
 * for memory. One thread alone takes all turns as one, with the sums of two. */
static void take_pairs(void *ctx, size_t part, size_t from, size_t to)
{
    enum { AHEAD = 12, NEXT = 12 };
    (void)part;
    struct batch *b = ctx;
    struct dm_joint *j = b->j;
    const size_t step = from + 1 == to ? 2 : 1;
    const uint32_t *turn = j->turn + b->begin + from;
    const size_t turns = b->end - b->begin, n = turns > from ? (turns - from + step - 1) / step : 0;
    uint32_t *scratch = j->scratch + from * DM_LOOKUP_SCRATCH;
    size_t listed = b->half[from].n;
    for (size_t h = from; h < to; h++)
        b->half[h].more = b->half[h].max = 0;
    for (size_t t = 0; t < NEXT && t < n; t++)
        __builtin_prefetch(&j->pair[turn[t * step]]);
    for (size_t t = 0; t < n + 2 * AHEAD; t++) {
        if (t + NEXT < n)
            __builtin_prefetch(&j->pair[turn[(t + NEXT) * step]]);
        if (t < n)
            prefetch_triplets(j, &j->pair[turn[t * step]]);
        if (t >= AHEAD && t - AHEAD < n)
            listed = find_triplets(j, &j->pair[turn[(t - AHEAD) * step]], scratch, listed);
        if (t >= 2 * AHEAD) {
            struct pair *q = &j->pair[turn[(t - 2 * AHEAD) * step]];
            weigh_triplets(j, q);
            add_pair(&b->half[step == 2 ? from : t % 2], j, q);
        }
    }
    b->half[from].n = listed;
}

/* The pairs in their turns; returns what all rows weigh without triplets, less that of the pairs',
 * in four chains. */
static double prepare_pairs(struct dm_joint *j, double cut, double product)
{
    const size_t n = j->first[j->g.d0];
    double sum[4] = {0};
    for (size_t p = 0; p < n; p++) {
        struct pair *q = &j->pair[p];
        q->A = j->A[q->i * j->g.d1 + q->m];
        j->turn[p] = (uint32_t)p;
        sum[p % 4] += q->A * j->B_sum[dm_joint_B_index(j, q->m)];
    }
    if (cut > 0)
        sort_pairs(j, n);
    return product - (sum[0] + sum[1] + (sum[2] + sum[3]));
}

/* False if it is certain that no cell exceeds `cut`: neither a product nor a triplet of the pairs
 * so far or of those to come, while Z is at least what is certain of it. Otherwise all pairs are
 * done. */
static bool make_triplets(struct dm_joint *j, double cut, double product, double *max)
{
    enum { FIRST = 64, FEW = 8 }; // so few are not worth a region
    const size_t n = j->first[j->g.d0];
    double sure = prepare_pairs(j, cut, product);
    struct batch b = {.j = j, .half[1].n = j->g.d0 * j->g.d1 * j->g.d2};
    for (size_t size = FIRST; b.begin < n; b.begin = b.end, size *= 2) {
        const double rest = cut > 0 ? ldexp(1, j->top[j->turn[b.begin]] + 1) : 0;
        if (cut > 0 && (*max > rest ? *max : rest) * (1 + 1e-9) <= cut * sure)
            return false;
        b.end = cut > 0 && n - b.begin > size ? b.begin + size : n;
        if (b.end - b.begin > FEW)
            dm_par_for(2, 1, take_pairs, &b);
        else
            take_pairs(&b, 0, 0, 2);
        for (size_t h = 0; h < 2; h++) {
            sure += b.half[h].more;
            *max = b.half[h].max > *max ? b.half[h].max : *max;
        }
    }
    return true;
}

/* The pairs' lists become those of their rows. */
static void list_triplets(struct dm_joint *j)
{
    dm_joint_clear_rows(j);
    for (size_t p = 0; p < j->first[j->g.d0]; p++) {
        const struct pair *q = &j->pair[p];
        const size_t r = q->i * j->g.d1 + q->m;
        set_row(j, r, q->first, q->n_seen);
        j->seen_max[r] = q->max;
    }
}

/* In whatever order the pairs were done, Z is added up in their own. */
bool dm_joint_make_seen(struct dm_joint *j, double cut, double product, double *max)
{
    double seen = 0, replaced = 0;
    if (j->pairs) {
        size_t n = 0;
        dm_joint_clear_rows(j);
        for (size_t i = 0; i < j->g.d1; i++) {
            const size_t first = n;
            n = list_pairs(j, i, n);
            const struct sums s = weigh_row(j, j->A[i], i, first, n - first, j->cand[0].p[i]);
            seen += s.seen;
            replaced += s.replaced;
            j->seen_max[i] = s.max;
            *max = s.max > *max ? s.max : *max;
        }
    } else {
        if (!make_triplets(j, cut, product, max))
            return false;
        list_triplets(j);
        for (size_t p = 0; p < j->first[j->g.d0]; p++) {
            seen += j->pair[p].seen;
            replaced += j->pair[p].replaced;
        }
    }
    j->Z = seen + (product > replaced ? product - replaced : 0);
    return true;
}
