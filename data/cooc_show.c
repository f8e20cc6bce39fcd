/* SPDX-License-Identifier: MIT */
#include "data/cooc_show.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
    static const char *const most[] = {[2] = "", [3] = " or 2", [4] = " to 3"};
    struct dm_ids ids = {0};
    enum dm_status st = dm_tokenizer_encode(t, text, strlen(text), &ids, e);
    if (!st && (ids.n < 1 || ids.n >= c->order))
        st = dm_fail(e, DM_ERANGE, "%s: \"%s\" is %zu tokens, want 1%s", c->path, text, ids.n,
                     most[c->order]);
    s->n_ids = st ? 0 : ids.n;
    for (size_t i = 0; i < s->n_ids; i++)
        s->id[i] = (uint32_t)ids.id[i];
    dm_ids_release(&ids);
    return st;
}

/* The continuations of an n-gram: [begin, end) of these arrays. */
struct row {
    const uint32_t *x, *count;
    size_t begin, end;
};

static struct row row_of(struct dm_cooc_shown *s, const struct dm_cooc *c)
{
    if (s->id[0] >= c->V)
        return (struct row){0};
    s->count = c->c1[s->id[0]];
    if (s->n_ids == 1)
        return (struct row){c->x2, c->c2, c->row[s->id[0]], c->row[s->id[0] + 1]};
    const size_t pair = dm_cooc_find(c, s->id[0], s->id[1]);
    s->count = pair == SIZE_MAX ? 0 : c->c2[pair];
    if (pair == SIZE_MAX)
        return (struct row){0};
    if (s->n_ids == 2)
        return (struct row){c->x3, c->c3, c->sub[pair], c->sub[pair + 1]};
    const size_t t = dm_cooc_find3(c, pair, s->id[2]);
    s->count = t == SIZE_MAX ? 0 : c->c3[t];
    if (t == SIZE_MAX)
        return (struct row){0};
    return (struct row){c->x4, c->c4, c->sub3[t], c->sub3[t + 1]};
}

/* DynaMo eq. 3 in double. */
static double ratio(const struct dm_cooc_shown *s, const struct dm_cooc *c, uint32_t last,
                    uint32_t count)
{
    double p = (double)c->c1[last] / (double)c->N[0];
    for (size_t i = 0; i < s->n_ids; i++)
        p *= (double)c->c1[s->id[i]] / (double)c->N[0];
    return (double)count / (double)c->N[s->n_ids] / p;
}

enum dm_status dm_cooc_show(struct dm_cooc_shown *s, const struct dm_cooc *c,
                            const struct dm_tokenizer *t, const char *text, struct dm_err *e)
{
    *s = (struct dm_cooc_shown){0};
    DM_TRY(context_of(s, c, t, text, e));
    const struct row r = row_of(s, c);
    s->next = dm_alloc(r.end - r.begin + 1, sizeof(*s->next));
    if (!s->next)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for %zu continuations", c->path,
                       r.end - r.begin);
    for (size_t i = r.begin; i < r.end; i++)
        s->next[s->n++] = (struct dm_cooc_next){r.x[i], r.count[i],
                                                (float)ratio(s, c, r.x[i], r.count[i])};
    if (s->n)
        qsort(s->next, s->n, sizeof(*s->next), by_ratio);
    return DM_OK;
}

void dm_cooc_summarise(struct dm_cooc_summary s[DM_COOC_ORDER_MAX], const struct dm_cooc *c)
{
    const uint32_t *const count[] = {c->c2, c->c3, c->c4};
    const size_t n[] = {c->n_pairs, c->n_triplets, c->n_quads};
    for (size_t k = 0; k < DM_COOC_ORDER_MAX; k++) {
        const double ones = (double)c->ones[k], twos = (double)c->twos[k];
        s[k] = (struct dm_cooc_summary){.total = c->N[k], .ones = c->ones[k], .twos = c->twos[k]};
        s[k].discount = ones > 0.0 ? ones / (ones + 2.0 * twos) : 0.0;
    }
    for (size_t i = 0; i < c->V; i++) {
        s[0].kept += c->c1[i] > 0;
        s[0].sum += c->c1[i];
        s[0].largest = c->c1[i] > s[0].largest ? c->c1[i] : s[0].largest;
    }
    for (size_t k = 1; k < c->order; k++) {
        s[k].kept = n[k - 1];
        for (size_t i = 0; i < n[k - 1]; i++) {
            s[k].sum += count[k - 1][i];
            s[k].largest = count[k - 1][i] > s[k].largest ? count[k - 1][i] : s[k].largest;
        }
    }
}

enum dm_status dm_cooc_measure(struct dm_cooc_sizes *s, const struct dm_cooc *c, struct dm_err *e)
{
    struct stat file;
    if (stat(c->path, &file))
        return dm_fail_errno(e, "%s: cannot see its size", c->path);
    *s = (struct dm_cooc_sizes){.file = (uint64_t)file.st_size,
                                .memory = dm_cooc_index_bytes(c),
                                .coordinates = 16 * (uint64_t)c->n_pairs +
                                               32 * (uint64_t)c->n_triplets +
                                               40 * (uint64_t)c->n_quads,
                                .n_grams = c->n_pairs + c->n_triplets + c->n_quads};
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
