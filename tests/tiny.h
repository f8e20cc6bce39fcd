/* SPDX-License-Identifier: MIT */
/* tiny.h - a small model with odd sizes and K = 3 for tests, filled by the golden formula. */
#ifndef DM_TESTS_TINY_H
#define DM_TESTS_TINY_H

#include "src/model/model.h"

enum { TINY_T = 13, TINY_VP = 53 };

struct dm_config tiny_config(void);

/* Two sequences of TINY_T ids. */
extern const int32_t tiny_ids[2 * TINY_T];

/* A model of any config; release with dm_model_release(). */
void tiny_model(struct dm_model *m, const struct dm_config *c);

/* (B*T,Vp): logits of head n by a whole pass, new memory. */
float *tiny_logits(const struct dm_model *m, const int32_t *ids, size_t B, size_t T, size_t n);

/* n floats or a failed test. */
float *tiny_floats(size_t n);

/* Log-sum-exp in double. */
double tiny_lse(const float *x, size_t n);

#endif
