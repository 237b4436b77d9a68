/* SPDX-License-Identifier: MIT */
/* CoEvent: see co-event.h. */
#include "util/co-event.h"

struct CoEventWaiter {
    CoEvent *event;
    Coroutine *co;
    CoEventWaiter *next;
};

void co_event_set(CoEvent *event)
{
    CoEventWaiter *w = event->waiters, *next;

    event->happened = true;
    event->waiters = NULL;
    for (; w; w = next) {
        next = w->next;
        aio_co_wake(w->co);
    }
}

static void co_event_expired(void *opaque)
{
    CoEventWaiter *waiter = opaque, **link = &waiter->event->waiters;

    while (*link && *link != waiter) {
        link = &(*link)->next;
    }
    if (*link) {                /* otherwise it is being woken already */
        *link = waiter->next;
        aio_co_wake(waiter->co);
    }
}

bool coroutine_fn co_event_wait(CoEvent *event, int64_t timeout_ns)
{
    CoEventWaiter waiter = {
        .event = event, .co = coroutine_self(), .next = event->waiters,
    };
    AioTimer timer;

    if (event->happened || timeout_ns == 0) {
        return event->happened;
    }
    aio_timer_init(&timer, aio_context_current(), co_event_expired, &waiter);
    if (timeout_ns > 0) {
        aio_timer_mod(&timer, clock_now_ns() + timeout_ns);
    }
    event->waiters = &waiter;
    coroutine_yield();
    aio_timer_del(&timer);
    return event->happened;
}
