/* SPDX-License-Identifier: MIT */
/*
 * Events: from whoever has news to the monitors.  Main thread only.
 */
#ifndef QAPI_EVENT_H
#define QAPI_EVENT_H

#include "qapi/qapi-events.h"
#include "qapi/qobject.h"

/*
 * Takes over @event: {"timestamp": {...}, "event": NAME, "data": {...}}.
 * Must not wait.
 */
typedef void QapiEventEmitter(QAPIEvent event, QDict *message);

/* Who gets all events from now on; NULL: nobody. */
void qapi_event_set_emitter(QapiEventEmitter *emitter);

/*
 * Send an event.  @arg is its QapiEventX struct (NULL if the event has no
 * data), which stays the caller's:
 *     qapi_event_send(QAPI_EVENT_X, &(QapiEventX) { .member = ... });
 */
void qapi_event_send(QAPIEvent event, const void *arg);

#endif /* QAPI_EVENT_H */
