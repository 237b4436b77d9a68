/* SPDX-License-Identifier: MIT */
/*
 * QMP monitors: sessions on a chardev.  Main thread only.
 */
#ifndef STORAGE_DAEMON_MONITOR_H
#define STORAGE_DAEMON_MONITOR_H

#include "qapi/qapi-types.h"
#include "util/coroutine.h"
#include "util/error.h"

typedef struct Monitor Monitor;

/* A monitor for object @id, which monitor_free() ends. */
Monitor *monitor_new(const MonitorQmpProperties *props, const char *id,
                     Error **errp);
void monitor_free(Monitor *mon);

const char *monitor_chardev(const Monitor *mon);
bool monitor_pretty(const Monitor *mon);
MonitorQmpCloseAction monitor_close_action(const Monitor *mon);

/* True while it runs a command; it must not be freed then. */
bool monitor_busy(const Monitor *mon);

/* Make one as the option --monitor says; it has no help. */
bool coroutine_fn monitor_co_add_option(const char *optarg, bool *help,
                                        Error **errp);

/* The monitor whose command is running in this coroutine, or NULL. */
Monitor *monitor_current(void);

/* Capabilities negotiation, for the command qmp_capabilities. */
bool monitor_negotiate(Monitor *mon, const QMPCapabilityList *enable,
                       Error **errp);

/* Take no more commands, and wait until those that run have finished. */
void coroutine_fn monitor_co_stop_all(void);

/*
 * Sessions begin, and events are sent.  Not before the command line has been
 * carried out, so that no command comes between its options.
 */
void monitor_start_all(void);

#endif /* STORAGE_DAEMON_MONITOR_H */
