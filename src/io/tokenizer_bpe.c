/* SPDX-License-Identifier: MIT */
/* tokenizer_bpe.c - byte pair merges and the trie of added tokens.
 *
 * Merging takes the pair of lowest rank first and the leftmost among equals. Nearly all words are
 * shorter than 30 bytes: rescanning the ranks is fastest there. A word may also be megabytes of
 * one letter, or of random ones: it is merged in windows that the L2 cache holds, each with a heap
 * of (rank, position) over a linked list, so that the time is linear. */
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/io/tokenizer_impl.h"

enum {
    SHORT_WORD = 64,
    WINDOW = 4096, /* of a long word: what merging it takes is 180 kB */
    OVERLAP = 8,   /* of it goes to the next one, too */
    GROWTH = 4,
    BLOCK = 64 /* bytes looked at together for added tokens */
};

enum dm_status dm_merges_init(struct dm_merges *m, size_t n, struct dm_err *e)
{
    size_t slots = 16;
    while (slots < 2 * n)
        slots *= 2;
    m->slot = dm_alloc(slots, sizeof(*m->slot));
    if (!m->slot)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu merges", n);
    m->mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        m->slot[i].pair = UINT64_MAX;
    return DM_OK;
}

void dm_merges_release(struct dm_merges *m)
{
    free(m->slot);
    *m = (struct dm_merges){0};
}

void dm_merges_put(struct dm_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = (size_t)((pair * 0x9e3779b97f4a7c15u) >> 32) & m->mask;
    while (m->slot[i].pair != UINT64_MAX && m->slot[i].pair != pair)
        i = (i + 1) & m->mask;
    m->slot[i] = (struct dm_merge){.pair = pair, .rank = rank, .id = id};
}

static size_t apply_short(const struct dm_merges *m, int32_t *sym, size_t n)
{
    const struct dm_merge *pair[SHORT_WORD]; // of symbols i and i + 1
    for (size_t i = 0; i + 1 < n; i++)
        pair[i] = dm_merges_get(m, sym[i], sym[i + 1]);
    for (;;) {
        size_t best = n;
        uint32_t rank = UINT32_MAX;
        for (size_t i = 0; i + 1 < n; i++)
            if (pair[i] && pair[i]->rank < rank) {
                rank = pair[i]->rank;
                best = i;
            }
        if (best == n)
            return n;
        sym[best] = pair[best]->id;
        n--;
        for (size_t i = best + 1; i < n; i++) {
            sym[i] = sym[i + 1];
            pair[i - 1] = pair[i];
        }
        if (best + 1 < n)
            pair[best] = dm_merges_get(m, sym[best], sym[best + 1]);
        if (best)
            pair[best - 1] = dm_merges_get(m, sym[best - 1], sym[best]);
    }
}

/* Part of a long word: a linked list over the positions of its symbols. */
struct window {
    int32_t *sym; /* what lies at a position that no symbol to its left swallowed */
    uint32_t *next, *prev;
    const struct dm_merge **pair; /* of the symbol there and the next one, or NULL */
    uint64_t *heap;               /* rank << 32 | position; stale if the pair has become another */
    size_t n_heap;
};

static void push(struct window *w, uint64_t c)
{
    size_t i = w->n_heap++;
    for (; i && c < w->heap[(i - 1) / 2]; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static uint64_t pop(struct window *w)
{
    const uint64_t top = w->heap[0], c = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < w->n_heap; i = k) {
        if (k + 1 < w->n_heap && w->heap[k + 1] < w->heap[k])
            k++;
        if (w->heap[k] >= c)
            break;
        w->heap[i] = w->heap[k];
    }
    w->heap[i] = c;
    return top;
}

static void see_pair(struct window *w, const struct dm_merges *m, uint32_t at, uint32_t right)
{
    const struct dm_merge *g = w->pair[at] = dm_merges_get(m, w->sym[at], w->sym[right]);
    if (g)
        push(w, (uint64_t)g->rank << 32 | at);
}

/* Merges n symbols; w->next then leads from token to token. */
static void merge_window(struct window *w, const struct dm_merges *m, const int32_t *sym,
                         uint32_t n)
{
    memcpy(w->sym, sym, n * sizeof(*sym));
    for (uint32_t i = 0; i < n; i++) {
        w->next[i] = i + 1;
        w->prev[i] = i - 1; // of the first: UINT32_MAX
        w->pair[i] = NULL;
    }
    for (uint32_t i = 0; i + 1 < n; i++)
        see_pair(w, m, i, i + 1);
    while (w->n_heap) {
        const uint64_t c = pop(w);
        const uint32_t at = (uint32_t)c, right = w->next[at];
        if (!w->pair[at] || w->pair[at]->rank != c >> 32)
            continue;
        w->sym[at] = w->pair[at]->id;
        w->pair[at] = w->pair[right] = NULL;
        const uint32_t after = w->next[at] = w->next[right];
        if (after < n) {
            w->prev[after] = at;
            see_pair(w, m, at, after);
        }
        if (w->prev[at] != UINT32_MAX)
            see_pair(w, m, w->prev[at], at);
    }
}

/* Tokens of `sym` (n) to `out`, by windows of `size` symbols; how many, or SIZE_MAX if a window
 * does not begin with the token that the one before it has there. */
static size_t merge_windows(struct window *w, const struct dm_merges *m, const int32_t *sym,
                            size_t n, size_t size, int32_t *out)
{
    size_t n_out = 0;
    int32_t id = -1;     // the token that the window
    uint32_t length = 0; // must begin with
    for (size_t begin = 0;;) {
        const uint32_t len = (uint32_t)(n - begin < size ? n - begin : size);
        merge_window(w, m, sym + begin, len);
        if (begin && (w->sym[0] != id || w->next[0] != length))
            return SIZE_MAX;
        const uint32_t end = begin + len < n ? len - len / OVERLAP : len;
        uint32_t at = 0;
        for (; at < len && w->next[at] <= end; at = w->next[at])
            out[n_out++] = w->sym[at];
        if (end == len)
            return n_out;
        if (!at)
            return SIZE_MAX;
        id = w->sym[at];
        length = w->next[at] - at;
        begin += at;
    }
}

static void release_window(struct window *w)
{
    free(w->sym);
    free(w->next);
    free(w->prev);
    free(w->pair);
    free(w->heap);
}

static bool make_window(struct window *w, size_t size)
{
    // Each merge pushes at most two pairs and there are fewer than `size` merges.
    *w = (struct window){.sym = dm_alloc(size, sizeof(*w->sym)),
                         .next = dm_alloc(size, sizeof(*w->next)),
                         .prev = dm_alloc(size, sizeof(*w->prev)),
                         .pair = dm_alloc(size, sizeof(*w->pair)),
                         .heap = dm_alloc(size, 3 * sizeof(*w->heap))};
    return w->sym && w->next && w->prev && w->pair && w->heap;
}

/* Nothing merges across a border between two final tokens, and what merges within them depends on
 * nothing else. So a row of tokens is that of the whole word if any two neighbours are what they
 * would be alone, and these are if they are neighbours in any window: windows whose first token is
 * the one that the window before has there may be joined. Where that fails, which takes merges that
 * nobody would learn, windows grow until there is one only. */
static size_t apply_long(const struct dm_merges *m, int32_t *sym, size_t n)
{
    size_t left = SIZE_MAX;
    if (n >= UINT32_MAX)
        return left;
    int32_t *copy = dm_alloc(n, sizeof(*copy));
    if (!copy)
        return left;
    memcpy(copy, sym, n * sizeof(*copy));
    for (size_t size = WINDOW; left == SIZE_MAX; size *= GROWTH) {
        struct window w;
        size = size < n ? size : n;
        const bool ok = make_window(&w, size);
        if (ok)
            left = merge_windows(&w, m, copy, n, size, sym);
        release_window(&w);
        if (!ok)
            break;
    }
    free(copy);
    return left;
}

size_t dm_merges_apply(const struct dm_merges *m, int32_t *sym, size_t n)
{
    return n <= SHORT_WORD ? apply_short(m, sym, n) : apply_long(m, sym, n);
}

static uint32_t trie_child(const struct dm_trie *t, uint32_t at, uint8_t byte)
{
    uint32_t c = t->node[at].child;
    while (c && t->node[c].byte != byte)
        c = t->node[c].sibling;
    return c;
}

static enum dm_status trie_node(struct dm_trie *t, uint8_t byte, uint32_t sibling, struct dm_err *e)
{
    if (t->n == t->cap) {
        const size_t cap = t->cap ? 2 * t->cap : 64;
        struct dm_trie_node *p = cap < UINT32_MAX ? dm_realloc(t->node, cap, sizeof(*p)) : NULL;
        if (!p)
            return dm_fail(e, DM_ENOMEM, "out of memory for added tokens");
        t->node = p;
        t->cap = cap;
    }
    t->node[t->n++] = (struct dm_trie_node){.sibling = sibling, .id = -1, .byte = byte};
    return DM_OK;
}

enum dm_status dm_trie_add(struct dm_trie *t, const uint8_t *s, size_t n, int32_t id,
                           struct dm_err *e)
{
    uint32_t at = 0;
    if (!t->n)
        DM_TRY(trie_node(t, 0, 0, e));
    for (size_t i = 0; i < n; i++) {
        uint32_t c = trie_child(t, at, s[i]);
        if (!c) {
            DM_TRY(trie_node(t, s[i], t->node[at].child, e));
            c = t->node[at].child = (uint32_t)(t->n - 1);
        }
        at = c;
    }
    t->node[at].id = id;
    t->only_first = t->any && t->only_first != s[0] ? -1 : s[0];
    t->first[s[0]] = true;
    if (n > 1) {
        t->only_second = t->any && t->only_second != s[1] ? -1 : s[1];
        t->second[s[1]] = true;
    } else {
        t->only_second = -1;
        memset(t->second, true, sizeof(t->second));
    }
    t->any = true;
    return DM_OK;
}

void dm_trie_release(struct dm_trie *t)
{
    free(t->node);
    *t = (struct dm_trie){0};
}

/* Where some token may begin at or after s[from]: the first n - 1 bytes are told by two of their
 * bytes, the last one by itself. Tokens of one pair of bytes, such as runs of spaces, are common;
 * the text is then skipped by blocks, in a loop that compilers turn into vectors. */
static size_t trie_start(const struct dm_trie *t, const uint8_t *s, size_t i, size_t n)
{
    if (t->only_first >= 0 && t->only_second >= 0) {
        const uint8_t a = (uint8_t)t->only_first, b = (uint8_t)t->only_second;
        for (; n - i > BLOCK; i += BLOCK) {
            uint8_t any = 0;
            for (size_t j = 0; j < BLOCK; j++)
                any |= (uint8_t)((s[i + j] == a) & (s[i + j + 1] == b));
            if (any)
                break;
        }
    }
    while (i + 1 < n && !(t->first[s[i]] && t->second[s[i + 1]]))
        i++;
    return i;
}

size_t dm_trie_find(const struct dm_trie *t, const uint8_t *s, size_t from, size_t n, int32_t *id,
                    size_t *len)
{
    if (!t->n)
        return n;
    for (size_t i = from; (i = trie_start(t, s, i, n)) < n; i++) {
        *len = 0;
        uint32_t at = 0;
        for (size_t j = i; j < n && (at = trie_child(t, at, s[j])); j++)
            if (t->node[at].id >= 0) {
                *id = t->node[at].id;
                *len = j + 1 - i;
            }
        if (*len)
            return i;
    }
    return n;
}
