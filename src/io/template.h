/* SPDX-License-Identifier: MIT */
/* template.h - how an instruction becomes the text that a model answers.
 *
 * Two texts with the places {instruction} and {input}, one for instructions that come with an
 * input and one for those without. As JSON they have the names of Alpaca-LoRA's template files:
 *   {"prompt_input": "..{instruction}..{input}..", "prompt_no_input": "..{instruction}.."}
 * Without prompt_input an instruction with an input is refused. Other braces are text. */
#ifndef DM_IO_TEMPLATE_H
#define DM_IO_TEMPLATE_H

#include <stddef.h>

#include "src/base/status.h"

struct dm_template {
    char *json;                  /* canonical text of the two: equal templates have equal bytes */
    char *with_input, *no_input; /* with_input NULL = none */
};

/* From JSON text, or NULL text for Stanford Alpaca's; members beside the two are ignored.
 * DM_EFORMAT names what is wrong, `where` names the file. Release with dm_template_release(). */
enum dm_status dm_template_parse(struct dm_template *t, const char *json, const char *where,
                                 struct dm_err *e);
void dm_template_release(struct dm_template *t);

/* The prompt for an instruction as n bytes of heap text; input NULL or "" is none. DM_EMISMATCH for
 * an input that the template has no place for. */
enum dm_status dm_template_prompt(const struct dm_template *t, const char *instruction,
                                  const char *input, char **text, size_t *n, struct dm_err *e);

#endif
