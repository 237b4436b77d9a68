/* SPDX-License-Identifier: MIT */
/*
 * Drivers "file" and "host_device": holes, zeroes, discard, truncate and full
 * file systems, on a disk file system and on tmpfs; loop devices where the test
 * runs as root.
 */
#include <sys/mount.h>

#include "tests/unit/file-test.h"

/* ---- holes, zeroes, discard ---- */

static int coroutine_fn co_status(BlockBackend *blk, int64_t offset,
                                  int64_t bytes, int64_t *pnum)
{
    int ret;

    blk_co_begin_request(blk);
    ret = blk_co_block_status(blk, offset, bytes, pnum);
    blk_end_request(blk);
    return ret;
}

static void coroutine_fn test_holes(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 1 * MiB);
    BlockDriverState *bs = node_test_co_open_file("file", path, opts);
    BlockBackend *blk = node_test_co_attach(bs);
    uint8_t *buf = g_aligned_alloc0(1, 64 * KiB, 4096);
    int64_t pnum;
    int ret;

    fill(buf, 64 * KiB, 1);
    g_assert_cmpint(co_write(blk, 256 * KiB, buf, 64 * KiB, 0), ==, 0);

    ret = co_status(blk, 0, 1 * MiB, &pnum);
    g_assert_true(ret & BDRV_BLOCK_ZERO);
    g_assert_cmpint(pnum, ==, 256 * KiB);
    ret = co_status(blk, 0, 8 * KiB, &pnum);
    g_assert_true(ret & BDRV_BLOCK_ZERO);
    g_assert_cmpint(pnum, ==, 8 * KiB);
    ret = co_status(blk, 260 * KiB, 764 * KiB, &pnum);
    g_assert_true(ret & BDRV_BLOCK_DATA);
    g_assert_cmpint(pnum, ==, 60 * KiB);
    ret = co_status(blk, 320 * KiB, 704 * KiB, &pnum);
    g_assert_true(ret & BDRV_BLOCK_ZERO);
    g_assert_cmpint(pnum, ==, 704 * KiB);
    g_assert_true(ret & BDRV_BLOCK_EOF);
    g_assert_cmpint(co_allocated(blk), >=, 64 * KiB);
    g_assert_cmpint(co_allocated(blk), <, 512 * KiB);

    co_close(bs, blk);
    g_aligned_free(buf);
    remove_file(path);
}

static void coroutine_fn test_zeroes(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 1 * MiB);
    BlockDriverState *bs = node_test_co_open_file("file", path, opts);
    BlockBackend *blk = node_test_co_attach(bs);
    uint8_t *buf = g_aligned_alloc0(1, 2 * MiB, 4096);
    bool unmap = strstr(opts, "unmap");
    int64_t full;

    fill(buf, 1 * MiB, 1);
    g_assert_cmpint(co_write(blk, 0, buf, 1 * MiB, 0), ==, 0);
    g_assert_cmpint(co_flush(blk), ==, 0);
    full = co_allocated(blk);
    g_assert_cmpint(full, >=, 1 * MiB);

    /* Zeroes that stay allocated, and unaligned ones. */
    g_assert_cmpint(co_zeroes(blk, 64 * KiB, 64 * KiB, 0), ==, 0);
    g_assert_cmpint(co_zeroes(blk, 1001, 5000, 0), ==, 0);
    g_assert_cmpint(co_allocated(blk), >=, full);
    g_assert_cmpint(co_read(blk, 0, buf, 1 * MiB), ==, 0);
    assert_zero(buf + 64 * KiB, 64 * KiB);
    assert_zero(buf + 1001, 5000);
    g_assert_cmpint(buf[1000], !=, 0);
    g_assert_cmpint(buf[6001], !=, 0);
    g_assert_cmpint(buf[128 * KiB], !=, 0);

    g_assert_cmpint(co_zeroes(blk, 256 * KiB, 128 * KiB,
                              BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(co_discard(blk, 512 * KiB, 128 * KiB), ==, 0);
    g_assert_cmpint(co_read(blk, 0, buf, 1 * MiB), ==, 0);
    assert_zero(buf + 256 * KiB, 128 * KiB);
    if (unmap) {
        assert_zero(buf + 512 * KiB, 128 * KiB);
        g_assert_cmpint(co_allocated(blk), <, full - 192 * KiB);
    } else {
        g_assert_cmpint(buf[512 * KiB], !=, 0);
        g_assert_cmpint(co_allocated(blk), >=, full);
    }

    /* Across and past the end: the file grows. */
    g_assert_cmpint(co_append(blk, 960 * KiB, NULL, 128 * KiB, 0), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 1088 * KiB);
    g_assert_cmpint(co_append(blk, 1088 * KiB, NULL, 64 * KiB,
                              BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 1152 * KiB);
    memset(buf, 0xee, 2 * MiB);
    g_assert_cmpint(co_read(blk, 0, buf, 1152 * KiB), ==, 0);
    g_assert_cmpint(buf[960 * KiB - 1], !=, 0);
    assert_zero(buf + 960 * KiB, 192 * KiB);

    co_close(bs, blk);
    g_aligned_free(buf);
    remove_file(path);
}

/* ---- truncate ---- */

static void coroutine_fn test_truncate(const char *dir, const char *opts)
{
    char *path = node_test_scratch(dir, 64 * KiB);
    BlockDriverState *bs = node_test_co_open_file("file", path, opts);
    BlockBackend *blk = node_test_co_attach(bs);
    Error *err = NULL;
    struct stat st;

    g_assert_cmpint(co_truncate(blk, 100001, PREALLOC_MODE_OFF, &err), ==, 0);
    node_test_no_error(err);
    g_assert_cmpint(blk_getlength(blk), ==, 100001);
    g_assert_cmpint(co_allocated(blk), <, 64 * KiB);
    g_assert_cmpint(co_truncate(blk, 333, PREALLOC_MODE_OFF, &err), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 333);

    g_assert_cmpint(co_truncate(blk, 1 * MiB, PREALLOC_MODE_FALLOC, &err),
                    ==, 0);
    node_test_no_error(err);
    g_assert_cmpint(co_allocated(blk), >=, 1 * MiB - 4 * KiB);
    g_assert_cmpint(co_truncate(blk, 3 * MiB + 7, PREALLOC_MODE_FULL, &err),
                    ==, 0);
    node_test_no_error(err);
    g_assert_cmpint(co_allocated(blk), >=, 3 * MiB - 4 * KiB);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 3 * MiB + 7);

    g_assert_cmpint(co_truncate(blk, 4 * MiB, PREALLOC_MODE_METADATA, &err),
                    <, 0);
    node_test_assert_error(err, "Unsupported preallocation mode: metadata");
    g_assert_cmpint(co_truncate(blk, 1 * MiB, PREALLOC_MODE_FULL, &err),
                    <, 0);
    g_clear_pointer(&err, error_free);
    g_assert_cmpint(blk_getlength(blk), ==, 3 * MiB + 7);

    co_close(bs, blk);
    remove_file(path);
}

/* ---- devices and full file systems (root) ---- */

typedef struct SmallFs {
    char *dir;
    char *file;
    char *loop;                 /* device over @file, or NULL */
} SmallFs;

/* A tmpfs of 2 MiB with a sparse file of 8 MiB, and a loop device over it. */
static bool small_fs_make(SmallFs *fs, const char *loop_opts)
{
    g_autofree char *command = NULL;

    *fs = (SmallFs) { .dir = g_dir_make_tmp("qsd-test-XXXXXX", NULL) };
    if (geteuid() != 0
        || mount("none", fs->dir, "tmpfs", 0, "size=2M") < 0) {
        rmdir(fs->dir);
        g_free(fs->dir);
        g_test_skip("needs root, to mount a small file system");
        return false;
    }
    fs->file = node_test_scratch(fs->dir, 8 * MiB);
    if (loop_opts) {
        command = g_strdup_printf("losetup -f --show %s %s", loop_opts,
                                  fs->file);
        fs->loop = node_test_run(command);
    }
    return true;
}

static void small_fs_remove(SmallFs *fs)
{
    if (fs->loop) {
        g_autofree char *command = g_strdup_printf("losetup -d %s", fs->loop);

        g_free(node_test_run(command));
    }
    remove_file(fs->file);
    umount2(fs->dir, MNT_DETACH);
    rmdir(fs->dir);
    g_free(fs->loop);
    g_free(fs->dir);
}

static void coroutine_fn test_no_space(const char *dir, const char *opts)
{
    SmallFs fs;
    BlockDriverState *bs;
    BlockBackend *blk;
    Error *err = NULL;
    uint8_t *buf;

    if (!small_fs_make(&fs, NULL)) {
        return;
    }
    buf = g_aligned_alloc0(1, 4 * MiB, 4096);
    bs = node_test_co_open_file("file", fs.file, opts);
    blk = node_test_co_attach(bs);

    fill(buf, 4 * MiB, 1);
    g_assert_cmpint(co_write(blk, 0, buf, 4 * MiB, 0), ==, -ENOSPC);
    g_assert_cmpint(co_truncate(blk, 0, PREALLOC_MODE_OFF, &err), ==, 0);
    g_assert_cmpint(co_truncate(blk, 8 * MiB, PREALLOC_MODE_FALLOC, &err),
                    ==, -ENOSPC);
    node_test_assert_error(err, "Could not preallocate new data: No space "
                           "left on device");
    g_assert_cmpint(co_truncate(blk, 8 * MiB, PREALLOC_MODE_FULL, &err),
                    ==, -ENOSPC);
    node_test_assert_error(err, "Could not write zeros for preallocation: "
                           "No space left on device");
    g_assert_cmpint(blk_getlength(blk), ==, 0);
    g_assert_cmpint(co_append(blk, 0, buf, 64 * KiB, 0), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 64 * KiB);

    co_close(bs, blk);
    g_aligned_free(buf);
    small_fs_remove(&fs);
}

static bool need_loop(SmallFs *fs, const char *loop_opts)
{
    if (!small_fs_make(fs, loop_opts)) {
        return false;
    }
    if (!fs->loop) {
        small_fs_remove(fs);
        g_test_skip("no loop device to be had");
        return false;
    }
    return true;
}

static void coroutine_fn test_device(const char *dir, const char *opts)
{
    SmallFs fs;
    BlockDriverState *bs;
    BlockBackend *blk;
    Error *err = NULL;
    uint8_t *buf;

    if (!need_loop(&fs, "")) {
        return;
    }
    expect_refusal("file", fs.loop, "",
                   "'file' driver requires '%s' to be a regular file");
    buf = g_aligned_alloc0(1, 1 * MiB, 4096);
    bs = node_test_co_open_file("host_device", fs.loop, opts);
    blk = node_test_co_attach(bs);
    g_assert_cmpint(blk_getlength(blk), ==, 8 * MiB);
    g_assert_cmpint(bs->bl.request_alignment, ==,
                    strstr(opts, "direct") ? 512 : 1);

    fill(buf, 1 * MiB, 1);
    g_assert_cmpint(co_write(blk, 7 * MiB, buf, 1 * MiB, 0), ==, 0);
    g_assert_cmpint(co_write(blk, 8 * MiB, buf, 512, 0), ==, -EIO);
    g_assert_cmpint(co_zeroes(blk, 7 * MiB + 8192, 8192, 0), ==, 0);
    g_assert_cmpint(co_zeroes(blk, 7 * MiB + 100, 1000, 0), ==, 0);
    g_assert_cmpint(co_zeroes(blk, 7 * MiB + 64 * KiB, 64 * KiB,
                              BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(co_discard(blk, 7 * MiB + 128 * KiB, 64 * KiB), ==, 0);
    g_assert_cmpint(co_discard(blk, 7 * MiB + 1, 600), ==, 0);
    g_assert_cmpint(co_flush(blk), ==, 0);
    memset(buf, 0xee, 1 * MiB);
    g_assert_cmpint(co_read(blk, 7 * MiB, buf, 1 * MiB), ==, 0);
    assert_zero(buf + 8192, 8192);
    assert_zero(buf + 100, 1000);
    assert_zero(buf + 64 * KiB, 64 * KiB);
    if (strstr(opts, "unmap")) {
        assert_zero(buf + 128 * KiB, 64 * KiB);
    }
    g_assert_cmpint(buf[99], !=, 0);
    g_assert_cmpint(buf[1100], !=, 0);
    g_assert_cmpint(buf[192 * KiB], !=, 0);

    g_assert_cmpint(co_truncate(blk, 9 * MiB, PREALLOC_MODE_OFF, &err), <, 0);
    node_test_assert_error(err, "Cannot resize device files");
    g_assert_cmpint(co_truncate(blk, 8 * MiB, PREALLOC_MODE_OFF, &err), ==, 0);
    g_assert_cmpint(co_truncate(blk, 9 * MiB, PREALLOC_MODE_FULL, &err),
                    <, 0);
    node_test_assert_error(err, "Preallocation mode 'full' unsupported for "
                           "this non-regular file");
    co_close(bs, blk);
    g_aligned_free(buf);
    small_fs_remove(&fs);
}

static void coroutine_fn test_protected_device(const char *dir,
                                               const char *opts)
{
    SmallFs fs;
    BlockDriverState *bs;
    Error *err = NULL;

    if (!need_loop(&fs, "-r")) {
        return;
    }
    expect_refusal("host_device", fs.loop, "",
                   "The device is not writable: Permission denied");
    bs = node_test_co_open_file("host_device", fs.loop,
                                "'auto-read-only': true");
    g_assert_null(node_test_co_try_attach(&err, bs, BLK_PERM_WRITE,
                                          BLK_PERM_ALL));
    node_test_assert_error(err, "The device is not writable: Permission "
                           "denied");
    bdrv_co_unref(bs);
    small_fs_remove(&fs);
}

/* A flush that failed is not forgotten: its data is gone. */
static void coroutine_fn test_failed_flush(const char *dir, const char *opts)
{
    SmallFs fs;
    BlockDriverState *bs;
    BlockBackend *blk;
    uint8_t *buf;

    if (!need_loop(&fs, "")) {
        return;
    }
    buf = g_malloc(4 * MiB);
    bs = node_test_co_open_file("host_device", fs.loop, opts);
    blk = node_test_co_attach(bs);
    fill(buf, 4 * MiB, 1);
    g_assert_cmpint(co_write(blk, 0, buf, 4 * MiB, 0), ==, 0);
    g_assert_cmpint(co_flush(blk), <, 0);
    g_assert_cmpint(co_flush(blk), <, 0);
    g_assert_cmpint(co_flush(blk), <, 0);
    co_close(bs, blk);
    g_free(buf);
    small_fs_remove(&fs);
}

static void coroutine_fn test_char_device(const char *dir, const char *opts)
{
    BlockDriverState *bs = node_test_co_open_file("host_device", "/dev/null",
                                                  "");
    BlockBackend *blk = node_test_co_attach(bs);

    g_assert_cmpint(blk_getlength(blk), ==, 0);
    g_assert_cmpint(co_flush(blk), ==, 0);
    co_close(bs, blk);
}

/* ---- table ---- */

int main(int argc, char **argv)
{
    static const char *const opts[] = {
        "'discard': 'unmap'",
        "'discard': 'unmap', 'aio': 'threads'",
        "'discard': 'ignore'",
        "'discard': 'unmap', 'cache': {'direct': true}",
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(opts); i++) {
        add("holes", opts[i], FILE_TEST_DISK, test_holes);
        add("holes", opts[i], FILE_TEST_MEM, test_holes);
        add("zeroes", opts[i], FILE_TEST_DISK, test_zeroes);
        add("zeroes", opts[i], FILE_TEST_MEM, test_zeroes);
        add("device", opts[i], FILE_TEST_DISK, test_device);
    }
    add("truncate", "", FILE_TEST_DISK, test_truncate);
    add("truncate", "", FILE_TEST_MEM, test_truncate);
    add("truncate", "'cache': {'direct': true}", FILE_TEST_DISK,
        test_truncate);
    add("no-space", "", FILE_TEST_DISK, test_no_space);
    add("no-space", "'aio': 'threads'", FILE_TEST_DISK, test_no_space);
    add("protected-device", "", FILE_TEST_DISK, test_protected_device);
    add("failed-flush", "", FILE_TEST_DISK, test_failed_flush);
    add("char-device", "", FILE_TEST_DISK, test_char_device);
    return g_test_run();
}
