/* SPDX-License-Identifier: MIT */
#include "src/base/qblock.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define BF16_NAN 0x7fc0

static float bf16_value(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint16_t bf16_nearest(float x)
{
    uint16_t h;
    dm_dtype_from_f32(&h, DM_BF16, &x, 1);
    return h;
}

/* The smallest bf16 >= x >= 0, x far below the largest float. */
static uint16_t bf16_up(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0xffffu) >> 16);
}

static void put16(uint8_t *p, uint16_t h)
{
    memcpy(p, &h, 2);
}

static float clamp(float x, float lo, float hi) /* NaN: lo */
{
    return x > lo ? x < hi ? x : hi : lo;
}

/* ---- int8 ---------------------------------------------------------------------------------- */

static void to_int8(uint8_t *block, const float *x, size_t n)
{
    float top = 0.0f;
    for (size_t i = 0; i < n; i++)
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    const uint16_t h = bf16_up(top / 127.0f);
    const float scale = bf16_value(h);
    put16(block, h);
    memset(block + 2, 128, DM_QBLOCK);
    for (size_t i = 0; i < n && h; i++)
        block[2 + i] = (uint8_t)(128 + (int)rintf(clamp(x[i] / scale, -127.0f, 127.0f)));
}

/* ---- int4 ---------------------------------------------------------------------------------- */

struct fit {
    float scale, offset; /* bf16 values */
    float error;         /* sum of squares */
    uint8_t q[DM_QBLOCK];
};

/* q for a scale > 0 and offset as they will be stored, and what they leave. */
static void round_to(struct fit *f, const float *x, size_t n, float scale, float offset)
{
    float error = 0.0f;
    f->scale = bf16_value(bf16_nearest(scale));
    f->offset = bf16_value(bf16_nearest(offset));
    const float inverse = f->scale > 0.0f ? 1.0f / f->scale : 0.0f;
    for (size_t i = 0; i < n; i++) {
        const float q = rintf(clamp((x[i] - f->offset) * inverse, 0.0f, 15.0f));
        const float d = x[i] - (f->offset + f->scale * q);
        f->q[i] = (uint8_t)q;
        error += d * d;
    }
    f->error = error;
}

/* Least squares of x = scale * q + offset for the q of f; false when they are all equal. */
static bool line(const struct fit *f, const float *x, size_t n, float *scale, float *offset)
{
    float sq = 0.0f, sqq = 0.0f, sx = 0.0f, sqx = 0.0f;
    const float count = (float)n;
    for (size_t i = 0; i < n; i++) {
        const float q = f->q[i];
        sq += q;
        sqq += q * q;
        sx += x[i];
        sqx += q * x[i];
    }
    const float det = count * sqq - sq * sq;
    *scale = (count * sqx - sq * sx) / det;
    *offset = (sx - *scale * sq) / count;
    return det > 0.0f && *scale > 0.0f;
}

/* Starts from steps between 11/15 and 17/15 of the even one over the range, each improved by a
 * line through the rounded numbers; the best of all is kept. */
static void best_fit(struct fit *best, const float *x, size_t n, float lo, float hi)
{
    enum { TRIES = 13 };
    round_to(best, x, n, (hi - lo) / 15.0f, lo);
    for (int i = 0; i < TRIES; i++) {
        const float scale = (hi - lo) / (13.0f + 0.5f * (float)i);
        struct fit f = {0};
        float s, o;
        round_to(&f, x, n, scale, 0.5f * (hi + lo) - 7.5f * scale);
        for (int again = 0; again < 2; again++) {
            if (f.error < best->error)
                *best = f;
            if (!line(&f, x, n, &s, &o))
                break;
            round_to(&f, x, n, s, o);
        }
        if (f.error < best->error)
            *best = f;
    }
}

static void to_int4(uint8_t *block, const float *x, size_t n)
{
    float lo = x[0], hi = x[0];
    for (size_t i = 1; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    struct fit best = {0};
    best_fit(&best, x, n, lo, hi);
    put16(block, bf16_nearest(best.scale));
    put16(block + 2, bf16_nearest(best.offset));
    for (size_t i = 0; i < DM_QBLOCK / 2; i++)
        block[4 + i] = (uint8_t)(best.q[i] | best.q[i + DM_QBLOCK / 2] << 4);
}

/* ---- Both ---------------------------------------------------------------------------------- */

void dm_qblock_from_f32(void *block, enum dm_dtype t, const float *x, size_t n)
{
    assert(n >= 1 && n <= DM_QBLOCK && dm_dtype_is_block(t));
    bool finite = true;
    for (size_t i = 0; i < n; i++)
        finite &= (bool)isfinite(x[i]);
    if (!finite) {
        memset(block, 0, t == DM_INT8 ? DM_INT8_BLOCK_BYTES : DM_INT4_BLOCK_BYTES);
        put16(block, BF16_NAN);
    } else if (t == DM_INT8) {
        to_int8(block, x, n);
    } else {
        to_int4(block, x, n);
    }
}

void dm_qblock_read(struct dm_qblock *out, const void *block, enum dm_dtype t)
{
    const uint8_t *p = block;
    memcpy(&out->scale, p, 2);
    if (t == DM_INT8) {
        out->offset = 0;
        memcpy(out->q, p + 2, DM_QBLOCK);
        return;
    }
    memcpy(&out->offset, p + 2, 2);
    for (size_t i = 0; i < DM_QBLOCK / 2; i++) {
        out->q[i] = p[4 + i] & 15;
        out->q[i + DM_QBLOCK / 2] = p[4 + i] >> 4;
    }
}

void dm_qblock_to_f32(float *x, const void *block, enum dm_dtype t, size_t n)
{
    struct dm_qblock b;
    dm_qblock_read(&b, block, t);
    const float scale = bf16_value(b.scale), offset = bf16_value(b.offset);
    const int zero = t == DM_INT8 ? 128 : 0;
    for (size_t i = 0; i < n; i++)
        x[i] = scale * (float)(b.q[i] - zero) + offset;
}

bool dm_qblock_finite(const void *blocks, enum dm_dtype t, size_t n)
{
    const size_t bytes = t == DM_INT8 ? DM_INT8_BLOCK_BYTES : DM_INT4_BLOCK_BYTES;
    const uint8_t *p = blocks;
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++, p += bytes) {
        uint16_t h[2];
        memcpy(h, p, 4);
        bad |= (h[0] & 0x7f80u) == 0x7f80u;
        bad |= t == DM_INT4 && (h[1] & 0x7f80u) == 0x7f80u;
    }
    return !bad;
}
