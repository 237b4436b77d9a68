/* SPDX-License-Identifier: MIT */
/*
 * CoEvent: coroutines wait, each with a deadline, for something to happen.
 *
 * Everything happens in one thread, the waiters'; an event from another thread
 * is brought there by a bottom half first.  Whoever waits sees to it that the
 * event is still there when time runs out.
 */
#ifndef UTIL_CO_EVENT_H
#define UTIL_CO_EVENT_H

#include "util/aio.h"

typedef struct CoEventWaiter CoEventWaiter;

/* Zeroes are an event that has not happened. */
typedef struct CoEvent {
    bool happened;
    CoEventWaiter *waiters;
} CoEvent;

/*
 * It happened: lets the waiters go on, and does not look at @event after that.
 * Later calls do nothing.
 */
void co_event_set(CoEvent *event);

/*
 * Wait until the event happened, for @timeout_ns at most (-1: no limit).
 * Returns false if time ran out.
 */
bool coroutine_fn co_event_wait(CoEvent *event, int64_t timeout_ns);

#endif /* UTIL_CO_EVENT_H */
