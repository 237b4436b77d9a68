/* SPDX-License-Identifier: MIT */
/*
 * Going into the background, the pid file, the service manager.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "storage-daemon/daemon.h"
#include "util/named-file.h"
#include "util/sockets.h"
#include "util/timed-call.h"

/* Removing the pid file, and notifying, may take so long. */
#define DAEMONIZE_LIMIT_NS (2 * 1000000000LL)

/* ---- background ---- */

static int daemonize_pipe = -1;     /* the child's end: a byte says "up" */

/* The child either says that it is up, or ends with a status to hand on. */
static void G_GNUC_NORETURN daemonize_wait(int fd, pid_t child)
{
    char byte;
    ssize_t n;
    int status;

    do {
        n = read(fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n == 1) {
        _exit(EXIT_SUCCESS);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        /* again */
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
}

void daemonize_fork(void)
{
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_report("Failed to create a pipe: %s", g_strerror(errno));
        exit(EXIT_FAILURE);
    }
    pid = fork();
    if (pid < 0) {
        error_report("Failed to fork: %s", g_strerror(errno));
        exit(EXIT_FAILURE);
    }
    if (pid > 0) {
        close(fds[1]);
        daemonize_wait(fds[0], pid);
    }
    close(fds[0]);
    daemonize_pipe = fds[1];
    setsid();
    umask(027);
}

void daemonize_ready(void)
{
    int null_fd;

    if (daemonize_pipe < 0) {
        return;
    }
    if (chdir("/") < 0) {
        warn_report("Could not change to '/': %s", g_strerror(errno));
    }
    null_fd = named_file_open("/dev/null", O_RDWR, NULL);
    if (null_fd >= 0) {
        dup2(null_fd, STDIN_FILENO);
        dup2(null_fd, STDOUT_FILENO);
        dup2(null_fd, STDERR_FILENO);
        if (null_fd > STDERR_FILENO) {
            close(null_fd);
        }
    }
    while (write(daemonize_pipe, "", 1) < 0 && errno == EINTR) {
        /* again */
    }
    close(daemonize_pipe);
    daemonize_pipe = -1;
}

/* ---- pid file ---- */

static NamedEntry pidfile_entry;
static int pidfile_fd = -1;

typedef struct PidFile {
    char *path;
    int fd;                     /* result, and where it is */
    NamedEntry entry;
    Error *err;
} PidFile;

static void pidfile_free(void *opaque)
{
    PidFile *f = opaque;

    if (f->fd >= 0) {
        close(f->fd);
    }
    named_entry_deinit(&f->entry);
    error_free(f->err);
    g_free(f->path);
    g_free(f);
}

/* Open and lock; a file that its owner removes meanwhile does not count. */
static bool pidfile_open(PidFile *f)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    for (;;) {
        f->fd = named_file_create(f->path, O_WRONLY, 0600, true, &f->entry,
                                  &f->err);
        if (f->fd < 0) {
            error_prepend(&f->err, "Could not create '%s': ", f->path);
            return false;
        }
        if (fcntl(f->fd, F_OFD_SETLK, &lock) < 0) {
            error_setg_errno(&f->err, errno, "Cannot lock pid file");
            return false;
        }
        if (named_entry_is_current(&f->entry)) {
            return true;
        }
        close(f->fd);
        named_entry_deinit(&f->entry);
    }
}

static int pidfile_create_call(void *opaque)
{
    PidFile *f = opaque;
    g_autofree char *text = g_strdup_printf("%ld\n", (long)getpid());
    size_t len = strlen(text);

    if (pidfile_open(f)
        && (ftruncate(f->fd, 0) < 0
            || write(f->fd, text, len) != (ssize_t)len)) {
        error_setg_errno(&f->err, errno, "Failed to write pid file");
    }
    return 0;
}

bool coroutine_fn pidfile_co_create(const char *path, Error **errp)
{
    PidFile *f = g_new0(PidFile, 1);
    int ret;
    bool ok;

    f->path = g_strdup(path);
    f->fd = -1;
    if (!timed_call_co_run(pidfile_create_call, f, pidfile_free,
                           NAMED_FILE_LIMIT_NS, &ret)) {
        error_setg_errno(errp, -ret, "Could not create '%s'", path);
        return false;
    }
    ok = !f->err;
    if (ok) {
        pidfile_entry = f->entry;
        f->entry = (NamedEntry) { 0 };
        pidfile_fd = f->fd;
        f->fd = -1;
    }
    error_propagate(errp, g_steal_pointer(&f->err));
    pidfile_free(f);
    return ok;
}

void pidfile_remove(void)
{
    if (pidfile_fd >= 0) {
        named_entry_remove(&pidfile_entry);
        close(pidfile_fd);
        pidfile_fd = -1;
    }
}

static int pidfile_remove_call(void *opaque)
{
    pidfile_remove();
    return 0;
}

static void pidfile_nothing_to_free(void *opaque)
{
}

void coroutine_fn pidfile_co_remove(void)
{
    int ret;

    if (pidfile_fd < 0) {
        return;
    }
    timed_call_co_run(pidfile_remove_call, NULL, pidfile_nothing_to_free,
                      DAEMONIZE_LIMIT_NS, &ret);
    if (ret == 0) {
        named_entry_deinit(&pidfile_entry);
    }
}

/* ---- service manager ---- */

typedef struct Notify {
    char *path;
    const char *state;
} Notify;

static void notify_free(void *opaque)
{
    Notify *n = opaque;

    g_free(n->path);
    g_free(n);
}

/* The socket's address: of a file, or in the abstract namespace. */
static bool notify_address(const Notify *n, NamedFile *file,
                           struct sockaddr_un *un, socklen_t *len, Error **errp)
{
    if (n->path[0] == '@') {
        *un = (struct sockaddr_un) { .sun_family = AF_UNIX };
        memcpy(un->sun_path + 1, n->path + 1, strlen(n->path + 1));
        *len = offsetof(struct sockaddr_un, sun_path) + strlen(n->path);
        return true;
    }
    if (named_file_find(file, n->path, errp) < 0) {
        return false;
    }
    socket_unix_found(file, un);
    *len = sizeof(*un);
    return true;
}

static int notify_call(void *opaque)
{
    Notify *n = opaque;
    NamedFile file = { .fd = -1 };
    struct sockaddr_un un;
    socklen_t len;
    Error *err = NULL;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return 0;
    }
    if (notify_address(n, &file, &un, &len, &err)
        && sendto(fd, n->state, strlen(n->state), MSG_NOSIGNAL,
                  (struct sockaddr *)&un, len) < 0) {
        error_setg(&err, "%s", g_strerror(errno));
    }
    if (err) {
        error_prepend(&err, "Could not notify '%s': ", n->path);
        warn_report_err(err);
    }
    named_file_release(&file);
    close(fd);
    return 0;
}

void coroutine_fn notify_co_service_manager(const char *state)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    size_t len = path ? strlen(path) : 0;
    Notify *n;
    int ret;

    if (len < 2 || len >= sizeof(((struct sockaddr_un *)NULL)->sun_path) ||
        (path[0] != '/' && path[0] != '@')) {
        return;
    }
    n = g_new0(Notify, 1);
    n->path = g_strdup(path);
    n->state = state;
    if (timed_call_co_run(notify_call, n, notify_free, DAEMONIZE_LIMIT_NS,
                          &ret)) {
        notify_free(n);
    } else {
        warn_report("Could not notify '%s': %s", path, g_strerror(-ret));
    }
}
