/* SPDX-License-Identifier: MIT */
/*
 * Flushes of files: many at once are few calls, and one error is everybody's.
 *
 * This program's own fdatasync() takes the library's place.  It does as Linux:
 * that data could not be written out is told once, to one caller.
 */
#include <errno.h>

#include "tests/unit/file-test.h"
#include "tests/unit/image-tools.h"
#include "util/iothread.h"

#define N_FLUSHES 60
#define N_THREADS 3                     /* with the main one */

static struct {
    pthread_mutex_t lock;               /* over all of these */
    pthread_cond_t cond;
    unsigned arrived;                   /* flushes that have begun */
    unsigned wait_for;                  /* the first call waits for so many */
    unsigned begun, ended;              /* calls */
    unsigned fail_at;                   /* number of the call that fails */
} syncs = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER,
};

int fdatasync(int fd)
{
    bool failed;

    pthread_mutex_lock(&syncs.lock);
    g_assert_cmpuint(syncs.begun, ==, syncs.ended);     /* one at a time */
    failed = ++syncs.begun == syncs.fail_at;
    while (syncs.arrived < syncs.wait_for) {
        pthread_cond_wait(&syncs.cond, &syncs.lock);
    }
    syncs.ended++;
    pthread_mutex_unlock(&syncs.lock);
    errno = EIO;
    return failed ? -1 : 0;
}

static void expect(unsigned wait_for, unsigned fail_at)
{
    syncs.arrived = syncs.begun = syncs.ended = 0;
    syncs.wait_for = wait_for;
    syncs.fail_at = fail_at;
}

/* How many calls have begun; another flush begins. */
static unsigned arrive(void)
{
    unsigned begun;

    pthread_mutex_lock(&syncs.lock);
    begun = syncs.begun;
    syncs.arrived++;
    pthread_cond_signal(&syncs.cond);
    pthread_mutex_unlock(&syncs.lock);
    return begun;
}

static unsigned calls_ended(void)
{
    unsigned ended;

    pthread_mutex_lock(&syncs.lock);
    ended = syncs.ended;
    pthread_mutex_unlock(&syncs.lock);
    return ended;
}

/* ---- many at once ---- */

typedef struct Flusher {
    BlockBackend *blk;
    AioContext *home;
    unsigned *running;
    Coroutine *waiter;
    int ret;
} Flusher;

static void coroutine_fn flusher_entry(void *opaque)
{
    Flusher *f = opaque;
    unsigned begun = arrive();

    f->ret = co_flush(f->blk);
    /* Success comes from a call that began after we did. */
    g_assert_true(f->ret < 0 || calls_ended() > begun);
    aio_co_reschedule_self(f->home);
    if (--*f->running == 0) {
        aio_co_wake(f->waiter);
    }
}

/* All at once, from several threads; how many succeeded. */
static unsigned coroutine_fn co_flush_all(BlockBackend *blk)
{
    IOThread *threads[N_THREADS - 1];
    AioContext *ctx[N_THREADS] = { aio_context_current() };
    Flusher flushers[N_FLUSHES];
    unsigned running = N_FLUSHES, succeeded = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        threads[i] = iothread_new(i ? "t1" : "t2", &iothread_default_params,
                                  NULL);
        ctx[i + 1] = iothread_aio_context(threads[i]);
    }
    for (unsigned i = 0; i < N_FLUSHES; i++) {
        flushers[i] = (Flusher) {
            .blk = blk, .home = ctx[0], .running = &running,
            .waiter = coroutine_self(),
        };
    }
    for (unsigned i = 0; i < N_FLUSHES; i++) {
        aio_co_schedule(ctx[i % N_THREADS],
                        coroutine_create(flusher_entry, &flushers[i]));
    }
    coroutine_yield();
    for (unsigned i = 0; i < N_FLUSHES; i++) {
        succeeded += flushers[i].ret == 0;
        g_assert_true(flushers[i].ret == 0 || flushers[i].ret == -EIO);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        iothread_free(threads[i]);
    }
    return succeeded;
}

static void coroutine_fn test_merged(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 64 * KiB);
    BlockDriverState *bs = node_test_co_open_file("file", path, opts);
    BlockBackend *blk = node_test_co_attach(bs);

    /* The first, one for the rest, and for the last of each thread at worst. */
    expect(N_FLUSHES, 0);
    g_assert_cmpuint(co_flush_all(blk), ==, N_FLUSHES);
    g_assert_cmpuint(syncs.begun, <=, 2 + N_THREADS);

    /* However they meet: none is forgotten. */
    for (int i = 0; i < 20; i++) {
        expect(0, 0);
        g_assert_cmpuint(co_flush_all(blk), ==, N_FLUSHES);
    }
    co_close(bs, blk);
    remove_file(path);
}

/* ---- errors ---- */

static void coroutine_fn test_shared_error(const char *dir, const char *opts)
{
    char buf[512] = "";

    /* Of the first call, and of that which all others share. */
    for (unsigned fail_at = 1; fail_at <= 2; fail_at++) {
        char *path = node_test_scratch(dir, 64 * KiB);
        BlockDriverState *bs = node_test_co_open_file("file", path, opts);
        BlockBackend *blk = node_test_co_attach(bs);
        unsigned succeeded;

        expect(N_FLUSHES, fail_at);
        succeeded = co_flush_all(blk);
        if (fail_at == 1) {
            g_assert_cmpuint(succeeded, ==, 0);
        } else {
            /* The first call is for all who came before it began. */
            g_assert_cmpuint(succeeded, >=, 1);
        }
        if (succeeded == N_FLUSHES) {
            g_assert_cmpint(co_flush(blk), ==, -EIO);
        }

        /* Reads and writes go on, flushes fail without asking again. */
        g_assert_cmpint(co_read(blk, 0, buf, sizeof(buf)), ==, 0);
        g_assert_cmpint(co_write(blk, 0, buf, sizeof(buf), 0), ==, 0);
        g_assert_cmpint(co_write(blk, 0, buf, sizeof(buf), BDRV_REQ_FUA), ==,
                        -EIO);
        g_assert_cmpint(co_flush(blk), ==, -EIO);
        g_assert_cmpuint(syncs.begun, ==, fail_at);
        co_close(bs, blk);
        remove_file(path);
    }
}

/* What the fd knew that the writer leaves behind. */
static void coroutine_fn test_reopened(const char *dir, const char *opts)
{
    g_autofree char *all_opts = g_strconcat("'auto-read-only': true, ", opts,
                                            NULL);
    char *path = node_test_scratch(dir, 4096);
    BlockDriverState *bs = node_test_co_open_file("file", path, all_opts);
    BlockBackend *blk = node_test_co_attach(bs);
    char buf[512] = "";

    expect(0, 1);
    g_assert_cmpint(co_write(blk, 0, buf, sizeof(buf), 0), ==, 0);
    blk_co_free(blk);
    g_assert_cmpuint(syncs.begun, ==, 1);
    blk = node_test_co_attach(bs);
    g_assert_cmpint(co_flush(blk), ==, -EIO);
    co_close(bs, blk);
    remove_file(path);
}

/* Through whatever stands on the file, by a flush and by FUA. */
static void coroutine_fn test_stacks(const char *dir, const char *opts)
{
    static const char *const stacks[] = {
        "'driver': 'raw', 'file': %s",
        "'driver': 'blkdebug', 'image': %s",
        ("'driver': 'blklogwrites', 'file': %s, 'log': {'driver': 'null-co', "
         "'size': 1073741824}"),
        "'driver': 'qcow2', 'file': %s",
        "'driver': 'compress', 'file': {'driver': 'qcow2', 'file': %s}",
    };
    char *path = node_test_scratch(dir, 4 * MiB);
    g_autofree char *file = g_strdup_printf(
        "{'driver': 'file', 'filename': '%s', %s}", path, opts);
    g_autofree uint8_t *buf = g_malloc0(64 * KiB);

    buf[0] = 1;
    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(stacks); i++) {
        g_auto(GStrv) parts = g_strsplit(stacks[i / 2], "%s", 2);
        g_autofree char *members = g_strjoinv(file, parts);
        g_autofree char *json = g_strdup_printf(
            "{'node-name': 'node', %s}", members);
        Error *err = NULL;
        BlockDriverState *bs;
        BlockBackend *blk;

        image_test_run("qemu-img create -q -f qcow2 %s 1M", path);
        bs = node_test_co_try_open(&err, json);
        node_test_no_error(err);
        blk = node_test_co_attach(bs);
        expect(0, 1);
        if (i % 2) {
            g_assert_cmpint(co_write(blk, 0, buf, 64 * KiB, BDRV_REQ_FUA), ==,
                            -EIO);
        } else {
            g_assert_cmpint(co_write(blk, 0, buf, 64 * KiB, 0), ==, 0);
            g_assert_cmpint(co_flush(blk), ==, -EIO);
        }
        g_assert_cmpint(co_flush(blk), ==, -EIO);
        bdrv_close_failed = false;
        co_close(bs, blk);
        g_assert_true(bdrv_close_failed);
    }
    remove_file(path);
}

int main(int argc, char **argv)
{
    static const char *const opts[] = {
        "'aio': 'threads'", "'aio': 'threads', 'cache': {'direct': true}",
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(opts); i++) {
        add("merged", opts[i], FILE_TEST_DISK, test_merged);
        add("shared-error", opts[i], FILE_TEST_DISK, test_shared_error);
        add("reopened", opts[i], FILE_TEST_DISK, test_reopened);
        add("stacks", opts[i], FILE_TEST_DISK, test_stacks);
    }
    return g_test_run();
}
