/* SPDX-License-Identifier: MIT */
/* tokenizer_text.c - the tables come from libutf8proc, corrected where Hugging Face's differ.
 *
 * `tokenizers` (0.23) splits words by the categories of Unicode 16 but normalises with tables of
 * about Unicode 9; libutf8proc 2.8 knows Unicode 15. Equal ids need both quirks, so the code points
 * that differ are listed here; they were found by comparing all 1,112,064 of them
 * (scripts/fuzz_tokenizer.py --code-points repeats that).
 *
 * NFC works on stretches. A code point is a boundary when nothing that follows or precedes it can
 * change it: combining class 0, its own NFC, and never the second half of a composition. Between
 * boundaries utf8proc decomposes and composes; the canonical ordering is done here, because
 * utf8proc's is quadratic in the number of marks on one letter. */
#include "src/io/tokenizer_text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "src/base/arena.h"

enum { CLASS = DM_TEXT_CLASS_BITS, UNSAFE = 4, MAX_DECOMPOSED = 8 };

/* Letters and numbers that Unicode 15.1 and 16.0 added. */
static const struct {
    uint32_t first, last;
    uint8_t class;
} newer[] = {{0x1c89, 0x1c8a, DM_TEXT_LETTER},   {0xa7cb, 0xa7cd, DM_TEXT_LETTER},
             {0xa7da, 0xa7dc, DM_TEXT_LETTER},   {0x105c0, 0x105f3, DM_TEXT_LETTER},
             {0x10d40, 0x10d49, DM_TEXT_NUMBER}, {0x10d4a, 0x10d65, DM_TEXT_LETTER},
             {0x10d6f, 0x10d85, DM_TEXT_LETTER}, {0x10ec2, 0x10ec4, DM_TEXT_LETTER},
             {0x11380, 0x11389, DM_TEXT_LETTER}, {0x1138b, 0x1138b, DM_TEXT_LETTER},
             {0x1138e, 0x1138e, DM_TEXT_LETTER}, {0x11390, 0x113b5, DM_TEXT_LETTER},
             {0x113b7, 0x113b7, DM_TEXT_LETTER}, {0x113d1, 0x113d1, DM_TEXT_LETTER},
             {0x113d3, 0x113d3, DM_TEXT_LETTER}, {0x116d0, 0x116e3, DM_TEXT_NUMBER},
             {0x11bc0, 0x11be0, DM_TEXT_LETTER}, {0x11bf0, 0x11bf9, DM_TEXT_NUMBER},
             {0x13460, 0x143fa, DM_TEXT_LETTER}, {0x16100, 0x1611d, DM_TEXT_LETTER},
             {0x16130, 0x16139, DM_TEXT_NUMBER}, {0x16d40, 0x16d6c, DM_TEXT_LETTER},
             {0x16d70, 0x16d79, DM_TEXT_NUMBER}, {0x18cff, 0x18cff, DM_TEXT_LETTER},
             {0x1ccf0, 0x1ccf9, DM_TEXT_NUMBER}, {0x1e5d0, 0x1e5ed, DM_TEXT_LETTER},
             {0x1e5f0, 0x1e5f0, DM_TEXT_LETTER}, {0x1e5f1, 0x1e5fa, DM_TEXT_NUMBER},
             {0x2ebf0, 0x2ee5d, DM_TEXT_LETTER}};

/* Marks younger than Hugging Face's normaliser, which therefore leaves them in place, and the
 * second halves that utf8proc composes and it does not: U+11930 (a composite of Unicode 13), and
 * U+11A7, which utf8proc 2.8 wrongly swallows after a Hangul syllable. */
static const uint32_t inert[][2] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
    {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x11a7, 0x11a7},
    {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},
    {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e},
    {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x1193d, 0x1193e}, {0x11943, 0x11943},
    {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99},
    {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42},
    {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}};

void dm_bytes_release(struct dm_bytes *b)
{
    free(b->p);
    *b = (struct dm_bytes){0};
}

static enum dm_status bytes_reserve(struct dm_bytes *b, size_t n, struct dm_err *e)
{
    size_t want;
    if (!dm_add(b->n, n, &want))
        return dm_fail(e, DM_ENOMEM, "text of %zu + %zu bytes is too large", b->n, n);
    if (want <= b->cap)
        return DM_OK;
    size_t cap = b->cap < 256 ? 256 : b->cap;
    while (cap < want)
        cap = cap > SIZE_MAX / 2 ? want : cap + cap / 2;
    uint8_t *p = dm_realloc(b->p, cap, 1);
    if (!p)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu bytes of text", cap);
    b->p = p;
    b->cap = cap;
    return DM_OK;
}

enum dm_status dm_bytes_add(struct dm_bytes *b, const void *p, size_t n, struct dm_err *e)
{
    DM_TRY(bytes_reserve(b, n, e));
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    return DM_OK;
}

static uint8_t class_of(uint32_t cp)
{
    if ((cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
        (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
        cp == 0x205f || cp == 0x3000)
        return DM_TEXT_SPACE;
    const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO)
        return DM_TEXT_LETTER;
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO ? DM_TEXT_NUMBER : DM_TEXT_OTHER;
}

static size_t decompose(uint32_t cp, utf8proc_int32_t *out)
{
    int unused = 0;
    return (size_t)utf8proc_decompose_char((utf8proc_int32_t)cp, out, MAX_DECOMPOSED,
                                           UTF8PROC_DECOMPOSE, &unused);
}

/* Marks what one code point says about NFC: itself when it is a mark or not its own NFC, and
 * whatever may be the second half of its composition. */
static void mark_unsafe(uint8_t *prop, uint32_t cp)
{
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    utf8proc_int32_t d[MAX_DECOMPOSED];
    if (p->combining_class)
        prop[cp] |= UNSAFE;
    if (p->decomp_type || p->decomp_seqindex == UINT16_MAX)
        return; // no canonical decomposition
    const size_t n = decompose(cp, d);
    for (size_t i = 1; i < n; i++)
        prop[d[i]] |= UNSAFE;
    const utf8proc_ssize_t m = utf8proc_normalize_utf32(d, (utf8proc_ssize_t)n,
                                                        UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (m != 1 || (uint32_t)d[0] != cp)
        prop[cp] |= UNSAFE;
}

static void mark_ranges(uint8_t *prop)
{
    for (uint32_t cp = 0x1161; cp <= 0x1175; cp++) // Hangul vowels and final consonants
        prop[cp] |= UNSAFE;
    for (uint32_t cp = 0x11a8; cp <= 0x11c2; cp++)
        prop[cp] |= UNSAFE;
    for (size_t i = 0; i < sizeof(inert) / sizeof(inert[0]); i++)
        for (uint32_t cp = inert[i][0]; cp <= inert[i][1]; cp++)
            prop[cp] &= (uint8_t)~UNSAFE;
    for (size_t i = 0; i < sizeof(newer) / sizeof(newer[0]); i++)
        for (uint32_t cp = newer[i].first; cp <= newer[i].last; cp++)
            prop[cp] = (uint8_t)((prop[cp] & ~CLASS) | newer[i].class);
}

enum dm_status dm_text_init(struct dm_text *t, struct dm_err *e)
{
    t->prop = dm_alloc(DM_TEXT_CODE_POINTS, 1);
    if (!t->prop)
        return dm_fail(e, DM_ENOMEM, "out of memory for the table of characters");
    // Planes 4 to 13 and the private use planes hold neither letters, numbers nor marks.
    for (uint32_t cp = 0; cp < 0x40000; cp++)
        t->prop[cp] |= class_of(cp);
    for (uint32_t cp = 0; cp < 0x40000; cp++)
        mark_unsafe(t->prop, cp);
    mark_ranges(t->prop);
    return DM_OK;
}

void dm_text_release(struct dm_text *t)
{
    free(t->prop);
    t->prop = NULL;
}

size_t dm_text_decode(const uint8_t *s, uint32_t *cp)
{
    const uint32_t c = s[0];
    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    if (c < 0xe0) {
        *cp = (c & 0x1f) << 6 | (s[1] & 0x3f);
        return 2;
    }
    if (c < 0xf0) {
        *cp = (c & 0xf) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
        return 3;
    }
    *cp = (c & 7) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 |
          (s[3] & 0x3f);
    return 4;
}

/* Length of the ASCII run at s. */
static size_t ascii_run(const uint8_t *s, size_t n)
{
    size_t i = 0;
    for (uint64_t w; i + 8 <= n; i += 8) {
        memcpy(&w, s + i, 8);
        if (w & 0x8080808080808080u)
            break;
    }
    while (i < n && s[i] < 0x80)
        i++;
    return i;
}

/* Length of the well-formed sequence at s (not ASCII), or 0 with *bad = the bytes of the maximal
 * part to replace: a lead byte and the continuations that are possible after it. */
static size_t sequence(const uint8_t *s, size_t n, size_t *bad)
{
    const uint8_t c = s[0];
    const size_t len = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : 4;
    *bad = 1;
    if (c < 0xc2 || c > 0xf4)
        return 0;
    // Overlong forms, surrogates and values above U+10FFFF show in the second byte.
    const uint8_t lo = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    const uint8_t hi = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (n < 2 || s[1] < lo || s[1] > hi)
        return 0;
    for (*bad = 2; *bad < len; (*bad)++)
        if (*bad >= n || (s[*bad] & 0xc0) != 0x80)
            return 0;
    return len;
}

enum dm_status dm_text_clean(const char *text, size_t n, struct dm_bytes *buf, const uint8_t **out,
                             size_t *out_n, struct dm_err *e)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t copied = 0;
    buf->n = 0;
    for (size_t i = 0;;) {
        size_t bad;
        i += ascii_run(s + i, n - i);
        if (i == n)
            break;
        const size_t len = sequence(s + i, n - i, &bad);
        i += len;
        if (len)
            continue;
        DM_TRY(dm_bytes_add(buf, s + copied, i - copied, e));
        DM_TRY(dm_bytes_add(buf, "\xef\xbf\xbd", 3, e));
        copied = i += bad;
    }
    *out = s;
    *out_n = n;
    if (!copied)
        return DM_OK;
    DM_TRY(dm_bytes_add(buf, s + copied, n - copied, e));
    *out = buf->p;
    *out_n = buf->n;
    return DM_OK;
}

static uint8_t combining_class(utf8proc_int32_t cp)
{
    return (uint8_t)utf8proc_get_property(cp)->combining_class;
}

/* Stable sort of one run of marks by combining class; tmp holds n. Short runs, all of real text,
 * by insertion; long ones by counting, so that hostile text stays linear. */
static void sort_marks(utf8proc_int32_t *c, utf8proc_int32_t *tmp, size_t n)
{
    if (n <= 16) {
        for (size_t i = 1; i < n; i++)
            for (size_t j = i; j && combining_class(c[j - 1]) > combining_class(c[j]); j--) {
                const utf8proc_int32_t x = c[j];
                c[j] = c[j - 1];
                c[j - 1] = x;
            }
        return;
    }
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++)
        start[combining_class(c[i]) + 1]++;
    for (size_t k = 0; k < 256; k++)
        start[k + 1] += start[k];
    for (size_t i = 0; i < n; i++)
        tmp[start[combining_class(c[i])]++] = c[i];
    memcpy(c, tmp, n * sizeof(*c));
}

/* Appends the NFC of one stretch between boundaries to out. */
static enum dm_status add_nfc(const uint8_t *s, size_t n, struct dm_bytes *out, struct dm_err *e)
{
    utf8proc_int32_t small[64], *c = small, *heap = NULL;
    size_t m = 0;
    // At most three code points for two bytes (U+01D5), and as many again to sort in.
    if (n > 16) {
        c = heap = dm_alloc(n, 4 * sizeof(*c));
        if (!heap)
            return dm_fail(e, DM_ENOMEM, "out of memory to normalise %zu bytes", n);
    }
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t d[MAX_DECOMPOSED];
        uint32_t cp;
        i += dm_text_decode(s + i, &cp);
        const size_t k = decompose(cp, d);
        memcpy(c + m, d, k * sizeof(*d));
        m += k;
    }
    for (size_t i = 0, j; i < m; i = j) {
        for (j = i; j < m && combining_class(c[j]); j++)
            ;
        sort_marks(c + i, c + m, j - i);
        j += i == j;
    }
    m = (size_t)utf8proc_normalize_utf32(c, (utf8proc_ssize_t)m,
                                         UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    enum dm_status st = bytes_reserve(out, 4 * m, e);
    for (size_t i = 0; !st && i < m; i++)
        out->n += (size_t)utf8proc_encode_char(c[i], out->p + out->n);
    free(heap);
    return st;
}

/* End of the stretch that NFC has to look at: the next boundary at or after i. */
static size_t unsafe_end(const struct dm_text *t, const uint8_t *s, size_t i, size_t n)
{
    while (i < n) {
        uint32_t cp;
        const size_t len = dm_text_decode(s + i, &cp);
        if (!(t->prop[cp] & UNSAFE))
            break;
        i += len;
    }
    return i;
}

enum dm_status dm_text_nfc(const struct dm_text *t, const uint8_t *s, size_t n,
                           struct dm_bytes *buf, const uint8_t **out, size_t *out_n,
                           struct dm_err *e)
{
    size_t copied = 0, boundary = 0;
    buf->n = 0;
    for (size_t i = 0;;) {
        uint32_t cp;
        const size_t run = ascii_run(s + i, n - i);
        i += run;
        boundary = run ? i - 1 : boundary;
        if (i == n)
            break;
        const size_t len = dm_text_decode(s + i, &cp);
        if (!(t->prop[cp] & UNSAFE)) {
            // An inert mark takes no part in what follows: the stretch begins after it.
            boundary = combining_class((utf8proc_int32_t)cp) ? i + len : i;
            i += len;
            continue;
        }
        i = unsafe_end(t, s, i + len, n);
        DM_TRY(dm_bytes_add(buf, s + copied, boundary - copied, e));
        DM_TRY(add_nfc(s + boundary, i - boundary, buf, e));
        copied = boundary = i;
    }
    *out = s;
    *out_n = n;
    if (!copied)
        return DM_OK;
    DM_TRY(dm_bytes_add(buf, s + copied, n - copied, e));
    *out = buf->p;
    *out_n = buf->n;
    return DM_OK;
}

/* Length of the run of one class at s. */
static size_t class_run(const struct dm_text *t, const uint8_t *s, size_t n, uint8_t class)
{
    size_t i = 0;
    while (i < n) {
        uint32_t cp = s[i];
        const size_t len = cp < 0x80 ? 1 : dm_text_decode(s + i, &cp);
        if ((t->prop[cp] & CLASS) != class)
            break;
        i += len;
    }
    return i;
}

static size_t contraction(const uint8_t *s, size_t n)
{
    if (n >= 2 && (s[1] == 's' || s[1] == 't' || s[1] == 'm' || s[1] == 'd'))
        return 2;
    if (n >= 3 && ((s[1] == 'r' && s[2] == 'e') || (s[1] == 'v' && s[2] == 'e') ||
                   (s[1] == 'l' && s[2] == 'l')))
        return 3;
    return 0;
}

size_t dm_text_word(const struct dm_text *t, const uint8_t *s, size_t n)
{
    uint32_t cp;
    if (s[0] == '\'') {
        const size_t len = contraction(s, n);
        if (len)
            return len;
    }
    const size_t lead = s[0] == ' ' && n > 1;
    dm_text_decode(s + lead, &cp);
    uint8_t class = t->prop[cp] & CLASS;
    if (class != DM_TEXT_SPACE)
        return lead + class_run(t, s + lead, n - lead, class);
    // White space: all of it at the end of the text, otherwise all but its last character, which
    // is left for the next word; a single one stands alone.
    size_t end = 0, last = 0;
    while (end < n) {
        const size_t len = dm_text_decode(s + end, &cp);
        if ((t->prop[cp] & CLASS) != DM_TEXT_SPACE)
            break;
        last = end;
        end += len;
    }
    return end == n || !last ? end : last;
}

/* The alphabet: a byte that prints stands for itself; the other 68 (0..0x20, 0x7f..0xa0 and 0xad)
 * are numbered from U+0100. */
uint32_t dm_text_byte_symbol(uint8_t byte)
{
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte >= 0x7f && byte <= 0xa0)
        return 0x100u + 33u + (byte - 0x7fu);
    return byte == 0xad ? 0x143 : byte;
}

int dm_text_symbol_byte(uint32_t cp)
{
    if (cp < 0x100)
        return dm_text_byte_symbol((uint8_t)cp) == cp ? (int)cp : -1;
    if (cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp <= 0x142)
        return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
}

/* ---- Cutting ------------------------------------------------------------------------------- */

/* Whether the character that ends at s[n] is white space. Malformed bytes become U+FFFD: no. */
static bool space_before(const struct dm_text *t, const uint8_t *s, size_t n)
{
    size_t k = 1;
    uint32_t cp;
    while (k < 4 && k < n && (s[n - k] & 0xc0) == 0x80)
        k++;
    const uint8_t lead = s[n - k];
    const size_t len = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (len != k || (lead >= 0x80 && lead < 0xc0))
        return false;
    dm_text_decode(s + n - k, &cp);
    return cp < DM_TEXT_CODE_POINTS && dm_text_class(t, cp) == DM_TEXT_SPACE;
}

/* White space begins a word after anything that is not white space, the word before it ends
 * there whatever follows, and NFC never joins the two. */
size_t dm_text_cut(const struct dm_text *t, const uint8_t *s, size_t n)
{
    for (size_t p = n; p-- > 1;)
        if (dm_text_ascii_space(s[p]) && !dm_text_ascii_space(s[p - 1]) && !space_before(t, s, p))
            return p;
    return 0;
}
