/* SPDX-License-Identifier: MIT */
/*
 * FUSE transport: reading requests from /dev/fuse, writing replies to it.
 *
 * Each FuseQueue has an fd of its own on the connection, read when the loop
 * says that it is readable; every request runs in a coroutine and is answered
 * on the fd that it came from, as the kernel demands.  FORGET and INTERRUPT
 * come here also while a ring serves everything else.
 *
 * A request's buffer is one mapping, of which only touched pages exist:
 *
 *     | ...  in header | argument | payload ... |
 *                                 ^ page boundary for WRITE
 *
 * The read starts so far before a page boundary that WRITE data begins on it:
 * it goes from there to storage, and READ data to the client, without a copy,
 * whatever alignment O_DIRECT asks for.
 *
 * Everything here runs in the queue's thread.  Source: fuse(4).
 */
#include "config-host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block/export/fuse-int.h"
#include "util/named-file.h"

/* Requests taken in one go, before other work of the thread has its turn. */
#define FUSE_DEV_BATCH 64

/* How long a mounted kernel may take to say INIT. */
#define FUSE_DEV_INIT_TIMEOUT_NS (10 * 1000000000LL)

#define FUSE_DEV_WRITE_HEAD \
    (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

struct FuseDevRequest {
    FuseQueue *q;
    char *map;                  /* mapping of fuse_dev_map_size() bytes */
    char *payload;              /* in it, on a page boundary */
    size_t len;                 /* bytes received */
    STAILQ_ENTRY(FuseDevRequest) next;
};

static void fuse_dev_readable(void *opaque);

static size_t fuse_dev_page_size(void)
{
    return sysconf(_SC_PAGESIZE);
}

static size_t fuse_dev_map_size(void)
{
    return fuse_dev_page_size() + FUSE_MAX_IO_BYTES;
}

static char *fuse_dev_message(const FuseDevRequest *dreq)
{
    return dreq->payload - FUSE_DEV_WRITE_HEAD;
}

/* ---- buffers ---- */

static FuseDevRequest *fuse_dev_request_new(FuseQueue *q)
{
    FuseDevRequest *dreq;
    char *map = mmap(NULL, fuse_dev_map_size(), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (map == MAP_FAILED) {
        return NULL;
    }
    dreq = g_new(FuseDevRequest, 1);
    *dreq = (FuseDevRequest) {
        .q = q,
        .map = map,
        .payload = map + fuse_dev_page_size(),
    };
    q->dev.n_requests++;
    return dreq;
}

static void fuse_dev_request_free(FuseDevRequest *dreq)
{
    dreq->q->dev.n_requests--;
    munmap(dreq->map, fuse_dev_map_size());
    g_free(dreq);
}

/* The most recently used buffer, or a new one within the queue's depth. */
static FuseDevRequest *fuse_dev_request_get(FuseQueue *q)
{
    FuseDevRequest *dreq = STAILQ_FIRST(&q->dev.free);

    if (dreq) {
        STAILQ_REMOVE_HEAD(&q->dev.free, next);
        return dreq;
    }
    if (q->dev.n_requests < q->exp->queue_depth) {
        return fuse_dev_request_new(q);
    }
    return NULL;
}

static void fuse_dev_request_put(FuseDevRequest *dreq)
{
    STAILQ_INSERT_HEAD(&dreq->q->dev.free, dreq, next);
}

/* ---- requests ---- */

/*
 * Split a message as the protocol lays it out.  False if it is shorter than
 * its own header, or does not say its own length.
 */
static bool fuse_dev_parse(const FuseDevRequest *dreq, FuseRequest *req)
{
    char *msg = fuse_dev_message(dreq);
    const struct fuse_in_header *in = (const void *)msg;
    size_t rest, arg_len;

    if (dreq->len < sizeof(*in) || in->len != dreq->len) {
        return false;
    }
    rest = dreq->len - sizeof(*in);
    arg_len = MIN(rest, fuse_op_arg_size(in->opcode));
    *req = (FuseRequest) {
        .in = in,
        .arg = msg + sizeof(*in),
        .arg_len = arg_len,
        .payload = msg + sizeof(*in) + arg_len,
        .payload_len = rest - arg_len,
    };
    /*
     * Where no payload came in, the reply may start on the page boundary;
     * READ data then does.  Past it, behind an argument of any length, it
     * must be aligned as what it holds.
     */
    if (req->payload_len == 0) {
        uintptr_t end = ((uintptr_t)req->payload + 7) & ~(uintptr_t)7;

        req->payload = MAX((char *)end, dreq->payload);
    }
    req->payload_size = dreq->payload + FUSE_MAX_IO_BYTES
                        - (char *)req->payload;
    return true;
}

/* Deliver a reply; @len as fuse_op_co_run() returned it. */
static int fuse_dev_reply(int fd, uint64_t unique, void *payload, int len)
{
    struct fuse_out_header out = {
        .len = sizeof(out) + MAX(len, 0),
        .error = MIN(len, 0),
        .unique = unique,
    };
    struct iovec iov[2] = {
        { &out, sizeof(out) },
        { payload, MAX(len, 0) },
    };
    ssize_t ret;

    do {
        ret = writev(fd, iov, len > 0 ? 2 : 1);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

static void coroutine_fn fuse_dev_co_request(void *opaque)
{
    FuseDevRequest *dreq = opaque;
    FuseQueue *q = dreq->q;
    FuseExport *exp = q->exp;
    FuseRequest req;

    if (fuse_dev_parse(dreq, &req)) {
        int len = fuse_co_process(exp, &req);

        if (fuse_op_has_reply(req.in->opcode)) {
            int ret = fuse_dev_reply(q->dev.fd, req.in->unique, req.payload,
                                     len);

            /* ENOENT: the client was killed; ENODEV: unmounted. */
            if (ret < 0 && ret != -ENOENT && ret != -ENODEV && len >= 0) {
                /* The kernel refused this reply: the client must not hang. */
                fuse_dev_reply(q->dev.fd, req.in->unique, NULL, -EIO);
            }
        }
    } else if (dreq->len >= sizeof(*req.in)) {
        req.in = (const void *)fuse_dev_message(dreq);
        fuse_dev_reply(q->dev.fd, req.in->unique, NULL, -EIO);
    }
    fuse_dev_request_put(dreq);
    q->dev.in_flight--;
    if (!q->dev.reading && !__atomic_load_n(&exp->ended, __ATOMIC_RELAXED)) {
        fuse_dev_start(q);
    }
    fuse_export_put(exp);
}

/*
 * Take one request.  False if there is none, if no buffer is free (the fd is
 * not watched then, until one is), or if the connection has ended.
 */
static bool fuse_dev_take(FuseQueue *q)
{
    FuseDevRequest *dreq = fuse_dev_request_get(q);
    ssize_t n;

    if (!dreq) {
        if (q->dev.in_flight > 0) {
            fuse_dev_stop(q);
        }
        return false;
    }
    n = read(q->dev.fd, fuse_dev_message(dreq),
             FUSE_DEV_WRITE_HEAD + FUSE_MAX_IO_BYTES);
    if (n <= 0) {
        int err = n < 0 ? errno : ENODEV;

        fuse_dev_request_put(dreq);
        switch (err) {
        case EINTR:
        case ENOENT:            /* the request was interrupted meanwhile */
            return true;
        case EAGAIN:
            return false;
        default:                /* ENODEV: unmounted or aborted */
            fuse_dev_stop(q);
            fuse_export_connection_ended(q->exp);
            return false;
        }
    }
    dreq->len = n;
    q->dev.in_flight++;
    fuse_export_get(q->exp);
    coroutine_enter(coroutine_create(fuse_dev_co_request, dreq));
    return true;
}

static void fuse_dev_readable(void *opaque)
{
    FuseQueue *q = opaque;

    for (int i = 0; i < FUSE_DEV_BATCH && q->dev.reading; i++) {
        if (!fuse_dev_take(q)) {
            break;
        }
    }
}

/* ---- set-up and teardown ---- */

static int fuse_dev_prepare_fd(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0
        || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        return -errno;
    }
    return 0;
}

int fuse_dev_clone(int fd)
{
    uint32_t source = fd;
    int clone = named_file_open("/dev/fuse", O_RDWR | O_NONBLOCK, NULL);
    int ret;

    if (clone < 0) {
        return clone;
    }
    if (ioctl(clone, FUSE_DEV_IOC_CLONE, &source) < 0) {
        ret = -errno;
        close(clone);
        return ret;
    }
    return clone;
}

void fuse_dev_init(FuseQueue *q, int fd)
{
    q->dev = (FuseDev) { .fd = fd };
    STAILQ_INIT(&q->dev.free);
}

bool fuse_dev_reserve(FuseQueue *q)
{
    FuseDevRequest *dreq = fuse_dev_request_new(q);

    if (dreq) {
        fuse_dev_request_put(dreq);
    }
    return dreq;
}

void fuse_dev_start(FuseQueue *q)
{
    q->dev.reading = true;
    aio_set_fd_handler(q->ctx, q->dev.fd, fuse_dev_readable, NULL, q);
}

void fuse_dev_stop(FuseQueue *q)
{
    if (q->dev.reading) {
        q->dev.reading = false;
        aio_set_fd_handler(q->ctx, q->dev.fd, NULL, NULL, NULL);
    }
}

void fuse_dev_deinit(FuseQueue *q)
{
    FuseDevRequest *dreq;

    fuse_dev_stop(q);
    while ((dreq = STAILQ_FIRST(&q->dev.free))) {
        STAILQ_REMOVE_HEAD(&q->dev.free, next);
        fuse_dev_request_free(dreq);
    }
    if (q->dev.fd >= 0) {
        close(q->dev.fd);
        q->dev.fd = -1;
    }
}

/* Answer one message of the handshake.  -EAGAIN: another INIT will follow. */
static int fuse_dev_answer_init(FuseExport *exp, int fd, FuseDevRequest *dreq)
{
    FuseRequest req;
    uint64_t unique;
    int len, ret;

    if (!fuse_dev_parse(dreq, &req)) {
        return -EPROTO;
    }
    unique = req.in->unique;
    if (req.in->opcode != FUSE_INIT) {
        /* Nothing may come before INIT. */
        return -EPROTO;
    }
    len = fuse_init(&exp->file, &req);
    ret = fuse_dev_reply(fd, unique, req.payload, len);
    if (len < 0) {
        return len;
    }
    return ret < 0 ? ret : exp->file.init_done ? 0 : -EAGAIN;
}

static void fuse_dev_init_readable(void *opaque)
{
    co_event_set(opaque);
}

/* Wait until @fd is readable; -ETIMEDOUT after FUSE_DEV_INIT_TIMEOUT_NS. */
static int coroutine_fn fuse_dev_co_wait_init(int fd)
{
    AioContext *ctx = aio_context_current();
    CoEvent readable = { 0 };
    bool ok;

    aio_set_fd_handler(ctx, fd, fuse_dev_init_readable, NULL, &readable);
    ok = co_event_wait(&readable, FUSE_DEV_INIT_TIMEOUT_NS);
    aio_set_fd_handler(ctx, fd, NULL, NULL, NULL);
    return ok ? 0 : -ETIMEDOUT;
}

int coroutine_fn fuse_dev_co_handshake(FuseExport *exp, int fd)
{
    FuseQueue q = { .exp = exp };
    FuseDevRequest *dreq;
    int ret = fuse_dev_prepare_fd(fd);

    if (ret < 0) {
        return ret;
    }
    fuse_dev_init(&q, -1);
    dreq = fuse_dev_request_new(&q);
    if (!dreq) {
        return -ENOMEM;
    }
    do {
        ssize_t n;

        ret = fuse_dev_co_wait_init(fd);
        if (ret < 0) {
            break;
        }
        n = read(fd, fuse_dev_message(dreq),
                 FUSE_DEV_WRITE_HEAD + FUSE_MAX_IO_BYTES);
        if (n < 0) {
            ret = errno == EINTR ? -EAGAIN : -errno;
            continue;
        }
        dreq->len = n;
        ret = fuse_dev_answer_init(exp, fd, dreq);
    } while (ret == -EAGAIN);
    fuse_dev_request_free(dreq);
    return ret;
}
