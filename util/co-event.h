/* SPDX-License-Identifier: MIT */
/*
 * CoEvent: one coroutine waits, with a deadline, for something to happen.
 *
 * Everything happens in one thread, the waiter's; an event from another thread
 * is brought there by a bottom half first.
 */
#ifndef UTIL_CO_EVENT_H
#define UTIL_CO_EVENT_H

#include "util/aio.h"

typedef struct CoEvent {
    bool happened;
    Coroutine *waiter;
} CoEvent;

/* It happened: lets the waiter go on.  Later calls do nothing. */
void co_event_set(CoEvent *event);

/*
 * Wait until the event happened, for @timeout_ns at most (-1: no limit).
 * Returns false if time ran out.
 */
bool coroutine_fn co_event_wait(CoEvent *event, int64_t timeout_ns);

#endif /* UTIL_CO_EVENT_H */
