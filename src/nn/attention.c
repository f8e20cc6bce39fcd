/* SPDX-License-Identifier: MIT */
/* A row is computed by one fixed recipe - a dot product per key, the maximum, the sum of
 * exponentials, the weighted sum of the values in the order of the keys - whatever the rows beside
 * it. Rows are taken QB at a time and keys KB at a time only to use a key while it is in cache
 * (the keys of one head lie 3C floats apart in training); that changes no order. */
#include "src/nn/attention.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/gemm.h"
#include "src/kernel/kern.h"

enum {
    QB = 16,      /* query rows per tile, forward */
    QB_BACK = 56, /* and backward: a multiple of the micro-tile's 14 rows */
    KB = 32,      /* keys per tile */
    FORK_PRODUCTS = 1 << 16
};

/* The vectors of one (b, head): row t starts at p + t*ts. */
struct rows {
    float *p;
    size_t ts;
};

static struct rows head_rows(struct dm_heads x, size_t b, size_t h)
{
    const struct rows r = {x.p ? x.p + b * x.bs + h * x.hs : NULL, x.ts};
    return r;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t dm_attention_scratch(size_t T_max, size_t HS)
{
    (void)HS;
    return dm_par_threads() * (2 * QB_BACK + 1) * T_max; // the forward's QB rows of scores fit in
}

/* Rows t0..t1-1 (at most QB); s holds QB * (pos + t1) floats. lse points at row 0 or is NULL. */
static void forward_tile(struct rows out, float *lse, struct rows q, struct rows k, struct rows v,
                         size_t t0, size_t t1, size_t pos, size_t HS, float *s)
{
    const struct dm_kern *kn = dm_kern();
    const size_t n_keys = pos + t1;
    const float scale = 1.0f / sqrtf((float)HS);
    float inv_sum[QB];
    for (size_t j0 = 0; j0 < n_keys; j0 += KB)
        for (size_t t = t0; t < t1; t++) {
            float *s_t = s + (t - t0) * n_keys;
            const size_t j1 = min_size(j0 + KB, pos + t + 1);
            if (j0 < j1)
                kn->dots(s_t + j0, scale, q.p + t * q.ts, k.p + j0 * k.ts, k.ts, j1 - j0, HS);
        }
    for (size_t t = t0; t < t1; t++) {
        float *s_t = s + (t - t0) * n_keys;
        const float max = kn->max(s_t, pos + t + 1);
        const float sum = kn->exp_sum(s_t, max, pos + t + 1);
        inv_sum[t - t0] = 1.0f / sum;
        if (lse)
            lse[t] = (float)((double)max + log((double)sum));
        memset(out.p + t * out.ts, 0, HS * sizeof(float));
    }
    for (size_t j0 = 0; j0 < n_keys; j0 += KB)
        for (size_t t = t0; t < t1; t++) {
            const float *s_t = s + (t - t0) * n_keys;
            const size_t j1 = min_size(j0 + KB, pos + t + 1);
            if (j0 < j1)
                kn->mix(out.p + t * out.ts, s_t + j0, v.p + j0 * v.ts, v.ts, j1 - j0, HS);
        }
    for (size_t t = t0; t < t1; t++)
        for (size_t i = 0; i < HS; i++)
            out.p[t * out.ts + i] *= inv_sum[t - t0];
}

void dm_attention_forward(struct dm_heads out, float *lse, struct dm_heads q, struct dm_heads k,
                          struct dm_heads v, size_t B, size_t T, size_t pos, size_t n_heads,
                          size_t HS, float *scratch)
{
    const size_t n_tiles = (T + QB - 1) / QB;
    const size_t n_scratch = dm_attention_scratch(pos + T, HS) / dm_par_threads();
    const bool fork = B * T * n_heads * (pos + T) * HS >= FORK_PRODUCTS;
    assert(HS > 0 && scratch);
#pragma omp parallel for collapse(3) schedule(static) if (fork) default(none) \
    shared(out, lse, q, k, v, B, T, pos, n_heads, HS, scratch, n_tiles, n_scratch)
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < n_heads; h++)
            for (size_t i = 0; i < n_tiles; i++)
                forward_tile(head_rows(out, b, h), lse ? lse + (b * n_heads + h) * T : NULL,
                             head_rows(q, b, h), head_rows(k, b, h), head_rows(v, b, h), i * QB,
                             min_size((i + 1) * QB, T), pos, HS, scratch + dm_par_id() * n_scratch);
}

/* One (b, head): what backward reads and adds to. d (T): dout . out per row. */
struct backward {
    struct rows dq, dk, dv, dout, q, k, v;
    const float *lse, *d;
    size_t HS;
};

static struct dm_mat mat(struct rows x, size_t t)
{
    return (struct dm_mat){x.p + t * x.ts, x.ts, 1};
}

static struct dm_mat transposed(struct dm_mat m)
{
    return (struct dm_mat){m.p, m.cs, m.rs};
}

/* Query rows t0..t1-1 against keys 0..t1-1, as matrix products; p and ds hold (t1 - t0) * t1 floats
 * each and are 0 where a key comes after the query. */
static void backward_tile(const struct backward *a, size_t t0, size_t t1, float *p, float *ds)
{
    const size_t M = t1 - t0, HS = a->HS;
    const float scale = 1.0f / sqrtf((float)HS);
    const struct dm_mat k = mat(a->k, 0), q = mat(a->q, t0), dout = mat(a->dout, t0);
    dm_gemm(p, t1, false, q, transposed(k), M, t1, HS);
    dm_gemm(ds, t1, false, dout, transposed(mat(a->v, 0)), M, t1, HS);
    for (size_t t = t0; t < t1; t++) {
        float *p_t = p + (t - t0) * t1, *ds_t = ds + (t - t0) * t1;
        for (size_t j = 0; j <= t; j++)
            p_t[j] *= scale;
        dm_kern()->exp_sum(p_t, a->lse[t], t + 1); // exp(s - lse) is the probability itself
        // forward: out[t] = sum p[j] v[j], p = softmax(s)
        for (size_t j = 0; j <= t; j++)
            ds_t[j] = p_t[j] * (ds_t[j] - a->d[t]) * scale;
        memset(p_t + t + 1, 0, (t1 - t - 1) * sizeof(float));
        memset(ds_t + t + 1, 0, (t1 - t - 1) * sizeof(float));
    }
    const struct dm_mat p_m = {p, t1, 1}, ds_m = {ds, t1, 1};
    // forward: out[t] += p[j] * v[j]
    if (a->dv.p)
        dm_gemm(a->dv.p, a->dv.ts, true, transposed(p_m), dout, t1, HS, M);
    // forward: s[j] = scale * q[t] . k[j]
    if (a->dq.p)
        dm_gemm(a->dq.p + t0 * a->dq.ts, a->dq.ts, true, ds_m, k, M, HS, t1);
    if (a->dk.p)
        dm_gemm(a->dk.p, a->dk.ts, true, transposed(ds_m), q, t1, HS, M);
}

void dm_attention_backward(struct dm_heads dq, struct dm_heads dk, struct dm_heads dv,
                           struct dm_heads dout, struct dm_heads out, const float *lse,
                           struct dm_heads q, struct dm_heads k, struct dm_heads v, size_t B,
                           size_t T, size_t n_heads, size_t HS, float *scratch)
{
    const size_t n_scratch = dm_attention_scratch(T, HS) / dm_par_threads();
    const bool fork = B * T * n_heads * T * HS >= FORK_PRODUCTS;
    assert(HS > 0 && scratch && lse);
#pragma omp parallel for collapse(2) schedule(static) if (fork) default(none) \
    shared(dq, dk, dv, dout, out, lse, q, k, v, B, T, n_heads, HS, scratch, n_scratch)
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < n_heads; h++) {
            float *p = scratch + dm_par_id() * n_scratch, *ds = p + QB_BACK * T;
            float *d = ds + QB_BACK * T;
            const struct rows o = head_rows(out, b, h);
            const struct backward a = {head_rows(dq, b, h),
                                       head_rows(dk, b, h),
                                       head_rows(dv, b, h),
                                       head_rows(dout, b, h),
                                       head_rows(q, b, h),
                                       head_rows(k, b, h),
                                       head_rows(v, b, h),
                                       lse + (b * n_heads + h) * T,
                                       d,
                                       HS};
            // forward: p = exp(s) / sum exp(s); the sum over j of p[j] * dp[j] is dout . out
            for (size_t t = 0; t < T; t++)
                d[t] = dm_kern()->dot(a.dout.p + t * a.dout.ts, o.p + t * o.ts, HS);
            for (size_t t0 = 0; t0 < T; t0 += QB_BACK)
                backward_tile(&a, t0, min_size(t0 + QB_BACK, T), p, ds);
        }
}
