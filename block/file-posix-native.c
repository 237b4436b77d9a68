/* SPDX-License-Identifier: MIT */
/*
 * aio=native: Linux AIO, one queue per thread.
 *
 * Requests are collected while the thread goes through its work and submitted
 * together, by a bottom half or when a batch is full.  The kernel tells of
 * completions through an eventfd, which the thread's loop watches only while
 * requests are in flight, so that an idle queue holds nothing of the loop.
 * A queue lives as long as its thread.
 */
#include <errno.h>
#include <libaio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "block/file-posix.h"

#define QUEUE_DEPTH     1024
#define DEFAULT_BATCH   32
#define MAX_SUBMIT      64
#define MAX_EVENTS      64

typedef struct NativeReq {
    struct iocb iocb;
    ssize_t ret;
    bool done;
    Coroutine *co;
    STAILQ_ENTRY(NativeReq) next;
} NativeReq;

typedef struct NativeQueue {
    io_context_t io_ctx;
    int event_fd;
    unsigned in_flight;         /* the kernel has them */
    unsigned n_pending;         /* not submitted yet */
    bool bh_scheduled;
    bool watching;              /* event_fd */
    STAILQ_HEAD(, NativeReq) pending;
} NativeQueue;

static void queue_free(void *opaque)
{
    NativeQueue *q = opaque;

    io_destroy(q->io_ctx);
    close(q->event_fd);
    g_free(q);
}

static GPrivate thread_queue = G_PRIVATE_INIT(queue_free);

/* The calling thread's queue, or NULL with errno set. */
static NativeQueue *queue_get(void)
{
    NativeQueue *q = g_private_get(&thread_queue);
    int ret;

    if (q) {
        return q;
    }
    q = g_new0(NativeQueue, 1);
    STAILQ_INIT(&q->pending);
    q->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (q->event_fd < 0) {
        g_free(q);
        return NULL;
    }
    ret = io_setup(QUEUE_DEPTH, &q->io_ctx);
    if (ret < 0) {
        close(q->event_fd);
        g_free(q);
        errno = -ret;
        return NULL;
    }
    g_private_set(&thread_queue, q);
    return q;
}

bool native_aio_probe(Error **errp)
{
    if (!queue_get()) {
        error_setg_errno(errp, errno, "Unable to use native AIO: failed to "
                         "create linux AIO context");
        return false;
    }
    return true;
}

/* @req is on its coroutine's stack: gone once that goes on. */
static void req_complete(NativeReq *req, ssize_t ret)
{
    req->ret = ret;
    req->done = true;
    if (req->co != coroutine_self()) {
        aio_co_wake(req->co);
    }
}

static void queue_event(void *opaque);

static void queue_watch(NativeQueue *q)
{
    bool watch = q->in_flight > 0;

    if (watch != q->watching) {
        q->watching = watch;
        aio_set_fd_handler(aio_context_current(), q->event_fd,
                           watch ? queue_event : NULL, NULL, q);
    }
}

/* Hand pending requests to the kernel; those it refuses fail. */
static void queue_submit(NativeQueue *q)
{
    while (!STAILQ_EMPTY(&q->pending)) {
        struct iocb *iocbs[MAX_SUBMIT];
        NativeReq *req;
        int n = 0, ret;

        STAILQ_FOREACH(req, &q->pending, next) {
            if (n == MAX_SUBMIT) {
                break;
            }
            iocbs[n++] = &req->iocb;
        }
        ret = io_submit(q->io_ctx, n, iocbs);
        if (ret == -EINTR || (ret == -EAGAIN && q->in_flight > 0)) {
            if (ret == -EINTR) {
                continue;
            }
            break;              /* the kernel is full: after a completion */
        }
        if (ret <= 0) {
            req = STAILQ_FIRST(&q->pending);
            STAILQ_REMOVE_HEAD(&q->pending, next);
            q->n_pending--;
            req_complete(req, ret < 0 ? ret : -EAGAIN);
            continue;
        }
        for (int i = 0; i < ret; i++) {
            STAILQ_REMOVE_HEAD(&q->pending, next);
        }
        q->n_pending -= ret;
        q->in_flight += ret;
    }
    queue_watch(q);
}

static void submit_bh(void *opaque)
{
    NativeQueue *q = opaque;

    q->bh_scheduled = false;
    queue_submit(q);
}

static void queue_event(void *opaque)
{
    NativeQueue *q = opaque;
    struct timespec no_wait = { 0 };
    struct io_event events[MAX_EVENTS];
    eventfd_t ignored;
    int n;

    eventfd_read(q->event_fd, &ignored);
    do {
        n = io_getevents(q->io_ctx, 0, MAX_EVENTS, events, &no_wait);
        for (int i = 0; i < n; i++) {
            q->in_flight--;
            req_complete(events[i].data, (ssize_t)events[i].res);
        }
    } while (n == MAX_EVENTS || n == -EINTR);
    queue_submit(q);
}

ssize_t coroutine_fn native_aio_co_rw(int fd, bool is_write, int64_t offset,
                                      struct iovec *iov, int niov,
                                      uint64_t max_batch)
{
    NativeQueue *q = queue_get();
    NativeReq req = { .co = coroutine_self() };

    if (!q) {
        return -EAGAIN;         /* the caller has other means */
    }
    if (is_write) {
        io_prep_pwritev(&req.iocb, fd, iov, niov, offset);
    } else {
        io_prep_preadv(&req.iocb, fd, iov, niov, offset);
    }
    io_set_eventfd(&req.iocb, q->event_fd);
    req.iocb.data = &req;       /* io_prep_*() has cleared it */

    STAILQ_INSERT_TAIL(&q->pending, &req, next);
    q->n_pending++;
    if (q->n_pending >= (max_batch ? max_batch : DEFAULT_BATCH)) {
        queue_submit(q);
    } else if (!q->bh_scheduled) {
        q->bh_scheduled = true;
        aio_bh_schedule_oneshot(aio_context_current(), submit_bh, q);
    }
    while (!req.done) {
        coroutine_yield();
    }
    return req.ret;
}
