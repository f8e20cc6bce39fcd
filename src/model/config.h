/* SPDX-License-Identifier: MIT */
/* config.h - shape of a GPT-NeoX model with DynaMo heads. Shape letters: MODEL.md. */
#ifndef DM_MODEL_CONFIG_H
#define DM_MODEL_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "src/base/dtype.h"
#include "src/base/status.h"

struct dm_config {
    size_t Vp;           /* rows of the embeddings, padding included */
    size_t V;            /* tokens that may be sampled: the tokenizer's size, <= Vp */
    size_t C, L, NH, HS; /* hidden, layers, attention heads, C / NH */
    size_t F;            /* MLP width */
    size_t T_max;        /* context length */
    size_t rot;          /* rotary dims per head, even */
    double rope_base;
    float eps;           /* LayerNorm */
    bool parallel;       /* x + attn(LN1 x) + mlp(LN2 x); otherwise one after the other */
    bool attn_bias;      /* biases of query_key_value and attention.dense */
    size_t K, D;         /* token heads (1 = base alone), decoder layers per extra head */
    bool from_final;     /* extra heads read the output of layer L-1 instead of L-2 */
    int eos;             /* token id, -1 = none */
    enum dm_dtype dtype; /* of the base's tensors on disk */
};

/* Decoder layers that heads 2..K have on top of the base: (K - 1) * D. */
size_t dm_config_head_layers(const struct dm_config *c);

/* From a Hugging Face config.json object, with the aliases of PYTHIA.md; what is not implemented is
 * refused by name. Our own keys, if there, are under "dynamo": {heads, head_depth, head_input,
 * n_vocab}. */
enum dm_status dm_config_from_json(struct dm_config *c, const json_t *root, const char *where,
                                   struct dm_err *e);
/* The same keys back; new reference, NULL when out of memory. */
json_t *dm_config_to_json(const struct dm_config *c);

/* A published size: 14m 31m 70m 160m 410m 1b 1.4b 2.8b 6.9b 12b, K = 1. DM_ERANGE lists them. */
enum dm_status dm_config_named(struct dm_config *c, const char *name, struct dm_err *e);

/* Bounds and divisibility; every loader calls it. */
enum dm_status dm_config_check(const struct dm_config *c, const char *where, struct dm_err *e);

#endif
