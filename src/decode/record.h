/* SPDX-License-Identifier: MIT */
/* record.h - what became of each step, as JSON for people and for reports. */
#ifndef DM_DECODE_RECORD_H
#define DM_DECODE_RECORD_H

#include <jansson.h>

#include "src/base/utf8.h"
#include "src/decode/stages.h"
#include "src/io/tokenizer.h"

/* A text that is recorded; tokenizer is borrowed. */
struct dm_record {
    const struct dm_tokenizer *tokenizer;
    int32_t eos; /* has no text */
    bool traced; /* options' trace: orders that did not pass were looked at in full */
    struct dm_utf8 utf8;
};

/* {step, pos, n, kept, q, tokens: [ids], text: [one string per token kept], orders: [{n, max_j,
 * counts, threshold, cells, passed}]}. The texts, one behind the other, are the text: a character
 * that ends in a later token is that token's. Without `traced`, max_j and counts of an order that
 * was given up early are null. New reference, NULL when out of memory. */
json_t *dm_record_block(struct dm_record *r, const struct dm_block *b, size_t step);

/* {max_j, counts, level, passed, threshold, rows: [{id, text, p}], columns: the same, stages:
 * [{name, cells, mass, J: [[..]]}]}; new reference, NULL when out of memory. */
json_t *dm_record_stages(const struct dm_stages *s, const struct dm_tokenizer *tokenizer);

/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. */
json_t *dm_record_text(const char *s, size_t n);

/* [ids]. */
json_t *dm_record_ids(const int32_t *id, size_t n);

#endif
