/* SPDX-License-Identifier: MIT */
/* prompts.h - prompts of an evaluation, each of its own length and maybe of a kind. */
#ifndef DM_EVAL_PROMPTS_H
#define DM_EVAL_PROMPTS_H

#include <jansson.h>

#include "src/io/tokenizer.h"

enum { DM_PROMPT_KINDS = 32 };

/* A zeroed one is empty. Prompt i is ids.id[start[i]] to before ids.id[start[i + 1]]. */
struct dm_prompts {
    struct dm_ids ids;
    size_t *start;   /* (n + 1) */
    int8_t *kind_of; /* (n) index in kind, -1 = none */
    size_t n, cap;
    size_t n_kinds; /* in the order of their first prompts */
    struct {
        char name[64];
        size_t n;
    } kind[DM_PROMPT_KINDS];
};

/* Appends a prompt of n_ids ids; kind may be NULL. DM_ERANGE for n_ids = 0 or too many kinds,
 * DM_ENOMEM. */
enum dm_status dm_prompts_add(struct dm_prompts *p, const int32_t *ids, size_t n_ids,
                              const char *kind, struct dm_err *e);

/* Appends those of a file: objects {text, kind} where its name has .json or .jsonl in it (kind may
 * be absent), else one on each line that is not blank. gzip and zstd too. DM_EFORMAT, DM_ERANGE (no
 * prompt), DM_EIO, DM_ENOMEM; release in any case. */
enum dm_status dm_prompts_load(struct dm_prompts *p, const char *path,
                               const struct dm_tokenizer *tokenizer, struct dm_err *e);
void dm_prompts_release(struct dm_prompts *p);

/* Keeps n of them, spread evenly; all if there are no more. */
void dm_prompts_thin(struct dm_prompts *p, size_t n);

/* {source, n, kinds: {name: count}}; new reference, NULL when out of memory. */
json_t *dm_prompts_to_json(const struct dm_prompts *p, const char *source);

#endif
