/* SPDX-License-Identifier: MIT */
/* instruct.h - instructions with their responses to a token shard whose targets are the responses.
 *
 * Files are a JSON array of objects, as Alpaca's, or JSONL, told by their first character; gzip and
 * zstd as everywhere. An object with an array "instances" stands for one example for each of its
 * objects, which have what they lack from the outer one, as in Self-Instruct's seed tasks. */
#ifndef DM_DATA_INSTRUCT_H
#define DM_DATA_INSTRUCT_H

#include <stddef.h>
#include <stdint.h>

#include "src/io/template.h"
#include "src/io/tokenizer.h"

struct dm_instruct {
    const struct dm_tokenizer *tokenizer;
    const struct dm_template *template;
    const char *const *paths; /* (n_paths); "-" = standard input */
    size_t n_paths;
    /* Names of instruction, input and output with commas between; the input's may be empty: no
     * inputs. NULL: instruction,input,output. */
    const char *fields;
};

struct dm_instruct_stats {
    uint64_t examples, skipped;              /* skipped: with an empty response */
    uint64_t prompt_tokens, response_tokens; /* without separators */
};

/* The shard at `out`: each example is a document of the prompt, whose tokens are no targets, and
 * the response with the separator after it, which are. The two texts are tokenized apart, so that a
 * prompt has the same ids when it is decoded from. argv goes into the provenance. DM_EFORMAT names
 * the line or the example. */
enum dm_status dm_instruct_shard(const struct dm_instruct *k, const char *out, int argc,
                                 char *const *argv, struct dm_instruct_stats *stats,
                                 struct dm_err *e);

#endif
