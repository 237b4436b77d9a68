/* SPDX-License-Identifier: MIT */
/*
 * Coroutines: functions that may wait without blocking their thread.
 *
 * A coroutine runs on a stack of its own (pooled, with a guard page) in the
 * thread that entered it, until it yields or returns.  Whatever may yield is
 * marked coroutine_fn and carries "co_" in its name.  Locks below may be used
 * by coroutines of different threads at once; whoever is woken goes on in the
 * AioContext in which it went to sleep.
 */
#ifndef UTIL_COROUTINE_H
#define UTIL_COROUTINE_H

#include <stdbool.h>
#include <stdint.h>
#include "util/queue.h"

/* May only be called from a coroutine. */
#define coroutine_fn

typedef struct Coroutine Coroutine;
typedef void coroutine_fn CoroutineEntry(void *opaque);

/*
 * A coroutine that will run @entry(@opaque) once entered.  Its stack comes
 * from the calling thread's pool and returns to a pool when @entry returns.
 */
Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque);

/*
 * Run @co until it yields or ends.  The caller may itself be a coroutine.
 * @co goes on in the calling thread; see aio_co_wake() for waking from
 * elsewhere.
 */
void coroutine_enter(Coroutine *co);

/* Back to whoever entered; returns when somebody enters again. */
void coroutine_fn coroutine_yield(void);

/* The running coroutine, or NULL outside of any. */
Coroutine *coroutine_self(void);
static inline bool in_coroutine(void)
{
    return coroutine_self() != NULL;
}

/*
 * How to know that nobody wants any more what a coroutine does: asked by
 * aio_co_yield_fair(), in the thread in which the coroutine then runs.
 */
typedef struct CoCancel {
    bool (*is_cancelled)(const struct CoCancel *cancel);
} CoCancel;

/*
 * From now on @cancel knows it of the running coroutine; NULL: it goes on to
 * its end.  Returns what was before.
 */
const CoCancel *coroutine_fn coroutine_set_cancel(const CoCancel *cancel);
bool coroutine_fn coroutine_is_cancelled(void);

/* Free the calling thread's pooled stacks (at thread exit). */
void coroutine_pool_drain(void);

/*
 * CoMutex: mutual exclusion between coroutines of any threads; FIFO.
 * Uncontended lock and unlock are one atomic operation each.
 */
typedef struct CoWaiter CoWaiter;
typedef struct CoMutex {
    int state;              /* atomic: 0 free, 1 held, 2 held with waiters */
    int guard;              /* spin lock over the waiters */
    Coroutine *holder;      /* for assertions */
    STAILQ_HEAD(, CoWaiter) waiters;
} CoMutex;

void co_mutex_init(CoMutex *mutex);
void coroutine_fn co_mutex_lock(CoMutex *mutex);
bool co_mutex_trylock(CoMutex *mutex);
void co_mutex_unlock(CoMutex *mutex);

/*
 * CoQueue: a condition.  co_queue_wait() releases @mutex (may be NULL if all
 * users run in one thread), sleeps, and has @mutex again when it returns.
 * Callers of the wake functions hold the same mutex.  Woken coroutines
 * check their condition again.
 */
typedef struct CoQueue {
    STAILQ_HEAD(, CoWaiter) waiters;
} CoQueue;

void co_queue_init(CoQueue *queue);
void coroutine_fn co_queue_wait(CoQueue *queue, CoMutex *mutex);
bool co_queue_next(CoQueue *queue);         /* wake one; false if none waits */
void co_queue_wake_all(CoQueue *queue);
bool co_queue_empty(const CoQueue *queue);

/*
 * CoRwlock: many readers or one writer; FIFO, so that neither starves.
 */
typedef struct CoRwlock {
    int guard;              /* spin lock over the fields below */
    int owners;             /* readers inside, or -1: a writer */
    STAILQ_HEAD(, CoWaiter) waiters;
} CoRwlock;

void co_rwlock_init(CoRwlock *lock);
void coroutine_fn co_rwlock_rdlock(CoRwlock *lock);
void coroutine_fn co_rwlock_wrlock(CoRwlock *lock);
void co_rwlock_unlock(CoRwlock *lock);
void co_rwlock_downgrade(CoRwlock *lock);   /* writer becomes reader */

#endif /* UTIL_COROUTINE_H */
