/* SPDX-License-Identifier: MIT */
/*
 * Mounting and ending FUSE connections, by asking the mounter for it.
 *
 * Each request has a time limit: who waits for the mounter waits for file
 * systems of others, and for this very daemon.  A reply that comes too late is
 * undone here.  If somebody has killed the mounter, there are no new mounts,
 * and those that there are end from this process, by what it knows of them.
 */
#include "config-host.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/export/fuse-attach.h"
#include "block/export/fuse-int.h"
#include "block/export/fuse-mounter.h"
#include "block/export/fuse.h"
#include "util/thread-pool.h"

/* Mounting: more than fusermount3 is given. */
#define FUSE_MOUNT_TIMEOUT_NS (35 * 1000000000LL)

/* Looking at mount points, and at new exports; ending one. */
#define FUSE_LOOK_TIMEOUT_NS (10 * 1000000000LL)
#define FUSE_END_TIMEOUT_NS (5 * 1000000000LL)

#define FUSE_MOUNTER_GONE "The process that mounts for this daemon has ended"

/* Somebody waits for a reply. */
typedef struct FuseMountCall {
    uint32_t serial;
    CoEvent done;
    FuseMounterReply reply;
    int fd;                     /* that came with it; -1 */
    LIST_ENTRY(FuseMountCall) next;
} FuseMountCall;

static struct {
    AioContext *ctx;            /* of the main thread; NULL before first use */
    CoMutex send_lock;
    uint32_t last_serial;
    bool gone;
    LIST_HEAD(, FuseMountCall) calls;
} fuse_link;

/* ---- messages ---- */

static FuseMountCall *fuse_link_find(uint32_t serial)
{
    FuseMountCall *call;

    LIST_FOREACH(call, &fuse_link.calls, next) {
        if (call->serial == serial) {
            return call;
        }
    }
    return NULL;
}

static void fuse_link_lost(void)
{
    FuseMountCall *call, *next;

    fuse_link.gone = true;
    aio_set_fd_handler(fuse_link.ctx, fuse_mounter_socket(), NULL, NULL, NULL);
    LIST_FOREACH_SAFE(call, &fuse_link.calls, next, next) {
        call->reply.ret = -EPIPE;
        g_strlcpy(call->reply.text, FUSE_MOUNTER_GONE,
                  sizeof(call->reply.text));
        co_event_set(&call->done);
    }
}

static void coroutine_fn fuse_link_co_undo(void *opaque);

/* One reply.  False if there is none, by now or for ever. */
static bool fuse_link_receive(void)
{
    static FuseMounterReply reply;
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = { &reply, sizeof(reply) };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof(control.buf),
    };
    struct cmsghdr *cmsg;
    FuseMountCall *call;
    ssize_t n;
    int fd = -1;

    n = recvmsg(fuse_mounter_socket(), &msg, MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (n <= (ssize_t)offsetof(FuseMounterReply, text)) {
        fuse_link_lost();
        return false;
    }
    reply.text[sizeof(reply.text) - 1] = '\0';
    cmsg = CMSG_FIRSTHDR(&msg);
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS
        && cmsg->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
    }
    call = fuse_link_find(reply.serial);
    if (call) {
        memcpy(&call->reply, &reply, n);
        call->fd = fd;
        co_event_set(&call->done);
    } else if (fd >= 0) {
        /* Nobody waits any more for what has been mounted. */
        close(fd);
        coroutine_enter(coroutine_create(fuse_link_co_undo,
                                         GUINT_TO_POINTER(reply.serial)));
    }
    return true;
}

static void fuse_link_readable(void *opaque)
{
    while (!fuse_link.gone && fuse_link_receive()) {
        /* the next one */
    }
}

static bool fuse_link_open(Error **errp)
{
    if (!fuse_link.ctx && fuse_mounter_socket() >= 0) {
        fuse_link.ctx = aio_context_current();
        co_mutex_init(&fuse_link.send_lock);
        LIST_INIT(&fuse_link.calls);
        aio_set_fd_handler(fuse_link.ctx, fuse_mounter_socket(),
                           fuse_link_readable, NULL, NULL);
    }
    if (!fuse_link.ctx || fuse_link.gone) {
        error_setg(errp, FUSE_MOUNTER_GONE);
        return false;
    }
    return true;
}

void fuse_mount_cleanup(void)
{
    if (fuse_link.ctx && !fuse_link.gone) {
        aio_set_fd_handler(fuse_link.ctx, fuse_mounter_socket(), NULL, NULL,
                           NULL);
    }
    fuse_mounter_stop();
}

/* False if the mounter is gone. */
static bool coroutine_fn fuse_link_co_send(const FuseMounterRequest *request)
{
    size_t len = offsetof(FuseMounterRequest, path) + strlen(request->path) + 1;
    int fd = fuse_mounter_send_fd();
    ssize_t n;

    co_mutex_lock(&fuse_link.send_lock);
    while ((n = send(fd, request, len, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0
           && (errno == EAGAIN || errno == EINTR)) {
        aio_co_wait_writable(fd);
    }
    co_mutex_unlock(&fuse_link.send_lock);
    return n >= 0;
}

/*
 * Send @request, whose serial is set here, and wait for its reply.  False with
 * an error if there is none in time.  For MOUNT, @mount is then its serial.
 */
static bool coroutine_fn fuse_link_co_call(FuseMountCall *call,
                                           FuseMounterRequest *request,
                                           int64_t timeout_ns, Error **errp)
{
    bool ret;

    *call = (FuseMountCall) { .fd = -1 };
    if (!fuse_link_open(errp)) {
        return false;
    }
    call->serial = request->serial = ++fuse_link.last_serial;
    if (request->op == FUSE_MOUNTER_MOUNT) {
        request->mount = request->serial;
    }
    LIST_INSERT_HEAD(&fuse_link.calls, call, next);
    if (!fuse_link_co_send(request)) {
        /* Reading will show the same; do not wait for it. */
        call->reply.ret = -EPIPE;
        g_strlcpy(call->reply.text, FUSE_MOUNTER_GONE,
                  sizeof(call->reply.text));
        co_event_set(&call->done);
    }
    ret = co_event_wait(&call->done, timeout_ns);
    LIST_REMOVE(call, next);
    if (!ret) {
        error_setg_errno(errp, ETIMEDOUT, "The process that mounts does not "
                         "answer");
    }
    return ret;
}

static void coroutine_fn fuse_link_co_undo(void *opaque)
{
    FuseMounterRequest request = {
        .op = FUSE_MOUNTER_END,
        .mount = GPOINTER_TO_UINT(opaque),
    };
    FuseMountCall call;

    fuse_link_co_call(&call, &request, FUSE_END_TIMEOUT_NS, NULL);
}

/* ---- mounts ---- */

static bool fuse_mount_set_path(FuseMounterRequest *request, const char *path,
                                Error **errp)
{
    if (g_strlcpy(request->path, path, sizeof(request->path))
        >= sizeof(request->path)) {
        error_setg_errno(errp, ENAMETOOLONG, "Failed to stat '%s'", path);
        return false;
    }
    return true;
}

bool coroutine_fn fuse_mount_co_check(const FuseMount *mount, const char *name,
                                      Error **errp)
{
    FuseMounterRequest request = { .op = FUSE_MOUNTER_CHECK };
    FuseMountCall call;

    if (!*name) {
        error_setg_errno(errp, ENOENT, "Failed to stat ''");
        return false;
    }
    if (!fuse_mount_set_path(&request, mount->path, errp)) {
        return false;
    }
    if (!fuse_link_co_call(&call, &request, FUSE_LOOK_TIMEOUT_NS, errp)) {
        error_prepend(errp, "Failed to stat '%s': ", name);
        return false;
    }
    if (call.reply.ret == -EISDIR) {
        error_setg(errp, "'%s' is not a regular file", name);
    } else if (call.reply.ret < 0) {
        error_setg(errp, "Failed to stat '%s': %s", name,
                   *call.reply.text ? call.reply.text
                                    : g_strerror(-call.reply.ret));
    }
    return call.reply.ret == 0;
}

bool coroutine_fn fuse_mount_co_mount(FuseMount *mount,
                                      const FuseMountOptions *options,
                                      Error **errp)
{
    FuseMounterRequest request = {
        .op = FUSE_MOUNTER_MOUNT,
        .flags = (options->writable ? FUSE_ATTACH_WRITABLE : 0)
                 | (options->allow_other ? FUSE_ATTACH_ALLOW_OTHER : 0),
    };
    FuseMountCall call;

    if (!fuse_mount_set_path(&request, mount->path, errp)
        || !fuse_link_co_call(&call, &request, FUSE_MOUNT_TIMEOUT_NS, errp)) {
        return false;
    }
    if (*call.reply.text) {
        error_setg(errp, "%s", call.reply.text);
        return false;
    }
    if (call.fd < 0) {
        /* Mounted, but this process may not have one more descriptor. */
        if (call.reply.ret == 0) {
            fuse_link_co_undo(GUINT_TO_POINTER(request.mount));
        }
        error_setg_errno(errp, call.reply.ret ? -call.reply.ret : EMFILE,
                         "Failed to mount FUSE session to export");
        return false;
    }
    mount->fd = call.fd;
    mount->number = request.mount;
    mount->minor = call.reply.minor;
    mount->by_fusermount = call.reply.by_fusermount;
    return true;
}

int coroutine_fn fuse_mount_co_probe(const FuseMount *mount)
{
    FuseMounterRequest request = {
        .op = FUSE_MOUNTER_PROBE,
        .mount = mount->number,
    };
    FuseMountCall call;

    return fuse_link_co_call(&call, &request, FUSE_LOOK_TIMEOUT_NS, NULL)
           ? call.reply.ret : -ETIMEDOUT;
}

/* In a pool thread: the mounter is gone. */
static int fuse_mount_end_here(void *opaque)
{
    const FuseMount *mount = opaque;

    /* The number is nobody else's as long as our descriptors are open. */
    fuse_attach_detach_named(mount->path, mount->minor, mount->by_fusermount);
    return 0;
}

void coroutine_fn fuse_mount_co_end(const FuseMount *mount)
{
    FuseMounterRequest request = {
        .op = FUSE_MOUNTER_END,
        .mount = mount->number,
    };
    FuseMountCall call;
    Error *err = NULL;

    if (!fuse_link_co_call(&call, &request, FUSE_END_TIMEOUT_NS, &err)) {
        warn_report("Unmounting '%s': %s", mount->path,
                    error_get_pretty(err));
        error_free(err);
    } else if (call.reply.covered) {
        /* Whoever detaches it detaches what is mounted on it as well. */
        warn_report("Another mount covers the export on '%s': when that is "
                    "gone, unmount this one as well", mount->path);
    }
    if (fuse_link.gone) {
        thread_pool_co_submit(fuse_mount_end_here, (void *)mount);
    }
}
