/* SPDX-License-Identifier: MIT */
#include "src/decode/record.h"

#include <stdlib.h>

#include "src/base/arena.h"

json_t *dm_record_text(const char *s, size_t n)
{
    char *clean = dm_utf8_clean(s, n, &n);
    json_t *v = clean ? json_stringn(clean, n) : NULL;
    free(clean);
    return v;
}

json_t *dm_record_ids(const int32_t *id, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_integer(id[i]));
    return a;
}

/* What the token adds to the text. */
static json_t *token_text(struct dm_record *r, int32_t id)
{
    size_t n, used = 0;
    const char *s = dm_tokenizer_bytes(r->tokenizer, id, &n);
    if (id == r->eos)
        n = 0;
    char *text = dm_alloc(n + sizeof(r->utf8.held), 1);
    if (!text)
        return NULL;
    for (size_t i = 0; i < n; i++)
        used += dm_utf8_push(&r->utf8, s[i], text + used);
    json_t *v = dm_record_text(text, used);
    free(text);
    return v;
}

static json_t *orders(const struct dm_block *b, bool traced)
{
    json_t *a = json_array();
    for (size_t n = DM_ORDER_MAX; n > 0; n--) {
        const struct dm_try *t = &b->order[n];
        const bool unknown = !traced && !t->passed && !t->n_cells;
        if (t->tried)
            json_array_append_new(
                a, json_pack("{s:I, s:o, s:o, s:o, s:I, s:b}", "n", (json_int_t)n, "max_j",
                             unknown ? json_null() : json_real(t->max), "counts",
                             unknown ? json_null() : json_real(t->counts), "threshold",
                             t->otsu < 0 ? json_null() : json_integer(t->otsu), "cells",
                             (json_int_t)t->n_cells, "passed", t->passed));
    }
    return a;
}

json_t *dm_record_block(struct dm_record *r, const struct dm_block *b, size_t step)
{
    json_t *text = json_array();
    for (size_t i = 0; i < b->kept; i++)
        json_array_append_new(text, token_text(r, b->id[i]));
    return json_pack("{s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:o}", "step", (json_int_t)step, "pos",
                     (json_int_t)b->pos, "n", (json_int_t)b->n, "kept", (json_int_t)b->kept, "q",
                     b->q, "tokens", dm_record_ids(b->id, b->n), "text", text, "orders",
                     orders(b, r->traced));
}

static json_t *candidates(const struct dm_stages *s, size_t h, const struct dm_tokenizer *tokenizer)
{
    json_t *a = json_array();
    for (size_t i = 0; i < s->n[h]; i++) {
        size_t n;
        const char *bytes = dm_tokenizer_bytes(tokenizer, s->id[h][i], &n);
        json_array_append_new(a, json_pack("{s:I, s:o, s:f}", "id", (json_int_t)s->id[h][i], "text",
                                           dm_record_text(bytes, n), "p", s->p[h][i]));
    }
    return a;
}

static json_t *grid(const struct dm_stages *s, enum dm_stage stage)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < s->n[0]; i++) {
        json_t *row = json_array();
        for (size_t m = 0; m < s->n[1]; m++)
            json_array_append_new(row, json_real(s->J[stage][i][m]));
        json_array_append_new(rows, row);
    }
    return rows;
}

json_t *dm_record_stages(const struct dm_stages *s, const struct dm_tokenizer *tokenizer)
{
    json_t *stages = json_array();
    for (enum dm_stage i = 0; i < DM_STAGES; i++)
        if (i != DM_STAGE_BLUR || s->otsu >= 0)
            json_array_append_new(
                stages, json_pack("{s:s, s:I, s:f, s:o}", "name", dm_stage_names[i], "cells",
                                  (json_int_t)s->cells[i], "mass", s->mass[i], "J", grid(s, i)));
    return json_pack("{s:f, s:f, s:f, s:b, s:o, s:o, s:o, s:o}", "max_j", s->max, "counts",
                     s->counts, "level", s->level, "passed", s->counts > s->level, "threshold",
                     s->otsu < 0 ? json_null() : json_integer(s->otsu), "rows",
                     candidates(s, 0, tokenizer), "columns", candidates(s, 1, tokenizer), "stages",
                     stages);
}
