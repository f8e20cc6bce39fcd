/* SPDX-License-Identifier: MIT */
/* tokenizer_text.h - what happens to text before byte pairs are merged: UTF-8 is checked, NFC is
 * applied and the text is cut into GPT-2 words. The tokenizer and its trainer share it. */
#ifndef DM_IO_TOKENIZER_TEXT_H
#define DM_IO_TOKENIZER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

/* Growing bytes, owned by the caller; zero it first, release with dm_bytes_release(). */
struct dm_bytes {
    uint8_t *p;
    size_t n, cap;
};
void dm_bytes_release(struct dm_bytes *b);
/* Appends n bytes of p, which must not lie inside b. */
enum dm_status dm_bytes_add(struct dm_bytes *b, const void *p, size_t n, struct dm_err *e);

/* The classes that the GPT-2 pattern knows: \p{L}, \p{N}, \s and the rest. */
enum dm_text_class { DM_TEXT_OTHER, DM_TEXT_LETTER, DM_TEXT_NUMBER, DM_TEXT_SPACE };

enum { DM_TEXT_CODE_POINTS = 0x110000, DM_TEXT_CLASS_BITS = 3 };

/* One byte for each code point: the class, and whether NFC has to look at it. Read-only after
 * dm_text_init(), so threads share it. */
struct dm_text {
    uint8_t *prop;
};
enum dm_status dm_text_init(struct dm_text *t, struct dm_err *e);
void dm_text_release(struct dm_text *t);

static inline bool dm_text_ascii_space(uint8_t c)
{
    return c == ' ' || (c >= 9 && c <= 13);
}

static inline enum dm_text_class dm_text_class(const struct dm_text *t, uint32_t cp)
{
    return (enum dm_text_class)(t->prop[cp] & DM_TEXT_CLASS_BITS);
}

/* Valid UTF-8 passes: *out is `text` itself. Otherwise every maximal part of an ill-formed sequence
 * becomes U+FFFD (as Rust's from_utf8_lossy and the Unicode standard's recommendation do), *out
 * lies in buf, which is overwritten. */
enum dm_status dm_text_clean(const char *text, size_t n, struct dm_bytes *buf, const uint8_t **out,
                             size_t *out_n, struct dm_err *e);

/* NFC of valid UTF-8: *out is `s` itself when nothing changes by a quick check, else it lies in
 * buf, which is overwritten. Linear in n whatever the text is. */
enum dm_status dm_text_nfc(const struct dm_text *t, const uint8_t *s, size_t n,
                           struct dm_bytes *buf, const uint8_t **out, size_t *out_n,
                           struct dm_err *e);

/* Bytes of the first word of n > 0 bytes of valid UTF-8, by the GPT-2 pattern
 * 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
size_t dm_text_word(const struct dm_text *t, const uint8_t *s, size_t n);

/* The largest p < n with 0 < p where any text may be cut without changing its words, 0 when there
 * is none: before ASCII white space that follows something else. s need not be valid UTF-8. */
size_t dm_text_cut(const struct dm_text *t, const uint8_t *s, size_t n);

/* GPT-2's printable stand-in for a byte: a code point below 0x144. The inverse gives -1 for code
 * points that stand for no byte. */
uint32_t dm_text_byte_symbol(uint8_t byte);
int dm_text_symbol_byte(uint32_t cp);

/* Code point at s (valid UTF-8) and its length in bytes. */
size_t dm_text_decode(const uint8_t *s, uint32_t *cp);

#endif
