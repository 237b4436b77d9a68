/* SPDX-License-Identifier: MIT */
/*
 * QMP monitors.
 *
 * A session begins when a peer appears: greeting, capabilities negotiation,
 * then commands.  Commands run one after the other in a coroutine of the
 * monitor's, which lives while there are any; reading pauses while enough are
 * queued or the peer does not take the replies.  With capability "oob" commands
 * by "exec-oob" overtake the queue.  When the peer leaves, what is queued is
 * dropped, and so is the reply of a command that still runs.
 *
 * Garbage is answered with an error and forgiven, but not at the beginning of a
 * session over a socket: any web page can make a browser send to one of ours
 * what looks like commands, after lines of HTTP.
 */
#include <string.h>
#include "qapi/command.h"
#include "qapi/event.h"
#include "qapi/json.h"
#include "qapi/qapi-commands.h"
#include "qapi/visit.h"
#include "storage-daemon/chardev.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/monitor.h"
#include "storage-daemon/object.h"
#include "util/aio.h"
#include "util/trace.h"

/* Commands queued before reading pauses, without and with "oob". */
#define MONITOR_QUEUE_MAX 1
#define MONITOR_QUEUE_MAX_OOB 8

/* Bytes of replies not yet taken at which commands pause. */
#define MONITOR_PENDING_MAX (64 * 1024)

/* A JSON value or what is wrong with it, in the order of the input. */
typedef struct MonitorRequest {
    Monitor *mon;
    QObject *value;
    Error *err;
    bool oob;
    STAILQ_ENTRY(MonitorRequest) next;
} MonitorRequest;

typedef STAILQ_HEAD(, MonitorRequest) MonitorRequests;

struct Monitor {
    char *id;
    Chardev *chr;
    bool pretty;
    MonitorQmpCloseAction close_action;

    bool open, negotiated, oob;
    bool open_deferred;             /* a peer is there, but see monitors_up */
    unsigned session;               /* counts opening and closing */
    JSONParser *parser;
    MonitorRequests requests, oob_requests;
    unsigned n_requests;

    Coroutine *co;                  /* runs commands, or NULL */
    unsigned n_oob;                 /* coroutines that run oob commands */
    bool stopped;
    BottomHalf *delete_bh;
    TAILQ_ENTRY(Monitor) next;
};

static TAILQ_HEAD(, Monitor) monitors = TAILQ_HEAD_INITIALIZER(monitors);
static Coroutine *monitor_stop_waiter;
static unsigned n_dropping;             /* coroutines that free requests */

/* The command line has been carried out: sessions may begin. */
static bool monitors_up;

const char *monitor_chardev(const Monitor *mon)
{
    return chardev_label(mon->chr);
}

bool monitor_pretty(const Monitor *mon)
{
    return mon->pretty;
}

MonitorQmpCloseAction monitor_close_action(const Monitor *mon)
{
    return mon->close_action;
}

bool monitor_busy(const Monitor *mon)
{
    return mon->co || mon->n_oob;
}

Monitor *monitor_current(void)
{
    Coroutine *self = coroutine_self();
    Monitor *mon;

    TAILQ_FOREACH(mon, &monitors, next) {
        if (self && mon->co == self) {
            return mon;
        }
    }
    return NULL;
}

/* ---- output ---- */

static const char *monitor_newline(const Monitor *mon)
{
    return mon->pretty ? "\r\n" : NULL;
}

/* Takes @text over. */
static void monitor_send_text(Monitor *mon, GString *text)
{
    g_string_append(text, "\r\n");
    chardev_write(mon->chr, text);
}

static void monitor_send(Monitor *mon, const QDict *message)
{
    GString *text = g_string_new(NULL);

    qobject_append_json(text, QOBJECT(message), monitor_newline(mon),
                        SIZE_MAX);
    monitor_send_text(mon, text);
}

/* A reply's text; NULL: it is too large to be sent. */
static GString *coroutine_fn monitor_co_text(const Monitor *mon,
                                             const QDict *reply)
{
    g_autoptr(GString) text = g_string_new(NULL);

    return qobject_co_append_json(text, QOBJECT(reply), monitor_newline(mon),
                                  QAPI_REPLY_MAX_TEXT)
           ? g_steal_pointer(&text) : NULL;
}

static void monitor_greet(Monitor *mon)
{
    g_autoptr(VersionInfo) version = qmp_query_version(NULL);
    g_autoptr(QDict) message = qdict_new();
    QDict *qmp = qdict_new();
    QList *capabilities = qlist_new();

    for (int i = 0; i < QMP_CAPABILITY__MAX; i++) {
        qlist_append_str(capabilities, QMPCapability_str(i));
    }
    qdict_put_obj(qmp, "version",
                  qapi_to_qobject(&qapi_type_VersionInfo, version));
    qdict_put(qmp, "capabilities", capabilities);
    qdict_put(message, "QMP", qmp);
    monitor_send(mon, message);
}

static void monitor_emit_event(QAPIEvent event, QDict *message)
{
    Monitor *mon;

    TAILQ_FOREACH(mon, &monitors, next) {
        if (mon->open && mon->negotiated) {
            trace(monitor_event, "mon=%s event=%s", mon->id,
                  qapi_events[event].name);
            monitor_send(mon, message);
        }
    }
    qobject_unref(message);
}

/* ---- commands ---- */

/* Members come in the reference daemon's order. */
static QDict *monitor_error_reply(Error *err, QObject *id)
{
    QDict *reply = qdict_new(), *error = qdict_new();

    if (id) {
        qdict_put_obj(reply, "id", qobject_ref(id));
    }
    qdict_put_str(error, "class", error_class_name(error_get_class(err)));
    qdict_put_str(error, "desc", error_get_pretty(err));
    qdict_put(reply, "error", error);
    error_free(err);
    return reply;
}

/*
 * The name of the command that @dict asks for, *@oob: by "exec-oob"; NULL with
 * an error if @dict is no request.
 */
static const char *monitor_check_request(const Monitor *mon, const QDict *dict,
                                         bool *oob, Error **errp)
{
    const char *command = NULL;

    for (size_t i = 0; i < qdict_size(dict); i++) {
        const char *key = qdict_key_at(dict, i);
        const QObject *value = qdict_value_at(dict, i);
        bool is_oob = !strcmp(key, "exec-oob") && mon->oob;

        if (!strcmp(key, "execute") || is_oob) {
            if (qobject_type(value) != QTYPE_QSTRING) {
                error_setg(errp, "QMP input member '%s' must be a string",
                           key);
                return NULL;
            }
            if (command) {
                error_setg(errp, "QMP input member '%s' clashes with '%s'",
                           "execute", "exec-oob");
                return NULL;
            }
            command = qstring_get(qobject_to_qstring(value));
            *oob = is_oob;
        } else if (!strcmp(key, "arguments")) {
            if (qobject_type(value) != QTYPE_QDICT) {
                error_setg(errp, "QMP input member 'arguments' must be an "
                           "object");
                return NULL;
            }
        } else if (strcmp(key, "id")) {
            error_setg(errp, "QMP input member '%s' is unexpected", key);
            return NULL;
        }
    }
    if (!command) {
        error_setg(errp, "QMP input lacks member 'execute'");
    }
    return command;
}

static const QapiCommand *monitor_find_command(const Monitor *mon,
                                               const char *name, Error **errp)
{
    const QapiCommand *cmd = qapi_command_find(name);

    if (!mon->negotiated && strcmp(name, "qmp_capabilities")) {
        error_set_class(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
                        "Expecting capabilities negotiation with "
                        "'qmp_capabilities'");
        return NULL;
    }
    if (!cmd) {
        error_set_class(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
                        "The command %s has not been found", name);
    }
    return cmd;
}

static QObject *coroutine_fn monitor_co_run(Monitor *mon, const QObject *value,
                                            Error **errp)
{
    const QDict *dict = qobject_to_qdict(value);
    const QapiCommand *cmd;
    const char *name;
    bool oob = false;

    if (!dict) {
        error_setg(errp, "QMP input must be a JSON object");
        return NULL;
    }
    name = monitor_check_request(mon, dict, &oob, errp);
    cmd = name ? monitor_find_command(mon, name, errp) : NULL;
    if (!cmd) {
        return NULL;
    }
    if (oob && !cmd->allow_oob) {
        error_setg(errp, "The command %s does not support OOB", name);
        return NULL;
    }
    trace(monitor_command, "mon=%s command=%s", mon->id, name);
    return qapi_co_command_run(cmd, qdict_get_qdict(dict, "arguments"), errp);
}

static void coroutine_fn monitor_co_request_free(MonitorRequest *req)
{
    qobject_co_unref(req->value);
    error_free(req->err);
    g_free(req);
}

/* The reply that @req gets. */
static QDict *coroutine_fn monitor_co_reply(Monitor *mon, MonitorRequest *req)
{
    const QDict *dict = qobject_to_qdict(req->value);
    QObject *id = dict ? qdict_get(dict, "id") : NULL;
    Error *err = NULL;
    QObject *value;
    QDict *reply;

    if (req->err) {
        return monitor_error_reply(g_steal_pointer(&req->err), NULL);
    }
    value = monitor_co_run(mon, req->value, &err);
    if (err) {
        return monitor_error_reply(err, id);
    }
    reply = qdict_new();
    qdict_put_obj(reply, "return", value);
    if (id) {
        qdict_put_obj(reply, "id", qobject_ref(id));
    }
    return reply;
}

/* In place of a reply that is too large; its id goes as well if that is. */
static GString *coroutine_fn monitor_co_text_too_large(const Monitor *mon,
                                                       QObject *id)
{
    Error *err = NULL;
    g_autoptr(QDict) reply = NULL;
    GString *text;

    qapi_reply_too_large(&err);
    reply = monitor_error_reply(err, id);
    text = monitor_co_text(mon, reply);
    if (!text) {
        qdict_del(reply, "id");
        text = monitor_co_text(mon, reply);
    }
    return text;
}

/* At the end of the daemon, work that would go on for long is given up. */
static bool monitor_is_unwanted(const CoCancel *cancel)
{
    return daemon_quitting();
}

/* With the reply all is over: what the command needed has been freed. */
static void coroutine_fn monitor_co_handle(Monitor *mon, MonitorRequest *req)
{
    static const CoCancel cancel = { monitor_is_unwanted };
    unsigned session = mon->session;
    g_autoptr(GString) text = NULL;
    QDict *reply;
    bool failed;

    coroutine_set_cancel(&cancel);
    reply = monitor_co_reply(mon, req);

    failed = qdict_haskey(reply, "error");
    text = monitor_co_text(mon, reply);
    if (!text) {
        text = monitor_co_text_too_large(mon, qdict_get(reply, "id"));
    }
    qobject_co_unref(reply);
    monitor_co_request_free(req);
    if (session == mon->session) {
        trace(monitor_reply, "mon=%s", mon->id);
        monitor_send_text(mon, g_steal_pointer(&text));
        if (!mon->negotiated && failed) {
            chardev_end_session(mon->chr);
        }
    }
}

/* ---- the queue ---- */

static void monitor_wake_stop_waiter(void)
{
    if (monitor_stop_waiter) {
        aio_co_wake(g_steal_pointer(&monitor_stop_waiter));
    }
}

static bool monitor_congested(const Monitor *mon)
{
    return chardev_pending(mon->chr) > MONITOR_PENDING_MAX;
}

static void monitor_update_receiving(Monitor *mon)
{
    unsigned max = mon->oob ? MONITOR_QUEUE_MAX_OOB : MONITOR_QUEUE_MAX;

    chardev_set_receiving(mon->chr, !mon->stopped && !monitor_congested(mon) &&
                          monitors_up && !daemon_quitting() &&
                          mon->n_requests + (mon->co != NULL) < max);
}

static void coroutine_fn monitor_co_drop(void *opaque)
{
    MonitorRequests *requests = opaque;
    MonitorRequest *req;

    n_dropping++;
    while ((req = STAILQ_FIRST(requests))) {
        STAILQ_REMOVE_HEAD(requests, next);
        monitor_co_request_free(req);
    }
    g_free(requests);
    n_dropping--;
    monitor_wake_stop_waiter();
}

/* They may be large, and several: a coroutine frees them. */
static void monitor_drop_queues(Monitor *mon)
{
    MonitorRequests *dropped = g_new(MonitorRequests, 1);

    STAILQ_INIT(dropped);
    STAILQ_CONCAT(dropped, &mon->requests);
    STAILQ_CONCAT(dropped, &mon->oob_requests);
    mon->n_requests = 0;
    coroutine_enter(coroutine_create(monitor_co_drop, dropped));
}

/* A coroutine of @mon's has come to its end. */
static void monitor_idle(Monitor *mon)
{
    if (monitor_busy(mon)) {
        return;
    }
    if (!mon->open && mon->close_action == MONITOR_QMP_CLOSE_ACTION_DELETE) {
        aio_bh_schedule(mon->delete_bh);
    }
    monitor_wake_stop_waiter();
}

static void coroutine_fn monitor_co_dispatch(void *opaque)
{
    Monitor *mon = opaque;

    mon->co = coroutine_self();
    while (mon->n_requests && !monitor_congested(mon) && !daemon_quitting()) {
        MonitorRequest *req = STAILQ_FIRST(&mon->requests);

        STAILQ_REMOVE_HEAD(&mon->requests, next);
        mon->n_requests--;
        monitor_co_handle(mon, req);
        if (mon->n_requests) {
            aio_co_yield_fair();
        }
    }
    mon->co = NULL;
    monitor_update_receiving(mon);
    monitor_idle(mon);
}

static void coroutine_fn monitor_co_dispatch_oob(void *opaque)
{
    MonitorRequest *req = opaque;
    Monitor *mon = req->mon;

    mon->n_oob++;
    monitor_co_handle(mon, req);
    mon->n_oob--;
    monitor_idle(mon);
}

static void monitor_kick(Monitor *mon)
{
    MonitorRequest *req;

    while ((req = STAILQ_FIRST(&mon->oob_requests))) {
        STAILQ_REMOVE_HEAD(&mon->oob_requests, next);
        coroutine_enter(coroutine_create(monitor_co_dispatch_oob, req));
    }
    if (mon->n_requests && !mon->co && !monitor_congested(mon)) {
        coroutine_enter(coroutine_create(monitor_co_dispatch, mon));
    }
    monitor_update_receiving(mon);
}

/* ---- input ---- */

static void monitor_json(void *opaque, QObject *value, Error *err)
{
    Monitor *mon = opaque;
    const QDict *dict = qobject_to_qdict(value);
    MonitorRequest *req = g_new0(MonitorRequest, 1);

    req->mon = mon;
    req->value = value;
    req->err = err;
    if (mon->oob && dict && qdict_haskey(dict, "exec-oob") &&
        !qdict_haskey(dict, "execute")) {
        STAILQ_INSERT_TAIL(&mon->oob_requests, req, next);
    } else {
        STAILQ_INSERT_TAIL(&mon->requests, req, next);
        mon->n_requests++;
    }
}

static void monitor_received(void *opaque, const char *buf, size_t len)
{
    Monitor *mon = opaque;

    json_parser_feed(mon->parser, buf, len);
    monitor_kick(mon);
}

static void monitor_reset(Monitor *mon)
{
    mon->session++;
    mon->negotiated = mon->oob = false;
    monitor_drop_queues(mon);
    json_parser_free(mon->parser);
    mon->parser = json_parser_new(monitor_json, mon);
}

static void monitor_opened(void *opaque)
{
    Monitor *mon = opaque;

    monitor_reset(mon);
    mon->open_deferred = !monitors_up;
    if (monitors_up) {
        mon->open = true;
        monitor_greet(mon);
    }
    monitor_update_receiving(mon);
}

static void monitor_closed(void *opaque)
{
    Monitor *mon = opaque;

    trace(monitor_closed, "mon=%s", mon->id);
    monitor_reset(mon);
    mon->open = mon->open_deferred = false;
    monitor_idle(mon);
}

static void monitor_drained(void *opaque)
{
    monitor_kick(opaque);
}

static const ChardevFrontend monitor_frontend = {
    .opened = monitor_opened,
    .closed = monitor_closed,
    .received = monitor_received,
    .drained = monitor_drained,
};

/* ---- life ---- */

static void coroutine_fn monitor_co_delete(void *opaque)
{
    Monitor *mon = opaque;
    g_autofree char *id = g_strdup(mon->id);
    Chardev *chr = mon->chr;

    if (object_co_del(id, NULL)) {
        chardev_remove(chr);
    }
}

/* close-action=delete: the peer has gone, and no command runs any more. */
static void monitor_delete_bh(void *opaque)
{
    Monitor *mon = opaque;

    if (!mon->open && !mon->stopped && !monitor_busy(mon)) {
        coroutine_enter(coroutine_create(monitor_co_delete, mon));
    }
}

Monitor *monitor_new(const MonitorQmpProperties *props, const char *id,
                     Error **errp)
{
    Chardev *chr = chardev_find(props->chardev, errp);
    Monitor *mon;

    if (!chr) {
        return NULL;
    }
    mon = g_new0(Monitor, 1);
    mon->id = g_strdup(id);
    mon->chr = chr;
    mon->pretty = props->has_pretty && props->pretty;
    mon->close_action = props->close_action;
    mon->parser = json_parser_new(monitor_json, mon);
    STAILQ_INIT(&mon->requests);
    STAILQ_INIT(&mon->oob_requests);
    mon->delete_bh = aio_bh_new(aio_context_main(), monitor_delete_bh, mon);
    TAILQ_INSERT_TAIL(&monitors, mon, next);
    if (!chardev_attach(chr, &monitor_frontend, mon, errp)) {
        mon->chr = NULL;
        monitor_free(mon);
        return NULL;
    }
    return mon;
}

void monitor_free(Monitor *mon)
{
    if (mon->chr) {
        chardev_detach(mon->chr);
    }
    TAILQ_REMOVE(&monitors, mon, next);
    monitor_drop_queues(mon);
    aio_bh_delete(mon->delete_bh);
    json_parser_free(mon->parser);
    g_free(mon->id);
    g_free(mon);
}

bool coroutine_fn monitor_co_add_option(const char *optarg, bool *help,
                                        Error **errp)
{
    static unsigned compat_number;
    g_autoptr(MonitorOptions) options =
        qapi_from_option(&qapi_type_MonitorOptions, optarg, "chardev", NULL,
                         errp);
    g_autofree char *id = NULL;
    ObjectOptions object = { .qom_type = OBJECT_TYPE_MONITOR_QMP };

    if (!options) {
        return false;
    }
    if (options->has_mode && options->mode != MONITOR_MODE_CONTROL) {
        error_setg(errp, "Only QMP is supported");
        return false;
    }
    id = options->id ? g_strdup(options->id)
                     : g_strdup_printf("compat_monitor%u", compat_number++);
    object.id = id;
    object.u.monitor_qmp.chardev = options->chardev;
    object.u.monitor_qmp.has_pretty = options->has_pretty;
    object.u.monitor_qmp.pretty = options->pretty;
    return object_co_add(&object, errp);
}

bool monitor_negotiate(Monitor *mon, const QMPCapabilityList *enable,
                       Error **errp)
{
    if (mon->negotiated) {
        error_set_class(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
                        "Capabilities negotiation is already complete, "
                        "command ignored");
        return false;
    }
    for (; enable; enable = enable->next) {
        mon->oob |= enable->value == QMP_CAPABILITY_OOB;
    }
    mon->negotiated = true;
    return true;
}

void coroutine_fn monitor_co_stop_all(void)
{
    Monitor *mon;
    bool busy;

    do {
        busy = false;
        TAILQ_FOREACH(mon, &monitors, next) {
            mon->stopped = true;
            monitor_drop_queues(mon);
            monitor_update_receiving(mon);
            busy |= monitor_busy(mon);
        }
        busy |= n_dropping > 0;
        if (busy) {
            monitor_stop_waiter = coroutine_self();
            coroutine_yield();
        }
    } while (busy);
}

void monitor_start_all(void)
{
    Monitor *mon;

    monitors_up = true;
    qapi_event_set_emitter(monitor_emit_event);
    TAILQ_FOREACH(mon, &monitors, next) {
        if (mon->open_deferred) {
            monitor_opened(mon);
        }
    }
}
