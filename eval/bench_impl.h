/* SPDX-License-Identifier: MIT */
/* bench_impl.h - between the files of the benchmark. */
#ifndef DM_EVAL_BENCH_IMPL_H
#define DM_EVAL_BENCH_IMPL_H

#include "eval/bench.h"

/* Announces a measurement; DM_ESTOPPED when the caller wants no more. */
enum dm_status dm_bench_next(struct dm_bench *b, enum dm_bench_what what, const char *text,
                             struct dm_err *e);

/* A new row at the end, with the number of threads in use; NULL when out of memory. Valid until the
 * next one. */
struct dm_bench_row *dm_bench_row_new(struct dm_bench *b, enum dm_bench_what what, const char *name,
                                      int fmt);
/* Adds the spread of n runs. */
void dm_bench_row_add(struct dm_bench_row *r, const char *name, const double *x, size_t n);
/* The same of a rate, of its limit beside each run, and of the ratio of the two, "share". */
void dm_bench_row_add_share(struct dm_bench_row *r, const char *rate_name, const double *rate,
                            const char *limit_name, const double *limit, size_t n);

/* The spread of a row's value, or NULL. */
const struct dm_bench_spread *dm_bench_value(const struct dm_bench_row *r, const char *name);

/* The memory that probes read: made on the first call, for the largest thread count. */
enum dm_status dm_bench_need_mem(struct dm_bench *b, struct dm_err *e);
void dm_bench_drop_mem(struct dm_bench *b);
/* GB/s now, over 128 MiB that no cache holds. */
double dm_bench_probe(struct dm_bench *b);
/* GB/s now of what reads the same `bytes` again and again, as decoding reads its weights: what
 * stays in a cache of theirs does so of the probe's. Beyond 1 GiB, which no cache is taken to hold
 * a part of, dm_bench_probe(). 20 to 300 ms. */
double dm_bench_probe_again(struct dm_bench *b, size_t bytes);

/* Whether to read `bytes` once more before they are timed, after n times and `seconds`: a cache
 * shared by many cores takes up new memory only bit by bit. On a Xeon with 480 MiB of L3 a step of
 * 51 MB ran at 0.8 of its speed after one such pass, at full speed after 20; one of 93 MB at 0.5
 * after one, 0.65 after 20 and full speed after 40 to 100. */
bool dm_bench_warm(const struct dm_bench *b, size_t bytes, size_t n, double seconds);

/* A run is cut into slices, each between two probes: the memory of a shared machine changes its
 * speed within some ten milliseconds. */
enum { DM_BENCH_SLICES = 4 };

/* Sets dm_par_set_threads() to the i-th count of the options. */
void dm_bench_use_threads(const struct dm_bench *b, size_t i);

/* The model in a format: the file's, or random weights. Release with dm_model_release(). */
enum dm_status dm_bench_model(struct dm_bench *b, struct dm_model *m, enum dm_format fmt,
                              struct dm_err *e);

/* Reads the files of peers that the options name. DM_EIO, DM_EFORMAT, DM_ERANGE, DM_ENOMEM. */
enum dm_status dm_bench_read_peers(struct dm_bench *b, struct dm_err *e);
/* Those, or the built-in ones if no file was named. */
const struct dm_bench_peer *dm_bench_peers(const struct dm_bench *b, size_t *n);

/* Deterministic numbers in [-1, 1); ids below V. */
void dm_bench_fill(float *x, size_t n, uint64_t stream);
void dm_bench_ids(int32_t *ids, size_t n, size_t V, uint64_t stream);

/* VmHWM of this process in bytes, 0 if unknown; reset starts it again from what is in use. */
size_t dm_bench_peak_memory(void);
void dm_bench_reset_peak_memory(void);

enum dm_status dm_bench_limits(struct dm_bench *b, struct dm_err *e);
enum dm_status dm_bench_gemm(struct dm_bench *b, struct dm_err *e);
enum dm_status dm_bench_few(struct dm_bench *b, struct dm_err *e);
enum dm_status dm_bench_decode(struct dm_bench *b, struct dm_err *e); /* and chunks and heads */
enum dm_status dm_bench_joint(struct dm_bench *b, struct dm_err *e);
enum dm_status dm_bench_train(struct dm_bench *b, struct dm_err *e);
enum dm_status dm_bench_load(struct dm_bench *b, struct dm_err *e);
enum dm_status dm_bench_speedup(struct dm_bench *b, struct dm_err *e);

#endif
