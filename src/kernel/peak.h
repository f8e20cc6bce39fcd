/* SPDX-License-Identifier: MIT */
/* peak.h - what this machine can do at most, measured: the limits that timings are compared with.
 *
 * Clock and memory speed of shared machines drift within seconds, so measure the limit right beside
 * the thing that is compared with it. All of it runs on dm_par_threads() threads. */
#ifndef DM_KERNEL_PEAK_H
#define DM_KERNEL_PEAK_H

#include <stddef.h>

#include "src/base/status.h"
#include "src/kernel/format.h"

/* GFLOP/s (f32, bf16) or GOP/s (int8, int4) of the inner operation that the table in use has for a
 * format, on registers alone; a multiply-add counts 2. A few milliseconds. */
double dm_peak_flops(enum dm_format fmt);

/* The operation that dm_peak_flops() repeats, such as "vfmadd231ps zmm". */
const char *dm_peak_operation(enum dm_format fmt);

/* Memory to read from: anonymous, in huge pages where the system gives them, every page touched by
 * the thread that reads it. */
struct dm_peak_mem {
    void *p;
    size_t bytes;
};

/* 2 GiB shows memory and no cache; at least 64 MiB per thread should be asked for. Rounded up to a
 * multiple of 2 MiB. DM_ENOMEM. Release with dm_peak_mem_release(). */
enum dm_status dm_peak_mem_init(struct dm_peak_mem *m, size_t bytes, struct dm_err *e);
void dm_peak_mem_release(struct dm_peak_mem *m);

/* GB/s (10^9 bytes) of reading m once: every thread reads one sequential stream. 2 GiB take 35 to
 * 100 ms. */
double dm_peak_bandwidth(const struct dm_peak_mem *m);

/* Seconds of an empty parallel region: what every parallel loop costs at least. */
double dm_peak_fork_join(void);

#endif
