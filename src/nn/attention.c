/* SPDX-License-Identifier: MIT */
/* A row is computed by one fixed recipe, whatever the rows beside it: each score is the gemm
 * kernel's chain of multiply-adds over HS, then come the maximum and the sum of exponentials, and
 * each output is one chain over the keys from key 0 on. Rows are taken some QB at a time and keys
 * KB at a time so that a packed block of keys serves many rows; the kernels promise that neither
 * changes the bits of a chain. */
#include "src/nn/attention.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "src/base/dtype.h"
#include "src/base/par.h"
#include "src/kernel/format.h"
#include "src/kernel/gemm.h"
#include "src/kernel/kern.h"

enum {
    QB = 56,     /* query rows per tile, at most; a tile is a whole number of mr rows */
    KB = 64,     /* keys per tile */
    MR_MAX = 16, /* bounds of the kernels' mr and nr */
    NR_MAX = 64,
    FEW = DM_ATTENTION_FEW, /* rows that gemm_few takes */
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

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Floats that one thread needs: packed panels, then scores of a tile (forward) or of one pair of
 * tiles (backward). */
static size_t thread_scratch(size_t T_max, size_t HS)
{
    const size_t a_pack = MR_MAX * (HS > KB ? HS : KB), cols = round_up(HS, NR_MAX);
    const size_t forward = a_pack + 2 * KB * cols + QB * T_max;
    const size_t backward = a_pack + 3 * KB * cols + 2 * QB * cols + 2 * QB * KB;
    return round_up(forward > backward ? forward : backward, 16);
}

size_t dm_attention_scratch(size_t T_max, size_t HS)
{
    return dm_par_threads() * thread_scratch(T_max, HS);
}

static size_t tile_rows(void)
{
    const struct dm_kern *k = dm_kern();
    assert(k->mr <= MR_MAX && k->nr <= NR_MAX && KB % k->nr == 0);
    return QB / k->mr * k->mr;
}

/* b (K,n) into panels of nr columns; element (k,j) is b.p[k*b.rs + j*b.cs]. */
static void pack_panels(float *dst, struct dm_mat b, size_t K, size_t n)
{
    const struct dm_kern *kn = dm_kern();
    for (size_t j = 0; j < n; j += kn->nr)
        kn->pack(dst + j * K, kn->nr, b.p + j * b.cs, b.cs, b.rs, min_size(kn->nr, n - j), K);
}

/* c (m,n) = or += a b for m <= mr; b lies in panels of `depth` >= K rows, the first K of which are
 * taken. a_pack: mr * K floats. */
static void product_rows(float *c, size_t ldc, bool add, struct dm_mat a, const float *b,
                         size_t depth, size_t m, size_t n, size_t K, float *a_pack)
{
    const struct dm_kern *kn = dm_kern();
    const bool few = m <= FEW && a.cs == 1;
    if (!few)
        kn->pack(a_pack, kn->mr, a.p, a.rs, a.cs, m, K);
    for (size_t j = 0; j < n; j += kn->nr, b += depth * kn->nr) {
        const size_t w = min_size(kn->nr, n - j);
        if (few)
            kn->gemm_few(c + j, ldc, add, a.p, a.rs, b, m, w, K);
        else
            kn->gemm_tile(c + j, ldc, add, a_pack, b, m, w, K);
    }
}

/* c (m,n) += a b, b in panels of K rows. */
static void product_add(struct rows c, struct dm_mat a, const float *b, size_t m, size_t n,
                        size_t K, float *a_pack)
{
    const size_t mr = dm_kern()->mr;
    for (size_t i = 0; i < m; i += mr) {
        const struct dm_mat ai = {a.p + i * a.rs, a.rs, a.cs};
        product_rows(c.p + i * c.ts, c.ts, true, ai, b, K, min_size(mr, m - i), n, K, a_pack);
    }
}

/* c (m,n) = a b with rows of c n floats apart. */
static void product(float *c, size_t ldc, struct rows a, const float *b, size_t m, size_t n,
                    size_t K, float *a_pack)
{
    const size_t mr = dm_kern()->mr;
    for (size_t i = 0; i < m; i += mr) {
        const struct dm_mat ai = {a.p + i * a.ts, a.ts, 1};
        product_rows(c + i * ldc, ldc, false, ai, b, K, min_size(mr, m - i), n, K, a_pack);
    }
}

/* As dm_dtype_from_f32; here because a call per number would cost more than the rest of a step. */
static inline uint16_t bf16_of(float x)
{
    uint32_t b;
    memcpy(&b, &x, sizeof(b));
    if ((b & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(b >> 16 | 0x40u);
    return (uint16_t)((b + 0x7fffu + (b >> 16 & 1u)) >> 16);
}

static void round_vector(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t b = (uint32_t)bf16_of(x[i]) << 16;
        memcpy(x + i, &b, sizeof(b));
    }
}

/* One head's keys and values in a cache. */
struct cache {
    const char *k, *v;
    bool half;
};

static struct cache head_cache(const struct dm_kv *kv, size_t h, size_t HS)
{
    const size_t bytes = kv->T_max * HS * (kv->half ? sizeof(uint16_t) : sizeof(float));
    const struct cache c = {(const char *)kv->k + h * bytes, (const char *)kv->v + h * bytes,
                            kv->half};
    return c;
}

/* n elements from the i-th on as float32. */
static void widen(float *to, const char *from, bool half, size_t i, size_t n)
{
    if (half)
        dm_dtype_to_f32(to, from + i * sizeof(uint16_t), DM_BF16, n);
    else
        memcpy(to, from + i * sizeof(float), n * sizeof(float));
}

/* One (b, head) of the forward pass. lse points at row 0 or is NULL. Keys and values come from k
 * and v or, when k.p is NULL, from the cache. */
struct forward {
    struct rows out, q, k, v;
    struct cache cache;
    float *lse;
    size_t pos, HS;
    float *a_pack, *b_pack, *v_tile, *s;
};

/* Keys j0 .. of a tile (kb) as columns in panels of nr, which divides DM_PANEL. */
static void pack_keys(const struct forward *a, size_t j0, size_t kb)
{
    const size_t nr = dm_kern()->nr, HS = a->HS;
    if (a->k.p) {
        pack_panels(a->b_pack, (struct dm_mat){a->k.p + j0 * a->k.ts, 1, a->k.ts}, HS, kb);
        return;
    }
    assert(DM_PANEL % nr == 0 && j0 % DM_PANEL == 0);
    for (size_t j = j0; j < j0 + kb; j += nr)
        for (size_t d = 0; d < HS; d++)
            widen(a->b_pack + (j - j0) * HS + d * nr, a->cache.k, a->cache.half,
                  (j / DM_PANEL * HS + d) * DM_PANEL + j % DM_PANEL, nr);
}

static void pack_values(const struct forward *a, size_t j0, size_t kb)
{
    struct dm_mat v = {a->v.p + j0 * a->v.ts, a->v.ts, 1};
    if (!a->k.p) {
        widen(a->v_tile, a->cache.v, a->cache.half, j0 * a->HS, kb * a->HS);
        v = (struct dm_mat){a->v_tile, a->HS, 1};
    }
    pack_panels(a->b_pack, v, kb, a->HS);
}

/* out += sum of p[j] * v[j] over n keys from j0 on. */
static void mix_values(const struct forward *a, float *out, const float *p, size_t j0, size_t n)
{
    const size_t HS = a->HS, size = a->cache.half ? sizeof(uint16_t) : sizeof(float);
    if (a->k.p)
        dm_kern()->mix(out, p, a->v.p + j0 * a->v.ts, a->v.ts, n, HS);
    else
        dm_kern()->kv_mix(out, 0, p, 0, a->cache.v + j0 * HS * size, a->cache.half, 1, n, HS,
                          a->cache.v);
}

/* out rows t0.. (m of them) = sum of p[j] * v[j], p being the rows of a->s, n_keys apart. The keys
 * that the first row of a group of mr sees go through the kernel's tile, the few after them through
 * mix, which continues the same chain: no row ever touches the value of a key it must not see. For
 * a few rows packing the values would cost more than it saves, and mix does it all. */
static void forward_values(const struct forward *a, size_t t0, size_t m, size_t n_keys)
{
    const struct dm_kern *kn = dm_kern();
    const bool few = m <= FEW;
    for (size_t j0 = 0; j0 < n_keys && !few; j0 += KB) {
        const size_t kb = min_size(KB, n_keys - j0);
        pack_values(a, j0, kb);
        for (size_t i = 0; i < m; i += kn->mr) {
            const struct dm_mat p = {a->s + i * n_keys + j0, n_keys, 1};
            const size_t seen = a->pos + t0 + i + 1;
            if (seen > j0)
                product_rows(a->out.p + (t0 + i) * a->out.ts, a->out.ts, j0 > 0, p, a->b_pack, kb,
                             min_size(kn->mr, m - i), a->HS, min_size(kb, seen - j0), a->a_pack);
        }
    }
    for (size_t i = 0; i < m; i++) {
        float *out = a->out.p + (t0 + i) * a->out.ts;
        const size_t j = few ? 0 : a->pos + t0 + i / kn->mr * kn->mr + 1;
        if (few)
            memset(out, 0, a->HS * sizeof(*out));
        mix_values(a, out, a->s + i * n_keys + j, j, a->pos + t0 + i + 1 - j);
    }
}

/* Scores of one row to exponentials; returns what to multiply the sum of values with. */
static float softmax(float *s, size_t HS, size_t n, float *lse)
{
    const float scale = 1.0f / sqrtf((float)HS);
    for (size_t j = 0; j < n; j++)
        s[j] *= scale;
    const float max = dm_kern()->max(s, n), sum = dm_kern()->exp_sum(s, max, n);
    if (lse)
        *lse = (float)((double)max + log((double)sum));
    return 1.0f / sum;
}

/* Rows t0..t0+m-1. Scores beyond a row's own position are computed with the tile, never read. */
static void forward_tile(const struct forward *a, size_t t0, size_t m)
{
    const size_t n_keys = a->pos + t0 + m;
    const struct rows q = {a->q.p + t0 * a->q.ts, a->q.ts};
    float inv_sum[QB];
    for (size_t j0 = 0; j0 < n_keys; j0 += KB) {
        const size_t kb = min_size(KB, n_keys - j0);
        pack_keys(a, j0, kb);
        product(a->s + j0, n_keys, q, a->b_pack, m, kb, a->HS, a->a_pack);
    }
    for (size_t i = 0; i < m; i++) {
        float lse;
        inv_sum[i] = softmax(a->s + i * n_keys, a->HS, a->pos + t0 + i + 1, a->lse ? &lse : NULL);
        if (a->lse)
            a->lse[t0 + i] = lse;
    }
    forward_values(a, t0, m, n_keys);
    for (size_t i = 0; i < m; i++)
        for (size_t d = 0; d < a->HS; d++)
            a->out.p[(t0 + i) * a->out.ts + d] *= inv_sum[i];
}

static void forward_scratch(struct forward *a, float *scratch)
{
    const size_t cols = round_up(a->HS, NR_MAX);
    a->b_pack = scratch;
    a->v_tile = a->b_pack + KB * cols;
    a->a_pack = a->v_tile + KB * cols;
    a->s = a->a_pack + MR_MAX * (a->HS > KB ? a->HS : KB);
}

void dm_attention_forward(struct dm_heads out, float *lse, struct dm_heads q, struct dm_heads k,
                          struct dm_heads v, size_t B, size_t T, size_t pos, size_t n_heads,
                          size_t HS, float *scratch)
{
    const size_t rows = tile_rows(), n_tiles = (T + rows - 1) / rows;
    const size_t n_scratch = thread_scratch(pos + T, HS);
    const bool fork = B * T * n_heads * (pos + T) * HS >= FORK_PRODUCTS;
    assert(HS > 0 && scratch);
#pragma omp parallel for collapse(3) schedule(static) if (fork) default(none) \
    shared(out, lse, q, k, v, B, T, pos, n_heads, HS, scratch, rows, n_tiles, n_scratch)
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < n_heads; h++)
            for (size_t i = 0; i < n_tiles; i++) {
                struct forward a = {.out = head_rows(out, b, h),
                                    .q = head_rows(q, b, h),
                                    .k = head_rows(k, b, h),
                                    .v = head_rows(v, b, h),
                                    .lse = lse ? lse + (b * n_heads + h) * T : NULL,
                                    .pos = pos,
                                    .HS = HS};
                forward_scratch(&a, scratch + dm_par_id() * n_scratch);
                forward_tile(&a, i * rows, min_size(rows, T - i * rows));
            }
}

void dm_heads_round(struct dm_heads x, size_t B, size_t T, size_t n_heads, size_t HS)
{
    const bool fork = B * T * n_heads * HS >= FORK_PRODUCTS;
#pragma omp parallel for schedule(static) if (fork) default(none) shared(x, B, T, n_heads, HS)
    for (size_t n = 0; n < B * T; n++)
        for (size_t h = 0; h < n_heads; h++)
            round_vector(x.p + n / T * x.bs + n % T * x.ts + h * x.hs, HS);
}

static void put_half(uint16_t *k, uint16_t *v, const float *key, const float *value, size_t HS)
{
    for (size_t d = 0; d < HS; d++) {
        k[d * DM_PANEL] = bf16_of(key[d]);
        v[d] = bf16_of(value[d]);
    }
}

static void put_float(float *k, float *v, const float *key, const float *value, size_t HS)
{
    for (size_t d = 0; d < HS; d++)
        k[d * DM_PANEL] = key[d];
    memcpy(v, value, HS * sizeof(*v));
}

void dm_kv_put(const struct dm_kv *kv, struct dm_heads k, struct dm_heads v, size_t T, size_t pos,
               size_t h0, size_t h1, size_t HS)
{
    assert(kv->T_max % DM_PANEL == 0 && pos + T <= kv->T_max);
    for (size_t h = h0; h < h1; h++)
        for (size_t t = pos; t < pos + T; t++) {
            const float *key = k.p + (t - pos) * k.ts + h * k.hs;
            const float *value = v.p + (t - pos) * v.ts + h * v.hs;
            const size_t row = (h * kv->T_max + t) * HS;
            const size_t column = (h * kv->T_max + t / DM_PANEL * DM_PANEL) * HS + t % DM_PANEL;
            if (kv->half)
                put_half((uint16_t *)kv->k + column, (uint16_t *)kv->v + row, key, value, HS);
            else
                put_float((float *)kv->k + column, (float *)kv->v + row, key, value, HS);
        }
}

void dm_kv_move(const struct dm_kv *kv, size_t from, size_t to, size_t n_heads, size_t HS)
{
    const size_t size = kv->half ? sizeof(uint16_t) : sizeof(float);
    char *k = kv->k, *v = kv->v;
    assert(from < kv->T_max && to < kv->T_max);
    for (size_t h = 0; h < n_heads; h++) {
        const size_t row = h * kv->T_max * HS;
        const size_t a = row + from / DM_PANEL * DM_PANEL * HS + from % DM_PANEL;
        const size_t b = row + to / DM_PANEL * DM_PANEL * HS + to % DM_PANEL;
        for (size_t d = 0; d < HS; d++)
            memcpy(k + (b + d * DM_PANEL) * size, k + (a + d * DM_PANEL) * size, size);
        memcpy(v + (row + to * HS) * size, v + (row + from * HS) * size, HS * size);
    }
}

size_t dm_tree_path(const struct dm_tree *tree, size_t i, uint8_t *path)
{
    size_t n = 1;
    assert(i < tree->n && tree->n <= DM_TREE_ROWS);
    for (size_t r = i; r; r = tree->parent[r])
        n++;
    for (size_t r = i, at = n; at-- > 0; r = tree->parent[r])
        path[at] = (uint8_t)r;
    return n;
}

/* Row i's path, which without a tree is all rows up to it. */
static size_t path_of(const struct dm_tree *tree, size_t i, uint8_t *path)
{
    if (tree)
        return dm_tree_path(tree, i, path);
    for (size_t t = 0; t <= i; t++)
        path[t] = (uint8_t)t;
    return i + 1;
}

/* y = sum of p[j] * v[j] over the keys of one row's path behind row 0, which p (n keys of the path)
 * and y hold already: in the order of the path, keys that lie side by side at once. */
static void mix_path(float *y, const float *p, const uint8_t *path, size_t n, const char *v,
                     bool half, size_t row, size_t HS)
{
    for (size_t t = 1; t < n;) {
        size_t run = 1;
        while (t + run < n && path[t + run] == path[t] + run)
            run++;
        dm_kern()->kv_mix(y, 0, p + t, 0, v + path[t] * row, half, 1, run, HS, v);
        t += run;
    }
}

void dm_attention_few(struct dm_heads out, struct dm_heads q, const struct dm_kv *kv, size_t T,
                      size_t pos, const struct dm_tree *tree, size_t h0, size_t h1, size_t HS,
                      float *scratch)
{
    const struct dm_kern *kn = dm_kern();
    const size_t ld = kv->T_max;
    uint8_t path[DM_TREE_ROWS][DM_TREE_ROWS];
    size_t n_path[DM_TREE_ROWS];
    assert(T >= 1 && T <= DM_TREE_ROWS && pos + T <= kv->T_max && (!tree || tree->n == T));
    for (size_t i = 0; i < T; i++)
        n_path[i] = path_of(tree, i, path[i]);
    for (size_t h = h0; h < h1; h++)
        for (size_t r = 0; r < T; r += FEW) {
            const struct cache c = head_cache(kv, h, HS);
            const size_t row = HS * (c.half ? sizeof(uint16_t) : sizeof(float));
            const size_t m = min_size(FEW, T - r);
            float *y = out.p + h * out.hs + r * out.ts, inv[FEW];
            kn->kv_scores(scratch, ld, q.p + h * q.hs + r * q.ts, q.ts, c.k, c.half, m,
                          pos + (tree ? T : r + m), HS, c.v);
            for (size_t i = 0; i < m; i++) {
                float *s = scratch + i * ld;
                for (size_t t = 1; t < n_path[r + i] && tree; t++)
                    s[pos + t] = s[pos + path[r + i][t]];
                inv[i] = softmax(s, HS, pos + n_path[r + i], NULL);
                memset(y + i * out.ts, 0, HS * sizeof(*y));
            }
            // The keys that all rows see, then a row's own few: one chain from key 0 on.
            kn->kv_mix(y, out.ts, scratch, ld, c.v, c.half, m, pos + 1, HS,
                       head_cache(kv, h + 1 < h1 ? h + 1 : h, HS).k);
            for (size_t i = 0; i < m; i++)
                mix_path(y + i * out.ts, scratch + i * ld + pos, path[r + i], n_path[r + i],
                         c.v + pos * row, c.half, row, HS);
            for (size_t i = 0; i < m; i++)
                for (size_t d = 0; d < HS; d++)
                    y[i * out.ts + d] *= inv[i];
        }
}

void dm_attention_cached(struct dm_heads out, struct dm_heads q, const struct dm_kv *kv, size_t T,
                         size_t pos, size_t n_heads, size_t HS, float *scratch)
{
    const size_t rows = tile_rows(), n_tiles = (T + rows - 1) / rows;
    const size_t n_scratch = thread_scratch(pos + T, HS);
    const bool fork = T * n_heads * (pos + T) * HS >= FORK_PRODUCTS;
    assert(HS > 0 && scratch && pos + T <= kv->T_max);
#pragma omp parallel for collapse(2) schedule(static) if (fork) default(none) \
    shared(out, q, kv, T, pos, n_heads, HS, scratch, rows, n_tiles, n_scratch)
    for (size_t h = 0; h < n_heads; h++)
        for (size_t i = 0; i < n_tiles; i++) {
            struct forward a = {.out = head_rows(out, 0, h),
                                .q = head_rows(q, 0, h),
                                .cache = head_cache(kv, h, HS),
                                .pos = pos,
                                .HS = HS};
            forward_scratch(&a, scratch + dm_par_id() * n_scratch);
            forward_tile(&a, i * rows, min_size(rows, T - i * rows));
        }
}

/* One (b, head) of the backward pass and one thread's scratch: _t has the keys as columns, _c the
 * HS dimensions; p and ds are (QB, KB). */
struct backward {
    struct rows dq, dk, dv, dout, out, q, k, v;
    const float *lse;
    size_t HS;
    float *a_pack, *k_t, *v_t, *k_c, *q_c, *dout_c, *p, *ds;
};

static void backward_scratch(struct backward *a, float *scratch)
{
    const size_t cols = round_up(a->HS, NR_MAX);
    a->k_t = scratch;
    a->v_t = a->k_t + KB * cols;
    a->k_c = a->v_t + KB * cols;
    a->q_c = a->k_c + KB * cols;
    a->dout_c = a->q_c + QB * cols;
    a->p = a->dout_c + QB * cols;
    a->ds = a->p + QB * KB;
    a->a_pack = a->ds + QB * KB;
}

/* p and ds of query rows t0.. (m) against keys j0.. (kb); 0 where a key is not seen. d (m) is
 * dout . out, which is the sum over all keys of p[j] * dp[j]. */
static void backward_scores(const struct backward *a, const float *d, size_t t0, size_t m,
                            size_t j0, size_t kb)
{
    const float scale = 1.0f / sqrtf((float)a->HS);
    const struct rows q = {a->q.p + t0 * a->q.ts, a->q.ts};
    const struct rows dout = {a->dout.p + t0 * a->dout.ts, a->dout.ts};
    product(a->p, KB, q, a->k_t, m, kb, a->HS, a->a_pack);
    // forward: out[t] = sum p[j] * v[j], so dp[j] = dout[t] . v[j]
    product(a->ds, KB, dout, a->v_t, m, kb, a->HS, a->a_pack);
    for (size_t i = 0; i < m; i++) {
        float *p = a->p + i * KB, *ds = a->ds + i * KB;
        const size_t t = t0 + i, n = t < j0 ? 0 : min_size(kb, t - j0 + 1);
        for (size_t j = 0; j < n; j++)
            p[j] *= scale;
        dm_kern()->exp_sum(p, a->lse[t], n); // exp(s - lse) is the probability itself
        // forward: p = exp(s) / sum exp(s), s[j] = scale * q[t] . k[j]
        for (size_t j = 0; j < n; j++)
            ds[j] = p[j] * (ds[j] - d[i]) * scale;
        for (size_t j = n; j < kb; j++)
            p[j] = ds[j] = 0.0f;
    }
}

static void zero_rows(struct rows x, size_t T, size_t HS)
{
    for (size_t t = 0; x.p && t < T; t++)
        memset(x.p + t * x.ts, 0, HS * sizeof(float));
}

static struct rows rows_from(struct rows x, size_t t)
{
    const struct rows r = {x.p + t * x.ts, x.ts};
    return r;
}

/* Query rows t0..t0+m-1 against all their keys. */
static void backward_tile(const struct backward *a, size_t t0, size_t m)
{
    const size_t HS = a->HS;
    float d[QB];
    for (size_t i = 0; i < m; i++)
        d[i] = dm_kern()->dot(a->dout.p + (t0 + i) * a->dout.ts, a->out.p + (t0 + i) * a->out.ts,
                              HS);
    pack_panels(a->q_c, (struct dm_mat){a->q.p + t0 * a->q.ts, a->q.ts, 1}, m, HS);
    pack_panels(a->dout_c, (struct dm_mat){a->dout.p + t0 * a->dout.ts, a->dout.ts, 1}, m, HS);
    for (size_t j0 = 0; j0 < t0 + m; j0 += KB) {
        const size_t kb = min_size(KB, t0 + m - j0);
        const float *k = a->k.p + j0 * a->k.ts, *v = a->v.p + j0 * a->v.ts;
        pack_panels(a->k_t, (struct dm_mat){k, 1, a->k.ts}, HS, kb);
        pack_panels(a->v_t, (struct dm_mat){v, 1, a->v.ts}, HS, kb);
        pack_panels(a->k_c, (struct dm_mat){k, a->k.ts, 1}, kb, HS);
        backward_scores(a, d, t0, m, j0, kb);
        // forward: out[t] += p[t,j] * v[j]
        if (a->dv.p)
            product_add(rows_from(a->dv, j0), (struct dm_mat){a->p, 1, KB}, a->dout_c, kb, HS, m,
                        a->a_pack);
        // forward: s[t,j] = scale * q[t] . k[j]; ds carries the scale
        if (a->dq.p)
            product_add(rows_from(a->dq, t0), (struct dm_mat){a->ds, KB, 1}, a->k_c, m, HS, kb,
                        a->a_pack);
        if (a->dk.p)
            product_add(rows_from(a->dk, j0), (struct dm_mat){a->ds, 1, KB}, a->q_c, kb, HS, m,
                        a->a_pack);
    }
}

void dm_attention_backward(struct dm_heads dq, struct dm_heads dk, struct dm_heads dv,
                           struct dm_heads dout, struct dm_heads out, const float *lse,
                           struct dm_heads q, struct dm_heads k, struct dm_heads v, size_t B,
                           size_t T, size_t n_heads, size_t HS, float *scratch)
{
    const size_t rows = tile_rows(), n_scratch = thread_scratch(T, HS);
    const bool fork = B * T * n_heads * T * HS >= FORK_PRODUCTS;
    assert(HS > 0 && scratch && lse);
#pragma omp parallel for collapse(2) schedule(static) if (fork) default(none) \
    shared(dq, dk, dv, dout, out, lse, q, k, v, B, T, n_heads, HS, scratch, rows, n_scratch)
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < n_heads; h++) {
            struct backward a = {.dq = head_rows(dq, b, h),
                                 .dk = head_rows(dk, b, h),
                                 .dv = head_rows(dv, b, h),
                                 .dout = head_rows(dout, b, h),
                                 .out = head_rows(out, b, h),
                                 .q = head_rows(q, b, h),
                                 .k = head_rows(k, b, h),
                                 .v = head_rows(v, b, h),
                                 .lse = lse + (b * n_heads + h) * T,
                                 .HS = HS};
            backward_scratch(&a, scratch + dm_par_id() * n_scratch);
            zero_rows(a.dq, T, HS); // the tiles below add
            zero_rows(a.dk, T, HS);
            zero_rows(a.dv, T, HS);
            for (size_t t0 = 0; t0 < T; t0 += rows)
                backward_tile(&a, t0, min_size(rows, T - t0));
        }
}
