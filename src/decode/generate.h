/* SPDX-License-Identifier: MIT */
/* generate.h - the generation loop: a prompt in, blocks of tokens out. */
#ifndef DM_DECODE_GENERATE_H
#define DM_DECODE_GENERATE_H

#include "src/decode/stages.h"
#include "src/io/tokenizer.h"
#include "src/model/model.h"

enum dm_gen_end {
    DM_GEN_LENGTH,  /* max_tokens are there */
    DM_GEN_EOS,     /* the end-of-text token, which is the last one */
    DM_GEN_CONTEXT, /* prompt and text fill the model's context (T_max) */
    DM_GEN_STOPPED  /* the callback said so */
};
extern const char *const dm_gen_end_names[]; /* "length", "eos", "context", "stopped" */

struct dm_gen_stats {
    size_t n_prompt, tokens;
    size_t forwards;                 /* the prompt's included: it gives the first token */
    size_t drafted, accepted;        /* mode lossless: drafts verified, and agreed with */
    size_t blocks[DM_ORDER_MAX + 1]; /* by the number of tokens sampled; [0] is not used */
    size_t first;                    /* tokens of the first block */
    double prefill_seconds;          /* the prompt's forward */
    double seconds;                  /* everything after it, callbacks included */
    enum dm_gen_end end;
};

/* Tokens per forward pass, and tokens/s after the first block (0 if there is none). */
double dm_gen_per_forward(const struct dm_gen_stats *s);
double dm_gen_rate(const struct dm_gen_stats *s);

/* {prompt_tokens, tokens, forwards, drafted, accepted, tokens_per_forward, blocks: {"1": ..},
 * prefill_seconds, seconds, tokens_per_second, end}; new reference, NULL when out of memory. */
json_t *dm_gen_stats_to_json(const struct dm_gen_stats *s);

/* The same for a person, two or three lines. */
void dm_gen_stats_text(const struct dm_gen_stats *s, char *text, size_t n);

/* Called with every block as soon as it is there; false ends the text after it. */
typedef bool dm_gen_fn(void *ctx, const struct dm_block *b);

/* A session and all memory of decoding, made once and used for many texts. */
struct dm_gen;

/* Decodes with min(n_heads, model's K, DM_ORDER_MAX) heads; 1 is the base alone and costs no more
 * than it. m and cooc (NULL = no mask) are borrowed for the life of *out. DM_ENOMEM. */
enum dm_status dm_gen_new(struct dm_gen **out, const struct dm_model *m, const struct dm_cooc *cooc,
                          size_t n_heads, struct dm_err *e);
void dm_gen_free(struct dm_gen *g);

/* For fn: the joint of the step that it is called with, stage by stage (stages.h); o as given to
 * dm_gen_run(). */
enum dm_status dm_gen_stages(struct dm_gen *g, const struct dm_gen_opt *o, struct dm_stages *out,
                             struct dm_err *e);

/* Continues the prompt (1 to T_max - 1 ids < Vp) from an empty context. The tokens are appended to
 * `out`; fn and stats may be NULL. At most max_tokens are made, and never more than the context
 * holds. The text depends on the model, cooc, options and prompt alone. DM_ERANGE (options,
 * prompt), DM_ENAN, DM_ENOMEM. */
enum dm_status dm_gen_run(struct dm_gen *g, const struct dm_gen_opt *o, const int32_t *prompt,
                          size_t n_prompt, struct dm_ids *out, dm_gen_fn *fn, void *ctx,
                          struct dm_gen_stats *stats, struct dm_err *e);

#endif
