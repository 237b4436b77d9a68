/* SPDX-License-Identifier: MIT */
/*
 * The daemon as a process: its end, its parent, its pid file.
 * Main thread only.
 */
#ifndef STORAGE_DAEMON_DAEMON_H
#define STORAGE_DAEMON_DAEMON_H

#include <stdbool.h>
#include "util/coroutine.h"
#include "util/error.h"

/* End cleanly with exit status 0, once what runs now has returned. */
void daemon_request_quit(void);

/* True once that has been asked for. */
bool daemon_quitting(void);

/*
 * Fork.  Returns in the child only; the parent waits until the child says that
 * it is up, then exits with status 0, or with the child's if that ends before.
 */
void daemonize_fork(void);

/* In the child: detach from the terminal and let the parent go. */
void daemonize_ready(void);

/*
 * Create and lock the pid file.  It is removed by pidfile_co_remove(), or by
 * pidfile_remove(), which a signal handler may call.
 */
bool coroutine_fn pidfile_co_create(const char *path, Error **errp);
void coroutine_fn pidfile_co_remove(void);
void pidfile_remove(void);

/* Tell the service manager (sd_notify(3)), if there is one; @state is const. */
void coroutine_fn notify_co_service_manager(const char *state);

#endif /* STORAGE_DAEMON_DAEMON_H */
