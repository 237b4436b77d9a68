/* SPDX-License-Identifier: MIT */
/*
 * The types of objects and their properties.  Main thread only.
 */
#include <stddef.h>
#include <string.h>
#include "block/secret.h"
#include "block/throttle-groups.h"
#include "qapi/visit.h"
#include "storage-daemon/monitor.h"
#include "storage-daemon/object-int.h"
#include "util/iothread.h"

/* The value of property @prop as an integer. */
static bool object_get_int(const QomProperty *prop, const QObject *value,
                           int64_t *result, Error **errp)
{
    QNum *num = qobject_to_qnum(value);

    if (!num || !qnum_get_int(num, result)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: integer",
                   prop->name);
        return false;
    }
    return true;
}

/* ---- event loops ---- */

#define LOOP_PROP(kind, text, field)                                    \
    { .name = text, .type = "int",                                      \
      .offset = offsetof(IOThreadParams, field),                        \
      .get = kind##_get, .set = kind##_set }

static int64_t *loop_param(IOThreadParams *params, const QomProperty *prop)
{
    return (int64_t *)((char *)params + prop->offset);
}

static bool loop_check(const IOThreadParams *params, Error **errp)
{
    const struct {
        const char *name;
        int64_t value;
    } checks[] = {
        { "poll-max-ns", params->poll_max_ns },
        { "poll-grow", params->poll_grow },
        { "poll-shrink", params->poll_shrink },
        { "poll-weight", params->poll_weight },
        { "aio-max-batch", params->aio_max_batch },
        { "thread-pool-min", params->thread_pool_min },
        { "thread-pool-max", params->thread_pool_max },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(checks); i++) {
        if (checks[i].value < 0) {
            error_setg(errp, "%s value must be in range [0, %" G_GINT64_FORMAT
                       "]", checks[i].name, G_MAXINT64);
            return false;
        }
    }
    if (!params->thread_pool_max || params->thread_pool_max > G_MAXINT ||
        params->thread_pool_min > params->thread_pool_max) {
        error_setg(errp, "bad thread-pool-min/thread-pool-max values");
        return false;
    }
    return true;
}

static QObject *iothread_get(const QomObject *obj, const QomProperty *prop,
                             Error **errp)
{
    IOThreadParams params = *iothread_params(obj->opaque);

    return QOBJECT(qnum_new_int(*loop_param(&params, prop)));
}

static bool iothread_set(QomObject *obj, const QomProperty *prop,
                         const QObject *value, Error **errp)
{
    IOThreadParams params = *iothread_params(obj->opaque);

    return object_get_int(prop, value, loop_param(&params, prop), errp) &&
           loop_check(&params, errp) &&
           iothread_set_params(obj->opaque, &params, errp);
}

static const QomProperty iothread_props[] = {
    LOOP_PROP(iothread, "thread-pool-min", thread_pool_min),
    LOOP_PROP(iothread, "aio-max-batch", aio_max_batch),
    LOOP_PROP(iothread, "thread-pool-max", thread_pool_max),
    LOOP_PROP(iothread, "poll-max-ns", poll_max_ns),
    LOOP_PROP(iothread, "poll-weight", poll_weight),
    LOOP_PROP(iothread, "poll-grow", poll_grow),
    LOOP_PROP(iothread, "poll-shrink", poll_shrink),
    { NULL }
};

#define LOOP_TAKE(params, props, field)                                 \
    do {                                                                \
        if ((props)->has_##field) {                                     \
            (params)->field = (props)->field;                           \
        }                                                               \
    } while (0)

static bool coroutine_fn iothread_object_co_add(QomObject *obj,
                                                const ObjectOptions *options,
                                                Error **errp)
{
    const IothreadProperties *props = &options->u.iothread;
    IOThreadParams params = iothread_default_params;

    LOOP_TAKE(&params, props, aio_max_batch);
    LOOP_TAKE(&params, props, thread_pool_min);
    LOOP_TAKE(&params, props, thread_pool_max);
    LOOP_TAKE(&params, props, poll_max_ns);
    LOOP_TAKE(&params, props, poll_grow);
    LOOP_TAKE(&params, props, poll_shrink);
    LOOP_TAKE(&params, props, poll_weight);
    obj->opaque = loop_check(&params, errp)
        ? iothread_new(options->id, &params, errp) : NULL;
    return obj->opaque != NULL;
}

static bool iothread_object_in_use(const QomObject *obj)
{
    return iothread_in_use(obj->opaque);
}

static void coroutine_fn iothread_object_co_del(QomObject *obj)
{
    iothread_free(obj->opaque);
}

/* ---- the main loop ---- */

static IOThreadParams main_loop_params;
static bool main_loop_exists;

static bool main_loop_apply(const IOThreadParams *params, Error **errp)
{
    AioContext *ctx = aio_context_main();

    if (!loop_check(params, errp)) {
        return false;
    }
    main_loop_params = *params;
    aio_context_set_max_batch(ctx, params->aio_max_batch);
    aio_context_set_thread_pool_params(ctx, params->thread_pool_min,
                                       params->thread_pool_max);
    return true;
}

static QObject *main_loop_get(const QomObject *obj, const QomProperty *prop,
                              Error **errp)
{
    return QOBJECT(qnum_new_int(*loop_param(&main_loop_params, prop)));
}

static bool main_loop_set(QomObject *obj, const QomProperty *prop,
                          const QObject *value, Error **errp)
{
    IOThreadParams params = main_loop_params;

    return object_get_int(prop, value, loop_param(&params, prop), errp) &&
           main_loop_apply(&params, errp);
}

static const QomProperty main_loop_props[] = {
    LOOP_PROP(main_loop, "thread-pool-min", thread_pool_min),
    LOOP_PROP(main_loop, "aio-max-batch", aio_max_batch),
    LOOP_PROP(main_loop, "thread-pool-max", thread_pool_max),
    { NULL }
};

static bool coroutine_fn main_loop_co_add(QomObject *obj,
                                          const ObjectOptions *options,
                                          Error **errp)
{
    const MainLoopProperties *props = &options->u.main_loop;
    IOThreadParams params = iothread_default_params;

    if (main_loop_exists) {
        error_setg(errp, "only one main-loop instance allowed");
        return false;
    }
    LOOP_TAKE(&params, props, aio_max_batch);
    LOOP_TAKE(&params, props, thread_pool_min);
    LOOP_TAKE(&params, props, thread_pool_max);
    main_loop_exists = main_loop_apply(&params, errp);
    return main_loop_exists;
}

static bool main_loop_in_use(const QomObject *obj)
{
    return true;
}

static void coroutine_fn main_loop_co_del(QomObject *obj)
{
    main_loop_exists = false;
}

/* ---- throttle groups ---- */

/* A property x-NAME is the member NAME of the limits. */
#define THROTTLE_PROP(text)                                             \
    { .name = "x-" text, .type = "int",                                 \
      .get = throttle_get_one, .set = throttle_set_one }

static QObject *throttle_get_limits(const QomObject *obj,
                                    const QomProperty *prop, Error **errp)
{
    g_autoptr(ThrottleLimits) limits = throttle_group_get_limits(obj->opaque);

    return qapi_to_qobject(&qapi_type_ThrottleLimits, limits);
}

static bool throttle_set_limits(QomObject *obj, const QomProperty *prop,
                                const QObject *value, Error **errp)
{
    g_autoptr(ThrottleLimits) limits =
        qapi_from_qobject_named(&qapi_type_ThrottleLimits, prop->name, value,
                                false, errp);

    return limits && throttle_group_set_limits(obj->opaque, limits, errp);
}

static QObject *throttle_get_one(const QomObject *obj, const QomProperty *prop,
                                 Error **errp)
{
    g_autoptr(QObject) limits = throttle_get_limits(obj, prop, errp);
    const QDict *dict = qobject_to_qdict(limits);

    return qobject_ref(qdict_get(dict, prop->name + strlen("x-")));
}

static bool throttle_set_one(QomObject *obj, const QomProperty *prop,
                             const QObject *value, Error **errp)
{
    error_setg(errp, "Property cannot be set after initialization");
    return false;
}

static const QomProperty throttle_props[] = {
    THROTTLE_PROP("bps-write-max-length"),
    THROTTLE_PROP("iops-total-max-length"),
    THROTTLE_PROP("iops-size"),
    { .name = "limits", .type = "ThrottleLimits",
      .get = throttle_get_limits, .set = throttle_set_limits },
    THROTTLE_PROP("bps-total"),
    THROTTLE_PROP("iops-read-max-length"),
    THROTTLE_PROP("bps-write"),
    THROTTLE_PROP("iops-write-max-length"),
    THROTTLE_PROP("bps-read-max"),
    THROTTLE_PROP("iops-read-max"),
    THROTTLE_PROP("bps-total-max"),
    THROTTLE_PROP("bps-read-max-length"),
    THROTTLE_PROP("iops-read"),
    THROTTLE_PROP("bps-read"),
    THROTTLE_PROP("bps-write-max"),
    THROTTLE_PROP("iops-total-max"),
    THROTTLE_PROP("iops-total"),
    THROTTLE_PROP("iops-write"),
    THROTTLE_PROP("bps-total-max-length"),
    THROTTLE_PROP("iops-write-max"),
    { NULL }
};

static bool coroutine_fn throttle_co_add(QomObject *obj,
                                         const ObjectOptions *options,
                                         Error **errp)
{
    obj->opaque = throttle_group_new(options->id,
                                     &options->u.throttle_group, errp);
    return obj->opaque != NULL;
}

static bool throttle_in_use(const QomObject *obj)
{
    return throttle_group_in_use(obj->opaque);
}

static void coroutine_fn throttle_co_del(QomObject *obj)
{
    throttle_group_free(obj->opaque);
}

/* ---- monitors ---- */

static QObject *monitor_get_chardev(const QomObject *obj,
                                    const QomProperty *prop, Error **errp)
{
    return QOBJECT(qstring_new(monitor_chardev(obj->opaque)));
}

static QObject *monitor_get_pretty(const QomObject *obj,
                                   const QomProperty *prop, Error **errp)
{
    return QOBJECT(qbool_new(monitor_pretty(obj->opaque)));
}

static QObject *monitor_get_close_action(const QomObject *obj,
                                         const QomProperty *prop,
                                         Error **errp)
{
    MonitorQmpCloseAction action = monitor_close_action(obj->opaque);

    return QOBJECT(qstring_new(MonitorQmpCloseAction_str(action)));
}

static const QomProperty monitor_props[] = {
    { .name = "chardev", .type = "string", .get = monitor_get_chardev },
    { .name = "pretty", .type = "bool", .get = monitor_get_pretty },
    { .name = "close-action", .type = "MonitorQmpCloseAction",
      .get = monitor_get_close_action },
    { NULL }
};

static bool coroutine_fn monitor_co_add(QomObject *obj,
                                        const ObjectOptions *options,
                                        Error **errp)
{
    const MonitorQmpProperties *props = &options->u.monitor_qmp;

    obj->opaque = monitor_new(props, options->id, errp);
    return obj->opaque != NULL;
}

static bool monitor_in_use(const QomObject *obj)
{
    return monitor_busy(obj->opaque);
}

static void coroutine_fn monitor_co_del(QomObject *obj)
{
    monitor_free(obj->opaque);
}

/* ---- secrets ---- */

/* While its file is read, a secret has no properties yet. */
static const SecretProperties *secret_object_props(const QomObject *obj)
{
    static const SecretProperties none;

    return obj->opaque ? secret_properties(obj->opaque) : &none;
}

#define SECRET_PROP(text, field)                                        \
    { .name = text, .type = "string",                                   \
      .offset = offsetof(SecretProperties, field), .get = secret_get_text }

static QObject *secret_get_text(const QomObject *obj, const QomProperty *prop,
                                Error **errp)
{
    const SecretProperties *props = secret_object_props(obj);
    char *const *text = (char *const *)((const char *)props + prop->offset);

    return QOBJECT(qstring_new(*text ? *text : ""));
}

/* It is there to be used, not to be shown. */
static QObject *secret_get_data(const QomObject *obj, const QomProperty *prop,
                                Error **errp)
{
    error_setg(errp, "Property '%s.%s' is not readable", obj->type->name,
               prop->name);
    return NULL;
}

static QObject *secret_get_format(const QomObject *obj,
                                  const QomProperty *prop, Error **errp)
{
    const SecretProperties *props = secret_object_props(obj);

    return QOBJECT(qstring_new(QCryptoSecretFormat_str(props->format)));
}

static const QomProperty secret_props[] = {
    SECRET_PROP("iv", iv),
    SECRET_PROP("keyid", keyid),
    { .name = "format", .type = "QCryptoSecretFormat",
      .get = secret_get_format },
    SECRET_PROP("file", file),
    { .name = "data", .type = "string", .get = secret_get_data },
    { NULL }
};

static const QomProperty secret_common_props[] = {
    SECRET_PROP("iv", iv),
    SECRET_PROP("keyid", keyid),
    { .name = "format", .type = "QCryptoSecretFormat",
      .get = secret_get_format },
    { NULL }
};

static bool coroutine_fn secret_co_add(QomObject *obj,
                                       const ObjectOptions *options,
                                       Error **errp)
{
    obj->opaque = secret_co_new(options->id, &options->u.secret, errp);
    return obj->opaque != NULL;
}

/* Who needed its data has a copy. */
static bool secret_in_use(const QomObject *obj)
{
    return !obj->opaque;
}

static void coroutine_fn secret_co_del(QomObject *obj)
{
    secret_free(obj->opaque);
}

/* ---- all types ---- */

static const QomProperty no_props[] = { { NULL } };

const QomType qom_types[] = {
    { .name = "object", .abstract = true, .props = no_props },
    { .name = "container", .parent = "object", .props = no_props },
    { .name = "event-loop-base", .parent = "object", .abstract = true,
      .props = main_loop_props },
    { .name = "iothread", .parent = "event-loop-base",
      .props = iothread_props, .kind = OBJECT_TYPE_IOTHREAD,
      .co_add = iothread_object_co_add, .in_use = iothread_object_in_use,
      .co_del = iothread_object_co_del },
    { .name = "main-loop", .parent = "event-loop-base",
      .props = main_loop_props, .kind = OBJECT_TYPE_MAIN_LOOP,
      .co_add = main_loop_co_add, .in_use = main_loop_in_use,
      .co_del = main_loop_co_del },
    { .name = "monitor-qmp", .parent = "object", .props = monitor_props,
      .kind = OBJECT_TYPE_MONITOR_QMP, .co_add = monitor_co_add,
      .in_use = monitor_in_use, .co_del = monitor_co_del },
    { .name = "secret_common", .parent = "object", .abstract = true,
      .props = secret_common_props },
    { .name = "secret", .parent = "secret_common", .props = secret_props,
      .kind = OBJECT_TYPE_SECRET, .co_add = secret_co_add,
      .in_use = secret_in_use, .co_del = secret_co_del },
    { .name = "throttle-group", .parent = "object", .props = throttle_props,
      .kind = OBJECT_TYPE_THROTTLE_GROUP, .co_add = throttle_co_add,
      .in_use = throttle_in_use, .co_del = throttle_co_del },
    { .name = "chardev", .parent = "object", .abstract = true,
      .props = no_props },
    { .name = "chardev-fd", .parent = "chardev", .abstract = true,
      .props = no_props },
    { .name = "chardev-file", .parent = "chardev-fd", .props = no_props },
    { .name = "chardev-null", .parent = "chardev", .props = no_props },
    { .name = "chardev-pipe", .parent = "chardev-fd", .props = no_props },
    { .name = "chardev-socket", .parent = "chardev", .props = no_props },
    { .name = "chardev-stdio", .parent = "chardev-fd", .props = no_props },
    { NULL }
};

const QomType *qom_type_by_name(const char *name)
{
    for (const QomType *type = qom_types; type->name; type++) {
        if (!strcmp(type->name, name)) {
            return type;
        }
    }
    return NULL;
}

bool qom_type_is_user_creatable(const QomType *type)
{
    return type->co_add != NULL;
}

bool qom_type_is_a(const QomType *type, const char *ancestor)
{
    if (!strcmp(ancestor, "user-creatable")) {
        return qom_type_is_user_creatable(type);
    }
    while (type && strcmp(type->name, ancestor)) {
        type = type->parent ? qom_type_by_name(type->parent) : NULL;
    }
    return type != NULL;
}
