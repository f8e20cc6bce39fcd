/* SPDX-License-Identifier: MIT */
/* threshold.h - the adaptive threshold: Otsu's method on the joint as a blurred 8-bit image.
 *
 * The image is 255 * J, J (d0,d1,d2) with sum <= 1, blurred along every axis by [1 2 1]/4 with the
 * border reflected without repeating the edge (an axis of one cell is left alone), rounded to
 * 8 bits. With d0 = 1 this is the two-token case, DynaMo figure 11.
 *
 * Since the cells sum to 1, at most 510 of them reach half a grey level; only their neighbourhood
 * can be other than 0 after the blur, and only it is computed. The result is the same as that of
 * the whole image. */
#ifndef DM_DECODE_THRESHOLD_H
#define DM_DECODE_THRESHOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DM_LEVEL_HALF (0.5 / 255.0) /* the probability that rounds up to grey level 1 */

/* A row is the d2 cells of one (i,j): row r = i * d1 + j. */
struct dm_grid {
    size_t d0, d1, d2; /* each >= 1 */
};

/* ext[r] (d0*d1): 1 + the last cell of row r with J >= half a level (a hair less, against
 * rounding), 0 if none. For a whole J; who can bound rows without looking may give larger ones. */
void dm_threshold_extents(uint16_t *ext, const double *J, struct dm_grid g);

/* reach[r] (d0*d1): cells k >= reach[r] of row r are 0 in the image, from ext as above. Row r of J
 * is read by dm_threshold_image() if it or one of its eight neighbours has reach > 0. */
void dm_threshold_reach(uint16_t *reach, const uint16_t *ext, struct dm_grid g, bool blur);

/* level[r*d2 + k] for k < reach[r] is written, the rest is left as it is and stands for 0; hist
 * (256) is written for the whole grid. row: scratch of d2 + 2 doubles. */
void dm_threshold_image(uint8_t *level, uint32_t *hist, const double *J, const uint16_t *reach,
                        struct dm_grid g, bool blur, double *row);

/* Otsu's threshold: the t that maximises the variance between levels <= t and levels > t, the
 * smallest if several do. -1 if all cells have one level: then there are no two classes, and
 * nothing should be removed. */
int dm_threshold_otsu(const uint32_t *hist);

#endif
