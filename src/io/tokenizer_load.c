/* SPDX-License-Identifier: MIT */
/* tokenizer_load.c - from tokenizer.json to tables. Whatever in the file would change the ids and
 * is not implemented here is refused by its name, so that a loaded tokenizer is an exact one. */
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/io/h5.h"
#include "src/io/tokenizer_impl.h"

/* Far above any tokenizer in use; bounds the tables that a hostile id can ask for. */
enum { MAX_IDS = 1 << 22, MAX_JSON = 256 << 20 };

static const char *type_of(const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    return type ? type : "(no type)";
}

static enum dm_status refuse(const char *where, const char *part, const char *found,
                             const char *want, struct dm_err *e)
{
    return dm_fail(e, DM_EUNSUPPORTED, "%s: %s \"%s\" is not supported, want %s", where, part,
                   found, want);
}

static bool is_byte_level(const json_t *v)
{
    return !strcmp(type_of(v), "ByteLevel");
}

/* A step, or a Sequence of steps: calls check for each. */
typedef enum dm_status step_fn(const json_t *v, struct dm_tokenizer *t, const char *where,
                               struct dm_err *e);
static enum dm_status each_step(const json_t *v, const char *list, struct dm_tokenizer *t,
                                step_fn *check, const char *where, struct dm_err *e)
{
    if (!v || json_is_null(v))
        return DM_OK;
    if (strcmp(type_of(v), "Sequence"))
        return check(v, t, where, e);
    const json_t *steps = json_object_get(v, list);
    if (!json_is_array(steps))
        return dm_fail(e, DM_EFORMAT, "%s: a Sequence without the array \"%s\"", where, list);
    for (size_t i = 0; i < json_array_size(steps); i++)
        DM_TRY(check(json_array_get(steps, i), t, where, e));
    return DM_OK;
}

static enum dm_status check_normalizer(const json_t *v, struct dm_tokenizer *t, const char *where,
                                       struct dm_err *e)
{
    if (strcmp(type_of(v), "NFC"))
        return refuse(where, "normalizer", type_of(v), "NFC or none", e);
    t->nfc = true;
    return DM_OK;
}

static enum dm_status check_pre_tokenizer(const json_t *v, const char *where, struct dm_err *e)
{
    bool prefix = false, regex = true;
    if (json_array_size(json_object_get(v, "pretokenizers")) == 1)
        v = json_array_get(json_object_get(v, "pretokenizers"), 0);
    if (!is_byte_level(v))
        return refuse(where, "pre_tokenizer", type_of(v), "ByteLevel", e);
    DM_TRY(dm_json_bool(v, "add_prefix_space", false, where, &prefix, e));
    DM_TRY(dm_json_bool(v, "use_regex", false, where, &regex, e));
    if (prefix)
        return refuse(where, "pre_tokenizer option", "add_prefix_space", "false", e);
    if (!regex)
        return refuse(where, "pre_tokenizer option", "use_regex: false", "true", e);
    return DM_OK;
}

/* ByteLevel only changes offsets. A template is fine as long as it adds no token. */
static enum dm_status check_post_processor(const json_t *v, struct dm_tokenizer *t,
                                           const char *where, struct dm_err *e)
{
    (void)t;
    if (is_byte_level(v))
        return DM_OK;
    const json_t *single = json_object_get(v, "single");
    if (!strcmp(type_of(v), "TemplateProcessing") && json_array_size(single) == 1 &&
        json_object_get(json_array_get(single, 0), "Sequence"))
        return DM_OK;
    return refuse(where, "post_processor", type_of(v),
                  "ByteLevel or a template that adds no tokens", e);
}

static enum dm_status check_steps(const json_t *root, struct dm_tokenizer *t, const char *where,
                                  struct dm_err *e)
{
    const json_t *pad = json_object_get(root, "padding");
    const json_t *decoder = json_object_get(root, "decoder");
    if (json_is_object(json_object_get(root, "truncation")))
        return refuse(where, "key", "truncation", "null", e);
    if (json_is_object(pad)) {
        const char *strategy = json_string_value(json_object_get(pad, "strategy"));
        if (!strategy || strcmp(strategy, "BatchLongest"))
            return refuse(where, "padding to", "a fixed length", "BatchLongest or null", e);
    }
    DM_TRY(each_step(json_object_get(root, "normalizer"), "normalizers", t, check_normalizer, where,
                     e));
    DM_TRY(check_pre_tokenizer(json_object_get(root, "pre_tokenizer"), where, e));
    DM_TRY(each_step(json_object_get(root, "post_processor"), "processors", t, check_post_processor,
                     where, e));
    if (!is_byte_level(decoder))
        return refuse(where, "decoder", type_of(decoder), "ByteLevel", e);
    return DM_OK;
}

static enum dm_status check_model(const json_t *model, struct dm_tokenizer *t, const char *where,
                                  struct dm_err *e)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = "BPE";
    bool fallback = false;
    double dropout = 0.0;
    if (!json_is_object(model))
        return dm_fail(e, DM_EFORMAT, "%s: \"model\" is %s, want an object", where,
                       dm_json_type(model));
    DM_TRY(dm_json_string(model, "type", false, where, &type, e));
    if (strcmp(type, "BPE"))
        return refuse(where, "model type", type, "BPE", e);
    for (size_t i = 0; i < 2; i++) {
        const char *affix = "";
        DM_TRY(dm_json_string(model, affixes[i], false, where, &affix, e));
        if (*affix)
            return refuse(where, "model option", affixes[i], "none", e);
    }
    DM_TRY(dm_json_number(model, "dropout", false, where, &dropout, e));
    if (dropout != 0.0)
        return refuse(where, "model option", "dropout", "none", e);
    DM_TRY(dm_json_bool(model, "byte_fallback", false, where, &fallback, e));
    if (fallback)
        return refuse(where, "model option", "byte_fallback", "false", e);
    return dm_json_bool(model, "ignore_merges", false, where, &t->ignore_merges, e);
}

/* Adds a token under an id that is free. `unmap`: its name is in the byte alphabet if it can be. */
static enum dm_status put_token(struct dm_tokenizer *t, int32_t id, const char *name, size_t n,
                                bool unmap, const char *where, struct dm_err *e)
{
    struct dm_token *k = &t->token[id];
    const size_t at = t->blob.n;
    if (k->exists)
        return dm_fail(e, DM_EFORMAT, "%s: id %d stands for two tokens, the second is \"%s\"",
                       where, id, name);
    *k = (struct dm_token){.at = (uint32_t)at, .exists = true, .literal = !unmap};
    for (size_t i = 0; unmap && i < n;) {
        uint32_t cp;
        i += dm_text_decode((const uint8_t *)name + i, &cp);
        const int byte = dm_text_symbol_byte(cp);
        const uint8_t b = (uint8_t)byte;
        if (byte < 0) {
            t->blob.n = at;
            k->literal = true;
            break;
        }
        DM_TRY(dm_bytes_add(&t->blob, &b, 1, e));
    }
    if (k->literal)
        DM_TRY(dm_bytes_add(&t->blob, name, n, e));
    k->n = (uint32_t)(t->blob.n - at);
    return DM_OK;
}

/* An id of the file, or a status. */
static enum dm_status read_id(const json_t *v, const char *name, const char *where, int32_t *id,
                              struct dm_err *e)
{
    if (!json_is_integer(v))
        return dm_fail(e, DM_EFORMAT, "%s: the id of \"%s\" is %s, want an integer", where, name,
                       dm_json_type(v));
    if (json_integer_value(v) < 0 || json_integer_value(v) >= MAX_IDS)
        return dm_fail(e, DM_ERANGE, "%s: the id of \"%s\" is %lld, want 0..%d", where, name,
                       (long long)json_integer_value(v), MAX_IDS - 1);
    *id = (int32_t)json_integer_value(v);
    return DM_OK;
}

static enum dm_status read_added(const json_t *a, const char *where, const char **content,
                                 int32_t *id, struct dm_err *e)
{
    static const char *const options[] = {"single_word", "lstrip", "rstrip"};
    if (!json_is_object(a))
        return dm_fail(e, DM_EFORMAT, "%s: an added token is %s, want an object", where,
                       dm_json_type(a));
    DM_TRY(dm_json_string(a, "content", true, where, content, e));
    if (!**content)
        return dm_fail(e, DM_EFORMAT, "%s: an added token is empty", where);
    if (strlen(*content) != json_string_length(json_object_get(a, "content")))
        return refuse(where, "added token with", "U+0000", "none", e);
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        bool on = false;
        DM_TRY(dm_json_bool(a, options[i], false, where, &on, e));
        if (on)
            return refuse(where, "added token option", options[i], "false", e);
    }
    return read_id(json_object_get(a, "id"), *content, where, id, e);
}

/* First pass over both lists: types, ranges and the largest id. */
static enum dm_status measure(const json_t *vocab, const json_t *added, struct dm_tokenizer *t,
                              const char *where, struct dm_err *e)
{
    const char *name;
    json_t *v;
    int32_t id, max = -1;
    if (!json_is_object(vocab))
        return dm_fail(e, DM_EFORMAT, "%s: \"vocab\" is %s, want an object", where,
                       dm_json_type(vocab));
    if (added && !json_is_array(added))
        return dm_fail(e, DM_EFORMAT, "%s: \"added_tokens\" is %s, want an array", where,
                       dm_json_type(added));
    json_object_foreach((json_t *)(uintptr_t)vocab, name, v)
    {
        DM_TRY(read_id(v, name, where, &id, e));
        max = id > max ? id : max;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        DM_TRY(read_added(json_array_get(added, i), where, &name, &id, e));
        max = id > max ? id : max;
    }
    if (max < 0)
        return dm_fail(e, DM_EFORMAT, "%s: the vocabulary is empty", where);
    t->size = (size_t)max + 1;
    t->token = dm_alloc(t->size, sizeof(*t->token));
    if (!t->token)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tokens", where, t->size);
    return DM_OK;
}

static void put_word(struct dm_tokenizer *t, int32_t id)
{
    const struct dm_token *k = &t->token[id];
    size_t i = dm_word_hash(t->blob.p + k->at, k->n) & t->word_mask;
    while (t->word[i])
        i = (i + 1) & t->word_mask;
    t->word[i] = (uint32_t)id + 1;
}

static enum dm_status read_vocab(const json_t *vocab, struct dm_tokenizer *t, const char *where,
                                 struct dm_err *e)
{
    const char *name;
    json_t *v;
    size_t slots = 16;
    json_object_foreach((json_t *)(uintptr_t)vocab, name, v)
        DM_TRY(put_token(t, (int32_t)json_integer_value(v), name, strlen(name), true, where, e));
    while (slots < 2 * json_object_size(vocab))
        slots *= 2;
    t->word = dm_alloc(slots, sizeof(*t->word));
    if (!t->word)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tokens", where, t->size);
    t->word_mask = slots - 1;
    for (size_t i = 0; i < t->size; i++)
        if (t->token[i].n && !t->token[i].literal)
            put_word(t, (int32_t)i);
    for (int b = 0; b < 256; b++) {
        const uint8_t byte = (uint8_t)b;
        t->symbol[b] = dm_tokenizer_find(t, &byte, 1, dm_word_hash(&byte, 1));
    }
    return DM_OK;
}

/* *id of a token's name of n bytes, or -1. `key` is scratch. */
static enum dm_status vocab_id(const json_t *vocab, const char *name, size_t n,
                               struct dm_bytes *key, int32_t *id, struct dm_err *e)
{
    key->n = 0;
    DM_TRY(dm_bytes_add(key, name, n, e));
    DM_TRY(dm_bytes_add(key, "", 1, e));
    const json_t *v = json_object_get(vocab, (const char *)key->p);
    *id = v ? (int32_t)json_integer_value(v) : -1;
    return DM_OK;
}

/* Both halves of a merge: "a b", or ["a", "b"] in newer files. */
static bool merge_halves(const json_t *v, const char *half[2], size_t n[2])
{
    if (json_is_string(v)) {
        half[0] = json_string_value(v);
        const char *gap = strchr(half[0], ' ');
        if (!gap || strchr(gap + 1, ' ') || strlen(half[0]) != json_string_length(v))
            return false;
        n[0] = (size_t)(gap - half[0]);
        half[1] = gap + 1;
        n[1] = strlen(half[1]);
        return true;
    }
    if (json_array_size(v) != 2)
        return false;
    for (size_t i = 0; i < 2; i++) {
        const json_t *s = json_array_get(v, i);
        half[i] = json_string_value(s);
        n[i] = json_string_length(s);
        if (!half[i] || strlen(half[i]) != n[i])
            return false;
    }
    return true;
}

static enum dm_status read_merge(const json_t *v, size_t number, const json_t *vocab,
                                 struct dm_tokenizer *t, struct dm_bytes key[2], const char *where,
                                 struct dm_err *e)
{
    const char *half[2];
    size_t n[2];
    if (!merge_halves(v, half, n))
        return dm_fail(e, DM_EFORMAT, "%s: merge %zu is not \"a b\" or [\"a\", \"b\"]", where,
                       number);
    key[1].n = 0;
    DM_TRY(dm_bytes_add(&key[1], half[0], n[0], e));
    DM_TRY(dm_bytes_add(&key[1], half[1], n[1], e));
    int32_t left, right, both;
    DM_TRY(vocab_id(vocab, half[0], n[0], &key[0], &left, e));
    DM_TRY(vocab_id(vocab, half[1], n[1], &key[0], &right, e));
    DM_TRY(vocab_id(vocab, (const char *)key[1].p, key[1].n, &key[0], &both, e));
    if (left < 0 || right < 0 || both < 0 || !n[0] || !n[1])
        return dm_fail(
            e, DM_EFORMAT,
            "%s: merge %zu (\"%.*s\" and \"%.*s\") names %s that is not in the vocabulary", where,
            number, (int)n[0], half[0], (int)n[1], half[1],
            left < 0 || right < 0 ? "a token" : "a result");
    dm_merges_put(&t->merges, left, right, (uint32_t)number, both);
    return DM_OK;
}

static enum dm_status read_merges(const json_t *list, const json_t *vocab, struct dm_tokenizer *t,
                                  const char *where, struct dm_err *e)
{
    struct dm_bytes key[2] = {{0}};
    enum dm_status st = DM_OK;
    if (!json_is_array(list))
        return dm_fail(e, DM_EFORMAT, "%s: \"merges\" is %s, want an array", where,
                       dm_json_type(list));
    DM_TRY(dm_merges_init(&t->merges, json_array_size(list), e));
    for (size_t i = 0; !st && i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (json_is_string(v) && !strncmp(json_string_value(v), "#version", 8))
            continue; // the first line of an old merges.txt
        st = read_merge(v, i, vocab, t, key, where, e);
    }
    dm_bytes_release(&key[0]);
    dm_bytes_release(&key[1]);
    return st;
}

/* Nearly every word of a text is one token. Which tokens come out of the merges as themselves is
 * settled here once, so that encoding such a word is one look-up. */
static enum dm_status find_whole(struct dm_tokenizer *t, struct dm_err *e)
{
    struct dm_ids ids = {0};
    enum dm_status st = DM_OK;
    for (size_t i = 0; !st && i < t->size; i++) {
        struct dm_token *k = &t->token[i];
        if (!k->n || k->literal)
            continue;
        ids.n = 0;
        st = dm_tokenizer_merge(t, t->blob.p + k->at, k->n, &ids, e);
        k->whole = !st && (t->ignore_merges || (ids.n == 1 && (size_t)ids.id[0] == i));
    }
    dm_ids_release(&ids);
    return st;
}

/* Remembers where an added token forbids dm_tokenizer_cut() to cut. */
static void note_glue(struct dm_tokenizer *t, const uint8_t *s, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        if (dm_text_ascii_space(s[i + 1]) && !dm_text_ascii_space(s[i]))
            t->glued = t->glue[s[i]] = true;
}

/* A token of the vocabulary that is "added" too keeps its id and is found before the words. */
static enum dm_status put_added(const json_t *a, const json_t *vocab, struct dm_tokenizer *t,
                                const char *where, struct dm_err *e)
{
    const char *content = NULL;
    int32_t id = 0;
    bool normalized = false;
    DM_TRY(read_added(a, where, &content, &id, e));
    DM_TRY(dm_json_bool(a, "normalized", false, where, &normalized, e));
    const json_t *known = json_object_get(vocab, content);
    if (known && json_integer_value(known) != id)
        return dm_fail(e, DM_EFORMAT,
                       "%s: \"%s\" has id %d as added token but %lld in the vocabulary", where,
                       content, id, (long long)json_integer_value(known));
    if (!known)
        DM_TRY(put_token(t, id, content, strlen(content), false, where, e));
    if (!strcmp(content, "<|endoftext|>"))
        t->eos = id;
    struct dm_bytes buf = {0};
    const uint8_t *s = (const uint8_t *)content;
    size_t n = strlen(content);
    enum dm_status st = DM_OK;
    if (normalized && t->nfc)
        st = dm_text_nfc(&t->text, s, n, &buf, &s, &n, e);
    if (!st)
        st = dm_trie_add(normalized ? &t->normal : &t->raw, s, n, id, e);
    if (!st)
        note_glue(t, s, n);
    dm_bytes_release(&buf);
    return st;
}

/* With every byte of UTF-8 in the vocabulary an unknown token can never appear; without, it would
 * and is refused. */
static enum dm_status check_unknown(const json_t *model, const struct dm_tokenizer *t,
                                    const char *where, struct dm_err *e)
{
    const char *unk = NULL;
    DM_TRY(dm_json_string(model, "unk_token", false, where, &unk, e));
    for (int b = 0; unk && b < 0xf5; b++)
        if (t->symbol[b] < 0 && b != 0xc0 && b != 0xc1)
            return dm_fail(
                e, DM_EUNSUPPORTED,
                "%s: unk_token \"%s\" is not supported in a vocabulary without byte 0x%02x", where,
                unk, b);
    return DM_OK;
}

static enum dm_status build(const json_t *root, struct dm_tokenizer *t, const char *where,
                            struct dm_err *e)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *vocab = json_object_get(model, "vocab");
    const json_t *added = json_object_get(root, "added_tokens");
    if (!json_is_object(root))
        return dm_fail(e, DM_EFORMAT, "%s: not a tokenizer.json: %s, want an object", where,
                       dm_json_type(root));
    DM_TRY(check_model(model, t, where, e));
    DM_TRY(check_steps(root, t, where, e));
    DM_TRY(dm_text_init(&t->text, e));
    DM_TRY(measure(vocab, added, t, where, e));
    DM_TRY(read_vocab(vocab, t, where, e));
    DM_TRY(check_unknown(model, t, where, e));
    DM_TRY(read_merges(json_object_get(model, "merges"), vocab, t, where, e));
    DM_TRY(find_whole(t, e));
    for (size_t i = 0; i < json_array_size(added); i++)
        DM_TRY(put_added(json_array_get(added, i), vocab, t, where, e));
    return DM_OK;
}

enum dm_status dm_tokenizer_parse(struct dm_tokenizer **out, const char *json, size_t n,
                                  const char *where, struct dm_err *e)
{
    json_t *root = NULL;
    enum dm_status st;
    *out = NULL;
    if (n > MAX_JSON)
        return dm_fail(e, DM_ERANGE, "%s: %zu bytes, more than the %d allowed for a tokenizer",
                       where, n, MAX_JSON);
    struct dm_tokenizer *t = dm_alloc(1, sizeof(*t));
    if (t)
        t->json = dm_alloc(n + 1, 1);
    if (!t || !t->json) {
        free(t);
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", where);
    }
    memcpy(t->json, json, n);
    t->n_json = n;
    t->eos = -1;
    dm_sha256(json, n, t->hash);
    DM_TRY_GOTO(dm_json_parse(json, n, where, &root, e));
    DM_TRY_GOTO(build(root, t, where, e));
    *out = t;
    t = NULL;
done:
    json_decref(root);
    dm_tokenizer_free(t);
    return st;
}

enum dm_status dm_tokenizer_load(struct dm_tokenizer **out, const char *path, struct dm_err *e)
{
    char *json = NULL;
    size_t n;
    enum dm_status st;
    *out = NULL;
    if (dm_file_is_h5(path)) {
        struct dm_h5 *f;
        DM_TRY(dm_h5_open(&f, path, NULL, SIZE_MAX, e));
        if (dm_h5_has_attr(f, "/", "tokenizer"))
            st = dm_h5_get_string(f, "/", "tokenizer", &json, e);
        else
            st = dm_fail(e, DM_EFORMAT, "%s: this file carries no tokenizer", path);
        dm_h5_close(f);
        n = json ? strlen(json) : 0;
    } else {
        st = dm_file_read(path, MAX_JSON, &json, &n, e);
    }
    if (!st)
        st = dm_tokenizer_parse(out, json, n, path, e);
    free(json);
    return st;
}
