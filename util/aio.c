/* SPDX-License-Identifier: MIT */
/*
 * The event loop: contexts, turns, bottom halves, coroutines, timers.
 *
 * A turn is one wait (one system call at most), then completions, fd handlers,
 * timers, bottom halves and scheduled coroutines, each once: what these add
 * is for the next turn, so that no source of work starves another.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "util/aio-int.h"

#define THREAD_POOL_MAX_DEFAULT 64

static __thread AioContext *current_context;
static AioContext *main_context;            /* atomic */

/* Out of line: a coroutine may have changed threads since the last call. */
__attribute__((noinline)) AioContext *aio_context_current(void)
{
    AioContext *ctx = current_context;

    asm volatile("" : "+r"(ctx));
    return ctx;
}

AioContext *aio_context_main(void)
{
    return __atomic_load_n(&main_context, __ATOMIC_ACQUIRE);
}

bool aio_context_has_ring(const AioContext *ctx)
{
    return ctx->fdmon == &fdmon_io_uring;
}

int64_t clock_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * G_GINT64_CONSTANT(1000000000) + ts.tv_nsec;
}

/* ---- creation ---- */

static bool backend_from_environment(AioBackend *backend, Error **errp)
{
    const char *value = getenv("QSD_AIO");

    if (!value || !*value) {
        return true;
    }
    if (!strcmp(value, "io_uring")) {
        *backend = AIO_BACKEND_IO_URING;
    } else if (!strcmp(value, "epoll")) {
        *backend = AIO_BACKEND_EPOLL;
    } else {
        error_setg(errp, "QSD_AIO must be 'io_uring' or 'epoll', not '%s'",
                   value);
        return false;
    }
    return true;
}

static bool fdmon_init(AioContext *ctx, AioBackend backend, Error **errp)
{
    if (backend == AIO_BACKEND_AUTO &&
        !backend_from_environment(&backend, errp)) {
        return false;
    }
    if (backend != AIO_BACKEND_EPOLL) {
        bool must = backend == AIO_BACKEND_IO_URING;

        ctx->fdmon = &fdmon_io_uring;
        if (ctx->fdmon->init(ctx, must ? errp : NULL)) {
            return true;
        }
        if (must) {
            return false;
        }
    }
    ctx->fdmon = &fdmon_epoll;
    return ctx->fdmon->init(ctx, errp);
}

AioContext *aio_context_new(AioBackend backend, Error **errp)
{
    AioContext *expected = NULL;
    AioContext *ctx;

    g_assert(!current_context);
    ctx = g_new0(AioContext, 1);
    TAILQ_INIT(&ctx->timers);
    STAILQ_INIT(&ctx->ready);
    LIST_INIT(&ctx->epoll_removed);
    ctx->timers_now = -1;
    ctx->pool_max = THREAD_POOL_MAX_DEFAULT;
    ctx->fds = g_hash_table_new(g_direct_hash, g_direct_equal);
    ctx->epoll_fd = -1;

    /* Blocking: io_uring answers a read of a non-blocking one with EAGAIN. */
    ctx->notify_fd = eventfd(0, EFD_CLOEXEC);
    if (ctx->notify_fd < 0) {
        error_setg_errno(errp, errno, "Failed to create an eventfd");
        goto fail;
    }
    if (!fdmon_init(ctx, backend, errp)) {
        close(ctx->notify_fd);
        goto fail;
    }
    watchdog_init(&ctx->watchdog);
    current_context = ctx;
    __atomic_compare_exchange_n(&main_context, &expected, ctx, false,
                                __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    return ctx;

fail:
    g_hash_table_destroy(ctx->fds);
    g_free(ctx);
    return NULL;
}

void aio_context_free(AioContext *ctx)
{
    AioContext *expected = ctx;

    g_assert(ctx == aio_context_current() && !ctx->in_turn);
    thread_pool_free(ctx->pool);
    aio_context_set_placement(ctx, false);

    /* Deleted bottom halves, removed fd handlers, last oneshots. */
    while (aio_poll(ctx, false)) {
    }
    while (__atomic_load_n(&ctx->holders, __ATOMIC_ACQUIRE)) {
        sched_yield();
    }
    g_assert(TAILQ_EMPTY(&ctx->timers));
    g_assert(g_hash_table_size(ctx->fds) == 0);
    g_assert(__atomic_load_n(&ctx->n_bhs, __ATOMIC_ACQUIRE) == 0);

    __atomic_compare_exchange_n(&main_context, &expected, NULL, false,
                                __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    ctx->fdmon->destroy(ctx);
    watchdog_deinit(&ctx->watchdog);
    current_context = NULL;
    close(ctx->notify_fd);
    g_hash_table_destroy(ctx->fds);
    g_free(ctx);
}

void aio_context_set_max_batch(AioContext *ctx, int64_t max_batch)
{
    __atomic_store_n(&ctx->max_batch, max_batch, __ATOMIC_RELAXED);
}

void aio_context_set_thread_pool_params(AioContext *ctx, int64_t min,
                                        int64_t max)
{
    g_assert(min >= 0 && max > 0 && min <= max);
    __atomic_store_n(&ctx->pool_min, min, __ATOMIC_RELAXED);
    __atomic_store_n(&ctx->pool_max, max, __ATOMIC_RELAXED);
    thread_pool_params_changed(ctx);
}

/* ---- wake-ups from other threads ---- */

/*
 * Whoever adds to a list holds the context from before that until it has let
 * the loop see it: once something is on a list, the loop may run it, and that
 * may be the last thing before the context is freed.
 */
static void hold(AioContext *ctx)
{
    __atomic_fetch_add(&ctx->holders, 1, __ATOMIC_RELAXED);
}

static void wake_and_release(AioContext *ctx)
{
    static const uint64_t one = 1;

    /* The loop's own thread is awake, and looks before it sleeps. */
    if (ctx != aio_context_current() &&
        __atomic_load_n(&ctx->sleeping, __ATOMIC_SEQ_CST) &&
        __atomic_exchange_n(&ctx->sleeping, 0, __ATOMIC_SEQ_CST)) {
        while (write(ctx->notify_fd, &one, sizeof(one)) < 0 &&
               errno == EINTR) {
        }
    }
    __atomic_fetch_sub(&ctx->holders, 1, __ATOMIC_RELEASE);
}

void aio_notify(AioContext *ctx)
{
    hold(ctx);
    __atomic_store_n(&ctx->notified, 1, __ATOMIC_SEQ_CST);
    wake_and_release(ctx);
}

bool aio_has_pending(AioContext *ctx)
{
    return __atomic_load_n(&ctx->bh_list, __ATOMIC_SEQ_CST) ||
           __atomic_load_n(&ctx->co_list, __ATOMIC_SEQ_CST) ||
           __atomic_load_n(&ctx->notified, __ATOMIC_SEQ_CST);
}

/* ---- bottom halves ---- */

enum {
    BH_LISTED = 1,          /* is in the context's list */
    BH_SCHEDULED = 2,
    BH_DELETED = 4,
    BH_ONESHOT = 8,
};

struct BottomHalf {
    AioContext *ctx;
    BHFunc *cb;
    void *opaque;
    BottomHalf *next;       /* in the list */
    unsigned flags;         /* atomic */
};

static BottomHalf *bh_new(AioContext *ctx, BHFunc *cb, void *opaque,
                          unsigned flags)
{
    BottomHalf *bh = g_new(BottomHalf, 1);

    *bh = (BottomHalf) {
        .ctx = ctx, .cb = cb, .opaque = opaque, .flags = flags,
    };
    __atomic_fetch_add(&ctx->n_bhs, 1, __ATOMIC_RELAXED);
    return bh;
}

static void bh_free(BottomHalf *bh)
{
    __atomic_fetch_sub(&bh->ctx->n_bhs, 1, __ATOMIC_RELEASE);
    g_free(bh);
}

BottomHalf *aio_bh_new(AioContext *ctx, BHFunc *cb, void *opaque)
{
    return bh_new(ctx, cb, opaque, 0);
}

/* Set @flags and put @bh on the list unless it is there. */
static void bh_enqueue(BottomHalf *bh, unsigned flags)
{
    AioContext *ctx = bh->ctx;  /* @bh may be freed once it is listed */

    hold(ctx);
    if (__atomic_fetch_or(&bh->flags, flags | BH_LISTED, __ATOMIC_ACQ_REL) &
        BH_LISTED) {
        /* Whoever listed it wakes the loop. */
        __atomic_fetch_sub(&ctx->holders, 1, __ATOMIC_RELEASE);
        return;
    }
    bh->next = __atomic_load_n(&ctx->bh_list, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&ctx->bh_list, &bh->next, bh, true,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    }
    wake_and_release(ctx);
}

void aio_bh_schedule(BottomHalf *bh)
{
    bh_enqueue(bh, BH_SCHEDULED);
}

void aio_bh_delete(BottomHalf *bh)
{
    bh_enqueue(bh, BH_DELETED);
}

void aio_bh_schedule_oneshot(AioContext *ctx, BHFunc *cb, void *opaque)
{
    bh_enqueue(bh_new(ctx, cb, opaque, BH_ONESHOT), BH_SCHEDULED);
}

static BottomHalf *bh_take_all_in_order(AioContext *ctx)
{
    BottomHalf *bh = __atomic_exchange_n(&ctx->bh_list, NULL,
                                         __ATOMIC_ACQUIRE);
    BottomHalf *first = NULL;

    while (bh) {
        BottomHalf *next = bh->next;

        bh->next = first;
        first = bh;
        bh = next;
    }
    return first;
}

static bool run_bottom_halves(AioContext *ctx)
{
    BottomHalf *bh, *next;
    bool progress = false;

    if (!__atomic_load_n(&ctx->bh_list, __ATOMIC_RELAXED)) {
        return false;
    }
    for (bh = bh_take_all_in_order(ctx); bh; bh = next) {
        unsigned flags;

        next = bh->next;
        /* From here on it may be scheduled, thus listed, again. */
        flags = __atomic_fetch_and(&bh->flags, ~(BH_LISTED | BH_SCHEDULED),
                                   __ATOMIC_ACQ_REL);
        if ((flags & (BH_SCHEDULED | BH_DELETED)) == BH_SCHEDULED) {
            bh->cb(bh->opaque);
            progress = true;
        }
        if (flags & (BH_DELETED | BH_ONESHOT)) {
            bh_free(bh);
        }
    }
    return progress;
}

/* ---- coroutines ---- */

void aio_co_schedule(AioContext *ctx, Coroutine *co)
{
    if (__atomic_exchange_n(&co->scheduled, 1, __ATOMIC_RELAXED)) {
        g_error("coroutine %p scheduled twice", (void *)co);
    }
    hold(ctx);
    co->schedule_next = __atomic_load_n(&ctx->co_list, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&ctx->co_list, &co->schedule_next, co,
                                        true, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED)) {
    }
    wake_and_release(ctx);
}

void aio_co_wake(Coroutine *co)
{
    AioContext *ctx = __atomic_load_n(&co->ctx, __ATOMIC_RELAXED);

    if (ctx != aio_context_current()) {
        aio_co_schedule(ctx, co);
    } else if (in_coroutine()) {
        coroutine_wake_later(co);
    } else {
        coroutine_enter(co);
    }
}

void aio_co_enter(AioContext *ctx, Coroutine *co)
{
    if (ctx == aio_context_current()) {
        coroutine_enter(co);
    } else {
        aio_co_schedule(ctx, co);
    }
}

static bool run_coroutines(AioContext *ctx)
{
    Coroutine *co, *next, *first = NULL;

    if (!__atomic_load_n(&ctx->co_list, __ATOMIC_RELAXED)) {
        return false;
    }
    co = __atomic_exchange_n(&ctx->co_list, NULL, __ATOMIC_ACQUIRE);
    for (; co; co = next) {             /* put them in order */
        next = co->schedule_next;
        co->schedule_next = first;
        first = co;
    }
    for (co = first; co; co = next) {
        next = co->schedule_next;
        __atomic_store_n(&co->scheduled, 0, __ATOMIC_RELAXED);
        coroutine_enter(co);
    }
    return true;
}

/* ---- timers ---- */

void aio_timer_init(AioTimer *timer, AioContext *ctx, AioTimerFunc *cb,
                    void *opaque)
{
    *timer = (AioTimer) {
        .ctx = ctx, .cb = cb, .opaque = opaque, .expire_ns = -1,
    };
}

void aio_timer_del(AioTimer *timer)
{
    g_assert(timer->ctx == aio_context_current());
    if (timer->expire_ns >= 0) {
        TAILQ_REMOVE(&timer->ctx->timers, timer, next);
        timer->expire_ns = -1;
    }
}

void aio_timer_mod(AioTimer *timer, int64_t expire_ns)
{
    AioContext *ctx = timer->ctx;
    AioTimer *before;

    aio_timer_del(timer);
    /* What timer callbacks arm is for the next turn. */
    timer->expire_ns = MAX(MAX(expire_ns, 0), ctx->timers_now + 1);

    /* Most timers expire after all that are armed. */
    TAILQ_FOREACH_REVERSE(before, &ctx->timers, AioTimerList, next) {
        if (before->expire_ns <= timer->expire_ns) {
            TAILQ_INSERT_AFTER(&ctx->timers, before, timer, next);
            return;
        }
    }
    TAILQ_INSERT_HEAD(&ctx->timers, timer, next);
}

static bool run_timers(AioContext *ctx)
{
    AioTimer *timer = TAILQ_FIRST(&ctx->timers);
    bool progress = false;

    if (!timer) {
        return false;
    }
    ctx->timers_now = clock_now_ns();
    while (timer && timer->expire_ns <= ctx->timers_now) {
        aio_timer_del(timer);
        timer->cb(timer->opaque);
        progress = true;
        timer = TAILQ_FIRST(&ctx->timers);
    }
    ctx->timers_now = -1;
    return progress;
}

/* Nanoseconds from @now to the first timer; -1 if there is none. */
static int64_t timers_timeout(const AioContext *ctx, int64_t now)
{
    const AioTimer *first = TAILQ_FIRST(&ctx->timers);

    return first ? MAX(first->expire_ns - now, 0) : -1;
}

/* ---- turns ---- */

/*
 * Wait without missing a wake-up: whatever is added to a list before
 * @sleeping is set is seen here, whatever comes later writes to the eventfd.
 */
static void wait_for_work(AioContext *ctx, int64_t timeout_ns)
{
    if (timeout_ns != 0) {
        __atomic_store_n(&ctx->sleeping, 1, __ATOMIC_SEQ_CST);
        if (aio_has_pending(ctx)) {
            timeout_ns = 0;
        }
    }
    ctx->fdmon->wait(ctx, timeout_ns);
    __atomic_store_n(&ctx->sleeping, 0, __ATOMIC_RELAXED);
}

static void wait_blocking(AioContext *ctx)
{
    bool have_timers = !TAILQ_EMPTY(&ctx->timers);
    bool busy_polling = ctx->fdmon->peek &&
        __atomic_load_n(&ctx->busy_poll.max_ns, __ATOMIC_RELAXED) > 0 &&
        !ctx->placement.shares_cpu;
    int64_t start = have_timers || busy_polling ? clock_now_ns() : 0;
    int64_t timeout = timers_timeout(ctx, start);

    if (timeout == 0 || aio_has_pending(ctx)) {
        wait_for_work(ctx, 0);
        return;
    }
    if (busy_polling) {
        if (busy_poll_run(ctx, start, timeout)) {
            timeout = 0;
        } else if (have_timers) {
            timeout = timers_timeout(ctx, clock_now_ns());
        }
        wait_for_work(ctx, timeout);
        busy_poll_adapt(&ctx->busy_poll, clock_now_ns() - start);
        return;
    }
    wait_for_work(ctx, timeout);
}

bool aio_poll(AioContext *ctx, bool blocking)
{
    bool progress;

    g_assert(ctx == aio_context_current());
    g_assert(!ctx->in_turn && !in_coroutine());
    ctx->in_turn = true;
    ctx->turn_fair_end_ns = 0;

    if (blocking) {
        wait_blocking(ctx);
    } else {
        wait_for_work(ctx, 0);
    }
    if (__atomic_load_n(&ctx->notified, __ATOMIC_RELAXED)) {
        __atomic_exchange_n(&ctx->notified, 0, __ATOMIC_ACQUIRE);
    }

    watchdog_begin_turn(&ctx->watchdog);
    progress = ctx->fdmon->dispatch(ctx);
    watchdog_end_part(&ctx->watchdog, TURN_COMPLETIONS);
    progress |= run_timers(ctx);
    watchdog_end_part(&ctx->watchdog, TURN_TIMERS);
    progress |= run_bottom_halves(ctx);
    watchdog_end_part(&ctx->watchdog, TURN_BOTTOM_HALVES);
    progress |= run_coroutines(ctx);
    watchdog_end_part(&ctx->watchdog, TURN_COROUTINES);
    watchdog_end_turn(&ctx->watchdog);
    placement_end_turn(ctx);

    ctx->in_turn = false;
    return progress;
}
