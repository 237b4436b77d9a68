/* SPDX-License-Identifier: MIT */
/*
 * Which file systems this very process serves, by device number.
 *
 * A thread that waits for a file system of its own process cannot be killed
 * while it waits, and keeps the descriptors open whose closing would free it.
 * So nobody opens, or asks anything of, what lies on one; who names a file asks
 * here first, with what statx(2) tells under AT_STATX_DONT_SYNC, which asks no
 * file system anything.
 *
 * FUSE file systems have anonymous device numbers: major 0, minors of 20 bits
 * (linux/kdev_t.h).  The set is one bit for each, in memory that is shared with
 * the process that mounts, which sets a bit before anybody can reach the mount.
 */
#ifndef UTIL_OWN_MOUNTS_H
#define UTIL_OWN_MOUNTS_H

#include <stdbool.h>

/*
 * [main] Share the set with processes that are forked from now on; without,
 * each process has its own.  False with errno if there is no memory.
 */
bool own_mounts_share(void);

/* [any] This process, or one on its behalf, mounts and unmounts 0:@minor. */
void own_mounts_add(unsigned minor);
void own_mounts_remove(unsigned minor);

/* [any] Is the device @major:@minor, as of a statx(2), one of them? */
bool own_mounts_contain(unsigned major, unsigned minor);

#endif /* UTIL_OWN_MOUNTS_H */
