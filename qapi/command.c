/* SPDX-License-Identifier: MIT */
/*
 * Running commands: arguments to C values, the handler, its value back.
 */
#include "qapi/command.h"
#include "qapi/qapi-commands.h"

QObject *coroutine_fn qapi_co_command_run(const QapiCommand *cmd,
                                          const QDict *args, Error **errp)
{
    g_autoptr(QDict) none = args ? NULL : qdict_new();
    void *arg, *ret;
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
        qapi_free(cmd->ret, ret);
        return NULL;
    }
    if (!ret && cmd->ret == &qapi_type_QapiEmpty) {
        return QOBJECT(qdict_new());
    }
    if (!qapi_reply_add(&weight, cmd->ret, ret, errp)) {
        qapi_free(cmd->ret, ret);
        return NULL;
    }
    return qapi_co_take(cmd->ret, ret);
}
