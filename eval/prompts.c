/* SPDX-License-Identifier: MIT */
#include "eval/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/objects.h"
#include "data/reader.h"
#include "src/base/arena.h"
#include "src/base/json.h"

/* Of the prompt that comes next. */
static enum dm_status count_kind(struct dm_prompts *p, const char *kind, struct dm_err *e)
{
    size_t i = 0;
    p->kind_of[p->n] = -1;
    if (!kind)
        return DM_OK;
    while (i < p->n_kinds && strcmp(p->kind[i].name, kind))
        i++;
    if (i == DM_PROMPT_KINDS || strlen(kind) >= sizeof(p->kind[0].name))
        return dm_fail(e, DM_ERANGE, "kind \"%.40s\": longer than %zu bytes, or more than %d kinds",
                       kind, sizeof(p->kind[0].name) - 1, DM_PROMPT_KINDS);
    if (i == p->n_kinds)
        snprintf(p->kind[p->n_kinds++].name, sizeof(p->kind[0].name), "%s", kind);
    p->kind[i].n++;
    p->kind_of[p->n] = (int8_t)i;
    return DM_OK;
}

enum dm_status dm_prompts_add(struct dm_prompts *p, const int32_t *ids, size_t n_ids,
                              const char *kind, struct dm_err *e)
{
    if (!n_ids)
        return dm_fail(e, DM_ERANGE, "the prompt has no tokens, expected at least one");
    if (p->n + 1 >= p->cap) {
        const size_t cap = p->cap ? 2 * p->cap : 64;
        size_t *start = dm_realloc(p->start, cap, sizeof(*start));
        p->start = start ? start : p->start;
        int8_t *kind_of = dm_realloc(p->kind_of, cap, sizeof(*kind_of));
        p->kind_of = kind_of ? kind_of : p->kind_of;
        if (!start || !kind_of)
            return dm_fail(e, DM_ENOMEM, "out of memory for %zu prompts", cap);
        start[0] = p->n ? start[0] : 0;
        p->cap = cap;
    }
    DM_TRY(count_kind(p, kind, e));
    for (size_t i = 0; i < n_ids; i++)
        DM_TRY(dm_ids_push(&p->ids, ids[i], e));
    p->start[++p->n] = p->ids.n;
    return DM_OK;
}

/* A file on its way in. */
struct reading {
    struct dm_prompts *p;
    const struct dm_tokenizer *tokenizer;
};

static enum dm_status add_text(struct reading *r, const char *text, size_t n, const char *kind,
                               const char *where, struct dm_err *e)
{
    struct dm_ids ids = {0};
    struct dm_err why;
    enum dm_status st = dm_tokenizer_encode(r->tokenizer, text, n, &ids, &why);
    if (!st)
        st = dm_prompts_add(r->p, ids.id, ids.n, kind, &why);
    dm_ids_release(&ids);
    return st ? dm_fail(e, st, "%s: %s", where, why.msg) : DM_OK;
}

static enum dm_status add_object(void *ctx, const json_t *object, const char *where,
                                 struct dm_err *e)
{
    const char *text, *kind = NULL;
    DM_TRY(dm_json_string(object, "text", true, where, &text, e));
    DM_TRY(dm_json_string(object, "kind", false, where, &kind, e));
    return add_text(ctx, text, strlen(text), kind, where, e);
}

static enum dm_status add_lines(struct reading *r, const char *path, struct dm_err *e)
{
    const struct dm_reader_opt o = {.format = DM_READER_TEXT};
    struct dm_reader *file;
    const char *text;
    size_t n, number = 0;
    DM_TRY(dm_reader_open(&file, path, &o, e));
    enum dm_status st = dm_reader_next(file, &text, &n, e);
    for (size_t i = 0; !st && text && i < n;) {
        const char *end = memchr(text + i, '\n', n - i);
        const size_t len = end ? (size_t)(end - text) - i : n - i, at = i;
        char where[512];
        snprintf(where, sizeof(where), "%s, line %zu", path, ++number);
        i += len + 1;
        if (strspn(text + at, " \t\r") < len)
            st = add_text(r, text + at, len - (text[at + len - 1] == '\r'), NULL, where, e);
    }
    dm_reader_close(file);
    return st;
}

enum dm_status dm_prompts_load(struct dm_prompts *p, const char *path,
                               const struct dm_tokenizer *tokenizer, struct dm_err *e)
{
    struct reading r = {p, tokenizer};
    const size_t before = p->n;
    if (strstr(path, ".json"))
        DM_TRY(dm_objects_each(path, add_object, &r, e));
    else
        DM_TRY(add_lines(&r, path, e));
    return p->n > before ? DM_OK : dm_fail(e, DM_ERANGE, "%s: no prompt", path);
}

void dm_prompts_release(struct dm_prompts *p)
{
    dm_ids_release(&p->ids);
    free(p->start);
    free(p->kind_of);
    *p = (struct dm_prompts){0};
}

void dm_prompts_thin(struct dm_prompts *p, size_t n)
{
    size_t end = 0;
    if (n >= p->n)
        return;
    for (size_t k = 0; k < p->n_kinds; k++)
        p->kind[k].n = 0;
    for (size_t i = 0; i < n; i++) { // what is read never lies before what is written
        const size_t from = i * p->n / n, begin = p->start[from], len = p->start[from + 1] - begin;
        memmove(p->ids.id + end, p->ids.id + begin, len * sizeof(*p->ids.id));
        p->kind_of[i] = p->kind_of[from];
        if (p->kind_of[i] >= 0)
            p->kind[p->kind_of[i]].n++;
        p->start[i] = end;
        end += len;
    }
    p->start[n] = p->ids.n = end;
    p->n = n;
}

json_t *dm_prompts_to_json(const struct dm_prompts *p, const char *source)
{
    json_t *kinds = json_object();
    for (size_t i = 0; i < p->n_kinds; i++)
        json_object_set_new(kinds, p->kind[i].name, json_integer((json_int_t)p->kind[i].n));
    return json_pack("{s:s, s:I, s:o}", "source", source, "n", (json_int_t)p->n, "kinds", kinds);
}
