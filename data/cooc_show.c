/* SPDX-License-Identifier: MIT */
#include "data/cooc_show.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "src/base/arena.h"

static int by_ratio(const void *a, const void *b)
{
    const struct dm_cooc_next *p = a, *q = b;
    if (p->r != q->r)
        return p->r > q->r ? -1 : 1;
    return (p->id > q->id) - (p->id < q->id);
}

static enum dm_status context_of(struct dm_cooc_shown *s, const struct dm_cooc *c,
                                 const struct dm_tokenizer *t, const char *text, struct dm_err *e)
{
    struct dm_ids ids = {0};
    enum dm_status st = dm_tokenizer_encode(t, text, strlen(text), &ids, e);
    if (!st && (ids.n < 1 || ids.n >= c->order))
        st = dm_fail(e, DM_ERANGE, "%s: \"%s\" is %zu tokens, want 1%s", c->path, text, ids.n,
                     c->order > 2 ? " or 2" : "");
    s->n_ids = st ? 0 : ids.n;
    for (size_t i = 0; i < s->n_ids; i++)
        s->id[i] = (uint32_t)ids.id[i];
    dm_ids_release(&ids);
    return st;
}

enum dm_status dm_cooc_show(struct dm_cooc_shown *s, const struct dm_cooc *c,
                            const struct dm_tokenizer *t, const char *text, struct dm_err *e)
{
    *s = (struct dm_cooc_shown){0};
    DM_TRY(context_of(s, c, t, text, e));
    const bool two = s->n_ids == 2;
    const size_t pair = two ? dm_cooc_find(c, s->id[0], s->id[1]) : SIZE_MAX;
    size_t begin = 0, end = 0;
    if (two && pair != SIZE_MAX) {
        begin = c->sub[pair];
        end = c->sub[pair + 1];
        s->count = c->c2[pair];
    } else if (!two && s->id[0] < c->V) {
        begin = c->row[s->id[0]];
        end = c->row[s->id[0] + 1];
        s->count = c->c1[s->id[0]];
    }
    s->next = dm_alloc(end - begin + 1, sizeof(*s->next));
    if (!s->next)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for %zu continuations", c->path, end - begin);
    for (size_t i = begin; i < end; i++)
        s->next[s->n++] = two ? (struct dm_cooc_next){c->x3[i], c->c3[i], c->r3[i]}
                              : (struct dm_cooc_next){c->x2[i], c->c2[i], c->r2[i]};
    qsort(s->next, s->n, sizeof(*s->next), by_ratio);
    return DM_OK;
}

void dm_cooc_shown_release(struct dm_cooc_shown *s)
{
    free(s->next);
    *s = (struct dm_cooc_shown){0};
}

/* Writes one character or byte and returns the bytes taken of the n > 0 left. */
static size_t put_char(char **out, const unsigned char *in, size_t n)
{
    static const char digit[] = "0123456789abcdef";
    utf8proc_int32_t code;
    const utf8proc_ssize_t taken = utf8proc_iterate(in, (utf8proc_ssize_t)n, &code);
    const bool control = taken > 0 && (code < 0x20 || (code >= 0x7f && code < 0xa0));
    if (taken > 0 && !control && *in != '\\') {
        memcpy(*out, in, (size_t)taken);
        *out += taken;
        return (size_t)taken;
    }
    *(*out)++ = '\\';
    if (*in == '\n' || *in == '\t' || *in == '\\') {
        *(*out)++ = *in == '\n' ? 'n' : *in == '\t' ? 't' : '\\';
        return 1;
    }
    *(*out)++ = 'x';
    *(*out)++ = digit[*in >> 4];
    *(*out)++ = digit[*in & 15];
    return 1;
}

char *dm_cooc_escape(const char *bytes, size_t n)
{
    const unsigned char *in = (const unsigned char *)bytes;
    char *text = dm_alloc(n + 1, 4), *out = text; // \xNN is the longest: 4 for a byte
    for (size_t i = 0; text && i < n;)
        i += put_char(&out, in + i, n - i);
    return text;
}
