/* SPDX-License-Identifier: MIT */
/* Slots are a ring: piece n is in slot n % slots, so the pieces between `given` and `taken` are in
 * different ones. A thread that is free gives what is due before it takes more. One that the system
 * never starts takes nothing and holds up nobody.
 *
 * Where nothing is given, every thread has one slot: a piece that takes long must not keep the
 * others from going on, as it would when the ring has come round to its slot. */
#include "src/base/pipe.h"

#include <pthread.h>
#include <stdlib.h>

#include "src/base/arena.h"
#include "src/base/par.h"

struct slot {
    bool done; /* the work is, and st and e are those of the piece */
    enum dm_status st;
    struct dm_err e;
};

struct state {
    const struct dm_pipe *p;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    size_t taken, given; /* pieces */
    bool taking, giving; /* a thread is about it, without the lock */
    bool dry, failed;    /* nothing more to take; the piece `given` has failed */
    struct slot *slot;
    size_t bad; /* where nothing is given: the first piece that failed, and how */
    enum dm_status st;
    struct dm_err e;
};

static void give(struct state *s)
{
    struct slot *x = &s->slot[s->given % s->p->slots];
    s->giving = true;
    pthread_mutex_unlock(&s->lock);
    if (!x->st)
        x->st = s->p->give(s->p->ctx, s->given % s->p->slots, &x->e);
    pthread_mutex_lock(&s->lock);
    s->giving = false;
    s->failed = x->st != DM_OK;
    s->given += !s->failed;
    pthread_cond_broadcast(&s->changed);
}

static void take_and_work(struct state *s, size_t thread)
{
    const size_t i = s->taken % s->p->slots;
    struct slot *x = &s->slot[i];
    bool more = false;
    s->taking = true;
    pthread_mutex_unlock(&s->lock);
    x->done = false;
    x->st = s->p->take(s->p->ctx, i, &more, &x->e);
    pthread_mutex_lock(&s->lock);
    s->taking = false;
    s->dry = x->st || !more;
    s->taken += x->st || more; // a failure is a piece: those before it come first
    pthread_cond_broadcast(&s->changed);
    if (!x->st && !more)
        return;
    if (!x->st) {
        pthread_mutex_unlock(&s->lock);
        x->st = s->p->work(s->p->ctx, i, thread, &x->e);
        pthread_mutex_lock(&s->lock);
    }
    x->done = true;
    pthread_cond_broadcast(&s->changed);
}

static void run_thread(void *ctx, size_t part, size_t begin, size_t end)
{
    struct state *s = ctx;
    (void)begin;
    (void)end;
    pthread_mutex_lock(&s->lock);
    while (!s->failed && !(s->dry && s->given == s->taken)) {
        if (!s->giving && s->given < s->taken && s->slot[s->given % s->p->slots].done)
            give(s);
        else if (!s->taking && !s->dry && s->taken - s->given < s->p->slots)
            take_and_work(s, part);
        else
            pthread_cond_wait(&s->changed, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

static void fail(struct state *s, size_t piece, enum dm_status st, const struct dm_err *e)
{
    if (!s->st || piece < s->bad) {
        s->bad = piece;
        s->st = st;
        s->e = *e;
    }
    s->dry = true;
}

/* Takes a piece and works on it; with the lock, but for both. */
static void take_own(struct state *s, size_t thread)
{
    const size_t piece = s->taken;
    bool more = false;
    struct dm_err e;
    s->taking = true;
    pthread_mutex_unlock(&s->lock);
    enum dm_status st = s->p->take(s->p->ctx, thread, &more, &e);
    pthread_mutex_lock(&s->lock);
    s->taking = false;
    s->dry |= !more;
    s->taken++;
    pthread_cond_broadcast(&s->changed);
    if (!st && more) {
        pthread_mutex_unlock(&s->lock);
        st = s->p->work(s->p->ctx, thread, thread, &e);
        pthread_mutex_lock(&s->lock);
    }
    if (st)
        fail(s, piece, st, &e);
}

static void run_alone(void *ctx, size_t part, size_t begin, size_t end)
{
    struct state *s = ctx;
    (void)begin;
    (void)end;
    pthread_mutex_lock(&s->lock);
    while (!s->dry) {
        if (s->taking)
            pthread_cond_wait(&s->changed, &s->lock);
        else
            take_own(s, part);
    }
    pthread_mutex_unlock(&s->lock);
}

enum dm_status dm_pipe_run(const struct dm_pipe *p, struct dm_err *e)
{
    struct state s = {
        .p = p, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    s.slot = dm_alloc(p->slots, sizeof(*s.slot));
    if (!s.slot)
        return dm_fail(e, DM_ENOMEM, "no memory for %zu pieces of work", p->slots);
    dm_par_for(p->threads, 1, p->give ? run_thread : run_alone, &s);
    if (s.failed) {
        s.st = s.slot[s.given % p->slots].st;
        s.e = s.slot[s.given % p->slots].e;
    }
    if (s.st && e)
        *e = s.e;
    free(s.slot);
    return s.st;
}
