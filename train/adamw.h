/* SPDX-License-Identifier: MIT */
/* adamw.h - AdamW with decoupled weight decay, in float32, as torch.optim.AdamW computes it.
 *
 * The optimiser knows tensors, not models: it is given two lists of the same tensors, parameters
 * and gradients (dm_params_list), and keeps both moments in one block of its own. */
#ifndef DM_TRAIN_ADAMW_H
#define DM_TRAIN_ADAMW_H

#include <stdint.h>

#include "src/model/params.h"

struct dm_adamw_opt {
    double beta1, beta2, eps;
    double decay; /* tensors with .decay only */
};

struct dm_adamw_slot {
    float *p, *g, *m, *v; /* parameters, gradients (borrowed), first and second moment (n) */
    size_t n;
    bool decay;
    double rate; /* times the step's learning rate: 1, unless the caller changes it */
    enum dm_part part;
    char name[sizeof(((struct dm_tensor *)0)->name)];
    size_t rows, cols;
};

struct dm_adamw {
    struct dm_adamw_opt opt;
    struct dm_adamw_slot *slot; /* (n_slots) */
    size_t n_slots, n_total;    /* n_total: elements of all slots */
    uint64_t t;                 /* steps done: the bias correction's exponent */
    struct dm_arena mem;
};

/* Moments 0 for the n tensors of params and grads, which are borrowed and must be the same tensors
 * in the same order (asserted); those without data are left out. Release with dm_adamw_release().
 * DM_ENOMEM. */
enum dm_status dm_adamw_init(struct dm_adamw *a, const struct dm_adamw_opt *opt,
                             const struct dm_tensor *params, const struct dm_tensor *grads,
                             size_t n, struct dm_err *e);
void dm_adamw_release(struct dm_adamw *a);

/* Gradients to 0, when a step is given up / their global 2-norm, the squares summed in fixed blocks
 * in tensor order. */
void dm_adamw_zero_grads(struct dm_adamw *a);
double dm_adamw_grad_norm(const struct dm_adamw *a);

/* Factor that brings a gradient of this norm to at most max_norm, as clip_grad_norm_ has it:
 * min(1, max_norm / (norm + 1e-6)); max_norm 0 never clips. */
double dm_adamw_clip(double norm, double max_norm);

/* One update at rate lr (times the slot's own) with the gradients times grad_scale; gradients
 * become 0, ready for the next step to add to. p *= 1 - lr * decay m = beta1 m + (1 - beta1) g,  v
 * = beta2 v + (1 - beta2) g^2 p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 * Elementwise, so the bits do not depend on the thread count. */
void dm_adamw_step(struct dm_adamw *a, double lr, double grad_scale);

#endif
