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

#include "tests/fuzz/fuzz.h"
#include "tests/unit/fuse-test.h"

enum {
    FLAG_HANDSHAKE = 1,         /* INIT is expected */
    FLAG_WRITABLE = 2,
    FLAG_SHALLOW = 4,           /* one buffer only */

    MESSAGE_FIX = 1,            /* the header says the right length */
    MESSAGE_WAIT = 2,           /* see it answered before the next */
    MESSAGE_LONG = 4,           /* a page of data follows the bytes */
};

#define MAX_MESSAGE (65535 + 4096)

/*
 * Replies not yet taken, at most: unlike /dev/fuse a socket may be full, and
 * then a reply is lost, which the peer would wait for in vain.
 */
#define MAX_REPLY (FUSE_MAX_IO_BYTES + 4096)
#define MAX_OUTSTANDING 8

typedef struct Peer {
    FusePeer common;
    uint8_t flags;
    unsigned expected, received;
} Peer;

static void coroutine_fn handshake_co(void *opaque)
{
    Peer *p = opaque;
    int ret = fuse_dev_co_handshake(&p->common.exp, p->common.served_fd);

    g_assert_cmpint(ret, <=, 0);
    g_assert_cmpint(ret, !=, -ETIMEDOUT);
    g_assert_true(ret < 0 || p->common.exp.file.init_done);
}

static void peer_init(Peer *p)
{
    int size = 4 * MAX_MESSAGE, reply_size = MAX_OUTSTANDING * MAX_REPLY;

    fuse_peer_init(&p->common, 1048576, p->flags & FLAG_WRITABLE,
                   p->flags & FLAG_SHALLOW ? 1 : 4);
    setsockopt(p->common.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    setsockopt(p->common.served_fd, SOL_SOCKET, SO_SNDBUFFORCE, &reply_size,
               sizeof(reply_size));
}

/* Take the replies that have come. */
static void peer_drain(Peer *p)
{
    static char reply[FUSE_MAX_IO_BYTES + 4096];
    struct fuse_out_header *header = (void *)reply;
    ssize_t n;

    while ((n = recv(p->common.fd, reply, sizeof(reply), 0)) > 0) {
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
    if (send(p->common.fd, message, len, 0) < 0) {
        return;                 /* full, or nobody reads any more */
    }
    if (len >= sizeof(*header)
        && (header->len != len || fuse_op_has_reply(header->opcode))) {
        p->expected++;
    }
    if (!(p->flags & FLAG_HANDSHAKE)
        && ((flags & MESSAGE_WAIT)
            || p->expected - p->received >= MAX_OUTSTANDING)) {
        peer_settle(p);
    }
}

static void run_handshake(Peer *p, FuzzInput *in)
{
    while (in->size) {
        peer_send(p, in);
    }
    shutdown(p->common.fd, SHUT_WR);
    co_test_run(handshake_co, p);
    close(p->common.served_fd);
}

static void run_requests(Peer *p, FuzzInput *in)
{
    fuse_peer_start(&p->common);
    while (in->size) {
        peer_send(p, in);
    }
    peer_settle(p);
    shutdown(p->common.fd, SHUT_WR);
    fuse_peer_stop(&p->common);
    peer_drain(p);
    g_assert_cmpuint(p->received, ==, p->expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { data, size };
    Peer p = { .flags = fuzz_take_u8(&in) };

    signal(SIGPIPE, SIG_IGN);
    fuzz_context();
    peer_init(&p);
    if (p.flags & FLAG_HANDSHAKE) {
        run_handshake(&p, &in);
    } else {
        run_requests(&p, &in);
    }
    close(p.common.fd);
    fuse_peer_deinit(&p.common);
    return 0;
}
