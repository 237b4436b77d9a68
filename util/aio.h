/* SPDX-License-Identifier: MIT */
/*
 * AioContext: the event loop of one thread.
 *
 * Everything that a thread waits for goes through one io_uring (single issuer,
 * 128-byte SQEs): file I/O, FUSE commands, fd readiness, timers and wake-ups
 * from other threads, with one system call per turn.  Where the kernel has no
 * io_uring, or forbids it, an epoll loop takes its place: then
 * aio_context_has_ring() is false, and file I/O goes to the thread pool
 * (util/thread-pool.h).
 *
 * Functions marked [ctx] may only be called in the thread that runs the
 * context; those marked [any] from every thread.  The loop is run by a thread's
 * top level only: nothing waits by calling aio_poll().
 */
#ifndef UTIL_AIO_H
#define UTIL_AIO_H

#include <stdbool.h>
#include <stdint.h>
#include <liburing.h>
#include "util/coroutine.h"
#include "util/error.h"
#include "util/queue.h"

typedef struct AioContext AioContext;

typedef enum {
    AIO_BACKEND_AUTO,       /* io_uring where it can be had, else epoll */
    AIO_BACKEND_IO_URING,
    AIO_BACKEND_EPOLL,
} AioBackend;

/*
 * A context for the calling thread, which alone may run it (the ring has a
 * single issuer), and which is from then on aio_context_current() there.
 * AUTO obeys the environment variable QSD_AIO=io_uring|epoll (for tests).
 * NULL with an error if @backend cannot be had.
 */
AioContext *aio_context_new(AioBackend backend, Error **errp);

/*
 * [ctx] Free the context.  No fd handler, timer, bottom half or CqeHandler
 * may be outstanding.
 */
void aio_context_free(AioContext *ctx);

/* [any] The calling thread's context, or NULL. */
AioContext *aio_context_current(void);

/* [any] The context of the main thread: the first one created. */
AioContext *aio_context_main(void);

/* [any] True if the context runs on io_uring, so that aio_add_sqe() works. */
bool aio_context_has_ring(const AioContext *ctx);

/*
 * [ctx] One turn: submit what is queued, wait (if @blocking and nothing is
 * due), then run completions, fd handlers, timers and bottom halves.
 * Returns true if anything ran.
 */
bool aio_poll(AioContext *ctx, bool blocking);

/* [any] Make a blocking aio_poll() return. */
void aio_notify(AioContext *ctx);

/*
 * Busy polling before sleeping, adaptive between 0 and @max_ns nanoseconds;
 * 0 disables.  @grow and @shrink: factors (0 = built-in).  [any]; takes effect
 * at the next turn.
 */
void aio_context_set_poll_params(AioContext *ctx, int64_t max_ns,
                                 int64_t grow, int64_t shrink,
                                 int64_t weight);

/* [any] At most this many SQEs are queued before a submit; 0 = no limit. */
void aio_context_set_max_batch(AioContext *ctx, int64_t max_batch);

/* [any] Bounds of the context's thread pool. */
void aio_context_set_thread_pool_params(AioContext *ctx, int64_t min,
                                        int64_t max);

/*
 * Placement (CPU affinity) of the thread that runs a context.  A client that
 * waits for each reply is served fastest on its own CPU, one that keeps many
 * requests in flight from another CPU.  A transport that knows its clients
 * says for each request which CPU it came from, and from whom (any number, a
 * thread id for one); the loop counts requests per wake-up and moves its
 * thread when that pays, never while placement is off.  While the thread
 * shares a client's CPU it does not busy poll.  Both [ctx].
 */
void aio_context_set_placement(AioContext *ctx, bool enable);
void aio_context_note_client(AioContext *ctx, unsigned cpu, unsigned client);

/* ---- io_uring ---- */

typedef struct CqeHandler CqeHandler;
struct CqeHandler {
    void (*cb)(CqeHandler *handler);        /* called in the ctx thread */
    struct {
        int32_t res;
        uint32_t flags;
    } cqe;                                  /* valid in cb */
    STAILQ_ENTRY(CqeHandler) next;          /* the loop's */
};

/*
 * Queue one SQE on the calling thread's ring; @prep_sqe fills it (all 128
 * bytes are zero before), the loop sets user_data.  @cqe_handler->cb is
 * called once, from the loop and never from inside this call; until then the
 * handler's memory and all that the SQE points to belong to the kernel.
 * Always succeeds: a full SQ is submitted first.  A multishot operation is not
 * supported.
 */
void aio_add_sqe(void (*prep_sqe)(struct io_uring_sqe *sqe, void *opaque),
                 void *opaque, CqeHandler *cqe_handler);

/*
 * Queue one SQE and wait for it.  Returns the CQE's res.  EINTR and EAGAIN
 * are for the caller.
 */
int coroutine_fn aio_co_sqe(void (*prep_sqe)(struct io_uring_sqe *sqe,
                                             void *opaque),
                            void *opaque);

/* ---- fd readiness ---- */

typedef void IOHandler(void *opaque);

/*
 * [ctx] Call @io_read while @fd is readable (or has hung up), @io_write while
 * it is writable: level-triggered.  Both NULL removes; after that no callback
 * comes any more, and the fd may be closed.
 */
void aio_set_fd_handler(AioContext *ctx, int fd, IOHandler *io_read,
                        IOHandler *io_write, void *opaque);

/* Wait until @fd is readable (or writable), in the current context. */
void coroutine_fn aio_co_wait_readable(int fd);
void coroutine_fn aio_co_wait_writable(int fd);

/* ---- timers ---- */

typedef void AioTimerFunc(void *opaque);
typedef struct AioTimer {
    AioContext *ctx;
    AioTimerFunc *cb;
    void *opaque;
    int64_t expire_ns;              /* CLOCK_MONOTONIC; -1: not armed */
    TAILQ_ENTRY(AioTimer) next;
} AioTimer;

int64_t clock_now_ns(void);         /* CLOCK_MONOTONIC, ns */

/* All [ctx].  A timer fires once; it must be deleted before it is freed. */
void aio_timer_init(AioTimer *timer, AioContext *ctx, AioTimerFunc *cb,
                    void *opaque);
void aio_timer_mod(AioTimer *timer, int64_t expire_ns);
void aio_timer_del(AioTimer *timer);

/* Sleep in the current context. */
void coroutine_fn aio_co_sleep_ns(int64_t ns);

/* ---- bottom halves and scheduling across threads ---- */

typedef void BHFunc(void *opaque);
typedef struct BottomHalf BottomHalf;

/* [any] A bottom half of @ctx; scheduling it twice runs it once. */
BottomHalf *aio_bh_new(AioContext *ctx, BHFunc *cb, void *opaque);
void aio_bh_schedule(BottomHalf *bh);       /* [any] no allocation, no lock */
void aio_bh_delete(BottomHalf *bh);         /* [any] after that it won't run */

/* [any] Run @cb once in @ctx's thread. */
void aio_bh_schedule_oneshot(AioContext *ctx, BHFunc *cb, void *opaque);

/*
 * [any] Enter @co in @ctx's thread at its next turn.  @co has yielded or is
 * about to (in that thread); no allocation.
 */
void aio_co_schedule(AioContext *ctx, Coroutine *co);

/*
 * [any] Let @co go on in the context in which it last ran.  In that thread it
 * is entered at once (from a coroutine: when that and those that entered it
 * have yielded), else scheduled.
 */
void aio_co_wake(Coroutine *co);

/* [any] Start a coroutine in @ctx: at once if it is the current one. */
void aio_co_enter(AioContext *ctx, Coroutine *co);

/* The running coroutine goes on in @ctx's thread after this returns. */
void coroutine_fn aio_co_reschedule_self(AioContext *ctx);

/*
 * For loops whose length an image, an argument or a client decides: called
 * every time round, by no step that takes more than microseconds.  Once this
 * turn of the loop has been at work for 1 ms, all else that the thread has to
 * do comes first; so as after any wait, everything may have changed.  Returns
 * 0, or -ECANCELED if nobody wants the result any more: see
 * coroutine_set_cancel().  Not for who holds more than CoMutexes.
 */
int coroutine_fn aio_co_yield_fair(void);

/* Run @cb in @ctx's thread and wait until it has returned. */
void coroutine_fn aio_co_run_in(AioContext *ctx, BHFunc *cb, void *opaque);

#endif /* UTIL_AIO_H */
