/* SPDX-License-Identifier: MIT */
/*
 * Files by name: looking up, opening, reading; see util/named-file.h.
 *
 * Sources: open(2) on O_PATH, statx(2), proc_pid_fd(5).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "util/named-file-int.h"
#include "util/own-mounts.h"
#include "util/timed-call.h"

#define READ_LIMIT_US (30 * 1000 * 1000LL)

int named_file_fail(int errnum, Error **errp)
{
    error_setg(errp, "%s", g_strerror(errnum));
    return -errnum;
}

/* ---- looking up ---- */

int named_file_stat(int dir, const char *name, int flags, struct statx *stx)
{
    return statx(dir, name, flags | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
                 STATX_TYPE | STATX_MODE | STATX_UID | STATX_NLINK | STATX_INO,
                 stx) < 0 ? -errno : 0;
}

static int look_at_fd(NamedFile *f, int fd, Error **errp)
{
    struct statx stx;
    int ret = named_file_stat(fd, "", AT_EMPTY_PATH, &stx);

    if (ret < 0) {
        return named_file_fail(-ret, errp);
    }
    f->fd = fd;
    f->mode = stx.stx_mode;
    f->uid = stx.stx_uid;
    f->n_links = stx.stx_nlink;
    f->dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
    f->ino = stx.stx_ino;
    if (own_mounts_contain(stx.stx_dev_major, stx.stx_dev_minor)) {
        error_setg(errp, "this very process serves it");
        return -ELOOP;
    }
    return 0;
}

int named_file_look(NamedFile *f, int dir, const char *name, int flags,
                    Error **errp)
{
    int fd, ret;

    f->fd = -1;
    do {
        fd = openat(dir, name, O_PATH | O_CLOEXEC | flags);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return -errno;
    }
    ret = look_at_fd(f, fd, errp);
    if (ret < 0) {
        close(fd);
        f->fd = -1;
    }
    return ret;
}

int named_file_find(NamedFile *f, const char *path, Error **errp)
{
    Error *err = NULL;
    int ret = named_file_look(f, AT_FDCWD, path, 0, &err);

    f->path = path;
    if (ret < 0 && !err) {
        return named_file_fail(-ret, errp);
    }
    error_propagate(errp, err);
    return ret;
}

void named_file_release(NamedFile *f)
{
    if (f->fd >= 0) {
        close(f->fd);
        f->fd = -1;
    }
}

/* ---- opening ---- */

static int open_path(const char *path, int flags)
{
    int fd;

    do {
        fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* Where there is no /proc: by name again, and see whether it is the same. */
static int open_again(const NamedFile *f, int flags, Error **errp)
{
    int fd = f->path ? open_path(f->path, flags | O_NONBLOCK) : -ENOENT;
    struct statx stx;

    if (fd < 0) {
        return named_file_fail(-fd, errp);
    }
    if (named_file_stat(fd, "", AT_EMPTY_PATH, &stx) < 0
        || makedev(stx.stx_dev_major, stx.stx_dev_minor) != f->dev
        || stx.stx_ino != f->ino) {
        error_setg(errp, "it is not the same file any more");
        close(fd);
        return -ESTALE;
    }
    if (!(flags & O_NONBLOCK)) {
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    }
    return fd;
}

int named_file_open_found(const NamedFile *f, int flags, Error **errp)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", f->fd);
    int fd;

    if (S_ISFIFO(f->mode)) {
        flags |= O_NONBLOCK;
    }
    fd = open_path(link, flags);
    if (fd == -ENOENT) {
        return open_again(f, flags, errp);
    }
    return fd < 0 ? named_file_fail(-fd, errp) : fd;
}

int named_file_open(const char *path, int flags, Error **errp)
{
    NamedFile f;
    int ret = named_file_find(&f, path, errp);

    if (ret == 0) {
        ret = named_file_open_found(&f, flags, errp);
        named_file_release(&f);
    }
    return ret;
}

int named_file_reopen(int fd, const char *path, int flags, Error **errp)
{
    NamedFile f = { .path = path };
    int ret = look_at_fd(&f, fd, errp);

    return ret < 0 ? ret : named_file_open_found(&f, flags, errp);
}

/* ---- reading ---- */

/* Until @fd has something to read: 0 or -errno. */
static int wait_readable(int fd, int64_t deadline_us)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    int64_t left_ms = (deadline_us - g_get_monotonic_time()) / 1000;
    int ret = poll(&pfd, 1, MAX(left_ms, 0));

    if (ret < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    return ret == 0 ? -ETIMEDOUT : 0;
}

ssize_t named_file_read(int fd, void *buf, size_t size)
{
    int64_t deadline = g_get_monotonic_time() + READ_LIMIT_US;
    size_t done = 0;

    while (done < size) {
        int ret = wait_readable(fd, deadline);
        ssize_t n;

        if (ret < 0) {
            return ret;
        }
        n = read(fd, (char *)buf + done, size - done);
        if (n == 0) {
            ((char *)buf)[done] = '\0';
            return done;
        }
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            return -errno;
        }
        done += MAX(n, 0);
    }
    return -EFBIG;
}

/* ---- for coroutines ---- */

typedef struct OpenCall {
    char *path;
    int flags;
    mode_t mode;
    int fd;                     /* result, or -errno and err */
    Error *err;
} OpenCall;

static int open_call(void *opaque)
{
    OpenCall *call = opaque;

    call->fd = named_file_open(call->path, call->flags, &call->err);
    return call->fd;
}

static int create_call(void *opaque)
{
    OpenCall *call = opaque;

    call->fd = named_file_create(call->path, call->flags, call->mode, false,
                                 NULL, &call->err);
    return call->fd;
}

static void open_call_free(void *opaque)
{
    OpenCall *call = opaque;

    if (call->fd >= 0) {
        close(call->fd);
    }
    error_free(call->err);
    g_free(call->path);
    g_free(call);
}

static int coroutine_fn co_run(ThreadPoolFunc *func, const char *path,
                               int flags, mode_t mode, Error **errp)
{
    OpenCall *call = g_new0(OpenCall, 1);
    int ret;

    call->path = g_strdup(path);
    call->flags = flags;
    call->mode = mode;
    call->fd = -1;
    if (!timed_call_co_run(func, call, open_call_free, NAMED_FILE_LIMIT_NS,
                           &ret)) {
        return named_file_fail(-ret, errp);
    }
    call->fd = -1;              /* the caller's */
    error_propagate(errp, g_steal_pointer(&call->err));
    open_call_free(call);
    return ret;
}

int coroutine_fn named_file_co_open(const char *path, int flags, Error **errp)
{
    return co_run(open_call, path, flags, 0, errp);
}

int coroutine_fn named_file_co_create(const char *path, int flags, mode_t mode,
                                      Error **errp)
{
    return co_run(create_call, path, flags, mode, errp);
}
