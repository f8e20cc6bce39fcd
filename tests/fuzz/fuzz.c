/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int fd = -1;
static char path[64];

static void remove_file(void)
{
    unlink(path);
}

const char *fuzz_file(const uint8_t *data, size_t n)
{
    if (fd < 0) {
        // HDF5 wants a name that it can resolve, which memfd_create() does not give.
        snprintf(path, sizeof(path), "%s/dynamo-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
        fd = mkstemp(path);
        atexit(remove_file);
    }
    if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, n, 0) != (ssize_t)n)
        abort();
    return path;
}

void fuzz_touch(const void *data, size_t n)
{
    static volatile uint8_t sum;
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + p[i]);
}

void fuzz_tensors(const struct dm_raw_tensor *t, size_t n)
{
    const size_t most = 1 << 20; // an expanded tensor is larger than its file
    for (size_t i = 0; i < n; i++) {
        if (!t[i].strided)
            fuzz_touch(t[i].data, t[i].n_bytes);
        else if (t[i].usable && (t[i].rank == 1 || t[i].rank == 2) && t[i].n_bytes <= most) {
            void *copy = malloc(t[i].n_bytes + 1);
            if (!copy)
                abort();
            dm_raw_gather(copy, t + i);
            fuzz_touch(copy, t[i].n_bytes);
            free(copy);
        }
    }
}
