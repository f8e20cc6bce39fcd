/* SPDX-License-Identifier: MIT */
/* lookup.h - which ids of a table's row are candidates of a head, and which ones. */
#ifndef DM_DECODE_LOOKUP_H
#define DM_DECODE_LOOKUP_H

#include "src/base/status.h"
#include "src/decode/candidates.h"
#include "src/io/cooc.h"
#include "src/kernel/kern.h"

#define DM_LOOKUP_SCRATCH (4096 + 32)

struct dm_lookup {
    size_t room, n;
    uint16_t set[64];          /* the candidates' buckets, for dm_kern's select_in */
    uint64_t *bits;            /* (room/64) set for candidates: small enough for the L1 cache */
    uint16_t *pos;             /* (room) position of a candidate */
    uint32_t id[DM_TOP_K_MAX]; /* (n) */
    const struct dm_kern_select *kern;
};

/* For candidates < V. DM_ENOMEM; release with dm_lookup_release() in any case. */
enum dm_status dm_lookup_init(struct dm_lookup *l, size_t V, struct dm_err *e);
void dm_lookup_release(struct dm_lookup *l);

/* Replaces the candidates. */
void dm_lookup_set(struct dm_lookup *l, const struct dm_cand *c);

/* ids (n) distinct, of 2 or 4 bytes each, n < 2^32: the at[m]-th is the candidate at position
 * pos[m]; returns how many there are, at most the number of candidates. pos and at have room for
 * one more. scratch (DM_LOOKUP_SCRATCH) is each thread's own. */
size_t dm_lookup_row(const struct dm_lookup *l, const void *ids, size_t id_bytes, size_t n,
                     uint16_t *pos, uint32_t *at, uint32_t *scratch);

/* Asks for what dm_lookup_pairs() will read of the row, whose c->rows[x1] is at hand. */
void dm_lookup_prefetch(const struct dm_lookup *l, const struct dm_cooc *c, uint32_t x1);

/* dm_lookup_row() for the table's pairs of x1 < c->V; at counts from the row's first pair. */
size_t dm_lookup_pairs(const struct dm_lookup *l, const struct dm_cooc *c, uint32_t x1,
                       uint16_t *pos, uint32_t *at, uint32_t *scratch);

#endif
