/* SPDX-License-Identifier: MIT */
/*
 * Byte-range locks that keep programs from each other's images.
 *
 * The scheme is the one of the qemu programs, so that these and the daemon
 * refuse each other's images in the same cases.  Permission number i (bit i of
 * BLK_PERM_*) has two bytes in the file: whoever does it holds a shared lock on
 * byte 100 + i, whoever forbids it to others a shared lock on byte 200 + i.
 * Locks are never exclusive, so they do not exclude each other; instead, after
 * taking its own, a program asks for each byte of the opposite kind whether
 * an exclusive lock could be had.  If not, somebody is in conflict.
 *
 * The locks are open file description locks: two nodes of one process conflict
 * like those of two processes, and closing the fd drops them.
 *
 * The calls do not wait.  Main thread.
 */
#include <errno.h>
#include <fcntl.h>

#include "block/file-posix.h"

#define LOCK_BASE_PERM      100
#define LOCK_BASE_UNSHARED  200
#define LOCK_BITS           4       /* those of BLK_PERM_ALL */

static const char *const perm_names[LOCK_BITS] = {
    "consistent read", "write", "write unchanged", "resize",
};

static int lock_byte(int fd, int cmd, short type, off_t start,
                     struct flock *result)
{
    int ret;

    *result = (struct flock) {
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = start,
        .l_len = 1,
    };
    do {
        ret = fcntl(fd, cmd, result);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

bool file_locks_available(int fd)
{
    struct flock fl;

    return lock_byte(fd, F_OFD_GETLK, F_WRLCK, 0, &fl) != -EINVAL;
}

static int take(int fd, uint64_t bits, off_t base, Error **errp)
{
    struct flock fl;
    int ret;

    for (int i = 0; i < LOCK_BITS; i++) {
        if (!(bits & (1u << i))) {
            continue;
        }
        ret = lock_byte(fd, F_OFD_SETLK, F_RDLCK, base + i, &fl);
        if (ret < 0) {
            error_setg(errp, "Failed to lock byte %d", (int)base + i);
            return ret;
        }
    }
    return 0;
}

int file_locks_take(int fd, FileLocks locks, Error **errp)
{
    int ret = take(fd, locks.perm, LOCK_BASE_PERM, errp);

    return ret < 0 ? ret
                   : take(fd, locks.unshared, LOCK_BASE_UNSHARED, errp);
}

static void drop(int fd, uint64_t bits, off_t base)
{
    struct flock fl;

    for (int i = 0; i < LOCK_BITS; i++) {
        if (bits & (1u << i)) {
            lock_byte(fd, F_OFD_SETLK, F_UNLCK, base + i, &fl);
        }
    }
}

void file_locks_drop(int fd, FileLocks locks)
{
    drop(fd, locks.perm, LOCK_BASE_PERM);
    drop(fd, locks.unshared, LOCK_BASE_UNSHARED);
}

void file_locks_drop_all(int fd)
{
    struct flock fl = {
        .l_type = F_UNLCK,
        .l_whence = SEEK_SET,
        .l_start = LOCK_BASE_PERM,
        .l_len = LOCK_BASE_UNSHARED + LOCK_BITS - LOCK_BASE_PERM,
    };

    fcntl(fd, F_OFD_SETLK, &fl);
}

/* Could an exclusive lock on each of these bytes be had? */
static int probe(int fd, uint64_t bits, off_t base, const char *what,
                 const char *filename, Error **errp)
{
    struct flock fl;
    int ret;

    for (int i = 0; i < LOCK_BITS; i++) {
        if (!(bits & (1u << i))) {
            continue;
        }
        ret = lock_byte(fd, F_OFD_GETLK, F_WRLCK, base + i, &fl);
        if (ret == 0 && fl.l_type == F_UNLCK) {
            continue;
        }
        error_setg(errp, "Failed to get %s\"%s\" lock", what, perm_names[i]);
        error_append_hint(errp, "Is another process using the image [%s]?\n",
                          filename);
        return ret < 0 ? ret : -EAGAIN;
    }
    return 0;
}

int file_locks_check(int fd, FileLocks locks, const char *filename,
                     Error **errp)
{
    int ret = probe(fd, locks.perm, LOCK_BASE_UNSHARED, "", filename, errp);

    if (ret < 0) {
        return ret;
    }
    return probe(fd, locks.unshared, LOCK_BASE_PERM, "shared ", filename,
                 errp);
}
