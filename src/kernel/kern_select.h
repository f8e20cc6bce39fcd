/* SPDX-License-Identifier: MIT */
/* kern_select.h - searching: the largest of many floats, and ids that belong to a small set. The
 * results are the same on all tables, but for the order of peaks and how tight a bound is. */
#ifndef DM_KERNEL_KERN_SELECT_H
#define DM_KERNEL_KERN_SELECT_H

#include <stddef.h>
#include <stdint.h>

#define DM_SELECT_GROUP 16
#define DM_SELECT_PEAKS(n) ((n) / DM_SELECT_GROUP + 16)
#define DM_SELECT_ROOM (16 * DM_SELECT_GROUP + 16)

/* For the largest of x (n), n >= 1, of which NaN is none. */
struct dm_kern_select {
    /* Cuts x into groups of at most DM_SELECT_GROUP elements and writes their maxima (-inf where
     * there is nothing); returns how many, at most DM_SELECT_PEAKS(n). The groups depend on the
     * table. */
    size_t (*peaks)(float *peak, const float *x, size_t n);

    /* A value that at least k of x, without NaN, reach, and little more than k if x has few equal
     * values; 1 <= k <= n. Every peak is one element, so that as many elements reach the bound of
     * the peaks. */
    float (*bound)(const float *x, size_t n, size_t k);

    /* The elements >= least in rising order from element *from on, which is 0 at first; goes on
     * until the end or until less than DM_SELECT_ROOM elements are free in id and value (room), and
     * sets *from to where to go on (n: done). peak as peaks left it. */
    size_t (*at_least)(int32_t *id, float *value, size_t room, const float *x, size_t n,
                       const float *peak, float least, size_t *from);

    /* The place of each element by falling value, ties by rising id; no NaN. */
    void (*rank)(uint32_t *rank, const float *value, const int32_t *id, size_t n);

    /* The indices of those 16-bit ids (n, of any alignment) whose bit is set: bit id / 64 % 16 of
     * set[id % 64]. at has room for n + 32. Returns how many. */
    size_t (*in)(uint32_t *at, const void *ids, size_t n, const uint16_t set[64]);
};

#endif
