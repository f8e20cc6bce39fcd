/* SPDX-License-Identifier: MIT */
#include "src/io/raw_tensor.h"

#include <assert.h>
#include <string.h>

#include "src/base/file.h"

enum { DROP_BYTES = 8 << 20 };

void dm_raw_gather(void *dst, const struct dm_raw_tensor *t)
{
    const size_t size = dm_dtype_size(t->dtype);
    assert(t->usable && t->strided && (t->rank == 1 || t->rank == 2));
    const size_t rows = t->rank == 2 ? t->dim[0] : 1, cols = t->dim[t->rank - 1];
    const size_t row_step = t->rank == 2 ? t->stride[0] : 0, col_step = t->stride[t->rank - 1];
    // The axis with the longer steps is the outer one: for a transposed matrix, its columns.
    const bool by_row = row_step >= col_step;
    const size_t n_outer = by_row ? rows : cols, n_inner = by_row ? cols : rows;
    const size_t outer = by_row ? row_step : col_step, inner = by_row ? col_step : row_step;
    const size_t to_outer = by_row ? cols : 1, to_inner = by_row ? 1 : cols;
    size_t dropped = 0;
    for (size_t i = 0; i < n_outer; i++) {
        const uint8_t *from = t->data + i * outer * size;
        char *to = (char *)dst + i * to_outer * size;
        for (size_t k = 0; k < n_inner; k++)
            memcpy(to + k * to_inner * size, from + k * inner * size, size);
        if ((i * outer) * size - dropped >= DROP_BYTES) {
            dm_map_drop(t->data + dropped, i * outer * size - dropped);
            dropped = i * outer * size;
        }
    }
}
