/* SPDX-License-Identifier: MIT */
/*
 * Unix sockets: see util/sockets.h.
 *
 * Their names are those of files, so that what is done with them waits for file
 * systems: it is done in the thread pool.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/sockets-int.h"
#include "util/timed-call.h"

/* A listener whose backlog is full: try again this often, this long. */
#define SOCKET_BUSY_RETRY_NS    (20 * 1000 * 1000LL)
#define SOCKET_BUSY_LIMIT_NS    (30 * 1000 * 1000 * 1000LL)

typedef struct UnixCall {
    char *path;
    bool in_files;              /* @path is the name of a file */
    struct sockaddr_un un;
    socklen_t len;
    int backlog;

    /* results */
    int fd;                     /* or -errno */
    NamedEntry made;
    Error *err;
} UnixCall;

static void unix_call_free(void *opaque)
{
    UnixCall *call = opaque;

    if (call->fd >= 0) {
        close(call->fd);
    }
    named_entry_deinit(&call->made);
    error_free(call->err);
    g_free(call->path);
    g_free(call);
}

static UnixCall *unix_call_new(const SocketAddr *addr, Error **errp)
{
    size_t path_len = strlen(addr->path);
    size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path)
                 - (addr->abstract ? 1 : 0);
    UnixCall *call;

    if (path_len > max || (!addr->abstract && path_len == max)) {
        error_setg(errp, "UNIX socket path '%s' is too long", addr->path);
        error_append_hint(errp, "Path must be less than %zu bytes\n", max);
        return NULL;
    }
    call = g_new0(UnixCall, 1);
    call->fd = -1;
    call->path = g_strdup(addr->path);
    call->in_files = !addr->abstract && addr->path[0];
    call->un.sun_family = AF_UNIX;
    call->len = sizeof(call->un);
    if (addr->abstract) {
        memcpy(call->un.sun_path + 1, addr->path, path_len);
        if (addr->tight) {
            call->len = offsetof(struct sockaddr_un, sun_path) + 1 + path_len;
        }
    } else {
        memcpy(call->un.sun_path, addr->path, path_len);
    }
    return call;
}

/* Carry @func out.  False with an error: @call is gone. */
static bool coroutine_fn unix_co_run(UnixCall *call, ThreadPoolFunc *func,
                                     const char *what, Error **errp)
{
    g_autofree char *path = g_strdup(call->path);
    int ret;

    if (!timed_call_co_run(func, call, unix_call_free, NAMED_FILE_LIMIT_NS,
                           &ret)) {
        error_setg_errno(errp, -ret, "Failed to %s '%s'", what, path);
        return false;
    }
    return true;
}

static int unix_new_socket(UnixCall *call, const char *failed)
{
    call->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (call->fd < 0) {
        call->fd = -errno;
        error_setg_errno(&call->err, errno, "%s", failed);
    }
    return call->fd;
}

static void unix_close(UnixCall *call, int ret)
{
    close(call->fd);
    call->fd = ret;
}

/* ---- listening ---- */

/* Only ever replace a socket, never a user's file. */
static int unix_remove_old(const char *path)
{
    NamedEntry old;
    int ret = named_entry_init(&old, path, NULL);

    if (ret < 0) {
        return 0;               /* bind() will say what is wrong */
    }
    if (old.exists && (S_ISSOCK(old.mode) || S_ISDIR(old.mode))) {
        ret = named_entry_remove(&old);
    }
    named_entry_deinit(&old);
    return ret == -ENOENT ? 0 : ret;
}

static int unix_bind(UnixCall *call)
{
    int ret = call->in_files ? unix_remove_old(call->path) : 0;

    if (ret < 0) {
        error_setg_errno(&call->err, -ret, "Failed to unlink socket %s",
                         call->path);
        return ret;
    }
    if (bind(call->fd, (struct sockaddr *)&call->un, call->len) < 0) {
        ret = -errno;
        error_setg_errno(&call->err, -ret, "Failed to bind socket to %s",
                         call->path);
        return ret;
    }
    if (call->in_files
        && named_entry_init(&call->made, call->path, NULL) == 0
        && !S_ISSOCK(call->made.mode)) {
        named_entry_deinit(&call->made);        /* gone, and not our file */
    }
    if (listen(call->fd, call->backlog) < 0) {
        ret = -errno;
        error_setg_errno(&call->err, -ret, "Failed to listen on socket");
        return ret;
    }
    return 0;
}

static int unix_listen_call(void *opaque)
{
    UnixCall *call = opaque;
    int ret;

    if (unix_new_socket(call, "Failed to create Unix socket") < 0) {
        return call->fd;
    }
    ret = unix_bind(call);
    if (ret < 0) {
        unix_close(call, ret);
    }
    return ret;
}

int coroutine_fn socket_unix_co_listen(const SocketAddr *addr, int backlog,
                                       NamedEntry *made, Error **errp)
{
    UnixCall *call;
    int fd;

    if (!addr->abstract && !addr->path[0]) {
        /* An empty name would make the kernel choose an abstract one. */
        error_setg_errno(errp, ENOENT, "Failed to bind socket to ");
        return -1;
    }
    call = unix_call_new(addr, errp);
    if (!call) {
        return -1;
    }
    call->backlog = backlog;
    if (!unix_co_run(call, unix_listen_call, "bind socket to", errp)) {
        return -1;
    }
    fd = call->fd;
    call->fd = -1;
    if (fd >= 0 && made) {
        *made = call->made;
        call->made = (NamedEntry) { 0 };
    }
    error_propagate(errp, g_steal_pointer(&call->err));
    unix_call_free(call);
    return fd < 0 ? -1 : fd;
}

/* ---- connecting ---- */

void socket_unix_found(const NamedFile *file, struct sockaddr_un *un)
{
    *un = (struct sockaddr_un) { .sun_family = AF_UNIX };
    g_snprintf(un->sun_path, sizeof(un->sun_path), "/proc/self/fd/%d",
               file->fd);
}

static int unix_connect(int fd, const struct sockaddr_un *un, socklen_t len)
{
    return connect(fd, (const struct sockaddr *)un, len) < 0 ? -errno : 0;
}

static int unix_connect_found(UnixCall *call, const NamedFile *file)
{
    struct sockaddr_un un;
    int ret;

    socket_unix_found(file, &un);
    ret = unix_connect(call->fd, &un, sizeof(un));
    /* Without /proc there is only the name. */
    return ret == -ENOENT ? unix_connect(call->fd, &call->un, call->len) : ret;
}

static int unix_connect_call(void *opaque)
{
    UnixCall *call = opaque;
    NamedFile file;
    int ret;

    if (unix_new_socket(call, "Failed to create socket") < 0) {
        return call->fd;
    }
    if (!call->in_files) {
        ret = unix_connect(call->fd, &call->un, call->len);
    } else {
        ret = named_file_find(&file, call->path, &call->err);
        if (ret == 0) {
            ret = unix_connect_found(call, &file);
            named_file_release(&file);
        }
    }
    if (ret < 0) {
        if (!call->err) {
            error_setg(&call->err, "%s", g_strerror(-ret));
        }
        error_prepend(&call->err, "Failed to connect to '%s': ", call->path);
        unix_close(call, ret);
    }
    return ret;
}

/* One attempt: a descriptor or -errno. */
static int coroutine_fn unix_co_connect_once(const SocketAddr *addr,
                                             Error **errp)
{
    UnixCall *call = unix_call_new(addr, errp);
    int fd;

    if (!call) {
        return -ENAMETOOLONG;
    }
    if (!unix_co_run(call, unix_connect_call, "connect to", errp)) {
        return -ETIMEDOUT;
    }
    fd = call->fd;
    call->fd = -1;
    error_propagate(errp, g_steal_pointer(&call->err));
    unix_call_free(call);
    return fd;
}

int coroutine_fn socket_unix_co_connect(const SocketAddr *addr,
                                        SocketCancel *cancel, Error **errp)
{
    int64_t deadline = clock_now_ns() + SOCKET_BUSY_LIMIT_NS;

    for (;;) {
        Error *err = NULL;
        int fd = unix_co_connect_once(addr, &err);

        if (fd != -EAGAIN || clock_now_ns() > deadline || cancel->cancelled) {
            error_propagate(errp, err);
            return fd < 0 ? -1 : fd;
        }
        error_free(err);
        aio_co_sleep_ns(SOCKET_BUSY_RETRY_NS);
    }
}
