/* SPDX-License-Identifier: MIT */
/*
 * The raw driver: windows, growth, changes of the file's length; null drivers.
 */
#include "tests/unit/block-test.h"
#include "tests/unit/request-test.h"

static char *image;                     /* a file of 1 MiB in each test */

static BlockDriverState *coroutine_fn co_open_raw(const char *more)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'file', "
        "'node-name': 'f', 'filename': '%s'}%s}", image, more);

    g_assert_cmpint(truncate(image, 0), ==, 0);
    g_assert_cmpint(truncate(image, MiB), ==, 0);
    return block_test_co_open(json);
}

static void coroutine_fn co_open_fails(const char *more, const char *text)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'null-co', "
        "'size': %d}%s}", MiB, more);

    block_test_co_open_fails(json, text);
}

static void coroutine_fn test_options(void *opaque)
{
    co_open_fails(", 'size': 2097152",
                  "The sum of offset (0) and size (2097152) has to be smaller "
                  "or equal to the  actual size of the containing file "
                  "(1048576)");
    co_open_fails(", 'size': 1000", "Specified size is not multiple of 512");
    co_open_fails(", 'offset': 2097152",
                  "Offset (2097152) cannot be greater than size of the "
                  "containing file (1048576)");
    co_open_fails(", 'offset': 512, 'size': 1048576",
                  "The sum of offset (512) and size (1048576) has to be "
                  "smaller or equal to the  actual size of the containing "
                  "file (1048576)");
    co_open_fails(", 'offset': -512", "Value '-512' is out of range for "
                  "parameter 'offset'");
    co_open_fails(", 'offset': 9223372036854775807",
                  "Offset (9223372036854775807) cannot be greater than size "
                  "of the containing file (1048576)");
    co_open_fails(", 'offset': 512, 'size': 9223372036854775296",
                  "The sum of offset (512) and size (9223372036854775296) has "
                  "to be smaller or equal to the  actual size of the "
                  "containing file (1048576)");
    g_assert_true(TAILQ_EMPTY(&bdrv_all_nodes));
}

static void coroutine_fn test_window(void *opaque)
{
    BlockDriverState *bs = co_open_raw(", 'offset': 1000, 'size': 1024");
    BlockBackend *blk = block_test_co_attach(bs, "b", BLK_PERM_ALL
                                             & ~BLK_PERM_RESIZE, BLK_PERM_ALL);
    BlockBackend *below = block_test_co_attach(bs->file->bs, "f",
                                               BLK_PERM_CONSISTENT_READ,
                                               BLK_PERM_ALL);
    char buf[1200] = "window", all[4096];
    QEMUIOVector qiov;

    g_assert_cmpint(blk_getlength(blk), ==, 1024);
    g_assert_cmpint(co_write(blk, 1024, buf, 1, 0), ==, -EIO);
    g_assert_cmpint(co_write(blk, 1023, buf, 2, 0), ==, -EIO);
    g_assert_cmpint(co_write(blk, 0, buf, 1025, 0), ==, -EIO);
    g_assert_cmpint(co_read(blk, 0, buf, 1025), ==, -EIO);
    /* A format on top could write further: there is no room. */
    qemu_iovec_init_buf(&qiov, buf, 8);
    blk_co_begin_request(blk);
    g_assert_cmpint(bdrv_co_pwritev(blk_root(blk), 1020, &qiov, 0), ==,
                    -ENOSPC);
    blk_end_request(blk);

    g_assert_cmpint(co_write(blk, 1016, buf, 8, 0), ==, 0);
    g_assert_cmpint(co_write(blk, 0, buf, 8, 0), ==, 0);
    g_assert_cmpint(co_read(below, 0, all, sizeof(all)), ==, 0);
    g_assert_cmpstr(all + 1000, ==, "window");
    g_assert_cmpstr(all + 1000 + 1016, ==, "window");
    g_assert_cmpstr(all + 999, ==, "");
    g_assert_cmpstr(all + 1000 + 1024, ==, "");
    blk_co_free(blk);
    blk_co_free(below);
    block_test_co_close(bs);
}

/* Without size the end is where the file's end is, whoever moves it. */
static void coroutine_fn test_length(void *opaque)
{
    BlockDriverState *bs = co_open_raw("");
    BlockDriverState *file = bs->file->bs;
    BlockBackend *blk = block_test_co_attach(bs, "b", BLK_PERM_ALL,
                                             BLK_PERM_ALL);
    BlockBackend *below = block_test_co_attach(file, "f", BLK_PERM_ALL,
                                               BLK_PERM_ALL);
    Error *err = NULL;
    int64_t n;

    g_assert_cmpint(blk_getlength(blk), ==, MiB);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_truncate(blk, 2 * MiB, PREALLOC_MODE_OFF, 0, &err),
                    ==, 0);
    g_assert_cmpint(blk_getlength(below), ==, 2 * MiB);
    g_assert_cmpint(blk_co_truncate(below, 3 * MiB, PREALLOC_MODE_OFF, 0,
                                    &err), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 3 * MiB);
    g_assert_cmpint(truncate(image, 1000), ==, 0);
    g_assert_cmpint(blk_co_getlength(blk), ==, 1000);
    g_assert_cmpint(blk_getlength(blk), ==, 1000);
    g_assert_cmpint(blk_co_block_status(blk, 0, MiB, &n), ==,
                    BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_ZERO | BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 1000);
    blk_end_request(blk);
    blk_co_free(below);
    blk_co_free(blk);
    block_test_co_close(bs);

    bs = co_open_raw(", 'offset': 512");
    g_assert_cmpint(bdrv_getlength(bs), ==, MiB - 512);
    blk = block_test_co_attach(bs, "b", BLK_PERM_ALL, BLK_PERM_ALL);
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_truncate(blk, 1024, PREALLOC_MODE_OFF, 0, &err), ==,
                    0);
    g_assert_cmpint(bdrv_getlength(bs->file->bs), ==, 1536);
    g_assert_cmpint(blk_co_truncate(blk, BDRV_MAX_LENGTH, PREALLOC_MODE_OFF, 0,
                                    &err), ==, -EFBIG);
    error_free(err);
    blk_end_request(blk);
    blk_co_free(blk);
    block_test_co_close(bs);
}

static void coroutine_fn test_null(void *opaque)
{
    BlockDriverState *bs;
    BlockBackend *blk;
    uint8_t buf[100];
    int64_t n, start;

    block_test_co_open_fails("{'driver': 'null-co', 'node-name': 'n', "
                             "'latency-ns': 9223372036854775808}",
                             "latency-ns is invalid");
    block_test_co_open_fails("{'driver': 'null-co', 'node-name': 'n', "
                             "'size': -1}", "Value '-1' is out of range for "
                             "parameter 'size'");
    block_test_co_open_fails("{'driver': 'null-co', 'node-name': 'n', "
                             "'size': 9223372036854775807}", "Could not "
                             "refresh total sector count: File too large");
    bs = block_test_co_open("{'driver': 'null-aio', 'node-name': 'n'}");
    g_assert_cmpint(bdrv_getlength(bs), ==, 1 << 30);
    block_test_co_close(bs);

    bs = block_test_co_open("{'driver': 'null-co', 'node-name': 'n', 'size': "
                            "1000, 'latency-ns': 2000000, "
                            "'read-zeroes': true}");
    blk = block_test_co_attach(bs, "b", BLK_PERM_ALL, BLK_PERM_ALL);
    memset(buf, 1, sizeof(buf));
    start = clock_now_ns();
    g_assert_cmpint(co_read(blk, 900, buf, 100), ==, 0);
    g_assert_cmpint(clock_now_ns() - start, >=, 2000000);
    for (unsigned i = 0; i < sizeof(buf); i++) {
        g_assert_cmpint(buf[i], ==, 0);
    }
    blk_co_begin_request(blk);
    g_assert_cmpint(blk_co_block_status(blk, 100, 2000, &n), ==,
                    BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ALLOCATED
                    | BDRV_BLOCK_ZERO | BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 900);
    g_assert_cmpint(blk_co_block_status(blk, 1000, 1, &n), ==, BDRV_BLOCK_EOF);
    g_assert_cmpint(n, ==, 0);
    blk_end_request(blk);
    blk_co_free(blk);
    block_test_co_close(bs);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    image = node_test_scratch(g_get_tmp_dir(), MiB);
    block_test_add("/raw/options", test_options, NULL);
    block_test_add("/raw/window", test_window, NULL);
    block_test_add("/raw/length", test_length, NULL);
    block_test_add("/null", test_null, NULL);
    ret = g_test_run();
    g_unlink(image);
    g_free(image);
    return ret;
}
