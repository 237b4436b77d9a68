/* SPDX-License-Identifier: MIT */
/*
 * For unit tests of the block layer: nodes by text, work in many threads.
 */
#ifndef TESTS_UNIT_BLOCK_TEST_H
#define TESTS_UNIT_BLOCK_TEST_H

#include "block/block-int.h"
#include "tests/unit/node-test.h"
#include "util/iothread.h"

/* Run a test's coroutine with a new context for the calling thread. */
typedef struct BlockTest {
    AioBackend backend;
    CoroutineEntry *entry;
    void *opaque;
} BlockTest;

static inline void block_test_run(gconstpointer data)
{
    const BlockTest *test = data;
    AioContext *ctx;

    /* IOThreads follow the environment. */
    g_setenv("QSD_AIO", test->backend == AIO_BACKEND_EPOLL ? "epoll"
                                                           : "io_uring", true);
    ctx = co_test_context_new(test->backend, true);
    if (!ctx) {
        return;
    }
    co_test_run(test->entry, test->opaque);
    g_assert_true(TAILQ_EMPTY(&bdrv_all_nodes));
    aio_context_free(ctx);
}

/* Register @entry(@opaque) under a path like "/group/%s". */
static inline void G_GNUC_PRINTF(4, 5)
block_test_add_one(AioBackend backend, CoroutineEntry *entry,
                   const void *opaque, const char *fmt, ...)
{
    BlockTest *test = g_new(BlockTest, 1);
    g_autofree char *path = NULL;
    va_list ap;

    va_start(ap, fmt);
    path = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    *test = (BlockTest) { backend, entry, (void *)opaque };
    g_test_add_data_func_full(path, test, block_test_run, g_free);
}

/* Register @entry as PATH/io_uring and PATH/epoll. */
static inline void block_test_add(const char *path, CoroutineEntry *entry,
                                  void *opaque)
{
    block_test_add_one(AIO_BACKEND_IO_URING, entry, opaque, "%s/io_uring",
                       path);
    block_test_add_one(AIO_BACKEND_EPOLL, entry, opaque, "%s/epoll", path);
}

static inline BlockDriverState *coroutine_fn block_test_co_open(
    const char *json)
{
    Error *err = NULL;
    BlockDriverState *bs = node_test_co_try_open(&err, json);

    node_test_no_error(err);
    return bs;
}

static inline void coroutine_fn block_test_co_open_fails(const char *json,
                                                         const char *text)
{
    Error *err = NULL;

    g_assert_null(node_test_co_try_open(&err, json));
    node_test_assert_error(err, text);
}

/* As blockdev-del, for nodes that nobody uses. */
static inline void coroutine_fn block_test_co_close(BlockDriverState *bs)
{
    g_assert_true(bs->monitor_owned);
    bs->monitor_owned = false;
    bdrv_co_unref(bs);
}

static inline BlockBackend *coroutine_fn block_test_co_attach(
    BlockDriverState *bs, const char *name, uint64_t perm, uint64_t shared)
{
    BlockBackend *blk = blk_new(name, perm, shared);
    Error *err = NULL;

    blk_co_attach(blk, bs, &err);
    node_test_no_error(err);
    return blk;
}

/* ---- coroutines in several threads ---- */

#ifndef BLOCK_TEST_THREADS
#define BLOCK_TEST_THREADS 3
#endif

typedef struct BlockTestGang {
    IOThread *threads[BLOCK_TEST_THREADS];
    unsigned running;                   /* atomic */
    WaitSet done;
} BlockTestGang;

typedef struct BlockTestWorker {
    BlockTestGang *gang;
    CoroutineEntry *entry;
    void *opaque;
} BlockTestWorker;

static inline void coroutine_fn block_test_worker_entry(void *opaque)
{
    BlockTestWorker *worker = opaque;
    BlockTestGang *gang = worker->gang;

    worker->entry(worker->opaque);
    g_free(worker);
    __atomic_fetch_sub(&gang->running, 1, __ATOMIC_SEQ_CST);
    wait_set_wake(&gang->done);
}

static inline BlockTestGang *block_test_gang_new(void)
{
    BlockTestGang *gang = g_new0(BlockTestGang, 1);

    wait_set_init(&gang->done);
    for (int i = 0; i < BLOCK_TEST_THREADS; i++) {
        g_autofree char *id = g_strdup_printf("t%d", i);
        Error *err = NULL;

        gang->threads[i] = iothread_new(id, &iothread_default_params, &err);
        node_test_no_error(err);
    }
    return gang;
}

/* Start @entry(@opaque) in thread number @i, which wraps around. */
static inline void block_test_gang_start(BlockTestGang *gang, unsigned i,
                                         CoroutineEntry *entry, void *opaque)
{
    BlockTestWorker *worker = g_new(BlockTestWorker, 1);
    IOThread *thread = gang->threads[i % BLOCK_TEST_THREADS];

    *worker = (BlockTestWorker) { gang, entry, opaque };
    __atomic_fetch_add(&gang->running, 1, __ATOMIC_SEQ_CST);
    aio_co_enter(iothread_aio_context(thread),
                 coroutine_create(block_test_worker_entry, worker));
}

static inline bool block_test_gang_idle(void *opaque)
{
    BlockTestGang *gang = opaque;

    return __atomic_load_n(&gang->running, __ATOMIC_SEQ_CST) == 0;
}

/* Wait for all workers and end the threads. */
static inline void coroutine_fn block_test_gang_co_finish(BlockTestGang *gang)
{
    wait_set_co_wait(&gang->done, block_test_gang_idle, gang);
    for (int i = 0; i < BLOCK_TEST_THREADS; i++) {
        iothread_free(gang->threads[i]);
    }
    wait_set_deinit(&gang->done);
    g_free(gang);
}

#endif /* TESTS_UNIT_BLOCK_TEST_H */
