/* SPDX-License-Identifier: MIT */
/* attention.h - causal multi-head attention over keys and values wherever they lie, and its
 * adjoint. One forward serves training (keys and values inside the qkv rows) and decoding (a
 * cache). No T x T storage. */
#ifndef DM_NN_ATTENTION_H
#define DM_NN_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A (B, T, n_heads, HS) array with free strides, in floats: the vector of (b,t,h) starts at
 * p + b*bs + t*ts + h*hs. */
struct dm_heads {
    float *p;
    size_t bs, ts, hs;
};

/* Query row t (0 <= t < T) of sequence b stands at position pos + t and attends to keys 0..pos+t.
 * out = softmax(q k^T / sqrt(HS)) v. out and q are (B,T,n_heads,HS); k and v hold at least pos + T
 * rows per sequence. lse (B,n_heads,T) gets the log-sum-exp of the scaled scores, NULL skips it.
 * scratch: dm_attention_scratch(pos + T, HS) floats. A row's bits do not depend on B, T or the
 * split of a sequence into chunks. */
void dm_attention_forward(struct dm_heads out, float *lse, struct dm_heads q, struct dm_heads k,
                          struct dm_heads v, size_t B, size_t T, size_t pos, size_t n_heads,
                          size_t HS, float *scratch);

/* The keys and values of one sequence in one layer, bf16 or float32, for T_max positions, a
 * multiple of DM_PANEL. Head h's keys lie in panels: key t, dimension d is element
 * ((h*T_max/DM_PANEL + t/DM_PANEL)*HS + d)*DM_PANEL + t%DM_PANEL of k; its values in rows: (h*T_max
 * + t)*HS + d of v. */
struct dm_kv {
    void *k, *v;
    bool half;
    size_t T_max;
};

/* Rounds to bf16, the nearest even: what a bf16 cache keeps exactly. */
void dm_heads_round(struct dm_heads x, size_t B, size_t T, size_t n_heads, size_t HS);

/* Stores T rows of keys and values at positions pos and on, heads h0..h1; of k and v the first
 * sequence is read. The calling thread alone. */
void dm_kv_put(const struct dm_kv *kv, struct dm_heads k, struct dm_heads v, size_t T, size_t pos,
               size_t h0, size_t h1, size_t HS);

/* As dm_attention_forward with B = 1 and keys and values from a cache, with the same bits. */
void dm_attention_cached(struct dm_heads out, struct dm_heads q, const struct dm_kv *kv, size_t T,
                         size_t pos, size_t n_heads, size_t HS, float *scratch);

/* Rows that need not follow each other: row 0 stands behind what the cache held before, row i >= 1
 * behind row parent[i] < i, one position further. Their keys and values lie in the order of the
 * rows. */
enum { DM_TREE_ROWS = 8 };
struct dm_tree {
    size_t n;
    uint8_t parent[DM_TREE_ROWS];
};

/* Rows from row 0 to row i, both included, to path; returns how many. */
size_t dm_tree_path(const struct dm_tree *tree, size_t i, uint8_t *path);

/* The same for T <= DM_TREE_ROWS rows and heads h0..h1 by the calling thread alone; the cache is
 * read once for every DM_ATTENTION_FEW rows. tree NULL: row t stands at position pos + t; otherwise
 * T = tree->n, row 0 stands at pos, and each row attends to its own path, with the bits that the
 * path alone would give. scratch: DM_ATTENTION_FEW * kv->T_max floats. */
enum { DM_ATTENTION_FEW = 4 };
void dm_attention_few(struct dm_heads out, struct dm_heads q, const struct dm_kv *kv, size_t T,
                      size_t pos, const struct dm_tree *tree, size_t h0, size_t h1, size_t HS,
                      float *scratch);

/* Moves the keys and values at `from` to `to`, heads 0..n_heads. */
void dm_kv_move(const struct dm_kv *kv, size_t from, size_t to, size_t n_heads, size_t HS);

/* pos = 0. Writes dq, dk, dv from dout; one whose p is NULL is skipped; out, lse, q, k, v as in
 * forward. Threads own (b, head). */
void dm_attention_backward(struct dm_heads dq, struct dm_heads dk, struct dm_heads dv,
                           struct dm_heads dout, struct dm_heads out, const float *lse,
                           struct dm_heads q, struct dm_heads k, struct dm_heads v, size_t B,
                           size_t T, size_t n_heads, size_t HS, float *scratch);

/* Floats of scratch for all threads with T_max keys, forward and backward; ask again after
 * dm_par_set_threads(). */
size_t dm_attention_scratch(size_t T_max, size_t HS);

#endif
