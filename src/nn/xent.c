/* SPDX-License-Identifier: MIT */
/* A row is summed in blocks of BLOCK exponentials, the blocks in double: the same blocks in forward
 * (which must not touch the logits and works in a small copy) and in backward (in place), so both
 * return the same bits of logp. */
#include "src/nn/xent.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/kernel/kern.h"

enum { BLOCK = 1024, FORK_FLOATS = 16384 };

/* Sum of exp(x - max) over the row; work (BLOCK floats) NULL leaves the exponentials in x. */
static double row_sum(float *x, float *work, float max, size_t Vp)
{
    const struct dm_kern *k = dm_kern();
    double sum = 0.0;
    for (size_t i = 0; i < Vp; i += BLOCK) {
        const size_t len = Vp - i < BLOCK ? Vp - i : BLOCK;
        if (work)
            memcpy(work, x + i, len * sizeof(*work));
        sum += (double)k->exp_sum(work ? work : x + i, max, len);
    }
    return sum;
}

static int32_t row_rank(const float *x, size_t target, size_t Vp)
{
    const float v = x[target];
    int32_t rank = 0;
    for (size_t i = 0; i < target; i++)
        rank += x[i] >= v;
    for (size_t i = target + 1; i < Vp; i++)
        rank += x[i] > v;
    return rank;
}

void dm_xent_forward(float *logp, int32_t *rank, const float *logits, const int32_t *target,
                     size_t N, size_t Vp)
{
    const struct dm_kern *k = dm_kern();
    assert(Vp > 0);
#pragma omp parallel for schedule(static) default(none) \
    shared(logp, rank, logits, target, N, Vp, k) if (N * Vp >= FORK_FLOATS)
    for (size_t n = 0; n < N; n++) {
        const float *x = logits + n * Vp;
        float work[BLOCK];
        if (target[n] < 0) {
            logp[n] = 0.0f;
            if (rank)
                rank[n] = -1;
            continue;
        }
        assert((size_t)target[n] < Vp);
        const float max = k->max(x, Vp);
        // row_sum only reads x when it is given room to work in.
        const double lse = (double)max + log(row_sum((float *)x, work, max, Vp));
        logp[n] = (float)((double)x[target[n]] - lse);
        if (rank)
            rank[n] = row_rank(x, (size_t)target[n], Vp);
    }
}

/* x *= factor, less `scale` at the target; a block is rounded, if at all, while L1 has it. */
static void row_gradient(float *x, enum dm_dtype type, float factor, size_t target, float scale,
                         size_t Vp)
{
    const struct dm_kern *k = dm_kern();
    for (size_t i = 0; i < Vp; i += BLOCK) {
        const size_t len = Vp - i < BLOCK ? Vp - i : BLOCK;
        k->scale(x + i, factor, len);
        if (target - i < len)
            x[target] -= scale;
        if (type == DM_BF16)
            k->bf16->pack_rows((uint16_t *)(void *)x + i, x + i, 0, 1, len);
    }
}

void dm_xent_backward(float *logp, float *logits, enum dm_dtype type, const int32_t *target,
                      float scale, size_t N, size_t Vp)
{
    const struct dm_kern *k = dm_kern();
    assert(Vp > 0);
#pragma omp parallel for schedule(static) default(none) \
    shared(logp, logits, type, target, scale, N, Vp, k) if (N * Vp >= FORK_FLOATS)
    for (size_t n = 0; n < N; n++) {
        float *x = logits + n * Vp;
        if (target[n] < 0) {
            logp[n] = 0.0f;
            memset(x, 0, Vp * sizeof(*x));
            continue;
        }
        assert((size_t)target[n] < Vp);
        const float max = k->max(x, Vp);
        const double x_target = (double)x[target[n]];
        const double sum = row_sum(x, NULL, max, Vp);
        logp[n] = (float)(x_target - ((double)max + log(sum)));
        // forward: logp = x[target] - log sum exp(x)
        row_gradient(x, type, (float)((double)scale / sum), (size_t)target[n], scale, Vp);
    }
}
