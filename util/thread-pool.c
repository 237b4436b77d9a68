/* SPDX-License-Identifier: MIT */
/*
 * Thread pool: blocking calls on behalf of coroutines.
 *
 * Submitting, starting and joining threads, and going on after a call happen
 * in the context's thread; workers only take requests and put them on the list
 * of done ones, whose bottom half wakes the coroutines.  A request lives on its
 * coroutine's stack.
 */
#include <errno.h>
#include <signal.h>
#include <time.h>
#include "util/aio-int.h"
#include "util/thread-pool.h"

#define IDLE_SECONDS    10
#define STACK_SIZE      (512 * 1024)

/* One of so many threads is for calls without a cause. */
#define RESERVE_SHARE   8

/* Calls of the same cause: queued, running. */
typedef struct Cause {
    const void *key;                    /* NULL: those that have none */
    STAILQ_HEAD(, PoolRequest) queue;
    int64_t n_running;
    TAILQ_ENTRY(Cause) next;            /* in waiting, if queue is not empty */
    SLIST_ENTRY(Cause) next_unused;
} Cause;

typedef struct PoolRequest {
    ThreadPoolFunc *func;
    void *opaque;
    int ret;
    Coroutine *co;
    STAILQ_ENTRY(PoolRequest) next;
} PoolRequest;

typedef struct Worker {
    ThreadPool *pool;
    pthread_t thread;
    bool exited;                        /* under lock: ready to be joined */
    LIST_ENTRY(Worker) next;
} Worker;

struct ThreadPool {
    AioContext *ctx;
    BottomHalf *done_bh;
    LIST_HEAD(, Worker) workers;        /* context's thread only */

    pthread_mutex_t lock;               /* over all below */
    pthread_cond_t work;
    GHashTable *causes;                 /* by key, while there are calls */
    TAILQ_HEAD(, Cause) waiting;        /* in turn */
    SLIST_HEAD(, Cause) unused;
    STAILQ_HEAD(, PoolRequest) done;
    int64_t min;
    int64_t max;
    int64_t n_queued;
    int64_t n_running;
    int64_t n_threads;                  /* not exited */
    int64_t n_idle;
    bool stopping;
};

/* ---- causes; under lock ---- */

static Cause *cause_get(ThreadPool *pool, const void *key)
{
    Cause *cause = g_hash_table_lookup(pool->causes, key);

    if (cause) {
        return cause;
    }
    cause = SLIST_FIRST(&pool->unused);
    if (cause) {
        SLIST_REMOVE_HEAD(&pool->unused, next_unused);
    } else {
        cause = g_new0(Cause, 1);
        STAILQ_INIT(&cause->queue);
    }
    cause->key = key;
    g_hash_table_insert(pool->causes, (void *)key, cause);
    return cause;
}

static void cause_put(ThreadPool *pool, Cause *cause)
{
    if (STAILQ_EMPTY(&cause->queue) && cause->n_running == 0) {
        g_hash_table_remove(pool->causes, cause->key);
        SLIST_INSERT_HEAD(&pool->unused, cause, next_unused);
    }
}

static void cause_push(ThreadPool *pool, Cause *cause, PoolRequest *request)
{
    if (STAILQ_EMPTY(&cause->queue)) {
        TAILQ_INSERT_TAIL(&pool->waiting, cause, next);
    }
    STAILQ_INSERT_TAIL(&cause->queue, request, next);
    pool->n_queued++;
}

static void cause_remove(ThreadPool *pool, Cause *cause, PoolRequest *request)
{
    STAILQ_REMOVE(&cause->queue, request, PoolRequest, next);
    pool->n_queued--;
    TAILQ_REMOVE(&pool->waiting, cause, next);
    if (!STAILQ_EMPTY(&cause->queue)) {
        TAILQ_INSERT_TAIL(&pool->waiting, cause, next);
    }
}

/* May one more call begin? */
static bool cause_may_run(const ThreadPool *pool, const Cause *cause)
{
    int64_t left = pool->max - pool->n_running;

    if (pool->stopping) {
        return true;
    }
    return cause->key ? cause->n_running < left - pool->max / RESERVE_SHARE
                      : left > 0;
}

/*
 * Whose turn it is; NULL if nothing may begin.  It looks at no more causes
 * than there are threads: one that may not begin has some running, or else none
 * may.
 */
static Cause *cause_find(const ThreadPool *pool)
{
    Cause *cause;

    if (pool->n_running >= pool->max && !pool->stopping) {
        return NULL;
    }
    TAILQ_FOREACH(cause, &pool->waiting, next) {
        if (cause_may_run(pool, cause)) {
            return cause;
        }
    }
    return NULL;
}

/* ---- workers ---- */

/* Wait for a request; NULL if this thread should leave.  Under lock. */
static Cause *worker_wait(ThreadPool *pool)
{
    Cause *cause;
    struct timespec deadline;
    int ret = 0;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += IDLE_SECONDS;
    while (pool->n_threads <= pool->max) {
        cause = cause_find(pool);
        if (cause) {
            return cause;
        }
        if (pool->stopping ||
            (ret == ETIMEDOUT && pool->n_threads > pool->min
             && pool->n_queued == 0)) {
            return NULL;
        }
        pool->n_idle++;
        if (ret == ETIMEDOUT) {         /* one of the threads to keep */
            ret = pthread_cond_wait(&pool->work, &pool->lock);
        } else {
            ret = pthread_cond_timedwait(&pool->work, &pool->lock, &deadline);
        }
        pool->n_idle--;
    }
    return NULL;
}

/* Carry out the next request of @cause.  Under lock, but for the call. */
static void worker_call(ThreadPool *pool, Cause *cause)
{
    PoolRequest *request = STAILQ_FIRST(&cause->queue);

    cause_remove(pool, cause, request);
    cause->n_running++;
    pool->n_running++;
    if (pool->n_idle > 0 && cause_find(pool)) {
        /* What has ended may have made room for two causes. */
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);

    request->ret = request->func(request->opaque);

    pthread_mutex_lock(&pool->lock);
    cause->n_running--;
    pool->n_running--;
    cause_put(pool, cause);
    STAILQ_INSERT_TAIL(&pool->done, request, next);
    aio_bh_schedule(pool->done_bh);
}

static void *worker_run(void *opaque)
{
    Worker *worker = opaque;
    ThreadPool *pool = worker->pool;
    Cause *cause;

    pthread_setname_np(pthread_self(), "worker");
    pthread_mutex_lock(&pool->lock);
    while ((cause = worker_wait(pool))) {
        worker_call(pool, cause);
    }
    pool->n_threads--;
    worker->exited = true;
    pthread_cond_signal(&pool->work);   /* it may have been meant for others */
    aio_bh_schedule(pool->done_bh);     /* to be joined */
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static bool worker_start(ThreadPool *pool)
{
    Worker *worker = g_new0(Worker, 1);
    pthread_attr_t attr;
    sigset_t all, old;
    int ret;

    worker->pool = pool;
    pthread_mutex_lock(&pool->lock);
    pool->n_threads++;
    pthread_mutex_unlock(&pool->lock);

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    placement_init_thread_attr(pool->ctx, &attr);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&worker->thread, &attr, worker_run, worker);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);

    if (ret != 0) {
        pthread_mutex_lock(&pool->lock);
        pool->n_threads--;
        pthread_mutex_unlock(&pool->lock);
        g_free(worker);
        return false;
    }
    LIST_INSERT_HEAD(&pool->workers, worker, next);
    return true;
}

static void join_exited(ThreadPool *pool)
{
    Worker *worker, *next;

    LIST_FOREACH_SAFE(worker, &pool->workers, next, next) {
        bool exited;

        pthread_mutex_lock(&pool->lock);
        exited = worker->exited;
        pthread_mutex_unlock(&pool->lock);
        if (exited) {
            pthread_join(worker->thread, NULL);
            LIST_REMOVE(worker, next);
            g_free(worker);
        }
    }
}

/* ---- the context's side ---- */

static void pool_done_bh(void *opaque)
{
    ThreadPool *pool = opaque;
    STAILQ_HEAD(, PoolRequest) done = STAILQ_HEAD_INITIALIZER(done);
    PoolRequest *request;

    pthread_mutex_lock(&pool->lock);
    STAILQ_CONCAT(&done, &pool->done);
    pthread_mutex_unlock(&pool->lock);

    while ((request = STAILQ_FIRST(&done))) {
        STAILQ_REMOVE_HEAD(&done, next);
        coroutine_enter(request->co);   /* the request is gone after that */
    }
    join_exited(pool);
}

static void pool_update_params(ThreadPool *pool)
{
    int64_t missing;

    pthread_mutex_lock(&pool->lock);
    pool->min = __atomic_load_n(&pool->ctx->pool_min, __ATOMIC_RELAXED);
    pool->max = __atomic_load_n(&pool->ctx->pool_max, __ATOMIC_RELAXED);
    missing = pool->min - pool->n_threads;
    pthread_cond_broadcast(&pool->work);        /* there may be too many */
    pthread_mutex_unlock(&pool->lock);

    while (missing-- > 0 && worker_start(pool)) {
    }
}

static ThreadPool *pool_get(AioContext *ctx)
{
    ThreadPool *pool = ctx->pool;
    pthread_condattr_t attr;

    if (pool) {
        return pool;
    }
    pool = g_new0(ThreadPool, 1);
    pool->ctx = ctx;
    pool->done_bh = aio_bh_new(ctx, pool_done_bh, pool);
    LIST_INIT(&pool->workers);
    pool->causes = g_hash_table_new(NULL, NULL);
    TAILQ_INIT(&pool->waiting);
    SLIST_INIT(&pool->unused);
    STAILQ_INIT(&pool->done);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->work, &attr);
    pthread_condattr_destroy(&attr);

    ctx->pool = pool;
    pool_update_params(pool);
    return pool;
}

static void params_changed_bh(void *opaque)
{
    AioContext *ctx = opaque;

    if (ctx->pool) {
        pool_update_params(ctx->pool);
    } else if (__atomic_load_n(&ctx->pool_min, __ATOMIC_RELAXED) > 0) {
        pool_get(ctx);
    }
}

void thread_pool_params_changed(AioContext *ctx)
{
    if (ctx == aio_context_current()) {
        params_changed_bh(ctx);
    } else {
        aio_bh_schedule_oneshot(ctx, params_changed_bh, ctx);
    }
}

void thread_pool_free(ThreadPool *pool)
{
    Worker *worker;
    Cause *cause;

    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);

    /* Workers leave when the queue is empty. */
    while ((worker = LIST_FIRST(&pool->workers))) {
        pthread_join(worker->thread, NULL);
        LIST_REMOVE(worker, next);
        g_free(worker);
    }
    pool_done_bh(pool);
    aio_bh_delete(pool->done_bh);
    while ((cause = SLIST_FIRST(&pool->unused))) {
        SLIST_REMOVE_HEAD(&pool->unused, next_unused);
        g_free(cause);
    }
    g_hash_table_destroy(pool->causes);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    g_free(pool);
}

/* Take back a request that no thread is there to serve. */
static bool withdraw(ThreadPool *pool, Cause *cause, PoolRequest *request)
{
    bool stranded;

    pthread_mutex_lock(&pool->lock);
    stranded = pool->n_threads == 0;
    if (stranded) {
        cause_remove(pool, cause, request);
        cause_put(pool, cause);
    }
    pthread_mutex_unlock(&pool->lock);
    return stranded;
}

int coroutine_fn thread_pool_co_submit(ThreadPoolFunc *func, void *opaque)
{
    return thread_pool_co_submit_for(NULL, func, opaque);
}

int coroutine_fn thread_pool_co_submit_for(const void *key,
                                           ThreadPoolFunc *func, void *opaque)
{
    PoolRequest request = {
        .func = func, .opaque = opaque, .co = coroutine_self(),
    };
    ThreadPool *pool = pool_get(aio_context_current());
    bool need_thread;
    Cause *cause;

    g_assert(request.co);
    pthread_mutex_lock(&pool->lock);
    cause = cause_get(pool, key);
    cause_push(pool, cause, &request);
    need_thread = pool->n_queued > pool->n_idle &&
                  pool->n_threads < pool->max;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);

    if (need_thread && !worker_start(pool) && withdraw(pool, cause, &request)) {
        return -EAGAIN;
    }
    coroutine_yield();
    return request.ret;
}
