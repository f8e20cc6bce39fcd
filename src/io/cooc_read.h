/* SPDX-License-Identifier: MIT */
/* cooc_read.h - a co-occurrence table of version 2 block by block (data/FORMAT.md): for
 * dm_cooc_load(), and for merging tables that are larger than memory. */
#ifndef DM_IO_COOC_READ_H
#define DM_IO_COOC_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/io/cooc.h"
#include "src/io/h5.h"

/* What an open file says about itself, checked for sense. */
struct dm_cooc_reader {
    struct dm_h5 *f; /* borrowed */
    size_t V, order;
    uint64_t base[DM_COOC_ORDER_MAX + 1]; /* of counts, by order */
    size_t blocks;
    uint64_t *index;  /* (blocks + 1, DM_COOC_INDEX), ascending */
    size_t max_bytes; /* of a block */
};

/* V and order were read by the caller. DM_EFORMAT, DM_ESHAPE, DM_ENOMEM, DM_EIO; release with
 * dm_cooc_reader_release() after a failure too. */
enum dm_status dm_cooc_reader_init(struct dm_cooc_reader *r, struct dm_h5 *f, size_t V,
                                   size_t order, struct dm_err *e);
void dm_cooc_reader_release(struct dm_cooc_reader *r);

/* Entries of order n before block b; b = blocks: all. */
uint64_t dm_cooc_before(const struct dm_cooc_reader *r, size_t n, size_t b);

/* Block b's first row; b = blocks: the last token. */
uint32_t dm_cooc_first_row(const struct dm_cooc_reader *r, size_t b);

/* Whether block b's first row began in the block before. */
bool dm_cooc_goes_on(const struct dm_cooc_reader *r, size_t b);

/* Bytes of block b, heap memory of the caller; its hash has been checked. */
enum dm_status dm_cooc_read_block(struct dm_cooc_reader *r, size_t b, uint8_t **data, size_t *n,
                                  struct dm_err *e);

/* Where the entries go, by order 2..4: item 0 is the first of the block. sub[n] is where the list
 * below an entry of order n < order begins, counted from the start of the table. row (V) gets the
 * number of the first pair of every row that begins in the block, x1 the row of every pair; either
 * may be NULL. */
struct dm_cooc_lists {
    uint32_t *id[DM_COOC_ORDER_MAX + 1], *count[DM_COOC_ORDER_MAX + 1];
    uint64_t *sub[DM_COOC_ORDER_MAX + 1];
    uint64_t *row;
    uint32_t *x1;
};

/* Unpacks a block; false if it is malformed. Ids are < V and ascend, but counts are not compared.
 * May be called for different blocks by different threads. */
bool dm_cooc_unpack(const struct dm_cooc_reader *r, size_t b, const uint8_t *data, size_t n,
                    const struct dm_cooc_lists *out);

#endif
