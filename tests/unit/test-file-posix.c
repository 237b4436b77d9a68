/* SPDX-License-Identifier: MIT */
/*
 * Driver "file" over real files: reads and writes with the page cache and
 * O_DIRECT, with each engine, on a disk file system and on tmpfs; opening, and
 * reopening for writers.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "config-host.h"
#include "tests/unit/file-test.h"
#include "util/iothread.h"

/* ---- reads and writes ---- */

/* A vector of up to five uneven pieces. */
static void cut_in_pieces(QEMUIOVector *qiov, uint8_t *buf, size_t bytes,
                          size_t unit)
{
    qemu_iovec_init(qiov, 5);
    for (int i = 0; i < 4 && bytes > unit; i++) {
        size_t n = unit * g_random_int_range(1, 1 + MIN(bytes / unit, 64));

        n = MIN(n, bytes);
        qemu_iovec_add(qiov, buf, n);
        buf += n;
        bytes -= n;
    }
    if (bytes) {
        qemu_iovec_add(qiov, buf, bytes);
    }
}

static void coroutine_fn test_rw(const char *dir, const char *opts)
{
    const size_t size = 4 * MiB;
    char *path = node_test_scratch(dir, size);
    BlockDriverState *bs = node_test_co_open_file("file", path, opts);
    BlockBackend *blk = node_test_co_attach(bs);
    uint8_t *shadow = g_malloc0(size);
    uint8_t *buf = g_aligned_alloc0(1, size, 4096);
    g_autofree char *contents = NULL;
    gsize length;

    g_assert_cmpint(blk_getlength(blk), ==, size);
    for (int i = 0; i < 300; i++) {
        size_t unit = i % 3 ? 512 : 4096;
        size_t n = unit * g_random_int_range(1, i % 20 ? 40 : size / unit / 2);
        size_t at = unit * g_random_int_range(0, (size - n) / unit + 1);
        bool write = i % 2;
        QEMUIOVector qiov;

        if (write) {
            fill(buf, n, i);
            memcpy(shadow + at, buf, n);
        } else {
            memset(buf, 0xee, n);
        }
        cut_in_pieces(&qiov, buf, n, 512);
        g_assert_cmpint(write ? co_writev(blk, at, &qiov, 0)
                              : co_readv(blk, at, &qiov), ==, 0);
        g_assert_cmpmem(buf, n, shadow + at, n);
        qemu_iovec_destroy(&qiov);
    }
    g_assert_cmpint(co_flush(blk), ==, 0);
    co_close(bs, blk);

    g_assert_true(g_file_get_contents(path, &contents, &length, NULL));
    g_assert_cmpmem(contents, length, shadow, size);
    g_free(shadow);
    g_aligned_free(buf);
    remove_file(path);
}

/* Offsets and lengths that suit no alignment. */
static void coroutine_fn test_unaligned(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 20001);
    BlockDriverState *bs = node_test_co_open_file("file", path, opts);
    BlockBackend *blk = node_test_co_attach(bs);
    uint8_t *shadow = g_malloc0(30000), *buf = g_malloc(30000);
    int64_t length;

    for (int i = 0; i < 60; i++) {
        size_t at = g_random_int_range(0, 20001);
        size_t n = g_random_int_range(1, 20001 - at + 1);

        fill(buf, n, i);
        memcpy(shadow + at, buf, n);
        g_assert_cmpint(co_write(blk, at, buf, n, 0), ==, 0);
        g_assert_cmpint(co_read(blk, 0, buf, 20001), ==, 0);
        g_assert_cmpmem(buf, 20001, shadow, 20001);
    }
    g_assert_cmpint(blk_getlength(blk), ==, 20001);

    /* Past the end: the file grows, the gap is zero. */
    fill(buf, 777, 99);
    memcpy(shadow + 25000, buf, 777);
    g_assert_cmpint(co_append(blk, 25000, buf, 777, 0), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 25777);
    g_assert_cmpint(co_read(blk, 0, buf, 25777), ==, 0);
    g_assert_cmpmem(buf, 25777, shadow, 25777);
    g_assert_cmpint(co_read(blk, 25000, buf, 778), ==, -EIO);
    blk_co_begin_request(blk);
    length = blk_co_getlength(blk);
    blk_end_request(blk);
    g_assert_cmpint(length, ==, 25777);

    co_close(bs, blk);
    g_free(shadow);
    g_free(buf);
    remove_file(path);
}

/* Someone else makes the file shorter: what is gone reads as zeroes. */
static void coroutine_fn test_shrunk(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 64 * KiB);
    BlockDriverState *bs = node_test_co_open_file("file", path, opts);
    BlockBackend *blk = node_test_co_attach(bs);
    uint8_t *buf = g_aligned_alloc0(1, 64 * KiB, 4096);

    fill(buf, 64 * KiB, 1);
    g_assert_cmpint(co_write(blk, 0, buf, 64 * KiB, 0), ==, 0);
    g_assert_cmpint(truncate(path, 10000), ==, 0);
    memset(buf, 0xee, 64 * KiB);
    g_assert_cmpint(co_read(blk, 0, buf, 64 * KiB), ==, 0);
    g_assert_cmpint(buf[9999], !=, 0);
    assert_zero(buf + 10000, 64 * KiB - 10000);
    memset(buf, 0xee, 64 * KiB);
    g_assert_cmpint(co_read(blk, 32 * KiB, buf, 4096), ==, 0);
    assert_zero(buf, 4096);

    co_close(bs, blk);
    g_aligned_free(buf);
    remove_file(path);
}

#define N_WORKERS 64
#define PER_WORKER 16
#define CHUNK (8 * KiB)

typedef struct Worker {
    BlockBackend *blk;
    int64_t offset;
    AioContext *home, *ctx;
    int *running;
    Coroutine *waiter;
    uint8_t *buf;
} Worker;

static void coroutine_fn worker_entry(void *opaque)
{
    Worker *w = opaque;

    for (int i = 0; i < PER_WORKER; i++) {
        int64_t at = w->offset + i * CHUNK;

        fill(w->buf, CHUNK, at);
        g_assert_cmpint(co_write(w->blk, at, w->buf, CHUNK, 0), ==, 0);
        g_assert_cmpint(co_read(w->blk, at, w->buf + CHUNK, CHUNK),
                        ==, 0);
        g_assert_cmpmem(w->buf, CHUNK, w->buf + CHUNK, CHUNK);
    }
    aio_co_reschedule_self(w->home);
    if (--*w->running == 0 && w->waiter) {
        aio_co_wake(w->waiter);
    }
}

/* Many requests at once, from this thread and two others. */
static void coroutine_fn test_threads(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, N_WORKERS * PER_WORKER * CHUNK);
    BlockDriverState *bs = node_test_co_open_file("file", path, opts);
    BlockBackend *blk = node_test_co_attach(bs);
    IOThread *t1 = iothread_new("t1", &iothread_default_params, NULL);
    IOThread *t2 = iothread_new("t2", &iothread_default_params, NULL);
    AioContext *home = aio_context_current();
    AioContext *ctx[3] = {
        home, iothread_aio_context(t1), iothread_aio_context(t2),
    };
    Worker w[N_WORKERS];
    int running = N_WORKERS;

    for (int i = 0; i < N_WORKERS; i++) {
        w[i] = (Worker) {
            .blk = blk, .offset = (int64_t)i * PER_WORKER * CHUNK,
            .home = home, .ctx = ctx[i % 3], .running = &running,
            .waiter = coroutine_self(),
            .buf = g_aligned_alloc0(2, CHUNK, 4096),
        };
    }
    for (int i = 0; i < N_WORKERS; i++) {
        aio_co_schedule(w[i].ctx, coroutine_create(worker_entry, &w[i]));
    }
    coroutine_yield();
    g_assert_cmpint(running, ==, 0);
    for (int i = 0; i < N_WORKERS; i++) {
        g_aligned_free(w[i].buf);
    }
    co_close(bs, blk);
    iothread_free(t1);
    iothread_free(t2);
    remove_file(path);
}

/* ---- opening ---- */

static void coroutine_fn test_refusals(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 4096);
    g_autofree char *fifo = g_strconcat(path, ".fifo", NULL);

    expect_refusal("file", "missing.img", "",
                   "Could not open '%s': No such file or directory");
    expect_refusal("file", dir, "", "Could not open '%s': Is a directory");
    expect_refusal("file", dir, "'read-only': true",
                   "'file' driver requires '%s' to be a regular file");
    expect_refusal("host_device", path, "", "'host_device' driver requires "
                   "'%s' to be either a character or block device");
    expect_refusal("file", "", "",
                   "The 'file' block driver requires a file name");
    expect_refusal("file", "/dev/null", "",
                   "'file' driver requires '%s' to be a regular file");
    expect_refusal("file", "/proc/version", "'read-only': true",
                   "Could not refresh total sector count: Invalid argument");
    expect_refusal("file", "/proc/version",
                   "'read-only': true, 'cache': {'direct': true}",
                   "Could not open '%s': filesystem does not support "
                   "O_DIRECT");
    expect_refusal("file", path, "'aio': 'native'", "aio=native was "
                   "specified, but it requires cache.direct=on, which was "
                   "not specified.");
    expect_refusal("file", path, "'force-share': true",
                   "force-share=on can only be used with read-only images");

    /* Nobody writes to it: opening must not wait. */
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    expect_refusal("file", fifo, "'read-only': true",
                   "'file' driver requires '%s' to be a regular file");
    unlink(fifo);

    if (!aio_context_has_ring(aio_context_current())) {
        expect_refusal("file", path, "'aio': 'io_uring'", "aio=io_uring was "
                       "specified, but io_uring is not available on this "
                       "system.");
    }
    remove_file(path);
}

/* Flags with which this process has @path open, or -1. */
static int open_flags(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
    const char *name;
    int flags = -1;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *link = g_strconcat("/proc/self/fd/", name, NULL);
        g_autofree char *target = g_file_read_link(link, NULL);

        if (!g_strcmp0(target, path)) {
            g_assert_cmpint(flags, ==, -1);         /* one fd only */
            flags = fcntl(atoi(name), F_GETFL);
        }
    }
    return flags;
}

static void coroutine_fn test_auto_read_only(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 4096);
    g_autofree char *moved = g_strconcat(path, ".moved", NULL);
    g_autofree char *contents = NULL;
    Error *err = NULL;
    BlockDriverState *bs;
    BlockBackend *reader, *writer;
    char buf[5] = "hello";

    bs = node_test_co_open_file("file", path, "'auto-read-only': true");
    g_assert_cmpint(open_flags(path) & O_ACCMODE, ==, O_RDONLY);
    reader = node_test_co_try_attach(&err, bs, BLK_PERM_CONSISTENT_READ,
                                     BLK_PERM_ALL);
    node_test_no_error(err);
    g_assert_cmpint(open_flags(path) & O_ACCMODE, ==, O_RDONLY);

    /* Another file has the name now: it must not be the one written to. */
    g_assert_cmpint(rename(path, moved), ==, 0);
    g_assert_true(g_file_set_contents(path, "bystander", -1, NULL));
    writer = node_test_co_attach(bs);
    g_assert_cmpint(open_flags(moved) & O_ACCMODE, ==, O_RDWR);
    g_assert_cmpint(co_write(writer, 0, buf, 5, 0), ==, 0);
    blk_co_free(writer);
    g_assert_cmpint(open_flags(moved) & O_ACCMODE, ==, O_RDONLY);
    g_assert_cmpint(open_flags(path), ==, -1);

    g_assert_true(g_file_get_contents(moved, &contents, NULL, NULL));
    g_assert_cmpmem(contents, 5, "hello", 5);
    co_close(bs, reader);
    g_assert_cmpint(open_flags(moved), ==, -1);
    unlink(moved);
    remove_file(path);
}

static bool set_immutable(const char *path, bool on)
{
    int fd = open(path, O_RDONLY), flags = 0;
    bool ok = fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0;

    if (ok) {
        flags = on ? flags | FS_IMMUTABLE_FL : flags & ~FS_IMMUTABLE_FL;
        ok = ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
    }
    close(fd);
    return ok;
}

/* The file cannot be written to: readers are served, writers refused. */
static void coroutine_fn test_read_only_file(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 4096);
    g_autofree char *want = g_strdup_printf(
        "Could not open '%s': Operation not permitted", path);
    Error *err = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;

    if (!set_immutable(path, true)) {
        g_test_skip("cannot make a file immutable here");
        remove_file(path);
        return;
    }
    expect_refusal("file", path, "", "Could not open '%s': Operation not "
                   "permitted");
    bs = node_test_co_open_file("file", path, "'auto-read-only': true");
    g_assert_null(node_test_co_try_attach(&err, bs, BLK_PERM_WRITE,
                                          BLK_PERM_ALL));
    node_test_assert_error(err, want);
    blk = node_test_co_try_attach(&err, bs, BLK_PERM_CONSISTENT_READ,
                                  BLK_PERM_ALL);
    node_test_no_error(err);
    g_assert_cmpint(open_flags(path) & O_ACCMODE, ==, O_RDONLY);
    co_close(bs, blk);
    g_assert_true(set_immutable(path, false));
    remove_file(path);
}

static void coroutine_fn test_dev_fd(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 8192);
    int fd = open(path, O_RDWR);
    g_autofree char *name = g_strdup_printf("/dev/fd/%d", fd);
    BlockDriverState *bs;
    BlockBackend *blk;
    char buf[4] = "text", check[4];

    remove_file(path);                      /* reached by the fd only */
    bs = node_test_co_open_file("file", name, "'auto-read-only': true");
    blk = node_test_co_attach(bs);
    g_assert_cmpint(blk_getlength(blk), ==, 8192);
    g_assert_cmpint(co_write(blk, 100, buf, 4, 0), ==, 0);
    g_assert_cmpint(pread(fd, check, 4, 100), ==, 4);
    g_assert_cmpmem(buf, 4, check, 4);
    co_close(bs, blk);
    close(fd);
}

/* ---- table ---- */

static void add_io(const char *opts, const char *dir)
{
    add("rw", opts, dir, test_rw);
    add("unaligned", opts, dir, test_unaligned);
    add("shrunk", opts, dir, test_shrunk);
    add("threads", opts, dir, test_threads);
}

int main(int argc, char **argv)
{
    static const char *const opts[] = {
        "",
        "'aio': 'threads'",
        "'aio': 'io_uring'",
        "'cache': {'direct': true}",
        "'cache': {'direct': true}, 'aio': 'threads'",
        "'cache': {'direct': true}, 'aio': 'io_uring'",
#ifdef CONFIG_LINUX_AIO
        "'cache': {'direct': true}, 'aio': 'native'",
        "'cache': {'direct': true}, 'aio': 'native', 'aio-max-batch': 2",
#endif
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(opts); i++) {
        add_io(opts[i], FILE_TEST_DISK);
        add_io(opts[i], FILE_TEST_MEM);
    }
    add("refusals", "", FILE_TEST_DISK, test_refusals);
    add("auto-read-only", "", FILE_TEST_DISK, test_auto_read_only);
    add("read-only-file", "", FILE_TEST_DISK, test_read_only_file);
    add("dev-fd", "", FILE_TEST_DISK, test_dev_fd);
    return g_test_run();
}
