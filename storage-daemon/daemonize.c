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
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "storage-daemon/daemon.h"

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
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
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

static char *pidfile_path;          /* absolute: the daemon may move */
static int pidfile_fd = -1;

static bool pidfile_is_same(int fd, const char *path)
{
    struct stat a, b;

    return fstat(fd, &a) == 0 && stat(path, &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Open and lock; a file that its owner removes meanwhile does not count. */
static int pidfile_open(const char *path, Error **errp)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    for (;;) {
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

        if (fd < 0) {
            error_setg_errno(errp, errno, "Could not create '%s'", path);
            return -1;
        }
        if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
            error_setg_errno(errp, errno, "Cannot lock pid file");
            close(fd);
            return -1;
        }
        if (pidfile_is_same(fd, path)) {
            return fd;
        }
        close(fd);
    }
}

bool pidfile_create(const char *path, Error **errp)
{
    g_autofree char *text = g_strdup_printf("%ld\n", (long)getpid());
    size_t len = strlen(text);
    int fd = pidfile_open(path, errp);

    if (fd < 0) {
        return false;
    }
    if (ftruncate(fd, 0) < 0 || write(fd, text, len) != (ssize_t)len) {
        error_setg_errno(errp, errno, "Failed to write pid file");
        close(fd);
        return false;
    }
    pidfile_fd = fd;
    pidfile_path = g_canonicalize_filename(path, NULL);
    return true;
}

void pidfile_remove(void)
{
    if (pidfile_fd < 0) {
        return;
    }
    if (pidfile_is_same(pidfile_fd, pidfile_path)) {
        unlink(pidfile_path);
    }
    close(pidfile_fd);
    pidfile_fd = -1;
}

/* ---- service manager ---- */

void notify_service_manager(const char *state)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    size_t len = path ? strlen(path) : 0;
    int fd;

    if (len < 2 || len >= sizeof(un.sun_path) ||
        (path[0] != '/' && path[0] != '@')) {
        return;
    }
    memcpy(un.sun_path, path, len);
    if (path[0] == '@') {
        un.sun_path[0] = '\0';          /* the abstract namespace */
    }
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL,
               (struct sockaddr *)&un,
               offsetof(struct sockaddr_un, sun_path) + len) < 0) {
        warn_report("Could not notify '%s': %s", path, g_strerror(errno));
    }
    close(fd);
}
