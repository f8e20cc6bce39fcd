/* SPDX-License-Identifier: MIT */
/* params.h - the parameters of the model, as one block; also gradients and AdamW moments. */
#ifndef DM_MODEL_PARAMS_H
#define DM_MODEL_PARAMS_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/arena.h"
#include "src/model/config.h"

/* field, Hugging Face name below the layer, rows, columns (0 = vector), weight decay, bias that
 * attention_bias = false leaves out. Linear weights are (out, in). */
#define DM_LAYER_PARAMS(X)                                                    \
    X(ln1_w, "input_layernorm.weight", c->C, 0, false, false)                 \
    X(ln1_b, "input_layernorm.bias", c->C, 0, false, false)                   \
    X(ln2_w, "post_attention_layernorm.weight", c->C, 0, false, false)        \
    X(ln2_b, "post_attention_layernorm.bias", c->C, 0, false, false)          \
    X(qkv_w, "attention.query_key_value.weight", 3 * c->C, c->C, true, false) \
    X(qkv_b, "attention.query_key_value.bias", 3 * c->C, 0, false, true)      \
    X(proj_w, "attention.dense.weight", c->C, c->C, true, false)              \
    X(proj_b, "attention.dense.bias", c->C, 0, false, true)                   \
    X(up_w, "mlp.dense_h_to_4h.weight", c->F, c->C, true, false)              \
    X(up_b, "mlp.dense_h_to_4h.bias", c->F, 0, false, false)                  \
    X(down_w, "mlp.dense_4h_to_h.weight", c->C, c->F, true, false)            \
    X(down_b, "mlp.dense_4h_to_h.bias", c->C, 0, false, false)

struct dm_layer {
#define X(field, name, rows, cols, decay, bias) float *field;
    DM_LAYER_PARAMS(X)
#undef X
};

struct dm_params {
    float *embed;            /* (Vp,C) */
    struct dm_layer *layers; /* (L) */
    float *lnf_w, *lnf_b;    /* (C) */
    float *unembed;          /* (Vp,C) */
    struct dm_layer *heads;  /* ((K-1)*D): head n's layer d is heads[(n-2)*D + d] */
};

/* Which part of the model a tensor belongs to. */
enum dm_part { DM_PART_EMBED, DM_PART_LAYER, DM_PART_FINAL, DM_PART_UNEMBED, DM_PART_HEAD };

struct dm_tensor {
    char name[96]; /* Hugging Face's; heads: "dynamo.heads.{n}.{d}." + the layer's name, n >= 2 */
    float *data;
    size_t rows, cols; /* cols = 0: vector */
    size_t n;          /* elements */
    enum dm_part part;
    size_t index; /* layer, or head number n */
    bool decay;   /* weight decay applies (matrices, not embeddings' LayerNorms or biases) */
};

/* Which tensors a struct dm_params holds: gradients of a frozen base exist only for the heads. */
enum dm_scope { DM_SCOPE_ALL, DM_SCOPE_BASE, DM_SCOPE_HEADS };

/* Carves the tensors of `scope` from `a` (see arena.h for the two passes); the others stay NULL.
 * The structs layers and heads themselves are carved too and always there. */
void dm_params_bind(struct dm_params *p, const struct dm_config *c, enum dm_scope scope,
                    struct dm_arena *a);

/* The same by part: a model whose matrices are packs holds the vectors only (LayerNorms, biases).
 */
enum dm_held { DM_HELD_NONE, DM_HELD_VECTORS, DM_HELD_ALL };
void dm_params_bind_held(struct dm_params *p, const struct dm_config *c, enum dm_held base,
                         enum dm_held heads, struct dm_arena *a);

/* The tensors of `scope` in file order into `out` (NULL counts only); returns how many. A tensor
 * that p does not hold has data NULL; p may be NULL: shapes only. */
size_t dm_params_list(const struct dm_params *p, const struct dm_config *c, enum dm_scope scope,
                      struct dm_tensor *out);

/* Number of parameters of a scope. */
size_t dm_params_count(const struct dm_config *c, enum dm_scope scope);

/* Allocates zeroed parameters of a scope: *p is bound to *mem; release with dm_arena_release(). */
enum dm_status dm_params_new(struct dm_params *p, struct dm_arena *mem, const struct dm_config *c,
                             enum dm_scope scope, struct dm_err *e);

/* Random start: N(0, 0.02), residual projections (proj, down) scaled by 1/sqrt(2L), biases 0,
 * LayerNorms 1 and 0. Each tensor has its own stream of `seed` by its name. */
void dm_params_init_random(struct dm_params *p, const struct dm_config *c, enum dm_scope scope,
                           unsigned long long seed);

/* Heads as copies of decoder layer L-1 (the last D layers for D > 1). */
void dm_params_init_copy(struct dm_params *p, const struct dm_config *c);

#endif
