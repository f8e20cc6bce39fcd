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
#include "src/kernel/kern.h"

enum {
    QB = 16, /* query rows per tile */
    KB = 32, /* keys per tile */
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
    // forward: scores of QB rows; backward: two tiles and a row of D, which is less from T_max = 3
    return dm_par_threads() * (QB * (T_max + 2 * KB) + T_max);
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
            for (size_t j = j0; j < j1; j++)
                s_t[j] = scale * kn->dot(q.p + t * q.ts, k.p + j * k.ts, HS);
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
            for (size_t j = j0; j < j1; j++)
                kn->axpy(out.p + t * out.ts, s_t[j], v.p + j * v.ts, HS);
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

/* Query row t against keys j0..j1-1, all of them <= t. p and ds hold KB floats each. */
static void backward_row(const struct backward *a, size_t t, size_t j0, size_t j1, float *p,
                         float *ds)
{
    const struct dm_kern *kn = dm_kern();
    const size_t HS = a->HS;
    const float scale = 1.0f / sqrtf((float)HS);
    const float *q = a->q.p + t * a->q.ts;
    const float *dout = a->dout.p + t * a->dout.ts;
    for (size_t j = j0; j < j1; j++)
        p[j - j0] = scale * kn->dot(q, a->k.p + j * a->k.ts, HS);
    kn->exp_sum(p, a->lse[t], j1 - j0); // exp(s - lse) is the probability itself
    // forward: out[t] = sum p[j] v[j], p = softmax(s)
    for (size_t j = j0; j < j1; j++)
        ds[j - j0] = p[j - j0] * (kn->dot(dout, a->v.p + j * a->v.ts, HS) - a->d[t]) * scale;
    // forward: out[t] += p[j] * v[j]
    if (a->dv.p)
        for (size_t j = j0; j < j1; j++)
            kn->axpy(a->dv.p + j * a->dv.ts, p[j - j0], dout, HS);
    // forward: s[j] = scale * q[t] . k[j]
    if (a->dq.p)
        for (size_t j = j0; j < j1; j++)
            kn->axpy(a->dq.p + t * a->dq.ts, ds[j - j0], a->k.p + j * a->k.ts, HS);
    if (a->dk.p)
        for (size_t j = j0; j < j1; j++)
            kn->axpy(a->dk.p + j * a->dk.ts, ds[j - j0], q, HS);
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
            float *p = scratch + dm_par_id() * n_scratch, *ds = p + KB, *d = ds + KB;
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
            for (size_t t0 = 0; t0 < T; t0 += QB)
                for (size_t j0 = 0; j0 < min_size(t0 + QB, T); j0 += KB)
                    for (size_t t = t0 > j0 ? t0 : j0; t < min_size(t0 + QB, T); t++)
                        backward_row(&a, t, j0, min_size(j0 + KB, t + 1), p, ds);
        }
}
