/* SPDX-License-Identifier: MIT */
#include "src/base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "src/base/arena.h"

/* Bytes of the sequence that starts with c, 0 if none does. */
static size_t sequence_length(unsigned char c)
{
    return c < 0x80                ? 1
           : c >= 0xc2 && c < 0xe0 ? 2
           : c >= 0xe0 && c < 0xf0 ? 3
           : c >= 0xf0 && c < 0xf5 ? 4
                                   : 0;
}

/* The second byte decides about overlong forms, surrogates and code points beyond U+10FFFF. */
static bool second_fits(unsigned char first, unsigned char second)
{
    const unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    return second >= low && second <= high;
}

size_t dm_utf8_complete(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t tail = 0; // continuation bytes at the end
    while (tail < 3 && tail < n && (u[n - 1 - tail] & 0xc0) == 0x80)
        tail++;
    if (tail == n)
        return n;
    const size_t start = n - 1 - tail, want = sequence_length(u[start]);
    if (want <= tail + 1 || (tail && !second_fits(u[start], u[start + 1])))
        return n;
    return start;
}

char *dm_utf8_clean(const char *s, size_t n, size_t *len)
{
    size_t cap;
    char *out = dm_mul(n, 3, &cap) && dm_add(cap, 1, &cap) ? dm_alloc(cap, 1) : NULL;
    if (!out)
        return NULL;
    size_t o = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t cp;
        const utf8proc_ssize_t w = utf8proc_iterate((const utf8proc_uint8_t *)s + i,
                                                    (utf8proc_ssize_t)(n - i), &cp);
        memcpy(out + o, w > 0 ? s + i : "\xef\xbf\xbd", w > 0 ? (size_t)w : 3);
        o += w > 0 ? (size_t)w : 3;
        i += w > 0 ? (size_t)w : 1;
    }
    *len = o;
    return out;
}

static const char *replacement(unsigned char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    case '\t':
    case '\n':
        return NULL;
    default:
        return c < 0x20 || c == 0x7f ? "\xef\xbf\xbd" : NULL;
    }
}

bool dm_utf8_escape(FILE *f, const char *text)
{
    size_t n;
    char *clean = dm_utf8_clean(text, strlen(text), &n);
    if (!clean)
        return false;
    const char *from = clean; // what is not written yet and needs no replacement
    for (const char *c = clean;; c++) {
        const char *name = *c ? replacement((unsigned char)*c) : "";
        if (!name)
            continue;
        fwrite(from, 1, (size_t)(c - from), f);
        fputs(name, f);
        from = c + 1;
        if (!*c)
            break;
    }
    free(clean);
    return true;
}

size_t dm_utf8_push(struct dm_utf8 *u, char c, char *out)
{
    u->held[u->n++] = c; // at most 3 bytes of one sequence were held, so this one decides
    const size_t done = dm_utf8_complete(u->held, u->n);
    memcpy(out, u->held, done);
    memmove(u->held, u->held + done, u->n - done);
    u->n -= done;
    return done;
}
