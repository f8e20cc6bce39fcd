/* SPDX-License-Identifier: MIT */
#include "src/io/cooc_read.h"

#include <stdlib.h>

#include "src/base/arena.h"
#include "src/io/cooc_pack.h"

static uint64_t *line(const struct dm_cooc_reader *r, size_t b)
{
    return r->index + b * DM_COOC_INDEX;
}

uint64_t dm_cooc_before(const struct dm_cooc_reader *r, size_t n, size_t b)
{
    return line(r, b)[n - 1];
}

/* Rows as written: twice the id, and 1 if the row goes on from the block before. */
uint32_t dm_cooc_first_row(const struct dm_cooc_reader *r, size_t b)
{
    return (uint32_t)(line(r, b)[0] >> 1);
}

bool dm_cooc_goes_on(const struct dm_cooc_reader *r, size_t b)
{
    return line(r, b)[0] & 1;
}

static enum dm_status check_index(const struct dm_cooc_reader *r, uint64_t bytes, struct dm_err *e)
{
    const char *path = dm_h5_path(r->f);
    uint64_t all = 0;
    for (size_t n = 2; n <= DM_COOC_ORDER_MAX; n++) {
        for (size_t b = 0; b < r->blocks; b++)
            if (dm_cooc_before(r, n, b) > dm_cooc_before(r, n, b + 1))
                return dm_fail(e, DM_EFORMAT, "%s: index: block %zu ends before it begins", path,
                               b);
        const uint64_t first = dm_cooc_before(r, n, 0), last = dm_cooc_before(r, n, r->blocks);
        if (first || last > bytes || (n > r->order && last))
            return dm_fail(e, DM_EFORMAT,
                           "%s: index: n-grams of order %zu from %llu to %llu in %llu bytes", path,
                           n, (unsigned long long)first, (unsigned long long)last,
                           (unsigned long long)bytes);
        all += last;
    }
    for (size_t b = 0; b <= r->blocks; b++)
        if (line(r, b)[0] >> 1 >= r->V || (b && line(r, b)[0] >> 1 < line(r, b - 1)[0] >> 1))
            return dm_fail(e, DM_EFORMAT, "%s: index: block %zu begins at row %llu", path, b,
                           (unsigned long long)line(r, b)[0] >> 1);
    if (all > bytes)
        return dm_fail(e, DM_EFORMAT, "%s: index: %llu n-grams in %llu bytes", path,
                       (unsigned long long)all, (unsigned long long)bytes);
    return DM_OK;
}

static enum dm_status read_index(struct dm_cooc_reader *r, struct dm_err *e)
{
    enum dm_h5_type type;
    size_t items, cols;
    DM_TRY(dm_h5_shape(r->f, "index", &type, &items, &cols, e));
    if (type != DM_H5_U64 || cols || !items || items % DM_COOC_INDEX)
        return dm_fail(e, DM_ESHAPE, "%s: index has %zu items, want lines of %u u64",
                       dm_h5_path(r->f), items, DM_COOC_INDEX);
    r->blocks = items / DM_COOC_INDEX - 1;
    r->index = dm_alloc(items, sizeof(*r->index));
    if (!r->index)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for an index of %zu blocks", dm_h5_path(r->f),
                       r->blocks);
    return dm_h5_read(r->f, "index", DM_H5_U64, r->index, items, 0, e);
}

static enum dm_status block_bytes(const struct dm_cooc_reader *r, size_t b, size_t *n,
                                  struct dm_err *e)
{
    char name[DM_COOC_BLOCK_NAME];
    enum dm_h5_type type;
    size_t cols;
    dm_cooc_block_name(name, b);
    DM_TRY(dm_h5_shape(r->f, name, &type, n, &cols, e));
    return type == DM_H5_U8 && !cols
               ? DM_OK
               : dm_fail(e, DM_ESHAPE, "%s: %s is not a list of u8", dm_h5_path(r->f), name);
}

enum dm_status dm_cooc_reader_init(struct dm_cooc_reader *r, struct dm_h5 *f, size_t V,
                                   size_t order, struct dm_err *e)
{
    *r = (struct dm_cooc_reader){.f = f, .V = V, .order = order};
    uint64_t bytes = 0;
    for (size_t n = 2; n <= order; n++) {
        const char name[] = {'b', 'a', 's', 'e', (char)('0' + n), 0};
        DM_TRY(dm_h5_get_u64(f, "/", name, &r->base[n], e));
        if (!r->base[n] || r->base[n] > UINT32_MAX)
            return dm_fail(e, DM_EFORMAT, "%s: %s is %llu, want 1 to 2^32 - 1", dm_h5_path(f), name,
                           (unsigned long long)r->base[n]);
    }
    DM_TRY(read_index(r, e));
    for (size_t b = 0; b < r->blocks; b++) {
        size_t n;
        DM_TRY(block_bytes(r, b, &n, e));
        bytes += n; // each no larger than the file
        r->max_bytes = n > r->max_bytes ? n : r->max_bytes;
    }
    return check_index(r, bytes, e);
}

void dm_cooc_reader_release(struct dm_cooc_reader *r)
{
    free(r->index);
    *r = (struct dm_cooc_reader){0};
}

enum dm_status dm_cooc_read_block(struct dm_cooc_reader *r, size_t b, uint8_t **data, size_t *n,
                                  struct dm_err *e)
{
    char name[DM_COOC_BLOCK_NAME];
    *data = NULL;
    DM_TRY(block_bytes(r, b, n, e));
    dm_cooc_block_name(name, b);
    *data = dm_alloc(*n + 1, 1);
    if (!*data)
        return dm_fail(e, DM_ENOMEM, "%s: no memory for %zu bytes of %s", dm_h5_path(r->f), *n,
                       name);
    const enum dm_status st = dm_h5_read(r->f, name, DM_H5_U8, *data, *n, 0, e);
    if (st) {
        free(*data);
        *data = NULL;
    }
    return st;
}

/* ---- Unpacking ----------------------------------------------------------------------------- */

struct unpack {
    const struct dm_cooc_reader *r;
    const uint8_t *p, *end; /* p NULL: malformed */
    const struct dm_cooc_lists *out;
    uint64_t at[DM_COOC_ORDER_MAX + 1], stop[DM_COOC_ORDER_MAX + 1]; /* from the block's start */
    uint64_t before[DM_COOC_ORDER_MAX + 1];                          /* of the block */
};

static uint64_t number(struct unpack *u)
{
    if (u->p < u->end && *u->p < 128)
        return *u->p++;
    return dm_cooc_get_number(&u->p, u->end);
}

/* The entries of one list of order n, to its end mark. */
static bool get_list(struct unpack *u, size_t n)
{
    const bool leaf = n == u->r->order || n == DM_COOC_ORDER_MAX; // the compiler sees an end
    const uint64_t V = u->r->V, base = u->r->base[n];
    uint32_t *ids = u->out->id[n], *counts = u->out->count[n];
    uint64_t id = 0, i = u->at[n];
    const uint64_t stop = u->stop[n];
    for (;;) {
        const uint64_t head = number(u);
        if (!head || !u->p)
            break;
        uint64_t count = base;
        id += head >> 1;
        if (head & 1)
            count += number(u) + 1;
        if (head < 2 || !u->p || id >= V || count > UINT32_MAX || i == stop)
            return false;
        ids[i] = (uint32_t)id;
        counts[i] = (uint32_t)count;
        if (!leaf) {
            u->out->sub[n][i] = u->before[n + 1] + u->at[n + 1];
            if (!get_list(u, n + 1))
                return false;
        }
        i++;
    }
    u->at[n] = i;
    return u->p != NULL;
}

bool dm_cooc_unpack(const struct dm_cooc_reader *r, size_t b, const uint8_t *data, size_t n,
                    const struct dm_cooc_lists *out)
{
    struct unpack u = {.r = r, .p = data, .end = data + n, .out = out};
    for (size_t k = 2; k <= r->order; k++) {
        u.before[k] = dm_cooc_before(r, k, b);
        u.stop[k] = dm_cooc_before(r, k, b + 1) - u.before[k];
    }
    uint64_t row = dm_cooc_first_row(r, b);
    const uint64_t last = dm_cooc_first_row(r, b + 1);
    const bool last_ours = b + 1 == r->blocks || dm_cooc_goes_on(r, b + 1);
    for (bool first = true; u.p < u.end; first = false) {
        const uint64_t step = number(&u);
        if (!u.p || (first ? step : !step))
            return false;
        row += step;
        // other rows are other blocks', and maybe other threads'
        if (row > last || (row == last && !last_ours))
            return false;
        if (out->row && !(first && dm_cooc_goes_on(r, b)))
            out->row[row] = u.before[2] + u.at[2];
        const uint64_t at = u.at[2];
        if (!get_list(&u, 2) || u.at[2] == at)
            return false;
        for (uint64_t i = at; out->x1 && i < u.at[2]; i++)
            out->x1[i] = (uint32_t)row;
    }
    for (size_t k = 2; k <= r->order; k++)
        if (u.at[k] != u.stop[k])
            return false;
    return true;
}
