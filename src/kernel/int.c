/* SPDX-License-Identifier: MIT */
/* Rounded input rows fill a buffer of the calling thread, as many as fit, and all threads read them
 * while each streams its own panels. Few rows take the panels in order; more of them pass a panel
 * in groups, while it is in L2. A row longer than the
 * buffer is cut: the chain goes on from c, so that this does not show in the bits. */
#include "src/kernel/int.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "src/base/par.h"
#include "src/kernel/kern.h"

#define INPUTS ((size_t)8192)     /* blocks of all rows: 384 KiB */
#define ROW_BLOCKS ((size_t)1024) /* blocks of one row: so that the buffer holds 8 of them */
#define OWN_BLOCKS ((size_t)64)   /* the same when panels are packed on the way: 68 KiB */
#define SMALL ((size_t)1 << 19)   /* multiply-adds below which waking a thread costs more */

struct product {
    const struct dm_int_kern *k;
    float *c;
    const float *bias, *a;
    enum dm_format fmt;
    const uint8_t *pack;
    const float *rows;
    size_t O, C;
    // the part in hand: rows m0 .. m0 + m, blocks k0 .. k0 + blocks
    struct dm_int_input *x;
    size_t m0, m, k0, blocks;
};

static _Thread_local _Alignas(64) struct dm_int_input inputs[INPUTS];
static _Thread_local _Alignas(64) uint8_t own_panel[OWN_BLOCKS * DM_INT8_PANEL_BLOCK];

static size_t min_size(size_t x, size_t y)
{
    return x < y ? x : y;
}

static size_t n_blocks(size_t C)
{
    return C / DM_BLOCK + (C % DM_BLOCK != 0);
}

static void input_rows(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct product *p = ctx;
    const size_t at = p->k0 * DM_BLOCK, n = min_size(p->C - at, p->blocks * DM_BLOCK);
    for (size_t i = begin; i < end; i++)
        p->k->input(p->x + i * p->blocks, p->a + (p->m0 + i) * p->C + at, n);
}

/* The blocks in hand of the panel of output o, straight from the rows. */
static const uint8_t *pack_panel(const struct product *p, size_t o)
{
    const size_t at = p->k0 * DM_BLOCK, width = min_size(p->C - at, p->blocks * DM_BLOCK);
    dm_int_pack_panel(own_panel, p->fmt, width, p->rows + o * p->C + at, DM_F32,
                      p->C * sizeof(float), min_size(DM_PANEL, p->O - o));
    return own_panel;
}

static void start_rows(const struct product *p, size_t begin, size_t end)
{
    for (size_t i = p->m0; i < p->m0 + p->m; i++)
        if (p->bias)
            memcpy(p->c + i * p->O + begin, p->bias + begin, (end - begin) * sizeof(float));
        else
            memset(p->c + i * p->O + begin, 0, (end - begin) * sizeof(float));
}

static void few(const struct product *p, size_t i, size_t m, size_t o, size_t n,
                const uint8_t *panels, size_t stride)
{
    (p->fmt == DM_FMT_INT8 ? p->k->int8_few : p->k->int4_few)(p->c + (p->m0 + i) * p->O + o, p->O,
                                                              p->x + i * p->blocks, p->blocks,
                                                              panels, stride, p->blocks, m, n);
}

static void outputs(void *ctx, size_t part, size_t begin, size_t end)
{
    (void)part;
    const struct product *p = ctx;
    const size_t bytes = dm_int_pack_bytes(p->fmt, 1, DM_BLOCK), stride = n_blocks(p->C) * bytes;
    const uint8_t *at = p->pack ? p->pack + begin / DM_PANEL * stride + p->k0 * bytes : NULL;
    if (!p->k0)
        start_rows(p, begin, end);
    if (at && p->m <= p->k->rows) {
        few(p, 0, p->m, begin, end - begin, at, stride);
        return;
    }
    for (size_t o = begin; o < end; o += DM_PANEL) {
        const uint8_t *panel = at ? at + (o - begin) / DM_PANEL * stride : pack_panel(p, o);
        for (size_t i = 0; i < p->m; i += p->k->rows)
            few(p, i, min_size(p->k->rows, p->m - i), o, min_size(DM_PANEL, end - o), panel,
                stride);
    }
}

void dm_int_few(float *c, const float *bias, const float *a, enum dm_format fmt, const void *pack,
                size_t M, size_t O, size_t C, size_t o0, size_t o1)
{
    struct product p = {.k = dm_kern()->ints,
                        .c = c,
                        .bias = bias,
                        .a = a,
                        .fmt = fmt,
                        .pack = pack,
                        .O = O,
                        .C = C,
                        .x = inputs,
                        .m = M};
    const size_t all = n_blocks(C);
    assert(pack && C > 0 && M <= 4 && o0 % DM_PANEL == 0);
    for (p.k0 = 0; p.k0 < all; p.k0 += p.blocks) {
        p.blocks = min_size(ROW_BLOCKS, all - p.k0);
        input_rows(&p, 0, 0, M);
        outputs(&p, 0, o0, o1);
    }
}

void dm_int_affine(float *c, const float *bias, const float *a, enum dm_format fmt,
                   const void *pack, const float *rows, size_t M, size_t O, size_t C)
{
    assert((pack || rows) && C > 0 && (fmt == DM_FMT_INT8 || fmt == DM_FMT_INT4));
    struct product p = {.k = dm_kern()->ints,
                        .c = c,
                        .bias = bias,
                        .a = a,
                        .fmt = fmt,
                        .pack = pack,
                        .rows = rows,
                        .O = O,
                        .C = C,
                        .x = inputs};
    const size_t all = n_blocks(C), most = pack ? ROW_BLOCKS : OWN_BLOCKS;
    const bool small = O * C < SMALL / (M < 4 ? 4 : M);
    const size_t step = min_size(all, most), many = INPUTS / step / p.k->rows * p.k->rows;
    for (p.m0 = 0; p.m0 < M; p.m0 += p.m) {
        p.m = min_size(many, M - p.m0);
        for (p.k0 = 0; p.k0 < all; p.k0 += step) {
            p.blocks = min_size(step, all - p.k0);
            dm_par_for(p.m, p.m * C < SMALL ? p.m : 1, input_rows, &p);
            dm_par_for(O, small ? O : DM_PANEL, outputs, &p);
        }
    }
}
