/* SPDX-License-Identifier: MIT */
#include "train/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "train/tensorboard.h"

enum { CSV, JSONL, N_FILES };
const char *const dm_log_suffix[DM_LOG_NAMES] = {".csv", ".jsonl", ".tb"};
static const char *const line_start[N_FILES] = {"", "{\"step\":"};

struct dm_log {
    char *path[N_FILES];
    FILE *f[N_FILES];
    struct dm_tb *tb;
    size_t K;
};

void dm_log_close(struct dm_log *l)
{
    if (!l)
        return;
    for (int i = 0; i < N_FILES; i++) {
        if (l->f[i])
            fclose(l->f[i]);
        free(l->path[i]);
    }
    dm_tb_close(l->tb);
    free(l);
}

/* Length of the part of an old log to keep: whole lines that are the header or have a step of at
 * most `step`. */
static size_t kept(const char *text, size_t n, const char *start, size_t step)
{
    size_t at = 0;
    while (at < n) {
        const char *line = text + at, *end = memchr(line, '\n', n - at);
        const size_t skip = strlen(start);
        if (!end)
            break;
        if ((size_t)(end - line) > skip && !memcmp(line, start, skip)) {
            char *stop;
            const unsigned long long s = strtoull(line + skip, &stop, 10);
            if (stop != line + skip && s > step)
                break;
        }
        at = (size_t)(end - text) + 1;
    }
    return at;
}

static enum dm_status trim(const char *path, const char *start, size_t step, struct dm_err *e)
{
    char *text;
    size_t n;
    if (access(path, F_OK))
        return DM_OK; // the log was moved away; begin a new one
    DM_TRY(dm_file_read(path, (size_t)1 << 30, &text, &n, e));
    enum dm_status st = dm_file_write(path, text, kept(text, n, start, step), e);
    free(text);
    return st;
}

static enum dm_status open_file(struct dm_log *l, int i, const char *prefix, size_t step,
                                struct dm_err *e)
{
    if (asprintf(&l->path[i], "%s%s", prefix, dm_log_suffix[i]) < 0) {
        l->path[i] = NULL;
        return dm_fail(e, DM_ENOMEM, "out of memory");
    }
    if (step)
        DM_TRY(trim(l->path[i], line_start[i], step, e));
    l->f[i] = fopen(l->path[i], step ? "ae" : "we");
    return l->f[i] ? DM_OK : dm_fail_errno(e, "%s: cannot write", l->path[i]);
}

static void write_header(FILE *f, size_t K)
{
    fputs("step,tokens,seconds,lr", f);
    for (size_t n = 1; n <= K; n++)
        fprintf(f, ",loss_%zu", n);
    fputs(",grad_norm,tokens_per_second,mfu,val_windows", f);
    for (size_t n = 1; n <= K; n++)
        fprintf(f, ",val_ppl_%zu", n);
    for (size_t n = 2; n <= K; n++)
        fprintf(f, ",val_ppl_1:%zu", n);
    fputc('\n', f);
}

static double wall_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum dm_status open_tensorboard(struct dm_log *l, const char *prefix, size_t step,
                                       struct dm_err *e)
{
    char *dir;
    if (asprintf(&dir, "%s%s", prefix, dm_log_suffix[N_FILES]) < 0)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    const enum dm_status st = dm_tb_open(&l->tb, dir, step, wall_clock(), e);
    free(dir);
    return st;
}

enum dm_status dm_log_open(struct dm_log **out, const char *prefix, size_t K, size_t step,
                           struct dm_err *e)
{
    enum dm_status st = DM_OK;
    struct dm_log *l = dm_alloc(1, sizeof(*l));
    *out = NULL;
    if (!l)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    l->K = K;
    for (int i = 0; i < N_FILES; i++)
        DM_TRY_GOTO(open_file(l, i, prefix, step, e));
    DM_TRY_GOTO(open_tensorboard(l, prefix, step, e));
    if (fseek(l->f[CSV], 0, SEEK_END) || ftell(l->f[CSV]) == 0)
        write_header(l->f[CSV], K);
    *out = l;
    l = NULL;
done:
    dm_log_close(l);
    return st;
}

/* An empty cell stands for a number that there is not. */
static void put(FILE *f, double x)
{
    if (isfinite(x))
        fprintf(f, ",%.9g", x);
    else
        fputc(',', f);
}

static void write_csv(FILE *f, const struct dm_log_row *r, size_t K)
{
    fprintf(f, "%zu,%zu,%.3f,%.9g", r->step, r->tokens, r->seconds, r->lr);
    for (size_t n = 0; n < K; n++)
        put(f, r->loss[n]);
    put(f, r->norm);
    put(f, r->tokens_per_s);
    put(f, r->mfu);
    if (r->val)
        fprintf(f, ",%zu", r->val->windows);
    else
        fputc(',', f);
    for (size_t n = 1; n <= K; n++)
        put(f, r->val ? dm_ppl_head(r->val, n) : NAN);
    for (size_t n = 2; n <= K; n++)
        put(f, r->val ? dm_ppl_joint(r->val, n) : NAN);
    fputc('\n', f);
}

/* By hand so that "step" is the first key of each line, which trim() relies on. */
static enum dm_status write_jsonl(FILE *f, const struct dm_log_row *r, size_t K, struct dm_err *e)
{
    fprintf(f, "{\"step\":%zu,\"tokens\":%zu,\"seconds\":%.3f,\"lr\":%.9g,\"loss\":{", r->step,
            r->tokens, r->seconds, r->lr);
    const char *comma = "";
    for (size_t n = 1; n <= K; n++)
        if (isfinite(r->loss[n - 1])) {
            fprintf(f, "%s\"%zu\":%.9g", comma, n, r->loss[n - 1]);
            comma = ",";
        }
    fprintf(f, "},\"grad_norm\":%.9g,\"tokens_per_second\":%.6g", r->norm, r->tokens_per_s);
    if (r->skipped)
        fputs(",\"skipped\":true", f);
    if (isfinite(r->mfu))
        fprintf(f, ",\"mfu\":%.4g", r->mfu);
    if (r->val) {
        json_t *val = dm_ppl_json(r->val);
        char *text = val ? json_dumps(val, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
        json_decref(val);
        if (!text)
            return dm_fail(e, DM_ENOMEM, "out of memory");
        fprintf(f, ",\"validation\":%s", text);
        free(text);
    }
    fputs("}\n", f);
    return DM_OK;
}

static void scalar_of_head(struct dm_tb *t, const char *what, size_t n, double x)
{
    char tag[40];
    snprintf(tag, sizeof(tag), "%s%zu", what, n);
    dm_tb_scalar(t, tag, x);
}

static enum dm_status write_tensorboard(struct dm_tb *t, const struct dm_log_row *r, size_t K,
                                        struct dm_err *e)
{
    for (size_t n = 1; n <= K; n++)
        scalar_of_head(t, "loss/", n, r->loss[n - 1]);
    dm_tb_scalar(t, "lr", r->lr);
    dm_tb_scalar(t, "grad_norm", r->norm);
    dm_tb_scalar(t, "tokens_per_second", r->tokens_per_s);
    dm_tb_scalar(t, "mfu", r->mfu);
    if (r->skipped)
        dm_tb_scalar(t, "skipped", 1.0);
    for (size_t n = 1; r->val && n <= K; n++)
        scalar_of_head(t, "val/ppl_", n, dm_ppl_head(r->val, n));
    for (size_t n = 2; r->val && n <= K; n++)
        scalar_of_head(t, "val/ppl_1:", n, dm_ppl_joint(r->val, n));
    return dm_tb_event(t, r->step, wall_clock(), e);
}

enum dm_status dm_log_row(struct dm_log *l, const struct dm_log_row *row, struct dm_err *e)
{
    write_csv(l->f[CSV], row, l->K);
    DM_TRY(write_jsonl(l->f[JSONL], row, l->K, e));
    for (int i = 0; i < N_FILES; i++)
        if (fflush(l->f[i]) || ferror(l->f[i]))
            return dm_fail_errno(e, "%s: cannot write", l->path[i]);
    return write_tensorboard(l->tb, row, l->K, e);
}
