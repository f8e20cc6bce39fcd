/* SPDX-License-Identifier: MIT */
#include "src/io/shard.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"

#define FORMAT "dynamo-shard"
#define SET "tokens"
#define MASK "mask" /* 1: a target */
enum { VERSION = 2, SEPARATOR = 0, PART = 65536 /* ids converted at a time */ };

struct dm_shard {
    struct dm_h5 *f;
    enum dm_h5_type type;
    size_t n, vocab;
    char *tokenizer_hash, *template; /* template: NULL = no mask */
    void *part;                      /* (PART) as stored */
    uint8_t *mask;                   /* (PART) */
};

struct dm_shard_writer {
    struct dm_h5 *f;
    enum dm_h5_type type;
    size_t vocab;
    void *part;
    uint8_t *mask; /* (PART), NULL: every token is a target */
};

static enum dm_h5_type id_type(size_t vocab)
{
    return vocab <= 65536 ? DM_H5_U16 : DM_H5_U32;
}

static enum dm_status read_mask_header(struct dm_shard *s, struct dm_err *e)
{
    enum dm_h5_type type;
    size_t n, cols;
    DM_TRY(dm_h5_get_string(s->f, "/", "template", &s->template, e));
    DM_TRY(dm_h5_shape(s->f, MASK, &type, &n, &cols, e));
    if (cols || n != s->n || type != DM_H5_U8)
        return dm_fail(e, DM_EFORMAT, "%s: the mask is not one row of u8 for the %zu tokens",
                       dm_h5_path(s->f), s->n);
    s->mask = dm_alloc(PART, 1);
    return s->mask ? DM_OK : dm_fail(e, DM_ENOMEM, "%s: out of memory", dm_h5_path(s->f));
}

static enum dm_status read_header(struct dm_shard *s, struct dm_err *e)
{
    uint64_t vocab, separator;
    size_t cols;
    DM_TRY(dm_h5_get_u64(s->f, "/", "vocab", &vocab, e));
    DM_TRY(dm_h5_get_u64(s->f, "/", "separator", &separator, e));
    DM_TRY(dm_h5_get_string(s->f, "/", "tokenizer_hash", &s->tokenizer_hash, e));
    DM_TRY(dm_h5_shape(s->f, SET, &s->type, &s->n, &cols, e));
    if (vocab < 1 || vocab > INT32_MAX)
        return dm_fail(e, DM_ERANGE, "%s: vocab is %llu, want 1..2147483647", dm_h5_path(s->f),
                       (unsigned long long)vocab);
    s->vocab = (size_t)vocab;
    if (separator != SEPARATOR)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: separator is %llu, want 0", dm_h5_path(s->f),
                       (unsigned long long)separator);
    if (cols || s->type != id_type(s->vocab))
        return dm_fail(e, DM_EFORMAT, "%s: tokens are not one row of %s", dm_h5_path(s->f),
                       id_type(s->vocab) == DM_H5_U16 ? "u16" : "u32");
    return dm_h5_has_attr(s->f, "/", "template") ? read_mask_header(s, e) : DM_OK;
}

enum dm_status dm_shard_open(struct dm_shard **out, const char *path, struct dm_err *e)
{
    *out = NULL;
    struct dm_shard *s = dm_alloc(1, sizeof(*s));
    if (s)
        s->part = dm_alloc(PART, sizeof(uint32_t));
    if (!s || !s->part) {
        dm_shard_close(s);
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    }
    enum dm_status st = dm_h5_open(&s->f, path, FORMAT, VERSION, e);
    if (!st)
        st = read_header(s, e);
    if (st) {
        dm_shard_close(s);
        return st;
    }
    *out = s;
    return DM_OK;
}

void dm_shard_close(struct dm_shard *s)
{
    if (!s)
        return;
    dm_h5_close(s->f);
    free(s->tokenizer_hash);
    free(s->template);
    free(s->part);
    free(s->mask);
    free(s);
}

size_t dm_shard_tokens(const struct dm_shard *s)
{
    return s->n;
}

size_t dm_shard_vocab(const struct dm_shard *s)
{
    return s->vocab;
}

const char *dm_shard_tokenizer_hash(const struct dm_shard *s)
{
    return s->tokenizer_hash;
}

int32_t dm_shard_separator(const struct dm_shard *s)
{
    (void)s;
    return SEPARATOR;
}

/* n stored ids, of which the first is token number `at`. */
static enum dm_status widen(int32_t *out, const void *stored, enum dm_h5_type t, size_t n,
                            size_t vocab, const char *path, size_t at, struct dm_err *e)
{
    const uint16_t *narrow = stored;
    const uint32_t *wide = stored;
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t id = t == DM_H5_U16 ? narrow[i] : wide[i];
        most = id > most ? id : most;
        out[i] = (int32_t)id;
    }
    for (size_t i = 0; most >= vocab && i < n; i++)
        if ((uint32_t)out[i] >= vocab)
            return dm_fail(e, DM_EFORMAT, "%s: token %zu is %u, want less than %zu", path, at + i,
                           (uint32_t)out[i], vocab);
    return DM_OK;
}

enum dm_status dm_shard_fetch(struct dm_shard *s, size_t part, struct dm_shard_part *p,
                              struct dm_err *e)
{
    p->start = part * DM_SHARD_PART;
    if (p->start >= s->n)
        return dm_fail(e, DM_ERANGE, "%s: part %zu of a shard of %zu tokens", dm_h5_path(s->f),
                       part, s->n);
    p->n = s->n - p->start < DM_SHARD_PART ? s->n - p->start : DM_SHARD_PART;
    p->vocab = s->vocab;
    return dm_h5_fetch(s->f, SET, s->type, p->start, p->n, &p->chunk, e);
}

enum dm_status dm_shard_unpack(struct dm_shard_part *p, int32_t *out, struct dm_err *e)
{
    const void *stored;
    DM_TRY(dm_h5_unpack(&p->chunk, &stored, e));
    return widen(out, stored, p->chunk.type, p->n, p->vocab, p->chunk.name, p->start, e);
}

void dm_shard_part_release(struct dm_shard_part *p)
{
    free(p->chunk.data);
    *p = (struct dm_shard_part){0};
}

enum dm_status dm_shard_read(struct dm_shard *s, int32_t *out, size_t start, size_t n,
                             struct dm_err *e)
{
    if (start > s->n || n > s->n - start)
        return dm_fail(e, DM_ERANGE, "%s: tokens [%zu, +%zu) of a shard of %zu", dm_h5_path(s->f),
                       start, n, s->n);
    for (size_t at = 0; at < n; at += PART) {
        const size_t k = n - at < PART ? n - at : PART;
        DM_TRY(dm_h5_read_range(s->f, SET, s->type, s->part, start + at, k, e));
        DM_TRY(widen(out + at, s->part, s->type, k, s->vocab, dm_h5_path(s->f), start + at, e));
    }
    return DM_OK;
}

const char *dm_shard_template(const struct dm_shard *s)
{
    return s->template;
}

enum dm_status dm_shard_common_template(char **json, const char *const *paths, size_t n,
                                        struct dm_err *e)
{
    enum dm_status st = DM_OK;
    *json = NULL;
    for (size_t i = 0; i < n && !st; i++) {
        struct dm_shard *s;
        st = dm_shard_open(&s, paths[i], e);
        if (st)
            break;
        if (s->template && *json && strcmp(s->template, *json))
            st = dm_fail(e, DM_EMISMATCH,
                         "%s: made with another prompt template than the shards before it",
                         paths[i]);
        if (s->template && !*json && !(*json = strdup(s->template)))
            st = dm_fail(e, DM_ENOMEM, "%s: out of memory", paths[i]);
        dm_shard_close(s);
    }
    if (st) {
        free(*json);
        *json = NULL;
    }
    return st;
}

enum dm_status dm_shard_read_targets(struct dm_shard *s, int32_t *out, size_t start, size_t n,
                                     struct dm_err *e)
{
    DM_TRY(dm_shard_read(s, out, start, n, e));
    for (size_t at = 0; s->mask && at < n; at += PART) {
        const size_t k = n - at < PART ? n - at : PART;
        DM_TRY(dm_h5_read_range(s->f, MASK, DM_H5_U8, s->mask, start + at, k, e));
        for (size_t i = 0; i < k; i++)
            if (!s->mask[i])
                out[at + i] = ~out[at + i];
    }
    return DM_OK;
}

static enum dm_status write_header(struct dm_shard_writer *w, const char *tokenizer_json,
                                   const char *tokenizer_hash, const char *provenance,
                                   struct dm_err *e)
{
    DM_TRY(dm_h5_set_u64(w->f, "/", "vocab", w->vocab, e));
    DM_TRY(dm_h5_set_u64(w->f, "/", "separator", SEPARATOR, e));
    DM_TRY(dm_h5_set_string(w->f, "/", "tokenizer_hash", tokenizer_hash, e));
    DM_TRY(dm_h5_set_string(w->f, "/", "provenance", provenance, e));
    if (tokenizer_json)
        DM_TRY(dm_h5_set_string(w->f, "/", "tokenizer", tokenizer_json, e));
    // An empty shard has its dataset, too.
    return dm_h5_append(w->f, SET, w->type, NULL, 0, e);
}

enum dm_status dm_shard_create(struct dm_shard_writer **out, const char *path, size_t vocab,
                               const char *tokenizer_json, const char *tokenizer_hash,
                               const char *provenance, struct dm_err *e)
{
    *out = NULL;
    if (vocab < 1 || vocab > INT32_MAX)
        return dm_fail(e, DM_ERANGE, "%s: vocab is %zu, want 1..2147483647", path, vocab);
    struct dm_shard_writer *w = dm_alloc(1, sizeof(*w));
    if (w)
        w->part = dm_alloc(PART, sizeof(uint32_t));
    if (!w || !w->part) {
        dm_shard_abort(w);
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    }
    w->vocab = vocab;
    w->type = id_type(vocab);
    enum dm_status st = dm_h5_create(&w->f, path, FORMAT, 1, e);
    if (!st)
        st = write_header(w, tokenizer_json, tokenizer_hash, provenance, e);
    if (st) {
        dm_shard_abort(w);
        return st;
    }
    *out = w;
    return DM_OK;
}

enum dm_status dm_shard_set_template(struct dm_shard_writer *w, const char *json, struct dm_err *e)
{
    w->mask = dm_alloc(PART, 1);
    if (!w->mask)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dm_h5_path(w->f));
    // Who does not know of the mask would train on the prompts.
    DM_TRY(dm_h5_set_u64(w->f, "/", "version", VERSION, e));
    DM_TRY(dm_h5_set_string(w->f, "/", "template", json, e));
    return dm_h5_append(w->f, MASK, DM_H5_U8, NULL, 0, e);
}

enum dm_status dm_shard_append(struct dm_shard_writer *w, const int32_t *ids, size_t n,
                               struct dm_err *e)
{
    for (size_t at = 0; at < n; at += PART) {
        const size_t k = n - at < PART ? n - at : PART;
        for (size_t i = 0; i < k; i++) {
            const bool target = ids[at + i] >= 0 || !w->mask;
            const int32_t id = target ? ids[at + i] : ~ids[at + i];
            if (id < 0 || (size_t)id >= w->vocab)
                return dm_fail(e, DM_ERANGE, "%s: token id %d, want 0..%zu", dm_h5_path(w->f), id,
                               w->vocab - 1);
            if (w->type == DM_H5_U16)
                ((uint16_t *)w->part)[i] = (uint16_t)id;
            else
                ((uint32_t *)w->part)[i] = (uint32_t)id;
            if (w->mask)
                w->mask[i] = target;
        }
        DM_TRY(dm_h5_append(w->f, SET, w->type, w->part, k, e));
        if (w->mask)
            DM_TRY(dm_h5_append(w->f, MASK, DM_H5_U8, w->mask, k, e));
    }
    return DM_OK;
}

enum dm_status dm_shard_commit(struct dm_shard_writer *w, struct dm_err *e)
{
    struct dm_h5 *f = w->f;
    w->f = NULL;
    dm_shard_abort(w);
    return dm_h5_commit(f, e);
}

void dm_shard_abort(struct dm_shard_writer *w)
{
    if (!w)
        return;
    dm_h5_close(w->f);
    free(w->part);
    free(w->mask);
    free(w);
}
