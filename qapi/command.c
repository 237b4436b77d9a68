/* SPDX-License-Identifier: MIT */
/*
 * Running commands: arguments to C values, the handler, its value back.
 */
#include "qapi/command.h"
#include "qapi/qapi-commands.h"
#include "qapi/visit.h"
#include "util/aio.h"

void coroutine_fn qapi_co_free(const QapiType *type, void *value)
{
    while (value && type->kind == QAPI_KIND_LIST) {
        void **link = value;

        value = *link;
        *link = NULL;
        qapi_free(type, link);
        aio_co_yield_fair();
    }
    qapi_free(type, value);
}

/*
 * A list entry by entry, so that others have their turns in between: what an
 * entry is made of is limited, their number is not.  Frees @node and what
 * follows it.
 */
static QObject *coroutine_fn qapi_co_list(const QapiType *type, void *node,
                                          Error **errp)
{
    g_autoptr(QList) list = qlist_new();
    size_t weight = 0;

    while (node) {
        void *next = *(void **)node, **link = node;
        void *value = *(void **)((char *)node + type->u_offset);

        if (!qapi_reply_add(&weight, type->element, value, errp)) {
            qapi_co_free(type, node);
            qobject_co_unref(g_steal_pointer(&list));
            return NULL;
        }
        qlist_append_obj(list, qapi_to_qobject(type->element, value));
        *link = NULL;
        qapi_free(type, node);
        node = next;
        aio_co_yield_fair();
    }
    return QOBJECT(g_steal_pointer(&list));
}

QObject *coroutine_fn qapi_co_command_run(const QapiCommand *cmd,
                                          const QDict *args, Error **errp)
{
    g_autoptr(QDict) none = args ? NULL : qdict_new();
    void *arg, *ret;
    QObject *result = NULL;
    size_t weight = 0;
    Error *err = NULL;

    arg = qapi_from_qobject(cmd->arg, QOBJECT(args ? args : none), false,
                            errp);
    if (!arg) {
        return NULL;
    }
    ret = qapi_command_runs[cmd - qapi_commands](arg, &err);
    qapi_free(cmd->arg, arg);
    if (err) {
        error_propagate(errp, err);
        qapi_co_free(cmd->ret, ret);
        return NULL;
    }
    if (!ret && cmd->ret == &qapi_type_QapiEmpty) {
        return QOBJECT(qdict_new());
    }
    if (cmd->ret->kind == QAPI_KIND_LIST
        && qapi_type_is_pointer(cmd->ret->element)) {
        return qapi_co_list(cmd->ret, ret, errp);
    }
    if (qapi_reply_add(&weight, cmd->ret, ret, errp)) {
        result = qapi_to_qobject(cmd->ret, ret);
    }
    qapi_co_free(cmd->ret, ret);
    return result;
}
