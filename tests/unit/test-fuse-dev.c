/* SPDX-License-Identifier: MIT */
/*
 * The /dev/fuse transport against a hostile peer: this test plays the kernel
 * on the other end of a socket that keeps message boundaries.
 */
#include "config-host.h"

#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/fuse-test.h"
#include "util/sanitizers.h"

#define IMAGE_SIZE (1024 * 1024)
#define QUEUE_DEPTH 4

static AioContext *ctx;

static FusePeer *peer_new(void)
{
    FusePeer *p = g_new(FusePeer, 1);

    fuse_peer_init(p, IMAGE_SIZE, true, QUEUE_DEPTH);
    fuse_peer_start(p);
    return p;
}

static void peer_free(FusePeer *p)
{
    close(p->fd);
    fuse_peer_stop(p);
    fuse_peer_deinit(p);
    g_free(p);
}

/* Send a message whose header says that it is @said bytes long. */
static void peer_send(FusePeer *p, uint32_t opcode, uint64_t unique,
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

static void peer_request(FusePeer *p, uint32_t opcode, uint64_t unique,
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
static void peer_receive(FusePeer *p, Reply *reply)
{
    ssize_t n;

    while ((n = recv(p->fd, reply, sizeof(*reply), 0)) < 0) {
        g_assert_cmpint(errno, ==, EAGAIN);
        aio_poll(ctx, true);
    }
    g_assert_cmpint(n, ==, reply->header.len);
}

static void expect_error(FusePeer *p, uint64_t unique, int error)
{
    Reply reply;

    peer_receive(p, &reply);
    g_assert_cmpuint(reply.header.unique, ==, unique);
    g_assert_cmpint(reply.header.error, ==, error);
    g_assert_cmpuint(reply.header.len, ==, sizeof(reply.header));
}

/* Requests without an answer have been taken: one with an answer follows. */
static void expect_alive(FusePeer *p)
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
    FusePeer *p = peer_new();
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
    FusePeer *p = peer_new();

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
    FusePeer *p = peer_new();
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
    FusePeer *p = peer_new();
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
    peer_free(p);
}

/* ---- the handshake ---- */

typedef struct Handshake {
    FuseExport exp;
    int fds[2];                 /* the test's end, the daemon's */
    int ret;
    bool done;
} Handshake;

static void coroutine_fn handshake_co(void *opaque)
{
    Handshake *h = opaque;

    h->ret = fuse_dev_co_handshake(&h->exp, h->fds[1]);
    h->done = true;
}

static void handshake_begin(Handshake *h, bool offer_uring)
{
    *h = (Handshake) { .exp.file.offer_uring = offer_uring };
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0,
                               h->fds), ==, 0);
    coroutine_enter(coroutine_create(handshake_co, h));
}

/* Send INIT, or with another @opcode what must not come first. */
static void handshake_send(Handshake *h, uint32_t opcode,
                           const struct fuse_init_in *init, size_t len)
{
    struct {
        struct fuse_in_header header;
        struct fuse_init_in init;
    } msg = {
        .header = { .len = sizeof(msg.header) + len, .opcode = opcode,
                    .unique = 2 },
        .init = *init,
    };

    g_assert_cmpint(send(h->fds[0], &msg, msg.header.len, 0), ==,
                    msg.header.len);
}

static ssize_t handshake_reply(Handshake *h, Reply *reply)
{
    ssize_t n;

    while ((n = recv(h->fds[0], reply, sizeof(*reply), 0)) < 0 && !h->done) {
        g_assert_cmpint(errno, ==, EAGAIN);
        aio_poll(ctx, true);
    }
    return n;
}

static int handshake_end(Handshake *h)
{
    while (!h->done) {
        aio_poll(ctx, true);
    }
    close(h->fds[0]);
    close(h->fds[1]);
    return h->ret;
}

static const struct fuse_init_in good_init = {
    .major = FUSE_KERNEL_VERSION,
    .minor = 45,
    .max_readahead = 131072,
    .flags = ~0u,
    .flags2 = ~0u,
};

static void test_init(void)
{
    Handshake h;
    g_autofree Reply *reply = g_new0(Reply, 1);
    const struct fuse_init_out *out = (void *)reply->data;

    for (int uring = 0; uring < 2; uring++) {
        handshake_begin(&h, uring);
        handshake_send(&h, FUSE_INIT, &good_init, sizeof(good_init));
        g_assert_cmpint(handshake_reply(&h, reply), ==,
                        sizeof(reply->header) + sizeof(*out));
        g_assert_cmpint(reply->header.error, ==, 0);
        g_assert_cmpuint(reply->header.unique, ==, 2);
        g_assert_cmpuint(out->major, ==, FUSE_KERNEL_VERSION);
        g_assert_cmpuint(out->max_write, ==, FUSE_MAX_IO_BYTES);
        g_assert_cmpint(!!(out->flags2 & (FUSE_OVER_IO_URING >> 32)), ==,
                        uring);
        g_assert_cmpint(handshake_end(&h), ==, 0);
    }
}

/* A kernel that offers little gets no more than that. */
static void test_init_old(void)
{
    struct fuse_init_in init = good_init;
    Handshake h;
    g_autofree Reply *reply = g_new0(Reply, 1);
    const struct fuse_init_out *out = (void *)reply->data;

    init.minor = 22;
    init.flags = FUSE_ASYNC_READ;
    handshake_begin(&h, true);
    handshake_send(&h, FUSE_INIT, &init, offsetof(struct fuse_init_in, flags2));
    g_assert_cmpint(handshake_reply(&h, reply), ==,
                    sizeof(reply->header) + FUSE_COMPAT_22_INIT_OUT_SIZE);
    g_assert_cmpuint(out->flags, ==, FUSE_ASYNC_READ);
    g_assert_cmpint(handshake_end(&h), ==, 0);
    g_assert_cmphex(h.exp.file.init_flags, ==, FUSE_ASYNC_READ);
}

/* A newer major version is told ours, and says INIT again. */
static void test_init_newer(void)
{
    struct fuse_init_in init = good_init;
    Handshake h;
    g_autofree Reply *reply = g_new0(Reply, 1);
    const struct fuse_init_out *out = (void *)reply->data;

    init.major++;
    handshake_begin(&h, true);
    handshake_send(&h, FUSE_INIT, &init, sizeof(init));
    g_assert_cmpint(handshake_reply(&h, reply), >, 0);
    g_assert_cmpuint(out->major, ==, FUSE_KERNEL_VERSION);
    g_assert_false(h.done);
    handshake_send(&h, FUSE_INIT, &good_init, sizeof(good_init));
    g_assert_cmpint(handshake_reply(&h, reply), >, 0);
    g_assert_cmpint(handshake_end(&h), ==, 0);
}

static void test_init_refused(void)
{
    struct fuse_init_in old = good_init, older = good_init;
    Handshake h;
    g_autofree Reply *reply = g_new0(Reply, 1);

    old.minor = 8;
    older.major--;
    for (int i = 0; i < 2; i++) {
        handshake_begin(&h, true);
        handshake_send(&h, FUSE_INIT, i ? &older : &old, sizeof(old));
        g_assert_cmpint(handshake_reply(&h, reply), ==,
                        sizeof(reply->header));
        g_assert_cmpint(reply->header.error, ==, -EPROTO);
        g_assert_cmpint(handshake_end(&h), ==, -EPROTO);
    }
    for (size_t len = 0; len < offsetof(struct fuse_init_in, flags2); len++) {
        handshake_begin(&h, true);
        handshake_send(&h, FUSE_INIT, &good_init, len);
        g_assert_cmpint(handshake_end(&h), ==, -EINVAL);
    }
    /* something else first, a message without a header, nobody there */
    handshake_begin(&h, true);
    handshake_send(&h, FUSE_GETATTR, &good_init, 16);
    g_assert_cmpint(handshake_end(&h), ==, -EPROTO);
    handshake_begin(&h, true);
    g_assert_cmpint(send(h.fds[0], "short", 5, 0), ==, 5);
    g_assert_cmpint(handshake_end(&h), ==, -EPROTO);
    handshake_begin(&h, true);
    shutdown(h.fds[0], SHUT_RDWR);
    g_assert_cmpint(handshake_end(&h), <, 0);
}

static void test_random(void)
{
    FusePeer *p = peer_new();
    char msg[512], reply[65536];

    for (int i = 0; i < (UNDER_VALGRIND ? 200 : 20000); i++) {
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
    g_test_add_func("/fuse-dev/init", test_init);
    g_test_add_func("/fuse-dev/init/old", test_init_old);
    g_test_add_func("/fuse-dev/init/newer", test_init_newer);
    g_test_add_func("/fuse-dev/init/refused", test_init_refused);
    g_test_add_func("/fuse-dev/random", test_random);
    ret = g_test_run();
    aio_context_free(ctx);
    return ret;
}
