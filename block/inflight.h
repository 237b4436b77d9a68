/* SPDX-License-Identifier: MIT */
/*
 * Counting what is in flight, without sharing a cache line between threads.
 *
 * A counter has one slot per thread (threads beyond INFLIGHT_SLOTS share), so
 * that inc and dec never contend.  Only the sum means something, and only to
 * someone who has first closed the gate through which new requests come: all
 * operations are sequentially consistent, so a request either sees the closed
 * gate or is seen in the sum.
 *
 * A WaitSet holds coroutines that wait for a condition others make true.
 * Waking costs one load while nobody waits.
 */
#ifndef BLOCK_INFLIGHT_H
#define BLOCK_INFLIGHT_H

#include <pthread.h>
#include "util/coroutine.h"
#include "util/queue.h"

#define INFLIGHT_SLOTS 16

typedef struct WaitSetEntry WaitSetEntry;
typedef struct WaitSet {
    unsigned n_waiting;                     /* atomic */
    pthread_mutex_t lock;                   /* over the list */
    TAILQ_HEAD(, WaitSetEntry) entries;
} WaitSet;

typedef struct InFlightSlot {
    int64_t n;                              /* atomic; may be negative */
} __attribute__((aligned(64))) InFlightSlot;

typedef struct InFlight {
    InFlightSlot *slots;
    WaitSet *waiters;                       /* woken by each dec */
} InFlight;

void wait_set_init(WaitSet *set);
void wait_set_deinit(WaitSet *set);

/*
 * Wait until @cond(@opaque) is true.  It is called under the set's lock, once
 * at first and again after each wait_set_wake().
 */
void coroutine_fn wait_set_co_wait(WaitSet *set, bool (*cond)(void *opaque),
                                   void *opaque);

/* [any thread] Let those who wait look again. */
void wait_set_wake(WaitSet *set);

/* The calling thread's slot, 0 <= slot < INFLIGHT_SLOTS. */
unsigned inflight_slot(void);

void inflight_init(InFlight *inflight, WaitSet *waiters);
void inflight_deinit(InFlight *inflight);

static inline void inflight_inc(InFlight *inflight)
{
    __atomic_fetch_add(&inflight->slots[inflight_slot()].n, 1,
                       __ATOMIC_SEQ_CST);
}

/* @inflight itself may be freed by whoever sees the sum become 0. */
static inline void inflight_dec(InFlight *inflight)
{
    WaitSet *waiters = inflight->waiters;

    __atomic_fetch_sub(&inflight->slots[inflight_slot()].n, 1,
                       __ATOMIC_SEQ_CST);
    wait_set_wake(waiters);
}

int64_t inflight_sum(const InFlight *inflight);

#endif /* BLOCK_INFLIGHT_H */
