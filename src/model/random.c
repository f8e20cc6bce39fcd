/* SPDX-License-Identifier: MIT */
/* random.c - models of a shape without a file, for benchmarks. */
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/model/model.h"

#define SCALE 0.035f /* uniform in +-0.035: the spread of N(0, 0.02) */

/* Rows of one matrix, a panel at a time from its own stream of numbers. */
struct noise {
    enum dm_dtype dtype;
    size_t rows, cols, row; /* row in bytes */
    uint64_t seed;
    void *raw;                 /* filled (rows,cols), or */
    const struct dm_weight *w; /* packed into */
    void *pack;
    char *buf; /* per part: DM_PANEL rows */
};

static uint64_t next(uint64_t *state)
{
    return dm_mix64(*state += 0x9e3779b97f4a7c15u);
}

static void fill_floats(char *row, enum dm_dtype t, size_t cols, uint64_t *state)
{
    for (size_t i = 0; i < cols; i += 4) {
        const uint64_t bits = next(state);
        float x[4];
        for (size_t k = 0; k < 4; k++)
            x[k] = (float)(int16_t)(bits >> 16 * k) * (SCALE / 32768.0f);
        dm_dtype_from_f32(row + i * dm_dtype_size(t), t, x, cols - i < 4 ? cols - i : 4);
    }
}

/* Blocks of dtype.h: the numbers are random, scale and offset the same everywhere. */
static void fill_blocks(char *row, enum dm_dtype t, size_t bytes, uint64_t *state)
{
    const bool wide = t == DM_INT8;
    const size_t head = wide ? 2 : 4, block = wide ? DM_INT8_BLOCK_BYTES : DM_INT4_BLOCK_BYTES;
    const float range[] = {wide ? SCALE / 127.0f : 2.0f * SCALE / 15.0f, -SCALE};
    for (char *p = row; p < row + bytes; p += block) {
        dm_dtype_from_f32(p, DM_BF16, range, head / 2);
        for (size_t i = head; i < block; i += 8) {
            const uint64_t bits = next(state) | (wide ? 0x0101010101010101u : 0u); // never 0
            memcpy(p + i, &bits, block - i < 8 ? block - i : 8);
        }
    }
}

static void fill_panels(void *ctx, size_t part, size_t begin, size_t end)
{
    const struct noise *n = ctx;
    char *buf = n->buf + part * DM_PANEL * n->row;
    for (size_t r = begin; r < end; r += DM_PANEL) {
        const size_t rows = end - r < DM_PANEL ? end - r : DM_PANEL;
        char *to = n->raw ? (char *)n->raw + r * n->row : buf;
        uint64_t state = n->seed + r;
        next(&state);
        for (size_t i = 0; i < rows; i++)
            if (dm_dtype_is_block(n->dtype))
                fill_blocks(to + i * n->row, n->dtype, n->row, &state);
            else
                fill_floats(to + i * n->row, n->dtype, n->cols, &state);
        if (!n->raw)
            dm_linear_pack_rows(n->pack, n->w, to, n->dtype, r, rows);
    }
}

static void fill(struct noise *n)
{
    n->seed = n->seed * 0x100000001b3u + 1;
    dm_par_for(n->rows, DM_PANEL, fill_panels, n);
}

/* Matrices in the order of dm_model_matrix(), then the output embedding. */
static struct dm_weight *matrix(struct dm_model *m, size_t i, size_t n)
{
    return i < n ? dm_model_matrix(m, i) : &m->mats.unembed;
}

static size_t n_matrices(const struct dm_config *c)
{
    return 4 * (c->L + dm_config_head_layers(c));
}

static void bind(struct dm_model *m, enum dm_format fmt, void **embed, struct dm_arena *a)
{
    const size_t n = n_matrices(&m->cfg);
    m->mats.embed_dtype = fmt == DM_FMT_F32 ? DM_F32 : DM_BF16;
    *embed = dm_arena_alloc(a, m->cfg.Vp * m->cfg.C, dm_dtype_size(m->mats.embed_dtype));
    m->mats.embed = *embed;
    for (size_t i = 0; i <= n; i++) {
        struct dm_weight *w = matrix(m, i, n);
        w->fmt = fmt;
        w->pack = dm_arena_alloc(a, dm_linear_pack_bytes(w), 1);
    }
}

static void set_vectors(struct dm_model *m)
{
    const struct dm_config *c = &m->cfg;
    for (size_t i = 0; i < c->C; i++)
        m->params.lnf_w[i] = 1.0f;
    for (size_t l = 0; l < n_matrices(c) / 4; l++) {
        struct dm_layer *p = l < c->L ? m->params.layers + l : m->params.heads + (l - c->L);
        for (size_t i = 0; i < c->C; i++)
            p->ln1_w[i] = p->ln2_w[i] = 1.0f;
    }
}

static enum dm_status fill_all(struct dm_model *m, void *embed, uint64_t seed, struct dm_err *e)
{
    static const enum dm_dtype dtype[] = {DM_F32, DM_BF16, DM_INT8, DM_INT4};
    const struct dm_config *c = &m->cfg;
    const size_t n = n_matrices(c), longest = c->F > c->C ? c->F : c->C;
    struct noise noise = {.dtype = m->mats.embed_dtype,
                          .rows = c->Vp,
                          .cols = c->C,
                          .row = c->C * dm_dtype_size(m->mats.embed_dtype),
                          .seed = seed,
                          .raw = embed};
    noise.buf = dm_alloc(dm_par_threads() * DM_PANEL, longest * sizeof(float));
    if (!noise.buf)
        return dm_fail(e, DM_ENOMEM, "out of memory for a row of %zu numbers", longest);
    fill(&noise);
    noise.raw = NULL;
    for (size_t i = 0; i <= n; i++) {
        const struct dm_weight *w = matrix(m, i, n);
        noise.w = w;
        noise.pack = m->file_mem.base + ((const char *)w->pack - m->file_mem.base);
        noise.dtype = dtype[w->fmt];
        noise.rows = w->O;
        noise.cols = w->C;
        const bool fits = dm_dtype_row_bytes(noise.dtype, w->C, &noise.row);
        (void)fits; // it is smaller than the pack
        fill(&noise);
    }
    free(noise.buf);
    return DM_OK;
}

enum dm_status dm_model_random(struct dm_model *m, const struct dm_config *cfg, enum dm_format fmt,
                               uint64_t seed, struct dm_err *e)
{
    struct dm_arena measure = {0};
    void *embed;
    DM_TRY(dm_model_init_held(m, cfg, DM_HELD_VECTORS, DM_HELD_VECTORS, e));
    set_vectors(m);
    bind(m, fmt, &embed, &measure);
    enum dm_status st = dm_arena_init(&m->file_mem, measure.used, e);
    if (!st) {
        dm_arena_huge(&m->file_mem);
        bind(m, fmt, &embed, &m->file_mem);
        st = fill_all(m, embed, seed, e);
    }
    if (st)
        dm_model_release(m);
    return st;
}
