/* SPDX-License-Identifier: MIT */
/* tokenizer_encode.c - text to ids; tokenizer.c says in which order.
 *
 * Prose repeats itself: nearly all of its words are among a few thousand short ones. So the ids of
 * words of up to 15 bytes are remembered in slots of 32 bytes whose keys are compared as two
 * integers; those that need more room have slots of their own. Words of ASCII letters, three
 * quarters of English text, are found eight bytes at a time. */
#include <endian.h>
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/io/tokenizer_impl.h"

enum {
    SMALL_BITS = 16,
    SMALL_BYTES = 15,
    SMALL_IDS = 4,
    LARGE_BITS = 13,
    LARGE_BYTES = 30,
    LARGE_IDS = 8
};

struct key {
    uint64_t lo, hi; /* the word's bytes, zeros, and its length in the last byte */
};
struct small {
    struct key key;        /* no word has length 0: a zeroed slot is empty */
    int32_t id[SMALL_IDS]; /* -1 behind the last one */
};
struct large {
    int32_t id[LARGE_IDS];
    uint8_t word[LARGE_BYTES];
    uint8_t n_word, n_id;
};

struct dm_encoder {
    const struct dm_tokenizer *t;
    struct small *small; /* (1 << SMALL_BITS) or NULL: nothing is remembered */
    struct large *large; /* (1 << LARGE_BITS) */
    struct dm_bytes clean, norm;
};

/* ---- Words -------------------------------------------------------------------------------- */

#define EACH(byte) (0x0101010101010101u * (uint64_t)(byte))

/* The top bit of each byte that is an ASCII letter, first byte lowest. */
static uint64_t letters(const uint8_t *s)
{
    uint64_t x;
    memcpy(&x, s, 8);
    x = le64toh(x);
    const uint64_t low = (x | EACH(0x20)) & EACH(0x7f); // no sum below carries
    return (low + EACH(0x80 - 'a')) & ~(low + EACH(0x80 - 'z' - 1)) & ~x & EACH(0x80);
}

/* Length of the first word if it is ASCII letters behind at most one space and what follows is
 * ASCII too, else 0: the general rule decides. Never reads the last 8 of n bytes. */
static size_t letter_word(const uint8_t *s, size_t n)
{
    size_t i = s[0] == ' ';
    const size_t start = i;
    for (; i + 16 < n; i += 8) {
        const uint64_t m = ~letters(s + i) & EACH(0x80);
        if (!m)
            continue;
        i += (size_t)__builtin_ctzll(m) / 8;
        return i == start || s[i] >= 0x80 ? 0 : i;
    }
    return 0;
}

/* n <= SMALL_BYTES bytes of s, of which `left` can be read. */
static struct key make_key(const uint8_t *s, size_t n, size_t left)
{
    static const uint8_t ones[2 * 16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct key k, mask;
    uint8_t copy[16] = {0};
    if (left < 16)
        s = memcpy(copy, s, n);
    memcpy(&k, s, 16);
    memcpy(&mask, ones + 16 - n, 16);
    k.lo &= mask.lo;
    k.hi &= mask.hi;
    k.hi ^= htole64((uint64_t)n << 56);
    return k;
}

static size_t small_slot(struct key k)
{
    const uint64_t h = (k.lo ^ (k.hi * 0x9e3779b97f4a7c15u)) * 0xd6e8feb86659fd93u;
    return (size_t)((h ^ h >> 32) * 0x9e3779b97f4a7c15u >> (64 - SMALL_BITS));
}

static void remember_small(struct small *slot, struct key k, const int32_t *id, size_t n)
{
    slot->key = k;
    for (size_t i = 0; i < SMALL_IDS; i++)
        slot->id[i] = i < n ? id[i] : -1;
}

/* A word that the small slots do not know; its ids are appended. */
static enum dm_status encode_word(struct dm_encoder *c, const uint8_t *s, size_t n,
                                  struct dm_ids *out, struct dm_err *e)
{
    const struct dm_tokenizer *t = c->t;
    const uint64_t hash = dm_word_hash(s, n);
    const int32_t id = dm_tokenizer_find(t, s, n, hash);
    if (id >= 0 && t->token[id].whole)
        return dm_ids_push(out, id, e);
    if (!c->large || n > LARGE_BYTES)
        return dm_tokenizer_merge(t, s, n, out, e);
    struct large *k = &c->large[hash >> 20 & ((1u << LARGE_BITS) - 1)];
    if (k->n_word == n && !memcmp(k->word, s, n)) {
        DM_TRY(dm_ids_reserve(out, LARGE_IDS, e));
        memcpy(out->id + out->n, k->id, sizeof(k->id));
        out->n += k->n_id;
        return DM_OK;
    }
    const size_t before = out->n;
    DM_TRY(dm_tokenizer_merge(t, s, n, out, e));
    const size_t m = out->n - before;
    if (m <= LARGE_IDS && (n > SMALL_BYTES || m > SMALL_IDS)) {
        k->n_word = (uint8_t)n;
        k->n_id = (uint8_t)m;
        memcpy(k->word, s, n);
        memcpy(k->id, out->id + before, m * sizeof(*k->id));
    }
    return DM_OK;
}

static enum dm_status encode_short(struct dm_encoder *c, const uint8_t *s, size_t n, size_t left,
                                   struct dm_ids *out, struct dm_err *e)
{
    const struct key k = make_key(s, n, left);
    struct small *slot = &c->small[small_slot(k)];
    if (out->cap - out->n < SMALL_IDS)
        DM_TRY(dm_ids_reserve(out, SMALL_IDS, e));
    if (slot->key.lo == k.lo && slot->key.hi == k.hi) {
        memcpy(out->id + out->n, slot->id, sizeof(slot->id));
        out->n += 1u + (slot->id[1] >= 0) + (slot->id[2] >= 0) + (slot->id[3] >= 0);
        return DM_OK;
    }
    const size_t before = out->n;
    DM_TRY(encode_word(c, s, n, out, e));
    const size_t m = out->n - before;
    if (m && m <= SMALL_IDS)
        remember_small(slot, k, out->id + before, m);
    return DM_OK;
}

static enum dm_status encode_words(struct dm_encoder *c, const uint8_t *s, size_t n,
                                   struct dm_ids *out, struct dm_err *e)
{
    for (size_t i = 0; i < n;) {
        const size_t left = n - i;
        size_t len = letter_word(s + i, left);
        if (!len)
            len = dm_text_word(&c->t->text, s + i, left);
        if (c->small && len <= SMALL_BYTES)
            DM_TRY(encode_short(c, s + i, len, left, out, e));
        else
            DM_TRY(encode_word(c, s + i, len, out, e));
        i += len;
    }
    return DM_OK;
}

/* ---- Pieces between added tokens ------------------------------------------------------------ */

/* A piece between added tokens of the raw text. */
static enum dm_status encode_piece(struct dm_encoder *c, const uint8_t *s, size_t n,
                                   struct dm_ids *out, struct dm_err *e)
{
    const struct dm_tokenizer *t = c->t;
    if (t->nfc)
        DM_TRY(dm_text_nfc(&t->text, s, n, &c->norm, &s, &n, e));
    for (size_t i = 0; i < n;) {
        int32_t id = -1;
        size_t len = 0;
        const size_t at = dm_trie_find(&t->normal, s, i, n, &id, &len);
        DM_TRY(encode_words(c, s + i, at - i, out, e));
        if (at < n)
            DM_TRY(dm_ids_push(out, id, e));
        i = at + len;
    }
    return DM_OK;
}

enum dm_status dm_encoder_new(struct dm_encoder **out, const struct dm_tokenizer *t,
                              struct dm_err *e)
{
    *out = NULL;
    struct dm_encoder *c = dm_alloc(1, sizeof(*c));
    if (c) {
        c->t = t;
        c->small = dm_alloc((size_t)1 << SMALL_BITS, sizeof(*c->small));
        c->large = dm_alloc((size_t)1 << LARGE_BITS, sizeof(*c->large));
    }
    if (!c || !c->small || !c->large) {
        dm_encoder_free(c);
        return dm_fail(e, DM_ENOMEM, "out of memory for the tokenizer's cache");
    }
    *out = c;
    return DM_OK;
}

void dm_encoder_free(struct dm_encoder *c)
{
    if (!c)
        return;
    dm_bytes_release(&c->clean);
    dm_bytes_release(&c->norm);
    free(c->large);
    free(c->small);
    free(c);
}

enum dm_status dm_encoder_encode(struct dm_encoder *c, const char *text, size_t n,
                                 struct dm_ids *out, struct dm_err *e)
{
    const uint8_t *s;
    DM_TRY(dm_text_clean(text, n, &c->clean, &s, &n, e));
    for (size_t i = 0; i < n;) {
        int32_t id = -1;
        size_t len = 0;
        const size_t at = dm_trie_find(&c->t->raw, s, i, n, &id, &len);
        if (at > i)
            DM_TRY(encode_piece(c, s + i, at - i, out, e));
        if (at < n)
            DM_TRY(dm_ids_push(out, id, e));
        i = at + len;
    }
    return DM_OK;
}

enum dm_status dm_tokenizer_encode(const struct dm_tokenizer *t, const char *text, size_t n,
                                   struct dm_ids *out, struct dm_err *e)
{
    struct dm_encoder c = {.t = t};
    enum dm_status st = dm_encoder_encode(&c, text, n, out, e);
    dm_bytes_release(&c.clean);
    dm_bytes_release(&c.norm);
    return st;
}

/* ---- Cutting ------------------------------------------------------------------------------- */

/* An added token could span the places where words allow a cut. */
size_t dm_tokenizer_cut(const struct dm_tokenizer *t, const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    if (!t->glued)
        return dm_text_cut(&t->text, s, n);
    for (size_t p = n; p-- > 1;)
        if (dm_text_ascii_space(s[p]) && s[p - 1] < 0x80 && !dm_text_ascii_space(s[p - 1]) &&
            !t->glue[s[p - 1]])
            return p;
    return 0;
}
