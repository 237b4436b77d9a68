/* SPDX-License-Identifier: MIT */
/*
 * Inside of coroutines, for the event loop and the locks.
 */
#ifndef UTIL_COROUTINE_INT_H
#define UTIL_COROUTINE_INT_H

#include "util/aio.h"
#include "util/coroutine.h"
#include "util/coroutine-switch.h"

/* A stack, and what the sanitizers want to remember of it. */
typedef struct CoroutineStack {
    void *map;                  /* guard page first; NULL: a thread's own */
    void *base;                 /* lowest usable byte */
    size_t size;
    void *asan_fake_stack;
    unsigned valgrind_id;
} CoroutineStack;

struct Coroutine {
    CoroutineEntry *entry;
    void *opaque;
    const CoCancel *cancel;     /* or NULL */
    Coroutine *caller;          /* who entered; NULL while it does not run */

    /*
     * Where it last ran: set by the thread that enters it, read by wakers of
     * any thread.
     */
    AioContext *ctx;

    /*
     * Non-zero while it waits in a list to be entered (atomic): a second
     * wake-up meanwhile is a bug.
     */
    int scheduled;
    Coroutine *schedule_next;           /* aio_co_schedule()'s list */
    STAILQ_ENTRY(Coroutine) next;       /* a thread's wake queue, or a pool */

    SwitchPoint point;                  /* where it left off */
    bool started;                       /* point is valid */
    CoroutineStack stack;
};

/*
 * Enter @co once the running coroutine, and those that entered it, have
 * yielded or ended.  Called from a coroutine.
 */
void coroutine_wake_later(Coroutine *co);

/*
 * Yield, and call @then(self, @opaque) in this thread when the switch is
 * over: from that moment on another thread may enter the coroutine.
 */
void coroutine_fn coroutine_yield_then(void (*then)(Coroutine *co,
                                                    void *opaque),
                                       void *opaque);

/* ---- the waiting lists of the locks ---- */

struct CoWaiter {
    Coroutine *co;
    bool exclusive;                     /* CoRwlock: a writer */
    STAILQ_ENTRY(CoWaiter) next;
};

#endif /* UTIL_COROUTINE_INT_H */
