/* SPDX-License-Identifier: MIT */
/* judge.h - how good a generated text is in the eyes of a base model. */
#ifndef DM_EVAL_JUDGE_H
#define DM_EVAL_JUDGE_H

#include "src/decode/options.h"
#include "src/model/model.h"

/* Means over the generated tokens x, each given all tokens before it, head 1. */
struct dm_verdict {
    /* log p(x) at temperature 1, in nats: the judge's log-likelihood. Repetitive text scores high,
     * so look at diversity.h and the divergence too. */
    double logp;
    /* log p(x) under the base's sampler: temperature and repetition penalty applied, no top_k cut,
     * ids < V. With log q of the sampler that made the text, (log q - log p) per token estimates
     * KL(that sampler || the base's), which cannot be flattered. NaN at temperature 0. */
    double sampler_logp;
    double outside; /* share of tokens that are not among the base's top_k */
    double first;   /* share of tokens that the base's greedy decoding would have written there */
};

/* That sampler's log p of one id, from head 1's logits x, of which the first n = V are softmaxed;
 * id itself may be beyond them. seen (n_seen): the distinct ids before it. o->temperature > 0. */
double dm_judge_sampler_logp(const float *x, size_t n, int32_t id, const int32_t *seen,
                             size_t n_seen, const struct dm_gen_opt *o);

struct dm_judge; /* the judging model's pass and logits */

/* For texts of at most T tokens, prompts included. m is borrowed. DM_ERANGE (T > T_max), DM_ENOMEM.
 */
enum dm_status dm_judge_new(struct dm_judge **out, const struct dm_model *m, size_t T,
                            struct dm_err *e);
void dm_judge_free(struct dm_judge *j);

/* ids (n): a prompt of n_prompt >= 1 tokens and the text after it, at least one token, ids < Vp.
 * Temperature, penalty and top_k of the base's sampler are those of o. The bits do not depend on
 * the thread count. DM_ERANGE for other ids or lengths, DM_ENAN. */
enum dm_status dm_judge_text(struct dm_judge *j, const int32_t *ids, size_t n_prompt, size_t n,
                             const struct dm_gen_opt *o, struct dm_verdict *out, struct dm_err *e);

#endif
