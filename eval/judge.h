/* SPDX-License-Identifier: MIT */
/* judge.h - how good a generated text is in the eyes of a base model, and how repetitive. */
#ifndef DM_EVAL_JUDGE_H
#define DM_EVAL_JUDGE_H

#include "src/model/model.h"

struct dm_verdict {
    /* Mean over the generated tokens of log p(x | all before), head 1, temperature 1, in nats: the
     * judge's log-likelihood. Repetitive text scores high, so look at repeats and fidelity too. */
    double logp;
    /* The same under the base's sampler: temperature and repetition penalty applied, no top_k cut,
     * ids < V. With log q of the sampler that made the text, (log q - log p) per token estimates
     * KL(that sampler || the base's), which cannot be flattered. NaN at temperature 0. */
    double sampler_logp;
    /* Share of the text's trigrams that occurred earlier in it; 0 below 3 tokens. */
    double repeats;
};

struct dm_judge; /* the judging model's pass and logits */

/* For texts of at most T tokens, prompts included. m is borrowed. DM_ERANGE (T > T_max), DM_ENOMEM.
 */
enum dm_status dm_judge_new(struct dm_judge **out, const struct dm_model *m, size_t T,
                            struct dm_err *e);
void dm_judge_free(struct dm_judge *j);

/* ids (n): a prompt of n_prompt >= 1 tokens and the text after it, at least one token, ids < Vp.
 * penalty >= 1 as in decode/penalty.h. DM_ERANGE for other ids or lengths. */
enum dm_status dm_judge_text(struct dm_judge *j, const int32_t *ids, size_t n_prompt, size_t n,
                             double temperature, double penalty, struct dm_verdict *out,
                             struct dm_err *e);

double dm_judge_repeats(const int32_t *ids, size_t n);

#endif
