/* SPDX-License-Identifier: MIT */
/*
 * The /dev/fuse transport against a hostile peer: this test plays the kernel
 * on the other end of a socket that keeps message boundaries.
 */
#include "config-host.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/export/fuse-int.h"
#include "qapi/json.h"
#include "qapi/visit.h"

#define IMAGE_SIZE (1024 * 1024)
#define QUEUE_DEPTH 4

static AioContext *ctx;

typedef struct Peer {
    FuseExport exp;
    FuseQueue q;
    int fd;                     /* the test's end */
    BlockBackend *blk;
    bool ended, set_up, torn_down;
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
    static const char json[] = "{'driver': 'null-co', 'node-name': 'n',"
                               " 'size': 1048576, 'read-zeroes': true}";
    Peer *p = opaque;
    QObject *obj = qobject_from_json(json, NULL);
    g_autoptr(BlockdevOptions) opts =
        qapi_from_qobject(&qapi_type_BlockdevOptions, obj, false, NULL);
    BlockDriverState *bs = bdrv_co_open(opts, true, NULL);

    qobject_unref(obj);
    p->blk = blk_new("test", BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    g_assert_true(blk_co_attach(p->blk, bs, NULL));
    bdrv_co_unref(bs);
    p->set_up = true;
}

static void coroutine_fn teardown_co(void *opaque)
{
    Peer *p = opaque;

    blk_co_free(p->blk);
    p->torn_down = true;
}

static Peer *peer_new(void)
{
    Peer *p = g_new0(Peer, 1);
    int fds[2];

    coroutine_enter(coroutine_create(setup_co, p));
    while (!p->set_up) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0,
                               fds), ==, 0);
    p->fd = fds[0];
    p->exp.common.blk = p->blk;
    p->exp.queue_depth = QUEUE_DEPTH;
    p->exp.n_requests = p->exp.n_users = 1;
    p->exp.idle_bh = aio_bh_new(ctx, nothing_bh, p);
    p->exp.unused_bh = aio_bh_new(ctx, nothing_bh, p);
    p->exp.ended_bh = aio_bh_new(ctx, ended_bh, p);
    fuse_file_init(&p->exp.file, p->blk, true, false, true);
    p->q = (FuseQueue) { .exp = &p->exp, .ctx = ctx };
    fuse_dev_init(&p->q, fds[1]);
    fuse_dev_start(&p->q);
    return p;
}

static void peer_free(Peer *p)
{
    close(p->fd);
    while (!p->ended) {
        aio_poll(ctx, true);
    }
    g_assert_cmpuint(p->exp.n_users, ==, 1);
    fuse_dev_deinit(&p->q);
    aio_bh_delete(p->exp.idle_bh);
    aio_bh_delete(p->exp.unused_bh);
    aio_bh_delete(p->exp.ended_bh);
    coroutine_enter(coroutine_create(teardown_co, p));
    while (!p->torn_down) {
        aio_poll(ctx, true);
    }
    g_free(p);
}

/* Send a message whose header says that it is @said bytes long. */
static void peer_send(Peer *p, uint32_t opcode, uint64_t unique,
                      const void *arg, size_t arg_len, size_t said)
{
    g_autofree char *msg = g_malloc0(sizeof(struct fuse_in_header) + arg_len);

    *(struct fuse_in_header *)msg = (struct fuse_in_header) {
        .len = said, .opcode = opcode, .unique = unique, .nodeid = 1,
    };
    memcpy(msg + sizeof(struct fuse_in_header), arg, arg_len);
    g_assert_cmpint(send(p->fd, msg, sizeof(struct fuse_in_header) + arg_len,
                         0), >, 0);
}

static void peer_request(Peer *p, uint32_t opcode, uint64_t unique,
                         const void *arg, size_t arg_len)
{
    peer_send(p, opcode, unique, arg, arg_len,
              sizeof(struct fuse_in_header) + arg_len);
}

typedef struct Reply {
    struct fuse_out_header header;
    char data[65536];
} Reply;

/* Run the loop until a reply is there. */
static void peer_receive(Peer *p, Reply *reply)
{
    ssize_t n;

    while ((n = recv(p->fd, reply, sizeof(*reply), 0)) < 0) {
        g_assert_cmpint(errno, ==, EAGAIN);
        aio_poll(ctx, true);
    }
    g_assert_cmpint(n, ==, reply->header.len);
}

static void expect_error(Peer *p, uint64_t unique, int error)
{
    Reply reply;

    peer_receive(p, &reply);
    g_assert_cmpuint(reply.header.unique, ==, unique);
    g_assert_cmpint(reply.header.error, ==, error);
    g_assert_cmpuint(reply.header.len, ==, sizeof(reply.header));
}

/* Requests without an answer have been taken: one with an answer follows. */
static void expect_alive(Peer *p)
{
    struct fuse_getattr_in in = { 0 };
    Reply reply;

    peer_request(p, FUSE_GETATTR, 0xa11fe, &in, sizeof(in));
    peer_receive(p, &reply);
    g_assert_cmpuint(reply.header.unique, ==, 0xa11fe);
    g_assert_cmpint(reply.header.error, ==, 0);
}

static void test_read_write(void)
{
    struct {
        struct fuse_write_in in;
        char data[4096];
    } w = { .in = { .offset = 4096, .size = 4096 } };
    struct fuse_read_in r = { .offset = IMAGE_SIZE - 512, .size = 4096 };
    Peer *p = peer_new();
    Reply reply;

    peer_request(p, FUSE_READ, 1, &r, sizeof(r));
    peer_receive(p, &reply);
    g_assert_cmpuint(reply.header.unique, ==, 1);
    g_assert_cmpuint(reply.header.len, ==, sizeof(reply.header) + 512);

    peer_request(p, FUSE_WRITE, 2, &w, sizeof(w));
    peer_receive(p, &reply);
    g_assert_cmpint(reply.header.error, ==, 0);
    g_assert_cmpuint(((struct fuse_write_out *)reply.data)->size, ==, 4096);
    peer_free(p);
}

static void test_malformed(void)
{
    struct fuse_write_in w = { .size = 4096 };
    struct fuse_read_in r = { .size = UINT32_MAX };
    struct fuse_in_header header = { .len = 7, .opcode = FUSE_READ };
    Peer *p = peer_new();

    /* less than a header: there is nobody to answer */
    for (size_t len = 1; len < sizeof(header); len++) {
        g_assert_cmpint(send(p->fd, &header, len, 0), ==, len);
        expect_alive(p);
    }
    /* a length that is not the message's */
    peer_send(p, FUSE_GETATTR, 5, &w, 16, 7);
    expect_error(p, 5, -EIO);
    peer_send(p, FUSE_GETATTR, 6, &w, 16, UINT32_MAX);
    expect_error(p, 6, -EIO);
    /* arguments that are too short, data that did not come */
    peer_request(p, FUSE_WRITE, 7, &w, sizeof(w) - 1);
    expect_error(p, 7, -EINVAL);
    peer_request(p, FUSE_WRITE, 8, &w, sizeof(w));
    expect_error(p, 8, -EINVAL);
    peer_request(p, FUSE_READ, 9, &r, sizeof(r));
    expect_error(p, 9, -EINVAL);
    /* operations that do not exist, or not for a file */
    peer_request(p, 0, 10, "", 0);
    expect_error(p, 10, -ENOSYS);
    peer_request(p, UINT32_MAX, 11, "", 0);
    expect_error(p, 11, -ENOSYS);
    peer_request(p, FUSE_INIT, 12, &w, sizeof(w));
    expect_error(p, 12, -ENOSYS);
    expect_alive(p);
    peer_free(p);
}

static void test_no_reply(void)
{
    struct fuse_forget_in forget = { .nlookup = 1 };
    struct fuse_interrupt_in interrupt = { .unique = 77 };
    Peer *p = peer_new();
    struct pollfd pfd = { .fd = p->fd, .events = POLLIN };

    peer_request(p, FUSE_FORGET, 1, &forget, sizeof(forget));
    peer_request(p, FUSE_INTERRUPT, 2, &interrupt, sizeof(interrupt));
    peer_request(p, FUSE_FORGET, 3, "", 0);
    expect_alive(p);
    g_assert_cmpint(poll(&pfd, 1, 0), ==, 0);
    peer_free(p);
}

/* More requests than buffers: all are answered. */
static void test_many(void)
{
    struct fuse_getattr_in in = { 0 };
    Peer *p = peer_new();
    g_autofree Reply *reply = g_new(Reply, 1);
    bool seen[100] = { false };

    for (int i = 0; i < 100; i++) {
        peer_request(p, FUSE_GETATTR, i, &in, sizeof(in));
    }
    for (int i = 0; i < 100; i++) {
        peer_receive(p, reply);
        g_assert_cmpuint(reply->header.unique, <, 100);
        g_assert_false(seen[reply->header.unique]);
        seen[reply->header.unique] = true;
    }
    g_assert_cmpuint(p->q.dev.n_requests, <=, QUEUE_DEPTH);
    peer_free(p);
}

static void test_random(void)
{
    Peer *p = peer_new();
    char msg[512], reply[65536];

    for (int i = 0; i < 20000; i++) {
        size_t len = g_test_rand_int_range(1, sizeof(msg));

        for (size_t j = 0; j < len; j++) {
            msg[j] = g_test_rand_int_range(0, 256);
        }
        if (len >= sizeof(struct fuse_in_header)) {
            struct fuse_in_header *in = (void *)msg;

            in->opcode = g_test_rand_int_range(0, 60);
            in->len = i % 8 ? len : in->len;
        }
        g_assert_cmpint(send(p->fd, msg, len, 0), ==, len);
        while (aio_poll(ctx, false)) {
        }
        while (recv(p->fd, reply, sizeof(reply), 0) > 0) {
        }
    }
    expect_alive(p);
    peer_free(p);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
    g_test_add_func("/fuse-dev/read-write", test_read_write);
    g_test_add_func("/fuse-dev/malformed", test_malformed);
    g_test_add_func("/fuse-dev/no-reply", test_no_reply);
    g_test_add_func("/fuse-dev/many", test_many);
    g_test_add_func("/fuse-dev/random", test_random);
    ret = g_test_run();
    aio_context_free(ctx);
    return ret;
}
