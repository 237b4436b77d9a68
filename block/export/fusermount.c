/* SPDX-License-Identifier: MIT */
/*
 * Running fusermount3: it mounts, and hands the connection's fd over a socket
 * that it finds by an environment variable.  Sources: fusermount3(1), and what
 * the program does.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/export/fusermount.h"
#include "util/aio.h"

#define FUSERMOUNT "fusermount3"

/* How long fusermount3 may take; it answers within milliseconds. */
#define FUSERMOUNT_TIMEOUT_NS (30 * 1000000000LL)

/* Bytes of what it says that may become part of an error. */
#define FUSERMOUNT_MAX_OUTPUT 2048

/* The fd number at which fusermount3 finds its end of the socket. */
#define FUSERMOUNT_COMM_FD 3

/*
 * Run fusermount3 with @argv, its socket (or -1) at FUSERMOUNT_COMM_FD and
 * what it says going to @err_fd.  Returns the process or -1 with errno.
 */
static pid_t fusermount_spawn(char *const argv[], int comm_fd, int err_fd)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    g_auto(GStrv) env = g_get_environ();
    pid_t pid = -1;
    int ret;

    env = g_environ_setenv(env, "_FUSE_COMMFD", G_STRINGIFY(FUSERMOUNT_COMM_FD),
                           true);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null",
                                     O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, err_fd, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err_fd, STDERR_FILENO);
    if (comm_fd >= 0) {
        posix_spawn_file_actions_adddup2(&actions, comm_fd,
                                         FUSERMOUNT_COMM_FD);
    }
    /* This process's blocked and ignored signals are not the child's. */
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK
                                    | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    ret = posix_spawnp(&pid, FUSERMOUNT, &actions, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    errno = ret;
    return ret ? -1 : pid;
}

/* The fd that has come over @sock, or -1 if there is none. */
static int fusermount_receive_fd(int sock)
{
    char byte;
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = { &byte, 1 };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof(control.buf),
    };
    struct cmsghdr *cmsg;
    int fd = -1;

    if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) <= 0) {
        return -1;
    }
    cmsg = CMSG_FIRSTHDR(&msg);
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS
        && cmsg->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
    }
    return fd;
}

/*
 * Take what the program says on @err_fd, until it has closed that, and the fd
 * that it may send over @sock (or -1).  False if it takes too long.
 */
static bool fusermount_listen(int sock, int err_fd, GString *output, int *fd)
{
    struct pollfd pfds[2] = {
        { .fd = err_fd, .events = POLLIN }, { .fd = sock, .events = POLLIN },
    };
    int64_t end = clock_now_ns() + FUSERMOUNT_TIMEOUT_NS;
    char buf[512];
    ssize_t n;

    for (;;) {
        int64_t left_ms = (end - clock_now_ns()) / 1000000;

        if (left_ms <= 0 || poll(pfds, 2, left_ms) <= 0) {
            return false;
        }
        if (pfds[1].revents) {
            *fd = fusermount_receive_fd(sock);
            pfds[1].fd = -1;
        }
        if (pfds[0].revents) {
            n = read(err_fd, buf, sizeof(buf));
            if (n <= 0) {
                return n == 0;
            }
            if (output->len < FUSERMOUNT_MAX_OUTPUT) {
                g_string_append_len(output, buf, n);
            }
        }
    }
}

/* Wait for @pid, which has been listened to, and is ended if not @in_time. */
static bool fusermount_wait(pid_t pid, bool in_time)
{
    int status;

    if (!in_time) {
        kill(pid, SIGKILL);
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return false;
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* A pipe or socket pair, close-on-exec and clear of FUSERMOUNT_COMM_FD. */
static bool fusermount_channel(int fds[2], bool is_socket)
{
    int ret = is_socket
              ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)
              : pipe2(fds, O_CLOEXEC);

    if (ret < 0) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        int high = fcntl(fds[i], F_DUPFD_CLOEXEC, FUSERMOUNT_COMM_FD + 1);

        close(fds[i]);
        fds[i] = high;
    }
    return fds[0] >= 0 && fds[1] >= 0;
}

static void fusermount_close(int fds[2])
{
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
        fds[i] = -1;
    }
}

/*
 * Run fusermount3.  If @want_fd, returns the connection's fd, else 0; -1 with
 * an error.
 */
static int fusermount_run(char *const argv[], bool want_fd, Error **errp)
{
    g_autoptr(GString) output = g_string_new(NULL);
    int sock[2] = { -1, -1 }, err[2] = { -1, -1 };
    int fd = -1;
    pid_t pid = -1;
    bool in_time, ok;

    if (!fusermount_channel(err, false)
        || (want_fd && !fusermount_channel(sock, true))
        || (pid = fusermount_spawn(argv, sock[1], err[1])) < 0) {
        error_setg_errno(errp, errno, "Failed to run " FUSERMOUNT);
        fusermount_close(sock);
        fusermount_close(err);
        return -1;
    }
    close(err[1]);
    err[1] = -1;
    if (want_fd) {
        close(sock[1]);
        sock[1] = -1;
    }
    in_time = fusermount_listen(sock[0], err[0], output, &fd);
    ok = fusermount_wait(pid, in_time);
    fusermount_close(sock);
    fusermount_close(err);
    if (ok && (fd >= 0 || !want_fd)) {
        return MAX(fd, 0);
    }
    g_strchomp(output->str);
    error_setg(errp, "%s", *output->str ? output->str : FUSERMOUNT " failed");
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

int fusermount_mount(const char *path, const char *options, Error **errp)
{
    char *argv[] = {
        (char *)FUSERMOUNT, (char *)"-o", (char *)options, (char *)"--",
        (char *)path, NULL,
    };

    return fusermount_run(argv, true, errp);
}

bool fusermount_unmount(const char *path)
{
    char *argv[] = {
        (char *)FUSERMOUNT, (char *)"-u", (char *)"-z", (char *)"--",
        (char *)path, NULL,
    };

    return fusermount_run(argv, false, NULL) >= 0;
}
