/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/rng.h"

/* HDF5 itself leaks when it gives up on a damaged file; LeakSanitizer calls this if it is there. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5\n";
}

void fill_named(float *x, size_t n, const char *name, float scale)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    for (size_t i = 0; i < n; i++) {
        const double u = (double)(dm_mix64(h + i) >> 40) * 0x1p-24;
        x[i] = (float)((double)scale * (2.0 * u - 1.0));
    }
}

void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("got %.17g, want %.17g +- %g", got, want, tolerance);
}

void assert_close(const float *got, const float *want, size_t n, double rtol, double scale)
{
    for (size_t i = 0; i < n; i++) {
        const double diff = fabs((double)got[i] - (double)want[i]);
        const double size = fmax(fabs((double)want[i]), scale);
        if (!(diff <= rtol * size))
            fail_msg("element %zu of %zu: got %.9g, want %.9g (off by %.3g, allowed %.3g)", i, n,
                     (double)got[i], (double)want[i], diff, rtol * size);
    }
}

void assert_grad(loss_fn *loss, void *ctx, float *x, const float *dx, size_t n, double rtol)
{
    float *x0 = malloc(n * sizeof(*x0));
    struct dm_rng r;
    assert_non_null(x0);
    memcpy(x0, x, n * sizeof(*x0));
    dm_rng_init(&r, 7, n);
    for (int dir = 0; dir < 8; dir++) {
        const float h = 0x1p-9f;
        double want = 0.0, size = 0.0, side[2];
        signed char *sign = malloc(n);
        assert_non_null(sign);
        for (size_t i = 0; i < n; i++) {
            sign[i] = dm_rng_u64(&r) >> 63 ? 1 : -1;
            want += sign[i] * (double)dx[i];
            size += fabs((double)dx[i]);
        }
        for (int s = 0; s < 2; s++) {
            for (size_t i = 0; i < n; i++)
                x[i] = x0[i] + (s ? -h : h) * (float)sign[i];
            side[s] = loss(ctx);
        }
        memcpy(x, x0, n * sizeof(*x0));
        const double got = (side[0] - side[1]) / (2.0 * (double)h);
        free(sign);
        // The sum of |dx| is the size of a typical wrong answer; its root mean square the noise's.
        const double allowed = rtol * fmax(fabs(want), size / sqrt((double)n));
        if (!(fabs(got - want) <= allowed))
            fail_msg("direction %d: difference quotient %.9g, gradient %.9g, allowed %.3g", dir,
                     got, want, allowed);
    }
    free(x0);
}

/* Upper 0.1 % point of chi-square, Wilson and Hilferty's approximation. */
static double chi_square_limit(double dof)
{
    const double c = 2 / (9 * dof), x = 1 - c + 3.0902 * sqrt(c);
    return dof * x * x * x;
}

void assert_frequencies(const size_t *count, const double *p, size_t n, size_t draws)
{
    double chi = 0;
    size_t dof = 0;
    for (size_t i = 0; i < n; i++) {
        const double want = p[i] * (double)draws;
        if (want == 0) {
            assert_int_equal(count[i], 0);
            continue;
        }
        assert_true(want > 5);
        chi += ((double)count[i] - want) * ((double)count[i] - want) / want;
        dof++;
    }
    assert_true(dof > 1);
    if (chi > chi_square_limit((double)dof - 1))
        fail_msg("chi-square %g with %zu degrees of freedom", chi, dof - 1);
}

static char tmp_dir[64];

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    (void)s;
    (void)flag;
    (void)f;
    return remove(path);
}

static void remove_tmp(void)
{
    nftw(tmp_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *tmp_path(const char *name)
{
    static char path[8][512];
    static unsigned next;
    if (!tmp_dir[0]) {
        snprintf(tmp_dir, sizeof(tmp_dir), "/tmp/dynamo-test-XXXXXX");
        assert_non_null(mkdtemp(tmp_dir));
        atexit(remove_tmp);
    }
    char *p = path[next++ % 8];
    snprintf(p, sizeof(path[0]), "%s/%s", tmp_dir, name);
    return p;
}

void write_scratch(const char *path, const void *data, size_t n)
{
    unlink(path); // ext4 waits for the disk when a file is truncated and written anew
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

const char *shared_path(const char *name)
{
    static char path[8][512];
    static unsigned next;
    const char *dir = getenv("DM_SHARED");
    char *p = path[next++ % 8];
    snprintf(p, sizeof(path[0]), "%s/%s", dir ? dir : "../shared/data", name);
    return access(p, R_OK) ? NULL : p;
}
