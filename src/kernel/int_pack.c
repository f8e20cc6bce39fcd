/* SPDX-License-Identifier: MIT */
#include "src/kernel/int.h"

#include <assert.h>
#include <string.h>

#include "src/base/par.h"
#include "src/base/qblock.h"
#include "src/kernel/kern_int.h"

_Static_assert((int)DM_BLOCK == (int)DM_QBLOCK, "a block on disk is a block of a panel");

static size_t ceil_div(size_t x, size_t y)
{
    return x / y + (x % y != 0);
}

static size_t block_bytes(enum dm_format fmt)
{
    return fmt == DM_FMT_INT8 ? DM_INT8_PANEL_BLOCK : DM_INT4_PANEL_BLOCK;
}

size_t dm_int_pack_bytes(enum dm_format fmt, size_t O, size_t C)
{
    return ceil_div(O, DM_PANEL) * ceil_div(C, DM_BLOCK) * block_bytes(fmt);
}

/* Output `lane` of a panel's block; NULL clears it: scale 0 and q = 0. */
static void put(uint8_t *p, enum dm_format fmt, size_t lane, const struct dm_qblock *b)
{
    const uint16_t scale = b ? b->scale : 0, offset = b ? b->offset : 0;
    uint8_t *to = p + (fmt == DM_FMT_INT8 ? 2 : 4) * DM_PANEL + 4 * lane;
    memcpy(p + 2 * lane, &scale, 2);
    if (fmt == DM_FMT_INT8) {
        for (size_t quad = 0; quad < 8; quad++, to += 4 * DM_PANEL)
            if (b)
                memcpy(to, b->q + 4 * quad, 4);
            else
                memset(to, 128, 4);
        return;
    }
    memcpy(p + 2 * (DM_PANEL + lane), &offset, 2);
    for (size_t quad = 0; quad < 8; quad += 2, to += 4 * DM_PANEL)
        for (size_t k = 0; k < 4; k++)
            to[k] = (uint8_t)(b ? b->q[4 * quad + k] | b->q[4 * quad + 4 + k] << 4 : 0);
}

/* Inputs k .. k + n of a row as a block of type `to`. */
static void read_block(struct dm_qblock *b, enum dm_dtype to, const char *row, enum dm_dtype dtype,
                       size_t k, size_t n)
{
    size_t at = 0;
    uint8_t block[DM_INT8_BLOCK_BYTES];
    float x[DM_BLOCK];
    const bool fits = k == 0 || dm_dtype_row_bytes(dtype, k, &at);
    assert(fits);
    if (dtype == to) {
        dm_qblock_read(b, row + at, to);
        return;
    }
    dm_dtype_to_f32(x, row + at, dtype, n);
    dm_qblock_from_f32(block, to, x, n);
    dm_qblock_read(b, block, to);
}

void dm_int_pack_panel(void *panel, enum dm_format fmt, size_t C, const void *raw,
                       enum dm_dtype dtype, size_t row_bytes, size_t n)
{
    const enum dm_dtype to = fmt == DM_FMT_INT8 ? DM_INT8 : DM_INT4;
    uint8_t *block = panel;
    for (size_t k = 0; k < C; k += DM_BLOCK, block += block_bytes(fmt))
        for (size_t lane = 0; lane < DM_PANEL; lane++) {
            struct dm_qblock b;
            if (lane < n)
                read_block(&b, to, (const char *)raw + lane * row_bytes, dtype, k,
                           C - k < DM_BLOCK ? C - k : DM_BLOCK);
            put(block, fmt, lane, lane < n ? &b : NULL);
        }
}

void dm_int_pack_rows(void *pack, enum dm_format fmt, size_t C, const void *raw,
                      enum dm_dtype dtype, size_t o0, size_t n)
{
    char *panel = (char *)pack + dm_int_pack_bytes(fmt, o0, C);
    const size_t bytes = dm_int_pack_bytes(fmt, 1, C);
    size_t row;
    const bool fits = dm_dtype_row_bytes(dtype, C, &row);
    assert(fits && o0 % DM_PANEL == 0 && C > 0);
    for (size_t o = 0; o < n; o += DM_PANEL, panel += bytes)
        dm_int_pack_panel(panel, fmt, C, (const char *)raw + o * row, dtype, row,
                          n - o < DM_PANEL ? n - o : DM_PANEL);
}

struct packing {
    void *pack;
    enum dm_format fmt;
    size_t C;
    const float *w;
};

static void pack_part(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct packing *p = ctx;
    dm_int_pack_rows(p->pack, p->fmt, p->C, p->w + begin * p->C, DM_F32, begin, end - begin);
}

void dm_int_pack(void *pack, enum dm_format fmt, size_t O, size_t C, const float *w)
{
    struct packing p = {pack, fmt, C, w};
    dm_par_for(O, DM_PANEL, pack_part, &p);
}
