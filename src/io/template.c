/* SPDX-License-Identifier: MIT */
#include "src/io/template.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"

/* The texts of Stanford Alpaca's train.py (Taori et al. 2023). */
#define ALPACA_HEAD "Below is an instruction that describes a task"
#define ALPACA_TASK "Write a response that appropriately completes the request.\n\n"
static const char *const alpaca_input = ALPACA_HEAD
    ", paired with an input that provides further context. " ALPACA_TASK
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:";
static const char *const alpaca_no_input = ALPACA_HEAD
    ". " ALPACA_TASK "### Instruction:\n{instruction}\n\n### Response:";

enum { INSTRUCTION, INPUT, N_PLACES };
static const char *const places[] = {"{instruction}", "{input}"};

void dm_template_release(struct dm_template *t)
{
    free(t->json);
    free(t->with_input);
    free(t->no_input);
    *t = (struct dm_template){0};
}

/* The text of one member, which has the first n_places places and none of the others. */
static enum dm_status member(const json_t *root, const char *key, int n_places, bool required,
                             const char *where, char **out, struct dm_err *e)
{
    const char *text = NULL;
    *out = NULL;
    DM_TRY(dm_json_string(root, key, required, where, &text, e));
    if (!text)
        return DM_OK;
    for (int i = 0; i < N_PLACES; i++)
        if (!strstr(text, places[i]) == (i < n_places))
            return dm_fail(e, DM_EFORMAT, "%s: \"%s\" %s %s", where, key,
                           i < n_places ? "lacks" : "may not have", places[i]);
    *out = strdup(text);
    return *out ? DM_OK : dm_fail(e, DM_ENOMEM, "%s: out of memory", where);
}

static enum dm_status fill(struct dm_template *t, const json_t *root, const char *where,
                           struct dm_err *e)
{
    if (!json_is_object(root))
        return dm_fail(e, DM_EFORMAT, "%s: the prompt template is %s, want an object", where,
                       dm_json_type(root));
    DM_TRY(member(root, "prompt_no_input", 1, true, where, &t->no_input, e));
    DM_TRY(member(root, "prompt_input", 2, false, where, &t->with_input, e));
    // Not "s*", which leaves a member out when there is no memory for it.
    json_t *both = t->with_input ? json_pack("{s:s, s:s}", "prompt_no_input", t->no_input,
                                             "prompt_input", t->with_input)
                                 : json_pack("{s:s}", "prompt_no_input", t->no_input);
    t->json = both ? dm_json_text(both, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(both);
    return t->json ? DM_OK : dm_fail(e, DM_ENOMEM, "%s: out of memory", where);
}

enum dm_status dm_template_parse(struct dm_template *t, const char *json, const char *where,
                                 struct dm_err *e)
{
    json_t *root = NULL;
    *t = (struct dm_template){0};
    if (json)
        DM_TRY(dm_json_parse(json, strlen(json), where, &root, e));
    else if (!(root = json_pack("{s:s, s:s}", "prompt_input", alpaca_input, "prompt_no_input",
                                alpaca_no_input)))
        return dm_fail(e, DM_ENOMEM, "out of memory for the prompt template");
    const enum dm_status st = fill(t, root, where, e);
    json_decref(root);
    if (st)
        dm_template_release(t);
    return st;
}

enum dm_status dm_template_prompt(const struct dm_template *t, const char *instruction,
                                  const char *input, char **text, size_t *n, struct dm_err *e)
{
    const bool with = input && *input;
    const char *const value[] = {instruction, with ? input : ""};
    const char *at = with ? t->with_input : t->no_input;
    *text = NULL;
    if (!at)
        return dm_fail(e, DM_EMISMATCH,
                       "the prompt template has no place for an input (no \"prompt_input\")");
    FILE *f = open_memstream(text, n);
    if (!f)
        return dm_fail(e, DM_ENOMEM, "out of memory for a prompt");
    while (*at) {
        int i = 0;
        while (i < N_PLACES && strncmp(at, places[i], strlen(places[i])))
            i++;
        if (i < N_PLACES)
            fputs(value[i], f);
        else
            fputc(*at, f);
        at += i < N_PLACES ? strlen(places[i]) : 1;
    }
    if (!fclose(f))
        return DM_OK;
    free(*text);
    *text = NULL;
    return dm_fail(e, DM_ENOMEM, "out of memory for a prompt");
}
