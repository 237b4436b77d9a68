/* SPDX-License-Identifier: MIT */
/*
 * IOThreads.  The thread makes its AioContext itself, since a ring has a
 * single issuer, and frees it when it is told to stop.
 */
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include "util/iothread.h"

struct IOThread {
    char *id;
    IOThreadParams params;
    unsigned users;             /* main thread */
    pthread_t thread;
    bool stopping;              /* the thread's own */

    /* The thread's answer to its maker; under lock until @started */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool started;
    AioContext *ctx;            /* NULL: failed, with @error */
    Error *error;
};

const IOThreadParams iothread_default_params = {
    .poll_max_ns = 32768,
    .thread_pool_max = 64,
};

static GHashTable *iothreads;   /* id -> IOThread; main thread */

static bool check_params(const IOThreadParams *p, Error **errp)
{
    const struct {
        const char *name;
        int64_t value;
    } params[] = {
        { "poll-max-ns", p->poll_max_ns },
        { "poll-grow", p->poll_grow },
        { "poll-shrink", p->poll_shrink },
        { "poll-weight", p->poll_weight },
        { "aio-max-batch", p->aio_max_batch },
        { "thread-pool-min", p->thread_pool_min },
        { "thread-pool-max", p->thread_pool_max },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(params); i++) {
        if (params[i].value < 0) {
            error_setg(errp, "%s value must be in range [0, %" PRId64 "]",
                       params[i].name, INT64_MAX);
            return false;
        }
    }
    if (p->thread_pool_max == 0 || p->thread_pool_max > INT_MAX ||
        p->thread_pool_min > p->thread_pool_max) {
        error_setg(errp, "bad thread-pool-min/thread-pool-max values");
        return false;
    }
    return true;
}

static void apply_params(AioContext *ctx, const IOThreadParams *p)
{
    aio_context_set_poll_params(ctx, p->poll_max_ns, p->poll_grow,
                                p->poll_shrink, p->poll_weight);
    aio_context_set_max_batch(ctx, p->aio_max_batch);
    aio_context_set_thread_pool_params(ctx, p->thread_pool_min,
                                       p->thread_pool_max);
}

static void *iothread_run(void *opaque)
{
    IOThread *iothread = opaque;
    g_autofree char *name = g_strdup_printf("IO %.12s", iothread->id);
    Error *error = NULL;
    AioContext *ctx;

    pthread_setname_np(pthread_self(), name);
    ctx = aio_context_new(AIO_BACKEND_AUTO, &error);
    if (ctx) {
        apply_params(ctx, &iothread->params);
    }

    pthread_mutex_lock(&iothread->lock);
    iothread->ctx = ctx;
    iothread->error = error;
    iothread->started = true;
    pthread_cond_signal(&iothread->cond);
    pthread_mutex_unlock(&iothread->lock);
    if (!ctx) {
        return NULL;
    }

    while (!iothread->stopping) {
        aio_poll(ctx, true);
    }
    aio_context_free(ctx);
    coroutine_pool_drain();
    return NULL;
}

static int start_thread(IOThread *iothread)
{
    sigset_t all, old;
    int ret;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&iothread->thread, NULL, iothread_run, iothread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ret;
}

static void iothread_destroy(IOThread *iothread)
{
    pthread_cond_destroy(&iothread->cond);
    pthread_mutex_destroy(&iothread->lock);
    g_free(iothread->id);
    g_free(iothread);
}

IOThread *iothread_new(const char *id, const IOThreadParams *params,
                       Error **errp)
{
    IOThread *iothread;
    int ret;

    if (!check_params(params, errp)) {
        return NULL;
    }
    if (iothread_by_id(id)) {
        error_setg(errp, "iothread '%s' already exists", id);
        return NULL;
    }
    iothread = g_new0(IOThread, 1);
    iothread->id = g_strdup(id);
    iothread->params = *params;
    pthread_mutex_init(&iothread->lock, NULL);
    pthread_cond_init(&iothread->cond, NULL);

    ret = start_thread(iothread);
    if (ret != 0) {
        error_setg_errno(errp, ret, "Failed to create a thread");
        iothread_destroy(iothread);
        return NULL;
    }
    pthread_mutex_lock(&iothread->lock);
    while (!iothread->started) {
        pthread_cond_wait(&iothread->cond, &iothread->lock);
    }
    pthread_mutex_unlock(&iothread->lock);

    if (!iothread->ctx) {
        pthread_join(iothread->thread, NULL);
        error_propagate(errp, iothread->error);
        iothread_destroy(iothread);
        return NULL;
    }
    if (!iothreads) {
        iothreads = g_hash_table_new(g_str_hash, g_str_equal);
    }
    g_hash_table_insert(iothreads, iothread->id, iothread);
    return iothread;
}

static void stop_bh(void *opaque)
{
    IOThread *iothread = opaque;

    iothread->stopping = true;
}

void iothread_free(IOThread *iothread)
{
    if (!iothread) {
        return;
    }
    g_assert(!iothread->users);
    aio_bh_schedule_oneshot(iothread->ctx, stop_bh, iothread);
    pthread_join(iothread->thread, NULL);
    g_hash_table_remove(iothreads, iothread->id);
    if (g_hash_table_size(iothreads) == 0) {
        g_hash_table_destroy(iothreads);
        iothreads = NULL;
    }
    iothread_destroy(iothread);
}

IOThread *iothread_by_id(const char *id)
{
    return iothreads ? g_hash_table_lookup(iothreads, id) : NULL;
}

const char *iothread_id(const IOThread *iothread)
{
    return iothread->id;
}

AioContext *iothread_aio_context(IOThread *iothread)
{
    return iothread->ctx;
}

void iothread_ref(IOThread *iothread)
{
    iothread->users++;
}

void iothread_unref(IOThread *iothread)
{
    g_assert(iothread->users > 0);
    iothread->users--;
}

bool iothread_in_use(const IOThread *iothread)
{
    return iothread->users > 0;
}

const IOThreadParams *iothread_params(const IOThread *iothread)
{
    return &iothread->params;
}

bool iothread_set_params(IOThread *iothread, const IOThreadParams *params,
                         Error **errp)
{
    if (!check_params(params, errp)) {
        return false;
    }
    iothread->params = *params;
    apply_params(iothread->ctx, params);
    return true;
}
