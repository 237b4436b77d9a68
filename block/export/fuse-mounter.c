/* SPDX-License-Identifier: MIT */
/*
 * The process that mounts.
 *
 * Its main thread waits for requests and for the daemon's end; each request
 * runs in a thread of its own, as it may block on file systems of others, or
 * on the daemon.  An end, which blocks on nobody unless fusermount3 is needed,
 * is carried out at once.
 *
 * The daemon's end shows in two ways.  The socket is closed; or, if a thread
 * of the daemon is stuck in the kernel and all its descriptors stay open, the
 * signal that the kernel sends when the parent thread ends (prctl(2),
 * PR_SET_PDEATHSIG).
 */
#include "config-host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "block/export/fuse-attach.h"
#include "block/export/fuse-mounter.h"
#include "util/own-mounts.h"

#define MOUNTER_NAME "qsd-mounter"
#define MOUNTER_STACK_SIZE (256 * 1024)

/* Calls that may be under way, most of them stuck if it is so many. */
#define MOUNTER_MAX_CALLS 256

/* How long mounts under way are waited for after the daemon's end. */
#define MOUNTER_LAST_MOUNTS_SECONDS 2

/* How long the daemon waits at its end for the mounter's. */
#define MOUNTER_END_MS 1000

typedef struct MounterCall {
    FuseMounterRequest request;
    FuseMounterReply reply;
} MounterCall;

static struct {
    int sock;
    int send_fd;                /* in the daemon: the same socket */
    pid_t pid;                  /* in the daemon: the mounter's */
    pthread_mutex_t lock;       /* over all below */
    pthread_cond_t mounted;     /* n_mounting has fallen to 0 */
    GHashTable *mounts;         /* number -> FuseAttachment */
    unsigned n_calls;
    unsigned n_mounting;
    bool daemon_ended;
} mounter = {
    .sock = -1,
    .send_fd = -1,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .mounted = PTHREAD_COND_INITIALIZER,
};

/* ---- replies ---- */

/* False if nobody is there to get it. */
static bool mounter_reply(const FuseMounterReply *reply, int fd)
{
    struct iovec iov = {
        (void *)reply,
        offsetof(FuseMounterReply, text) + strlen(reply->text) + 1,
    };
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { { 0 } };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (fd >= 0) {
        msg.msg_control = control.buf;
        msg.msg_controllen = sizeof(control.buf);
        control.align = (struct cmsghdr) {
            .cmsg_level = SOL_SOCKET,
            .cmsg_type = SCM_RIGHTS,
            .cmsg_len = CMSG_LEN(sizeof(int)),
        };
        memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
    }
    do {
        n = sendmsg(mounter.sock, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n >= 0;
}

static void mounter_set_text(FuseMounterReply *reply, Error *err)
{
    g_strlcpy(reply->text, error_get_pretty(err), sizeof(reply->text));
    error_free(err);
}

/* ---- requests ---- */

static FuseAttachment *mounter_find(uint32_t number)
{
    return g_hash_table_lookup(mounter.mounts, GUINT_TO_POINTER(number));
}

static bool mounter_end(FuseAttachment *att)
{
    bool ret = fuse_attach_detach(att);

    fuse_attach_abort(att);
    fuse_attach_close(att);
    g_free(att);
    return ret;
}

static void mounter_mount(const FuseMounterRequest *request,
                          FuseMounterReply *reply)
{
    FuseAttachment *att = g_new0(FuseAttachment, 1);
    Error *err = NULL;
    int fd = fuse_attach(att, request->path, request->flags, &err);
    bool wanted;

    if (fd < 0) {
        reply->ret = -EIO;
        mounter_set_text(reply, err);
        g_free(att);
        mounter_reply(reply, -1);
        return;
    }
    reply->minor = att->identity.minor;
    reply->by_fusermount = att->by_fusermount;
    pthread_mutex_lock(&mounter.lock);
    wanted = !mounter.daemon_ended;
    if (wanted) {
        g_hash_table_insert(mounter.mounts, GUINT_TO_POINTER(request->mount),
                            att);
    }
    pthread_mutex_unlock(&mounter.lock);
    if (wanted) {
        /* If it fails, the daemon has ended: this mount is one of its. */
        mounter_reply(reply, fd);
        close(fd);
    } else {
        close(fd);
        mounter_end(att);
    }
}

static int mounter_probe(uint32_t number)
{
    FuseAttachment *att;
    FuseAttachment copy;
    int ret = -ENOTCONN;

    pthread_mutex_lock(&mounter.lock);
    att = mounter_find(number);
    if (att) {
        copy = *att;
        copy.place.name = g_strdup(att->place.name);
        copy.place.dir = fcntl(att->place.dir, F_DUPFD_CLOEXEC, 0);
    }
    pthread_mutex_unlock(&mounter.lock);
    if (att) {
        ret = fuse_attach_probe(&copy);
        named_entry_deinit(&copy.place);
    }
    return ret;
}

static void *mounter_run(void *opaque)
{
    MounterCall *call = opaque;
    const FuseMounterRequest *request = &call->request;
    FuseMounterReply *reply = &call->reply;
    Error *err = NULL;

    switch (request->op) {
    case FUSE_MOUNTER_CHECK:
        reply->ret = fuse_attach_check(request->path, &err);
        if (err) {
            mounter_set_text(reply, err);
        }
        mounter_reply(reply, -1);
        break;
    case FUSE_MOUNTER_MOUNT:
        mounter_mount(request, reply);
        break;
    case FUSE_MOUNTER_PROBE:
        reply->ret = mounter_probe(request->mount);
        mounter_reply(reply, -1);
        break;
    }
    pthread_mutex_lock(&mounter.lock);
    mounter.n_calls--;
    if (request->op == FUSE_MOUNTER_MOUNT && --mounter.n_mounting == 0) {
        pthread_cond_signal(&mounter.mounted);
    }
    pthread_mutex_unlock(&mounter.lock);
    g_free(call);
    return NULL;
}

/* Ends by fusermount3 take a thread each, too: the program may be slow. */
static void *mounter_run_end(void *opaque)
{
    MounterCall *call = opaque;
    FuseAttachment *att;

    pthread_mutex_lock(&mounter.lock);
    att = mounter_find(call->request.mount);
    if (att) {
        g_hash_table_remove(mounter.mounts,
                            GUINT_TO_POINTER(call->request.mount));
    }
    pthread_mutex_unlock(&mounter.lock);
    call->reply.covered = att && !mounter_end(att);
    mounter_reply(&call->reply, -1);
    g_free(call);
    return NULL;
}

static bool mounter_start_thread(void *(*run)(void *), MounterCall *call)
{
    pthread_attr_t attr;
    pthread_t thread;
    int ret;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, MOUNTER_STACK_SIZE);
    ret = pthread_create(&thread, &attr, run, call);
    pthread_attr_destroy(&attr);
    return ret == 0;
}

static void mounter_start_end(MounterCall *call)
{
    const FuseAttachment *att;
    bool slow;

    pthread_mutex_lock(&mounter.lock);
    att = mounter_find(call->request.mount);
    slow = att && att->by_fusermount;
    pthread_mutex_unlock(&mounter.lock);
    if (!slow || !mounter_start_thread(mounter_run_end, call)) {
        mounter_run_end(call);
    }
}

static void mounter_start_call(MounterCall *call)
{
    bool mounts = call->request.op == FUSE_MOUNTER_MOUNT;
    bool room;

    pthread_mutex_lock(&mounter.lock);
    room = mounter.n_calls < MOUNTER_MAX_CALLS;
    if (room) {
        mounter.n_calls++;
        mounter.n_mounting += mounts;
    }
    pthread_mutex_unlock(&mounter.lock);
    if (room && mounter_start_thread(mounter_run, call)) {
        return;
    }
    if (room) {
        pthread_mutex_lock(&mounter.lock);
        mounter.n_calls--;
        mounter.n_mounting -= mounts;
        pthread_mutex_unlock(&mounter.lock);
    }
    call->reply.ret = -EAGAIN;
    mounter_reply(&call->reply, -1);
    g_free(call);
}

/* False at the end of file. */
static bool mounter_receive(void)
{
    MounterCall *call = g_new0(MounterCall, 1);
    FuseMounterRequest *request = &call->request;
    ssize_t n;

    do {
        n = recv(mounter.sock, request, sizeof(*request), 0);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        g_free(call);
        return false;
    }
    request->path[sizeof(request->path) - 1] = '\0';
    call->reply.serial = request->serial;
    if (request->op == FUSE_MOUNTER_END) {
        mounter_start_end(call);
    } else {
        mounter_start_call(call);
    }
    return true;
}

/* ---- the daemon's end ---- */

static void mounter_end_all(void)
{
    struct timespec limit;
    GHashTableIter iter;
    gpointer value;

    pthread_mutex_lock(&mounter.lock);
    mounter.daemon_ended = true;
    /* First what frees clients, and threads of the daemon that are clients. */
    g_hash_table_iter_init(&iter, mounter.mounts);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        fuse_attach_abort(value);
    }
    g_hash_table_iter_init(&iter, mounter.mounts);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        g_hash_table_iter_steal(&iter);
        mounter_end(value);
    }
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += MOUNTER_LAST_MOUNTS_SECONDS;
    while (mounter.n_mounting
           && pthread_cond_timedwait(&mounter.mounted, &mounter.lock,
                                     &limit) == 0) {
        /* These end their mounts themselves. */
    }
    pthread_mutex_unlock(&mounter.lock);
}

/* ---- the process ---- */

/* Descriptors of ours from elsewhere would keep alive what they belong to. */
static void mounter_close_others(int keep, bool quiet)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = 0; fd <= STDERR_FILENO && null >= 0; fd++) {
        if (quiet || fd != STDERR_FILENO) {
            dup2(null, fd);
        }
    }
    if (keep > STDERR_FILENO + 1) {
        close_range(STDERR_FILENO + 1, keep - 1, 0);
    }
    close_range(keep + 1, ~0U, 0);
}

static void mounter_allow_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The signal that says that the daemon's main thread has ended, as an fd. */
static int mounter_watch_parent(pid_t parent)
{
    sigset_t set;
    int fd;

    sigfillset(&set);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    fd = signalfd(-1, &set, SFD_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    if (getppid() != parent) {
        raise(SIGUSR1);                 /* it has ended before */
    }
    return fd;
}

/* Another name than the daemon's, whom people and scripts look for by name. */
static void mounter_set_name(char **argv)
{
    char *end = argv[0];

    prctl(PR_SET_NAME, MOUNTER_NAME);
    /* The arguments follow each other in memory; getopt has sorted argv. */
    for (char **arg = argv; *arg; arg++) {
        end = MAX(end, *arg + strlen(*arg));
    }
    memset(argv[0], 0, end - argv[0]);
    g_strlcpy(argv[0], MOUNTER_NAME, end - argv[0] + 1);
}

static void G_GNUC_NORETURN mounter_main(pid_t parent)
{
    struct pollfd pfds[2] = {
        { .fd = mounter.sock, .events = POLLIN },
        { .fd = mounter_watch_parent(parent), .events = POLLIN },
    };

    mounter.mounts = g_hash_table_new(NULL, NULL);
    for (;;) {
        if (poll(pfds, 2, -1) < 0 && errno != EINTR) {
            break;
        }
        if (pfds[1].revents || (pfds[0].revents && !mounter_receive())) {
            break;
        }
    }
    mounter_end_all();
    _exit(EXIT_SUCCESS);
}

bool fuse_mounter_start(char **argv, bool quiet, void (*forget)(void),
                        Error **errp)
{
    pid_t parent = getpid(), pid;
    int socks[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0) {
        error_setg_errno(errp, errno, "Failed to create a socket pair");
        return false;
    }
    own_mounts_share();
    pid = fork();
    if (pid < 0) {
        error_setg_errno(errp, errno, "Failed to start the process that "
                         "mounts");
        close(socks[0]);
        close(socks[1]);
        return false;
    }
    if (pid == 0) {
        mounter.sock = socks[1];
        mounter_close_others(socks[1], quiet);
        mounter_allow_descriptors();
        forget();
        mounter_set_name(argv);
        /* No signal to the daemon's group, and no directory, is its own. */
        setsid();
        if (chdir("/") < 0) {
            _exit(EXIT_FAILURE);
        }
        mounter_main(parent);
    }
    close(socks[1]);
    fcntl(socks[0], F_SETFL, O_NONBLOCK);
    mounter.sock = socks[0];
    mounter.send_fd = fcntl(socks[0], F_DUPFD_CLOEXEC, 0);
    mounter.pid = pid;
    return true;
}

int fuse_mounter_socket(void)
{
    return mounter.sock;
}

int fuse_mounter_send_fd(void)
{
    return mounter.send_fd;
}

void fuse_mounter_stop(void)
{
    struct pollfd pfd = { .events = POLLIN };

    if (mounter.sock < 0) {
        return;
    }
    /* A loop may still hold the file, so that closing says nothing. */
    shutdown(mounter.sock, SHUT_RDWR);
    close(mounter.sock);
    close(mounter.send_fd);
    mounter.sock = mounter.send_fd = -1;
    /* Not everywhere is there an init that reaps orphans. */
    pfd.fd = syscall(SYS_pidfd_open, mounter.pid, 0);
    if (pfd.fd >= 0) {
        poll(&pfd, 1, MOUNTER_END_MS);
        close(pfd.fd);
    }
    waitpid(mounter.pid, NULL, WNOHANG);
}
