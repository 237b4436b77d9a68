/* SPDX-License-Identifier: MIT */
/*
 * FUSE transport: requests and replies over io_uring.
 *
 * The kernel has one queue for each possible CPU and hands a request to the
 * queue of the CPU on which its client runs.  The queues are dealt to the
 * export's FuseQueues; each registers a number of entries: a header and a
 * payload buffer which the kernel fills with a request (its CQE), and takes
 * the reply from when it is committed, which at once asks for the next one.
 *
 *     REGISTER -> CQE -> coroutine -> COMMIT_AND_FETCH -> CQE -> ... -> error
 *
 * An entry belongs to the kernel from its SQE to its CQE, and in that time
 * holds a reference on the export: the last CQE brings an error.  Only the end
 * of the connection makes the kernel give entries back, so teardown unmounts
 * or aborts first, then waits for them.
 *
 * A REGISTER that is refused makes the kernel serve the connection through
 * /dev/fuse again, which is read at all times.  A COMMIT that is refused would
 * leave its client waiting for ever, so it ends the connection.
 *
 * Everything here runs in the queue's thread unless said otherwise.  Source:
 * Documentation/filesystems/fuse/fuse-io-uring.rst, fs/fuse/dev_uring.c.
 */
#include "config-host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/export/fuse-int.h"
#include "util/named-file.h"
#include "util/trace.h"

#define FUSE_URING_PARAMETER "/sys/module/fuse/parameters/enable_uring"
#define FUSE_URING_CPUS "/sys/devices/system/cpu/possible"
#define FUSE_URING_SYSFS_MAX (4096 + 1)

/* Bytes from one entry's header to the next: keeps them apart in caches. */
#define FUSE_URING_HEADER_STRIDE 512

/* EAGAIN is retried after a pause, this often. */
#define FUSE_URING_RETRIES 1000
#define FUSE_URING_RETRY_NS 1000000

typedef struct FuseRingEntry {
    FuseRingQueue *rq;
    CqeHandler cqe_handler;
    struct fuse_uring_req_header *header;
    struct iovec iov[2];        /* header and payload, as REGISTER wants */
    uint64_t commit_id;         /* valid if cmd is COMMIT_AND_FETCH */
    enum fuse_uring_cmd cmd;    /* the last one submitted */
    unsigned retries;
} FuseRingEntry;

struct FuseRingQueue {
    FuseQueue *q;
    uint16_t qid;
    unsigned depth;             /* entries */
    FuseRingEntry *entries;
    char *map;                  /* headers, then payloads: touched when used */
    size_t map_size;
};

static void fuse_uring_cqe(CqeHandler *cqe_handler);

/* ---- what the kernel has [main] ---- */

/* Into @text of FUSE_URING_SYSFS_MAX bytes; 0 or -errno. */
static int fuse_uring_read_sysfs(const char *path, char *text, Error **errp)
{
    int fd = named_file_open(path, O_RDONLY, errp);
    ssize_t len;

    if (fd < 0) {
        return fd;
    }
    len = named_file_read(fd, text, FUSE_URING_SYSFS_MAX);
    close(fd);
    if (len < 0) {
        error_setg_errno(errp, -len, "not readable");
        return len;
    }
    return 0;
}

unsigned fuse_uring_kernel_queues(void)
{
    char text[FUSE_URING_SYSFS_MAX];
    g_auto(GStrv) ranges = NULL;
    unsigned n = 0;

    /* Lists such as "0-3,8-11"; queues are numbered without the gaps. */
    if (fuse_uring_read_sysfs(FUSE_URING_CPUS, text, NULL) < 0) {
        return MAX(1, sysconf(_SC_NPROCESSORS_CONF));
    }
    ranges = g_strsplit(text, ",", -1);
    for (char **r = ranges; *r; r++) {
        unsigned first, last;
        int fields = sscanf(*r, "%u-%u", &first, &last);

        if (fields == 1) {
            n++;
        } else if (fields == 2 && last >= first) {
            n += last - first + 1;
        }
    }
    return MAX(1, n);
}

bool fuse_uring_check(AioContext **contexts, unsigned n, Error **errp)
{
    char value[FUSE_URING_SYSFS_MAX];
    Error *err = NULL;
    int ret = fuse_uring_read_sysfs(FUSE_URING_PARAMETER, value, &err);

    if (ret == -ENOENT) {
        error_free(err);
        error_setg(errp, "FUSE over io_uring is not available: this kernel "
                   "does not have it (Linux 6.14 or later, with "
                   FUSE_URING_PARAMETER ", is needed)");
        return false;
    }
    if (ret < 0) {
        error_prepend(&err, "FUSE over io_uring is not available: "
                      FUSE_URING_PARAMETER ": ");
        error_propagate(errp, err);
        return false;
    }
    if (value[0] != 'Y' && value[0] != '1') {
        error_setg(errp, "FUSE over io_uring is switched off: write Y to "
                   FUSE_URING_PARAMETER);
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!aio_context_has_ring(contexts[i])) {
            error_setg(errp, "FUSE over io_uring is not available: io_uring "
                       "with 128-byte entries cannot be set up (see "
                       "/proc/sys/kernel/io_uring_disabled and seccomp)");
            return false;
        }
    }
    return true;
}

/* ---- memory [main] ---- */

static size_t fuse_uring_headers_size(unsigned depth)
{
    size_t page = sysconf(_SC_PAGESIZE);

    return (depth * FUSE_URING_HEADER_STRIDE + page - 1) / page * page;
}

bool fuse_uring_add_queue(FuseQueue *q, unsigned qid, unsigned depth,
                          Error **errp)
{
    size_t headers = fuse_uring_headers_size(depth);
    FuseUring *uring = &q->uring;
    FuseRingQueue *rq;
    FuseRingQueue new = {
        .q = q,
        .qid = qid,
        .depth = depth,
        .map_size = headers + (size_t)depth * FUSE_MAX_IO_BYTES,
    };

    new.map = mmap(NULL, new.map_size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (new.map == MAP_FAILED) {
        error_setg_errno(errp, errno, "Failed to allocate buffers for FUSE "
                         "over io_uring");
        return false;
    }
    new.entries = g_new0(FuseRingEntry, depth);
    uring->queues = g_renew(FuseRingQueue, uring->queues,
                            uring->n_queues + 1);
    rq = &uring->queues[uring->n_queues++];
    *rq = new;
    for (unsigned i = 0; i < depth; i++) {
        char *header = rq->map + i * FUSE_URING_HEADER_STRIDE;
        char *payload = rq->map + headers + (size_t)i * FUSE_MAX_IO_BYTES;

        rq->entries[i] = (FuseRingEntry) {
            .cqe_handler.cb = fuse_uring_cqe,
            .header = (void *)header,
            .iov = {
                { header, sizeof(struct fuse_uring_req_header) },
                { payload, FUSE_MAX_IO_BYTES },
            },
        };
    }
    return true;
}

void fuse_uring_deinit(FuseQueue *q)
{
    FuseUring *uring = &q->uring;

    g_assert(uring->n_armed == 0);
    for (unsigned i = 0; i < uring->n_queues; i++) {
        g_free(uring->queues[i].entries);
        munmap(uring->queues[i].map, uring->queues[i].map_size);
    }
    g_clear_pointer(&uring->queues, g_free);
    uring->n_queues = 0;
}

/* ---- commands ---- */

static void fuse_uring_prep(struct io_uring_sqe *sqe, void *opaque)
{
    FuseRingEntry *ent = opaque;
    struct fuse_uring_cmd_req *req = (void *)sqe->cmd;

    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = ent->rq->q->dev.fd;
    sqe->cmd_op = ent->cmd;
    req->qid = ent->rq->qid;
    if (ent->cmd == FUSE_IO_URING_CMD_REGISTER) {
        sqe->addr = (uintptr_t)ent->iov;
        sqe->len = G_N_ELEMENTS(ent->iov);
    } else {
        req->commit_id = ent->commit_id;
    }
}

static void fuse_uring_submit(FuseRingEntry *ent, enum fuse_uring_cmd cmd)
{
    ent->cmd = cmd;
    aio_add_sqe(fuse_uring_prep, ent, &ent->cqe_handler);
}

void fuse_uring_start(FuseQueue *q)
{
    for (unsigned i = 0; i < q->uring.n_queues; i++) {
        FuseRingQueue *rq = &q->uring.queues[i];

        trace(fuse_uring_register, "id=%s qid=%u depth=%u", q->exp->common.id,
              rq->qid, rq->depth);
        for (unsigned j = 0; j < rq->depth; j++) {
            /* The array of queues has its final place only now. */
            rq->entries[j].rq = rq;
            q->uring.n_armed++;
            fuse_export_get(q->exp);
            fuse_uring_submit(&rq->entries[j], FUSE_IO_URING_CMD_REGISTER);
        }
    }
}

/* ---- requests ---- */

/*
 * Describe the request in an entry's buffers.  False if its lengths do not
 * add up; they are all checked here against the buffers.
 */
static bool fuse_uring_parse(const FuseRingEntry *ent, FuseRequest *req)
{
    const struct fuse_in_header *in = (const void *)ent->header->in_out;
    size_t payload_len = ent->header->ring_ent_in_out.payload_sz;

    if (payload_len > FUSE_MAX_IO_BYTES
        || in->len < sizeof(*in) + payload_len
        || in->len - sizeof(*in) - payload_len > FUSE_URING_OP_IN_OUT_SZ) {
        return false;
    }
    *req = (FuseRequest) {
        .in = in,
        .arg = ent->header->op_in,
        .arg_len = in->len - sizeof(*in) - payload_len,
        .payload = ent->iov[1].iov_base,
        .payload_len = payload_len,
        .payload_size = FUSE_MAX_IO_BYTES,
    };
    return true;
}

static void coroutine_fn fuse_uring_co_request(void *opaque)
{
    FuseRingEntry *ent = opaque;
    FuseExport *exp = ent->rq->q->exp;
    struct fuse_uring_req_header *header = ent->header;
    FuseRequest req;
    uint64_t unique;
    int len;

    if (fuse_uring_parse(ent, &req)) {
        len = fuse_co_process(exp, &req);
    } else {
        len = -EINVAL;
    }
    /* The reply's header takes the place of the request's. */
    unique = ((const struct fuse_in_header *)header->in_out)->unique;
    *(struct fuse_out_header *)header->in_out = (struct fuse_out_header) {
        .len = sizeof(struct fuse_out_header) + MAX(len, 0),
        .error = MIN(len, 0),
        .unique = unique,
    };
    header->ring_ent_in_out.payload_sz = MAX(len, 0);
    fuse_uring_submit(ent, FUSE_IO_URING_CMD_COMMIT_AND_FETCH);
}

/* ---- completions ---- */

/* The entry has had its last CQE. */
static void fuse_uring_retire(FuseRingEntry *ent, int err)
{
    FuseQueue *q = ent->rq->q;
    FuseExport *exp = q->exp;

    trace(fuse_uring_retire, "id=%s qid=%u cmd=%d err=%d", exp->common.id,
          ent->rq->qid, ent->cmd, err);
    q->uring.n_armed--;
    switch (err) {
    case -ENOTCONN:
    case -ECONNABORTED:
        fuse_export_connection_ended(exp);
        break;
    default:
        if (ent->cmd == FUSE_IO_URING_CMD_REGISTER) {
            /* The first one speaks for all; /dev/fuse goes on. */
            if (!__atomic_exchange_n(&exp->uring_broken, true,
                                     __ATOMIC_RELAXED)) {
                warn_report("FUSE over io_uring: the kernel refused to "
                            "register a buffer: %s", strerror(-err));
            }
        } else if (!__atomic_load_n(&exp->halted, __ATOMIC_RELAXED)) {
            error_report("FUSE over io_uring: the kernel refused a reply: %s",
                         strerror(-err));
            fuse_export_connection_ended(exp);
        }
    }
    fuse_export_put(exp);
}

static void coroutine_fn fuse_uring_co_retry(void *opaque)
{
    FuseRingEntry *ent = opaque;

    aio_co_sleep_ns(FUSE_URING_RETRY_NS);
    fuse_uring_submit(ent, ent->cmd);
}

static void fuse_uring_cqe(CqeHandler *cqe_handler)
{
    FuseRingEntry *ent = (void *)((char *)cqe_handler
                                  - offsetof(FuseRingEntry, cqe_handler));
    FuseQueue *q = ent->rq->q;
    int res = cqe_handler->cqe.res;

    if (G_LIKELY(res >= 0)) {
        ent->retries = 0;
        ent->commit_id = ent->header->ring_ent_in_out.commit_id;
        if (q->exp->placement) {
            const struct fuse_in_header *in =
                (const void *)ent->header->in_out;

            aio_context_note_client(q->ctx, ent->rq->qid, in->pid);
        }
        if (G_UNLIKELY(!__atomic_load_n(&q->exp->uring_served,
                                        __ATOMIC_RELAXED))) {
            __atomic_store_n(&q->exp->uring_served, true, __ATOMIC_RELAXED);
        }
        coroutine_enter(coroutine_create(fuse_uring_co_request, ent));
    } else if (res == -EINTR) {
        fuse_uring_submit(ent, ent->cmd);
    } else if (res == -EAGAIN && ent->retries++ < FUSE_URING_RETRIES) {
        /* The kernel has not taken the INIT reply yet, or lacks memory. */
        coroutine_enter(coroutine_create(fuse_uring_co_retry, ent));
    } else {
        fuse_uring_retire(ent, res);
    }
}
