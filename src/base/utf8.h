/* SPDX-License-Identifier: MIT */
/* utf8.h - text that arrives token by token: a token may end inside a UTF-8 sequence. */
#ifndef DM_BASE_UTF8_H
#define DM_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Length of s (n bytes) without a trailing sequence that more bytes could still complete: what may
 * be shown now. Bytes that can never become valid are not held back. */
size_t dm_utf8_complete(const char *s, size_t n);

/* Copies s with every invalid byte replaced by U+FFFD, as JSON wants it: a heap string of *len
 * bytes plus a NUL, release with free(); NULL when out of memory. */
char *dm_utf8_clean(const char *s, size_t n, size_t *len);

/* Writes text for between tags and in quoted attributes of XML and HTML: & < > " ' are escaped;
 * control characters other than tab and newline, and invalid bytes, become U+FFFD. False: out of
 * memory; f keeps its own errors. */
bool dm_utf8_escape(FILE *f, const char *text);

/* Text byte by byte; zero before the first. */
struct dm_utf8 {
    char held[4]; /* the start of a sequence that the next byte may complete */
    size_t n;
};

/* Takes the next byte and writes what may be shown now to out (4); returns how many bytes that is.
 * What is held in the end never became valid. */
size_t dm_utf8_push(struct dm_utf8 *u, char c, char *out);

#endif
