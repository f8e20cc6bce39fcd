/* SPDX-License-Identifier: MIT */
/* Slots are a ring: piece n is in slot n % slots, so the pieces between `given` and `taken` are in
 * different ones. A thread that is free gives what is due before it takes more. One that the system
 * never starts takes nothing and holds up nobody.
 *
 * Where nothing is given, every thread has one slot: a piece that takes long must not keep the
 * others from going on, as it would when the ring has come round to its slot. */
#include "src/base/pipe.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/base/par.h"

struct state {
    const struct dm_pipe *p;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    size_t taken, given; /* pieces */
    bool taking, giving; /* a thread is about it, without the lock */
    bool dry;            /* nothing more to take, or not wanted */
    bool *done;          /* (slots): the work on its piece is */
    size_t bad;          /* the first piece that failed, SIZE_MAX = none, and how */
    enum dm_status st;
    struct dm_err e;
};

/* What came before the piece has been taken and goes on to its end. */
static void fail(struct state *s, size_t piece, enum dm_status st, const struct dm_err *e)
{
    s->dry = true;
    if (piece > s->bad)
        return;
    s->bad = piece;
    s->st = st;
    s->e = *e;
}

static void give(struct state *s)
{
    struct dm_err e;
    s->giving = true;
    pthread_mutex_unlock(&s->lock);
    const enum dm_status st = s->p->give(s->p->ctx, s->given % s->p->slots, &e);
    pthread_mutex_lock(&s->lock);
    s->giving = false;
    if (st)
        fail(s, s->given, st, &e);
    else
        s->given++;
    pthread_cond_broadcast(&s->changed);
}

static void take_and_work(struct state *s, size_t thread)
{
    const size_t piece = s->taken, slot = s->p->give ? piece % s->p->slots : thread;
    bool more = false;
    struct dm_err e;
    s->taking = true;
    pthread_mutex_unlock(&s->lock);
    enum dm_status st = s->p->take(s->p->ctx, slot, &more, &e);
    pthread_mutex_lock(&s->lock);
    s->taking = false;
    s->done[slot] = false;
    s->dry |= !more;
    s->taken += st || more; // a failure is a piece: those before it come first
    pthread_cond_broadcast(&s->changed);
    if (!st && more) {
        pthread_mutex_unlock(&s->lock);
        st = s->p->work(s->p->ctx, slot, thread, &e);
        pthread_mutex_lock(&s->lock);
        s->done[slot] = !st;
        pthread_cond_broadcast(&s->changed);
    }
    if (st)
        fail(s, piece, st, &e);
}

static bool ended(const struct state *s)
{
    return s->given == s->bad || (s->dry && (!s->p->give || s->given == s->taken));
}

static void run_thread(void *ctx, size_t part, size_t begin, size_t end)
{
    struct state *s = ctx;
    const size_t slots = s->p->slots;
    (void)begin;
    (void)end;
    pthread_mutex_lock(&s->lock);
    while (!ended(s)) {
        if (s->p->give && !s->giving && s->given < s->taken && s->done[s->given % slots])
            give(s);
        else if (!s->taking && !s->dry && (!s->p->give || s->taken - s->given < slots))
            take_and_work(s, part);
        else
            pthread_cond_wait(&s->changed, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

enum dm_status dm_pipe_run(const struct dm_pipe *p, struct dm_err *e)
{
    struct state s = {.p = p,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .changed = PTHREAD_COND_INITIALIZER,
                      .done = dm_alloc(p->slots, sizeof(*s.done)),
                      .bad = SIZE_MAX};
    assert(p->give || p->slots == p->threads);
    if (!s.done)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu pieces of work", p->slots);
    dm_par_for(p->threads, 1, run_thread, &s);
    if (s.st && e)
        *e = s.e;
    free(s.done);
    return s.st;
}
