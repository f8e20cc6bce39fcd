/* SPDX-License-Identifier: MIT */
/* Inner loops of LayerNorm and its adjoint, and of AdamW. */
#include "src/kernel/kern_tables.h"

#include <math.h>

#include "src/kernel/simd.h"

/* Two sums at once over a row; missing lanes hold 0. */
struct sums {
    vf a, b;
};

INLINE vf cut(vf x, size_t lanes)
{
    return lanes >= DM_VW ? x : vf_first(x, vf_set1(0.0f), lanes);
}

/* Deviations from the mean in float32, rounded, are exact to their own size; their sum and squares
 * then lose nothing, however large the mean is. Its rounding error is their own mean. */
static void layernorm(float *y, float *mean, float *rstd, const float *x, const float *w,
                      const float *b, double eps, size_t n)
{
    vf s = vf_set1(0.0f);
    for (size_t i = 0; i < n; i += DM_VW)
        s = vf_add(s, vf_load_n(x + i, n - i));
    const double rough = (double)vf_sum(s) / (double)n;
    const vf m0 = vf_set1((float)rough);
    struct sums t = {vf_set1(0.0f), vf_set1(0.0f)};
    for (size_t i = 0; i < n; i += DM_VW) {
        const vf d = cut(vf_sub(vf_load_n(x + i, n - i), m0), n - i);
        t.a = vf_add(t.a, d);
        t.b = vf_fma(d, d, t.b);
    }
    const double off = (double)vf_sum(t.a) / (double)n;
    const double var = (double)vf_sum(t.b) / (double)n - off * off;
    // The float values are the ones used, so that the backward sees what the forward did.
    *mean = (float)((double)(float)rough + off);
    *rstd = (float)(1.0 / sqrt(fmax(var, 0.0) + eps));
    const vf m = vf_set1(*mean), r = vf_set1(*rstd);
    for (size_t i = 0; i < n; i += DM_VW) {
        const vf xhat = vf_mul(vf_sub(vf_load_n(x + i, n - i), m), r);
        vf_store_n(y + i, vf_fma(xhat, vf_load_n(w + i, n - i), vf_load_n(b + i, n - i)), n - i);
    }
}

/* Mean and rstd depend on x, which gives the two means below. */
static void layernorm_grad(float *dx, const float *dy, const float *x, const float *w, float mean,
                           float rstd, size_t n)
{
    const vf m = vf_set1(mean), r = vf_set1(rstd);
    struct sums t = {vf_set1(0.0f), vf_set1(0.0f)};
    for (size_t i = 0; i < n; i += DM_VW) {
        const vf g = vf_mul(vf_load_n(dy + i, n - i), vf_load_n(w + i, n - i));
        const vf xhat = vf_mul(vf_sub(vf_load_n(x + i, n - i), m), r);
        t.a = vf_add(t.a, cut(g, n - i));
        t.b = vf_fma(g, cut(xhat, n - i), t.b);
    }
    const vf g_mean = vf_set1((float)((double)vf_sum(t.a) / (double)n));
    const vf gx_mean = vf_set1((float)((double)vf_sum(t.b) / (double)n));
    // forward: y = (x - mean) * rstd * w + b
    for (size_t i = 0; i < n; i += DM_VW) {
        const vf g = vf_mul(vf_load_n(dy + i, n - i), vf_load_n(w + i, n - i));
        const vf xhat = vf_mul(vf_sub(vf_load_n(x + i, n - i), m), r);
        const vf d = vf_sub(vf_sub(g, g_mean), vf_mul(xhat, gx_mean));
        vf_store_n(dx + i, vf_fma(r, d, vf_load_n(dx + i, n - i)), n - i);
    }
}

/* forward: y = xhat * w + b, xhat = (x - mean) * rstd */
static void layernorm_sums(float *dw, float *db, const float *dy, const float *x, size_t stride,
                           const float *mean, const float *rstd, size_t rows, size_t n)
{
    for (size_t i = 0; i < n; i += DM_VW) {
        struct sums t = {vf_load_n(dw + i, n - i), vf_load_n(db + i, n - i)};
        for (size_t j = 0; j < rows; j++) {
            const vf g = vf_load_n(dy + j * stride + i, n - i);
            const vf d = vf_sub(vf_load_n(x + j * stride + i, n - i), vf_set1(mean[j]));
            t.a = vf_fma(g, vf_mul(d, vf_set1(rstd[j])), t.a);
            t.b = vf_add(t.b, g);
        }
        vf_store_n(dw + i, t.a, n - i);
        vf_store_n(db + i, t.b, n - i);
    }
}

static void adamw(float *p, float *m, float *v, float *g, const struct dm_adamw_rates *u, size_t n)
{
    const vf scale = vf_set1(u->scale), beta1 = vf_set1(u->beta1), beta2 = vf_set1(u->beta2);
    const vf rest1 = vf_set1(u->rest1), rest2 = vf_set1(u->rest2), keep = vf_set1(u->keep);
    const vf rate = vf_set1(u->rate), inv_root2 = vf_set1(u->inv_root2), eps = vf_set1(u->eps);
    for (size_t i = 0; i < n; i += DM_VW) {
        const size_t l = n - i;
        const vf gi = vf_mul(scale, vf_load_n(g + i, l));
        const vf mi = vf_fma(beta1, vf_load_n(m + i, l), vf_mul(rest1, gi));
        const vf vi = vf_fma(beta2, vf_load_n(v + i, l), vf_mul(rest2, vf_mul(gi, gi)));
        const vf move = vf_div(vf_mul(rate, mi), vf_fma(vf_sqrt(vi), inv_root2, eps));
        vf_store_n(m + i, mi, l);
        vf_store_n(v + i, vi, l);
        vf_store_n(p + i, vf_sub(vf_mul(keep, vf_load_n(p + i, l)), move), l);
        vf_store_n(g + i, vf_set1(0.0f), l);
    }
}

const struct dm_kern_train DM_EXPORT(dm_kern_train) = {
    .layernorm = layernorm,
    .layernorm_grad = layernorm_grad,
    .layernorm_sums = layernorm_sums,
    .adamw = adamw,
};
