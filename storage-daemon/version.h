/* SPDX-License-Identifier: MIT */
/*
 * Version numbers.
 *
 * Management software decides by QMP's version triple what a daemon can do, so
 * that this one names the QEMU release whose interface it follows; "package"
 * tells what it really is.
 */
#ifndef STORAGE_DAEMON_VERSION_H
#define STORAGE_DAEMON_VERSION_H

#include "config-host.h"

#define VERSION_QMP_MAJOR 11
#define VERSION_QMP_MINOR 1
#define VERSION_QMP_MICRO 3
#define VERSION_QMP_PACKAGE "qemu-storage-daemon-uring " QSD_VERSION

#define VERSION_TEXT "qemu-storage-daemon version " QSD_VERSION
#define VERSION_COPYRIGHT                                               \
    "Copyright (c) 2026 the qemu-storage-daemon-uring authors"

#endif /* STORAGE_DAEMON_VERSION_H */
