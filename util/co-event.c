/* SPDX-License-Identifier: MIT */
/* CoEvent: see co-event.h. */
#include "util/co-event.h"

static void co_event_wake(CoEvent *event)
{
    Coroutine *waiter = event->waiter;

    if (waiter) {
        event->waiter = NULL;
        aio_co_wake(waiter);
    }
}

void co_event_set(CoEvent *event)
{
    event->happened = true;
    co_event_wake(event);
}

static void co_event_expired(void *opaque)
{
    co_event_wake(opaque);
}

bool coroutine_fn co_event_wait(CoEvent *event, int64_t timeout_ns)
{
    AioTimer timer;

    if (event->happened || timeout_ns == 0) {
        return event->happened;
    }
    aio_timer_init(&timer, aio_context_current(), co_event_expired, event);
    if (timeout_ns > 0) {
        aio_timer_mod(&timer, clock_now_ns() + timeout_ns);
    }
    event->waiter = coroutine_self();
    coroutine_yield();
    aio_timer_del(&timer);
    return event->happened;
}
