/* SPDX-License-Identifier: MIT */
/*
 * Faults that nothing outside of a process can cause: LD_PRELOAD this between
 * the daemon and its libraries.
 *
 * The file named by QSD_INJECT is an array of struct Rule, shared with the
 * test.  A rule lets some calls pass and spoils the ones that follow.  Where
 * the kernel is the one to refuse, the call is spoiled so that it does: what
 * then comes back is a real answer.  See iotests/inject.py for the other side.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block/export/fuse-kernel.h"

#define EXPORT __attribute__((visibility("default")))
#define MAX_FDS 4096
#define MAX_IOV 1024

/* The order is known to iotests/inject.py. */
enum {
    RULE_REGISTER,      /* REGISTER of a ring entry: refused, EINVAL */
    RULE_COMMIT,        /* COMMIT_AND_FETCH: refused, ENOENT */
    RULE_SUBMIT,        /* io_uring_submit*(): -arg, nothing submitted */
    RULE_OFFER,         /* INIT: the kernel does not offer the ring */
    RULE_DEV_READ,      /* read(2) of /dev/fuse: errno arg */
    RULE_DEV_WRITE,     /* writev(2) to /dev/fuse: errno arg */
    RULE_CLONE,         /* FUSE_DEV_IOC_CLONE: errno arg */
    RULE_SHORT,         /* file I/O: arg bytes at most */
    RULE_AGAIN,         /* file I/O: EINTR or EAGAIN, by turns */
    RULE_THREAD,        /* pthread_create(): arg */
    RULE__MAX,
};

typedef struct Rule {
    uint32_t after;             /* calls that pass */
    uint32_t count;             /* calls that are spoiled then */
    uint32_t arg;
    uint32_t seen;              /* calls so far */
    uint32_t hits;              /* spoiled so far */
} Rule;

static Rule no_rules[RULE__MAX];
static volatile Rule *rules = no_rules;
static bool is_fuse[MAX_FDS];

static void __attribute__((constructor)) inject_init(void)
{
    const char *path = getenv("QSD_INJECT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map;

    if (fd >= 0) {
        map = mmap(NULL, sizeof(no_rules), PROT_READ | PROT_WRITE, MAP_SHARED,
                   fd, 0);
        if (map != MAP_FAILED) {
            rules = map;
        }
        close(fd);
    }
}

/* Is this call of the kind @number to be spoiled? */
static bool strikes(unsigned number)
{
    volatile Rule *rule = &rules[number];
    uint32_t seen;

    if (!__atomic_load_n(&rule->count, __ATOMIC_ACQUIRE)) {
        return false;
    }
    seen = __atomic_fetch_add(&rule->seen, 1, __ATOMIC_RELAXED);
    if (seen < rule->after || seen - rule->after >= rule->count) {
        return false;
    }
    __atomic_fetch_add(&rule->hits, 1, __ATOMIC_RELAXED);
    return true;
}

#define REAL(name, symbol) \
    static __typeof__(&name) real; \
    if (!real) { \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, symbol); \
    }

/* ---- /dev/fuse ---- */

EXPORT int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list ap;
    int fd;
    REAL(open, "open64");

    if (flags & (O_CREAT | O_TMPFILE)) {
        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    fd = real(path, flags, mode);
    if (fd >= 0 && fd < MAX_FDS) {
        is_fuse[fd] = strcmp(path, "/dev/fuse") == 0;
    }
    return fd;
}

/* The connection's fd is opened by another process, which sends it. */
EXPORT ssize_t recvmsg(int sock, struct msghdr *msg, int flags)
{
    struct cmsghdr *cmsg;
    struct stat st;
    ssize_t n;
    int fd;
    REAL(recvmsg, "recvmsg");

    n = real(sock, msg, flags);
    cmsg = n > 0 ? CMSG_FIRSTHDR(msg) : NULL;
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET
        && cmsg->cmsg_type == SCM_RIGHTS) {
        memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
        if (fd >= 0 && fd < MAX_FDS && fstat(fd, &st) == 0) {
            is_fuse[fd] = S_ISCHR(st.st_mode)
                          && st.st_rdev == makedev(10, 229);
        }
    }
    return n;
}

static bool fuse_fd(int fd)
{
    return fd >= 0 && fd < MAX_FDS && is_fuse[fd];
}

static void withdraw_offer(struct fuse_in_header *in, ssize_t n)
{
    struct fuse_init_in *init = (void *)(in + 1);

    if (n >= (ssize_t)(sizeof(*in) + sizeof(*init)) && in->opcode == FUSE_INIT
        && strikes(RULE_OFFER)) {
        init->flags2 &= ~(uint32_t)(FUSE_OVER_IO_URING >> 32);
    }
}

EXPORT ssize_t read(int fd, void *buf, size_t count)
{
    ssize_t n;
    REAL(read, "read");

    if (fuse_fd(fd) && strikes(RULE_DEV_READ)) {
        errno = rules[RULE_DEV_READ].arg;
        return -1;
    }
    n = real(fd, buf, count);
    if (fuse_fd(fd)) {
        withdraw_offer(buf, n);
    }
    return n;
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
    REAL(writev, "writev");

    if (fuse_fd(fd) && strikes(RULE_DEV_WRITE)) {
        errno = rules[RULE_DEV_WRITE].arg;
        return -1;
    }
    return real(fd, iov, n);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;
    REAL(ioctl, "ioctl");

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (request == FUSE_DEV_IOC_CLONE && strikes(RULE_CLONE)) {
        errno = rules[RULE_CLONE].arg;
        return -1;
    }
    return real(fd, request, arg);
}

/* ---- io_uring ---- */

static void spoil_sqe(struct io_uring_sqe *sqe)
{
    struct fuse_uring_cmd_req *req = (void *)sqe->cmd;

    switch (sqe->opcode) {
    case IORING_OP_URING_CMD:
        if (sqe->cmd_op == FUSE_IO_URING_CMD_REGISTER
            && strikes(RULE_REGISTER)) {
            sqe->len = 1;
        } else if (sqe->cmd_op == FUSE_IO_URING_CMD_COMMIT_AND_FETCH
                   && strikes(RULE_COMMIT)) {
            req->commit_id = ~req->commit_id;
        }
        break;
    case IORING_OP_READ:
    case IORING_OP_WRITE:
        /* The wake-up's eventfd takes 8 bytes, no less. */
        if (sqe->len > 8 && sqe->len > rules[RULE_SHORT].arg
            && strikes(RULE_SHORT)) {
            sqe->len = rules[RULE_SHORT].arg;
        }
        break;
    }
}

/* Look at each SQE once: those that are queued and not yet submitted. */
static void spoil_queued(struct io_uring *ring)
{
    static __thread struct io_uring *last_ring;
    static __thread unsigned done;
    unsigned i = ring->sq.sqe_head;

    if (last_ring == ring && done - i <= ring->sq.sqe_tail - i) {
        i = done;       /* a submit that was refused has shown these before */
    }
    for (; i != ring->sq.sqe_tail; i++) {
        spoil_sqe(&ring->sq.sqes[2 * (i & *ring->sq.kring_mask)]);
    }
    last_ring = ring;
    done = i;
}

#define SUBMIT(ring) \
    do { \
        if (strikes(RULE_SUBMIT)) { \
            return -(int)rules[RULE_SUBMIT].arg; \
        } \
        spoil_queued(ring); \
    } while (0)

EXPORT int io_uring_submit(struct io_uring *ring)
{
    REAL(io_uring_submit, "io_uring_submit");

    SUBMIT(ring);
    return real(ring);
}

EXPORT int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr)
{
    REAL(io_uring_submit_and_wait, "io_uring_submit_and_wait");

    SUBMIT(ring);
    return real(ring, wait_nr);
}

EXPORT int io_uring_submit_and_get_events(struct io_uring *ring)
{
    REAL(io_uring_submit_and_get_events, "io_uring_submit_and_get_events");

    SUBMIT(ring);
    return real(ring);
}

EXPORT int io_uring_submit_and_wait_timeout(struct io_uring *ring,
                                            struct io_uring_cqe **cqe,
                                            unsigned wait_nr,
                                            struct __kernel_timespec *ts,
                                            sigset_t *sigmask)
{
    REAL(io_uring_submit_and_wait_timeout, "io_uring_submit_and_wait_timeout");

    SUBMIT(ring);
    return real(ring, cqe, wait_nr, ts, sigmask);
}

/* ---- files ---- */

/* @iov cut to the rule's length in @cut; returns how many are left. */
static int shorten(const struct iovec *iov, int n, struct iovec *cut)
{
    size_t left = rules[RULE_SHORT].arg, total = 0;
    int i;

    for (i = 0; i < n; i++) {
        total += iov[i].iov_len;
    }
    memcpy(cut, iov, n * sizeof(*iov));
    if (total <= left || !strikes(RULE_SHORT)) {
        return n;
    }
    for (i = 0; i < n && left > 0; i++) {
        cut[i].iov_len = cut[i].iov_len < left ? cut[i].iov_len : left;
        left -= cut[i].iov_len;
    }
    return i;
}

static bool again(void)
{
    static int turn;

    if (!strikes(RULE_AGAIN)) {
        return false;
    }
    errno = __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % 2 ? EINTR
                                                              : EAGAIN;
    return true;
}

EXPORT ssize_t preadv(int fd, const struct iovec *iov, int n, off_t offset)
{
    struct iovec cut[MAX_IOV];
    REAL(preadv, "preadv64");

    return again() ? -1 : real(fd, cut, shorten(iov, n, cut), offset);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    struct iovec cut[MAX_IOV];
    REAL(pwritev, "pwritev64");

    return again() ? -1 : real(fd, cut, shorten(iov, n, cut), offset);
}

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t offset,
                       int flags)
{
    struct iovec cut[MAX_IOV];
    REAL(preadv2, "preadv64v2");

    return again() ? -1 : real(fd, cut, shorten(iov, n, cut), offset, flags);
}

/* ---- threads ---- */

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                          void *(*start)(void *), void *arg)
{
    REAL(pthread_create, "pthread_create");

    if (strikes(RULE_THREAD)) {
        return rules[RULE_THREAD].arg;
    }
    return real(thread, attr, start, arg);
}
