/* SPDX-License-Identifier: MIT */
/* bench.h - what this machine does with a model, as a share of what it can do.
 *
 * Every figure is the minimum, median and maximum of at least 5 runs, and its limit (peak loop or
 * bandwidth probe, src/kernel/peak.h) is measured right beside each run: a shared machine drifts
 * within seconds. */
#ifndef DM_EVAL_BENCH_H
#define DM_EVAL_BENCH_H

#include <jansson.h>
#include <stdio.h>

#include "src/kernel/format.h"
#include "src/kernel/peak.h"
#include "src/model/model.h"

/* section, its word on the command line, its title */
#define DM_BENCH_LIST(X)                                                         \
    X(LIMITS, "limits", "Limits of this machine")                                \
    X(GEMM, "gemm", "Matrix products, share of the peak loop")                   \
    X(FEW, "few", "Few rows, share of the bandwidth probe")                      \
    X(DECODE, "decode", "One token at a time, share of the bandwidth probe")     \
    X(CHUNK, "chunks", "Chunks of tokens, time over that of one token")          \
    X(HEADS, "heads", "All heads, time over one token plus the extra bytes")     \
    X(JOINT, "joint", "Joint distribution of a step, share of a one-token step") \
    X(TRAIN, "train", "Training step, share of the peak loop (MFU)")             \
    X(LOAD, "load", "Loading the model")                                         \
    X(SPEEDUP, "speedup", "DynaMo against one token at a time, the same prompts")

enum dm_bench_what {
#define X(id, word, title) DM_BENCH_##id,
    DM_BENCH_LIST(X)
#undef X
        DM_BENCH_N
};
extern const char *const dm_bench_words[DM_BENCH_N];
extern const char *const dm_bench_titles[DM_BENCH_N];
extern const char *const dm_bench_formats[]; /* "f32", .., by enum dm_format; NULL-terminated */

enum { DM_BENCH_RUNS_MAX = 64, DM_BENCH_VALUES = 6, DM_BENCH_THREADS = 8, DM_BENCH_FORMATS = 4 };
enum { DM_BENCH_PEER_FILES = 8 };

struct dm_bench_spread {
    double min, median, max;
};

/* One measurement. The last value is the one to look at: the share of a limit, or a ratio. */
struct dm_bench_row {
    enum dm_bench_what what;
    char name[80];
    int fmt; /* enum dm_format, -1 where it does not matter */
    size_t threads, n_values;
    struct {
        const char *name; /* "gflops", "peak_gflops", "share", .. */
        struct dm_bench_spread s;
    } value[DM_BENCH_VALUES];
};

struct dm_bench_opt {
    const char *model;    /* file, or NULL: random weights of the shape cfg */
    struct dm_config cfg; /* K = 3 heads for a random model; the file's otherwise */
    const char *cooc;     /* table for joint and speedup; NULL: a synthetic one, and none */
    const char *data;     /* shard with prompts for speedup; NULL: the model writes them itself */
    const char *peers[DM_BENCH_PEER_FILES]; /* figures of other programs, as JSON */
    size_t n_peers;                         /* 0: the built-in ones */
    bool fmt[DM_BENCH_FORMATS];
    bool what[DM_BENCH_N];
    size_t threads[DM_BENCH_THREADS], n_threads;
    size_t runs;
    bool quick; /* small probes and batches: shows that it works, not how fast */
};

/* f32 and bf16 and int8 and int4, 1 thread and all, everything, 5 runs, cfg 70m with 3 heads. */
struct dm_bench_opt dm_bench_opt_default(void);

/* One optimiser step on a batch, as the caller's trainer does it: this directory does not know
 * training. */
struct dm_bench_trainer {
    /* A trainer for m, which is borrowed, with batches (B,T); its products are in fmt. */
    enum dm_status (*begin)(void **trainer, struct dm_model *m, enum dm_pass_kind kind, size_t B,
                            size_t T, struct dm_err *e);
    enum dm_status (*step)(void *trainer, const int32_t *ids, size_t B, struct dm_err *e);
    void (*end)(void *trainer);
};

/* What another program reaches. */
enum dm_bench_job { DM_BENCH_JOB_DECODE, DM_BENCH_JOB_HEADS, DM_BENCH_JOB_WHOLE };
struct dm_bench_peer {
    char size[16], who[48];
    char machine[64]; /* a part of the processor's name; empty: this machine */
    char file[64];    /* where it is from; empty: built in */
    enum dm_bench_job job;
    enum dm_format fmt;
    size_t threads;
    struct dm_bench_spread tokens_per_s;
    double peak_mb; /* 0: unknown */
};

struct dm_bench;

/* Before each measurement `row` is NULL and `what`, `text` say what comes; after a section its rows
 * are there and text is NULL. False stops with DM_ESTOPPED. */
typedef bool dm_bench_fn(void *ctx, const struct dm_bench *b, enum dm_bench_what what,
                         const char *text);

struct dm_bench {
    struct dm_bench_opt opt;
    const char *size; /* the published size that cfg has, such as "70m", or NULL */
    struct dm_bench_row *rows;
    size_t n_rows, cap;
    struct dm_peak_mem mem; /* what the probes read; empty between sections that need none */
    size_t probe_at;        /* where the next one begins */
    struct dm_bench_peer *peers;
    size_t n_peers;
    char cpu[96]; /* the processor's name, empty if unknown */
    const struct dm_bench_trainer *trainer;
    dm_bench_fn *fn;
    void *ctx;
};

/* Runs the sections that opt asks for; trainer may be NULL (no training section), fn too. The rows
 * of what was measured are there after a failure too. Release with dm_bench_release() in any case.
 */
enum dm_status dm_bench_run(struct dm_bench *b, const struct dm_bench_opt *opt,
                            const struct dm_bench_trainer *trainer, dm_bench_fn *fn, void *ctx,
                            struct dm_err *e);
void dm_bench_release(struct dm_bench *b);

/* ---- Goals ----------------------------------------------------------------------------------- */

struct dm_bench_goal {
    char name[400];
    bool at_most;   /* reached <= goal; otherwise >= */
    bool elsewhere; /* compared with another machine's figure: met or not, it says little */
    double goal;
    struct dm_bench_spread reached; /* of the worst row */
};

/* The project's goals that the rows can judge, for each thread count or as the goal says; at most
 * max are written, the number is returned. The figures of a quick run mean nothing: it is not to be
 * judged. */
size_t dm_bench_goals(const struct dm_bench *b, struct dm_bench_goal *out, size_t max);
/* By the median of the runs. */
bool dm_bench_goal_met(const struct dm_bench_goal *g);
enum { DM_BENCH_GOALS_MAX = 128 };

/* ---- Reports --------------------------------------------------------------------------------- */

/* One section (nothing if it has no rows): medians, and minimum and maximum of the last column. */
void dm_bench_print(const struct dm_bench *b, enum dm_bench_what what, FILE *out);
void dm_bench_print_goals(const struct dm_bench *b, FILE *out);

/* Everything: {version, machine, config, .., sections: {gemm: [..]}, goals: [..]}; each figure is
 * [min, median, max]. A goal's `met` is null where it is not judged: in a quick run, and beside
 * another machine's figures. New reference, NULL when out of memory. */
json_t *dm_bench_to_json(const struct dm_bench *b);

/* Bars of all shares of a limit, as SVG, by rename. */
enum dm_status dm_bench_write_svg(const struct dm_bench *b, const char *path, struct dm_err *e);

#endif
