/* SPDX-License-Identifier: MIT */
/*
 * Waiting in coroutines for what the event loop knows: completions, fds,
 * time, other threads.  What is waited for lives on the coroutine's stack.
 */
#include <errno.h>
#include <poll.h>
#include "util/aio-int.h"

/* ---- io_uring ---- */

typedef struct CoSqe {
    CqeHandler handler;         /* first: the callback casts */
    Coroutine *co;
} CoSqe;

static void co_sqe_complete(CqeHandler *handler)
{
    coroutine_enter(((CoSqe *)handler)->co);
}

int coroutine_fn aio_co_sqe(void (*prep_sqe)(struct io_uring_sqe *sqe,
                                             void *opaque),
                            void *opaque)
{
    CoSqe wait = {
        .handler.cb = co_sqe_complete, .co = coroutine_self(),
    };

    g_assert(wait.co);
    aio_add_sqe(prep_sqe, opaque, &wait.handler);
    coroutine_yield();
    return wait.handler.cqe.res;
}

/* ---- fds ---- */

typedef struct CoFdWait {
    AioContext *ctx;
    Coroutine *co;
    int fd;
    unsigned events;
} CoFdWait;

static void prep_poll(struct io_uring_sqe *sqe, void *opaque)
{
    const CoFdWait *wait = opaque;

    io_uring_prep_poll_add(sqe, wait->fd, wait->events);
}

static void fd_is_readable(void *opaque)
{
    CoFdWait *wait = opaque;

    aio_fd_set_reader(wait->ctx, wait->fd, NULL, NULL);
    coroutine_enter(wait->co);
}

static void fd_is_writable(void *opaque)
{
    CoFdWait *wait = opaque;

    aio_fd_set_writer(wait->ctx, wait->fd, NULL, NULL);
    coroutine_enter(wait->co);
}

static void coroutine_fn co_wait_fd(int fd, unsigned events)
{
    CoFdWait wait = {
        .ctx = aio_context_current(), .co = coroutine_self(),
        .fd = fd, .events = events,
    };

    g_assert(wait.co);
    if (aio_context_has_ring(wait.ctx)) {
        aio_co_sqe(prep_poll, &wait);
        return;
    }
    if (events == POLLIN) {
        aio_fd_set_reader(wait.ctx, fd, fd_is_readable, &wait);
    } else {
        aio_fd_set_writer(wait.ctx, fd, fd_is_writable, &wait);
    }
    coroutine_yield();
}

void coroutine_fn aio_co_wait_readable(int fd)
{
    co_wait_fd(fd, POLLIN);
}

void coroutine_fn aio_co_wait_writable(int fd)
{
    co_wait_fd(fd, POLLOUT);
}

/* ---- time ---- */

static void sleep_over(void *opaque)
{
    coroutine_enter(opaque);
}

void coroutine_fn aio_co_sleep_ns(int64_t ns)
{
    AioTimer timer;
    int64_t expire_ns;

    if (__builtin_add_overflow(clock_now_ns(), ns, &expire_ns)) {
        expire_ns = G_MAXINT64;
    }
    aio_timer_init(&timer, aio_context_current(), sleep_over,
                   coroutine_self());
    aio_timer_mod(&timer, expire_ns);
    coroutine_yield();
}

/* ---- other threads ---- */

static void schedule_in(Coroutine *co, void *ctx)
{
    aio_co_schedule(ctx, co);
}

void coroutine_fn aio_co_reschedule_self(AioContext *ctx)
{
    if (ctx != aio_context_current()) {
        coroutine_yield_then(schedule_in, ctx);
    }
}

/* After so much work in a turn others have theirs. */
#define FAIR_SHARE_NS 1000000

int coroutine_fn aio_co_yield_fair(void)
{
    AioContext *ctx = aio_context_current();
    int64_t now = clock_now_ns();

    /* Counted from the first who asks, so that turns need no clock. */
    if (!ctx->turn_fair_end_ns) {
        ctx->turn_fair_end_ns = now + FAIR_SHARE_NS;
    }
    if (now >= ctx->turn_fair_end_ns) {
        coroutine_yield_then(schedule_in, ctx);
    }
    /* Also of who has waited for something else meanwhile. */
    return coroutine_is_cancelled() ? -ECANCELED : 0;
}

typedef struct CoRunIn {
    BHFunc *cb;
    void *opaque;
    Coroutine *co;
} CoRunIn;

static void run_in_bh(void *opaque)
{
    CoRunIn *run = opaque;

    run->cb(run->opaque);
    aio_co_wake(run->co);
}

void coroutine_fn aio_co_run_in(AioContext *ctx, BHFunc *cb, void *opaque)
{
    CoRunIn run = { .cb = cb, .opaque = opaque, .co = coroutine_self() };

    g_assert(run.co);
    aio_bh_schedule_oneshot(ctx, run_in_bh, &run);
    coroutine_yield();
}
