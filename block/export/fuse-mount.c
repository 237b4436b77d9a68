/* SPDX-License-Identifier: MIT */
/*
 * Mounting a FUSE connection on a file, and ending it.
 *
 * By mount(2) and umount(2) where that is permitted, else by the set-uid
 * program fusermount3, which hands the fd over a socket.  All of it may block,
 * also on requests to other exports of this very process, and so runs in the
 * thread pool.  Sources: fuse(4), mount(2), fusermount3(1),
 * Documentation/filesystems/fuse/fuse.rst (connections, abort).
 */
#include "config-host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/export/fuse-int.h"
#include "util/thread-pool.h"

#define FUSERMOUNT "fusermount3"

/* How long fusermount3 may take; it answers within milliseconds. */
#define FUSERMOUNT_TIMEOUT_NS (30 * 1000000000LL)

/* Bytes of what it says that may become part of an error. */
#define FUSERMOUNT_MAX_OUTPUT 4096

/* The fd number at which fusermount3 finds its end of the socket. */
#define FUSERMOUNT_COMM_FD 3

typedef struct FuseMountJob {
    FuseMount *mount;
    const FuseMountOptions *options;
    Error **errp;
} FuseMountJob;

/* ---- fusermount3 ---- */

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

static int fusermount_mount(const char *path, const FuseMountOptions *options,
                            Error **errp)
{
    g_autofree char *opts =
        g_strdup_printf("%s,nosuid,nodev,noatime,default_permissions,"
                        "max_read=%d%s",
                        options->writable ? "rw" : "ro", FUSE_MAX_IO_BYTES,
                        options->allow_other ? ",allow_other" : "");
    char *argv[] = {
        (char *)FUSERMOUNT, (char *)"-o", opts, (char *)"--", (char *)path,
        NULL,
    };

    return fusermount_run(argv, true, errp);
}

/* ---- mount ---- */

/* By mount(2): the fd, or -errno. */
static int fuse_mount_directly(const char *path,
                               const FuseMountOptions *options)
{
    unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOATIME
                          | (options->writable ? 0 : MS_RDONLY);
    g_autofree char *opts = NULL;
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    opts = g_strdup_printf("fd=%d,rootmode=%o,user_id=%u,group_id=%u,"
                           "default_permissions,max_read=%d%s",
                           fd, S_IFREG, getuid(), getgid(), FUSE_MAX_IO_BYTES,
                           options->allow_other ? ",allow_other" : "");
    if (mount("/dev/fuse", path, "fuse", flags, opts) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

static int fuse_mount_worker(void *opaque)
{
    FuseMountJob *job = opaque;
    FuseMount *mount = job->mount;
    struct statx stx;

    mount->by_fusermount = false;
    mount->fd = fuse_mount_directly(mount->path, job->options);
    /* EACCES: /dev/fuse is for root only, fusermount3 opens it for us. */
    if (mount->fd == -EPERM || mount->fd == -EACCES) {
        mount->by_fusermount = true;
        mount->fd = fusermount_mount(mount->path, job->options, job->errp);
        if (mount->fd < 0) {
            error_prepend(job->errp,
                          "Failed to mount FUSE session to export: ");
            return -1;
        }
    } else if (mount->fd < 0) {
        error_setg_errno(job->errp, -mount->fd,
                         "Failed to mount FUSE session to export");
        mount->fd = -1;
        return -1;
    }
    /* DONT_SYNC: nobody serves the connection yet. */
    if (statx(AT_FDCWD, mount->path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
              STATX_MNT_ID, &stx) == 0) {
        mount->minor = stx.stx_dev_minor;
        mount->mount_id = stx.stx_mnt_id;
    }
    return 0;
}

bool coroutine_fn fuse_mount_co_mount(FuseMount *mount,
                                      const FuseMountOptions *options,
                                      Error **errp)
{
    Error *local_err = NULL;
    FuseMountJob job = { mount, options, &local_err };

    if (thread_pool_co_submit(fuse_mount_worker, &job) < 0) {
        if (!local_err) {
            error_setg(&local_err, "Failed to mount FUSE session to export: "
                       "no thread");
        }
        error_propagate(errp, local_err);
        return false;
    }
    return true;
}

/* ---- the end ---- */

/*
 * Where the mount is by now, or NULL if it is gone, or *@covered by another
 * mount, which is somebody else's (proc(5), mountinfo).
 */
static char *fuse_mount_find(const FuseMount *mount, bool *covered)
{
    g_autofree char *text = NULL;
    g_autofree char *id = g_strdup_printf("%" PRIu64, mount->mount_id);
    g_autofree char *dev = g_strdup_printf("0:%u", mount->minor);
    g_autofree char *place = NULL;
    g_auto(GStrv) lines = NULL;

    *covered = false;
    if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL)) {
        return g_strdup(mount->path);
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, " ", 6);

        if (g_strv_length(fields) < 6) {
            continue;
        }
        if (g_str_equal(fields[0], id) && g_str_equal(fields[2], dev)) {
            place = g_strdup(fields[4]);
        } else if (place && g_str_equal(fields[4], place)) {
            *covered = true;
        }
    }
    return place && !*covered ? g_strcompress(place) : NULL;
}

static void fuse_mount_unmount(const FuseMount *mount, const char *place)
{
    char *argv[] = {
        (char *)FUSERMOUNT, (char *)"-u", (char *)"-z", (char *)"--",
        (char *)place, NULL,
    };

    if (mount->by_fusermount) {
        fusermount_run(argv, false, NULL);
    } else {
        /* FORCE aborts the connection, as writing to its "abort" does. */
        umount2(place, MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW);
    }
}

/* The file that aborts connection number @minor, open; -1: there is none. */
static int fuse_mount_open_number(unsigned minor)
{
    g_autofree char *name = g_strdup_printf("%u/abort", minor);
    g_autofree char *path = g_strconcat("/sys/fs/fuse/connections/", name,
                                        NULL);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int fs, root = -1;

    if (fd >= 0) {
        return fd;
    }
    /* Not every system mounts fusectl there: it need not be mounted at all. */
    fs = fsopen("fusectl", FSOPEN_CLOEXEC);
    if (fs >= 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0) {
        root = fsmount(fs, FSMOUNT_CLOEXEC, 0);
    }
    if (root >= 0) {
        fd = openat(root, name, O_WRONLY | O_CLOEXEC);
        close(root);
    }
    if (fs >= 0) {
        close(fs);
    }
    return fd;
}

/*
 * The same for @mount's own connection.  Its number is another one's as soon as
 * it has ended, but an open file stays with the connection that it was opened
 * for: ours, if that has not ended since.
 */
static int fuse_mount_open_abort(const FuseMount *mount)
{
    struct pollfd dev = { .fd = mount->fd };
    int fd = fuse_mount_open_number(mount->minor);

    if (fd >= 0 && (poll(&dev, 1, 0) < 0 || (dev.revents & POLLERR))) {
        close(fd);
        return -1;
    }
    return fd;
}

static int fuse_mount_end_worker(void *opaque)
{
    const FuseMount *mount = opaque;
    bool covered;
    g_autofree char *place = fuse_mount_find(mount, &covered);
    int fd = fuse_mount_open_abort(mount);

    if (place) {
        fuse_mount_unmount(mount, place);
    } else if (covered) {
        /* Whoever detaches it detaches what is mounted on it as well. */
        warn_report("Another mount covers the export on '%s': when that is "
                    "gone, unmount this one as well", mount->path);
    }
    if (fd >= 0) {
        /* A failure means that it has ended by now. */
        (void)!write(fd, "1", 1);
        close(fd);
    }
    return 0;
}

void coroutine_fn fuse_mount_co_end(const FuseMount *mount)
{
    thread_pool_co_submit(fuse_mount_end_worker, (void *)mount);
}
