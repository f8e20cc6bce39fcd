/* SPDX-License-Identifier: MIT */
/* cooc_pack.h - the numbers of a packed co-occurrence table (data/FORMAT.md), shared by what writes
 * and what reads it: seven bits a byte, the lowest first, the high bit where more follow. */
#ifndef DM_IO_COOC_PACK_H
#define DM_IO_COOC_PACK_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define DM_COOC_INDEX 4u       /* columns of the index */
#define DM_COOC_BLOCK_NAME 32u /* bytes of the name of a block's dataset */
#define DM_COOC_NUMBER_MAX 10u /* bytes of a number */

static inline void dm_cooc_block_name(char name[DM_COOC_BLOCK_NAME], size_t block)
{
    snprintf(name, DM_COOC_BLOCK_NAME, "data/%06zu", block);
}

/* Writes v and returns the bytes it took. */
static inline size_t dm_cooc_put_number(uint8_t *p, uint64_t v)
{
    size_t n = 0;
    for (; v > 127; v >>= 7)
        p[n++] = (uint8_t)(v | 128);
    p[n++] = (uint8_t)v;
    return n;
}

/* Reads a number of [*p, end); on a number that is cut off or above 2^35 *p becomes NULL. */
static inline uint64_t dm_cooc_get_number(const uint8_t **p, const uint8_t *end)
{
    const uint8_t *q = *p;
    uint64_t v = 0;
    for (unsigned shift = 0; q < end && shift <= 28; shift += 7) {
        const uint8_t b = *q++;
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128)) {
            *p = q;
            return v;
        }
    }
    *p = NULL;
    return 0;
}

#endif
