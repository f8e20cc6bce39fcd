/* SPDX-License-Identifier: MIT */
/* lookup.h - which entries of a sorted table row are candidates of a head, and which ones. */
#ifndef DM_DECODE_LOOKUP_H
#define DM_DECODE_LOOKUP_H

#include "src/base/status.h"
#include "src/decode/candidates.h"

struct dm_lookup {
    size_t V, n;
    uint64_t *bits;                  /* (V/64) set for candidates: small enough for the L1 cache */
    uint16_t *pos;                   /* (V) position of a candidate; valid where the bit is set */
    uint32_t sorted[DM_TOP_K_MAX];   /* (n) the ids, rising */
    uint32_t at_least[DM_TOP_K_MAX]; /* (n) scratch of the search */
};

/* For ids < V. DM_ENOMEM; release with dm_lookup_release() in any case. */
enum dm_status dm_lookup_init(struct dm_lookup *l, size_t V, struct dm_err *e);
void dm_lookup_release(struct dm_lookup *l);

/* Replaces the candidates. */
void dm_lookup_set(struct dm_lookup *l, const struct dm_cand *c);

/* x (n) rising ids, of any size. Each x[at[m]] is the candidate at position pos[m]; returns how
 * many there are, at most the number of candidates. pos has room for DM_TOP_K_MAX entries, at for
 * one more. */
size_t dm_lookup_row(struct dm_lookup *l, const uint32_t *x, size_t n, uint16_t *pos, uint32_t *at);

#endif
