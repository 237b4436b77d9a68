/* SPDX-License-Identifier: MIT */
/*
 * fusermount3(1): the set-uid program that mounts for users who may not.
 *
 * Both calls block for as long as the program takes, 30 s at most; then it is
 * killed.  Any thread of a process that nobody waits for.
 */
#ifndef BLOCK_EXPORT_FUSERMOUNT_H
#define BLOCK_EXPORT_FUSERMOUNT_H

#include <stdbool.h>

#include "util/error.h"

/* Mount on @path with @options (as mount(8) has them).  The fd, or -1. */
int fusermount_mount(const char *path, const char *options, Error **errp);

/* Detach what is mounted on @path. */
bool fusermount_unmount(const char *path);

#endif /* BLOCK_EXPORT_FUSERMOUNT_H */
