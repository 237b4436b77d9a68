/* SPDX-License-Identifier: MIT */
#include "block/inflight.h"

#include <glib.h>
#include "util/aio.h"

struct WaitSetEntry {
    Coroutine *co;
    TAILQ_ENTRY(WaitSetEntry) next;
};

void wait_set_init(WaitSet *set)
{
    set->n_waiting = 0;
    pthread_mutex_init(&set->lock, NULL);
    TAILQ_INIT(&set->entries);
}

void wait_set_deinit(WaitSet *set)
{
    g_assert(TAILQ_EMPTY(&set->entries));
    pthread_mutex_destroy(&set->lock);
}

void coroutine_fn wait_set_co_wait(WaitSet *set, bool (*cond)(void *opaque),
                                   void *opaque)
{
    WaitSetEntry self = { .co = coroutine_self() };

    /* Before the first look: whoever acts after it sees that we wait. */
    __atomic_fetch_add(&set->n_waiting, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&set->lock);
    while (!cond(opaque)) {
        TAILQ_INSERT_TAIL(&set->entries, &self, next);
        pthread_mutex_unlock(&set->lock);
        coroutine_yield();
        pthread_mutex_lock(&set->lock);
    }
    pthread_mutex_unlock(&set->lock);
    __atomic_fetch_sub(&set->n_waiting, 1, __ATOMIC_SEQ_CST);
}

void wait_set_wake(WaitSet *set)
{
    TAILQ_HEAD(, WaitSetEntry) woken = TAILQ_HEAD_INITIALIZER(woken);
    WaitSetEntry *entry;

    if (__atomic_load_n(&set->n_waiting, __ATOMIC_SEQ_CST) == 0) {
        return;
    }

    pthread_mutex_lock(&set->lock);
    TAILQ_CONCAT(&woken, &set->entries, next);
    pthread_mutex_unlock(&set->lock);

    while ((entry = TAILQ_FIRST(&woken))) {
        /* The entry is on the coroutine's stack: unlink it first. */
        Coroutine *co = entry->co;

        TAILQ_REMOVE(&woken, entry, next);
        aio_co_wake(co);
    }
}

/*
 * Not inline: the compiler must not keep the address of a thread's variable
 * while a coroutine moves to another thread.
 */
__attribute__((noinline)) unsigned inflight_slot(void)
{
    static unsigned next_slot;
    static __thread unsigned slot_plus_1;

    if (!slot_plus_1) {
        slot_plus_1 = 1 + __atomic_fetch_add(&next_slot, 1, __ATOMIC_RELAXED)
                          % INFLIGHT_SLOTS;
    }
    return slot_plus_1 - 1;
}

void inflight_init(InFlight *inflight, WaitSet *waiters)
{
    inflight->slots = g_aligned_alloc0(INFLIGHT_SLOTS, sizeof(InFlightSlot),
                                       _Alignof(InFlightSlot));
    inflight->waiters = waiters;
}

void inflight_deinit(InFlight *inflight)
{
    g_assert(inflight_sum(inflight) == 0);
    g_aligned_free(inflight->slots);
    inflight->slots = NULL;
}

int64_t inflight_sum(const InFlight *inflight)
{
    int64_t sum = 0;

    for (unsigned i = 0; i < INFLIGHT_SLOTS; i++) {
        sum += __atomic_load_n(&inflight->slots[i].n, __ATOMIC_SEQ_CST);
    }
    return sum;
}
