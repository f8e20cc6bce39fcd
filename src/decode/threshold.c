/* SPDX-License-Identifier: MIT */
#include "src/decode/threshold.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Blurring is an average, so a cell whose neighbourhood stays below half a level rounds to 0. The
 * factor leaves room for the rounding errors of that average, some 1e-15. */
#define HEAVY (DM_LEVEL_HALF * (1 - 1e-9))

void dm_threshold_extents(uint16_t *ext, const double *J, struct dm_grid g)
{
    for (size_t r = 0; r < g.d0 * g.d1; r++) {
        size_t n = g.d2;
        while (n > 0 && J[r * g.d2 + n - 1] < HEAVY)
            n--;
        ext[r] = (uint16_t)n;
    }
}

/* The larger of each row's extents and those of its neighbours along one axis: n rows, `stride`
 * apart. */
static void dilate(uint16_t *ext, size_t n, size_t stride)
{
    uint16_t before = 0;
    for (size_t i = 0; i < n; i++) {
        const uint16_t here = ext[i * stride];
        const uint16_t after = i + 1 < n ? ext[(i + 1) * stride] : 0;
        uint16_t m = here > before ? here : before;
        ext[i * stride] = m > after ? m : after;
        before = here;
    }
}

void dm_threshold_reach(uint16_t *reach, const uint16_t *ext, struct dm_grid g, bool blur)
{
    const size_t rows = g.d0 * g.d1;
    memcpy(reach, ext, rows * sizeof(*ext));
    if (!blur)
        return;
    for (size_t i = 0; i < g.d0; i++)
        dilate(reach + i * g.d1, g.d1, 1);
    for (size_t j = 0; g.d0 > 1 && j < g.d1; j++)
        dilate(reach + j, g.d0, g.d1);
    for (size_t r = 0; r < rows; r++)
        if (reach[r] && reach[r] < g.d2)
            reach[r]++; // the blur along the row itself
}

/* Index of the cell at i + step (step -1, 0, 1) on an axis of n, reflected at both ends. */
static size_t reflect(size_t i, int step, size_t n)
{
    if (n == 1)
        return 0;
    if (step < 0)
        return i ? i - 1 : 1;
    if (step > 0)
        return i + 1 < n ? i + 1 : n - 2;
    return i;
}

/* t[0..n) = row (i,j) blurred over the first two axes, three rows of J at a time. */
static void blur_rows(double *restrict t, const double *J, size_t i, size_t j, size_t n,
                      struct dm_grid g)
{
    static const double tap[3] = {0.25, 0.5, 0.25};
    const size_t up = reflect(i, -1, g.d0) * g.d1, down = reflect(i, 1, g.d0) * g.d1;
    memset(t, 0, n * sizeof(*t));
    for (int dj = -1; dj <= 1; dj++) {
        const size_t at = reflect(j, dj, g.d1);
        const double w = tap[dj + 1];
        const double *x = J + (i * g.d1 + at) * g.d2;
        const double *x0 = J + (up + at) * g.d2, *x1 = J + (down + at) * g.d2;
        if (g.d0 == 1)
            for (size_t k = 0; k < n; k++)
                t[k] += w * x[k];
        else
            for (size_t k = 0; k < n; k++)
                t[k] += w * (0.5 * x[k] + 0.25 * (x0[k] + x1[k]));
    }
}

/* Levels of x (w of n numbers in [0, 1]), blurred along it or not: the nearest whole number, ties
 * to even, of 255 x. Adding 1.5 * 2^52 leaves it in the low bits. */
static void round_row(uint8_t *restrict level, const double *restrict x, size_t w, size_t n,
                      bool blur)
{
    const double magic = 0x1.8p52;
    for (size_t k = 0; k < w; k++) {
        double v = x[k];
        if (blur && k && k + 1 < n)
            v = 0.5 * v + 0.25 * (x[k - 1] + x[k + 1]);
        else if (blur)
            v = 0.5 * v + 0.25 * (x[reflect(k, -1, n)] + x[reflect(k, 1, n)]);
        const double shifted = 255 * v + magic;
        uint64_t bits;
        memcpy(&bits, &shifted, sizeof(bits));
        level[k] = (uint8_t)bits;
    }
}

void dm_threshold_image(uint8_t *level, uint32_t *hist, const double *J, const uint16_t *reach,
                        struct dm_grid g, bool blur, double *row)
{
    const size_t rows = g.d0 * g.d1;
    size_t zeros = rows * g.d2;
    memset(hist, 0, 256 * sizeof(*hist));
    for (size_t r = 0; r < rows; r++) {
        const size_t w = reach[r];
        if (!w)
            continue;
        const double *x = J + r * g.d2;
        if (blur) {
            blur_rows(row, J, r / g.d1, r % g.d1, w < g.d2 ? w + 1 : w, g);
            x = row;
        }
        uint8_t *out = level + r * g.d2;
        round_row(out, x, w, g.d2, blur);
        for (size_t k = 0; k < w; k++)
            hist[out[k]]++;
        zeros -= w;
    }
    hist[0] += (uint32_t)zeros;
}

int dm_threshold_otsu(const uint32_t *hist)
{
    double n = 0, sum = 0;
    for (int t = 0; t < 256; t++) {
        n += hist[t];
        sum += (double)t * hist[t];
    }
    // variance between the classes = (n s0 - n0 sum)^2 / (n^2 n0 n1), and n^2 is common to all t;
    // counts and d are whole numbers under 2^53, so thresholds that part the cells alike tie
    // exactly
    double n0 = 0, s0 = 0, best = -1;
    int threshold = -1;
    for (int t = 0; t < 255; t++) {
        n0 += hist[t];
        s0 += (double)t * hist[t];
        if (n0 == 0 || n0 == n)
            continue;
        const double d = n * s0 - n0 * sum, v = d * d / (n0 * (n - n0));
        if (v > best) {
            best = v;
            threshold = t;
        }
    }
    return threshold;
}
