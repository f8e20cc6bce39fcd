/* SPDX-License-Identifier: MIT */
#include "src/base/dtype.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#include "src/base/arena.h"
#include "src/base/qblock.h"

static const struct {
    const char *name, *torch;
    size_t size, block; /* bytes of an element, or of a block of DM_QBLOCK */
} types[] = {[DM_F32] = {"f32", "float32", 4, 0},
             [DM_F16] = {"f16", "float16", 2, 0},
             [DM_BF16] = {"bf16", "bfloat16", 2, 0},
             [DM_INT8] = {"int8", NULL, 0, DM_INT8_BLOCK_BYTES},
             [DM_INT4] = {"int4", NULL, 0, DM_INT4_BLOCK_BYTES}};
enum { N_TYPES = DM_INT4 + 1 };

bool dm_dtype_is_block(enum dm_dtype t)
{
    return types[t].block != 0;
}

size_t dm_dtype_size(enum dm_dtype t)
{
    assert(types[t].size);
    return types[t].size;
}

const char *dm_dtype_name(enum dm_dtype t)
{
    return types[t].name;
}

bool dm_dtype_named(const char *name, enum dm_dtype *out)
{
    for (int i = 0; i < N_TYPES; i++)
        if (!strcmp(name, types[i].name)) {
            *out = (enum dm_dtype)i;
            return true;
        }
    return false;
}

enum dm_status dm_dtype_parse(const char *name, enum dm_dtype *out, struct dm_err *e)
{
    const char *s = strncmp(name, "torch.", 6) ? name : name + 6;
    for (int i = 0; i < N_TYPES; i++)
        if (types[i].torch && (!strcasecmp(s, types[i].name) || !strcmp(s, types[i].torch))) {
            *out = (enum dm_dtype)i;
            return DM_OK;
        }
    return dm_fail(e, DM_EUNSUPPORTED, "number format \"%s\" is not one of f32, f16, bf16", name);
}

bool dm_dtype_row_bytes(enum dm_dtype t, size_t cols, size_t *bytes)
{
    const size_t n = cols ? cols : 1;
    if (!types[t].block)
        return dm_mul(n, types[t].size, bytes);
    return dm_mul(n / DM_QBLOCK + (n % DM_QBLOCK != 0), types[t].block, bytes);
}

bool dm_dtype_bytes(enum dm_dtype t, size_t rows, size_t cols, size_t *bytes)
{
    size_t row;
    return dm_dtype_row_bytes(t, cols, &row) && dm_mul(rows, row, bytes);
}

static uint32_t f16_to_bits(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, mant = h & 0x3ffu;
    uint32_t exp = (h >> 10) & 31u;
    if (exp == 31u)
        return sign | 0x7f800000u | mant << 13;
    if (exp)
        return sign | (exp + 112u) << 23 | mant << 13;
    if (!mant)
        return sign;
    // Subnormal: move the leading one into the implicit place.
    const int shift = __builtin_clz(mant) - 21;
    exp = (uint32_t)(113 - shift);
    return sign | exp << 23 | ((mant << (shift + 13)) & 0x7fffffu);
}

static uint16_t f16_from_bits(uint32_t x)
{
    const uint32_t sign = x >> 16 & 0x8000u, a = x & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) // rounds to 2^16 or more
        return (uint16_t)(sign | 0x7c00u);
    if (a >= 0x38800000u) // normal: the carry of the rounding may step the exponent, as it should
        return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13));
    if (a < 0x33000000u) // below half of the smallest subnormal
        return (uint16_t)sign;
    const uint32_t mant = (a & 0x7fffffu) | 0x800000u, shift = 126u - (a >> 23);
    const uint32_t half = 1u << (shift - 1u), rest = mant & ((1u << shift) - 1u);
    uint32_t h = mant >> shift;
    h += rest > half || (rest == half && (h & 1u));
    return (uint16_t)(sign | h);
}

static uint16_t bf16_from_bits(uint32_t x)
{
    if ((x & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(x >> 16 | 0x40u);
    return (uint16_t)((x + 0x7fffu + (x >> 16 & 1u)) >> 16);
}

void dm_dtype_to_f32(float *dst, const void *src, enum dm_dtype t, size_t n)
{
    if (t == DM_F32) {
        memcpy(dst, src, n * sizeof(float));
        return;
    }
    const char *p = src;
    for (size_t i = 0; types[t].block && i < n; i += DM_QBLOCK, p += types[t].block)
        dm_qblock_to_f32(dst + i, p, t, n - i < DM_QBLOCK ? n - i : DM_QBLOCK);
    for (size_t i = 0; types[t].size && i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        const uint32_t bits = t == DM_BF16 ? (uint32_t)h << 16 : f16_to_bits(h);
        memcpy(dst + i, &bits, 4);
    }
}

void dm_dtype_from_f32(void *dst, enum dm_dtype t, const float *src, size_t n)
{
    if (t == DM_F32) {
        memcpy(dst, src, n * sizeof(float));
        return;
    }
    char *p = dst;
    for (size_t i = 0; types[t].block && i < n; i += DM_QBLOCK, p += types[t].block)
        dm_qblock_from_f32(p, t, src + i, n - i < DM_QBLOCK ? n - i : DM_QBLOCK);
    for (size_t i = 0; types[t].size && i < n; i++) {
        uint32_t bits;
        memcpy(&bits, src + i, 4);
        const uint16_t h = t == DM_BF16 ? bf16_from_bits(bits) : f16_from_bits(bits);
        memcpy(p + 2 * i, &h, 2);
    }
}

void dm_dtype_rows_to_f32(float *dst, const void *src, enum dm_dtype t, size_t rows, size_t cols)
{
    size_t bytes = 0;
    if (!types[t].block) {
        dm_dtype_to_f32(dst, src, t, cols ? rows * cols : rows);
        return;
    }
    assert(cols && dm_dtype_row_bytes(t, cols, &bytes));
    for (size_t r = 0; r < rows; r++)
        dm_dtype_to_f32(dst + r * cols, (const char *)src + r * bytes, t, cols);
}

void dm_dtype_rows_from_f32(void *dst, enum dm_dtype t, const float *src, size_t rows, size_t cols)
{
    size_t bytes = 0;
    if (!types[t].block) {
        dm_dtype_from_f32(dst, t, src, cols ? rows * cols : rows);
        return;
    }
    assert(cols && dm_dtype_row_bytes(t, cols, &bytes));
    for (size_t r = 0; r < rows; r++)
        dm_dtype_from_f32((char *)dst + r * bytes, t, src + r * cols, cols);
}

bool dm_dtype_finite(const void *raw, enum dm_dtype t, size_t rows, size_t cols)
{
    size_t bytes;
    if (!types[t].block)
        return true;
    const bool fits = dm_dtype_bytes(t, rows, cols, &bytes);
    assert(fits);
    return dm_qblock_finite(raw, t, bytes / types[t].block);
}
