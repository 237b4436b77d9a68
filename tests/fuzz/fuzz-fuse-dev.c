/* SPDX-License-Identifier: MIT */
/*
 * The /dev/fuse transport: messages on a socket that keeps their boundaries.
 * Each message that has a header must be answered exactly once, unless its
 * operation has no reply.
 *
 * Input: flags, then messages: flags (1 byte), length (2), the bytes.
 */
#include "config-host.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/export/fuse-int.h"
#include "qapi/json.h"
#include "qapi/visit.h"
#include "tests/fuzz/fuzz.h"

enum {
    FLAG_HANDSHAKE = 1,         /* INIT is expected */
    FLAG_WRITABLE = 2,
    FLAG_SHALLOW = 4,           /* one buffer only */

    MESSAGE_FIX = 1,            /* the header says the right length */
    MESSAGE_WAIT = 2,           /* see it answered before the next */
    MESSAGE_LONG = 4,           /* a page of data follows the bytes */
};

#define MAX_MESSAGE (65535 + 4096)

typedef struct Peer {
    uint8_t flags;
    FuseExport exp;
    FuseQueue q;
    int fd;                     /* the kernel's end */
    int served_fd;
    BlockBackend *blk;
    unsigned expected, received;
    bool ended;
} Peer;

static void nothing_bh(void *opaque)
{
}

static void ended_bh(void *opaque)
{
    Peer *p = opaque;

    p->ended = true;
}

static void coroutine_fn setup_co(void *opaque)
{
    static const char json[] = "{'driver': 'null-co', 'size': 1048576,"
                               " 'read-zeroes': true, 'node-name': 'n'}";
    Peer *p = opaque;
    g_autoptr(QObject) obj = qobject_from_json(json, NULL);
    g_autoptr(BlockdevOptions) opts =
        qapi_from_qobject(&qapi_type_BlockdevOptions, obj, false, NULL);
    BlockDriverState *bs = bdrv_co_open(opts, false, NULL);

    p->blk = blk_new("fuzz", BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    g_assert_true(blk_co_attach(p->blk, bs, NULL));
    bdrv_co_unref(bs);
}

static void coroutine_fn teardown_co(void *opaque)
{
    Peer *p = opaque;

    blk_co_free(p->blk);
}

static void coroutine_fn handshake_co(void *opaque)
{
    Peer *p = opaque;
    int ret = fuse_dev_co_handshake(&p->exp, p->served_fd);

    g_assert_cmpint(ret, <=, 0);
    g_assert_cmpint(ret, !=, -ETIMEDOUT);
    g_assert_true(ret < 0 || p->exp.file.init_done);
}

static void peer_start(Peer *p)
{
    AioContext *ctx = fuzz_context();
    int size = 4 * MAX_MESSAGE;
    int fds[2];

    co_test_run(setup_co, p);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0,
                               fds), ==, 0);
    p->fd = fds[0];
    p->served_fd = fds[1];
    setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    p->exp.common.blk = p->blk;
    p->exp.queue_depth = p->flags & FLAG_SHALLOW ? 1 : 4;
    p->exp.n_requests = p->exp.n_users = 1;
    p->exp.idle_bh = aio_bh_new(ctx, nothing_bh, p);
    p->exp.unused_bh = aio_bh_new(ctx, nothing_bh, p);
    p->exp.ended_bh = aio_bh_new(ctx, ended_bh, p);
    fuse_file_init(&p->exp.file, p->blk, p->flags & FLAG_WRITABLE, false,
                   true);
    p->q = (FuseQueue) { .exp = &p->exp, .ctx = ctx };
}

static void peer_free(Peer *p)
{
    close(p->fd);
    aio_bh_delete(p->exp.idle_bh);
    aio_bh_delete(p->exp.unused_bh);
    aio_bh_delete(p->exp.ended_bh);
    co_test_run(teardown_co, p);
}

/* Take the replies that have come. */
static void peer_drain(Peer *p)
{
    static char reply[FUSE_MAX_IO_BYTES + 4096];
    struct fuse_out_header *header = (void *)reply;
    ssize_t n;

    while ((n = recv(p->fd, reply, sizeof(reply), 0)) > 0) {
        g_assert_cmpuint(n, >=, sizeof(*header));
        g_assert_cmpuint(header->len, ==, n);
        g_assert_cmpint(header->error, <=, 0);
        g_assert_cmpint(header->error, >, -512);
        p->received++;
    }
}

static void peer_settle(Peer *p)
{
    while (p->received < p->expected) {
        aio_poll(fuzz_context(), true);
        peer_drain(p);
    }
}

/* Send the next message of the input. */
static void peer_send(Peer *p, FuzzInput *in)
{
    static char message[MAX_MESSAGE];
    struct fuse_in_header *header = (void *)message;
    uint8_t flags = fuzz_take_u8(in);
    size_t len = fuzz_take_u16(in);
    const uint8_t *bytes = fuzz_take(in, &len);

    if (len == 0) {
        return;                 /* would be the end of the stream */
    }
    memset(message, 0, sizeof(*header));
    memcpy(message, bytes, len);
    if (flags & MESSAGE_LONG) {
        memset(message + len, 'd', 4096);
        len += 4096;
    }
    if (flags & MESSAGE_FIX) {
        header->len = len;
    }
    if (send(p->fd, message, len, 0) < 0) {
        return;                 /* full, or nobody reads any more */
    }
    if (len >= sizeof(*header)
        && (header->len != len || fuse_op_has_reply(header->opcode))) {
        p->expected++;
    }
    if ((flags & MESSAGE_WAIT) && !(p->flags & FLAG_HANDSHAKE)) {
        peer_settle(p);
    }
}

static void run_handshake(Peer *p, FuzzInput *in)
{
    while (in->size) {
        peer_send(p, in);
    }
    shutdown(p->fd, SHUT_WR);
    co_test_run(handshake_co, p);
    close(p->served_fd);
}

static void run_requests(Peer *p, FuzzInput *in)
{
    fuse_dev_init(&p->q, p->served_fd);
    fuse_dev_start(&p->q);
    while (in->size) {
        peer_send(p, in);
    }
    peer_settle(p);
    shutdown(p->fd, SHUT_WR);
    while (!p->ended) {
        aio_poll(fuzz_context(), true);
    }
    peer_drain(p);
    g_assert_cmpuint(p->received, ==, p->expected);
    g_assert_cmpuint(p->exp.n_users, ==, 1);
    g_assert_cmpuint(p->exp.n_requests, ==, 1);
    g_assert_cmpuint(p->q.dev.n_requests, <=, p->exp.queue_depth);
    fuse_dev_deinit(&p->q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { data, size };
    Peer p = { .flags = fuzz_take_u8(&in) };

    signal(SIGPIPE, SIG_IGN);
    peer_start(&p);
    if (p.flags & FLAG_HANDSHAKE) {
        run_handshake(&p, &in);
    } else {
        run_requests(&p, &in);
    }
    peer_free(&p);
    return 0;
}
