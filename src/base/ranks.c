/* SPDX-License-Identifier: MIT */
/* Sums halve the vector at every level of the tree and send each half to where it is added, then
 * the sums come back the same way. That computes the tree of a plain reduction, for a + b and b + a
 * have the same bits, with the least possible traffic and the additions spread over all. */
#include "src/base/ranks.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/progress.h"

#ifdef DM_MPI
#include <mpi.h>
#endif

size_t dm_ranks_count(const struct dm_ranks *r)
{
    return r ? r->n : 1;
}

bool dm_ranks_first(const struct dm_ranks *r)
{
    return !r || r->rank == 0;
}

int dm_ranks_exit(const struct dm_ranks *r, enum dm_status st)
{
    return st && (dm_ranks_first(r) || r->broken);
}

#ifndef DM_MPI

/* How many processes a launcher says that it started, 1 if there is none. */
static size_t launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *text = getenv(names[i]);
        if (text && strtoul(text, NULL, 10) > 1)
            return strtoul(text, NULL, 10);
    }
    return 1;
}

enum dm_status dm_ranks_open(struct dm_ranks *r, struct dm_err *e)
{
    *r = (struct dm_ranks){.n = 1};
    if (launched() > 1)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "started as one of %zu processes, but this dynamo was built without MPI "
                       "(meson setup -Dmpi=enabled)",
                       launched());
    return DM_OK;
}

void dm_ranks_close(struct dm_ranks *r)
{
    (void)r;
}

enum dm_status dm_ranks_sum(struct dm_ranks *r, float *x, size_t n, struct dm_err *e)
{
    (void)r, (void)x, (void)n, (void)e;
    return DM_OK;
}

enum dm_status dm_ranks_gather(struct dm_ranks *r, void *x, size_t bytes, struct dm_err *e)
{
    (void)r, (void)x, (void)bytes, (void)e;
    return DM_OK;
}

enum dm_status dm_ranks_send(struct dm_ranks *r, void *x, size_t bytes, size_t root,
                             struct dm_err *e)
{
    (void)r, (void)x, (void)bytes, (void)root, (void)e;
    return DM_OK;
}

/* There is nobody to exchange with. */
enum dm_status dm_ranks_put(struct dm_ranks *r, const void *x, size_t bytes, size_t to,
                            struct dm_err *e)
{
    (void)r, (void)x, (void)bytes;
    return dm_fail(e, DM_ERANGE, "there is no process %zu", to);
}

enum dm_status dm_ranks_get(struct dm_ranks *r, void *x, size_t bytes, size_t from,
                            struct dm_err *e)
{
    (void)r, (void)x, (void)bytes;
    return dm_fail(e, DM_ERANGE, "there is no process %zu", from);
}

static enum dm_status least(struct dm_ranks *r, int *x, struct dm_err *e)
{
    (void)r, (void)x, (void)e;
    return DM_OK;
}

#else

enum { CHUNK = 1 << 20 /* floats summed at a time */, LEVELS = 32 };

static bool started_by_a_launcher(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE") || getenv("PMIX_RANK");
}

/* The status of an MPI call. */
static enum dm_status check(struct dm_ranks *r, int code, struct dm_err *e)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n;
    if (code == MPI_SUCCESS)
        return DM_OK;
    r->broken = true;
    MPI_Error_string(code, text, &n);
    return dm_fail(e, DM_EIO, "process %zu of %zu cannot reach the others: %s", r->rank, r->n,
                   text);
}

static bool alone(const struct dm_ranks *r)
{
    return !r || r->n == 1;
}

static enum dm_status usable(const struct dm_ranks *r, struct dm_err *e)
{
    return r->broken ? dm_fail(e, DM_EIO, "the connection to the other processes is lost") : DM_OK;
}

enum dm_status dm_ranks_open(struct dm_ranks *r, struct dm_err *e)
{
    int level, n, rank;
    *r = (struct dm_ranks){.n = 1};
    if (!started_by_a_launcher())
        return DM_OK;
    DM_TRY(check(r, MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level), e));
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    DM_TRY(check(r, MPI_Comm_size(MPI_COMM_WORLD, &n), e));
    DM_TRY(check(r, MPI_Comm_rank(MPI_COMM_WORLD, &rank), e));
    r->n = (size_t)n;
    r->rank = (size_t)rank;
    r->scratch = dm_alloc(CHUNK, sizeof(*r->scratch));
    return dm_ranks_agree(r, r->scratch ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory"), e);
}

void dm_ranks_close(struct dm_ranks *r)
{
    int open = 0;
    free(r->scratch);
    r->scratch = NULL;
    if (!r->broken && !MPI_Initialized(&open) && open)
        MPI_Finalize();
}

static enum dm_status swap(struct dm_ranks *r, size_t with, const float *out, size_t n_out,
                           float *in, size_t n_in, struct dm_err *e)
{
    r->sent += n_out * sizeof(float);
    return check(r,
                 MPI_Sendrecv(out, (int)n_out, MPI_FLOAT, (int)with, 0, in, (int)n_in, MPI_FLOAT,
                              (int)with, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
                 e);
}

struct part {
    size_t at, n;
};

/* Of a range that two ranks share, the half that the rank keeps and the other. */
static void halve(const struct part *p, bool upper, struct part *keep, struct part *give)
{
    const size_t low = p->n / 2;
    const struct part half[2] = {{p->at, low}, {p->at + low, p->n - low}};
    *keep = half[upper];
    *give = half[!upper];
}

static enum dm_status sum_chunk(struct dm_ranks *r, float *x, size_t n, struct dm_err *e)
{
    struct part mine[LEVELS] = {{0, n}}, give[LEVELS];
    size_t level = 0;
    for (size_t d = 1; d < r->n; d *= 2, level++) {
        halve(&mine[level], r->rank & d, &mine[level + 1], &give[level]);
        const struct part *keep = &mine[level + 1], *g = &give[level];
        DM_TRY(swap(r, r->rank ^ d, x + g->at, g->n, r->scratch, keep->n, e));
        for (size_t i = 0; i < keep->n; i++)
            x[keep->at + i] += r->scratch[i];
    }
    for (size_t d = r->n / 2; d > 0; d /= 2, level--) {
        const struct part *keep = &mine[level], *g = &give[level - 1];
        DM_TRY(swap(r, r->rank ^ d, x + keep->at, keep->n, x + g->at, g->n, e));
    }
    return DM_OK;
}

enum dm_status dm_ranks_sum(struct dm_ranks *r, float *x, size_t n, struct dm_err *e)
{
    if (alone(r))
        return DM_OK;
    assert(!(r->n & (r->n - 1)));
    DM_TRY(usable(r, e));
    const double start = dm_now();
    for (size_t at = 0; at < n; at += CHUNK)
        DM_TRY(sum_chunk(r, x + at, n - at < CHUNK ? n - at : CHUNK, e));
    r->seconds += dm_now() - start;
    return DM_OK;
}

enum dm_status dm_ranks_gather(struct dm_ranks *r, void *x, size_t bytes, struct dm_err *e)
{
    if (alone(r))
        return DM_OK;
    assert(bytes <= INT_MAX);
    DM_TRY(usable(r, e));
    return check(
        r, MPI_Allgather(MPI_IN_PLACE, 0, MPI_BYTE, x, (int)bytes, MPI_BYTE, MPI_COMM_WORLD), e);
}

enum dm_status dm_ranks_send(struct dm_ranks *r, void *x, size_t bytes, size_t root,
                             struct dm_err *e)
{
    if (alone(r))
        return DM_OK;
    assert(bytes <= INT_MAX);
    DM_TRY(usable(r, e));
    return check(r, MPI_Bcast(x, (int)bytes, MPI_BYTE, (int)root, MPI_COMM_WORLD), e);
}

enum dm_status dm_ranks_put(struct dm_ranks *r, const void *x, size_t bytes, size_t to,
                            struct dm_err *e)
{
    assert(bytes <= INT_MAX);
    DM_TRY(usable(r, e));
    return check(r, MPI_Send(x, (int)bytes, MPI_BYTE, (int)to, 0, MPI_COMM_WORLD), e);
}

enum dm_status dm_ranks_get(struct dm_ranks *r, void *x, size_t bytes, size_t from,
                            struct dm_err *e)
{
    assert(bytes <= INT_MAX);
    DM_TRY(usable(r, e));
    return check(
        r, MPI_Recv(x, (int)bytes, MPI_BYTE, (int)from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE), e);
}

static enum dm_status least(struct dm_ranks *r, int *x, struct dm_err *e)
{
    if (alone(r))
        return DM_OK;
    DM_TRY(usable(r, e));
    return check(r, MPI_Allreduce(MPI_IN_PLACE, x, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD), e);
}

#endif

enum dm_status dm_ranks_any(struct dm_ranks *r, bool *x, struct dm_err *e)
{
    int none = !*x;
    DM_TRY(least(r, &none, e));
    *x = !none;
    return DM_OK;
}

enum dm_status dm_ranks_agree(struct dm_ranks *r, enum dm_status st, struct dm_err *e)
{
    struct {
        enum dm_status st;
        struct dm_err e;
    } said = {.st = st};
    if (dm_ranks_count(r) == 1 || r->over || (st && r->broken))
        return st;
    int root = st ? (int)r->rank : INT_MAX;
    DM_TRY(least(r, &root, e));
    if (root == INT_MAX)
        return DM_OK;
    r->over = true;
    if (st && e)
        said.e = *e;
    DM_TRY(dm_ranks_send(r, &said, sizeof(said), (size_t)root, e));
    return root ? dm_fail(e, said.st, "process %d of %zu: %.900s", root, r->n, said.e.msg)
                : dm_fail(e, said.st, "%s", said.e.msg);
}

enum dm_status dm_ranks_hash(struct dm_ranks *r, const char *const *paths, size_t n,
                             char (*hex)[DM_HASH_LEN + 1], struct dm_err *e)
{
    const size_t ranks = dm_ranks_count(r);
    enum dm_status st = DM_OK;
    for (size_t i = r ? r->rank : 0; i < n && !st; i += ranks)
        st = dm_sha256_file(paths[i], hex[i], e);
    DM_TRY(dm_ranks_agree(r, st, e));
    for (size_t i = 0; i < n; i++)
        DM_TRY(dm_ranks_send(r, hex[i], sizeof(hex[i]), i % ranks, e));
    return DM_OK;
}

enum dm_status dm_ranks_same(struct dm_ranks *r, const char *text, const char *what,
                             struct dm_err *e)
{
    char hex[DM_HASH_LEN + 1], first[DM_HASH_LEN + 1];
    if (dm_ranks_count(r) == 1)
        return DM_OK;
    dm_sha256(text, strlen(text), hex);
    memcpy(first, hex, sizeof(hex));
    DM_TRY(dm_ranks_send(r, first, sizeof(first), 0, e));
    return dm_ranks_agree(r,
                          strcmp(first, hex)
                              ? dm_fail(e, DM_EMISMATCH, "%s differ from those of process 0", what)
                              : DM_OK,
                          e);
}
