/* SPDX-License-Identifier: MIT */
/* nn.h - naive double-precision layers and the checks that compare ours with them. Every array is
 * dense, in the order of its shape. */
#ifndef DM_TESTS_REF_NN_H
#define DM_TESTS_REF_NN_H

#include "tests/util.h"

#include "src/kernel/kern.h"

/* Runs the statement for every table that this processor has, then goes back to the default. */
#define FOR_EACH_KERN \
    for (const struct dm_kern *const *kern_ = dm_kern_all(); dm_kern_force(*kern_), *kern_; kern_++)

/* Layers. Shapes as in src/nn. */
void ref_layernorm(double *out, const double *inp, const double *w, const double *b, double eps,
                   size_t N, size_t C);
/* x (N,n_heads,HS) in place. */
void ref_rotary(double *x, double base, size_t pos, size_t N, size_t T, size_t n_heads, size_t HS,
                size_t rot);
/* out, q (B,T,NH,HS); k, v (B,pos+T,NH,HS); lse (B,NH,T) or NULL. */
void ref_attention(double *out, double *lse, const double *q, const double *k, const double *v,
                   size_t B, size_t T, size_t pos, size_t NH, size_t HS);
double ref_gelu(double x);
/* log softmax(x)[target] of one row. */
double ref_logp(const double *x, size_t target, size_t Vp);

/* Filling and comparing. `name` and `scale` as in fill_named. */
void fill_both(float *x, double *xd, size_t n, const char *name, float scale);
double ref_dot(const double *x, const double *y, size_t n);

/* |got - want| <= rtol * max(|want|, scale). */
void assert_close_ref(const float *got, const double *want, size_t n, double rtol, double scale);

/* dx (n) must be dL/dx of L = loss(ctx), which reads the doubles x: central differences of every
 * element, to rtol of the larger of its size and the root mean square. */
void assert_grad_ref(loss_fn *loss, void *ctx, double *x, const float *dx, size_t n, double rtol);

/* added must be start + grad to rounding: what a backward that adds leaves in a buffer that held
 * `start`, given what it leaves in a zeroed one. */
void assert_added(const float *added, const float *start, const float *grad, size_t n);

#endif
