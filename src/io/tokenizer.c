/* SPDX-License-Identifier: MIT */
/* tokenizer.c - text to ids and back.
 *
 * Invalid UTF-8: Hugging Face never sees any, because Python decodes first. Here each maximal part
 * of an ill-formed sequence becomes U+FFFD before anything else, as from_utf8_lossy does in Rust;
 * no byte is dropped silently and the ids equal those of the repaired text. The 13 bytes that never
 * occur in UTF-8 have no symbol in the NeoX vocabulary and can therefore not come up.
 *
 * Order: invalid UTF-8, added tokens with normalized = false on the raw text, NFC of each piece
 * between them, added tokens with normalized = true, words, bytes, merges. Each piece is cut into
 * words on its own: a run of spaces at its end counts as the end of the text, as in `tokenizers`.
 *
 * Decoding gives bytes, not repaired text, so that a caller may stream. An added token decodes to
 * its name; Hugging Face passes names through the byte alphabet, which mangles those with letters
 * such as U+00E9. */
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/io/tokenizer_impl.h"

void dm_ids_release(struct dm_ids *ids)
{
    free(ids->id);
    *ids = (struct dm_ids){0};
}

enum dm_status dm_ids_reserve(struct dm_ids *ids, size_t n, struct dm_err *e)
{
    size_t want;
    if (!dm_add(ids->n, n, &want))
        return dm_fail(e, DM_ENOMEM, "%zu + %zu token ids are too many", ids->n, n);
    if (want <= ids->cap)
        return DM_OK;
    size_t cap = ids->cap < 64 ? 64 : ids->cap;
    while (cap < want)
        cap = cap > SIZE_MAX / 2 ? want : cap + cap / 2;
    int32_t *p = dm_realloc(ids->id, cap, sizeof(*p));
    if (!p)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu token ids", cap);
    ids->id = p;
    ids->cap = cap;
    return DM_OK;
}

enum dm_status dm_ids_push(struct dm_ids *ids, int32_t id, struct dm_err *e)
{
    if (ids->n == ids->cap)
        DM_TRY(dm_ids_reserve(ids, 1, e));
    ids->id[ids->n++] = id;
    return DM_OK;
}

void dm_tokenizer_free(struct dm_tokenizer *t)
{
    if (!t)
        return;
    dm_text_release(&t->text);
    free(t->word);
    dm_trie_release(&t->normal);
    dm_trie_release(&t->raw);
    dm_merges_release(&t->merges);
    free(t->token);
    dm_bytes_release(&t->blob);
    free(t->json);
    free(t);
}

size_t dm_tokenizer_size(const struct dm_tokenizer *t)
{
    return t->size;
}

const char *dm_tokenizer_json(const struct dm_tokenizer *t, size_t *n)
{
    if (n)
        *n = t->n_json;
    return t->json;
}

const char *dm_tokenizer_hash(const struct dm_tokenizer *t)
{
    return t->hash;
}

int32_t dm_tokenizer_eos(const struct dm_tokenizer *t)
{
    return t->eos;
}

int32_t dm_tokenizer_find(const struct dm_tokenizer *t, const uint8_t *s, size_t n, uint64_t hash)
{
    for (size_t i = hash;; i++) {
        const uint32_t id = t->word[i & t->word_mask];
        if (!id)
            return -1;
        const struct dm_token *k = &t->token[id - 1];
        if (k->n == n && !memcmp(t->blob.p + k->at, s, n))
            return (int32_t)id - 1;
    }
}

/* Names outside the alphabet are few: added tokens, mostly. */
static int32_t find_literal(const struct dm_tokenizer *t, const char *token, size_t n)
{
    for (size_t i = 0; i < t->size; i++) {
        const struct dm_token *k = &t->token[i];
        if (k->exists && k->literal && k->n == n && !memcmp(t->blob.p + k->at, token, n))
            return (int32_t)i;
    }
    return -1;
}

int32_t dm_tokenizer_id(const struct dm_tokenizer *t, const char *token, size_t n)
{
    struct dm_bytes clean = {0}, raw = {0};
    const uint8_t *s;
    size_t m;
    int32_t id = -1;
    bool alphabet = true;
    enum dm_status st = dm_text_clean(token, n, &clean, &s, &m, NULL);
    for (size_t i = 0; !st && alphabet && i < m;) {
        uint32_t cp;
        i += dm_text_decode(s + i, &cp);
        const int byte = dm_text_symbol_byte(cp);
        const uint8_t b = (uint8_t)byte;
        alphabet = byte >= 0;
        if (alphabet)
            st = dm_bytes_add(&raw, &b, 1, NULL);
    }
    if (!st && alphabet && raw.n)
        id = dm_tokenizer_find(t, raw.p, raw.n, dm_word_hash(raw.p, raw.n));
    dm_bytes_release(&clean);
    dm_bytes_release(&raw);
    return id >= 0 ? id : find_literal(t, token, n);
}

enum dm_status dm_tokenizer_merge(const struct dm_tokenizer *t, const uint8_t *s, size_t n,
                                  struct dm_ids *out, struct dm_err *e)
{
    DM_TRY(dm_ids_reserve(out, n, e));
    int32_t *sym = out->id + out->n;
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (t->symbol[s[i]] >= 0) // a byte without a symbol vanishes, as in Hugging Face
            sym[m++] = t->symbol[s[i]];
    m = dm_merges_apply(&t->merges, sym, m);
    if (m == SIZE_MAX)
        return dm_fail(e, DM_ENOMEM, "out of memory for a word of %zu bytes", n);
    out->n += m;
    return DM_OK;
}

const char *dm_tokenizer_bytes(const struct dm_tokenizer *t, int32_t id, size_t *n)
{
    *n = 0;
    if (id < 0 || (size_t)id >= t->size || !t->token[id].n)
        return "";
    *n = t->token[id].n;
    return (const char *)t->blob.p + t->token[id].at;
}

enum dm_status dm_tokenizer_decode(const struct dm_tokenizer *t, const int32_t *ids, size_t n,
                                   char **text, size_t *len, struct dm_err *e)
{
    struct dm_bytes b = {0};
    enum dm_status st = DM_OK;
    *text = NULL;
    for (size_t i = 0; !st && i < n; i++) {
        size_t k;
        const char *p = dm_tokenizer_bytes(t, ids[i], &k);
        st = dm_bytes_add(&b, p, k, e);
    }
    *len = b.n;
    if (!st)
        st = dm_bytes_add(&b, "", 1, e);
    if (st)
        dm_bytes_release(&b);
    *text = (char *)b.p;
    return st;
}
