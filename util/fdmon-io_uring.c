/* SPDX-License-Identifier: MIT */
/*
 * Waiting on io_uring: one ring carries file I/O and commands (aio_add_sqe()),
 * polls of fds, and a read of the context's eventfd, which other threads write
 * to wake it.  One system call a turn submits and waits.
 *
 * Completions are first moved off the CQ, then handled: handlers may queue
 * SQEs, and a full SQ may be submitted, with the CQ in any state.  user_data
 * is the CqeHandler, or 0 where nobody cares.  An fd is polled one-shot and
 * armed again after its handlers ran, which makes it level-triggered.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "util/aio-int.h"

#define SQ_ENTRIES  256
#define CQ_ENTRIES  4096

/* What every set-up needs; FUSE commands take 128 bytes. */
#define SETUP_BASE  (IORING_SETUP_SQE128 | IORING_SETUP_SUBMIT_ALL | \
                     IORING_SETUP_CQSIZE)

/*
 * Best first; older kernels refuse what they do not know with EINVAL.
 * (IORING_SETUP_NO_SQARRAY needs a liburing that knows it.)
 */
static const unsigned setup_flags[] = {
    /* Linux 6.1 */
    SETUP_BASE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
    IORING_SETUP_TASKRUN_FLAG,
    /* Linux 6.0 */
    SETUP_BASE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
    IORING_SETUP_TASKRUN_FLAG,
    /* Linux 5.19 */
    SETUP_BASE | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    SETUP_BASE,
};

/* ---- the CQ ---- */

/* Something that only a system call brings into the CQ. */
static bool kernel_has_work(AioContext *ctx)
{
    return __atomic_load_n(ctx->ring.sq.kflags, __ATOMIC_RELAXED) &
           (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
}

/* Move all completions from the CQ to the ready list; returns how many. */
static unsigned ring_reap(AioContext *ctx)
{
    struct io_uring_cq *cq = &ctx->ring.cq;
    unsigned head = *cq->khead;
    unsigned tail = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE);
    unsigned mask = *cq->kring_mask;
    unsigned n = tail - head;

    for (; head != tail; head++) {
        const struct io_uring_cqe *cqe = &cq->cqes[head & mask];
        CqeHandler *handler = (CqeHandler *)(uintptr_t)cqe->user_data;

        if (handler) {
            handler->cqe.res = cqe->res;
            handler->cqe.flags = cqe->flags;
            STAILQ_INSERT_TAIL(&ctx->ready, handler, next);
        }
    }
    if (n) {
        __atomic_store_n(cq->khead, head, __ATOMIC_RELEASE);
        ctx->in_flight -= n;
    }
    return n;
}

/*
 * After a failed io_uring_enter(): EBUSY asks to empty the CQ, EAGAIN and
 * ENOMEM to try again when the kernel has memory, the rest is nothing to
 * worry about here.
 */
static void ring_recover(AioContext *ctx, int error)
{
    static const struct timespec pause = { .tv_nsec = 1000000 };

    switch (error) {
    case -EINTR:
    case -ETIME:
        break;
    case -EBUSY:
    case -EAGAIN:
    case -ENOMEM:
        io_uring_get_events(&ctx->ring);
        if (!ring_reap(ctx)) {
            nanosleep(&pause, NULL);
        }
        break;
    default:
        g_error("io_uring_enter: %s", g_strerror(-error));
    }
}

/* ---- the SQ ---- */

static void ring_submit(AioContext *ctx)
{
    int ret;

    if (io_uring_sq_ready(&ctx->ring)) {
        ret = io_uring_submit(&ctx->ring);
        if (ret < 0) {
            ring_recover(ctx, ret);
        }
    }
}

static struct io_uring_sqe *ring_get_sqe(AioContext *ctx)
{
    struct io_uring_sqe *sqe;

    while (!(sqe = io_uring_get_sqe(&ctx->ring))) {
        ring_submit(ctx);
    }
    memset(sqe, 0, 2 * sizeof(*sqe));       /* IORING_SETUP_SQE128 */
    ctx->in_flight++;
    return sqe;
}

void aio_add_sqe(void (*prep_sqe)(struct io_uring_sqe *sqe, void *opaque),
                 void *opaque, CqeHandler *cqe_handler)
{
    AioContext *ctx = aio_context_current();
    struct io_uring_sqe *sqe = ring_get_sqe(ctx);
    int64_t max_batch = __atomic_load_n(&ctx->max_batch, __ATOMIC_RELAXED);

    prep_sqe(sqe, opaque);
    io_uring_sqe_set_data(sqe, cqe_handler);
    if (max_batch && io_uring_sq_ready(&ctx->ring) >= max_batch) {
        ring_submit(ctx);
    }
}

/* ---- fds ---- */

static void poll_arm(AioFd *node)
{
    struct io_uring_sqe *sqe = ring_get_sqe(node->ctx);

    io_uring_prep_poll_add(sqe, node->fd, aio_fd_events(node));
    io_uring_sqe_set_data(sqe, &node->poll_cqe);
    node->armed = true;
}

/* The poll's own CQE follows, if it is not under way already. */
static void poll_cancel(AioFd *node)
{
    struct io_uring_sqe *sqe = ring_get_sqe(node->ctx);

    io_uring_prep_poll_remove(sqe, (uintptr_t)&node->poll_cqe);
    io_uring_sqe_set_data(sqe, NULL);
}

static void poll_complete(CqeHandler *handler)
{
    AioFd *node = (AioFd *)((char *)handler - offsetof(AioFd, poll_cqe));
    int res = handler->cqe.res;

    node->armed = false;
    if (res > 0) {
        aio_fd_dispatch(node, res);     /* does nothing if it is removed */
    }
    if (node->removed) {
        g_free(node);
    } else if (res != -EBADF) {
        poll_arm(node);                 /* -ECANCELED: what to watch changed */
    }
}

static void ring_fd_added(AioContext *ctx, AioFd *node)
{
    node->poll_cqe.cb = poll_complete;
    poll_arm(node);
}

static void ring_fd_changed(AioContext *ctx, AioFd *node)
{
    if (node->armed) {
        poll_cancel(node);
    } else if (!node->busy) {
        poll_arm(node);
    }
}

static void ring_fd_removed(AioContext *ctx, AioFd *node)
{
    if (node->armed) {
        poll_cancel(node);
    } else if (!node->busy) {
        g_free(node);
    }
}

/* ---- wake-ups from other threads ---- */

static void notify_arm(AioContext *ctx)
{
    struct io_uring_sqe *sqe = ring_get_sqe(ctx);

    io_uring_prep_read(sqe, ctx->notify_fd, &ctx->notify_value,
                       sizeof(ctx->notify_value), 0);
    io_uring_sqe_set_data(sqe, &ctx->notify_cqe);
}

static void notify_complete(CqeHandler *handler)
{
    AioContext *ctx = (AioContext *)((char *)handler -
                                     offsetof(AioContext, notify_cqe));

    if (!ctx->closing) {
        notify_arm(ctx);
    }
}

/* ---- turns ---- */

static void ring_wait(AioContext *ctx, int64_t timeout_ns)
{
    struct io_uring *ring = &ctx->ring;
    struct io_uring_cqe *cqe;
    int ret = 0;

    if (!STAILQ_EMPTY(&ctx->ready) || io_uring_cq_ready(ring)) {
        timeout_ns = 0;
    }
    if (timeout_ns == 0) {
        if (io_uring_sq_ready(ring) || kernel_has_work(ctx)) {
            ret = io_uring_submit_and_get_events(ring);
        }
    } else if (timeout_ns < 0) {
        ret = io_uring_submit_and_wait(ring, 1);
    } else {
        struct __kernel_timespec ts = {
            .tv_sec = timeout_ns / G_GINT64_CONSTANT(1000000000),
            .tv_nsec = timeout_ns % G_GINT64_CONSTANT(1000000000),
        };

        ret = io_uring_submit_and_wait_timeout(ring, &cqe, 1, &ts, NULL);
    }
    if (ret < 0) {
        ring_recover(ctx, ret);
    }
    ring_reap(ctx);
}

static bool ring_dispatch(AioContext *ctx)
{
    STAILQ_HEAD(, CqeHandler) batch = STAILQ_HEAD_INITIALIZER(batch);
    CqeHandler *handler;

    if (STAILQ_EMPTY(&ctx->ready)) {
        return false;
    }
    STAILQ_CONCAT(&batch, &ctx->ready);
    while ((handler = STAILQ_FIRST(&batch))) {
        STAILQ_REMOVE_HEAD(&batch, next);
        handler->cb(handler);           /* may free or reuse it */
    }
    return true;
}

static bool ring_peek(AioContext *ctx)
{
    return io_uring_cq_ready(&ctx->ring) || kernel_has_work(ctx) ||
           !STAILQ_EMPTY(&ctx->ready);
}

/* ---- life ---- */

static bool ring_init(AioContext *ctx, Error **errp)
{
    int ret = -EINVAL;

    for (size_t i = 0; ret == -EINVAL && i < G_N_ELEMENTS(setup_flags); i++) {
        struct io_uring_params params = {
            .flags = setup_flags[i], .cq_entries = CQ_ENTRIES,
        };

        ret = io_uring_queue_init_params(SQ_ENTRIES, &ctx->ring, &params);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to set up io_uring");
        return false;
    }
    io_uring_ring_dontfork(&ctx->ring);
    /* Saves a look-up per system call; fine if it cannot be had. */
    io_uring_register_ring_fd(&ctx->ring);

    ctx->notify_cqe.cb = notify_complete;
    notify_arm(ctx);
    return true;
}

/*
 * What is in flight writes to memory that is about to be freed: wait for it.
 * The read of the eventfd is made to end.
 */
static void ring_destroy(AioContext *ctx)
{
    static const uint64_t one = 1;

    ctx->closing = true;
    while (write(ctx->notify_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    while (ctx->in_flight) {
        ring_wait(ctx, -1);
        ring_dispatch(ctx);
    }
    io_uring_queue_exit(&ctx->ring);
}

const FDMonOps fdmon_io_uring = {
    .init = ring_init,
    .destroy = ring_destroy,
    .fd_added = ring_fd_added,
    .fd_changed = ring_fd_changed,
    .fd_removed = ring_fd_removed,
    .wait = ring_wait,
    .dispatch = ring_dispatch,
    .submit = ring_submit,
    .peek = ring_peek,
};
