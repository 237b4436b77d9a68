/* SPDX-License-Identifier: MIT */
/*
 * For tests of FUSE without a kernel, unit tests and fuzz targets: the user
 * that an export is of its node, and an export's queue on one end of a socket
 * that keeps message boundaries, with the test on the other.
 *
 * Main thread only.  Assertions stay on.
 */
#ifndef TESTS_UNIT_FUSE_TEST_H
#define TESTS_UNIT_FUSE_TEST_H

#include <sys/socket.h>

#include "block/export/fuse-int.h"
#include "tests/unit/node-test.h"

/* ---- a user ---- */

typedef struct FuseTestUser {
    const char *json;               /* the node */
    bool writable;
    BlockBackend *blk;
} FuseTestUser;

static inline void coroutine_fn fuse_test_user_open_co(void *opaque)
{
    FuseTestUser *u = opaque;
    Error *err = NULL;
    BlockDriverState *bs = node_test_co_try_open(&err, u->json);

    node_test_no_error(err);
    u->blk = node_test_co_try_attach(
        &err, bs, BLK_PERM_CONSISTENT_READ
        | (u->writable ? BLK_PERM_WRITE | BLK_PERM_RESIZE : 0), BLK_PERM_ALL);
    node_test_no_error(err);
    bdrv_co_unref(bs);
}

/* Of the node that @json describes, which ends with it. */
static inline BlockBackend *fuse_test_user_new(const char *json, bool writable)
{
    FuseTestUser u = { .json = json, .writable = writable };

    co_test_run(fuse_test_user_open_co, &u);
    return u.blk;
}

static inline void coroutine_fn fuse_test_user_close_co(void *opaque)
{
    blk_co_free(opaque);
}

static inline void fuse_test_user_free(BlockBackend *blk)
{
    co_test_run(fuse_test_user_close_co, blk);
}

/* ---- an export and its peer ---- */

typedef struct FusePeer {
    FuseExport exp;
    FuseQueue q;
    int fd;                         /* the test's end, non-blocking */
    int served_fd;                  /* the queue's, once it has started */
    bool ended;                     /* the export has seen the end */
} FusePeer;

static inline void fuse_peer_nothing_bh(void *opaque)
{
}

static inline void fuse_peer_ended_bh(void *opaque)
{
    FusePeer *p = opaque;

    p->ended = true;
}

/* An export of a null-co node of @size bytes, in the current context. */
static inline void fuse_peer_init(FusePeer *p, int64_t size, bool writable,
                                  unsigned queue_depth)
{
    AioContext *ctx = aio_context_current();
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'null-co', 'node-name': 'n', 'size': %" PRId64 ", "
        "'read-zeroes': true}", size);
    BlockBackend *blk = fuse_test_user_new(json, true);
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0,
                               fds), ==, 0);
    *p = (FusePeer) { .fd = fds[0], .served_fd = fds[1] };
    p->exp.common.blk = blk;
    p->exp.queue_depth = queue_depth;
    p->exp.n_requests = p->exp.n_users = 1;
    p->exp.idle_bh = aio_bh_new(ctx, fuse_peer_nothing_bh, p);
    p->exp.unused_bh = aio_bh_new(ctx, fuse_peer_nothing_bh, p);
    p->exp.ended_bh = aio_bh_new(ctx, fuse_peer_ended_bh, p);
    fuse_file_init(&p->exp.file, blk, writable, false, true);
    p->q = (FuseQueue) { .exp = &p->exp, .ctx = ctx };
}

/* Serve requests. */
static inline void fuse_peer_start(FusePeer *p)
{
    fuse_dev_init(&p->q, p->served_fd);
    fuse_dev_start(&p->q);
}

/* After closing or shutting down @fd: until the queue serves no more. */
static inline void fuse_peer_stop(FusePeer *p)
{
    while (!p->ended) {
        aio_poll(aio_context_current(), true);
    }
    g_assert_cmpuint(p->exp.n_users, ==, 1);
    g_assert_cmpuint(p->exp.n_requests, ==, 1);
    g_assert_cmpuint(p->q.dev.n_requests, <=, p->exp.queue_depth);
    fuse_dev_deinit(&p->q);
}

static inline void fuse_peer_deinit(FusePeer *p)
{
    aio_bh_delete(p->exp.idle_bh);
    aio_bh_delete(p->exp.unused_bh);
    aio_bh_delete(p->exp.ended_bh);
    fuse_test_user_free(p->exp.common.blk);
}

#endif /* TESTS_UNIT_FUSE_TEST_H */
