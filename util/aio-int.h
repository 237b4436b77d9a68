/* SPDX-License-Identifier: MIT */
/*
 * Inside of the event loop: struct AioContext and what its files share.
 *
 * aio.c runs the turns: bottom halves, coroutines, timers; aio-fd.c keeps the
 * fd handlers; fdmon-io_uring.c and fdmon-epoll.c wait; busy-poll.c decides
 * for how long to look before sleeping; placement.c where to run.
 */
#ifndef UTIL_AIO_INT_H
#define UTIL_AIO_INT_H

#include <glib.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include "util/aio.h"
#include "util/coroutine-int.h"
#include "util/watchdog.h"

/* ---- fd handlers (aio-fd.c); all in the context's thread ---- */

typedef struct AioFd {
    AioContext *ctx;
    int fd;
    IOHandler *io_read;
    IOHandler *io_write;
    void *read_opaque;
    void *write_opaque;
    bool removed;           /* no callback any more, freed by the backend */
    bool busy;              /* a callback runs */
    LIST_ENTRY(AioFd) next; /* epoll: removed ones */

    /* The backend's */
    CqeHandler poll_cqe;    /* io_uring */
    bool armed;             /* io_uring: a poll is queued or in the kernel */
    bool always_ready;      /* epoll: a file that cannot be waited for */
} AioFd;

/* Watch for what in terms of POLLIN and POLLOUT. */
unsigned aio_fd_events(const AioFd *node);

/* Call the handlers that @revents (poll(2)'s) concern. */
void aio_fd_dispatch(AioFd *node, unsigned revents);

/* Handlers of one direction, each with its own opaque; NULL removes. */
void aio_fd_set_reader(AioContext *ctx, int fd, IOHandler *cb, void *opaque);
void aio_fd_set_writer(AioContext *ctx, int fd, IOHandler *cb, void *opaque);

/* ---- what waits ---- */

typedef struct FDMonOps {
    bool (*init)(AioContext *ctx, Error **errp);
    void (*destroy)(AioContext *ctx);

    /* Start, change or (node->removed) end watching @node->fd. */
    void (*fd_added)(AioContext *ctx, AioFd *node);
    void (*fd_changed)(AioContext *ctx, AioFd *node);
    void (*fd_removed)(AioContext *ctx, AioFd *node);

    /*
     * Submit what is queued; sleep until something happens, for @timeout_ns
     * at most (-1: no limit, 0: only look).
     */
    void (*wait)(AioContext *ctx, int64_t timeout_ns);

    /* Call handlers for what wait() found.  True if there were any. */
    bool (*dispatch)(AioContext *ctx);

    /*
     * For busy polling, which is off where this is NULL: submit what is
     * queued; is there something to dispatch?  No system call.
     */
    void (*submit)(AioContext *ctx);
    bool (*peek)(AioContext *ctx);
} FDMonOps;

extern const FDMonOps fdmon_io_uring;
extern const FDMonOps fdmon_epoll;

/* ---- policies ---- */

typedef struct BusyPoll {
    /* Set from any thread, atomic */
    int64_t max_ns;
    int64_t grow;
    int64_t shrink;
    int64_t weight;

    int64_t ns;             /* how long to look at present */
    int64_t average_ns;     /* how long waits take */
} BusyPoll;

typedef struct PlacementVote {
    unsigned winner;
    unsigned votes;         /* for it, less those against it */
} PlacementVote;

typedef struct Placement {
    bool enabled;
    bool shares_cpu;        /* pinned to its client's CPU */
    PlacementVote cpu;      /* where clients run */
    PlacementVote client;   /* who they are */
    unsigned turn_requests; /* noted in this turn */
    unsigned wakeups;       /* in this window: turns with a request ... */
    unsigned requests;      /* ... and requests */
    unsigned window;        /* wake-ups until the next decision */
    cpu_set_t home;         /* affinity before anything was moved */
    cpu_set_t current;      /* what was set last */
} Placement;

typedef struct ThreadPool ThreadPool;

struct AioContext {
    const FDMonOps *fdmon;
    bool in_turn;
    int64_t turn_fair_end_ns;   /* aio_co_yield_fair()'s; 0: nobody asked */

    /* From any thread: lock-free stacks, emptied at once by the loop */
    BottomHalf *bh_list;
    Coroutine *co_list;
    int n_bhs;              /* bottom halves that exist (atomic) */
    int holders;            /* threads about to add to a list (atomic) */

    /*
     * Wake-ups.  The loop sets @sleeping and then looks at the lists; a
     * notifier adds to a list and then looks at @sleeping (sequentially
     * consistent).  Who clears @sleeping writes to the eventfd.
     */
    int sleeping;
    int notified;           /* aio_notify(): the next turn does not block */
    int notify_fd;

    int64_t max_batch;      /* atomic */
    TAILQ_HEAD(AioTimerList, AioTimer) timers;  /* earliest first */
    int64_t timers_now;     /* while timers run: the time they run for */
    GHashTable *fds;        /* int -> AioFd */

    BusyPoll busy_poll;
    Placement placement;
    Watchdog watchdog;

    ThreadPool *pool;       /* made by first use */
    int64_t pool_min;       /* atomic */
    int64_t pool_max;

    /* fdmon-io_uring.c */
    struct io_uring ring;
    STAILQ_HEAD(, CqeHandler) ready;
    CqeHandler notify_cqe;
    uint64_t notify_value;
    bool closing;           /* the eventfd is not read again */
    unsigned in_flight;     /* SQEs whose CQE has not been reaped */

    /* fdmon-epoll.c */
    int epoll_fd;
    struct epoll_event epoll_events[64];
    int n_epoll_events;
    unsigned n_always_ready;
    bool no_epoll_pwait2;
    LIST_HEAD(, AioFd) epoll_removed;   /* freed when no event names them */
};

/* busy-poll.c: look for work for a while; true if there is some. */
bool busy_poll_run(AioContext *ctx, int64_t start_ns, int64_t timeout_ns);
/* Learn from a wait that took @ns in all. */
void busy_poll_adapt(BusyPoll *poll, int64_t ns);

/* True if a bottom half, coroutine or notification is pending. */
bool aio_has_pending(AioContext *ctx);

/* placement.c: the window is full, or placement was switched off. */
void placement_decide(AioContext *ctx);
void placement_init_thread_attr(const AioContext *ctx, pthread_attr_t *attr);

/* At the end of each turn. */
static inline void placement_end_turn(AioContext *ctx)
{
    Placement *p = &ctx->placement;

    if (p->turn_requests) {
        p->requests += p->turn_requests;
        p->turn_requests = 0;
        if (++p->wakeups >= p->window) {
            placement_decide(ctx);
        }
    }
}

/* thread-pool.c */
void thread_pool_params_changed(AioContext *ctx);
void thread_pool_free(ThreadPool *pool);

#endif /* UTIL_AIO_INT_H */
