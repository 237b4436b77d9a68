/* SPDX-License-Identifier: MIT */
/*
 * CoMutex, CoQueue, CoRwlock.
 *
 * A waiter describes itself in a CoWaiter on its own stack, puts that on the
 * lock's list under the guard and yields.  Whoever lets it go on first takes
 * it off the list, and hands it the lock, under the guard; only then it wakes
 * the coroutine, and never looks at the CoWaiter again.  The waiter may not
 * have yielded yet at that moment: it is entered by its own thread's loop,
 * which runs only after it has.
 *
 * Locks are handed over rather than set free: nobody can overtake, and no
 * wake-up can be lost.
 */
#include <glib.h>
#include <sched.h>
#include "util/coroutine-int.h"

enum { FREE, HELD, HELD_WITH_WAITERS };         /* CoMutex.state */

#define SPINS_BEFORE_YIELD 100

/*
 * The guard is held for a few instructions, but its holder may be preempted,
 * perhaps by the spinning thread itself.
 */
static void guard_lock(int *guard)
{
    int spins = 0;

    while (__atomic_exchange_n(guard, 1, __ATOMIC_ACQUIRE)) {
        while (__atomic_load_n(guard, __ATOMIC_RELAXED)) {
            if (++spins >= SPINS_BEFORE_YIELD) {
                sched_yield();
                spins = 0;
            }
        }
    }
}

static void guard_unlock(int *guard)
{
    __atomic_store_n(guard, 0, __ATOMIC_RELEASE);
}

/* ---- CoMutex ---- */

void co_mutex_init(CoMutex *mutex)
{
    *mutex = (CoMutex) { .state = FREE };
    STAILQ_INIT(&mutex->waiters);
}

static void set_holder(CoMutex *mutex, Coroutine *co)
{
    __atomic_store_n(&mutex->holder, co, __ATOMIC_RELAXED);
}

bool co_mutex_trylock(CoMutex *mutex)
{
    int expected = FREE;

    if (!__atomic_compare_exchange_n(&mutex->state, &expected, HELD, false,
                                     __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        return false;
    }
    set_holder(mutex, coroutine_self());
    return true;
}

static void coroutine_fn co_mutex_lock_contended(CoMutex *mutex)
{
    CoWaiter self = { .co = coroutine_self() };

    g_assert(self.co);
    g_assert(__atomic_load_n(&mutex->holder, __ATOMIC_RELAXED) != self.co);

    guard_lock(&mutex->guard);
    /* Announce a waiter, unless the holder is out by now. */
    if (__atomic_exchange_n(&mutex->state, HELD_WITH_WAITERS,
                            __ATOMIC_ACQUIRE) == FREE) {
        set_holder(mutex, self.co);
        guard_unlock(&mutex->guard);
        return;
    }
    STAILQ_INSERT_TAIL(&mutex->waiters, &self, next);
    guard_unlock(&mutex->guard);
    coroutine_yield();          /* until co_mutex_unlock() made us holder */
}

void coroutine_fn co_mutex_lock(CoMutex *mutex)
{
    if (!co_mutex_trylock(mutex)) {
        co_mutex_lock_contended(mutex);
    }
}

void co_mutex_unlock(CoMutex *mutex)
{
    int expected = HELD;
    CoWaiter *waiter;
    Coroutine *next = NULL;

    g_assert(__atomic_load_n(&mutex->holder, __ATOMIC_RELAXED) ==
             coroutine_self());
    set_holder(mutex, NULL);
    if (__atomic_compare_exchange_n(&mutex->state, &expected, FREE, false,
                                    __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
        return;
    }

    guard_lock(&mutex->guard);
    waiter = STAILQ_FIRST(&mutex->waiters);
    if (waiter) {
        STAILQ_REMOVE_HEAD(&mutex->waiters, next);
        next = waiter->co;
        set_holder(mutex, next);
        if (STAILQ_EMPTY(&mutex->waiters)) {
            __atomic_store_n(&mutex->state, HELD, __ATOMIC_RELEASE);
        }
    } else {
        __atomic_store_n(&mutex->state, FREE, __ATOMIC_RELEASE);
    }
    guard_unlock(&mutex->guard);
    if (next) {
        aio_co_wake(next);
    }
}

/* ---- CoQueue ---- */

void co_queue_init(CoQueue *queue)
{
    STAILQ_INIT(&queue->waiters);
}

void coroutine_fn co_queue_wait(CoQueue *queue, CoMutex *mutex)
{
    CoWaiter self = { .co = coroutine_self() };

    g_assert(self.co);
    STAILQ_INSERT_TAIL(&queue->waiters, &self, next);
    if (mutex) {
        co_mutex_unlock(mutex);
    }
    coroutine_yield();
    if (mutex) {
        co_mutex_lock(mutex);
    }
}

bool co_queue_next(CoQueue *queue)
{
    CoWaiter *waiter = STAILQ_FIRST(&queue->waiters);

    if (!waiter) {
        return false;
    }
    STAILQ_REMOVE_HEAD(&queue->waiters, next);
    aio_co_wake(waiter->co);
    return true;
}

void co_queue_wake_all(CoQueue *queue)
{
    CoQueue woken;

    /* Those who wait again belong to the next round. */
    co_queue_init(&woken);
    STAILQ_CONCAT(&woken.waiters, &queue->waiters);
    while (co_queue_next(&woken)) {
    }
}

bool co_queue_empty(const CoQueue *queue)
{
    return STAILQ_EMPTY(&queue->waiters);
}

/* ---- CoRwlock ---- */

void co_rwlock_init(CoRwlock *lock)
{
    *lock = (CoRwlock) { .owners = 0 };
    STAILQ_INIT(&lock->waiters);
}

/*
 * Make owners of the waiters at the head of the list, as many as may be inside
 * together, release the guard, and let them go on.
 */
static void rwlock_grant_and_release_guard(CoRwlock *lock)
{
    STAILQ_HEAD(, CoWaiter) granted = STAILQ_HEAD_INITIALIZER(granted);
    CoWaiter *waiter;

    while ((waiter = STAILQ_FIRST(&lock->waiters)) && lock->owners >= 0) {
        if (waiter->exclusive && lock->owners > 0) {
            break;
        }
        lock->owners = waiter->exclusive ? -1 : lock->owners + 1;
        STAILQ_REMOVE_HEAD(&lock->waiters, next);
        STAILQ_INSERT_TAIL(&granted, waiter, next);
    }
    guard_unlock(&lock->guard);

    while ((waiter = STAILQ_FIRST(&granted))) {
        STAILQ_REMOVE_HEAD(&granted, next);
        aio_co_wake(waiter->co);
    }
}

static void coroutine_fn co_rwlock_lock(CoRwlock *lock, bool exclusive)
{
    CoWaiter self = { .co = coroutine_self(), .exclusive = exclusive };

    g_assert(self.co);
    guard_lock(&lock->guard);
    if (STAILQ_EMPTY(&lock->waiters) &&
        (exclusive ? lock->owners == 0 : lock->owners >= 0)) {
        lock->owners = exclusive ? -1 : lock->owners + 1;
        guard_unlock(&lock->guard);
        return;
    }
    STAILQ_INSERT_TAIL(&lock->waiters, &self, next);
    guard_unlock(&lock->guard);
    coroutine_yield();
}

void coroutine_fn co_rwlock_rdlock(CoRwlock *lock)
{
    co_rwlock_lock(lock, false);
}

void coroutine_fn co_rwlock_wrlock(CoRwlock *lock)
{
    co_rwlock_lock(lock, true);
}

void co_rwlock_unlock(CoRwlock *lock)
{
    guard_lock(&lock->guard);
    g_assert(lock->owners != 0);
    lock->owners = lock->owners < 0 ? 0 : lock->owners - 1;
    rwlock_grant_and_release_guard(lock);
}

void co_rwlock_downgrade(CoRwlock *lock)
{
    guard_lock(&lock->guard);
    g_assert(lock->owners == -1);
    lock->owners = 1;
    rwlock_grant_and_release_guard(lock);
}
