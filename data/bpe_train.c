/* SPDX-License-Identifier: MIT */
/* bpe_train.c - counts and the merging loop.
 *
 * Each distinct word is a run of symbols with a weight (how often it occurs). For every pair there
 * is its weight over all words and the list of words that contain, or once contained, it. A merge
 * visits only the words of its list and changes the counts of the neighbouring pairs. The heap
 * holds (count, pair) as of some earlier time; an entry whose count is out of date goes back with
 * the right one, so the top is always right when it is used. */
#include "data/bpe_train.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/stop.h"
#include "src/io/tokenizer_text.h"

enum { N_SPECIAL = 2, FIRST_SYMBOL = 0x21, LAST_SYMBOL = 0x143, MAX_VOCAB = 1 << 22 };

/* Text in the blob with a number: a word with its count, a token with its id. */
struct entry {
    size_t at;
    uint32_t n;
    uint64_t count;
};

/* Distinct strings of bytes, numbered in order of appearance. */
struct strings {
    struct dm_bytes blob;
    struct entry *entry;
    size_t n, cap;
    uint32_t *slot; /* number + 1; 0 = empty */
    size_t mask;
};

struct pair {
    uint32_t left, right;
    int64_t count;
    uint32_t *word; /* where it occurs; may name words that lost it */
    uint32_t n, cap;
    bool touched; /* its count rose in this step */
};

struct heap_entry {
    int64_t count;
    uint32_t pair;
};

struct word {
    size_t at; /* of its symbols */
    uint32_t n;
    int64_t count;
};

struct dm_bpe_train {
    struct dm_text text;
    struct dm_bytes clean, norm;
    struct strings words, tokens;
    uint64_t n_words;
    struct word *word;
    uint32_t *symbol; /* all words' symbols, one after the other */
    struct pair *pair;
    size_t n_pairs, pair_cap;
    uint32_t *pair_slot; /* number + 1, by (left, right) */
    size_t pair_mask;
    struct heap_entry *heap;
    size_t n_heap, heap_cap;
    uint32_t *touched;
    size_t n_touched, touched_cap;
};

static enum dm_status no_memory(struct dm_err *e)
{
    return dm_fail(e, DM_ENOMEM, "out of memory while training a tokenizer");
}

/* Makes room for item n of an array that doubles. */
static enum dm_status grow(void *array, size_t n, size_t *cap, size_t size, struct dm_err *e)
{
    void *p;
    memcpy(&p, array, sizeof(p));
    if (n < *cap)
        return DM_OK;
    const size_t bigger = *cap ? 2 * *cap : 64;
    p = dm_realloc(p, bigger, size);
    if (!p)
        return no_memory(e);
    memcpy(array, &p, sizeof(p));
    *cap = bigger;
    return DM_OK;
}

static uint64_t hash_bytes(const uint8_t *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ s[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

static enum dm_status strings_rehash(struct strings *t, struct dm_err *e)
{
    const size_t slots = t->slot ? 2 * (t->mask + 1) : 1024;
    uint32_t *slot = dm_alloc(slots, sizeof(*slot));
    if (!slot)
        return no_memory(e);
    free(t->slot);
    t->slot = slot;
    t->mask = slots - 1;
    for (size_t k = 0; k < t->n; k++) {
        size_t i = hash_bytes(t->blob.p + t->entry[k].at, t->entry[k].n) & t->mask;
        while (slot[i])
            i = (i + 1) & t->mask;
        slot[i] = (uint32_t)k + 1;
    }
    return DM_OK;
}

/* Number of the string, which is added with count 0 when it is new. */
static enum dm_status strings_get(struct strings *t, const uint8_t *s, size_t n, size_t *number,
                                  struct dm_err *e)
{
    if (2 * t->n >= t->mask)
        DM_TRY(strings_rehash(t, e));
    size_t i = hash_bytes(s, n) & t->mask;
    for (; t->slot[i]; i = (i + 1) & t->mask) {
        const struct entry *k = &t->entry[t->slot[i] - 1];
        *number = t->slot[i] - 1;
        if (k->n == n && !memcmp(t->blob.p + k->at, s, n))
            return DM_OK;
    }
    if (n > UINT32_MAX || t->n >= UINT32_MAX - 1)
        return dm_fail(e, DM_ERANGE, "more words than this trainer can number");
    DM_TRY(grow(&t->entry, t->n, &t->cap, sizeof(*t->entry), e));
    t->entry[t->n] = (struct entry){.at = t->blob.n, .n = (uint32_t)n};
    DM_TRY(dm_bytes_add(&t->blob, s, n, e));
    *number = t->n;
    t->slot[i] = (uint32_t)++t->n;
    return DM_OK;
}

static void strings_release(struct strings *t)
{
    dm_bytes_release(&t->blob);
    free(t->entry);
    free(t->slot);
}

enum dm_status dm_bpe_train_new(struct dm_bpe_train **out, struct dm_err *e)
{
    *out = NULL;
    struct dm_bpe_train *b = dm_alloc(1, sizeof(*b));
    if (!b)
        return no_memory(e);
    enum dm_status st = dm_text_init(&b->text, e);
    if (st) {
        free(b);
        return st;
    }
    *out = b;
    return DM_OK;
}

void dm_bpe_train_free(struct dm_bpe_train *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n_pairs; i++)
        free(b->pair[i].word);
    free(b->touched);
    free(b->heap);
    free(b->pair_slot);
    free(b->pair);
    free(b->symbol);
    free(b->word);
    strings_release(&b->tokens);
    strings_release(&b->words);
    dm_bytes_release(&b->norm);
    dm_bytes_release(&b->clean);
    dm_text_release(&b->text);
    free(b);
}

enum dm_status dm_bpe_train_add(struct dm_bpe_train *b, const char *text, size_t n,
                                struct dm_err *e)
{
    const uint8_t *s;
    DM_TRY(dm_text_clean(text, n, &b->clean, &s, &n, e));
    DM_TRY(dm_text_nfc(&b->text, s, n, &b->norm, &s, &n, e));
    for (size_t i = 0; i < n;) {
        const size_t len = dm_text_word(&b->text, s + i, n - i);
        size_t number;
        DM_TRY(strings_get(&b->words, s + i, len, &number, e));
        b->words.entry[number].count++;
        b->n_words++;
        i += len;
    }
    return DM_OK;
}

size_t dm_bpe_train_cut(const struct dm_bpe_train *b, const char *text, size_t n)
{
    return dm_text_cut(&b->text, (const uint8_t *)text, n);
}

static bool goes_first(const struct dm_bpe_train *b, const struct heap_entry *x,
                       const struct heap_entry *y)
{
    const struct pair *p = &b->pair[x->pair], *q = &b->pair[y->pair];
    if (x->count != y->count)
        return x->count > y->count;
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static enum dm_status heap_push(struct dm_bpe_train *b, uint32_t pair, struct dm_err *e)
{
    const struct heap_entry x = {.count = b->pair[pair].count, .pair = pair};
    DM_TRY(grow(&b->heap, b->n_heap, &b->heap_cap, sizeof(*b->heap), e));
    size_t i = b->n_heap++;
    for (; i && goes_first(b, &x, &b->heap[(i - 1) / 2]); i = (i - 1) / 2)
        b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = x;
    return DM_OK;
}

static struct heap_entry heap_pop(struct dm_bpe_train *b)
{
    const struct heap_entry top = b->heap[0], x = b->heap[--b->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < b->n_heap; i = k) {
        if (k + 1 < b->n_heap && goes_first(b, &b->heap[k + 1], &b->heap[k]))
            k++;
        if (!goes_first(b, &b->heap[k], &x))
            break;
        b->heap[i] = b->heap[k];
    }
    b->heap[i] = x;
    return top;
}

static size_t pair_hash(uint32_t left, uint32_t right)
{
    const uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    return (size_t)(h >> 32);
}

static enum dm_status pairs_rehash(struct dm_bpe_train *b, struct dm_err *e)
{
    const size_t slots = b->pair_slot ? 2 * (b->pair_mask + 1) : 1024;
    uint32_t *slot = dm_alloc(slots, sizeof(*slot));
    if (!slot)
        return no_memory(e);
    free(b->pair_slot);
    b->pair_slot = slot;
    b->pair_mask = slots - 1;
    for (size_t k = 0; k < b->n_pairs; k++) {
        size_t i = pair_hash(b->pair[k].left, b->pair[k].right) & b->pair_mask;
        while (slot[i])
            i = (i + 1) & b->pair_mask;
        slot[i] = (uint32_t)k + 1;
    }
    return DM_OK;
}

static enum dm_status get_pair(struct dm_bpe_train *b, uint32_t left, uint32_t right,
                               struct pair **out, struct dm_err *e)
{
    if (2 * b->n_pairs >= b->pair_mask)
        DM_TRY(pairs_rehash(b, e));
    size_t i = pair_hash(left, right) & b->pair_mask;
    for (; b->pair_slot[i]; i = (i + 1) & b->pair_mask) {
        *out = &b->pair[b->pair_slot[i] - 1];
        if ((*out)->left == left && (*out)->right == right)
            return DM_OK;
    }
    if (b->n_pairs >= UINT32_MAX - 1)
        return dm_fail(e, DM_ERANGE, "more pairs than this trainer can number");
    DM_TRY(grow(&b->pair, b->n_pairs, &b->pair_cap, sizeof(*b->pair), e));
    *out = &b->pair[b->n_pairs];
    **out = (struct pair){.left = left, .right = right};
    b->pair_slot[i] = (uint32_t)++b->n_pairs;
    return DM_OK;
}

/* One more occurrence of a pair in a word. */
static enum dm_status add_pair(struct dm_bpe_train *b, uint32_t left, uint32_t right, uint32_t word,
                               struct dm_err *e)
{
    struct pair *p;
    DM_TRY(get_pair(b, left, right, &p, e));
    p->count += b->word[word].count;
    if (!p->touched) {
        p->touched = true;
        DM_TRY(grow(&b->touched, b->n_touched, &b->touched_cap, sizeof(*b->touched), e));
        b->touched[b->n_touched++] = (uint32_t)(p - b->pair);
    }
    if (p->n && p->word[p->n - 1] == word)
        return DM_OK;
    size_t cap = p->cap;
    DM_TRY(grow(&p->word, p->n, &cap, sizeof(*p->word), e));
    if (cap > UINT32_MAX)
        return no_memory(e);
    p->cap = (uint32_t)cap;
    p->word[p->n++] = word;
    return DM_OK;
}

static enum dm_status drop_pair(struct dm_bpe_train *b, uint32_t left, uint32_t right,
                                uint32_t word, struct dm_err *e)
{
    struct pair *p;
    DM_TRY(get_pair(b, left, right, &p, e));
    p->count -= b->word[word].count;
    return DM_OK;
}

/* Puts the pairs whose count rose into the heap. */
static enum dm_status push_touched(struct dm_bpe_train *b, struct dm_err *e)
{
    for (size_t i = 0; i < b->n_touched; i++) {
        struct pair *p = &b->pair[b->touched[i]];
        p->touched = false;
        if (p->count > 0)
            DM_TRY(heap_push(b, b->touched[i], e));
    }
    b->n_touched = 0;
    return DM_OK;
}

/* Replaces left, right by `made` throughout one word, from the left. */
static enum dm_status merge_word(struct dm_bpe_train *b, uint32_t word, uint32_t left,
                                 uint32_t right, uint32_t made, struct dm_err *e)
{
    struct word *w = &b->word[word];
    uint32_t *s = b->symbol + w->at, n = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        if (s[i] != left || i + 1 == w->n || s[i + 1] != right) {
            s[n++] = s[i];
            continue;
        }
        DM_TRY(drop_pair(b, left, right, word, e));
        if (n) {
            DM_TRY(drop_pair(b, s[n - 1], left, word, e));
            DM_TRY(add_pair(b, s[n - 1], made, word, e));
        }
        if (i + 2 < w->n) {
            DM_TRY(drop_pair(b, right, s[i + 2], word, e));
            DM_TRY(add_pair(b, made, s[i + 2], word, e));
        }
        s[n++] = made;
        i++;
    }
    w->n = n;
    return DM_OK;
}

/* The vocabulary before any merge; ids of the bytes in the order of their symbols, as in NeoX. */
static enum dm_status first_tokens(struct dm_bpe_train *b, uint32_t id[256], struct dm_err *e)
{
    static const char *const special[N_SPECIAL] = {"<|endoftext|>", "<|padding|>"};
    size_t number;
    for (size_t i = 0; i < N_SPECIAL; i++)
        DM_TRY(
            strings_get(&b->tokens, (const uint8_t *)special[i], strlen(special[i]), &number, e));
    for (uint32_t cp = FIRST_SYMBOL; cp <= LAST_SYMBOL; cp++) {
        const int byte = dm_text_symbol_byte(cp);
        const uint8_t s = (uint8_t)byte;
        if (byte < 0)
            continue;
        DM_TRY(strings_get(&b->tokens, &s, 1, &number, e));
        id[byte] = (uint32_t)number;
    }
    return DM_OK;
}

static enum dm_status split_words(struct dm_bpe_train *b, const uint32_t id[256], struct dm_err *e)
{
    b->word = dm_alloc(b->words.n + 1, sizeof(*b->word));
    b->symbol = dm_alloc(b->words.blob.n + 1, sizeof(*b->symbol));
    if (!b->word || !b->symbol)
        return no_memory(e);
    for (size_t i = 0; i < b->words.blob.n; i++)
        b->symbol[i] = id[b->words.blob.p[i]];
    for (size_t k = 0; k < b->words.n; k++) {
        const struct entry *w = &b->words.entry[k];
        b->word[k] = (struct word){.at = w->at, .n = w->n, .count = (int64_t)w->count};
        for (size_t i = 1; i < w->n; i++)
            DM_TRY(add_pair(b, b->symbol[w->at + i - 1], b->symbol[w->at + i], (uint32_t)k, e));
    }
    return push_touched(b, e);
}

/* Number of the token that is the two put together; an old one if its bytes are known already. */
static enum dm_status join(struct dm_bpe_train *b, uint32_t left, uint32_t right, uint32_t *made,
                           struct dm_err *e)
{
    const struct entry l = b->tokens.entry[left], r = b->tokens.entry[right];
    size_t number;
    b->clean.n = 0;
    DM_TRY(dm_bytes_add(&b->clean, b->tokens.blob.p + l.at, l.n, e));
    DM_TRY(dm_bytes_add(&b->clean, b->tokens.blob.p + r.at, r.n, e));
    DM_TRY(strings_get(&b->tokens, b->clean.p, b->clean.n, &number, e));
    *made = (uint32_t)number;
    return DM_OK;
}

/* The name of a token: specials as they are, others through the byte alphabet. */
static enum dm_status token_name(struct dm_bpe_train *b, size_t id, struct dm_bytes *out,
                                 struct dm_err *e)
{
    const struct entry *k = &b->tokens.entry[id];
    for (size_t i = 0; i < k->n; i++) {
        const uint32_t cp = dm_text_byte_symbol(b->tokens.blob.p[k->at + i]);
        const uint8_t two[2] = {(uint8_t)(0xc0 | cp >> 6), (uint8_t)(0x80 | (cp & 0x3f))};
        const uint8_t one = (uint8_t)cp;
        DM_TRY(cp < 0x80 ? dm_bytes_add(out, &one, 1, e) : dm_bytes_add(out, two, 2, e));
    }
    return DM_OK;
}

static enum dm_status put_merge(struct dm_bpe_train *b, const struct pair *p, json_t *merges,
                                struct dm_err *e)
{
    struct dm_bytes line = {0};
    enum dm_status st = token_name(b, p->left, &line, e);
    if (!st)
        st = dm_bytes_add(&line, " ", 1, e);
    if (!st)
        st = token_name(b, p->right, &line, e);
    if (!st && json_array_append_new(merges, json_stringn((const char *)line.p, line.n)))
        st = no_memory(e);
    dm_bytes_release(&line);
    return st;
}

static enum dm_status merge_top(struct dm_bpe_train *b, uint32_t top, json_t *merges,
                                struct dm_err *e)
{
    // The array of pairs moves while words change: take what is needed out of it first.
    const struct pair p = b->pair[top];
    enum dm_status st = DM_OK;
    uint32_t made;
    DM_TRY(put_merge(b, &p, merges, e));
    DM_TRY(join(b, p.left, p.right, &made, e));
    b->pair[top].word = NULL;
    b->pair[top].n = b->pair[top].cap = 0;
    for (uint32_t i = 0; !st && i < p.n; i++)
        st = merge_word(b, p.word[i], p.left, p.right, made, e);
    free(p.word);
    if (!st)
        st = push_touched(b, e);
    return st;
}

static json_t *byte_level(void)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", 1);
}

static json_t *special_token(int id, const char *content)
{
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", content,
                     "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
}

/* Takes over merges. */
static enum dm_status describe(struct dm_bpe_train *b, json_t *merges, json_t **root,
                               struct dm_err *e)
{
    json_t *vocab = json_object();
    struct dm_bytes name = {0};
    enum dm_status st = vocab ? DM_OK : no_memory(e);
    for (size_t id = 0; !st && id < b->tokens.n; id++) {
        name.n = 0;
        st = token_name(b, id, &name, e);
        if (!st)
            st = dm_bytes_add(&name, "", 1, e);
        if (!st && json_object_set_new(vocab, (const char *)name.p, json_integer((json_int_t)id)))
            st = no_memory(e);
    }
    dm_bytes_release(&name);
    if (!st)
        *root = json_pack("{s:s, s:n, s:n, s:[o, o], s:{s:s}, s:o, s:o, s:o, s:{s:s, s:n, s:n, "
                          "s:n, s:n, s:b, s:b, s:b, s:O, s:O}}",
                          "version", "1.0", "truncation", "padding", "added_tokens",
                          special_token(0, "<|endoftext|>"), special_token(1, "<|padding|>"),
                          "normalizer", "type", "NFC", "pre_tokenizer", byte_level(),
                          "post_processor", byte_level(), "decoder", byte_level(), "model", "type",
                          "BPE", "dropout", "unk_token", "continuing_subword_prefix",
                          "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "ignore_merges",
                          0, "vocab", vocab, "merges", merges);
    if (!st && !*root)
        st = no_memory(e);
    json_decref(vocab);
    json_decref(merges);
    return st;
}

enum dm_status dm_bpe_train_finish(struct dm_bpe_train *b, size_t vocab, uint64_t min_count,
                                   void (*progress)(void *ctx, size_t tokens), void *ctx,
                                   json_t **root, struct dm_bpe_stats *stats, struct dm_err *e)
{
    uint32_t id[256] = {0};
    enum dm_status st;
    *root = NULL;
    if (vocab < DM_BPE_MIN_VOCAB || vocab > MAX_VOCAB)
        return dm_fail(e, DM_ERANGE, "a vocabulary of %zu tokens, want %d..%d", vocab,
                       DM_BPE_MIN_VOCAB, MAX_VOCAB);
    json_t *merges = json_array();
    if (!merges)
        return no_memory(e);
    DM_TRY_GOTO(first_tokens(b, id, e));
    DM_TRY_GOTO(split_words(b, id, e));
    while (b->tokens.n < vocab && b->n_heap) {
        DM_TRY_GOTO(dm_stop_requested() ? dm_fail(e, DM_ESTOPPED, "stopped by a signal") : DM_OK);
        const struct heap_entry top = heap_pop(b);
        const int64_t count = b->pair[top.pair].count;
        if (count <= 0 || (uint64_t)count < min_count)
            continue;
        if (top.count != count)
            DM_TRY_GOTO(heap_push(b, top.pair, e));
        else
            DM_TRY_GOTO(merge_top(b, top.pair, merges, e));
        if (progress && !(b->tokens.n % 64))
            progress(ctx, b->tokens.n);
    }
    if (stats)
        *stats = (struct dm_bpe_stats){.words = b->n_words,
                                       .distinct = b->words.n,
                                       .vocab = b->tokens.n,
                                       .merges = json_array_size(merges)};
    st = describe(b, merges, root, e);
    merges = NULL;
done:
    json_decref(merges);
    return st;
}
