/* SPDX-License-Identifier: MIT */
/* The kernels give an element the same bits wherever it lies in a block (tests/test_gelu.c holds
 * them to it), so cutting the array into blocks is free. */
#include "src/nn/gelu.h"

#include "src/kernel/kern.h"

enum { BLOCK = 4096, FORK_BLOCKS = 2 };

static size_t block_len(size_t i, size_t n)
{
    return n - i * BLOCK < BLOCK ? n - i * BLOCK : BLOCK;
}

void dm_gelu_forward(float *out, const float *inp, size_t n)
{
    const struct dm_kern *k = dm_kern();
    const size_t n_blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) default(none) \
    shared(out, inp, n, k, n_blocks) if (n_blocks >= FORK_BLOCKS)
    for (size_t i = 0; i < n_blocks; i++)
        k->gelu(out + i * BLOCK, inp + i * BLOCK, block_len(i, n));
}

void dm_gelu_backward(float *restrict d, const float *inp, size_t n)
{
    const struct dm_kern *k = dm_kern();
    const size_t n_blocks = (n + BLOCK - 1) / BLOCK;
    // forward: out = x * Phi(x)
#pragma omp parallel for schedule(static) default(none) \
    shared(d, inp, n, k, n_blocks) if (n_blocks >= FORK_BLOCKS)
    for (size_t i = 0; i < n_blocks; i++)
        k->gelu_grad(d + i * BLOCK, inp + i * BLOCK, block_len(i, n));
}
