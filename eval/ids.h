/* SPDX-License-Identifier: MIT */
/* ids.h - token ids written as text: whole numbers with blanks between them. */
#ifndef DM_EVAL_IDS_H
#define DM_EVAL_IDS_H

#include "src/io/tokenizer.h"

/* Appends the ids of n bytes of text, each < V. `where` names the source. DM_EFORMAT for anything
 * but a number, DM_ERANGE for one that is too large, DM_ENOMEM. */
enum dm_status dm_ids_parse(struct dm_ids *out, const char *text, size_t n, size_t V,
                            const char *where, struct dm_err *e);

#endif
