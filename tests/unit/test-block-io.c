/* SPDX-License-Identifier: MIT */
/*
 * Single requests: bounds, flush, zeroes, discard, growth, status.
 */
#include "tests/unit/mem-disk.h"

static char *image;

static void coroutine_fn test_bounds(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, "");
    uint8_t buf[64];
    int64_t n;

    g_assert_cmpint(co_read(blk, DISK_SIZE, buf, 1), ==, -EIO);
    g_assert_cmpint(co_read(blk, DISK_SIZE - 1, buf, 2), ==, -EIO);
    g_assert_cmpint(co_read(blk, -1, buf, 1), ==, -EIO);
    g_assert_cmpint(co_read(blk, INT64_MAX, buf, 64), ==, -EIO);
    g_assert_cmpint(co_write(blk, DISK_SIZE, buf, 1, 0), ==, -EIO);
    g_assert_cmpint(co_zeroes(blk, 0, INT64_MAX, 0), ==, -EIO);
    g_assert_cmpint(co_zeroes(blk, -512, 512, 0), ==, -EIO);
    g_assert_cmpint(co_read(blk, DISK_SIZE, buf, 0), ==, 0);
    g_assert_cmpint(co_write(blk, 5, buf, 0, 0), ==, 0);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_pdiscard(blk, DISK_SIZE, 1), ==, -EIO);
    g_assert_cmpint(blk_co_block_status(blk, -1, 1, &n), ==, -EINVAL);
    g_assert_cmpint(blk_co_block_status(blk, 0, INT64_MAX, &n), ==,
                    BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, DISK_SIZE);
    blk_end_request(blk);
    g_assert_cmpint(mem.writes, ==, 0);
    co_mem_done(blk);
}

static void coroutine_fn test_flush_fua(void *opaque)
{
    BlockBackend *blk = co_mem_user(easy, "");
    uint8_t byte = 1;

    g_assert_cmpint(co_write(blk, 0, &byte, 1, 0), ==, 0);
    g_assert_cmpint(mem.flushes, ==, 0);
    g_assert_cmpint(co_write(blk, 0, &byte, 1, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(mem.flushes, ==, 1);
    g_assert_cmpint(mem.fua, ==, 0);
    blk_set_writethrough(blk, true);
    g_assert_cmpint(co_write(blk, 0, &byte, 1, 0), ==, 0);
    g_assert_cmpint(co_zeroes(blk, 0, 1, 0), ==, 0);
    g_assert_cmpint(mem.flushes, ==, 3);
    mem.write_ret = -ENOSPC;
    g_assert_cmpint(co_write(blk, 0, &byte, 1, 0), ==, -ENOSPC);
    g_assert_cmpint(mem.flushes, ==, 3);
    co_mem_done(blk);

    blk = co_mem_user(easy, ", 'cache': {'no-flush': true}");
    g_assert_cmpint(co_write(blk, 0, &byte, 1, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(co_flush(blk), ==, 0);
    g_assert_cmpint(mem.flushes, ==, 0);
    co_mem_done(blk);
}

static void coroutine_fn test_zeroes(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, ", 'discard': 'unmap'");

    memset(mem.data, 1, DISK_SIZE);
    g_assert_cmpint(co_zeroes(blk, 100, 100000, 0), ==, 0);
    g_assert_cmpint(mem.data[99], ==, 1);
    g_assert_cmpint(mem.data[100100], ==, 1);
    for (int i = 100; i < 100100; i++) {
        g_assert_cmpint(mem.data[i], ==, 0);
    }
    g_assert_cmpint(mem.zeroes, ==, 3);         /* [8192, 98304) by 32768 */

    /* A driver that cannot: buffers, or the error if those are not wanted. */
    memset(mem.data, 1, DISK_SIZE);
    mem.zeroes_ret = -ENOTSUP;
    g_assert_cmpint(co_zeroes(blk, 100, 100000, BDRV_REQ_NO_FALLBACK), ==,
                    -ENOTSUP);
    g_assert_cmpint(mem.data[100], ==, 1);
    g_assert_cmpint(co_zeroes(blk, 100, 200000, 0), ==, 0);
    g_assert_cmpint(mem.data[99], ==, 1);
    g_assert_cmpint(mem.data[200100], ==, 1);
    for (int i = 100; i < 200100; i++) {
        g_assert_cmpint(mem.data[i], ==, 0);
    }
    mem.zeroes_ret = -EIO;
    g_assert_cmpint(co_zeroes(blk, 0, 8192, 0), ==, -EIO);
    co_mem_done(blk);
}

static void coroutine_fn test_detect_zeroes(void *opaque)
{
    g_autofree uint8_t *buf = g_malloc0(16384);
    BlockBackend *blk = co_mem_user(easy, ", 'detect-zeroes': 'on'");

    memset(mem.data, 1, DISK_SIZE);
    g_assert_cmpint(co_write(blk, 1000, buf, 16384, 0), ==, 0);
    g_assert_cmpint(mem.zeroes, ==, 1);
    g_assert_cmpint(mem.writes, ==, 0);
    g_assert_cmpint(mem.data[1000], ==, 0);
    buf[16383] = 1;
    g_assert_cmpint(co_write(blk, 1000, buf, 16384, 0), ==, 0);
    g_assert_cmpint(mem.writes, ==, 1);
    co_mem_done(blk);
}

static void coroutine_fn test_discard(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, "");

    g_assert_cmpint(co_discard(blk, 0, 65536), ==, 0);
    g_assert_cmpint(mem.discards, ==, 0);       /* discard=ignore */
    co_mem_done(blk);

    blk = co_mem_user(picky, ", 'discard': 'unmap'");
    memset(mem.data, 1, sizeof(mem.data));
    g_assert_cmpint(co_discard(blk, 100, 8192), ==, 0);
    g_assert_cmpint(mem.discards, ==, 0);
    g_assert_cmpint(co_discard(blk, 100, 70000), ==, 0);
    g_assert_cmpint(mem.discards, ==, 2);       /* [8192, 65536) by 32768 */
    g_assert_cmpint(mem.data[8191], ==, 1);
    g_assert_cmpint(mem.data[8192], ==, 0);
    g_assert_cmpint(mem.data[65535], ==, 0);
    g_assert_cmpint(mem.data[65536], ==, 1);
    g_assert_cmpint(co_discard(blk, DISK_SIZE - 6000, 6000), ==, 0);
    g_assert_cmpint(mem.data[DISK_SIZE - 1], ==, 0);
    co_mem_done(blk);
}

/* A format on top reads past the end and lets its file grow. */
static void coroutine_fn test_growth(void *opaque)
{
    BlockBackend *blk = co_mem_user(picky, "");
    BlockDriverState *bs = blk_bs(blk);
    uint8_t buf[6000];
    QEMUIOVector qiov;

    memset(buf, 7, sizeof(buf));
    qemu_iovec_init_buf(&qiov, buf, 6000);
    blk_co_begin_request(blk);
    g_assert_cmpint(bdrv_co_pwritev(blk_root(blk), DISK_SIZE + 100, &qiov, 0),
                    ==, 0);
    g_assert_cmpint(bdrv_getlength(bs), ==, DISK_SIZE + 6100);
    g_assert_cmpint(mem.len, ==, DISK_SIZE + 6100);
    g_assert_cmpint(bdrv_co_preadv(blk_root(blk), DISK_SIZE + 6000, &qiov, 0),
                    ==, 0);
    g_assert_cmpint(buf[99], ==, 7);
    g_assert_cmpint(buf[100], ==, 0);
    g_assert_cmpint(buf[5999], ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(blk_root(blk), DISK_SIZE + 6100,
                                          5000, 0), ==, 0);
    g_assert_cmpint(bdrv_getlength(bs), ==, DISK_SIZE + 11100);
    blk_end_request(blk);
    co_mem_done(blk);
}

/* The status of a real file, through raw: data, hole, end. */
static void coroutine_fn test_status(void *opaque)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'raw', 'node-name': 'r', 'offset': 512, 'file': "
        "{'driver': 'file', 'filename': '%s'}}", image);
    g_autofree uint8_t *buf = g_malloc(64 * KiB);
    BlockDriverState *bs, *file;
    BlockBackend *blk;
    int64_t n, map;

    g_assert_cmpint(truncate(image, 0), ==, 0);
    g_assert_cmpint(truncate(image, 256 * KiB), ==, 0);
    bs = block_test_co_open(json);
    blk = block_test_co_attach(bs, "b", BLK_PERM_ALL & ~BLK_PERM_RESIZE,
                               BLK_PERM_ALL);
    memset(buf, 1, 64 * KiB);
    g_assert_cmpint(co_write(blk, 64 * KiB - 512, buf, 64 * KiB, 0), ==, 0);

    blk_co_begin_request(blk);
    g_assert_cmpint(bdrv_co_block_status(bs, 0, 256 * KiB, &n, &map, &file),
                    ==, BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID);
    g_assert_cmpint(n, ==, 64 * KiB - 512);
    g_assert_cmpint(map, ==, 512);
    g_assert_true(file == bs->file->bs);
    g_assert_cmpint(blk_co_block_status(blk, n, 256 * KiB, &n), ==,
                    BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID);
    g_assert_cmpint(n, ==, 64 * KiB);
    g_assert_cmpint(blk_co_block_status(blk, 128 * KiB, 256 * KiB, &n), ==,
                    BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 128 * KiB - 512);
    blk_end_request(blk);
    blk_co_free(blk);
    block_test_co_close(bs);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    image = node_test_scratch(g_get_tmp_dir(), DISK_SIZE);
    block_test_add("/block-io/bounds", test_bounds, NULL);
    block_test_add("/block-io/flush-fua", test_flush_fua, NULL);
    block_test_add("/block-io/zeroes", test_zeroes, NULL);
    block_test_add("/block-io/detect-zeroes", test_detect_zeroes, NULL);
    block_test_add("/block-io/discard", test_discard, NULL);
    block_test_add("/block-io/growth", test_growth, NULL);
    block_test_add("/block-io/status", test_status, NULL);
    ret = g_test_run();
    g_unlink(image);
    g_free(image);
    return ret;
}
