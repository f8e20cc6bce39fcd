/* SPDX-License-Identifier: MIT */
/* run.h - a sorted sequence of distinct keys with counts, packed, in memory or in a nameless file.
 *
 * An entry takes one byte for the length of the key's difference and the count, the difference (1
 * to 8 bytes), and 4 bytes more for a count above 30: about 4 bytes for n-grams of text. Blocks of
 * up to DM_RUN_BLOCK entries are indexed by their first key, so any range of keys can be read
 * alone. */
#ifndef DM_DATA_RUN_H
#define DM_DATA_RUN_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#define DM_RUN_BLOCK 1024u
#define DM_RUN_ENTRY_MAX 13u /* bytes of an entry */
#define DM_RUN_PAD 8u        /* readable bytes behind packed entries */

/* Plain entries, keys ascending. */
struct dm_counts {
    uint64_t *key;
    uint32_t *count; /* > 0 */
    size_t n;
};

struct dm_run {
    uint8_t *data; /* (bytes + DM_RUN_PAD), NULL when the run is in a file */
    int fd;        /* -1: in memory */
    size_t bytes, n, blocks;
    uint64_t *first; /* (blocks) first keys, ascending */
    uint64_t *at;    /* (blocks + 1) where they begin */
};

/* Packs sorted entries into out (n * DM_RUN_ENTRY_MAX + DM_RUN_PAD bytes are always enough) and
 * returns the bytes written; first and at (n / DM_RUN_BLOCK + 1 and one more) are filled. */
size_t dm_run_pack(uint8_t *out, uint64_t *first, uint64_t *at, const struct dm_counts *c);

/* The same from sorted keys that may repeat: the count is how often. *distinct comes back. */
size_t dm_run_pack_keys(uint8_t *out, uint64_t *first, uint64_t *at, const uint64_t *key, size_t n,
                        size_t *distinct);

/* Blocks [*begin, *end) are those that may hold keys of [lo, hi); hi = 0 means no upper end. */
void dm_run_blocks(const struct dm_run *r, uint64_t lo, uint64_t hi, size_t *begin, size_t *end);

/* Appends the entries with keys in [lo, hi) to c, which has room for all of those blocks. scratch
 * (n_scratch bytes, at least one packed block and DM_RUN_PAD) is for reading files. DM_EIO. */
enum dm_status dm_run_read(const struct dm_run *r, uint64_t lo, uint64_t hi, struct dm_counts *c,
                           uint8_t *scratch, size_t n_scratch, struct dm_err *e);

void dm_run_release(struct dm_run *r);

/* Bytes of memory that a run holds. */
size_t dm_run_held(const struct dm_run *r);

#endif
