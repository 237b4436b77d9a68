/* SPDX-License-Identifier: MIT */
/*
 * Events: from whoever has news to the monitors.  Main thread only.
 */
#include "qapi/event.h"

static QapiEventEmitter *event_emitter;

void qapi_event_set_emitter(QapiEventEmitter *emitter)
{
    event_emitter = emitter;
}

static QDict *event_timestamp(void)
{
    gint64 now = g_get_real_time();
    QDict *timestamp = qdict_new();

    qdict_put_int(timestamp, "seconds", now / G_USEC_PER_SEC);
    qdict_put_int(timestamp, "microseconds", now % G_USEC_PER_SEC);
    return timestamp;
}

void qapi_event_send(QAPIEvent event, const void *arg)
{
    const QapiEvent *desc = &qapi_events[event];
    QDict *message;

    if (!event_emitter) {
        return;
    }
    message = qdict_new();
    qdict_put(message, "timestamp", event_timestamp());
    qdict_put_str(message, "event", desc->name);
    if (arg) {
        qdict_put_obj(message, "data", qapi_to_qobject(desc->arg, arg));
    }
    event_emitter(event, message);
}
