/* SPDX-License-Identifier: MIT */
/*
 * Commands by name.  Main thread only.
 *
 * The table of commands (qapi/meta.h) is part of the qapi library; what runs
 * them refers to the qmp_ handlers and is linked into the daemon only.
 */
#ifndef QAPI_COMMAND_H
#define QAPI_COMMAND_H

#include "qapi/meta.h"
#include "qapi/qobject.h"
#include "util/coroutine.h"
#include "util/error.h"

/* NULL if there is none. */
const QapiCommand *qapi_command_find(const char *name);

/*
 * Check @args (NULL: none given) and run @cmd's handler.  Returns its value (an
 * empty dictionary if it has none), or NULL with an error.
 */
QObject *coroutine_fn qapi_co_command_run(const QapiCommand *cmd,
                                          const QDict *args, Error **errp);

#endif /* QAPI_COMMAND_H */
