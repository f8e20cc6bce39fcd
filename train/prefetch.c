/* SPDX-License-Identifier: MIT */
#include "train/prefetch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"

struct dm_prefetch {
    dm_prefetch_read *read;
    void *ctx;
    size_t T;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    // Under the lock; while `busy` the thread alone touches what follows it.
    bool quit, busy;
    bool have; /* ids hold what was asked for last */
    uint64_t first;
    size_t n, room;
    int32_t *ids; /* (room,T) */
    enum dm_status st;
    struct dm_err e;
};

static void *serve(void *arg)
{
    struct dm_prefetch *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->busy && !p->quit)
            pthread_cond_wait(&p->changed, &p->lock);
        if (!p->busy)
            break;
        pthread_mutex_unlock(&p->lock);
        p->st = p->read(p->ctx, p->first, p->n, p->ids, &p->e);
        pthread_mutex_lock(&p->lock);
        p->have = true;
        p->busy = false;
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct dm_prefetch *dm_prefetch_new(dm_prefetch_read *read, void *ctx, size_t T)
{
    struct dm_prefetch *p = dm_alloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->read = read;
    p->ctx = ctx;
    p->T = T;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    if (pthread_create(&p->thread, NULL, serve, p)) {
        free(p);
        return NULL;
    }
    return p;
}

void dm_prefetch_free(struct dm_prefetch *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p->ids);
    free(p);
}

void dm_prefetch_wait(struct dm_prefetch *p)
{
    pthread_mutex_lock(&p->lock);
    while (p->busy)
        pthread_cond_wait(&p->changed, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

void dm_prefetch_ask(struct dm_prefetch *p, uint64_t first, size_t n)
{
    dm_prefetch_wait(p);
    p->have = false;
    if (n > p->room) {
        int32_t *more = dm_realloc(p->ids, n, p->T * sizeof(*more));
        if (!more)
            return; // the reader itself will say so, if it still is
        p->ids = more;
        p->room = n;
    }
    p->first = first;
    p->n = n;
    pthread_mutex_lock(&p->lock);
    p->busy = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

bool dm_prefetch_take(struct dm_prefetch *p, uint64_t first, size_t n, int32_t *ids,
                      enum dm_status *st, struct dm_err *e)
{
    dm_prefetch_wait(p);
    if (!p->have || p->first != first || p->n != n)
        return false;
    p->have = false;
    *st = p->st;
    if (p->st && e)
        *e = p->e;
    if (!p->st)
        memcpy(ids, p->ids, n * p->T * sizeof(*ids));
    return true;
}
