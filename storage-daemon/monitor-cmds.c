/* SPDX-License-Identifier: MIT */
/*
 * The commands about the monitor and the daemon themselves.
 */
#include "qapi/qapi-commands.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/monitor.h"
#include "storage-daemon/version.h"

void coroutine_fn qmp_qmp_capabilities(const QmpQmpCapabilitiesArg *arg,
                                       Error **errp)
{
    monitor_negotiate(monitor_current(), arg->enable, errp);
}

VersionInfo *coroutine_fn qmp_query_version(Error **errp)
{
    VersionInfo *info = g_new0(VersionInfo, 1);

    info->qemu = g_new0(VersionTriple, 1);
    info->qemu->major = VERSION_QMP_MAJOR;
    info->qemu->minor = VERSION_QMP_MINOR;
    info->qemu->micro = VERSION_QMP_MICRO;
    info->package = g_strdup(VERSION_QMP_PACKAGE);
    return info;
}

void coroutine_fn qmp_quit(Error **errp)
{
    daemon_request_quit();
}
