/* SPDX-License-Identifier: MIT */
/* step.h - one optimiser step: gradients over micro-batches, clipping, AdamW.
 *
 * A batch of B sequences runs as micro-batches of `micro` (the last one may be smaller). A head's
 * loss is the mean over the batch's positions with a target (model.h), as if it ran at once. That
 * is PyTorch's usual accumulation (the mean of the micro-batches' means) whenever every token is a
 * target and micro divides B. Gradients are added in the order of accum.h, losses in that of the
 * micro-batches.
 *
 * Several processes (ranks.h) take equal shares of the micro-batches, the first ones rank 0, and
 * add up what they have as the top of the same tree: all go on with the bits of one process alone.
 */
#ifndef DM_TRAIN_STEP_H
#define DM_TRAIN_STEP_H

#include "src/base/ranks.h"
#include "src/model/model.h"
#include "train/accum.h"
#include "train/adamw.h"

/* What weight decay applies to. */
enum dm_decay_mask {
    DM_DECAY_MATRICES, /* of the layers and the embeddings, as in GPT-NeoX */
    DM_DECAY_LAYERS,   /* of the layers */
    DM_DECAY_ALL       /* biases and LayerNorms, too */
};

struct dm_step_opt {
    enum dm_pass_kind kind; /* DM_PASS_BASE, DM_PASS_HEADS or DM_PASS_JOINT */
    size_t micro, T;        /* sequences per micro-batch, tokens per sequence */
    size_t batch;           /* most sequences of a step; 0 = one micro-batch */
    bool recompute;         /* dm_pass_new_recompute() */
    enum dm_decay_mask decay_mask;
    double clip; /* largest gradient norm; 0 = no clipping */
    struct dm_adamw_opt adam;
    const float *head_weight; /* (K) or NULL; borrowed */
    /* JOINT only: the base's learning rate over that of heads >= 2, which is the step's; and
     * struct dm_loss_opt's factor. */
    double base_rate, stem_scale;
    struct dm_ranks *ranks; /* borrowed; NULL = alone */
};

struct dm_step {
    struct dm_step_opt opt;
    struct dm_model *model; /* borrowed */
    struct dm_pass *pass;
    struct dm_params grads;
    struct dm_arena grads_mem;
    struct dm_accum accum;
    struct dm_tensor *params_list; /* (n_tensors) of the trained scope */
    size_t n_tensors;
    struct dm_adamw adam;
    double *loss;      /* (K) of the last step, NaN for heads that are not trained */
    double *part;      /* (micro-batches,K) */
    size_t *n_targets; /* (K) of the last step */
    double norm;       /* of the last step's gradient, before clipping */
};

/* The parameters that a pass of this kind trains. */
enum dm_scope dm_step_scope(enum dm_pass_kind kind);
/* The first head with a loss: 1 or 2. */
size_t dm_step_first_head(enum dm_pass_kind kind);

/* Allocates everything that the steps need; nothing is allocated later. Release with
 * dm_step_release(). DM_ENOMEM; DM_ERANGE unless the number of processes is a power of 2 that
 * divides that of the micro-batches. */
enum dm_status dm_step_init(struct dm_step *s, struct dm_model *m, const struct dm_step_opt *opt,
                            struct dm_err *e);
void dm_step_release(struct dm_step *s);

/* ids (B,T), B <= batch, with several processes B = batch: the gradients of the batch into
 * s->grads, s->loss and s->norm. DM_ENAN, with the head and the tensor named, for a loss or norm
 * that is not finite. The gradients stay until dm_step_update() or dm_step_drop(), one of which
 * comes before the next call. */
enum dm_status dm_step_gradients(struct dm_step *s, const int32_t *ids, size_t B, struct dm_err *e);
/* Clipping and AdamW at rate lr / nothing: the parameters stay. */
void dm_step_update(struct dm_step *s, double lr);
void dm_step_drop(struct dm_step *s);

/* All of it: on failure the parameters are as before. */
enum dm_status dm_step_run(struct dm_step *s, const int32_t *ids, size_t B, double lr,
                           struct dm_err *e);

#endif
