/* SPDX-License-Identifier: MIT */
/* tokenizer_impl.h - the inside of a tokenizer, for tokenizer*.c only. */
#ifndef DM_IO_TOKENIZER_IMPL_H
#define DM_IO_TOKENIZER_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/io/tokenizer.h"
#include "src/io/tokenizer_text.h"

/* Merges by pair of ids: open addressing, a power of two of slots at most half full. */
struct dm_merge {
    uint64_t pair; /* left << 32 | right; UINT64_MAX = empty */
    uint32_t rank; /* lower merges first */
    int32_t id;    /* what the pair becomes */
};
struct dm_merges {
    struct dm_merge *slot;
    size_t mask; /* slots - 1 */
};
enum dm_status dm_merges_init(struct dm_merges *m, size_t n, struct dm_err *e);
void dm_merges_release(struct dm_merges *m);
/* A later merge of the same pair replaces the earlier one, as in Hugging Face's map. */
void dm_merges_put(struct dm_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id);
/* NULL for a pair that does not merge. */
static inline const struct dm_merge *dm_merges_get(const struct dm_merges *m, int32_t left,
                                                   int32_t right)
{
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    for (size_t i = (size_t)(h >> 32);; i++) {
        const struct dm_merge *s = &m->slot[i & m->mask];
        if (s->pair == pair)
            return s;
        if (s->pair == UINT64_MAX)
            return NULL;
    }
}

/* Merges the n symbols in `sym` in place by rank, leftmost first; returns how many remain, or
 * SIZE_MAX when there was no memory for a long word. Short words by scanning, long ones in windows
 * with a heap: O(n), and O(n log^2 n) with merges that no training gives. */
size_t dm_merges_apply(const struct dm_merges *m, int32_t *sym, size_t n);

/* Added tokens as a trie over bytes, children as sibling lists. Node 0 is the root. */
struct dm_trie_node {
    uint32_t child, sibling; /* 0 = none */
    int32_t id;              /* token that ends here, or -1 */
    uint8_t byte;
};
struct dm_trie {
    struct dm_trie_node *node;
    size_t n, cap;
    bool first[256];  /* bytes that some token begins with */
    bool second[256]; /* bytes that come next in some token; all if one has a single byte */
    bool any;         /* there is a token */
    int only_first;   /* the only such byte, -1 for several */
    int only_second;
};
enum dm_status dm_trie_add(struct dm_trie *t, const uint8_t *s, size_t n, int32_t id,
                           struct dm_err *e);
void dm_trie_release(struct dm_trie *t);
/* Leftmost, then longest token in s[from..n): its position, with *id and *len; n when there is
 * none. */
size_t dm_trie_find(const struct dm_trie *t, const uint8_t *s, size_t from, size_t n, int32_t *id,
                    size_t *len);

/* Bytes of a token in the blob. */
struct dm_token {
    uint32_t at, n;
    bool exists;
    bool whole;   /* its bytes as one word give this very token */
    bool literal; /* its name is its bytes: an added token, or a name outside the alphabet */
};

struct dm_tokenizer {
    char *json;
    size_t n_json;
    char hash[DM_HASH_LEN + 1];
    struct dm_bytes blob;
    struct dm_token *token; /* (size) */
    size_t size;            /* largest id + 1 */
    int32_t symbol[256];    /* id of each byte, or -1 */
    int32_t eos;
    bool nfc;
    bool ignore_merges; /* a word that is a token is that token, whatever the merges say */
    struct dm_merges merges;
    struct dm_trie raw, normal; /* added tokens found before and after normalisation */
    bool glued;                 /* an added token has white space behind something else, */
    bool glue[256];             /* namely behind these bytes */
    uint32_t *word; /* open addressing by bytes: id + 1 of tokens that are not literal */
    size_t word_mask;
    struct dm_text text;
};

/* Hash of a word's bytes. */
static inline uint64_t dm_word_hash(const uint8_t *s, size_t n)
{
    const uint64_t k = 0x9e3779b97f4a7c15u;
    uint64_t h = n * k, w;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&w, s, 8);
        h = (h ^ w) * k;
        h ^= h >> 32;
    }
    w = 0;
    for (size_t i = 0; i < n; i++)
        w |= (uint64_t)s[i] << (8 * i);
    h = (h ^ w) * k;
    return h ^ h >> 32;
}

/* Token with exactly these bytes among those that are not literal, or -1. */
int32_t dm_tokenizer_find(const struct dm_tokenizer *t, const uint8_t *s, size_t n, uint64_t hash);

/* Room for n more ids. */
enum dm_status dm_ids_reserve(struct dm_ids *ids, size_t n, struct dm_err *e);

/* Ids of one word by merging alone (no look-up of the whole word), appended to out. */
enum dm_status dm_tokenizer_merge(const struct dm_tokenizer *t, const uint8_t *s, size_t n,
                                  struct dm_ids *out, struct dm_err *e);

#endif
